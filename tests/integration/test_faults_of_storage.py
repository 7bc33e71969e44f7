"""Captions go on while the database or a disk is away, and afterwards nothing is missing."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from agent.cli.local_livekit import LocalLiveKit
from benchmarks.chaos import COUNTING
from tests.support.counting_room import (
    LIMIT_S,
    as_kept,
    as_seen,
    counting_room,
    finals_in_database,
    kill_agent,
    more_finals,
    says,
    serving,
    session_of,
    stems_of,
    until_kept,
)
from tests.support.gathering import Reader, until
from tests.support.postgres import Postgres
from tests.support.tmpfs import tmpfs
from tests.support.toxiproxy import Proxy, Toxiproxy
from tests.support.worker import RunningWorker

OUTAGE_S = 10.0
MIB = 1 << 20
RECORDED_TO_THE_LAST_BYTE = {"ROOMSCRIBE_RECORDING__MIN_FREE_MB": "0"}

# The room is told within a second that the disk is full: of the moment at which it takes nothing more. Until
# then there may be half a second's page to be written; and other tests want the processors, too.
TOLD_S = 1.0
BUSY_S = 1.5


@dataclass(frozen=True)
class Place:
    """A worker on PostgreSQL, with disks of their own for audio and for journals, all of which can fail."""

    worker: RunningWorker
    proxy: Proxy
    database_url: str  # past the proxy
    stems: Path
    journal: Path


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def place(
    livekit: LocalLiveKit,
    postgres: Postgres,
    toxiproxy: Toxiproxy,
    logs: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Place]:
    folder, url = tmp_path_factory.mktemp("place"), postgres.new_database()
    proxy = toxiproxy.proxy(url)
    with (
        small_disk(folder / "data" / "stems", 8 * MIB) as stems,
        small_disk(folder / "data" / "journal", 16 * MIB) as journal,
    ):
        async with await RunningWorker.start(
            livekit,
            folder,
            logs / "place.log",
            agent_name="place",
            settings={**COUNTING, **RECORDED_TO_THE_LAST_BYTE, "ROOMSCRIBE_DATABASE__URL": proxy.url},
        ) as worker:
            yield Place(worker, proxy, url, stems, journal)


@contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[Path]:
    folder.mkdir(parents=True)
    with tmpfs(folder, size_bytes=size_bytes):
        yield folder


def fill(disk: Path) -> Path:
    """Take all the room of a disk."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (65_536, 1):
            try:
                while file.write(bytes(size)):
                    pass
            except OSError:
                continue
    return ballast


@contextmanager
def disabled(proxy: Proxy) -> Iterator[None]:
    proxy.disable()
    try:
        yield
    finally:
        proxy.enable()


@contextmanager
def stopped(postgres: Postgres) -> Iterator[None]:
    postgres.stop("immediate")
    try:
        yield
    finally:
        postgres.start()


async def test_captions_go_on_for_ten_seconds_without_postgresql_and_are_all_in_it_afterwards(
    livekit: LocalLiveKit, start_worker, place: Place, logs: Path, room_name: str
):
    """Here it cannot be reached and there it is really stopped; in both a room begins meanwhile."""
    with Postgres(logs / "stopped-postgres.log") as own:
        url = own.new_database()
        worker = await start_worker({**COUNTING, "ROOMSCRIBE_DATABASE__URL": url})
        await asyncio.gather(
            outlives(livekit, place.worker, place.database_url, disabled(place.proxy), f"{room_name}-1"),
            outlives(livekit, worker, url, stopped(own), f"{room_name}-2"),
        )


async def outlives(
    livekit: LocalLiveKit, worker: RunningWorker, url: str, outage: AbstractContextManager[None], room: str
) -> None:
    async with (
        serving(livekit, worker, url) as (settings, rooms),
        counting_room(livekit, rooms, room) as reader,
    ):
        await more_finals(reader)
        await until(says(reader, storage="database", captions="live"), what="that all is well")
        with ExitStack() as away:
            await asyncio.to_thread(away.enter_context, outage)
            over_s = time.monotonic() + OUTAGE_S
            async with counting_room(livekit, rooms, f"{room}-meanwhile") as late:
                for each in (reader, late):
                    await more_finals(each, 5)
                    await until(says(each, storage="journal", captions="live"), what="that it is away")
                await asyncio.sleep(over_s - time.monotonic())
                await asyncio.to_thread(away.close)
                for each in (reader, late):
                    await until(says(each, storage="database"), what="that it is back", limit_s=LIMIT_S)
                    await more_finals(each)
                    await until_kept(settings, each.finals[0]["session"], each.finals)
                    assert {state["captions"] for state in each.states} == {"live"}


async def test_session_that_begins_without_the_database_becomes_part_of_the_one_that_its_room_has(
    livekit: LocalLiveKit, place: Place, room_name: str
):
    async with (
        serving(livekit, place.worker, place.database_url) as (settings, rooms),
        counting_room(livekit, rooms, room_name) as reader,
    ):
        await more_finals(reader)
        session = reader.finals[0]["session"]
        with disabled(place.proxy):
            kill_agent(place.worker, room_name)
            await rooms.dispatch(room_name)
            await until(lambda: reader.finals[-1]["session"] != session, what="the next agent")
            await more_finals(reader)
        await until(says(reader, storage="database"), what="that it is back", limit_s=LIMIT_S)
        await more_finals(reader)
    await until(lambda: session_of(settings, room_name).summary.ended_at, what="the end of the one session")
    # The second agent's viewers know its part under the id and the times that it had when it began.
    provisional, epoch = (reader.finals[-1][key] for key in ("session", "epoch"))
    epochs = [(one.epoch, one.published_as) for one in session_of(settings, room_name).epochs]
    assert epochs == [(1, session), (epoch, provisional)]
    kept = sorted(finals_in_database(settings, session), key=lambda final: final.start_ms)
    seen = [final["text"] for final in reader.finals]
    assert [final.text for final in kept if final.text in seen] == seen
    assert len({final.text for final in kept}) == len(kept)
    assert finals_in_database(settings, provisional) == []


async def test_room_is_told_that_the_recording_failed_when_its_disk_is_full_and_captions_go_on(
    livekit: LocalLiveKit, place: Place, room_name: str
):
    async with serving(livekit, place.worker, place.database_url) as (settings, rooms):
        async with counting_room(livekit, rooms, room_name) as reader:
            await until(lambda: any(place.stems.rglob("*.ogg")), what="a segment")
            await more_finals(reader)
            assert says(reader, recording="on")()
            ballast = await asyncio.to_thread(fill, place.stems)
            filled_s = time.monotonic()
            await until(says(reader, recording="failed", captions="live"), what="that it failed")
            assert time.monotonic() - filled_s <= TOLD_S + BUSY_S
            assert reader.states[-1]["recording_reason"] in {"disk_full", "disk_low"}
            await more_finals(reader)
            ballast.unlink()
            await until(says(reader, recording="on"), what="that it is recorded again")
            await more_finals(reader)
            await until_kept(settings, reader.finals[0]["session"], reader.finals)
            assert {state["storage"] for state in reader.states} == {"database"}
        await until(lambda: session_of(settings, room_name).summary.ended_at, what="the session's end")
    first, *_, last = stems_of(settings, reader.finals[0]["session"])
    assert first.ended_by in {"disk_full", "disk_low"}
    assert last.ended_by == ""
    assert 0 < first.start_ms + first.duration_ms < last.start_ms < last.start_ms + last.duration_ms


async def test_finals_go_to_the_database_first_while_the_disk_of_the_journal_is_full(
    livekit: LocalLiveKit, place: Place, room_name: str
):
    """While the database is away as well nothing is final, and everything is when it is back."""
    ballast = fill(place.journal)
    async with (
        serving(livekit, place.worker, place.database_url) as (settings, rooms),
        counting_room(livekit, rooms, room_name) as reader,
    ):
        await until(says(reader, storage="database_only", captions="live"), what="the full disk")
        session = reader.states[0]["session"]
        for _ in range(5):
            await more_finals(reader, 1)
            # At once, since it was there before the viewer got it.
            seen = as_seen(reader.finals)
            assert as_kept(finals_in_database(settings, session))[: len(seen)] == seen
        with place.proxy.silent():
            await until_nothing_is_final(reader)
            kept = len(finals_in_database(settings, session))
            await more_partials(reader)
            assert len(finals_in_database(settings, session)) == kept
        await until(says(reader, storage="database_only", captions="live"), what="the database")
        await more_finals(reader)
        ballast.unlink()
        await until(says(reader, storage="database"), what="that there is room again")
        await more_finals(reader)
        assert_all_became_final(reader)
        await until_kept(settings, session, reader.finals)


async def test_captions_are_partial_while_one_full_disk_takes_neither_journal_nor_database(
    livekit: LocalLiveKit, start_worker, tmp_path: Path, room_name: str
):
    """Who was there before lives on what the journal has reserved; who comes then has nothing."""
    with small_disk(tmp_path / "data", 24 * MIB) as disk:
        worker = await start_worker({**COUNTING, **RECORDED_TO_THE_LAST_BYTE}, folder=tmp_path)
        async with (
            serving(livekit, worker) as (settings, rooms),
            counting_room(livekit, rooms, f"{room_name}-before") as before,
        ):
            await more_finals(before)
            ballast = await asyncio.to_thread(fill, disk)
            await until(says(before, storage="journal", captions="live"), what="the full disk")
            await more_finals(before)
            async with counting_room(livekit, rooms, f"{room_name}-after") as after:
                await until_nothing_is_final(after)
                await more_partials(after)
                assert after.finals == []
                await more_finals(before)
                ballast.unlink()
                for reader in (before, after):
                    await until(says(reader, storage="database", captions="live"), what="that all is well")
                    await more_finals(reader)
                    assert_all_became_final(reader)
                    await until_kept(settings, reader.finals[0]["session"], reader.finals)


async def until_nothing_is_final(reader: Reader) -> None:
    await until(
        says(reader, storage="nowhere", captions="degraded", captions_reason="storage"),
        what="that nothing is safe",
    )


async def more_partials(reader: Reader) -> None:
    """What is said goes on, as partials that nobody takes for safe."""
    finals, before = len(reader.finals), {caption["id"] for caption in reader.captions}
    await until(
        lambda: len({caption["id"] for caption in reader.captions} - before) >= 5, what="more partials"
    )
    assert len(reader.finals) == finals


def assert_all_became_final(reader: Reader) -> None:
    """Whatever was shown as a partial before the last final is final as well."""
    newest = {caption["id"]: caption for caption in reader.captions}
    last_ms = reader.finals[-1]["start_ms"]
    assert [one for one in newest.values() if not one["final"] and one["start_ms"] < last_ms] == []
