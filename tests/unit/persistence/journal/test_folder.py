import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.errors import JournalError
from persistence.journal.folder import (
    NEW_PREFIX,
    claim,
    clean,
    journal_name,
    journals,
    lock,
    remove,
    set_aside,
    size_bytes,
    strangers,
)
from persistence.journal.writer import Journal
from tests.support.journalled import ROOMY, begun, final, found_in, small
from tests.support.unprivileged import unprivileged_folder


@contextmanager
def journal_in(folder: Path) -> Iterator[Journal]:
    journal = Journal.create(folder, begun("new"), ROOMY)
    yield journal
    journal.close(is_applied=True)


def leave_behind(folder: Path, session: str = "ab12", epoch: int = 1, finals: int = 1) -> Path:
    journal = Journal.create(folder, begun(session, epoch), small())
    for number in range(1, finals + 1):
        journal.append([final(number)])
    journal.close(is_applied=False)
    return journal.path


def test_a_folder_that_is_not_there_has_no_journals(tmp_path: Path):
    nowhere = tmp_path / "nowhere"
    clean(nowhere)
    assert journals(nowhere) == []
    assert strangers(nowhere) == []
    assert size_bytes(nowhere) == 0
    assert not nowhere.exists()


def test_each_journal_is_told_with_its_session_epoch_and_size(tmp_path: Path):
    paths = [leave_behind(tmp_path, "ab12"), leave_behind(tmp_path, "cd-34", 12, finals=30)]
    live = Journal.create(tmp_path, begun("live"), ROOMY)
    first, second, third = journals(tmp_path)
    assert [(info.session, info.epoch) for info in (first, second, third)] == [
        ("ab12", 1),
        ("cd-34", 12),
        ("live", 1),
    ]
    assert [first.path, second.path] == paths
    assert (first.segments, second.segments) == ((1,), tuple(range(1, len(second.segments) + 1)))
    assert [info.is_live for info in (first, second, third)] == [False, False, True]
    assert not any(info.is_damaged for info in (first, second, third))
    sizes = [sum(file.stat().st_size for file in path.iterdir()) for path in (*paths, live.path)]
    assert [info.size_bytes for info in (first, second, third)] == sizes
    assert size_bytes(tmp_path) == sum(sizes)
    live.close(is_applied=True)


def test_what_is_no_journal_is_named_and_left_alone(tmp_path: Path):
    leave_behind(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "ab12-2").write_text("a file that is called like a journal")
    (tmp_path / "some-folder").mkdir()
    clean(tmp_path)
    assert [path.name for path in strangers(tmp_path)] == ["ab12-2", "notes.txt", "some-folder"]
    assert [info.path.name for info in journals(tmp_path)] == ["ab12-1"]


def test_only_journals_and_those_being_made_count_for_the_bound(tmp_path: Path):
    journal = leave_behind(tmp_path)
    ours = sum(file.stat().st_size for file in journal.iterdir())
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "lost+found" / "big").write_bytes(bytes(1_000))
    (tmp_path / "notes.txt").write_text("mine")
    assert size_bytes(tmp_path) == ours
    (tmp_path / f"{NEW_PREFIX}x").mkdir()
    (tmp_path / f"{NEW_PREFIX}x" / "000001.journal").write_bytes(bytes(10))
    assert size_bytes(tmp_path) == ours + 10


def test_what_cannot_be_entered_keeps_nobody_from_a_journal():
    with unprivileged_folder() as folder:
        leave_behind(folder, "good")
        for name in ("lost+found", f"{NEW_PREFIX}crashed", "bad-1"):
            (folder / name).mkdir()
            (folder / name).chmod(0)
        clean(folder)
        assert [(info.session, info.segments) for info in journals(folder)] == [("bad", ()), ("good", (1,))]
        with journal_in(folder) as journal:
            journal.append([final(1)])
        bad, _ = journals(folder)
        with pytest.raises(JournalError, match="cannot be locked: Permission denied"), claim(bad):
            pass


def test_what_a_crash_left_while_a_journal_was_made_is_removed_unless_it_is_being_made(tmp_path: Path):
    crashed, making = tmp_path / f"{NEW_PREFIX}crashed", tmp_path / f"{NEW_PREFIX}making"
    for folder in (crashed, making):
        folder.mkdir()
        (folder / "000001.journal").write_bytes(b"")
    descriptor = lock(making)
    assert descriptor is not None
    assert strangers(tmp_path) == []
    clean(tmp_path)
    assert list(tmp_path.iterdir()) == [making]
    os.close(descriptor)
    clean(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_claim_keeps_others_away_until_it_ends(tmp_path: Path):
    leave_behind(tmp_path)
    info = found_in(tmp_path)
    with claim(info) as ours:
        assert ours == info
        assert found_in(tmp_path).is_live
        with claim(info) as second:
            assert second is None
    with claim(info) as again:
        assert again == info


def test_a_claim_sees_what_was_removed_or_renamed_meanwhile(tmp_path: Path):
    leave_behind(tmp_path)
    info = found_in(tmp_path)
    set_aside(info.path)
    with claim(info) as ours:
        assert ours is None
    damaged = found_in(tmp_path)
    remove(damaged.path, damaged.segments)
    with claim(damaged) as ours:
        assert ours is None


def test_a_lock_on_a_folder_that_was_replaced_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "ab12-1"
    path.mkdir()
    real = os.open

    def replaced_after_opening(*arguments: object, **options: object) -> int:
        descriptor = real(*arguments, **options)  # type: ignore[arg-type]
        path.rmdir()
        path.mkdir()
        return descriptor

    monkeypatch.setattr(os, "open", replaced_after_opening)
    before = len(os.listdir("/dev/fd"))
    assert lock(path) is None
    assert len(os.listdir("/dev/fd")) == before


def test_a_journal_that_is_kept_aside_stays_so(tmp_path: Path):
    set_aside(leave_behind(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["ab12-1.damaged"]
    set_aside(tmp_path / "ab12-1.damaged")
    info = found_in(tmp_path)
    assert (info.session, info.epoch, info.is_damaged) == ("ab12", 1, True)


def test_removing_a_journal_spares_what_is_not_ours(tmp_path: Path):
    path = leave_behind(tmp_path)
    (path / "notes.txt").write_text("mine")
    with pytest.raises(JournalError, match="not empty"):
        remove(path, (1,))
    assert [file.name for file in path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("session", ["", ".", ".hidden", "a/b", "/"])
def test_an_id_that_is_no_name_of_a_folder_is_refused(session: str):
    with pytest.raises(JournalError, match="cannot name a folder"):
        journal_name(session, 1)
