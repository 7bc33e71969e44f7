"""The database of an installation that is there already: only what runs one, and `db upgrade`, makes it."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.config import Settings
    from persistence.database import Database

__all__ = ["existing_database"]


def existing_database(settings: "Settings") -> "Database":
    """The database of the settings, unless it is an SQLite file that is not there.

    Where it is made with the first use, a command that is run in another folder than `roomscribe up` would
    work on an empty one without a word.

    Raises:
        InputError: There is no such file; the message says what to do.
        ConfigError: `database.url` is none of a database that we know.
    """
    from agent.errors import InputError
    from persistence.database import Database, sqlite_file

    file = sqlite_file(settings.database_url)
    if file is not None and _is_missing(file):
        setting = "DATABASE__URL" if settings.database.url.get_secret_value() else "DATA_DIR"
        raise InputError(
            f"there is no database at {file}: run this in the folder where `roomscribe up` runs, or set "
            f"ROOMSCRIBE_{setting}; `roomscribe db upgrade` makes one"
        )
    return Database.of(settings)


def _is_missing(file: Path) -> bool:
    try:
        return not file.is_file()
    except OSError:
        return False  # it may be there, and `Database` tells why it cannot be used
