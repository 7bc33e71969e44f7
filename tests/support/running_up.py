"""`roomscribe up` as people run it, in a folder of its own."""

import json
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from agent.cli.child import Child
from agent.cli.local_livekit import LocalLiveKit
from tests.support.gathering import until

__all__ = ["RunningUp", "running_up"]

READY_S = 90.0
ROOT = Path(__file__).parents[2]


class RunningUp:
    """The supervisor, and what it and its parts have logged."""

    def __init__(self, child: Child, log: Path, environment: dict[str, str]) -> None:
        self.child = child
        self.environment = environment
        self._log = log

    def lines(self, beginning: str) -> list[str]:
        """What it said itself that begins so."""
        lines = self._log.read_text(encoding="utf-8").splitlines()
        return [line.removeprefix("up: ") for line in lines if line.startswith(f"up: {beginning}")]

    def logged(self, event: str) -> list[dict[str, object]]:
        """What its parts logged under this name."""
        lines = self._log.read_text(encoding="utf-8").splitlines()
        entries = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
        return [entry for entry in entries if entry.get("event") == event]

    def pid(self, part: str) -> int:
        """The newest process of a part."""
        match = re.fullmatch(rf"{part} started \(process (\d+)\)", self.lines(f"{part} started")[-1])
        assert match is not None
        return int(match.group(1))

    async def until_ready(self, *parts: str, times: int = 1) -> None:
        """Wait until each of these parts was ready so often."""
        for part in parts:
            await until(
                lambda part=part: len(self.logged(f"{part}.ready")) >= times,  # type: ignore[misc]
                what=f"{part} ready",
                limit_s=READY_S,
            )

    async def run(self, *arguments: str) -> str:
        """What a command of Roomscribe with the same settings prints to standard output."""
        output = self._log.with_name("command.out")
        with open(output, "wb") as file:  # noqa: ASYNC230  a local file
            child = await Child.start(
                (sys.executable, "-m", "agent", *arguments), environment=self.environment, output=file
            )
        assert await child.wait() == 0, output.read_text(encoding="utf-8")
        return output.read_text(encoding="utf-8")


@asynccontextmanager
async def running_up(
    livekit: LocalLiveKit, folder: Path, agent_name: str, *, console_port: int = 0
) -> AsyncIterator[RunningUp]:
    """Start it on a LiveKit server, and stop it at the end."""
    log = folder / "up.log"
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "LIVEKIT_URL": livekit.url,
        "LIVEKIT_API_KEY": livekit.api_key,
        "LIVEKIT_API_SECRET": livekit.api_secret,
        "ROOMSCRIBE_DATA_DIR": str(folder / "data"),
        "ROOMSCRIBE_DISPATCH__AGENT_NAME": agent_name,
        "ROOMSCRIBE_LOG__FORMAT": "json",
        "ROOMSCRIBE_CONSOLE__PORT": str(console_port),
    }
    with open(log, "wb") as output:  # noqa: ASYNC230  a local file
        child = await Child.start(
            (sys.executable, "-m", "agent", "up"), environment=environment, output=output
        )
    try:
        yield RunningUp(child, log, environment)
    finally:
        await child.stop()
