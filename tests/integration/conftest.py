"""Real servers for tests, and their logs where a test fails."""

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from agent.cli.local_livekit import LocalLiveKit
from benchmarks.chaos import COUNTING
from tests.support.parts import require
from tests.support.postgres import Postgres
from tests.support.toxiproxy import Toxiproxy
from tests.support.worker import RunningWorker

LOGS = pytest.StashKey[Path]()
LOG_LINES_SHOWN = 40
LOG_LINE_CHARS = 300  # livekit-server logs whole session descriptions

# Rooms of tests are closed early, so that none of them is a burden to the next test.
EMPTY_TIMEOUT_S = 10
DEPARTURE_TIMEOUT_S = 2

StartWorker = Callable[..., Awaitable[RunningWorker]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker("integration")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the end of each log that was written to while a failed test ran."""
    report = yield
    logs = item.session.stash.get(LOGS, None)
    if report.failed and logs:
        for log in sorted(logs.iterdir()):
            if log.stat().st_mtime >= call.start:
                lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
                report.sections.append(
                    (log.name, "\n".join(line[:LOG_LINE_CHARS] for line in lines[-LOG_LINES_SHOWN:]))
                )
    return report


@pytest.fixture(scope="session")
def logs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all servers' logs."""
    folder = tmp_path_factory.mktemp("logs")
    request.session.stash[LOGS] = folder
    return folder


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def livekit(logs: Path) -> AsyncIterator[LocalLiveKit]:
    """One livekit-server for all tests; a test that harms it starts its own."""
    require("livekit-server")
    async with await LocalLiveKit.start(
        empty_timeout_s=EMPTY_TIMEOUT_S,
        departure_timeout_s=DEPARTURE_TIMEOUT_S,
        log=logs / "livekit-server.log",
    ) as server:
        yield server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def worker(
    livekit: LocalLiveKit, logs: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningWorker]:
    """One worker for all tests; a test that stops or harms it uses `start_worker`."""
    folder = tmp_path_factory.mktemp("worker")
    async with await RunningWorker.start(
        livekit, folder, logs / "worker.log", agent_name="roomscribe"
    ) as running:
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def counting_worker(
    livekit: LocalLiveKit, logs: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningWorker]:
    """One worker for all tests that want finals fast and in numbers, whatever they mean."""
    folder = tmp_path_factory.mktemp("counting-worker")
    settings = {**COUNTING, "ROOMSCRIBE_WORKER__MAX_JOBS": "16"}
    async with await RunningWorker.start(
        livekit, folder, logs / "counting-worker.log", agent_name="counting", settings=settings
    ) as running:
        yield running


@pytest_asyncio.fixture
async def start_worker(
    livekit: LocalLiveKit, logs: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[StartWorker]:
    """Starts workers for one test, with settings of its own: `await start_worker({"ROOMSCRIBE_…": "…"})`.

    Each has an agent name and a folder of its own, so that no other worker takes its rooms, unless the test
    gives them.
    """
    async with AsyncExitStack() as stack:

        async def start(
            settings: dict[str, str] | None = None,
            *,
            server: LocalLiveKit = livekit,
            agent_name: str | None = None,
            folder: Path | None = None,
        ) -> RunningWorker:
            folder = folder or tmp_path_factory.mktemp("worker")
            name = agent_name or f"roomscribe-{uuid.uuid4().hex[:8]}"
            log = logs / f"{folder.name}-{uuid.uuid4().hex[:4]}.log"  # of one that was started again, too
            running = await RunningWorker.start(server, folder, log, agent_name=name, settings=settings)
            return await stack.enter_async_context(running)

        yield start


@pytest.fixture(scope="session")
def postgres(logs: Path) -> Iterator[Postgres]:
    """One cluster for all tests; a test that stops it starts its own."""
    with Postgres(logs / "postgres.log") as running:
        yield running


@pytest.fixture(scope="session")
def toxiproxy(logs: Path) -> Iterator[Toxiproxy]:
    """One for all tests, each of which makes proxies of its own."""
    with Toxiproxy(logs / "toxiproxy.log") as running:
        yield running


@pytest.fixture
def postgres_url(postgres: Postgres) -> Iterator[str]:
    """The URL of an empty PostgreSQL database."""
    url = postgres.new_database()
    yield url
    postgres.drop_database(url)


@pytest.fixture
def room_name(request: pytest.FixtureRequest) -> str:
    """A name that no other test's room has."""
    return f"{request.node.name[:40]}-{uuid.uuid4().hex[:8]}"
