"""Child processes for tests that need no event loop: they never survive the test run."""

import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import IO

from agent.cli.child import GUARD

__all__ = ["HOST", "end", "free_port", "start"]

HOST = "127.0.0.1"
# Beneath the ports that the kernel gives to outgoing connections: nobody gets one while its server is away.
PORTS = range(10_000, 32_000)

# The kernel ends a guarded child when the *thread* that started it ends: this one lasts as long as we do.
_STARTER = ThreadPoolExecutor(1)


def free_port() -> int:
    """A TCP port of the loopback interface that nobody uses at the moment."""
    while True:
        with socket.socket() as probe, suppress(OSError):
            probe.bind((HOST, port := random.choice(PORTS)))
            return port


def start(
    command: Sequence[str], *, output: IO[bytes], environment: Mapping[str, str] | None = None
) -> "subprocess.Popen[bytes]":
    """Run a command that ends when we do, in a process group of its own; may be called in any thread.

    Args:
        command: The program and its arguments.
        output: Where its standard output and error go.
        environment: All its variables; None gives it ours.
    """
    guarded = (sys.executable, "-I", "-S", str(GUARD), str(os.getpid()), *command)
    return _STARTER.submit(
        subprocess.Popen,
        guarded,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ).result()


def end(child: "subprocess.Popen[bytes]", by: signal.Signals, *, patience_s: float) -> None:
    """Ask a child to end, and kill it with everything in its group if it does not in time. Idempotent."""
    child.send_signal(by)
    try:
        child.wait(patience_s)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
