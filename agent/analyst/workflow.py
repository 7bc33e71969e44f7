"""The durable workflow of an analysis: its steps in order, and what becomes of one that fails."""

import time
import traceback
from collections.abc import Callable
from typing import Any

import structlog
from dbos import DBOS, PortableWorkflowError, SetWorkflowID, StepOptions
from dbos import error as dbos_errors

from agent import errors
from agent.analyst.durable import QUEUE
from agent.analyst.steps import Steps
from agent.errors import DatabaseAwayError, RoomscribeError
from persistence.analyses import Run

__all__ = ["Workflow"]

log = structlog.get_logger(__name__)

NAME = "analyse"
MOST_RECOVERIES = 10  # after as many a run is taken for what ends the process
# A database that is away comes back: for some 17 minutes that is waited for, then an admin is told.
MOST_TRIES = 10
FIRST_WAIT_S = 2.0
BACKOFF = 2.0
PENDING = "PENDING"  # as DBOS calls what somebody works on
GOES_ON = {"ENQUEUED", PENDING, "DELAYED"}
# An analyst that comes back goes on with what it had begun. One that does not is given up after so long: a
# run takes minutes, and what waits for a database that is away some 17 a step.
LOST_AFTER_S = 2 * 3600.0
DONE = "SUCCESS"
MOST_FORGOTTEN = 100  # at a time
INTERNAL = "internal"


class Workflow:
    """Registers the workflow with DBOS, which has to be done before that is launched.

    A run has one workflow for each attempt, whoever enqueues it, and however often.

    Args:
        steps: What it does.
        executor: Who runs workflows here, as `durable.launch` is told.
    """

    def __init__(self, steps: Steps, executor: str) -> None:
        # DBOS marks what it is given, which a method does not let it.
        @DBOS.workflow(name=NAME, max_recovery_attempts=MOST_RECOVERIES)
        def analyse(run_id: str, attempt: int) -> None:
            _analyse(steps, run_id, attempt)

        self._function = analyse
        self._executor = executor

    def status(self, run: Run) -> str | None:
        """How far the workflow of a run is; None where there is none.

        Returns:
            `goes on`; `elsewhere` where another analyst works on it, or `lost` where it has done so for
            longer than any run takes; else as DBOS calls it.
        """
        found = DBOS.get_workflow_status(_id(run))
        if found is None:
            return None
        if found.status not in GOES_ON:
            return str(found.status).lower()
        if found.status != PENDING or found.executor_id == self._executor or found.dequeued_at is None:
            return "goes on"
        return "lost" if time.time() - found.dequeued_at / 1000 > LOST_AFTER_S else "elsewhere"

    def enqueue(self, run: Run) -> None:
        """Have a run done, by this analyst or another one."""
        with SetWorkflowID(_id(run)):
            DBOS.enqueue_workflow(QUEUE, self._function, run.id, run.attempt)

    def forget(self, run: Run) -> None:
        """Remove what is known of the workflow of a run's attempt: what was said is in it."""
        DBOS.delete_workflows([_id(run)])

    def forget_done(self) -> None:
        """Remove what is known of workflows that have ended as they should: what was said is in it."""
        done = DBOS.list_workflows(
            name=NAME, status=DONE, limit=MOST_FORGOTTEN, load_input=False, load_output=False
        )
        DBOS.delete_workflows([each.workflow_id for each in done])


def _id(run: Run) -> str:
    return f"{run.id}-{run.attempt}"


def _analyse(steps: Steps, run_id: str, attempt: int) -> None:
    try:
        missing: list[str] = _step("settle", steps.settle, run_id, attempt)
        counted = _step("statistics", steps.count, run_id, attempt)
        analysed = _step("analyse", steps.analyse, run_id, attempt)
        _step("store", steps.store, run_id, attempt, counted, analysed)
        missing = missing + _step("mix", steps.mix, run_id, attempt)
        _step("finish", steps.finish, run_id, attempt, missing)
    except Exception as error:  # noqa: BLE001  whatever it is, somebody has to hear of it
        code, problem = _reason(run_id, error)
        _step("fail", steps.fail, run_id, attempt, code, problem)


def _reason(run_id: str, error: Exception) -> tuple[str, str]:
    """What an admin is told: the message of an error of ours, and of any other its type alone."""
    if isinstance(error, dbos_errors.DBOSMaxStepRetriesExceeded) and error.errors:
        error = error.errors[-1]
    # An error that was written down before a kill comes back without its class.
    name = error.name if isinstance(error, PortableWorkflowError) else type(error).__name__
    if isinstance(error, RoomscribeError) or (
        isinstance(error, PortableWorkflowError) and name in errors.__all__
    ):
        return name, str(error)
    # Its message may hold what somebody said; where it was raised does not.
    log.error("analysis.broken", run=run_id, error=name, where=traceback.format_tb(error.__traceback__))
    return INTERNAL, f"an analysis came upon a fault of its own ({name}); see the log"


def _step(name: str, function: Callable[..., Any], *arguments: Any) -> Any:
    options: StepOptions = {
        "name": name,
        "retries_allowed": True,
        "max_attempts": MOST_TRIES,
        "interval_seconds": FIRST_WAIT_S,
        "backoff_rate": BACKOFF,
        "should_retry": lambda error: isinstance(error, DatabaseAwayError),
    }
    return DBOS.run_step(options, function, *arguments)
