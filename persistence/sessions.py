"""A session's life in the database: it begins, goes on under another agent, and ends.

Every function takes a connection, so that its caller decides what belongs into one transaction:
`Database.write()` for what changes something, `Database.read()` for the rest.
"""

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    Table,
    case,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)

from persistence.clock import clock, database_time
from persistence.position import Position
from persistence.records import Begun, Gap
from persistence.rows import (
    AUDIT_EVENT,
    EPOCH,
    GAP,
    ROOM_CONFIG,
    SESSION,
    SID,
    STEM,
    UTTERANCE,
)
from persistence.tables import Key, RoomConfig, SessionStatus, UtcDateTime

__all__ = [
    "AGENT_AWAY",
    "AGENT_LOST",
    "Lost",
    "Opening",
    "Placement",
    "Refused",
    "add_sid",
    "begin",
    "database_time",
    "end",
    "end_lost",
    "end_without_agent",
    "newest_of_sid",
    "placement",
    "register",
    "room_config",
    "settle",
    "settle_orphans",
    "space_of",
    "sweep_candidates",
    "touch",
]

AGENT_AWAY = "agent_away"  # why a gap between two epochs was not heard
AGENT_LOST = "agent_lost"  # by whom a session ended whose agent was not heard of any more
ENDED_FOR_GOOD = frozenset({"duration", "participants", "host", "api"})
ENDED_FOR_NOW = frozenset({"idle"})  # the same room may begin another session
RECONNECT = timedelta(seconds=60)  # a room with a new SID goes on with its session within that time
CLOCK_SKEW = timedelta(seconds=5)  # the clocks of two of our machines are not further apart
# What an agent had not turned into a final when it died was not longer: an utterance takes 28 s at most. A
# longer silence before was heard.
IN_FLIGHT = timedelta(seconds=30)
OPEN = (SessionStatus.CREATED, SessionStatus.LIVE)
LIVE_AGAIN = {"status": SessionStatus.LIVE, "ended_at": None, "ended_by": ""}
ENVELOPE = {"v", "kind"}  # what a record has and a row has not
BEGINNING = Position(1, 0)  # of a journal


@dataclass(frozen=True, slots=True)
class Opening:
    """What a job needs to lead a session: its first record, the next `seq`, and what is set for its room.

    At `at` of the database's clock it is `now_ms` in the session. What is heard before the offset of `begun`
    belongs to the agent before.
    """

    begun: Begun
    next_seq: int
    room_config: RoomConfig | None
    at: datetime
    now_ms: int = 0


@dataclass(frozen=True, slots=True)
class Refused:
    """The room's session was ended for good, for this reason."""

    reason: str


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the records of a journal belong: to which session and epoch, and what is added to their times.

    Everything before `watermark` is in the database already.
    """

    session_id: str
    space_id: str
    epoch: int
    worker: str
    shift_ms: int = 0
    watermark: Position = BEGINNING


@dataclass(frozen=True, slots=True)
class Lost:
    """A session that nobody has heard of since `heard_at`."""

    id: str
    room: str
    sids: tuple[str, ...]
    heard_at: datetime


def begin(
    connection: Connection,
    *,
    space: str,
    room: str,
    room_sid: str,
    worker: str,
    languages: Sequence[str],
    new_id: str,
    agent: str = "",
    cut_ms: int | None = None,
    last_seqs: Mapping[str, int] = MappingProxyType({}),
    seq_until: int = 0,
) -> Opening | Refused:
    """Begin the session of a room, or go on with the one that it has.

    A room goes on with the newest session of its SID. Where a restarted LiveKit server gave it another one,
    it goes on with the live session of its name, if that was heard of within the last minute.

    Args:
        room_sid: The room as LiveKit knows it.
        worker: Who keeps the journal and the audio.
        languages: What is spoken, as ISO 639-1 codes.
        new_id: The session's id if it is a new one.
        agent: The agent's identity in the room.
        cut_ms: Up to where, in session time, the agent before has heard, if it hands over.
        last_seqs: By session, the last `seq` that viewers may have got, where the database may not know it.
        seq_until: The last one that the agent before may have given, where neither knows. Numbers that it has
            not given are missing then, which a viewer can ask about; none comes twice.
    """
    _lock_room(connection, space, room)
    at = database_time(connection)
    known = _locked(connection, newest_of_sid(space, room_sid)) or _locked(
        connection, _reconnecting(space, room, at)
    )
    if known is not None and known.ended_by in ENDED_FOR_GOOD:
        return Refused(known.ended_by)
    begun = Begun(
        session=new_id,
        epoch=1,
        space=space,
        room=room,
        room_sid=room_sid,
        agent=agent,
        worker=worker,
        languages=tuple(languages),
        started_at=at,
        offset_ms=0,
        is_provisional=False,
    )
    now_ms, next_seq = 0, 1
    if known is None or known.ended_by in ENDED_FOR_NOW:
        _create(connection, begun, SessionStatus.CREATED, at)
    else:
        begun, now_ms = _continue(connection, known, begun, at, cut_ms)
        next_seq = _next_seq(connection, known, last_seqs, seq_until)
    _add_sid(connection, space, begun.session, room_sid, at)
    _add_epoch(connection, begun, Placement(begun.session, space, begun.epoch, worker))
    return Opening(begun, next_seq, room_config(connection, space, room), at, now_ms)


def add_sid(connection: Connection, space: str, session_id: str, sid: str) -> None:
    """A room has another SID, and its session goes on: LiveKit was started again. Idempotent."""
    _add_sid(connection, space, session_id, sid, database_time(connection))


def register(connection: Connection, begun: Begun) -> Placement:
    """Say where a journal's records belong, and remember it. Idempotent.

    A session that began without the database becomes a part of the one that its SID has, under an epoch that
    is free there; else it is one of its own. The room's name says nothing here: what is live as far as the
    database knows may have ended while the database was away.
    """
    _lock_room(connection, begun.space, begun.room)
    if (placed := placement(connection, begun.space, begun.session, begun.epoch)) is not None:
        return placed
    at, began_at = database_time(connection), _began_at(begun)
    target = _own(connection, begun) or _merged(connection, begun, at)
    if target is None:
        # Nobody was heard in the future, whatever time it is on a worker.
        _create(connection, begun, SessionStatus.LIVE, min(began_at, at))
        placed = Placement(begun.session, begun.space, begun.epoch, begun.worker)
    else:
        placed = Placement(
            target.id,
            begun.space,
            _free_epoch(connection, target, begun.epoch),
            begun.worker,
            # A worker whose clock is a little behind did not begin before the session did.
            shift_ms=max(_ms(begun.started_at - target.started_at), 0),
        )
        _follow(connection, target, placed.epoch, began_at)
        if begun.is_provisional:
            _add_away(connection, target, placed.epoch, placed.shift_ms + begun.offset_ms)
    _add_sid(connection, begun.space, placed.session_id, begun.room_sid, began_at)
    _add_epoch(connection, begun, placed)
    return placed


def placement(connection: Connection, space: str, published_as: str, epoch: int) -> Placement | None:
    """Where the records of this journal belong, if it was registered."""
    row = connection.execute(select(EPOCH).where(*_published(space, published_as, epoch))).one_or_none()
    if row is None:
        return None
    watermark = Position(row.journal_segment, row.journal_offset_bytes)
    return Placement(row.session_id, row.space_id, row.epoch, row.worker, row.shift_ms, watermark)


def space_of(connection: Connection, published_as: str, epoch: int) -> str | None:
    """The space of a journal on this machine that has lost its beginning, if it was registered."""
    space: str | None = connection.execute(
        select(EPOCH.c.space_id).where(EPOCH.c.published_as == published_as, EPOCH.c.published_epoch == epoch)
    ).scalar_one_or_none()
    return space


def touch(connection: Connection, space: str, session_id: str) -> None:
    """Its agent gave a sign of life. A session that was just created, or taken for lost, is live."""
    connection.execute(
        update(SESSION)
        .where(*_is(space, session_id), _is_open())
        .values(heard_at=clock(connection), **LIVE_AGAIN)
    )


def settle(connection: Connection, space: str, published_as: str, epoch: int) -> None:
    """Nothing more comes from this agent: it is gone, and its journal is in the database."""
    connection.execute(
        update(EPOCH).where(*_published(space, published_as, epoch)).values(settled_at=clock(connection))
    )


def settle_orphans(
    connection: Connection, worker: str, journals: Collection[tuple[str, int]], older_than_s: float
) -> int:
    """Settle what agents of a worker led, in all spaces, and left nothing of to bring over; tells how many.

    An agent may have had no journal, or the database may have begun a session for one that had given up.

    Args:
        journals: What can still be brought over, by the session and epoch that it is published as. Looked at
            before this.
        older_than_s: An agent that began within that time may still make its journal, and one that leads a
            session that was heard of within it may live without one.
    """
    before = database_time(connection) - timedelta(seconds=older_than_s)
    unsettled = connection.execute(
        select(EPOCH.c.space_id, EPOCH.c.published_as, EPOCH.c.published_epoch)
        .join_from(EPOCH, SESSION, SESSION.c.id == EPOCH.c.session_id)
        .where(
            EPOCH.c.worker == worker,
            EPOCH.c.settled_at.is_(None),
            EPOCH.c.began_at < before,
            or_(
                SESSION.c.status.not_in(OPEN),
                SESSION.c.epoch != EPOCH.c.epoch,
                SESSION.c.heard_at < before,
            ),
        )
    ).all()
    orphans = [row for row in unsettled if (row.published_as, row.published_epoch) not in journals]
    for orphan in orphans:
        settle(connection, orphan.space_id, orphan.published_as, orphan.published_epoch)
    return len(orphans)


def end(
    connection: Connection,
    space: str,
    session_id: str,
    reason: str,
    at: datetime,
    *,
    epoch: int | None = None,
) -> bool:
    """End a session that has not ended yet, or is only taken for lost; tells whether this ended it.

    Args:
        at: When; where that is before its beginning, by somebody's wrong clock, it ended as it began.
        epoch: Who says so: nobody believes an agent that has a successor.
    """
    told_at = literal(at, UtcDateTime())
    ended_at = case((SESSION.c.started_at > told_at, SESSION.c.started_at), else_=told_at)
    ending = (
        update(SESSION)
        .where(*_is(space, session_id), _is_open())
        .values(status=SessionStatus.ENDED, ended_at=ended_at, ended_by=reason)
    )
    if epoch is not None:
        ending = ending.where(SESSION.c.epoch == epoch)
    return connection.execute(ending).rowcount > 0


def sweep_candidates(connection: Connection, lost_after_s: float) -> list[Lost]:
    """The open sessions of all spaces that nobody has heard of for so long, the longest first."""
    heard_before = database_time(connection) - timedelta(seconds=lost_after_s)
    rows = connection.execute(
        select(SESSION.c.id, SESSION.c.room, SESSION.c.heard_at, SID.c.sid)
        .join_from(SESSION, SID, SID.c.session_id == SESSION.c.id, isouter=True)
        .where(SESSION.c.status.in_(OPEN), SESSION.c.heard_at < heard_before)
        .order_by(SESSION.c.heard_at, SESSION.c.id, SID.c.since)
    ).all()
    sids: dict[str, list[str]] = {}
    for row in rows:
        sids.setdefault(row.id, []).extend([row.sid] if row.sid else [])
    lost = {row.id: row for row in rows}.values()
    return [Lost(row.id, row.room, tuple(sids[row.id]), row.heard_at) for row in lost]


def end_lost(connection: Connection, session_id: str, heard_before: datetime) -> bool:
    """End an open session that was not heard of after `heard_before`; tells whether this ended it.

    It ended when it was last heard of, or with the last of what is known of it.
    """
    found = _locked(
        connection,
        select(SESSION).where(
            SESSION.c.id == session_id,
            SESSION.c.status.in_(OPEN),
            SESSION.c.heard_at <= heard_before,
        ),
    )
    if found is None:
        return False
    end(connection, found.space_id, session_id, AGENT_LOST, _last_known_at(connection, found))
    _audit(connection, found.space_id, "session.lost", session_id, heard_at=found.heard_at.isoformat())
    return True


def end_without_agent(connection: Connection, space: str, session_id: str, ended_by: str) -> bool:
    """End an open session whose agent does not answer; tells whether this ended it.

    It ended when it was last heard of, or with the last of what is known of it: what came after that was
    heard by nobody, and would count as silence.
    """
    found = _locked(connection, select(SESSION).where(*_is(space, session_id), _is_open()))
    if found is None:
        return False
    end(connection, space, session_id, ended_by, _last_known_at(connection, found))
    return True


def _last_known_at(connection: Connection, session: Row[Any]) -> datetime:
    known_ms = _extent_ms(connection, session)
    at: datetime = max(session.heard_at, session.started_at + timedelta(milliseconds=known_ms))
    return at


def _lock_room(connection: Connection, space: str, room: str) -> None:
    """Until the transaction ends, no other one begins or registers a session of this room."""
    if connection.dialect.name != "sqlite":  # where a transaction that writes is alone
        room_key = literal(f"{space}\n{room}", Key())
        connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(room_key, 0))))


def _is_open() -> ColumnElement[bool]:
    return or_(SESSION.c.status.in_(OPEN), SESSION.c.ended_by == AGENT_LOST)


def _is(space: str, session_id: str) -> tuple[ColumnElement[bool], ...]:
    return SESSION.c.space_id == space, SESSION.c.id == session_id


def _published(space: str, published_as: str, epoch: int) -> tuple[ColumnElement[bool], ...]:
    return (
        EPOCH.c.space_id == space,
        EPOCH.c.published_as == published_as,
        EPOCH.c.published_epoch == epoch,
    )


def _belongs(table: Table, session: Row[Any]) -> tuple[ColumnElement[bool], ...]:
    return table.c.space_id == session.space_id, table.c.session_id == session.id


def _locked(connection: Connection, query: Select[Any]) -> Row[Any] | None:
    """The session that a query finds; whoever else changes it comes before or after our transaction."""
    return connection.execute(query.with_for_update(of=SESSION, key_share=True)).one_or_none()


def newest_of_sid(space: str, room_sid: str) -> Select[Any]:
    """The query for the session that began last among those of a LiveKit room."""
    return (
        select(SESSION)
        .join_from(SID, SESSION, SESSION.c.id == SID.c.session_id)
        .where(SID.c.space_id == space, SID.c.sid == room_sid)
        .order_by(SESSION.c.started_at.desc(), SESSION.c.id.desc())
        .limit(1)
    )


def _reconnecting(space: str, room: str, at: datetime) -> Select[Any]:
    return (
        select(SESSION)
        .where(
            SESSION.c.space_id == space,
            SESSION.c.room == room,
            SESSION.c.status.in_(OPEN),
            SESSION.c.heard_at > at - RECONNECT,
        )
        .order_by(SESSION.c.started_at.desc(), SESSION.c.id.desc())
        .limit(1)
    )


def _create(
    connection: Connection,
    begun: Begun,
    status: SessionStatus,
    heard_at: datetime,
    merged_into: str | None = None,
) -> None:
    connection.execute(
        insert(SESSION).values(
            id=begun.session,
            space_id=begun.space,
            room=begun.room,
            status=status,
            epoch=begun.epoch,
            languages=list(begun.languages),
            started_at=begun.started_at,
            heard_at=heard_at,
            ended_by="",
            merged_into=merged_into,
        )
    )


def _continue(
    connection: Connection,
    known: Row[Any],
    begun: Begun,
    at: datetime,
    cut_ms: int | None,
) -> tuple[Begun, int]:
    """Lead a known session on: what was begun, and session time."""
    # Clocks may jump back, session time does not.
    now_ms = max(
        _ms(at - known.started_at), _extent_ms(connection, known), _last_offset_ms(connection, known)
    )
    epoch = _last_epoch(connection, known) + 1
    if cut_ms is None:
        _add_away(connection, known, epoch, now_ms)
    offset_ms = now_ms if cut_ms is None else min(cut_ms, now_ms)
    connection.execute(
        update(SESSION)
        .where(*_is(known.space_id, known.id))
        .values(epoch=epoch, heard_at=at, **(LIVE_AGAIN if known.status == SessionStatus.ENDED else {}))
    )
    told = {"session": known.id, "epoch": epoch, "started_at": known.started_at, "offset_ms": offset_ms}
    return begun.model_copy(update=told), now_ms


def _next_seq(connection: Connection, known: Row[Any], last_seqs: Mapping[str, int], seq_until: int) -> int:
    """The number of the next durable event, which no agent before has given to another one."""
    _, kept_seq = _said(connection, known)
    if known.id in last_seqs:
        return max(kept_seq, last_seqs[known.id]) + 1
    newest = (
        select(EPOCH.c.settled_at).where(*_belongs(EPOCH, known)).order_by(EPOCH.c.began_at.desc()).limit(1)
    )
    is_all_here = connection.execute(newest).scalar_one() is not None
    return (kept_seq if is_all_here else max(kept_seq, seq_until)) + 1


def _add_away(connection: Connection, known: Row[Any], epoch: int, until_ms: int) -> None:
    """Say what was not heard, or not turned into text, before this epoch began at `until_ms`.

    What somebody was saying when the agent before it died is neither in a final nor after its last sign of
    life. An agent that ended the session had given out all that it heard.
    """
    has_ended = known.status == SessionStatus.ENDED and known.ended_by != AGENT_LOST
    heard_until = known.ended_at if has_ended else known.heard_at - IN_FLIGHT
    said_ms, _ = _said(connection, known)
    since_ms = max(said_ms, _last_offset_ms(connection, known), _ms(heard_until - known.started_at))
    if since_ms < until_ms:
        away = Gap(start_ms=since_ms, end_ms=until_ms, reason=AGENT_AWAY)
        connection.execute(
            insert(GAP).values(
                session_id=known.id, space_id=known.space_id, epoch=epoch, **away.model_dump(exclude=ENVELOPE)
            )
        )


def _said(connection: Connection, session: Row[Any]) -> tuple[int, int]:
    """Until when there are finals of a session, in ms, and the highest `seq` in it."""
    last_ms, last_seq = connection.execute(
        select(func.max(UTTERANCE.c.end_ms), func.max(UTTERANCE.c.seq)).where(*_belongs(UTTERANCE, session))
    ).one()
    return last_ms or 0, last_seq or 0


def _last_offset_ms(connection: Connection, session: Row[Any]) -> int:
    """When its newest agent began to lead a session, in session time."""
    began_at = connection.execute(
        select(func.max(EPOCH.c.began_at, type_=UtcDateTime())).where(*_belongs(EPOCH, session))
    ).scalar_one()
    return max(_ms(began_at - session.started_at), 0) if began_at is not None else 0


def _extent_ms(connection: Connection, session: Row[Any]) -> int:
    """Until when something is known of a session."""
    stems_ms = connection.execute(
        select(func.max(STEM.c.start_ms + func.coalesce(STEM.c.duration_ms, 0))).where(
            *_belongs(STEM, session)
        )
    ).scalar_one()
    said_ms, _ = _said(connection, session)
    return max(said_ms, stems_ms or 0)


def _own(connection: Connection, begun: Begun) -> Row[Any] | None:
    """The session that a journal's own id means: what it was merged into, where it was."""
    known = connection.execute(select(SESSION).where(*_is(begun.space, begun.session))).one_or_none()
    if known is None or known.merged_into is None:
        return known
    return connection.execute(select(SESSION).where(*_is(begun.space, known.merged_into))).one()


def _merged(connection: Connection, begun: Begun, at: datetime) -> Row[Any] | None:
    """Make a session that began without the database a part of the one that its SID has, if there is one."""
    target = _locked(connection, newest_of_sid(begun.space, begun.room_sid))
    began_at = _began_at(begun)
    # What came first cannot be placed in session time, which has nothing before its 0; nor can what has not
    # come yet, since its worker's clock is wrong.
    if target is None or not target.started_at - CLOCK_SKEW <= began_at <= at + CLOCK_SKEW:
        return None
    if _was_over(target, began_at) and target.ended_by in ENDED_FOR_GOOD | ENDED_FOR_NOW:
        return None
    _create(connection, begun, SessionStatus.MERGED, began_at, merged_into=target.id)
    _audit(connection, begun.space, "session.merged", begun.session, into=target.id)
    return target


def _follow(connection: Connection, target: Row[Any], epoch: int, began_at: datetime) -> None:
    """Say that this epoch leads the session, if none began later."""
    newest = connection.execute(
        select(func.max(EPOCH.c.began_at, type_=UtcDateTime())).where(*_belongs(EPOCH, target))
    ).scalar_one()
    if newest is not None and began_at < newest:
        return
    again = LIVE_AGAIN if _was_over(target, began_at) else {}
    connection.execute(
        update(SESSION)
        .where(*_is(target.space_id, target.id))
        .values(epoch=max(target.epoch, epoch), heard_at=max(target.heard_at, began_at), **again)
    )


def _was_over(target: Row[Any], at: datetime) -> bool:
    return bool(target.status == SessionStatus.ENDED and target.ended_at <= at)


def _last_epoch(connection: Connection, session: Row[Any]) -> int:
    # Not the session's own column: one that was registered late does not lead.
    last = select(func.max(EPOCH.c.epoch)).where(*_belongs(EPOCH, session))
    return connection.execute(last).scalar_one() or 0


def _free_epoch(connection: Connection, session: Row[Any], wanted: int) -> int:
    taken = select(EPOCH.c.epoch).where(*_belongs(EPOCH, session), EPOCH.c.epoch == wanted)
    if connection.execute(taken).one_or_none() is None:
        return wanted
    return _last_epoch(connection, session) + 1


def _add_sid(connection: Connection, space: str, session_id: str, sid: str, since: datetime) -> None:
    known = select(SID.c.sid).where(SID.c.space_id == space, SID.c.session_id == session_id, SID.c.sid == sid)
    if connection.execute(known).one_or_none() is None:
        connection.execute(insert(SID).values(session_id=session_id, sid=sid, space_id=space, since=since))


def _add_epoch(connection: Connection, begun: Begun, placed: Placement) -> None:
    connection.execute(
        insert(EPOCH).values(
            published_as=begun.session,
            published_epoch=begun.epoch,
            session_id=placed.session_id,
            epoch=placed.epoch,
            space_id=begun.space,
            agent=begun.agent,
            worker=begun.worker,
            began_at=_began_at(begun),
            shift_ms=placed.shift_ms,
            journal_segment=placed.watermark.segment,
            journal_offset_bytes=placed.watermark.offset_bytes,
        )
    )


def room_config(connection: Connection, space: str, room: str) -> RoomConfig | None:
    """What is set for a room."""
    row = connection.execute(
        select(ROOM_CONFIG).where(ROOM_CONFIG.c.space_id == space, ROOM_CONFIG.c.room == room)
    ).one_or_none()
    return None if row is None else RoomConfig(**row._mapping)


def _audit(connection: Connection, space: str, action: str, subject: str, **detail: str) -> None:
    connection.execute(
        insert(AUDIT_EVENT).values(
            id=uuid.uuid4().hex,
            space_id=space,
            at=clock(connection),
            actor="roomscribe",
            action=action,
            subject=subject,
            detail=detail,
        )
    )


def _began_at(begun: Begun) -> datetime:
    return begun.started_at + timedelta(milliseconds=begun.offset_ms)


def _ms(duration: timedelta) -> int:
    return duration // timedelta(milliseconds=1)
