"""A child process that never survives its parent."""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Self

__all__ = ["Child"]

GUARD = Path(__file__).with_name("guard.py")
STOP_S = 45.0  # a worker gives its sessions 36 s to end, and takes a few itself


class Child:
    """A running command, in a session of its own: a Ctrl-C at the terminal reaches the parent alone."""

    def __init__(self, process: asyncio.subprocess.Process, stop_signal: signal.Signals) -> None:
        self._process = process
        self._stop_signal = stop_signal

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        output: IO[bytes] | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> Self:
        """Run a command.

        Args:
            command: The program and its arguments.
            environment: All its variables; None gives it ours.
            output: Where its standard output and error go; None is where ours go.
            stop_signal: What it takes for "end".
        """
        # Isolated and without site-packages, Python starts in 10 ms.
        guarded = (sys.executable, "-I", "-S", str(GUARD), str(os.getpid()), *command)
        process = await asyncio.create_subprocess_exec(
            *guarded,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=None if output is None else asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        return cls(process, stop_signal)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        return self._process.returncode is not None

    async def wait(self) -> int:
        """The exit code, once there is one; below 0 the signal that ended it."""
        return await self._process.wait()

    async def stop(self, patience_s: float = STOP_S, *, insist_after_s: float | None = None) -> int:
        """End it and give its exit code.

        Args:
            patience_s: How long it may take after its signal before everything it started is killed.
            insist_after_s: When to send a second one, to programs that take it for "at once".
        """
        self.tell_to_end()
        try:
            async with asyncio.timeout(patience_s):
                if insist_after_s is not None:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(insist_after_s):
                            return await self.wait()
                    self.tell_to_end()
                return await self.wait()
        except TimeoutError:
            return await self.kill()

    async def kill(self) -> int:
        """End it and everything it started, at once."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        return await self.wait()

    def tell_to_end(self) -> None:
        """Send it its signal, and do not wait for what it does."""
        with suppress(ProcessLookupError):
            self._process.send_signal(self._stop_signal)
