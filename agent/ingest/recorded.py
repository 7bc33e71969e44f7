"""A source that plays recorded tracks, as if their speakers sat in a room.

It keeps to the event loop's clock: in real time on an ordinary loop, faster under a virtual one.
"""

import asyncio
from collections.abc import Mapping, Sequence

from agent.session.source import (
    AudioReceived,
    ParticipantJoined,
    SourceEnded,
    SourceEvent,
    TrackClosed,
    TrackOpened,
)
from agent.values import SAMPLE_RATE_HZ, Samples, Speaker, Track

__all__ = ["RecordedSource"]

BLOCK_MS = 50  # what a LiveKit room gives


class RecordedSource:
    """Tracks that all begin when the session first asks, and a session that ends with the longest of them.

    Args:
        tracks: By speaker's name, `int16` samples of shape `(samples,)` at 16 kHz.
    """

    def __init__(self, tracks: Mapping[str, Samples]) -> None:
        self._tracks = {Track(f"track-{name}", Speaker(name, name)): s for name, s in tracks.items()}
        self._block_samples = BLOCK_MS * SAMPLE_RATE_HZ // 1000
        self._blocks = -(-max((len(s) for s in tracks.values()), default=0) // self._block_samples)
        self._next_block = -1
        self._started_s = 0.0

    @property
    def dropped_ms(self) -> int:
        """Always 0: a recording waits."""
        return 0

    async def receive(self) -> Sequence[SourceEvent]:
        """Give the next 50 ms of every track when their time has come."""
        loop = asyncio.get_running_loop()
        if self._next_block < 0:
            self._started_s = loop.time()
            self._next_block = 0
            return [
                event
                for track in self._tracks
                for event in (ParticipantJoined(track.speaker), TrackOpened(track))
            ]
        end_s = self._started_s + (self._next_block + 1) * BLOCK_MS / 1000
        await asyncio.sleep(max(end_s - loop.time(), 0))
        index, self._next_block = self._next_block, self._next_block + 1
        if index >= self._blocks:
            return [*(TrackClosed(track.id) for track in self._tracks), SourceEnded("recording_over")]
        begin = index * self._block_samples
        return [
            AudioReceived(track.id, block, end_s)
            for track, samples in self._tracks.items()
            if len(block := samples[begin : begin + self._block_samples])
        ]
