"""A livekit-server that can be killed and started again where it was."""

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Self

import aiohttp

from agent.cli.child import Child
from agent.cli.local_livekit import (
    DEVELOPMENT_KEY,
    DEVELOPMENT_SECRET,
    LocalLiveKit,
    require_livekit_server,
)
from agent.errors import LiveKitError
from tests.support.server import HOST, free_port

__all__ = ["RestartedLiveKit"]

DEPARTURE_TIMEOUT_S = 2
START_S = 15.0
POLL_S = 0.02


class RestartedLiveKit(LocalLiveKit):
    """It keeps its ports, those for media included, which nobody else gets while it is away."""

    def __init__(self, config: dict[str, object], log: Path, child: Child) -> None:
        port = config["port"]
        assert isinstance(port, int)
        super().__init__(child, port, DEVELOPMENT_KEY, DEVELOPMENT_SECRET)
        self._config = config
        self._log = log

    @classmethod
    async def run(cls, log: Path) -> Self:
        """Start one on ports of its own.

        Raises:
            LiveKitError: It does not start.
        """
        config: dict[str, object] = {
            "port": free_port(),
            "bind_addresses": [HOST],
            "keys": {DEVELOPMENT_KEY: DEVELOPMENT_SECRET},
            "room": {"departure_timeout": DEPARTURE_TIMEOUT_S},
            "rtc": {
                "tcp_port": free_port(),
                "udp_port": free_port(),
                "node_ip": HOST,
                "use_external_ip": False,
                "enable_loopback_candidate": True,
            },
        }
        server = cls(config, log, await _start(config, log))
        try:
            await server._until_it_answers()
        except BaseException:
            await server.stop()
            raise
        return server

    async def end(self, by: signal.Signals) -> None:
        """End it: SIGKILL at once, SIGTERM as an operator does who insists."""
        if by == signal.SIGKILL:
            await self._child.kill()
        else:
            await self.stop()

    async def start_again(self) -> None:
        """Start it where it was, and return when it answers.

        Raises:
            LiveKitError: It does not start.
        """
        self._child = await _start(self._config, self._log)
        await self._until_it_answers()

    async def _until_it_answers(self) -> None:
        try:
            async with aiohttp.ClientSession() as http, asyncio.timeout(START_S):
                while not self._child.has_ended:
                    try:
                        async with http.get(self.url.replace("ws://", "http://")) as answer:
                            if answer.status == 200:
                                return
                    except aiohttp.ClientError:
                        pass
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            pass
        raise LiveKitError(f"livekit-server does not start at {self.url}; see {self._log}")


async def _start(config: dict[str, object], log: Path) -> Child:
    environment = os.environ | {"LIVEKIT_CONFIG": json.dumps(config)}
    with open(log, "ab") as output:  # noqa: ASYNC230  a local file
        return await Child.start([str(require_livekit_server())], environment=environment, output=output)
