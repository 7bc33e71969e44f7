"""The tables' version: which one a database has, and how it gets the newest. Everything here blocks.

Tables only ever move forward: an older Roomscribe refuses a newer database, and who wants to go back restores
a backup.
"""

import threading
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from agent.errors import DatabaseError
from persistence.database import Database

__all__ = ["VERSION_TABLE", "check", "newest", "upgrade", "version"]

MIGRATIONS = Path(__file__).with_name("migrations")
VERSION_TABLE = "roomscribe_version"  # alembic's own name might be taken by an application beside us
ADVISORY_LOCK = 0x726F6F6D73637269  # "roomscri": who changes the tables of a PostgreSQL database
UPGRADE_WAIT_S = 60  # for another process that is upgrading, and for who uses a table that is to be changed

_UPGRADING = threading.Lock()  # what migrations use of alembic is the process's


def newest() -> str:
    """The version that this Roomscribe works with."""
    return _scripts().get_current_head() or ""


def version(database: Database) -> str | None:
    """The version that a database has; None if it has none of our tables.

    Raises:
        DatabaseAwayError: It cannot be reached or used for now.
    """
    with database.read() as connection:
        return _version(connection)


def check(database: Database) -> str:
    """The version of a database that is up to date.

    Raises:
        DatabaseAwayError: It cannot be reached or used for now.
        DatabaseError: It is empty, older, newer, or not ours; the message says what to do.
    """
    with database.read() as connection:
        found = _known_version(connection, database.name)
    if found != newest():
        what = "is empty" if found is None else f"is of version {found}, and {newest()} is wanted"
        raise DatabaseError(f"database {database.name} {what}; run `roomscribe db upgrade`")
    return found


def upgrade(database: Database) -> str:
    """Bring the tables up to date, or make them, all or nothing; several processes may do so at once.

    Returns:
        The version that it has now.

    Raises:
        DatabaseAwayError: It cannot be reached or used for now.
        DatabaseError: It is newer than this Roomscribe, or has tables of somebody else.
    """
    with _UPGRADING, database.write() as connection:
        if connection.dialect.name == "postgresql":
            # SQLite lets only one write anyway.
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            connection.execute(text(f"SET LOCAL lock_timeout = '{UPGRADE_WAIT_S}s'"))
            connection.execute(text(f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK})"))
        if _known_version(connection, database.name) != newest():
            command.upgrade(_config(connection), "head")
    return newest()


def _version(connection: Connection) -> str | None:
    return MigrationContext.configure(
        connection, opts={"version_table": VERSION_TABLE}
    ).get_current_revision()


def _known_version(connection: Connection, name: str) -> str | None:
    found = _version(connection)
    if found is None:
        if inspect(connection).get_table_names():
            raise DatabaseError(
                f"database {name} has tables, but none of Roomscribe; set database.url to an empty one"
            )
    elif found not in {script.revision for script in _scripts().walk_revisions()}:
        raise DatabaseError(
            f"database {name} is of version {found}, which this Roomscribe does not know; upgrade Roomscribe"
        )
    return found


def _scripts() -> ScriptDirectory:
    return ScriptDirectory(str(MIGRATIONS))


def _config(connection: Connection) -> Config:
    config = Config(attributes={"connection": connection, "version_table": VERSION_TABLE})
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config
