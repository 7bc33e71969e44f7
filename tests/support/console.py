"""The console on a real socket, in a thread of its own."""

import asyncio
import socket
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Self

import uvicorn
from fastapi import FastAPI

from agent.analysis.scenario import Scenario
from agent.config import Settings
from agent.console.app import create_app

__all__ = ["RunningConsole"]

HOST = "127.0.0.1"
LIMIT_S = 30.0


class RunningConsole:
    """`with RunningConsole(settings) as console` serves it at `console.url`.

    Args:
        scenarios: Name the kinds of statements.
    """

    def __init__(self, settings: Settings, scenarios: Mapping[str, Scenario] | None = None) -> None:
        self.app: FastAPI = create_app(settings, scenarios)
        config = uvicorn.Config(self.app, log_config=None, access_log=False, ws="none")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._has_started = threading.Event()

    def __enter__(self) -> Self:
        self._listener = socket.create_server((HOST, 0))
        self.url = f"http://{HOST}:{self._listener.getsockname()[1]}"
        self._thread.start()
        assert self._has_started.wait(LIMIT_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self.app.state.viewers.close)
        self._server.should_exit = True
        self._thread.join(LIMIT_S)
        self._listener.close()
        assert not self._thread.is_alive()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        serving = asyncio.create_task(self._server.serve([self._listener]))
        while not self._server.started and not serving.done():  # noqa: ASYNC110  uvicorn tells nobody
            await asyncio.sleep(0.01)
        self._has_started.set()
        await serving
