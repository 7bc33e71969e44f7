"""The analyst: finds sessions that have ended, and has each analysed, until it is told to stop."""

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import structlog

from agent.analysis.extractive import ENGINE
from agent.analysis.scenario import Scenario
from agent.analyst import durable
from agent.analyst.scenarios import load_scenarios
from agent.analyst.steps import Steps
from agent.analyst.workflow import Workflow
from agent.config import Settings
from agent.errors import ConfigError, DatabaseAwayError, DatabaseError
from agent.worker_name import worker_name
from persistence import analyses, schema
from persistence.analyses import Wanting
from persistence.catalogue import get_session
from persistence.clock import database_time
from persistence.database import Database

__all__ = ["run_analyst"]

log = structlog.get_logger(__name__)

LOCK_FILE = "analyst.lock"
SWEEP_S = 2.0
MOST_BEGUN = 20  # a sweep: the queue holds what waits, and a sweep must not take long
# All sessions that ever ended are looked at when it starts, and then now and again for those that a worker's
# disk brought late; in between only those that were heard of not long ago.
FULL_SWEEP_EVERY = timedelta(minutes=10)
RECENT = timedelta(hours=1)
AWAY_WAIT_S = 5.0
CONNECTIONS = durable.AT_ONCE + 1
FALLBACK_LANGUAGE = "en"
ENDED_WITHOUT_A_WORD = "workflow"


def run_analyst(settings: Settings, stop: threading.Event) -> None:
    """Analyse what ends, until `stop` is set. It blocks, and its process has to end after it by `os._exit`:
    workflows may still run, which go on at the next start.

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
            if not _until_ready(settings, database, stop):
                return
            steps = Steps(settings, database, scenarios)
            workflow = Workflow(steps)
            durable.launch(settings.database_url, worker_name(settings.data_dir))
            log.info("analyst.ready", scenario=scenario.id, engine=ENGINE)
            Sweeper(database, scenario, workflow).run(stop)
            log.info("analyst.ended")
        finally:
            database.close()


class Sweeper:
    """Begins a run for each session that has ended, and sees to it that each goes on."""

    def __init__(self, database: Database, scenario: Scenario, workflow: Workflow) -> None:
        self._database = database
        self._scenario = scenario
        self._workflow = workflow
        self._swept_all_at: datetime | None = None

    def run(self, stop: threading.Event) -> None:
        """Sweep until `stop` is set."""
        problem = ""
        while not stop.is_set():
            try:
                self.sweep()
                problem = ""
            except DatabaseError as error:
                if str(error) != problem:
                    problem = str(error)
                    log.warning("analyst.database_away", problem=problem)
            stop.wait(SWEEP_S)

    def sweep(self) -> None:
        """Look once.

        Raises:
            DatabaseError: The database is away, or refuses something.
        """
        for wants in self._wanting():
            self._begin(wants)
        with self._database.read() as connection:
            runs = analyses.unfinished(connection, limit=MOST_BEGUN)
        for run in runs:
            if (problem := self._workflow.ensure(run)) is not None:
                with self._database.write() as connection:
                    analyses.fail(connection, run, ENDED_WITHOUT_A_WORD, problem)

    def _wanting(self) -> list[Wanting]:
        with self._database.read() as connection:
            now = database_time(connection)
            is_due = self._swept_all_at is None or now - self._swept_all_at > FULL_SWEEP_EVERY
            since = None if is_due else now - RECENT
            found = analyses.wanting(connection, limit=MOST_BEGUN, heard_since=since)
        if is_due and len(found) < MOST_BEGUN:
            self._swept_all_at = now
        return found

    def _begin(self, wants: Wanting) -> None:
        try:
            with self._database.write() as connection:
                detail = get_session(connection, wants.space_id, wants.session_id)
                languages = detail.summary.languages if detail is not None else ()
                run_id = analyses.begin(
                    connection,
                    wants,
                    scenario=self._scenario.id,
                    scenario_version=self._scenario.version,
                    engine=ENGINE,
                    language=languages[0] if languages else FALLBACK_LANGUAGE,
                )
        except DatabaseAwayError:
            raise
        except DatabaseError:
            return  # another analyst was quicker: the database takes one of us
        log.info("analysis.begun", run=run_id, session=wants.session_id, scenario=self._scenario.id)


def _until_ready(settings: Settings, database: Database, stop: threading.Event) -> bool:
    """Wait for a database that is away; tells whether it is there, and not the end."""
    is_told = False
    while not stop.is_set():
        try:
            (schema.upgrade if settings.database.upgrade_at_start else schema.check)(database)
            return True
        except DatabaseAwayError as error:
            if not is_told:
                log.warning("analyst.database_away", problem=str(error))
                is_told = True
            stop.wait(AWAY_WAIT_S)
    return False


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
