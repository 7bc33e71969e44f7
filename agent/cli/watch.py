"""`roomscribe watch`: the captions of a room in the terminal."""

import asyncio
import json
import sys
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Protocol

import typer

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from agent.cli.transcript import Line, Notice
    from agent.config import Settings
    from agent.room.dispatch import Rooms
    from agent.room.viewer import ReceivedEvent

__all__ = ["watch"]

# Told apart on dark and on light backgrounds.
COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "red", "bright_cyan", "bright_magenta")
NAME_WIDTH = 16
AGENT_S = 10.0  # a cold process takes three
# Why a connection ends when the room is over, or we left it.
ROOM_CLOSED = {"room_deleted", "room_closed", "left", "client_initiated"}


def watch(
    context: typer.Context,
    room: Annotated[str, typer.Argument(metavar="ROOM", help="The room's name.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print every event as a line of JSON.")] = False,
    name: Annotated[str, typer.Option("--as", metavar="NAME", help="What others see.")] = "watcher",
) -> None:
    """Print a room's captions as they come.

    Joins as a participant without a microphone, until the room closes.
    """
    from agent.cli.running import run
    from agent.config import load_settings

    run(_watch(load_settings(context.obj, require_livekit=True), room, name, as_json))


async def _watch(settings: "Settings", room: str, name: str, as_json: bool) -> None:
    from agent.errors import LiveKitError
    from agent.room.dispatch import Rooms
    from agent.room.viewer import Viewer

    # Two who watch under one name are two participants.
    identity = f"{name}-{uuid.uuid4().hex[:6]}"
    with _printer(room, as_json) as printer:
        async with Rooms(settings) as rooms, Viewer() as viewer:
            await rooms.ping()
            await viewer.join(settings.livekit.url, rooms.token(room, identity, name=name))
            await rooms.ensure_dispatched(room)
            missing = asyncio.create_task(_say_if_missing(rooms, room), name="watch.missing")
            try:
                async for event in viewer.events():
                    printer.show(event)
            finally:
                missing.cancel()
                await asyncio.wait((missing,))
    if viewer.closed_reason not in ROOM_CLOSED:
        raise LiveKitError(f"the connection to {room} ended: {viewer.closed_reason}; see the log of LiveKit")


async def _say_if_missing(rooms: "Rooms", room: str) -> None:
    from agent.errors import LiveKitError

    try:
        if not await rooms.wait_for_agent(room, AGENT_S):
            hint = "is `roomscribe up` or `roomscribe worker` running? The captions begin when it is."
            typer.echo(f"watch: the agent is not in {room} after {AGENT_S:g} s; {hint}", err=True)
    except LiveKitError as error:
        typer.echo(f"watch: {error}", err=True)


class _Printer(Protocol):
    def __enter__(self) -> "_Printer": ...

    def __exit__(self, *_: object) -> None: ...

    def show(self, event: "ReceivedEvent") -> None: ...


def _printer(room: str, as_json: bool) -> _Printer:
    if as_json:
        return _JsonPrinter()
    return _TerminalPrinter(room) if sys.stdout.isatty() else _LinePrinter()


class _JsonPrinter:
    """Every event as it came, and when it came."""

    def __enter__(self) -> "_JsonPrinter":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def show(self, event: "ReceivedEvent") -> None:
        received_at = datetime.fromtimestamp(event.received_at, UTC).isoformat(timespec="milliseconds")
        # ASCII only: other people's control characters must not reach a terminal.
        _write(json.dumps({**event.data, "received_at": received_at.replace("+00:00", "Z")}))


class _LinePrinter:
    """Finals and notices, a line each, for files and other programs."""

    def __init__(self) -> None:
        from agent.cli.transcript import Transcript

        self._transcript = Transcript()

    def __enter__(self) -> "_LinePrinter":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def show(self, event: "ReceivedEvent") -> None:
        from agent.cli.transcript import Line

        for item in self._transcript.take(event.data):
            _write(
                f"{item.clock} {item.speaker}: {item.text}" if isinstance(item, Line) else f"[{item.text}]"
            )


class _TerminalPrinter:
    """Finals as lines that stay, captions that may still change below them."""

    def __init__(self, room: str) -> None:
        from rich.console import Console
        from rich.live import Live

        from agent.cli.transcript import Transcript

        self._room = room
        self._transcript = Transcript()
        self._colours: dict[str, str] = {}
        self._console = Console(highlight=False, soft_wrap=False)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)

    def __enter__(self) -> "_TerminalPrinter":
        self._console.print(f"Captions of {self._room}. Ctrl-C leaves.", style="dim", markup=False)
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, event: "ReceivedEvent") -> None:
        for item in self._transcript.take(event.data):
            self._console.print(self._render(item))
        self._live.update(self._render_open(self._transcript.open_lines), refresh=True)

    def _render(self, item: "Line | Notice", *, is_open: bool = False) -> "RenderableType":
        from rich.text import Text

        from agent.cli.transcript import Notice

        if isinstance(item, Notice):
            return Text(item.text, style="dim")
        colour = self._colours.setdefault(item.identity, COLOURS[len(self._colours) % len(COLOURS)])
        return _row(
            Text(item.clock, style="dim"),
            Text(item.speaker, style=colour if is_open else f"bold {colour}"),
            Text(f"{item.text} …" if is_open else item.text, style="dim italic" if is_open else ""),
        )

    def _render_open(self, lines: "Sequence[Line]") -> "RenderableType":
        from rich.console import Group

        return Group(*(self._render(line, is_open=True) for line in lines))


def _row(clock: "Text", speaker: "Text", text: "Text") -> "RenderableType":
    """Three columns, so that long captions are wrapped beside the name and not below it."""
    from rich.table import Table

    row = Table.grid(padding=(0, 2))
    row.add_column(no_wrap=True)
    row.add_column(width=NAME_WIDTH, no_wrap=True, overflow="ellipsis")
    row.add_column(overflow="fold")
    row.add_row(clock, speaker, text)
    return row


def _write(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
