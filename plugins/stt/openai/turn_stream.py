"""A stream for servers without the Realtime API: each turn is transcribed when it is over."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np
from livekit import rtc
from livekit.agents import stt
from livekit.agents.language import LanguageCode
from livekit.agents.types import APIConnectOptions
from livekit.agents.utils import shortuuid

from agent.values import SAMPLE_RATE_HZ, Samples
from plugins.stt.openai.events import answered, recognition_usage, speech_data
from plugins.stt.openai.transcript import Transcript

__all__ = ["TurnStream"]


class TurnStream(stt.RecognizeStream):
    """Transcribes turns in their order, one at a time, without interims."""

    def __init__(
        self,
        *,
        engine: stt.STT[Any],
        transcribe: Callable[[Samples], Awaitable[Transcript]],
        language: LanguageCode,
        conn_options: APIConnectOptions,
    ) -> None:
        super().__init__(stt=engine, conn_options=conn_options, sample_rate=SAMPLE_RATE_HZ)
        self._transcribe = transcribe
        self._language = language
        self._position = 0

    def push_frame(self, frame: rtc.AudioFrame) -> None:
        """Take the next audio: mono, of any rate as long as it stays the same.

        Raises:
            ValueError: the frame has several channels, or another rate than the ones before.
        """
        if frame.num_channels != 1:
            raise ValueError(f"stt: a frame has {frame.num_channels} channels; mix them to one")
        super().push_frame(frame)

    async def _run(self) -> None:
        turn: list[Samples] = []
        async for item in self._input_ch:
            if not isinstance(item, self._FlushSentinel):
                turn.append(np.frombuffer(item.data, np.int16))
            elif turn:
                await self._answer(turn)
                turn = []

    async def _answer(self, turn: Sequence[Samples]) -> None:
        samples = np.concatenate(turn)
        start_s = self.start_time_offset + self._position / SAMPLE_RATE_HZ
        transcript = await self._transcribe(samples)
        self._position += len(samples)
        sent_s = len(samples) / SAMPLE_RATE_HZ
        data = speech_data(self._language, transcript, start_s=start_s, end_s=start_s + sent_s)
        for event in answered(shortuuid("turn_"), data, recognition_usage(transcript.usage, sent_s=sent_s)):
            self._event_ch.send_nowait(event)
