"""Migrations, and what becomes of databases that they do not fit."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, select, text
from typer.testing import CliRunner

from agent.cli import db
from agent.errors import ConfigError, DatabaseAwayError, DatabaseError
from persistence import schema
from persistence.database import Database
from persistence.records import DEFAULT_SPACE
from persistence.tables import SCHEMA, Space
from tests.support.tmpfs import make_read_only, tmpfs
from tests.support.unprivileged import unprivileged_folder

LIMIT_S = 60
AT_ONCE = 4

# What a later Roomscribe might bring, with something that happens in the middle of it.
NEXT_MIGRATION = """
import os
import signal

from alembic import op
from sqlalchemy import Column, Integer

revision = "next"
down_revision = {newest!r}


def upgrade() -> None:
    op.create_table("first_half", Column("id", Integer, primary_key=True))
    {middle}
    op.create_table("second_half", Column("id", Integer, primary_key=True))
"""

UPGRADE = """
import sys
from pathlib import Path

from persistence import schema
from persistence.database import Database

schema.MIGRATIONS = Path(sys.argv[2])
schema.upgrade(Database(sys.argv[1]))
"""


def next_migrations(folder: Path, middle: str = "") -> Path:
    """All migrations, and one more."""
    migrations = folder / "migrations"
    shutil.copytree(schema.MIGRATIONS, migrations)
    script = NEXT_MIGRATION.format(newest=schema.newest(), middle=middle)
    (migrations / "versions" / "next.py").write_text(script, encoding="utf-8")
    return migrations


def start_upgrade(url: str, migrations: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", UPGRADE, url, str(migrations)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def tables_of(database: Database) -> set[str]:
    with database.read() as connection:
        return set(inspect(connection).get_table_names())


def make(file: Path) -> None:
    """Make a SQLite file with all tables."""
    database = Database(f"sqlite:///{file}")
    schema.upgrade(database)
    database.close()


@pytest.fixture
def empty(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    yield database
    database.close()


class TestMigrations:
    def test_they_make_what_the_models_say(self, database: Database) -> None:
        options = {
            "version_table": schema.VERSION_TABLE,
            "compare_type": True,
            "compare_server_default": True,
        }
        with database.read() as connection:
            context = MigrationContext.configure(connection, opts=options)
            assert compare_metadata(context, SCHEMA) == []

    def test_they_make_the_primary_keys_that_the_models_say(self, database: Database) -> None:
        with database.read() as connection:
            # Alembic does not compare these.
            made = inspect(connection)
            for table in SCHEMA.sorted_tables:
                keys = made.get_pk_constraint(table.name)["constrained_columns"]
                assert (table.name, keys) == (table.name, list(table.primary_key.columns.keys()))

    def test_they_bring_the_default_space(self, database: Database) -> None:
        with database.read() as connection:
            (space,) = connection.execute(select(Space.__table__)).all()  # type: ignore[attr-defined]
        assert space.id == DEFAULT_SPACE
        assert space.created_at.tzinfo is not None

    def test_none_goes_back(self) -> None:
        scripts = ScriptDirectory(str(schema.MIGRATIONS)).walk_revisions()

        assert not [script.revision for script in scripts if hasattr(script.module, "downgrade")]


class TestUpgrade:
    def test_an_empty_database_gets_the_newest_version(self, empty: Database) -> None:
        assert schema.version(empty) is None
        assert schema.upgrade(empty) == schema.version(empty) == schema.check(empty) == schema.newest()

    def test_a_second_one_changes_nothing(self, database: Database) -> None:
        before = tables_of(database)

        assert schema.upgrade(database) == schema.newest()
        assert tables_of(database) == before

    def test_an_older_database_keeps_what_it_holds(
        self, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        version = schema.newest()
        monkeypatch.setattr(schema, "MIGRATIONS", next_migrations(tmp_path))

        with pytest.raises(DatabaseError, match=rf"of version {version}, .*run `roomscribe db upgrade`"):
            schema.check(database)
        assert schema.upgrade(database) == schema.check(database) == "next"
        assert {"space", "first_half", "second_half"} <= tables_of(database)
        with database.read() as connection:
            assert connection.execute(text("SELECT count(*) FROM space")).scalar() == 1

    def test_one_of_the_first_version_keeps_what_it_holds(
        self, empty: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = tmp_path / "first"
        shutil.copytree(schema.MIGRATIONS, first)
        for script in (first / "versions").glob("*.py"):
            if not script.name.startswith("0001_"):
                script.unlink()
        with monkeypatch.context() as patch:
            patch.setattr(schema, "MIGRATIONS", first)
            assert schema.upgrade(empty) == "0001"
        with empty.write() as connection:
            connection.execute(
                text("INSERT INTO room_config (space_id, room, idle_s) VALUES ('default', 'r', 30)")
            )

        assert schema.upgrade(empty) == schema.newest()
        with empty.read() as connection:
            kept = connection.execute(text("SELECT room, idle_s, has_agent FROM room_config")).one()
        assert kept == ("r", 30, None)

    def test_several_processes_do_it_at_once(self, empty: Database, database_url: str) -> None:
        processes = [start_upgrade(database_url, schema.MIGRATIONS) for _ in range(AT_ONCE)]

        assert [process.communicate(timeout=LIMIT_S)[1] for process in processes] == [""] * AT_ONCE
        assert schema.check(empty) == schema.newest()

    def test_several_threads_do_it_at_once(self, empty: Database, database_url: str) -> None:
        databases = [Database(database_url) for _ in range(AT_ONCE)]
        with ThreadPoolExecutor(AT_ONCE) as threads:
            versions = list(threads.map(schema.upgrade, databases))
        for database in databases:
            database.close()

        assert versions == [schema.newest()] * AT_ONCE

    def test_one_that_fails_leaves_the_version_before(
        self, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = tables_of(database)
        with monkeypatch.context() as patch:
            patch.setattr(schema, "MIGRATIONS", next_migrations(tmp_path, 'op.execute("nonsense")'))
            with pytest.raises(DatabaseError):
                schema.upgrade(database)

        assert tables_of(database) == before
        assert schema.check(database) == schema.newest()

    def test_one_that_is_killed_leaves_the_version_before(
        self, database: Database, database_url: str, tmp_path: Path
    ) -> None:
        before = tables_of(database)
        middle = "os.kill(os.getpid(), signal.SIGKILL)"
        process = start_upgrade(database_url, next_migrations(tmp_path, middle))
        process.communicate(timeout=LIMIT_S)

        assert process.returncode == -signal.SIGKILL
        assert tables_of(database) == before
        assert schema.check(database) == schema.newest()


class TestRefused:
    def test_a_newer_database(
        self, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(schema, "MIGRATIONS", next_migrations(tmp_path))
            schema.upgrade(database)

        for refuses in (schema.check, schema.upgrade):
            with pytest.raises(
                DatabaseError, match=r"of version next, which .* not know; upgrade Roomscribe$"
            ):
                refuses(database)

    def test_a_database_of_somebody_else(self, empty: Database) -> None:
        with empty.write() as connection:
            connection.execute(text("CREATE TABLE somebody_else (id INTEGER)"))

        for refuses in (schema.check, schema.upgrade):
            with pytest.raises(DatabaseError, match="has tables, but none of Roomscribe"):
                refuses(empty)
        assert tables_of(empty) == {"somebody_else"}

    def test_an_empty_database_is_not_up_to_date(self, empty: Database) -> None:
        with pytest.raises(DatabaseError, match=r"is empty; run `roomscribe db upgrade`$"):
            schema.check(empty)


class TestFilesThatCannotBeUsed:
    def assert_away(self, file: Path, reason: str) -> None:
        database = Database(f"sqlite:///{file}")
        for use in (schema.check, schema.upgrade):
            with pytest.raises(DatabaseAwayError) as raised:
                use(database)
            assert str(raised.value) == f"database sqlite:///{file} cannot be used: {reason}"
        database.close()

    @pytest.mark.parametrize("start_bytes", [0, 4096])
    def test_a_damaged_one_is_said_to_be(self, tmp_path: Path, start_bytes: int) -> None:
        file = tmp_path / "roomscribe.db"
        make(file)
        whole = file.read_bytes()
        file.write_bytes(whole[:start_bytes] + b"\xff" * (len(whole) - start_bytes))

        reason = "file is not a database" if start_bytes == 0 else "database disk image is malformed"
        self.assert_away(file, reason)

    def test_one_on_a_disk_that_cannot_be_written_to_is_said_not_to_open(self, tmp_path: Path) -> None:
        file = tmp_path / "roomscribe.db"
        with tmpfs(tmp_path, size_bytes=1_000_000):
            make(file)
            make_read_only(tmp_path)
            self.assert_away(file, "unable to open database file")

    def test_one_that_cannot_be_made_is_said_with_the_setting(self, tmp_path: Path) -> None:
        with tmpfs(tmp_path, size_bytes=1_000_000):
            make_read_only(tmp_path)
            with pytest.raises(
                ConfigError, match=r"cannot be made: Read-only file system; set database\.url"
            ):
                Database(f"sqlite:///{tmp_path / 'roomscribe.db'}")

    def test_one_that_belongs_to_somebody_else_is_said_to_be_readonly(self) -> None:
        with unprivileged_folder() as folder:
            file = folder / "roomscribe.db"
            file.touch(0o444)

            self.assert_away(file, "attempt to write a readonly database")


class TestCommands:
    @pytest.fixture(autouse=True)
    def settings(self, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("ROOMSCRIBE_DATABASE__URL", database_url)

    def run(self, command: str) -> str:
        return CliRunner().invoke(db.app, [command], catch_exceptions=False).output

    def test_upgrade_tells_from_which_version_to_which(self, empty: Database) -> None:
        assert self.run("upgrade") == f"database {empty.name} is upgraded from nothing to {schema.newest()}\n"
        assert self.run("upgrade") == f"database {empty.name} is up to date ({schema.newest()})\n"

    def test_check_fails_until_it_is_up_to_date(self, empty: Database) -> None:
        with pytest.raises(DatabaseError, match="run `roomscribe db upgrade`"):
            self.run("check")
        self.run("upgrade")
        assert self.run("check") == f"database {empty.name} is up to date ({schema.newest()})\n"
