"""An analyst that is killed at a step: `python analyst_child.py before:store`, or `after:store`; or `never`.

After a step means: what it writes is written, and that it was done is not.
"""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from agent.analyst import analyst
from agent.analyst.steps import Steps
from agent.cli.app import main

METHODS = {"statistics": "count"}  # the others are called as their steps


def _lethal(step: str, is_before: bool) -> type[Steps]:
    name = METHODS.get(step, step)
    original: Callable[..., Any] = getattr(Steps, name)

    def method(self: Steps, *arguments: Any) -> Any:
        if not is_before:
            original(self, *arguments)
        os.kill(os.getpid(), signal.SIGKILL)

    return type("LethalSteps", (Steps,), {name: method})


if __name__ == "__main__":
    when, _, step = sys.argv.pop().partition(":")
    if when != "never":
        analyst.Steps = _lethal(step, when == "before")  # type: ignore[misc]
    sys.argv[1:] = ["analyst"]
    main()
