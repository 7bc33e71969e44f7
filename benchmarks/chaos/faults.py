"""The faults: each kind is made for real, so many times, in rooms where somebody speaks."""

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.chaos.ground import Ground, Station
from benchmarks.chaos.logs import logged_at_s
from benchmarks.chaos.observations import Fault, HandOver
from benchmarks.chaos.room import Room, UnrecoveredError, torment
from benchmarks.chaos.run import Run

__all__ = ["KINDS"]

KILLS_PER_ROOM = 3  # two soon after the agent began and one later, so that no room is parked
STAND_STILL_S = 15.0
HANDED_OVER_S = 40.0
SERVER_AWAY_S = (0.2, 2.0)
STEADY_S = (1.5, 4.0)  # between two faults
# LiveKit ends the job of an agent that reconnects fully, but not in its first 5 s (livekit#4887).
RECONNECT_AFTER_S = (6.0, 9.0)
SEE_S = 3.0  # what comes after a fault is watched for so long
DRAIN_S = 60


async def kill_jobs(run: Run, tries: int) -> None:
    """Kill jobs at random moments of their lives."""
    kind = "job"
    async with run.ground(kind) as ground:
        left = tries

        async def serve(dice: random.Random) -> None:
            nonlocal left
            while left > 0:
                kills = min(KILLS_PER_ROOM, left)
                left -= kills
                room = run.new_room(kind, ground)
                try:
                    await torment(room, ground.server.url, run.speech, kills, dice)
                except UnrecoveredError as error:
                    run.give_up(kind, error)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(run.rooms_at_once):
                tasks.create_task(serve(random.Random(run.dice.random())))


async def kill_workers(run: Run, tries: int) -> None:
    """Kill workers, one after the other, each with another one there; start it again."""
    kind = "worker"
    async with run.ground(kind, workers=2) as ground:
        for _ in range((tries + 1) // 2):
            # New rooms for each two kills: none is parked, and both workers have some.
            try:
                async with run.open_rooms(kind, ground, run.rooms_at_once) as rooms:
                    for _ in range(min(2, tries - run.done.get(kind, 0))):
                        await asyncio.sleep(run.dice.uniform(*STEADY_S))
                        station = _busiest(ground, rooms)
                        await _kill_worker(run, kind, station, rooms)
                        await station.start()
                        run.count(kind)
            except UnrecoveredError as error:
                run.give_up(kind, error)


async def kill_up(run: Run, tries: int) -> None:
    """Kill the worker of `roomscribe up`, which is alone."""
    kind = "up"
    for _ in range(tries):
        # A new one for each try: it waits longer before it starts again what ends again and again.
        async with run.ground(kind, is_up=True) as ground:
            try:
                async with run.open_rooms(kind, ground, run.rooms_at_once) as rooms:
                    await asyncio.sleep(run.dice.uniform(*STEADY_S))
                    await _kill_worker(run, kind, ground.stations[0], rooms)
                    await asyncio.sleep(SEE_S)
            except UnrecoveredError as error:
                run.give_up(kind, error)
            run.count(kind)


async def restart_server(run: Run, tries: int) -> None:
    """Kill or stop the livekit-server and start it again where it was."""
    kind = "server"
    async with run.ground(kind) as ground:
        try:
            async with run.open_rooms(kind, ground, run.rooms_at_once) as rooms:
                for number in range(tries):
                    await asyncio.sleep(run.dice.uniform(*STEADY_S))
                    await _restart(run, ground, rooms, (signal.SIGKILL, signal.SIGTERM)[number % 2])
                    run.count(kind)
                await asyncio.sleep(SEE_S)
        except UnrecoveredError as error:
            run.give_up(kind, error)


async def pause_jobs(run: Run, tries: int) -> None:
    """Stop jobs for a while, and let them go on beside their successors."""

    async def pause(room: Room) -> None:
        started = await room.agent()
        await asyncio.sleep(run.dice.uniform(*STEADY_S))
        room.signal(started["pid"], signal.SIGSTOP)
        at_s = time.time()
        fault = Fault("pause", room.name, at_s, started["session"], started["epoch"], is_over=False)
        room.faults.append(fault)
        try:
            await asyncio.sleep(STAND_STILL_S)
        finally:
            room.signal(started["pid"], signal.SIGCONT)
        await room.until(lambda: room.heard_s(at_s, started["pid"]))
        room.faults[-1] = replace(fault, is_over=True, heard_s=room.heard_s(at_s, started["pid"]))
        await asyncio.sleep(2 * SEE_S)

    async with run.ground("pause") as ground:
        await _in_rooms(run, "pause", ground, tries, pause)


async def reconnect_jobs(run: Run, tries: int) -> None:
    """Have agents lose their connection and make it anew."""
    with TemporaryDirectory(prefix="roomscribe-benchmark-") as folder:
        variables = {
            "ROOMSCRIBE_STT__ENGINES": "benchmarks.counting_stt:ReconnectingSTT",
            "COUNTING_STT_RECONNECT_DIR": folder,
        }

        async def reconnect(room: Room) -> None:
            started = await room.agent()
            await asyncio.sleep(run.dice.uniform(*RECONNECT_AFTER_S))
            at_s = time.time()
            Path(folder, room.name).touch()  # noqa: ASYNC240  a local file
            # Else it was no full reconnect.
            await room.until(
                lambda: room.log.logged("room.reconnected_fully", room=room.name, pid=started["pid"])
            )
            await _until_handed_over(room, "reconnect", started, at_s)
            await asyncio.sleep(SEE_S)

        async with run.ground("reconnect", variables=variables) as ground:
            await _in_rooms(run, "reconnect", ground, tries, reconnect)


async def drain_workers(run: Run, tries: int) -> None:
    """SIGTERM to a worker with another one there, which takes its rooms over."""
    kind = "drain"
    variables = {"ROOMSCRIBE_WORKER__DRAIN_S": str(DRAIN_S)}
    async with run.ground(kind, workers=2, variables=variables) as ground:
        for _ in range((tries + 1) // 2):
            try:
                async with run.open_rooms(kind, ground, run.rooms_at_once) as rooms:
                    for _ in range(min(2, tries - run.done.get(kind, 0))):
                        await asyncio.sleep(run.dice.uniform(*STEADY_S))
                        station = _busiest(ground, rooms)
                        await _drain(run, station, rooms)
                        await station.start()
                        run.count(kind)
            except UnrecoveredError as error:
                run.give_up(kind, error)


KINDS: Mapping[str, tuple[int, Callable[[Run, int], Awaitable[None]]]] = {
    "job": (200, kill_jobs),
    "worker": (20, kill_workers),
    "up": (5, kill_up),
    "server": (5, restart_server),
    "pause": (5, pause_jobs),
    "reconnect": (10, reconnect_jobs),
    "drain": (10, drain_workers),
}


async def _in_rooms(
    run: Run, kind: str, ground: Ground, tries: int, fault: Callable[[Room], Awaitable[None]]
) -> None:
    """Make a fault in a room of its own each time, in several at once."""
    left = tries

    async def serve() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            try:
                async with run.open_rooms(kind, ground, 1) as (room,):
                    await fault(room)
            except UnrecoveredError as error:
                run.give_up(kind, error)
            run.count(kind)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(run.rooms_at_once):
            tasks.create_task(serve())


async def _kill_worker(run: Run, kind: str, station: Station, rooms: Sequence[Room]) -> None:
    led = _led_by(station, rooms)
    await station.kill()
    at_s = time.time()
    for room, started in led:
        room.faults.append(
            Fault(kind, room.name, at_s, started["session"], started["epoch"], is_over=False, is_kill=True)
        )
    for room, _ in led:
        await room.until(lambda room=room: room.heard_s(at_s))  # type: ignore[misc]
        room.faults[-1] = replace(room.faults[-1], is_over=True, heard_s=room.heard_s(at_s))


async def _restart(run: Run, ground: Ground, rooms: Sequence[Room], by: signal.Signals) -> None:
    for room in rooms:
        room.fall_silent()
    await ground.server.end(by)
    await asyncio.sleep(run.dice.uniform(*SERVER_AWAY_S))
    await ground.server.start_again()
    at_s = time.time()
    # All of them, whoever fails.
    came = await asyncio.gather(
        *(room.come_back(ground.server.url, run.speech) for room in rooms), return_exceptions=True
    )
    for error in came:
        if error is not None:
            raise error
    for room in rooms:
        room.faults.append(Fault("server", room.name, at_s, is_over=False))
    for room in rooms:
        seen_s = await room.until_seen(at_s)
        room.faults[-1] = replace(room.faults[-1], is_over=True, heard_s=seen_s)


async def _drain(run: Run, station: Station, rooms: Sequence[Room]) -> None:
    led = _led_by(station, rooms)
    at_s = time.time()
    stopping = asyncio.create_task(station.stop())
    try:
        for room, started in led:
            await _until_handed_over(room, "drain", started, at_s)
    finally:
        code = await stopping
        if code:
            run.tell(f"drain: the worker ended with {code}")


async def _until_handed_over(room: Room, kind: str, started: Mapping[str, Any], after_s: float) -> None:
    """Wait until another agent leads and the one before has left, and note it."""
    fault = Fault(kind, room.name, after_s, started["session"], started["epoch"], is_over=False)
    room.faults.append(fault)
    await room.agent(after_s)
    await room.until(lambda: room.heard_s(after_s, started["pid"]))
    room.faults[-1] = replace(fault, is_over=True, heard_s=room.heard_s(after_s, started["pid"]))
    next_one = await room.agent(after_s)
    with suppress(
        UnrecoveredError
    ):  # LiveKit ended its job, perhaps; whether it still speaks is seen elsewhere
        await room.until(lambda: _left_s(room, started), HANDED_OVER_S)
    room.handovers.append(
        HandOver(
            kind,
            room.name,
            fault.session,
            fault.epoch,
            next_one["epoch"],
            _left_s(room, started),
            logged_at_s(next_one),
        )
    )


def _left_s(room: Room, started: Mapping[str, Any]) -> float | None:
    ended = room.log.logged("session.ended", room=room.name, pid=started["pid"])
    return logged_at_s(ended[0]) if ended else None


def _busiest(ground: Ground, rooms: Sequence[Room]) -> Station:
    """The worker that leads the most rooms; LiveKit may give them all to one."""
    return max(ground.stations, key=lambda station: len(_led_by(station, rooms)))


def _led_by(station: Station, rooms: Sequence[Room]) -> list[tuple[Room, Mapping[str, Any]]]:
    newest = [(room, room.newest_agent()) for room in rooms]
    return [(room, agent) for room, agent in newest if agent is not None and agent["worker"] == station.name]
