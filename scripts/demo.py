"""Play the beginning of a meeting into a room, show its captions, and make its report: `make demo`.

Everything runs on this machine, as real as elsewhere: a livekit-server, `roomscribe up` and a few more
commands of Roomscribe. It ends by itself, and leaves one folder with the report and what the console shows.
"""

import asyncio
import json
import os
import secrets
import shlex
import shutil
import signal
import socket
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import AsyncExitStack, chdir
from pathlib import Path
from typing import Any

from agent.cli.child import Child

ROOT = Path(__file__).resolve().parents[1]
MEETING = ROOT / "tests" / "data" / "meetings" / "incident_review"
ROOMSCRIBE = Path(sysconfig.get_path("scripts")) / "roomscribe"
LEFT = ROOT / "roomscribe-demo"  # what it leaves
ROOM = "demo"
PLAYED_S = 45
CONSOLE_PORT = 8700  # as agent.toml has it

# Several times what a quiet machine needs.
READY_LIMIT_S = 90.0
PLAY_LIMIT_S = PLAYED_S + 60.0
STOP_LIMIT_S = 60.0
REPORT_LIMIT_S = 120.0
COMMAND_LIMIT_S = 30.0
LAST_WORDS_S = 3.0  # from the last word played to its final caption
POLL_S = 0.1
LOG_LINES_SHOWN = 20

NEXT = """\

The report is a file: {report}
To hear the words behind each statement, open the console of this session:

    {variables} .venv/bin/roomscribe console

and in a browser http://127.0.0.1:{port}, with the key {key}
To make that key worthless:

    {revoking_variables} .venv/bin/roomscribe keys revoke {key_id}

Try next: `.venv/bin/roomscribe up --livekit` keeps it all running and tells what other terminals need for
`.venv/bin/roomscribe watch ROOM`. README.md tells how to put it beside your own LiveKit."""


class DemoError(Exception):
    """Something did not happen, or not in time."""


def main() -> int:
    shutil.rmtree(LEFT, ignore_errors=True)
    LEFT.mkdir(mode=0o700)
    with chdir(LEFT):
        log = LEFT / "roomscribe.log"
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
            session = await _session_id(environment)
            await _run(environment, "sessions", "end", session)
            _say("the session is over; now it is analysed:")
            report = await start(
                "report", session, "--wait", "--output", str(LEFT / "report.html"), quiet=False
            )
            await _until_reported(report)
            key = (await _run(environment, "keys", "create", "--name", "demo")).strip()
            key_id = _key_id(await _run(environment, "keys", "list"))
            if code := await up.stop(STOP_LIMIT_S):
                raise DemoError(f"Roomscribe ended with {code}")
    finals = sum(entry.get("finals", 0) for entry in _entries(log) if entry.get("event") == "session.ended")
    if not finals:
        raise DemoError("nobody was captioned")
    _say(f"done, with {finals} captions")
    print(_next(key, key_id))


def _next(key: str, key_id: str) -> str:
    """What can be done with what is left, in lines that work as they are."""
    data = f"ROOMSCRIBE_DATA_DIR={shlex.quote(str(LEFT / 'data'))}"
    variables, port = data, CONSOLE_PORT
    if not _is_free(CONSOLE_PORT):  # a console of somebody's runs
        port = _free_port()
        variables = f"{data} ROOMSCRIBE_CONSOLE__PORT={port}"
    return NEXT.format(
        report=LEFT / "report.html",
        variables=variables,
        port=port,
        key=key,
        revoking_variables=data,
        key_id=key_id,
    )


def _key_id(listed: str) -> str:
    """The id of the only key, as `roomscribe keys list` names it beneath its headings."""
    return listed.splitlines()[1].split()[0]


async def _session_id(environment: dict[str, str]) -> str:
    listed = json.loads(await _run(environment, "sessions", "list", "--room", ROOM, "--json"))
    if not listed:
        raise DemoError("no session was kept")
    return str(listed[0]["id"])


async def _run(environment: dict[str, str], *arguments: str) -> str:
    """What a command of Roomscribe prints; what it says besides is shown only where it fails."""
    process = await asyncio.create_subprocess_exec(
        str(ROOMSCRIBE),
        *arguments,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(COMMAND_LIMIT_S):
            printed, said = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise DemoError(f"`roomscribe {' '.join(arguments)}` did not end") from None
    if process.returncode:
        print(said.decode(errors="replace"), end="", file=sys.stderr)
        raise DemoError(f"`roomscribe {' '.join(arguments)}` ended with {process.returncode}")
    return printed.decode()


async def _until_reported(report: Child) -> None:
    try:
        async with asyncio.timeout(REPORT_LIMIT_S):
            code = await report.wait()
    except TimeoutError:
        raise DemoError(f"the session was not analysed within {REPORT_LIMIT_S:g} s") from None
    if code:
        raise DemoError(f"`roomscribe report` ended with {code}")


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
        "ROOMSCRIBE_DATA_DIR": str(LEFT / "data"),
        "ROOMSCRIBE_CONSOLE__PORT": "0",
    }


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


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
