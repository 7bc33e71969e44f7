"""`roomscribe worker`: captions rooms until it is told to end."""

import typer

__all__ = ["worker"]


def worker(context: typer.Context) -> None:
    """Caption the rooms that LiveKit gives us.

    Until SIGTERM or Ctrl-C, which lets sessions give out their last captions.
    """
    import asyncio

    from agent.config import load_settings
    from agent.worker import run_worker

    asyncio.run(run_worker(load_settings(context.obj, require_livekit=True)))
