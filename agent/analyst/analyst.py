"""The analyst: finds sessions that have ended, and has each analysed, until it is told to stop."""

import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import structlog

from agent.analysis.extractive import ENGINE
from agent.analysis.scenario import Scenario
from agent.analyst import durable
from agent.analyst.scenarios import load_scenarios
from agent.analyst.steps import STEPS, Steps
from agent.analyst.workflow import Workflow
from agent.config import Settings
from agent.errors import ConfigError, DatabaseAwayError, DatabaseError, RoomscribeError
from agent.worker_name import worker_name
from persistence import analyses, schema
from persistence.analyses import Run, Wanting
from persistence.clock import database_time
from persistence.database import Database

__all__ = ["run_analyst"]

log = structlog.get_logger(__name__)

LOCK_FILE = "analyst.lock"
SWEEP_S = 2.0
MOST_BEGUN = 20  # in a sweep, which must not take long
MOST_SEEN = 200
# All sessions that ever ended are looked at when it starts, and then now and again for those that a worker's
# disk brought late; in between only those that were heard of not long ago.
FULL_SWEEP_EVERY = timedelta(minutes=10)
RECENT = timedelta(hours=1)
AWAY_WAIT_S = 5.0
CONNECTIONS = durable.AT_ONCE + 1
WITHOUT_A_WORD = "workflow"


def run_analyst(settings: Settings) -> None:
    """Analyse what ends, until the process is ended: at any moment, as all of it is made to be cut off.

    Raises:
        ConfigError: A setting or a scenario is wrong, or another analyst uses the same folder.
        DatabaseError: The database is none that we can work with.
    """
    scenarios = load_scenarios(settings.analysis.scenarios_dir)
    scenario = scenarios.get(settings.analysis.scenario)
    if scenario is None:
        raise ConfigError(
            f"config: analysis.scenario {settings.analysis.scenario!r} is unknown; "
            f"known: {', '.join(sorted(scenarios))}"
        )
    with _alone(settings.data_dir):
        database = Database.of(settings, connections=CONNECTIONS)
        try:
            _until_ready(settings, database)
            steps = Steps(settings, database, scenarios)
            executor = worker_name(settings.data_dir)
            workflow = Workflow(steps, executor)
            durable.launch(settings.database_url, executor)
            log.info("analyst.ready", scenario=scenario.id, engine=ENGINE)
            Sweeper(database, scenario, steps, workflow).run()
        finally:
            database.close()


class Sweeper:
    """Begins a run for each session that has ended, and sees to it that each goes on.

    Whatever it does may be done again, by it or by another analyst.
    """

    def __init__(self, database: Database, scenario: Scenario, steps: Steps, workflow: Workflow) -> None:
        self._database = database
        self._scenario = scenario
        self._steps = steps
        self._workflow = workflow
        self._swept_all_at: datetime | None = None

    def run(self) -> None:
        """Sweep for ever."""
        problem = ""
        while True:
            try:
                self.sweep()
                problem = ""
            except Exception as error:  # noqa: BLE001  of the database, of DBOS, or of one run: try again
                # Another one's message may hold what somebody said.
                found = str(error) if isinstance(error, RoomscribeError) else type(error).__name__
                if found != problem:
                    problem = found
                    log.warning("analyst.cannot_sweep", problem=problem)
            time.sleep(SWEEP_S)

    def sweep(self) -> None:
        """Look once.

        Raises:
            DatabaseError: The database is away, or refuses something.
        """
        with self._database.read() as connection:
            now = database_time(connection)
            is_due = self._swept_all_at is None or now - self._swept_all_at > FULL_SWEEP_EVERY
            since = None if is_due else now - RECENT
            wanting = analyses.wanting(connection, limit=MOST_BEGUN, heard_since=since)
        for wants in wanting:
            self._begin(wants)
        if is_due and len(wanting) < MOST_BEGUN:
            self._swept_all_at = now
        with self._database.read() as connection:
            runs = analyses.unfinished(connection, limit=MOST_SEEN)
        self._have_done(runs)
        if is_due:
            self._workflow.forget_done()

    def _begin(self, wants: Wanting) -> None:
        try:
            with self._database.write() as connection:
                run_id = analyses.begin(
                    connection,
                    wants,
                    scenario=self._scenario.id,
                    scenario_version=self._scenario.version,
                    engine=ENGINE,
                    language=analyses.spoken_language(connection, wants.space_id, wants.session_id)
                    or self._scenario.language,
                    first_step=STEPS[0],
                )
        except DatabaseAwayError:
            raise
        except DatabaseError:
            # Another analyst was quicker: the database takes one of us.
            with self._database.read() as connection:
                run = analyses.newest(connection, wants.space_id, wants.session_id)
            if run is None or run.version <= wants.analysed:
                raise
            return
        log.info("analysis.begun", run=run_id, session=wants.session_id, scenario=self._scenario.id)

    def _have_done(self, runs: Sequence[Run]) -> None:
        """Enqueue as many as are worked on at once, so that what ends now need not wait for an archive."""
        going_on = 0
        for run in runs:
            status = self._workflow.status(run)
            if status == "goes on":
                going_on += 1
            elif status == "lost":
                self._take_over(run)
            elif status == "elsewhere":
                continue  # it takes none of our places
            elif status is not None:
                self._fail(run, status)
            elif going_on < durable.AT_ONCE and self._is_due(run):
                self._workflow.enqueue(run)
                going_on += 1

    def _is_due(self, run: Run) -> bool:
        with self._database.read() as connection:
            newest = analyses.get(connection, run.id)
            # It may have been finished since, and its workflow be forgotten.
            return (
                newest is not None and newest.finished_at is None and self._steps.is_settled(connection, run)
            )

    def _take_over(self, run: Run) -> None:
        """Have a run done again by whoever is there; its next attempt is enqueued by the next sweep."""
        with self._database.write() as connection:
            is_ours = analyses.take_over(connection, run)
        if is_ours:
            self._workflow.forget(run)
            log.warning("analysis.taken_over", run=run.id, attempt=run.attempt + 1)

    def _fail(self, run: Run, status: str) -> None:
        """Its workflow has ended without a word of its own, unless the run was finished in the meantime."""
        with self._database.write() as connection:
            newest = analyses.get(connection, run.id)
            if newest is not None and newest.finished_at is None and newest.attempt == run.attempt:
                analyses.fail(connection, run, WITHOUT_A_WORD, f"the workflow has ended ({status})")
                log.error("analysis.failed", run=run.id, code=WITHOUT_A_WORD, problem=status)


def _until_ready(settings: Settings, database: Database) -> None:
    """Wait for a database that is away."""
    is_told = False
    while True:
        try:
            (schema.upgrade if settings.database.upgrade_at_start else schema.check)(database)
            return
        except DatabaseAwayError as error:
            if not is_told:
                log.warning("analyst.database_away", problem=str(error))
                is_told = True
            time.sleep(AWAY_WAIT_S)


@contextmanager
def _alone(data_dir: Path) -> Iterator[None]:
    """As the only analyst of a data folder: two under one name would do the same steps at once."""
    file = data_dir / LOCK_FILE
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(
            f"config: data_dir {data_dir} cannot be written to: {error.strerror}; set it "
            "(ROOMSCRIBE_DATA_DIR) to a folder that you may write to"
        ) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise ConfigError(
            f"config: data_dir {data_dir} has an analyst already; `roomscribe up` runs one. "
            "End it, or set another data_dir"
        ) from None
    try:
        yield
    finally:
        os.close(descriptor)
