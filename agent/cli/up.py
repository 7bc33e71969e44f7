"""`roomscribe up`: everything that Roomscribe runs, on one machine."""

import asyncio
import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from agent.cli.ending import EXIT_WRONG_INPUT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from agent.cli.child import Child
    from agent.cli.local_livekit import LocalLiveKit
    from agent.config import Settings

__all__ = ["up"]

LOOPBACK_HOSTS = {"127.0.0.1", "localhost"}
LIVEKIT_PORT = 7880  # where a URL without one leads
LIVEKIT_LOG = "livekit-server.log"


def up(
    context: typer.Context,
    livekit: Annotated[
        bool, typer.Option("--livekit", help="Run a livekit-server as well, for this machine only.")
    ] = False,
) -> None:
    """Run everything on this machine: the worker, the analyst and the console.

    What ends is started again; SIGTERM or Ctrl-C stops it all.
    """
    from agent.config import load_settings

    settings = load_settings(context.obj)
    has_keys = bool(settings.livekit.api_key or settings.livekit.api_secret.get_secret_value())
    if has_keys or not livekit:
        settings = load_settings(context.obj, require_livekit=True)
    asyncio.run(_up(settings, context.obj, livekit, has_keys))


async def _up(settings: "Settings", config: Path | None, with_livekit: bool, has_keys: bool) -> None:
    from agent.cli.local_livekit import DEVELOPMENT_KEY, DEVELOPMENT_SECRET, require_livekit_server
    from agent.cli.supervisor import Program, Supervisor

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    environment = dict(os.environ)

    def start(command: str, stop_signal: signal.Signals = signal.SIGTERM) -> "Callable[[], Awaitable[Child]]":
        return partial(_start_command, command, config, environment, stop_signal)

    programs = [
        # It is alone: a SIGTERM would have it wait for somebody to hand its rooms over to.
        Program("worker", start("worker", signal.SIGINT), refusal_code=EXIT_WRONG_INPUT),
        # Whatever these two refuse, rooms keep their captions.
        *(
            Program(name, start(name), refusal_code=EXIT_WRONG_INPUT, rest_goes_on=True)
            for name in ("analyst", "console")
        ),
    ]
    if with_livekit:
        require_livekit_server()
        api_key = settings.livekit.api_key if has_keys else DEVELOPMENT_KEY
        api_secret = settings.livekit.api_secret.get_secret_value() if has_keys else DEVELOPMENT_SECRET
        start_livekit: Callable[[], Awaitable[LocalLiveKit]] = partial(
            _start_livekit, _local_port(settings), _livekit_log(settings.data_dir), api_key, api_secret
        )
        variables = {
            "LIVEKIT_URL": settings.livekit.url,
            "LIVEKIT_API_KEY": api_key,
            "LIVEKIT_API_SECRET": api_secret,
        }
        environment.update(variables)
        if not has_keys:
            start_livekit = _explaining(start_livekit, variables)
        programs.insert(0, Program("livekit-server", start_livekit))
    _say(f"the data folder is {settings.data_dir.resolve()}")
    await Supervisor(programs, _say).run(stop)


def _explaining(
    start: "Callable[[], Awaitable[LocalLiveKit]]", variables: "Mapping[str, str]"
) -> "Callable[[], Awaitable[LocalLiveKit]]":
    """Say once, when the server runs, what other terminals need to use it."""
    is_said = False

    async def start_and_say() -> "LocalLiveKit":
        nonlocal is_said
        server = await start()
        if not is_said:
            is_said = True
            _say("no key is set, so it is one that everybody knows; in other terminals:")
            for name, value in variables.items():
                typer.echo(f"  export {name}={value}")
        return server

    return start_and_say


def _local_port(settings: "Settings") -> int:
    from agent.errors import InputError

    url = urlsplit(settings.livekit.url)
    if url.hostname not in LOOPBACK_HOSTS or url.scheme not in ("ws", "http"):
        raise InputError(
            f"--livekit serves this machine only, and livekit.url is {settings.livekit.url}; "
            f"leave --livekit out, or set LIVEKIT_URL to ws://127.0.0.1:{LIVEKIT_PORT}"
        )
    return url.port or LIVEKIT_PORT


def _livekit_log(data_dir: Path) -> Path:
    from agent.errors import InputError

    log = data_dir / LIVEKIT_LOG
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        log.touch(0o600)
    except OSError as error:
        raise InputError(
            f"data_dir {data_dir} cannot be written to: {error.strerror}; set it (ROOMSCRIBE_DATA_DIR) to a "
            "folder that you may write to"
        ) from None
    return log


async def _start_livekit(port: int, log: Path, api_key: str, api_secret: str) -> "LocalLiveKit":
    from agent.cli.local_livekit import LocalLiveKit

    return await LocalLiveKit.start(port=port, api_key=api_key, api_secret=api_secret, log=log)


async def _start_command(
    name: str, config: Path | None, environment: dict[str, str], stop_signal: signal.Signals
) -> "Child":
    from agent.cli.child import Child

    options = () if config is None else ("--config", str(config))
    # -P: a folder called `agent` where we are run must not take our place.
    command = (sys.executable, "-P", "-m", "agent", *options, name)
    return await Child.start(command, environment=environment, stop_signal=stop_signal)


def _say(line: str) -> None:
    typer.echo(f"up: {line}")
    sys.stdout.flush()
