"""Keeps programs running: starts them in order, restarts what ends, stops them in the reverse order."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from agent.errors import ConfigError, RoomscribeError

__all__ = ["Program", "Running", "Supervisor"]

FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 30.0
STEADY_S = 60.0  # what ran that long before it ended is started again at once: rooms wait for it


class Running(Protocol):
    """A program that runs."""

    @property
    def pid(self) -> int: ...

    async def wait(self) -> int:
        """Its exit code, once there is one."""
        ...

    async def stop(self) -> object:
        """End it within a bounded time. Idempotent."""
        ...


@dataclass(frozen=True, slots=True)
class Program:
    """What is to run. `start` returns when it runs, or raises a RoomscribeError.

    One that ends with `refusal_code` has refused its settings, and would again: that ends everything, unless
    `rest_goes_on` without it. It is tried again now and then in that case, since what it refused may
    have been somebody else's, such as a port.
    """

    name: str
    start: Callable[[], Awaitable[Running]]
    refusal_code: int | None = None
    rest_goes_on: bool = False


class Supervisor:
    """Runs programs until it is told to stop.

    Args:
        programs: In the order in which they need each other.
        say: Gets one line for everything that happens.
    """

    def __init__(self, programs: Sequence[Program], say: Callable[[str], None]) -> None:
        self._programs = programs
        self._say = say
        self._running: dict[str, Running] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Start everything, and keep it running until `stop` is set.

        Raises:
            RoomscribeError: A program could not be started the first time.
            ConfigError: One refuses its settings; it has said which.
        """
        keeping: list[asyncio.Task[None]] = []
        stopping = asyncio.create_task(stop.wait(), name="up.stop")
        try:
            for program in self._programs:
                starting = asyncio.create_task(self._start(program), name=f"up.start.{program.name}")
                await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
                if stop.is_set():
                    starting.cancel()
                    await asyncio.wait((starting,))
                    return
                starting.result()
                keeping.append(asyncio.create_task(self._keep(program), name=f"up.keep.{program.name}"))
            await asyncio.wait((stopping, *keeping), return_when=asyncio.FIRST_COMPLETED)
            for task in keeping:
                if task.done():
                    task.result()
        finally:
            stopping.cancel()
            for task in keeping:
                task.cancel()
            await asyncio.gather(*keeping, return_exceptions=True)
            for name in reversed(list(self._running)):
                self._say(f"stopping {name}")
                await self._running[name].stop()

    async def _start(self, program: Program) -> None:
        running = await program.start()
        self._running[program.name] = running
        self._say(f"{program.name} started (process {running.pid})")

    async def _keep(self, program: Program) -> None:
        loop = asyncio.get_running_loop()
        wait_s = FIRST_WAIT_S
        while True:
            started_s = loop.time()
            code = await self._running[program.name].wait()
            problem = f"{program.name} ended ({_describe(code)})"
            if code == program.refusal_code:
                problem = f"{program.name} cannot run with these settings; its reason is above"
                if not program.rest_goes_on:
                    raise ConfigError(problem)
                wait_s = LONGEST_WAIT_S
            elif loop.time() - started_s > STEADY_S:
                wait_s = 0.0
            while True:
                self._say(f"{problem}; starting it again {f'in {wait_s:g} s' if wait_s else 'at once'}")
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, LONGEST_WAIT_S) if wait_s else FIRST_WAIT_S
                try:
                    await self._start(program)
                    break
                except (RoomscribeError, OSError) as error:
                    problem = f"{program.name} cannot be started: {error}"


def _describe(code: int) -> str:
    if code < 0:
        return f"signal {-code}"
    return f"exit code {code}"
