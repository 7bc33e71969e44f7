"""Connections to real databases, and what their faults look like."""

import contextlib
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import psycopg
import pytest
from sqlalchemy import make_url, text

from agent.errors import DatabaseAwayError, DatabaseError
from persistence import schema
from persistence.database import Database
from persistence.tables import SCHEMA
from tests.support.postgres import Postgres
from tests.support.tmpfs import tmpfs
from tests.support.toxiproxy import Proxy, Toxiproxy

LIMIT_S = 60
POLL_S = 0.05
LONG_STATEMENT = "SELECT pg_sleep(60)"
SAID = "the word that somebody said"
NOW = datetime(2026, 1, 2, tzinfo=UTC)
SPACE = SCHEMA.tables["space"]
ROOM_CONFIG = SCHEMA.tables["room_config"]
AUDIT_EVENT = SCHEMA.tables["audit_event"]

# Adds to one number, so that a write which fails or is lost is seen.
ADD = """
import sys
from sqlalchemy import text
from persistence.database import Database

database = Database(sys.argv[1])
for _ in range(50):
    with database.write() as connection:
        connection.execute(text("UPDATE counter SET total = total + 1"))
"""


def answer(database: Database, statement: str = "SELECT 42") -> Any:
    with database.write() as connection:
        return connection.execute(text(statement)).scalar()


def until_it_runs(url: str) -> None:
    """Wait until the server is in the middle of the long statement."""
    watching = Database(url)
    while not answer(watching, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"):
        time.sleep(POLL_S)
    watching.close()


class TestBothKinds:
    def test_a_write_is_kept_and_one_that_fails_is_not(self, database: Database) -> None:
        with database.write() as connection:
            connection.execute(SPACE.insert().values(id="kept", name="", created_at=NOW))
        with contextlib.suppress(ZeroDivisionError), database.write() as connection:
            connection.execute(SPACE.insert().values(id="lost", name="", created_at=NOW))
            raise ZeroDivisionError

        with database.read() as connection:
            assert set(connection.execute(text("SELECT id FROM space")).scalars()) == {"default", "kept"}

    def test_a_read_sees_one_state_of_everything(self, database: Database, database_url: str) -> None:
        count = text("SELECT count(*) FROM space")
        other = Database(database_url)
        with database.read() as connection:
            before = connection.execute(count).scalar()
            with other.write() as writing:
                writing.execute(SPACE.insert().values(id="new", name="", created_at=NOW))
            assert connection.execute(count).scalar() == before
        with database.read() as connection:
            assert connection.execute(count).scalar() == 2
        other.close()

    def test_closing_amid_a_transaction_lets_it_end_and_leaves_no_connection(
        self, database: Database
    ) -> None:
        with database.write() as connection:
            at_driver = connection.connection.dbapi_connection
            database.close()
            connection.execute(SPACE.insert().values(id="new", name="", created_at=NOW))

        assert at_driver is not None
        with pytest.raises((sqlite3.ProgrammingError, psycopg.OperationalError), match="closed"):
            at_driver.cursor().execute("SELECT 42")
        assert answer(database, "SELECT count(*) FROM space") == 2

    def test_foreign_keys_hold(self, database: Database) -> None:
        with pytest.raises(DatabaseError, match=r"refuses a value \(\w+\)$"), database.write() as connection:
            connection.execute(ROOM_CONFIG.insert().values(space_id="nowhere", room="r"))

    def test_writers_in_several_processes_wait_for_each_other(
        self, database: Database, database_url: str
    ) -> None:
        with database.write() as connection:
            connection.execute(text("CREATE TABLE counter (total INTEGER)"))
            connection.execute(text("INSERT INTO counter VALUES (0)"))
        command = [sys.executable, "-c", ADD, database_url]
        writers = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]

        assert [writer.communicate(timeout=LIMIT_S)[1] for writer in writers] == ["", "", ""]
        with database.read() as connection:
            assert connection.execute(text("SELECT total FROM counter")).scalar() == 150

    def test_who_waits_too_long_for_another_writer_is_told_to_try_again(
        self, database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Whoever does nothing in a transaction for so long is thought to stand still.
        monkeypatch.setattr("persistence.database.IDLE_TIMEOUT_MS", 60_000)
        database.close()
        other = Database(database_url)
        rename = text("UPDATE space SET name = 'x'")
        with database.write() as connection:
            connection.execute(rename)
            with (
                pytest.raises(DatabaseAwayError, match=r"database is locked|due to lock timeout"),
                other.write() as waiting,
            ):
                waiting.execute(rename)
        with other.write() as connection:
            connection.execute(rename)
        other.close()

    @pytest.mark.parametrize(
        "values",
        [
            {"id": "a", "space_id": "default", "at": NOW, "action": SAID, "subject": SAID},
            {"id": "a", "space_id": SAID, "at": NOW, "actor": SAID, "action": SAID, "subject": SAID},
            {"id": "a", "space_id": "default", "at": SAID, "actor": "", "action": "", "subject": ""},
            {"id": "default"},
        ],
        ids=["a missing value", "a missing parent", "a wrong type", "a missing rest"],
    )
    def test_what_is_refused_is_refused_for_ever_and_not_quoted(
        self, database: Database, values: dict[str, Any]
    ) -> None:
        with pytest.raises(DatabaseError) as raised, database.write() as connection:
            connection.execute(AUDIT_EVENT.insert().values(detail={}, **values))

        assert not isinstance(raised.value, DatabaseAwayError)
        assert SAID not in str(raised.value)
        assert raised.value.__suppress_context__, "a traceback would quote it"
        assert answer(database) == 42

    def test_a_number_too_large_is_refused_for_ever(self, database: Database) -> None:
        lease = {"space_id": "default", "room": "r", "sid": "s", "holder": "h", "expires_at": NOW}
        with pytest.raises(DatabaseError) as raised, database.write() as connection:
            connection.execute(SCHEMA.tables["lease"].insert().values(epoch=2**80, **lease))

        assert not isinstance(raised.value, DatabaseAwayError)
        assert str(2**80) not in str(raised.value)
        assert answer(database) == 42

    def test_it_works_again_after_it_was_closed(self, database: Database) -> None:
        database.close()
        database.close()
        assert answer(database) == 42

    def test_an_interrupt_of_nobody_harms_nobody(self, database: Database) -> None:
        assert answer(database) == 42
        database.interrupt()
        database.interrupt()
        assert answer(database) == 42


class TestSqlite:
    def test_those_who_open_a_new_file_at_once_wait_for_each_other(self, tmp_path: Path) -> None:
        together = threading.Barrier(8)

        def write(file: Path) -> None:
            database = Database(f"sqlite:///{file}")
            together.wait()
            with database.write() as connection:
                connection.execute(text("CREATE TABLE IF NOT EXISTS counter (total INTEGER)"))
            database.close()

        with ThreadPoolExecutor(8) as threads:
            for number in range(120):
                list(threads.map(write, [tmp_path / f"{number}.db"] * 8))

    def test_it_writes_ahead_and_syncs_each_commit(self, tmp_path: Path) -> None:
        database = Database(f"sqlite:///{tmp_path}/roomscribe.db")
        with database.read() as connection:
            pragmas = {
                name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                for name in ("journal_mode", "synchronous", "foreign_keys")
            }
        database.close()

        assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}

    def test_all_connections_in_use_is_told_as_such(self, tmp_path: Path) -> None:
        database = Database(f"sqlite:///{tmp_path}/roomscribe.db")
        with (
            database.read(),
            pytest.raises(DatabaseAwayError, match="all its connections are in use"),
            database.read(),
        ):
            pass
        assert answer(database) == 42
        database.close()

    def test_a_full_disk_is_told_as_such_and_passes(self, tmp_path: Path) -> None:
        with tmpfs(tmp_path, size_bytes=2_000_000):
            database = Database(f"sqlite:///{tmp_path}/roomscribe.db")
            schema.upgrade(database)
            (tmp_path / "filler").write_bytes(bytes(1_200_000))
            big = SPACE.insert().values(id="big", name="x" * 1_000_000, created_at=NOW)
            with (
                pytest.raises(DatabaseAwayError, match=r"database or disk is full$"),
                database.write() as connection,
            ):
                connection.execute(big)
            (tmp_path / "filler").unlink()
            with database.write() as connection:
                connection.execute(big)
            database.close()


class TestPostgresqlAway:
    @pytest.fixture
    def proxy(self, toxiproxy: Toxiproxy, postgres_url: str) -> Proxy:
        return toxiproxy.proxy(postgres_url)

    @pytest.fixture
    def database(self, proxy: Proxy) -> Iterator[Database]:
        database = Database(proxy.url)
        assert answer(database) == 42
        yield database
        database.close()

    @pytest.fixture
    def thread(self) -> Iterator[ThreadPoolExecutor]:
        with ThreadPoolExecutor(1) as thread:
            yield thread

    def test_a_refused_connection_is_told_without_the_password(self, proxy: Proxy) -> None:
        proxy.disable()
        database = Database(proxy.url)
        with pytest.raises(DatabaseAwayError, match=r"Connection refused$") as raised:
            answer(database)
        assert str(make_url(proxy.url).password) not in str(raised.value)

        proxy.enable()
        assert answer(database) == 42
        database.close()

    def test_a_wrong_password_is_told_without_it(self, postgres_url: str) -> None:
        url = make_url(postgres_url).set(password="wrong-secret").render_as_string(hide_password=False)
        with pytest.raises(DatabaseAwayError, match="password authentication failed") as raised:
            answer(Database(url))
        assert "wrong-secret" not in str(raised.value)

    def test_a_connection_that_is_cut_fails_once(self, database: Database, proxy: Proxy) -> None:
        proxy.disable()
        proxy.enable()
        with pytest.raises(DatabaseAwayError):
            answer(database)
        assert answer(database) == 42

    def test_a_connection_that_is_cut_in_the_middle_of_a_statement_fails_once(
        self, database: Database, proxy: Proxy, postgres_url: str, thread: ThreadPoolExecutor
    ) -> None:
        asked = thread.submit(answer, database, LONG_STATEMENT)
        until_it_runs(postgres_url)
        proxy.disable()
        with pytest.raises(DatabaseAwayError, match="closed the connection"):
            asked.result(LIMIT_S)

        proxy.enable()
        assert answer(database) == 42

    @pytest.mark.parametrize("mode", ["fast", "immediate"])
    def test_a_server_that_restarts_fails_once_however_many_connections_it_had(
        self, logs: Path, mode: Literal["fast", "immediate"]
    ) -> None:
        with Postgres(logs / "postgres-restarted.log") as postgres:
            database = Database(postgres.url, connections=3)
            with database.read(), database.read(), database.read():
                pass  # now there are three

            postgres.restart(mode)
            with pytest.raises(DatabaseAwayError):
                answer(database)
            assert [answer(database) for _ in range(3)] == [42, 42, 42]

            postgres.stop(mode)
            for _ in range(3):
                with pytest.raises(DatabaseAwayError):
                    answer(database)
            postgres.start()
            assert answer(database) == 42
            database.close()

    def test_an_interrupt_frees_who_waits_for_an_answer_that_never_comes(
        self, database: Database, proxy: Proxy, postgres_url: str, thread: ThreadPoolExecutor
    ) -> None:
        asked = thread.submit(answer, database, LONG_STATEMENT)
        until_it_runs(postgres_url)
        with proxy.silent():
            database.interrupt()
            with pytest.raises(DatabaseAwayError, match="closed the connection"):
                asked.result(LIMIT_S)

        assert answer(database) == 42

    def test_an_interrupt_frees_who_asks_a_server_that_hears_nothing(
        self, database: Database, proxy: Proxy, thread: ThreadPoolExecutor
    ) -> None:
        with proxy.silent():
            asked = thread.submit(answer, database)
            # Nobody can tell when it waits.
            while not asked.done():
                database.interrupt()
                time.sleep(POLL_S)
            with pytest.raises(DatabaseAwayError):
                asked.result()

        assert answer(database) == 42

    def test_a_server_that_hears_nothing_is_not_connected_to_for_ever(self, proxy: Proxy) -> None:
        database = Database(proxy.url)
        with proxy.silent(), pytest.raises(DatabaseAwayError, match=r"connection timeout expired$"):
            answer(database)

        assert answer(database) == 42
        database.close()


def test_only_its_owner_may_read_a_database_file(tmp_path: Path) -> None:
    file = tmp_path / "data" / "roomscribe.db"
    database = Database(f"sqlite:///{file}")
    schema.upgrade(database)
    assert {stat.S_IMODE(path.stat().st_mode) for path in file.parent.iterdir()} == {0o600}
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    database.close()
