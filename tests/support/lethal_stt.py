"""A speech engine that takes its process with it: `tests.support.lethal_stt:LethalSTT`."""

import os
import signal
from typing import Any, NoReturn

from benchmarks.counting_stt import CountingSTT

__all__ = ["LethalSTT"]


class LethalSTT(CountingSTT):
    """Dies as soon as it is to hear something, as a library does that has a fault in its machine code."""

    def stream(self, **_: Any) -> NoReturn:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("it has survived")
