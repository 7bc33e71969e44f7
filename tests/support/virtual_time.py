"""An event loop whose time is virtual: it jumps to the next thing to happen instead of waiting for it.

Work given to an executor runs at once, in the loop's own thread, while virtual time stands still; its result
arrives after the time that it is charged, behind whatever that executor still had to do. So a session runs
faster than real time and gives the same result each time, whatever the machine is doing.

It drives timers and executors only: sockets and processes need the real clock.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

TICK_S = 1e-9  # asyncio fires timers that little early; on a clock that stood still, again and again

T = TypeVar("T")
Charge = Callable[[Callable[..., Any], float], float]
"""From the function that ran and the processor time it took, in seconds, to the seconds it is charged."""


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An asyncio event loop under virtual time that begins at 0."""

    def __init__(self, charge: Charge) -> None:
        super().__init__()
        self._charge = charge
        self._now_s = 0.0
        self._busy_until_s: dict[Any, float] = {}
        select = self._selector.select  # type: ignore[attr-defined]

        def jump(timeout: float | None = None) -> Any:
            if timeout is None:
                raise RuntimeError("nothing will ever happen: every task waits and no timer runs")
            self._now_s += max(timeout, 0.0)
            return select(0)

        self._selector.select = jump  # type: ignore[attr-defined]

    def time(self) -> float:
        self._now_s += TICK_S
        return self._now_s

    def stand_still(self, seconds: float) -> None:
        """Let time go on while nothing runs, as for a process that is stopped."""
        self._now_s += seconds

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> "asyncio.Future[T]":  # type: ignore[override]
        begin_s = max(self._now_s, self._busy_until_s.get(executor, 0.0))
        done: asyncio.Future[T] = self.create_future()
        started_s = time.process_time()
        try:
            finish, outcome = done.set_result, func(*args)
        except Exception as error:  # noqa: BLE001  as an executor does, whatever it is
            finish, outcome = done.set_exception, error  # type: ignore[assignment]
        end_s = begin_s + self._charge(func, time.process_time() - started_s)
        self._busy_until_s[executor] = end_s
        self.call_at(end_s, lambda: None if done.cancelled() else finish(outcome))
        return done


def run_virtual(main: Coroutine[Any, Any, T], *, charge: Charge = lambda _function, _took_s: 0.0) -> T:
    """Run a coroutine to its end under virtual time, as `asyncio.run` does under the real one."""
    with asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(charge)) as runner:
        return runner.run(main)
