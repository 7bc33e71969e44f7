"""`roomscribe play`: a recorded meeting, spoken into a room."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from agent.config import Settings
    from agent.ingest.meeting import Meeting
    from agent.room.player import Playback, Player

__all__ = ["play"]

AGENT_S = 10.0  # it takes 0.4 s, or 3 s for the first room of a worker
LAST_CAPTIONS_S = 3.0  # from the last word to its final caption
PROGRESS_S = 0.2


def play(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Holds a track per participant.")],
    room: Annotated[str, typer.Option("--room", metavar="NAME", help="The room's name.")],
    start_s: Annotated[float, typer.Option("--from", metavar="S", help="Second to begin at.")] = 0.0,
    end_s: Annotated[float | None, typer.Option("--to", metavar="S", help="Second to end at.")] = None,
) -> None:
    """Speak a recorded meeting into a room.

    Joins as everybody who has an Ogg/Opus or WAV file in the folder, named after them, and speaks in real
    time.
    """
    from rich.console import Console

    from agent.cli.running import run
    from agent.config import load_settings
    from agent.ingest.meeting import load_meeting

    settings = load_settings(context.obj, require_livekit=True)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    with console.status("Reading the tracks"):
        meeting = load_meeting(folder, start_s=start_s, end_s=end_s)
    run(_play(settings, meeting, room, console))


async def _play(settings: "Settings", meeting: "Meeting", room: str, console: "Console") -> None:
    from agent.room.dispatch import Rooms
    from agent.room.player import Player

    async with (
        Rooms(settings) as rooms,
        Player(settings.livekit.url, lambda identity: rooms.token(room, identity)) as player,
    ):
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
    if playback.skipped_s:
        console.print(
            f"This machine was too busy: {playback.skipped_s:.1f} s were left out.",
            style="yellow",
            markup=False,
        )


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
