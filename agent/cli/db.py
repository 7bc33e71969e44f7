"""`roomscribe db`: the tables of the database, and which version they are of."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from persistence.database import Database

__all__ = ["app"]

app = typer.Typer(help="Look after the database.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def upgrade(context: typer.Context) -> None:
    """Bring the tables up to date, or make them; none of what they hold is lost."""
    from persistence import schema

    with _opened(context) as database:
        before = schema.version(database)
        after = schema.upgrade(database)
        if before == after:
            typer.echo(f"database {database.name} is up to date ({after})")
        else:
            typer.echo(f"database {database.name} is upgraded from {before or 'nothing'} to {after}")


@app.command()
def check(context: typer.Context) -> None:
    """Tell whether the tables are up to date; else what to do, with exit code 1."""
    from persistence import schema

    with _opened(context) as database:
        typer.echo(f"database {database.name} is up to date ({schema.check(database)})")


@contextmanager
def _opened(context: typer.Context) -> Iterator["Database"]:
    from agent.config import load_settings
    from persistence.database import Database

    settings = load_settings(context.obj)
    database = Database.of(settings)
    try:
        yield database
    finally:
        database.close()
