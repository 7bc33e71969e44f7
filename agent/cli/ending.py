"""Ending a process that has been in a room."""

import atexit
import os
import sys
from contextlib import suppress
from typing import NoReturn

__all__ = ["EXIT_WRONG_INPUT", "end_process"]

EXIT_WRONG_INPUT = 2  # the settings, or what else a command was given, are wrong


def end_process(code: int) -> NoReturn:
    """End this process with its exit code, as an ordinary end does, but without finalizing the interpreter.

    A native thread of the LiveKit SDK that calls back into an interpreter being finalized is ended by it,
    which aborts the whole process (SIGABRT, in about one of twenty runs on a busy machine).
    """
    if "livekit.rtc" in sys.modules:
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # nobody reads it any more
                stream.flush()
        os._exit(code)
    sys.exit(code)
