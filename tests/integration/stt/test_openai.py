"""OpenAI's engine against a server that speaks its protocol: what a caller of the STT interface may rely on,
whatever the service does. Real speech goes through a server of its own process, by the local engine."""

import asyncio
import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from livekit import rtc
from livekit.agents import APIConnectionError, APIError, APIStatusError, APITimeoutError, stt
from livekit.agents.types import APIConnectOptions
from structlog.testing import capture_logs

from agent.ingest.meeting import Meeting, Segment, load_meeting
from agent.values import SAMPLE_RATE_HZ, Samples
from plugins.stt.openai import OpenAISTT
from plugins.stt.traits import FLUSHED
from tests.support.gathering import until
from tests.support.meetings import INCIDENT_REVIEW
from tests.support.openai_speech import API_KEY, Mode, OpenAISpeech, Recognised, scripted

Kind = stt.SpeechEventType
Script = Callable[[Samples], Any]

LIMIT_S = 20.0  # for what takes milliseconds on a machine that has nothing else to do
FRAME_S = 0.05
PATIENCE_S = 0.3  # of a client whose server says nothing
NO_RETRY = APIConnectOptions(max_retry=0, timeout=LIMIT_S)
IMPATIENT = APIConnectOptions(max_retry=0, timeout=PATIENCE_S)
ROOT = Path(__file__).parents[3]


def noise(duration_s: float) -> Samples:
    return np.random.default_rng(7).normal(0, 3000, round(duration_s * SAMPLE_RATE_HZ)).astype(np.int16)


def frame(samples: Samples, *, sample_rate_hz: int = SAMPLE_RATE_HZ, channels: int = 1) -> rtc.AudioFrame:
    return rtc.AudioFrame(samples.tobytes(), sample_rate_hz, channels, len(samples) // channels)


def push(stream: stt.RecognizeStream, samples: Samples) -> None:
    size = round(FRAME_S * SAMPLE_RATE_HZ)
    for first in range(0, len(samples), size):
        stream.push_frame(frame(samples[first : first + size]))


def push_turn(stream: stt.RecognizeStream, samples: Samples) -> None:
    push(stream, samples)
    stream.flush()


@asynccontextmanager
async def connected(recognise: Script, **options: Any) -> AsyncIterator[tuple[OpenAISpeech, OpenAISTT]]:
    """A server and an engine that uses it. When the engine is closed, nothing of it is left."""
    before = asyncio.all_tasks()
    async with OpenAISpeech(recognise) as server:
        engine = OpenAISTT(**{"api_key": server.api_key, "base_url": server.base_url, **options})
        yield server, engine
        await engine.aclose()
        await until(lambda: not sockets_to(server), what="no socket")
        server.behaviour.mode = Mode.NONE  # one that reads nothing would not see that the client has gone
        await until(lambda: server.counts.open_connections == 0, what="no connection")
    await until(lambda: asyncio.all_tasks() == before, what="no task")


def sockets_to(server: OpenAISpeech) -> list[object]:
    """This process's ends of connections to a server that it runs itself."""
    connections = psutil.Process().net_connections("tcp")
    return [one for one in connections if one.raddr and one.raddr.port == server.port]


@asynccontextmanager
async def streaming(
    recognise: Script, **options: Any
) -> AsyncIterator[tuple[OpenAISpeech, OpenAISTT, stt.RecognizeStream]]:
    """As `connected`, with a stream that is open."""
    async with (
        connected(recognise, **options) as (server, engine),
        asyncio.timeout(LIMIT_S),
        engine.stream(conn_options=NO_RETRY) as stream,
    ):
        yield server, engine, stream


async def transcribe(
    engine: OpenAISTT, *turns: Samples, conn_options: APIConnectOptions = NO_RETRY
) -> list[stt.SpeechEvent]:
    """Push turns with a flush after each, and return all events."""
    async with asyncio.timeout(LIMIT_S), engine.stream(conn_options=conn_options) as stream:
        for turn in turns:
            push_turn(stream, turn)
        stream.end_input()
        return [event async for event in stream]


async def failure(engine: OpenAISTT, *turns: Samples, conn_options: APIConnectOptions = NO_RETRY) -> APIError:
    """The error that a stream ends with."""
    with pytest.raises(APIError) as raised:
        await transcribe(engine, *turns, conn_options=conn_options)
    return raised.value


async def answer(stream: stt.RecognizeStream) -> list[stt.SpeechEvent]:
    """The events up to the next acknowledgement."""
    events: list[stt.SpeechEvent] = []
    async with asyncio.timeout(LIMIT_S):
        async for event in stream:
            events.append(event)
            if is_acknowledgement(event):
                return events
    raise AssertionError("the stream ended")


def is_acknowledgement(event: stt.SpeechEvent) -> bool:
    return event.type == Kind.END_OF_SPEECH and event.request_id == FLUSHED


def data_of(events: list[stt.SpeechEvent], kind: Kind) -> list[stt.SpeechData]:
    return [event.alternatives[0] for event in events if event.type == kind]


def finals(events: list[stt.SpeechEvent]) -> list[str]:
    return [data.text for data in data_of(events, Kind.FINAL_TRANSCRIPT)]


def spelled(events: list[stt.SpeechEvent]) -> str:
    """The kinds of the events, a letter each: Interim, Final, usage (R), acknowledgement (A)."""
    return "".join("A" if is_acknowledgement(event) else event.type.name[0] for event in events)


# A stream by the Realtime API


async def test_each_flush_is_answered_once_and_in_order() -> None:
    texts = ["Good morning.", "How many are there?", "Two percent."]
    async with connected(scripted(*texts)) as (server, engine):
        events = await transcribe(engine, noise(0.5), noise(0.3), noise(0.4))
    assert re.fullmatch("I*FRAI*FRAI*FRA", spelled(events))
    assert finals(events) == texts
    spans = [(data.start_time, data.end_time) for data in data_of(events, Kind.FINAL_TRANSCRIPT)]
    assert spans == [(0.0, 0.5), (0.5, 0.8), (0.8, 1.2)]
    assert not any(data.words for data in data_of(events, Kind.FINAL_TRANSCRIPT))
    assert (server.counts.connections, server.counts.commits) == (1, 3)
    assert server.counts.audio_s == pytest.approx(1.2, abs=0.001)


async def test_interims_of_a_turn_grow_until_its_final() -> None:
    async with connected(scripted("How many are there?")) as (_, engine):
        events = await transcribe(engine, noise(0.5))
    interims = [data.text for data in data_of(events, Kind.INTERIM_TRANSCRIPT)]
    assert interims == ["How", "How many", "How many are", "How many are there?"]
    assert len({event.request_id for event in events if event.request_id != FLUSHED}) == 1


async def test_model_that_writes_while_somebody_speaks_is_shown_before_the_flush() -> None:
    async def counting(samples: Samples) -> Recognised:
        return Recognised(" ".join(["one", "two", "three", "four"][: len(samples) * 4 // SAMPLE_RATE_HZ]))

    async with connected(counting) as (server, engine):
        server.behaviour.delta_every_s = 0.25
        async with asyncio.timeout(LIMIT_S), engine.stream(conn_options=NO_RETRY) as stream:
            push(stream, noise(0.75))
            event = await anext(stream)
            while event.alternatives[0].text != "one two":
                event = await anext(stream)
            assert event.type == Kind.INTERIM_TRANSCRIPT
            push_turn(stream, noise(0.25))
            push_turn(stream, noise(0.5))
            assert finals(await answer(stream)) == ["one two three four"]
            assert finals(await answer(stream)) == ["one two"]


async def test_flush_without_audio_is_ignored() -> None:
    async with streaming(scripted("Right.")) as (server, _, stream):
        stream.flush()
        push_turn(stream, noise(0.3))
        stream.flush()
        stream.flush()
        stream.end_input()
        events = [event async for event in stream]
    assert spelled(events).count("A") == server.counts.commits == 1


async def test_stream_without_audio_ends() -> None:
    async with connected(scripted("")) as (server, engine):
        assert await transcribe(engine) == []
    assert server.counts.commits == 0


async def test_turn_too_short_for_the_service_is_lengthened() -> None:
    async with connected(scripted("Mm.")) as (server, engine):
        events = await transcribe(engine, noise(0.03), noise(0.05))
    assert finals(events) == ["Mm.", "Mm."]
    last = data_of(events, Kind.FINAL_TRANSCRIPT)[-1]
    assert (last.start_time, last.end_time) == (0.03, 0.08)
    assert server.counts.audio_s == pytest.approx(0.24, abs=0.001)
    billed = [event.recognition_usage for event in events if event.recognition_usage is not None]
    assert [usage.audio_duration for usage in billed] == [0.12, 0.12]
    assert billed[0].input_tokens > 0


async def test_frames_of_another_rate_are_taken() -> None:
    async with streaming(scripted("Right.")) as (server, _, stream):
        stream.push_frame(frame(np.repeat(noise(0.5), 3), sample_rate_hz=48_000))
        stream.end_input()
        events = [event async for event in stream]
    assert finals(events) == ["Right."]
    assert server.counts.audio_s == pytest.approx(0.5, abs=0.05)


async def test_items_completed_in_another_order_are_answered_in_that_of_the_flushes() -> None:
    async with connected(scripted("First.", "Second.", "Third.", "Fourth.")) as (server, engine):
        server.behaviour.mode = Mode.REVERSED
        events = await transcribe(engine, *[noise(0.2)] * 4)
    assert re.fullmatch("I*FRAI*FRAI*FRAI*FRA", spelled(events))
    assert finals(events) == ["First.", "Second.", "Third.", "Fourth."]


async def test_silence_is_acknowledged_without_a_final() -> None:
    async with connected(scripted("")) as (server, engine):
        server.behaviour.mode = Mode.EMPTY
        events = await transcribe(engine, noise(0.2), noise(0.2))
    assert spelled(events) == "RARA"


async def test_turn_that_failed_for_the_services_own_reasons_is_not_acknowledged() -> None:
    async with streaming(scripted("Right.")) as (server, _, stream):
        server.behaviour.mode = Mode.LIMIT_ITEMS
        push_turn(stream, noise(0.2))
        with pytest.raises(APIStatusError) as failed:
            await answer(stream)
    assert failed.value.status_code == 429


async def test_long_text_comes_whole() -> None:
    async with connected(scripted("")) as (server, engine):
        server.behaviour.mode = Mode.LONG
        async with asyncio.timeout(LIMIT_S), engine.stream(conn_options=NO_RETRY) as stream:
            push_turn(stream, noise(0.2))
            [text] = finals(await answer(stream))
    assert len(text) == 10_000


async def test_turn_that_cannot_be_transcribed_is_acknowledged_and_logged() -> None:
    async with streaming(scripted("Right.")) as (server, _, stream):
        server.behaviour.mode = Mode.FAIL_ITEMS
        with capture_logs() as logs:
            push_turn(stream, noise(0.2))
            assert spelled(await answer(stream)) == "A"
        server.behaviour.mode = Mode.NONE
        push_turn(stream, noise(0.2))
        assert finals(await answer(stream)) == ["Right."]
    [line] = [line for line in logs if line["log_level"] == "error"]
    assert line == {"event": "openai.turn_failed", "code": "audio_unintelligible", "log_level": "error"}


async def test_nonsense_between_answers_does_no_harm() -> None:
    async with connected(scripted("First.", "Second.")) as (server, engine):
        server.behaviour.mode = Mode.GARBAGE
        with capture_logs() as logs:
            events = await transcribe(engine, noise(0.2), noise(0.2))
    assert finals(events) == ["First.", "Second."]
    assert spelled(events).count("A") == 2
    assert "openai.malformed_message" in {line["event"] for line in logs}


async def test_prompt_that_comes_back_is_no_speech() -> None:
    options = {"stream_model": "gpt-4o-transcribe", "keyterms": ["Ines", "Nora"]}
    async with connected(scripted("Ines, Nora."), **options) as (server, engine):
        events = await transcribe(engine, noise(0.2))
    assert finals(events) == []
    [session] = server.counts.sessions
    assert session["audio"]["input"]["transcription"]["prompt"] == "Ines, Nora"


async def test_key_terms_apply_from_the_next_turn_on() -> None:
    async with streaming(scripted("Right."), keyterms=["Ines"]) as (server, engine, stream):
        push_turn(stream, noise(0.2))
        await answer(stream)
        push_turn(stream, noise(0.2))
        await answer(stream)
        engine.update_keyterms(["Ines", "Nora"])
        push_turn(stream, noise(0.2))
        await answer(stream)
    sent = [session["audio"]["input"]["transcription"].get("keywords") for session in server.counts.sessions]
    assert sent == [["Ines"], ["Ines", "Nora"]]
    assert server.counts.connections == 1


# Sessions that end


async def test_old_session_is_replaced_between_turns_and_nothing_is_lost() -> None:
    texts = ["First.", "Second.", "Third.", "Fourth."]
    async with streaming(scripted(*texts), renew_after_s=0.3) as (server, _, stream):
        events: list[stt.SpeechEvent] = []
        for _ in texts:
            push(stream, noise(0.2))
            await asyncio.sleep(0.2)  # a turn goes on while its session gets old
            push_turn(stream, noise(0.1))
            events += await answer(stream)
    assert finals(events) == texts
    assert [data.start_time for data in data_of(events, Kind.FINAL_TRANSCRIPT)] == [0.0, 0.3, 0.6, 0.9]
    assert server.counts.connections > 1
    assert server.counts.commits == 4
    assert server.counts.audio_s == pytest.approx(1.2, abs=0.001)


async def test_session_is_replaced_though_people_never_pause() -> None:
    texts = [f"Turn {number}." for number in range(8)]
    async with streaming(scripted(*texts), renew_after_s=0.2) as (server, _, stream):
        for _ in texts:
            push_turn(stream, noise(0.2))
            await asyncio.sleep(0.1)
        stream.end_input()
        events = [event async for event in stream]
    assert finals(events) == texts
    assert server.counts.commits == len(texts)
    assert server.counts.connections > 1


async def test_session_that_expires_between_turns_is_replaced() -> None:
    async with streaming(scripted("First.", "Second.")) as (server, _, stream):
        push_turn(stream, noise(0.2))
        assert finals(await answer(stream)) == ["First."]
        server.expire()
        await until(lambda: server.counts.connections == 2, what="a second session")
        push_turn(stream, noise(0.2))
        assert finals(await answer(stream)) == ["Second."]


async def test_session_that_expires_in_a_turn_fails_after_what_was_answered() -> None:
    async with streaming(scripted("First.", "Second.")) as (server, _, stream):
        push_turn(stream, noise(0.2))
        assert finals(await answer(stream)) == ["First."]
        answered_s = server.counts.audio_s
        push(stream, noise(0.2))
        await until(lambda: server.counts.audio_s > answered_s, what="some of the second turn")
        server.expire()
        with pytest.raises(APIConnectionError, match="expired"):
            await answer(stream)


async def test_service_that_grants_no_time_is_not_asked_again_and_again() -> None:
    async with connected(scripted("")) as (server, engine):
        server.behaviour.session_limit_s = 0.0
        async with engine.stream(conn_options=NO_RETRY) as stream:
            with pytest.raises(APIConnectionError, match="expired"):
                await answer(stream)
    assert server.counts.connections == 1


# Services that fail


def refusal_status(error: APIError) -> int:
    assert isinstance(error, APIStatusError)
    return error.status_code


async def test_wrong_key_is_refused_and_never_shown() -> None:
    async with connected(scripted(""), api_key="sk-wrong-secret") as (server, engine):
        with capture_logs() as logs:
            streamed = await failure(engine, noise(0.2))
            with pytest.raises(APIError) as raised:
                await engine.recognize(frame(noise(0.2)), conn_options=NO_RETRY)
    for error in (streamed, raised.value):
        assert refusal_status(error) == 401
        assert not error.retryable
        causes = [error, error.__cause__, error.__context__ if not error.__suppress_context__ else None]
        assert "secret" not in "".join(repr(cause) + str(cause) for cause in causes)
    assert "secret" not in repr(logs) + repr(vars(engine))
    assert server.counts.connections == 0


@pytest.mark.parametrize(("mode", "status_code"), [(Mode.TOO_MANY, 429), (Mode.ERROR, 500)])
async def test_refusal_keeps_its_status(mode: Mode, status_code: int) -> None:
    async with connected(scripted("")) as (server, engine):
        server.behaviour.mode = mode
        streamed = await failure(engine, noise(0.2))
        with pytest.raises(APIError) as raised:
            await engine.recognize(frame(noise(0.2)), conn_options=NO_RETRY)
    for error in (streamed, raised.value):
        assert refusal_status(error) == status_code
        if status_code == 429:
            assert isinstance(error.body, dict)
            assert error.body["retry_after"] == 7.0
    assert server.counts.refused == 2  # nothing is tried again here


async def test_refused_connection_is_an_error_at_once() -> None:
    async with connected(scripted("")) as (server, engine):
        server.behaviour.mode = Mode.REFUSE
        assert type(await failure(engine, noise(0.2))) is APIConnectionError
        with pytest.raises(APIConnectionError):
            await engine.recognize(frame(noise(0.2)), conn_options=NO_RETRY)


async def test_server_that_is_away_is_an_error_at_once() -> None:
    async with OpenAISpeech(scripted("")) as server:
        pass
    engine = OpenAISTT(api_key=server.api_key, base_url=server.base_url)
    assert type(await failure(engine, noise(0.2))) is APIConnectionError
    with pytest.raises(APIConnectionError):
        await engine.recognize(frame(noise(0.2)), conn_options=NO_RETRY)
    await engine.aclose()


async def test_server_that_does_not_answer_is_given_up() -> None:
    async with connected(scripted("")) as (server, engine):
        server.behaviour.mode = Mode.HALF_OPEN
        assert isinstance(await failure(engine, noise(0.2), conn_options=IMPATIENT), APITimeoutError)
        server.behaviour.mode = Mode.STALL
        with pytest.raises(APITimeoutError):
            await engine.recognize(frame(noise(0.2)), conn_options=IMPATIENT)


async def test_unknown_model_is_refused() -> None:
    async with connected(scripted(""), stream_model="gpt-5", turn_model="gpt-5") as (_, engine):
        assert refusal_status(await failure(engine, noise(0.2))) == 400
        with pytest.raises(APIStatusError) as raised:
            await engine.recognize(frame(noise(0.2)), conn_options=NO_RETRY)
        assert refusal_status(raised.value) == 400


@pytest.mark.parametrize("mode", [Mode.DROP, Mode.DROP_AFTER_COMMIT])
async def test_connection_that_breaks_fails_after_what_was_answered(mode: Mode) -> None:
    async with streaming(scripted("First.")) as (server, _, stream):
        push_turn(stream, noise(0.2))
        assert finals(await answer(stream)) == ["First."]
        server.behaviour.mode = mode
        push_turn(stream, noise(0.2))
        with pytest.raises(APIConnectionError):
            await answer(stream)
    assert server.counts.connections == 1


async def test_service_that_goes_away_between_turns_is_an_error() -> None:
    async with OpenAISpeech(scripted("First.")) as server:
        engine = OpenAISTT(api_key=server.api_key, base_url=server.base_url)
        stream = engine.stream(conn_options=NO_RETRY)
        push_turn(stream, noise(0.2))
        assert finals(await answer(stream)) == ["First."]
    with pytest.raises(APIConnectionError, match="closed"):
        await answer(stream)
    await engine.aclose()


@pytest.mark.parametrize("mode", [Mode.STALL, Mode.HALF_OPEN])
async def test_service_that_falls_silent_acknowledges_nothing_and_can_be_left(mode: Mode) -> None:
    async with connected(scripted("First.")) as (server, engine):
        stream = engine.stream(conn_options=NO_RETRY)
        push_turn(stream, noise(0.2))
        assert finals(await answer(stream)) == ["First."]
        server.behaviour.mode = mode
        push_turn(stream, noise(0.2))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                await anext(stream)
        async with asyncio.timeout(LIMIT_S):
            await stream.aclose()


async def test_service_that_takes_no_more_audio_can_be_left() -> None:
    async with connected(scripted("")) as (server, engine):
        stream = engine.stream(conn_options=NO_RETRY)
        await until(lambda: server.counts.connections == 1, what="a session")
        server.behaviour.mode = Mode.HALF_OPEN
        for _ in range(10):
            stream.push_frame(frame(noise(60.0)))  # more than the sockets hold
        await asyncio.sleep(PATIENCE_S)
        async with asyncio.timeout(LIMIT_S):
            await stream.aclose()


async def test_closing_the_engine_closes_its_streams() -> None:
    async with connected(scripted("")) as (server, engine):
        streams = [engine.stream(conn_options=NO_RETRY) for _ in range(2)]
        await until(lambda: server.counts.connections == 2, what="two sessions")
        push(streams[0], noise(0.2))
        await engine.aclose()
        await until(lambda: server.counts.open_connections == 0, what="no connection")
        for stream in streams:
            with pytest.raises(RuntimeError):
                push(stream, noise(0.2))


async def test_stream_that_is_closed_while_it_connects_leaves_nothing() -> None:
    async with connected(scripted("")) as (server, engine):
        server.behaviour.mode = Mode.HALF_OPEN
        stream = engine.stream(conn_options=NO_RETRY)
        await asyncio.sleep(0.1)
        await stream.aclose()


@pytest.mark.parametrize("realtime", [True, False])
async def test_frame_of_several_channels_is_refused(realtime: bool) -> None:
    async with streaming(scripted(""), realtime=realtime) as (_, _, stream):
        with pytest.raises(ValueError, match="2 channels"):
            stream.push_frame(frame(noise(0.1), channels=2))


# Recordings


async def test_recording_becomes_its_text() -> None:
    async with connected(scripted("Good morning."), keyterms=["Ines", "Nora"]) as (server, engine):
        event = await engine.recognize(frame(noise(1.5)), conn_options=NO_RETRY)
    [data] = event.alternatives
    assert (event.type, data.text, data.words) == (Kind.FINAL_TRANSCRIPT, "Good morning.", [])
    assert (data.start_time, data.end_time) == (0.0, 1.5)
    assert event.recognition_usage is not None
    assert event.recognition_usage.audio_duration == 1.5
    [form] = server.counts.forms
    assert form == {
        "model": ["gpt-transcribe"],
        "language": ["en"],
        "keywords[]": ["Ines", "Nora"],
        "response_format": ["json"],
    }
    assert (server.counts.requests, server.counts.recordings_s) == (1, 1.5)


async def test_recording_has_word_times_where_the_model_gives_them() -> None:
    async with connected(scripted("Good morning, all."), turn_model="whisper-1") as (server, engine):
        event = await engine.recognize(frame(noise(1.5)), language="en-GB", conn_options=NO_RETRY)
    [data] = event.alternatives
    assert [str(word) for word in data.words or []] == ["Good", "morning,", "all."]
    times = [(word.start_time, word.end_time) for word in data.words or []]
    assert times == [(0.0, 0.2), (0.2, 0.4), (0.4, 0.6)]
    assert event.recognition_usage is not None
    assert event.recognition_usage.audio_duration == 2.0  # this model bills whole seconds
    assert server.counts.forms[0]["language"] == ["en"]
    assert server.counts.forms[0]["timestamp_granularities[]"] == ["word"]


async def test_recording_of_another_format_is_taken_as_it_is() -> None:
    async with connected(scripted("Right.")) as (server, engine):
        stereo = frame(np.repeat(noise(0.5), 6), sample_rate_hz=48_000, channels=2)
        event = await engine.recognize([stereo, stereo], conn_options=NO_RETRY)
    assert event.alternatives[0].end_time == 1.0
    assert server.counts.recordings_s == pytest.approx(1.0, abs=0.001)


@pytest.mark.parametrize(("duration_s", "requests"), [(0.0, 0), (0.03, 1)])
async def test_recording_with_next_to_nothing_in_it_is_no_failure(duration_s: float, requests: int) -> None:
    async with connected(scripted("")) as (server, engine):
        event = await engine.recognize(frame(noise(duration_s)), conn_options=NO_RETRY)
    assert event.alternatives[0].text == ""
    assert server.counts.requests == requests


async def test_senseless_answer_to_a_recording_is_an_error() -> None:
    async with connected(scripted("")) as (server, engine):
        server.behaviour.mode = Mode.GARBAGE
        with pytest.raises(APIConnectionError, match="not a transcript"):
            await engine.recognize(frame(noise(0.2)), conn_options=NO_RETRY)


async def test_recording_can_be_given_up_while_it_is_transcribed() -> None:
    async with connected(scripted("")) as (server, engine):
        server.behaviour.mode = Mode.STALL
        asking = asyncio.create_task(engine.recognize(frame(noise(0.2)), conn_options=NO_RETRY))
        await until(lambda: server.counts.requests == 1, what="a request")
        asking.cancel()
        with suppress(asyncio.CancelledError):
            await asking


# A stream without the Realtime API


async def test_turns_are_transcribed_one_at_a_time_and_in_order() -> None:
    texts = ["First.", "Second.", "Third."]
    waiting, under_way, most_under_way = list(texts), 0, 0

    async def slow(_samples: Samples) -> Recognised:
        nonlocal under_way, most_under_way
        under_way += 1
        most_under_way = max(most_under_way, under_way)
        await asyncio.sleep(0.05)
        under_way -= 1
        return Recognised(waiting.pop(0))

    async with connected(slow, realtime=False) as (server, engine):
        assert not engine.capabilities.interim_results
        async with asyncio.timeout(LIMIT_S), engine.stream(conn_options=NO_RETRY) as stream:
            stream.flush()
            for _ in texts:
                push_turn(stream, noise(0.2))
                stream.flush()
            stream.end_input()
            events = [event async for event in stream]
    assert spelled(events) == "FRAFRAFRA"
    assert finals(events) == texts
    assert [data.start_time for data in data_of(events, Kind.FINAL_TRANSCRIPT)] == [0.0, 0.2, 0.4]
    assert most_under_way == 1
    assert (server.counts.connections, server.counts.requests) == (0, 3)


async def test_words_of_a_turn_have_the_stream_s_time() -> None:
    options = {"realtime": False, "turn_model": "whisper-1"}
    async with connected(scripted("Good morning."), **options) as (_, engine):
        events = await transcribe(engine, noise(1.0), noise(1.0))
    second = data_of(events, Kind.FINAL_TRANSCRIPT)[1]
    assert [word.start_time for word in second.words or []] == [1.0, 1.2]


async def test_turn_that_is_refused_fails_after_what_was_answered() -> None:
    async with streaming(scripted("First."), realtime=False) as (server, _, stream):
        push_turn(stream, noise(0.2))
        assert finals(await answer(stream)) == ["First."]
        server.behaviour.mode = Mode.TOO_MANY
        push_turn(stream, noise(0.2))
        with pytest.raises(APIStatusError) as raised:
            await answer(stream)
    assert refusal_status(raised.value) == 429
    assert server.counts.requests == 2


async def test_silent_turn_is_acknowledged_without_a_final() -> None:
    async with connected(scripted(""), realtime=False) as (_, engine):
        assert spelled(await transcribe(engine, noise(0.2))) == "RA"


async def test_stream_of_turns_can_be_left_while_one_is_transcribed() -> None:
    async with connected(scripted(""), realtime=False) as (server, engine):
        server.behaviour.mode = Mode.STALL
        stream = engine.stream(conn_options=NO_RETRY)
        push_turn(stream, noise(0.2))
        await until(lambda: server.counts.requests == 1, what="a request")
        await stream.aclose()


# Real speech, by a server of its own process


@pytest.fixture(scope="module")
def meeting() -> Meeting:
    return load_meeting(INCIDENT_REVIEW, sample_rate_hz=SAMPLE_RATE_HZ)


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    """Of a server that recognises by the local engine."""
    command = [sys.executable, "-m", "tests.support.openai_speech", "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def ask(base_url: str, path: str, body: object = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(base_url.removesuffix("/v1") + path, data) as response:
        return json.load(response)


def turn(meeting: Meeting, beginning: str) -> Samples:
    said: Segment = next(said for said in meeting.segments if said.text.startswith(beginning))
    track = meeting.tracks[said.speaker]
    return track[round((said.start_s - 0.2) * SAMPLE_RATE_HZ) : round((said.end_s + 0.2) * SAMPLE_RATE_HZ)]


@pytest.mark.parametrize("realtime", [True, False])
async def test_speech_becomes_its_words_turn_by_turn(base_url: str, meeting: Meeting, realtime: bool) -> None:
    engine = OpenAISTT(api_key=API_KEY, base_url=base_url, realtime=realtime)
    turns = [turn(meeting, beginning) for beginning in ("So the alert", "No objection", "I thought we renew")]
    events = await transcribe(engine, *turns)
    await engine.aclose()
    heard = finals(events)
    assert spelled(events).count("A") == len(heard) == 3
    assert "alert threshold was too high" in heard[0]
    assert "objection" in heard[1]
    assert "renew those automatically" in heard[2]


async def test_recorded_speech_has_its_words_and_their_times(base_url: str, meeting: Meeting) -> None:
    engine = OpenAISTT(api_key=API_KEY, base_url=base_url, turn_model="whisper-1")
    samples = turn(meeting, "So the alert")
    event = await engine.recognize(frame(samples), conn_options=NO_RETRY)
    await engine.aclose()
    [data] = event.alternatives
    assert "alert threshold was too high" in data.text
    words = data.words or []
    assert " ".join(words) == data.text
    times = [(float(word.start_time or 0), float(word.end_time or 0)) for word in words]  # type: ignore[arg-type]
    assert times == sorted(times)
    assert 0.1 < times[0][0] < times[-1][1] <= len(samples) / SAMPLE_RATE_HZ


async def test_server_of_its_own_process_can_be_told_to_misbehave(base_url: str) -> None:
    engine = OpenAISTT(api_key=API_KEY, base_url=base_url)
    before = await asyncio.to_thread(ask, base_url, "/counts")
    await asyncio.to_thread(ask, base_url, "/control", {"mode": "too_many"})
    assert refusal_status(await failure(engine, noise(0.2))) == 429
    await asyncio.to_thread(ask, base_url, "/control", {"mode": "none"})
    after = await asyncio.to_thread(ask, base_url, "/counts")
    assert after["refused"] == before["refused"] + 1
    await engine.aclose()
