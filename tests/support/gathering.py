"""People in a real room, for tests: who speaks, and who reads along."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from agent.cli.local_livekit import LocalLiveKit
from agent.config import LiveKit, Settings, load_settings
from agent.room.dispatch import Rooms
from agent.room.viewer import ReceivedEvent, ReceivedText, Viewer

__all__ = ["Reader", "reading", "settings_for", "until"]

LIMIT_S = 30.0  # for what takes a second on a machine that has nothing else to do
POLL_S = 0.05


def settings_for(
    livekit: LocalLiveKit,
    *,
    agent_name: str = "roomscribe",
    mode: str = "explicit",
    data_dir: Path | None = None,
    database_url: str = "",
) -> Settings:
    """Settings of somebody who uses this server and this agent, and what its worker keeps."""
    settings = load_settings()
    server = LiveKit(url=livekit.url, api_key=livekit.api_key, api_secret=livekit.api_secret)  # type: ignore[arg-type]
    dispatch = settings.dispatch.model_copy(update={"agent_name": agent_name, "mode": mode})
    database = settings.database.model_copy(update={"url": SecretStr(database_url)})
    return settings.model_copy(
        update={
            "livekit": server,
            "dispatch": dispatch,
            "database": database,
            "data_dir": data_dir or settings.data_dir,
        }
    )


async def until(condition: Callable[[], object], *, what: str, limit_s: float = LIMIT_S) -> None:
    """Wait until something is so.

    Raises:
        AssertionError: It was not within the limit.
    """
    try:
        async with asyncio.timeout(limit_s):
            while not condition():  # noqa: ASYNC110  it may be anything, and nothing tells of it
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise AssertionError(f"not within {limit_s:g} s: {what}") from None


class Reader:
    """Somebody who reads along, both ways, and keeps everything."""

    def __init__(self, viewer: Viewer) -> None:
        self.viewer = viewer
        self.events: list[ReceivedEvent] = []
        self.texts: list[ReceivedText] = []

    @property
    def captions(self) -> list[dict[str, Any]]:
        return [dict(event.data) for event in self.events if event.data["kind"] == "caption"]

    @property
    def finals(self) -> list[dict[str, Any]]:
        return [caption for caption in self.captions if caption["final"]]

    @property
    def states(self) -> list[dict[str, Any]]:
        return [dict(event.data) for event in self.events if event.data["kind"] == "state"]

    @property
    def unheard(self) -> dict[str, str]:
        """What the newest state says."""
        return {u["identity"]: u["reason"] for u in self.states[-1]["unheard"]} if self.states else {}

    async def _keep_events(self) -> None:
        async for event in self.viewer.events():
            self.events.append(event)

    async def _keep_texts(self) -> None:
        async for text in self.viewer.texts():
            self.texts.append(text)


@asynccontextmanager
async def reading(rooms: Rooms, url: str, room: str, identity: str = "viewer") -> AsyncIterator[Reader]:
    """Somebody in a room who reads along, with the agent in it."""
    async with Viewer() as viewer:
        await viewer.join(url, rooms.token(room, identity))
        reader = Reader(viewer)
        keeping = [asyncio.create_task(reader._keep_events()), asyncio.create_task(reader._keep_texts())]
        try:
            assert await rooms.wait_for_agent(room, LIMIT_S), "the agent did not come"
            yield reader
        finally:
            for task in keeping:
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait(keeping)
