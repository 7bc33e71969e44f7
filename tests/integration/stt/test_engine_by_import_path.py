"""Somebody else's engine: one of livekit's own plugins, from a real room to the captions."""

import asyncio
from collections.abc import AsyncIterator
from difflib import SequenceMatcher

import pytest

from agent.cli.local_livekit import LocalLiveKit
from agent.ingest.meeting import load_meeting
from agent.room.dispatch import Rooms
from agent.room.player import Player
from plugins.stt.whisper import WhisperSTT
from tests.support import deepgram_plugin
from tests.support.deepgram import KEY, DeepgramServer, by_whisper
from tests.support.gathering import reading, settings_for, until
from tests.support.meetings import INCIDENT_REVIEW


@pytest.fixture
async def service() -> AsyncIterator[DeepgramServer]:
    whisper = WhisperSTT(threads=1)
    await asyncio.to_thread(whisper.prewarm)
    async with DeepgramServer(by_whisper(whisper)) as server:
        yield server
    await whisper.aclose()


async def test_plugin_of_livekit_streams_a_room_and_survives_a_broken_connection(
    livekit: LocalLiveKit, start_worker, service: DeepgramServer, room_name: str
):
    opening = load_meeting(INCIDENT_REVIEW, end_s=10)
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
        playing = asyncio.create_task((await player.join(opening.tracks)).run())
        await until(lambda: reader.finals, what="a first final")
        service.drop()
        await playing
        last = opening.segments[-1].text.split()[-1].strip(".,?!").lower()
        await until(
            lambda: any(last in final["text"].lower() for final in reader.finals), what="the last words"
        )

    assert {final["speaker"]["name"] for final in reader.finals} == {"Nora"}
    assert service.counts.connections == 2
    assert service.counts.queries[0]["endpointing"] == ["25"]  # the plugin's own settings
    said = " ".join(segment.text for segment in opening.segments).lower().split()
    heard = " ".join(final["text"] for final in reader.finals).lower().split()
    assert SequenceMatcher(None, said, heard, autojunk=False).ratio() > 0.8, heard
    assert any(not caption["final"] for caption in reader.captions)
