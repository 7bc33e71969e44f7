"""The database: SQLite in a file, or PostgreSQL by its URL. Everything here blocks; call it in a thread."""

import contextlib
import os
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self
from weakref import WeakSet

import psycopg
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from agent.config import Settings
from agent.errors import ConfigError, DatabaseAwayError, DatabaseError

__all__ = ["LOCK_TIMEOUT_MS", "Database", "sqlite_file"]

LOCK_TIMEOUT_MS = 5_000  # for another process to end its write, on either database
POOL_TIMEOUT_S = 5.0
IDLE_TIMEOUT_MS = 3_000  # in a transaction, whose statements follow each other within milliseconds
WAL_POLL_S = 0.02
LEASES_SUFFIX = "-leases"  # of the name of SQLite's file
LEASES_LOCK_TIMEOUT_MS = 1_000  # a heartbeat that waits longer is worth nothing
LEASES_TIMEOUT_S = 2  # the least that PostgreSQL's client takes
DRIVERS = {"sqlite": "sqlite+pysqlite", "postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}

# A PostgreSQL whose machine or network is gone without a word is given up after some 10 s, not 15 minutes.
TCP = {
    "tcp_user_timeout": 10_000,  # ms, of what it does not acknowledge
    "keepalives_idle": 4,  # s; while we wait for its answer
    "keepalives_interval": 2,  # s
    "keepalives_count": 3,
}

# SQLite refuses a reader that begins to write after somebody else did, without waiting.
WRITE: dict[str, dict[str, Any]] = {"sqlite": {"sqlite_begin": "BEGIN IMMEDIATE"}, "postgresql": {}}
READ: dict[str, dict[str, Any]] = {
    "sqlite": {"sqlite_begin": "BEGIN"},
    "postgresql": {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True},
}


class Database:
    """Connections to one database. Made without connecting, and never before a fork.

    Args:
        url: `sqlite:///path` or `postgresql://user:password@host/name`.
        connections: At most so many at once.
        connect_timeout_s: For PostgreSQL to take a connection.
        statement_timeout_s: For PostgreSQL to answer.
        recycle_s: A connection that is older is made anew.
        lock_timeout_ms: For somebody else to end their write.
        is_durable: Whether what is written outlives a power cut. SQLite writes much faster without; what
            was written last may be lost then, and the whole file be damaged.

    Raises:
        ConfigError: The URL is none of a database that we know.
    """

    def __init__(
        self,
        url: str,
        *,
        connections: int = 1,
        connect_timeout_s: int = 5,
        statement_timeout_s: int = 10,
        recycle_s: int = 1800,
        lock_timeout_ms: int = LOCK_TIMEOUT_MS,
        is_durable: bool = True,
    ) -> None:
        parsed = _parsed(url)
        self._engine = _engine(parsed, connections, connect_timeout_s, recycle_s, lock_timeout_ms)
        self._statement_timeout_s = statement_timeout_s
        self._lock_timeout_ms = lock_timeout_ms
        self._synchronous = "FULL" if is_durable else "OFF"
        self._kind = parsed.get_backend_name()
        # Options, such as another password, may stand behind the question mark.
        self._name = parsed.set(drivername=self._kind, query={}).render_as_string(hide_password=True)
        self._lock = threading.Lock()
        self._psycopg_connections: WeakSet[psycopg.Connection[Any]] = WeakSet()
        if self.is_sqlite:
            event.listen(self._engine, "connect", self._prepare_sqlite)
            event.listen(self._engine, "begin", _begin_sqlite)
        else:
            # The first, since SQLAlchemy's own asks the server for this and that.
            event.listen(self._engine, "connect", self._prepare_postgresql, insert=True)

    @classmethod
    def of(cls, settings: Settings, connections: int = 1) -> Self:
        """The one that the settings name, with at most so many connections at once.

        Raises:
            ConfigError: As above.
        """
        return cls(
            settings.database_url,
            connections=connections,
            connect_timeout_s=settings.database.connect_timeout_s,
            statement_timeout_s=settings.database.statement_timeout_s,
            recycle_s=settings.database.recycle_s,
        )

    @classmethod
    def of_leases(cls, settings: Settings) -> Self:
        """The one that keeps leases, which waits for nothing longer than a lease is worth waiting for.

        For SQLite it is a file of its own beside the one that the settings name, so that no long write there
        delays a renewal; `leases.prepare` makes its table.

        Raises:
            ConfigError: As above.
        """
        url = _parsed(settings.database_url)
        if url.get_backend_name() == "sqlite":
            url = url.set(database=f"{url.database}{LEASES_SUFFIX}")
        return cls(
            url.render_as_string(hide_password=False),
            connect_timeout_s=LEASES_TIMEOUT_S,
            statement_timeout_s=LEASES_TIMEOUT_S,
            recycle_s=settings.database.recycle_s,
            lock_timeout_ms=LEASES_LOCK_TIMEOUT_MS,
            is_durable=False,
        )

    @property
    def is_sqlite(self) -> bool:
        return self._kind == "sqlite"

    @property
    def engine(self) -> Engine:
        """The SQLAlchemy engine, for benchmarks and tests."""
        return self._engine

    @property
    def name(self) -> str:
        """What it is called in messages: the URL without its password and options."""
        return self._name

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that only reads, and sees one state of everything.

        Raises:
            DatabaseAwayError: The database cannot be reached or used for now; the same may work later.
            DatabaseError: It refuses a value, and always will.
        """
        with self._transaction(READ[self._kind]) as connection:
            yield connection

    @contextlib.contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that is committed at the end; errors as for `read`.

        After a DatabaseAwayError it may have been committed all the same, where the answer was lost.
        """
        with self._transaction(WRITE[self._kind]) as connection:
            yield connection

    def interrupt(self) -> None:
        """Break off what other threads are waiting for, where the other end says nothing any more.

        They get a DatabaseAwayError; what they begin afterwards is not affected. Who is still connecting goes
        on, until its own time is over. On SQLite, whose waits are bounded, it does nothing. Idempotent.
        """
        with self._lock:
            connections = tuple(self._psycopg_connections)
        for connection in connections:
            # One that is closed already has no socket any more.
            with (
                contextlib.suppress(OSError, psycopg.Error),
                socket.socket(fileno=os.dup(connection.fileno())) as duplicate,
            ):
                duplicate.shutdown(socket.SHUT_RDWR)
        self.close()  # nobody is to be given one that is broken

    def close(self) -> None:
        """Give up all connections that are not in use. Idempotent; the next use makes new ones."""
        self._engine.dispose()

    @contextlib.contextmanager
    def _transaction(self, options: dict[str, Any]) -> Iterator[Connection]:
        pool = self._engine.pool
        try:
            with self._engine.connect() as connection:
                connection.execution_options(**options)
                with connection.begin():
                    yield connection
        # Neither a message nor a traceback may show the value: it may be what somebody said.
        except (DataError, IntegrityError, OverflowError) as error:
            raise self._refused(error) from None
        except DBAPIError as error:
            raise self._away(str(error.orig)) from error
        except StatementError as error:
            raise self._refused(error) from None
        except PoolTimeoutError:
            raise self._away("all its connections are in use") from None
        finally:
            if self._engine.pool is not pool:
                pool.dispose()  # closed in the meantime: what we gave back to it nobody will take again

    def _refused(self, error: Exception) -> DatabaseError:
        cause = error.orig if isinstance(error, StatementError) else error
        return DatabaseError(f"database {self.name} refuses a value ({type(cause).__name__})")

    def _away(self, reason: str) -> DatabaseAwayError:
        first_line, _, _advice = reason.strip().partition("\n")
        return DatabaseAwayError(f"database {self.name} cannot be used: {first_line}")

    def _prepare_postgresql(self, connection: "psycopg.Connection[Any]", _record: object) -> None:
        with self._lock:
            self._psycopg_connections.add(connection)
        # Not as start options, which poolers refuse.
        with connection.cursor() as cursor:
            cursor.execute(f"SET statement_timeout = '{self._statement_timeout_s}s'")
            cursor.execute(f"SET lock_timeout = {self._lock_timeout_ms}")
            # Of a process that stands still: others wait for what it has locked.
            cursor.execute(f"SET idle_in_transaction_session_timeout = {IDLE_TIMEOUT_MS}")
            cursor.execute("SET timezone = 'UTC'")
        connection.commit()

    def _set_wal(self, cursor: sqlite3.Cursor) -> None:
        """Change to WAL, for which SQLite does not wait where others change a new file at the same time."""
        deadline_s = time.monotonic() + self._lock_timeout_ms / 1000
        while True:
            try:
                cursor.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline_s:
                    raise
            time.sleep(WAL_POLL_S)

    def _prepare_sqlite(self, connection: Any, _record: object) -> None:
        connection.isolation_level = None  # we begin transactions ourselves
        cursor = connection.cursor()
        self._set_wal(cursor)
        # A journal is removed when its records are in the database: they must be on the disk by then.
        cursor.execute(f"PRAGMA synchronous = {self._synchronous}")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()


def sqlite_file(url: str) -> Path | None:
    """Where the database of a URL lies, absolute, be it there or not; None for one of a server.

    Raises:
        ConfigError: The URL is none of a database that we know.
    """
    parsed = _parsed(url)
    return Path(parsed.database or "").resolve() if parsed.get_backend_name() == "sqlite" else None


def _parsed(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise ConfigError(
            "config: database.url cannot be read; give sqlite:///path or postgresql://user:password@host/name"
        ) from None
    driver = DRIVERS.get(parsed.drivername, parsed.drivername)
    if driver not in DRIVERS.values():
        raise ConfigError(f"config: database.url names {parsed.drivername!r}; known: sqlite, postgresql")
    # What stands behind a sign that is to be quoted would be taken for a host or a name, and be shown.
    is_file = parsed.drivername.startswith("sqlite")
    if not is_file and (set("@/#") & set(parsed.host or "") or set("@:/#") & set(parsed.database or "")):
        raise ConfigError(
            "config: database.url has a sign in its user or password that must be quoted there: "
            "%40 for @, %3A for :, %2F for /, %23 for #, %25 for %"
        )
    parsed = parsed.set(drivername=driver)
    if parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise ConfigError("config: database.url names no file; give sqlite:///path")
    return parsed


def _engine(
    url: URL, connections: int, connect_timeout_s: int, recycle_s: int, lock_timeout_ms: int
) -> Engine:
    if url.get_backend_name() == "sqlite":
        _make_file(Path(url.database or ""))
        arguments: dict[str, Any] = {"timeout": lock_timeout_ms / 1000, "check_same_thread": False}
    else:
        arguments = TCP | {
            "connect_timeout": connect_timeout_s,
            "application_name": "roomscribe",
            # Poolers such as PgBouncer hand each transaction to another server.
            "prepare_threshold": None,
        }
    return create_engine(
        url,
        connect_args=arguments,
        pool_size=connections,
        max_overflow=0,
        pool_timeout=POOL_TIMEOUT_S,
        pool_recycle=recycle_s,
        hide_parameters=True,
    )


def _make_file(file: Path) -> None:
    """Make the file of a database where there is none, for this user alone: it holds what people said."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Closing one that this process has open as a database gives up SQLite's locks on it: others would
        # take us for gone, and remove the WAL that we write to.
        if not file.is_file():
            os.close(os.open(file, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise ConfigError(
            f"config: database.url: {file} cannot be made: {error.strerror}; "
            "set database.url or data_dir to a place that you may write to"
        ) from error


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options()["sqlite_begin"])
