"""Recorded speech as it comes from elsewhere: later, at another level, through another microphone."""

import numpy as np
from numpy.typing import NDArray

from agent.values import SAMPLES_PER_MS, Samples

__all__ = ["later", "levelled", "recorded"]


def later(samples: NDArray, by_ms: float) -> NDArray:
    """As long as before, with silence first."""
    return np.concatenate((np.zeros(round(by_ms * SAMPLES_PER_MS), samples.dtype), samples))[: len(samples)]


def levelled(samples: NDArray, level_db: float | NDArray) -> NDArray:
    """Louder by so much, or softer where it is negative."""
    return samples * 10 ** (level_db / 20)


def recorded(samples: NDArray, snr_db: float = 30) -> Samples:
    """With noise, as int16."""
    rms = np.sqrt(np.mean(np.square(samples.astype(float))))
    noise = np.random.default_rng(2).standard_normal(len(samples)) * levelled(rms, -snr_db)
    return np.clip(np.round(samples + noise), -32768, 32767).astype(np.int16)
