"""Speech recognition by OpenAI, or a server that speaks its API, behind the STT interface of livekit-agents.

Every turn, the audio between two flushes, gives INTERIM_TRANSCRIPTs while its text is not complete, then a
FINAL_TRANSCRIPT unless nothing was said, RECOGNITION_USAGE, and the END_OF_SPEECH that acknowledges the
flush; in this order, and before any of the next turn. The service times no words of a stream: `start_time`
and `end_time` are the turn's.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Never

import numpy as np
from livekit import rtc
from livekit.agents import stt
from livekit.agents.language import LanguageCode
from livekit.agents.types import DEFAULT_API_CONNECT_OPTIONS, NOT_GIVEN, APIConnectOptions, NotGivenOr
from livekit.agents.utils import AudioBuffer, is_given, shortuuid

from agent.values import SAMPLE_RATE_HZ, Samples
from plugins.stt.openai.events import recognition_usage, speech_data
from plugins.stt.openai.hints import Hints, hints_for
from plugins.stt.openai.realtime_stream import RealtimeStream
from plugins.stt.openai.service import Service
from plugins.stt.openai.transcript import Transcript
from plugins.stt.openai.turn_stream import TurnStream

__all__ = ["OpenAISTT"]

DEFAULT_BASE_URL = "https://api.openai.com/v1"
DEFAULT_STREAM_MODEL = "gpt-live-transcribe"
DEFAULT_TURN_MODEL = "gpt-transcribe"
RENEW_AFTER_S = 50 * 60.0  # a session lasts an hour at most; a long turn may begin just before
SHORTEST_RECORDING_S = 0.12  # less than 100 ms is refused; the rest is for rounding


class OpenAISTT(stt.STT[Never]):
    """One account at one server, for any number of streams."""

    def __init__(
        self,
        *,
        api_key: str,
        base_url: str = DEFAULT_BASE_URL,
        stream_model: str = DEFAULT_STREAM_MODEL,
        turn_model: str = DEFAULT_TURN_MODEL,
        language: str = "en",
        keyterms: Sequence[str] = (),
        realtime: bool = True,
        word_times: bool | None = None,
        renew_after_s: float = RENEW_AFTER_S,
    ) -> None:
        """Nothing is sent before the first stream or recording.

        Args:
            api_key: of the account; empty for a server that wants none.
            base_url: of the API, with its version.
            stream_model: transcribes streams as they are spoken.
            turn_model: transcribes recordings, and each turn of a stream where `realtime` is false.
            language: what is spoken, as an ISO 639-1 code or a BCP 47 tag.
            keyterms: names and terms that may come up.
            realtime: whether the server has the Realtime API. Without it, streams give no interims.
            word_times: whether to ask for word times in recordings. None asks models that are known to have
                them, those with "whisper" in their name.
            renew_after_s: age at which a session of a stream is replaced by a new one, between turns.
        """
        super().__init__(
            capabilities=stt.STTCapabilities(
                streaming=True,
                interim_results=realtime,
                offline_recognize=True,
                manual_flush=True,
            )
        )
        self._service = Service(api_key=api_key, base_url=base_url)
        self._stream_model = stream_model
        self._turn_model = turn_model
        self._language = LanguageCode(language)
        self._keyterms = tuple(keyterms)
        self._is_realtime = realtime
        self._has_word_times = "whisper" in turn_model.lower() if word_times is None else word_times
        self._renew_after_s = renew_after_s
        self._streams: weakref.WeakSet[RealtimeStream | TurnStream] = weakref.WeakSet()

    @property
    def model(self) -> str:
        """The model that streams use."""
        return self._stream_model if self._is_realtime else self._turn_model

    @property
    def provider(self) -> str:
        """Who recognises."""
        return "openai"

    def update_keyterms(self, keyterms: Sequence[str]) -> None:
        """Expect other names and terms from the next turn on, in streams that are open as well."""
        self._keyterms = tuple(keyterms)

    def stream(
        self,
        *,
        language: NotGivenOr[str] = NOT_GIVEN,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
    ) -> RealtimeStream | TurnStream:
        """Open a stream, which takes mono frames of one sample rate."""
        spoken = self._language_or(language)
        stream: RealtimeStream | TurnStream
        if self._is_realtime:
            stream = RealtimeStream(
                engine=self,
                service=self._service,
                model=self._stream_model,
                language=spoken,
                hints=lambda: self._hints(self._stream_model, spoken),
                renew_after_s=self._renew_after_s,
                conn_options=conn_options,
            )
        else:
            stream = TurnStream(
                engine=self,
                transcribe=lambda samples: self._transcribe(
                    _frame(samples), spoken, timeout_s=conn_options.timeout
                ),
                language=spoken,
                conn_options=conn_options,
            )
        self._streams.add(stream)
        return stream

    async def aclose(self) -> None:
        """Close all streams and connections. Idempotent."""
        for stream in list(self._streams):
            await stream.aclose()
        await self._service.aclose()

    async def _recognize_impl(
        self,
        buffer: AudioBuffer,
        *,
        language: NotGivenOr[str] = NOT_GIVEN,
        conn_options: APIConnectOptions,
    ) -> stt.SpeechEvent:
        spoken = self._language_or(language)
        frame = rtc.combine_audio_frames(buffer)
        transcript = await self._transcribe(frame, spoken, timeout_s=conn_options.timeout)
        return stt.SpeechEvent(
            type=stt.SpeechEventType.FINAL_TRANSCRIPT,
            request_id=shortuuid("recognize_"),
            alternatives=[speech_data(spoken, transcript, start_s=0.0, end_s=frame.duration)],
            recognition_usage=recognition_usage(transcript.usage, sent_s=frame.duration),
        )

    async def _transcribe(
        self, frame: rtc.AudioFrame, language: LanguageCode, *, timeout_s: float
    ) -> Transcript:
        hints = self._hints(self._turn_model, language)
        if not frame.samples_per_channel:
            return Transcript("")
        transcript = await self._service.transcribe(
            _lengthened(frame),
            model=self._turn_model,
            hints=hints,
            has_word_times=self._has_word_times,
            timeout_s=timeout_s,
        )
        return Transcript("", usage=transcript.usage) if hints.is_echo(transcript.text) else transcript

    def _hints(self, model: str, language: LanguageCode) -> Hints:
        return hints_for(model, language.language, self._keyterms)

    def _language_or(self, language: NotGivenOr[str]) -> LanguageCode:
        return LanguageCode(language) if is_given(language) else self._language


def _frame(samples: Samples) -> rtc.AudioFrame:
    return rtc.AudioFrame(samples.tobytes(), SAMPLE_RATE_HZ, 1, len(samples))


def _lengthened(frame: rtc.AudioFrame) -> rtc.AudioFrame:
    """Return the frame, with silence after it where it is too short for the service."""
    missing = round(SHORTEST_RECORDING_S * frame.sample_rate) - frame.samples_per_channel
    if missing <= 0:
        return frame
    silence = np.zeros(missing * frame.num_channels, np.int16)
    return rtc.AudioFrame(
        bytes(frame.data.cast("b")) + silence.tobytes(),
        frame.sample_rate,
        frame.num_channels,
        frame.samples_per_channel + missing,
    )
