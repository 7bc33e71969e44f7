"""The report of a session as a file, and a failed analysis that is tried again."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.cli.app import main
from agent.config import load_settings
from agent.ingest.meeting import load_meeting
from persistence import analyses, schema
from persistence.analyses import Run
from persistence.database import Database
from persistence.records import DEFAULT_SPACE
from tests.support.meetings import INCIDENT_REVIEW
from tests.support.past_session import keep_meeting
from tests.support.stored_session import StoredSession


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROOMSCRIBE_DATA_DIR", str(tmp_path / "data"))
    database = Database.of(load_settings())
    schema.upgrade(database)
    yield database
    database.close()


@pytest.fixture
def session(database: Database) -> str:
    return keep_meeting(database, load_meeting(INCIDENT_REVIEW, end_s=10))


def code_of(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int | str | None:
    """The exit code of a command in this process."""
    monkeypatch.setattr("sys.argv", ["roomscribe", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def begun(database: Database) -> Run:
    """A run of the only session there is."""
    with database.write() as connection:
        (wants,) = analyses.wanting(connection, limit=2)
        run_id = analyses.begin(
            connection, wants, scenario="meeting", scenario_version=1, engine="extractive", language="en"
        )
    with database.read() as connection:
        run = analyses.get(connection, run_id)
    assert run is not None
    return run


def newest(database: Database, session: str) -> Run:
    with database.read() as connection:
        run = analyses.newest(connection, DEFAULT_SPACE, session)
    assert run is not None
    return run


def test_report_without_an_analysis_has_the_transcript_and_says_so(
    database: Database,
    session: str,
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    assert code_of(monkeypatch, "report", session) == 0
    out, err = capfdbinary.readouterr()
    assert b"Felix, please walk us through" in out
    assert b"no finished analysis" in err


def test_report_goes_to_a_file_that_takes_the_place_of_another(
    database: Database, session: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "report.html"
    file.write_text("before", encoding="utf-8")
    run = begun(database)
    with database.write() as connection:
        analyses.finish(connection, run.id, [])
    assert code_of(monkeypatch, "report", session[:8], "--wait", "--output", str(file)) == 0
    page = file.read_text(encoding="utf-8")
    assert page.lower().startswith("<!doctype html>")
    # It asks for nothing else, whoever opens it wherever.
    assert "<script" not in page
    assert "src=" not in page


def after(seconds: float, do: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a wait of the report take no time, and do something when it has lasted that long."""
    began_s = now_s = time.monotonic()
    is_done = False

    def sleep(slept_s: float) -> None:
        nonlocal now_s, is_done
        now_s += slept_s
        if now_s - began_s >= seconds and not is_done:
            is_done = True
            do()

    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    monkeypatch.setattr(time, "sleep", sleep)


def finish(database: Database) -> None:
    run = begun(database)
    with database.write() as connection:
        analyses.finish(connection, run.id, [])


def test_who_waits_for_a_session_that_goes_on_is_told_so(
    database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    live = StoredSession(database)

    def end() -> None:
        live.end(1_000, is_settled=True)
        finish(database)

    after(60, end, monkeypatch)

    assert code_of(monkeypatch, "report", live.id, "--wait", "--output", str(tmp_path / "x.html")) == 0
    assert capsys.readouterr().err.splitlines() == [
        "the session goes on; it is analysed when it has ended",
        "analysis: done",
    ]


@pytest.mark.parametrize(
    ("begins_after_s", "said"),
    [(2, []), (60, ["analysis: waits for an analyst; is `roomscribe up` running?"])],
)
def test_who_waits_in_vain_for_an_analyst_is_told_so(
    database: Database,
    session: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    begins_after_s: float,
    said: list[str],
) -> None:
    after(begins_after_s, lambda: finish(database), monkeypatch)

    assert code_of(monkeypatch, "report", session, "--wait", "--output", str(tmp_path / "x.html")) == 0
    assert capsys.readouterr().err.splitlines() == [*said, "analysis: done"]


def test_only_a_failed_analysis_is_tried_again(
    database: Database, session: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert code_of(monkeypatch, "retry", session) == 2
    assert "has no analysis yet" in capsys.readouterr().err
    run = begun(database)
    assert code_of(monkeypatch, "retry", session) == 2
    assert "is pending already" in capsys.readouterr().err
    with database.write() as connection:
        analyses.fail(connection, run, "code", "It did not work.")
    assert code_of(monkeypatch, "retry", session) == 0
    assert "attempt 2" in capsys.readouterr().out
    again = newest(database, session)
    assert (again.status, again.attempt) == ("pending", 2)
    with database.write() as connection:
        analyses.finish(connection, run.id, [])
    assert code_of(monkeypatch, "retry", session) == 2
    assert "is done" in capsys.readouterr().err
