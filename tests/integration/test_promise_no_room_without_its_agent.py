"""The promise: whatever happens to an agent, its room has one again, never two, in the same session.

Nobody here asks for an agent a second time.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

from agent.cli.local_livekit import LocalLiveKit
from agent.config import Settings
from agent.room.player import SAMPLE_RATE_HZ
from agent.session.session import PAUSE_MS
from agent.values import Samples
from benchmarks.chaos import COUNTING
from benchmarks.counting_stt import RECONNECT_DIR
from persistence.catalogue import SessionDetail
from tests.integration.conftest import DEPARTURE_TIMEOUT_S, StartWorker
from tests.support.counting_room import (
    LIMIT_S,
    SPEAKER,
    as_kept,
    as_seen,
    counting_room,
    finals_in_database,
    kill_agent,
    more_finals,
    serving,
    session_of,
    speech,
    stems_of,
    until_kept,
)
from tests.support.gathering import Reader, until
from tests.support.recorded import decoded, lost_ms
from tests.support.toxiproxy import Toxiproxy
from tests.support.worker import RunningWorker

PAUSE_S = 8.0  # longer than a lease, and than its successor needs to come
FRAME_MS = 60  # what two processes place the same audio apart

HANDING_OVER = {**COUNTING, "ROOMSCRIBE_WORKER__DRAIN_S": "60"}


@asynccontextmanager
async def two_workers(
    start_worker: StartWorker, folder: Path, name: str, settings: dict[str, str]
) -> AsyncIterator[tuple[RunningWorker, RunningWorker]]:
    """Two workers on one disk that share the rooms."""
    name = name[-8:]
    first, second = await asyncio.gather(
        *(start_worker(settings, folder=folder, agent_name=name) for _ in range(2))
    )
    yield first, second


def leader(workers: Sequence[RunningWorker], room: str) -> tuple[RunningWorker, RunningWorker]:
    """The worker whose agent leads a room, and the other one."""
    first, second = workers
    return (first, second) if first.logged("session.started", room=room) else (second, first)


async def finals_of_epoch(reader: Reader, epoch: int, count: int = 3) -> None:
    await until(
        lambda: sum(final["epoch"] == epoch for final in reader.finals) >= count,
        what=f"finals of epoch {epoch}",
        limit_s=LIMIT_S,
    )


def assert_one_voice(reader: Reader, *, may_skip: bool = False) -> None:
    """Viewers got one session, its numbers without a repetition, and no stretch of time twice.

    No number is missing, unless a successor could not know them all.
    """
    assert len({event.data["session"] for event in reader.events}) == 1
    finals = reader.finals
    numbers = [final["seq"] for final in finals]
    assert numbers == (sorted(set(numbers)) if may_skip else list(range(1, len(finals) + 1)))
    assert [final["epoch"] for final in finals] == sorted(final["epoch"] for final in finals)
    covered_ms = 0
    for before, final in pairwise(finals):
        covered_ms = max(covered_ms, before["end_ms"])
        if before["epoch"] != final["epoch"]:
            assert final["start_ms"] >= covered_ms
    # Who has a successor that captions says nothing any more.
    captions = [caption["epoch"] for caption in reader.captions]
    assert captions == sorted(captions)


def epochs(detail: SessionDetail) -> list[int]:
    return [epoch.epoch for epoch in detail.epochs]


async def assert_kept(settings: Settings, reader: Reader) -> None:
    """Everything that viewers saw as final is in the database, as they saw it."""
    await until_kept(settings, reader.finals[0]["session"], reader.finals)


async def test_room_whose_agent_is_killed_has_another_in_the_same_session(
    livekit: LocalLiveKit, counting_worker: RunningWorker, room_name: str
):
    async with (
        serving(livekit, counting_worker) as (settings, rooms),
        counting_room(livekit, rooms, room_name) as reader,
    ):
        await more_finals(reader)
        kill_agent(counting_worker, room_name)
        await finals_of_epoch(reader, 2)
        assert_one_voice(reader)
        await assert_kept(settings, reader)
        detail = session_of(settings, room_name)
        assert epochs(detail) == [1, 2]
        assert [gap.reason for gap in detail.gaps] == ["agent_away"]
        (dispatched,) = counting_worker.logged("room.agent_dispatched", room=room_name)
        assert dispatched["reason"] == "agent_died"


async def test_rooms_of_a_killed_worker_go_on_under_another_in_the_same_session(
    livekit: LocalLiveKit, start_worker: StartWorker, tmp_path: Path, postgres_url: str, room_name: str
):
    """Each has a disk of its own, so that the dead one's journal waits there."""
    variables = {**COUNTING, "ROOMSCRIBE_DATABASE__URL": postgres_url}
    folders = tmp_path / "first", tmp_path / "second"
    for folder in folders:
        folder.mkdir()
    workers = await asyncio.gather(
        *(start_worker(variables, folder=folder, agent_name=room_name[-8:]) for folder in folders)
    )
    async with (
        serving(livekit, workers[0], postgres_url) as (settings, rooms),
        counting_room(livekit, rooms, room_name) as reader,
    ):
        await more_finals(reader)
        own, _ = leader(workers, room_name)
        await own.kill()
        await finals_of_epoch(reader, 2)
        assert_one_voice(reader, may_skip=True)
        assert epochs(session_of(settings, room_name)) == [1, 2]
        seen = as_seen(reader.finals)
        await start_worker(variables, folder=own.data_dir.parent, agent_name=own.agent_name)
        await until(
            lambda: not missing(seen, settings, reader), what="what the dead one's disk held", limit_s=LIMIT_S
        )


def missing(seen: Sequence[tuple[object, ...]], settings: Settings, reader: Reader) -> set[object]:
    """The finals that viewers saw and the database does not have."""
    return set(seen) - set(as_kept(finals_in_database(settings, reader.finals[0]["session"])))


async def test_agent_that_reconnects_fully_hands_over_before_livekit_ends_its_job(
    livekit: LocalLiveKit, start_worker: StartWorker, tmp_path: Path, room_name: str
):
    """LiveKit ends it half a second later (livekit#4887), unless the agent is younger than five seconds."""
    reconnects = tmp_path / "reconnects"
    reconnects.mkdir()
    variables = {
        **COUNTING,
        "ROOMSCRIBE_STT__ENGINES": "benchmarks.counting_stt:ReconnectingSTT",
        RECONNECT_DIR: str(reconnects),
    }
    worker = await start_worker(variables, folder=tmp_path)
    async with (
        serving(livekit, worker) as (settings, rooms),
        counting_room(livekit, rooms, room_name) as reader,
    ):
        await asyncio.sleep(6.0)
        (reconnects / room_name).touch()
        await finals_of_epoch(reader, 2)
        assert worker.logged("room.reconnected_fully", room=room_name)
        assert worker.logged("session.started", room=room_name, epoch=2)[0]["took_over"]
        assert worker.logged("session.ended", room=room_name)[0]["ended_by"] == "handed_over"
        assert_one_voice(reader)
        await assert_kept(settings, reader)
        assert session_of(settings, room_name).gaps == ()


async def test_room_whose_only_worker_was_killed_has_its_agent_when_a_worker_runs_again(
    livekit: LocalLiveKit, start_worker: StartWorker, tmp_path: Path, room_name: str
):
    first = await start_worker(COUNTING, folder=tmp_path)
    async with (
        serving(livekit, first) as (settings, rooms),
        counting_room(livekit, rooms, room_name) as reader,
    ):
        await more_finals(reader)
        await first.kill()
        await start_worker(COUNTING, folder=tmp_path, agent_name=first.agent_name)
        await finals_of_epoch(reader, 2)
        assert_one_voice(reader)
        await assert_kept(settings, reader)


async def test_worker_that_is_told_to_stop_hands_its_rooms_over_and_nobody_notices(
    livekit: LocalLiveKit, start_worker: StartWorker, tmp_path: Path, room_name: str
):
    async with (
        two_workers(start_worker, tmp_path, room_name, HANDING_OVER) as workers,
        serving(livekit, workers[0]) as (settings, rooms),
        counting_room(livekit, rooms, room_name) as reader,
    ):
        await more_finals(reader, 5)
        own, other = leader(workers, room_name)
        own.terminate()
        async with asyncio.timeout(LIMIT_S):
            assert await own.wait() == 0
        await finals_of_epoch(reader, 2, 5)
        assert own.logged("worker.drained")
        assert other.logged("session.started", room=room_name)[0]["took_over"]
        assert_one_voice(reader)
        assert {state["captions"] for state in reader.states} == {"live"}
        await assert_kept(settings, reader)
        detail = session_of(settings, room_name)
        assert (epochs(detail), detail.gaps) == ([1, 2], ())
        await assert_all_was_recorded(settings, detail)
        # The words around the hand-over are there: the engine was given all audio once.
        assert_all_was_heard(reader)


async def assert_all_was_recorded(settings: Settings, detail: SessionDetail) -> None:
    """No word is missing where one agent stopped and the next went on, and none is there twice.

    By its sound: what is noted of its place in time would be right even if something were missing. They meet
    in a pause, and what they place apart, on a machine whose processors are busy, is less than that.
    """

    def recorded(epoch: int) -> Samples:
        found = stems_of(settings, detail.summary.id)
        (stem,) = (stem for stem in found if (stem.identity, stem.epoch) == (SPEAKER, epoch))
        return decoded(settings.stems_dir / stem.path)

    await until(lambda: len(recorded(2)) > 4 * SAMPLE_RATE_HZ, what="four seconds of the second recording")
    assert abs(lost_ms(recorded(1), recorded(2), speech())) < PAUSE_MS


def assert_all_was_heard(reader: Reader) -> None:
    """The engine says a final for each 0.4 s that it hears: between two of them lies no more."""
    ends_ms = [final["end_ms"] for final in reader.finals]
    longest_ms = max(later - earlier for earlier, later in pairwise(ends_ms))
    assert longest_ms <= 2 * 400 + FRAME_MS


async def test_worker_that_is_alone_goes_on_until_its_time_is_over_and_then_ends_in_order(
    livekit: LocalLiveKit, start_worker: StartWorker, tmp_path: Path, room_name: str
):
    alone = await start_worker({**COUNTING, "ROOMSCRIBE_WORKER__DRAIN_S": "4"}, folder=tmp_path)
    async with (
        serving(livekit, alone) as (settings, rooms),
        counting_room(livekit, rooms, room_name) as reader,
    ):
        await more_finals(reader)
        alone.terminate()
        await alone.until_logged("worker.draining", within_s=LIMIT_S)
        await more_finals(reader)
        async with asyncio.timeout(LIMIT_S):
            assert await alone.wait() == 0
        assert alone.logged("worker.drain_timed_out")
        assert (await alone.until_logged("session.ended", within_s=1))["ended_by"] == "job_ended"
        await assert_kept(settings, reader)
        assert not any(settings.journal_dir.iterdir()), "it has left something behind"
        assert session_of(settings, room_name).summary.status == "live"
        await start_worker(COUNTING, folder=tmp_path, agent_name=alone.agent_name)
        await finals_of_epoch(reader, 2)
        assert_one_voice(reader)


async def test_session_goes_on_when_livekit_is_started_again(
    logs: Path, start_worker: StartWorker, tmp_path: Path, room_name: str
):
    own = {"departure_timeout_s": DEPARTURE_TIMEOUT_S, "log": logs / "livekit-restarted.log"}
    livekit = await LocalLiveKit.start(**own)
    port = int(livekit.url.rpartition(":")[2])
    try:
        worker = await start_worker(COUNTING, folder=tmp_path, server=livekit)
        async with (
            serving(livekit, worker) as (settings, rooms),
            counting_room(livekit, rooms, room_name) as reader,
        ):
            await more_finals(reader)
            (before,) = await rooms.open_sids([room_name])
            os.kill(livekit.pid, signal.SIGKILL)  # nobody is told to leave
            await livekit.wait()
            livekit = await LocalLiveKit.start(port=port, **own)
            seen = len(reader.finals)
            await until(lambda: len(reader.finals) >= seen + 3, what="finals afterwards", limit_s=LIMIT_S)
            (after,) = await rooms.open_sids([room_name])
            assert before != after
            assert_one_voice(reader)
            await assert_kept(settings, reader)
            await until(
                lambda: {before, after} <= set(session_of(settings, room_name).sids), what="the new SID"
            )
    finally:
        await livekit.stop()


async def test_agent_that_stood_still_finds_its_successor_and_says_nothing_more(
    livekit: LocalLiveKit, counting_worker: RunningWorker, room_name: str
):
    async with (
        serving(livekit, counting_worker) as (settings, rooms),
        counting_room(livekit, rooms, room_name) as reader,
    ):
        await more_finals(reader)
        started = counting_worker.logged("session.started", room=room_name)[-1]
        os.kill(started["pid"], signal.SIGSTOP)
        try:
            await finals_of_epoch(reader, 2)
        finally:
            os.kill(started["pid"], signal.SIGCONT)
        ended = await counting_worker.until_logged(
            "session.ended", within_s=LIMIT_S, room=room_name, ended_by="superseded"
        )
        assert ended["pid"] == started["pid"]
        await more_finals(reader)
        assert_one_voice(reader)
        await assert_kept(settings, reader)
        # What the old one still had is not in the transcript beside what its successor heard.
        seen, kept = (
            as_seen(reader.finals),
            as_kept(finals_in_database(settings, reader.finals[0]["session"])),
        )
        assert [final for final in kept if final not in seen][:-1] == []


async def test_two_that_are_asked_in_at_once_are_one_agent(
    livekit: LocalLiveKit, counting_worker: RunningWorker, room_name: str
):
    async with (
        serving(livekit, counting_worker) as (settings, rooms),
        counting_room(livekit, rooms, room_name) as reader,
    ):
        await more_finals(reader, 1)
        await asyncio.gather(*(rooms.dispatch(room_name) for _ in range(3)))

        def left() -> int:
            return len(counting_worker.logged("lead.held_by_another", room=room_name))

        await until(lambda: left() == 3, what="that three of the four leave", limit_s=LIMIT_S)
        await more_finals(reader)
        assert_one_voice(reader)
        assert epochs(session_of(settings, room_name)) == [1]


async def test_session_that_was_ended_is_not_brought_back(
    livekit: LocalLiveKit, counting_worker: RunningWorker, room_name: str
):
    async with (
        serving(livekit, counting_worker) as (settings, rooms),
        counting_room(livekit, rooms, room_name) as reader,
    ):
        await more_finals(reader)
        session = reader.finals[0]["session"]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "agent", "sessions", "end", session),
            cwd=counting_worker.data_dir,
            env={**os.environ, "ROOMSCRIBE_DATA_DIR": str(counting_worker.data_dir)},
        )
        async with asyncio.timeout(LIMIT_S):
            assert await process.wait() == 0
        await counting_worker.until_logged("session.ended", within_s=LIMIT_S, room=room_name, ended_by="api")
        await assert_kept(settings, reader)
        assert reader.states[-1]["captions"] == "off"
        seen = len(reader.events)
        await asyncio.sleep(PAUSE_S)
        assert not await rooms.agent_is_in(room_name)
        assert len(reader.events) == seen
        assert counting_worker.logged("room.agent_dispatched", room=room_name) == []


async def test_meeting_after_a_meeting_under_the_same_name_is_another_session(
    livekit: LocalLiveKit, counting_worker: RunningWorker, room_name: str
):
    """At once: the first one's agent may still give out its last words."""
    found = []
    async with serving(livekit, counting_worker) as (_, rooms):
        for _ in range(2):
            async with counting_room(livekit, rooms, room_name) as reader:
                await more_finals(reader)
                assert_one_voice(reader)
                found.append(reader.finals[0]["session"])
                (sid,) = await rooms.open_sids([room_name])

            async with asyncio.timeout(LIMIT_S):
                while sid in await rooms.open_sids([room_name]):  # noqa: ASYNC110  only LiveKit knows
                    await asyncio.sleep(0.05)
    assert len(set(found)) == 2


async def test_job_that_is_killed_while_the_database_is_away_has_a_successor(
    livekit: LocalLiveKit, start_worker: StartWorker, postgres_url: str, toxiproxy: Toxiproxy, room_name: str
):
    proxy = toxiproxy.proxy(postgres_url)
    worker = await start_worker({**COUNTING, "ROOMSCRIBE_DATABASE__URL": proxy.url})
    async with (
        serving(livekit, worker, postgres_url) as (settings, rooms),
        counting_room(livekit, rooms, room_name) as reader,
    ):
        await more_finals(reader)
        await asyncio.sleep(10.0)  # one that dies sooner may have a reason that its successor has as well
        proxy.disable()
        await until(lambda: reader.states[-1]["storage"] == "journal", what="that the database is away")
        kill_agent(worker, room_name)
        await until(
            lambda: len({final["epoch"] for final in reader.finals}) == 2,
            what="its successor",
            limit_s=LIMIT_S,
        )
        await more_finals(reader)
        proxy.enable()
        await until(
            lambda: (
                {final["text"] for final in reader.finals}
                <= {
                    final.text
                    for final in finals_in_database(settings, session_of(settings, room_name).summary.id)
                }
            ),
            what="all of it in one session of the database",
            limit_s=LIMIT_S,
        )


async def test_agent_that_comes_while_the_database_is_away_leaves_the_room_to_the_one_that_leads(
    livekit: LocalLiveKit, start_worker: StartWorker, postgres_url: str, toxiproxy: Toxiproxy, room_name: str
):
    proxy = toxiproxy.proxy(postgres_url)
    worker = await start_worker({**COUNTING, "ROOMSCRIBE_DATABASE__URL": proxy.url})
    async with (
        serving(livekit, worker, postgres_url) as (settings, rooms),
        counting_room(livekit, rooms, room_name) as reader,
    ):
        await more_finals(reader)
        proxy.disable()
        await rooms.dispatch(room_name)
        await worker.until_logged("lead.database_away", within_s=LIMIT_S, room=room_name)
        await asyncio.sleep(PAUSE_S)
        await more_finals(reader)
        proxy.enable()
        await worker.until_logged("lead.held_by_another", within_s=LIMIT_S, room=room_name)
        await more_finals(reader)
        assert {event.data["epoch"] for event in reader.events} == {1}
        assert_one_voice(reader)
        await assert_kept(settings, reader)


async def test_agent_whose_worker_alone_has_lost_the_database_leaves_when_it_hears_its_successor(
    livekit: LocalLiveKit, start_worker: StartWorker, postgres_url: str, toxiproxy: Toxiproxy, room_name: str
):
    proxy, name = toxiproxy.proxy(postgres_url), room_name[-8:]
    lonely = {**COUNTING, "ROOMSCRIBE_DATABASE__URL": proxy.url, "ROOMSCRIBE_WORKER__MAX_JOBS": "1"}
    first = await start_worker(lonely, agent_name=name)
    async with (
        serving(livekit, first, postgres_url) as (_, rooms),
        counting_room(livekit, rooms, room_name) as reader,
    ):
        await more_finals(reader)
        second = await start_worker({**COUNTING, "ROOMSCRIBE_DATABASE__URL": postgres_url}, agent_name=name)
        proxy.disable()
        await first.until_logged("session.ended", within_s=LIMIT_S, room=room_name, ended_by="superseded")
        await finals_of_epoch(reader, 2)
        assert second.logged("session.started", room=room_name)
        seen = len(reader.events)
        await more_finals(reader)
        assert {event.data["epoch"] for event in reader.events[seen:]} == {2}
