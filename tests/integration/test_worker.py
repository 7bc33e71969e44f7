"""A worker as an operator sees it: LiveKit away, wrong settings, a wrong engine, the end."""

import asyncio
import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.cli.local_livekit import DEVELOPMENT_KEY, DEVELOPMENT_SECRET, LocalLiveKit
from agent.room.dispatch import Rooms
from agent.room.viewer import Viewer
from benchmarks.chaos import COUNTING
from tests.support.counting_room import counting_room, more_finals, serving, session_of, until_kept
from tests.support.gathering import settings_for, until
from tests.support.parts import require
from tests.support.worker import RunningWorker

LIMIT_S = 60.0


@dataclass(frozen=True)
class Address:
    """Where a server will be."""

    url: str
    api_key: str
    api_secret: str


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def started_and_ended(folder: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    """The exit code and the standard error of a command that ends by itself."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "agent",
        *arguments,
        cwd=folder,
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(LIMIT_S):
        _, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, errors.decode()


async def test_worker_that_is_there_before_livekit_says_so_and_waits_for_it(
    logs: Path, tmp_path: Path, room_name: str
):
    require("livekit-server")
    port = free_port()
    away = Address(f"ws://127.0.0.1:{port}", DEVELOPMENT_KEY, DEVELOPMENT_SECRET)
    log = logs / "early-worker.log"
    starting = asyncio.create_task(RunningWorker.start(away, tmp_path, log, agent_name="early"))
    await until(
        lambda: log.exists() and "failed to connect to livekit, retrying" in log.read_text(),
        what="that it says so",
    )
    async with (
        await LocalLiveKit.start(port=port) as server,
        await starting,
        Rooms(settings_for(server, agent_name="early")) as rooms,
        Viewer() as viewer,
    ):
        await viewer.join(server.url, rooms.token(room_name, "viewer"))
        assert await rooms.wait_for_agent(room_name, LIMIT_S)


@pytest.mark.parametrize(
    ("variables", "code", "named"),
    [
        ({"ROOMSCRIBE_WORKER__MAX_JOBS": "0"}, 2, ["worker.max_jobs", "0", "greater than or equal to 1"]),
        ({"ROOMSCRIBE_DISPATCH__MODE": "sometimes"}, 2, ["dispatch.mode", "sometimes", "automatic"]),
        ({"LIVEKIT_API_SECRET": ""}, 2, ["livekit.api_secret", "LIVEKIT_API_SECRET"]),
        ({"ROOMSCRIBE_STT__ENGINES": "depgram"}, 2, ["stt.engines", "depgram", "whisper"]),
        ({"ROOMSCRIBE_STT__WHISPER__MODEL": "tinny"}, 2, ["stt.whisper.model", "tinny", "tiny.en"]),
        ({"ROOMSCRIBE_STT__LANGUAGE": "de"}, 2, ["stt.language", "de", "en"]),
        ({"ROOMSCRIBE_WORKER__HEALTH_HOST": "192.0.2.1"}, 2, ["worker.health_host", "192.0.2.1"]),
    ],
)
async def test_wrong_settings_are_one_clear_line(
    tmp_path: Path, variables: dict[str, str], code: int, named: list[str]
):
    livekit = {"LIVEKIT_URL": "ws://127.0.0.1:1", "LIVEKIT_API_KEY": "key", "LIVEKIT_API_SECRET": "s" * 40}
    ended, errors = await started_and_ended(tmp_path, "worker", **{**livekit, **variables})
    assert ended == code
    (line,) = [line for line in errors.splitlines() if not line.startswith("{")]
    assert all(part in line for part in named)


async def test_up_gives_up_on_settings_that_its_worker_refuses(tmp_path: Path):
    livekit = {"LIVEKIT_URL": "ws://127.0.0.1:1", "LIVEKIT_API_KEY": "key", "LIVEKIT_API_SECRET": "s" * 40}
    code, errors = await started_and_ended(
        tmp_path, "up", **livekit, ROOMSCRIBE_STT__ENGINES="depgram", ROOMSCRIBE_CONSOLE__PORT="0"
    )
    assert code == 2
    assert "depgram" in errors


async def test_sigterm_ends_a_live_session_in_order_and_the_worker_with_zero(
    livekit: LocalLiveKit, logs: Path, tmp_path: Path, room_name: str
):
    worker = await RunningWorker.start(livekit, tmp_path, logs / "ended-worker.log", agent_name="ended")
    async with Rooms(settings_for(livekit, agent_name="ended")) as rooms, Viewer() as viewer:
        await viewer.join(livekit.url, rooms.token(room_name, "viewer"))
        assert await rooms.wait_for_agent(room_name, LIMIT_S)
        assert await worker.stop() == 0
        (ended,) = worker.logged("session.ended", room=room_name)
        assert ended["ended_by"] == "job_ended"
        states = []
        async with asyncio.timeout(LIMIT_S):
            async for event in viewer.events():
                states.append((event.data["captions"], event.data["captions_reason"]))
                if states[-1] == ("off", "agent_leaves"):
                    break
        assert states[0] == ("live", None)


DRAINS = {**COUNTING, "ROOMSCRIBE_WORKER__DRAIN_S": "60"}


async def test_sigterm_hands_a_room_over_to_another_worker_and_no_word_is_lost(
    livekit: LocalLiveKit, start_worker, tmp_path: Path, room_name: str
):
    workers: list[RunningWorker] = await asyncio.gather(
        *(start_worker(DRAINS, folder=tmp_path, agent_name=room_name[-8:]) for _ in range(2))
    )
    async with (
        serving(livekit, workers[0]) as (settings, rooms),
        counting_room(livekit, rooms, room_name) as reader,
    ):
        await more_finals(reader)
        (own,) = [worker for worker in workers if worker.logged("session.started", room=room_name)]
        own.terminate()
        async with asyncio.timeout(LIMIT_S):
            assert await own.wait() == 0
        assert own.logged("worker.draining", sessions=1)
        assert own.logged("worker.drained")
        await more_finals(reader)
        await until_kept(settings, reader.finals[0]["session"], reader.finals)
        session = session_of(settings, room_name)
        assert [epoch.epoch for epoch in session.epochs] == [1, 2]
        assert session.gaps == ()


async def test_sigterm_of_the_only_worker_lets_its_rooms_go_on_and_takes_no_more(
    livekit: LocalLiveKit, start_worker, room_name: str
):
    worker: RunningWorker = await start_worker(DRAINS)
    async with serving(livekit, worker) as (_, rooms):
        async with counting_room(livekit, rooms, room_name) as reader, Viewer() as too_late:
            await more_finals(reader)
            worker.terminate()
            await worker.until_logged("worker.draining", within_s=LIMIT_S, sessions=1)
            await too_late.join(livekit.url, rooms.token(f"{room_name}-2", "viewer"))
            await more_finals(reader, 10)
            assert not await rooms.agent_is_in(f"{room_name}-2")
            assert {final["epoch"] for final in reader.finals} == {1}
        async with asyncio.timeout(LIMIT_S):
            assert await worker.wait() == 0
    assert worker.logged("worker.drained")
    (ended,) = worker.logged("session.ended", room=room_name)
    assert ended["ended_by"] == "room_closed"


async def test_a_second_sigterm_ends_a_worker_that_waits_in_order(
    livekit: LocalLiveKit, start_worker, room_name: str
):
    worker: RunningWorker = await start_worker(DRAINS)
    async with (
        serving(livekit, worker) as (_, rooms),
        counting_room(livekit, rooms, room_name) as reader,
    ):
        await more_finals(reader)
        worker.terminate()
        await worker.until_logged("worker.draining", within_s=LIMIT_S)
        worker.terminate()
        async with asyncio.timeout(LIMIT_S):
            assert await worker.wait() == 0
    assert not worker.logged("worker.drained")
    (ended,) = worker.logged("session.ended", room=room_name)
    assert ended["ended_by"] == "job_ended"


async def test_automatic_mode_leaves_rooms_alone_that_do_not_match(
    logs: Path, tmp_path: Path, room_name: str
):
    require("livekit-server")
    automatic = {
        **COUNTING,
        "ROOMSCRIBE_DISPATCH__MODE": "automatic",
        "ROOMSCRIBE_DISPATCH__ROOMS": f"board, {room_name}-team-*",
    }
    async with (
        await LocalLiveKit.start() as server,  # since it would take the rooms of other tests
        await RunningWorker.start(
            server, tmp_path, logs / "automatic.log", agent_name="-", settings=automatic
        ),
        Rooms(settings_for(server, mode="automatic")) as rooms,
        Viewer() as red,
        Viewer() as blue,
    ):
        await blue.join(server.url, rooms.token(f"{room_name}-blue", "viewer"))
        await red.join(server.url, rooms.token(f"{room_name}-team-red", "viewer"))
        assert await rooms.wait_for_agent(f"{room_name}-team-red", LIMIT_S)
        assert not await rooms.agent_is_in(f"{room_name}-blue")
