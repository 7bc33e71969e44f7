"""The commands as people run them: processes of their own."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import pytest
from livekit import api

from agent.cli.child import Child
from agent.cli.local_livekit import LocalLiveKit
from tests.integration.cli.conftest import LIMIT_S, HiddenAgent, until_in, until_only

MEETING = Path(__file__).parents[2] / "data" / "meetings" / "incident_review"

pytestmark = pytest.mark.usefixtures("environment")


class Command:
    """A running command of ours, with its output in a file."""

    def __init__(self, child: Child, output: Path) -> None:
        self._child = child
        self._output = output

    @classmethod
    async def start(cls, *arguments: str) -> "Command":
        output = Path.cwd() / f"{arguments[0]}.log"
        with open(output, "wb") as file:  # noqa: ASYNC230  a local file
            return cls(await Child.start([sys.executable, "-m", "agent", *arguments], output=file), output)

    def send(self, number: signal.Signals) -> None:
        os.kill(self._child.pid, number)

    @property
    def said(self) -> str:
        return self._output.read_text()

    async def until_said(self, text: str) -> None:
        async with asyncio.timeout(LIMIT_S):
            while text not in self.said:
                assert not self._child.has_ended, self.said
                await asyncio.sleep(0.05)

    async def wait(self) -> int:
        try:
            return await asyncio.wait_for(self._child.wait(), LIMIT_S)
        finally:
            await self._child.kill()


async def test_token_prints_the_token_and_nothing_else(livekit: LocalLiveKit, room_name: str) -> None:
    command = await Command.start("token", room_name, "--identity", "ada", "--role", "moderator")

    assert await command.wait() == 0
    claims = api.TokenVerifier(livekit.api_key, livekit.api_secret).verify(command.said.strip())
    assert claims.attributes == {"roomscribe.role": "moderator"}


async def test_token_is_given_while_livekit_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIVEKIT_URL", "ws://127.0.0.1:1")

    command = await Command.start("token", "r", "--identity", "ada")

    assert await command.wait() == 0
    assert "does not answer (Connection refused)" in command.said


async def test_watch_prints_finals_until_the_room_closes(
    server: api.LiveKitAPI, hidden_agent: HiddenAgent, room_name: str
) -> None:
    watch = await Command.start("watch", room_name)
    await until_in(server, room_name, "watcher-")
    await hidden_agent.join(room_name)
    await hidden_agent.say("[bold]Hello\x1b[2J all.")
    await watch.until_said("Hello")
    await server.room.delete_room(api.DeleteRoomRequest(room=room_name))

    assert await watch.wait() == 0
    assert watch.said == "00:01 Ada: [bold]Hello[2J all.\n"


async def test_watch_json_gives_events_as_they_came(
    server: api.LiveKitAPI, hidden_agent: HiddenAgent, room_name: str
) -> None:
    watch = await Command.start("watch", room_name, "--json", "--as", "Vera")
    await until_in(server, room_name, "Vera-")
    await hidden_agent.join(room_name)
    await hidden_agent.publish(kind="state", captions="live")
    await watch.until_said("\n")
    watch.send(signal.SIGTERM)

    assert await watch.wait() == 128 + signal.SIGTERM
    event = json.loads(watch.said)
    assert event.pop("received_at").endswith("Z")
    assert event == {
        "v": 1,
        "session": "s",
        "epoch": 1,
        "at": "2026-01-01T00:00:00.000Z",
        "kind": "state",
        "captions": "live",
    }


async def test_watch_leaves_on_ctrl_c(server: api.LiveKitAPI, room_name: str) -> None:
    watch = await Command.start("watch", room_name)
    await until_in(server, room_name, "watcher-")

    watch.send(signal.SIGINT)

    assert await watch.wait() == 130
    assert watch.said == ""
    await until_only(server, room_name)


async def test_play_speaks_as_everybody_and_leaves(
    server: api.LiveKitAPI, hidden_agent: HiddenAgent, room_name: str
) -> None:
    play = await Command.start("play", str(MEETING), "--room", room_name, "--from", "1", "--to", "2")
    await until_in(server, room_name, "Nora")
    await hidden_agent.join(room_name)

    assert await play.wait() == 0
    assert play.said == f"Felix, Greta, Ines, Nora, Omar joined {room_name}.\n"
    await until_only(server, room_name, "agent-AJ_1")


async def test_play_ends_with_an_error_when_the_room_is_closed_under_it(
    server: api.LiveKitAPI, hidden_agent: HiddenAgent, room_name: str
) -> None:
    play = await Command.start("play", str(MEETING), "--room", room_name)
    await until_in(server, room_name, "Nora")
    await hidden_agent.join(room_name)
    await play.until_said("joined")
    await server.room.delete_room(api.DeleteRoomRequest(room=room_name))

    assert await play.wait() == 1
    assert "ended after" in play.said


async def test_watch_says_that_no_agent_comes(server: api.LiveKitAPI, room_name: str) -> None:
    watch = await Command.start("watch", room_name)
    await watch.until_said("is `roomscribe up` or `roomscribe worker` running?")
    watch.send(signal.SIGTERM)

    assert await watch.wait() == 143


async def test_empty_names_are_refused() -> None:
    for arguments in (("token", "", "--identity", "ada"), ("token", "room", "--identity", " ")):
        command = await Command.start(*arguments)

        assert await command.wait() == 2
        assert "is empty" in command.said
