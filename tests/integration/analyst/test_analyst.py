"""A session that has ended is analysed, whatever happens to who does it."""

import signal
import sqlite3
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import av
import pytest
from sqlalchemy import func, select, update

from agent.analyst.steps import STEPS
from agent.config import Settings
from agent.ingest.meeting import load_meeting
from persistence import analyses, renderings, sessions
from persistence.analyses import Run
from persistence.database import Database
from persistence.records import DEFAULT_SPACE
from persistence.rows import EVIDENCE, PROCESSING_ERROR, SESSION, STATEMENT
from tests.integration.analyst.conftest import LIMIT_S, Analyst
from tests.support.meetings import INCIDENT_REVIEW
from tests.support.past_session import keep_meeting

UntilRun = Callable[[str, str], Run]

pytestmark = pytest.mark.integration


@pytest.fixture
def session(database: Database, settings: Settings) -> str:
    """The first 45 s of a meeting, with audio."""
    return keep_meeting(database, load_meeting(INCIDENT_REVIEW, end_s=45), stems_dir=settings.stems_dir)


@pytest.fixture
def short_session(database: Database, settings: Settings) -> str:
    """The first 20 s."""
    return keep_meeting(database, load_meeting(INCIDENT_REVIEW, end_s=20), stems_dir=settings.stems_dir)


@pytest.mark.parametrize("settings", ["sqlite", "postgresql"], indirect=True)
def test_session_that_has_ended_gets_statements_with_evidence_statistics_and_a_mix(
    analyst: Analyst, session: str, database: Database, settings: Settings, until_run: UntilRun
) -> None:
    analyst.start()
    run = until_run(session, "done")
    assert (run.version, run.attempt) == (1, 1)
    assert (run.scenario, run.engine, run.step) == ("meeting", "extractive", "")
    assert run.incomplete == []
    assert run.statistics["duration_ms"] == 45_000
    assert {each["speaker"]["name"] for each in run.statistics["participations"]} >= {"Nora", "Felix", "Omar"}
    with database.read() as connection:
        found = analyses.statements(connection, DEFAULT_SPACE, run.id)
        rendering = renderings.get(connection, DEFAULT_SPACE, session)
    assert {statement.kind for statement in found} >= {"action", "highlight"}
    assert all(statement.evidence for statement in found)
    assert rendering is not None
    with av.open(str(settings.renderings_dir / rendering.path)) as container:
        assert round(container.duration / av.time_base) == 45
    assert analyst.steps() == list(STEPS)
    assert analyst.stop() == 0
    log = analyst.log.read_text(encoding="utf-8")
    assert not [each for statement in found for each in statement.evidence if each.text in log]


@pytest.mark.parametrize("settings", ["sqlite", "postgresql"], indirect=True)
def test_analyst_that_is_killed_at_each_step_goes_on_with_it_and_does_nothing_twice(
    analyst: Analyst, short_session: str, database: Database, until_run: UntilRun
) -> None:
    for step in STEPS:
        # What the step writes is written, and that it was done is not.
        analyst.start(f"after:{step}")
        assert analyst.wait() == -signal.SIGKILL
    analyst.start()
    run = until_run(short_session, "done")
    assert analyst.steps() == [step for step in STEPS for _ in range(2)]
    assert (run.version, run.attempt) == (1, 1)
    with database.read() as connection:
        found = analyses.statements(connection, DEFAULT_SPACE, run.id)
        rows = connection.execute(select(func.count()).select_from(STATEMENT)).scalar_one()
        pieces = connection.execute(select(func.count()).select_from(EVIDENCE)).scalar_one()
        errors = connection.execute(select(func.count()).select_from(PROCESSING_ERROR)).scalar_one()
    assert rows == len(found) > 0
    assert pieces == sum(len(statement.evidence) for statement in found)
    assert errors == 0


def test_session_whose_journal_does_not_come_is_analysed_without_and_says_so(
    analyst: Analyst, database: Database, until_run: UntilRun
) -> None:
    session = keep_meeting(database, load_meeting(INCIDENT_REVIEW, end_s=45), is_settled=False)
    analyst.start(ROOMSCRIBE_ANALYSIS__SETTLE_S="0")
    assert until_run(session, "done").incomplete == ["journal"]


def test_analysis_waits_for_a_journal_that_is_on_its_way(
    analyst: Analyst, database: Database, until_run: UntilRun
) -> None:
    session = keep_meeting(
        database, load_meeting(INCIDENT_REVIEW, end_s=45), is_settled=False, ended_now=True
    )
    analyst.start()
    assert until_run(session, "pending").step == "settle"
    another = keep_meeting(database, load_meeting(INCIDENT_REVIEW, end_s=20), room="another", ended_now=True)
    until_run(another, "done")  # it does not wait for the first one
    assert until_run(session, "pending").step == "settle"
    with database.write() as connection:
        sessions.settle(connection, DEFAULT_SPACE, session, 1)
    assert until_run(session, "done").incomplete == []


def test_what_came_too_late_for_an_analysis_is_in_its_next_attempt(
    analyst: Analyst, database: Database, until_run: UntilRun
) -> None:
    session = keep_meeting(database, load_meeting(INCIDENT_REVIEW, end_s=20), is_settled=False)
    analyst.start(ROOMSCRIBE_ANALYSIS__SETTLE_S="0")
    run = until_run(session, "done")
    with database.write() as connection:
        sessions.settle(connection, DEFAULT_SPACE, session, 1)
    with database.write() as connection:
        assert analyses.retry(connection, run)
    again = until_run(session, "done")
    assert (again.attempt, again.incomplete) == (2, [])
    with database.write() as connection:
        assert not analyses.retry(connection, again)


def test_session_that_went_on_is_analysed_again_when_it_has_ended_again(
    analyst: Analyst, database: Database, until_run: UntilRun
) -> None:
    session = keep_meeting(
        database, load_meeting(INCIDENT_REVIEW, end_s=20), is_settled=False, ended_now=True
    )
    analyst.start()
    until_run(session, "pending")
    later = datetime.now(UTC) + timedelta(seconds=1)
    with database.write() as connection:
        connection.execute(update(SESSION).values(ended_at=later))
        sessions.settle(connection, DEFAULT_SPACE, session, 1)
    run = until_run(session, "done")
    assert run.version == 2
    assert run.statistics["duration_ms"] > 20_000


@pytest.mark.parametrize("settings", ["postgresql"], indirect=True)
def test_two_analysts_of_one_database_do_each_session_once(
    analyst: Analyst, database: Database, tmp_path: Path, until_run: UntilRun
) -> None:
    folder = tmp_path / "another"
    folder.mkdir()
    another = Analyst(folder, analyst.environment | {"ROOMSCRIBE_DATA_DIR": str(folder / "data")})
    analyst.start()
    another.start()
    try:
        kept = [
            keep_meeting(
                database, load_meeting(INCIDENT_REVIEW, end_s=20), room=f"room-{number}", ended_now=True
            )
            for number in range(4)
        ]
        runs = [until_run(session, "done") for session in kept]
    finally:
        another.stop()
    assert [(run.version, run.attempt) for run in runs] == [(1, 1)] * len(kept)
    assert sorted(analyst.steps() + another.steps()) == sorted(STEPS * len(kept))


@pytest.mark.parametrize("settings", ["postgresql"], indirect=True)
def test_run_of_an_analyst_that_is_gone_for_good_is_done_by_another_and_only_by_that(
    analyst: Analyst, short_session: str, database: Database, tmp_path: Path, until_run: UntilRun
) -> None:
    analyst.start("after:store")
    assert analyst.wait() == -signal.SIGKILL
    folder = tmp_path / "another"
    folder.mkdir()
    another = Analyst(folder, analyst.environment | {"ROOMSCRIBE_DATA_DIR": str(folder / "data")})
    another.start("impatient")
    try:
        done = until_run(short_session, "done")
    finally:
        another.stop()
    assert (done.version, done.attempt) == (1, 2)
    # It comes back after all, and what it had begun is gone.
    begun = analyst.steps()
    analyst.start()
    another_session = keep_meeting(
        database, load_meeting(INCIDENT_REVIEW, end_s=20), room="another", ended_now=True
    )
    until_run(another_session, "done")
    assert analyst.steps() == begun + list(STEPS)
    assert until_run(short_session, "done") == done
    with database.read() as connection:
        assert connection.execute(select(PROCESSING_ERROR)).all() == []


def test_words_do_not_stay_with_the_workflows_when_these_are_done(
    analyst: Analyst, short_session: str, settings: Settings, until_run: UntilRun
) -> None:
    analyst.start()
    until_run(short_session, "done")
    analyst.stop()
    analyst.start()
    with sqlite3.connect(f"{settings.data_dir}/roomscribe.db-workflows") as workflows:
        deadline_s = time.monotonic() + LIMIT_S
        while workflows.execute("SELECT count(*) FROM operation_outputs").fetchone() != (0,):
            assert time.monotonic() < deadline_s
            time.sleep(0.2)
    workflows.close()


def test_audio_that_is_gone_leaves_the_rest_and_is_said_to_be_missing(
    analyst: Analyst, session: str, database: Database, settings: Settings, until_run: UntilRun
) -> None:
    next(settings.stems_dir.rglob("TR_Nora-0001.ogg")).unlink()
    analyst.start()
    assert until_run(session, "done").incomplete == ["audio"]
    with database.read() as connection:
        assert renderings.get(connection, DEFAULT_SPACE, session) is not None


def test_step_that_fails_is_told_to_an_admin_and_can_be_tried_again(
    analyst: Analyst,
    session: str,
    database: Database,
    settings: Settings,
    tmp_path: Path,
    until_run: UntilRun,
) -> None:
    settings.renderings_dir.write_text("not a folder", encoding="utf-8")
    analyst.start()
    run = until_run(session, "failed")
    assert run.step == "mix"
    with database.read() as connection:
        (error,) = connection.execute(select(PROCESSING_ERROR)).all()
        # What was found before is there to be read.
        assert analyses.statements(connection, DEFAULT_SPACE, run.id)
    assert (error.session_id, error.stage, error.is_read) == (session, "analysis", False)
    settings.renderings_dir.unlink()
    with database.write() as connection:
        assert analyses.retry(connection, run)
    assert until_run(session, "done").attempt == 2


def test_second_analyst_of_a_folder_says_that_there_is_one(
    analyst: Analyst, session: str, until_run: UntilRun, tmp_path: Path
) -> None:
    analyst.start()
    until_run(session, "done")
    second = Analyst(tmp_path, analyst.environment)
    second.start()
    assert second.wait() == 2
    assert "has an analyst already" in second.log.read_text(encoding="utf-8")
