import errno
import os
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import JournalError, JournalFullError
from persistence.journal.folder import claim, size_bytes
from persistence.journal.line import frame
from persistence.journal.segment import segment_name
from persistence.journal.writer import Journal, JournalLimits
from persistence.position import Position
from persistence.records import Begun, Record
from tests.support.journalled import ROOMY, begun, everything, final, found_in, later_records, small

BEGIN_BYTES = len(frame(begun()))
batches = st.lists(st.lists(later_records(), max_size=5), max_size=8)


@contextmanager
def journal_in(folder: Path, limits: JournalLimits = ROOMY) -> Iterator[Journal]:
    journal = Journal.create(folder, begun(), limits)
    try:
        yield journal
    finally:
        journal.close(is_applied=False)


def read_on(journal: Journal, after: Position, max_records: int, max_bytes: int = 1 << 20) -> list[Record]:
    """Everything after a position, without the records that begin a segment."""
    records: list[Record] = []
    while after < journal.end:
        stretch = journal.read(after, max_records=max_records, max_bytes=max_bytes)
        assert stretch.end > after
        assert len(stretch.records) <= max_records
        assert stretch.damages == ()
        records += stretch.records
        after = stretch.end
    assert journal.read(after).records == ()
    return [record for record in records if not isinstance(record, Begun)]


@settings(max_examples=50)
@given(
    batches=batches,
    segment_bytes=st.integers(1, 3_000),
    reserve_bytes=st.integers(0, 2_000),
    max_records=st.integers(1, 10),
    max_bytes=st.integers(1, 1_000),
)
def test_what_is_appended_is_read_in_order_whatever_the_sizes(
    batches: list[list[Record]], segment_bytes: int, reserve_bytes: int, max_records: int, max_bytes: int
):
    with TemporaryDirectory() as folder:
        ends = [Position(1, 0)]
        with journal_in(Path(folder), small(segment_bytes, reserve_bytes)) as journal:
            for batch in batches:
                ends.append(journal.append(batch))
                assert ends[-1] == journal.end
            records = [record for batch in batches for record in batch]
            assert read_on(journal, Position(1, 0), max_records, max_bytes) == records
            # From the end of any batch on, the rest is read.
            for number, end in enumerate(ends[1:], start=1):
                rest = [record for batch in batches[number:] for record in batch]
                assert read_on(journal, end, max_records, max_bytes) == rest
        assert ends == sorted(ends)
        assert everything(found_in(Path(folder))) == records


def test_each_segment_begins_with_the_record_of_its_epoch(tmp_path: Path):
    with journal_in(tmp_path, small()) as journal:
        for number in range(1, 30):
            journal.append([final(number)])
        last = journal.end.segment
        assert last > 2
        for segment in range(1, last + 1):
            assert journal.read(Position(segment, 0), max_records=1).records == (begun(),)


def test_segments_keep_their_size_where_a_batch_is_not_larger(tmp_path: Path):
    with journal_in(tmp_path, small(segment_bytes=2_000)) as journal:
        for number in range(1, 30):
            journal.append([final(number)])
        older = [segment_name(number) for number in range(1, journal.end.segment)]
        assert all((journal.path / name).stat().st_size <= 2_000 for name in older)


def test_a_batch_that_is_larger_than_a_segment_stays_in_one(tmp_path: Path):
    with journal_in(tmp_path, small(segment_bytes=1_000)) as journal:
        records = [final(number) for number in range(1, 30)]
        assert journal.append(records).segment == 1
        assert journal.append(records).segment == 2
        assert read_on(journal, Position(1, 0), 7) == records * 2


def test_an_empty_batch_writes_nothing(tmp_path: Path):
    with journal_in(tmp_path) as journal:
        assert journal.append([]) == journal.end == Position(1, BEGIN_BYTES)


def test_only_the_owner_may_read_what_was_said(tmp_path: Path):
    with journal_in(tmp_path / "journal", small()) as journal:
        for number in range(1, 20):
            journal.append([final(number)])
        modes = {stat.S_IMODE(path.stat().st_mode) for path in journal.path.iterdir()}
        assert modes == {0o600}
        assert stat.S_IMODE(journal.path.stat().st_mode) == 0o700
        assert stat.S_IMODE(journal.path.parent.stat().st_mode) == 0o700


def test_a_program_that_is_started_gets_none_of_the_descriptors(tmp_path: Path):
    with journal_in(tmp_path) as journal:
        files = {path.stat().st_ino for path in (journal.path, journal.path / segment_name(1))}
        opened = [int(name) for name in os.listdir("/dev/fd") if inode(int(name)) in files]
        assert len(opened) == len(files)
        assert not any(os.get_inheritable(descriptor) for descriptor in opened)


def inode(descriptor: int) -> int | None:
    try:
        return os.fstat(descriptor).st_ino
    except OSError:
        return None  # that of the listing itself


def test_closing_leaves_no_descriptor_open_and_no_reserve_on_the_disk(tmp_path: Path):
    before = len(os.listdir("/dev/fd"))
    with journal_in(tmp_path, small()) as journal:
        for number in range(1, 20):
            journal.append([final(number)])
    assert len(os.listdir("/dev/fd")) == before
    last = journal.path / segment_name(journal.end.segment)
    assert last.stat().st_size == journal.end.offset_bytes


def test_space_is_reserved_ahead(tmp_path: Path):
    with journal_in(tmp_path) as journal:
        file = journal.path / segment_name(1)
        assert file.stat().st_size == BEGIN_BYTES + ROOMY.reserve_bytes
        for _ in range(10):
            journal.append([final(1, "x" * 200_000)])
            assert file.stat().st_size - journal.end.offset_bytes >= ROOMY.reserve_bytes // 2
        assert file.stat().st_blocks * 512 >= file.stat().st_size


def test_closing_an_applied_journal_removes_it(tmp_path: Path):
    journal = Journal.create(tmp_path, begun(), small())
    for number in range(1, 20):
        journal.append([final(number)])
    journal.close(is_applied=True)
    assert list(tmp_path.iterdir()) == []


def test_a_journal_of_which_the_database_refused_a_part_is_kept_aside(tmp_path: Path):
    journal = Journal.create(tmp_path, begun(), ROOMY)
    journal.append([final(1)])
    journal.close(is_applied=True, is_refused=True)
    info = found_in(tmp_path)
    assert info.is_damaged
    assert everything(info) == [final(1)]


def test_closing_twice_changes_nothing(tmp_path: Path):
    journal = Journal.create(tmp_path, begun(), ROOMY)
    journal.close(is_applied=False)
    journal.close(is_applied=True)
    assert found_in(tmp_path).segments == (1,)
    journal.sync()
    with pytest.raises(JournalError, match="closed"):
        journal.append([final(1)])


def test_a_live_journal_is_nobody_elses(tmp_path: Path):
    with journal_in(tmp_path):
        info = found_in(tmp_path)
        assert info.is_live
        with claim(info) as ours:
            assert ours is None
    with claim(found_in(tmp_path)) as ours:
        assert ours is not None


def test_a_second_journal_of_the_same_epoch_is_refused_and_harms_nothing(tmp_path: Path):
    with journal_in(tmp_path) as journal:
        journal.append([final(1)])
        with pytest.raises(JournalError, match="ab12-1"):
            Journal.create(tmp_path, begun(), ROOMY)
        journal.append([final(2)])
        assert [path.name for path in tmp_path.iterdir()] == ["ab12-1"]
    assert everything(found_in(tmp_path)) == [final(1), final(2)]


def test_a_session_whose_id_is_no_name_for_a_folder_is_refused(tmp_path: Path):
    for session in ("../out", "", ".new-x"):
        with pytest.raises(JournalError):
            Journal.create(tmp_path, begun(session), ROOMY)
    assert list(tmp_path.iterdir()) == []


def test_forgetting_removes_whole_segments_and_reading_goes_on(tmp_path: Path):
    with journal_in(tmp_path, small()) as journal:
        for number in range(1, 30):
            journal.append([final(number)])
        position = Position(3, BEGIN_BYTES)
        rest = read_on(journal, position, 100)
        journal.forget_before(position)
        assert sorted(path.name for path in journal.path.iterdir())[0] == segment_name(3)
        assert read_on(journal, position, 100) == rest
        with pytest.raises(JournalError, match="segment 1"):
            journal.read(Position(1, 0))
        journal.sync()
        journal.forget_before(journal.end)
        assert [path.name for path in journal.path.iterdir()] == [segment_name(journal.end.segment)]


@pytest.mark.parametrize("harmed", [1, 2, 3])
def test_a_live_journal_that_is_damaged_is_read_on_and_says_where(tmp_path: Path, harmed: int):
    with journal_in(tmp_path) as journal:
        begins = [journal.append([final(number)]).offset_bytes for number in range(1, 4)]
        place = ([BEGIN_BYTES, *begins])[harmed - 1]
        file = journal.path / segment_name(1)
        data = bytearray(file.read_bytes())
        data[place + 30] ^= 1
        file.write_bytes(data)
        stretch = journal.read(Position(1, BEGIN_BYTES))
        assert stretch.records == tuple(final(number) for number in range(1, 4) if number != harmed)
        assert [damage.position for damage in stretch.damages] == [Position(1, place)]
        assert stretch.end == journal.end


def test_a_full_bound_refuses_and_leaves_the_file_as_it_was(tmp_path: Path):
    with journal_in(tmp_path, small(reserve_bytes=1_000, max_bytes=4_000)) as journal:
        kept = append_until_full(journal)
        assert size_bytes(tmp_path) <= 4_000
        assert read_on(journal, Position(1, 0), 100) == kept
        # What is smaller may still fit.
        with pytest.raises(JournalFullError):
            journal.append([final(99, "x" * 500)])
    assert everything(found_in(tmp_path)) == kept


def test_a_batch_that_finds_no_room_is_not_written_in_part(tmp_path: Path):
    with journal_in(tmp_path, small(reserve_bytes=600, max_bytes=2_000)) as journal:
        before = journal.end
        with pytest.raises(JournalFullError):
            journal.append([final(number) for number in range(1, 50)])
        assert journal.end == before
        journal.append([final(1)])
    assert everything(found_in(tmp_path)) == [final(1)]


def test_a_journal_that_was_full_takes_records_again_when_others_are_gone(tmp_path: Path):
    other = Journal.create(tmp_path, begun("other"), small())
    for number in range(1, 10):
        other.append([final(number)])
    limits = small(max_bytes=size_bytes(tmp_path) + 2_500)
    journal = Journal.create(tmp_path, begun(), limits)
    kept = append_until_full(journal)
    other.close(is_applied=True)
    journal.append([final(100)])
    journal.close(is_applied=False)
    assert everything(found_in(tmp_path)) == [*kept, final(100)]


def test_a_bound_that_is_reached_refuses_a_new_journal(tmp_path: Path):
    with (
        journal_in(tmp_path, small(max_bytes=2_000)),
        pytest.raises(JournalFullError, match=r"journal\.max_mb; bring the database back.*\.damaged"),
    ):
        Journal.create(tmp_path, begun("other"), small(max_bytes=2_000))
    assert [path.name for path in tmp_path.iterdir()] == ["ab12-1"]


def test_a_journal_that_is_nearly_full_warns_once_and_so_does_one_on_its_reserve(tmp_path: Path):
    with structlog.testing.capture_logs() as logs, journal_in(tmp_path, small(max_bytes=6_000)) as journal:
        append_until_full(journal)
    assert [entry["event"] for entry in logs] == ["journal.nearly_full", "journal.lives_on_its_reserve"]


def append_until_full(journal: Journal) -> list[Record]:
    kept: list[Record] = []
    with pytest.raises(JournalFullError):  # noqa: PT012  the loop is what is to end so
        while True:
            journal.append([final(len(kept) + 1)])
            kept.append(final(len(kept) + 1))
    assert kept
    return kept


def test_a_disk_that_fails_in_the_middle_of_a_batch_leaves_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pwrite, writes = os.pwrite, 0

    def half_then_fail(descriptor: int, data: bytes, offset: int) -> int:
        nonlocal writes
        writes += 1
        if writes == 1:
            return pwrite(descriptor, data[: len(data) // 2], offset)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with journal_in(tmp_path) as journal:
        journal.append([final(1)])
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", half_then_fail)
            with pytest.raises(JournalError, match="error") as caught:
                journal.append([final(2), final(3), final(4)])
        assert not isinstance(caught.value, JournalFullError)
        assert everything(found_in(tmp_path)) == [final(1)]
        journal.append([final(5)])
    assert everything(found_in(tmp_path)) == [final(1), final(5)]


@pytest.mark.parametrize("is_supported", [True, False])
def test_where_nothing_can_be_reserved_it_goes_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_supported: bool
):
    def refuse(descriptor: int, offset: int, size: int) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    if is_supported:
        monkeypatch.setattr(os, "posix_fallocate", refuse)
    else:
        monkeypatch.delattr(os, "posix_fallocate")
    with journal_in(tmp_path, small()) as journal:
        records = [final(number) for number in range(1, 30)]
        for record in records:
            journal.append([record])
        assert (journal.path / segment_name(journal.end.segment)).stat().st_size == journal.end.offset_bytes
    assert everything(found_in(tmp_path)) == records


def test_a_sync_covers_what_was_appended_before_it_in_older_segments_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    synced: list[int] = []
    real = os.fdatasync

    def watched(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        real(descriptor)

    with journal_in(tmp_path, small()) as journal:
        for number in range(1, 20):
            journal.append([final(number)])
        monkeypatch.setattr(os, "fdatasync", watched)
        journal.sync()
        assert synced == [
            (journal.path / segment_name(number)).stat().st_ino
            for number in range(1, journal.end.segment + 1)
        ]
        journal.sync()
        assert len(synced) == journal.end.segment
        monkeypatch.undo()


def test_appending_syncing_reading_and_forgetting_go_on_at_once(tmp_path: Path):
    records = [final(number, "word " * (number % 40)) for number in range(1, 800)]
    is_done = threading.Event()

    def append(journal: Journal) -> None:
        try:
            for at in range(0, len(records), 3):
                journal.append(records[at : at + 3])
        finally:
            is_done.set()

    def sync(journal: Journal) -> None:
        while not is_done.is_set():
            journal.sync()

    def follow(journal: Journal) -> list[Record]:
        after, found = Position(1, 0), []
        while not is_done.is_set() or after < journal.end:
            stretch = journal.read(after, max_records=50)
            assert stretch.damages == ()
            found += [record for record in stretch.records if not isinstance(record, Begun)]
            after = stretch.end
            journal.forget_before(after)
        return found

    with journal_in(tmp_path, small(5_000)) as journal, ThreadPoolExecutor(3) as threads:
        appended, synced, followed = (threads.submit(job, journal) for job in (append, sync, follow))
        appended.result()
        synced.result()
        assert followed.result() == records
