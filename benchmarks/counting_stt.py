"""A speech engine that counts instead of listening: `benchmarks.counting_stt:CountingSTT`.

It costs next to nothing and says something every 0.4 s (`COUNTING_STT_INTERVAL_S`), each final a text that no
other one has. So a benchmark or a test can follow each single final from the engine to the database, in as
many rooms as it likes.

`ReconnectingSTT` also has its agent lose its connection: when a file with the room's name appears in the
folder `COUNTING_STT_RECONNECT_DIR`. An engine is what of a benchmark runs in an agent's process.
"""

import asyncio
import os
import uuid
from pathlib import Path
from typing import Any

from livekit import rtc
from livekit.agents import APIConnectOptions, NotGivenOr, get_job_context, stt
from livekit.agents.types import DEFAULT_API_CONNECT_OPTIONS, NOT_GIVEN, TimedString
from livekit.agents.utils import AudioBuffer

__all__ = ["CountingSTT", "ReconnectingSTT"]

INTERVAL_S = 0.4
INTERVAL = "COUNTING_STT_INTERVAL_S"
RECONNECT_DIR = "COUNTING_STT_RECONNECT_DIR"
POLL_S = 0.1
WORD_S = 0.03


class CountingSTT(stt.STT[Any]):
    """Each stretch of audio becomes one partial and one final of three words.

    Args:
        interval_s: How long a stretch is; None leaves it to the environment.
    """

    def __init__(self, interval_s: float | None = None) -> None:
        super().__init__(
            capabilities=stt.STTCapabilities(streaming=True, interim_results=True, aligned_transcript="word")
        )
        self._interval_s = float(os.environ.get(INTERVAL, INTERVAL_S)) if interval_s is None else interval_s

    def prewarm(self) -> None:
        """Nothing to load."""

    def stream(
        self,
        *,
        language: NotGivenOr[str] = NOT_GIVEN,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
    ) -> "_CountingStream":
        return _CountingStream(self, conn_options, self._interval_s)

    async def _recognize_impl(
        self,
        buffer: AudioBuffer,
        *,
        language: NotGivenOr[str] = NOT_GIVEN,
        conn_options: APIConnectOptions,
    ) -> stt.SpeechEvent:
        raise NotImplementedError


class ReconnectingSTT(CountingSTT):
    """Counts, and has its agent reconnect fully when it is asked to."""

    def stream(
        self,
        *,
        language: NotGivenOr[str] = NOT_GIVEN,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
    ) -> "_CountingStream":
        return _ReconnectingStream(self, conn_options, self._interval_s)


class _CountingStream(stt.RecognizeStream):
    def __init__(self, engine: CountingSTT, conn_options: APIConnectOptions, interval_s: float) -> None:
        self._name = uuid.uuid4().hex[:8]
        self._interval_s = interval_s
        super().__init__(stt=engine, conn_options=conn_options)

    async def _run(self) -> None:
        heard_s = 0.0
        count = 0
        async for item in self._input_ch:
            if isinstance(item, self._FlushSentinel):
                continue
            heard_s += item.duration
            while heard_s >= (count + 1) * self._interval_s:
                self._say(stt.SpeechEventType.INTERIM_TRANSCRIPT, count)
                self._say(stt.SpeechEventType.FINAL_TRANSCRIPT, count)
                count += 1

    def _say(self, kind: stt.SpeechEventType, count: int) -> None:
        end_s = (count + 1) * self._interval_s
        texts = ("number", str(count), f"of-{self._name}")
        words = [
            TimedString(
                text,
                start_time=end_s - (len(texts) - index) * WORD_S,
                end_time=end_s - (len(texts) - index - 1) * WORD_S,
                confidence=1.0,
            )
            for index, text in enumerate(texts)
        ]
        data = stt.SpeechData(
            language="en",  # type: ignore[arg-type]
            text=" ".join(texts),
            words=words,
            start_time=end_s - len(texts) * WORD_S,
            end_time=end_s,
            confidence=1.0,
        )
        self._event_ch.send_nowait(stt.SpeechEvent(type=kind, alternatives=[data]))


class _ReconnectingStream(_CountingStream):
    async def _run(self) -> None:
        watching = asyncio.create_task(_reconnect_when_asked(), name="benchmark.reconnect")
        try:
            await super()._run()
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


async def _reconnect_when_asked() -> None:
    room = get_job_context().room
    asked = Path(os.environ[RECONNECT_DIR]) / room.name
    while True:
        await asyncio.sleep(POLL_S)
        if asked.exists():
            asked.unlink()
            await room.simulate_scenario(rtc.SimulateScenarioKind.SIMULATE_FULL_RECONNECT)
