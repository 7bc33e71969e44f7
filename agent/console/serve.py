"""Serving the console until a signal comes."""

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager

import structlog
import uvicorn
from fastapi import FastAPI

from agent.analysis.scenario import Scenario
from agent.config import Settings
from agent.console.app import create_app
from agent.console.gate import is_loopback
from agent.errors import ConfigError, DatabaseAwayError
from persistence import schema
from persistence.database import Database

__all__ = ["serve"]

STOP_S = 3  # for answers that are under way; event streams end at once
BACKLOG = 128  # connections that wait to be taken
AWAY_WAIT_S = 5.0
NO_TLS = "keys and all that was said go over the network as they are; put a proxy with TLS in front"

log = structlog.get_logger(__name__)


async def serve(settings: Settings, scenarios: Mapping[str, Scenario]) -> None:
    """Serve pages and API on `console.host` and `console.port` until SIGTERM or SIGINT.

    A second signal cuts off what is under way. As long as the database is away at the start, it waits.

    Args:
        scenarios: Name the kinds of statements.

    Raises:
        ConfigError: The address cannot be had, or the database is none that we know.
        DatabaseError: The database is none that we can work with.
    """
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    if not await _until_ready(settings, ending):
        return
    app = create_app(settings, scenarios)
    with closing(_listening(settings)) as listener:
        server = _Server(app, lambda: _say_ready(settings, listener))

        def end() -> None:
            server.force_exit = server.should_exit
            server.should_exit = True
            if server.started:
                app.state.viewers.close()  # it would wait for them

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, end)
        await server.serve([listener])
    log.info("console.ended")


class _Server(uvicorn.Server):
    """Uvicorn with our logs and our signals.

    Args:
        app: What it serves.
        on_started: Called when it answers.
    """

    def __init__(self, app: FastAPI, on_started: Callable[[], None]) -> None:
        # Its access log would have the queries in it, and room names with them.
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            ws="none",
            server_header=False,
            backlog=BACKLOG,
            timeout_graceful_shutdown=STOP_S,
        )
        super().__init__(config)
        self._on_started = on_started
        if not logging.getLogger().isEnabledFor(logging.DEBUG):
            logging.getLogger("uvicorn").setLevel(logging.WARNING)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_started()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves them to the event loop: uvicorn would have the process die of them at the end."""
        yield


async def _until_ready(settings: Settings, ending: asyncio.Event) -> bool:
    """Wait for a database that is away, and make sure of its tables.

    Returns:
        Whether it is there; else a signal has come.

    Raises:
        ConfigError: `database.url` is none that we know.
        DatabaseError: It is none that we can work with.
    """
    settle = schema.upgrade if settings.database.upgrade_at_start else schema.check
    is_told = False
    with closing(Database.of(settings)) as database:
        while not ending.is_set():
            try:
                await asyncio.to_thread(settle, database)
            except DatabaseAwayError as error:
                if not is_told:
                    log.warning("console.database_away", problem=str(error))
                    is_told = True
            else:
                return not ending.is_set()
            try:
                async with asyncio.timeout(AWAY_WAIT_S):
                    await ending.wait()
            except TimeoutError:
                pass
    return False


def _listening(settings: Settings) -> socket.socket:
    """A socket on the address of the settings.

    Raises:
        ConfigError: It cannot be had.
    """
    host, port = settings.console.host.strip("[]"), settings.console.port
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(address, family=family, backlog=BACKLOG)
    except OSError as error:
        raise ConfigError(
            f"config: console.host {settings.console.host} with console.port {port} cannot be used: "
            f"{error.strerror}; set console.port (ROOMSCRIBE_CONSOLE__PORT) to one that is free, or to 0 for "
            "any, and console.host (ROOMSCRIBE_CONSOLE__HOST) to an address of this machine"
        ) from None


def _say_ready(settings: Settings, listener: socket.socket) -> None:
    host, port = settings.console.host.strip("[]"), listener.getsockname()[1]
    log.info("console.ready", url=f"http://{f'[{host}]' if ':' in host else host}:{port}")
    if not is_loopback(host):
        log.warning("console.no_tls", host=host, advice=NO_TLS)
