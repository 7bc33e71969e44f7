"""When an agent counts as hearing, which keeps its lease: told by a room that a test makes up."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from livekit import rtc

from agent.config import load_settings
from agent.room import source as source_module
from agent.room.source import SILENT_AFTER_S, RoomSource
from agent.values import SAMPLE_RATE_HZ
from tests.support.virtual_time import run_virtual


@dataclass
class Publication:
    sid: str = "TR_1"
    muted: bool = False
    track: object | None = None
    source: int = rtc.TrackSource.SOURCE_MICROPHONE
    kind: int = rtc.TrackKind.KIND_AUDIO
    encryption_type: int = rtc.EncryptionType.NONE

    def set_subscribed(self, _wanted: bool) -> None:
        """LiveKit is asked; what it gives is the test's."""


@dataclass
class Participant:
    track_publications: dict[str, Publication]
    identity: str = "nora"
    name: str = "Nora"
    kind: int = rtc.ParticipantKind.PARTICIPANT_KIND_STANDARD


@dataclass
class Room:
    """What a source sees of a room."""

    remote_participants: dict[str, Participant] = field(default_factory=dict)
    connection_state: int = rtc.ConnectionState.CONN_CONNECTED
    handlers: dict[str, Callable[..., None]] = field(default_factory=dict)

    def on(self, name: str, handler: Callable[..., None]) -> None:
        self.handlers[name] = handler

    def happens(self, name: str) -> None:
        self.handlers[name]()


@dataclass
class Frames:
    """A stream of audio that gives a frame every 50 ms as long as it lives."""

    track: "Track"

    def __aiter__(self) -> "Frames":
        return self

    async def __anext__(self) -> Any:
        while True:
            await asyncio.sleep(0.05)
            if self.track.is_alive:
                return type("Event", (), {"frame": type("Frame", (), {"data": bytes(1600)})})

    async def aclose(self) -> None:
        """There is nothing to free."""


@dataclass
class Track:
    is_alive: bool = True


def listening(room: Room, monkeypatch: Any) -> RoomSource:
    monkeypatch.setattr(source_module.rtc, "AudioStream", lambda track, **_: Frames(track))
    source = RoomSource(room, load_settings().room)  # type: ignore[arg-type]
    source.subscribe()
    source.listen(SAMPLE_RATE_HZ)
    return source


def test_agent_hears_as_long_as_frames_come(monkeypatch):
    async def main() -> None:
        track = Track()
        publication = Publication(track=track)
        source = listening(Room({"nora": Participant({"TR_1": publication})}), monkeypatch)
        assert source.is_hearing
        assert not source.hears_everyone
        await asyncio.sleep(10)
        assert source.is_hearing
        assert source.hears_everyone
        track.is_alive = False
        await asyncio.sleep(SILENT_AFTER_S + 0.1)
        assert not source.is_hearing
        await source.aclose()

    run_virtual(main())


def test_agent_that_is_connected_and_was_given_no_track_again_is_deaf(monkeypatch):
    """As after a full reconnect whose tracks were not subscribed to again: nothing tells of it."""

    async def main() -> None:
        publication = Publication(track=Track())
        room = Room({"nora": Participant({"TR_1": publication})})
        source = listening(room, monkeypatch)
        await asyncio.sleep(1)
        publication.track = None
        room.happens("track_unsubscribed")
        assert source.is_hearing, "it may come again at once"
        await asyncio.sleep(60)
        assert not source.is_hearing
        await source.aclose()

    run_virtual(main())


def test_agent_hears_where_nobody_can_be_heard(monkeypatch):
    async def main() -> None:
        assert listening(Room(), monkeypatch).is_hearing
        muted = Participant({"TR_1": Publication(muted=True)})
        forbidden = Participant({"TR_2": Publication("TR_2")}, identity="omar")
        source = listening(Room({"nora": muted, "omar": forbidden}), monkeypatch)
        await asyncio.sleep(60)
        assert source.is_hearing
        assert source.hears_everyone
        await source.aclose()

    run_virtual(main())


def test_agent_that_heard_somebody_who_is_muted_now_hears(monkeypatch):
    async def main() -> None:
        publication = Publication(track=Track())
        room = Room({"nora": Participant({"TR_1": publication})})
        source = listening(room, monkeypatch)
        await asyncio.sleep(1)
        publication.muted = True
        room.happens("track_muted")
        await asyncio.sleep(60)
        assert source.is_hearing
        await source.aclose()

    run_virtual(main())


def test_agent_that_is_not_connected_does_not_hear(monkeypatch):
    async def main() -> None:
        room = Room()
        source = listening(room, monkeypatch)
        room.connection_state = rtc.ConnectionState.CONN_RECONNECTING
        assert not source.is_hearing
        assert not source.hears_everyone
        await source.aclose()

    run_virtual(main())
