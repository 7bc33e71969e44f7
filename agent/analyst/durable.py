"""DBOS as the analyst uses it: where its state lies, and how it is set up.

What a step gave is written down there, so that a workflow that was cut off goes on with the step that was
running. Its state is in a SQLite file beside the database's, or in a schema of its own in PostgreSQL.
"""

import logging
import os
import sqlite3
import time
from pathlib import Path
from typing import Any

import sqlalchemy
from dbos import DBOS, DBOSConfig
from dbos import DBOSPortableJSONSerializer as Json
from sqlalchemy import event, make_url

from agent.errors import ConfigError, DatabaseAwayError

__all__ = ["AT_ONCE", "QUEUE", "launch"]

QUEUE = "analyses"
APPLICATION = "roomscribe"
SCHEMA = "roomscribe_dbos"  # beside our tables in PostgreSQL
SUFFIX = "-workflows"  # of the name of SQLite's file
# Workflows are found again under the version they began with. It is this one through all upgrades: steps are
# looked for by their place, so a workflow whose steps change in kind or order gets a name of its own.
VERSION = "1"
AT_ONCE = 2  # one reads or writes the database while the other one keeps a processor busy
POLL_S = 0.5
BUSY_TIMEOUT_MS = 30_000


def launch(database_url: str, executor: str) -> None:
    """Start it, with all workflows that were registered; what this executor had begun goes on.

    It is ended with the process, at any moment, as a kill would: what runs then is done again.

    Args:
        database_url: Of the database, as the settings name it.
        executor: Who runs workflows here: whoever is started again under the same name takes its own up.

    Raises:
        ConfigError: The file cannot be made.
        DatabaseAwayError: The database cannot be used for now.
    """
    # Without a handler it would add one of its own, which writes past our logs.
    logging.getLogger("dbos").addHandler(logging.NullHandler())
    url = make_url(database_url)
    config: DBOSConfig = {
        "name": APPLICATION,
        "application_version": VERSION,
        "executor_id": executor,
        "log_level": "WARNING",
        # Nothing is unpickled that lies in a database.
        "serializer": Json(),
    }
    if url.get_backend_name() == "sqlite":
        file = Path(f"{url.database}{SUFFIX}")
        config["system_database_url"] = f"sqlite:///{file}"
        config["system_database_engine"] = _sqlite(file)
    else:
        config["system_database_url"] = database_url
        config["dbos_system_schema"] = SCHEMA
    try:
        DBOS(config=config)
        DBOS.launch()
        DBOS.register_queue(QUEUE, worker_concurrency=AT_ONCE, polling_interval_sec=POLL_S)
    except sqlalchemy.exc.DBAPIError as error:
        DBOS.destroy()
        first_line, _, _rest = str(error.orig).strip().partition("\n")
        raise DatabaseAwayError(f"database of the workflows cannot be used: {first_line}") from error


def _sqlite(file: Path) -> sqlalchemy.Engine:
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(file, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise ConfigError(
            f"config: database.url: {file} cannot be made: {error.strerror}; "
            "set database.url or data_dir to a place that you may write to"
        ) from error
    engine = sqlalchemy.create_engine(f"sqlite:///{file}", hide_parameters=True)
    event.listen(engine, "connect", _prepare)
    return engine


def _prepare(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = "IMMEDIATE"  # a reader that begins to write is refused without a wait
    # On Python 3.12 and newer DBOS wants parts of a second, which SQLite has from 3.42 on.
    connection.create_function("unixepoch", 1, _seconds)
    connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA foreign_keys = ON")


def _seconds(_modifier: str) -> float:
    return time.time()
