"""Commands for the agents of sessions, as the database keeps them."""

from datetime import timedelta

import pytest
from sqlalchemy import select, text, update

from agent.errors import DatabaseError
from persistence import commands, sessions
from persistence.apply import Applier
from persistence.clock import database_time
from persistence.commands import DONE, END, REFUSED, Command
from persistence.database import Database
from persistence.records import DEFAULT_SPACE, Begun, Gap
from persistence.rows import AUDIT_EVENT, SESSION_COMMAND
from persistence.sessions import AGENT_LOST

FIRST, SECOND = "1a" * 16, "2b" * 16


@pytest.fixture
def session(database: Database) -> str:
    return begin(database, FIRST)


def begin(database: Database, session: str, room: str = "planning", room_sid: str = "RM_1") -> str:
    """A session whose agent began without the database."""
    with database.read() as connection:
        at = database_time(connection)
    begun = Begun(
        session=session,
        epoch=1,
        room=room,
        room_sid=room_sid,
        agent="agent-1",
        worker="worker-1",
        languages=("en",),
        started_at=at,
        offset_ms=0,
        is_provisional=True,
    )
    applier = Applier(database, DEFAULT_SPACE, session, 1)
    assert applier.apply([begun, Gap(start_ms=0, end_ms=1, reason="test")], None) == []
    return session


def ask(database: Database, session: str, kind: str = END, space: str = DEFAULT_SPACE) -> str:
    with database.write() as connection:
        return commands.ask(
            connection, space=space, session_id=session, kind=kind, body={"reason": "api"}, asked_by="cli"
        )


def waiting(database: Database, session: str, space: str = DEFAULT_SPACE) -> list[Command]:
    with database.read() as connection:
        return commands.waiting(connection, space, session)


def answer(database: Database, command: str, outcome: str = DONE, space: str = DEFAULT_SPACE) -> bool:
    with database.write() as connection:
        return commands.answer(connection, space, command, outcome)


def find(database: Database, command: str, space: str = DEFAULT_SPACE) -> Command | None:
    with database.read() as connection:
        return commands.find(connection, space, command)


def test_a_command_waits_until_it_is_answered(database: Database, session: str) -> None:
    asked = ask(database, session)

    (command,) = waiting(database, session)
    assert command == find(database, asked)
    assert (command.id, command.session_id, command.kind) == (asked, session, "end")
    assert (command.body, command.asked_by) == ({"reason": "api"}, "cli")
    assert (command.done_at, command.outcome) == (None, "")

    assert answer(database, asked)
    assert waiting(database, session) == []
    answered = find(database, asked)
    assert answered is not None
    assert answered.outcome == "done"
    assert answered.done_at is not None
    assert answered.done_at >= answered.asked_at


def test_the_first_answer_stays(database: Database, session: str) -> None:
    asked = ask(database, session)

    assert answer(database, asked, f"{REFUSED}no such kind")
    assert not answer(database, asked)
    assert not answer(database, "nothing")
    command = find(database, asked)
    assert command is not None
    assert command.outcome == "refused: no such kind"


def test_the_oldest_comes_first(database: Database, session: str) -> None:
    asked = [ask(database, session) for _ in range(4)]
    with database.write() as connection:
        at = database_time(connection)
        for number, command in enumerate(asked):
            connection.execute(
                update(SESSION_COMMAND)
                .where(SESSION_COMMAND.c.id == command)
                .values(asked_at=at - timedelta(seconds=number))
            )

    assert [command.id for command in waiting(database, session)] == asked[::-1]


def test_other_sessions_and_spaces_do_not_see_it(database: Database, session: str) -> None:
    other = begin(database, SECOND, "retro", "RM_2")
    asked = ask(database, session)

    assert waiting(database, other) == []
    assert waiting(database, session, space="other") == []
    assert find(database, asked, space="other") is None
    assert not answer(database, asked, space="other")


def test_an_agent_whose_session_was_merged_gets_what_the_other_one_is_asked(
    database: Database, session: str
) -> None:
    merged = begin(database, SECOND)
    asked = ask(database, session)

    assert [command.id for command in waiting(database, merged)] == [asked]


def test_who_asked_is_kept(database: Database, session: str) -> None:
    asked = ask(database, session)

    with database.read() as connection:
        event = connection.execute(
            select(AUDIT_EVENT).where(AUDIT_EVENT.c.action == "session.end_asked")
        ).one()
    assert (event.actor, event.subject, event.detail) == (
        "cli",
        session,
        {"command": asked, "reason": "api"},
    )


def test_a_session_that_is_not_there_cannot_be_asked(database: Database) -> None:
    with pytest.raises(DatabaseError):
        ask(database, "nobody")


def test_one_taken_for_lost_has_not_ended(database: Database, session: str) -> None:
    def ended(reason: str) -> str | None:
        with database.write() as connection:
            sessions.end(connection, DEFAULT_SPACE, session, reason, database_time(connection))
            return commands.ended_by(connection, DEFAULT_SPACE, session)

    with database.read() as connection:
        assert commands.ended_by(connection, DEFAULT_SPACE, session) is None
    assert ended(AGENT_LOST) is None
    assert ended("api") == "api"
    assert ended("host") == "api"


def test_what_waits_is_found_by_an_index(database: Database) -> None:
    query = "SELECT id FROM session_command WHERE session_id = 'x' AND done_at IS NULL"
    with database.write() as connection:
        if database.is_sqlite:
            plan = connection.execute(text(f"EXPLAIN QUERY PLAN {query}")).all()
        else:
            connection.execute(text("SET LOCAL enable_seqscan = off"))  # on few rows it is faster
            plan = connection.execute(text(f"EXPLAIN {query}")).all()

    assert "session_command_waiting" in str(plan)
