"""`roomscribe journal`: what sessions have written on this machine and is not in the database yet."""

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from persistence.database import Database
    from persistence.journal.drain import DrainReport
    from persistence.journal.folder import JournalInfo
    from persistence.position import Position
    from persistence.records import Begun

__all__ = ["Listed", "app", "list_journals", "verify_journal"]

State = Literal["live", "left behind", "damaged", "unreadable"]

EXIT_FAILED = 1
UNKNOWN = "?"
PIPED_WIDTH = 200  # columns where there is no terminal to fit into

app = typer.Typer(
    help="Look at what is kept on this machine, and bring it into the database.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@dataclass(frozen=True, slots=True)
class Listed:
    """A journal as it is listed. None is what cannot be told: the room, or how much the database lacks."""

    session: str
    epoch: int
    room: str | None
    begun_at: str | None
    size_bytes: int
    records_to_drain: int | None
    state: State


@app.command("list")
def list_(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the journals on this machine.

    A journal is removed when the database has all of it.
    """
    from agent.cli.existing import existing_database
    from agent.config import load_settings
    from agent.errors import InputError
    from persistence.journal.folder import strangers

    settings = load_settings(context.obj)
    try:
        database = existing_database(settings)
    except InputError:
        listed = list_journals(settings.journal_dir, None)
    else:
        with closing(database):
            listed = list_journals(settings.journal_dir, database)
    if as_json:
        typer.echo(json.dumps([asdict(journal) for journal in listed], indent=2))
    elif listed:
        _print_table(listed)
    else:
        typer.echo(f"no journals in {settings.journal_dir}")
    for path in strangers(settings.journal_dir):
        typer.echo(f"{path} is no journal; it is left alone", err=True)


@app.command()
def drain(context: typer.Context) -> None:
    """Bring journals that were left behind into the database.

    A worker does so by itself, when it starts and when a room's process dies. Ends with exit code 1 if
    something is left that is not in the database.
    """
    from rich.console import Console

    from agent.cli.existing import existing_database
    from agent.config import load_settings
    from agent.errors import DatabaseAwayError
    from agent.telemetry.logs import configure_logs
    from persistence import schema
    from persistence.journal.drain import drain_all

    settings = load_settings(context.obj)
    configure_logs(settings.log.level, settings.log.format)
    reports: list[DrainReport] = []
    with Console(stderr=True).status("Draining") as status:

        def progress(report: "DrainReport") -> None:
            reports.append(report)
            status.update(f"Draining: {_summary(reports)}")

        try:
            with closing(existing_database(settings)) as database:
                schema.check(database)
                drain_all(settings.journal_dir, database, progress=progress)
        except DatabaseAwayError as error:
            raise DatabaseAwayError(
                f"{error}; {_summary(reports)}, all else stays where it is: run this again when it is back"
            ) from error
    for report in reports:
        if report.problem:
            typer.echo(report.problem, err=True)
    typer.echo(_summary(reports))
    if any(report.problem for report in reports):
        raise typer.Exit(EXIT_FAILED)


@app.command()
def verify(
    context: typer.Context,
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="PATH", help="A journal's folder; without any, all on this machine."),
    ] = None,
) -> None:
    """Read journals to their ends, and tell what is damaged.

    Ends with exit code 1 if something is. A last record that was never wholly written is told, but is no
    damage.
    """
    from agent.config import load_settings

    damages = 0
    for info in _chosen(paths or [load_settings(context.obj).journal_dir], is_given=bool(paths)):
        found, lines = verify_journal(info)
        damages += found
        typer.echo("\n".join(lines))
    if damages:
        typer.echo(
            f"{_count(damages, 'damage')}; `roomscribe journal drain` brings over all that can be read"
        )
        raise typer.Exit(EXIT_FAILED)


def list_journals(folder: Path, database: "Database | None") -> list[Listed]:
    """What there is, and what the database lacks of it where there is one that can be reached."""
    from persistence.journal.folder import journals

    infos = journals(folder)
    beginnings = [_begun(info) for info in infos]
    unknown: list[Position | None] = [None] * len(infos)
    watermarks = _watermarks(infos, beginnings, database) if database is not None else unknown
    return [_listed(*journal) for journal in zip(infos, beginnings, watermarks, strict=True)]


def verify_journal(info: "JournalInfo") -> tuple[int, list[str]]:
    """How many damages a journal has, and what to tell of it."""
    from agent.errors import JournalError
    from persistence.journal.folder import look_at
    from persistence.journal.reading import read_segments, start
    from persistence.journal.segment import segment_name

    def place(position: "Position") -> str:
        return f"{info.path / segment_name(position.segment)}: byte {position.offset_bytes}"

    try:
        info = look_at(info.path) or info
        scans = list(read_segments(info, start(info)))
    except JournalError as error:
        return 1, [str(error)]
    damages = [f"{place(damage.position)}: {damage.reason}" for scan in scans for damage in scan.damages]
    torn = [f"{place(scan.torn)}: the last record was never wholly written" for scan in scans if scan.torn]
    records = sum(len(scan.entries) for scan in scans)
    state = _count(len(damages), "damage") if damages else "whole"
    return len(damages), [f"{info.path.name}: {_count(records, 'record')}, {state}", *damages, *torn]


def _begun(info: "JournalInfo") -> "Begun | None":
    from agent.errors import JournalError
    from persistence.journal.reading import read_begun

    try:
        return read_begun(info)
    except JournalError:
        return None  # `journal verify` tells


def _watermarks(
    infos: "Sequence[JournalInfo]", beginnings: "Sequence[Begun | None]", database: "Database"
) -> "list[Position | None]":
    """Up to where the database has each journal; None where that cannot be told."""
    from agent.errors import DatabaseError
    from persistence import sessions
    from persistence.journal.reading import start

    found: list[Position | None] = []
    try:
        with database.read() as connection:
            for info, begun in zip(infos, beginnings, strict=True):
                if begun is None:
                    found.append(None)
                    continue
                placed = sessions.placement(connection, begun.space, info.session, info.epoch)
                found.append(placed.watermark if placed is not None else start(info))
    except DatabaseError:
        return [None] * len(infos)
    return found


def _listed(info: "JournalInfo", begun: "Begun | None", watermark: "Position | None") -> Listed:
    from datetime import timedelta

    from agent.captions.text import clean
    from agent.errors import JournalError
    from persistence.journal.reading import read_segments, start

    lacking = None
    state: State = "damaged"
    try:
        if not info.is_damaged:
            state = "live" if info.is_live else "left behind"
        if watermark is not None:
            scans = read_segments(info, max(watermark, start(info)))
            lacking = sum(entry.end > watermark for scan in scans for entry in scan.entries)
    except JournalError:
        state = "unreadable"  # `journal verify` tells why
    began_at = begun.started_at + timedelta(milliseconds=begun.offset_ms) if begun is not None else None
    return Listed(
        info.session,
        info.epoch,
        clean(begun.room) if begun is not None else None,
        began_at.isoformat(timespec="seconds") if began_at is not None else None,
        info.size_bytes,
        lacking,
        state,
    )


def _chosen(paths: Sequence[Path], *, is_given: bool) -> Iterator["JournalInfo"]:
    """The journals that are meant: each path is that of a journal, or of a folder of journals."""
    from agent.errors import InputError
    from persistence.journal.folder import journals, look_at

    for path in paths:
        info = look_at(path.resolve())
        found = [info] if info is not None else journals(path)
        if not found and is_given:
            raise InputError(
                f"{path} is no journal; give the folder of one, as `roomscribe journal list` names it"
            )
        yield from found


def _summary(reports: Sequence["DrainReport"]) -> str:
    drained = [report for report in reports if not report.problem]
    finals = sum(report.finals for report in reports)
    aside = (
        f"; {_count(len(reports) - len(drained), 'journal')} not wholly"
        if len(drained) < len(reports)
        else ""
    )
    return f"{_count(len(drained), 'journal')} drained: {_count(finals, 'final')}{aside}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number != 1 else ''}"


def _print_table(listed: Sequence[Listed]) -> None:
    from rich.console import Console
    from rich.filesize import decimal
    from rich.table import Table
    from rich.text import Text

    styles = {"live": "green", "left behind": "yellow", "damaged": "bold red", "unreadable": "bold red"}
    table = Table("session", "epoch", "room", "begun at", "size", "to drain", "state", box=None)
    for journal in listed:
        lacking = journal.records_to_drain
        table.add_row(
            journal.session,
            str(journal.epoch),
            Text(journal.room if journal.room is not None else UNKNOWN),
            journal.begun_at or UNKNOWN,
            decimal(journal.size_bytes),
            UNKNOWN if lacking is None else str(lacking),
            Text(journal.state, style=styles[journal.state]),
        )
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = PIPED_WIDTH
    console.print(table)
