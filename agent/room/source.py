"""The source of a session that is a LiveKit room.

Whatever happens in the room, the same thing is done: compare what is there with what should be heard, and act
on the difference. So it does not matter in which order events come, whether one is missing, or how often a
connection is made anew.
"""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import structlog
from livekit import rtc
from livekit.rtc.room import EventTypes

from agent.config import Room as RoomSettings
from agent.room.microphone import heard_track
from agent.session.source import (
    AudioReceived,
    HeardAgain,
    Inbox,
    ParticipantJoined,
    ParticipantLeft,
    SourceEnded,
    SourceEvent,
    SpeakerRenamed,
    TrackClosed,
    TrackMuted,
    TrackOpened,
    TrackUnmuted,
    Unheard,
    UnheardReason,
)
from agent.values import SAMPLE_RATE_HZ, Speaker, Track

__all__ = ["RoomSource"]

log = structlog.get_logger(__name__)

FRAME_MS = 50  # each frame goes to every stream of the process: at 10 ms thirty tracks saturate a core
NOT_PERMITTED_AFTER_S = 3.0  # no event tells that a publisher does not let us subscribe
READ_AGAIN_AFTER_S = 1.0
CLOSE_TIMEOUT_S = 2.0
SILENT_AFTER_S = 2.0  # frames come every 50 ms as long as a stream lives, also where nobody speaks

# Everything after which the room may be another one.
ROOM_EVENTS: tuple[EventTypes, ...] = (
    "participant_connected",
    "participant_disconnected",
    "participant_name_changed",
    "track_published",
    "track_unpublished",
    "track_subscribed",
    "track_unsubscribed",
    "track_muted",
    "track_unmuted",
    "connection_state_changed",
)


@dataclass(slots=True)
class _Ear:
    """One publication that should be heard."""

    publication: rtc.RemoteTrackPublication
    track: Track
    asked_s: float | None = None
    unmuted_s: float | None = None
    heard_s: float | None = None  # when its newest frame came, or its stream began
    is_open: bool = False
    reader: "_Reader | None" = None


@dataclass(slots=True)
class _Reader:
    """A running AudioStream of one track."""

    track: rtc.Track
    task: asyncio.Task[None] = field(repr=False)
    has_heard: bool = False


class RoomSource:
    """Hears the microphones of a room.

    Make it before the room is connected; call `subscribe` afterwards, and `listen` as soon as it is known at
    which rate. LiveKit takes a moment to give what was asked for.

    Of each participant one microphone is heard, the newest that is not muted: who publishes a second time
    is not heard twice.

    Args:
        room: Not connected yet.
        settings: Whom to hear.
    """

    def __init__(self, room: rtc.Room, settings: RoomSettings) -> None:
        self._room = room
        self._settings = settings
        self._sample_rate_hz = SAMPLE_RATE_HZ
        self._inbox = Inbox()
        self._ears: dict[str, _Ear] = {}
        self._present: dict[str, Speaker] = {}
        self._unheard: dict[str, UnheardReason] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_subscribing = False
        self._is_listening = False
        self._is_closed = False
        self._timer: asyncio.TimerHandle | None = None
        for name in ROOM_EVENTS:
            room.on(name, self._on_change)
        room.on("reconnected", self._on_reconnected)
        room.on("disconnected", self._on_disconnected)

    @property
    def dropped_ms(self) -> int:
        """Milliseconds of audio that were dropped because the session did not keep up, over all tracks."""
        return self._inbox.dropped_ms

    def subscribe(self) -> None:
        """The room is connected: ask for the microphones of who is there already, and of who comes."""
        self._is_subscribing = True
        self._settle()

    def listen(self, sample_rate_hz: int) -> None:
        """Give every track at this rate, from now on."""
        self._sample_rate_hz = sample_rate_hz
        self._inbox.sample_rate_hz = sample_rate_hz
        self._is_listening = True
        self._settle()

    @property
    def is_closed(self) -> bool:
        """Whether nothing will be heard any more: the room is gone, or this agent is."""
        return self._is_closed

    @property
    def is_reconnecting(self) -> bool:
        """Whether the connection is lost and may come back: what is sent now waits in the SDK."""
        return not self._is_closed and self._room.connection_state == rtc.ConnectionState.CONN_RECONNECTING

    @property
    def is_hearing(self) -> bool:
        """Whether audio comes in, or there is nobody to be heard: the sign of life of an agent.

        Being connected is none: after a full reconnect an agent may be so, and be deaf. Who was never heard
        does not count, since LiveKit may not let us hear them; who was heard before does.
        """
        if not self._is_connected:
            return False
        now_s = asyncio.get_running_loop().time()
        silent_s = [
            now_s - ear.heard_s
            for ear in self._ears.values()
            if ear.heard_s is not None and not ear.publication.muted
        ]
        return not silent_s or min(silent_s) < SILENT_AFTER_S

    @property
    def hears_everyone(self) -> bool:
        """Whether audio comes from everybody who can be heard."""
        return self._is_connected and all(
            (ear.reader is not None and ear.reader.has_heard)
            or ear.publication.muted
            or ear.track.speaker.identity in self._unheard
            for ear in self._ears.values()
        )

    def forget_before(self, received_s: float) -> None:
        """Drop the audio that was received until then and that nobody took; another agent has heard it.

        A block is kept in which that moment may lie: the other one's blocks are cut elsewhere.
        """
        self._inbox.forget_before(received_s - FRAME_MS / 1000)

    @property
    def _is_connected(self) -> bool:
        return (
            self._is_listening
            and not self._is_closed
            and self._room.connection_state == rtc.ConnectionState.CONN_CONNECTED
        )

    async def receive(self) -> Sequence[SourceEvent]:
        """Wait until something has happened, and give all of it in order."""
        return await self._inbox.take()

    async def aclose(self) -> None:
        """Stop hearing. Idempotent."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        for ear in self._ears.values():
            self._stop_reading(ear)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_TIMEOUT_S)

    def _on_change(self, *_: object) -> None:
        self._settle()

    def _on_reconnected(self) -> None:
        # After a full reconnect the subscriptions are gone, and nothing tells so.
        for ear in self._ears.values():
            ear.asked_s = None
        self._settle()

    def _on_disconnected(self, reason: int) -> None:
        if not self._is_closed:
            self._is_closed = True
            for ear in self._ears.values():
                self._close(ear)
            self._inbox.put(SourceEnded(_reason_name(reason)))

    def _settle(self) -> None:
        """Bring what is heard in line with the room. Idempotent."""
        if not self._is_subscribing or self._is_closed:
            return
        wanted = {publication.sid: (publication, speaker) for publication, speaker in self._wanted()}
        for sid in [sid for sid in self._ears if sid not in wanted]:
            ear = self._ears.pop(sid)
            self._close(ear)
            if self._is_published(ear):
                ear.publication.set_subscribed(False)
        if self._is_listening:
            self._settle_presence()
        for sid, (publication, speaker) in wanted.items():
            track = Track(sid, speaker, self._sample_rate_hz)
            ear = self._ears.setdefault(sid, _Ear(publication, track))
            ear.publication, ear.track = publication, track
            self._settle_ear(ear)
        if self._is_listening:
            self._settle_unheard()

    def _settle_presence(self) -> None:
        here = {p.identity: _speaker(p) for p in self._people()}
        for identity in [identity for identity in self._present if identity not in here]:
            del self._present[identity]
            self._inbox.put(ParticipantLeft(identity))
        for identity, speaker in here.items():
            before = self._present.get(identity)
            self._present[identity] = speaker
            if before is None:
                self._inbox.put(ParticipantJoined(speaker))
            elif before != speaker:
                self._inbox.put(SpeakerRenamed(speaker))

    def _people(self) -> Iterator[rtc.RemoteParticipant]:
        for participant in self._room.remote_participants.values():
            match participant.kind:
                case rtc.ParticipantKind.PARTICIPANT_KIND_EGRESS:
                    continue
                case rtc.ParticipantKind.PARTICIPANT_KIND_AGENT if not self._settings.hear_agents:
                    continue
                case _:  # people, also those who come by telephone or through an ingress
                    yield participant

    def _wanted(self) -> Iterator[tuple[rtc.RemoteTrackPublication, Speaker]]:
        sources = [rtc.TrackSource.SOURCE_MICROPHONE]
        if self._settings.hear_screen_share:
            sources.append(rtc.TrackSource.SOURCE_SCREENSHARE_AUDIO)
        for participant in self._people():
            for source in sources:
                if (publication := heard_track(participant, source)) is not None:
                    yield publication, _speaker(participant)

    def _settle_ear(self, ear: _Ear) -> None:
        now_s = asyncio.get_running_loop().time()
        publication = ear.publication
        if _is_encrypted(publication):
            self._close(ear)
            return
        if ear.asked_s is None:
            publication.set_subscribed(True)
            ear.asked_s = now_s
        if publication.muted:
            ear.unmuted_s = None
            self._mute(ear)
        elif ear.unmuted_s is None:
            ear.unmuted_s = now_s
        if publication.track is None:
            if ear.is_open:
                ear.asked_s = now_s  # it was heard, so it is not forbidden: it is going, or comes again
            self._close(ear)
        elif self._is_listening and not publication.muted:
            self._read(ear, publication.track)

    def _is_published(self, ear: _Ear) -> bool:
        participant = self._room.remote_participants.get(ear.track.speaker.identity)
        return participant is not None and ear.track.id in participant.track_publications

    def _read(self, ear: _Ear, track: rtc.RemoteTrack) -> None:
        if ear.reader is not None and ear.reader.track is track:
            return
        if ear.reader is not None:
            self._close(ear)
        task = asyncio.create_task(self._pump(ear, track), name=f"room.read.{ear.track.id}")
        self._tasks.add(task)
        task.add_done_callback(self._on_reader_done)
        ear.reader = _Reader(track, task)
        ear.heard_s = asyncio.get_running_loop().time()
        self._inbox.put(TrackUnmuted(ear.track.id) if ear.is_open else TrackOpened(ear.track))
        ear.is_open = True

    async def _pump(self, ear: _Ear, track: rtc.Track) -> None:
        """Carry the frames of one track into the inbox until cancelled: the stream never ends by itself."""
        loop = asyncio.get_running_loop()
        track_id = ear.track.id
        stream = rtc.AudioStream(
            track, sample_rate=self._sample_rate_hz, num_channels=1, frame_size_ms=FRAME_MS
        )
        try:
            async for event in stream:
                samples = np.frombuffer(event.frame.data, np.int16)
                ear.heard_s = received_s = loop.time()
                if ear.reader is not None:
                    ear.reader.has_heard = True
                self._inbox.put(AudioReceived(track_id, samples, received_s))
        finally:
            await stream.aclose()

    def _on_reader_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or self._is_closed:
            return
        # A stream has no end of its own, so this is a fault: close the track, and try again a little later.
        log.warning("room.track_failed", error=type(task.exception()).__name__)
        for ear in self._ears.values():
            if ear.reader is not None and ear.reader.task is task:
                self._close(ear)
        self._look_again(READ_AGAIN_AFTER_S)

    def _mute(self, ear: _Ear) -> None:
        if ear.reader is not None:
            self._stop_reading(ear)
            self._inbox.put(TrackMuted(ear.track.id))

    def _close(self, ear: _Ear) -> None:
        self._stop_reading(ear)
        if ear.is_open:
            ear.is_open = False
            self._inbox.put(TrackClosed(ear.track.id))

    def _stop_reading(self, ear: _Ear) -> None:
        if ear.reader is not None:
            ear.reader.task.cancel()
            ear.reader = None

    def _settle_unheard(self) -> None:
        """Say who has an open microphone that cannot be heard, and look again when that may change."""
        if self._room.connection_state != rtc.ConnectionState.CONN_CONNECTED:
            return  # it is we who are away
        now_s = asyncio.get_running_loop().time()
        unheard: dict[str, UnheardReason] = {}
        waits_s: list[float] = []
        for ear in self._ears.values():
            if ear.publication.muted:
                continue
            identity = ear.track.speaker.identity
            if _is_encrypted(ear.publication):
                unheard[identity] = UnheardReason.E2EE
            elif ear.publication.track is None and (left_s := _waits_for_s(ear, now_s)) is not None:
                if left_s <= 0:
                    unheard[identity] = UnheardReason.NOT_PERMITTED
                else:
                    waits_s.append(left_s)
        if waits_s:
            self._look_again(min(waits_s))
        for identity in [identity for identity in self._unheard if identity not in unheard]:
            self._inbox.put(HeardAgain(identity))
        for identity, reason in unheard.items():
            if self._unheard.get(identity) != reason:
                self._inbox.put(Unheard(identity, reason))
        self._unheard = unheard

    def _look_again(self, after_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(after_s, self._settle)


def _waits_for_s(ear: _Ear, now_s: float) -> float | None:
    """Seconds until an unmuted track that was asked for counts as forbidden; None if it was not."""
    if ear.asked_s is None or ear.unmuted_s is None:
        return None
    return max(ear.asked_s, ear.unmuted_s) + NOT_PERMITTED_AFTER_S - now_s


def _is_encrypted(publication: rtc.RemoteTrackPublication) -> bool:
    return publication.encryption_type != rtc.EncryptionType.NONE


def _speaker(participant: rtc.RemoteParticipant) -> Speaker:
    return Speaker(participant.identity, participant.name)


def _reason_name(reason: int) -> str:
    try:
        return rtc.DisconnectReason.Name(reason).lower()  # type: ignore[arg-type]
    except ValueError:
        return f"disconnected_{reason}"
