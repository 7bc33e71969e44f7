"""What is known of an engine that is not one of ours: what it says of itself, and else the careful guess."""

from typing import Any, NoReturn

import pytest
from livekit.agents import stt

from plugins.stt.traits import TRAITS, traits_of


class Foreign(stt.STT[Any]):
    """Somebody else's engine, with capabilities and nothing behind them."""

    def __init__(self, **capabilities: Any) -> None:
        super().__init__(
            capabilities=stt.STTCapabilities(**{"streaming": True, "interim_results": True, **capabilities})
        )

    async def _recognize_impl(self, *_args: Any, **_options: Any) -> NoReturn:
        raise NotImplementedError


PATH = "livekit.plugins.foreign:STT"


@pytest.mark.parametrize("can_flush", [True, False])
def test_foreign_engine_gets_the_floor_if_it_can_be_flushed_and_else_the_sum(can_flush: bool):
    assert traits_of(PATH, Foreign(manual_flush=can_flush)).finalizes is can_flush


def test_engine_that_says_nothing_of_flushes_gets_the_sum():
    assert not traits_of(PATH, Foreign()).finalizes


def test_acknowledgement_and_speculation_are_ours_and_expected_of_nobody_else():
    traits = traits_of(PATH, Foreign(manual_flush=True))
    assert not traits.acknowledges
    assert not traits.speculates


@pytest.mark.parametrize("recognizes", [True, False])
def test_foreign_engine_is_given_whole_turns_only_if_it_takes_recordings(recognizes: bool):
    assert traits_of(PATH, Foreign(offline_recognize=recognizes)).recognizes is recognizes


@pytest.mark.parametrize(("aligned", "has_word_times"), [("word", True), ("chunk", False), (False, False)])
def test_times_are_believed_only_of_engines_that_give_them_by_the_word(aligned: Any, has_word_times: bool):
    assert traits_of(PATH, Foreign(aligned_transcript=aligned)).has_word_times is has_word_times


def test_foreign_engine_is_taken_for_one_slow_stream_that_is_paid_while_it_is_open():
    traits = traits_of(PATH, Foreign(manual_flush=True, offline_recognize=True))
    assert (traits.bills, traits.live_turns, traits.burst_rate) == ("stream", 1, 1.25)


@pytest.mark.parametrize("name", TRAITS)
def test_ours_are_known_by_name_whatever_they_say(name: str):
    assert traits_of(name, Foreign(manual_flush=False, offline_recognize=False)) is TRAITS[name]


@pytest.mark.parametrize("path", ["plugins.stt.whisper:WhisperSTT", "Whisper", "whisper "])
def test_name_that_is_not_quite_one_of_ours_is_somebody_elses(path: str):
    assert traits_of(path, Foreign()).bills == "stream"
