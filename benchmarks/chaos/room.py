"""A room in which somebody speaks without an end, a viewer notes everything, and agents are killed."""

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from livekit import rtc

from agent.errors import LiveKitError
from agent.room.dispatch import Rooms
from agent.room.player import Playback, Talker
from agent.room.viewer import ReceivedEvent, Viewer
from agent.values import Samples
from benchmarks.chaos.logs import Log, logged_at_s
from benchmarks.chaos.observations import Caption, Fault, HandOver, Seen, Watched

__all__ = ["Room", "UnrecoveredError", "torment"]

RECOVER_S = 60.0  # for an agent to come; what takes longer is counted
POLL_S = 0.05
LONGEST_LIFE_S = 2.5  # of an agent that is killed early; it says its first final after half a second
# Agents that die soon after they began have their room parked, the third time in two minutes.
PARKED_AFTER = 3
PARKED_WITHIN_S = 130.0
LATE_S = (11.5, 14.0)  # after its start, so that a death does not count as early
LAST_LOOK_S = 2.5
REJOIN_S = 15.0  # for the SDK to reconnect


class UnrecoveredError(Exception):
    """What a room did not get within the benchmark's patience, as a sentence."""


@dataclass(slots=True)
class Room:
    """A room, its people, and what was done to its agents."""

    name: str
    rooms: Rooms
    log: Log
    kind: str = "job"
    watched: Watched = field(init=False)
    faults: list[Fault] = field(default_factory=list)
    handovers: list[HandOver] = field(default_factory=list)
    _people: "_People | None" = None

    def __post_init__(self) -> None:
        self.watched = Watched(self.name, self.kind)

    @property
    def kills(self) -> list[Fault]:
        """What was done to its agents, in order."""
        return self.faults

    @asynccontextmanager
    async def open(self, url: str, speech: Samples) -> AsyncIterator[None]:
        """Somebody speaks and somebody reads, until the end."""
        await self._come(url, speech)
        try:
            yield
        finally:
            await self._go()

    async def come_back(self, url: str, speech: Samples) -> None:
        """Wait until the SDK has reconnected both people to a server that was away; else they join anew.

        Raises:
            UnrecoveredError: They cannot.
        """
        people = self._people
        assert people is not None
        try:
            async with asyncio.timeout(REJOIN_S):
                await people.reconnected()
        except (TimeoutError, LiveKitError):
            await self._go()
            await self._come(url, speech)
        else:
            people.since_s = time.time()

    def fall_silent(self) -> None:
        """From now on nobody is expected to hear, until the people have come back."""
        people = self._people
        assert people is not None
        self.watched.spans.append((people.since_s, time.time()))
        people.lose_connection()

    def newest_agent(self, after_s: float = 0.0) -> Mapping[str, Any] | None:
        """What the agent logged that began last, if it did after this time."""
        found = [entry for entry in self._started() if logged_at_s(entry) > after_s]
        return found[-1] if found else None

    async def agent(self, after_s: float = 0.0) -> Mapping[str, Any]:
        """Wait until an agent has begun after this time.

        Raises:
            UnrecoveredError: None does.
        """
        await self.until(lambda: self.newest_agent(after_s) is not None)
        found = self.newest_agent(after_s)
        assert found is not None
        return found

    async def until(self, condition: Callable[[], object], limit_s: float = RECOVER_S) -> None:
        """Wait until something is so.

        Raises:
            UnrecoveredError: It was not in time.
        """
        try:
            async with asyncio.timeout(limit_s):
                while not condition():  # noqa: ASYNC110  logs are polled
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise UnrecoveredError(f"{self.name} did not recover within {limit_s:g} s") from None

    def heard_s(self, after_s: float, not_pid: int = 0) -> float | None:
        """When an agent first heard somebody after this time, one that is not this process."""
        for entry in self.log.logged("session.hears", room=self.name):
            if (at_s := logged_at_s(entry)) > after_s and entry.get("pid") != not_pid:
                return at_s
        return None

    async def until_seen(self, after_s: float, limit_s: float = RECOVER_S) -> float:
        """Wait until the viewer has got a final after this time, and give when."""

        def first() -> float | None:
            finals = (event for event in self.watched.events if event.final is not None)
            return next((event.received_s for event in finals if event.received_s > after_s), None)

        await self.until(lambda: first() is not None, limit_s)
        found = first()
        assert found is not None
        return found

    async def kill_agents(self, tries: int, dice: random.Random) -> None:
        """Kill the agent at a random moment of its life, so many times. The worker brings the next one.

        Raises:
            UnrecoveredError: Nobody came.
        """
        killed_s = 0.0
        for _ in range(tries):
            await self.agent(killed_s)
            await asyncio.sleep(self._life_s(dice))
            # Two may have come, of whom one has left.
            started = await self.agent(killed_s)
            self.signal(started["pid"], signal.SIGKILL)
            killed_s = time.time()
            self.faults.append(
                Fault(
                    self.kind,
                    self.name,
                    killed_s,
                    started["session"],
                    started["epoch"],
                    is_over=False,
                    is_kill=True,
                )
            )
            await self.agent(killed_s)
            self.faults[-1] = replace(self.faults[-1], is_over=True)

    def signal(self, pid: int, number: signal.Signals) -> None:
        """Send a signal to the process of this room's agent.

        Raises:
            UnrecoveredError: It is gone, and has no successor.
        """
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            raise UnrecoveredError(f"the agent of {self.name} had gone by itself") from None

    def note_recoveries(self) -> None:
        """Find out when each fault's successor heard, where it was not killed before it could."""
        for index, fault in enumerate(self.faults):
            next_s = self.faults[index + 1].at_s if index + 1 < len(self.faults) else float("inf")
            heard_s = self.heard_s(fault.at_s)
            if fault.heard_s is None and heard_s is not None and heard_s < next_s:
                self.faults[index] = replace(fault, is_over=True, heard_s=heard_s)

    def _started(self) -> "list[Mapping[str, Any]]":
        return list(self.log.logged("session.started", room=self.name))

    def _life_s(self, dice: random.Random) -> float:
        now_s = time.time()
        recent = [fault for fault in self.faults if now_s - fault.at_s < PARKED_WITHIN_S]
        if len(recent) >= PARKED_AFTER - 1:
            return dice.uniform(*LATE_S)
        return dice.uniform(0.0, LONGEST_LIFE_S)

    async def _come(self, url: str, speech: Samples) -> None:
        tokens = {who: self.rooms.token(self.name, who) for who in ("viewer", "speaker")}
        try:
            self._people = await _People.join(url, tokens, speech, self._note)
        except LiveKitError as error:
            raise UnrecoveredError(f"nobody can join {self.name}: {error}") from error

    async def _go(self) -> None:
        if self._people is not None:
            if self._people.is_there:
                self.watched.spans.append((self._people.since_s, time.time()))
            await self._people.leave()
            self._people = None

    def _note(self, event: ReceivedEvent) -> None:
        data = event.data
        final = None
        if data["kind"] == "caption" and data["final"]:
            final = Caption(
                data["session"],
                data["epoch"],
                data["id"],
                data["seq"],
                data["text"],
                data["start_ms"],
                data["end_ms"],
            )
        self.watched.events.append(Seen(event.received_at, data["session"], data["epoch"], final))


class _People:
    """Somebody who speaks and somebody who reads along."""

    def __init__(self, viewer: Viewer, talker: Talker) -> None:
        self._viewer = viewer
        self._talker = talker
        self._tasks: list[asyncio.Task[None]] = []
        self._back = {id(room): asyncio.Event() for room in (viewer.room, talker.room)}
        self._gone = asyncio.Event()
        self.since_s = time.time()
        self.is_there = True
        for room in (viewer.room, talker.room):
            room.on("reconnected", self._back[id(room)].set)
            room.on("disconnected", self._on_disconnected)

    @classmethod
    async def join(
        cls, url: str, tokens: Mapping[str, str], speech: Samples, note: Callable[[ReceivedEvent], None]
    ) -> "_People":
        viewer = Viewer()
        await viewer.join(url, tokens["viewer"])
        try:
            talker = await Talker.join(url, tokens["speaker"])
        except BaseException:
            await viewer.leave()
            raise
        people = cls(viewer, talker)
        try:
            microphone = await talker.publish()
        except BaseException:
            await people.leave()
            raise
        people.since_s = time.time()

        async def speak() -> None:
            while True:
                await Playback({microphone: speech}).run()

        async def read() -> None:
            async for event in viewer.events():
                note(event)

        people._tasks = [asyncio.create_task(speak()), asyncio.create_task(read())]
        return people

    def lose_connection(self) -> None:
        self.is_there = False
        for event in self._back.values():
            event.clear()

    async def reconnected(self) -> None:
        """Wait until both are connected again.

        Raises:
            LiveKitError: One of them is out for good.
        """
        back = asyncio.gather(*(event.wait() for event in self._back.values()))
        gone = asyncio.create_task(self._gone.wait())
        try:
            await asyncio.wait((back, gone), return_when=asyncio.FIRST_COMPLETED)
            if not back.done():
                raise LiveKitError("somebody was disconnected")
        finally:
            gone.cancel()
            back.cancel()
            await asyncio.gather(gone, back, return_exceptions=True)
        self.is_there = True

    async def leave(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._talker.leave()
        await self._viewer.leave()

    def _on_disconnected(self, _: rtc.DisconnectReason.ValueType) -> None:
        self._gone.set()


async def torment(room: Room, url: str, speech: Samples, tries: int, dice: random.Random) -> None:
    """Open a room and kill its agents, so many of them; the last one sees the room close.

    Raises:
        UnrecoveredError: Nobody came after a kill.
    """
    async with room.open(url, speech):
        try:
            await room.kill_agents(tries, dice)
            await room.agent()
            await asyncio.sleep(LAST_LOOK_S)
        finally:
            room.note_recoveries()
