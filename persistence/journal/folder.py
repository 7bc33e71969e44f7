"""What lies in the folder of all journals, and who may touch it.

A journal is a folder `<session>-<epoch>`. Whoever writes or drains it holds a lock on that folder, which ends
with the process. One that could not be read wholly is kept aside as `<session>-<epoch>.damaged`.
"""

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.errors import JournalError
from persistence.journal.disk import disk_errors
from persistence.journal.segment import segment_name, segment_number

__all__ = [
    "NEW_PREFIX",
    "JournalInfo",
    "aside",
    "claim",
    "clean",
    "journal_name",
    "journals",
    "lock",
    "look_at",
    "remove",
    "set_aside",
    "size_bytes",
    "strangers",
    "sync_folder",
]

NEW_PREFIX = ".new-"  # of a journal that is being made
DAMAGED_SUFFIX = ".damaged"
NAME = re.compile(r"(?P<session>[^./][^/]*)-(?P<epoch>[1-9][0-9]*)(?P<damaged>\.damaged)?")


@dataclass(frozen=True, slots=True)
class JournalInfo:
    """A journal as it lies on the disk, reserved space included."""

    path: Path
    session: str
    epoch: int
    segments: tuple[int, ...]
    size_bytes: int
    is_damaged: bool

    @property
    def is_live(self) -> bool:
        """Whether somebody writes or drains it just now.

        Raises:
            JournalError: It cannot be opened.
        """
        if (descriptor := lock(self.path)) is not None:
            os.close(descriptor)
        return descriptor is None


def journal_name(session: str, epoch: int) -> str:
    """What the folder of a journal is called.

    Raises:
        JournalError: A session with that id cannot have one.
    """
    name = f"{session}-{epoch}"
    if not (match := NAME.fullmatch(name)) or match["damaged"]:
        raise JournalError(
            f"journal: {session!r} cannot name a folder; a session's id holds no / and no . first"
        )
    return name


def journals(folder: Path) -> list[JournalInfo]:
    """All journals in a folder, by name; none where there is no folder.

    One that cannot be read seems to be empty here, and keeps nobody from the others; `claim` tells why.

    Raises:
        JournalError: The folder cannot be read.
    """
    found = []
    for path in (folder / name for name in _names(folder)):
        if _is_journal(path):
            try:
                names = _names(path)
            except JournalError:
                names = []
            found.append(_info(path, names))
    return found


def look_at(path: Path) -> JournalInfo | None:
    """The journal at a path, or None if there is none.

    Raises:
        JournalError: It cannot be read.
    """
    return _info(path, _names(path)) if _is_journal(path) else None


def strangers(folder: Path) -> list[Path]:
    """What lies there that is no journal: it is left alone."""
    paths = (folder / name for name in _names(folder))
    return [path for path in paths if not (_is_journal(path) or _is_being_made(path))]


def size_bytes(folder: Path) -> int:
    """What all journals of a folder take, reserved space included, as far as they can be read."""
    paths = (folder / name for name in _names(folder))
    return sum(_size_bytes(path) for path in paths if _is_journal(path) or _is_being_made(path))


@contextlib.contextmanager
def claim(info: JournalInfo) -> Iterator[JournalInfo | None]:
    """Hold a journal, so that nobody else reads or removes it.

    Yields:
        The journal as it is now; None where somebody else holds it, or it is gone.

    Raises:
        JournalError: It cannot be opened.
    """
    descriptor = lock(info.path)
    try:
        yield look_at(info.path) if descriptor is not None else None
    finally:
        if descriptor is not None:
            os.close(descriptor)


def clean(folder: Path) -> None:
    """Remove what was left by a crash while a journal was made. It holds nothing yet."""
    for path in filter(_is_being_made, (folder / name for name in _names(folder))):
        with contextlib.suppress(JournalError):  # what cannot be removed is in nobody's way
            if (descriptor := lock(path)) is not None:
                shutil.rmtree(path, ignore_errors=True)
                os.close(descriptor)


def lock(path: Path) -> int | None:
    """Lock a folder for this process alone.

    Returns:
        The descriptor that holds the lock until it is closed; None where somebody else has it, or has just
        removed or renamed the folder.

    Raises:
        JournalError: It cannot be opened.
    """
    with disk_errors(f"{path} cannot be locked"), contextlib.suppress(FileNotFoundError, BlockingIOError):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        is_ours = False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_ours = os.path.samestat(os.fstat(descriptor), os.stat(path))
            return descriptor if is_ours else None
        finally:
            if not is_ours:
                os.close(descriptor)
    return None


def remove(path: Path, segments: tuple[int, ...]) -> None:
    """Remove a journal that is locked by the caller.

    Its segments go one by one from the oldest, so that what a crash leaves is what came last.

    Raises:
        JournalError: It cannot be removed, for instance because something else lies in it.
    """
    with disk_errors(f"{path} cannot be removed"):
        for number in segments:
            (path / segment_name(number)).unlink(missing_ok=True)
        path.rmdir()
        sync_folder(path.parent)


def aside(path: Path) -> Path:
    """Where a journal is kept that is not to be drained again."""
    return path if path.name.endswith(DAMAGED_SUFFIX) else path.with_name(path.name + DAMAGED_SUFFIX)


def set_aside(path: Path) -> None:
    """Keep a journal aside. Idempotent.

    Raises:
        JournalError: It cannot be renamed.
    """
    with disk_errors(f"{path} cannot be kept aside"):
        path.rename(aside(path))
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names of the files in a folder safe from a power cut.

    Raises:
        OSError: The disk fails.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _names(folder: Path) -> list[str]:
    with disk_errors(f"{folder} cannot be read"), contextlib.suppress(FileNotFoundError):
        return sorted(os.listdir(folder))
    return []


def _is_journal(path: Path) -> bool:
    return NAME.fullmatch(path.name) is not None and path.is_dir()


def _is_being_made(path: Path) -> bool:
    return path.name.startswith(NEW_PREFIX) and path.is_dir()


def _info(path: Path, names: list[str]) -> JournalInfo:
    match = NAME.fullmatch(path.name)
    assert match is not None
    return JournalInfo(
        path=path,
        session=match["session"],
        epoch=int(match["epoch"]),
        segments=tuple(sorted(number for name in names if (number := segment_number(name)) is not None)),
        size_bytes=_size_bytes(path),
        is_damaged=match["damaged"] is not None,
    )


def _size_bytes(path: Path) -> int:
    total = 0
    # What was removed meanwhile takes nothing any more, and what cannot be read must not keep others out.
    with contextlib.suppress(OSError):
        for name in os.listdir(path):
            with contextlib.suppress(OSError):
                total += (path / name).stat().st_size
    return total
