"""The thread in which an event loop has its calls of a database run."""

from collections.abc import Callable
from typing import TypeVar

from agent.errors import DatabaseAwayError
from persistence.database import Database
from persistence.limited_thread import LimitedThread

__all__ = ["DatabaseThread"]

Result = TypeVar("Result")


class DatabaseThread:
    """Runs calls one after the other, and waits for none of them longer than it may take.

    Args:
        database: Its connections are cut where nobody answers, and closed at the end.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self._thread = LimitedThread("database")

    async def call(self, function: Callable[[], Result], timeout_s: float) -> Result:
        """Give what a function returns or raises.

        Raises:
            DatabaseAwayError: It does not come back in time. Its transaction is not committed then, or
                nobody can say whether it was: do it again.
        """
        try:
            return await self._thread.call(function, timeout_s)
        except TimeoutError:
            self.database.interrupt()
            raise DatabaseAwayError(
                f"database {self.database.name} cannot be used: it does not answer"
            ) from None

    def close(self) -> None:
        """Free the thread and close the connections. Idempotent."""
        self.database.interrupt()
        # A call that still waits there may connect anew, and one that is connecting cannot be broken off.
        self._thread.close(self.database.close)
