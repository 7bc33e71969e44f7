"""Records as lines of a journal, and lines as records again. Pure.

A line is the CRC-32 of its payload in 8 hex digits, a space, the payload (a record as JSON) and a line break.
Space that is reserved for later lines reads as NUL bytes after the last one.
"""

import re
import zlib
from dataclasses import dataclass, field

from persistence.position import Position
from persistence.records import Record, decode, encode

__all__ = ["Damage", "Entry", "Scan", "frame", "scan"]

# Within JSON a quote in somebody's words is escaped, so this cannot be found inside a payload.
LINE_START = re.compile(rb'([0-9a-f]{8}) (?=\{")')


@dataclass(frozen=True, slots=True)
class Entry:
    """A record, and the position after it."""

    record: Record
    end: Position


@dataclass(frozen=True, slots=True)
class Damage:
    """Where something cannot be read any more, and why: a clause that holds none of it."""

    position: Position
    reason: str

    def __str__(self) -> str:
        return f"segment {self.position.segment}, byte {self.position.offset_bytes}: {self.reason}"


@dataclass(slots=True)
class Scan:
    """What some bytes of a journal hold.

    `end` is the position after the last whole line. `torn` is where a line begins that was never wholly
    written, the last one: it is no damage.
    """

    end: Position
    entries: list[Entry] = field(default_factory=list)
    damages: list[Damage] = field(default_factory=list)
    torn: Position | None = None


def frame(record: Record) -> bytes:
    """The line for a record."""
    payload = encode(record)
    return b"%08x %b\n" % (zlib.crc32(payload), payload)


def scan(data: bytes, start: Position) -> Scan:
    """Read what was written, and find what is damaged.

    Reading goes on at the next whole line after a damage. Whatever comes after the last whole line is either
    reserved space or torn.

    Args:
        data: A stretch of one segment that begins with a line.
        start: Where it begins.
    """

    def position(at: int) -> Position:
        return Position(start.segment, start.offset_bytes + at)

    found = Scan(end=start)
    read = at = 0  # all before `read` is accounted for
    while (line_end := data.find(b"\n", at)) >= 0:
        line = _whole_line(data, at, line_end)
        at = line_end + 1
        if line is None:
            continue
        begin, payload = line
        if begin > read:
            found.damages.append(Damage(position(read), _what_is_wrong(data[read:begin])))
        try:
            found.entries.append(Entry(decode(payload), position(at)))
        except ValueError:
            found.damages.append(Damage(position(begin), "a record that this version does not know"))
        read = at
    found.end = position(read)
    if data[read:].strip(b"\0"):
        found.torn = found.end
    return found


def _whole_line(data: bytes, begin: int, end: int) -> tuple[int, bytes] | None:
    """Where the line that ends at `end` begins, not before `begin`, and its payload; None if it is not right.

    What comes before it on the same line is then of one whose line break was lost.
    """
    for start in LINE_START.finditer(data, begin, end):
        payload = data[start.end() : end]
        if b"%08x" % zlib.crc32(payload) == start[1]:
            return start.start(), payload
    return None


def _what_is_wrong(lost: bytes) -> str:
    is_something = lost.strip(b"\0")
    return f"{len(lost)} bytes {'do not match their checksum' if is_something else 'were never written'}"
