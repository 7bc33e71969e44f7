"""`roomscribe config`: which settings are in force."""

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

__all__ = ["app", "toml_lines"]

app = typer.Typer(help="Look at the settings.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _config() -> None:
    """Makes `show` a command of its own: typer would merge an only command into its group."""


@app.command()
def show(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of TOML.")] = False,
) -> None:
    """Print the settings that are in force, secrets masked."""
    from agent.config import load_settings, masked

    settings = masked(load_settings(context.obj))
    if as_json:
        typer.echo(json.dumps(settings, indent=2, ensure_ascii=False))
    else:
        typer.echo("\n".join(toml_lines(settings)))


def toml_lines(table: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[str]:
    """Plain data as lines of TOML: a table's own values first, then the tables in it."""
    values = {key: value for key, value in table.items() if not isinstance(value, Mapping)}
    if path and values:
        yield ""
        yield f"[{'.'.join(path)}]"
    for key, value in values.items():
        # Strings, numbers, booleans and lists of them are written as in JSON.
        yield f"{key} = {json.dumps(value, ensure_ascii=False)}"
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from toml_lines(value, (*path, key))
