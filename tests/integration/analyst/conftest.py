"""An analyst of one's own for each test, on SQLite, and on PostgreSQL where it is asked for."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from agent.config import Settings, load_settings
from persistence import analyses, schema
from persistence.analyses import Run
from persistence.database import Database
from persistence.records import DEFAULT_SPACE

CHILD = Path(__file__).with_name("analyst_child.py")
ROOT = Path(__file__).parents[3]
LIMIT_S = 120.0
POLL_S = 0.1


class Analyst:
    """`roomscribe analyst`, as a process. `log` is what all that ran in this folder have written."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self.environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None
        self.log = folder / "analyst.log"

    def start(self, killed: str = "never", **environment: str) -> None:
        """Run one; see analyst_child.py for `killed`."""
        with open(self.log, "ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, str(CHILD), killed],
                cwd=self._folder,
                env=self.environment | environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def wait(self) -> int:
        """Its exit code; below 0 the signal that ended it."""
        assert self._process is not None
        return self._process.wait(LIMIT_S)

    def stop(self) -> int:
        """End it by SIGTERM, if it runs."""
        if self._process is None:
            return 0
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        return self.wait()

    def logged(self, event: str) -> list[dict[str, Any]]:
        """What it logged under this name."""
        entries = []
        for line in self.log.read_text(encoding="utf-8").splitlines():
            try:
                entries.append(json.loads(line))
            except ValueError:
                continue
        return [entry for entry in entries if entry.get("event") == event]

    def steps(self) -> list[str]:
        """The steps that were begun, in order."""
        return [entry["step"] for entry in self.logged("analysis.step")]


@pytest.fixture
def settings(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("ROOMSCRIBE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("ROOMSCRIBE_LOG__FORMAT", "json")
    if getattr(request, "param", "sqlite") == "postgresql":
        monkeypatch.setenv("ROOMSCRIBE_DATABASE__URL", request.getfixturevalue("postgres_url"))
    return load_settings()


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    database = Database.of(settings)
    schema.upgrade(database)
    yield database
    database.close()


@pytest.fixture
def analyst(settings: Settings, tmp_path: Path) -> Iterator[Analyst]:
    analyst = Analyst(tmp_path, {**os.environ, "PYTHONPATH": str(ROOT)})
    yield analyst
    analyst.stop()


@pytest.fixture
def until_run(database: Database) -> Callable[[str, str], Run]:
    """Waits until the newest run of a session has a status, and gives it."""

    def wait(session: str, status: str) -> Run:
        deadline_s = time.monotonic() + LIMIT_S
        run: Run | None = None
        while time.monotonic() < deadline_s:
            with database.read() as connection:
                run = analyses.newest(connection, DEFAULT_SPACE, session)
            if run is not None and run.status == status:
                return run
            time.sleep(POLL_S)
        raise AssertionError(f"not {status} within {LIMIT_S:g} s: {run}")

    return wait
