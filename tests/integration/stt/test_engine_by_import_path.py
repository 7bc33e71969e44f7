"""Somebody else's engine: one of livekit's own plugins, from a real room to the captions."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from agent.cli.local_livekit import LocalLiveKit
from agent.ingest.meeting import load_meeting
from agent.room.dispatch import Rooms
from agent.room.player import Player
from benchmarks.normalise import spoken_words
from tests.support import deepgram_plugin
from tests.support.deepgram import KEY, DeepgramServer, understanding
from tests.support.gathering import reading, settings_for, until
from tests.support.meetings import INCIDENT_REVIEW


@pytest.fixture
async def service() -> AsyncIterator[DeepgramServer]:
    async with understanding() as server:
        yield server


async def test_plugin_of_livekit_streams_a_room_and_survives_a_broken_connection(
    livekit: LocalLiveKit, start_worker, service: DeepgramServer, room_name: str
):
    opening = load_meeting(INCIDENT_REVIEW, end_s=10)
    said = [word for segment in opening.segments for word in spoken_words(segment.text)]
    worker = await start_worker(
        {
            "ROOMSCRIBE_STT__ENGINES": f"{deepgram_plugin.__name__}:STT",
            "DEEPGRAM_API_KEY": KEY,
            deepgram_plugin.URL: service.url,
        }
    )
    async with (
        Rooms(settings_for(livekit, agent_name=worker.agent_name)) as rooms,
        reading(rooms, livekit.url, room_name) as reader,
        Player(livekit.url, lambda identity: rooms.token(room_name, identity)) as player,
    ):
        playback = await player.join(opening.tracks)
        async with asyncio.TaskGroup() as playing:
            playing.create_task(playback.run())
            await until(lambda: reader.finals, what="a first final")
            service.drop()
            before = len(reader.captions)
        await until(
            lambda: any(said[-1] in spoken_words(final["text"]) for final in reader.finals),
            what="the last words",
        )

    assert {final["speaker"]["name"] for final in reader.finals} == {"Nora"}
    assert service.counts.connections == 2
    assert service.counts.queries[0]["endpointing"] == ["25"]  # the plugin's own settings
    heard = [word for final in reader.finals for word in spoken_words(final["text"])]
    assert (heard[:2], heard[-2:]) == (said[:2], said[-2:])
    assert any(not caption["final"] for caption in reader.captions[before:])
