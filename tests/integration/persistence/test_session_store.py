"""A live session's records reach its journal at once and the database soon, whatever is away meanwhile."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Literal

import pytest
from sqlalchemy import Column, event, literal_column, select

from agent.values import Storage
from persistence import schema, session_store
from persistence.database import Database
from persistence.database_thread import DatabaseThread
from persistence.journal.drain import drain_all
from persistence.journal.writer import Journal, JournalLimits
from persistence.records import Final, Presence, Record
from persistence.session_store import SessionStore
from persistence.tables import SCHEMA
from tests.support.gathering import until
from tests.support.journalled import ROOMY, begun, everything, final, found_in, small
from tests.support.postgres import Postgres
from tests.support.tmpfs import make_read_only, tmpfs
from tests.support.toxiproxy import Proxy, Toxiproxy

UTTERANCE, PARTICIPANT, PROCESSING_ERROR = (
    SCHEMA.tables[name] for name in ("utterance", "participant", "processing_error")
)
DISK_BYTES = 200_000
WHICHEVER_DATABASE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
LONG_S = 10.0  # less than a silent database would take


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of all journals."""
    return tmp_path / "journal"


@pytest.fixture
def disk(folder: Path) -> Iterator[Path]:
    """The same, on a small disk of its own."""
    folder.mkdir()
    with tmpfs(folder, size_bytes=DISK_BYTES):
        yield folder


@pytest.fixture
def proxy(toxiproxy: Toxiproxy, postgres_url: str) -> Proxy:
    """The way to an empty database with all tables."""
    direct = Database(postgres_url)
    schema.upgrade(direct)
    direct.close()
    return toxiproxy.proxy(postgres_url)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store gives up a silent database sooner, so that the test does."""
    for name in ("CALL_TIMEOUT_S", "DIRECT_TIMEOUT_S", "MAX_BACKOFF_S"):
        monkeypatch.setattr(session_store, name, 0.5)


@asynccontextmanager
async def opened(
    folder: Path,
    url: str,
    *,
    sync: Literal["interval", "each"] = "interval",
    limits: JournalLimits = ROOMY,
) -> AsyncIterator[SessionStore]:
    async with SessionStore(
        begun(),
        partial(Journal.create, folder, begun(), limits),
        DatabaseThread(Database(url)),
        sync=sync,
        sync_interval_s=0.2,
    ) as store:
        yield store


def presence(number: int) -> Presence:
    return Presence(identity=f"guest-{number}", name="Guest", joined_ms=number)


def said(url: str) -> list[int]:
    """The `seq` of all finals in the database, in the order in which they were written."""
    return column(url, UTTERANCE.c.seq)


def column(url: str, wanted: Column[int]) -> list[int]:
    database = Database(url)
    order = literal_column("rowid" if database.is_sqlite else "ctid")
    try:
        with database.read() as connection:
            return list(connection.execute(select(wanted).order_by(order)).scalars())
    finally:
        database.close()


def journalled(folder: Path) -> list[Record]:
    return everything(found_in(folder))


def finals_in(folder: Path) -> list[int]:
    return [record.seq for record in journalled(folder) if isinstance(record, Final)]


def is_empty(folder: Path) -> bool:
    return not any(folder.iterdir())


async def says(store: SessionStore, numbers: Sequence[int]) -> None:
    """Somebody speaks, and nobody waits for anything."""
    for number in numbers:
        assert await store.keep(final(number))
        await asyncio.sleep(0.05)


def is_said(url: str, count: int) -> Callable[[], bool]:
    return lambda: said(url) == list(range(1, count + 1))


def fill(disk: Path) -> Path:
    """Take all the room of a disk."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4_096)):
                pass
        except OSError:
            return ballast
    raise AssertionError("the disk does not get full")


# --- Everything as it should be -----------------------------------------------------------------------------


async def test_final_is_in_the_journal_at_once_and_in_the_database_soon(
    folder: Path, database: Database, database_url: str
) -> None:
    async with opened(folder, database_url) as store:
        for number in range(1, 4):
            assert await store.keep(final(number))
            assert journalled(folder)[-1] == final(number)
        await until(is_said(database_url, 3), what="the finals in the database")
        assert store.storage is Storage.DATABASE
    assert is_empty(folder)


@WHICHEVER_DATABASE
async def test_notes_come_before_the_final_that_came_after_them(
    folder: Path, database: Database, database_url: str
) -> None:
    async with opened(folder, database_url) as store:
        store.note(presence(1))
        store.note(presence(2))
        assert await store.keep(final(1))
        store.note(presence(3))
        assert await store.keep(final(2))
        assert journalled(folder) == [presence(1), presence(2), final(1), presence(3), final(2)]


@WHICHEVER_DATABASE
async def test_note_is_safe_soon_though_nobody_speaks(
    folder: Path, database: Database, database_url: str
) -> None:
    async with opened(folder, database_url) as store:
        store.note(presence(1))
        await until(lambda: journalled(folder) == [presence(1)], what="the note in the journal")
        await until(lambda: column(database_url, PARTICIPANT.c.joined_ms) == [1], what="in the database")


async def test_order_is_kept_however_much_comes_at_once(
    folder: Path, database: Database, database_url: str
) -> None:
    async with opened(folder, database_url, limits=small(segment_bytes=5_000)) as store:
        await asyncio.gather(*(store.keep(final(number)) for number in range(1, 101)))
        await until(is_said(database_url, 100), what="all finals in their order")
    assert is_empty(folder)


@WHICHEVER_DATABASE
@pytest.mark.parametrize("sync", ["each", "interval"])
async def test_final_is_synced_to_the_disk_before_it_is_shown_or_soon_after(
    folder: Path,
    database: Database,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    sync: Literal["interval", "each"],
) -> None:
    synced: list[int] = []
    fdatasync = os.fdatasync

    def look_and_sync(descriptor: int) -> None:
        seen = finals_in(folder)
        fdatasync(descriptor)
        synced[:] = seen

    async with opened(folder, database_url, sync=sync) as store:
        monkeypatch.setattr(os, "fdatasync", look_and_sync)
        for number in range(1, 4):
            await store.keep(final(number))
            if sync == "each":
                assert synced[-1] == number
        await until(lambda: synced[-1:] == [3], what="the sync")
        monkeypatch.undo()


async def test_database_is_written_to_no_more_often_than_every_300_ms(
    folder: Path, database: Database, database_url: str
) -> None:
    commits = 0

    def count(_connection: object) -> None:
        nonlocal commits
        commits += 1

    thread = DatabaseThread(Database(database_url))
    event.listen(thread.database.engine, "commit", count)
    new_journal = partial(Journal.create, folder, begun(), ROOMY)
    began_s = time.monotonic()
    async with SessionStore(begun(), new_journal, thread, sync="interval", sync_interval_s=0.2) as store:
        await says(store, range(1, 41))
    took_s = time.monotonic() - began_s
    assert said(database_url) == list(range(1, 41))
    # Beyond these there is one to begin, one at once, one for the rest and one to say that this is all.
    assert 4 < commits <= took_s / 0.3 + 4


# --- The database away --------------------------------------------------------------------------------------


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


@contextmanager
def locked(database: Database) -> Iterator[None]:
    """Somebody else writes and does not come to an end."""
    with database.write():
        yield


async def outlives(outage: AbstractContextManager[object], folder: Path, url: str, look_at: str) -> None:
    """Finals are kept while the database is away, and are in it afterwards: once, and in order."""
    async with opened(folder, url) as store:
        await says(store, range(1, 4))
        await until(is_said(look_at, 3), what="the first finals in the database")
        with outage:
            await says(store, range(4, 21))
            await until(lambda: store.storage is Storage.JOURNAL, what="that the database is away")
            await says(store, range(21, 31))
            assert finals_in(folder)[-27:] == list(range(4, 31))
        await until(is_said(look_at, 30), what="all finals, once and in order")
        await until(lambda: store.storage is Storage.DATABASE, what="that the database is back")
        assert await store.keep(final(31))
    assert said(look_at) == list(range(1, 32))
    assert is_empty(folder)


@pytest.mark.usefixtures("impatient")
async def test_finals_are_kept_while_postgresql_refuses_connections(
    folder: Path, proxy: Proxy, postgres_url: str
) -> None:
    await outlives(disabled(proxy), folder, proxy.url, postgres_url)


@pytest.mark.usefixtures("impatient")
async def test_finals_are_kept_while_postgresql_says_nothing(
    folder: Path, proxy: Proxy, postgres_url: str
) -> None:
    await outlives(proxy.silent(), folder, proxy.url, postgres_url)


@pytest.mark.usefixtures("impatient")
async def test_finals_are_kept_while_postgresql_is_stopped(folder: Path, logs: Path) -> None:
    with Postgres(logs / "stopped-postgres.log") as own:
        url = own.new_database()
        schema.upgrade(database := Database(url))
        database.close()
        await outlives(stopped(own), folder, url, url)


@pytest.mark.usefixtures("impatient")
async def test_finals_are_kept_while_somebody_else_locks_the_sqlite_file(
    folder: Path, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'roomscribe.db'}"
    schema.upgrade(database := Database(url))
    await outlives(locked(database), folder, url, url)
    database.close()


async def test_session_that_begins_and_ends_without_its_database_leaves_everything_to_a_drain(
    folder: Path, proxy: Proxy, postgres_url: str
) -> None:
    with disabled(proxy):
        async with opened(folder, proxy.url) as store:
            store.note(presence(1))
            await says(store, range(1, 6))
            store.note(presence(2))
        assert finals_in(folder) == [1, 2, 3, 4, 5]
    direct = Database(postgres_url)
    (report,) = drain_all(folder, direct)
    direct.close()
    assert report.is_removed
    assert said(postgres_url) == [1, 2, 3, 4, 5]
    assert column(postgres_url, PARTICIPANT.c.joined_ms) == [1, 2]


async def test_closing_does_not_wait_for_a_silent_database(
    folder: Path, proxy: Proxy, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_store, "CLOSE_TIMEOUT_S", 0.5)
    with ExitStack() as outage:
        async with asyncio.timeout(None) as closing, opened(folder, proxy.url) as store:
            await says(store, [1])
            await until(is_said(postgres_url, 1), what="the first final in the database")
            outage.enter_context(proxy.silent())
            await says(store, [2, 3])
            closing.reschedule(asyncio.get_running_loop().time() + LONG_S)
    direct = Database(postgres_url)
    drain_all(folder, direct)
    direct.close()
    assert said(postgres_url) == [1, 2, 3]


# --- The disk full ------------------------------------------------------------------------------------------


async def test_finals_are_in_the_database_before_they_are_shown_while_the_journal_is_full(
    disk: Path, database: Database, database_url: str
) -> None:
    async with opened(disk, database_url, limits=small(segment_bytes=8_000)) as store:
        await says(store, range(1, 4))
        ballast = fill(disk)
        first = await until_storage_is(Storage.DATABASE_ONLY, store, 4)
        for number in range(first, first + 5):
            assert await store.keep(final(number))
            assert number in said(database_url)
        assert store.storage is Storage.DATABASE_ONLY
        ballast.unlink()
        number = await until_storage_is(Storage.DATABASE, store, number + 1)
        assert finals_in(disk)[-1] == number - 1
    assert sorted(said(database_url)) == list(range(1, number))
    assert is_empty(disk)


async def until_storage_is(wanted: Storage, store: SessionStore, number: int) -> int:
    """Go on speaking with this final until it is so; gives the number of the next one."""
    while store.storage is not wanted:
        assert await store.keep(final(number))
        number += 1
        assert number < 5_000, f"the storage is still {store.storage}"
        await asyncio.sleep(0.001)
    return number


@pytest.mark.usefixtures("impatient")
async def test_nothing_is_kept_while_disk_and_database_are_away_and_everything_afterwards(
    disk: Path, proxy: Proxy, postgres_url: str
) -> None:
    async with opened(disk, proxy.url, limits=small(segment_bytes=8_000)) as store:
        ballast = fill(disk)
        number = await until_storage_is(Storage.DATABASE_ONLY, store, 1)
        store.note(presence(1))
        with disabled(proxy):
            for _ in range(3):
                assert not await store.keep(final(number))
            assert store.storage is Storage.NOWHERE
            assert number not in finals_in(disk)
        assert said(postgres_url)[-1:] == [number - 1]
        await until(lambda: store.storage is not Storage.NOWHERE, what="that the database is back")
        assert await store.keep(final(number))
        ballast.unlink()
        number = await until_storage_is(Storage.DATABASE, store, number + 1)
    assert sorted(said(postgres_url)) == list(range(1, number))
    assert column(postgres_url, PARTICIPANT.c.joined_ms) == [1]


@contextmanager
def path_under_a_file(folder: Path) -> Iterator[None]:
    folder.write_text("not a folder")
    yield
    folder.unlink()


@contextmanager
def read_only_disk(folder: Path) -> Iterator[None]:
    folder.mkdir()
    with tmpfs(folder, size_bytes=DISK_BYTES):
        make_read_only(folder)
        yield


@contextmanager
def full_disk(folder: Path) -> Iterator[None]:
    folder.mkdir()
    with tmpfs(folder, size_bytes=DISK_BYTES):
        fill(folder)
        yield


@pytest.mark.parametrize("harm", [path_under_a_file, read_only_disk, full_disk])
async def test_journal_that_cannot_be_made_is_made_when_it_can(
    folder: Path,
    database: Database,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    harm: Callable[[Path], AbstractContextManager[None]],
) -> None:
    monkeypatch.setattr(session_store, "JOURNAL_RETRY_S", 0.1)
    with ExitStack() as harmed:
        harmed.enter_context(harm(folder))
        async with opened(folder, database_url) as store:
            for number in range(1, 4):
                assert await store.keep(final(number))
                assert number in said(database_url)
            assert store.storage is Storage.DATABASE_ONLY
            harmed.close()
            number = await until_storage_is(Storage.DATABASE, store, 4)
            assert finals_in(folder) == [number - 1]
    assert said(database_url) == list(range(1, number))


async def test_notes_that_nothing_takes_are_held_up_to_a_bound_and_counted_beyond(
    disk: Path, proxy: Proxy, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_store, "MAX_NOTES", 50)
    fill(disk)
    proxy.disable()
    async with opened(disk, proxy.url) as store:
        await until(lambda: store.storage is Storage.NOWHERE, what="that nothing is kept")
        for number in range(60):
            store.note(presence(number))
        assert store.dropped_notes == 10
        proxy.enable()
        wanted = list(range(50))
        await until(
            lambda: column(postgres_url, PARTICIPANT.c.joined_ms) == wanted, what="what was held, in order"
        )
        await until(lambda: store.storage is Storage.DATABASE_ONLY, what="that the store knows it")
        store.note(presence(60))
    assert column(postgres_url, PARTICIPANT.c.joined_ms) == [*wanted, 60]


# --- What else may happen -----------------------------------------------------------------------------------


async def test_record_that_the_database_refuses_stops_no_other_and_is_kept_aside(
    folder: Path, database: Database, database_url: str
) -> None:
    refused = final(3, "what only the journal has").model_copy(update={"id": "x"})
    async with opened(folder, database_url, limits=small(segment_bytes=1_500)) as store:
        await says(store, [1, 2])
        assert await store.keep(refused)
        await says(store, range(4, 40))
        wanted = [1, 2, *range(4, 40)]
        await until(lambda: said(database_url) == wanted, what="all the others")
    with database.read() as connection:
        (problem,) = connection.execute(select(PROCESSING_ERROR)).all()
    assert (problem.session_id, problem.code) == ("ab12", "refused")
    assert refused.text not in problem.message
    assert found_in(folder).is_damaged
    assert refused in journalled(folder)
    assert drain_all(folder, database) == []
    assert refused in journalled(folder)


@WHICHEVER_DATABASE
@pytest.mark.parametrize("steps", [0, 1, 2, 4])
async def test_cancelling_a_final_at_any_moment_loses_no_note(
    folder: Path, database: Database, database_url: str, steps: int
) -> None:
    async with opened(folder, database_url) as store:
        store.note(presence(1))
        keeping = asyncio.create_task(store.keep(final(1)))
        for _ in range(steps):
            await asyncio.sleep(0)
        keeping.cancel()
        await asyncio.wait((keeping,))
        store.note(presence(2))
        assert await store.keep(final(2))
    assert column(database_url, PARTICIPANT.c.joined_ms) == [1, 2]
    assert said(database_url)[-1] == 2
