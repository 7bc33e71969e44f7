"""`roomscribe token`: lets a person into a room."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from agent.config import Settings

__all__ = ["token"]


class RoleOption(StrEnum):
    HOST = "host"
    MODERATOR = "moderator"
    GUEST = "guest"


def token(
    context: typer.Context,
    room: Annotated[str, typer.Argument(metavar="ROOM", help="The room's name.")],
    identity: Annotated[str, typer.Option("--identity", metavar="ID", help="Unique in the room.")],
    name: Annotated[
        str, typer.Option("--name", metavar="NAME", help="What others see; without it the identity.")
    ] = "",
    role: Annotated[RoleOption, typer.Option("--role", help="What they may do.")] = RoleOption.GUEST,
) -> None:
    """Print a token that lets a person into a room.

    It asks the agent into the room as well.
    """
    from agent.cli.running import run
    from agent.config import load_settings
    from agent.errors import InputError

    for option, value in (("ROOM", room), ("--identity", identity)):
        if not value.strip():
            raise InputError(f"{option} is empty; give a name")
    settings = load_settings(context.obj, require_livekit=True)
    typer.echo(run(_token(settings, room, identity, name, role)))


async def _token(settings: "Settings", room: str, identity: str, name: str, role: RoleOption) -> str:
    from agent.errors import LiveKitError
    from agent.room.dispatch import Rooms

    async with Rooms(settings) as rooms:
        issued = rooms.token(room, identity, name=name, role=role.value)
        try:
            await rooms.ensure_dispatched(room)
        except LiveKitError as error:
            # The token is good all the same, and asks for the agent where it creates the room.
            typer.echo(f"roomscribe: the agent was not asked into a room that exists: {error}", err=True)
    return issued
