"""The journal of a live session. Everything here blocks; call it in a thread."""

import contextlib
import os
import shutil
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import structlog

from agent.errors import JournalError, JournalFullError
from persistence.journal.disk import disk_errors
from persistence.journal.folder import (
    NEW_PREFIX,
    journal_name,
    lock,
    remove,
    set_aside,
    size_bytes,
    sync_folder,
)
from persistence.journal.line import Damage, frame, scan
from persistence.journal.segment import Segment, segment_name
from persistence.position import Position
from persistence.records import Begun, Record

__all__ = ["Journal", "JournalLimits", "Stretch"]

log = structlog.get_logger(__name__)

NEARLY_FULL = 0.8  # of the bound: time enough to bring the database back


@dataclass(frozen=True, slots=True)
class JournalLimits:
    """What journals may take.

    Args:
        max_bytes: All journals in the folder together.
        reserve_bytes: Kept ahead for each, so that a full disk is known before it hurts.
        segment_bytes: A new file is begun where the old one would become larger.
    """

    max_bytes: int
    reserve_bytes: int = 1 << 20
    segment_bytes: int = 8 << 20


@dataclass(frozen=True, slots=True)
class Stretch:
    """Records that follow one another, the position after them, and what could not be read among them."""

    records: tuple[Record, ...]
    end: Position
    damages: tuple[Damage, ...] = ()


class Journal:
    """One epoch of a session on the disk, locked against everybody else until it is closed.

    One thread appends, another one may sync and a third one read meanwhile. A record that was appended
    outlives the process; from when it was synced on, it outlives a power cut.
    """

    def __init__(self, folder: int, path: Path, begun: Begun, limits: JournalLimits) -> None:
        self._folder = folder
        self._path = path
        self._begin_line = frame(begun)
        self._limits = limits
        self._lock = threading.Lock()  # of what is written
        self._sync_lock = threading.Lock()  # taken before the other one
        self._is_closed = False
        self._is_nearly_full = False
        self._is_short_of_space = False
        self._ends: dict[int, int] = {}  # of the segments before the current one
        self._unsynced: list[Segment] = []  # segments before the current one
        self._segment = self._new_segment(1)
        self._end = self._synced = Position(1, self._segment.end_bytes)

    @classmethod
    def create(cls, folder: Path, begun: Begun, limits: JournalLimits) -> Self:
        """Begin a journal; it is locked and safe from a power cut when this returns.

        Args:
            folder: Where all journals are; it is made if need be.
            begun: The first record of each segment, which names session and epoch.

        Raises:
            JournalFullError: There is no space for it.
            JournalError: It cannot be made, or is there already.
        """
        path = folder / journal_name(begun.session, begun.epoch)
        with disk_errors(f"{path} cannot be made"), contextlib.ExitStack() as undo:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            new, descriptor = _new_folder(folder)
            undo.callback(os.close, descriptor)
            undo.callback(shutil.rmtree, new, ignore_errors=True)
            journal = cls(descriptor, path, begun, limits)
            undo.callback(journal._segment.close)
            # Others see it when it is locked and complete.
            journal._segment.sync()
            os.fsync(descriptor)
            new.rename(path)
            sync_folder(folder)
            undo.pop_all()
        return journal

    @property
    def path(self) -> Path:
        return self._path

    @property
    def end(self) -> Position:
        """The position after the last record."""
        return self._end

    def append(self, records: Sequence[Record]) -> Position:
        """Write records at the end, all of them or none.

        Returns:
            The position after them.

        Raises:
            JournalFullError: The disk or the bound is full; later there may be space again.
            JournalError: It is closed, or the disk fails.
        """
        data = b"".join(map(frame, records))
        with self._lock:
            if self._is_closed:
                raise JournalError(f"journal: {self._path} is closed; nothing can be written any more")
            if data:
                self._make_room(len(data))
                with disk_errors(f"{self._path} cannot be written"):
                    self._segment.write(data)
                self._end = Position(self._segment.number, self._segment.end_bytes)
            return self._end

    def sync(self) -> None:
        """Make what was appended before this call safe from a power cut. Does nothing once it is closed.

        Raises:
            JournalError: The disk fails; a power cut may take what was not synced.
        """
        with self._sync_lock:
            with self._lock:
                if self._is_closed or self._synced == self._end:
                    return
                older, current, end = tuple(self._unsynced), self._segment, self._end
            with disk_errors(f"{self._path} cannot be synced"):
                for segment in (*older, current):
                    segment.sync()
                if older:
                    os.fsync(self._folder)  # for the name of the new file
            with self._lock:
                del self._unsynced[: len(older)]
                self._synced = end
            for segment in older:
                segment.close()

    def read(self, after: Position, *, max_records: int = 500, max_bytes: int = 1 << 20) -> Stretch:
        """Records from a position on, within one segment.

        Args:
            after: The end of what was read before, or the start of a segment.
            max_records: At most so many.
            max_bytes: About so much is read at once.

        Raises:
            JournalError: It cannot be read, or `after` was forgotten.
        """
        end = self._end  # first: when this names a new segment, the old one's end is known
        try:
            if after.segment < end.segment and after.offset_bytes >= self._ends[after.segment]:
                after = Position(after.segment + 1, 0)
            limit_bytes = end.offset_bytes if after.segment == end.segment else self._ends[after.segment]
        except KeyError:
            raise JournalError(f"journal: {self._path} no longer has segment {after.segment}") from None
        size = max_bytes
        while True:
            is_all = after.offset_bytes + size >= limit_bytes
            found = scan(self._bytes(after, min(size, limit_bytes - after.offset_bytes)), after)
            if found.end > after or is_all:
                break
            size *= 2  # a line that is longer
        if is_all and found.torn:
            found.damages.append(Damage(found.torn, "the end is missing"))
        if is_all:
            found.end = Position(after.segment, limit_bytes)
        entries = found.entries[:max_records]
        until = entries[-1].end if len(entries) < len(found.entries) else found.end
        return Stretch(
            tuple(entry.record for entry in entries),
            until,
            tuple(damage for damage in found.damages if damage.position < until),
        )

    def forget_before(self, position: Position) -> None:
        """Remove the segments that lie wholly before a position: they are in the database.

        Raises:
            JournalError: One cannot be removed.
        """
        with self._lock:
            for number in [number for number in self._ends if number < position.segment]:
                with disk_errors(f"{self._path} cannot be shortened"):
                    (self._path / segment_name(number)).unlink(missing_ok=True)
                del self._ends[number]

    def close(self, *, is_applied: bool, is_refused: bool = False) -> None:
        """Write no more, and let others have it. Idempotent.

        Args:
            is_applied: Whether everything was brought to the database: the journal is removed then.
            is_refused: Whether the database did not take all of it, or a part could not be read: it is kept
                aside instead of being removed, and is not drained again.

        Raises:
            JournalError: It cannot be removed or synced; it is closed and unlocked all the same.
        """
        with self._sync_lock, self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            segments = (*self._unsynced, self._segment)
            try:
                with disk_errors(f"{self._path} cannot be closed as it should be"):
                    self._leave(segments, is_applied, is_refused)
            finally:
                for segment in segments:
                    segment.close()
                os.close(self._folder)

    def _leave(self, segments: Sequence[Segment], is_applied: bool, is_refused: bool) -> None:
        """Leave on the disk what is still needed."""
        if is_applied and not is_refused:
            remove(self._path, (*self._ends, self._segment.number))
            return
        self._segment.trim()
        for segment in segments:
            segment.sync()
        os.fsync(self._folder)
        if is_applied:
            set_aside(self._path)

    def _make_room(self, size: int) -> None:
        """See to it that `size` bytes can be written, in a new segment where the old one is full."""
        is_begun = self._segment.end_bytes > len(self._begin_line)
        if is_begun and self._segment.end_bytes + size > self._limits.segment_bytes:
            self._rotate()
        left_bytes = self._segment.room_bytes - size
        if left_bytes >= self._limits.reserve_bytes // 2:
            return
        try:
            self._reserve(self._segment, self._limits.reserve_bytes - left_bytes)
            self._tell_space(is_short=False)
        except JournalFullError:
            self._tell_space(is_short=True)
            if left_bytes < 0:
                self._reserve(self._segment, -left_bytes)

    def _rotate(self) -> None:
        """Go on in a new segment; while there is no space for one, in the old one."""
        old = self._segment
        try:
            self._segment = self._new_segment(old.number + 1)
        except JournalFullError:
            self._tell_space(is_short=True)
            return
        self._tell_space(is_short=False)
        old.trim()
        self._unsynced.append(old)
        self._ends[old.number] = old.end_bytes
        self._end = Position(self._segment.number, self._segment.end_bytes)

    def _tell_space(self, *, is_short: bool) -> None:
        if is_short and not self._is_short_of_space:
            log.warning("journal.lives_on_its_reserve", journal=self._path.name)
        self._is_short_of_space = is_short

    def _new_segment(self, number: int) -> Segment:
        with disk_errors(f"{self._path} cannot be begun"), contextlib.ExitStack() as undo:
            segment = Segment(self._folder, number)
            undo.callback(os.unlink, segment_name(number), dir_fd=self._folder)
            undo.callback(segment.close)
            self._reserve(segment, len(self._begin_line) + self._limits.reserve_bytes)
            segment.write(self._begin_line)
            undo.pop_all()
        return segment

    def _reserve(self, segment: Segment, more_bytes: int) -> None:
        used_bytes = size_bytes(self._path.parent) + more_bytes
        self._warn_of(used_bytes)
        if used_bytes > self._limits.max_bytes:
            raise JournalFullError(
                f"journal: {self._path.parent} has reached journal.max_mb; bring the database back, "
                "which takes what is kept there, and move away what ends in .damaged and is never taken "
                "(`roomscribe journal list` shows it)"
            )
        with disk_errors(f"{self._path} cannot reserve space"):
            segment.reserve(more_bytes)

    def _warn_of(self, used_bytes: int) -> None:
        is_nearly_full = used_bytes >= NEARLY_FULL * self._limits.max_bytes
        if is_nearly_full and not self._is_nearly_full:
            log.warning(
                "journal.nearly_full",
                folder=str(self._path.parent),
                used_bytes=used_bytes,
                max_bytes=self._limits.max_bytes,
            )
        self._is_nearly_full = is_nearly_full

    def _bytes(self, start: Position, size: int) -> bytes:
        path = self._path / segment_name(start.segment)
        # By its path: the descriptors are the writer's, and may be closed meanwhile.
        with disk_errors(f"{path} cannot be read"), path.open("rb", buffering=0) as file:
            return os.pread(file.fileno(), size, start.offset_bytes)


def _new_folder(folder: Path) -> tuple[Path, int]:
    """A folder that is locked before anybody can take it for a leftover."""
    while True:
        new = Path(tempfile.mkdtemp(prefix=NEW_PREFIX, dir=folder))
        if (descriptor := lock(new)) is not None:
            return new, descriptor
