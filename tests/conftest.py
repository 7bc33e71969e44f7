"""What holds for every test."""

import os
import signal
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from agent.cli.ending import end_process
from tests.support import leftovers
from tests.support.parts import REQUIRE_ALL_VARIABLE

pytest_plugins = ["tests.live_rooms"]

TOOLS = Path(__file__).parents[1] / ".tools" / "bin"  # where `make setup` puts what PATH does not have
GOODBYE_S = 5.0
EXIT_STATUS = pytest.StashKey[int]()


# No timing is asserted in a test: this machine may be doing other things.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


def pytest_configure() -> None:
    # A run that is ended from outside stops what it started, as one that is interrupted by Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    os.environ["PATH"] = os.pathsep.join((str(TOOLS), os.environ.get("PATH", os.defpath)))
    # Whatever server and settings a developer uses, tests use their own.
    for name in list(os.environ):
        if name.startswith(("ROOMSCRIBE_", "LIVEKIT_")) and name != REQUIRE_ALL_VARIABLE:
            del os.environ[name]


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    session.config.stash[EXIT_STATUS] = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    # Tests join rooms in this process.
    end_process(config.stash.get(EXIT_STATUS, 1))


@pytest.fixture(scope="session", autouse=True)
def no_process_survives() -> Iterator[None]:
    """The first fixture to begin, so that it looks when all others have stopped what they started."""
    run = uuid.uuid4().hex
    leftovers.mark_children(run)
    yield
    if sys.platform == "linux" and (left := leftovers.survivors(run, GOODBYE_S)):
        leftovers.kill(left)
        pytest.fail(f"processes were left running, now killed: {left}", pytrace=False)
