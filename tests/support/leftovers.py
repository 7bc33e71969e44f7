"""Processes that a test run left behind, wherever in the process tree they are now. Linux only."""

import os
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

__all__ = ["kill", "mark_children", "survivors"]

MARK_VARIABLE = "TEST_RUN"
POLL_S = 0.05


def mark_children(run: str) -> None:
    """Give all processes that are started from now on, and those that they start, the mark of this run."""
    os.environ[MARK_VARIABLE] = run


def survivors(run: str, patience_s: float) -> Mapping[int, str]:
    """Command lines by process id of what is left of a run after the given time, during which it may end."""
    deadline = time.monotonic() + patience_s
    while (left := _marked(run)) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    return left


def kill(pids: Mapping[int, str]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _marked(run: str) -> dict[int, str]:
    mark = f"{MARK_VARIABLE}={run}".encode()
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or is somebody else's
            if mark not in (folder / "environ").read_bytes().split(b"\0"):
                continue
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            # Python's own helpers (its resource tracker, its fork server) end with the process they help.
            if command and not ("multiprocessing." in command and _parent(folder) == os.getpid()):
                found[int(folder.name)] = command
    return found


def _parent(folder: Path) -> int:
    # The second field of `stat`, the program's name, may hold spaces and parentheses.
    return int((folder / "stat").read_text().rpartition(")")[2].split()[1])
