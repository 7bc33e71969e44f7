"""The ruler by which hand-overs are measured: sound that is missing, or there twice, in two recordings."""

import numpy as np
import pytest

from agent.ingest.meeting import load_meeting
from tests.support.meetings import INCIDENT_REVIEW
from tests.support.recorded import RATE_HZ, lost_ms

SPOKEN = load_meeting(INCIDENT_REVIEW, end_s=10).tracks["Nora"][RATE_HZ:]


@pytest.mark.parametrize("missing_ms", [0, 5, 200, 1_500, -300])
@pytest.mark.parametrize("at_s", [3.5, 5.0, 8.5])
def test_what_is_missing_between_two_recordings_is_found_by_the_sound(missing_ms: int, at_s: float):
    said = np.tile(SPOKEN, 3)
    noise = np.random.default_rng(1).normal(0, 30, len(said)).astype(np.int16)
    heard, end = said + noise, round(at_s * RATE_HZ)
    begin = end + missing_ms * RATE_HZ // 1000
    assert lost_ms(heard[:end], heard[begin:], SPOKEN) == pytest.approx(missing_ms, abs=1)
