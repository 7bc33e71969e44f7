"""Brings speech to the rate of the Realtime API."""

from __future__ import annotations

import numpy as np
import soxr

from agent.values import SAMPLE_RATE_HZ, Samples
from plugins.stt.openai.protocol import REALTIME_RATE_HZ

__all__ = ["Upsampler"]


class Upsampler:
    """Turns, one after the other, from `SAMPLE_RATE_HZ` to `REALTIME_RATE_HZ`.

    A few milliseconds wait inside until `flush`.
    """

    def __init__(self) -> None:
        self._stream = soxr.ResampleStream(SAMPLE_RATE_HZ, REALTIME_RATE_HZ, 1, dtype="int16", quality="MQ")

    def push(self, samples: Samples) -> bytes:
        """Take int16 samples of shape (samples,), give 16 bit PCM."""
        return np.asarray(self._stream.resample_chunk(samples), np.int16).tobytes()

    def flush(self) -> bytes:
        """Give what is left of a turn, and forget it."""
        rest = np.asarray(self._stream.resample_chunk(np.zeros(0, np.int16), last=True), np.int16).tobytes()
        self._stream.clear()
        return rest
