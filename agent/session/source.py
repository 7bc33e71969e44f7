"""Where a session's audio comes from: a protocol, and what a source says.

A source is a stream of these values. LiveKit rooms (`agent.room`) and recorded tracks (`agent.ingest`)
are sources. Times are seconds of the running event loop's clock, `loop.time()`, so that a session behaves
the same under a virtual clock.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from agent.values import SAMPLE_RATE_HZ, Samples, Speaker, Track

__all__ = [
    "AudioReceived",
    "HeardAgain",
    "Inbox",
    "ParticipantJoined",
    "ParticipantLeft",
    "Source",
    "SourceEnded",
    "SourceEvent",
    "SpeakerRenamed",
    "TrackClosed",
    "TrackMuted",
    "TrackOpened",
    "TrackUnmuted",
    "Unheard",
    "UnheardReason",
]

# 15 s of 20 tracks in blocks of 50 ms, 29 MB at 48 kHz: an agent that hands over may take that to give out
# its last words, while its successor's source waits. A session that is later than that lost its room.
MAX_AUDIO_BLOCKS = 6_000


class UnheardReason(StrEnum):
    """Why somebody's microphone cannot be heard."""

    E2EE = "e2ee"
    NOT_PERMITTED = "not_permitted"


@dataclass(frozen=True, slots=True)
class ParticipantJoined:
    """Somebody is in the room, with or without a microphone."""

    speaker: Speaker


@dataclass(frozen=True, slots=True)
class ParticipantLeft:
    """Somebody left; their tracks are closed before this is said."""

    identity: str


@dataclass(frozen=True, slots=True)
class SpeakerRenamed:
    """Somebody who is in the room has another name from now on."""

    speaker: Speaker


@dataclass(frozen=True, slots=True)
class TrackOpened:
    """A track can be heard from now on; it is unmuted."""

    track: Track


@dataclass(frozen=True, slots=True)
class TrackClosed:
    """A track is gone, for whatever reason. It may be opened again under the same id."""

    track_id: str


@dataclass(frozen=True, slots=True)
class TrackMuted:
    """An open track will send nothing until it is unmuted."""

    track_id: str


@dataclass(frozen=True, slots=True)
class TrackUnmuted:
    """A muted track goes on."""

    track_id: str


@dataclass(frozen=True, slots=True, eq=False)
class AudioReceived:
    """Samples of an open track at its rate, whose last one was received at `received_s`."""

    track_id: str
    samples: Samples
    received_s: float


@dataclass(frozen=True, slots=True)
class Unheard:
    """Somebody's microphone is on and cannot be heard."""

    identity: str
    reason: UnheardReason


@dataclass(frozen=True, slots=True)
class HeardAgain:
    """What kept somebody from being heard is over."""

    identity: str


@dataclass(frozen=True, slots=True)
class SourceEnded:
    """Nothing more will come: the room closed, or the recording is over."""

    reason: str


SourceEvent = (
    ParticipantJoined
    | ParticipantLeft
    | SpeakerRenamed
    | TrackOpened
    | TrackClosed
    | TrackMuted
    | TrackUnmuted
    | AudioReceived
    | Unheard
    | HeardAgain
    | SourceEnded
)


class Source(Protocol):
    """What a session listens to."""

    async def receive(self) -> Sequence[SourceEvent]:
        """Wait until something has happened, and give all of it in order. `SourceEnded` comes last, once.

        Cancelling it loses nothing.
        """
        ...

    @property
    def dropped_ms(self) -> int:
        """Milliseconds of audio that were dropped because the session did not keep up, over all tracks."""
        ...


class Inbox:
    """What a source has for its session: bounded by dropping the oldest audio, never another event.

    Args:
        sample_rate_hz: Of all its tracks.
    """

    def __init__(self, sample_rate_hz: int = SAMPLE_RATE_HZ) -> None:
        self.sample_rate_hz = sample_rate_hz
        self._events: deque[SourceEvent] = deque()
        self._audio_blocks = 0
        self._arrived = asyncio.Event()
        self.dropped_ms = 0

    def put(self, event: SourceEvent) -> None:
        """Add an event; where too much audio waits, drop the oldest of it and count it."""
        self._events.append(event)
        if isinstance(event, AudioReceived):
            self._audio_blocks += 1
            if self._audio_blocks > MAX_AUDIO_BLOCKS:
                self._drop_oldest_audio()
        self._arrived.set()

    async def take(self) -> Sequence[SourceEvent]:
        """Wait until there is something, and take all of it. Cancelling it loses nothing."""
        await self._arrived.wait()
        self._arrived.clear()
        events, self._events, self._audio_blocks = self._events, deque(), 0
        return events

    def forget_before(self, received_s: float) -> None:
        """Drop the audio that was received until then; somebody else has heard it."""
        kept = [
            event
            for event in self._events
            if not (isinstance(event, AudioReceived) and event.received_s <= received_s)
        ]
        self._audio_blocks -= len(self._events) - len(kept)
        self._events = deque(kept)

    def _drop_oldest_audio(self) -> None:
        for index, event in enumerate(self._events):
            if isinstance(event, AudioReceived):
                del self._events[index]
                self._audio_blocks -= 1
                self.dropped_ms += len(event.samples) * 1000 // self.sample_rate_hz
                return
