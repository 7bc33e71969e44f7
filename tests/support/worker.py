"""A worker as people run it: a process of its own, with a log in JSON."""

import asyncio
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import chdir
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from agent.cli.child import Child
from agent.cli.local_livekit import LocalLiveKit

__all__ = ["RunningWorker"]

READY_EVENT = "worker.ready"
READY_S = 60.0  # it takes about 5 s; two busy cores take longer
POLL_S = 0.05


class RunningWorker:
    """`roomscribe worker` on a LiveKit server; `async with await RunningWorker.start(...)` stops it."""

    def __init__(self, child: Child, agent_name: str, data_dir: Path, log: Path) -> None:
        self._child = child
        self.agent_name = agent_name
        self.data_dir = data_dir
        self.log = log

    @classmethod
    async def start(
        cls,
        livekit: LocalLiveKit,
        folder: Path,
        log: Path,
        *,
        agent_name: str,
        settings: Mapping[str, str] | None = None,
    ) -> Self:
        """Start one and wait until LiveKit knows it.

        Args:
            livekit: The server that it registers with.
            folder: Its working folder, where it keeps its data; its own.
            log: The file that gets what it logs.
            agent_name: By which rooms ask for it. Workers of the same name share the rooms.
            settings: Further variables of its environment, as {"ROOMSCRIBE_WORKER__MAX_JOBS": "1"}.
        """
        data_dir = folder / "data"
        environment = {
            **os.environ,
            "LIVEKIT_URL": livekit.url,
            "LIVEKIT_API_KEY": livekit.api_key,
            "LIVEKIT_API_SECRET": livekit.api_secret,
            "ROOMSCRIBE_DATA_DIR": str(data_dir),
            "ROOMSCRIBE_DISPATCH__AGENT_NAME": agent_name,
            "ROOMSCRIBE_LOG__FORMAT": "json",
            # Most tests want it to end, and have no other worker for its rooms.
            "ROOMSCRIBE_WORKER__DRAIN_S": "0",
            **(settings or {}),
        }
        # In the checkout it would read the developer's own .env.
        with chdir(folder), open(log, "ab") as output:  # noqa: ASYNC230  a local file
            command = (sys.executable, "-m", "agent", "worker")
            child = await Child.start(command, environment=environment, output=output)
        worker = cls(child, agent_name, data_dir, log)
        try:
            await worker.until_logged(READY_EVENT, within_s=READY_S)
        except BaseException:
            await worker.kill()
            raise
        return worker

    @property
    def pid(self) -> int:
        return self._child.pid

    def logged(self, event: str, **fields: object) -> list[dict[str, Any]]:
        """The entries of the log so far with this event and these fields."""
        wanted = {"event": event, **fields}
        return [entry for entry in self._entries() if wanted.items() <= entry.items()]

    async def until_logged(self, event: str, *, within_s: float, **fields: object) -> dict[str, Any]:
        """The first entry with this event and these fields, once it is there.

        Raises:
            AssertionError: The worker ended, or the time is over.
        """
        try:
            async with asyncio.timeout(within_s):
                while True:
                    # In this order, so that the last words of one that ended are not missed.
                    has_ended = self._child.has_ended
                    if entries := self.logged(event, **fields):
                        return entries[0]
                    assert not has_ended, f"the worker ended before it logged {event}"
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise AssertionError(
                f"the worker did not log {event} {fields or ''} within {within_s:g} s"
            ) from None

    async def stop(self) -> int:
        """End it as an operator does, by SIGTERM, and give its exit code."""
        return await self._child.stop()

    async def wait(self) -> int:
        """Its exit code, once it has ended."""
        return await self._child.wait()

    def terminate(self) -> None:
        """Send it SIGTERM, and do not wait for what it does."""
        self._child.tell_to_end()

    async def kill(self) -> int:
        """End it and all its rooms without a chance to say goodbye."""
        return await self._child.kill()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    def _entries(self) -> Iterator[dict[str, Any]]:
        for line in self.log.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # a library's print, or a line that is being written
            if isinstance(entry, dict):
                yield entry
