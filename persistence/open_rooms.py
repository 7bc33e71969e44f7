"""What the database knows of rooms that are open, as far as it decides whether they want an agent."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, Table, func, select

from persistence.clock import database_time
from persistence.rows import ROOM_CONFIG, SESSION, SID, USAGE
from persistence.sessions import OPEN, RECONNECT
from persistence.tables import SessionStatus

__all__ = ["RoomRecord", "live_coverage", "room_records"]

MAX_IN = 500  # values in one query


@dataclass(frozen=True, slots=True)
class RoomRecord:
    """What is known of one room; by default nothing.

    Attributes:
        has_agent: What is set for it: always, never, or as it asks.
        has_open_session: Whether its session goes on, or would go on under the SID that it has now.
        ended_by: By what the newest session of its SID has ended, if it has.
    """

    has_agent: bool | None = None
    has_open_session: bool = False
    ended_by: str = ""


def room_records(
    connection: Connection, space: str, rooms: Sequence[tuple[str, str]]
) -> dict[str, RoomRecord]:
    """What is known of rooms, given by name and SID; by SID."""
    found: dict[str, RoomRecord] = {}
    for start in range(0, len(rooms), MAX_IN):
        found |= dict(_records(connection, space, rooms[start : start + MAX_IN]))
    return found


def _records(
    connection: Connection, space: str, rooms: Sequence[tuple[str, str]]
) -> Iterator[tuple[str, RoomRecord]]:
    names, sids = {name for name, _ in rooms}, {sid for _, sid in rooms}
    has_agent = {
        row.room: row.has_agent
        for row in connection.execute(
            select(ROOM_CONFIG.c.room, ROOM_CONFIG.c.has_agent).where(*_of(ROOM_CONFIG, space, names))
        )
    }
    # The newest of each SID stands last, and stays.
    of_sid = {
        row.sid: row
        for row in connection.execute(
            select(SID.c.sid, SESSION.c.status, SESSION.c.ended_by)
            .join_from(SID, SESSION, SESSION.c.id == SID.c.session_id)
            .where(SID.c.space_id == space, SID.c.sid.in_(sids))
            .order_by(SESSION.c.started_at, SESSION.c.id)
        )
    }
    # As a job goes on with them, where a restarted LiveKit server has given their rooms another SID.
    reconnecting = set(
        connection.execute(
            select(SESSION.c.room).where(
                *_of(SESSION, space, names),
                SESSION.c.status.in_(OPEN),
                SESSION.c.heard_at > database_time(connection) - RECONNECT,
            )
        ).scalars()
    )
    for name, sid in rooms:
        session = of_sid.get(sid)
        yield (
            sid,
            RoomRecord(
                has_agent.get(name),
                name in reconnecting if session is None else session.status in OPEN,
                "" if session is None else session.ended_by,
            ),
        )


def _of(table: Table, space: str, names: set[str]) -> tuple[ColumnElement[bool], ...]:
    return table.c.space_id == space, table.c.room.in_(names)


def live_coverage(connection: Connection) -> float:
    """Of all speech in live sessions, of every space, the share that is in finals; 1 for none."""
    sums = (
        select(func.sum(USAGE.c.speech_ms), func.sum(USAGE.c.covered_ms))
        .join(SESSION, SESSION.c.id == USAGE.c.session_id)
        .where(SESSION.c.status == SessionStatus.LIVE)
    )
    speech_ms, covered_ms = connection.execute(sums).one()
    return float(covered_ms / speech_ms) if speech_ms else 1.0
