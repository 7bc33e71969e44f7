"""A worker in a process of its own, as an operator runs it, and what it logs."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from agent.cli.child import Child
from agent.cli.local_livekit import LocalLiveKit

__all__ = ["WorkerProcess", "run_worker"]

READY_S = 90.0  # imports and the model; several seconds on a busy machine
STOP_S = 30.0
POLL_S = 0.1
LAST_LINES = 10


class WorkerProcess:
    """A running worker; `run_worker` makes one."""

    def __init__(self, child: Child, log: Path) -> None:
        self._child = child
        self._log = log

    async def logged(self, event: str, *, room: str | None = None, timeout_s: float) -> dict[str, Any]:
        """Wait until the worker, or a job of its, has logged an event, and give its fields.

        Args:
            event: Its name.
            room: The room that it must be about; None for any.
            timeout_s: How long it may take.

        Raises:
            ChildProcessError: The worker ended.
            TimeoutError: It is too late.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    for fields in self._entries():
                        if fields.get("event") == event and room in (None, fields.get("room")):
                            return fields
                    if self._child.has_ended:
                        raise ChildProcessError(f"the worker ended before {event}:\n{self._last_lines()}")
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            where = f" for room {room}" if room else ""
            raise TimeoutError(
                f"the worker did not log {event}{where} within {timeout_s:g} s:\n{self._last_lines()}"
            ) from None

    def _entries(self) -> Iterator[dict[str, Any]]:
        for line in self._log.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                fields = json.loads(line)
            except ValueError:  # a library's own print, or a line that is still being written
                continue
            if isinstance(fields, dict):
                yield fields

    def _last_lines(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-LAST_LINES:])


@asynccontextmanager
async def run_worker(server: LocalLiveKit) -> AsyncIterator[WorkerProcess]:
    """Run a worker with the settings in force here, for this server, from when it is ready until the end.

    Raises:
        ChildProcessError: It ended before it was ready.
        TimeoutError: It is not ready in time.
    """
    with TemporaryDirectory(prefix="roomscribe-benchmark-") as folder:
        log = Path(folder) / "worker.log"
        environment = os.environ | {
            "LIVEKIT_URL": server.url,
            "LIVEKIT_API_KEY": server.api_key,
            "LIVEKIT_API_SECRET": server.api_secret,
            "ROOMSCRIBE_DATA_DIR": folder,
            "ROOMSCRIBE_LOG__FORMAT": "json",
            "ROOMSCRIBE_LOG__LEVEL": "info",
        }
        with log.open("wb") as output:
            child = await Child.start(
                [sys.executable, "-m", "agent", "worker"], environment=environment, output=output
            )
        try:
            worker = WorkerProcess(child, log)
            await worker.logged("worker.ready", timeout_s=READY_S)
            yield worker
        finally:
            await child.stop(STOP_S)
