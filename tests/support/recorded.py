"""What of somebody's words is in a recording, found by the sound itself and not by what was noted of it."""

from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from agent.values import Samples

__all__ = ["decoded", "lost_ms"]

RATE_HZ = 48_000
STEP = 8  # of the samples that are compared: 6 kHz are enough to find a place to the millisecond


def decoded(path: Path) -> Samples:
    """The samples of a segment, 48 kHz mono."""
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray() for frame in container.decode(audio=0)]
    samples = np.concatenate([frame.reshape(-1) for frame in frames])
    return (samples * 32_767).astype(np.int16) if samples.dtype != np.int16 else samples


def lost_ms(before: Samples, after: Samples, spoken: Samples, *, part_s: float = 3.0) -> float:
    """How much of what somebody says over and over is missing between two recordings; below 0: is in both.

    Args:
        before: The first recording, 48 kHz.
        after: The second one.
        spoken: What is said again and again, 48 kHz.
        part_s: How much of either recording is looked for in it, where the two meet.
    """
    size = round(part_s * RATE_HZ)
    end = _place(before[-size:], spoken) + len(before[-size:]) // STEP
    begin = _place(after[:size], spoken)
    period = len(spoken) // STEP
    missing = (begin - end + period // 2) % period - period // 2
    return missing * STEP * 1000 / RATE_HZ


def _place(part: Samples, spoken: Samples) -> int:
    """Where a recording begins in what is said over and over, by circular correlation."""
    whole, some = _coarse(spoken), _coarse(part)
    padded = np.zeros_like(whole)
    padded[: len(some)] = some
    return int(np.argmax(np.fft.irfft(np.fft.rfft(whole) * np.conj(np.fft.rfft(padded)), len(whole))))


def _coarse(samples: Samples) -> NDArray[np.float64]:
    usable = samples[: len(samples) // STEP * STEP].astype(np.float64)
    return usable.reshape(-1, STEP).mean(axis=1)
