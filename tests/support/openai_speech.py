"""OpenAI's speech recognition, for tests: its wire protocol over a real socket, on loopback.

It speaks both endpoints, `/audio/transcriptions` and the Realtime API's transcription sessions, refuses what
the real one refuses, and misbehaves as it is told to, also while connections are open. What it writes comes
from a function or from the local engine. In a test's own event loop:

    async with OpenAISpeech(scripted("Good morning.")) as server:
        engine = OpenAISTT(api_key=server.api_key, base_url=server.base_url)

or as a process of its own, whose `/control` takes the fields of `Behaviour` as JSON and whose `/counts` gives
what it counted:

    python -m tests.support.openai_speech --port 8089
"""

import argparse
import asyncio
import base64
import binascii
import io
import itertools
import json
import time
import wave
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any, Self

import numpy as np
import soxr
from aiohttp import WSCloseCode, WSMsgType, web
from livekit import rtc
from livekit.agents.types import APIConnectOptions

from agent.values import SAMPLE_RATE_HZ, Samples
from plugins.stt.whisper import WhisperSTT

__all__ = [
    "Behaviour",
    "Counts",
    "Local",
    "Mode",
    "OpenAISpeech",
    "Recognised",
    "Recogniser",
    "scripted",
]

API_KEY = "sk-test-0123456789"
REALTIME_RATE_HZ = 24_000
SHORTEST_AUDIO_S = 0.1
LONGEST_APPEND_BYTES = 15 * 2**20
RETRY_AFTER_S = 7
CLOSING_S = 0.2
POLL_S = 0.02
LONG_TEXT = ("word " * 2000).strip() + "."
LIVE_MODELS = {"gpt-live-transcribe", "gpt-realtime-whisper"}  # they write while audio comes in
KEYWORD_MODELS = {"gpt-live-transcribe", "gpt-transcribe"}
JSON_ONLY_MODELS = {"gpt-transcribe", "gpt-4o-transcribe", "gpt-4o-mini-transcribe"}
MODELS = LIVE_MODELS | JSON_ONLY_MODELS | {"whisper-1"}
DELTA = "conversation.item.input_audio_transcription.delta"
COMPLETED = "conversation.item.input_audio_transcription.completed"
FAILED = "conversation.item.input_audio_transcription.failed"


class Mode(StrEnum):
    """What the server does wrong."""

    NONE = "none"
    REFUSE = "refuse"  # new connections are cut before an answer
    TOO_MANY = "too_many"  # 429 with Retry-After
    ERROR = "error"  # 500
    STALL = "stall"  # takes everything, answers nothing
    HALF_OPEN = "half_open"  # reads nothing more and says nothing more, not even to a ping
    DROP = "drop"  # cuts the connection when the next audio comes
    DROP_AFTER_COMMIT = "drop_after_commit"  # the item is made, and never transcribed
    GARBAGE = "garbage"  # senseless messages between the right ones; a senseless answer over HTTP
    EMPTY = "empty"  # every text is empty
    LONG = "long"  # every text has 10 000 characters
    REVERSED = "reversed"  # items are completed in pairs, the later one first
    FAIL_ITEMS = "fail_items"  # no item can be transcribed
    LIMIT_ITEMS = "limit_items"  # the same, since too much was asked for


_FAILURES = {Mode.FAIL_ITEMS: "audio_unintelligible", Mode.LIMIT_ITEMS: "rate_limit_exceeded"}


@dataclass
class Behaviour:
    """What can be changed while the server runs.

    Attributes:
        mode: What is done wrong.
        session_limit_s: How long a Realtime session lasts.
        delta_every_s: Audio after which a model that can writes what it has heard so far; None waits for the
            commit, with any model.
    """

    mode: Mode = Mode.NONE
    session_limit_s: float = 3600.0
    delta_every_s: float | None = None


@dataclass
class Counts:
    """What has come. `audio_s` is of the Realtime API, `recordings_s` of the other endpoint."""

    connections: int = 0
    open_connections: int = 0
    refused: int = 0
    audio_s: float = 0.0
    commits: int = 0
    requests: int = 0
    recordings_s: float = 0.0
    sessions: list[dict[str, Any]] = field(default_factory=list)  # the configurations, in their order
    forms: list[dict[str, list[str]]] = field(default_factory=list)  # of the requests, without the file


@dataclass(frozen=True)
class Recognised:
    """A text, and its words with their start and end in seconds."""

    text: str
    words: tuple[tuple[str, float, float], ...] = ()


Recogniser = Callable[[Samples], Awaitable[Recognised]]
"""Makes a text of samples at `SAMPLE_RATE_HZ`."""


def scripted(*texts: str, each_s: float = 0.2) -> Recogniser:
    """Say these texts, one a call and the last one again and again; a word of them every `each_s`."""
    waiting = list(texts)

    async def recognise(_samples: Samples) -> Recognised:
        text = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        words = text.split()
        return Recognised(
            text, tuple((word, at * each_s, (at + 1) * each_s) for at, word in enumerate(words))
        )

    return recognise


class Local:
    """The local engine, one recording at a time."""

    def __init__(self) -> None:
        self._engine = WhisperSTT()
        self._engine.prewarm()

    async def __call__(self, samples: Samples) -> Recognised:
        frame = rtc.AudioFrame(samples.tobytes(), SAMPLE_RATE_HZ, 1, len(samples))
        event = await self._engine.recognize(frame, conn_options=APIConnectOptions(max_retry=0))
        [data] = event.alternatives
        words = tuple(
            (str(word).strip(" .,?!"), float(word.start_time or 0), float(word.end_time or 0))  # type: ignore[arg-type]
            for word in data.words or ()
        )
        return Recognised(data.text, words)

    async def aclose(self) -> None:
        await self._engine.aclose()


class OpenAISpeech:
    """The server. Closing it cuts all connections."""

    def __init__(self, recognise: Recogniser, *, port: int = 0, api_key: str = API_KEY) -> None:
        self.behaviour = Behaviour()
        self.counts = Counts()
        self.api_key = api_key
        self._recognise = recognise
        self._port = port
        self._runner: web.AppRunner | None = None
        self._sessions: set[_Session] = set()

    @property
    def port(self) -> int:
        return self._port

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=32 * 2**20)
        app.router.add_get("/v1/realtime", self._realtime)
        app.router.add_post("/v1/audio/transcriptions", self._transcriptions)
        app.router.add_post("/control", self._control)
        app.router.add_get("/counts", self._counts)
        self._runner = web.AppRunner(app, shutdown_timeout=CLOSING_S)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        for session in list(self._sessions):
            session.cut()
        assert self._runner is not None
        await self._runner.cleanup()

    async def recognise(self, samples: Samples) -> Recognised:
        match self.behaviour.mode:
            case Mode.EMPTY:
                return Recognised("")
            case Mode.LONG:
                return Recognised(LONG_TEXT)
            case _:
                return await self._recognise(samples)

    def expire(self) -> None:
        """Let every open Realtime session have lasted as long as it may."""
        for session in self._sessions:
            session.expire()

    async def wait_out(self, mode: Mode) -> None:
        """Do nothing while this is the mode."""
        while self.behaviour.mode is mode:  # noqa: ASYNC110  a test may set it from anywhere
            await asyncio.sleep(POLL_S)

    async def _admit(self, request: web.Request) -> web.Response | None:
        """What is wrong with a request before it is looked at: the answer to it, or None."""
        mode = self.behaviour.mode
        if mode is Mode.REFUSE:
            assert request.transport is not None
            request.transport.abort()
            self.counts.refused += 1
            return web.Response(status=503)  # nobody gets it
        if not _is_websocket(request):
            await self.wait_out(Mode.STALL)
        await self.wait_out(Mode.HALF_OPEN)
        if request.headers.get("Authorization") != f"Bearer {self.api_key}":
            self.counts.refused += 1
            # The real one quotes the key as well.
            message = f"Incorrect API key provided: {request.headers.get('Authorization', '')}."
            return _error(401, "invalid_request_error", "invalid_api_key", message)
        if mode is Mode.TOO_MANY:
            self.counts.refused += 1
            headers = {"Retry-After": str(RETRY_AFTER_S)}
            return _error(429, "requests", "rate_limit_exceeded", "Rate limit reached.", headers=headers)
        if mode is Mode.ERROR:
            self.counts.refused += 1
            return _error(500, "server_error", None, "The server had an error.")
        return None

    async def _transcriptions(self, request: web.Request) -> web.Response:
        self.counts.requests += 1
        if (refusal := await self._admit(request)) is not None:
            return refusal
        form = await request.post()
        names = [name for name in dict.fromkeys(form) if name != "file"]
        fields_sent = {name: [str(value) for value in form.getall(name)] for name in names}
        self.counts.forms.append(fields_sent)
        model, response_format = str(form["model"]), str(form.get("response_format", "json"))
        if wrong := _refused_field(model, response_format, fields_sent):
            return _error(400, "invalid_request_error", "unsupported_value", wrong)
        upload = form["file"]
        assert isinstance(upload, web.FileField)
        samples = _read_wav(upload.file.read())
        duration_s = len(samples) / SAMPLE_RATE_HZ
        if duration_s < SHORTEST_AUDIO_S:
            message = f"Audio file is too short. Minimum audio length is {SHORTEST_AUDIO_S} seconds."
            return _error(400, "invalid_request_error", "audio_too_short", message)
        self.counts.recordings_s += duration_s
        if self.behaviour.mode is Mode.GARBAGE:
            return web.Response(text='{"text": ["what', content_type="application/json")
        recognised = await self.recognise(samples)
        if response_format == "json":
            return web.json_response({"text": recognised.text, "usage": _token_usage(duration_s)})
        words = [{"word": word, "start": start, "end": end} for word, start, end in recognised.words]
        return web.json_response(
            {
                "task": "transcribe",
                "language": "english",
                "duration": duration_s,
                "text": recognised.text,
                "words": words,
                "usage": {"type": "duration", "seconds": float(-(-duration_s // 1))},
            }
        )

    async def _realtime(self, request: web.Request) -> web.StreamResponse:
        if (refusal := await self._admit(request)) is not None:
            return refusal
        socket = web.WebSocketResponse(
            autoping=False, timeout=CLOSING_S, max_msg_size=2 * LONGEST_APPEND_BYTES
        )
        await socket.prepare(request)
        assert request.transport is not None
        session = _Session(self, socket, request.transport, request.query)
        self._sessions.add(session)
        self.counts.connections += 1
        self.counts.open_connections += 1
        try:
            await session.run()
        finally:
            self._sessions.discard(session)
            self.counts.open_connections -= 1
        return socket

    async def _control(self, request: web.Request) -> web.Response:
        for name, value in (await request.json()).items():
            known = {f.name for f in fields(Behaviour)}
            if name not in known:
                return web.json_response({"unknown": name, "known": sorted(known)}, status=400)
            setattr(self.behaviour, name, Mode(value) if name == "mode" else value)
        return web.json_response(asdict(self.behaviour))

    async def _counts(self, _request: web.Request) -> web.Response:
        return web.json_response(asdict(self.counts))


class _Session:
    """One connection to the Realtime API."""

    def __init__(
        self,
        server: OpenAISpeech,
        socket: web.WebSocketResponse,
        transport: asyncio.Transport,
        query: Mapping[str, str],
    ) -> None:
        self._server = server
        self._socket = socket
        self._transport = transport
        self._query = query
        self._numbers = itertools.count(1)
        self._model: str | None = None
        self._audio = bytearray()
        self._item = self._new_item()
        self._previous_item: str | None = None
        self._written = ""
        self._written_until_s = 0.0
        self._kept_back: list[dict[str, Any]] = []
        self._transcribing: set[asyncio.Task[None]] = set()
        self._limit = asyncio.timeout(server.behaviour.session_limit_s)

    def expire(self) -> None:
        """Have lasted as long as it may."""
        self._limit.reschedule(asyncio.get_running_loop().time())

    def cut(self) -> None:
        """End the connection without a word."""
        self._transport.abort()

    async def run(self) -> None:
        """Serve until either side has had enough."""
        try:
            if "model" in self._query or self._query.get("intent") != "transcription":
                await self._complain(None, "invalid_parameter", "You must not provide a model parameter.")
                return
            expires_at = int(time.time() + self._server.behaviour.session_limit_s)
            session = {"id": "sess_1", "object": "realtime.transcription_session", "type": "transcription"}
            await self._say("session.created", session={**session, "expires_at": expires_at})
            async with self._limit:
                await self._listen()
        except TimeoutError:
            await self._complain(None, "session_expired", "Your session hit the maximum duration.")
            await self._socket.close(code=WSCloseCode.GOING_AWAY)
        except ConnectionError:
            pass  # the client has gone
        finally:
            for task in self._transcribing:
                task.cancel()
            await asyncio.gather(*self._transcribing, return_exceptions=True)

    async def _listen(self) -> None:
        async for frame in self._socket:
            if self._mode is Mode.HALF_OPEN:
                self._transport.pause_reading()
                await self._server.wait_out(Mode.HALF_OPEN)
                self._transport.resume_reading()
            if frame.type is WSMsgType.PING:
                await self._socket.pong(frame.data)
            elif frame.type is WSMsgType.TEXT:
                await self._obey(json.loads(frame.data))

    @property
    def _mode(self) -> Mode:
        return self._server.behaviour.mode

    async def _obey(self, event: dict[str, Any]) -> None:
        event_id = event.get("event_id")
        match event.get("type"):
            case "session.update":
                await self._configure(event["session"], event_id)
            case "input_audio_buffer.append":
                await self._append(event["audio"], event_id)
            case "input_audio_buffer.commit":
                await self._commit(event_id)
            case "input_audio_buffer.clear":
                self._audio.clear()
                await self._say("input_audio_buffer.cleared")
            case other:
                await self._complain(event_id, "invalid_value", f"Invalid value: '{other}'.")

    async def _configure(self, session: dict[str, Any], event_id: str | None) -> None:
        self._server.counts.sessions.append(session)
        audio = session["audio"]["input"]
        transcription = audio["transcription"]
        model = transcription["model"]
        if session["type"] != "transcription" or audio["format"] != {"type": "audio/pcm", "rate": 24_000}:
            await self._complain(event_id, "invalid_value", "Passing another type or format is not allowed.")
        elif model not in MODELS:
            await self._complain(event_id, "invalid_model", f"Model '{model}' is not supported.")
        elif audio["turn_detection"] is not None:
            await self._complain(event_id, "unsupported", "This server takes turns from its client only.")
        elif "keywords" in transcription and model not in KEYWORD_MODELS:
            await self._complain(event_id, "unsupported_parameter", f"No keywords with '{model}'.")
        elif "prompt" in transcription and model == "gpt-realtime-whisper":
            await self._complain(event_id, "unsupported_parameter", f"No prompt with '{model}'.")
        else:
            self._model = model
            await self._say("session.updated", session=session)

    async def _append(self, audio: str, event_id: str | None) -> None:
        if self._mode is Mode.DROP:
            self.cut()
            return
        try:
            pcm = base64.b64decode(audio, validate=True)
        except binascii.Error:
            await self._complain(event_id, "invalid_value", "Invalid 'audio'. Expected base64.")
            return
        if self._model is None or len(pcm) > LONGEST_APPEND_BYTES or len(pcm) % 2:
            await self._complain(event_id, "invalid_value", "Invalid 'audio'.")
            return
        self._audio += pcm
        self._server.counts.audio_s += _duration_s(pcm)
        heard_s, every_s = _duration_s(self._audio), self._server.behaviour.delta_every_s
        if self._model in LIVE_MODELS and every_s and heard_s - self._written_until_s >= every_s:
            self._written_until_s = heard_s
            await self._write((await self._server.recognise(_samples(self._audio))).text, self._item)

    async def _commit(self, event_id: str | None) -> None:
        if _duration_s(self._audio) < SHORTEST_AUDIO_S:
            held_ms = 1000 * _duration_s(self._audio)
            message = (
                "Error committing input audio buffer: buffer too small. Expected at least 100ms of audio, "
                f"but buffer only has {held_ms:.2f}ms of audio."
            )
            await self._complain(event_id, "input_audio_buffer_commit_empty", message)
            return
        self._server.counts.commits += 1
        item, audio, written = self._item, bytes(self._audio), self._written
        previous = {"previous_item_id": self._previous_item}
        await self._say("input_audio_buffer.committed", item_id=item, **previous)
        content = [{"type": "input_audio", "transcript": None}]
        shown = {"id": item, "type": "message", "role": "user", "content": content}
        await self._say("conversation.item.added", item=shown, **previous)
        await self._say("conversation.item.done", item=shown, **previous)
        self._previous_item, self._item = item, self._new_item()
        self._audio.clear()
        self._written, self._written_until_s = "", 0.0
        if self._mode is Mode.DROP_AFTER_COMMIT:
            self.cut()
            return
        # Items are transcribed beside each other, as it is with the real one.
        task = asyncio.create_task(self._transcribe(item, audio, written))
        self._transcribing.add(task)
        task.add_done_callback(self._transcribing.discard)

    async def _transcribe(self, item: str, audio: bytes, written: str) -> None:
        with suppress(ConnectionError):
            if (code := _FAILURES.get(self._mode)) is not None:
                error = {"type": "transcription_error", "code": code, "message": "No."}
                await self._say(FAILED, item_id=item, content_index=0, error=error)
                return
            text = (await self._server.recognise(_samples(audio))).text
            if self._mode is Mode.GARBAGE:
                await self._talk_nonsense(item)
            await self._write(text, item, written)
            completed = {
                "item_id": item,
                "content_index": 0,
                "transcript": text,
                "usage": _token_usage(_duration_s(audio)),
            }
            if self._mode is not Mode.REVERSED:
                await self._say(COMPLETED, **completed)
                return
            self._kept_back.append(completed)
            if len(self._kept_back) == 2:
                while self._kept_back:
                    await self._say(COMPLETED, **self._kept_back.pop())

    async def _write(self, text: str, item: str, written: str | None = None) -> None:
        """Send as deltas, word by word, what a text has more than what was written of the item before."""
        before = self._written if written is None else written
        if text == before or not text.startswith(before):
            return  # what has been written cannot be taken back before the item is completed
        for word in text[len(before) :].split():
            delta = word if not before else f" {word}"
            before += delta
            await self._say(DELTA, item_id=item, content_index=0, delta=delta)
        if item == self._item:
            self._written = before

    async def _talk_nonsense(self, item: str) -> None:
        for message in (
            "{",
            "[]",
            "null",
            "[" * 5000,
            '{"type": 5}',
            '{"type": "error"}',
            '{"type": "error", "error": "oh"}',
            '{"type": "session.of.the.future", "event_id": "event_1"}',
            json.dumps({"type": DELTA, "item_id": item}),
            json.dumps({"type": DELTA, "item_id": item, "delta": {"text": "no"}}),
            json.dumps({"type": DELTA, "item_id": None, "delta": "no"}),
            json.dumps({"type": COMPLETED, "transcript": "no"}),
            json.dumps({"type": COMPLETED, "item_id": "item_of_nobody", "transcript": "no"}),
            json.dumps({"type": "rate_limits.updated", "rate_limits": []}),
        ):
            await self._socket.send_str(message)
        await self._socket.send_bytes(b"\xff\xfe\x00")

    async def _complain(self, event_id: str | None, code: str, message: str) -> None:
        error = {"type": "invalid_request_error", "code": code, "message": message, "event_id": event_id}
        await self._say("error", error=error)

    async def _say(self, kind: str, **content: object) -> None:
        if self._mode not in (Mode.STALL, Mode.HALF_OPEN):
            message = {"type": kind, "event_id": f"event_{next(self._numbers)}", **content}
            await self._socket.send_str(json.dumps(message))

    def _new_item(self) -> str:
        return f"item_{next(self._numbers)}"


def _is_websocket(request: web.Request) -> bool:
    return request.headers.get("Upgrade", "").lower() == "websocket"


def _refused_field(model: str, response_format: str, sent: Mapping[str, list[str]]) -> str | None:
    """What the real one says of a field that does not go with a model."""
    if model not in MODELS - LIVE_MODELS:
        return f"The model '{model}' does not exist."
    if model in JSON_ONLY_MODELS and response_format != "json":
        return f"response_format '{response_format}' is not compatible with model '{model}'."
    if "timestamp_granularities[]" in sent and response_format != "verbose_json":
        return "timestamp_granularities need response_format 'verbose_json'."
    if any(name.startswith("keywords") for name in sent) and model not in KEYWORD_MODELS:
        return f"No keywords with '{model}'."
    return None


def _error(
    status: int, kind: str, code: str | None, message: str, *, headers: Mapping[str, str] | None = None
) -> web.Response:
    error = {"message": message, "type": kind, "param": None, "code": code}
    return web.json_response({"error": error}, status=status, headers=headers)


def _token_usage(duration_s: float) -> dict[str, object]:
    return {
        "type": "tokens",
        "input_tokens": round(10 * duration_s),
        "output_tokens": 5,
        "total_tokens": round(10 * duration_s) + 5,
    }


def _duration_s(pcm: bytes | bytearray) -> float:
    return len(pcm) / 2 / REALTIME_RATE_HZ


def _samples(pcm: bytes | bytearray) -> Samples:
    samples = soxr.resample(np.frombuffer(bytes(pcm), np.int16), REALTIME_RATE_HZ, SAMPLE_RATE_HZ)
    return np.asarray(samples, np.int16)


def _read_wav(data: bytes) -> Samples:
    with wave.open(io.BytesIO(data)) as wav:
        assert wav.getsampwidth() == 2
        samples = np.frombuffer(wav.readframes(wav.getnframes()), np.int16)
        mono = samples.reshape(-1, wav.getnchannels()).mean(axis=1).astype(np.int16)
        return np.asarray(soxr.resample(mono, wav.getframerate(), SAMPLE_RATE_HZ), np.int16)


async def _serve(port: int, api_key: str) -> None:
    local = Local()
    async with OpenAISpeech(local, port=port, api_key=api_key) as server:
        print(server.base_url, flush=True)  # noqa: T201  who started it reads where it is
        try:
            await asyncio.Event().wait()
        finally:
            await local.aclose()


def _main() -> None:
    parser = argparse.ArgumentParser(description="OpenAI's speech recognition, by the local engine.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--api-key", default=API_KEY)
    options = parser.parse_args()
    with suppress(KeyboardInterrupt):
        asyncio.run(_serve(options.port, options.api_key))


if __name__ == "__main__":
    _main()
