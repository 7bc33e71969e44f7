"""Agents that died early, as the database keeps them."""

from datetime import datetime, timedelta

from sqlalchemy import func, insert, select, update

from persistence import deaths
from persistence.clock import database_time
from persistence.database import Database
from persistence.deaths import EARLY_MS, KEPT_S, PARKED_S, Parked
from persistence.records import DEFAULT_SPACE
from persistence.rows import AGENT_DEATH
from persistence.tables import SCHEMA

SPACE = SCHEMA.tables["space"]


def died(
    database: Database,
    holder: str,
    *,
    ago_s: float = 0.0,
    age_ms: int = 2_000,
    room: str = "planning",
    space: str = DEFAULT_SPACE,
) -> None:
    with database.write() as connection:
        deaths.record(
            connection, space=space, room=room, sid="RM_1", holder=holder, worker="worker-1", age_ms=age_ms
        )
        if ago_s:
            at = database_time(connection) - timedelta(seconds=ago_s)
            connection.execute(update(AGENT_DEATH).where(AGENT_DEATH.c.holder == holder).values(at=at))


def parked(database: Database) -> list[Parked]:
    with database.read() as connection:
        return deaths.parked(connection)


def count(database: Database) -> int:
    with database.read() as connection:
        return connection.execute(select(func.count()).select_from(AGENT_DEATH)).scalar_one()


def died_at(database: Database, holder: str) -> datetime:
    with database.read() as connection:
        at: datetime = connection.execute(
            select(AGENT_DEATH.c.at).where(AGENT_DEATH.c.holder == holder)
        ).scalar_one()
    return at


def test_a_room_is_parked_from_the_third_early_death_on(database: Database) -> None:
    for number in (1, 2):
        died(database, f"agent-{number}")
        assert parked(database) == []
    died(database, "agent-3")

    since = died_at(database, "agent-3")
    assert parked(database) == [Parked(DEFAULT_SPACE, "planning", since, since + timedelta(seconds=PARKED_S))]


def test_deaths_of_a_room_whose_agent_lives_are_forgotten(database: Database) -> None:
    for number in range(3):
        died(database, f"agent-{number}")
    died(database, "agent-9", room="another")

    with database.write() as connection:
        assert deaths.forget(connection, DEFAULT_SPACE, "planning") == 3
    assert parked(database) == []
    assert count(database) == 1


def test_an_agent_dies_once(database: Database) -> None:
    for _ in range(3):
        died(database, "agent-1")

    assert count(database) == 1
    assert parked(database) == []


def test_an_agent_that_lived_long_did_not_die_of_its_room(database: Database) -> None:
    for number in range(3):
        died(database, f"agent-{number}", age_ms=EARLY_MS)
    assert count(database) == 0

    died(database, "agent-1", age_ms=EARLY_MS - 1)
    assert count(database) == 1


def test_deaths_of_other_rooms_and_spaces_do_not_count(database: Database) -> None:
    with database.write() as connection:
        connection.execute(
            insert(SPACE).values(id="other", name="Other", created_at=database_time(connection))
        )
    for number in range(2):
        died(database, f"agent-{number}")
        died(database, f"agent-{number}", space="other")
        died(database, f"agent-{number}", room="retro")
    assert parked(database) == []

    died(database, "agent-2", space="other")
    assert [(room.space, room.room) for room in parked(database)] == [("other", "planning")]


def test_a_parked_room_is_tried_again_after_a_while(database: Database) -> None:
    for number in range(3):
        died(database, f"agent-{number}", ago_s=PARKED_S + 1)
    assert parked(database) == []

    died(database, "agent-3")
    assert parked(database) == []


def test_deaths_that_lie_apart_park_nothing(database: Database) -> None:
    for number, ago_s in enumerate((150, 60, 0)):
        died(database, f"agent-{number}", ago_s=ago_s)
    assert parked(database) == []

    died(database, "agent-3", ago_s=100)
    assert len(parked(database)) == 1


def test_old_deaths_are_forgotten(database: Database) -> None:
    died(database, "agent-1", ago_s=KEPT_S + 60)
    died(database, "agent-2", ago_s=KEPT_S - 60)

    with database.write() as connection:
        assert deaths.forget_old(connection) == 1
        assert deaths.forget_old(connection) == 0
    assert count(database) == 1
