"""A source whose events a test schedules, on the event loop's clock."""

import asyncio
from collections.abc import Iterable, Sequence

import numpy as np

from agent.session.source import AudioReceived, Ended, Inbox, SourceEvent
from agent.values import SAMPLE_RATE_HZ, Samples


class ScriptedSource:
    """Gives each event at its second; ends after the last one, or when it is not told to end, never."""

    def __init__(self, script: Iterable[tuple[float, SourceEvent]], *, ends: bool = True) -> None:
        self._script = sorted(script, key=lambda item: item[0])
        self._ends = ends
        self._inbox = Inbox()
        self._is_started = False

    @property
    def dropped_ms(self) -> int:
        return self._inbox.dropped_ms

    async def receive(self) -> Sequence[SourceEvent]:
        if not self._is_started:
            self._is_started = True
            loop = asyncio.get_running_loop()
            started_s = loop.time()
            for at_s, event in self._script:
                loop.call_at(started_s + at_s, self._inbox.put, self._timed(event, started_s + at_s))
            if self._ends:
                last_s = self._script[-1][0] if self._script else 0.0
                loop.call_at(started_s + last_s + 0.001, self._inbox.put, Ended("script_over"))
        return await self._inbox.take()

    def _timed(self, event: SourceEvent, now_s: float) -> SourceEvent:
        if isinstance(event, AudioReceived):
            return AudioReceived(event.track_id, event.samples, now_s)
        return event


def audio(
    track_id: str, samples: Samples, *, start_s: float, block_ms: int = 50
) -> list[tuple[float, SourceEvent]]:
    """Samples as blocks that arrive when they are over."""
    size = block_ms * SAMPLE_RATE_HZ // 1000
    return [
        (
            start_s + (i + 1) * block_ms / 1000,
            AudioReceived(track_id, samples[i * size : (i + 1) * size], 0.0),
        )
        for i in range(len(samples) // size)
    ]


def silence(seconds: float) -> Samples:
    return np.zeros(round(seconds * SAMPLE_RATE_HZ), np.int16)
