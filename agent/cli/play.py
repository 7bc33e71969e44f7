"""`roomscribe play`: a recorded meeting, spoken into a room."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from agent.config import Settings
    from agent.ingest.meeting import Meeting
    from agent.room.dispatch import Rooms
    from agent.room.player import Playback, Player
    from persistence.database import Database
    from persistence.database_thread import DatabaseThread

__all__ = ["play"]

AGENT_S = 10.0  # it takes 0.4 s, or 3 s for the first room of a worker
LAST_CAPTIONS_S = 3.0  # from the last word to its final caption
PROGRESS_S = 0.2
POLL_S = 0.5
CALL_TIMEOUT_S = 15.0  # of the database: longer than its own limits, by which a call ends as a rule
NO_SESSION_S = 10.0  # a session is in the database a moment after its agent has come


def play(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Holds a track per participant.")],
    room: Annotated[str, typer.Option("--room", metavar="NAME", help="The room's name.")],
    start_s: Annotated[float, typer.Option("--from", metavar="S", help="Second to begin at.")] = 0.0,
    end_s: Annotated[float | None, typer.Option("--to", metavar="S", help="Second to end at.")] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until the session has ended, and print its id.")
    ] = False,
) -> None:
    """Speak a recorded meeting into a room.

    Joins as everybody who has an Ogg/Opus or WAV file in the folder, named after them, and speaks in real
    time. With --wait the settings name the database that the worker has.
    """
    from rich.console import Console

    from agent.cli.running import run
    from agent.config import load_settings
    from agent.ingest.meeting import load_meeting

    settings = load_settings(context.obj, require_livekit=True)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    if wait:
        _check_database(settings)
    with console.status("Reading the tracks"):
        meeting = load_meeting(folder, start_s=start_s, end_s=end_s)
    if wait:
        typer.echo(run(_play_and_wait(settings, meeting, room, console)))
    else:
        run(_play_alone(settings, meeting, room, console))


def _check_database(settings: "Settings") -> None:
    """Who is to wait for a session wants to know beforehand that it would not come."""
    from agent.cli.existing import existing_database
    from persistence import schema

    with closing(existing_database(settings)) as database:
        schema.check(database)


async def _play_alone(settings: "Settings", meeting: "Meeting", room: str, console: "Console") -> None:
    from agent.room.dispatch import Rooms

    async with Rooms(settings) as rooms:
        await _play(settings, rooms, meeting, room, console)


async def _play_and_wait(settings: "Settings", meeting: "Meeting", room: str, console: "Console") -> str:
    """The id of the session, once it has ended."""
    from agent.room.dispatch import Rooms
    from persistence.database import Database
    from persistence.database_thread import DatabaseThread

    async with Rooms(settings) as rooms:
        room_sid = await _play(settings, rooms, meeting, room, console)
        console.print(
            f"Waiting for the session to end: LiveKit closes {room} some 20 s after the last one has left; "
            "somebody else in it keeps it open. Ctrl-C stops waiting.",
            markup=False,
        )
        thread = DatabaseThread(Database.of(settings))
        try:
            with console.status("Waiting"):
                return await _until_ended(thread, rooms, room, room_sid, console)
        finally:
            thread.close()


async def _play(
    settings: "Settings", rooms: "Rooms", meeting: "Meeting", room: str, console: "Console"
) -> str:
    """The SID of the room, which everybody has left."""
    from agent.room.player import Player

    async with Player(settings.livekit.url, lambda identity: rooms.token(room, identity)) as player:
        await rooms.ping()
        playback = await player.join(meeting.tracks)
        await rooms.ensure_dispatched(room)
        console.print(f"{', '.join(meeting.tracks)} joined {room}.", markup=False)
        if not await rooms.wait_for_agent(room, AGENT_S):
            console.print(
                f"The agent is not in {room} after {AGENT_S:g} s; is `roomscribe up` or `roomscribe worker` "
                "running? Speaking without it.",
                style="yellow",
                markup=False,
            )
        async with _progress(meeting, playback, console):
            await _until_spoken(player, playback, room)
        await asyncio.sleep(LAST_CAPTIONS_S)
        room_sid = await next(iter(player.talkers.values())).room.sid
    if playback.skipped_s:
        console.print(
            f"This machine was too busy: {playback.skipped_s:.1f} s were left out.",
            style="yellow",
            markup=False,
        )
    return room_sid


async def _until_ended(
    thread: "DatabaseThread", rooms: "Rooms", room: str, room_sid: str, console: "Console"
) -> str:
    """The id of the session of a room, once it has ended and all of it can be read."""
    from agent.errors import DatabaseAwayError, DatabaseError

    loop = asyncio.get_running_loop()
    expected_by_s = loop.time() + NO_SESSION_S
    problem = ""
    while True:
        try:
            found, is_complete = await thread.call(
                partial(_look_up, thread.database, room_sid), CALL_TIMEOUT_S
            )
        except DatabaseAwayError as error:
            if str(error) != problem:
                problem = str(error)
                console.print(f"{problem}; waiting until it is back.", style="yellow", markup=False)
            expected_by_s = loop.time() + NO_SESSION_S
        else:
            if found is not None and is_complete:
                return found
            if found is not None or await rooms.agent_is_in(room):
                expected_by_s = loop.time() + NO_SESSION_S
            elif loop.time() > expected_by_s:
                raise DatabaseError(
                    f"database {thread.database.name} has no session of {room} ({room_sid}): either no agent "
                    "came (is `roomscribe up` or `roomscribe worker` running?), or its worker has another "
                    "database (set data_dir or database.url to what that one has)"
                )
        await asyncio.sleep(POLL_S)


def _look_up(database: "Database", room_sid: str) -> tuple[str | None, bool]:
    """The session of a room, and whether it has ended with everything in the database."""
    from persistence.catalogue import find_by_sid, is_complete
    from persistence.records import DEFAULT_SPACE

    with database.read() as connection:
        session_id = find_by_sid(connection, DEFAULT_SPACE, room_sid)
        return session_id, session_id is not None and is_complete(connection, DEFAULT_SPACE, session_id)


async def _until_spoken(player: "Player", playback: "Playback", room: str) -> None:
    from agent.errors import LiveKitError

    speaking = asyncio.create_task(playback.run(), name="play.speak")
    leaving = asyncio.create_task(player.wait_disconnected(), name="play.disconnected")
    try:
        await asyncio.wait((speaking, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not speaking.done():
            raise LiveKitError(
                f"the connection to {room} ended after {playback.position_s:.0f} s: the room was closed, or "
                "LiveKit is gone"
            )
        speaking.result()
    finally:
        for task in (speaking, leaving):
            task.cancel()
        await asyncio.wait((speaking, leaving))


@asynccontextmanager
async def _progress(meeting: "Meeting", playback: "Playback", console: "Console") -> AsyncIterator[None]:
    """A line on the terminal that tells how far it is and who speaks."""
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed:.0f} of {task.total:.0f} s"),
        TextColumn("{task.fields[speaking]}", markup=False),
    )
    progress = Progress(*columns, console=console, auto_refresh=False, disable=not console.is_terminal)
    task_id = progress.add_task(meeting.name, total=meeting.duration_s, speaking="")

    async def follow() -> None:
        while True:
            now_s = playback.position_s
            speaking = sorted({s.speaker for s in meeting.segments if s.start_s <= now_s < s.end_s})
            progress.update(task_id, completed=now_s, speaking=", ".join(speaking), refresh=True)
            await asyncio.sleep(PROGRESS_S)

    with progress:
        following = asyncio.create_task(follow(), name="play.progress")
        try:
            yield
        finally:
            following.cancel()
            progress.update(task_id, completed=playback.position_s, speaking="", refresh=True)
