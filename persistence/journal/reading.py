"""A whole journal from the disk, which nobody writes any more."""

import contextlib
from collections.abc import Iterator
from typing import BinaryIO

from persistence.journal.disk import disk_errors
from persistence.journal.folder import JournalInfo
from persistence.journal.line import Damage, Scan, scan
from persistence.journal.segment import segment_name
from persistence.position import Position
from persistence.records import Begun

__all__ = ["read_begun", "read_segments", "start"]

HEAD_BYTES = 1 << 16  # at most, of a segment: its first record is far shorter


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
        with _opened(info, number) as file:
            file.seek(begin.offset_bytes)
            found = scan(file.read(), begin)
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
        with _opened(info, number) as file:
            line = file.readline(HEAD_BYTES)
        for entry in scan(line, head).entries:
            if isinstance(entry.record, Begun):
                return entry.record
    return None


@contextlib.contextmanager
def _opened(info: JournalInfo, number: int) -> Iterator[BinaryIO]:
    path = info.path / segment_name(number)
    with disk_errors(f"{path} cannot be read"), path.open("rb") as file:
        yield file
