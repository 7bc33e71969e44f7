"""A console on each kind of database for all tests, each of which has a space of its own in it."""

import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from agent.analyst.scenarios import load_scenarios
from agent.config import Settings, load_settings
from persistence import api_keys, schema
from persistence.database import Database
from tests.support.console import RunningConsole
from tests.support.postgres import Postgres
from tests.support.stored_session import add_space

TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Parts:
    """A console that runs, and what it runs on."""

    settings: Settings
    database: Database
    console: RunningConsole


def start(stack: ExitStack, folder: Path, url: str = "") -> Parts:
    """A console with a new database, as long as the stack is open."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("ROOMSCRIBE_DATA_DIR", str(folder / "data"))
        patch.setenv("ROOMSCRIBE_DATABASE__URL", url)
        settings = load_settings()
    database = stack.enter_context(closing(Database.of(settings)))
    schema.upgrade(database)
    console = stack.enter_context(RunningConsole(settings, load_scenarios("")))
    return Parts(settings, database, console)


@pytest.fixture(scope="session")
def sqlite_parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    with ExitStack() as stack:
        yield start(stack, tmp_path_factory.mktemp("console"))


@pytest.fixture(scope="session")
def postgresql_parts(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> Iterator[Parts]:
    url = postgres.new_database()
    with ExitStack() as stack:
        yield start(stack, tmp_path_factory.mktemp("console"), url)
    postgres.drop_database(url)


@pytest.fixture
def own_parts(tmp_path: Path) -> Iterator[Parts]:
    """For a test that harms its database."""
    with ExitStack() as stack:
        yield start(stack, tmp_path)


@pytest.fixture
def kind() -> str:
    """Which database; a test whose queries may differ is run on both."""
    return "sqlite"


@pytest.fixture
def parts(request: pytest.FixtureRequest, kind: str) -> Parts:
    found: Parts = request.getfixturevalue(f"{kind}_parts")
    return found


@pytest.fixture
def settings(parts: Parts) -> Settings:
    return parts.settings


@pytest.fixture
def database(parts: Parts) -> Database:
    return parts.database


@pytest.fixture
def console(parts: Parts) -> RunningConsole:
    return parts.console


@pytest.fixture
def space(database: Database) -> str:
    """A space in which nothing is."""
    name = uuid.uuid4().hex
    add_space(database, name)
    return name


@pytest.fixture
def key(database: Database, space: str) -> str:
    """A key of the space."""
    with database.write() as connection:
        return api_keys.create(connection, space, "Ada")[0]


@pytest.fixture
def nobody(console: RunningConsole) -> Iterator[httpx.Client]:
    """A client without a key."""
    with httpx.Client(base_url=console.url, timeout=TIMEOUT_S, trust_env=False) as client:
        yield client


@pytest.fixture
def client(console: RunningConsole, key: str) -> Iterator[httpx.Client]:
    """A client with a key of the space."""
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=console.url, headers=headers, timeout=TIMEOUT_S, trust_env=False) as client:
        yield client
