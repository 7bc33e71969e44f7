"""Runs of analyses in the database: who wants one, how far one is, and what it came to."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy import func, insert, select, update

from agent.analysis.evidence import Drop
from agent.analysis.statement import Evidence, Statement
from agent.errors import DatabaseError
from agent.values import Speaker
from persistence import analyses, sessions
from persistence.analyses import Run, Wanting
from persistence.database import Database
from persistence.records import DEFAULT_SPACE, Begun
from persistence.rows import ANALYSIS, EVIDENCE, PROCESSING_ERROR, SESSION, STATEMENT
from tests.support.plans import plans, sorts
from tests.support.stored_session import add_space

AT = datetime(2026, 3, 1, 9, 0, 0, 123456, tzinfo=UTC)
ANNA, BEN = Speaker("anna", "Anna"), Speaker("ben", "Ben \U0001f600")
FOUND = [
    Statement(
        kind="action",
        text="Ben schickt die Mail. \U0001f600",
        evidence=(
            Evidence("1-2", 0, 10, ANNA, "Ben schick", 1_000, 1_500),
            Evidence("1-10", 4, 9, ANNA, "die M", 2_000, 2_100),
        ),
        owner=BEN,
        due="bis Freitag",
        confidence=0.1,
        support="lexical",
    ),
    Statement(
        kind="decision",
        text="Wir nehmen zwei Prozent.",
        evidence=(Evidence("1-3", 0, 24, BEN, "Wir nehmen zwei Prozent.", 3_000, 4_000),),
        owner=None,
        due="",
        confidence=1.0,
        support="lexical",
    ),
]
FIGURES = {"duration_ms": 60_000, "participations": [{"identity": "anna", "talk_share": 0.5}]}


def live(database: Database, at: datetime = AT, space: str = DEFAULT_SPACE) -> str:
    """A session that began and was last heard of at this time."""
    begun = Begun(
        session=uuid4().hex, epoch=1, space=space, room=f"room {uuid4().hex}", room_sid=f"RM_{uuid4().hex}",
        agent="agent-1", worker="worker-1", languages=("de",), started_at=at, offset_ms=0,
        is_provisional=True,
    )  # fmt: skip
    with database.write() as connection:
        sessions.register(connection, begun)
    return begun.session


def end(database: Database, session: str, at: datetime, reason: str = "room_closed") -> None:
    with database.write() as connection:
        space = connection.execute(select(SESSION.c.space_id).where(SESSION.c.id == session)).scalar_one()
        assert sessions.end(connection, space, session, reason, at)


def ended(database: Database, at: datetime = AT, space: str = DEFAULT_SPACE) -> str:
    session = live(database, at, space)
    end(database, session, at + timedelta(minutes=5))
    return session


def wanting(database: Database, limit: int = 10, heard_since: datetime | None = None) -> list[Wanting]:
    with database.read() as connection:
        return analyses.wanting(connection, limit=limit, heard_since=heard_since)


def begin(database: Database, wants: Wanting) -> Run:
    with database.write() as connection:
        run_id = analyses.begin(
            connection, wants, scenario="meeting", scenario_version=1, engine="extractive", language="de"
        )
    return get(database, run_id)


def get(database: Database, run_id: str) -> Run:
    with database.read() as connection:
        run = analyses.get(connection, run_id)
    assert run is not None
    return run


def a_run(database: Database, space: str = DEFAULT_SPACE) -> Run:
    session = ended(database, space=space)
    return begin(database, next(wants for wants in wanting(database) if wants.session_id == session))


def store(database: Database, run: Run, found: list[Statement]) -> None:
    with database.write() as connection:
        analyses.store(
            connection, run, found, claims=5, drops={Drop.NUMBER: 3}, statistics=FIGURES, keywords=["Mail"]
        )


def statements(database: Database, run: Run, space: str = DEFAULT_SPACE) -> list[Statement]:
    with database.read() as connection:
        return analyses.statements(connection, space, run.id)


def fail(database: Database, run: Run) -> None:
    with database.write() as connection:
        analyses.fail(connection, run, "database_away", "The step analyse has failed.")


def retry(database: Database, run: Run) -> bool:
    with database.write() as connection:
        return analyses.retry(connection, run)


# --- Who wants an analysis --------------------------------------------------------------------------------


def test_session_that_has_ended_wants_an_analysis_and_no_other_one(database: Database) -> None:
    over = ended(database)
    live(database)
    merged = ended(database)
    with database.write() as connection:
        connection.execute(
            update(SESSION).where(SESSION.c.id == merged).values(status="merged", merged_into=over)
        )
    assert wanting(database) == [Wanting(DEFAULT_SPACE, over, AT + timedelta(minutes=5), 0)]


def test_session_of_whose_end_there_is_a_run_wants_no_other_whatever_became_of_it(database: Database) -> None:
    run = a_run(database)
    assert wanting(database) == []
    fail(database, run)
    assert wanting(database) == []


def test_lost_session_that_went_on_wants_a_new_version_once_it_has_ended_again(database: Database) -> None:
    session = live(database)
    end(database, session, AT + timedelta(minutes=5), sessions.AGENT_LOST)
    first = begin(database, wanting(database)[0])
    end(database, session, AT + timedelta(minutes=9))
    [wants] = wanting(database)
    assert wants == Wanting(DEFAULT_SPACE, session, AT + timedelta(minutes=9), 1)
    second = begin(database, wants)
    assert (first.version, second.version) == (1, 2)
    assert wanting(database) == []


def test_sessions_that_were_heard_last_come_first_and_not_more_than_wanted(database: Database) -> None:
    old, new, middle = (ended(database, AT + timedelta(hours=hours)) for hours in (0, 2, 1))
    assert [wants.session_id for wants in wanting(database)] == [new, middle, old]
    assert [wants.session_id for wants in wanting(database, limit=2)] == [new, middle]
    since = AT + timedelta(hours=1)
    assert [wants.session_id for wants in wanting(database, heard_since=since)] == [new, middle]


def test_sessions_of_all_spaces_are_analysed_and_each_in_its_own(database: Database) -> None:
    add_space(database, "other")
    ended(database, AT), ended(database, AT + timedelta(hours=1), "other")
    assert [wants.space_id for wants in wanting(database)] == ["other", DEFAULT_SPACE]
    assert {begin(database, wants).space_id for wants in wanting(database)} == {"other", DEFAULT_SPACE}


# --- The life of a run ------------------------------------------------------------------------------------


def test_run_that_somebody_else_has_begun_is_refused(database: Database) -> None:
    ended(database)
    [wants] = wanting(database)
    first = begin(database, wants)
    with pytest.raises(DatabaseError, match="refuses"):
        begin(database, wants)
    with database.read() as connection:
        assert connection.execute(select(ANALYSIS.c.id)).scalars().all() == [first.id]


def test_run_begins_with_nothing_and_is_unfinished_until_its_end(database: Database) -> None:
    run = a_run(database)
    assert (run.status, run.step, run.attempt, run.version) == ("pending", "", 1, 1)
    assert (run.scenario, run.scenario_version, run.engine, run.language) == (
        "meeting", 1, "extractive", "de",
    )  # fmt: skip
    assert (run.incomplete, run.statistics, run.keywords, run.claims, run.drops) == ([], {}, [], 0, {})
    with database.write() as connection:
        analyses.step(connection, run.id, "settle")
    run = get(database, run.id)
    assert (run.status, run.step) == ("running", "settle")
    with database.read() as connection:
        assert analyses.unfinished(connection, limit=10) == [run]
    with database.write() as connection:
        analyses.finish(connection, run.id, ["recording", "journal", "recording"])
    run = get(database, run.id)
    assert (run.status, run.step, run.incomplete) == ("done", "", ["journal", "recording"])
    with database.read() as connection:
        assert analyses.unfinished(connection, limit=10) == []


def test_oldest_runs_go_on_first_and_not_more_than_wanted(database: Database) -> None:
    runs = [a_run(database) for _ in range(3)]
    with database.write() as connection:
        for age, run in enumerate(runs):
            connection.execute(
                update(ANALYSIS).where(ANALYSIS.c.id == run.id).values(created_at=AT - timedelta(days=age))
            )
    with database.read() as connection:
        unfinished = analyses.unfinished(connection, limit=2)
    assert [run.id for run in unfinished] == [runs[2].id, runs[1].id]


def test_run_that_is_finished_twice_ended_the_first_time(database: Database) -> None:
    run = a_run(database)
    ends = []
    for _ in range(2):
        with database.write() as connection:
            analyses.finish(connection, run.id, [])
        ends.append(get(database, run.id).finished_at)
    assert ends[0] is not None
    assert ends[0] == ends[1]


def test_failure_is_told_to_an_admin_once_an_attempt(database: Database) -> None:
    run = a_run(database)
    fail(database, run)
    fail(database, run)
    assert get(database, run.id).status == "failed"
    assert retry(database, run)
    fail(database, get(database, run.id))
    with database.read() as connection:
        errors = connection.execute(select(PROCESSING_ERROR).order_by(PROCESSING_ERROR.c.id)).all()
    assert [error.id for error in errors] == [f"{run.id}-1", f"{run.id}-2"]
    assert {
        (error.space_id, error.session_id, error.stage, error.code, error.is_read) for error in errors
    } == {(DEFAULT_SPACE, run.session_id, "analysis", "database_away", False)}


def test_why_a_run_has_failed_is_told_as_long_as_it_has(database: Database) -> None:
    def problem(run: Run) -> str:
        with database.read() as connection:
            return analyses.problem(connection, run)

    run = a_run(database)
    assert problem(run) == ""
    fail(database, run)
    failed = get(database, run.id)
    assert problem(failed) == "The step analyse has failed."
    assert retry(database, failed)
    assert problem(get(database, run.id)) == ""


def test_only_a_failed_run_is_tried_again_from_its_first_step(database: Database) -> None:
    run = a_run(database)
    assert not retry(database, run)
    with database.write() as connection:
        analyses.step(connection, run.id, "mix")
    assert not retry(database, run)
    fail(database, run)
    assert get(database, run.id).step == "mix"
    assert retry(database, run)
    assert not retry(database, run)
    again = get(database, run.id)
    assert (again.status, again.step, again.attempt, again.finished_at) == ("pending", "", 2, None)
    with database.write() as connection:
        analyses.finish(connection, run.id, [])
    assert not retry(database, run)


# --- What a run came to -----------------------------------------------------------------------------------


def test_statements_are_read_back_as_they_were_stored_and_in_their_order(database: Database) -> None:
    run = a_run(database)
    found = FOUND * 6  # the tenth comes after the second
    store(database, run, found)
    assert statements(database, run) == found
    run = get(database, run.id)
    assert (run.claims, run.drops, run.statistics, run.keywords) == (5, {"number": 3}, FIGURES, ["Mail"])


def test_statement_stored_twice_is_there_once(database: Database) -> None:
    run, another = a_run(database), a_run(database)
    store(database, another, FOUND)
    store(database, run, FOUND)
    store(database, run, FOUND[1:])
    assert statements(database, run) == FOUND[1:]
    assert statements(database, another) == FOUND
    with database.read() as connection:
        rows = [
            connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in (STATEMENT, EVIDENCE)
        ]
    assert rows == [3, 4]


def test_run_that_found_nothing_is_stored(database: Database) -> None:
    run = a_run(database)
    store(database, run, FOUND)
    store(database, run, [])
    assert statements(database, run) == []


def test_newest_run_is_the_one_that_counts(database: Database) -> None:
    session = live(database)
    runs = []
    for minutes in (5, 6, 7):
        end(database, session, AT + timedelta(minutes=minutes), sessions.AGENT_LOST)
        runs.append(begin(database, wanting(database)[0]))
    other = a_run(database)
    unanalysed = ended(database)
    with database.read() as connection:
        assert analyses.newest(connection, DEFAULT_SPACE, session) == runs[-1]
        assert analyses.newest(connection, DEFAULT_SPACE, unanalysed) is None
        assert analyses.newest_of(
            connection, DEFAULT_SPACE, [session, other.session_id, unanalysed, "unknown"]
        ) == {session: runs[-1], other.session_id: other}
        assert analyses.newest_of(connection, DEFAULT_SPACE, []) == {}


def test_nothing_is_seen_or_tried_again_from_another_space(database: Database) -> None:
    add_space(database, "other")
    run = a_run(database)
    store(database, run, FOUND)
    fail(database, run)
    with database.write() as connection:
        assert analyses.newest(connection, "other", run.session_id) is None
        assert analyses.newest_of(connection, "other", [run.session_id]) == {}
        assert analyses.statements(connection, "other", run.id) == []
        stranger = Run(**{name: getattr(run, name) for name in Run.__slots__} | {"space_id": "other"})
        assert not analyses.retry(connection, stranger)
    assert statements(database, run) == FOUND
    assert get(database, run.id).status == "failed"


# --- How it is found --------------------------------------------------------------------------------------


def many(database: Database) -> None:
    """Many sessions that are over; nearly all of them are analysed."""
    times = [AT + timedelta(hours=number) for number in range(2_000)]
    over = [
        {
            "id": f"{number:04}", "space_id": DEFAULT_SPACE, "room": f"room {number % 50}", "status": "ended",
            "epoch": 1, "languages": ["en"], "started_at": at, "heard_at": at, "ended_at": at,
            "ended_by": "room_closed",
        }
        for number, at in enumerate(times)
    ]  # fmt: skip
    runs = [
        {
            "id": f"run {session['id']}", "space_id": DEFAULT_SPACE, "session_id": session["id"],
            "version": 1, "scenario": "meeting", "scenario_version": 1, "engine": "extractive",
            "language": "en", "status": "done", "step": "", "attempt": 1,
            "session_ended_at": session["ended_at"], "created_at": session["ended_at"],
            "finished_at": session["ended_at"], "incomplete": [],
            "statistics": {}, "keywords": [], "claims": 0, "drops": {},
        }
        for session in over[:-3]
    ]  # fmt: skip
    with database.write() as connection:
        connection.execute(insert(SESSION), over)
        connection.execute(insert(ANALYSIS), runs)


def test_sessions_that_want_an_analysis_are_read_from_indexes(database: Database) -> None:
    many(database)
    with plans(database) as found, database.read() as connection:
        since = AT + timedelta(hours=1_990)
        assert len(analyses.wanting(connection, limit=10, heard_since=since)) == 3
    [plan] = found
    assert "session_by_status" in plan
    assert "analysis_by_session" in plan


def test_runs_that_are_to_go_on_are_read_from_an_index(database: Database) -> None:
    many(database)
    with plans(database) as found, database.read() as connection:
        assert analyses.unfinished(connection, limit=10) == []
    [plan] = found
    assert "analysis_unfinished" in plan
    assert not sorts(plan)


def test_newest_runs_of_a_page_are_read_from_an_index(database: Database) -> None:
    many(database)
    with plans(database) as found, database.read() as connection:
        assert len(analyses.newest_of(connection, DEFAULT_SPACE, ["0001", "0002"])) == 2
    [plan] = found
    assert "analysis_by_session" in plan
