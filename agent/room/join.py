"""Joining a room as a client, with failures that say what to do."""

import asyncio

from livekit import rtc

from agent.errors import LiveKitError

__all__ = ["join", "leave"]

JOIN_S = 20.0  # it takes 0.2 s on one machine; a try that fails takes 5
LEAVE_S = 5.0  # in which a room that is left must let go


async def join(room: rtc.Room, url: str, token: str, *, auto_subscribe: bool = False) -> None:
    """Connect a room whose handlers are registered.

    Raises:
        LiveKitError: The server is away, refuses the token, or takes too long.
    """
    options = rtc.RoomOptions(auto_subscribe=auto_subscribe)
    connecting = asyncio.create_task(room.connect(url, token, options), name="room.connect")
    try:
        async with asyncio.timeout(JOIN_S):
            await asyncio.shield(connecting)
    except TimeoutError:
        connecting.cancel()
        await asyncio.wait((connecting,), timeout=LEAVE_S)
        await leave(room)
        raise LiveKitError(f"LiveKit at {url} lets us not in within {JOIN_S:g} s; see its log") from None
    except asyncio.CancelledError:
        # The SDK goes on connecting; the server would show somebody who is not there.
        await asyncio.wait((connecting,), timeout=LEAVE_S)
        connecting.cancel()
        await leave(room)
        raise
    except rtc.ConnectError as error:
        raise LiveKitError(f"LiveKit at {url} lets us not in: {error.message}; see its log") from None


async def leave(room: rtc.Room) -> None:
    """Disconnect, whether the room is still there or not."""
    try:
        async with asyncio.timeout(LEAVE_S):
            await room.disconnect()
    except TimeoutError:
        # The server drops who does not answer; waiting longer would hold up the rest.
        return
