import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest
import pytest_asyncio
from livekit import api, rtc

from agent.cli.local_livekit import LocalLiveKit
from agent.errors import LiveKitError
from agent.room.dispatch import Rooms
from agent.room.join import join
from agent.room.player import Playback, Player, Talker
from agent.values import Samples
from tests.integration.cli.conftest import until_only

RATE_HZ = 48_000
LIMIT_S = 10.0


def tone(seconds: float) -> Samples:
    times = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    return (8_000 * np.sin(2 * np.pi * 440 * times)).astype(np.int16)


class Listener:
    """Hears everybody in a room."""

    def __init__(self) -> None:
        self.room = rtc.Room()
        self.room.on("track_subscribed", self._on_subscribed)
        self.events: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        for name in ("track_muted", "track_unmuted", "track_unpublished"):
            self.room.on(name, lambda first, second, name=name: self._note(name, first, second))
        self.room.on("participant_disconnected", lambda who: self.events.put_nowait(("left", who.identity)))
        self._heard_more = asyncio.Event()
        self._reading: list[asyncio.Task[None]] = []
        self.heard: dict[str, float] = {}  # milliseconds of sound by track

    async def until_heard(self, tracks: int, at_least_ms: float) -> None:
        async with asyncio.timeout(LIMIT_S):
            while sum(heard_ms >= at_least_ms for heard_ms in self.heard.values()) < tracks:
                self._heard_more.clear()
                await self._heard_more.wait()

    async def until(self, *event: str) -> None:
        async with asyncio.timeout(LIMIT_S):
            while await self.events.get() != event:
                pass

    async def aclose(self) -> None:
        for task in self._reading:
            task.cancel()
        await asyncio.gather(*self._reading, return_exceptions=True)
        await self.room.disconnect()

    def _note(self, name: str, first: object, second: object) -> None:
        participant = first if isinstance(first, rtc.Participant) else second
        assert isinstance(participant, rtc.Participant)
        self.events.put_nowait((name, participant.identity))

    def _on_subscribed(self, track: rtc.Track, *_: object) -> None:
        self._reading.append(asyncio.create_task(self._read(track)))

    async def _read(self, track: rtc.Track) -> None:
        stream = rtc.AudioStream(track, sample_rate=RATE_HZ, frame_size_ms=50)
        try:
            async for event in stream:
                samples = np.frombuffer(event.frame.data, np.int16).astype(float)
                if np.sqrt(np.mean(samples**2)) > 1_000:
                    self._heard_more.set()
                    self.heard[track.sid] = self.heard.get(track.sid, 0.0) + 50
        finally:
            await stream.aclose()


@pytest_asyncio.fixture
async def listener(livekit: LocalLiveKit, rooms: Rooms, room_name: str) -> AsyncIterator[Listener]:
    listener = Listener()
    await join(listener.room, livekit.url, rooms.token(room_name, "listener"), auto_subscribe=True)
    yield listener
    await listener.aclose()


async def test_everybody_is_heard_from_one_instant(
    livekit: LocalLiveKit, rooms: Rooms, room_name: str, listener: Listener
) -> None:
    async with Player(livekit.url, lambda identity: rooms.token(room_name, identity)) as player:
        playback = await player.join({"ada": tone(1.5), "bo": tone(1.0)})
        assert (playback.duration_s, playback.position_s, playback.started_at) == (1.5, 0.0, None)
        await playback.run()

        assert playback.position_s == playback.duration_s
        assert playback.started_at is not None
        await listener.until_heard(tracks=2, at_least_ms=500)
        assert {"ada", "bo"} <= set(listener.room.remote_participants)


async def test_a_talker_mutes_publishes_twice_and_leaves(
    livekit: LocalLiveKit, rooms: Rooms, room_name: str, listener: Listener
) -> None:
    talker = await Talker.join(livekit.url, rooms.token(room_name, "ada"))
    first = await talker.publish()
    second = await talker.publish()
    await Playback({first: tone(0.8), second: tone(0.8)}).run()
    await listener.until_heard(tracks=2, at_least_ms=300)

    first.mute()
    await listener.until("track_muted", "ada")
    first.unmute()
    await listener.until("track_unmuted", "ada")
    await second.unpublish()
    await listener.until("track_unpublished", "ada")
    await talker.leave()
    await talker.leave()
    await listener.until("left", "ada")


async def test_who_is_not_let_in_does_not_keep_the_others_from_leaving(
    livekit: LocalLiveKit, rooms: Rooms, room_name: str, server: api.LiveKitAPI
) -> None:
    def token(identity: str) -> str:
        return rooms.token(room_name, identity) if identity != "eve" else "not a token"

    async with Player(livekit.url, token) as player:
        with pytest.raises(LiveKitError, match="lets us not in"):
            await player.join({"ada": tone(0.1), "eve": tone(0.1), "bo": tone(0.1)})
        assert set(player.talkers) == {"ada", "bo"}

    await until_only(server, room_name)
