"""`roomscribe analyst` and `roomscribe retry`: what is made of sessions that are over."""

from typing import Annotated

import typer

__all__ = ["analyst", "retry"]

NICENESS = 10  # a meeting that is live goes before one that is over


def analyst(context: typer.Context) -> None:
    """Analyse sessions when they end.

    Until SIGTERM or Ctrl-C; what was running goes on at the next start.
    """
    import os
    import signal

    # Before all else, since loading itself takes a processor for a second.
    os.nice(NICENESS)

    from agent.analyst.analyst import run_analyst
    from agent.config import load_settings
    from agent.telemetry.logs import configure_logs

    settings = load_settings(context.obj)
    configure_logs(settings.log.level, settings.log.format)
    # What runs is made to be cut off, and its threads would be waited for.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: os._exit(0))
    run_analyst(settings)


def retry(
    context: typer.Context,
    session: Annotated[str, typer.Argument(metavar="ID", help="A session's id, or the beginning of it.")],
) -> None:
    """Have an analysis tried again that failed, or had to do without something.

    A running analyst takes it up within some seconds.
    """
    from agent.cli.sessions import find_session, reading
    from agent.config import load_settings
    from agent.errors import InputError
    from persistence import analyses
    from persistence.database import Database
    from persistence.records import DEFAULT_SPACE
    from persistence.tables import AnalysisStatus

    with reading(context) as connection:
        session_id = find_session(connection, session)
        run = analyses.newest(connection, DEFAULT_SPACE, session_id)
    if run is None:
        raise InputError(f"session {session_id} has no analysis yet; it begins when the session has ended")
    database = Database.of(load_settings(context.obj))
    try:
        with database.write() as connection:
            is_begun = analyses.retry(connection, run)
    finally:
        database.close()
    if is_begun:
        typer.echo(f"the analysis of session {session_id} is tried again (attempt {run.attempt + 1})")
        return
    if run.status == AnalysisStatus.DONE:
        raise InputError(f"the analysis of session {session_id} is done, and nothing was missing")
    raise InputError(f"the analysis of session {session_id} is {run.status} already")
