"""A whole journal from the disk, which nobody writes any more."""

from collections.abc import Iterator

from persistence.journal.disk import disk_errors
from persistence.journal.folder import JournalInfo
from persistence.journal.line import Damage, Scan, scan
from persistence.journal.segment import segment_name
from persistence.position import Position
from persistence.records import Begun

__all__ = ["read_begun", "read_segments", "start"]

HEAD_BYTES = 1 << 16  # of a segment: its first record is far shorter


def start(info: JournalInfo) -> Position:
    """Where the first segment that is still there begins."""
    return Position(min(info.segments, default=1), 0)


def read_segments(info: JournalInfo, after: Position) -> Iterator[Scan]:
    """What each segment holds, from a position on, and what is missing between them.

    Only the last segment can be torn: elsewhere it is a damage.

    Raises:
        JournalError: The disk does not give it back.
    """
    last = max(info.segments, default=0)
    for number in range(after.segment, last + 1):
        begin = after if number == after.segment else Position(number, 0)
        if number not in info.segments:
            yield Scan(begin, damages=[Damage(begin, "the segment is missing")])
            continue
        found = scan(_read(info, begin), begin)
        if found.torn and number < last:
            found.damages.append(Damage(found.torn, "the end of the segment is missing"))
            found.torn = None
        yield found


def read_begun(info: JournalInfo) -> Begun | None:
    """Which session a journal is of, told by any of its segments; None where none of them can.

    Raises:
        JournalError: The disk does not give it back.
    """
    for number in info.segments:
        head = Position(number, 0)
        for entry in scan(_read(info, head, HEAD_BYTES), head).entries[:1]:
            if isinstance(entry.record, Begun):
                return entry.record
    return None


def _read(info: JournalInfo, begin: Position, size: int | None = None) -> bytes:
    path = info.path / segment_name(begin.segment)
    with disk_errors(f"{path} cannot be read"), path.open("rb") as file:
        file.seek(begin.offset_bytes)
        return file.read(size)
