"""A small disk in memory, to be filled or made read-only. Linux, as root."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.parts import missing

__all__ = ["make_read_only", "tmpfs"]


@contextmanager
def tmpfs(folder: Path, *, size_bytes: int) -> Iterator[Path]:
    """Mount one on an existing folder, empty; it is gone at the end, with what was in it.

    Args:
        folder: What is beneath cannot be seen meanwhile.
        size_bytes: How much it takes before it is full; the kernel rounds up to whole pages.
    """
    if sys.platform != "linux" or os.geteuid() != 0:
        missing("mounting a tmpfs takes Linux and root")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes},mode=1777", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        missing(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        # Lazily, since a test that failed may have left a file open.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def make_read_only(folder: Path) -> None:
    """Refuse all writes to a mounted tmpfs from now on; no file in it may be open for writing."""
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
