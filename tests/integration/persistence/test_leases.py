"""Leases, on SQLite's own file and on PostgreSQL."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from threading import Barrier

import pytest
from sqlalchemy import text, update

from agent.config import Settings, load_settings
from agent.errors import DatabaseAwayError
from persistence import clock as database_clock
from persistence import leases, schema
from persistence.clock import database_time
from persistence.database import Database
from persistence.leases import NO_ROOM, NO_SPACE, Lease
from persistence.records import DEFAULT_SPACE
from persistence.rows import LEASE, SESSION

LIMIT_S = 30
LEASE_S = 60  # none lapses because this machine is busy
AT_ONCE = 4
ROOM = "planning"


@pytest.fixture(autouse=True)
def long_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "LEASE_S", LEASE_S)


@pytest.fixture
def settings(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROOMSCRIBE_DATABASE__URL", database_url)
    return load_settings()


@pytest.fixture
def main_database(settings: Settings) -> Iterator[Database]:
    with closing(Database.of(settings)) as database:
        schema.upgrade(database)
        yield database


@pytest.fixture
def database(settings: Settings, main_database: Database) -> Iterator[Database]:
    """The one of leases."""
    with closing(Database.of_leases(settings)) as database:
        leases.prepare(database)
        yield database


def take(database: Database, holder: str = "agent-1", sid: str = "RM_1") -> Lease:
    with database.write() as connection:
        return leases.take(
            connection, space=DEFAULT_SPACE, room=ROOM, sid=sid, holder=holder, worker=f"worker of {holder}"
        )


def renew(
    database: Database,
    holder: str = "agent-1",
    epoch: int = 1,
    sid: str = "RM_1",
    seq_until: int = 100,
) -> Lease | None:
    with database.write() as connection:
        return leases.renew(
            connection,
            space=DEFAULT_SPACE,
            room=ROOM,
            sid=sid,
            holder=holder,
            worker=f"worker of {holder}",
            epoch=epoch,
            seq_until=seq_until,
        )


def look(database: Database) -> Lease | None:
    with database.read() as connection:
        return leases.look(connection, DEFAULT_SPACE, ROOM)


def offer(database: Database, successor: str = "agent-2", holder: str = "agent-1") -> Lease | None:
    with database.write() as connection:
        return leases.offer(connection, space=DEFAULT_SPACE, room=ROOM, holder=holder, successor=successor)


def cut(database: Database, cut_ms: int = 61_000, holder: str = "agent-1") -> bool:
    with database.write() as connection:
        return leases.cut(connection, space=DEFAULT_SPACE, room=ROOM, holder=holder, cut_ms=cut_ms)


def move(database: Database, holder: str = "agent-1") -> bool:
    with database.write() as connection:
        return leases.move(connection, space=DEFAULT_SPACE, room=ROOM, holder=holder)


def release(database: Database, holder: str = "agent-1") -> Lease | None:
    with database.write() as connection:
        return leases.release(connection, space=DEFAULT_SPACE, room=ROOM, holder=holder)


def forget(database: Database, holder: str = "agent-1") -> bool:
    with database.write() as connection:
        return leases.forget(connection, space=DEFAULT_SPACE, room=ROOM, holder=holder)


def set_row(database: Database, **values: object) -> None:
    with database.write() as connection:
        changed = connection.execute(update(LEASE).where(LEASE.c.room == ROOM).values(**values))
    assert changed.rowcount == 1


def now(database: Database) -> datetime:
    with database.read() as connection:
        return database_time(connection)


def lapse(database: Database, ago_s: float = 0.1) -> None:
    set_row(database, expires_at=now(database) - timedelta(seconds=ago_s))


class TestTaking:
    def test_a_vacant_one_is_taken(self, database: Database) -> None:
        lease = take(database)

        assert lease == look(database)
        assert (lease.space, lease.room, lease.sid) == (DEFAULT_SPACE, ROOM, "RM_1")
        assert (lease.holder, lease.worker, lease.epoch) == ("agent-1", "worker of agent-1", 0)
        assert (lease.is_live, lease.successor, lease.cut_ms) == (True, "", None)

    def test_of_several_who_take_it_at_once_one_gets_it(self, database: Database, settings: Settings) -> None:
        start = Barrier(AT_ONCE)

        def taken(number: int) -> Lease:
            with closing(Database.of_leases(settings)) as own:
                start.wait(LIMIT_S)
                return take(own, f"agent-{number}")

        for is_vacant in (True, False):
            if not is_vacant:
                lapse(database)
            with ThreadPoolExecutor(AT_ONCE) as threads:
                holders = [lease.holder for lease in threads.map(taken, range(AT_ONCE))]
            lease = look(database)
            assert lease is not None
            assert holders == [lease.holder] * AT_ONCE

    def test_a_live_one_is_not_taken(self, database: Database) -> None:
        mine = take(database)

        assert take(database, "agent-2", "RM_2") == mine == look(database)

    def test_a_lapsed_one_is_taken_with_nothing_left_of_it(self, database: Database) -> None:
        before = take(database)
        renew(database, epoch=7)
        offer(database, "agent-9")
        cut(database)
        lapse(database)

        lease = take(database, "agent-2")

        assert (lease.holder, lease.epoch, lease.is_live) == ("agent-2", 0, True)
        assert (lease.successor, lease.cut_ms) == ("", None)
        assert lease.acquired_at > before.acquired_at

    def test_who_holds_it_may_take_it_again_and_holds_it_since_it_took_it_first(
        self, database: Database
    ) -> None:
        first = take(database)
        again = take(database, sid="RM_2")

        assert (again.holder, again.sid, again.acquired_at) == ("agent-1", "RM_2", first.acquired_at)
        assert again.expires_at > first.expires_at

    def test_one_that_lapsed_in_between_is_acquired_anew(self, database: Database) -> None:
        first = take(database)
        lapse(database)

        assert take(database).acquired_at > first.acquired_at

    def test_rooms_and_spaces_have_each_their_own(self, database: Database) -> None:
        with database.write() as connection:
            for space in ("default", "other"):
                for room in ("a", "b"):
                    lease = leases.take(
                        connection, space=space, room=room, sid="RM", holder=f"{space} {room}", worker="w"
                    )
                    assert lease.holder == f"{space} {room}"
            assert [lease.holder for lease in leases.every(connection)] == [
                "default a",
                "default b",
                "other a",
                "other b",
            ]


class TestRenewing:
    def test_it_lasts_from_then_on_and_says_what_is_true_now(self, database: Database) -> None:
        before = take(database)

        lease = renew(database, epoch=3, sid="RM_2")

        assert lease is not None
        assert lease == look(database)
        assert (lease.epoch, lease.sid, lease.acquired_at) == (3, "RM_2", before.acquired_at)
        assert lease.expires_at > before.expires_at
        assert lease.renewed_at > before.renewed_at
        # It is asked twice what time it is.
        assert lease.expires_at - lease.renewed_at > timedelta(seconds=LEASE_S - 1)

    def test_one_that_lapsed_and_that_nobody_took_is_renewed(self, database: Database) -> None:
        take(database)
        lapse(database)
        lapsed = look(database)

        lease = renew(database)

        assert lapsed is not None
        assert not lapsed.is_live
        assert lease is not None
        assert lease.is_live

    def test_who_lost_it_gets_nothing_and_changes_nothing(self, database: Database) -> None:
        take(database)
        lapse(database)
        lease = take(database, "agent-2")

        assert renew(database, "agent-1") is None
        assert look(database) == lease
        lapse(database)
        assert renew(database, "agent-1") is None

    def test_a_row_that_is_lost_is_made_again(self, database: Database) -> None:
        take(database)
        with database.write() as connection:
            connection.execute(LEASE.delete())

        lease = renew(database, epoch=4)

        assert lease is not None
        assert (lease.holder, lease.epoch, lease.is_live) == ("agent-1", 4, True)

    def test_it_keeps_the_successor_and_the_cut(self, database: Database) -> None:
        take(database)
        offer(database)
        cut(database)

        lease = renew(database)

        assert lease is not None
        assert (lease.successor, lease.cut_ms) == ("agent-2", 61_000)


class TestReleasing:
    def test_anybody_may_take_it_then_and_nobody_takes_its_holder_for_dead(self, database: Database) -> None:
        take(database)

        released = release(database)
        assert released is not None
        assert (released.holder, released.is_live, released.is_released) == ("agent-1", False, True)
        taken = take(database, "agent-2")
        assert (taken.holder, taken.is_live, taken.is_released) == ("agent-2", True, False)
        assert release(database) is None

    def test_one_that_lapsed_is_not_taken_for_released(self, database: Database) -> None:
        take(database)
        lapse(database)

        found = look(database)
        assert found is not None
        assert (found.is_live, found.is_released) == (False, False)

    def test_what_is_forgotten_is_gone_and_only_its_holder_is(self, database: Database) -> None:
        take(database)
        assert not forget(database), "it is live"
        lapse(database)

        assert not forget(database, "agent-2")
        assert forget(database)
        assert look(database) is None

    def test_nobody_else_releases_it(self, database: Database) -> None:
        lease = take(database)

        assert release(database, "agent-2") is None
        assert look(database) == lease


class TestNumbers:
    def test_what_one_that_died_may_have_given_is_known_to_the_next(self, database: Database) -> None:
        take(database)
        renew(database, seq_until=141)
        lapse(database)

        assert take(database, "agent-2").seq_until == 141
        renewed = renew(database, "agent-2", seq_until=242)
        assert renewed is not None
        assert renewed.seq_until == 242

    def test_it_goes_along_where_a_lease_is_moved(self, database: Database) -> None:
        take(database)
        renew(database, seq_until=141)
        offer(database)
        assert move(database)

        moved = look(database)
        assert moved is not None
        assert (moved.holder, moved.seq_until) == ("agent-2", 141)


class TestHandingOver:
    def test_the_successor_leads_from_where_the_holder_cut(self, database: Database) -> None:
        before = take(database)
        renew(database, epoch=2)

        offered = offer(database)
        assert offered is not None
        assert (offered.holder, offered.successor, offered.cut_ms) == ("agent-1", "agent-2", None)
        assert cut(database)
        assert move(database)

        lease = offer(database)
        assert lease is not None
        assert (lease.holder, lease.worker, lease.epoch, lease.is_live) == ("agent-2", "", 0, True)
        assert (lease.successor, lease.cut_ms) == ("", 61_000)
        assert lease.acquired_at > before.acquired_at
        assert renew(database, "agent-1") is None
        assert release(database, "agent-1") is None
        renewed = renew(database, "agent-2", epoch=3)
        assert renewed is not None
        assert (renewed.worker, renewed.epoch) == ("worker of agent-2", 3)

    def test_a_moved_one_lasts_as_long_as_one_that_was_taken(self, database: Database) -> None:
        take(database)
        offer(database)
        lapse(database)

        assert move(database)
        lease = look(database)
        assert lease is not None
        assert lease.is_live

    def test_nothing_is_moved_without_an_offer(self, database: Database) -> None:
        lease = take(database)

        assert not move(database)
        assert look(database) == lease

    def test_an_offer_that_was_not_renewed_counts_for_nothing(self, database: Database) -> None:
        take(database)
        offer(database)
        cut(database)
        set_row(database, successor_expires_at=now(database) - timedelta(seconds=0.1))

        stale = look(database)
        assert stale is not None
        assert stale.successor == ""
        assert not move(database)
        assert offer(database) is not None  # who was slow has heard all the same
        assert move(database)
        lease = look(database)
        assert lease is not None
        assert (lease.holder, lease.cut_ms) == ("agent-2", 61_000)

    def test_a_second_successor_waits_until_the_first_one_is_gone(self, database: Database) -> None:
        take(database)
        offer(database, "agent-2")
        cut(database)

        refused = offer(database, "agent-3")
        assert refused is not None
        assert refused.successor == "agent-2"
        set_row(database, successor_expires_at=now(database) - timedelta(seconds=0.1))
        accepted = offer(database, "agent-3")

        # It may not have heard what comes after the cut.
        assert accepted is not None
        assert (accepted.successor, accepted.cut_ms) == ("agent-3", None)

    def test_a_later_hand_over_does_not_see_the_cut_of_an_earlier_one(self, database: Database) -> None:
        take(database)
        offer(database)
        cut(database)
        move(database)

        lease = offer(database, "agent-3", holder="agent-2")

        assert lease is not None
        assert (lease.successor, lease.cut_ms) == ("agent-3", None)

    def test_only_the_holder_is_relieved(self, database: Database) -> None:
        lease = take(database)

        assert offer(database, "agent-3", holder="agent-2") == lease
        offer(database, "agent-3")
        assert not cut(database, holder="agent-2")
        assert not move(database, holder="agent-2")
        assert not move(database, holder="agent-3")
        kept = look(database)
        assert kept is not None
        assert (kept.holder, kept.cut_ms) == ("agent-1", None)

    def test_where_nobody_leads_there_is_nobody_to_relieve(self, database: Database) -> None:
        assert offer(database) is None
        assert not cut(database)
        assert not move(database)


class TestReconciler:
    def test_its_lease_is_none_of_a_room(self, database: Database) -> None:
        with database.write() as connection:
            for holder in ("worker-1", "worker-2"):
                lease = leases.take(
                    connection, space=NO_SPACE, room=NO_ROOM, sid="", holder=holder, worker=holder
                )
                assert lease.holder == "worker-1"
        room = take(database)

        with database.read() as connection:
            assert leases.every(connection) == [room]
            assert leases.look(connection, NO_SPACE, NO_ROOM) == lease


class TestTime:
    def test_it_lapses_by_the_clock_of_the_database(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lease = take(database)
        if database.is_sqlite:
            assert lease.is_live  # its clock is that of this machine
            return

        class Wrong(datetime):
            @classmethod
            def now(cls, tz: object = None) -> "Wrong":
                raise AssertionError("a caller's clock was asked")

        monkeypatch.setattr(database_clock, "datetime", Wrong)
        assert take(database, "agent-2") == lease
        assert renew(database) is not None
        offer(database)
        assert move(database)


class TestFileOfItsOwn:
    @pytest.fixture
    def database_url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path / 'roomscribe.db'}"

    def test_it_lies_beside_the_main_one_for_this_user_alone(
        self, database: Database, main_database: Database, tmp_path: Path
    ) -> None:
        take(database)

        assert (tmp_path / "roomscribe.db-leases").stat().st_mode & 0o777 == 0o600
        with main_database.read() as connection:
            assert leases.every(connection) == []

    def test_making_its_table_again_changes_nothing(self, database: Database) -> None:
        lease = take(database)
        leases.prepare(database)

        assert look(database) == lease

    @pytest.mark.parametrize("start_bytes", [0, 100, 4096])
    def test_one_that_a_power_cut_damaged_is_made_anew(
        self, settings: Settings, tmp_path: Path, start_bytes: int
    ) -> None:
        with closing(Database.of_leases(settings)) as before:
            leases.prepare(before)
            take(before)
        file = tmp_path / "roomscribe.db-leases"
        whole = file.read_bytes()
        file.write_bytes(whole[:start_bytes] + b"\xff" * (len(whole) - start_bytes))

        with closing(Database.of_leases(settings)) as database:
            leases.prepare(database)
            assert take(database, "agent-2").holder == "agent-2"
        assert file.stat().st_mode & 0o777 == 0o600

    def test_a_second_one_in_this_process_hides_nothing_of_the_first_from_others(
        self, database: Database, settings: Settings, tmp_path: Path
    ) -> None:
        query = (
            "import sqlite3, sys; print(*sqlite3.connect(sys.argv[1]).execute('SELECT holder FROM lease'))"
        )
        command = [sys.executable, "-c", query, str(tmp_path / "roomscribe.db-leases")]

        def seen_by_others() -> str:
            return subprocess.run(command, capture_output=True, text=True, check=True, timeout=LIMIT_S).stdout

        with closing(Database.of_leases(settings)):
            assert seen_by_others() == "\n"
            take(database)
            assert seen_by_others() == "('agent-1',)\n"

    def test_it_waits_for_no_disk(self, database: Database, main_database: Database) -> None:
        for file, synchronous in ((database, 0), (main_database, 2)):
            with file.read() as connection:
                assert connection.execute(text("PRAGMA synchronous")).scalar() == synchronous

    def test_a_long_write_of_the_main_one_does_not_delay_a_renewal(
        self, database: Database, main_database: Database
    ) -> None:
        take(database)
        with main_database.write() as connection:
            connection.execute(SESSION.delete())
            assert renew(database) is not None  # or DatabaseAwayError, once it had waited

    def test_who_waits_too_long_for_another_renewal_is_told_to_try_again(
        self, database: Database, settings: Settings
    ) -> None:
        with (
            closing(Database.of_leases(settings)) as other,
            database.write(),
            pytest.raises(DatabaseAwayError, match="database is locked"),
        ):
            take(other)
