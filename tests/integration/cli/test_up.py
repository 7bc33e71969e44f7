"""`roomscribe up` keeps worker, analyst and console running."""

import os
import signal
import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from agent.cli.doctor import check_console
from agent.cli.local_livekit import LocalLiveKit
from agent.config import Console
from tests.support.gathering import until
from tests.support.running_up import running_up

PARTS = ("worker", "analyst", "console")
LIMIT_S = 90.0


async def test_up_runs_all_three_brings_one_back_that_dies_and_stops_them_in_order(
    livekit: LocalLiveKit, tmp_path: Path
):
    async with running_up(livekit, tmp_path, "of-up") as up:
        await up.until_ready(*PARTS)
        niceness = {part: os.getpriority(os.PRIO_PROCESS, up.pid(part)) for part in PARTS}
        assert niceness["analyst"] > niceness["worker"]
        os.kill(up.pid("analyst"), signal.SIGKILL)
        await up.until_ready("analyst", times=2)
        assert up.lines("the data folder") == [f"the data folder is {tmp_path / 'data'}"]
        assert len(up.logged("worker.ready")) == len(up.logged("console.ready")) == 1
        url = urlsplit(str(up.logged("console.ready")[0]["url"]))
        checked = await check_console(Console(host=str(url.hostname), port=int(url.port or 0)))
        assert checked.detail == f"port {url.port} is answered by a Roomscribe console"
        pids = [up.pid(part) for part in PARTS]
        assert await up.child.stop() == 0
        assert up.lines("stopping") == ["stopping console", "stopping analyst", "stopping worker"]
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_up_captions_rooms_while_its_console_has_no_port(livekit: LocalLiveKit, tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with running_up(livekit, tmp_path, "roomscribe-portless", console_port=port) as up:
            await up.until_ready("worker", "analyst")
            await until(lambda: up.lines("console cannot run"), what="what is wrong", limit_s=LIMIT_S)
            assert up.lines("console cannot run") == [
                "console cannot run with these settings; its reason is above; starting it again in 30 s"
            ]
            assert f"console.port {port} cannot be used" in (tmp_path / "up.log").read_text(encoding="utf-8")
            assert await up.child.stop() == 0
