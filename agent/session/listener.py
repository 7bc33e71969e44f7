"""From what a source gives to what is recognised: the front end of a session, in a thread of its own."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from agent.audio.activity import VoiceActivityDetector, Window
from agent.audio.front_end import FrontEnd, Signal
from agent.session.source import (
    AudioReceived,
    SourceEvent,
    TrackClosed,
    TrackMuted,
    TrackOpened,
    TrackUnmuted,
)
from agent.values import Track

__all__ = ["Listener"]


class Listener:
    """Computes on the samples of all tracks, off the event loop and in order.

    Args:
        new_detector: Makes a voice activity detector for a track.
        to_session_ms: From a time of the event loop's clock to session time.
        is_sum: Whether the sum of all tracks is recognised.
    """

    def __init__(
        self,
        new_detector: Callable[[], VoiceActivityDetector],
        to_session_ms: Callable[[float], int],
        *,
        is_sum: bool,
    ) -> None:
        self._front_end = FrontEnd(new_detector, is_sum=is_sum)
        self._to_session_ms = to_session_ms
        self._tracks: dict[str, Track] = {}  # the open ones; used in the thread only
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="front-end")

    @property
    def moved_ms(self) -> int:
        """Milliseconds by which late audio was moved up, over all tracks."""
        return self._front_end.moved_ms

    @property
    def trimmed_ms(self) -> int:
        """Milliseconds of audio that were cut because a track ran ahead of time, over all tracks."""
        return self._front_end.trimmed_ms

    async def hear(self, events: Sequence[SourceEvent]) -> tuple[list[Window], list[Signal]]:
        """Give everybody's voice in these events, and what is to be recognised."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._process, events)

    async def drain(self) -> tuple[list[Window], list[Signal]]:
        """Give what was still waited for; all tracks are closed."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._front_end.drain)

    def close(self) -> None:
        """End the thread. Idempotent."""
        self._thread.shutdown(wait=False)

    def _process(self, events: Sequence[SourceEvent]) -> tuple[list[Window], list[Signal]]:
        arrived: dict[str, list[AudioReceived]] = {}

        def push(track_id: str) -> None:
            if blocks := arrived.pop(track_id, None):
                samples = np.concatenate([block.samples for block in blocks])
                self._front_end.push(track_id, samples, self._to_session_ms(blocks[-1].received_s))

        for event in events:
            match event:
                case AudioReceived():
                    arrived.setdefault(event.track_id, []).append(event)
                case TrackOpened():
                    push(event.track.id)
                    self._tracks[event.track.id] = event.track
                    self._front_end.open(event.track.id, event.track.sample_rate_hz)
                case TrackUnmuted():
                    push(event.track_id)
                    if (track := self._tracks.get(event.track_id)) is not None:
                        self._front_end.open(track.id, track.sample_rate_hz)
                case TrackMuted():
                    push(event.track_id)
                    self._front_end.close(event.track_id)
                case TrackClosed():
                    push(event.track_id)
                    self._front_end.close(event.track_id)
                    self._tracks.pop(event.track_id, None)
        for track_id in list(arrived):
            push(track_id)
        return self._front_end.take()
