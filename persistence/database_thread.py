"""The one thread in which an event loop has its calls of a database run."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from agent.errors import DatabaseAwayError
from persistence.database import Database

__all__ = ["DatabaseThread"]

Result = TypeVar("Result")

INTERRUPT_S = 2.0  # for a call to notice that its connection was cut


class DatabaseThread:
    """Runs calls one after the other, and waits for none of them longer than it may take.

    Args:
        database: Its connections are cut where nobody answers, and closed at the end.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self._thread = ThreadPoolExecutor(1, "database")
        self._last: asyncio.Future[Any] | None = None

    async def call(self, function: Callable[[], Result], timeout_s: float) -> Result:
        """Give what a function returns or raises.

        Raises:
            DatabaseAwayError: It does not come back in time. Its transaction is not committed then, or
                nobody can say whether it was: do it again.
        """
        deadline_s = asyncio.get_running_loop().time() + timeout_s
        if self._last is not None:
            await self._until_done(self._last, deadline_s)
        future = asyncio.get_running_loop().run_in_executor(self._thread, function)
        future.add_done_callback(_see_outcome)
        self._last = future
        await self._until_done(future, deadline_s)
        return future.result()

    def close(self) -> None:
        """Free the thread and close the connections. Idempotent."""
        self.database.interrupt()
        self._thread.shutdown(wait=False)
        self.database.close()

    async def _until_done(self, future: asyncio.Future[Any], deadline_s: float) -> None:
        now_s = asyncio.get_running_loop().time()
        await asyncio.wait((future,), timeout=max(deadline_s - now_s, 0.0))
        if not future.done():
            self.database.interrupt()
            await asyncio.wait((future,), timeout=INTERRUPT_S)
        if not future.done():
            raise DatabaseAwayError(f"database {self.database.name} cannot be used: it does not answer")


def _see_outcome(future: asyncio.Future[Any]) -> None:
    """Of a call that nobody may wait for any more."""
    if not future.cancelled():
        future.exception()
