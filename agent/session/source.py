"""Where a session's audio comes from: a protocol, and what a source says.

A source is a stream of these values. LiveKit rooms (`agent.room`) and recorded tracks (`agent.ingest`)
are sources. Times are seconds of the running event loop's clock, `loop.time()`, so that a session behaves
the same under a virtual clock.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from agent.values import Samples, Speaker, Track

__all__ = [
    "AudioReceived",
    "Ended",
    "HeardAgain",
    "ParticipantJoined",
    "ParticipantLeft",
    "Source",
    "SourceEvent",
    "SpeakerRenamed",
    "TrackClosed",
    "TrackMuted",
    "TrackOpened",
    "TrackUnmuted",
    "Unheard",
    "UnheardReason",
]


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
    """Samples of an open track, whose last one was received at `received_s`."""

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
class Ended:
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
    | Ended
)


class Source(Protocol):
    """What a session listens to."""

    def events(self) -> AsyncIterator[SourceEvent]:
        """Give what happens, in order; ends after `Ended`. Called once.

        A source that is read too slowly drops its oldest audio and counts it; it never drops another event.
        """
        ...

    @property
    def dropped_ms(self) -> int:
        """Milliseconds of audio that were dropped because the session did not keep up, over all tracks."""
        ...
