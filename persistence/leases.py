"""Leases: which agent leads a room, until when, and who stands by to take over from it.

A lease is a row for a space and the name of a room. Whoever holds it renews it, and leads the room as long as
it has not expired, by the database's clock. Who ends in an orderly way releases it, so that a lease that has
lapsed and was not released means that its holder died. The reconciler has a lease of its own, for a space and
a room without a name, which is none of a room.

Every function takes a connection of `Database.of_leases`: `write()` for what changes something, `read()` for
the rest.
"""

import fcntl
import sqlite3
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    and_,
    case,
    delete,
    false,
    func,
    null,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateTable

from agent.errors import DatabaseAwayError
from persistence.clock import clock
from persistence.database import Database
from persistence.rows import LEASE

__all__ = [
    "LEASE_S",
    "NO_ROOM",
    "NO_SPACE",
    "Lease",
    "cut",
    "every",
    "forget",
    "look",
    "move",
    "offer",
    "prepare",
    "release",
    "renew",
    "take",
]

LEASE_S = 3.0  # after which nobody hears from a holder any more; it renews its lease each second
DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
NO_SPACE = NO_ROOM = ""  # those of the reconciler's lease


@dataclass(frozen=True, slots=True)
class Lease:
    """Who leads a room, as the database knows it.

    Attributes:
        sid: The LiveKit room that it was last renewed for.
        holder: The agent's identity in the room; the reconciler's is its worker.
        worker: The holder's; empty where the lease was moved to one that has not renewed it yet.
        epoch: The holder's; 0 until its session has begun.
        is_live: Whether it had not expired when it was read, by the database's clock.
        successor: Who stands by to take over; empty where nobody does, or has not said so lately.
        cut_ms: Up to where in session time the holder hears, once it hands over; where the lease was moved,
            up to where the holder before heard.
        seq_until: The last `seq` that this holder, or one before it, may have given.
        is_released: Whether it was given up; it is not live then.
    """

    space: str
    room: str
    sid: str
    holder: str
    worker: str
    epoch: int
    acquired_at: datetime
    renewed_at: datetime
    expires_at: datetime
    is_live: bool
    successor: str
    cut_ms: int | None
    seq_until: int
    is_released: bool


def prepare(database: Database) -> None:
    """Make the table in SQLite's own file where it is not there; PostgreSQL has it from its migrations.

    A file that a power cut has damaged is emptied: whoever held a lease there is gone as well.

    Raises:
        DatabaseAwayError: The file cannot be used for now.
    """
    if not database.is_sqlite or _is_whole(database):
        return
    file = Path(database.engine.url.database or "")
    with file.open("rb+") as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DatabaseAwayError(f"database {database.name} is being made anew by somebody else") from None
        database.close()
        if not _is_whole(database):  # somebody else may just have made it so
            database.close()
            opened.truncate(0)
            for suffix in ("-wal", "-shm"):
                file.with_name(file.name + suffix).unlink(missing_ok=True)
            _is_whole(database)
        database.close()  # while we have it open for ourselves: closing that gives up SQLite's locks


def take(connection: Connection, *, space: str, room: str, sid: str, holder: str, worker: str) -> Lease:
    """Take a lease that is vacant, has lapsed, or is the holder's already.

    Of what was before only `seq_until` is left.

    Returns:
        The lease as it is now: somebody else's where `holder` is another one.
    """
    upsert = _upsert(connection, space, room, sid, holder, worker, epoch=0)
    there = LEASE.c
    is_ours = there.holder == holder
    is_live = there.expires_at > clock(connection)
    values = {
        **_renewed(connection, sid, worker, epoch=0),
        "holder": holder,
        "acquired_at": case((and_(is_ours, is_live), there.acquired_at), else_=clock(connection)),
        "successor": "",
        "successor_expires_at": null(),
        "cut_ms": null(),
    }
    statement = upsert.on_conflict_do_update(
        index_elements=LEASE.primary_key.columns, set_=values, where=or_(is_ours, ~is_live)
    ).returning(*_columns(connection))
    taken = connection.execute(statement).one_or_none()
    # The statement has locked the row of whoever holds it, so that it is still there.
    return _lease(taken if taken is not None else _found(connection, space, room).one())


def renew(
    connection: Connection,
    *,
    space: str,
    room: str,
    sid: str,
    holder: str,
    worker: str,
    epoch: int,
    seq_until: int,
) -> Lease | None:
    """Hold a lease for another `LEASE_S`, also where it has lapsed and nobody took it, or its row is lost.

    Args:
        seq_until: The last `seq` that the holder will have given by the next renewal.

    Returns:
        The lease as it is now; None where somebody else holds it.
    """
    statement = (
        _upsert(connection, space, room, sid, holder, worker, epoch, seq_until)
        .on_conflict_do_update(
            index_elements=LEASE.primary_key.columns,
            set_={**_renewed(connection, sid, worker, epoch), "seq_until": seq_until},
            where=LEASE.c.holder == holder,
        )
        .returning(*_columns(connection))
    )
    renewed = connection.execute(statement).one_or_none()
    return _lease(renewed) if renewed is not None else None


def look(connection: Connection, space: str, room: str) -> Lease | None:
    """The lease of a room, also where it has lapsed."""
    found = _found(connection, space, room).one_or_none()
    return _lease(found) if found is not None else None


def offer(connection: Connection, *, space: str, room: str, holder: str, successor: str) -> Lease | None:
    """Stand by for another `LEASE_S` to take over from a holder.

    Changes nothing where that one does not hold it any more, or somebody else stands by. What is cut for
    somebody else is not cut for us, who may not have heard what comes after.

    Returns:
        The lease as it is now; None where there is none.
    """
    is_known = LEASE.c.successor == successor
    has_other = LEASE.c.successor_expires_at > clock(connection)
    connection.execute(
        update(LEASE)
        .where(*_held(space, room, holder), or_(is_known, ~func.coalesce(has_other, false())))
        .values(
            successor=successor,
            successor_expires_at=clock(connection, LEASE_S),
            cut_ms=case((is_known, LEASE.c.cut_ms), else_=null()),
        )
    )
    return look(connection, space, room)


def cut(connection: Connection, *, space: str, room: str, holder: str, cut_ms: int) -> bool:
    """Say up to where in session time the holder hears; False where it does not hold the lease."""
    cutting = update(LEASE).where(*_held(space, room, holder)).values(cut_ms=cut_ms)
    return connection.execute(cutting).rowcount > 0


def move(connection: Connection, *, space: str, room: str, holder: str) -> bool:
    """Give a lease to its successor, which leads from now on and reads where the one before cut.

    Returns:
        False where nobody stands by, or `holder` does not hold it.
    """
    moving = (
        update(LEASE)
        .where(
            *_held(space, room, holder),
            LEASE.c.successor != "",
            LEASE.c.successor_expires_at > clock(connection),
        )
        .values(
            holder=LEASE.c.successor,
            worker="",
            epoch=0,
            acquired_at=clock(connection),
            renewed_at=clock(connection),
            expires_at=clock(connection, LEASE_S),
            successor="",
            successor_expires_at=null(),
        )
    )
    return connection.execute(moving).rowcount > 0


def release(connection: Connection, *, space: str, room: str, holder: str) -> Lease | None:
    """Give a lease up: anybody may take it. The lease as it is now, or None where it was not theirs."""
    releasing = (
        update(LEASE)
        .where(*_held(space, room, holder))
        .values(expires_at=clock(connection), is_released=True)
        .returning(*_columns(connection))
    )
    released = connection.execute(releasing).one_or_none()
    return _lease(released) if released is not None else None


def forget(connection: Connection, *, space: str, room: str, holder: str) -> bool:
    """Remove a lease that has lapsed, as that of a closed room; False where it is live, or not theirs."""
    lapsed = LEASE.c.expires_at <= clock(connection)
    return connection.execute(delete(LEASE).where(*_held(space, room, holder), lapsed)).rowcount > 0


def every(connection: Connection) -> list[Lease]:
    """The leases of all rooms in all spaces, also those that have lapsed; not the reconciler's."""
    query = (
        select(*_columns(connection))
        .where(LEASE.c.space_id != NO_SPACE)
        .order_by(LEASE.c.space_id, LEASE.c.room)
    )
    return [_lease(row) for row in connection.execute(query)]


def _is_whole(database: Database) -> bool:
    """Whether a file is not damaged; then it has its table from now on."""
    try:
        with database.write() as connection:
            connection.execute(CreateTable(LEASE, if_not_exists=True))
            return bool(connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one() == "ok")
    except DatabaseAwayError as error:
        cause = error.__cause__.orig if isinstance(error.__cause__, DBAPIError) else None
        if isinstance(cause, sqlite3.DatabaseError) and cause.sqlite_errorcode & 0xFF in DAMAGED:
            return False
        raise


def _upsert(
    connection: Connection,
    space: str,
    room: str,
    sid: str,
    holder: str,
    worker: str,
    epoch: int,
    seq_until: int = 0,
) -> Any:
    insert = (sqlite if connection.dialect.name == "sqlite" else postgresql).insert(LEASE)
    return insert.values(
        space_id=space,
        room=room,
        holder=holder,
        acquired_at=clock(connection),
        seq_until=seq_until,
        **_renewed(connection, sid, worker, epoch),
    )


def _renewed(connection: Connection, sid: str, worker: str, epoch: int) -> dict[str, Any]:
    # What is set where the row is there already is worked out once it is locked.
    return {
        "sid": sid,
        "worker": worker,
        "epoch": epoch,
        "renewed_at": clock(connection),
        "expires_at": clock(connection, LEASE_S),
        "is_released": False,
    }


def _held(space: str, room: str, holder: str) -> tuple[ColumnElement[bool], ...]:
    return LEASE.c.space_id == space, LEASE.c.room == room, LEASE.c.holder == holder


def _columns(connection: Connection) -> tuple[ColumnElement[Any], ...]:
    """The fields of a `Lease`, by its names."""
    now = clock(connection)
    return (
        LEASE.c.space_id.label("space"),
        *(LEASE.c[name] for name in ("room", "sid", "holder", "worker", "epoch")),
        *(
            LEASE.c[name]
            for name in ("acquired_at", "renewed_at", "expires_at", "cut_ms", "seq_until", "is_released")
        ),
        (LEASE.c.expires_at > now).label("is_live"),
        case((LEASE.c.successor_expires_at > now, LEASE.c.successor), else_="").label("successor"),
    )


def _found(connection: Connection, space: str, room: str) -> Any:
    query = select(*_columns(connection)).where(LEASE.c.space_id == space, LEASE.c.room == room)
    return connection.execute(query)


def _lease(row: Row[Any]) -> Lease:
    return Lease(**row._mapping)
