"""Audio that was made of a session's stems, for listening."""

from dataclasses import dataclass, fields
from datetime import datetime

from sqlalchemy import Connection, select
from sqlalchemy.dialects import postgresql, sqlite

from agent.errors import DatabaseError
from persistence.clock import clock
from persistence.rows import RENDERING, STEM

__all__ = ["LISTENING", "Rendering", "Source", "closed_stems", "get", "put"]

LISTENING = "listening"  # everybody mixed into one


@dataclass(frozen=True, slots=True)
class Source:
    """A segment of one track's audio. `path` is relative to the folder of stems on the disk of `worker`."""

    identity: str
    worker: str
    path: str
    sample_rate_hz: int
    start_ms: int
    duration_ms: int


@dataclass(frozen=True, slots=True)
class Rendering:
    """A file of audio. `path` is relative to the folder of all renderings."""

    path: str
    media_type: str
    duration_ms: int
    size_bytes: int
    made_at: datetime


def closed_stems(connection: Connection, space: str, session_id: str) -> list[Source]:
    """The segments of a session that have ended, by their time."""
    rows = connection.execute(
        select(*(STEM.c[field.name] for field in fields(Source)))
        .where(STEM.c.space_id == space, STEM.c.session_id == session_id, STEM.c.duration_ms.is_not(None))
        .order_by(STEM.c.start_ms, STEM.c.identity, STEM.c.path)
    )
    return [Source(*row) for row in rows]


def get(connection: Connection, space: str, session_id: str, kind: str = LISTENING) -> Rendering | None:
    """A rendering of a session, if there is one."""
    row = connection.execute(
        select(*(RENDERING.c[field.name] for field in fields(Rendering))).where(
            RENDERING.c.space_id == space, RENDERING.c.session_id == session_id, RENDERING.c.kind == kind
        )
    ).one_or_none()
    return None if row is None else Rendering(*row)


def put(
    connection: Connection,
    space: str,
    session_id: str,
    *,
    path: str,
    media_type: str,
    duration_ms: int,
    size_bytes: int,
    kind: str = LISTENING,
) -> None:
    """Write down that a rendering is there, in the place of one of the same kind. Idempotent.

    Raises:
        DatabaseError: The session has one in another space.
    """
    its = {
        "path": path,
        "media_type": media_type,
        "duration_ms": duration_ms,
        "size_bytes": size_bytes,
        "made_at": clock(connection),
    }
    insert = (sqlite if connection.dialect.name == "sqlite" else postgresql).insert(RENDERING)
    placed = connection.execute(
        insert.values(session_id=session_id, kind=kind, space_id=space, **its)
        .on_conflict_do_update(
            index_elements=RENDERING.primary_key.columns, set_=its, where=RENDERING.c.space_id == space
        )
        .returning(RENDERING.c.session_id)
    )
    if placed.first() is None:
        raise DatabaseError(f"rendering {kind} of session {session_id} is in another space")
