"""Whole turns that are recognised beside the stream, by an engine whose recordings fail on their own."""

from dataclasses import replace
from typing import Any

import pytest
from livekit.agents import APIConnectionError, APIStatusError

from agent.transcription.engine import EngineDown, Missed
from agent.transcription.transcriber import MOST_BUSY_S
from tests.support.telling_stt import Health, TellingSTT
from tests.support.transcribing import OVERLAPPING, PLAIN, assert_all_heard_once, transcribe

RECOGNIZING = replace(PLAIN, recognizes=True)


class WithoutRecordings(TellingSTT):
    """Its streams work; `recognize()` fails."""

    def __init__(self, error: Exception) -> None:
        super().__init__(Health())
        self._error = error

    async def _recognize_impl(self, *_: Any, **__: Any) -> Any:
        self.health.recognitions += 1
        raise self._error


class PlainWords(TellingSTT):
    """Its recordings have words without times, as text."""

    async def _recognize_impl(self, *arguments: Any, **options: Any) -> Any:
        event = await super()._recognize_impl(*arguments, **options)
        event.alternatives[0].words = event.alternatives[0].text.split()
        return event


@pytest.mark.parametrize(
    "error",
    [APIConnectionError("refused"), APIStatusError("too many", status_code=429, body={"retry_after": 1e9})],
    ids=["refused", "too_many"],
)
def test_engine_that_takes_no_recordings_is_not_away_and_hears_them_over_its_stream(error):
    engine: list[WithoutRecordings] = []

    def make() -> WithoutRecordings:
        engine.append(WithoutRecordings(error))
        return engine[0]

    run = transcribe(OVERLAPPING, (make, RECOGNIZING), (TellingSTT, PLAIN))
    assert_all_heard_once(run, OVERLAPPING)
    assert engine[0].health.recognitions >= 1
    assert run.of(EngineDown) == []
    assert run.of(Missed) == []
    assert run.transcriber.failovers == 0


def test_engine_is_left_alone_for_no_longer_than_what_was_said_is_kept():
    health = Health(is_busy=True)

    class Busy(TellingSTT):
        def see_health(self) -> None:
            if self.health.is_busy:
                raise APIStatusError("too many", status_code=429, body={"retry_after": 86_400})

    run = transcribe(
        OVERLAPPING,
        (lambda: Busy(health), PLAIN),
        at={5.0: lambda: setattr(health, "is_busy", False)},
        then_s=MOST_BUSY_S,
    )
    assert_all_heard_once(run, OVERLAPPING)


def test_recording_with_words_without_times_is_heard():
    run = transcribe(OVERLAPPING, (PlainWords, RECOGNIZING))
    assert_all_heard_once(run, OVERLAPPING)
