"""What an agent does with what it is asked through the database, and with what it does not understand."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.commands import heed_commands
from persistence import commands, schema, sessions
from persistence.database import Database
from persistence.database_thread import DatabaseThread
from persistence.records import DEFAULT_SPACE, Begun
from persistence.sessions import Opening
from tests.support.gathering import until


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path / 'roomscribe.db'}")
    schema.upgrade(database)
    yield database
    database.close()


def begun(database: Database, new_id: str) -> Begun:
    with database.write() as connection:
        opening = sessions.begin(
            connection, space=DEFAULT_SPACE, room=new_id, room_sid=f"RM_{new_id}", worker="worker-1",
            languages=["en"], new_id=new_id,
        )  # fmt: skip
    assert isinstance(opening, Opening)
    return opening.begun


def ask(database: Database, session: str, kind: str, **body: Any) -> str:
    with database.write() as connection:
        return commands.ask(
            connection, space=DEFAULT_SPACE, session_id=session, kind=kind, body=body, asked_by="test"
        )


def outcome(database: Database, command_id: str) -> str:
    with database.read() as connection:
        command = commands.find(connection, DEFAULT_SPACE, command_id)
    assert command is not None
    return command.outcome


@asynccontextmanager
async def heeding(url_of: Database, begun: Begun) -> AsyncIterator[list[str]]:
    """An agent that leads a session; gives why it was told to end."""
    ends: list[str] = []
    thread = DatabaseThread(Database(url_of.engine.url.render_as_string(hide_password=False)))
    task = asyncio.create_task(heed_commands(thread, begun, ends.append))
    try:
        yield ends
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        thread.close()


async def test_session_is_ended_for_the_reason_that_is_given(database: Database):
    own = begun(database, "own")
    async with heeding(database, own) as ends:
        asked = ask(database, own.session, "end", reason="api")
        await until(lambda: ends, what="the end")
        assert ends == ["api"]
        assert outcome(database, asked) == "done"


async def test_what_it_does_not_know_is_refused_with_a_sentence_and_keeps_nothing_waiting(database: Database):
    own = begun(database, "own")
    async with heeding(database, own) as ends:
        unknown = ask(database, own.session, "dance")
        no_reason = ask(database, own.session, "end")
        bad_reason = ask(database, own.session, "end", reason="room_closed")
        await until(lambda: outcome(database, bad_reason), what="an answer")
        assert outcome(database, unknown) == "refused: the kind 'dance' is unknown to this agent"
        for refused in (no_reason, bad_reason):
            assert outcome(database, refused).startswith("refused: ")
        assert ends == []


async def test_what_another_session_is_asked_is_left_alone(database: Database):
    own, other = begun(database, "own"), begun(database, "other")
    async with heeding(database, own) as ends:
        elsewhere = ask(database, other.session, "end", reason="api")
        here = ask(database, own.session, "end", reason="host")
        await until(lambda: ends, what="the end")
        assert ends == ["host"]
        assert outcome(database, here) == "done"
        assert outcome(database, elsewhere) == ""
