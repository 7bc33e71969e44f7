"""`roomscribe report`: what an analysis found, as one file that needs no server."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from agent.console.models import AnalysisOut, UtteranceOut
    from agent.console.store import Store

__all__ = ["report"]

WAIT_LIMIT_S = 600.0
POLL_S = 0.5
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
            _until_analysed(store, session_id)
        page = io.BytesIO(_rendered(store, session_id).encode())
    finally:
        database.close()
    if output is not None:
        save(page, output)
    else:
        show(page)


def _until_analysed(store: "Store", session_id: str) -> None:
    import time

    from agent.errors import InputError
    from persistence.records import DEFAULT_SPACE

    told = ""
    deadline_s = time.monotonic() + WAIT_LIMIT_S
    while time.monotonic() < deadline_s:
        analysis = store.analysis(DEFAULT_SPACE, session_id)
        status = "waits for an analyst" if analysis is None else _progress(analysis)
        if status != told:
            told = status
            typer.echo(f"analysis: {status}", err=True)
        if analysis is not None and analysis.status in FINISHED:
            return
        time.sleep(POLL_S)
    raise InputError(
        f"the analysis of session {session_id} is not done after {WAIT_LIMIT_S:g} s; is `roomscribe analyst` "
        "or `roomscribe up` running, and is the session over?"
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
