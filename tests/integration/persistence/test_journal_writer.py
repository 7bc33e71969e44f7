"""Journals whose process is killed, and journals on disks that are full."""

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.errors import JournalError, JournalFullError
from persistence.journal.folder import claim
from persistence.journal.writer import Journal, JournalLimits
from persistence.records import Final, Record
from tests.support.journalled import begun, everything, final, found_in, small
from tests.support.tmpfs import make_read_only, tmpfs

KILLS = 20
LIMIT_S = 60.0
MIB = 1 << 20
ROOT = Path(__file__).parents[3]

# Appends batches as fast as it can, and says the last number of each that was appended.
APPEND = """
import os, sys, threading
from pathlib import Path
from persistence.journal.writer import Journal
from tests.support.journalled import begun, final, small

journal = Journal.create(Path(sys.argv[1]), begun(), small(segment_bytes=20_000, reserve_bytes=8_000))

def sync():
    while True:
        journal.sync()

threading.Thread(target=sync, daemon=True).start()
number = 0
while True:
    batch = [final(number + more, "word " * (number % 50)) for more in range(1, 2 + number % 4)]
    journal.append(batch)
    number += len(batch)
    os.write(1, b"%d\\n" % number)
"""


def appending(folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", APPEND, str(folder)], stdout=subprocess.PIPE, cwd=ROOT)


@pytest.mark.parametrize("seed", range(KILLS))
def test_what_was_appended_outlives_kill_9_at_any_moment(tmp_path: Path, seed: int) -> None:
    moment = random.Random(seed)
    wanted_lines, pause_s = moment.randrange(1, 2_000), moment.random() * 0.002
    with appending(tmp_path) as process:
        assert process.stdout is not None
        watchdog = threading.Timer(LIMIT_S, process.kill)
        watchdog.start()
        for _ in range(wanted_lines):
            process.stdout.readline()
        threading.Event().wait(pause_s)
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read()
        watchdog.cancel()
    said = int(rest.rpartition(b"\n")[0].rpartition(b"\n")[2] or 0)

    info = found_in(tmp_path)
    assert not info.is_live
    with claim(info) as ours:
        assert ours is not None
        records = everything(ours)
    numbers = [record.seq for record in records if isinstance(record, Final)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) >= max(said, wanted_lines)


def test_a_journal_is_locked_for_other_processes_until_its_own_ends(tmp_path: Path) -> None:
    with appending(tmp_path) as process:
        assert process.stdout is not None
        process.stdout.readline()
        info = found_in(tmp_path)
        assert info.is_live
        with claim(info) as ours:
            assert ours is None
        with pytest.raises(JournalError):
            Journal.create(tmp_path, begun(), small())
        process.kill()
    with claim(info) as ours:
        assert ours is not None


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with tmpfs(tmp_path, size_bytes=4 * MIB) as disk:
        yield disk


take_space = os.posix_fallocate  # which a test takes away from journals


def fill(disk: Path, left_bytes: int = 0) -> None:
    stat = os.statvfs(disk)
    descriptor = os.open(disk / "filling", os.O_WRONLY | os.O_CREAT)
    take_space(descriptor, 0, stat.f_bavail * stat.f_frsize - left_bytes)
    os.close(descriptor)


def append_until_full(journal: Journal) -> list[Record]:
    kept: list[Record] = []
    with pytest.raises(JournalFullError):  # noqa: PT012  the loop is what is to end so
        while True:
            batch = [final(len(kept) + more) for more in (1, 2, 3)]
            journal.append(batch)
            kept += batch
    return kept


def test_a_disk_that_is_full_leaves_a_journal_its_reserve(small_disk: Path) -> None:
    limits = JournalLimits(max_bytes=1 << 30, reserve_bytes=MIB // 2)
    journal = Journal.create(small_disk / "journal", begun(), limits)
    fill(small_disk)
    kept = append_until_full(journal)
    assert journal.end.offset_bytes > 0.99 * limits.reserve_bytes
    journal.sync()
    assert everything(found_in(small_disk / "journal")) == kept

    (small_disk / "filling").unlink()
    journal.append([final(9_999)])
    journal.close(is_applied=False)
    assert everything(found_in(small_disk / "journal")) == [*kept, final(9_999)]


def test_a_disk_that_is_full_shows_where_nothing_can_be_reserved_and_nothing_half_is_left(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "posix_fallocate")
    journal = Journal.create(small_disk / "journal", begun(), JournalLimits(max_bytes=1 << 30))
    fill(small_disk, left_bytes=100_000)
    kept = append_until_full(journal)
    assert len(kept) > 100
    with pytest.raises(JournalFullError):
        journal.append([final(number) for number in range(1, 1_000)])
    (small_disk / "filling").unlink()
    journal.append([final(9_999)])
    journal.close(is_applied=False)
    assert everything(found_in(small_disk / "journal")) == [*kept, final(9_999)]


def test_a_full_disk_that_has_no_room_for_a_new_segment_goes_on_in_the_old_one(small_disk: Path) -> None:
    limits = JournalLimits(max_bytes=1 << 30, reserve_bytes=MIB // 4, segment_bytes=50_000)
    journal = Journal.create(small_disk / "journal", begun(), limits)
    fill(small_disk)
    kept = append_until_full(journal)
    assert journal.end.segment == 1
    assert journal.end.offset_bytes > limits.segment_bytes
    (small_disk / "filling").unlink()
    journal.append([final(9_999)])
    assert journal.end.segment == 2
    journal.close(is_applied=False)
    assert everything(found_in(small_disk / "journal")) == [*kept, final(9_999)]


def test_a_full_disk_refuses_a_new_journal_and_keeps_nothing_of_it(small_disk: Path) -> None:
    (small_disk / "journal").mkdir()
    fill(small_disk, left_bytes=100_000)
    with pytest.raises(JournalFullError):
        Journal.create(small_disk / "journal", begun(), JournalLimits(max_bytes=1 << 30))
    assert list((small_disk / "journal").iterdir()) == []


def test_a_disk_that_cannot_be_written_refuses_a_new_journal(small_disk: Path) -> None:
    make_read_only(small_disk)
    with pytest.raises(JournalError, match="Read-only") as caught:
        Journal.create(small_disk / "journal", begun(), small())
    assert not isinstance(caught.value, JournalFullError)


def test_many_processes_that_begin_and_end_journals_while_others_clean_up_never_lose_one(
    tmp_path: Path,
) -> None:
    begin = """
import sys
from pathlib import Path
from persistence.journal.writer import Journal
from tests.support.journalled import begun, final, small

for epoch in range(1, 41):
    journal = Journal.create(Path(sys.argv[1]), begun(sys.argv[2], epoch), small())
    journal.append([final(epoch)])
    journal.close(is_applied=epoch % 2 == 0)
"""
    clean = """
import sys
from pathlib import Path
from persistence.journal.folder import clean

while True:
    clean(Path(sys.argv[1]))
"""
    cleaner = subprocess.Popen([sys.executable, "-c", clean, str(tmp_path)], cwd=ROOT)
    beginners = [
        subprocess.Popen([sys.executable, "-c", begin, str(tmp_path), session], cwd=ROOT)
        for session in ("a1", "b2")
    ]
    try:
        assert [beginner.wait(LIMIT_S) for beginner in beginners] == [0, 0]
        assert cleaner.poll() is None
    finally:
        for process in (cleaner, *beginners):
            process.kill()
            process.wait()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == sorted(f"{session}-{epoch}" for session in ("a1", "b2") for epoch in range(1, 41, 2))
