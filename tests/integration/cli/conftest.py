"""A stand-in for the agent: what a client can see of it, without a worker."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from livekit import api, rtc

from agent.captions.protocol import EVENTS_TOPIC
from agent.cli.local_livekit import LocalLiveKit
from agent.config import Settings, load_settings
from agent.room.dispatch import Rooms
from agent.room.join import join

LIMIT_S = 30.0
AGENT_NAME = "nobody-but-a-test"


class HiddenAgent:
    """A hidden participant that publishes what it is told to."""

    def __init__(self, livekit: LocalLiveKit, name: str) -> None:
        self._livekit = livekit
        self._name = name
        self.room = rtc.Room()

    async def join(self, room: str) -> None:
        grants = api.VideoGrants(room_join=True, room=room, hidden=True, agent=True, can_publish=False)
        token = api.AccessToken(self._livekit.api_key, self._livekit.api_secret).with_grants(grants)
        token.with_identity("agent-AJ_1").with_kind("agent").with_attributes({"lk.agent.name": self._name})
        await join(self.room, self._livekit.url, token.to_jwt(), auto_subscribe=True)

    async def publish(self, **event: Any) -> None:
        envelope = {"v": 1, "session": "s", "epoch": 1, "at": "2026-01-01T00:00:00.000Z"}
        data = json.dumps({**envelope, **event}).encode()
        await self.room.local_participant.publish_data(data, topic=EVENTS_TOPIC)

    async def say(self, text: str, *, number: int = 1) -> None:
        """Publish a final caption of Ada's."""
        await self.publish(
            kind="caption", id=f"1-{number}", rev=1, seq=number, final=True, text=text, start_ms=1_000,
            end_ms=2_000, speaker={"identity": "ada", "name": "Ada"}, overlap=False, waiting=False,
        )  # fmt: skip


async def participants(server: api.LiveKitAPI, room: str) -> dict[str, bool]:
    """By identity, whether somebody in a room is connected; hidden ones as well."""
    if not (await server.room.list_rooms(api.ListRoomsRequest(names=[room]))).rooms:
        return {}
    listed = await server.room.list_participants(api.ListParticipantsRequest(room=room))
    return {one.identity: one.state == api.ParticipantInfo.State.ACTIVE for one in listed.participants}


async def until_in(server: api.LiveKitAPI, room: str, prefix: str) -> None:
    """Wait until somebody whose identity begins so is connected."""
    async with asyncio.timeout(LIMIT_S):
        while not any(  # noqa: ASYNC110  the server tells nobody of a hidden one
            active and who.startswith(prefix) for who, active in (await participants(server, room)).items()
        ):
            await asyncio.sleep(0.05)


async def until_only(server: api.LiveKitAPI, room: str, *identities: str) -> None:
    """Wait until nobody else is in a room; the server takes a moment to let somebody go."""
    async with asyncio.timeout(LIMIT_S):
        while set(await participants(server, room)) != set(identities):  # noqa: ASYNC110  as above
            await asyncio.sleep(0.05)


@pytest.fixture
def environment(livekit: LocalLiveKit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder and the variables of the test's LiveKit server."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIVEKIT_URL", livekit.url)
    monkeypatch.setenv("LIVEKIT_API_KEY", livekit.api_key)
    monkeypatch.setenv("LIVEKIT_API_SECRET", livekit.api_secret)
    # No worker comes by this name, whatever else runs beside.
    monkeypatch.setenv("ROOMSCRIBE_DISPATCH__AGENT_NAME", AGENT_NAME)


@pytest.fixture
def settings(environment: None) -> Settings:
    return load_settings(require_livekit=True)


@pytest_asyncio.fixture
async def rooms(settings: Settings) -> AsyncIterator[Rooms]:
    async with Rooms(settings) as rooms:
        yield rooms


@pytest_asyncio.fixture
async def server(settings: Settings) -> AsyncIterator[api.LiveKitAPI]:
    """The server's own API, to see what was done."""
    livekit = settings.livekit
    async with api.LiveKitAPI(
        livekit.http_url, livekit.api_key, livekit.api_secret.get_secret_value()
    ) as server:
        yield server


@pytest_asyncio.fixture
async def hidden_agent(livekit: LocalLiveKit, settings: Settings) -> AsyncIterator[HiddenAgent]:
    agent = HiddenAgent(livekit, settings.dispatch.agent_name)
    yield agent
    await agent.room.disconnect()
