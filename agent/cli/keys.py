"""`roomscribe keys`: who may use the console and its API."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from datetime import datetime

    from agent.config import Settings
    from persistence.api_keys import ApiKey
    from persistence.database import Database

__all__ = ["app"]

PIPED_WIDTH = 1000  # columns where there is no terminal to fit into: nothing is cut or wrapped
MAX_NAME_CHARACTERS = 100
NEVER = "never"

app = typer.Typer(
    help="Make and revoke the keys of the console and its API.", no_args_is_help=True, rich_markup_mode=None
)


@app.command()
def create(
    context: typer.Context,
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Who or what it is for.")],
) -> None:
    """Make a key and print it, this once: only a hash of it is kept."""
    from agent.captions.text import clean
    from agent.config import load_settings
    from agent.errors import InputError
    from persistence import api_keys
    from persistence.records import DEFAULT_SPACE

    name = clean(name).strip()
    if not 0 < len(name) <= MAX_NAME_CHARACTERS:
        raise InputError(f"--name has to have 1 to {MAX_NAME_CHARACTERS} characters that can be seen")
    settings = load_settings(context.obj)
    with _opened(settings) as database:
        with database.write() as connection:
            key, made = api_keys.create(connection, DEFAULT_SPACE, name)
        place = _place(settings, database)
    typer.echo(key)
    typer.echo(
        f"this is key {made.id}, for {made.name}, to the installation in {place}; keep it now, nobody can "
        f"print it again. `roomscribe keys revoke {made.id}` makes it worthless",
        err=True,
    )


@app.command("list")
def list_(context: typer.Context) -> None:
    """List all keys, the oldest first. The keys themselves are not kept."""
    from agent.config import load_settings
    from persistence import api_keys
    from persistence.records import DEFAULT_SPACE

    with _opened(load_settings(context.obj)) as database, database.read() as connection:
        keys = api_keys.list_keys(connection, DEFAULT_SPACE)
    if keys:
        _print(keys)
    else:
        typer.echo("no keys; `roomscribe keys create --name NAME` makes one", err=True)


@app.command()
def revoke(
    context: typer.Context,
    key: Annotated[str, typer.Argument(metavar="ID", help="As `roomscribe keys list` names it.")],
) -> None:
    """Make a key worthless, for good."""
    from agent.config import load_settings
    from agent.console.keys import FRESH_S
    from agent.errors import InputError
    from persistence import api_keys
    from persistence.records import DEFAULT_SPACE

    if key.startswith(api_keys.PREFIX):
        raise InputError("this is a key; give its ID, which `roomscribe keys list` names")
    with _opened(load_settings(context.obj)) as database, database.write() as connection:
        is_revoked = api_keys.revoke(connection, DEFAULT_SPACE, key)
    if not is_revoked:
        raise InputError(f"there is no key {key} that could be revoked; `roomscribe keys list` names all")
    typer.echo(f"key {key} is revoked; a console that runs takes it for {FRESH_S:g} s more", err=True)


@contextmanager
def _opened(settings: "Settings") -> "Iterator[Database]":
    """The database of the settings, whose tables are made where they may be.

    Raises:
        InputError: There is none; the message says what to do.
        DatabaseError: It is away, or not up to date; the message says what to do.
    """
    from agent.cli.existing import existing_database
    from persistence import schema

    with closing(existing_database(settings)) as database:
        # On PostgreSQL a key may be made before anything else has run.
        (schema.upgrade if settings.database.upgrade_at_start else schema.check)(database)
        yield database


def _place(settings: "Settings", database: "Database") -> str:
    """Where the installation has its data, without a secret."""
    if settings.database.url.get_secret_value():
        return database.name
    return str(settings.data_dir.resolve())


def _print(keys: "list[ApiKey]") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=PIPED_WIDTH)
    table = Table(box=None)
    for heading in ("key", "made (UTC)", "used (UTC)", "revoked (UTC)"):
        table.add_column(heading, no_wrap=True)
    table.add_column("for")  # the last one, where a name in another direction disturbs no column
    for key in keys:
        table.add_row(
            key.id, _time(key.created_at), _time(key.used_at), _time(key.revoked_at), Text(key.name)
        )
    console.print(table)


def _time(at: "datetime | None") -> str:
    return f"{at:%Y-%m-%d %H:%M}" if at is not None else NEVER
