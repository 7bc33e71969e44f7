import asyncio
from pathlib import Path

import pytest

from agent.cli.local_livekit import LocalLiveKit
from agent.errors import LiveKitError
from tests.support.parts import require


async def test_two_servers_run_beside_each_other_and_end(livekit: LocalLiveKit) -> None:
    async with await LocalLiveKit.start() as another:
        assert another.url != livekit.url
        assert another.pid != livekit.pid
    await another.stop()

    assert await asyncio.wait_for(another.wait(), 1) is not None


async def test_a_port_that_is_taken_is_said(livekit: LocalLiveKit) -> None:
    port = int(livekit.url.rpartition(":")[2])

    with pytest.raises(LiveKitError, match=f"port {port} is taken"):
        await LocalLiveKit.start(port=port)


async def test_a_server_that_cannot_start_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require("livekit-server")
    broken = tmp_path / "livekit-server"
    broken.write_text("#!/bin/sh\necho something is wrong\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    with pytest.raises(LiveKitError, match="livekit-server does not start: something is wrong"):
        await LocalLiveKit.start()
