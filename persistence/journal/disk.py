"""What the system says of a disk, as errors of ours."""

import contextlib
import errno
from collections.abc import Iterator

from agent.errors import JournalError, JournalFullError

__all__ = ["disk_errors"]

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def disk_errors(what: str) -> Iterator[None]:
    """Say what could not be done.

    Raises:
        JournalFullError: There is no space on the disk.
        JournalError: It fails otherwise.
    """
    try:
        yield
    except OSError as error:
        kind = JournalFullError if error.errno in NO_SPACE else JournalError
        raise kind(f"journal: {what}: {error.strerror or error}") from error
