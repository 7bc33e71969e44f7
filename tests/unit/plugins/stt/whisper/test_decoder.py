"""Decoding: what is spared changes nothing that the model hears."""

import numpy as np
import pytest
from faster_whisper.feature_extractor import FeatureExtractor

from agent.values import SAMPLE_RATE_HZ
from plugins.stt.whisper.decoder import padded_log_mel


@pytest.mark.parametrize("amplitude", [0.0, 30.0, 5_000.0])
@pytest.mark.parametrize("duration_s", [0.1, 1.2345, 6.0])
def test_spectrogram_of_the_silence_need_not_be_computed(amplitude: float, duration_s: float) -> None:
    extractor = FeatureExtractor()
    samples = np.random.default_rng(1).normal(0, amplitude, round(duration_s * SAMPLE_RATE_HZ))
    heard = samples.astype(np.int16)
    length = 6 * SAMPLE_RATE_HZ
    whole = np.zeros(length, np.float32)
    whole[: len(heard)] = heard
    np.testing.assert_allclose(
        padded_log_mel(extractor, heard, length), extractor(whole / 32768, padding=0), atol=1e-5
    )
