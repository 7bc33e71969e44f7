"""A source whose events a test schedules, on the event loop's clock."""

import asyncio
from collections.abc import Iterable, Sequence

import numpy as np

from agent.session.source import AudioReceived, Inbox, SourceEnded, SourceEvent
from agent.values import SAMPLE_RATE_HZ, Samples


class ScriptedSource:
    """Gives each event at its second, those of one second together and in order; ends after the last one."""

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
            moments: dict[float, list[SourceEvent]] = {}
            for at_s, event in self._script:
                moments.setdefault(at_s, []).append(self._timed(event, started_s + at_s))
            for at_s, events in moments.items():
                loop.call_at(started_s + at_s, self._put_all, events)
            if self._ends:
                loop.call_at(
                    started_s + max(moments, default=0.0) + 0.001, self._put_all, [SourceEnded("script_over")]
                )
        return await self._inbox.take()

    def _put_all(self, events: Iterable[SourceEvent]) -> None:
        for event in events:
            self._inbox.put(event)

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
