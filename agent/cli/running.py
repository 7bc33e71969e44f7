"""Running a command's coroutine so that signals end it cleanly."""

import asyncio
import logging
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

import typer

__all__ = ["run"]

Result = TypeVar("Result")

EXIT_TERMINATED = 128 + signal.SIGTERM


def run(command: Coroutine[Any, Any, Result]) -> Result:
    """Run it to its end. SIGTERM cancels it as Ctrl-C does, so that it leaves the rooms it is in."""
    # The SDK logs every closed connection as an error, its own clean ones included.
    logging.getLogger("livekit").setLevel(logging.CRITICAL)

    async def cancelled_by_sigterm() -> Result:
        task = asyncio.ensure_future(command)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await task

    try:
        return asyncio.run(cancelled_by_sigterm())
    except asyncio.CancelledError:
        raise typer.Exit(EXIT_TERMINATED) from None
