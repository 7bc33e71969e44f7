"""The Deepgram engine against the stand-in, over a real socket.

Mostly the stand-in understands levels instead of speech: a stretch of samples of value 3 is the word "w3".
"""

import asyncio
import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from signal import SIGTERM

import numpy as np
import pytest
from livekit import rtc
from livekit.agents import APIConnectionError, APIStatusError, APITimeoutError, stt
from livekit.agents.types import APIConnectOptions
from structlog.testing import capture_logs

from agent.errors import EngineError
from agent.ingest.meeting import Meeting, load_meeting
from agent.values import SAMPLE_RATE_HZ, Samples
from plugins.stt.deepgram import DeepgramSTT, connection
from plugins.stt.deepgram.engine import DeepgramStream
from plugins.stt.traits import FLUSHED
from plugins.stt.whisper import WhisperSTT
from tests.support import server as processes
from tests.support.deepgram import (
    HOST,
    KEY,
    Behaviour,
    DeepgramServer,
    by_level,
    by_whisper,
    levels,
)
from tests.support.gathering import until
from tests.support.meetings import INCIDENT_REVIEW

Kind = stt.SpeechEventType

FRAME_S = 0.05
PATIENCE_S = 20.0  # nothing here takes as long, except on a machine that does something else
HURRIED = APIConnectOptions(max_retry=0, timeout=0.3)  # where nothing answers
BRISK = APIConnectOptions(max_retry=0, timeout=2.0)  # where the service answers first: as long for that, too
NO_RETRY = APIConnectOptions(max_retry=0, timeout=PATIENCE_S)


@pytest.fixture
async def service() -> AsyncIterator[DeepgramServer]:
    async with DeepgramServer(by_level) as server:
        yield server


@pytest.fixture
async def engine(service: DeepgramServer) -> AsyncIterator[DeepgramSTT]:
    deepgram = DeepgramSTT(api_key=KEY, base_url=service.url)
    yield deepgram
    await deepgram.aclose()


@pytest.fixture(scope="module")
def meeting() -> Meeting:
    return load_meeting(INCIDENT_REVIEW, sample_rate_hz=SAMPLE_RATE_HZ, end_s=6.0)


@pytest.fixture(scope="module")
def speech(meeting: Meeting) -> Samples:
    return meeting.tracks["Nora"]


@pytest.fixture(scope="module")
def said(meeting: Meeting) -> set[str]:
    segments = meeting.segments
    return set(plain(next(s.text for s in segments if s.text.startswith("Thanks for joining"))))


@pytest.fixture(scope="module")
def whisper() -> Iterator[WhisperSTT]:
    local = WhisperSTT()
    local.prewarm()
    yield local
    asyncio.run(local.aclose())


def frame(samples: Samples, *, sample_rate_hz: int = SAMPLE_RATE_HZ, channels: int = 1) -> rtc.AudioFrame:
    return rtc.AudioFrame(samples.tobytes(), sample_rate_hz, channels, len(samples) // channels)


class Client:
    """Pushes turns into a stream and keeps what comes back."""

    def __init__(self, stream: DeepgramStream) -> None:
        self.stream = stream
        self.events: list[stt.SpeechEvent] = []

    def push(self, samples: Samples) -> None:
        size = round(FRAME_S * SAMPLE_RATE_HZ)
        for first in range(0, len(samples), size):
            self.stream.push_frame(frame(samples[first : first + size]))

    def say(self, *samples: Samples) -> None:
        for turn in samples:
            self.push(turn)
            self.stream.flush()

    async def read(self) -> None:
        """Take events until the stream ends, or raises."""
        async with asyncio.timeout(PATIENCE_S):
            async for event in self.stream:
                self.events.append(event)

    async def until(self, acknowledged: int) -> None:
        """Take events until so many flushes have been acknowledged."""
        async with asyncio.timeout(PATIENCE_S):
            while self.acknowledged < acknowledged:
                self.events.append(await anext(self.stream))

    async def end(self) -> None:
        self.stream.end_input()
        await self.read()

    @property
    def acknowledged(self) -> int:
        return sum(event.request_id == FLUSHED for event in self.events)

    @property
    def finals(self) -> list[stt.SpeechData]:
        return [e.alternatives[0] for e in self.events if e.type == Kind.FINAL_TRANSCRIPT]

    @property
    def interims(self) -> list[stt.SpeechData]:
        return [e.alternatives[0] for e in self.events if e.type == Kind.INTERIM_TRANSCRIPT]

    @property
    def text(self) -> str:
        return " ".join(final.text for final in self.finals)

    @property
    def turns(self) -> list[str]:
        """The text of each turn that was acknowledged, and of what follows the last one."""
        texts: list[list[str]] = [[]]
        for event in self.events:
            if event.type == Kind.FINAL_TRANSCRIPT:
                texts[-1].append(event.alternatives[0].text)
            elif event.request_id == FLUSHED:
                texts.append([])
        return [" ".join(parts) for parts in texts]

    @property
    def billed_s(self) -> float:
        return sum(e.recognition_usage.audio_duration for e in self.events if e.recognition_usage)

    @property
    def words(self) -> list[tuple[str, object, object]]:
        return [(str(w), w.start_time, w.end_time) for final in self.finals for w in final.words or ()]


@asynccontextmanager
async def client(engine: DeepgramSTT, conn_options: APIConnectOptions = NO_RETRY) -> AsyncIterator[Client]:
    async with engine.stream(conn_options=conn_options) as stream:
        assert isinstance(stream, DeepgramStream)
        yield Client(stream)


async def ask(engine: DeepgramSTT, *, is_stream: bool) -> None:
    """Have one word recognised."""
    if not is_stream:
        await engine.recognize(frame(levels(1)), conn_options=NO_RETRY)
        return
    async with client(engine) as talk:
        talk.say(levels(1))
        await talk.end()


class TestTurns:
    async def test_words_arrive_with_their_times_and_every_flush_is_acknowledged_once(
        self, engine: DeepgramSTT, service: DeepgramServer
    ) -> None:
        async with client(engine) as talk:
            talk.say(levels(1, 2, 0), levels(3), levels(0, 4, 5))
            await talk.end()

        assert talk.turns == ["w1 w2", "w3", "w4 w5", ""]
        assert talk.words == [
            ("w1", 0.0, 0.25),
            ("w2", 0.25, 0.5),
            ("w3", 0.75, 1.0),
            ("w4", 1.25, 1.5),
            ("w5", 1.5, 1.75),
        ]
        assert [(final.start_time, final.end_time) for final in talk.finals] == [
            (0.0, 0.5),
            (0.75, 1.0),
            (1.25, 1.75),
        ]
        assert service.counts.finalizes == 3
        assert service.counts.close_streams == 1
        assert service.counts.audio_s == pytest.approx(1.75)

    async def test_turn_may_have_several_finals_before_its_one_acknowledgement(self) -> None:
        async with DeepgramServer(by_level, settles_after_s=1.0) as service:
            engine = DeepgramSTT(api_key=KEY, base_url=service.url)
            async with client(engine) as talk:
                talk.say(levels(1, 2, 3, 4, 5, 6, 7), levels(8))
                await talk.end()
            await engine.aclose()

        assert talk.turns == ["w1 w2 w3 w4 w5 w6 w7", "w8", ""]
        assert len(talk.finals) > 2

    async def test_interims_come_while_a_turn_goes_on(self, engine: DeepgramSTT) -> None:
        async with client(engine) as talk:
            talk.say(levels(1, 2, 3, 4, 5, 6, 7, 8, 9))
            await talk.end()

        assert [interim.text for interim in talk.interims] == ["w1 w2 w3 w4", "w1 w2 w3 w4 w5 w6 w7 w8"]
        kinds = [event.type for event in talk.events]
        assert kinds.index(Kind.FINAL_TRANSCRIPT) == 2

    async def test_flush_without_audio_is_ignored(self, engine: DeepgramSTT, service: DeepgramServer) -> None:
        async with client(engine) as talk:
            talk.stream.flush()
            talk.say(levels(1))
            talk.stream.flush()
            await talk.until(1)
            talk.stream.flush()
            await talk.end()

        assert talk.turns == ["w1", ""]
        assert service.counts.finalizes == 1

    async def test_silence_is_acknowledged_without_a_final(self, engine: DeepgramSTT) -> None:
        async with client(engine) as talk:
            talk.say(levels(0, 0, 0))
            await talk.end()

        assert talk.turns == ["", ""]
        assert not talk.finals

    async def test_flush_that_the_service_does_not_answer_is_acknowledged_when_next_to_nothing_was_left(
        self,
    ) -> None:
        async with DeepgramServer(by_level, settles_after_s=1.0, noticeable_s=0.4) as service:
            engine = DeepgramSTT(api_key=KEY, base_url=service.url)
            async with client(engine) as talk:
                talk.say(levels(1, 2, 3, 4))  # the last word is not final, and too short to be noticed
                await talk.until(1)
                await until(lambda: service.counts.finalizes == 1, what="its first Finalize")
                talk.say(levels(5, 6))
                await talk.end()
            await engine.aclose()

        assert talk.acknowledged == 2
        assert [word for word, *_ in talk.words] == ["w1", "w2", "w3", "w4", "w5", "w6"]

    async def test_late_finals_keep_their_times_and_acknowledgements_their_order(
        self, engine: DeepgramSTT, service: DeepgramServer
    ) -> None:
        await service.behave(Behaviour(delay_s=0.2))
        async with client(engine) as talk:
            talk.say(levels(1, 2), levels(3), levels(4))
            await until(lambda: service.counts.connections == 1, what="a connection")
            assert not talk.events
            await talk.end()

        assert talk.turns == ["w1 w2", "w3", "w4", ""]
        assert [start_s for _, start_s, _ in talk.words] == [0.0, 0.25, 0.5, 0.75]

    async def test_all_audio_is_billed_once(self, engine: DeepgramSTT, service: DeepgramServer) -> None:
        async with client(engine) as talk:
            talk.say(levels(1, 2), levels(3))
            talk.push(levels(4))
            await talk.end()

        assert talk.billed_s == pytest.approx(1.0) == pytest.approx(service.counts.audio_s)

    async def test_frames_of_another_rate_are_resampled(self, engine: DeepgramSTT) -> None:
        async with client(engine) as talk:
            for _ in range(100):
                talk.stream.push_frame(frame(np.zeros(480, np.int16), sample_rate_hz=48_000))
            await talk.end()

        assert talk.billed_s == pytest.approx(1.0, abs=0.02)

    async def test_frame_of_several_channels_is_refused(self, engine: DeepgramSTT) -> None:
        async with client(engine) as talk:
            with pytest.raises(ValueError, match="2 channels"):
                talk.stream.push_frame(frame(levels(1, 1), channels=2))


class TestIdle:
    async def test_stream_that_is_sent_nothing_is_kept_alive(self) -> None:
        async with DeepgramServer(by_level, idle_limit_s=1.5) as service:
            engine = DeepgramSTT(api_key=KEY, base_url=service.url, keep_alive_s=0.1)
            async with client(engine) as talk:
                talk.say(levels(1))
                await talk.until(1)
                await until(lambda: service.counts.keep_alives >= 20, what="that it was idle for longer")
                talk.say(levels(2))
                await talk.end()
            await engine.aclose()

        assert talk.words == [("w1", 0.0, 0.25), ("w2", 0.25, 0.5)]
        assert service.counts.connections == 1
        assert service.counts.audio_s == pytest.approx(0.5)
        assert talk.billed_s == pytest.approx(0.5)

    async def test_stream_that_the_service_closes_for_idleness_says_so(self) -> None:
        async with DeepgramServer(by_level, idle_limit_s=0.2) as service:
            engine = DeepgramSTT(api_key=KEY, base_url=service.url)
            async with client(engine) as talk:
                with pytest.raises(
                    APIConnectionError, match=r"closed the stream: 1011 .*did not receive audio"
                ):
                    await talk.read()
            await engine.aclose()


class TestRefusals:
    @pytest.mark.parametrize(
        ("behaviour", "status", "retry_after_s", "is_retryable"),
        [
            (Behaviour(status=401), 401, None, False),
            (Behaviour(status=402), 402, None, False),
            (Behaviour(status=429, retry_after_s=7), 429, 7.0, True),
            (Behaviour(status=500), 500, None, True),
            (Behaviour(status=503, retry_after_s=120), 503, 120.0, True),
        ],
    )
    @pytest.mark.parametrize("is_stream", [True, False])
    async def test_refusal_keeps_its_status_and_how_long_to_wait(
        self,
        engine: DeepgramSTT,
        service: DeepgramServer,
        behaviour: Behaviour,
        status: int,
        retry_after_s: float | None,
        is_retryable: bool,
        is_stream: bool,
    ) -> None:
        await service.behave(behaviour)
        with pytest.raises(APIStatusError, match=rf"HTTP {status} .*\(as told\)") as caught:
            await ask(engine, is_stream=is_stream)
        error = caught.value

        assert error.status_code == status
        assert error.body == (None if retry_after_s is None else {"retry_after": retry_after_s})
        assert error.retryable is is_retryable
        assert error.request_id
        assert service.counts.refused == 1  # nothing is tried again here

    async def test_wrong_key_is_refused_and_not_repeated_in_the_error(self, service: DeepgramServer) -> None:
        engine = DeepgramSTT(api_key="a wrong key", base_url=service.url)
        async with client(engine) as talk:
            with pytest.raises(APIStatusError, match="Invalid credentials") as caught:
                await talk.read()
        with pytest.raises(APIStatusError) as caught_too:
            await engine.recognize(frame(levels(1)), conn_options=NO_RETRY)
        await engine.aclose()

        assert caught.value.status_code == caught_too.value.status_code == 401
        for error in (caught.value, caught_too.value):
            assert "a wrong key" not in f"{error!r} {error} {error.body}"

    @pytest.mark.parametrize("is_stream", [True, False])
    async def test_service_that_is_not_there(
        self, engine: DeepgramSTT, service: DeepgramServer, is_stream: bool
    ) -> None:
        await service.behave(Behaviour(refuse=True))
        with pytest.raises(APIConnectionError, match="deepgram cannot be reached"):
            await ask(engine, is_stream=is_stream)
        await service.behave(Behaviour())

        async with client(engine) as talk:
            talk.say(levels(1))
            await talk.end()
        assert talk.text == "w1"

    @pytest.mark.parametrize(
        ("settings", "what"),
        [
            ({"api_key": ""}, r"stt\.deepgram\.api_key is empty"),
            ({"api_key": KEY, "base_url": "api.deepgram.com"}, r"stt\.deepgram\.base_url is no URL"),
        ],
    )
    def test_wrong_setting_is_refused_when_the_engine_is_made(
        self, settings: dict[str, str], what: str
    ) -> None:
        with pytest.raises(EngineError, match=what):
            DeepgramSTT(**settings)  # type: ignore[arg-type]


class TestMisbehaviour:
    async def test_stalled_service_is_not_taken_for_one_that_answered(
        self, engine: DeepgramSTT, service: DeepgramServer
    ) -> None:
        async with client(engine) as talk:
            talk.say(levels(1))
            await talk.until(1)
            await service.behave(Behaviour(stall=True))
            talk.say(levels(2, 3, 4))
            await until(lambda: service.counts.finalizes == 2, what="its second Finalize")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1.5):
                    await talk.until(2)

        assert talk.turns == ["w1", ""]

    async def test_service_that_left_out_some_audio_is_not_taken_for_one_that_heard_nothing_in_it(
        self,
    ) -> None:
        async with DeepgramServer(by_level, settles_after_s=1.0) as service:
            engine = DeepgramSTT(api_key=KEY, base_url=service.url)
            async with client(engine, NO_RETRY) as talk:
                talk.say(levels(1, 2))
                await talk.until(1)
                await service.behave(Behaviour(stall=True))
                talk.push(levels(3, 4, 5, 6))
                await until(lambda: service.counts.audio_s >= 1.5, what="all audio so far")
                await service.behave(Behaviour())
                talk.say(levels(7, 8, 9, 10))
                with pytest.raises(APIConnectionError, match=r"left out 0\.\d s of the audio"):
                    await talk.read()
            await engine.aclose()

        assert talk.turns == ["w1 w2", ""]

    @pytest.mark.parametrize("behaviour", [Behaviour(stall=True), Behaviour(half_open=True)], ids=str)
    async def test_end_that_the_service_does_not_answer_is_bounded(
        self, engine: DeepgramSTT, service: DeepgramServer, behaviour: Behaviour
    ) -> None:
        async with client(engine, BRISK) as talk:
            talk.say(levels(1))
            await talk.until(1)
            await service.behave(behaviour)
            talk.say(levels(2, 3))
            with pytest.raises(APITimeoutError, match="did not end the stream within"):
                await talk.end()

    async def test_half_open_service_does_not_accept_a_stream_for_ever(
        self, engine: DeepgramSTT, service: DeepgramServer
    ) -> None:
        await service.behave(Behaviour(half_open=True))
        async with client(engine, HURRIED) as talk:
            with pytest.raises(APITimeoutError, match="did not accept the stream within"):
                await talk.read()

    async def test_stream_that_breaks_off_gives_what_was_final_and_then_its_error(
        self, engine: DeepgramSTT, service: DeepgramServer
    ) -> None:
        await service.behave(Behaviour(drop_after_s=1.0))
        async with client(engine) as talk:
            talk.say(levels(1, 2))
            await talk.until(1)
            talk.say(levels(3, 4, 5))
            with pytest.raises(APIConnectionError, match="deepgram closed the stream"):
                await talk.read()

        assert talk.turns == ["w1 w2", ""]
        assert talk.billed_s == pytest.approx(1.25)

    async def test_stream_that_breaks_off_between_two_turns_is_noticed(
        self, engine: DeepgramSTT, service: DeepgramServer
    ) -> None:
        async with client(engine) as talk:
            talk.say(levels(1))
            await talk.until(1)
            service.drop()
            with pytest.raises(APIConnectionError, match="deepgram closed the stream"):
                await talk.read()

    async def test_connection_that_is_silently_dead_between_two_turns_is_noticed(
        self, engine: DeepgramSTT, service: DeepgramServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(connection, "HEARTBEAT_S", 1.0)  # of which a ping may take half
        async with client(engine) as talk:
            talk.say(levels(1))
            await talk.until(1)
            await until(lambda: service.counts.pings == 2, what="pings, while it lives")
            await service.behave(Behaviour(half_open=True))
            with pytest.raises(APIConnectionError, match="deepgram closed the stream"):
                await talk.read()

    @pytest.mark.parametrize("code", [1000, 1008, 1011])
    async def test_stream_that_the_service_closes_is_an_error_whatever_the_code(
        self, engine: DeepgramSTT, service: DeepgramServer, code: int
    ) -> None:
        await service.behave(Behaviour(close_with=code))
        async with client(engine) as talk:
            talk.say(levels(1))
            with pytest.raises(APIConnectionError, match=f"deepgram closed the stream: {code} as told"):
                await talk.read()

    async def test_audio_faster_than_the_service_takes_it_is_an_error(
        self, engine: DeepgramSTT, service: DeepgramServer
    ) -> None:
        await service.behave(Behaviour(most_audio_rate=1.25))
        async with client(engine) as talk:
            talk.say(levels(*range(1, 30)))
            with pytest.raises(APIConnectionError, match="1008 audio comes too fast"):
                await talk.read()

    async def test_garbage_is_passed_over_and_logged_once(
        self, engine: DeepgramSTT, service: DeepgramServer
    ) -> None:
        await service.behave(Behaviour(garbage=True))
        with capture_logs() as logs:
            async with client(engine) as talk:
                talk.say(levels(1, 2), levels(3))
                await talk.end()

        assert talk.turns == ["w1 w2", "w3", ""]
        assert [entry["event"] for entry in logs] == ["deepgram.unknown_message", "deepgram.ignored"]
        assert logs[-1]["messages"] == 33  # eleven before each of two finals and the metadata

    async def test_metadata_before_the_last_final_does_not_end_the_stream(
        self, engine: DeepgramSTT, service: DeepgramServer
    ) -> None:
        await service.behave(Behaviour(early_metadata=True, delay_s=0.05))
        async with client(engine) as talk:
            talk.say(levels(1, 2), levels(3))
            await talk.end()

        assert talk.turns == ["w1 w2", "w3", ""]

    async def test_empty_finals_are_answers(self, engine: DeepgramSTT, service: DeepgramServer) -> None:
        await service.behave(Behaviour(empty=True))
        async with client(engine) as talk:
            talk.say(levels(1, 2), levels(3))
            await talk.end()

        assert talk.turns == ["", "", ""]
        assert not talk.finals
        assert not talk.interims

    async def test_finals_out_of_order_are_given_in_the_order_of_their_audio(self) -> None:
        async with DeepgramServer(by_level, settles_after_s=1.0) as service:
            engine = DeepgramSTT(api_key=KEY, base_url=service.url)
            await service.behave(Behaviour(hold_finals=True))
            async with client(engine) as talk:
                talk.say(levels(1, 2, 3, 4, 5, 6), levels(7))
                await talk.end()
            await engine.aclose()

        assert talk.acknowledged == 2
        assert talk.words == [(f"w{n}", (n - 1) / 4, n / 4) for n in range(1, 8)]

    @pytest.mark.parametrize("shift_s", [1000.0, -1000.0])
    async def test_times_outside_the_audio_are_brought_inside(
        self, engine: DeepgramSTT, service: DeepgramServer, shift_s: float
    ) -> None:
        await service.behave(Behaviour(shift_s=shift_s))
        async with client(engine) as talk:
            talk.say(levels(1, 2))
            await talk.until(1)
            talk.say(levels(3, 4))
            await talk.end()

        assert talk.acknowledged == 2
        assert talk.text == "w1 w2 w3 w4"
        for final in talk.finals:
            for word in final.words or ():
                assert isinstance(word.start_time, float)
                assert isinstance(word.end_time, float)
                assert 0.0 <= word.start_time <= word.end_time <= 1.0

    async def test_final_of_ten_thousand_characters_arrives_whole(
        self, engine: DeepgramSTT, service: DeepgramServer
    ) -> None:
        said = " ".join(f"word{n:05}" for n in range(1000)) + "."
        await service.behave(Behaviour(says=said))
        async with client(engine) as talk:
            talk.say(levels(1, 2, 3))
            await talk.end()

        assert len(said) == 10_000
        assert talk.text == said
        assert len(talk.words) == 1000
        assert talk.acknowledged == 1


class TestClosing:
    @pytest.mark.parametrize(
        "behaviour", [Behaviour(), Behaviour(stall=True), Behaviour(half_open=True)], ids=str
    )
    @pytest.mark.parametrize("is_connected", [True, False])
    async def test_cancelled_stream_leaves_no_task_and_no_socket(
        self, engine: DeepgramSTT, service: DeepgramServer, behaviour: Behaviour, is_connected: bool
    ) -> None:
        before = asyncio.all_tasks()
        stream = engine.stream(conn_options=NO_RETRY)
        if is_connected:
            await until(lambda: service.counts.connections == 1, what="a connection")
        await service.behave(behaviour)
        Client(stream).say(levels(1, 2))
        await asyncio.sleep(0)
        async with asyncio.timeout(5.0):
            await stream.aclose()
            await stream.aclose()
        await service.behave(Behaviour())
        await until(lambda: service.counts.open_now == 0, what="no connection")
        await until(lambda: asyncio.all_tasks() <= before | _of_the_service(), what="no task")

    async def test_engine_closes_its_streams(self, engine: DeepgramSTT, service: DeepgramServer) -> None:
        engine.stream(conn_options=NO_RETRY)
        await until(lambda: service.counts.open_now == 1, what="a connection")
        await engine.aclose()
        await engine.aclose()
        await until(lambda: service.counts.open_now == 0, what="no connection")

    async def test_stream_closed_before_it_began_opens_nothing(
        self, engine: DeepgramSTT, service: DeepgramServer
    ) -> None:
        await engine.stream(conn_options=NO_RETRY).aclose()

        assert service.counts.connections == 0


def _of_the_service() -> set[asyncio.Task[object]]:
    """The stand-in's tasks, which run in this loop too: one a connection that it has not yet let go of."""
    return {task for task in asyncio.all_tasks() if "RequestHandler" in repr(task.get_coro())}


class TestSettings:
    async def test_service_is_asked_for_what_the_settings_say(self, service: DeepgramServer) -> None:
        engine = DeepgramSTT(
            api_key=KEY,
            base_url=f"{service.url}/",
            language="en-GB",
            keyterms=["error budget", "Ines & Co?"],
            smart_format=False,
            mip_opt_out=True,
        )
        async with client(engine) as talk:
            await talk.end()
        await engine.recognize(frame(levels(1)), language="fr", conn_options=NO_RETRY)
        await engine.aclose()
        stream, recording = service.counts.queries

        both = {
            "model": ["nova-3"],
            "punctuate": ["true"],
            "smart_format": ["false"],
            "mip_opt_out": ["true"],
            "keyterm": ["error budget", "Ines & Co?"],
        }
        assert recording == {**both, "language": ["fr"]}
        assert stream == {
            **both,
            "language": ["en-GB"],
            "encoding": ["linear16"],
            "sample_rate": ["16000"],
            "channels": ["1"],
            "interim_results": ["true"],
            "endpointing": ["false"],
        }

    async def test_new_keyterms_reach_open_streams_before_the_next_audio_and_later_streams(
        self, engine: DeepgramSTT, service: DeepgramServer
    ) -> None:
        async with client(engine) as talk:
            talk.say(levels(1))
            await talk.until(1)
            engine.update_keyterms(["Kubernetes"])
            talk.say(levels(2))
            await talk.until(2)
            engine.update_keyterms([])
            talk.say(levels(3))
            await talk.end()
        async with client(engine) as later:
            engine.update_keyterms(["Grafana"])
            await later.end()

        assert talk.turns == ["w1", "w2", "w3", ""]
        assert service.counts.keyterms == [["Kubernetes"], []]
        assert [query.get("keyterm") for query in service.counts.queries] == [None, ["Grafana"]]

    async def test_refused_keyterms_are_logged_and_the_stream_goes_on(
        self, engine: DeepgramSTT, service: DeepgramServer
    ) -> None:
        await service.behave(Behaviour(refuses_configure=True))
        with capture_logs() as logs:
            async with client(engine) as talk:
                talk.say(levels(1))
                await talk.until(1)
                engine.update_keyterms(["Kubernetes"])
                talk.say(levels(2), levels(3))
                await talk.end()

        assert talk.turns == ["w1", "w2", "w3", ""]
        assert service.counts.configures == 1
        assert [entry["event"] for entry in logs] == ["deepgram.keyterms_refused"]

    async def test_older_model_gets_new_keywords_in_later_streams_only(self, service: DeepgramServer) -> None:
        engine = DeepgramSTT(api_key=KEY, base_url=service.url, model="nova-2")
        async with client(engine) as talk:
            talk.say(levels(1))
            await talk.until(1)
            engine.update_keyterms(["error budget"])
            talk.say(levels(2))
            await talk.end()
        async with client(engine) as later:
            await later.end()
        await engine.aclose()

        assert service.counts.configures == 0
        assert [query.get("keywords") for query in service.counts.queries] == [None, ["error", "budget"]]


class TestRecording:
    async def test_recording_is_recognised_whole(self, engine: DeepgramSTT, service: DeepgramServer) -> None:
        frames = [frame(part) for part in np.array_split(levels(0, 1, 2, 0, 3), 7)]
        event = await engine.recognize(frames, conn_options=NO_RETRY)
        [data] = event.alternatives

        assert event.type == Kind.FINAL_TRANSCRIPT
        assert data.text == "w1 w2 w3"
        assert [word.start_time for word in data.words or ()] == [0.25, 0.5, 1.0]
        assert event.recognition_usage is not None
        assert event.recognition_usage.audio_duration == pytest.approx(1.25)
        assert service.counts.recorded_s == pytest.approx(1.25)

    async def test_recording_of_another_format_is_recognised(self, engine: DeepgramSTT) -> None:
        stereo = frame(np.repeat(levels(1, 2), 6), sample_rate_hz=48_000, channels=2)
        [data] = (await engine.recognize(stereo, conn_options=NO_RETRY)).alternatives

        assert data.text == "w1 w2"

    async def test_recording_without_speech_has_an_empty_text(self, engine: DeepgramSTT) -> None:
        [data] = (await engine.recognize(frame(levels(0, 0)), conn_options=NO_RETRY)).alternatives

        assert (data.text, data.words) == ("", [])

    @pytest.mark.parametrize("behaviour", [Behaviour(stall=True), Behaviour(half_open=True)], ids=str)
    async def test_answer_that_does_not_come_is_a_timeout(
        self, engine: DeepgramSTT, service: DeepgramServer, behaviour: Behaviour
    ) -> None:
        await service.behave(behaviour)
        with pytest.raises(APITimeoutError, match="did not answer within"):
            await engine.recognize(frame(levels(1)), conn_options=HURRIED)

    async def test_answer_that_makes_no_sense_is_an_error(
        self, engine: DeepgramSTT, service: DeepgramServer
    ) -> None:
        await service.behave(Behaviour(garbage=True))
        with pytest.raises(APIConnectionError, match="cannot be read"):
            await engine.recognize(frame(levels(1)), conn_options=NO_RETRY)


def plain(text: str) -> list[str]:
    return re.findall(r"[a-z0-9']+", text.lower())


class TestRealSpeech:
    """Nora's opening words, recognised by the local engine behind the stand-in."""

    async def test_words_of_a_stream_arrive_with_times(
        self, whisper: WhisperSTT, speech: Samples, said: set[str]
    ) -> None:
        async with DeepgramServer(by_whisper(whisper)) as service:
            engine = DeepgramSTT(api_key=KEY, base_url=service.url)
            async with client(engine) as talk:
                talk.say(speech)
                await talk.end()
            await engine.aclose()

        heard = plain(talk.text)
        assert len(set(heard) & said) >= 0.6 * len(set(heard)) >= 4
        assert talk.interims
        assert talk.acknowledged == 1
        starts_s = [start_s for _, start_s, _ in talk.words]
        assert all(isinstance(s, float) and 0.0 <= s <= 6.0 for s in starts_s)
        assert all(a <= b for a, b in pairwise(starts_s))  # type: ignore[operator]

    async def test_stand_in_runs_as_a_process_and_is_told_what_to_do(
        self, tmp_path: Path, speech: Samples, said: set[str]
    ) -> None:
        port, control_port = processes.free_port(), processes.free_port()
        command = [sys.executable, "-m", "tests.support.deepgram"]
        command += ["--port", str(port), "--control-port", str(control_port)]
        control = f"http://{HOST}:{control_port}"
        process = _started(command, tmp_path / "log")
        engine = DeepgramSTT(api_key=KEY, base_url=f"http://{HOST}:{port}")
        try:
            await until(lambda: b"listening" in (tmp_path / "log").read_bytes(), what="that it listens")
            [data] = (await engine.recognize(frame(speech), conn_options=NO_RETRY)).alternatives
            await asyncio.to_thread(_put, f"{control}/behaviour", {"status": 429, "retry_after_s": 3})
            with pytest.raises(APIStatusError) as caught:
                await engine.recognize(frame(speech), conn_options=NO_RETRY)
            counts = await asyncio.to_thread(_get, f"{control}/counts")
        finally:
            await engine.aclose()
            processes.end(process, SIGTERM, patience_s=PATIENCE_S)

        assert len(set(plain(data.text)) & said) >= 4
        assert caught.value.body == {"retry_after": 3.0}
        assert (counts["recordings"], counts["refused"]) == (1, 1)
        assert process.returncode == 0


def _started(command: list[str], log: Path) -> "subprocess.Popen[bytes]":
    with open(log, "wb") as output:
        return processes.start(command, output=output)


def _put(url: str, body: object) -> None:
    request = urllib.request.Request(url, json.dumps(body).encode(), method="PUT")
    with urllib.request.urlopen(request, timeout=PATIENCE_S):
        pass


def _get(url: str) -> dict[str, object]:
    with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
        counts: dict[str, object] = json.load(answer)
        return counts
