from pathlib import Path

import pytest

from agent.errors import JournalError
from persistence.journal.folder import JournalInfo
from persistence.journal.line import Damage, Scan, frame
from persistence.journal.reading import read_begun, read_segments, start
from persistence.journal.segment import segment_name
from persistence.journal.writer import Journal
from persistence.position import Position
from tests.support.journalled import begun, everything, final, found_in, small

FINALS = [final(number) for number in range(1, 31)]


@pytest.fixture
def left_behind(tmp_path: Path) -> JournalInfo:
    """Several segments."""
    journal = Journal.create(tmp_path, begun(), small())
    for record in FINALS:
        journal.append([record])
    journal.close(is_applied=False)
    info = found_in(tmp_path)
    assert len(info.segments) > 3
    return info


def read(info: JournalInfo) -> list[Scan]:
    return list(read_segments(found_in(info.path.parent), Position(1, 0)))


def damages(scans: list[Scan]) -> list[Damage]:
    return [damage for scan in scans for damage in scan.damages]


def test_reading_from_the_end_of_any_record_gives_those_after_it(left_behind: JournalInfo):
    entries = [entry for scan in read(left_behind) for entry in scan.entries]
    for entry in entries:
        after = [other.record for other in entries if other.end > entry.end and other.record != begun()]
        assert everything(left_behind, entry.end) == after


def test_the_last_segment_may_be_torn_and_an_earlier_one_may_not(left_behind: JournalInfo):
    first, *_, last = (left_behind.path / segment_name(number) for number in left_behind.segments)
    last.write_bytes(last.read_bytes()[:-3])
    scans = read(left_behind)
    assert damages(scans) == []
    assert scans[-1].torn is not None
    first.write_bytes(first.read_bytes()[:-3])
    begin = first.stat().st_size + 3 - len(frame(final(3)))
    assert [damage.position.segment for damage in damages(read(left_behind))] == [1]
    assert damages(read(left_behind)) == [Damage(Position(1, begin), "the end of the segment is missing")]


def test_a_segment_that_is_missing_is_a_damage_and_the_others_are_read(left_behind: JournalInfo):
    whole = everything(left_behind)
    (left_behind.path / segment_name(2)).unlink()
    scans = read(left_behind)
    assert damages(scans) == [Damage(Position(2, 0), "the segment is missing")]
    rest = [entry.record for scan in scans for entry in scan.entries if entry.record != begun()]
    assert [record for record in whole if record in rest] == rest
    assert len(rest) < len(whole)


def test_segments_that_were_forgotten_are_missed_only_by_who_has_not_read_them(left_behind: JournalInfo):
    (left_behind.path / segment_name(1)).unlink()
    info = found_in(left_behind.path.parent)
    assert start(info) == Position(2, 0)
    assert damages(list(read_segments(info, start(info)))) == []
    assert [damage.position for damage in damages(read(info))] == [Position(1, 0)]


def test_any_segment_tells_which_session_it_is(left_behind: JournalInfo):
    for number in left_behind.segments[:-1]:
        file = left_behind.path / segment_name(number)
        file.write_bytes(b"X" + file.read_bytes()[1:])
        assert read_begun(left_behind) == begun()
    file = left_behind.path / segment_name(left_behind.segments[-1])
    file.write_bytes(b"")
    assert read_begun(left_behind) is None


def test_a_journal_that_was_half_removed_is_read_without_a_damage(left_behind: JournalInfo):
    (left_behind.path / segment_name(1)).unlink()
    end = read(left_behind)[-1].end
    assert everything(found_in(left_behind.path.parent), end) == []
    for number in left_behind.segments[1:]:
        (left_behind.path / segment_name(number)).unlink()
    assert list(read_segments(found_in(left_behind.path.parent), end)) == []


def test_a_segment_that_cannot_be_read_is_named(left_behind: JournalInfo):
    file = left_behind.path / segment_name(2)
    file.unlink()
    file.mkdir()
    with pytest.raises(JournalError, match=file.name):
        read(left_behind)
