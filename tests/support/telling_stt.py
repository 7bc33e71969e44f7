"""A speech engine that tells which audio it was given, turn by turn, and breaks when a test wants it to."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from livekit.agents import NOT_GIVEN, APIConnectionError, APIConnectOptions, APIStatusError, NotGivenOr, stt
from livekit.agents.types import DEFAULT_API_CONNECT_OPTIONS, TimedString
from livekit.agents.utils import AudioBuffer

from agent.audio.activity import WINDOW_SAMPLES
from agent.values import SAMPLE_RATE_HZ
from plugins.stt.traits import FLUSHED


@dataclass
class Health:
    """What an engine does: it can be changed while it runs."""

    refuses: bool = False  # every new stream, and every recognition
    is_busy: bool = False  # the same, with status 429
    is_stalled: bool = False  # takes audio and says nothing
    breaks_at_s: float | None = None  # the stream that has taken so much audio breaks, once
    breaks_on: Callable[[int], bool] = lambda _sample: False
    answer_s: float = 0.05
    streams: list["TellingStream"] = field(default_factory=list)
    recognitions: int = 0


def told(samples: np.ndarray) -> str:
    """The numbers of the windows: `windows_of` puts them into their samples."""
    return " ".join(str(value) for value in samples[::WINDOW_SAMPLES])


class TellingSTT(stt.STT[Any]):
    """The final of a turn is the numbers of the windows in it, each a word with its time."""

    def __init__(self, health: Health | None = None, *, acknowledges: bool = True) -> None:
        super().__init__(
            capabilities=stt.STTCapabilities(
                streaming=True, interim_results=True, aligned_transcript="word", manual_flush=True
            )
        )
        self.health = health or Health()
        self.acknowledges = acknowledges

    def stream(
        self,
        *,
        language: NotGivenOr[str] = NOT_GIVEN,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
    ) -> "TellingStream":
        stream = TellingStream(self, conn_options)
        self.health.streams.append(stream)
        return stream

    async def _recognize_impl(
        self, buffer: AudioBuffer, *, language: NotGivenOr[str], conn_options: APIConnectOptions
    ) -> stt.SpeechEvent:
        self.health.recognitions += 1
        self.see_health()
        await asyncio.sleep(self.health.answer_s)
        frame = buffer[0] if isinstance(buffer, list) else buffer
        return _event(np.frombuffer(frame.data, np.int16), 0.0, is_final=True)

    def see_health(self) -> None:
        if self.health.is_busy:
            raise APIStatusError("too many", status_code=429, body={"retry_after": 3})
        if self.health.refuses:
            raise APIConnectionError("refused")


class TellingStream(stt.RecognizeStream):
    def __init__(self, engine: TellingSTT, conn_options: APIConnectOptions) -> None:
        self._engine = engine
        self.heard_s = 0.0
        self.unflushed_s = 0.0
        self.flushes = 0
        self.arrivals_s: list[float] = []
        super().__init__(stt=engine, conn_options=conn_options)

    async def _run(self) -> None:
        health = self._engine.health
        self._engine.see_health()
        turn: list[np.ndarray] = []
        begin_s = 0.0
        is_stalled = False
        async for item in self._input_ch:
            is_stalled |= health.is_stalled
            if is_stalled:  # for good, though the engine may be well again
                continue
            if isinstance(item, self._FlushSentinel):
                self.flushes += 1
                self.unflushed_s = 0.0
                await asyncio.sleep(health.answer_s)
                if turn:
                    self._send(_event(np.concatenate(turn), begin_s, is_final=True))
                    if self._engine.acknowledges:
                        self._send(stt.SpeechEvent(stt.SpeechEventType.END_OF_SPEECH, request_id=FLUSHED))
                turn, begin_s = [], self.heard_s
                continue
            samples = np.frombuffer(item.data, np.int16)
            turn.append(samples)
            self.heard_s += len(samples) / SAMPLE_RATE_HZ
            self.unflushed_s += len(samples) / SAMPLE_RATE_HZ
            self.arrivals_s.append(asyncio.get_running_loop().time())
            if health.breaks_at_s is not None and self.heard_s >= health.breaks_at_s:
                health.breaks_at_s = None
                raise APIConnectionError("broke")
            if any(health.breaks_on(int(value)) for value in samples[::WINDOW_SAMPLES]):
                raise APIConnectionError("broke on this")
            self._send(_event(np.concatenate(turn), begin_s, is_final=False))

    def _send(self, event: stt.SpeechEvent) -> None:
        self._event_ch.send_nowait(event)


def _event(samples: np.ndarray, begin_s: float, *, is_final: bool) -> stt.SpeechEvent:
    window_s = WINDOW_SAMPLES / SAMPLE_RATE_HZ
    texts = told(samples).split()
    words = [
        TimedString(text, start_time=begin_s + at * window_s, end_time=begin_s + (at + 1) * window_s)
        for at, text in enumerate(texts)
    ]
    kind = stt.SpeechEventType.FINAL_TRANSCRIPT if is_final else stt.SpeechEventType.INTERIM_TRANSCRIPT
    data = stt.SpeechData(
        language="en",  # type: ignore[arg-type]
        text=" ".join(texts),
        start_time=begin_s,
        end_time=begin_s + len(texts) * window_s,
        confidence=0.9,
        words=words,
    )
    return stt.SpeechEvent(type=kind, alternatives=[data])
