"""One file of a journal while it is written: what is appended is there wholly or not at all."""

import contextlib
import errno
import os

__all__ = ["Segment", "segment_name", "segment_number"]

SUFFIX = ".journal"
DIGITS = 6
NOT_SUPPORTED = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)  # what a file system says that cannot reserve


def segment_name(number: int) -> str:
    """What the file is called."""
    return f"{number:0{DIGITS}}{SUFFIX}"


def segment_number(name: str) -> int | None:
    """Which segment a file of this name is, or None if it is none."""
    digits = name.removesuffix(SUFFIX)
    is_segment = name.endswith(SUFFIX) and digits.isascii() and digits.isdigit() and len(digits) >= DIGITS
    return int(digits) if is_segment else None


class Segment:
    """A new file, and the space that is reserved in it.

    Args:
        folder: The descriptor of the journal's folder.
        number: Which segment it is, from 1.

    Raises:
        OSError: From here and from every method, what the system says.
    """

    def __init__(self, folder: int, number: int) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._descriptor = os.open(segment_name(number), flags, 0o600, dir_fd=folder)
        self._reserved_bytes = 0
        self.number = number
        self.end_bytes = 0

    @property
    def room_bytes(self) -> int:
        """What can still be written into reserved space."""
        return self._reserved_bytes - self.end_bytes

    def reserve(self, more_bytes: int) -> None:
        """Reserve further space on the disk; where the platform cannot, it is only counted."""
        if hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(self._descriptor, self._reserved_bytes, more_bytes)
            except OSError as error:
                if error.errno not in NOT_SUPPORTED:
                    os.ftruncate(self._descriptor, self._reserved_bytes)  # a part may have been reserved
                    raise
        self._reserved_bytes += more_bytes

    def write(self, data: bytes) -> None:
        """Append; where that fails, nothing of it is left."""
        written = 0
        try:
            while written < len(data):
                written += os.pwrite(self._descriptor, data[written:], self.end_bytes + written)
        except OSError:
            self.trim()
            raise
        self.end_bytes += len(data)

    def trim(self) -> None:
        """Give back what is reserved and not used; where that fails, it reads as the end all the same."""
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, self.end_bytes)
            self._reserved_bytes = self.end_bytes

    def sync(self) -> None:
        """Make what was written safe from a power cut."""
        # macOS has no fdatasync.
        getattr(os, "fdatasync", os.fsync)(self._descriptor)

    def close(self) -> None:
        """Close the file. Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
