"""An analyst that is killed when a step is done and not yet written down as done, or takes over at once.

`python analyst_child.py after:store`; `never` is an ordinary one, and `impatient` one that takes over at once
what another one has begun.
"""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from agent.analyst import analyst, workflow
from agent.analyst.steps import Steps
from agent.cli.app import main

METHODS = {"statistics": "count"}  # the others are called as their steps


def _lethal(step: str) -> type[Steps]:
    name = METHODS.get(step, step)
    original: Callable[..., Any] = getattr(Steps, name)

    def method(self: Steps, *arguments: Any) -> Any:
        original(self, *arguments)
        os.kill(os.getpid(), signal.SIGKILL)

    return type("LethalSteps", (Steps,), {name: method})


if __name__ == "__main__":
    kind, _, step = sys.argv.pop().partition(":")
    if kind == "impatient":
        workflow.LOST_AFTER_S = 0.0
    if step:
        analyst.Steps = _lethal(step)  # type: ignore[misc]
    sys.argv[1:] = ["analyst"]
    main()
