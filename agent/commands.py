"""What the console and the command line ask of a session, from the table where they leave it."""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial

import structlog

from agent.errors import DatabaseError
from persistence import commands
from persistence.commands import DONE, END, REFUSED, Command
from persistence.database_thread import DatabaseThread
from persistence.records import Begun

__all__ = ["heed_commands"]

log = structlog.get_logger(__name__)

POLL_S = 1.0
CALL_TIMEOUT_S = 5.0
REASONS = ("host", "api")  # why somebody may end a session


async def heed_commands(database: DatabaseThread, begun: Begun, end: Callable[[str], None]) -> None:
    """Look for commands for ever, and do what they ask.

    Args:
        database: The session's; while it is away, commands wait there.
        begun: Which session they are for.
        end: Ends it, for a reason.
    """

    def waiting() -> list[Command]:
        with database.database.read() as connection:
            return commands.waiting(connection, begun.space, begun.session)

    def answer(command: Command, outcome: str) -> None:
        with database.database.write() as connection:
            commands.answer(connection, begun.space, command.id, outcome)

    while True:
        try:
            for command in await database.call(waiting, CALL_TIMEOUT_S):
                outcome = _refusal(command) or DONE
                log.info("session.command", kind=command.kind, asked_by=command.asked_by, outcome=outcome)
                if outcome == DONE:
                    end(command.body["reason"])
                # Not before: who is killed in between leaves it to a successor.
                await database.call(partial(answer, command, outcome), CALL_TIMEOUT_S)
        except DatabaseError:
            pass  # the session's store says so
        except Exception:
            log.exception("session.command_failed")
        await asyncio.sleep(POLL_S)


def _refusal(command: Command) -> str:
    """Why a command cannot be done; empty where it can."""
    if command.kind != END:
        return f"{REFUSED}the kind {command.kind!r} is unknown to this agent"
    if not isinstance(command.body, Mapping) or command.body.get("reason") not in REASONS:
        return f"{REFUSED}a session is ended for one of the reasons {', '.join(REASONS)}"
    return ""
