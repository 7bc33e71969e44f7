"""A livekit-server of one's own, which only this machine can reach."""

import asyncio
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from agent.cli.child import Child
from agent.errors import LiveKitError

__all__ = [
    "DEVELOPMENT_KEY",
    "DEVELOPMENT_SECRET",
    "LocalLiveKit",
    "find_livekit_server",
    "require_livekit_server",
]

HOST = "127.0.0.1"
BESIDE_US = Path(".tools/bin/livekit-server")  # where the Makefile puts it

# Known to everybody, which is why the server listens on the loopback interface only. livekit-server and PyJWT
# complain about secrets of less than 32 characters.
DEVELOPMENT_KEY = "devkey"
DEVELOPMENT_SECRET = "a-secret-for-development-on-this-machine"

# They would override what we ask for.
SERVER_VARIABLES = {
    "LIVEKIT_CONFIG",
    "LIVEKIT_KEYS",
    "LIVEKIT_TURN_CERT",
    "LIVEKIT_TURN_KEY",
    "NODE_IP",
    "REDIS_HOST",
    "REDIS_PASSWORD",
    "UDP_PORT",
}

START_S = 15.0  # it answers after 0.2 s; a busy machine takes longer
START_ATTEMPTS = 3  # somebody else may take a free port between our look and the server's
POLL_S = 0.05
STOP_S = 10.0
# At the first SIGTERM it waits for everybody to leave, at the second it goes. It loses one that comes within
# 0.1 s after it began to answer.
INSIST_AFTER_S = 1.0

NO_SERVER = """\
there is no livekit-server on PATH; get one in one of these ways:
  - download it from https://github.com/livekit/livekit/releases
  - by a package manager, for example `brew install livekit`
  - with Go 1.26 or later: `go install github.com/livekit/livekit-server/cmd/server@v1.13.5`, then rename
    ~/go/bin/server to livekit-server and put it on PATH
  - run the container image livekit/livekit-server
Or set LIVEKIT_URL, LIVEKIT_API_KEY and LIVEKIT_API_SECRET to those of one that runs elsewhere."""


def find_livekit_server() -> Path | None:
    """The livekit-server on PATH, else that in ./.tools/bin."""
    if found := shutil.which("livekit-server"):
        return Path(found)
    return BESIDE_US.resolve() if os.access(BESIDE_US, os.X_OK) else None


def require_livekit_server() -> Path:
    """The same, or a LiveKitError that tells how to get one."""
    if (found := find_livekit_server()) is None:
        raise LiveKitError(NO_SERVER)
    return found


class LocalLiveKit:
    """A running livekit-server; `async with await LocalLiveKit.start() as server` stops it at the end."""

    def __init__(self, child: Child, port: int, api_key: str, api_secret: str) -> None:
        self._child = child
        self.url = f"ws://{HOST}:{port}"
        self.api_key = api_key
        self.api_secret = api_secret

    @classmethod
    async def start(
        cls,
        *,
        port: int | None = None,
        api_key: str = DEVELOPMENT_KEY,
        api_secret: str = DEVELOPMENT_SECRET,
        empty_timeout_s: int | None = None,
        departure_timeout_s: int | None = None,
        log: Path | None = None,
    ) -> Self:
        """Run the livekit-server that is found and return when it answers.

        Args:
            port: Where it is reached; None is any free port.
            api_key: The one key it accepts, with its secret.
            api_secret: At least 32 characters; it logs an error about a shorter one, and works.
            empty_timeout_s: How long a room stays that nobody joined; None is the server's default, 300.
            departure_timeout_s: How long a room stays after the last one left; None is the server's default,
                20.
            log: A file that gets what it logs; None shows the end of it if it cannot start.

        Raises:
            LiveKitError: There is no livekit-server, the port is taken, or it does not start.
        """
        binary = require_livekit_server()
        if port is not None and not _is_free(port):
            raise LiveKitError(
                f"port {port} is taken, perhaps by another livekit-server; stop that or use it"
            )
        room = {"empty_timeout": empty_timeout_s, "departure_timeout": departure_timeout_s}
        with open(log, "a+b") if log else tempfile.TemporaryFile() as output:  # noqa: ASYNC230  a local file
            for _ in range(START_ATTEMPTS):
                free_tcp, free_http, free_udp = _free_ports()
                http_port = port or free_http
                config = {
                    "port": http_port,
                    "bind_addresses": [HOST],
                    "keys": {api_key: api_secret},
                    "room": {key: value for key, value in room.items() if value is not None},
                    "rtc": {
                        "tcp_port": free_tcp,
                        "udp_port": free_udp,
                        "node_ip": HOST,
                        "use_external_ip": False,  # else it asks a STUN server
                        "enable_loopback_candidate": True,  # else media falls back to TCP
                    },
                }
                child = await Child.start([str(binary)], environment=_environment(config), output=output)
                try:
                    if await _answers_in_time(child, http_port):
                        return cls(child, http_port, api_key, api_secret)
                except asyncio.CancelledError:
                    await child.kill()
                    raise
                await child.kill()
            raise LiveKitError(f"livekit-server does not start: {_last_line(output)}")

    @property
    def pid(self) -> int:
        return self._child.pid

    async def wait(self) -> int:
        """The exit code, once it has ended."""
        return await self._child.wait()

    async def stop(self) -> None:
        """End it, whoever is still in a room. Idempotent."""
        await self._child.stop(STOP_S, insist_after_s=INSIST_AFTER_S)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()


def _environment(config: Mapping[str, Any]) -> dict[str, str]:
    """Ours with the configuration, which holds a secret: everybody on the machine could read an argument."""
    kept = {name: value for name, value in os.environ.items() if name not in SERVER_VARIABLES}
    return kept | {"LIVEKIT_CONFIG": json.dumps(config)}


def _free_ports() -> tuple[int, int, int]:
    """Two TCP ports and a UDP port that are free at the moment."""
    kinds = (socket.SOCK_STREAM, socket.SOCK_STREAM, socket.SOCK_DGRAM)
    sockets = [socket.socket(socket.AF_INET, kind) for kind in kinds]
    try:
        for each in sockets:
            each.bind((HOST, 0))
        first, second, third = (each.getsockname()[1] for each in sockets)
        return first, second, third
    finally:
        for each in sockets:
            each.close()


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the server does, so that the connections of one that just ended do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


async def _answers_in_time(child: Child, port: int) -> bool:
    with suppress(TimeoutError):
        async with asyncio.timeout(START_S):
            while not child.has_ended:
                if await _answers(port):
                    return True
                await asyncio.sleep(POLL_S)
    return False


async def _answers(port: int) -> bool:
    try:
        reader, writer = await asyncio.open_connection(HOST, port)
    except OSError:
        return False
    try:
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        status = await reader.readline()
    except OSError:
        return False
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
    return status.split()[1:2] == [b"200"]


def _last_line(output: IO[bytes]) -> str:
    output.seek(0)
    lines = output.read().decode(errors="replace").splitlines()
    return lines[-1].strip() if lines else "it says nothing"
