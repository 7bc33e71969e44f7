"""An engine as the driver sees it."""

from dataclasses import replace

import pytest

from agent.transcription.engine import SPARE_BELOW_RATE, Engine
from plugins.stt.traits import TRAITS, Traits
from tests.support.telling_stt import TellingSTT
from tests.support.transcribing import PLAIN, SUM

JUST_TOO_SLOW = SPARE_BELOW_RATE - 0.01


@pytest.mark.parametrize(
    ("traits", "lanes"),
    [
        pytest.param(PLAIN, 1, id="fast"),
        pytest.param(replace(PLAIN, burst_rate=SPARE_BELOW_RATE), 1, id="fast_enough"),
        pytest.param(replace(PLAIN, burst_rate=JUST_TOO_SLOW), 2, id="too_slow"),
        pytest.param(replace(PLAIN, burst_rate=JUST_TOO_SLOW, recognizes=True), 1, id="takes_whole_turns"),
        pytest.param(replace(PLAIN, live_turns=2), 2, id="two_at_once"),
        pytest.param(replace(PLAIN, live_turns=2, burst_rate=JUST_TOO_SLOW), 3, id="two_at_once_too_slow"),
        pytest.param(SUM, 1, id="sum"),
        # A second stream would hear the same once more.
        pytest.param(replace(SUM, burst_rate=JUST_TOO_SLOW), 1, id="slow_sum"),
    ],
)
def test_engine_that_can_neither_be_fed_fast_nor_take_whole_turns_has_a_stream_more(
    traits: Traits, lanes: int
):
    assert Engine("engine", TellingSTT(), traits).lanes == lanes


@pytest.mark.parametrize(("name", "lanes"), [("whisper", 2), ("deepgram", 1), ("openai", 1)])
def test_ours_take_as_many_turns_at_once_as_cost_no_more_than_one(name: str, lanes: int):
    assert Engine(name, TellingSTT(), TRAITS[name]).lanes == lanes
