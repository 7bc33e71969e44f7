import json
import sys
from pathlib import Path

import pytest

from agent.cli.child import Child
from benchmarks.worker_process import WorkerProcess

LINES = (
    "a library prints this",
    json.dumps({"event": "session.started", "room": "one", "pid": 1}),
    json.dumps({"event": "session.started", "room": "two", "pid": 2}),
)


async def start(log: Path) -> tuple[Child, WorkerProcess]:
    """A process that logs these lines and ends."""
    with log.open("wb") as output:
        child = await Child.start([sys.executable, "-c", f"print({chr(10).join(LINES)!r})"], output=output)
    return child, WorkerProcess(child, log)


async def test_an_event_is_found_by_its_room(tmp_path: Path) -> None:
    child, worker = await start(tmp_path / "log")
    await child.wait()

    assert (await worker.logged("session.started", room="two", timeout_s=30))["pid"] == 2
    assert (await worker.logged("session.started", timeout_s=30))["pid"] == 1


async def test_a_worker_that_ended_is_said_with_its_last_words(tmp_path: Path) -> None:
    _, worker = await start(tmp_path / "log")

    with pytest.raises(ChildProcessError, match=r"ended before worker\.ready:\na library prints this"):
        await worker.logged("worker.ready", timeout_s=30)


async def test_an_event_that_does_not_come_is_said(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch()
    child = await Child.start([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        with pytest.raises(TimeoutError, match=r"did not log worker\.ready within 0.2 s"):
            await WorkerProcess(child, log).logged("worker.ready", timeout_s=0.2)
    finally:
        await child.kill()
