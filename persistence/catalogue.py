"""Looking sessions up: lists, all about one, and which one is meant. Nothing here changes anything."""

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, ColumnElement, Connection, Row, Select, Table, cast, func, select, tuple_

from persistence.paging import Page
from persistence.records import Failure, Gap, Presence, Usage
from persistence.rows import (
    EPOCH,
    PARTICIPANT,
    PROCESSING_ERROR,
    SESSION,
    SID,
    STEM,
    USAGE,
    UTTERANCE,
    columns,
    records,
)
from persistence.sessions import newest_of_sid
from persistence.tables import Key, SessionStatus
from persistence.transcripts import gaps

__all__ = [
    "Epoch",
    "SessionCursor",
    "SessionDetail",
    "SessionSummary",
    "find_by_prefix",
    "find_by_sid",
    "get_session",
    "has_ended",
    "is_complete",
    "list_sessions",
    "resolve",
]

MAX_FAILURES_SHOWN = 100


@dataclass(frozen=True, slots=True)
class SessionSummary:
    """A session, as lists show it."""

    id: str
    room: str
    status: str
    epoch: int
    languages: tuple[str, ...]
    started_at: datetime
    heard_at: datetime
    ended_at: datetime | None
    ended_by: str


@dataclass(frozen=True, slots=True)
class Epoch:
    """An agent that led a session, and under which id and epoch it did.

    Everything that it kept is in the database from `settled_at` on; None as long as something may come.
    """

    epoch: int
    agent: str
    worker: str
    began_at: datetime
    settled_at: datetime | None
    published_as: str
    published_epoch: int


@dataclass(frozen=True, slots=True)
class SessionDetail:
    """All about a session but what was said. `stems_ms` and `stems_bytes` are of the closed segments.

    `usage` is summed over the epochs; `failures` are the newest, newest first.
    """

    summary: SessionSummary
    sids: tuple[str, ...]
    epochs: tuple[Epoch, ...]
    presences: tuple[Presence, ...]
    finals: int
    gaps: tuple[Gap, ...]
    stems: int
    stems_ms: int
    stems_bytes: int
    usage: tuple[Usage, ...]
    failures: tuple[Failure, ...]


class SessionCursor(NamedTuple):
    """A place in a list of sessions."""

    started_at: datetime
    id: str


def resolve(connection: Connection, space: str, session_id: str) -> str | None:
    """The session that this id means, which is another one where it was merged; None if there is none."""
    found = connection.execute(
        select(func.coalesce(SESSION.c.merged_into, SESSION.c.id)).where(
            SESSION.c.space_id == space, SESSION.c.id == session_id
        )
    ).scalar_one_or_none()
    return None if found is None else str(found)


def find_by_sid(connection: Connection, space: str, room_sid: str) -> str | None:
    """The newest session of a LiveKit room."""
    found = connection.execute(newest_of_sid(space, room_sid)).one_or_none()
    return None if found is None else str(found.id)


def find_by_prefix(connection: Connection, space: str, prefix: str) -> set[str]:
    """The sessions whose ids begin so; of merged ones what they became."""
    beginning = func.substr(SESSION.c.id, 1, len(prefix), type_=Key())
    query = select(func.coalesce(SESSION.c.merged_into, SESSION.c.id)).where(
        SESSION.c.space_id == space, beginning == prefix
    )
    return set(connection.execute(query).scalars())


def has_ended(connection: Connection, space: str, session_id: str) -> bool:
    """Whether a session is over. One that its agent alone is gone from may yet go on, within a minute."""
    ended = select(SESSION.c.id).where(
        SESSION.c.space_id == space, SESSION.c.id == session_id, SESSION.c.status == SessionStatus.ENDED
    )
    return connection.execute(ended).first() is not None


def is_complete(connection: Connection, space: str, session_id: str) -> bool:
    """Whether a session has ended and all that its agents kept is in the database."""
    unsettled = select(EPOCH.c.epoch).where(
        EPOCH.c.space_id == space, EPOCH.c.session_id == session_id, EPOCH.c.settled_at.is_(None)
    )
    ended = select(SESSION.c.id).where(
        SESSION.c.space_id == space,
        SESSION.c.id == session_id,
        SESSION.c.status == SessionStatus.ENDED,
        ~unsettled.exists(),
    )
    return connection.execute(ended).first() is not None


def list_sessions(
    connection: Connection,
    space: str,
    *,
    after: SessionCursor | None = None,
    limit: int = 50,
    room: str | None = None,
) -> Page[SessionSummary, SessionCursor]:
    """The sessions of a space, or of one room in it, the newest first."""
    order = (SESSION.c.started_at, SESSION.c.id)
    query = _summaries(space).order_by(*(column.desc() for column in order)).limit(limit + 1)
    if room is not None:
        query = query.where(SESSION.c.room == room)
    if after is not None:
        query = query.where(tuple_(*order) < tuple_(*after))
    found = [_summary(row) for row in connection.execute(query)]
    items = tuple(found[:limit])
    return Page(items, SessionCursor(items[-1].started_at, items[-1].id) if len(found) > limit else None)


def get_session(connection: Connection, space: str, session_id: str) -> SessionDetail | None:
    """All about a session; about the one that it was merged into, where it was."""
    session_id = resolve(connection, space, session_id) or session_id
    row = connection.execute(_summaries(space).where(SESSION.c.id == session_id)).one_or_none()
    if row is None:
        return None

    def its(table: Table, *selected: Any) -> Select[Any]:
        return select(*selected).where(table.c.space_id == space, table.c.session_id == session_id)

    stems = its(STEM, func.count(), _total(STEM.c.duration_ms), _total(STEM.c.size_bytes))
    usage = its(
        USAGE,
        USAGE.c.identity,
        _total(USAGE.c.speech_ms).label("speech_ms"),
        _total(USAGE.c.stt_ms).label("stt_ms"),
        _total(USAGE.c.covered_ms).label("covered_ms"),
    )
    presences = its(PARTICIPANT, *columns(PARTICIPANT, Presence))
    failures = its(PROCESSING_ERROR, *columns(PROCESSING_ERROR, Failure))
    epochs = its(EPOCH, *(EPOCH.c[field.name] for field in fields(Epoch)))
    number, stems_ms, stems_bytes = connection.execute(stems).one()
    return SessionDetail(
        summary=_summary(row),
        sids=tuple(connection.execute(its(SID, SID.c.sid).order_by(SID.c.since, SID.c.sid)).scalars()),
        epochs=tuple(Epoch(*found) for found in connection.execute(epochs.order_by(EPOCH.c.epoch))),
        presences=records(
            connection, Presence, presences.order_by(PARTICIPANT.c.joined_ms, PARTICIPANT.c.identity)
        ),
        finals=connection.execute(its(UTTERANCE, func.count())).scalar_one(),
        gaps=gaps(connection, space, session_id),
        stems=number,
        stems_ms=stems_ms,
        stems_bytes=stems_bytes,
        usage=records(connection, Usage, usage.group_by(USAGE.c.identity).order_by(USAGE.c.identity)),
        failures=records(
            connection,
            Failure,
            failures.order_by(PROCESSING_ERROR.c.at.desc(), PROCESSING_ERROR.c.id.desc()).limit(
                MAX_FAILURES_SHOWN
            ),
        ),
    )


def _summaries(space: str) -> Select[Any]:
    return select(*(SESSION.c[field.name] for field in fields(SessionSummary))).where(
        SESSION.c.space_id == space, SESSION.c.status != SessionStatus.MERGED
    )


def _summary(row: Row[Any]) -> SessionSummary:
    return SessionSummary(**{**row._mapping, "languages": tuple(row.languages)})


def _total(column: ColumnElement[int]) -> ColumnElement[int]:
    # PostgreSQL sums up to a decimal.
    return cast(func.coalesce(func.sum(column), 0), BigInteger)
