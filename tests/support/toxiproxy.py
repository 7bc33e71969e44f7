"""A toxiproxy of one's own: TCP connections that a test can slow down, silence or cut."""

import json
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGKILL
from types import TracebackType
from typing import Literal, Self
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from tests.support import server
from tests.support.parts import require

__all__ = ["Proxy", "Toxiproxy"]

START_S = 15.0  # it takes 20 ms; a busy machine takes longer
REQUEST_S = 10.0
POLL_S = 0.02

Stream = Literal["upstream", "downstream"]
STREAMS: tuple[Stream, ...] = ("upstream", "downstream")


class Toxiproxy:
    """A running toxiproxy-server; `with Toxiproxy(log) as toxiproxy` stops it. Its methods block.

    Args:
        log: The file that gets what it logs.
    """

    def __init__(self, log: Path) -> None:
        program = require("toxiproxy-server")
        self._port = server.free_port()
        command = [str(program), "-host", server.HOST, "-port", str(self._port)]
        with open(log, "ab") as output:
            self._process = server.start(command, output=output)
        deadline = time.monotonic() + START_S
        while not self._answers():
            assert self._process.poll() is None, f"toxiproxy-server does not start; {log} may say why"
            assert time.monotonic() < deadline, f"toxiproxy-server does not answer; {log} may say why"
            time.sleep(POLL_S)

    def proxy(self, upstream: str) -> "Proxy":
        """A new way to a server, given the URL that leads there directly."""
        parts = urlsplit(upstream)
        name, port = uuid.uuid4().hex, server.free_port()
        self.request(
            "POST",
            "/proxies",
            {"name": name, "listen": f"{server.HOST}:{port}", "upstream": f"{parts.hostname}:{parts.port}"},
        )
        credentials, at, _ = parts.netloc.rpartition("@")
        url = parts._replace(netloc=f"{credentials}{at}{server.HOST}:{port}").geturl()
        return Proxy(self, name, port, url)

    def close(self) -> None:
        """Stop it with all its proxies. Idempotent."""
        server.end(self._process, SIGKILL, patience_s=REQUEST_S)  # there is nothing that it could lose

    def request(self, method: str, path: str, body: object = None) -> None:
        """Ask its HTTP API for something."""
        data = None if body is None else json.dumps(body).encode()
        request = Request(f"http://{server.HOST}:{self._port}{path}", data, method=method)
        with urlopen(request, timeout=REQUEST_S):
            pass

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _answers(self) -> bool:
        try:
            self.request("GET", "/version")
        except URLError:
            return False
        return True


class Proxy:
    """A way to a server by `url`, which is the server's own except for the port."""

    def __init__(self, toxiproxy: Toxiproxy, name: str, port: int, url: str) -> None:
        self._toxiproxy = toxiproxy
        self._path = f"/proxies/{name}"
        self.port = port
        self.url = url

    def disable(self) -> None:
        """Close all its connections and refuse new ones."""
        self._toxiproxy.request("POST", self._path, {"enabled": False})

    def enable(self) -> None:
        """Take connections again."""
        self._toxiproxy.request("POST", self._path, {"enabled": True})

    def add_toxic(
        self,
        kind: str,
        *,
        stream: Stream = "downstream",
        **attributes: int,
    ) -> str:
        """Disturb connections, those that are open too, and give the name to `remove_toxic` it by.

        Args:
            kind: `latency`, `bandwidth`, `timeout`, `reset_peer`, … as toxiproxy's documentation explains.
            stream: What is disturbed: what comes from the server (downstream) or what is sent to it.
            attributes: Those of this kind, as `latency=1000` (ms).
        """
        name = uuid.uuid4().hex
        body = {"name": name, "type": kind, "stream": stream, "attributes": attributes}
        self._toxiproxy.request("POST", f"{self._path}/toxics", body)
        return name

    def remove_toxic(self, name: str) -> None:
        self._toxiproxy.request("DELETE", f"{self._path}/toxics/{name}")

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Let nothing through either way and close nothing; at the end, what was open meanwhile is closed."""
        names = [self.add_toxic("timeout", stream=stream, timeout=0) for stream in STREAMS]
        try:
            yield
        finally:
            for name in names:
                self.remove_toxic(name)
