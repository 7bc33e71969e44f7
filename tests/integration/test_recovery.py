"""What a worker or an agent left behind when it died is brought in, by whoever comes next."""

import asyncio
from datetime import timedelta
from pathlib import Path

import av
import pytest
from sqlalchemy import delete, insert, update

from agent.cli.local_livekit import LocalLiveKit
from agent.config import Settings
from agent.recovery import LOST_AFTER_S, Recovery
from agent.room.dispatch import Rooms
from agent.worker_name import worker_name
from benchmarks.chaos import COUNTING
from persistence.database import Database
from persistence.journal.writer import Journal
from persistence.records import DEFAULT_SPACE
from persistence.sessions import database_time
from persistence.tables import SCHEMA
from tests.support.counting_room import (
    LIMIT_S,
    counting_room,
    finals_in_database,
    finals_in_journal,
    kill_agent,
    more_finals,
    serving,
    session_of,
    stems_of,
    until_kept,
)
from tests.support.gathering import settings_for, until
from tests.support.journalled import ROOMY, begun, final
from tests.support.worker import RunningWorker

ROOM_CONFIG, SESSION = SCHEMA.tables["room_config"], SCHEMA.tables["session"]
JOURNALS = 20
FINALS = 30


async def test_session_goes_on_after_its_worker_was_killed_and_nothing_is_missing(
    livekit: LocalLiveKit, start_worker, tmp_path: Path, room_name: str
):
    first = await start_worker(COUNTING, folder=tmp_path)
    async with (
        serving(livekit, first) as (settings, rooms),
        counting_room(livekit, rooms, room_name) as reader,
    ):
        await more_finals(reader, 5)
        session = reader.finals[0]["session"]
        await first.kill()
        assert finals_in_journal(settings, session) != []
        second = await start_worker(COUNTING, folder=tmp_path, agent_name=first.agent_name)
        before = len(reader.finals)
        await more_finals(reader, 5)
        assert {final["session"] for final in reader.finals} == {session}
        assert {final["epoch"] for final in reader.finals[before:]} == {2}
        await until_kept(settings, session, reader.finals)
        assert second.logged("recovery.waits") == []
    detail = session_of(settings, room_name)
    assert [gap.reason for gap in detail.gaps] == ["agent_away"]
    await until(lambda: all(stem.duration_ms for stem in stems_of(settings, session)), what="closed stems")
    cut, *_, last = stems_of(settings, session)
    assert (cut.epoch, cut.ended_by, last.epoch, last.ended_by) == (1, "crash", 2, "")
    assert played_ms(settings.stems_dir / cut.path) == pytest.approx(cut.duration_ms, abs=40)


def played_ms(path: Path) -> float:
    with av.open(str(path)) as container:
        return sum(frame.samples for frame in container.decode(audio=0)) / 48


async def test_session_ends_when_its_room_is_gone_and_not_while_it_is_open(
    livekit: LocalLiveKit, counting_worker: RunningWorker, room_name: str
):
    gone, open_ = f"{room_name}-gone", f"{room_name}-open"
    async with serving(livekit, counting_worker) as (settings, rooms):
        async with counting_room(livekit, rooms, open_) as open_reader:
            async with counting_room(livekit, rooms, gone) as gone_reader:
                for reader, room in ((gone_reader, gone), (open_reader, open_)):
                    await more_finals(reader)
                    set_room(settings, room, has_agent=False)  # its agent is not to be brought back yet
                    kill_agent(counting_worker, room)
                await until(lambda: not any(settings.journal_dir.iterdir()), what="the drained journals")
            async with asyncio.timeout(LIMIT_S):
                while await rooms.open_sids([gone]):  # noqa: ASYNC110  the server tells nobody
                    await asyncio.sleep(0.1)
            # The open one was heard of longer ago, so that it is looked at first.
            for room, more_s in ((open_, 20), (gone, 10)):
                silence(settings, session_of(settings, room).summary.id, LOST_AFTER_S + more_s)
            await until(
                lambda: session_of(settings, gone).summary.ended_by == "agent_lost", what="the end of the one"
            )
            assert session_of(settings, open_).summary.status == "live"
            # It goes on there as if nothing had been.
            set_room(settings, open_, has_agent=None)
            await more_finals(open_reader)
            assert open_reader.finals[-1]["session"] == open_reader.finals[0]["session"]
        summary = session_of(settings, gone).summary
    assert summary.ended_at >= summary.started_at + timedelta(milliseconds=gone_reader.finals[-1]["end_ms"])


def set_room(settings: Settings, room: str, *, has_agent: bool | None) -> None:
    """Say for one room whether it has an agent, as the console does."""
    database = Database(settings.database_url)
    with database.write() as connection:
        connection.execute(delete(ROOM_CONFIG).where(ROOM_CONFIG.c.room == room))
        connection.execute(insert(ROOM_CONFIG).values(space_id=DEFAULT_SPACE, room=room, has_agent=has_agent))
    database.close()


def silence(settings: Settings, session: str, for_s: float) -> None:
    """Make the database believe that a session was last heard of so long ago."""
    database = Database(settings.database_url)
    with database.write() as connection:
        heard_at = database_time(connection) - timedelta(seconds=for_s)
        connection.execute(update(SESSION).where(SESSION.c.id == session).values(heard_at=heard_at))
    database.close()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_two_who_look_after_one_disk_bring_everything_in_once(
    livekit: LocalLiveKit, tmp_path: Path, request: pytest.FixtureRequest, kind: str
):
    url = request.getfixturevalue("postgres_url") if kind == "postgresql" else ""
    settings = settings_for(livekit, data_dir=tmp_path, database_url=url)
    for number in range(JOURNALS):
        first = begun(f"session-{number}").model_copy(update={"room_sid": f"RM_{number}"})
        journal = Journal.create(settings.journal_dir, first, ROOMY)
        journal.append([final(count) for count in range(1, FINALS + 1)])
        journal.close(is_applied=False)
    held = Journal.create(settings.journal_dir, begun("live"), ROOMY)
    held.append([final(1)])
    async with Rooms(settings) as rooms:
        looking = [
            asyncio.create_task(Recovery(settings, worker_name(settings.data_dir), rooms).run())
            for _ in range(2)
        ]
        await until(lambda: len(list(settings.journal_dir.iterdir())) == 1, what="everything drained")
        for task in looking:
            task.cancel()
        await asyncio.gather(*looking, return_exceptions=True)
    for number in range(JOURNALS):
        kept = [one.seq for one in finals_in_database(settings, f"session-{number}")]
        assert kept == list(range(1, FINALS + 1))
    assert [one.seq for one in finals_in_journal(settings, "live")] == [1]
    assert finals_in_database(settings, "live") == []
    held.close(is_applied=False)


async def test_worker_that_starts_without_its_database_drains_when_it_is_there(
    livekit: LocalLiveKit, tmp_path: Path, postgres_url: str, toxiproxy
):
    proxy = toxiproxy.proxy(postgres_url)
    proxy.disable()
    settings = settings_for(livekit, data_dir=tmp_path, database_url=proxy.url)
    journal = Journal.create(settings.journal_dir, begun(), ROOMY)
    journal.append([final(1)])
    journal.close(is_applied=False)
    async with Rooms(settings) as rooms:
        recovery = Recovery(settings, worker_name(settings.data_dir), rooms)
        await recovery.look()
        assert [one.seq for one in finals_in_journal(settings, "ab12")] == [1]
        proxy.enable()
        await recovery.look()
        assert [one.seq for one in finals_in_database(settings, "ab12")] == [1]
        recovery.close()
