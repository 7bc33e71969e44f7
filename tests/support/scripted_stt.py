"""A speech engine that says what a test tells it to, at the stream times that the test names.

It stands where a test is about what happens around an engine; what an engine hears is tested on a real one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from livekit.agents import APIConnectionError, APIConnectOptions, NotGivenOr, stt
from livekit.agents.types import DEFAULT_API_CONNECT_OPTIONS, NOT_GIVEN, TimedString
from livekit.agents.utils import AudioBuffer

from plugins.stt.traits import FLUSHED

ASKED = inf
"""Of a step: not by the audio, but when a final is asked for, by a flush or the end of the input."""


@dataclass(frozen=True)
class Say:
    """Send this event when so much audio has come, or at the end of the input at the latest."""

    at_s: float
    event: stt.SpeechEvent


@dataclass(frozen=True)
class Fail:
    """Break the stream when so much audio has come."""

    at_s: float


Step = Say | Fail


def speech(text: str, *, start_s: float, final: bool = False, each_s: float = 0.3) -> stt.SpeechEvent:
    """A transcript whose words take `each_s` seconds."""
    words = [
        TimedString(
            word, start_time=start_s + i * each_s, end_time=start_s + (i + 1) * each_s, confidence=0.9
        )
        for i, word in enumerate(text.split())
    ]
    data = stt.SpeechData(
        language="en",  # type: ignore[arg-type]
        text=text,
        words=words,
        start_time=start_s,
        end_time=start_s + len(words) * each_s,
        confidence=0.9,
    )
    kind = stt.SpeechEventType.FINAL_TRANSCRIPT if final else stt.SpeechEventType.INTERIM_TRANSCRIPT
    return stt.SpeechEvent(type=kind, alternatives=[data])


class ScriptedSTT(stt.STT[Any]):
    """Each stream follows the next script; further streams follow an empty one.

    Args:
        scripts: Of each stream, its steps in order.
        can_flush: Whether it gives finals on request, and acknowledges that. One that cannot gets the sum.
    """

    def __init__(self, *scripts: Sequence[Step], can_flush: bool = True) -> None:
        super().__init__(
            capabilities=stt.STTCapabilities(
                streaming=True, interim_results=True, aligned_transcript="word", manual_flush=can_flush
            )
        )
        self._scripts = list(scripts)
        self.streams: list[ScriptedStream] = []

    def stream(
        self,
        *,
        language: NotGivenOr[str] = NOT_GIVEN,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
    ) -> "ScriptedStream":
        script = self._scripts.pop(0) if self._scripts else ()
        self.streams.append(ScriptedStream(self, script, conn_options))
        return self.streams[-1]

    async def _recognize_impl(
        self, buffer: AudioBuffer, *, language: NotGivenOr[str], conn_options: APIConnectOptions
    ) -> stt.SpeechEvent:
        raise NotImplementedError


class ScriptedStream(stt.RecognizeStream):
    def __init__(self, engine: ScriptedSTT, script: Sequence[Step], conn_options: APIConnectOptions) -> None:
        self._script = list(script)
        self.received_s = 0.0
        self.flushes_s: list[float] = []
        super().__init__(stt=engine, conn_options=conn_options)

    async def _run(self) -> None:
        async for item in self._input_ch:
            if isinstance(item, self._FlushSentinel):
                self.flushes_s.append(round(self.received_s, 3))
                if self._stt.capabilities.manual_flush:
                    self._follow(lambda step: self._is_due(step) or step.at_s == ASKED)
                    self._event_ch.send_nowait(
                        stt.SpeechEvent(stt.SpeechEventType.END_OF_SPEECH, request_id=FLUSHED)
                    )
            else:
                self.received_s += item.duration
                self._follow(self._is_due)
        self._follow(lambda _: True)

    def _is_due(self, step: Step) -> bool:
        return step.at_s <= self.received_s + 1e-6

    def _follow(self, is_due: Callable[[Step], bool]) -> None:
        while self._script and is_due(self._script[0]):
            step = self._script.pop(0)
            if isinstance(step, Fail):
                raise APIConnectionError("the script says so")
            self._event_ch.send_nowait(step.event)
