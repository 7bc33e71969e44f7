"""Records for journals, and what lies on the disk of one."""

from datetime import UTC, datetime
from pathlib import Path

from hypothesis import strategies as st

from persistence.journal.folder import JournalInfo, journals
from persistence.journal.reading import read_segments, start
from persistence.journal.writer import JournalLimits
from persistence.position import Position
from persistence.records import Begun, Final, Gap, Presence, Record, Usage

__all__ = ["BEGAN_AT", "ROOMY", "begun", "everything", "final", "found_in", "later_records", "small"]

BEGAN_AT = datetime(2026, 3, 1, 9, 0, tzinfo=UTC)
ROOMY = JournalLimits(max_bytes=1 << 30)


def small(segment_bytes: int = 2_000, reserve_bytes: int = 1_000, max_bytes: int = 1 << 30) -> JournalLimits:
    """Limits that are reached soon."""
    return JournalLimits(max_bytes, reserve_bytes, segment_bytes)


def begun(session: str = "ab12", epoch: int = 1, started_at: datetime = BEGAN_AT) -> Begun:
    return Begun(
        session=session,
        epoch=epoch,
        room="planning",
        room_sid="RM_1",
        agent="agent-1",
        worker="worker-1",
        languages=("en",),
        started_at=started_at,
        offset_ms=0,
        is_provisional=False,
    )


def final(number: int, text: str = "Good morning.") -> Final:
    return Final(
        id=f"1-{number}",
        revision=1,
        seq=number,
        identity="anna",
        name="Anna",
        text=text,
        language="en",
        confidence=0.9,
        has_overlap=False,
        start_ms=number * 1_000,
        end_ms=number * 1_000 + 900,
        at=BEGAN_AT,
    )


def later_records() -> st.SearchStrategy[Record]:
    """What comes after the first record, with whatever people may say or be called."""
    # What looks like a line of a journal is said by somebody, some day.
    words = st.text(max_size=40) | st.sampled_from(["\n", "\0\0\0", '0a1b2c3d {"v":1}\n', "é\u2028𝄞"])
    ms = st.integers(0, 10**9)
    return st.one_of(
        st.builds(final, st.integers(1, 10**6), words),
        st.builds(Presence, identity=words, name=words, joined_ms=ms, left_ms=st.none() | ms),
        st.builds(Gap, start_ms=ms, end_ms=ms, identity=words, reason=words),
        st.builds(Usage, identity=words, speech_ms=ms, stt_ms=ms),
    )


def found_in(folder: Path) -> JournalInfo:
    """The only journal of a folder."""
    (info,) = journals(folder)
    return info


def everything(info: JournalInfo, after: Position | None = None) -> list[Record]:
    """All records of a journal that is whole, without those that begin a segment."""
    scans = list(read_segments(info, after or start(info)))
    assert [damage for scan in scans for damage in scan.damages] == []
    return [entry.record for scan in scans for entry in scan.entries if not isinstance(entry.record, Begun)]
