import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent.cli.child import Child

STUBBORN = "trap '' TERM; echo ready; while :; do sleep 0.05; done"
SECOND_TERM = "n=0; trap 'n=$((n+1)); [ $n = 2 ] && exit 7' TERM; echo ready; while :; do sleep 0.05; done"
ORPHAN = """
import asyncio, os, signal
from agent.cli.child import Child

async def main():
    child = await Child.start(["sh", "-c", "echo ready; exec sleep 60"])
    print(child.pid, flush=True)
    await child.wait()

asyncio.run(main())
"""


async def shell(script: str, log: Path) -> Child:
    """A shell that has said it is ready."""
    with open(log, "wb") as output:  # noqa: ASYNC230  a local file
        child = await Child.start(["sh", "-c", script], output=output)
    while "ready" not in log.read_text():  # noqa: ASYNC240  a local file
        assert not child.has_ended
        await asyncio.sleep(0.01)
    return child


async def test_the_exit_code_is_that_of_the_command() -> None:
    child = await Child.start(["sh", "-c", "exit 3"])

    assert await child.wait() == 3
    assert child.has_ended


async def test_the_environment_is_the_one_given(tmp_path: Path) -> None:
    child = await Child.start(
        ["sh", "-c", 'test "$COLOUR" = red'], environment={**os.environ, "COLOUR": "red"}
    )

    assert await child.wait() == 0


async def test_a_command_that_is_not_there_is_said(tmp_path: Path) -> None:
    with open(tmp_path / "log", "wb") as output:  # noqa: ASYNC230  a local file
        child = await Child.start(["/nowhere/program"], output=output)

    assert await child.wait() == 1
    assert (tmp_path / "log").read_text() == "/nowhere/program cannot be run: No such file or directory\n"


async def test_stop_ends_it_by_sigterm(tmp_path: Path) -> None:
    child = await shell("echo ready; exec sleep 60", tmp_path / "log")

    assert await child.stop() == -signal.SIGTERM
    assert await child.stop() == -signal.SIGTERM


async def test_stop_sends_the_signal_that_it_was_given(tmp_path: Path) -> None:
    with open(tmp_path / "log", "wb") as output:  # noqa: ASYNC230  a local file
        child = await Child.start(["sleep", "60"], output=output, stop_signal=signal.SIGINT)

    assert await child.stop() == -signal.SIGINT


async def test_stop_kills_what_does_not_listen(tmp_path: Path) -> None:
    child = await shell(STUBBORN, tmp_path / "log")

    assert await child.stop(0.2) == -signal.SIGKILL


async def test_stop_insists(tmp_path: Path) -> None:
    child = await shell(SECOND_TERM, tmp_path / "log")

    assert await child.stop(insist_after_s=0.2) == 7


@pytest.mark.skipif(
    sys.platform != "linux", reason="only the kernel of Linux ends the children of the killed"
)
def test_a_child_does_not_survive_a_parent_that_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", ORPHAN], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        said = {parent.stdout.readline().strip(), parent.stdout.readline().strip()}
        child_pid = int(next(line for line in said if line != "ready"))
        parent.kill()

    deadline_s = time.monotonic() + 10
    while is_running(child_pid):
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
