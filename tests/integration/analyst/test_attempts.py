"""A run that another analyst has taken over is left alone by the one that had begun it."""

from collections.abc import Sequence

import pytest

from agent.analyst.analyst import Sweeper
from agent.analyst.durable import AT_ONCE
from agent.analyst.scenarios import load_scenarios
from agent.analyst.steps import Steps
from agent.analyst.workflow import Workflow
from agent.config import Settings
from agent.errors import InputError
from agent.ingest.meeting import load_meeting
from persistence import analyses
from persistence.analyses import Run
from persistence.database import Database
from persistence.records import DEFAULT_SPACE
from tests.support.meetings import INCIDENT_REVIEW
from tests.support.past_session import keep_meeting

pytestmark = [
    pytest.mark.integration,
    pytest.mark.parametrize("settings", ["sqlite", "postgresql"], indirect=True),
]


class Elsewhere(Workflow):
    """Stands for the workflows of a database: some runs are another analyst's, all others are new."""

    def __init__(self, theirs: Sequence[str]) -> None:
        self._theirs = theirs
        self.enqueued: list[str] = []

    def status(self, run: Run) -> str | None:
        return "elsewhere" if run.id in self._theirs else None

    def enqueue(self, run: Run) -> None:
        self.enqueued.append(run.id)

    def forget_done(self) -> None:
        pass


@pytest.fixture
def steps(settings: Settings, database: Database) -> Steps:
    return Steps(settings, database, load_scenarios(""))


def begun(database: Database, room: str = "standup") -> Run:
    session = keep_meeting(database, load_meeting(INCIDENT_REVIEW, end_s=20), room=room)
    with database.write() as connection:
        [wants] = [one for one in analyses.wanting(connection, limit=10) if one.session_id == session]
        run_id = analyses.begin(
            connection, wants, scenario="meeting", scenario_version=1, engine="extractive", language="en"
        )
        run = analyses.get(connection, run_id)
    assert run is not None
    return run


def test_step_of_an_attempt_that_was_taken_over_writes_nothing(database: Database, steps: Steps) -> None:
    run = begun(database)
    counted, analysed = steps.count(run.id, 1), steps.analyse(run.id, 1)
    with database.write() as connection:
        assert analyses.take_over(connection, run)
        assert not analyses.take_over(connection, run)
    for late in (
        lambda: steps.store(run.id, 1, counted, analysed),
        lambda: steps.mix(run.id, 1),
        lambda: steps.finish(run.id, 1, []),
    ):
        with pytest.raises(InputError, match="is not the newest any more"):
            late()
    steps.fail(run.id, 1, "internal", "it came too late")
    with database.read() as connection:
        newest = analyses.newest(connection, DEFAULT_SPACE, run.session_id)
        assert newest is not None
        assert (newest.attempt, newest.status, newest.step) == (2, "pending", "")
        assert analyses.statements(connection, DEFAULT_SPACE, run.id) == []
        assert analyses.problem(connection, newest) == ""
    steps.store(run.id, 2, counted, analysed)
    with database.read() as connection:
        assert analyses.statements(connection, DEFAULT_SPACE, run.id)


def test_what_another_analyst_works_on_takes_no_place_of_ours(database: Database, steps: Steps) -> None:
    ours, *theirs = [begun(database, f"room-{number}") for number in range(AT_ONCE + 1)]
    workflow = Elsewhere([run.id for run in theirs])
    Sweeper(database, load_scenarios("")["meeting"], steps, workflow).sweep()
    assert workflow.enqueued == [ours.id]
