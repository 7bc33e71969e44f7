"""Who leads a room, on real databases: one at a time, whoever comes, goes, stands still or hands over."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agent.cli.local_livekit import LocalLiveKit
from agent.config import Settings
from agent.leadership import CALL_TIMEOUT_S, Leadership
from agent.room.dispatch import Rooms
from persistence import leases, schema
from persistence.database import Database
from persistence.leases import LEASE_S, Lease
from persistence.records import DEFAULT_SPACE
from tests.support.gathering import settings_for, until
from tests.support.toxiproxy import Toxiproxy

ROOM = "planning"


@dataclass
class Ear:
    """What an agent hears, as a test wants it."""

    is_hearing: bool = True
    hears_everyone: bool = True
    is_reconnecting: bool = False
    is_closed: bool = False
    forgotten: list[float] = field(default_factory=list)

    def forget_before(self, received_s: float) -> None:
        self.forgotten.append(received_s)


@dataclass
class Told:
    """What an agent was told while it held the lead."""

    successors: int = 0
    stands_by: bool = False
    losses: int = 0

    def successor(self, stands_by: bool) -> None:
        self.successors += stands_by
        self.stands_by = stands_by

    def loss(self) -> None:
        self.losses += 1


Lead = Callable[[str], Leadership]


@pytest.fixture(params=["sqlite", "postgresql"])
def settings(request: pytest.FixtureRequest, tmp_path: Path, livekit: LocalLiveKit) -> Settings:
    url = "" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    return with_tables(settings_for(livekit, data_dir=tmp_path, database_url=url))


def with_tables(settings: Settings) -> Settings:
    database = Database.of(settings)
    schema.upgrade(database)
    database.close()
    return settings


@asynccontextmanager
async def leading(settings: Settings) -> AsyncIterator[Lead]:
    """Makes agents of one room, by their names."""
    agents: list[Leadership] = []
    async with Rooms(settings) as rooms:

        def new(agent: str) -> Leadership:
            leadership = Leadership(
                Database.of_leases(settings), rooms, space=DEFAULT_SPACE, room=ROOM, sid="RM_1",
                agent=agent, worker="worker-1",
            )  # fmt: skip
            agents.append(leadership)
            return leadership

        try:
            yield new
        finally:
            for agent in agents:
                agent.close()


@asynccontextmanager
async def holding(leadership: Leadership, ear: Ear | None = None) -> AsyncIterator[Told]:
    """An agent leads, as long as it is not told that it does not."""
    told = Told()
    leadership.lead(1, ear or Ear(), lambda: 41, told.successor, told.loss)
    try:
        yield told
    finally:
        leadership.close()


def lease(settings: Settings) -> Lease | None:
    database = Database.of_leases(settings)
    try:
        leases.prepare(database)
        with database.read() as connection:
            return leases.look(connection, DEFAULT_SPACE, ROOM)
    finally:
        database.close()


def is_vacant(settings: Settings) -> bool:
    found = lease(settings)
    return found is not None and found.is_released and not found.is_live


async def test_second_agent_leaves_when_the_first_gives_a_sign_of_life(settings: Settings):
    async with leading(settings) as new:
        first, second = new("agent-1"), new("agent-2")
        assert await first.take()
        async with holding(first) as told:
            assert not await second.take()
            assert await first.confirm()
        assert (told.successors, told.losses) == (0, 0)


async def test_one_of_many_who_come_at_once_leads(settings: Settings):
    async with leading(settings) as new, asyncio.TaskGroup() as tasks:

        async def come(leadership: Leadership) -> bool:
            if not await leadership.take():
                return False
            async with holding(leadership):
                await asyncio.sleep(LEASE_S + 1)
            return True

        coming = [tasks.create_task(come(new(f"agent-{number}"))) for number in range(4)]
    assert sum(task.result() for task in coming) == 1


async def test_agent_that_died_has_a_successor_when_its_lease_lapses(settings: Settings):
    async with leading(settings) as new:
        first, second = new("agent-1"), new("agent-2")
        assert await first.take()
        async with holding(first):
            await until(lambda: (now := lease(settings)) and now.seq_until > 41, what="a renewal")
        # It is never heard of again.
        assert await second.take()
        found = lease(settings)
        assert found is not None
        assert found.holder == "agent-2"
        assert second.seq_until == found.seq_until > 41, "the numbers that it may have given are known"


async def test_agent_that_ends_in_order_leaves_the_lead_to_anybody_at_once(settings: Settings):
    async with leading(settings) as new:
        first = new("agent-1")
        assert await first.take()
        async with holding(first):
            await first.give_up()
            assert is_vacant(settings)
            # What it has heard before is its own to keep.
            assert await first.confirm()
            await asyncio.sleep(1.5)
        assert is_vacant(settings), "it has taken again what it gave up"


async def test_agent_that_is_connected_and_hears_nothing_is_relieved(settings: Settings):
    async with leading(settings) as new:
        deaf, second = new("agent-1"), new("agent-2")
        assert await deaf.take()
        async with holding(deaf, Ear(is_hearing=False)) as told:
            assert await second.take()
            async with holding(second):
                await until(lambda: told.losses, what="the news that somebody else leads")
                assert deaf.is_lost
                assert not await deaf.confirm()
                assert await second.confirm()
        assert told.losses == 1


async def test_agent_that_was_deaf_for_a_while_is_silent_until_it_hears_and_goes_on_where_nobody_came(
    settings: Settings,
):
    ear = Ear(is_hearing=False)
    async with leading(settings) as new:
        first = new("agent-1")
        assert await first.take()
        async with holding(first, ear) as told:
            await asyncio.sleep(LEASE_S + 0.5)
            found = lease(settings)
            assert found is not None
            assert not found.is_live
            speaking = asyncio.create_task(first.confirm())
            await asyncio.sleep(1.5)
            assert not speaking.done(), "its words would arrive beside those of a successor"
            ear.is_hearing = True
            assert await speaking
            found = lease(settings)
            assert found is not None
            assert found.is_live
        assert told.losses == 0


async def test_lead_is_handed_over_with_the_place_where_the_first_stopped_hearing(settings: Settings):
    ear = Ear(hears_everyone=False)
    async with leading(settings) as new:
        first, second = new("agent-1"), new("agent-2")
        assert await first.take()
        async with holding(first) as told:
            taking_over = asyncio.create_task(second.stand_by("agent-1", ear))
            await asyncio.sleep(1.5)
            assert told.successors == 0, "nobody takes over who does not hear"
            ear.hears_everyone = True
            await until(lambda: told.successors, what="a successor")
            assert first.has_successor
            await first.cut(58_500)
            await asyncio.sleep(1.0)
            assert not taking_over.done(), "the first one still gives out its last words"
            forgotten = len(ear.forgotten)
            await first.give_up()
            assert await taking_over
        assert second.cut_ms == 58_500
        assert len(ear.forgotten) == forgotten, "what is heard after the cut is the successor's to keep"
        async with holding(second):
            assert await second.confirm()
        assert told.losses == 0


async def test_agent_that_stands_by_leads_when_the_first_dies(settings: Settings):
    async with leading(settings) as new:
        first, second = new("agent-1"), new("agent-2")
        assert await first.take()
        first.close()
        assert await second.stand_by("agent-1", Ear())
        assert second.cut_ms is None


async def test_agent_that_takes_long_to_begin_its_session_keeps_the_lead_meanwhile(settings: Settings):
    async with leading(settings) as new:
        first, second = new("agent-1"), new("agent-2")
        assert await first.take()
        await asyncio.sleep(LEASE_S + 0.5)
        assert not await second.take()
        async with holding(first) as told:
            assert await first.confirm()
        assert told.losses == 0


async def test_only_one_stands_by(settings: Settings):
    async with leading(settings) as new:
        first = new("agent-1")
        assert await first.take()
        async with holding(first) as told:
            second = asyncio.create_task(new("agent-2").stand_by("agent-1", Ear()))
            await until(lambda: told.successors, what="a successor")
            assert not await new("agent-3").stand_by("agent-1", Ear())
            await first.give_up()
            assert await second


async def test_holder_keeps_the_lead_while_the_database_is_away(
    tmp_path: Path, livekit: LocalLiveKit, postgres_url: str, toxiproxy: Toxiproxy
):
    proxy = toxiproxy.proxy(postgres_url)
    settings = with_tables(settings_for(livekit, data_dir=tmp_path, database_url=proxy.url))
    async with leading(settings) as new:
        first = new("agent-1")
        assert await first.take()
        async with holding(first) as told:
            proxy.disable()
            await asyncio.sleep(LEASE_S + 1)
            assert await first.confirm()
            # Nobody else is in the room, as LiveKit knows it.
            assert await new("agent-2").take()
            proxy.enable()
            await until(
                lambda: (now := lease(settings)) and now.is_live and now.holder == "agent-1",
                what="the lease of who held it",
            )
            assert await first.confirm()
        assert told.losses == 0


async def test_silent_database_holds_up_no_caption(
    tmp_path: Path, livekit: LocalLiveKit, postgres_url: str, toxiproxy: Toxiproxy
):
    proxy = toxiproxy.proxy(postgres_url)
    settings = with_tables(settings_for(livekit, data_dir=tmp_path, database_url=proxy.url))
    async with leading(settings) as new:
        first = new("agent-1")
        assert await first.take()
        async with holding(first) as told:
            await asyncio.sleep(0.5)
            with proxy.silent():
                for _ in range(40):
                    async with asyncio.timeout(CALL_TIMEOUT_S / 2):  # who waits for the database waits longer
                        assert await first.confirm()
                    await asyncio.sleep(0.2)
        assert told.losses == 0


async def test_agent_that_came_while_the_database_was_away_leads_when_it_is_back(
    tmp_path: Path, livekit: LocalLiveKit, postgres_url: str, toxiproxy: Toxiproxy
):
    """The lease that it finds then is that of somebody who died meanwhile."""
    proxy = toxiproxy.proxy(postgres_url)
    settings = with_tables(settings_for(livekit, data_dir=tmp_path, database_url=proxy.url))
    async with leading(settings) as new:
        first, second = new("agent-1"), new("agent-2")
        assert await first.take()
        first.close()
        proxy.disable()
        assert await second.take()
        async with holding(second) as told:
            await asyncio.sleep(LEASE_S)
            proxy.enable()
            await until(
                lambda: (now := lease(settings)) and now.is_live and now.holder == "agent-2", what="its lease"
            )
        assert told.losses == 0


async def test_nothing_is_said_while_the_connection_is_made_anew(settings: Settings):
    ear = Ear(is_reconnecting=True)
    async with leading(settings) as new:
        first = new("agent-1")
        assert await first.take()
        async with holding(first, ear):
            speaking = asyncio.create_task(first.confirm())
            await asyncio.sleep(1.5)
            assert not speaking.done(), "it would arrive later, perhaps beside a successor's words"
            ear.is_reconnecting = False
            assert await speaking


async def test_agent_that_has_left_its_room_keeps_its_last_words_where_nobody_has_come(settings: Settings):
    async with leading(settings) as new:
        first = new("agent-1")
        assert await first.take()
        async with holding(first, Ear(is_hearing=False, is_closed=True)) as told:
            await asyncio.sleep(LEASE_S + 0.5)
            assert await first.confirm()
            second = new("agent-2")
            assert await second.take()
            await until(lambda: told.losses, what="the news that somebody else leads")
            assert not await first.confirm()


async def test_agent_that_came_without_the_database_and_hears_nothing_is_not_lost_to_a_dead_one(
    tmp_path: Path, livekit: LocalLiveKit, postgres_url: str, toxiproxy: Toxiproxy
):
    proxy = toxiproxy.proxy(postgres_url)
    settings = with_tables(settings_for(livekit, data_dir=tmp_path, database_url=proxy.url))
    ear = Ear(is_hearing=False)
    async with leading(settings) as new:
        first, second = new("agent-1"), new("agent-2")
        assert await first.take()
        first.close()
        proxy.disable()
        assert await second.take()
        async with holding(second, ear) as told:
            await asyncio.sleep(LEASE_S)
            proxy.enable()
            await asyncio.sleep(LEASE_S)
            ear.is_hearing = True
            await until(lambda: (now := lease(settings)) and now.holder == "agent-2", what="its lease")
        assert told.losses == 0
