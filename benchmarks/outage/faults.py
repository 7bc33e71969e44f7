"""Speech engines that fail, and the ways in which they do."""

import asyncio
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from signal import SIGKILL, SIGUSR1, SIGUSR2
from subprocess import Popen
from typing import Any

from agent.errors import RoomscribeError
from tests.support import server
from tests.support.toxiproxy import Toxiproxy

__all__ = ["FAILOVER", "HALF_OPEN", "KINDS", "UNDISTURBED", "Service", "ServiceError"]

START_S = 60.0  # a dozen start at once
STOP_S = 10.0
POLL_S = 0.02

HALF_OPEN = "half_open"
KINDS = ("killed", "stalled", HALF_OPEN, "too_many")
FAILOVER = "failover"  # killed, with a second engine
KILLED = ("killed", FAILOVER)
UNDISTURBED = "undisturbed"
# Who is over the limit is thrown out and not let in again.
WRONG: Mapping[str, Mapping[str, Any]] = {
    "stalled": {"stall": True},
    "too_many": {"status": 429, "close_with": 1013},
}


class ServiceError(RoomscribeError):
    """A stand-in does not run."""


class Service:
    """A stand-in in a process of its own, always on the same port.

    Args:
        kind: What will be wrong with it.
        log: The file that gets what it says.
        toxiproxy: What lies before it where connections are to be silenced.
    """

    def __init__(self, kind: str, log: Path, toxiproxy: Toxiproxy | None = None) -> None:
        self._log = log
        self._port = server.free_port()
        self._wrong = json.dumps(WRONG.get(kind, {}))
        self._processes: list[Popen[bytes]] = []  # the first one listens
        self.url = f"http://{server.HOST}:{self._port}"
        self._proxy = None
        if kind == HALF_OPEN and toxiproxy is not None:
            self._proxy = toxiproxy.proxy(self.url)
            self.url = self._proxy.url

    async def start(self) -> None:
        """Run it, and wait until it listens.

        Raises:
            ServiceError: It does not.
        """
        await asyncio.to_thread(self._run, listen_at_s=0.0)
        await self._until_it_listens()

    def kill(self) -> None:
        """End it without a chance to say goodbye. Idempotent."""
        while self._processes:
            server.end(self._processes.pop(), SIGKILL, patience_s=STOP_S)

    async def fail(self, kind: str, at_s: float, for_s: float) -> float:
        """Be out of order in this way for so long, from a moment of the monotonic clock on.

        Returns:
            Until when it certainly was.
        """
        if kind in KILLED:
            # Its successor begins early, since a process needs seconds until it can listen.
            await asyncio.to_thread(self._run, listen_at_s=at_s + for_s)
        await asyncio.sleep(at_s - time.monotonic())
        if kind in WRONG:
            self._processes[0].send_signal(SIGUSR1)
            await asyncio.sleep(for_s)
            until_s = time.monotonic()
            self._processes[0].send_signal(SIGUSR2)
            return until_s
        if kind in KILLED:
            await asyncio.to_thread(server.end, self._processes.pop(0), SIGKILL, patience_s=STOP_S)
            await asyncio.sleep(for_s)
            return await self._until_it_listens()
        return await asyncio.to_thread(self._silence, for_s)

    def _run(self, *, listen_at_s: float) -> None:
        command = [sys.executable, "-m", "benchmarks.outage.service"]
        command += ["--port", str(self._port), "--wrong", self._wrong, "--listen-at", str(listen_at_s)]
        with open(self._log, "ab") as output:
            self._processes.append(server.start(command, output=output))

    async def _until_it_listens(self) -> float:
        """Wait for it; gives the last moment at which it did not listen."""
        until_s = time.monotonic()
        try:
            async with asyncio.timeout(START_S):
                while not await self._listens():
                    if self._processes[0].poll() is not None:
                        raise ServiceError(f"the stand-in has ended: {self._log.read_text()[-500:]}")
                    until_s = time.monotonic()
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise ServiceError(f"the stand-in does not listen within {START_S:g} s") from None
        return until_s

    def _silence(self, for_s: float) -> float:
        assert self._proxy is not None
        with self._proxy.silent():
            time.sleep(for_s)
            return time.monotonic()

    async def _listens(self) -> bool:
        try:
            _, writer = await asyncio.open_connection(server.HOST, self._port)
        except OSError:
            return False
        writer.close()
        return True
