"""The LiveKit source itself, in this process: what it hears and what it lets go."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
from livekit import api, rtc

from agent.cli.local_livekit import LocalLiveKit
from agent.config import Room, load_settings
from agent.ingest.meeting import Meeting
from agent.room.dispatch import Rooms
from agent.room.join import join, leave
from agent.room.player import Player, Talker
from agent.room.source import RoomSource
from agent.session.source import AudioReceived, SourceEvent, TrackOpened
from agent.values import SAMPLE_RATE_HZ
from tests.support.gathering import until

LIMIT_S = 20.0


class Listener:
    """A hidden participant with a source, and all that it said."""

    def __init__(self, room: rtc.Room, source: RoomSource) -> None:
        self.room = room
        self.source = source
        self.events: list[SourceEvent] = []

    @property
    def heard(self) -> set[str]:
        """The identities whose tracks were opened."""
        return {event.track.speaker.identity for event in self.events if isinstance(event, TrackOpened)}

    @property
    def voiced_blocks(self) -> int:
        return sum(isinstance(event, AudioReceived) and bool(np.any(event.samples)) for event in self.events)


@asynccontextmanager
async def listening(livekit: LocalLiveKit, room_name: str, settings: Room) -> AsyncIterator[Listener]:
    grants = api.VideoGrants(room_join=True, room=room_name, hidden=True, agent=True, can_publish=False)
    token = api.AccessToken(livekit.api_key, livekit.api_secret).with_grants(grants)
    token.with_identity(f"ears-{id(settings)}")
    room = rtc.Room()
    listener = Listener(room, RoomSource(room, settings))

    async def keep() -> None:
        while True:
            listener.events += await listener.source.receive()

    keeping = asyncio.create_task(keep())
    try:
        await join(room, livekit.url, token.to_jwt())
        listener.source.subscribe()
        listener.source.listen(SAMPLE_RATE_HZ)
        yield listener
    finally:
        keeping.cancel()
        await listener.source.aclose()
        await leave(room)


async def test_full_reconnect_is_heard_through(
    livekit: LocalLiveKit, rooms: Rooms, opening: Meeting, room_name: str
):
    """In a worker LiveKit would terminate the job (livekit#4887), so this is about the source alone."""
    async with Player(livekit.url, lambda identity: rooms.token(room_name, identity)) as player:
        playback = await player.join({"Nora": np.resize(opening.tracks["Nora"][48_000:], 48_000 * 25)})
        async with listening(livekit, room_name, load_settings().room) as listener:
            reconnected = asyncio.Event()
            listener.room.on("reconnected", reconnected.set)
            playing = asyncio.create_task(playback.run())
            await until(lambda: listener.voiced_blocks, what="audio before the reconnect")
            await listener.room.simulate_scenario(rtc.SimulateScenarioKind.SIMULATE_FULL_RECONNECT)
            await until(reconnected.is_set, what="the reconnect", limit_s=LIMIT_S)
            before = listener.voiced_blocks
            await until(lambda: listener.voiced_blocks > before + 20, what="audio after it")
            playing.cancel()


async def test_agents_and_shared_screens_are_heard_only_where_the_settings_say_so(
    livekit: LocalLiveKit, rooms: Rooms, room_name: str
):
    usual = load_settings().room
    everything = Room(hear_agents=True, hear_screen_share=True)
    async with (
        listening(livekit, room_name, usual) as usual_listener,
        listening(livekit, room_name, everything) as open_listener,
    ):
        grants = api.VideoGrants(room_join=True, room=room_name, agent=True)
        robot_token = api.AccessToken(livekit.api_key, livekit.api_secret).with_identity("robot")
        robot = await Talker.join(livekit.url, robot_token.with_kind("agent").with_grants(grants).to_jwt())
        await robot.publish()
        sharer = await Talker.join(livekit.url, rooms.token(room_name, "sharer"))
        screen = rtc.AudioSource(48_000, 1)
        await sharer.room.local_participant.publish_track(
            rtc.LocalAudioTrack.create_audio_track("screen", screen),
            rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_SCREENSHARE_AUDIO),
        )
        await until(lambda: open_listener.heard == {"robot", "sharer"}, what="both where both are wanted")
        person = await Talker.join(livekit.url, rooms.token(room_name, "person"))
        await person.publish()
        await until(lambda: "person" in usual_listener.heard, what="a microphone")
        assert usual_listener.heard == {"person"}
        for talker in (robot, sharer, person):
            await talker.leave()
        await screen.aclose()
