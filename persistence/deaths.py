"""Agents that die soon after they began to run.

A room where they keep doing so is parked: it gets no agent for a while.

Every function takes a connection: `Database.write()` for what changes something, `Database.read()` for the
rest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby

from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects import postgresql, sqlite

from persistence.clock import clock, database_time
from persistence.rows import AGENT_DEATH

__all__ = [
    "EARLY_MS",
    "PARKED_S",
    "PARK_DEATHS",
    "PARK_WITHIN_S",
    "Parked",
    "forget",
    "forget_old",
    "is_parked",
    "parked",
    "record",
]

EARLY_MS = 10_000  # an agent that lived longer did not die of the room that it was brought to
PARK_DEATHS = 3
PARK_WITHIN_S = 120.0
PARKED_S = 300.0  # then it is tried again
KEPT_S = 7 * 86_400.0  # for whoever looks for the cause


@dataclass(frozen=True, slots=True)
class Parked:
    """A room that gets no agent from `since`, when the last one died, to `until`."""

    space: str
    room: str
    since: datetime
    until: datetime


def record(
    connection: Connection, *, space: str, room: str, sid: str, holder: str, worker: str, age_ms: int
) -> None:
    """An agent has died `age_ms` after it began to run. Counts once, and only where that was early."""
    if age_ms >= EARLY_MS:
        return
    insert = (sqlite if connection.dialect.name == "sqlite" else postgresql).insert(AGENT_DEATH)
    connection.execute(
        insert.values(
            space_id=space,
            room=room,
            holder=holder,
            sid=sid,
            worker=worker,
            at=clock(connection),
            age_ms=age_ms,
        ).on_conflict_do_nothing()
    )


def parked(connection: Connection) -> list[Parked]:
    """The rooms of all spaces that are parked now."""
    deaths = AGENT_DEATH.c
    now = database_time(connection)
    rows = connection.execute(
        select(deaths.space_id, deaths.room, deaths.at)
        .where(deaths.at > now - timedelta(seconds=PARKED_S + PARK_WITHIN_S), deaths.at <= now)
        .order_by(deaths.space_id, deaths.room, deaths.at)
    )
    found = []
    for (space, room), its_deaths in groupby(rows, key=lambda row: (row.space_id, row.room)):
        deaths_at = [death.at for death in its_deaths]
        if is_parked(deaths_at, now):
            since = deaths_at[-1]
            found.append(Parked(space, room, since, since + timedelta(seconds=PARKED_S)))
    return found


def is_parked(deaths_at: Sequence[datetime], now: datetime) -> bool:
    """Whether a room is parked where agents died early at these times, in any order.

    The newest `PARK_DEATHS` of them lie within `PARK_WITHIN_S`, and the last one is less than `PARKED_S` ago.
    What lies ahead, since a clock was put back, counts for nothing: it would park a room for longer.
    """
    newest = sorted(at for at in deaths_at if at <= now)[-PARK_DEATHS:]
    return (
        len(newest) == PARK_DEATHS
        and newest[-1] - newest[0] <= timedelta(seconds=PARK_WITHIN_S)
        and now - newest[-1] < timedelta(seconds=PARKED_S)
    )


def forget(connection: Connection, space: str, room: str) -> int:
    """Forget the deaths of a room whose agent lives; tells how many."""
    forgetting = delete(AGENT_DEATH).where(AGENT_DEATH.c.space_id == space, AGENT_DEATH.c.room == room)
    return connection.execute(forgetting).rowcount


def forget_old(connection: Connection) -> int:
    """Remove the deaths of which nobody wants to know any more; tells how many."""
    forgetting = delete(AGENT_DEATH).where(AGENT_DEATH.c.at < clock(connection, -KEPT_S))
    return connection.execute(forgetting).rowcount
