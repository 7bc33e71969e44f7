"""`roomscribe doctor`: what is wrong here, and what to do."""

import asyncio
import errno
import json
import platform
import socket
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from agent.config import Console, LiveKit, Settings, Stt
    from agent.room.dispatch import OpenRoom, Rooms
    from persistence.deaths import Parked
    from persistence.open_rooms import RoomRecord

__all__ = ["Check", "doctor", "look"]

Outcome = Literal["ok", "failed", "note"]

PING_TRIES = 3  # the first one opens the connection; the fastest is the round trip
ENGINE_S = 60.0  # loading a model takes 1 s, or several where the machine is busy
TRIAL_S = 1.0  # of silence that the engine is given
CONSOLE_S = 3.0  # for who listens on the console's port to say what it is
MAX_ANSWER_BYTES = 1_000_000  # the console's own description has a twentieth of it
EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # and where it is reached on this machine
MAX_ROOMS = 20  # without a leader that LiveKit is asked about
MIN_FILES = 1024  # open files: a worker needs about 20 a room
MIN_SECRET_BYTES = 32
DATABASE_URL = "database.url (ROOMSCRIBE_DATABASE__URL)"
UPGRADE = "roomscribe db upgrade"  # what helps a database that is empty or old
EXIT_FAILED = 1
PIPED_WIDTH = 200  # columns where there is no terminal to fit into


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at and found. `advice` is what to do about it; a note is for information only."""

    name: str
    outcome: Outcome
    detail: str
    advice: str = ""


def doctor(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check that Roomscribe can work here.

    Ends with exit code 0 if it can and 1 if not.
    """
    from agent.cli.running import run
    from agent.config import load_settings
    from agent.errors import ConfigError

    try:
        settings = load_settings(context.obj)
    except ConfigError as error:
        checks = [Check("settings", "failed", str(error), "nothing else can be checked before")]
    else:
        checks = run(look(settings))
    has_failed = any(check.outcome == "failed" for check in checks)
    if as_json:
        found = [{**asdict(check), "ok": check.outcome != "failed"} for check in checks]
        typer.echo(json.dumps({"ok": not has_failed, "checks": found}, indent=2, ensure_ascii=False))
    else:
        _print_table(checks)
    if has_failed:
        raise typer.Exit(EXIT_FAILED)


async def look(settings: "Settings") -> list[Check]:
    """Make every check; none of them raises."""
    return [
        Check("settings", "ok", "valid; `roomscribe config show` prints them"),
        Check("python", "ok", f"{platform.python_version()} on {platform.platform(terse=True)}"),
        check_open_files(),
        check_data_dir(settings.data_dir),
        check_disk(settings),
        await asyncio.to_thread(check_database, settings),
        check_journals(settings.journal_dir),
        await check_livekit(settings),
        await check_rooms(settings),
        await check_console(settings.console),
        *[await check_engine(name, settings.stt) for name in settings.stt.engines],
        check_livekit_server(),
    ]


def check_open_files() -> Check:
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= MIN_FILES:
        return Check("open files", "ok", "unlimited" if soft == resource.RLIM_INFINITY else f"up to {soft}")
    return Check(
        "open files", "failed", f"only {soft} are allowed", f"run `ulimit -n {MIN_FILES}` or more first"
    )


def check_data_dir(folder: Path) -> Check:
    from tempfile import NamedTemporaryFile

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=folder, prefix=".doctor-"):
            pass
    except OSError as error:
        return Check(
            "data_dir",
            "failed",
            f"{folder} cannot be written to: {error.strerror}",
            "set data_dir (ROOMSCRIBE_DATA_DIR) to a folder that you may write to",
        )
    return Check("data_dir", "ok", f"{folder.resolve()} can be written to")


def check_disk(settings: "Settings") -> Check:
    """Whether there is room for recordings."""
    from shutil import disk_usage

    if not settings.recording.enabled:
        return Check("disk", "note", "recording is off, so that little is needed")
    least_mb = settings.recording.min_free_mb
    # It may be a disk of its own.
    folder = settings.stems_dir if settings.stems_dir.is_dir() else settings.data_dir
    try:
        free_mb = disk_usage(folder).free // 1_000_000
    except OSError as error:
        return Check("disk", "failed", f"the space in {folder} is unknown: {error.strerror}")
    if free_mb < least_mb:
        return Check(
            "disk",
            "failed",
            f"{folder.resolve()} has {free_mb} MB left; nothing is recorded below {least_mb} MB",
            "free some space, set data_dir to another disk, or switch recording.enabled off",
        )
    return Check("disk", "ok", f"{free_mb} MB are free; recording needs {least_mb} MB")


def check_database(settings: "Settings") -> Check:
    """Whether the database can be used. It blocks."""
    from agent.cli.existing import existing_database
    from agent.errors import ConfigError, DatabaseAwayError, DatabaseError, InputError
    from persistence import schema

    try:
        with closing(existing_database(settings)) as database:
            version = schema.check(database)
    except InputError as error:
        problem, _, advice = str(error).rpartition(": ")
        if settings.database.upgrade_at_start:
            return Check("database", "note", f"{problem}; a worker will make it when it starts", advice)
        return Check("database", "failed", problem, advice)
    except DatabaseAwayError as error:
        problem = str(error).removeprefix("database ")
        return Check(
            "database",
            "failed",
            problem,
            f"start it, or set {DATABASE_URL} to where it runs and whom it lets in",
        )
    except (ConfigError, DatabaseError) as error:
        problem, _, advice = str(error).removeprefix("database ").partition("; ")
        if UPGRADE in advice and settings.database.upgrade_at_start:
            return Check("database", "note", f"{problem}; a worker will bring it up to date when it starts")
        return Check("database", "failed", problem, advice)
    return Check("database", "ok", f"{database.name} is up to date ({version})")


def check_journals(folder: Path) -> Check:
    """Whether all that sessions have written on this machine goes into the database."""
    from agent.errors import JournalError
    from persistence.journal.folder import journals

    try:
        found = journals(folder)
        damaged = sum(info.is_damaged for info in found)
        live = sum(info.is_live for info in found if not info.is_damaged)
    except JournalError as error:
        return Check("journals", "failed", str(error), "make it readable for the user who runs the worker")
    if not found:
        return Check("journals", "ok", f"nothing waits in {folder.resolve()}")
    advice = []
    if left_behind := len(found) - live - damaged:
        advice.append(
            "a worker drains what was left behind when it starts, as does `roomscribe journal drain`"
        )
    if damaged:
        advice.append("`roomscribe journal verify` tells what is damaged; the rest of it is in the database")
    return Check(
        "journals",
        "note" if advice else "ok",
        f"{live} live, {left_behind} left behind, {damaged} damaged, in {folder.resolve()}",
        "; ".join(advice),
    )


async def check_livekit(settings: "Settings") -> Check:
    from agent.errors import LiveKitError
    from agent.room.dispatch import Rooms

    livekit = settings.livekit
    if not (livekit.api_key and livekit.api_secret.get_secret_value()):
        return Check(
            "livekit",
            "failed",
            f"there is no key for {livekit.url}",
            "set LIVEKIT_API_KEY and LIVEKIT_API_SECRET to those of your LiveKit server, or try "
            "`roomscribe up --livekit` and the lines that it prints",
        )
    round_trips_ms = []
    try:
        async with Rooms(settings) as rooms:
            for _ in range(PING_TRIES):
                started_s = time.monotonic()
                await rooms.ping()
                round_trips_ms.append((time.monotonic() - started_s) * 1000)
    except LiveKitError as error:
        problem, _, advice = str(error).partition("; ")
        return Check("livekit", "failed", problem, advice)
    return Check(
        "livekit",
        "ok",
        f"{livekit.url} answers in {min(round_trips_ms):.0f} ms and accepts the key{_weak_secret(livekit)}",
    )


def _weak_secret(livekit: "LiveKit") -> str:
    size = len(livekit.api_secret.get_secret_value().encode())
    return "" if size >= MIN_SECRET_BYTES else f"; its secret is short ({size} bytes): good for trying only"


async def check_rooms(settings: "Settings") -> Check:
    """Whether the rooms that want an agent have one."""
    from agent.errors import ConfigError, DatabaseError, InputError, LiveKitError
    from agent.room.dispatch import Rooms

    try:
        async with Rooms(settings) as rooms:
            open_rooms = await rooms.open_rooms()
            parked, alone, is_looked_after = await asyncio.to_thread(_without_leader, settings, open_rooms)
            waiting = [room.name for room, record in alone if await _waits(settings, rooms, room, record)]
    except (ConfigError, DatabaseError, InputError, LiveKitError, ValueError):  # the last without a key
        return Check("rooms", "note", "not looked at: that takes LiveKit, and a database with tables")
    if parked:
        until = ", ".join(f"{room.room} at {room.until.astimezone():%H:%M}" for room in parked)
        return Check(
            "rooms",
            "failed",
            f"parked, since their agents died soon after they began: {', '.join(r.room for r in parked)}",
            f"what killed them stands in a worker's log, under that room; tried again: {until}",
        )
    if waiting:
        return Check(
            "rooms",
            "note" if is_looked_after else "failed",
            f"without the agent that they want: {', '.join(waiting)}",
            "a worker that is not full brings it within seconds; start another one"
            if is_looked_after
            else "no worker runs: start one by `roomscribe up` or `roomscribe worker`",
        )
    if not is_looked_after:
        return Check(
            "rooms", "note", f"{len(open_rooms)} are open; none waits for its agent, and no worker runs"
        )
    return Check("rooms", "ok", f"{len(open_rooms)} are open; none waits for its agent")


def _without_leader(
    settings: "Settings", open_rooms: "Sequence[OpenRoom]"
) -> "tuple[list[Parked], list[tuple[OpenRoom, RoomRecord]], bool]":
    """The rooms that are parked, those that nobody leads, and whether a worker looks after all. It blocks."""
    from agent.cli.existing import existing_database
    from persistence import deaths, leases
    from persistence.database import Database
    from persistence.open_rooms import room_records
    from persistence.records import DEFAULT_SPACE

    existing = existing_database(settings)  # before the leases, which would get a file of their own
    with closing(Database.of_leases(settings)) as database:
        leases.prepare(database)
        with database.read() as connection:
            led = {lease.room for lease in leases.every(connection) if lease.is_live}
            reconciler = leases.look(connection, leases.NO_SPACE, leases.NO_ROOM)
    alone = [room for room in open_rooms if room.name not in led][:MAX_ROOMS]
    with closing(existing) as database, database.read() as connection:
        parked = [
            room for room in deaths.parked(connection) if room.space == DEFAULT_SPACE and room.room not in led
        ]
        records = room_records(connection, DEFAULT_SPACE, [(room.name, room.sid) for room in alone])
    is_looked_after = reconciler is not None and reconciler.is_live
    return parked, [(room, records[room.sid]) for room in alone], is_looked_after


async def _waits(settings: "Settings", rooms: "Rooms", room: "OpenRoom", record: "RoomRecord") -> bool:
    """Whether there are people who want an agent in a room without one."""
    from agent.dispatch_policy import is_among, may_want_agent, wants_agent
    from agent.errors import LiveKitError

    is_served = settings.dispatch.mode == "explicit" or is_among(room.name, settings.dispatch.rooms)
    if not may_want_agent(record, is_served=is_served):
        return False
    try:
        was_asked = await rooms.asked_at(room.name) is not None
        is_wanted = wants_agent(record, is_served=is_served, was_asked=was_asked)
        return is_wanted and await rooms.people_in(room.name) > 0
    except LiveKitError:
        if room.sid in await rooms.open_sids([room.name]):
            raise
        return False  # it was closed meanwhile


async def check_console(settings: "Console") -> Check:
    """Whether the console can listen where it is set to, or does so already."""
    host, port = settings.host.strip("[]"), settings.port
    if port == 0:
        return Check("console", "ok", "takes any port that is free, and logs which")
    advice = (
        "set console.port (ROOMSCRIBE_CONSOLE__PORT) to one that is free, and console.host "
        "(ROOMSCRIBE_CONSOLE__HOST) to an address of this machine"
    )
    try:
        await asyncio.to_thread(_try_address, host, port)
    except (OSError, UnicodeError) as error:  # the latter of a name that can be none
        if not (isinstance(error, OSError) and error.errno == errno.EADDRINUSE):
            return Check("console", "failed", f"{settings.host}, port {port}: {error}", advice)
    else:
        return Check("console", "ok", f"port {port} is free")
    if await _is_our_console(host, port):
        return Check("console", "ok", f"port {port} is answered by a Roomscribe console")
    return Check(
        "console", "failed", f"something else than a Roomscribe console listens on port {port}", advice
    )


def _try_address(host: str, port: int) -> None:
    """Listen there as the console does, for a moment. It blocks.

    Raises:
        OSError: It cannot be had.
    """
    family, _, _, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    socket.create_server(address, family=family).close()


async def _is_our_console(host: str, port: int) -> bool:
    """Whether a console answers there, by the description of its API or by how it asks for a key."""
    import httpx

    host = EVERY_ADDRESS.get(host, host)
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}/api/v1/openapi.json"
    try:
        # Its own limits hold for each part of an answer, which may be many.
        async with (
            asyncio.timeout(CONSOLE_S),
            httpx.AsyncClient(trust_env=False) as client,
            client.stream("GET", url) as answer,
        ):
            body = b""
            async for part in answer.aiter_bytes():
                body += part
                if len(body) > MAX_ANSWER_BYTES:
                    return False
        said = json.loads(body)
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            return "`roomscribe keys create`" in said["detail"]
        return bool(said["info"]["title"] == "Roomscribe")
    # Whoever listens there may answer anything.
    except (
        TimeoutError,
        httpx.HTTPError,
        httpx.InvalidURL,
        ValueError,
        LookupError,
        TypeError,
        RecursionError,
    ):
        return False


async def check_engine(name: str, settings: "Stt") -> Check:
    from agent.errors import EngineError

    started_s = time.monotonic()
    try:
        async with asyncio.timeout(ENGINE_S):
            await _try_engine(name, settings)
    except TimeoutError:
        return Check(
            "engine", "failed", f"{name} is not ready after {ENGINE_S:g} s", "free some processor time"
        )
    except EngineError as error:
        return Check("engine", "failed", str(error), "agent.toml explains the settings under [stt]")
    except Exception as error:  # noqa: BLE001  an engine of somebody else's may raise anything
        return Check("engine", "failed", f"{name}: {error or type(error).__name__}", "see its documentation")
    return Check("engine", "ok", f"{name} loads and runs, {time.monotonic() - started_s:.1f} s")


async def _try_engine(name: str, settings: "Stt") -> None:
    """Load an engine and, where it takes recordings, have it recognise some silence."""
    from livekit import rtc
    from livekit.agents import APIConnectOptions

    from agent.values import SAMPLE_RATE_HZ
    from plugins.stt import load_engine

    engine = load_engine(name, settings)
    try:
        await asyncio.to_thread(engine.prewarm)
        if engine.capabilities.offline_recognize:
            silence = rtc.AudioFrame.create(SAMPLE_RATE_HZ, 1, round(TRIAL_S * SAMPLE_RATE_HZ))
            await engine.recognize(silence, conn_options=APIConnectOptions(max_retry=0, timeout=ENGINE_S))
    finally:
        await engine.aclose()


def check_livekit_server() -> Check:
    from agent.cli.local_livekit import find_livekit_server

    if found := find_livekit_server():
        return Check("livekit-server", "note", f"`roomscribe up --livekit` would run {found}")
    return Check("livekit-server", "note", "not on PATH; only `roomscribe up --livekit` needs it")


def _print_table(checks: Sequence[Check]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    styles = {"ok": "green", "failed": "bold red", "note": "dim"}
    table = Table.grid(padding=(0, 2))
    for check in checks:
        detail = Text(check.detail)
        if check.advice:
            detail.append(f"\n→ {check.advice}", style="yellow")
        table.add_row(
            Text(check.outcome, style=styles[check.outcome]), Text(check.name, style="bold"), detail
        )
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PIPED_WIDTH
    console.print(table)
