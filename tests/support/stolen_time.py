"""Live speech needs a processor: what a hypervisor takes is taken from the sound that is heard.

WebRTC drops and bends sound that is late by tenths of a second, in the speaker's client too, and leases run
out. So what failed in a live room is done again, in a room of its own, where the machine was kept from
running meanwhile; with the processors at hand a failure stands at once.
"""

import os
import time
from pathlib import Path

__all__ = ["ATTEMPTS", "StolenTime", "stolen_s"]

PROCESSORS = Path("/proc/stat")
STOLEN = 8  # of the numbers of its first line, the label counted (proc(5))
TOO_MUCH = 0.02  # of the time of all processors
ATTEMPTS = 3


def stolen_s() -> float:
    """Processor seconds that other machines of the host had of ours since the start; 0 where nothing tells.

    Nothing that runs on this machine adds to it, so it can't excuse what we are slow at.
    """
    try:
        numbers = PROCESSORS.read_text(encoding="ascii").split(maxsplit=STOLEN + 1)
    except OSError:
        return 0.0
    return int(numbers[STOLEN]) / os.sysconf("SC_CLK_TCK")


class StolenTime:
    """Tells whether too much was stolen since a test began."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Count from now on."""
        self._began_s = time.monotonic()
        self._stolen_before_s = stolen_s()

    def was_too_much(self) -> bool:
        """Whether more than a fiftieth of all processors' time was stolen since then."""
        lasted_s = (time.monotonic() - self._began_s) * (os.cpu_count() or 1)
        return stolen_s() - self._stolen_before_s > TOO_MUCH * lasted_s
