"""`roomscribe play --wait`: the id of what was played, once it is over."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from livekit import api

from agent.cli.child import GUARD
from agent.config import load_settings
from agent.room.dispatch import Rooms
from agent.room.viewer import Viewer
from persistence import schema
from persistence.apply import Applier
from persistence.database import Database
from persistence.records import Begun, Ended
from tests.integration.cli.conftest import HiddenAgent, until_in, until_only
from tests.support.postgres import Postgres
from tests.support.worker import RunningWorker

MEETING = Path(__file__).parents[2] / "data" / "meetings" / "incident_review"
LIMIT_S = 90.0  # a room of tests closes soon; a busy machine takes its time

pytestmark = pytest.mark.usefixtures("environment")


class Command:
    """A running command of ours, whose output is read apart from what it says besides."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.said = ""

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def until_said(self, text: str) -> None:
        assert self._process.stderr is not None
        async with asyncio.timeout(LIMIT_S):
            while text not in self.said:
                line = await self._process.stderr.readline()
                assert line, self.said
                self.said += line.decode()

    async def ended(self) -> tuple[int | None, str]:
        """The exit code, and what was printed."""
        async with asyncio.timeout(LIMIT_S):
            out, errors = await self._process.communicate()
        self.said += errors.decode()
        return self._process.returncode, out.decode()


@asynccontextmanager
async def running(*arguments: str) -> AsyncIterator[Command]:
    # The guard gives it back its Ctrl-C, which a test run in the background of a shell has none of.
    guarded = (sys.executable, "-I", "-S", str(GUARD), str(os.getpid()))
    process = await asyncio.create_subprocess_exec(
        *guarded, sys.executable, "-m", "agent", *arguments, stdout=PIPE, stderr=PIPE
    )
    try:
        yield Command(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


def play(room: str, *, from_s: int = 1, to_s: int = 2) -> tuple[str, ...]:
    return ("play", str(MEETING), "--room", room, "--from", str(from_s), "--to", str(to_s), "--wait")


@pytest.fixture
def shared(worker: RunningWorker, environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands have the agent and the database of the worker."""
    monkeypatch.setenv("ROOMSCRIBE_DATA_DIR", str(worker.data_dir))
    monkeypatch.setenv("ROOMSCRIBE_DISPATCH__AGENT_NAME", worker.agent_name)


@pytest.fixture
def postgres(logs: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Postgres]:
    """One that may be stopped, whose database is that of the settings."""
    with Postgres(logs / "postgres-of-play.log") as running:
        monkeypatch.setenv("ROOMSCRIBE_DATABASE__URL", running.new_database())
        yield running


def upgraded() -> Database:
    """The database of the settings."""
    database = Database(load_settings().database_url)
    schema.upgrade(database)
    return database


@pytest.mark.usefixtures("shared")
async def test_what_was_played_is_exported_by_the_id_that_is_printed(room_name: str) -> None:
    async with running(*play(room_name, from_s=2, to_s=9)) as playing:
        code, out = await playing.ended()

    assert code == 0, playing.said
    assert "Waiting for the session to end" in playing.said
    session_id = out.removesuffix("\n")
    assert session_id.isalnum()
    async with running("export", session_id) as exporting:
        assert (await exporting.ended())[1].startswith("[00:00:")
    assert exporting.said == ""


@pytest.mark.usefixtures("shared")
async def test_ctrl_c_ends_the_wait_for_somebody_who_stays(room_name: str, server: api.LiveKitAPI) -> None:
    settings = load_settings(require_livekit=True)
    async with Rooms(settings) as rooms, Viewer() as viewer:
        await viewer.join(settings.livekit.url, rooms.token(room_name, "stays"))
        async with running(*play(room_name)) as playing:
            await playing.until_said("somebody else in it keeps it open")
            playing.send(signal.SIGINT)

            assert await playing.ended() == (130, "")
        assert "Traceback" not in playing.said


async def test_a_database_that_comes_back_is_waited_for(
    postgres: Postgres, hidden_agent: HiddenAgent, server: api.LiveKitAPI, room_name: str
) -> None:
    database = upgraded()
    async with running(*play(room_name)) as playing:
        await until_in(server, room_name, "Nora")
        await hidden_agent.join(room_name)
        await playing.until_said("Waiting for the session to end")
        await asyncio.to_thread(postgres.stop)
        await playing.until_said("waiting until it is back")
        await asyncio.to_thread(postgres.start)
        begun = Begun(
            session="abc123", epoch=1, room=room_name, room_sid=await hidden_agent.room.sid, agent="a",
            worker="w", languages=("en",), started_at=datetime.now(UTC), offset_ms=0, is_provisional=True,
        )  # fmt: skip
        database.close()
        ended = Ended(reason="room_closed", end_ms=1_000, at=datetime.now(UTC))
        applier = Applier(database, begun.space, begun.session, begun.epoch)
        applier.apply([begun, ended], None)
        applier.settle()

        assert await playing.ended() == (0, "abc123\n")
    assert playing.said.count("cannot be used") == 1
    database.close()


async def test_a_room_without_an_agent_has_no_session_to_wait_for(
    room_name: str, server: api.LiveKitAPI
) -> None:
    upgraded().close()
    async with running(*play(room_name)) as playing:
        assert await playing.ended() == (1, "")

    assert f"has no session of {room_name}" in playing.said
    assert "`roomscribe worker` running?" in playing.said
    await until_only(server, room_name)


async def test_a_database_that_is_not_ready_is_said_before_anybody_joins(
    room_name: str, server: api.LiveKitAPI
) -> None:
    async with running(*play(room_name)) as playing:
        assert await playing.ended() == (2, "")

    assert "there is no database at " in playing.said
    assert playing.said.endswith("`roomscribe db upgrade` makes one\n")
    assert "joined" not in playing.said
