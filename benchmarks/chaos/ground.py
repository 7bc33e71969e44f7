"""What a kind of fault is tried on: a livekit-server, workers, and the rooms that they serve."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, chdir
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from agent.cli.child import Child
from agent.config import Settings
from agent.errors import LiveKitError
from agent.room.dispatch import Rooms
from benchmarks.chaos.livekit import RestartedLiveKit
from benchmarks.chaos.logs import Logs
from tests.support.gathering import settings_for
from tests.support.worker import RunningWorker

__all__ = ["COUNTING", "Ground", "Station", "UpStation", "running"]

AGENT_NAME = "roomscribe"
START_S = 60.0
POLL_S = 0.05
STARTED = re.compile(r"worker started \(process (\d+)\)")

COUNTING = {
    "ROOMSCRIBE_STT__ENGINES": "benchmarks.counting_stt:CountingSTT",
    "PYTHONPATH": str(Path(__file__).parents[2]),
}
HASTY = {"COUNTING_STT_INTERVAL_S": "0.2"}


class Station:
    """Where a worker runs, is killed and is started again: its folder and its settings."""

    def __init__(
        self, name: str, folder: Path, server: RestartedLiveKit, logs: Logs, variables: Mapping[str, str]
    ) -> None:
        self.name = name
        self.folder = folder
        self._server = server
        self._logs = logs
        self._variables = variables
        self._starts = 0
        self._worker: RunningWorker | None = None
        folder.mkdir(parents=True)

    @property
    def data_dir(self) -> Path:
        return self.folder / "data"

    async def start(self) -> None:
        """Run the worker and wait until LiveKit knows it."""
        self._worker = await RunningWorker.start(
            self._server, self.folder, self._new_log(), agent_name=AGENT_NAME, settings=self._variables
        )

    async def kill(self) -> None:
        """End the worker and its rooms without a chance to say goodbye."""
        assert self._worker is not None
        await self._worker.kill()

    async def stop(self) -> int:
        """End it by SIGTERM, and give its exit code; below 0 it had to be killed."""
        return 0 if self._worker is None else await self._worker.stop()

    def _new_log(self) -> Path:
        # One that is waited for until it is ready must not be taken for the one before.
        self._starts += 1
        log = self.folder / f"worker-{self._starts}.log"
        log.touch()
        self._logs.add(log, self.name)
        return log


class UpStation(Station):
    """`roomscribe up`, which starts its worker again by itself."""

    _up: Child | None = None

    async def start(self) -> None:
        """Run it and wait until LiveKit knows its worker."""
        environment = {
            **os.environ,
            "LIVEKIT_URL": self._server.url,
            "LIVEKIT_API_KEY": self._server.api_key,
            "LIVEKIT_API_SECRET": self._server.api_secret,
            "ROOMSCRIBE_DATA_DIR": str(self.data_dir),
            "ROOMSCRIBE_DISPATCH__AGENT_NAME": AGENT_NAME,
            "ROOMSCRIBE_LOG__FORMAT": "json",
            "ROOMSCRIBE_CONSOLE__PORT": "0",
            **self._variables,
        }
        with chdir(self.folder), open(self._new_log(), "ab") as output:  # noqa: ASYNC230  a local file
            command = (sys.executable, "-m", "agent", "up")
            self._up = await Child.start(command, environment=environment, output=output)
        try:
            async with asyncio.timeout(START_S):
                while not self._logs.logged("worker.ready", worker=self.name):  # noqa: ASYNC110  polls a log
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise LiveKitError(f"`roomscribe up` has no worker within {START_S:g} s") from None

    async def kill(self) -> None:
        """End its worker, with the worker's rooms, and let it start another one."""
        found = [match for line in self._logs.lines(self.name) if (match := STARTED.search(line))]
        # The worker has a process group of its own, in which its rooms are.
        os.killpg(int(found[-1][1]), signal.SIGKILL)

    async def stop(self) -> int:
        return 0 if self._up is None else await self._up.stop()


@dataclass(slots=True)
class Ground:
    """A server and workers that run."""

    server: RestartedLiveKit
    stations: list[Station]
    logs: Logs
    rooms: Rooms
    settings: list[Settings]
    folder: Path


@asynccontextmanager
async def running(
    *,
    workers: int,
    rooms: int,
    database_url: str = "",
    variables: Mapping[str, str] | None = None,
    is_up: bool = False,
    folder: Path | None = None,
) -> AsyncIterator[Ground]:
    """Start a server and workers, and stop them at the end.

    Args:
        workers: How many; each has a folder of its own, and they share a database.
        rooms: How many there are at once, all of which one worker takes if need be.
        database_url: Instead of a SQLite file of their own.
        variables: Further settings of the workers.
        is_up: Run `roomscribe up` instead of workers.
        folder: Where they keep their data and logs; None is a temporary one.
    """
    async with AsyncExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="roomscribe-benchmark-")))
        folder.mkdir(parents=True, exist_ok=True)
        server = await stack.enter_async_context(await RestartedLiveKit.run(folder / "livekit.log"))
        database = database_url or f"sqlite:///{folder / 'roomscribe.db'}"
        settings = {
            **COUNTING,
            **HASTY,
            # Those of rooms that are about to close count, too.
            "ROOMSCRIBE_WORKER__MAX_JOBS": str(4 * rooms),
            "ROOMSCRIBE_DATABASE__URL": database,
            **(variables or {}),
        }
        logs = Logs()
        make = UpStation if is_up else Station
        stations = [
            make(f"worker-{number}", folder / f"worker-{number}", server, logs, settings)
            for number in range(workers)
        ]
        for station in stations:
            stack.push_async_callback(station.stop)
            # One after the other: the first one makes the database's tables.
            await station.start()
        of_workers = [
            settings_for(server, data_dir=station.data_dir, database_url=database) for station in stations
        ]
        yield Ground(
            server,
            stations,
            logs,
            await stack.enter_async_context(Rooms(of_workers[0])),
            of_workers,
            folder,
        )
