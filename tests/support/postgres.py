"""A PostgreSQL of one's own, which only this machine can reach."""

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import psycopg
from psycopg import sql
from sqlalchemy import URL, make_url

from tests.support import server
from tests.support.parts import missing

__all__ = ["Postgres", "require_postgres"]

USER = "postgres"
DEBIAN = Path("/usr/lib/postgresql")
START_S = 60.0  # it takes less than one; a busy machine takes longer
STOP_S = 30.0
POLL_S = 0.05
STOP_SIGNALS = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}

SETTINGS = {
    "listen_addresses": server.HOST,
    "unix_socket_directories": "",
    "dynamic_shared_memory_type": "mmap",  # else a server that is killed leaves files in /dev/shm
    "shared_buffers": "16MB",
    "lc_messages": "C",
}
HASTY = {"fsync": "off", "full_page_writes": "off"}


def require_postgres() -> Path:
    """The folder of PostgreSQL's programs, which Debian keeps off PATH."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    versions = sorted(DEBIAN.glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    if not versions:
        missing("PostgreSQL is not there; `make setup` installs it")
    return versions[-1].parent


class Postgres:
    """A running cluster in a temporary folder; `with Postgres(log) as postgres` stops and removes it.

    Its methods block; each may be called in any thread.

    Args:
        log: The file that gets what it logs.
        is_durable: Whether it syncs to disk, as a test of power cuts wants; else it is faster.
    """

    def __init__(self, log: Path, *, is_durable: bool = False) -> None:
        self._programs = require_postgres()
        self._log = log
        self._settings = SETTINGS | ({} if is_durable else HASTY)
        self._port = server.free_port()
        # Characters that a URL has to quote.
        self._password = f"p@ss:w/rd%{secrets.token_hex(8)}"
        # Not pytest's, whose folders only their owner may enter.
        self._folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._create()
            self.start()
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        """Its own database, for `new_database` and the like; with the password."""
        return self._url("postgres")

    def new_database(self) -> str:
        """Create an empty database and give its URL, with the password."""
        name = f"test_{uuid.uuid4().hex}"
        # A copy of template1 would need nobody else to be copying it.
        self._execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
        return self._url(name)

    def drop_database(self, url: str) -> None:
        """Remove a database and break off all connections to it."""
        name = make_url(url).database or ""
        self._execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def start(self) -> None:
        """Start it where it was stopped, on the same port, and return when it answers. Idempotent."""
        if self._process is not None:
            return
        command = [str(self._programs / "postgres"), "-D", str(self._data), "-p", str(self._port)]
        for name, value in self._settings.items():
            command += ["-c", f"{name}={value}"]
        with open(self._log, "ab") as output:
            self._process = server.start([*self._as_user(), *command], output=output)
        deadline = time.monotonic() + START_S
        while not self._answers():
            assert self._process.poll() is None, f"PostgreSQL does not start; {self._log} may say why"
            assert time.monotonic() < deadline, f"PostgreSQL does not answer; {self._log} may say why"
            time.sleep(POLL_S)

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stop it and break off all connections: fast says goodbye, immediate is like a crash. Idempotent."""
        if self._process is not None:
            server.end(self._process, STOP_SIGNALS[mode], patience_s=STOP_S)
            self._process = None

    def restart(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        self.stop(mode)
        self.start()

    def close(self) -> None:
        """Stop it and remove what it kept. Idempotent."""
        self.stop("immediate")
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _create(self) -> None:
        password = self._folder / "password"
        password.touch(0o600)
        password.write_text(self._password, encoding="utf-8")
        if os.geteuid() == 0:
            for path in (self._folder, password):
                shutil.chown(path, USER, USER)
        command = [str(self._programs / "initdb"), "-D", str(self._data), "-U", USER, f"--pwfile={password}"]
        command += ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"]
        with open(self._log, "ab") as output:
            process = server.start([*self._as_user(), *command], output=output)
        assert process.wait() == 0, f"initdb fails; {self._log} may say why"

    def _as_user(self) -> list[str]:
        """What goes before a command: PostgreSQL refuses to run as root."""
        if os.geteuid() != 0:
            return []
        # Who becomes another user is no longer ended with its parent, unless it asks again.
        return ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--init-groups", "--pdeathsig=KILL", "--"]

    def _url(self, database: str) -> str:
        url = URL.create("postgresql", USER, self._password, server.HOST, self._port, database)
        return url.render_as_string(hide_password=False)

    def _answers(self) -> bool:
        try:
            self._execute(sql.SQL("SELECT 1"))
        except psycopg.OperationalError:
            return False
        return True

    def _execute(self, statement: sql.SQL | sql.Composed) -> None:
        with psycopg.connect(self.url, autocommit=True, connect_timeout=5) as connection:
            connection.execute(statement)
