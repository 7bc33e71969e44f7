"""The `roomscribe` command: its options, its commands, and how it fails.

Nothing here may import LiveKit, numpy or the settings, so that `--help` answers at once. Each command imports
what it needs when it runs.
"""

import warnings
from pathlib import Path
from typing import Annotated

import typer

from agent.cli import (
    analyst,
    config,
    console,
    db,
    doctor,
    export,
    journal,
    keys,
    play,
    report,
    sessions,
    token,
    up,
    watch,
    worker,
)
from agent.cli.ending import EXIT_WRONG_INPUT
from agent.errors import ConfigError, InputError, RoomscribeError

__all__ = ["app", "main"]

EXIT_FAILED = 1

app = typer.Typer(
    help="Live captions by speaker for LiveKit rooms.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # boxes around the help would take longer to import than all the rest
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("up")(up.up)
app.command("worker")(worker.worker)
app.command("analyst")(analyst.analyst)
app.command("console")(console.console)
app.command("doctor")(doctor.doctor)
app.command("play")(play.play)
app.command("watch")(watch.watch)
app.command("token")(token.token)
app.command("export")(export.export)
app.command("report")(report.report)
app.command("retry")(analyst.retry)
app.add_typer(sessions.app, name="sessions")
app.add_typer(keys.app, name="keys")
app.add_typer(journal.app, name="journal")
app.add_typer(db.app, name="db")
app.add_typer(config.app, name="config")


def main() -> None:
    """Run the command that the arguments name, and end the process with its exit code."""
    # The secret of `livekit-server --dev` is short. `doctor` says so; every token need not.
    warnings.filterwarnings("ignore", message="The HMAC key is")
    try:
        app(prog_name="roomscribe")
    except (ConfigError, InputError) as error:
        _fail(error, EXIT_WRONG_INPUT)
    except RoomscribeError as error:
        _fail(error, EXIT_FAILED)


def _fail(error: RoomscribeError, code: int) -> None:
    typer.echo(f"roomscribe: {error}", err=True)
    raise SystemExit(code)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        from importlib.metadata import version

        typer.echo(f"roomscribe {version('roomscribe')}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="Settings in TOML; without it ./agent.toml, if there."),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print it and exit.")
    ] = False,
) -> None:
    context.obj = config
