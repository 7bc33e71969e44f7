"""Commands: what somebody asks the agent of a session to do, and what becomes of it.

Every function takes a connection: `Database.write()` for what changes something, `Database.read()` for the
rest.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, insert, or_, select, update

from persistence.clock import clock
from persistence.rows import AUDIT_EVENT, SESSION, SESSION_COMMAND
from persistence.sessions import AGENT_LOST
from persistence.tables import SessionStatus

__all__ = ["DONE", "END", "REFUSED", "Command", "answer", "ask", "ended_by", "find", "waiting"]

END = "end"  # the kind: leave the room, which has no agent from then on; body: {"reason": "api"}
DONE = "done"  # the outcome
REFUSED = "refused: "  # how the outcome begins otherwise; the reason follows


@dataclass(frozen=True, slots=True)
class Command:
    """A command for the agent of a session; it waits as long as `done_at` is None."""

    id: str
    space: str
    session_id: str
    kind: str
    body: Mapping[str, Any]
    asked_by: str
    asked_at: datetime
    done_at: datetime | None
    outcome: str


def ask(
    connection: Connection,
    *,
    space: str,
    session_id: str,
    kind: str,
    body: Mapping[str, Any],
    asked_by: str,
) -> str:
    """Ask for something, which is kept as an audit event as well; the command's id.

    Raises:
        DatabaseError: There is no such session.
    """
    command_id = uuid.uuid4().hex
    connection.execute(
        insert(SESSION_COMMAND).values(
            id=command_id,
            space_id=space,
            session_id=session_id,
            kind=kind,
            body=dict(body),
            asked_by=asked_by,
            asked_at=clock(connection),
            outcome="",
        )
    )
    connection.execute(
        insert(AUDIT_EVENT).values(
            id=uuid.uuid4().hex,
            space_id=space,
            at=clock(connection),
            actor=asked_by,
            action=f"session.{kind}_asked",
            subject=session_id,
            detail={"command": command_id, **body},
        )
    )
    return command_id


def waiting(connection: Connection, space: str, session_id: str) -> list[Command]:
    """What its agent has not answered yet, the oldest first.

    An agent that began without the database knows its session by an id that may have been merged into
    another one since; it is given what that one is asked.
    """
    merged_into = select(SESSION.c.merged_into).where(
        SESSION.c.space_id == space, SESSION.c.id == session_id, SESSION.c.merged_into.is_not(None)
    )
    query = (
        _commands(space)
        .where(
            or_(
                SESSION_COMMAND.c.session_id == session_id,
                SESSION_COMMAND.c.session_id == merged_into.scalar_subquery(),
            ),
            SESSION_COMMAND.c.done_at.is_(None),
        )
        .order_by(SESSION_COMMAND.c.asked_at, SESSION_COMMAND.c.id)
    )
    return [_command(row) for row in connection.execute(query)]


def answer(connection: Connection, space: str, command_id: str, outcome: str) -> bool:
    """Say what became of a command; False where somebody said so before, which stays."""
    answering = (
        update(SESSION_COMMAND)
        .where(
            SESSION_COMMAND.c.space_id == space,
            SESSION_COMMAND.c.id == command_id,
            SESSION_COMMAND.c.done_at.is_(None),
        )
        .values(done_at=clock(connection), outcome=outcome)
    )
    return connection.execute(answering).rowcount > 0


def find(connection: Connection, space: str, command_id: str) -> Command | None:
    """A command, as it is now."""
    row = connection.execute(_commands(space).where(SESSION_COMMAND.c.id == command_id)).one_or_none()
    return _command(row) if row is not None else None


def ended_by(connection: Connection, space: str, session_id: str) -> str | None:
    """By whom or what a session ended; None where it goes on, or is only taken for lost and may do so."""
    ended: str | None = connection.execute(
        select(SESSION.c.ended_by).where(
            SESSION.c.space_id == space,
            SESSION.c.id == session_id,
            SESSION.c.status == SessionStatus.ENDED,
            SESSION.c.ended_by != AGENT_LOST,
        )
    ).scalar_one_or_none()
    return ended


def _commands(space: str) -> Select[Any]:
    return select(SESSION_COMMAND).where(SESSION_COMMAND.c.space_id == space)


def _command(row: Row[Any]) -> Command:
    values = dict(row._mapping)
    return Command(space=values.pop("space_id"), **values)
