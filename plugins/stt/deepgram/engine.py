"""Speech recognition by Deepgram, behind the STT interface of livekit-agents.

A stream is one connection to `/v1/listen`. Its endpointing is off: who speaks when is known here, and a turn
ends with a flush, which is a Finalize. Audio is sent as it comes, and a KeepAlive where none has come for a
while. Events of a stream are INTERIM_TRANSCRIPTs, FINAL_TRANSCRIPTs, of which a turn may have several or
none, and for each flush RECOGNITION_USAGE and then the END_OF_SPEECH that says `FLUSHED`.

Nothing is tried again here: a stream that fails raises, and whoever drives it decides.
"""

import asyncio
import threading
import weakref
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Never, cast
from urllib.parse import urlsplit

import httpx
import structlog
from livekit import rtc
from livekit.agents import APIConnectionError, APITimeoutError, stt
from livekit.agents.language import LanguageCode
from livekit.agents.types import (
    DEFAULT_API_CONNECT_OPTIONS,
    NOT_GIVEN,
    APIConnectOptions,
    NotGivenOr,
)
from livekit.agents.utils import AudioBuffer, aio, is_given
from pydantic import ValidationError

from agent.errors import EngineError
from agent.values import SAMPLE_RATE_HZ
from plugins.stt.deepgram import keyterms as terms_of
from plugins.stt.deepgram.connection import ClosedError, connected
from plugins.stt.deepgram.errors import refused
from plugins.stt.deepgram.flushes import UNANSWERED_AFTER_S, FlushLedger
from plugins.stt.deepgram.order import FinalsInOrder
from plugins.stt.deepgram.results import Recording, Results, speech_data
from plugins.stt.deepgram.sdk import (
    ApiError,
    AsyncDeepgramClient,
    AsyncV1SocketClient,
    DeepgramClientEnvironment,
    ListenV1Configure,
    ListenV1ConfigureFailure,
    ListenV1ConfigureSuccess,
    ListenV1Error,
    ListenV1Metadata,
    ListenV1Results,
    ListenV1SpeechStarted,
    ListenV1UtteranceEnd,
)
from plugins.stt.traits import FLUSHED

__all__ = ["DeepgramSTT", "DeepgramStream"]

log = structlog.get_logger(__name__)

GLOBAL_URL = "https://api.deepgram.com"
KEEP_ALIVE_S = 4.0  # the service closes after 10 s without a message, and advises 3 to 5
OWED_FOR_S = 1.0  # how much later than its successor a final may come

_Kind = stt.SpeechEventType


class DeepgramSTT(stt.STT[Never]):
    """Deepgram, by a key of one's own."""

    def __init__(
        self,
        *,
        api_key: str,
        model: str = "nova-3",
        language: str = "en",
        base_url: str = GLOBAL_URL,
        keyterms: Iterable[str] = (),
        smart_format: bool = True,
        mip_opt_out: bool = False,
        keep_alive_s: float = KEEP_ALIVE_S,
    ) -> None:
        """Take the settings; nothing is connected yet.

        Args:
            api_key: The key.
            model: The name of one of Deepgram's models that `/v1/listen` takes.
            language: What is spoken, as a BCP 47 tag, or "multi" for any of several.
            base_url: Where the service is: one of its regions, or a server of one's own.
            keyterms: What is likely to be said; as many as the model takes, the first ones.
            smart_format: Whether numbers, dates and the like are written as such, besides punctuation.
            mip_opt_out: Whether to keep audio out of Deepgram's Model Improvement Program; that costs more.
            keep_alive_s: After how long without audio a stream says that it is still there.

        Raises:
            EngineError: There is no key, or the URL is none.
        """
        super().__init__(
            capabilities=stt.STTCapabilities(
                streaming=True,
                interim_results=True,
                aligned_transcript="word",
                offline_recognize=True,
                manual_flush=True,
            )
        )
        if not api_key:
            raise EngineError("stt.deepgram.api_key is empty; it takes the key of a Deepgram project")
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise EngineError(f'stt.deepgram.base_url is no URL; expected one as "{GLOBAL_URL}"')
        self._api_key = api_key
        self._model = model
        self._language = LanguageCode(language)
        self._base_url = base_url.rstrip("/")
        self._smart_format = smart_format
        self._mip_opt_out = mip_opt_out
        self._keep_alive_s = keep_alive_s
        self._keyterms: tuple[str, ...] = ()
        self._streams: weakref.WeakSet[DeepgramStream] = weakref.WeakSet()
        self._http: httpx.AsyncClient | None = None
        self._client: AsyncDeepgramClient | None = None
        self._making_client = threading.Lock()
        self.update_keyterms(keyterms)

    @property
    def model(self) -> str:
        """The model's name."""
        return self._model

    @property
    def provider(self) -> str:
        """Who recognises."""
        return "deepgram"

    @property
    def keyterms(self) -> tuple[str, ...]:
        """The terms that are expected, as far as the model takes them."""
        return self._keyterms

    @property
    def keep_alive_s(self) -> float:
        """After how long without audio a stream says that it is still there."""
        return self._keep_alive_s

    @property
    def listen_url(self) -> str:
        """Where streams are opened."""
        return f"{self._base_url}/v1/listen"

    @property
    def api_key(self) -> str:
        """The key."""
        return self._api_key

    def update_keyterms(self, terms: Iterable[str]) -> None:
        """Expect other terms, in later streams, and with Nova-3 in the next audio of open ones too."""
        wanted = tuple(terms)
        self._keyterms = terms_of.within_limits(wanted, self._model)
        if len(self._keyterms) < len(wanted):
            log.info("deepgram.keyterms", given=len(wanted), used=len(self._keyterms))

    def prewarm(self) -> None:
        """Get ready for recordings, so that the first one does not wait. Does nothing the second time."""
        self._recordings()

    def stream_query(self, language: str) -> list[tuple[str, str]]:
        """The parameters of a stream."""
        query = {
            **self._options(language),
            "encoding": "linear16",
            "sample_rate": str(SAMPLE_RATE_HZ),
            "channels": "1",
            "interim_results": "true",
            "endpointing": "false",
        }
        return [
            (name, value)
            for name, values in query.items()
            for value in ([values] if isinstance(values, str) else values)
        ]

    def stream(
        self,
        *,
        language: NotGivenOr[str] = NOT_GIVEN,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
    ) -> "DeepgramStream":
        """Open a stream, which takes mono frames of one sample rate."""
        stream = DeepgramStream(
            deepgram=self, language=self._language_or(language), conn_options=conn_options
        )
        self._streams.add(stream)
        return stream

    async def aclose(self) -> None:
        """Close all streams and connections. Idempotent."""
        for stream in list(self._streams):
            await stream.aclose()
        if self._http is not None:
            await self._http.aclose()

    def forget(self, stream: "DeepgramStream") -> None:
        """Take note that a stream is closed."""
        self._streams.discard(stream)

    async def _recognize_impl(
        self,
        buffer: AudioBuffer,
        *,
        language: NotGivenOr[str] = NOT_GIVEN,
        conn_options: APIConnectOptions,
    ) -> stt.SpeechEvent:
        # As a WAV file: raw samples would need their rate in the query, which the SDK does not take here.
        recording = rtc.combine_audio_frames(buffer).to_wav_bytes()
        spoken = self._language_or(language)
        heard = await self._transcribe(recording, spoken, timeout_s=conn_options.timeout)
        duration_s = heard.metadata.duration
        data = speech_data(
            heard.results.channels[0].best,
            language=spoken,
            start_s=0.0,
            end_s=duration_s,
            audio_s=duration_s,
        )
        return stt.SpeechEvent(
            type=_Kind.FINAL_TRANSCRIPT,
            request_id=heard.metadata.request_id,
            alternatives=[data],
            recognition_usage=stt.RecognitionUsage(audio_duration=duration_s),
        )

    async def _transcribe(self, recording: bytes, language: str, *, timeout_s: float) -> Recording:
        options: dict[str, Any] = self._options(language)
        try:
            async with asyncio.timeout(timeout_s):
                if self._client is None:
                    await asyncio.to_thread(self._recordings)
                client = self._recordings()
                answer = await client.listen.v1.media.transcribe_file(request=recording, **options)
            return Recording.read(answer)
        except TimeoutError as error:
            raise APITimeoutError(f"deepgram did not answer within {timeout_s:g} s") from error
        except httpx.HTTPError as error:
            raise APIConnectionError(f"deepgram cannot be reached: {type(error).__name__}") from error
        except ApiError as error:
            raise _refusal(error) from None
        except (ValueError, TypeError) as error:
            # `from None`: what does not fit may be what somebody said.
            raise APIConnectionError(f"deepgram's answer cannot be read: {type(error).__name__}") from None

    def _options(self, language: str) -> dict[str, str | list[str]]:
        """What streams and recordings are both asked for with."""
        options: dict[str, str | list[str]] = {
            "model": self._model,
            "language": language,
            "punctuate": "true",
            "smart_format": _flag(self._smart_format),
            **terms_of.query_of(self._keyterms, self._model),
        }
        # Only where it is wanted: a server of one's own may not know it.
        return {**options, "mip_opt_out": "true"} if self._mip_opt_out else options

    def _language_or(self, language: NotGivenOr[str]) -> LanguageCode:
        return LanguageCode(language) if is_given(language) else self._language

    def _recordings(self) -> AsyncDeepgramClient:
        """The client for recordings. To make it takes a tenth of a second, for certificates."""
        with self._making_client:
            if self._client is None:
                url = self._base_url
                # Of our own, since the SDK does not close its one. Time is limited around the request.
                self._http = httpx.AsyncClient(timeout=None)
                self._client = AsyncDeepgramClient(
                    api_key=self._api_key,
                    environment=DeepgramClientEnvironment(
                        base=url, production=url, agent=url, agent_rest=url
                    ),
                    httpx_client=self._http,
                    max_retries=0,
                )
            return self._client


class DeepgramStream(stt.RecognizeStream):
    """Recognises turns with a `flush` after each, over one connection."""

    def __init__(
        self, *, deepgram: DeepgramSTT, language: LanguageCode, conn_options: APIConnectOptions
    ) -> None:
        super().__init__(stt=deepgram, conn_options=conn_options, sample_rate=SAMPLE_RATE_HZ)
        self._deepgram = deepgram
        self._language = language
        self._keyterms = deepgram.keyterms
        self._is_configuring = False
        self._is_ending = False
        self._sent_samples = 0
        self._billed_s = 0.0
        self._flushes = FlushLedger()
        self._finals = FinalsInOrder()
        self._owed_until_s: float | None = None  # by the loop's clock
        self._patience: set[asyncio.TimerHandle] = set()
        self._request_id = ""
        self._ignored = 0

    def push_frame(self, frame: rtc.AudioFrame) -> None:
        """Take the next audio: mono, of any rate as long as it stays the same.

        Raises:
            ValueError: The frame has several channels, or another rate than the ones before.
        """
        if frame.num_channels != 1:
            raise ValueError(f"stt: a frame has {frame.num_channels} channels; mix them to one")
        super().push_frame(frame)

    async def aclose(self) -> None:
        """Stop at once; what has not been recognised yet is lost. Idempotent."""
        await super().aclose()
        self._deepgram.forget(self)

    async def _run(self) -> None:
        # Before anything is awaited: terms that change while we connect are sent afterwards.
        self._keyterms = self._deepgram.keyterms
        query = self._deepgram.stream_query(self._language)
        timeout_s = self._conn_options.timeout
        async with connected(
            self._deepgram.listen_url, query=query, api_key=self._deepgram.api_key, timeout_s=timeout_s
        ) as connection:
            socket = AsyncV1SocketClient(websocket=cast(Any, connection))
            sending = asyncio.create_task(self._send(socket), name="DeepgramStream.send")
            receiving = asyncio.create_task(self._receive(socket), name="DeepgramStream.receive")
            try:
                await asyncio.wait((sending, receiving), return_when=asyncio.FIRST_COMPLETED)
                if sending.done():
                    sending.result()
                    async with asyncio.timeout(timeout_s):
                        await receiving
                receiving.result()
            except TimeoutError as error:
                raise APITimeoutError(f"deepgram did not end the stream within {timeout_s:g} s") from error
            finally:
                await aio.cancel_and_wait(sending, receiving)
                for timer in self._patience:
                    timer.cancel()
                self._report_usage()
                if self._ignored:
                    log.warning("deepgram.ignored", messages=self._ignored, request_id=self._request_id)

    @property
    def _sent_s(self) -> float:
        return self._sent_samples / SAMPLE_RATE_HZ

    async def _send(self, socket: AsyncV1SocketClient) -> None:
        try:
            while True:
                try:
                    async with asyncio.timeout(self._deepgram.keep_alive_s):
                        item = await self._input_ch.recv()
                except TimeoutError:
                    await socket.send_keep_alive()
                    continue
                if isinstance(item, self._FlushSentinel):
                    await self._finalize(socket)
                else:
                    await self._configure(socket)
                    self._sent_samples += item.samples_per_channel
                    await socket.send_media(bytes(item.data))
        except aio.ChanClosed:
            pass
        except ClosedError:
            return  # whoever receives is told why
        self._is_ending = True
        with suppress(ClosedError):
            await socket.send_close_stream()

    async def _finalize(self, socket: AsyncV1SocketClient) -> None:
        position_s = self._sent_s
        if not self._flushes.flush(position_s):
            return
        await socket.send_finalize()
        loop = asyncio.get_running_loop()
        self._patience = {timer for timer in self._patience if timer.when() > loop.time()}
        self._patience.add(
            loop.call_later(UNANSWERED_AFTER_S, lambda: self._acknowledge(self._flushes.give_up(position_s)))
        )

    async def _configure(self, socket: AsyncV1SocketClient) -> None:
        """Let an open stream expect the engine's terms, one change at a time."""
        wanted = self._deepgram.keyterms
        if wanted == self._keyterms or self._is_configuring:
            return
        self._keyterms = wanted
        if terms_of.takes_keyterms(self._deepgram.model):
            self._is_configuring = True
            await socket.send_configure(ListenV1Configure(keyterms=list(wanted)))

    async def _receive(self, socket: AsyncV1SocketClient) -> None:
        """Take what the service says until it has said all."""
        while True:
            owed_s = self._finals.owed_s
            try:
                async with asyncio.timeout_at(self._owed_until_s):
                    message: object = await socket.recv()
            except TimeoutError:
                raise APIConnectionError(f"deepgram left out {owed_s:.1f} s of the audio") from None
            except ClosedError as closed:
                if self._is_ending and not owed_s and (closed.is_normal or not self._flushes.pending):
                    break
                raise APIConnectionError(f"deepgram closed the stream: {closed}") from None
            except (ValueError, RecursionError) as error:  # not JSON, or not text
                self._ignore(type(error).__name__)
                continue
            # The close frame follows; but Metadata may also come at any time, says the reference.
            is_over = self._is_ending and not owed_s and not self._flushes.pending
            if isinstance(message, ListenV1Metadata) and is_over:
                break
            self._take(message)
        self._acknowledge(self._flushes.end())

    def _take(self, message: object) -> None:
        match message:
            case ListenV1Results():
                try:
                    results = Results.read(message)
                except ValidationError:
                    self._ignore("Results")
                else:
                    self._hear(results)
            case ListenV1ConfigureSuccess():
                self._is_configuring = False
            case ListenV1ConfigureFailure():
                self._is_configuring = False
                log.warning("deepgram.keyterms_refused", code=message.code, terms=len(self._keyterms))
            case ListenV1Error():
                # The stream goes on, or the service closes it next. One that has no Configure says so here.
                self._is_configuring = False
                log.warning("deepgram.error", variant=message.variant, request_id=self._request_id)
            case ListenV1Metadata() | ListenV1SpeechStarted() | ListenV1UtteranceEnd():
                pass
            case _:
                self._ignore(type(message).__name__)

    def _hear(self, results: Results) -> None:
        self._request_id = results.metadata.request_id
        if not results.is_final:
            self._flushes.hear_interim(results.first_word_s)
            self._tell(results)
            return
        for final in self._finals.hear(results, self._sent_s):
            self._tell(final)
            end_s = min(final.end, self._sent_s)
            is_answer = bool(final.from_finalize)
            self._acknowledge(self._flushes.hear_final(end_s, from_finalize=is_answer))
        if not self._finals.owed_s:
            self._owed_until_s = None
        elif self._owed_until_s is None:
            self._owed_until_s = asyncio.get_running_loop().time() + OWED_FOR_S

    def _tell(self, results: Results) -> None:
        data = speech_data(
            results.channel.best,
            language=self._language,
            start_s=results.start,
            end_s=results.end,
            audio_s=self._sent_s,
            offset_s=self.start_time_offset,
        )
        if data.text:
            kind = _Kind.FINAL_TRANSCRIPT if results.is_final else _Kind.INTERIM_TRANSCRIPT
            self._event_ch.send_nowait(
                stt.SpeechEvent(type=kind, request_id=self._request_id, alternatives=[data])
            )

    def _acknowledge(self, flushes: int) -> None:
        for _ in range(flushes):
            self._report_usage()
            self._event_ch.send_nowait(stt.SpeechEvent(type=_Kind.END_OF_SPEECH, request_id=FLUSHED))

    def _report_usage(self) -> None:
        """Report the audio since the last report: Deepgram bills that, and not the time without any."""
        unbilled_s = self._sent_s - self._billed_s
        if unbilled_s <= 0:
            return
        self._billed_s = self._sent_s
        self._event_ch.send_nowait(
            stt.SpeechEvent(
                type=_Kind.RECOGNITION_USAGE,
                request_id=self._request_id,
                recognition_usage=stt.RecognitionUsage(audio_duration=unbilled_s),
            )
        )

    def _ignore(self, what: str) -> None:
        """Pass over a message that cannot be used; one is logged, the rest are counted."""
        self._ignored += 1
        if self._ignored == 1:
            log.warning("deepgram.unknown_message", kind=what, request_id=self._request_id)


def _refusal(error: ApiError) -> Exception:
    status = error.status_code
    if status is None or status < 400:
        return APIConnectionError("deepgram's answer cannot be read")
    body = error.body
    detail = body.get("err_msg") if isinstance(body, dict) else None
    return refused("the recording", status, error.headers or {}, detail=str(detail) if detail else None)


def _flag(value: bool) -> str:
    return "true" if value else "false"
