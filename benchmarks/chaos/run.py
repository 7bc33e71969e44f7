"""One run of the benchmark: what it works with, and what it has found so far."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from agent.values import Samples
from benchmarks.chaos.ground import Ground, running
from benchmarks.chaos.keeping import Outcome, look_for, until_drained
from benchmarks.chaos.room import Room

__all__ = ["Run"]


@dataclass(slots=True)
class Run:
    """A whole run: what it is to do, and what it has found so far.

    `tell` gets a line for what is not to be missed. In `logs`, if it is there, everything is kept.
    """

    speech: Samples
    rooms_at_once: int
    database_url: str
    dice: random.Random
    tell: Callable[[str], None]
    wanted: Mapping[str, int] = field(default_factory=dict)
    logs: Path | None = None
    rooms: list[Room] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    done: dict[str, int] = field(default_factory=dict)
    unrecovered: dict[str, int] = field(default_factory=dict)
    undrained: int = 0

    def new_room(self, kind: str, ground: Ground) -> Room:
        """A room that nobody has been in."""
        number = sum(room.kind == kind for room in self.rooms)
        room = Room(f"chaos-{kind}-{number}", ground.rooms, ground.logs, kind)
        self.rooms.append(room)
        return room

    def count(self, kind: str) -> None:
        """One more fault was made."""
        self.done[kind] = self.done.get(kind, 0) + 1

    def tries(self, kind: str) -> int:
        """How many faults of a kind were made so far."""
        if kind == "job":
            return sum(len(room.faults) for room in self.rooms if room.kind == kind)
        return self.done.get(kind, 0)

    def give_up(self, kind: str, why: object) -> None:
        """A try that nobody recovered from is counted, and the run goes on."""
        self.unrecovered[kind] = self.unrecovered.get(kind, 0) + 1
        self.tell(f"{kind}: {why}")

    @asynccontextmanager
    async def ground(
        self,
        kind: str,
        *,
        workers: int = 1,
        is_up: bool = False,
        variables: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Ground]:
        """Servers for one kind of fault; at the end what was kept is looked for."""
        before = len(self.rooms)
        async with running(
            workers=workers,
            rooms=self.rooms_at_once,
            database_url=self.database_url,
            variables=variables,
            is_up=is_up,
            folder=self.logs / f"{kind}-{len(self.outcomes)}" if self.logs else None,
        ) as ground:
            yield ground
            try:
                await until_drained(ground.settings)
            except TimeoutError:
                self.undrained += 1
                self.tell(f"{kind}: the workers have not brought over everything that was left behind")
            rooms = self.rooms[before:]
            self.outcomes.append(await asyncio.to_thread(look_for, ground.settings, rooms))

    @asynccontextmanager
    async def open_rooms(self, kind: str, ground: Ground, count: int) -> AsyncIterator[Sequence[Room]]:
        """Rooms in all of which an agent hears."""
        rooms = [self.new_room(kind, ground) for _ in range(count)]
        async with AsyncExitStack() as stack:
            for room in rooms:
                await stack.enter_async_context(room.open(ground.server.url, self.speech))
            for room in rooms:
                await room.until_seen(0.0)
            yield rooms
