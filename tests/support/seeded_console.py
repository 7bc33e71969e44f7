"""A console with sessions in it, of every kind that its pages show."""

from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from playwright.async_api import BrowserContext

from agent.analyst.scenarios import load_scenarios
from agent.config import load_settings
from agent.console.keys import COOKIE
from persistence import api_keys, schema
from persistence.database import Database
from persistence.records import DEFAULT_SPACE
from tests.support.console import RunningConsole
from tests.support.seeded import add_analysis, add_ended, add_incident_review, add_recording

__all__ = ["AT", "Console", "SeededConsole"]

AT = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)  # when the session began that has everything


class Console:
    """A console with a key, and its database. Use it as a context manager.

    Args:
        folder: Where its data lie.
        host: On which it is told to listen. Only this machine reaches it in any case.
    """

    def __init__(self, folder: Path, host: str = "127.0.0.1") -> None:
        settings = load_settings()
        console = settings.console.model_copy(update={"host": host})
        self.settings = settings.model_copy(update={"data_dir": folder, "console": console})
        self.database = Database(self.settings.database_url)
        schema.upgrade(self.database)
        with self.database.write() as connection:
            self.key, _ = api_keys.create(connection, DEFAULT_SPACE, "a test")
        self._running = RunningConsole(self.settings, load_scenarios(""))
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.callback(self.database.close)
        self._stack.enter_context(self._running)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def url(self) -> str:
        return self._running.url

    async def sign_in(self, context: BrowserContext) -> None:
        """Give a browser what signing in gives it."""
        await context.add_cookies(
            [{"name": COOKIE, "value": self.key, "url": self.url, "httpOnly": True, "sameSite": "Lax"}]
        )


@dataclass(frozen=True)
class SeededConsole:
    """A console that serves these sessions, each by its id; `silent` is analysed and has no recording.

    They are for all tests, which leave them as they are.
    """

    running: Console
    analysed: str
    silent: str
    pending: str
    failed: str
    unsaid: str

    @classmethod
    def fill(cls, running: Console) -> Self:
        database = running.database
        analysed = add_incident_review(database, AT)
        add_analysis(database, analysed)
        add_recording(database, analysed, running.settings.renderings_dir)
        silent = add_incident_review(database, AT - timedelta(days=1), room="support-call")
        add_analysis(database, silent)
        failed = add_incident_review(database, AT - timedelta(days=2, hours=-5), room="design-sync")
        add_analysis(database, failed, "failed")
        pending = add_incident_review(database, AT + timedelta(hours=2), room="retrospective")
        add_analysis(database, pending, "begun")
        unsaid = add_ended(database, "standup", AT - timedelta(days=4, hours=-1), 904_000)
        return cls(running, analysed, silent, pending, failed, unsaid)

    @property
    def url(self) -> str:
        return self.running.url
