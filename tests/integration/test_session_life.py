"""A session has one id from its room's beginning to its end, and ends when it should and only then."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from livekit import api
from sqlalchemy import insert, select

from agent.cli.local_livekit import LocalLiveKit
from agent.config import Settings
from agent.room.viewer import Viewer
from benchmarks.chaos import COUNTING
from persistence.database import Database
from persistence.records import DEFAULT_SPACE
from persistence.tables import SCHEMA
from tests.support.counting_room import (
    LIMIT_S,
    counting_room,
    more_finals,
    says,
    serving,
    session_of,
    until_kept,
)
from tests.support.gathering import Reader, reading, until
from tests.support.worker import RunningWorker

ROOM_CONFIG, SESSION = SCHEMA.tables["room_config"], SCHEMA.tables["session"]


def limit_room(settings: Settings, room: str, **limits: int) -> None:
    """Set limits for one room, as an operator does."""
    database = Database(settings.database_url)
    with database.write() as connection:
        connection.execute(insert(ROOM_CONFIG).values(space_id=DEFAULT_SPACE, room=room, **limits))
    database.close()


def ends_of(settings: Settings, room: str) -> dict[str, str]:
    """By what each session of a room was ended; empty for one that goes on."""
    database = Database(settings.database_url)
    with database.read() as connection:
        query = select(SESSION.c.id, SESSION.c.ended_by).where(SESSION.c.room == room)
        found = {row.id: row.ended_by for row in connection.execute(query)}
    database.close()
    return found


def notices(reader: Reader) -> list[str]:
    return [event.data["code"] for event in reader.events if event.data["kind"] == "notice"]


async def test_session_beyond_a_limit_ends_and_the_room_is_told_why(
    livekit: LocalLiveKit, counting_worker: RunningWorker, room_name: str
):
    """Each in a room of its own. Who comes again after silence has another session, who broke a rule none."""
    async with serving(livekit, counting_worker) as (settings, rooms):

        async def one_more(room: str, reader: Reader) -> None:
            await until(lambda: reader.states, what="a session for one")
            async with Viewer() as second:
                await second.join(livekit.url, rooms.token(room, "one-too-many"))
                await until(lambda: notices(reader), what="that two are too many")

        async def goes_beyond(
            limit: str, setting: str, value: int, how: Callable[[str, Reader], Awaitable[None]] | None = None
        ) -> None:
            room = f"{room_name}-{limit}"
            limit_room(settings, room, **{setting: value})
            async with reading(rooms, livekit.url, room) as reader:
                if how is not None:
                    await how(room, reader)
                await until(lambda: notices(reader) == [f"limit_{limit}"], what=f"a word about the {limit}")
                await until(lambda: list(ends_of(settings, room).values()) == [limit], what="its end")
                last = {"captions": "off", "captions_reason": f"limit_{limit}"}
                await until(says(reader, **last), what="the last state")
                await rooms.dispatch(room)
                if limit == "idle":
                    await until(lambda: len(ends_of(settings, room)) == 2, what="another session")
                else:
                    refused = await counting_worker.until_logged(
                        "session.refused", within_s=LIMIT_S, room=room
                    )
                    assert limit in refused["reason"]
                    assert list(ends_of(settings, room).values()) == [limit]

        await asyncio.gather(
            goes_beyond("idle", "idle_s", 2),
            goes_beyond("duration", "max_duration_s", 2),
            goes_beyond("participants", "max_participants", 1, one_more),
        )


async def test_session_ends_with_its_room_and_the_next_room_of_that_name_has_another(
    livekit: LocalLiveKit, counting_worker: RunningWorker, room_name: str
):
    """Once everybody leaves, and once the room is deleted while they are in it."""
    async with (
        serving(livekit, counting_worker) as (settings, rooms),
        api.LiveKitAPI(livekit.url.replace("ws", "http"), livekit.api_key, livekit.api_secret) as server,
    ):

        async def closes(room: str, *, is_deleted: bool) -> None:
            async with counting_room(livekit, rooms, room) as reader:
                await more_finals(reader)
                if is_deleted:
                    await server.room.delete_room(api.DeleteRoomRequest(room=room))
                    await until(lambda: reader.viewer.closed_reason, what="the end of the room")
            await until(lambda: any(ends_of(settings, room).values()), what="the end of the session")
            (end,) = ends_of(settings, room).values()
            assert end in ({"room_deleted", "room_closed"} if is_deleted else {"room_closed"})
            session = reader.finals[0]["session"]
            await until_kept(settings, session, reader.finals)
            async with counting_room(livekit, rooms, room) as reader:
                await more_finals(reader, 1)
                assert reader.finals[0]["session"] != session
                assert reader.finals[0]["seq"] == 1

        await asyncio.gather(
            closes(f"{room_name}-left", is_deleted=False), closes(f"{room_name}-deleted", is_deleted=True)
        )


async def test_session_goes_on_under_another_worker_when_its_own_is_stopped(
    livekit: LocalLiveKit, start_worker, tmp_path: Path, room_name: str
):
    """Both are on one disk, where the second one leaves alone what the first one writes."""
    workers = await asyncio.gather(
        *(start_worker(COUNTING, folder=tmp_path, agent_name=room_name[-8:]) for _ in range(2))
    )
    async with (
        serving(livekit, workers[0]) as (settings, rooms),
        counting_room(livekit, rooms, room_name) as reader,
    ):
        await more_finals(reader)
        (own,) = [worker for worker in workers if worker.logged("session.started", room=room_name)]
        assert await own.stop() == 0
        before = session_of(settings, room_name)
        assert (before.summary.status, before.summary.epoch) == ("live", 1)
        seen = len(reader.finals)
        await more_finals(reader)
        await until_kept(settings, before.summary.id, reader.finals)
        after = session_of(settings, room_name)
        assert [epoch.epoch for epoch in after.epochs] == [1, 2]
        (gap,) = after.gaps
        last, first_again = reader.finals[seen - 1], reader.finals[seen]
        assert (last["epoch"], first_again["epoch"]) == (1, 2)
        assert gap.reason == "agent_away"
        assert last["end_ms"] <= gap.start_ms < gap.end_ms <= first_again["start_ms"]
    # The room is over now, and with it the session.
    await until(lambda: session_of(settings, room_name).summary.ended_by == "room_closed", what="its end")
