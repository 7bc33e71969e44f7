"""Live speech needs a processor: what a hypervisor takes is taken from the sound that is heard."""

import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

__all__ = ["heard_undisturbed", "stolen_s"]

PROCESSORS = Path("/proc/stat")
STOLEN = 8  # of the numbers of its first line, the label counted (proc(5))
TOO_MUCH = 0.05  # of the time of all processors
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


async def heard_undisturbed(attempt: Callable[[int], Awaitable[None]], duration_s: float) -> None:
    """Do what plays speech in real time again where it fails and the machine was being kept from running.

    WebRTC drops and bends sound that is late by tenths of a second, in the speaker's client too, so nobody
    could have heard the words. A failure with the processors at hand stands at once, as does the last one.

    Args:
        attempt: Does it all, in a room of its own; it gets 0, 1, …
        duration_s: About how long it takes; a share of it is what may be stolen.

    Raises:
        AssertionError: As the attempt said it.
    """
    allowed_s = TOO_MUCH * duration_s * (os.cpu_count() or 1)
    for number in range(ATTEMPTS):
        before_s = stolen_s()
        try:
            await attempt(number)
        except AssertionError as error:
            lost_s = stolen_s() - before_s
            if lost_s <= allowed_s or number == ATTEMPTS - 1:
                raise
            logging.warning("once more, since %.0f s of processor time were stolen: %s", lost_s, error)
        else:
            return
