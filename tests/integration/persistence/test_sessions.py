"""A session's life in the database."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import insert, select, update

from agent.errors import JournalError
from persistence import catalogue, sessions, stems
from persistence.apply import Applier
from persistence.database import Database
from persistence.records import DEFAULT_SPACE, Begun, Failure, Final, Gap, Presence, Record, Stem, Usage
from persistence.rows import AUDIT_EVENT, EPOCH, GAP, ROOM_CONFIG, SESSION, STEM
from persistence.sessions import Opening, Placement, Refused
from tests.support.plans import plans, sorts
from tests.support.stored_session import add_space

AT = datetime(2026, 3, 1, 9, 0, tzinfo=UTC)


def opened(
    database: Database, room_sid: str = "RM_1", room: str = "planning", space: str = DEFAULT_SPACE
) -> Opening | Refused:
    with database.write() as connection:
        return sessions.begin(
            connection,
            space=space,
            room=room,
            room_sid=room_sid,
            worker="worker-1",
            languages=["en"],
            new_id=uuid4().hex,
            agent="agent-1",
        )


def begun(
    database: Database, room_sid: str = "RM_1", room: str = "planning", ago: timedelta = timedelta()
) -> Begun:
    opening = opened(database, room_sid, room)
    assert isinstance(opening, Opening)
    session = opening.begun.session
    if ago:
        move(database, session, -ago)
    return opening.begun.model_copy(update={"started_at": row(database, session).started_at})


def move(database: Database, session: str, by: timedelta) -> None:
    """Let all of a session have happened at another time: by another clock, or earlier."""
    with database.write() as connection:
        for table, key, names in (
            (SESSION, SESSION.c.id, ("started_at", "heard_at")),
            (EPOCH, EPOCH.c.session_id, ("began_at",)),
        ):
            for found in connection.execute(select(table).where(key == session)).all():
                place = [column == found._mapping[column.name] for column in table.primary_key.columns]
                times = {name: found._mapping[name] + by for name in names}
                connection.execute(update(table).where(*place).values(times))


def provisional(**changes: Any) -> Begun:
    return Begun(
        **{
            "session": uuid4().hex,
            "epoch": 1,
            "room": "planning",
            "room_sid": "RM_1",
            "agent": "agent-2",
            "worker": "worker-2",
            "languages": ("en",),
            "started_at": AT,
            "offset_ms": 0,
            "is_provisional": True,
            **changes,
        }
    )


def registered(database: Database, record: Begun) -> Placement:
    with database.write() as connection:
        return sessions.register(connection, record)


def applied(database: Database, record: Begun, *records: Record) -> None:
    """What a job has left behind is brought over."""
    applier = Applier(database, record.space, record.session, record.epoch, is_live=False)
    assert applier.apply([record, *records], None) == []


def gaps(database: Database) -> list[tuple[int, int]]:
    """Where no agent was there."""
    with database.read() as connection:
        found = connection.execute(select(GAP).order_by(GAP.c.start_ms)).all()
    assert all((gap.identity, gap.reason) == ("", "agent_away") for gap in found)
    return [(gap.start_ms, gap.end_ms) for gap in found]


def ended(database: Database, session: str, reason: str, at: datetime = AT) -> bool:
    with database.write() as connection:
        return sessions.end(connection, DEFAULT_SPACE, session, reason, at)


def changed(database: Database, session: str, **values: Any) -> None:
    with database.write() as connection:
        connection.execute(update(SESSION).where(SESSION.c.id == session).values(**values))


def row(database: Database, session: str) -> Any:
    with database.read() as connection:
        return connection.execute(select(SESSION).where(SESSION.c.id == session)).one()


def now(database: Database) -> datetime:
    with database.read() as connection:
        return sessions.database_time(connection)


def final(number: int, start_ms: int = 0, end_ms: int = 900, epoch: int = 1) -> Final:
    return Final(
        id=f"{epoch}-{number}",
        revision=1,
        seq=number,
        identity="anna",
        name="Anna",
        text="Good morning.",
        language="en",
        confidence=0.9,
        has_overlap=False,
        start_ms=start_ms,
        end_ms=end_ms,
        at=AT,
    )


# --- Beginning ----------------------------------------------------------------------------------------


def test_an_unknown_room_gets_a_session_of_its_own(database: Database) -> None:
    before = now(database)
    opening = opened(database)
    assert isinstance(opening, Opening)
    assert (opening.begun.epoch, opening.begun.offset_ms, opening.next_seq) == (1, 0, 1)
    assert before <= opening.begun.started_at <= now(database)
    assert not opening.begun.is_provisional
    assert opening.room_config is None
    assert begun(database, "RM_2", "retro").session != opening.begun.session
    assert row(database, opening.begun.session).status == "created"


def test_a_successor_goes_on_with_the_session(database: Database) -> None:
    first = begun(database, ago=timedelta(minutes=10))
    applied(database, first, final(1, 0, 40_000), final(7, 1_000, 2_000))
    opening = opened(database)
    assert isinstance(opening, Opening)
    second = opening.begun
    assert (second.session, second.epoch, second.started_at) == (first.session, 2, first.started_at)
    assert second.offset_ms >= 600_000
    assert opening.next_seq == 8
    with database.read() as connection:
        epochs = connection.execute(select(EPOCH.c.epoch).order_by(EPOCH.c.epoch)).scalars().all()
    assert epochs == [1, 2]
    assert row(database, first.session).epoch == 2


def test_what_was_being_said_when_an_agent_died_is_a_gap(database: Database) -> None:
    first = begun(database)
    applied(database, first, final(1, 0, 10_000))
    move(database, first.session, timedelta(seconds=-31))
    changed(database, first.session, heard_at=first.started_at - timedelta(seconds=2))
    second = begun(database)
    assert gaps(database) == [(10_000, second.offset_ms)]
    assert second.offset_ms >= 31_000


def test_a_long_silence_before_an_agent_died_was_heard(database: Database) -> None:
    first = begun(database, ago=timedelta(minutes=5))
    changed(database, first.session, heard_at=first.started_at + timedelta(seconds=290))
    second = begun(database)
    assert gaps(database) == [(260_000, second.offset_ms)]


def test_a_gap_does_not_go_back_behind_the_agent_before_it(database: Database) -> None:
    first = begun(database, ago=timedelta(seconds=90))
    changed(database, first.session, heard_at=first.started_at + timedelta(seconds=60))
    second = begun(database)
    # A third one goes on at once: what the first one did not hear is told already.
    move(database, first.session, timedelta(seconds=-3))
    third = begun(database)
    (before, after) = gaps(database)
    assert before == (30_000, second.offset_ms)
    assert after == (second.offset_ms, third.offset_ms)


def test_an_agent_that_ended_its_session_had_heard_all_until_then(database: Database) -> None:
    first = begun(database, ago=timedelta(minutes=2))
    ended(database, first.session, "room_closed", first.started_at + timedelta(seconds=80))
    second = begun(database)
    assert gaps(database) == [(80_000, second.offset_ms)]


def test_a_clock_that_jumps_a_day_ahead_between_two_agents_breaks_nothing(database: Database) -> None:
    first = begun(database)
    move(database, first.session, timedelta(days=-1))
    second = begun(database)
    assert second.session == first.session
    assert second.offset_ms >= 86_400_000
    # And back again.
    move(database, first.session, timedelta(days=1))
    third = begun(database)
    assert (third.session, third.epoch) == (first.session, 3)
    assert third.offset_ms == second.offset_ms
    (away,) = gaps(database)
    assert away == (0, second.offset_ms)


def test_session_time_never_goes_back_where_a_clock_does(database: Database) -> None:
    first = begun(database)
    stem = Stem(
        track="TR_1", number=1, identity="anna", path="a.ogg", sample_rate_hz=48_000,
        start_ms=9_000_000, duration_ms=500_000,
    )  # fmt: skip
    Applier(database, first.space, first.session, 1).apply(
        [first, final(1, 9_000_000, 9_100_000), stem], None
    )
    assert begun(database).offset_ms == 9_500_000


@pytest.mark.parametrize("is_known", [False, True])
def test_jobs_that_begin_at_once_lead_one_session_one_after_the_other(
    database_url: str, database: Database, is_known: bool
) -> None:
    if is_known:
        begun(database)
    both = Database(database_url, connections=4)
    with ThreadPoolExecutor(4) as threads:
        beginnings = list(threads.map(lambda _: begun(both), range(4)))
    both.close()
    assert len({one.session for one in beginnings}) == 1
    first = 2 if is_known else 1
    assert sorted(one.epoch for one in beginnings) == list(range(first, first + 4))


@pytest.mark.parametrize("reason", ["room_closed", "agent_left", "agent_lost"])
def test_a_room_that_is_still_there_goes_on_with_its_ended_session(database: Database, reason: str) -> None:
    first = begun(database)
    ended(database, first.session, reason)
    assert begun(database).session == first.session
    session = row(database, first.session)
    assert (session.status, session.ended_at, session.ended_by) == ("live", None, "")


def test_a_room_that_was_idle_begins_a_new_session(database: Database) -> None:
    first = begun(database)
    ended(database, first.session, "idle")
    second = begun(database)
    assert (second.session != first.session, second.epoch, second.offset_ms) == (True, 1, 0)
    assert begun(database).session == second.session
    assert row(database, first.session).status == "ended"


@pytest.mark.parametrize("reason", ["duration", "participants", "host", "api"])
def test_a_session_that_was_ended_for_good_is_not_begun_again(database: Database, reason: str) -> None:
    first = begun(database)
    ended(database, first.session, reason)
    assert opened(database) == Refused(reason)
    assert row(database, first.session).epoch == 1


def test_a_room_that_reconnects_to_a_restarted_server_keeps_its_session(database: Database) -> None:
    first = begun(database)
    assert begun(database, "RM_2").session == first.session
    with database.read() as connection:
        for sid in ("RM_1", "RM_2"):
            assert catalogue.find_by_sid(connection, DEFAULT_SPACE, sid) == first.session


def test_two_meetings_in_a_row_never_share_a_session(database: Database) -> None:
    first = begun(database)
    ended(database, first.session, "room_closed")
    second = begun(database, "RM_2")
    assert second.session != first.session
    changed(database, second.session, heard_at=second.started_at - timedelta(seconds=61))
    assert begun(database, "RM_3").session not in {first.session, second.session}


def test_rooms_of_the_same_name_in_two_spaces_have_nothing_in_common(database: Database) -> None:
    add_space(database, "other")
    here, there = opened(database), opened(database, space="other")
    assert isinstance(here, Opening)
    assert isinstance(there, Opening)
    assert here.begun.session != there.begun.session
    with database.read() as connection:
        assert catalogue.resolve(connection, "other", here.begun.session) is None
        assert catalogue.get_session(connection, "other", here.begun.session) is None
        assert catalogue.find_by_sid(connection, "other", "RM_1") == there.begun.session
        assert len(catalogue.list_sessions(connection, "other").items) == 1
    with database.write() as connection:
        assert not sessions.end(connection, "other", here.begun.session, "api", AT)


def test_a_job_learns_what_is_set_for_its_room(database: Database) -> None:
    with database.write() as connection:
        connection.execute(
            insert(ROOM_CONFIG).values(space_id=DEFAULT_SPACE, room="planning", idle_s=30, is_recorded=False)
        )
    opening = opened(database)
    assert isinstance(opening, Opening)
    assert opening.room_config is not None
    assert (opening.room_config.idle_s, opening.room_config.max_duration_s) == (30, None)
    assert opening.room_config.is_recorded is False


# --- Journals -----------------------------------------------------------------------------------------


def test_a_journal_belongs_where_its_job_began(database: Database) -> None:
    first = begun(database)
    second = begun(database)
    assert registered(database, second) == Placement(first.session, DEFAULT_SPACE, 2, "worker-1")
    assert registered(database, first) == Placement(first.session, DEFAULT_SPACE, 1, "worker-1")
    assert row(database, first.session).epoch == 2


def test_a_session_that_began_without_the_database_is_there_once(database: Database) -> None:
    record = provisional(epoch=5)
    placed = registered(database, record)
    assert placed == registered(database, record)
    assert placed == Placement(record.session, DEFAULT_SPACE, 5, "worker-2")
    session = row(database, record.session)
    assert (session.status, session.epoch, session.started_at) == ("live", 5, AT)
    with database.read() as connection:
        assert catalogue.find_by_sid(connection, DEFAULT_SPACE, "RM_1") == record.session


def test_a_lost_registration_is_made_again(database: Database) -> None:
    first = begun(database)
    with database.write() as connection:
        connection.execute(EPOCH.delete())
    assert registered(database, first) == Placement(first.session, DEFAULT_SPACE, 1, "worker-1")


def test_a_successor_without_the_database_becomes_a_part_of_its_room(database: Database) -> None:
    first = begun(database, ago=timedelta(minutes=2))
    record = provisional(started_at=first.started_at + timedelta(seconds=90))
    placed = registered(database, record)
    # The epoch that it gave itself is taken.
    assert placed == Placement(first.session, DEFAULT_SPACE, 2, "worker-2", shift_ms=90_000)
    assert registered(database, record) == placed
    assert row(database, first.session).epoch == 2
    merged = row(database, record.session)
    assert (merged.status, merged.merged_into) == ("merged", first.session)
    later = provisional(session=record.session, epoch=9, started_at=record.started_at, offset_ms=5_000)
    assert registered(database, later) == Placement(
        first.session, DEFAULT_SPACE, 9, "worker-2", shift_ms=90_000
    )
    with database.read() as connection:
        assert catalogue.resolve(connection, DEFAULT_SPACE, record.session) == first.session
        assert catalogue.find_by_sid(connection, DEFAULT_SPACE, "RM_1") == first.session
        (audit,) = connection.execute(select(AUDIT_EVENT)).all()
        assert [one.id for one in catalogue.list_sessions(connection, DEFAULT_SPACE).items] == [first.session]
    assert (audit.action, audit.subject, audit.detail) == (
        "session.merged", record.session, {"into": first.session},
    )  # fmt: skip
    assert begun(database).epoch == 10


def test_a_successor_without_the_database_leaves_the_same_gap(database: Database) -> None:
    first = begun(database, ago=timedelta(minutes=2))
    applied(database, first, final(1, 0, 10_000))
    changed(database, first.session, heard_at=first.started_at + timedelta(seconds=29))
    record = provisional(started_at=first.started_at + timedelta(seconds=31))
    for _ in range(2):
        registered(database, record)
    assert gaps(database) == [(10_000, 31_000)]
    # Nor does one that is found late leave another.
    registered(database, provisional(epoch=7, started_at=first.started_at + timedelta(seconds=30)))
    assert gaps(database) == [(10_000, 31_000)]


def test_a_successor_whose_clock_is_behind_does_not_begin_before_the_session(database: Database) -> None:
    first = begun(database)
    record = provisional(started_at=first.started_at - timedelta(seconds=1))
    assert registered(database, record).shift_ms == 0


@pytest.mark.parametrize("off", [timedelta(days=-1), timedelta(days=1)])
def test_a_successor_without_the_database_whose_clock_is_a_day_off_is_a_session_of_its_own(
    database: Database, off: timedelta
) -> None:
    first = begun(database, ago=timedelta(minutes=1))
    record = provisional(epoch=1_700_000_000, started_at=now(database) + off)
    placed = registered(database, record)
    assert (placed.session_id, placed.shift_ms) == (record.session, 0)
    applied(database, record, final(1, 0, 5_000))
    session = row(database, record.session)
    assert session.heard_at <= now(database)
    assert row(database, first.session).epoch == 1
    after = begun(database)
    assert after.offset_ms >= 5_000 if after.session == record.session else after.session == first.session
    with database.write() as connection:
        assert sessions.end_lost(connection, record.session, session.heard_at + timedelta(hours=1))
    ended_session = row(database, record.session)
    assert ended_session.ended_at >= ended_session.started_at
    assert all(0 <= start_ms < end_ms for start_ms, end_ms in gaps(database))


def test_what_came_before_the_session_of_its_room_is_kept_on_its_own(database: Database) -> None:
    first = begun(database)
    record = provisional(started_at=first.started_at - timedelta(minutes=5))
    assert registered(database, record).session_id == record.session


def test_a_journal_that_is_found_late_does_not_lead(database: Database) -> None:
    first = begun(database, ago=timedelta(minutes=5))
    second = begun(database)
    late = provisional(epoch=1_700_000_000, started_at=first.started_at + timedelta(minutes=3))
    placed = registered(database, late)
    assert (placed.session_id, placed.epoch) == (first.session, 1_700_000_000)
    assert row(database, first.session).epoch == second.epoch == 2
    assert begun(database).epoch == 1_700_000_001


def test_a_successor_without_the_database_makes_its_session_live_again(database: Database) -> None:
    first = begun(database, ago=timedelta(minutes=1))
    ended(database, first.session, "agent_lost", first.started_at + timedelta(seconds=10))
    registered(database, provisional(started_at=first.started_at + timedelta(seconds=5)))
    assert row(database, first.session).status == "ended"
    registered(database, provisional(started_at=first.started_at + timedelta(seconds=15)))
    assert row(database, first.session).status == "live"


@pytest.mark.parametrize("reason", ["idle", "host"])
def test_what_was_said_after_the_end_of_a_session_is_another_one(database: Database, reason: str) -> None:
    first = begun(database, ago=timedelta(minutes=1))
    ended(database, first.session, reason, first.started_at + timedelta(seconds=10))
    before = provisional(started_at=first.started_at + timedelta(seconds=5))
    after = provisional(started_at=first.started_at + timedelta(seconds=15))
    assert registered(database, before).session_id == first.session
    assert registered(database, after).session_id == after.session
    assert row(database, first.session).ended_by == reason


def test_journals_of_one_room_that_are_found_at_once_make_one_session(
    database_url: str, database: Database
) -> None:
    found = [provisional(epoch=epoch, started_at=AT + timedelta(seconds=epoch)) for epoch in (1, 1, 2, 3)]
    both = Database(database_url, connections=4)
    with ThreadPoolExecutor(4) as threads:
        placed = list(threads.map(lambda record: registered(both, record), found))
    both.close()
    assert len({one.session_id for one in placed}) == 1
    assert len({one.epoch for one in placed}) == 4


def test_a_journal_is_never_placed_by_the_name_of_its_room_alone(database: Database) -> None:
    first = begun(database)
    record = provisional(room_sid="RM_2", started_at=first.started_at)
    assert registered(database, record).session_id == record.session


# --- Ending -------------------------------------------------------------------------------------------


def test_a_session_ends_once(database: Database) -> None:
    first = begun(database)
    at = first.started_at + timedelta(minutes=5)
    assert ended(database, first.session, "host", at)
    assert not ended(database, first.session, "api", at + timedelta(hours=1))
    session = row(database, first.session)
    assert (session.status, session.ended_by, session.ended_at) == ("ended", "host", at)


def test_a_session_whose_agent_has_a_wrong_clock_does_not_end_before_it_began(database: Database) -> None:
    first = begun(database)
    ended(database, first.session, "host", first.started_at - timedelta(days=1))
    assert row(database, first.session).ended_at == first.started_at


def test_only_the_agent_that_leads_can_end_a_session(database: Database) -> None:
    first = begun(database)
    begun(database)
    with database.write() as connection:
        assert not sessions.end(connection, DEFAULT_SPACE, first.session, "room_closed", AT, epoch=1)
        assert sessions.end(connection, DEFAULT_SPACE, first.session, "room_closed", AT, epoch=2)


@pytest.mark.parametrize("status", ["created", "live"])
def test_a_session_that_nobody_hears_of_ends_with_its_last_word(database: Database, status: str) -> None:
    silent, heard = begun(database, ago=timedelta(minutes=5)), begun(database, "RM_2", "retro")
    last_heard = silent.started_at + timedelta(minutes=3)
    changed(database, silent.session, status=status, heard_at=last_heard)
    with database.write() as connection:
        (lost,) = sessions.sweep_candidates(connection, 60.0)
        assert (lost.id, lost.room, lost.sids, lost.heard_at) == (
            silent.session, "planning", ("RM_1",), last_heard,
        )  # fmt: skip
        assert sessions.end_lost(connection, lost.id, lost.heard_at)
        assert not sessions.end_lost(connection, lost.id, lost.heard_at)
        (audit,) = connection.execute(select(AUDIT_EVENT)).all()
    session = row(database, silent.session)
    assert (session.status, session.ended_by, session.ended_at) == ("ended", "agent_lost", last_heard)
    assert (audit.action, audit.subject) == ("session.lost", silent.session)
    assert row(database, heard.session).ended_at is None


def test_a_lost_session_does_not_end_before_what_was_said_in_it(database: Database) -> None:
    first = begun(database)
    Applier(database, first.space, first.session, 1, is_live=False).apply([first, final(1, 0, 70_000)], None)
    with database.write() as connection:
        assert sessions.end_lost(connection, first.session, first.started_at + timedelta(days=1))
    assert row(database, first.session).ended_at == first.started_at + timedelta(milliseconds=70_000)


def test_a_session_that_is_ended_without_its_agent_ended_when_it_was_last_heard_of(
    database: Database,
) -> None:
    first = begun(database)
    heard_at = first.started_at + timedelta(seconds=40)
    changed(database, first.session, heard_at=heard_at)
    with database.write() as connection:
        assert not sessions.end_without_agent(connection, "another", first.session, "api")
        assert sessions.end_without_agent(connection, DEFAULT_SPACE, first.session, "api")
        assert not sessions.end_without_agent(connection, DEFAULT_SPACE, first.session, "host")
    session = row(database, first.session)
    assert (session.status, session.ended_by, session.ended_at) == ("ended", "api", heard_at)


def test_a_lost_session_that_is_ended_for_good_did_not_end_before_what_was_said_in_it(
    database: Database,
) -> None:
    first = begun(database)
    Applier(database, first.space, first.session, 1, is_live=False).apply([first, final(1, 0, 70_000)], None)
    ended(database, first.session, "agent_lost")
    with database.write() as connection:
        assert sessions.end_without_agent(connection, DEFAULT_SPACE, first.session, "api")
    session = row(database, first.session)
    assert (session.ended_by, session.ended_at) == ("api", first.started_at + timedelta(milliseconds=70_000))


def test_a_session_that_a_successor_took_is_not_ended_as_lost(database: Database) -> None:
    first = begun(database)
    heard_at = first.started_at - timedelta(minutes=2)
    changed(database, first.session, heard_at=heard_at)
    begun(database)
    with database.write() as connection:
        assert not sessions.end_lost(connection, first.session, heard_at)


def test_an_agent_that_was_taken_for_lost_makes_its_session_live_again(database: Database) -> None:
    first = begun(database)
    for reason, status in (("agent_lost", "live"), ("host", "ended")):
        heard_at = first.started_at - timedelta(minutes=2)
        changed(database, first.session, heard_at=heard_at)
        ended(database, first.session, reason)
        with database.write() as connection:
            sessions.touch(connection, DEFAULT_SPACE, first.session)
        session = row(database, first.session)
        assert session.status == status
        assert (session.heard_at > heard_at) == (status == "live")


@pytest.mark.parametrize("reason", ["room_closed", "agent_lost", "idle"])
def test_a_session_that_never_went_live_can_end_and_go_on(database: Database, reason: str) -> None:
    first = begun(database)
    second = begun(database)
    assert (second.session, row(database, first.session).status) == (first.session, "created")
    assert ended(database, first.session, reason, now(database))
    session = row(database, first.session)
    assert (session.status, session.ended_by) == ("ended", reason)
    assert (begun(database).session == first.session) == (reason != "idle")


def test_a_session_is_live_from_the_first_batch_of_its_live_job_on(database: Database) -> None:
    first = begun(database)
    Applier(database, first.space, first.session, 1, is_live=False).apply([first], None)
    assert row(database, first.session).status == "created"
    Applier(database, first.space, first.session, 1).apply([first], None)
    assert row(database, first.session).status == "live"


def test_a_successor_without_the_database_is_merged_into_a_session_that_never_went_live(
    database: Database,
) -> None:
    first = begun(database, ago=timedelta(minutes=2))
    record = provisional(epoch=1_700_000_000, started_at=first.started_at + timedelta(seconds=30))
    assert registered(database, record).session_id == first.session
    assert row(database, first.session).status == "created"
    Applier(database, record.space, record.session, record.epoch).apply([record], None)
    assert row(database, first.session).status == "live"


# --- Agents that left nothing ---------------------------------------------------------------------------


def settled_orphans(database: Database, *journals: tuple[str, int], worker: str = "worker-1") -> int:
    with database.write() as connection:
        return sessions.settle_orphans(connection, worker, set(journals), 60.0)


def is_complete(database: Database, session: str) -> bool:
    with database.read() as connection:
        return catalogue.is_complete(connection, DEFAULT_SPACE, session)


def test_an_agent_that_left_no_journal_is_settled_when_its_session_is_over(database: Database) -> None:
    first = begun(database, ago=timedelta(minutes=2))
    changed(database, first.session, heard_at=now(database))
    assert settled_orphans(database) == 0
    ended(database, first.session, "room_closed", now(database))
    assert not is_complete(database, first.session)
    assert settled_orphans(database, (first.session, 1)) == 0
    assert settled_orphans(database, worker="worker-2") == 0
    assert settled_orphans(database, (first.session, 2), ("another", 1)) == 1
    assert settled_orphans(database) == 0
    assert is_complete(database, first.session)


def test_an_agent_that_left_no_journal_is_settled_when_another_one_leads(database: Database) -> None:
    first = begun(database, ago=timedelta(minutes=2))
    begun(database)
    assert settled_orphans(database) == 1
    with database.read() as connection:
        detail = catalogue.get_session(connection, DEFAULT_SPACE, first.session)
    assert detail is not None
    assert [epoch.settled_at is not None for epoch in detail.epochs] == [True, False]


def test_an_agent_that_left_no_journal_is_settled_when_nobody_hears_of_it(database: Database) -> None:
    begun(database, ago=timedelta(minutes=2))
    assert settled_orphans(database) == 1


def test_an_agent_that_has_just_begun_is_not_settled(database: Database) -> None:
    first = begun(database, ago=timedelta(seconds=50))
    ended(database, first.session, "room_closed", now(database))
    assert settled_orphans(database) == 0


# --- Segments of audio ----------------------------------------------------------------------------------


def stem(track: str) -> Stem:
    return Stem(
        track=track, number=1, identity="anna", path=f"{track}.ogg", sample_rate_hz=48_000, start_ms=0
    )


def test_only_segments_of_agents_that_are_gone_are_completed(database: Database) -> None:
    dead, alive = begun(database), begun(database, "RM_2", "retro")
    for record, track in ((dead, "TR_1"), (alive, "TR_2")):
        applied(database, record, stem(track))
    with database.write() as connection:
        sessions.settle(connection, DEFAULT_SPACE, dead.session, 1)
        assert stems.open_stems(connection, "worker-2", limit=10) == []
        (found,) = stems.open_stems(connection, "worker-1", limit=10)
        assert (found.session_id, found.track, found.path) == (dead.session, "TR_1", "TR_1.ogg")
        stems.close_stem(connection, found, duration_ms=500, size_bytes=2_000, ended_by="crash")
        assert stems.open_stems(connection, "worker-1", limit=10) == []
        kept = {row.track: row for row in connection.execute(select(STEM)).all()}
    assert (kept["TR_1"].duration_ms, kept["TR_1"].ended_by) == (500, "crash")
    assert kept["TR_2"].duration_ms is None


def test_so_many_segments_are_completed_at_once_and_no_more(database: Database) -> None:
    dead = begun(database)
    applied(database, dead, *(stem(f"TR_{number}") for number in range(5)))
    with database.write() as connection:
        sessions.settle(connection, DEFAULT_SPACE, dead.session, 1)
        assert len(stems.open_stems(connection, "worker-1", limit=3)) == 3


# --- The wall between spaces ----------------------------------------------------------------------------


def test_nothing_is_changed_from_another_space(database: Database) -> None:
    add_space(database, "other")
    first = begun(database, ago=timedelta(minutes=1))
    applied(database, first, stem("TR_1"), final(1))
    before = row(database, first.session)
    with database.write() as connection:
        assert sessions.placement(connection, "other", first.session, 1) is None
        assert sessions.placement(connection, DEFAULT_SPACE, first.session, 1) is not None
        sessions.touch(connection, "other", first.session)
        sessions.settle(connection, "other", first.session, 1)
        assert stems.open_stems(connection, "worker-1", limit=10) == []
    assert row(database, first.session) == before
    stranger = Applier(database, "other", first.session, 1)
    with pytest.raises(JournalError, match="lost its beginning"):
        stranger.apply([final(2)], None)
    assert stranger.apply([first.model_copy(update={"space": "other"}), final(2)], None) != []
    with database.read() as connection:
        detail = catalogue.get_session(connection, DEFAULT_SPACE, first.session)
    assert detail is not None
    assert detail.finals == 1


# --- Looking up ---------------------------------------------------------------------------------------


def numbered(database: Database, count: int) -> list[str]:
    """Sessions that began one after the other, three at a time, the newest first."""
    records = [
        provisional(
            session=f"{number:04}",
            room="retro" if number % 2 else "planning",
            room_sid=f"RM_{number}",
            started_at=AT + timedelta(seconds=number // 3),
        )
        for number in range(count)
    ]
    for record in records:
        registered(database, record)
    return [record.session for record in reversed(records)]


def test_the_pages_of_a_list_hold_every_session_once(database: Database) -> None:
    expected = numbered(database, 10)
    for room, wanted in ((None, expected), ("retro", [one for one in expected if int(one) % 2])):
        found: list[str] = []
        after = None
        with database.read() as connection:
            while True:
                page = catalogue.list_sessions(connection, DEFAULT_SPACE, room=room, after=after, limit=4)
                found += [one.id for one in page.items]
                if (after := page.next) is None:
                    break
                assert len(page.items) == 4
        assert found == wanted


def test_a_session_is_shown_with_everything_that_belongs_to_it(database: Database) -> None:
    first = begun(database)
    failure = Failure(id="f1", stage="stt", code="timeout", message="No answer in 5 s.", at=AT)
    anna = Presence(identity="anna", name="Anna", joined_ms=10, left_ms=500)
    ben = Presence(identity="ben", name="Ben", joined_ms=20)
    gap = Gap(start_ms=100, end_ms=200, identity="ben", reason="stt_down")
    stems = [
        Stem(
            track="TR_1", number=number, identity="anna", path=f"{number}.ogg", sample_rate_hz=48_000,
            start_ms=0, duration_ms=duration_ms, size_bytes=duration_ms,
        )
        for number, duration_ms in ((1, 3_000), (2, 4_000), (3, None))
    ]  # fmt: skip
    usage = Usage(identity="anna", speech_ms=1_000, stt_ms=1_200)
    Applier(database, first.space, first.session, 1).apply(
        [first, final(1), final(2), failure, anna, ben, gap, *stems, usage], None
    )
    second = begun(database)
    Applier(database, second.space, second.session, 2).apply([second, usage], None)
    with database.read() as connection:
        shown = catalogue.get_session(connection, DEFAULT_SPACE, first.session)
        assert catalogue.get_session(connection, DEFAULT_SPACE, "unknown") is None
    assert shown is not None
    assert (shown.summary.id, shown.summary.room, shown.summary.languages) == (
        first.session, "planning", ("en",),
    )  # fmt: skip
    assert shown.sids == ("RM_1",)
    assert [(one.epoch, one.agent, one.published_as) for one in shown.epochs] == [
        (1, "agent-1", first.session),
        (2, "agent-1", first.session),
    ]
    assert shown.presences == (anna, ben)
    assert shown.finals == 2
    assert gap in shown.gaps
    assert (shown.stems, shown.stems_ms, shown.stems_bytes) == (3, 7_000, 7_000)
    assert type(shown.stems_ms) is int
    assert shown.usage == (Usage(identity="anna", speech_ms=2_000, stt_ms=2_400),)
    assert shown.failures == (failure,)


def test_a_merged_session_is_shown_as_what_it_became(database: Database) -> None:
    first = begun(database, ago=timedelta(minutes=2))
    record = provisional(started_at=first.started_at + timedelta(seconds=90))
    registered(database, record)
    with database.read() as connection:
        shown = catalogue.get_session(connection, DEFAULT_SPACE, record.session)
    assert shown is not None
    assert shown.summary.id == first.session
    assert shown.epochs[1].published_as == record.session


def many(database: Database) -> None:
    """Many sessions that are over, in many rooms."""
    sessions_of_a_year = [
        {
            "id": f"{number:04}",
            "space_id": DEFAULT_SPACE,
            "room": f"room {number % 50}",
            "status": "ended",
            "epoch": 1,
            "languages": ["en"],
            "started_at": AT + timedelta(hours=number),
            "heard_at": AT + timedelta(hours=number),
            "ended_by": "room_closed",
        }
        for number in range(2_000)
    ]
    with database.write() as connection:
        connection.execute(insert(SESSION), sessions_of_a_year)


@pytest.mark.parametrize(("room", "index"), [(None, "session_by_start"), ("room 7", "session_by_room")])
def test_a_page_of_sessions_is_read_from_an_index(database: Database, room: str | None, index: str) -> None:
    many(database)
    with plans(database) as found, database.read() as connection:
        page = catalogue.list_sessions(connection, DEFAULT_SPACE, room=room, limit=2)
        catalogue.list_sessions(connection, DEFAULT_SPACE, room=room, limit=2, after=page.next)
    assert len(found) == 2
    for plan in found:
        assert index in plan
        assert not sorts(plan)


def test_the_sweeper_reads_an_index(database: Database) -> None:
    many(database)
    with plans(database) as found, database.read() as connection:
        sessions.sweep_candidates(connection, 60.0)
    assert "session_by_status" in found[-1]


def test_what_recovery_looks_for_is_read_from_indexes(database: Database) -> None:
    many(database)
    with database.write() as connection:
        ids = connection.execute(select(SESSION.c.id)).scalars().all()
        connection.execute(
            insert(EPOCH),
            [
                {
                    "published_as": one, "published_epoch": 1, "session_id": one, "epoch": 1,
                    "space_id": DEFAULT_SPACE, "agent": "", "worker": "worker-1", "began_at": AT,
                    "settled_at": AT, "shift_ms": 0, "journal_segment": 1, "journal_offset_bytes": 0,
                }
                for one in ids
            ],
        )  # fmt: skip
        connection.execute(
            insert(STEM),
            [
                {
                    "session_id": one, "epoch": 1, "track": "TR_1", "number": 1, "space_id": DEFAULT_SPACE,
                    "identity": "anna", "worker": "worker-1", "path": "", "sample_rate_hz": 48_000,
                    "start_ms": 0, "duration_ms": 1, "ended_by": "",
                }
                for one in ids
            ],
        )  # fmt: skip
    with plans(database) as found, database.read() as connection:
        stems.open_stems(connection, "worker-1", limit=10)
        sessions.settle_orphans(connection, "worker-1", set(), 60.0)
    assert "stem_open" in found[0]
    assert "session_epoch_by_session" in found[0]
    assert "session_epoch_unsettled" in found[-1]


def taken_over(database: Database, cut_ms: int, **last_seqs: int) -> Opening:
    with database.write() as connection:
        opening = sessions.begin(
            connection,
            space=DEFAULT_SPACE,
            room="planning",
            room_sid="RM_1",
            worker="worker-2",
            languages=["en"],
            new_id=uuid4().hex,
            cut_ms=cut_ms,
            last_seqs=last_seqs,
        )
    assert isinstance(opening, Opening)
    return opening


def test_agent_that_takes_over_begins_where_the_one_before_stopped_hearing_and_nothing_was_missed(
    database: Database,
):
    first = begun(database, ago=timedelta(seconds=60))
    opening = taken_over(database, cut_ms=58_500)
    assert (opening.begun.session, opening.begun.epoch) == (first.session, 2)
    assert opening.begun.offset_ms == 58_500
    # Its clock is that of the session: what it has heard since the cut lies in the past.
    assert opening.now_ms == pytest.approx(60_000, abs=2_000)
    assert gaps(database) == []


def test_cut_that_a_clock_has_put_into_the_future_does_not_move_session_time(database: Database):
    begun(database, ago=timedelta(seconds=60))
    opening = taken_over(database, cut_ms=10_000_000)
    assert opening.begun.offset_ms == opening.now_ms


def test_number_that_viewers_have_got_is_not_given_again_though_the_database_does_not_know_it(
    database: Database,
):
    first = begun(database)
    opening = taken_over(database, 0, **{first.session: 41, "another-session": 99})
    assert opening.next_seq == 42


def test_numbers_of_an_agent_that_left_nothing_here_are_not_given_again(database: Database):
    """It may have said more than the database knows: its journal is on a disk that is not ours."""
    begun(database)
    with database.write() as connection:
        first = sessions.begin(
            connection, space=DEFAULT_SPACE, room="planning", room_sid="RM_1", worker="worker-2",
            languages=["en"], new_id=uuid4().hex, seq_until=141,
        )  # fmt: skip
        assert isinstance(first, Opening)
        assert first.next_seq == 142
        sessions.settle(connection, DEFAULT_SPACE, first.begun.session, first.begun.epoch)
        # All that this one said is here.
        second = sessions.begin(
            connection, space=DEFAULT_SPACE, room="planning", room_sid="RM_1", worker="worker-2",
            languages=["en"], new_id=uuid4().hex, seq_until=242,
        )  # fmt: skip
        assert isinstance(second, Opening)
        assert second.next_seq == 1


def test_session_whose_room_got_another_sid_is_found_by_both(database: Database):
    session = begun(database).session
    for _ in range(2):
        with database.write() as connection:
            sessions.add_sid(connection, DEFAULT_SPACE, session, "RM_2")
    assert begun(database, room_sid="RM_2", room="another name").session == session
    assert begun(database, room_sid="RM_1", room="another name").session == session
