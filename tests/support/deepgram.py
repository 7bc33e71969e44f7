"""A stand-in for Deepgram: its wire protocol on a real socket, with a recogniser that a test brings.

It serves `/v1/listen` as a WebSocket and as a POST of a recording, is as strict as the service where a client
could go wrong, counts what it is sent, and misbehaves as told while it runs. Either in the event loop of a
test, or as a process of its own, which is told by HTTP on a second port:

    python -m tests.support.deepgram --port 8080 --control-port 8081
    curl -X PUT localhost:8081/behaviour -d '{"stall": true}'        curl localhost:8081/counts

As the service does it: an interim for each second of audio; a final for what was said when much has gathered,
and at a pause unless endpointing is off; Finalize gives the final of the rest, marked `from_finalize`, and
nothing where there is next to no rest; CloseStream the same, then Metadata and the close frame 1000; a stream
that is sent nothing for 10 s is closed with 1011.
"""

import argparse
import asyncio
import io
import json
import signal
import time
import uuid
import wave
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from types import TracebackType
from typing import Any, Self

import numpy as np
from aiohttp import WSCloseCode, WSMessage, WSMsgType, web
from livekit import rtc
from livekit.agents.types import APIConnectOptions

from agent.values import SAMPLE_RATE_HZ, Samples
from plugins.stt.whisper import WhisperSTT

__all__ = [
    "Behaviour",
    "Counts",
    "DeepgramServer",
    "Recognise",
    "Spoken",
    "by_level",
    "by_whisper",
    "levels",
    "understanding",
]

HOST = "127.0.0.1"
KEY = "a key for tests"
INTERIM_S = 1.0
BYTES_A_SAMPLE = 2
RATE_SLACK_S = 2.0  # what may come at once before the rate counts
QUIET = 300  # of 32768: what stays below is a pause to the endpointing
LEAST_PAUSE_S = 0.3  # the service's own endpointing knows speech better, and takes less
NO_AUDIO = "Deepgram did not receive audio data or a text message within the timeout window."
GARBAGE = (
    "not JSON",
    "[1, 2",
    "null",
    "[]",
    '"a string"',
    '{"type": "Surprise", "of": "a later release"}',
    '{"no": "type"}',
    '{"type": "Results"}',
    '{"type": "Results", "start": "soon", "duration": null, "channel": {"alternatives": []}}',
    '{"type": "Results", "start": NaN, "duration": 1e999, "is_final": true, "channel": 7, "metadata": []}',
)


@dataclass(frozen=True)
class Spoken:
    """One word; times count from the first sample that was recognised."""

    text: str
    start_s: float
    end_s: float
    confidence: float = 0.9


Recognise = Callable[[Samples], Awaitable[Sequence[Spoken]]]


@dataclass(frozen=True)
class Behaviour:
    """What the stand-in does wrong, from when it is told on, to open streams too. By default nothing.

    Attributes:
        refuse: Nobody listens on the port.
        status: The HTTP status that requests are refused with.
        retry_after_s: The Retry-After beside it.
        stall: Everything is accepted and nothing said.
        half_open: Connections stay, and nothing is read or answered, not even a ping.
        drop_after_s: A stream breaks off, without a goodbye, after so much audio.
        close_with: A code by which streams are closed when audio comes.
        garbage: Before each answer there is nonsense of ten kinds.
        early_metadata: Metadata comes with each answer, not only at the end.
        empty: Nothing is understood.
        hold_finals: A final that nobody asked for comes only after the next one.
        shift_s: What times are wrong by.
        says: What each final says, whatever was heard.
        delay_s: How long each answer takes.
        most_audio_rate: How much faster than real time audio may come before the stream is closed.
        refuses_configure: An open stream's key terms cannot be changed.
    """

    refuse: bool = False
    status: int | None = None
    retry_after_s: int | None = None
    stall: bool = False
    half_open: bool = False
    drop_after_s: float | None = None
    close_with: int | None = None
    garbage: bool = False
    early_metadata: bool = False
    empty: bool = False
    hold_finals: bool = False
    shift_s: float = 0.0
    says: str | None = None
    delay_s: float = 0.0
    most_audio_rate: float | None = None
    refuses_configure: bool = False


@dataclass
class Counts:
    """What has come so far."""

    connections: int = 0
    refused: int = 0
    audio_s: float = 0.0
    pings: int = 0  # that were answered
    keep_alives: int = 0
    finalizes: int = 0
    close_streams: int = 0
    configures: int = 0
    recordings: int = 0
    recorded_s: float = 0.0
    keyterms: list[list[str]] = field(default_factory=list)  # those of each Configure
    open_s: float = 0.0  # all streams together, those that are still open included
    open_now: int = 0
    queries: list[dict[str, list[str]]] = field(default_factory=list)


class DeepgramServer:
    """The stand-in; `async with DeepgramServer(by_level) as server` starts and stops it.

    Args:
        recognise: What understands the audio.
        port: Where it listens; 0 takes a free port.
        api_key: The one key that is right.
        idle_limit_s: After how long without a message a stream is closed.
        settles_after_s: A final comes unasked when so much audio has gathered.
        noticeable_s: With less than this not final, a Finalize gets no answer.
    """

    def __init__(
        self,
        recognise: Recognise,
        *,
        port: int = 0,
        api_key: str = KEY,
        idle_limit_s: float = 10.0,
        settles_after_s: float = 5.0,
        noticeable_s: float = 0.1,
    ) -> None:
        self.recognise = recognise
        self.api_key = api_key
        self.idle_limit_s = idle_limit_s
        self.settles_after_s = settles_after_s
        self.noticeable_s = noticeable_s
        self.behaviour = Behaviour()
        self._port = port
        self._counts = Counts()
        self._streams: set[_Stream] = set()
        self._changed = asyncio.Condition()
        self._site: web.TCPSite | None = None
        application = web.Application(client_max_size=2**28)
        application.router.add_get("/v1/listen", self._listen)
        application.router.add_post("/v1/listen", self._transcribe)
        self._runner = web.AppRunner(application, shutdown_timeout=0.5)

    @property
    def url(self) -> str:
        """What an engine takes as `base_url`."""
        return f"http://{HOST}:{self._port}"

    @property
    def counts(self) -> Counts:
        """What has come so far."""
        open_s = self._counts.open_s + sum(stream.open_s for stream in self._streams)
        return replace(self._counts, open_s=open_s, open_now=len(self._streams))

    async def start(self) -> None:
        """Begin to listen."""
        await self._runner.setup()
        await self._open()

    async def aclose(self) -> None:
        """Stop, and break off whatever is open."""
        await self.behave(Behaviour())
        self.drop()
        await self._runner.cleanup()

    async def behave(self, behaviour: Behaviour) -> None:
        """Behave like this from now on."""
        async with self._changed:
            self.behaviour = behaviour
            self._changed.notify_all()
        if behaviour.refuse and self._site is not None:
            await self._site.stop()
            self._site = None
            self.drop()
        elif not behaviour.refuse and self._site is None:
            await self._open()

    async def until(self, is_so: Callable[[Behaviour], bool]) -> None:
        """Wait for a behaviour."""
        async with self._changed:
            await self._changed.wait_for(lambda: is_so(self.behaviour))

    def drop(self) -> None:
        """Break off every open stream, without a goodbye."""
        for stream in list(self._streams):
            stream.break_off()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _open(self) -> None:
        self._site = web.TCPSite(self._runner, HOST, self._port)
        await self._site.start()
        self._port = self._runner.addresses[0][1]

    async def _listen(self, request: web.Request) -> web.StreamResponse:
        if (refusal := await self._refusal(request, is_stream=True)) is not None:
            return refusal
        websocket = web.WebSocketResponse(compress=False, autoping=False)
        try:
            await websocket.prepare(request)
        except ConnectionError:
            return web.Response()  # whoever asked is gone
        stream = _Stream(self, request, websocket, self._counts)
        self._counts.connections += 1
        self._counts.queries.append({name: request.query.getall(name) for name in request.query})
        self._streams.add(stream)
        try:
            await stream.run()
        finally:
            self._streams.discard(stream)
            self._counts.open_s += stream.open_s
        return websocket

    async def _transcribe(self, request: web.Request) -> web.StreamResponse:
        if (refusal := await self._refusal(request, is_stream=False)) is not None:
            return refusal
        recording = await request.read()
        await self.until(lambda behaviour: not behaviour.stall)
        await asyncio.sleep(self.behaviour.delay_s)
        if self.behaviour.garbage:
            return web.Response(text=GARBAGE[0])
        try:
            samples = _samples_of(recording)
        except (wave.Error, EOFError):
            return _refuse(400, "Bad Request: failed to process audio: corrupt or unsupported data")
        self._counts.recordings += 1
        self._counts.recorded_s += len(samples) / SAMPLE_RATE_HZ
        self._counts.queries.append({name: request.query.getall(name) for name in request.query})
        words = await self.understood(samples)
        return web.json_response(
            {
                "metadata": {
                    "transaction_key": "deprecated",
                    "request_id": str(uuid.uuid4()),
                    "sha256": "0" * 64,
                    "created": "2026-01-01T00:00:00.000Z",
                    "duration": len(samples) / SAMPLE_RATE_HZ,
                    "channels": 1,
                    "models": [_MODEL["model_uuid"]],
                    "model_info": {_MODEL["model_uuid"]: _MODEL["model_info"]},
                },
                "results": {"channels": [{"alternatives": [_alternative(words)]}]},
            }
        )

    async def understood(self, samples: Samples, offset_s: float = 0.0) -> list[Spoken]:
        """What is in some samples, by the recogniser and the behaviour of the moment."""
        behaviour = self.behaviour
        if behaviour.empty:
            return []
        words = list(await self.recognise(samples))
        if behaviour.says is not None:
            texts = behaviour.says.split()
            each_s = len(samples) / SAMPLE_RATE_HZ / len(texts)
            words = [Spoken(text, i * each_s, (i + 1) * each_s) for i, text in enumerate(texts)]
        shift_s = offset_s + behaviour.shift_s
        return [
            Spoken(word.text, word.start_s + shift_s, word.end_s + shift_s, word.confidence) for word in words
        ]

    async def _refusal(self, request: web.Request, *, is_stream: bool) -> web.Response | None:
        await self.until(lambda behaviour: not behaviour.half_open)
        refusal = self._why_not(request, is_stream=is_stream)
        if refusal is not None:
            self._counts.refused += 1
        return refusal

    def _why_not(self, request: web.Request, *, is_stream: bool) -> web.Response | None:
        behaviour, query = self.behaviour, request.query
        if behaviour.status is not None:
            return _refuse(behaviour.status, "as told", retry_after_s=behaviour.retry_after_s)
        if request.headers.get("Authorization") != f"Token {self.api_key}":
            return _refuse(401, "Invalid credentials.")
        if "keyterm" in query and not query.get("model", "").startswith("nova-3"):
            return _refuse(400, "Bad Request: keyterm is only for Nova-3")
        if "keywords" in query and query.get("model", "").startswith("nova-3"):
            return _refuse(400, "Bad Request: keywords are not for Nova-3")
        wanted = {"encoding": "linear16", "sample_rate": str(SAMPLE_RATE_HZ), "channels": "1"}
        if is_stream and any(query.get(name) != value for name, value in wanted.items()):
            return _refuse(400, f"Bad Request: this stand-in knows only {wanted}")
        return None


class _Stream:
    """One open stream."""

    def __init__(
        self,
        server: DeepgramServer,
        request: web.Request,
        websocket: web.WebSocketResponse,
        counts: Counts,
    ) -> None:
        self._server = server
        self._counts = counts
        self._request = request
        self._websocket = websocket
        self._id = str(uuid.uuid4())
        self._is_nova_3 = request.query.get("model", "").startswith("nova-3")
        endpointing = request.query.get("endpointing", "10")
        self._pause_s = None if endpointing == "false" else max(int(endpointing) / 1000, LEAST_PAUSE_S)
        self._began = self._last_message = time.monotonic()
        self._unsettled = np.empty(0, np.int16)
        self._settled_samples = 0
        self._interim_samples = 0
        self._held: dict[str, Any] | None = None

    @property
    def open_s(self) -> float:
        """How long it has been open."""
        return time.monotonic() - self._began

    def break_off(self) -> None:
        """Reset the connection."""
        if self._request.transport is not None:
            self._request.transport.abort()

    async def run(self) -> None:
        """Serve it until it ends."""
        # It may be broken off while we answer.
        with suppress(ConnectionError):
            while (message := await self._next()) is not None:
                await self._server.until(lambda behaviour: not behaviour.half_open)
                match message.type:
                    case WSMsgType.BINARY:
                        self._last_message = time.monotonic()
                        self._counts.audio_s += len(message.data) / BYTES_A_SAMPLE / SAMPLE_RATE_HZ
                        await self._hear(message.data)
                    case WSMsgType.TEXT:
                        self._last_message = time.monotonic()
                        await self._obey(message.data)
                    case WSMsgType.PING:
                        await self._websocket.pong(message.data)
                        self._counts.pings += 1
                    case WSMsgType.PONG:
                        pass
                    case _:
                        return

    @property
    def _behaviour(self) -> Behaviour:
        return self._server.behaviour

    @property
    def _received_s(self) -> float:
        return (self._settled_samples + len(self._unsettled)) / SAMPLE_RATE_HZ

    async def _next(self) -> WSMessage | None:
        """The next message, None where none has come for too long."""
        left_s = self._last_message + self._server.idle_limit_s - time.monotonic()
        try:
            async with asyncio.timeout(left_s):
                return await self._websocket.receive()
        except TimeoutError:
            await self._server.until(lambda behaviour: not (behaviour.stall or behaviour.half_open))
            await self._close(WSCloseCode.INTERNAL_ERROR, f"{NO_AUDIO} See https://dpgr.am/net0001")
            return None

    async def _hear(self, data: bytes) -> None:
        behaviour, server = self._behaviour, self._server
        self._unsettled = np.concatenate([self._unsettled, np.frombuffer(data, np.int16)])
        if behaviour.drop_after_s is not None and self._received_s >= behaviour.drop_after_s:
            self.break_off()
            return
        if behaviour.close_with is not None:
            await self._close(behaviour.close_with, "as told")
            return
        rate = behaviour.most_audio_rate
        if rate is not None and self._received_s > RATE_SLACK_S + rate * self.open_s:
            await self._close(WSCloseCode.POLICY_VIOLATION, "audio comes too fast")
            return
        if self._is_at_endpoint():
            await self._settle(len(self._unsettled), await self._words(), speech_final=True)
        elif len(self._unsettled) >= server.settles_after_s * SAMPLE_RATE_HZ:
            await self._settle_some()
        elif len(self._unsettled) - self._interim_samples >= INTERIM_S * SAMPLE_RATE_HZ:
            self._interim_samples = len(self._unsettled)
            if self._request.query.get("interim_results") == "true":
                await self._answer(len(self._unsettled), await self._words(), is_final=False)

    def _is_at_endpoint(self) -> bool:
        if self._pause_s is None:
            return False
        is_loud = np.abs(self._unsettled.astype(np.int32)) >= QUIET
        return bool(is_loud.any()) and not is_loud[-round(self._pause_s * SAMPLE_RATE_HZ) :].any()

    async def _obey(self, text: str) -> None:
        counts = self._counts
        try:
            message = json.loads(text)
            kind = message["type"]
        except (ValueError, LookupError, TypeError):
            kind = None
        match kind:
            case "KeepAlive":
                counts.keep_alives += 1
            case "Finalize":
                counts.finalizes += 1
                if len(self._unsettled) >= self._server.noticeable_s * SAMPLE_RATE_HZ:
                    await self._settle(len(self._unsettled), await self._words(), from_finalize=True)
            case "CloseStream":
                counts.close_streams += 1
                if len(self._unsettled):
                    await self._settle(len(self._unsettled), await self._words())
                await self._release()
                await self._say({"type": "Metadata", **self._metadata()})
                await self._close(WSCloseCode.OK, "")
            case "Configure":
                counts.configures += 1
                await self._configure(message)
            case _:
                await self._say(
                    {
                        "type": "Error",
                        "variant": "SchemaError",
                        "description": "Could not deserialize message.",
                    }
                )

    async def _configure(self, message: Mapping[str, Any]) -> None:
        if self._behaviour.refuses_configure or not self._is_nova_3:
            await self._say(
                {
                    "type": "ConfigureFailure",
                    "request_id": self._id,
                    "code": "CONFIGURE_KEYTERMS_NOT_SUPPORTED",
                    "description": "The model does not take them.",
                }
            )
        else:
            self._counts.keyterms.append(list(message["keyterms"]))
            await self._say(
                {"type": "ConfigureSuccess", "request_id": self._id, "keyterms": message["keyterms"]}
            )

    async def _words(self) -> list[Spoken]:
        return await self._server.understood(self._unsettled, self._settled_samples / SAMPLE_RATE_HZ)

    async def _settle_some(self) -> None:
        """Give a final of all but the last word, which may go on."""
        words = await self._words()
        shift_s = self._behaviour.shift_s
        keep = words[:-1]
        until = round((keep[-1].end_s - shift_s) * SAMPLE_RATE_HZ) - self._settled_samples if keep else 0
        if 0 < until <= len(self._unsettled):
            await self._settle(until, keep)
        else:
            await self._settle(len(self._unsettled), words)

    async def _settle(
        self,
        samples: int,
        words: Sequence[Spoken],
        *,
        from_finalize: bool = False,
        speech_final: bool = False,
    ) -> None:
        await self._answer(
            samples, words, is_final=True, from_finalize=from_finalize, speech_final=speech_final
        )
        self._settled_samples += samples
        self._unsettled = self._unsettled[samples:]
        self._interim_samples = 0

    async def _answer(
        self,
        samples: int,
        words: Sequence[Spoken],
        *,
        is_final: bool,
        from_finalize: bool = False,
        speech_final: bool = False,
    ) -> None:
        results = {
            "type": "Results",
            "channel_index": [0, 1],
            "duration": samples / SAMPLE_RATE_HZ,
            "start": self._settled_samples / SAMPLE_RATE_HZ + self._behaviour.shift_s,
            "is_final": is_final,
            "speech_final": speech_final,
            "channel": {"alternatives": [_alternative(words)]},
            "metadata": {"request_id": self._id, **_MODEL},
            "from_finalize": from_finalize,
        }
        if self._behaviour.hold_finals and is_final and not from_finalize and self._held is None:
            self._held = results
            return
        await self._say(results)
        if is_final:
            await self._release()

    async def _release(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            await self._say(held)

    async def _say(self, message: Mapping[str, Any]) -> None:
        await asyncio.sleep(self._behaviour.delay_s)
        if self._behaviour.stall or self._behaviour.half_open:
            return
        if self._behaviour.garbage:
            await self._websocket.send_bytes(b"\x00\xff")
            for nonsense in GARBAGE:
                await self._websocket.send_str(nonsense)
        if self._behaviour.early_metadata:
            await self._websocket.send_json({"type": "Metadata", **self._metadata()})
        await self._websocket.send_json(message)

    async def _close(self, code: int, reason: str) -> None:
        if not (self._behaviour.stall or self._behaviour.half_open):
            await self._websocket.close(code=code, message=reason.encode())

    def _metadata(self) -> dict[str, Any]:
        return {
            "transaction_key": "deprecated",
            "request_id": self._id,
            "sha256": "0" * 64,
            "created": "2026-01-01T00:00:00.000Z",
            "duration": self._received_s,
            "channels": 1,
        }


_MODEL = {
    "model_info": {"name": "general-nova-3", "version": "2026-01-01.0", "arch": "nova-3"},
    "model_uuid": "00000000-0000-4000-8000-000000000000",
}


def _alternative(words: Sequence[Spoken]) -> dict[str, Any]:
    return {
        "transcript": " ".join(word.text for word in words),
        "confidence": min((word.confidence for word in words), default=0.0),
        "words": [
            {
                "word": word.text.lower().strip(".,?!"),
                "start": word.start_s,
                "end": word.end_s,
                "confidence": word.confidence,
                "punctuated_word": word.text,
            }
            for word in words
        ],
    }


def _refuse(status: int, why: str, *, retry_after_s: int | None = None) -> web.Response:
    request_id = str(uuid.uuid4())
    headers = {"dg-error": why, "dg-request-id": request_id}
    if retry_after_s is not None:
        headers["Retry-After"] = str(retry_after_s)
    body = {"err_code": "REFUSED", "err_msg": why, "request_id": request_id}
    return web.json_response(body, status=status, headers=headers)


def _samples_of(recording: bytes) -> Samples:
    with wave.open(io.BytesIO(recording)) as reader:
        data = np.frombuffer(reader.readframes(reader.getnframes()), np.int16)
        channels, rate_hz = reader.getnchannels(), reader.getframerate()
    mono = data.reshape(-1, channels)[:, 0]
    if rate_hz == SAMPLE_RATE_HZ:
        return mono
    places = np.arange(0, len(mono), rate_hz / SAMPLE_RATE_HZ)
    return np.interp(places, np.arange(len(mono)), mono).astype(np.int16)


async def by_level(samples: Samples) -> list[Spoken]:
    """Recognise what `levels` made: a word is a stretch of one value, and 0 is silence."""
    edges = [0, *(np.flatnonzero(np.diff(samples)) + 1), len(samples)]
    return [
        Spoken(f"w{samples[start]}", start / SAMPLE_RATE_HZ, end / SAMPLE_RATE_HZ)
        for start, end in pairwise(edges)
        if start < end and samples[start]
    ]


def levels(*values: int, each_s: float = 0.25) -> Samples:
    """Audio that `by_level` understands as `w1 w2 …` for the values 1, 2, …"""
    return np.repeat(np.array(values, np.int16), round(each_s * SAMPLE_RATE_HZ))


def by_whisper(whisper: WhisperSTT) -> Recognise:
    """Recognise by the local engine, which several stand-ins may share."""

    async def recognise(samples: Samples) -> list[Spoken]:
        frame = rtc.AudioFrame(samples.tobytes(), SAMPLE_RATE_HZ, 1, len(samples))
        event = await whisper.recognize(frame, conn_options=APIConnectOptions(max_retry=0))
        return [
            Spoken(str(word), _seconds(word.start_time), _seconds(word.end_time), _seconds(word.confidence))
            for word in event.alternatives[0].words or ()
        ]

    return recognise


@asynccontextmanager
async def understanding(*, threads: int = 1, **options: Any) -> AsyncIterator[DeepgramServer]:
    """The stand-in with a local engine of its own; `options` are those of `DeepgramServer`."""
    whisper = WhisperSTT(threads=threads)
    try:
        await asyncio.to_thread(whisper.prewarm)
        async with DeepgramServer(by_whisper(whisper), **options) as server:
            yield server
    finally:
        await whisper.aclose()


def _seconds(value: Any) -> float:
    return float(value)


async def _control(server: DeepgramServer, port: int) -> web.AppRunner:
    async def behave(request: web.Request) -> web.Response:
        try:
            behaviour = Behaviour(**await request.json())
        except (TypeError, ValueError) as error:
            return web.Response(status=400, text=str(error))
        await server.behave(behaviour)
        return web.json_response(asdict(behaviour))

    async def counts(_: web.Request) -> web.Response:
        return web.json_response(asdict(server.counts))

    application = web.Application()
    application.router.add_put("/behaviour", behave)
    application.router.add_get("/counts", counts)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, HOST, port).start()
    return runner


async def _serve(arguments: argparse.Namespace) -> None:
    async with understanding(
        threads=arguments.threads,
        port=arguments.port,
        api_key=arguments.key,
        idle_limit_s=arguments.idle_limit_s,
    ) as server:
        ended = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, ended.set)
        control = await _control(server, arguments.control_port)
        print(f"listening at {server.url}, told at http://{HOST}:{arguments.control_port}", flush=True)  # noqa: T201
        await ended.wait()
        await control.cleanup()


def _main() -> None:
    parser = argparse.ArgumentParser(
        description="A stand-in for Deepgram that recognises by the local engine."
    )
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--control-port", type=int, required=True)
    parser.add_argument("--key", default=KEY)
    parser.add_argument("--idle-limit-s", type=float, default=10.0)
    parser.add_argument("--threads", type=int, default=1)
    asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    _main()
