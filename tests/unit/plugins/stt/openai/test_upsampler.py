"""The way to 24 kHz: no sample is lost, and no turn leaks into the next."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from agent.values import SAMPLE_RATE_HZ
from plugins.stt.openai.protocol import REALTIME_RATE_HZ
from plugins.stt.openai.upsampler import Upsampler


def upsampled(upsampler: Upsampler, samples: np.ndarray, frame: int) -> np.ndarray:
    pcm = b"".join(upsampler.push(samples[at : at + frame]) for at in range(0, len(samples), frame))
    return np.frombuffer(pcm + upsampler.flush(), np.int16)


@given(st.integers(1, 5000), st.integers(1, 2000))
def test_turn_keeps_its_length(samples: int, frame: int) -> None:
    result = upsampled(Upsampler(), np.ones(samples, np.int16), frame)
    assert abs(len(result) - samples * REALTIME_RATE_HZ / SAMPLE_RATE_HZ) <= 1


def test_tone_stays_a_tone() -> None:
    time_s = np.arange(SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    tone = np.round(10_000 * np.sin(2 * np.pi * 440 * time_s)).astype(np.int16)
    expected_s = np.arange(REALTIME_RATE_HZ) / REALTIME_RATE_HZ
    expected = 10_000 * np.sin(2 * np.pi * 440 * expected_s)
    inner = slice(500, -500)  # a filter has no past at the beginning
    result = upsampled(Upsampler(), tone, 800)
    assert np.max(np.abs(result[inner] - expected[inner])) < 50


def test_turn_begins_with_nothing_of_the_one_before() -> None:
    upsampler = Upsampler()
    upsampled(upsampler, np.full(8000, 20_000, np.int16), 800)
    after = upsampled(upsampler, np.zeros(8000, np.int16), 800)
    assert np.max(np.abs(after)) <= 2  # the resampler dithers
