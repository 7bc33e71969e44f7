"""`roomscribe up` keeps worker, analyst and console running."""

import os
import signal
from pathlib import Path

import pytest

from agent.cli.local_livekit import LocalLiveKit
from tests.support.running_up import running_up

PARTS = ("worker", "analyst", "console")


async def test_up_runs_all_three_brings_one_back_that_dies_and_stops_them_in_order(
    livekit: LocalLiveKit, tmp_path: Path
):
    async with running_up(livekit, tmp_path, "of-up") as up:
        await up.until_ready(*PARTS)
        niceness = {part: os.getpriority(os.PRIO_PROCESS, up.pid(part)) for part in PARTS}
        assert niceness["analyst"] > niceness["worker"]
        os.kill(up.pid("analyst"), signal.SIGKILL)
        await up.until_ready("analyst", times=2)
        assert len(up.logged("worker.ready")) == len(up.logged("console.ready")) == 1
        pids = [up.pid(part) for part in PARTS]
        assert await up.child.stop() == 0
        assert up.lines("stopping") == ["stopping console", "stopping analyst", "stopping worker"]
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
