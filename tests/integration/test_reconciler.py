"""No room is left without the agent that it wants, and none gets one that it does not want."""

import asyncio
import socket
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from livekit import api
from sqlalchemy import Connection, func, insert, select, update

from agent import dispatch_policy, reconciler
from agent.cli.doctor import check_rooms
from agent.cli.local_livekit import LocalLiveKit
from agent.config import Settings
from agent.reconciler import Reconciler
from agent.room.dispatch import Errand, OpenRoom, Rooms
from agent.room.player import Talker
from agent.room.viewer import Viewer
from benchmarks.chaos import COUNTING
from persistence import deaths, leases, schema, sessions
from persistence.clock import clock, database_time
from persistence.database import Database
from persistence.records import DEFAULT_SPACE
from persistence.rows import AGENT_DEATH, LEASE, ROOM_CONFIG
from persistence.sessions import Opening
from tests.support.counting_room import LIMIT_S, counting_room, kill_agent, more_finals, serving, speaking
from tests.support.gathering import settings_for, until
from tests.support.worker import RunningWorker

LETHAL = {**COUNTING, "ROOMSCRIBE_STT__ENGINES": "tests.support.lethal_stt:LethalSTT"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def settings(livekit: LocalLiveKit, tmp_path: Path) -> Settings:
    """Those of a worker that nobody has started, with its database."""
    settings = settings_for(livekit, agent_name=f"nobody-{uuid.uuid4().hex[:8]}", data_dir=tmp_path)
    with closing(Database.of(settings)) as database:
        schema.upgrade(database)
    return settings


@pytest_asyncio.fixture
async def rooms(settings: Settings) -> AsyncIterator[Rooms]:
    async with Rooms(settings) as rooms:
        yield rooms


@pytest_asyncio.fixture
async def server(livekit: LocalLiveKit) -> AsyncIterator[api.LiveKitAPI]:
    url = livekit.url.replace("ws", "http")
    async with api.LiveKitAPI(url, livekit.api_key, livekit.api_secret) as server:
        yield server


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever was asked in is late at once."""
    monkeypatch.setattr(dispatch_policy, "JOIN_S", 0.0)
    for name in ("UNWANTED_S", "EMPTY_S", "PARKED_S"):
        monkeypatch.setattr(reconciler, name, 0.0)


@asynccontextmanager
async def leading(settings: Settings, rooms: Rooms) -> AsyncIterator[Reconciler]:
    """The only reconciler of a database."""
    one = Reconciler(settings, "test", rooms)
    assert await one.take_lead()
    try:
        yield one
    finally:
        one.close()


async def look(one: Reconciler) -> None:
    """Have it look once, however long ago it took the lead: machines are shared."""
    assert await one.take_lead()
    await one.look()


@asynccontextmanager
async def somebody_in(livekit: LocalLiveKit, rooms: Rooms, room: str, *, asks: bool) -> AsyncIterator[str]:
    """A person who has made a room, which asks for the agent or does not; gives the room's SID."""
    identity = "ada"
    token = rooms.token(room, identity) if asks else plain_token(livekit, room, identity)
    talker = await Talker.join(livekit.url, token)
    try:
        (found,) = await rooms.open_rooms([room])
        yield found.sid
    finally:
        await talker.leave()


def plain_token(livekit: LocalLiveKit, room: str, identity: str) -> str:
    token = api.AccessToken(livekit.api_key, livekit.api_secret).with_identity(identity)
    return token.with_grants(api.VideoGrants(room_join=True, room=room)).to_jwt()


async def errands(server: api.LiveKitAPI, room: str) -> list[Errand]:
    """What the agents were told that were dispatched by us."""
    found = [Errand.decode(d.metadata) for d in await server.agent_dispatch.list_dispatch(room)]
    return [errand for errand in found if errand != Errand()]


@pytest.fixture
def write(settings: Settings) -> Iterator[Callable[[Callable[[Connection], object]], object]]:
    """Runs something in a transaction of the database."""
    with closing(Database.of(settings)) as database:

        def run(function: Callable[[Connection], object]) -> object:
            with database.write() as connection:
                return function(connection)

        yield run


@pytest.fixture
def write_leases(settings: Settings) -> Iterator[Callable[[Callable[[Connection], object]], object]]:
    """The same of the database of leases."""
    with closing(Database.of_leases(settings)) as database:
        leases.prepare(database)

        def run(function: Callable[[Connection], object]) -> object:
            with database.write() as connection:
                return function(connection)

        yield run


def begin(connection: Connection, room: str, sid: str) -> str:
    opening = sessions.begin(
        connection,
        space=DEFAULT_SPACE,
        room=room,
        room_sid=sid,
        worker="test",
        languages=["en"],
        new_id=uuid.uuid4().hex,
    )
    assert isinstance(opening, Opening)
    return opening.begun.session


def take(connection: Connection, room: str, sid: str, holder: str = "agent-1") -> None:
    leases.take(connection, space=DEFAULT_SPACE, room=room, sid=sid, holder=holder, worker="test")


def live_since(connection: Connection, room: str, *, age_s: float) -> None:
    """Its holder has led for so long."""
    leads = leases.look(connection, DEFAULT_SPACE, room)
    assert leads is not None
    since = leads.renewed_at - timedelta(seconds=age_s)
    connection.execute(update(LEASE).where(LEASE.c.room == room).values(acquired_at=since))


def lapse(connection: Connection, room: str, *, age_s: float = 60.0) -> None:
    """Its holder led for so long, and has not been heard of for ten seconds."""
    connection.execute(
        update(LEASE)
        .where(LEASE.c.room == room)
        .values(
            acquired_at=clock(connection, -age_s - 10),
            renewed_at=clock(connection, -10),
            expires_at=clock(connection, -7),
        )
    )


def early_deaths(connection: Connection) -> object:
    return connection.execute(select(func.count()).select_from(AGENT_DEATH)).scalar_one()


class TestWhoWantsAnAgent:
    async def test_a_dispatch_that_nobody_took_is_made_up_for_once_until_it_is_late(
        self, livekit: LocalLiveKit, settings: Settings, rooms: Rooms, server: api.LiveKitAPI, room_name: str
    ) -> None:
        async with somebody_in(livekit, rooms, room_name, asks=True) as sid, leading(settings, rooms) as one:
            await look(one)
            assert await errands(server, room_name) == []
            async with asyncio.timeout(LIMIT_S):
                while not await errands(server, room_name):
                    await look(one)
                    await asyncio.sleep(0.1)
            await look(one)
            assert await errands(server, room_name) == [Errand(sid=sid)]

    @pytest.mark.usefixtures("impatient")
    async def test_rooms_that_do_not_ask_and_rooms_without_people_get_none(
        self, livekit: LocalLiveKit, settings: Settings, rooms: Rooms, server: api.LiveKitAPI, room_name: str
    ) -> None:
        empty = f"{room_name}-empty"
        agents = [api.RoomAgentDispatch(agent_name=settings.dispatch.agent_name)]
        await server.room.create_room(api.CreateRoomRequest(name=empty, agents=agents))
        async with (
            somebody_in(livekit, rooms, room_name, asks=False),
            leading(settings, rooms) as one,
        ):
            await look(one)
            await look(one)
            assert await rooms.asked_at(empty) is not None
            assert await errands(server, room_name) == await errands(server, empty) == []
            # Somebody comes into the one, and wants the agent that it asked for.
            async with somebody_in(livekit, rooms, empty, asks=False):
                await look(one)
                assert len(await errands(server, empty)) == 1

    @pytest.mark.usefixtures("impatient")
    async def test_what_is_set_for_a_room_goes_before_whether_it_asks(
        self,
        livekit: LocalLiveKit,
        settings: Settings,
        rooms: Rooms,
        server: api.LiveKitAPI,
        room_name: str,
        write: Callable[..., object],
    ) -> None:
        always, never = f"{room_name}-always", f"{room_name}-never"
        for room, has_agent in ((always, True), (never, False)):
            values = {"space_id": DEFAULT_SPACE, "room": room, "has_agent": has_agent}
            write(lambda connection, values=values: connection.execute(insert(ROOM_CONFIG).values(values)))
        async with (
            somebody_in(livekit, rooms, always, asks=False),
            somebody_in(livekit, rooms, never, asks=True),
            leading(settings, rooms) as one,
        ):
            await look(one)
            assert len(await errands(server, always)) == 1
            assert await errands(server, never) == []

    @pytest.mark.usefixtures("impatient")
    async def test_session_ended_by_the_api_is_not_brought_back_and_a_live_one_is(
        self,
        livekit: LocalLiveKit,
        settings: Settings,
        rooms: Rooms,
        server: api.LiveKitAPI,
        room_name: str,
        write: Callable[..., object],
    ) -> None:
        ended, goes_on = f"{room_name}-ended", f"{room_name}-on"
        async with (
            somebody_in(livekit, rooms, ended, asks=True) as sid,
            somebody_in(livekit, rooms, goes_on, asks=False),
            leading(settings, rooms) as one,
        ):

            def sessions_are_there(connection: Connection) -> None:
                session = begin(connection, ended, sid)
                sessions.end(connection, DEFAULT_SPACE, session, "api", database_time(connection))
                begin(connection, goes_on, "RM_before_livekit_was_started_again")

            write(sessions_are_there)
            await look(one)
            await one.agent_died(ended, "agent-1", age_ms=60_000)
            assert await errands(server, ended) == []
            assert len(await errands(server, goes_on)) == 1

    @pytest.mark.usefixtures("impatient")
    async def test_room_that_closes_meanwhile_is_not_made_again(
        self,
        livekit: LocalLiveKit,
        settings: Settings,
        rooms: Rooms,
        server: api.LiveKitAPI,
        room_name: str,
        monkeypatch: pytest.MonkeyPatch,
        write: Callable[..., object],
    ) -> None:
        async with somebody_in(livekit, rooms, room_name, asks=True) as sid:
            write(lambda connection: begin(connection, room_name, sid))
            await server.room.delete_room(api.DeleteRoomRequest(room=room_name))

        async def stale(names: object = ()) -> list[OpenRoom]:
            return [OpenRoom(room_name, sid)]

        async with leading(settings, rooms) as one:
            with monkeypatch.context() as patched:
                patched.setattr(rooms, "open_rooms", stale)
                await look(one)
                await one.agent_died(room_name, "agent-1", age_ms=60_000)
        assert await rooms.open_rooms([room_name]) == []

    @pytest.mark.usefixtures("impatient")
    async def test_automatic_mode_serves_the_rooms_that_match(
        self, livekit: LocalLiveKit, settings: Settings, server: api.LiveKitAPI, room_name: str
    ) -> None:
        dispatch = settings.dispatch.model_copy(
            update={"mode": "automatic", "rooms": (f"{room_name}-team-*",)}
        )
        settings = settings.model_copy(update={"dispatch": dispatch})
        red, board = f"{room_name}-team-red", f"{room_name}-board"
        async with (
            Rooms(settings) as rooms,
            somebody_in(livekit, rooms, red, asks=False),
            somebody_in(livekit, rooms, board, asks=False),
            leading(settings, rooms) as one,
        ):
            await look(one)
            assert len(await errands(server, red)) == 1
            assert await errands(server, board) == []


class TestWhoHasAnAgent:
    @pytest.mark.usefixtures("impatient")
    async def test_a_live_lease_keeps_others_from_a_room_and_a_lapsed_one_brings_a_successor(
        self,
        livekit: LocalLiveKit,
        settings: Settings,
        rooms: Rooms,
        server: api.LiveKitAPI,
        room_name: str,
        write: Callable[..., object],
        write_leases: Callable[..., object],
    ) -> None:
        async with somebody_in(livekit, rooms, room_name, asks=True) as sid, leading(settings, rooms) as one:
            write_leases(lambda connection: take(connection, room_name, sid))
            await look(one)
            assert await errands(server, room_name) == []
            write_leases(lambda connection: lapse(connection, room_name))
            await look(one)
            assert await errands(server, room_name) == [Errand(sid=sid, died="agent-1")]
            assert write(early_deaths) == 0

    @pytest.mark.usefixtures("impatient")
    async def test_a_lapsed_lease_of_an_early_death_counts_once_and_goes_with_its_room(
        self,
        livekit: LocalLiveKit,
        settings: Settings,
        rooms: Rooms,
        server: api.LiveKitAPI,
        room_name: str,
        write: Callable[..., object],
        write_leases: Callable[..., object],
    ) -> None:
        async with leading(settings, rooms) as one:
            async with somebody_in(livekit, rooms, room_name, asks=True) as sid:
                write_leases(lambda connection: take(connection, room_name, sid))
                write_leases(lambda connection: lapse(connection, room_name, age_s=2))
                await look(one)
                await look(one)
                assert write(early_deaths) == 1
                await server.room.delete_room(api.DeleteRoomRequest(room=room_name))
            await look(one)
            assert not any(lease.is_live for lease in write_leases(leases.every))

    @pytest.mark.usefixtures("impatient")
    async def test_an_agent_that_dies_has_a_successor_at_once_even_if_others_look_after_rooms(
        self,
        livekit: LocalLiveKit,
        settings: Settings,
        rooms: Rooms,
        server: api.LiveKitAPI,
        room_name: str,
        write_leases: Callable[..., object],
    ) -> None:
        async with (
            somebody_in(livekit, rooms, room_name, asks=True) as sid,
            leading(settings, rooms),
        ):
            of_worker = Reconciler(settings, "another", rooms)
            write_leases(lambda connection: take(connection, room_name, sid))
            # Who was not in the lead dies, and nobody misses it.
            await of_worker.agent_died(room_name, "agent-2", age_ms=100)
            assert await errands(server, room_name) == []
            await of_worker.agent_died(room_name, "agent-1", age_ms=60_000)
            assert await errands(server, room_name) == [Errand(sid=sid, died="agent-1")]
            assert not any(lease.is_live for lease in write_leases(leases.every))
            of_worker.close()

    @pytest.mark.usefixtures("impatient")
    async def test_a_room_whose_agents_die_early_is_parked_and_doctor_says_so(
        self,
        livekit: LocalLiveKit,
        settings: Settings,
        rooms: Rooms,
        server: api.LiveKitAPI,
        room_name: str,
    ) -> None:
        async with somebody_in(livekit, rooms, room_name, asks=True), leading(settings, rooms) as one:
            for number in range(deaths.PARK_DEATHS + 1):
                await one.agent_died(room_name, f"agent-{number}", age_ms=900)
            await look(one)
            assert len(await errands(server, room_name)) == deaths.PARK_DEATHS - 1
            assert reconciler.ROOMS_PARKED._value.get() == 1
            assert reconciler.ROOMS_WITHOUT_AGENT._value.get() == 1
            check = await check_rooms(settings)
        assert check.outcome == "failed"
        assert room_name in check.detail
        assert "tried again" in check.advice

    @pytest.mark.usefixtures("impatient")
    async def test_a_parked_room_whose_agent_lives_since_somebody_asked_for_it_is_parked_no_more(
        self,
        livekit: LocalLiveKit,
        settings: Settings,
        rooms: Rooms,
        room_name: str,
        write_leases: Callable[..., object],
    ) -> None:
        async with somebody_in(livekit, rooms, room_name, asks=True) as sid, leading(settings, rooms) as one:
            for number in range(deaths.PARK_DEATHS):
                await one.agent_died(room_name, f"agent-{number}", age_ms=900)
            await look(one)
            assert reconciler.ROOMS_PARKED._value.get() == 1
            write_leases(lambda connection: take(connection, room_name, sid, "agent-9"))
            await look(one)
            assert reconciler.ROOMS_PARKED._value.get() == 1, "it may die as those before"
            write_leases(lambda connection: live_since(connection, room_name, age_s=11))
            await look(one)
            assert reconciler.ROOMS_PARKED._value.get() == 0
            assert (
                await one.take_lead()
            )  # a look takes three seconds where another test's room is just closing
            assert (await check_rooms(settings)).outcome == "ok"

    async def test_doctor_fails_where_a_room_waits_and_no_worker_runs(
        self, livekit: LocalLiveKit, settings: Settings, rooms: Rooms, room_name: str
    ) -> None:
        async with somebody_in(livekit, rooms, room_name, asks=True):
            check = await check_rooms(settings)
        assert check.outcome == "failed"
        assert room_name in check.detail
        assert "no worker runs" in check.advice

    async def test_room_that_closes_while_doctor_looks_hides_no_other(
        self,
        livekit: LocalLiveKit,
        settings: Settings,
        rooms: Rooms,
        room_name: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        open_rooms = Rooms.open_rooms

        async def with_one_that_was_there(self: Rooms, names: Sequence[str] = ()) -> list[OpenRoom]:
            found = await open_rooms(self, names)
            return found if names else [OpenRoom("gone", "RM_gone"), *found]

        monkeypatch.setattr(Rooms, "open_rooms", with_one_that_was_there)
        async with somebody_in(livekit, rooms, room_name, asks=True):
            check = await check_rooms(settings)
        assert check.outcome == "failed"
        assert room_name in check.detail
        assert "gone" not in check.detail

    async def test_only_one_of_two_reconcilers_looks_and_the_other_follows_at_once(
        self, settings: Settings, rooms: Rooms
    ) -> None:
        # Both of one folder, and so of one name.
        first, second = (Reconciler(settings, "test", rooms) for _ in range(2))
        running = asyncio.create_task(first.run())
        await until(first._leads, what="the lead of the first")
        assert not await second.take_lead()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert await second.take_lead()
        second.close()

    async def test_without_the_database_it_goes_on_when_that_is_back(
        self,
        livekit: LocalLiveKit,
        rooms: Rooms,
        server: api.LiveKitAPI,
        room_name: str,
        tmp_path: Path,
        postgres_url: str,
        toxiproxy,
    ) -> None:
        proxy = toxiproxy.proxy(postgres_url)
        settings = settings_for(livekit, data_dir=tmp_path, database_url=proxy.url)
        with closing(Database.of(settings)) as database:
            schema.upgrade(database)
        async with somebody_in(livekit, rooms, room_name, asks=True) as sid:
            one = Reconciler(settings, "test", rooms)
            running = asyncio.create_task(one.run())
            await until(one._leads, what="the lead")
            proxy.disable()
            await until(lambda: not one._leads(), what="that the lead is lost")
            await one.agent_died(room_name, "agent-1", age_ms=60_000)
            proxy.enable()
            async with asyncio.timeout(LIMIT_S):
                while not await errands(server, room_name):  # noqa: ASYNC110  the server tells nobody
                    await asyncio.sleep(0.1)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        assert (await errands(server, room_name))[0].sid == sid


class TestWithWorkers:
    async def test_room_that_was_there_before_the_worker_gets_its_agent(
        self, livekit: LocalLiveKit, start_worker, room_name: str
    ) -> None:
        name = f"late-{uuid.uuid4().hex[:8]}"
        async with Rooms(settings_for(livekit, agent_name=name)) as rooms, Viewer() as viewer:
            await viewer.join(livekit.url, rooms.token(room_name, "viewer"))
            assert await rooms.asked_at(room_name) is not None
            worker: RunningWorker = await start_worker(COUNTING, agent_name=name)
            assert await rooms.wait_for_agent(room_name, LIMIT_S)
            assert worker.logged("room.agent_dispatched", room=room_name, reason="never_came")

    async def test_agent_that_is_killed_has_a_successor_in_the_same_session(
        self, livekit: LocalLiveKit, counting_worker: RunningWorker, room_name: str
    ) -> None:
        async with (
            serving(livekit, counting_worker) as (_, rooms),
            counting_room(livekit, rooms, room_name) as reader,
        ):
            await more_finals(reader)
            kill_agent(counting_worker, room_name)
            await until(lambda: reader.finals[-1]["epoch"] > 1, what="finals of a successor")
            assert {final["session"] for final in reader.finals} == {reader.finals[0]["session"]}
            assert counting_worker.logged("room.agent_dispatched", room=room_name, reason="agent_died")

    async def test_room_whose_agents_die_is_parked_and_said_by_log_metric_and_doctor(
        self, livekit: LocalLiveKit, start_worker, room_name: str
    ) -> None:
        port = free_port()
        worker: RunningWorker = await start_worker({**LETHAL, "ROOMSCRIBE_WORKER__METRICS_PORT": str(port)})
        async with (
            serving(livekit, worker) as (settings, rooms),
            speaking(livekit.url, rooms, room_name),
            aiohttp.ClientSession() as http,
        ):
            parked = await worker.until_logged("room.parked", within_s=LIMIT_S, room=room_name)
            assert parked["level"] == "error"
            assert len(worker.logged("room.agent_died", room=room_name)) == deaths.PARK_DEATHS
            assert (await check_rooms(settings)).outcome == "failed"
            async with http.get(f"http://127.0.0.1:{port}/metrics") as answer:
                lines = (await answer.text()).splitlines()
        assert "roomscribe_rooms_parked 1.0" in lines
        assert f"roomscribe_agent_deaths_total {deaths.PARK_DEATHS}.0" in lines
