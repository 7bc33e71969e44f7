"""`roomscribe db`: the tables of the database, and which version they are of."""

from contextlib import closing

import typer

__all__ = ["app"]

app = typer.Typer(help="Look after the database.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def upgrade(context: typer.Context) -> None:
    """Bring the tables up to date, or make them; none of what they hold is lost."""
    from agent.config import load_settings
    from persistence import schema
    from persistence.database import Database

    with closing(Database.of(load_settings(context.obj))) as database:
        before = schema.version(database)
        after = schema.upgrade(database)
        if before == after:
            typer.echo(f"database {database.name} is up to date ({after})")
        else:
            typer.echo(f"database {database.name} is upgraded from {before or 'nothing'} to {after}")


@app.command()
def check(context: typer.Context) -> None:
    """Tell whether the tables are up to date; else what to do, with exit code 1, or 2 without a database."""
    from agent.cli.existing import existing_database
    from agent.config import load_settings
    from persistence import schema

    with closing(existing_database(load_settings(context.obj))) as database:
        typer.echo(f"database {database.name} is up to date ({schema.check(database)})")
