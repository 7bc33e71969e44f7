"""The durable workflow of an analysis: its steps in order, and what becomes of one that fails."""

import traceback
from collections.abc import Callable
from typing import Any

import structlog
from dbos import DBOS, SetWorkflowID, StepOptions

from agent.analyst.durable import QUEUE
from agent.analyst.steps import Steps
from agent.errors import DatabaseAwayError, RoomscribeError
from persistence.analyses import Run

__all__ = ["Workflow"]

log = structlog.get_logger(__name__)

NAME = "analyse"
MOST_RECOVERIES = 5  # after as many a run is taken for what ends the process
# A database that is away comes back: for some 17 minutes that is waited for, then an admin is told.
MOST_TRIES = 10
FIRST_WAIT_S = 2.0
BACKOFF = 2.0
ENDED = {"ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"}
INTERNAL = "internal"


class Workflow:
    """Registers the workflow with DBOS, which has to be done before that is launched."""

    def __init__(self, steps: Steps) -> None:
        # DBOS marks what it is given, which a method does not let it.
        @DBOS.workflow(name=NAME, max_recovery_attempts=MOST_RECOVERIES)
        def analyse(run_id: str) -> None:
            _analyse(steps, run_id)

        self._function = analyse

    def ensure(self, run: Run) -> str | None:
        """Make sure that a run goes on; gives a problem where it has ended without a word of its own.

        A run has one workflow for each attempt, whoever enqueues it, and however often.
        """
        workflow_id = f"{run.id}-{run.attempt}"
        status = DBOS.get_workflow_status(workflow_id)
        if status is None:
            with SetWorkflowID(workflow_id):
                DBOS.enqueue_workflow(QUEUE, self._function, run.id)
            return None
        if status.status in ENDED:
            return f"the workflow has ended ({status.status.lower()})"
        return None


def _analyse(steps: Steps, run_id: str) -> None:
    try:
        missing: list[str] = _step("settle", steps.settle, run_id)
        counted = _step("statistics", steps.count, run_id)
        analysed = _step("analyse", steps.analyse, run_id)
        _step("store", steps.store, run_id, counted, analysed)
        missing = missing + _step("mix", steps.mix, run_id)
        _step("finish", steps.finish, run_id, missing)
    except RoomscribeError as error:
        _step("fail", steps.fail, run_id, type(error).__name__, str(error))
    except Exception as error:  # noqa: BLE001  whatever it is, somebody has to hear of it
        # Its message may hold what somebody said; where it was raised does not.
        where = traceback.format_tb(error.__traceback__)
        log.error("analysis.broken", run=run_id, error=type(error).__name__, where=where)
        problem = f"an analysis came upon a fault of its own ({type(error).__name__}); see the log"
        _step("fail", steps.fail, run_id, INTERNAL, problem)


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
