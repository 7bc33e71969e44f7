"""The plain sum of all tracks, with a soft limiter."""

import numpy as np
from numpy.typing import NDArray

from agent.values import SAMPLES_PER_MS, Block, Samples

__all__ = ["MIX_TRACK", "Mixer", "soft_limit"]

MIX_TRACK = ""  # the track id of a block that is a sum
FULL_SCALE = 32767
KNEE = 0.7 * FULL_SCALE  # below it a sum of voices passes unchanged; a lone voice hardly ever reaches it


def soft_limit(total: NDArray[np.int32]) -> Samples:
    """Bend what is above the knee towards full scale, so that a loud sum is not clipped.

    Args:
        total: The sum of any number of `int16` tracks, shape `(samples,)`.

    Returns:
        `int16` of the same shape: equal to `total` below the knee, monotonic and within full scale above.
    """
    magnitude = np.abs(total)
    if not len(total) or magnitude.max() <= KNEE:
        return total.astype(np.int16)
    room = FULL_SCALE - KNEE
    bent = KNEE + room * np.tanh((magnitude - KNEE) / room)
    return np.where(magnitude <= KNEE, total, np.sign(total) * bent).astype(np.int16)


class Mixer:
    """Adds blocks where they overlap in time, and gives the sum in order."""

    def __init__(self) -> None:
        self._start_ms = 0
        self._total: NDArray[np.int32] = np.empty(0, np.int32)

    def add(self, block: Block) -> None:
        """Add a block that begins at or after the end of what was taken."""
        if not len(self._total):
            self._start_ms = block.start_ms
        before = self._start_ms - block.start_ms
        if before > 0:
            self._total = np.pad(self._total, (before * SAMPLES_PER_MS, 0))
            self._start_ms = block.start_ms
        begin = (block.start_ms - self._start_ms) * SAMPLES_PER_MS
        end = begin + len(block.samples)
        if end > len(self._total):
            self._total = np.pad(self._total, (0, end - len(self._total)))
        self._total[begin:end] += block.samples

    def take(self, until_ms: int) -> Block | None:
        """The sum up to a session time, or None where there is nothing before it."""
        count = min((until_ms - self._start_ms) * SAMPLES_PER_MS, len(self._total))
        if count <= 0:
            return None
        block = Block(MIX_TRACK, self._start_ms, soft_limit(self._total[:count]))
        self._total = self._total[count:]
        self._start_ms = block.end_ms
        return block
