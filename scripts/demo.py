"""Play the beginning of a meeting into a room and show the captions as they come: `make demo`.

Everything runs on this machine, as real as elsewhere: a livekit-server, `roomscribe up` and two more commands
of Roomscribe, one that speaks and one that watches. It ends by itself and leaves nothing behind.
"""

import asyncio
import json
import os
import secrets
import signal
import socket
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import AsyncExitStack, chdir
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from agent.cli.child import Child

ROOT = Path(__file__).resolve().parents[1]
MEETING = ROOT / "tests" / "data" / "meetings" / "incident_review"
ROOMSCRIBE = Path(sysconfig.get_path("scripts")) / "roomscribe"
ROOM = "demo"
PLAYED_S = 45

# Several times what a quiet machine needs.
READY_LIMIT_S = 90.0
PLAY_LIMIT_S = PLAYED_S + 60.0
STOP_LIMIT_S = 60.0
LAST_WORDS_S = 3.0  # from the last word played to its final caption
POLL_S = 0.1
LOG_LINES_SHOWN = 20

NEXT = """\
Try next: `.venv/bin/roomscribe up --livekit` keeps it running and tells what other terminals need for
`.venv/bin/roomscribe watch ROOM`. README.md tells how to put it beside your own LiveKit."""


class DemoError(Exception):
    """Something did not happen, or not in time."""


def main() -> int:
    with TemporaryDirectory(prefix="roomscribe-demo-") as name, chdir(name):
        log = Path(name, "roomscribe.log")
        try:
            asyncio.run(_until_ended_from_outside(log))
        except DemoError as error:
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
            print("\n".join(lines[-LOG_LINES_SHOWN:]), file=sys.stderr)
            print(f"demo: {error}; above are the last lines of the log", file=sys.stderr)
            return 1
        except (KeyboardInterrupt, asyncio.CancelledError):
            print("demo: interrupted", file=sys.stderr)
            return 130
    return 0


async def _until_ended_from_outside(log: Path) -> None:
    task = asyncio.ensure_future(_demo(log))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await task


async def _demo(log: Path) -> None:
    environment = _environment()
    with open(log, "wb") as output:  # noqa: ASYNC230  a local file
        async with AsyncExitStack() as children:

            async def start(*arguments: str, quiet: bool = True) -> Child:
                child = await Child.start(
                    (str(ROOMSCRIBE), *arguments), environment=environment, output=output if quiet else None
                )
                children.push_async_callback(child.stop, STOP_LIMIT_S)
                return child

            _say("starts a livekit-server and Roomscribe on this machine")
            up = await start("up", "--livekit")
            await _until_ready(up, log)
            _say(f"plays {PLAYED_S} s of a meeting into a room; these captions are what a viewer gets:")
            watch = await start("watch", ROOM, quiet=False)
            play = await start("play", str(MEETING), "--room", ROOM, "--to", str(PLAYED_S))
            await _until_played(play, watch)
            await asyncio.sleep(LAST_WORDS_S)
            await watch.stop(STOP_LIMIT_S)
            if code := await up.stop(STOP_LIMIT_S):
                raise DemoError(f"Roomscribe ended with {code}")
    finals = sum(entry.get("finals", 0) for entry in _entries(log) if entry.get("event") == "session.ended")
    if not finals:
        raise DemoError("nobody was captioned")
    _say(f"the session is over, with {finals} captions")
    print(NEXT)


def _environment() -> dict[str, str]:
    """Ours without a developer's own server and settings; the demo's server gets a free port and a secret."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("LIVEKIT_", "ROOMSCRIBE_"))
    }
    return kept | {
        "PATH": os.pathsep.join((str(ROOT / ".tools" / "bin"), os.environ.get("PATH", os.defpath))),
        "LIVEKIT_URL": f"ws://127.0.0.1:{_free_port()}",
        "LIVEKIT_API_KEY": "demo",
        "LIVEKIT_API_SECRET": secrets.token_urlsafe(32),
        "ROOMSCRIBE_LOG__FORMAT": "json",
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _until_ready(up: Child, log: Path) -> None:
    try:
        async with asyncio.timeout(READY_LIMIT_S):
            while not any(entry.get("event") == "worker.ready" for entry in _entries(log)):
                if up.has_ended:
                    raise DemoError(f"Roomscribe ended with {await up.wait()} before it was ready")
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise DemoError(f"Roomscribe was not ready after {READY_LIMIT_S:g} s") from None


async def _until_played(play: Child, watch: Child) -> None:
    try:
        async with asyncio.timeout(PLAY_LIMIT_S):
            code = await play.wait()
    except TimeoutError:
        raise DemoError(f"the meeting was not played within {PLAY_LIMIT_S:g} s") from None
    if code:
        raise DemoError(f"`roomscribe play` ended with {code}")
    if watch.has_ended and (code := await watch.wait()):
        raise DemoError(f"`roomscribe watch` ended with {code}")


def _entries(log: Path) -> Iterator[dict[str, Any]]:
    """The log's lines that are JSON objects; others come from programs that we start."""
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            yield entry


def _say(text: str) -> None:
    print(f"demo: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
