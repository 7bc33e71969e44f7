"""Local speech recognition: Whisper behind the STT interface of livekit-agents.

A stream is two coroutines. One listens: it finds utterances by voice activity, which takes 0.06 ms
a window. The other recognises: it has one decode under way at most, prefers an utterance that is
over to the one that goes on, and takes all the audio that came in the meantime. No clock is read:
finals depend on the samples alone, and interims on how much audio came while others were decoded.
All streams of a `WhisperSTT` share one thread.

Every utterance gives START_OF_SPEECH, INTERIM_TRANSCRIPTs, FINAL_TRANSCRIPT, RECOGNITION_USAGE and
END_OF_SPEECH, in this order and before any of the next one. Where nothing was recognised there is
no FINAL_TRANSCRIPT, and interims shown before are void. A flush that followed audio is answered by
an END_OF_SPEECH of its own, `FLUSHED`, after the last event of its turn.

A final is dropped only where voice activity found no speech *and* the model is unsure; each of them alone
takes a brief "No." for nothing now and then. `WhisperSTT.dropped` counts what is dropped.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, Never, TypeVar

import numpy as np
import structlog
from livekit import rtc
from livekit.agents import stt
from livekit.agents.language import LanguageCode
from livekit.agents.types import (
    DEFAULT_API_CONNECT_OPTIONS,
    NOT_GIVEN,
    APIConnectOptions,
    NotGivenOr,
    TimedString,
)
from livekit.agents.utils import AudioBuffer, aio, is_given, shortuuid
from livekit.local_inference import VAD, init_vad

from agent.values import SAMPLE_RATE_HZ, Samples
from plugins.stt.traits import FLUSHED
from plugins.stt.whisper.decoder import Decoded, WhisperDecoder, Windows, geometric_mean
from plugins.stt.whisper.endpoint import Opened
from plugins.stt.whisper.local_agreement import LocalAgreement
from plugins.stt.whisper.models import find_model
from plugins.stt.whisper.segmenter import Segmenter, Utterance
from plugins.stt.whisper.word import DecodedWord

__all__ = ["WhisperSTT", "WhisperStream"]

log = structlog.get_logger(__name__)

# Voice activity detection of this much audio takes 2 ms; then the event loop has its turn.
_LISTENING_STEP_SAMPLES = SAMPLE_RATE_HZ

# Captions that come later than this are of no use to anybody, and the memory is needed (10 MB).
_MOST_WAITING_SAMPLES = 300 * SAMPLE_RATE_HZ

_Result = TypeVar("_Result")

_Reason = Literal["not_speech", "no_words", "overload"]


class WhisperSTT(stt.STT[Never]):
    """Whisper on this machine's processor, in one thread that all streams share."""

    def __init__(
        self,
        *,
        model: str = "tiny.en",
        language: str = "en",
        threads: int = 1,
        beam_size: int = 5,
        partial_interval_s: float = 0.5,
        windows: Windows = Windows(),  # noqa: B008  it is frozen
    ) -> None:
        """Find the model; `prewarm`, or else the first use, loads it.

        Args:
            model: a name that an installed package carries, or the path of a folder with a
                CTranslate2 Whisper model. Nothing is ever fetched.
            language: what is spoken, as an ISO 639-1 code or a BCP 47 tag.
            threads: processor threads of one decode.
            beam_size: hypotheses kept when decoding a final.
            partial_interval_s: audio between two interim transcripts of an utterance, at least.
            windows: how long the encoder's input is.

        Raises:
            EngineError: there is no such model on this machine.
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
        self._folder = find_model(model)
        self._model_name = model
        self._language = LanguageCode(language)
        self._threads = threads
        self._beam_size = beam_size
        self._partial_interval = round(partial_interval_s * SAMPLE_RATE_HZ)
        self._windows = windows
        self._dropped: Counter[str] = Counter()
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="whisper")
        self._decoder: WhisperDecoder | None = None
        self._loading = threading.Lock()
        self._streams: weakref.WeakSet[WhisperStream] = weakref.WeakSet()

    @property
    def model(self) -> str:
        """The name or path that the model was asked for by."""
        return self._model_name

    @property
    def partial_interval(self) -> int:
        """Samples between two interim transcripts of an utterance, at least."""
        return self._partial_interval

    @property
    def dropped(self) -> Mapping[str, int]:
        """How many utterances have no final, by reason.

        `not_speech`: voice activity found no speech in it, and the model doubts that there is any.
        `no_words`: the model wrote nothing, or punctuation alone. `overload`: this machine was too slow.
        """
        return MappingProxyType(self._dropped)

    @property
    def provider(self) -> str:
        """Who recognises."""
        return "whisper"

    def prewarm(self) -> None:
        """Load the model and decode something, so that the first utterance does not wait for it.

        Blocks for about a second; does nothing the second time.

        Raises:
            EngineError: the model cannot be loaded, or does not know the language.
        """
        self._load()

    def stream(
        self,
        *,
        language: NotGivenOr[str] = NOT_GIVEN,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
    ) -> WhisperStream:
        """Open a stream, which takes mono frames of one sample rate."""
        stream = WhisperStream(whisper=self, language=self._language_or(language), conn_options=conn_options)
        self._streams.add(stream)
        return stream

    async def aclose(self) -> None:
        """Close all streams and let go of the thread. Idempotent."""
        for stream in list(self._streams):
            await stream.aclose()
        # A decode under way cannot be stopped, and nobody waits for its result.
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def run(self, job: Callable[[WhisperDecoder], _Result]) -> _Result:
        """Run a job that uses the decoder in the engine's thread, after those asked for earlier."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, lambda: job(self._load()))

    def accept(self, utterance: Utterance, decoded: Decoded) -> tuple[DecodedWord, ...]:
        """Return the words of a final, none where it is to be dropped, which is counted."""
        if not decoded.words:
            self.count_dropped("no_words")
        elif not (utterance.has_speech or decoded.is_sure):
            self.count_dropped("not_speech")
            return ()
        return decoded.words

    def count_dropped(self, reason: _Reason) -> None:
        """Take note of an utterance without a final."""
        self._dropped[reason] += 1

    def forget(self, stream: WhisperStream) -> None:
        """Take note that a stream is closed."""
        self._streams.discard(stream)

    async def _recognize_impl(
        self,
        buffer: AudioBuffer,
        *,
        language: NotGivenOr[str] = NOT_GIVEN,
        conn_options: APIConnectOptions,
    ) -> stt.SpeechEvent:
        spoken = self._language_or(language)
        utterances = await self.run(lambda _: _split(_samples_of(buffer)))
        parts: list[stt.SpeechData] = []
        for utterance in utterances:
            # A job for each, so that the decodes of live streams come in between.
            words = self.accept(utterance, await self.run(_final_of(utterance, spoken)))
            parts.append(_speech_data(spoken, words, utterance))
        return stt.SpeechEvent(
            type=stt.SpeechEventType.FINAL_TRANSCRIPT,
            request_id=shortuuid("recognize_"),
            alternatives=[_joined(spoken, [part for part in parts if part.text])],
        )

    def _load(self) -> WhisperDecoder:
        with self._loading:
            if self._decoder is None:
                init_vad()
                self._decoder = WhisperDecoder(
                    self._folder,
                    language=self._language.language,
                    threads=self._threads,
                    beam_size=self._beam_size,
                    windows=self._windows,
                )
                self._decoder.decode_final(np.zeros(SAMPLE_RATE_HZ, np.int16))
            return self._decoder

    def _language_or(self, language: NotGivenOr[str]) -> LanguageCode:
        return LanguageCode(language) if is_given(language) else self._language


@dataclass(slots=True)
class _Current:
    """What has been recognised of the utterance whose events are being sent."""

    start: int
    request_id: str = field(default_factory=lambda: shortuuid("utterance_"))
    agreement: LocalAgreement = field(default_factory=LocalAgreement)
    decoded_until: int = 0
    decoded_speech_end: int = 0
    sent: tuple[str, int] = ("", 0)


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A final decoded ahead, of the utterance with these positions."""

    start: int
    end: int
    decoded: Decoded

    def is_of(self, utterance: Utterance) -> bool:
        return (self.start, self.end) == (utterance.start, utterance.end)


class _Flushed:
    """Stands after the utterances that a flush ended."""


class WhisperStream(stt.RecognizeStream):
    """Recognises one continuous stream of audio, or turns with a `flush` after each."""

    class _PrepareSentinel(stt.RecognizeStream._FlushSentinel):
        """Marks, between frames, where a final is to be decoded ahead."""

    def __init__(
        self, *, whisper: WhisperSTT, language: LanguageCode, conn_options: APIConnectOptions
    ) -> None:
        super().__init__(stt=whisper, conn_options=conn_options, sample_rate=SAMPLE_RATE_HZ)
        self._whisper = whisper
        self._language = language
        self._vad = VAD()
        self._segmenter = Segmenter(self._vad.predict)
        # Utterances that are over and not decoded yet; more than one or two only where audio is pushed faster
        # than this machine decodes it.
        self._closed: deque[Utterance | _Flushed] = deque()
        self._current: _Current | None = None
        self._to_prepare: Utterance | None = None
        self._prepared: _Prepared | None = None
        self._changed = asyncio.Event()
        self._is_listening = True

    def push_frame(self, frame: rtc.AudioFrame) -> None:
        """Take the next audio: mono, of any rate as long as it stays the same.

        Raises:
            ValueError: the frame has several channels, or another rate than the ones before.
        """
        if frame.num_channels != 1:
            raise ValueError(f"stt: a frame has {frame.num_channels} channels; mix them to one")
        super().push_frame(frame)

    def prepare_final(self) -> None:
        """Decode the final of what was pushed so far ahead, for a flush that follows without more audio.

        For when a speaker has fallen silent and may be done. If audio follows instead, the result is at most
        an interim.

        Raises:
            RuntimeError: the stream is closed or its input has ended.
        """
        self._check_input_not_ended()
        self._check_not_closed()
        self._input_ch.send_nowait(self._PrepareSentinel())

    async def aclose(self) -> None:
        """Stop at once; what has not been recognised yet is lost. Idempotent."""
        await super().aclose()
        self._whisper.forget(self)

    async def _run(self) -> None:
        listening = asyncio.create_task(self._listen(), name="WhisperStream.listen")
        try:
            await self._recognize()
            await listening
        finally:
            await aio.cancel_and_wait(listening)
            self._vad.close()

    async def _listen(self) -> None:
        has_unflushed = False
        try:
            async for item in self._input_ch:
                if isinstance(item, self._PrepareSentinel):
                    self._to_prepare = self._segmenter.pending()
                    self._changed.set()
                    continue
                self._to_prepare = None
                if isinstance(item, self._FlushSentinel):
                    if has_unflushed:
                        self._notice([*self._segmenter.flush(), _Flushed()])
                        # What follows is other speech, perhaps another speaker's.
                        self._vad.reset()
                    has_unflushed = False
                    continue
                has_unflushed = True
                samples = np.frombuffer(item.data, np.int16)
                for first in range(0, len(samples), _LISTENING_STEP_SAMPLES):
                    step = samples[first : first + _LISTENING_STEP_SAMPLES]
                    self._notice(self._segmenter.push(step))
                    # Audio that waits in the channel would else be taken in one go.
                    await asyncio.sleep(0)
        finally:
            self._is_listening = False
            self._changed.set()

    def _notice(self, closed: Sequence[Utterance | _Flushed]) -> None:
        self._closed.extend(closed)
        waiting = [item for item in self._closed if isinstance(item, Utterance)]
        # The first one stays: its interims may have been sent.
        while len(waiting) > 1 and sum(len(item.samples) for item in waiting) > _MOST_WAITING_SAMPLES:
            lost = waiting.pop(1)
            self._closed.remove(lost)
            self._whisper.count_dropped("overload")
            log.warning("whisper.overloaded", lost_s=round(len(lost.samples) / SAMPLE_RATE_HZ, 1))
        self._changed.set()

    async def _recognize(self) -> None:
        while True:
            self._changed.clear()
            if self._closed:
                match self._closed.popleft():
                    case Utterance() as utterance:
                        await self._finish(utterance)
                    case _Flushed():
                        self._send(stt.SpeechEventType.END_OF_SPEECH, request_id=FLUSHED)
                continue
            if self._to_prepare is not None:
                utterance, self._to_prepare = self._to_prepare, None
                await self._prepare(utterance)
                continue
            opened = self._segmenter.opened
            if opened is not None:
                current = self._begin(opened.start)
                if self._partial_is_due(current, opened):
                    await self._send_partial(current, self._segmenter.heard(opened))
                    continue
            if not self._is_listening:
                return
            await self._changed.wait()

    def _partial_is_due(self, current: _Current, opened: Opened) -> bool:
        heard = self._segmenter.position - max(current.decoded_until, opened.speech_start)
        has_new_voice = self._segmenter.speech_end > current.decoded_speech_end
        return heard >= self._whisper.partial_interval and has_new_voice

    def _begin(self, start: int) -> _Current:
        """Return what is known of the utterance that begins at `start`; announce a new one."""
        if self._current is None or self._current.start != start:
            self._current = _Current(start)
            self._send(stt.SpeechEventType.START_OF_SPEECH, request_id=self._current.request_id)
        return self._current

    async def _send_partial(self, current: _Current, utterance: Utterance) -> None:
        current.decoded_until = utterance.end
        current.decoded_speech_end = utterance.speech_end
        agreement = current.agreement
        window = utterance.samples[round(agreement.window_start_s * SAMPLE_RATE_HZ) :]
        window_s = len(window) / SAMPLE_RATE_HZ
        spoken_s = None if agreement.needs_times(window_s) else _unconfirmed_s(agreement, utterance)
        continuation = await self._whisper.run(
            lambda decoder: decoder.decode_partial(
                window,
                prefix=agreement.prefix,
                context=agreement.context,
                language=self._language.language,
                spoken_s=spoken_s,
            )
        )
        agreement.update(continuation.words, window_s=window_s, prefix=continuation.prefix)
        self._send_interim(current, utterance)

    async def _prepare(self, utterance: Utterance) -> None:
        """Decode a final ahead. Its words are the best interim there can be, too."""
        if self._prepared is not None and self._prepared.is_of(utterance):
            return
        current = self._begin(utterance.start)
        current.decoded_until = utterance.end
        current.decoded_speech_end = utterance.speech_end
        decoded = await self._whisper.run(_final_of(utterance, self._language))
        self._prepared = _Prepared(utterance.start, utterance.end, decoded)
        is_believed = utterance.has_speech or decoded.is_sure
        if is_believed and current.agreement.adopt(
            decoded.words, utterance_s=len(utterance.samples) / SAMPLE_RATE_HZ
        ):
            self._send_interim(current, utterance)

    def _send_interim(self, current: _Current, utterance: Utterance) -> None:
        agreement = current.agreement
        data = _speech_data(self._language, agreement.words, utterance, self.start_time_offset)
        data.metadata = {"stable_words": agreement.stable_words}
        if data.text and current.sent != (data.text, agreement.stable_words):
            current.sent = (data.text, agreement.stable_words)
            self._send(stt.SpeechEventType.INTERIM_TRANSCRIPT, data, request_id=current.request_id)

    async def _finish(self, utterance: Utterance) -> None:
        if utterance.voiced_windows:  # else it is announced only if there is something in it
            self._begin(utterance.start)
        prepared, self._prepared = self._prepared, None
        if prepared is not None and prepared.is_of(utterance):
            decoded = prepared.decoded
        else:
            decoded = await self._whisper.run(_final_of(utterance, self._language))
        words = self._whisper.accept(utterance, decoded)
        if not (words or utterance.voiced_windows):
            return
        request_id = self._begin(utterance.start).request_id
        data = _speech_data(self._language, words, utterance, self.start_time_offset)
        if data.text:
            self._send(stt.SpeechEventType.FINAL_TRANSCRIPT, data, request_id=request_id)
        speech_s = (utterance.speech_end - utterance.speech_start) / SAMPLE_RATE_HZ
        self._send(
            stt.SpeechEventType.RECOGNITION_USAGE,
            usage=stt.RecognitionUsage(audio_duration=speech_s),
            request_id=request_id,
        )
        self._send(stt.SpeechEventType.END_OF_SPEECH, request_id=request_id)
        self._current = None

    def _send(
        self,
        kind: stt.SpeechEventType,
        data: stt.SpeechData | None = None,
        *,
        request_id: str,
        usage: stt.RecognitionUsage | None = None,
    ) -> None:
        self._event_ch.send_nowait(
            stt.SpeechEvent(
                type=kind,
                request_id=request_id,
                alternatives=[] if data is None else [data],
                recognition_usage=usage,
            )
        )


def _unconfirmed_s(agreement: LocalAgreement, utterance: Utterance) -> tuple[float, float]:
    """From when to when the words that are not confirmed yet were spoken, in the window to decode next."""
    speech_start_s = (utterance.speech_start - utterance.start) / SAMPLE_RATE_HZ
    speech_end_s = (utterance.speech_end - utterance.start) / SAMPLE_RATE_HZ
    start_s = max(speech_start_s, agreement.confirmed_until_s)
    return start_s - agreement.window_start_s, speech_end_s - agreement.window_start_s


def _final_of(utterance: Utterance, language: LanguageCode) -> Callable[[WhisperDecoder], Decoded]:
    return lambda decoder: decoder.decode_final(utterance.samples, language=language.language)


def _speech_data(
    language: LanguageCode,
    words: Sequence[DecodedWord],
    utterance: Utterance,
    offset_s: float = 0.0,
) -> stt.SpeechData:
    """Put words, timed from the start of their utterance, where its voice is in the stream."""
    start_s = offset_s + utterance.start / SAMPLE_RATE_HZ
    speech_start_s = offset_s + utterance.speech_start / SAMPLE_RATE_HZ
    speech_end_s = offset_s + utterance.speech_end / SAMPLE_RATE_HZ
    timed: list[TimedString] = []
    earliest_s = speech_start_s
    for word in words:
        # The model places words to a few frames only, and the first and last ones in the silence.
        word_start_s = min(max(start_s + word.start_s, earliest_s), speech_end_s)
        word_end_s = min(max(start_s + word.end_s, word_start_s), speech_end_s)
        earliest_s = word_start_s
        timed.append(
            TimedString(
                word.text.strip(),
                start_time=round(word_start_s, 3),
                end_time=round(word_end_s, 3),
                confidence=word.confidence,
            )
        )
    return stt.SpeechData(
        language=language,
        text="".join(word.text for word in words).strip(),
        start_time=round(speech_start_s, 3),
        end_time=round(speech_end_s, 3),
        confidence=geometric_mean([word.confidence for word in words]),
        words=timed,
    )


def _joined(language: LanguageCode, parts: Sequence[stt.SpeechData]) -> stt.SpeechData:
    """Make one of the transcripts of several utterances, empty if there are none."""
    if not parts:
        return stt.SpeechData(language=language, text="", words=[])
    weights = [(part.confidence, len(part.words or ())) for part in parts]
    return stt.SpeechData(
        language=language,
        text=" ".join(part.text for part in parts),
        start_time=parts[0].start_time,
        end_time=parts[-1].end_time,
        confidence=geometric_mean([value for value, count in weights for _ in range(count)]),
        words=[word for part in parts for word in part.words or ()],
    )


def _split(samples: Samples) -> list[Utterance]:
    """Find the utterances in a whole recording."""
    with VAD() as vad:
        segmenter = Segmenter(vad.predict)
        return segmenter.push(samples) + segmenter.flush()


def _samples_of(buffer: AudioBuffer) -> Samples:
    """Bring a recording of any rate and number of channels to what the model hears."""
    frame = rtc.combine_audio_frames(buffer)
    samples = np.frombuffer(frame.data, np.int16)
    if frame.num_channels > 1:
        mixed = samples.reshape(-1, frame.num_channels).mean(axis=1)
        samples = np.round(mixed).astype(np.int16)
    if frame.sample_rate == SAMPLE_RATE_HZ or not len(samples):
        return samples
    resampler = rtc.AudioResampler(frame.sample_rate, SAMPLE_RATE_HZ, quality=rtc.AudioResamplerQuality.HIGH)
    frames = resampler.push(bytearray(samples.tobytes())) + resampler.flush()
    return np.concatenate([np.frombuffer(part.data, np.int16) for part in frames])
