"""Streams that end in their own ways, and engines that tell little of what they say."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from agent.audio.front_end import Opened
from agent.transcription.engine import Engine, EngineDown, Missed
from agent.transcription.lane import SHORT_LIVED_S
from agent.transcription.transcriber import Transcriber
from agent.values import Heard
from tests.support.speech_windows import VOICE, in_time, windows_of
from tests.support.telling_stt import Health, TellingStream, TellingSTT
from tests.support.transcribing import OVERLAPPING, PLAIN, TALK, assert_all_heard_once, transcribe
from tests.support.virtual_time import run_virtual


class Impatient(TellingSTT):
    """Ends a stream that has been given nothing for a while, as services do."""

    def stream(self, **options: Any) -> "ImpatientStream":
        stream = ImpatientStream(self, options["conn_options"])
        self.health.streams.append(stream)
        return stream


class ImpatientStream(TellingStream):
    async def _run(self) -> None:
        running = asyncio.create_task(super()._run())
        heard_s, idle_s = 0.0, 0.0
        while idle_s < SHORT_LIVED_S + 1 and not running.done():
            await asyncio.sleep(0.5)
            idle_s = idle_s + 0.5 if self.heard_s == heard_s else 0.0
            heard_s = self.heard_s
        running.cancel()
        await asyncio.wait((running,))


class Clinging(TellingSTT):
    """Its streams never let go."""

    def stream(self, **options: Any) -> "ClingingStream":
        stream = ClingingStream(self, options["conn_options"])
        self.health.streams.append(stream)
        return stream


class ClingingStream(TellingStream):
    async def aclose(self) -> None:
        await asyncio.Event().wait()


def test_service_that_ends_an_idle_stream_has_not_failed():
    health = Health()
    talk = list(in_time(windows_of("a", [(320, 2_560), (20_000, 22_400)], 24_000)))
    run = transcribe(talk, (lambda: Impatient(health), PLAIN))
    assert_all_heard_once(run, talk)
    assert len(health.streams) >= 2
    assert run.of(EngineDown) == []


@pytest.mark.parametrize("breaks_at_s", [None, 2.0])
def test_stream_that_does_not_let_go_holds_nobody_up(breaks_at_s):
    health = Health(breaks_at_s=breaks_at_s)
    run = transcribe(TALK, (lambda: Clinging(health), PLAIN), then_s=20)
    assert_all_heard_once(run, TALK)


def test_engine_without_times_and_acknowledgements_gives_each_final_to_who_said_it():
    tells_little = replace(PLAIN, acknowledges=False, has_word_times=False)
    run = transcribe(OVERLAPPING, (lambda: TellingSTT(acknowledges=False), tells_little), then_s=40)
    assert_all_heard_once(run, OVERLAPPING)
    assert run.of(Missed) == []


def test_engine_that_is_too_slow_is_not_given_more_than_it_can_ever_answer():
    health = Health(answer_s=250.0)
    talk = windows_of("a", [(320 + at, 20_000 + at) for at in range(0, 280_000, 21_000)], 290_000)
    run = transcribe(
        talk,
        (lambda: TellingSTT(health), replace(PLAIN, stall_after_s=10_000.0)),
        at={260.0: lambda: setattr(health, "answer_s", 0.05)},
        then_s=20,
    )
    missed = run.of(Missed)
    assert {each.reason for each in missed} == {"backlog"}
    heard = set(run.words("a"))
    for window in talk:
        is_told = any(each.start_ms <= window.start_ms < each.end_ms for each in missed)
        assert window.probability != VOICE or is_told or int(window.samples[0]) in heard


def test_fault_of_whoever_is_told_is_not_taken_for_the_engines():
    told: list[object] = []

    async def main() -> None:
        transcriber = Transcriber([Engine("engine", TellingSTT(), PLAIN)])

        def heed(what: object) -> None:
            told.append(what)
            if isinstance(what, Heard):
                raise ValueError("ours")  # noqa: TRY004

        running = asyncio.create_task(transcriber.run(heed))  # type: ignore[arg-type]
        transcriber.push([Opened("a")], 0)
        for window in TALK:
            await asyncio.sleep(0.032)
            transcriber.push([window], window.end_ms)
            if running.done():
                break
        with pytest.raises(ExceptionGroup) as failed:
            await running
        [error] = failed.value.exceptions
        assert isinstance(error.__cause__, ValueError)

    run_virtual(main())
    assert not [each for each in told if isinstance(each, EngineDown)]


def test_stream_that_cancels_its_own_closing_is_no_cancellation_of_ours():
    class SelfCancelled(ClingingStream):
        async def aclose(self) -> None:
            raise asyncio.CancelledError

    class Cancelling(TellingSTT):
        def stream(self, **options: Any) -> SelfCancelled:
            stream = SelfCancelled(self, options["conn_options"])
            self.health.streams.append(stream)
            return stream

    health = Health(breaks_at_s=2.0)
    run = transcribe(TALK, (lambda: Cancelling(health), PLAIN), then_s=20)
    assert_all_heard_once(run, TALK)
    assert len(health.streams) == 2
