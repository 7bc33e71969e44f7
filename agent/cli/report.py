"""`roomscribe report`: what an analysis found, as one file that needs no server."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from agent.console.models import AnalysisOut, UtteranceOut
    from agent.console.store import Store
    from persistence.database import Database

__all__ = ["report"]

WAIT_LIMIT_S = 600.0
POLL_S = 0.5
ANALYST_S = 5.0  # an analyst that runs begins what has just ended within two
FINISHED = ("done", "failed")


def report(
    context: typer.Context,
    session: Annotated[str, typer.Argument(metavar="ID", help="Its id, or the beginning of it.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="FILE", help="What is there already is replaced, all at once."),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until an analyst is done with it, ten minutes at most.")
    ] = False,
) -> None:
    """Print the report of a session: an HTML page in one file, without scripts.

    It has the statements with their evidence, the statistics and the transcript; the sound is in the console.
    """
    from agent.analyst.scenarios import load_scenarios
    from agent.cli.output import save, show
    from agent.cli.sessions import find_session, reading
    from agent.config import load_settings
    from agent.console.store import Store
    from persistence.database import Database

    settings = load_settings(context.obj)
    with reading(context) as connection:
        session_id = find_session(connection, session)
    database = Database.of(settings)
    try:
        store = Store(database, settings, load_scenarios(settings.analysis.scenarios_dir))
        if wait:
            _until_analysed(store, database, session_id)
        page = io.BytesIO(_rendered(store, session_id).encode())
    finally:
        database.close()
    if output is not None:
        save(page, output)
    else:
        show(page)


def _until_analysed(store: "Store", database: "Database", session_id: str) -> None:
    import time

    from agent.errors import InputError
    from persistence.catalogue import has_ended
    from persistence.records import DEFAULT_SPACE

    status = told = ""
    is_over = False
    missing_since_s = time.monotonic()
    deadline_s = missing_since_s + WAIT_LIMIT_S
    while (now_s := time.monotonic()) < deadline_s:
        with database.read() as connection:
            is_over = has_ended(connection, DEFAULT_SPACE, session_id)
        analysis = store.analysis(DEFAULT_SPACE, session_id)
        if analysis is not None:
            status = f"analysis: {_progress(analysis)}"
        elif not is_over:
            status, missing_since_s = "the session goes on; it is analysed when it has ended", now_s
        elif now_s - missing_since_s >= ANALYST_S:
            status = "analysis: waits for an analyst; is `roomscribe up` running?"
        if status != told:
            told = status
            typer.echo(status, err=True)
        if analysis is not None and analysis.status in FINISHED:
            return
        time.sleep(POLL_S)
    if not is_over:
        raise InputError(
            f"session {session_id} still goes on after {WAIT_LIMIT_S:g} s; ask again when it is over"
        )
    raise InputError(
        f"the analysis of session {session_id} is not done after {WAIT_LIMIT_S:g} s; is `roomscribe analyst` "
        "or `roomscribe up` running?"
    )


def _progress(analysis: "AnalysisOut") -> str:
    if analysis.status == "failed":
        return (
            f"failed at {analysis.step}: {analysis.problem}"
            if analysis.step
            else f"failed: {analysis.problem}"
        )
    return analysis.step or analysis.status


def _rendered(store: "Store", session_id: str) -> str:
    from agent.console.report import render
    from persistence.records import DEFAULT_SPACE

    found = store.session(DEFAULT_SPACE, session_id)
    assert found is not None  # nothing is ever removed
    analysis = store.analysis(DEFAULT_SPACE, session_id)
    if analysis is None or analysis.status not in FINISHED:
        typer.echo("there is no finished analysis: this is what is known so far", err=True)
    transcript: list[UtteranceOut] = []
    after: str | None = None
    while True:
        page = store.transcript(DEFAULT_SPACE, session_id, after)
        if page is None:
            break
        transcript += page.utterances
        if (after := page.next) is None:
            break
    return render(found, transcript, analysis)
