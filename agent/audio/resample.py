"""Brings a track to the rate that speech engines and voice activity detection take."""

import numpy as np
import soxr

from agent.values import SAMPLE_RATE_HZ, Samples

__all__ = ["Resampler"]


class Resampler:
    """One track's stream, from its own rate to `SAMPLE_RATE_HZ`. A few milliseconds wait inside.

    Args:
        sample_rate_hz: Of what comes in.
    """

    def __init__(self, sample_rate_hz: int) -> None:
        is_needed = sample_rate_hz != SAMPLE_RATE_HZ
        self._stream = (
            soxr.ResampleStream(sample_rate_hz, SAMPLE_RATE_HZ, 1, dtype="int16", quality="MQ")
            if is_needed
            else None
        )

    def push(self, samples: Samples) -> Samples:
        """Take `int16` of shape `(samples,)` at the track's rate, give the same at `SAMPLE_RATE_HZ`."""
        if self._stream is None:
            return samples
        return np.asarray(self._stream.resample_chunk(samples), np.int16)
