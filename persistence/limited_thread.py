"""A thread for calls that block, of which an event loop waits for none longer than it may take."""

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

__all__ = ["LimitedThread"]

Result = TypeVar("Result")


class LimitedThread:
    """Runs calls one after the other; while one hangs, no further one is begun.

    Args:
        name: Of the thread, for those who look at the process.
    """

    def __init__(self, name: str) -> None:
        self._thread = ThreadPoolExecutor(1, name)
        self._last: asyncio.Future[Any] | None = None

    async def call(self, function: Callable[[], Result], timeout_s: float) -> Result:
        """Give what a function returns or raises.

        Raises:
            TimeoutError: It, or the one before it, does not come back in time; it may yet do what it was to.
        """
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        if self._last is not None:
            await self._until_done(self._last, deadline_s)
        self._last = future = loop.run_in_executor(self._thread, function)
        future.add_done_callback(_see_outcome)
        await self._until_done(future, deadline_s)
        return future.result()

    def close(self, at_last: Callable[[], object] | None = None) -> None:
        """Let the thread end, after a last call, of which nobody hears. Idempotent."""
        if at_last is not None:
            with contextlib.suppress(RuntimeError):  # it was closed already
                self._thread.submit(at_last)
        self._thread.shutdown(wait=False)

    async def _until_done(self, future: asyncio.Future[Any], deadline_s: float) -> None:
        now_s = asyncio.get_running_loop().time()
        await asyncio.wait((future,), timeout=max(deadline_s - now_s, 0.0))
        if not future.done():
            raise TimeoutError


def _see_outcome(future: asyncio.Future[Any]) -> None:
    """Of a call that nobody may wait for any more."""
    if not future.cancelled():
        future.exception()
