"""From records to rows."""

from collections.abc import Callable, Hashable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Table, event, select

from agent.errors import DatabaseAwayError, JournalError
from persistence import sessions
from persistence.apply import Applier, Refusal
from persistence.database import Database
from persistence.position import Position
from persistence.records import (
    Begun,
    Ended,
    Failure,
    Final,
    Gap,
    Presence,
    Record,
    Stem,
    Usage,
)
from persistence.rows import GAP, PARTICIPANT, PROCESSING_ERROR, SESSION, STEM, USAGE, UTTERANCE

AT = datetime(2026, 3, 1, 9, 0, tzinfo=UTC)
KEPT = (UTTERANCE, PARTICIPANT, GAP, STEM, USAGE, PROCESSING_ERROR)
# As long as a message may be, with what a database or a terminal may stumble over.
HARD = ["a\0b", "\U0001f600" * 1_000, "\u202e\u05d0\u05d1", "\n\r'\"\\%s:name", "\ufeff", "x" * 100_000, ""]


def begun(**changes: Any) -> Begun:
    return Begun(
        **{
            "session": uuid4().hex,
            "epoch": 1,
            "room": "planning",
            "room_sid": f"RM_{uuid4().hex}",
            "agent": "agent-1",
            "worker": "worker-1",
            "languages": ("en",),
            "started_at": AT,
            "offset_ms": 0,
            "is_provisional": True,
            **changes,
        }
    )


def final(number: int = 1, revision: int = 1, **changes: Any) -> Final:
    return Final(
        **{
            "id": f"1-{number}",
            "revision": revision,
            "seq": number,
            "identity": "anna",
            "name": "Anna",
            "text": f"Revision {revision}.",
            "language": "en",
            "confidence": 0.5,
            "has_overlap": False,
            "start_ms": 1_000 * number,
            "end_ms": 1_000 * number + 900,
            "at": AT,
            **changes,
        }
    )


def stem(number: int = 1, **changes: Any) -> Stem:
    return Stem(
        **{
            "track": "TR_1",
            "number": number,
            "identity": "anna",
            "path": f"{number}.ogg",
            "sample_rate_hz": 48_000,
            "start_ms": 0,
            **changes,
        }
    )


def new_applier(database: Database, record: Begun, *, is_live: bool = True) -> Applier:
    applier = Applier(database, record.space, record.session, record.epoch, is_live=is_live)
    assert applier.apply([record], None) == []
    return applier


def rows(database: Database, table: Table, session: str) -> list[Any]:
    with database.read() as connection:
        found = connection.execute(select(table).where(table.c.session_id == session)).all()
    return sorted(found, key=repr)


def one(database: Database, table: Table, session: str) -> Any:
    (found,) = rows(database, table, session)
    return found


def session_row(database: Database, session: str) -> Any:
    with database.read() as connection:
        return connection.execute(select(SESSION).where(SESSION.c.id == session)).one()


# --- One kind at a time -------------------------------------------------------------------------------


def test_a_final_is_kept_as_its_newest_revision(database: Database) -> None:
    record = begun()
    applier = new_applier(database, record)
    applier.apply([final(1, 1), final(1, 3), final(1, 2), final(2, 1)], None)
    applier.apply([final(1, 2), final(1, 3, text="Another third.")], None)
    assert [(row.id, row.revision, row.text) for row in rows(database, UTTERANCE, record.session)] == [
        ("1-1", 3, "Revision 3."),
        ("1-2", 1, "Revision 1."),
    ]


def test_a_successor_may_revise_what_was_said_before_it(database: Database) -> None:
    record = begun()
    new_applier(database, record).apply([final(1)], None)
    later = record.model_copy(update={"epoch": 2, "offset_ms": 60_000})
    new_applier(database, later).apply([final(1, 2), final(1, 1, id="2-1")], None)
    assert [(row.id, row.epoch, row.revision) for row in rows(database, UTTERANCE, record.session)] == [
        ("1-1", 1, 2),
        ("2-1", 2, 1),
    ]


def test_who_has_left_is_not_back_by_an_older_record(database: Database) -> None:
    record = begun()
    applier = new_applier(database, record)
    came = Presence(identity="anna", name="Anna", joined_ms=5)
    renamed = came.model_copy(update={"name": "Anna B."})
    left = renamed.model_copy(update={"left_ms": 90})
    for records in ([came], [renamed], [left], [came], [left, renamed]):
        applier.apply(records, None)
    row = one(database, PARTICIPANT, record.session)
    assert (row.name, row.joined_ms, row.left_ms) == ("Anna B.", 5, 90)


def test_a_closed_stem_is_not_open_again(database: Database) -> None:
    record = begun()
    applier = new_applier(database, record)
    opened = stem(start_ms=100)
    closed = stem(start_ms=120, duration_ms=60_000, size_bytes=240_000, ended_by="full")
    for records in ([opened], [closed, opened], [opened]):
        applier.apply(records, None)
    row = one(database, STEM, record.session)
    assert (row.start_ms, row.duration_ms, row.size_bytes, row.ended_by, row.worker) == (
        120, 60_000, 240_000, "full", "worker-1",
    )  # fmt: skip


def test_a_gap_grows_and_usage_too(database: Database) -> None:
    record = begun()
    applier = new_applier(database, record)
    for at in (2, 3, 1):
        applier.apply(
            [
                Gap(start_ms=5, end_ms=at * 10, reason="stt_down"),
                Usage(identity="anna", speech_ms=at * 100, stt_ms=at * 110),
            ],
            None,
        )
    assert one(database, GAP, record.session).end_ms == 30
    usage = one(database, USAGE, record.session)
    assert (usage.speech_ms, usage.stt_ms) == (300, 330)


def test_a_failure_is_told_once(database: Database) -> None:
    record = begun()
    failure = Failure(id=uuid4().hex, stage="stt", code="timeout", message="No answer in 5 s.", at=AT)
    applier = new_applier(database, record)
    applier.apply([failure, failure], None)
    applier.apply([failure], None)
    row = one(database, PROCESSING_ERROR, record.session)
    assert (row.stage, row.code, row.message, row.at, row.is_read) == (
        "stt", "timeout", "No answer in 5 s.", AT, False,
    )  # fmt: skip


def test_the_end_of_a_session_is_told_by_who_leads_it(database: Database) -> None:
    first = begun()
    second = first.model_copy(update={"epoch": 2, "offset_ms": 60_000})
    over = Ended(reason="room_closed", end_ms=90_000, at=AT + timedelta(seconds=90))
    old, new = new_applier(database, first), new_applier(database, second)
    old.apply([over], None)
    assert session_row(database, first.session).status == "live"
    new.apply([over], None)
    new.apply([over.model_copy(update={"reason": "idle"})], None)
    row = session_row(database, first.session)
    assert (row.status, row.ended_by, row.ended_at) == ("ended", "room_closed", over.at)


def test_why_a_session_ended_is_known_better_than_by_its_silence(database: Database) -> None:
    record = begun()
    applier = new_applier(database, record, is_live=False)
    with database.write() as connection:
        assert sessions.end_lost(connection, record.session, AT + timedelta(days=1))
    applier.apply([Ended(reason="host", end_ms=90_000, at=AT + timedelta(seconds=90))], None)
    row = session_row(database, record.session)
    assert (row.ended_by, row.ended_at) == ("host", AT + timedelta(seconds=90))


def test_only_a_live_job_gives_signs_of_life(database: Database) -> None:
    record = begun()
    new_applier(database, record, is_live=False).apply([final(1)], Position(1, 10))
    assert session_row(database, record.session).heard_at == AT
    before = datetime.now(UTC) - timedelta(seconds=5)
    Applier(database, record.space, record.session, record.epoch).apply([], None)
    assert session_row(database, record.session).heard_at > before


def test_what_began_without_the_database_is_moved_to_where_it_belongs(database: Database) -> None:
    first = begun()
    new_applier(database, first).apply([final(1)], None)
    second = begun(room_sid=first.room_sid, started_at=AT + timedelta(seconds=60), worker="worker-2")
    failure = Failure(id=uuid4().hex, stage="stt", code="timeout", message="No answer.", at=AT)
    applier = new_applier(database, second)
    applier.apply(
        [
            final(1, 2),
            Presence(identity="anna", name="Anna", joined_ms=5, left_ms=10),
            Presence(identity="ben", name="Ben", joined_ms=5),
            Gap(start_ms=5, end_ms=10, reason="stt_down"),
            stem(start_ms=5, duration_ms=10),
            Usage(identity="anna", speech_ms=5, stt_ms=10),
            failure,
        ],
        Position(1, 10),
    )
    session = first.session
    assert [(row.id, row.epoch, row.start_ms, row.end_ms) for row in rows(database, UTTERANCE, session)] == [
        ("1-1", 1, 1_000, 1_900),
        ("2-1", 2, 61_000, 61_900),
    ]
    anna, ben = rows(database, PARTICIPANT, session)
    assert (anna.epoch, anna.joined_ms, anna.left_ms) == (2, 60_005, 60_010)
    assert (ben.joined_ms, ben.left_ms) == (60_005, None)
    gap, kept_stem = one(database, GAP, session), one(database, STEM, session)
    assert (gap.start_ms, gap.end_ms) == (60_005, 60_010)
    assert (kept_stem.start_ms, kept_stem.duration_ms, kept_stem.worker) == (60_005, 10, "worker-2")
    assert one(database, USAGE, session).speech_ms == 5
    assert one(database, PROCESSING_ERROR, session).id == failure.id
    for table in KEPT:
        assert rows(database, table, second.session) == []
    assert applier.watermark() == Position(1, 10)


# --- The journal --------------------------------------------------------------------------------------


def test_a_drain_begins_where_the_database_is_and_never_goes_back(database: Database) -> None:
    record = begun()
    applier = Applier(database, record.space, record.session, record.epoch)
    assert applier.watermark() == Position(1, 0)
    applier.apply([record], Position(1, 100))
    applier.apply([final(1)], Position(2, 50))
    applier.apply([final(1)], Position(1, 900))
    applier.apply([final(1)], None)
    drainer = Applier(database, record.space, record.session, record.epoch, is_live=False)
    assert drainer.watermark() == Position(2, 50)
    assert drainer.apply([final(2)], Position(2, 60)) == []
    assert applier.watermark() == Position(2, 60)
    assert len(rows(database, UTTERANCE, record.session)) == 2


def test_a_journal_without_a_beginning_is_taken_only_where_it_is_known(database: Database) -> None:
    record = begun()
    stranger = Applier(database, record.space, record.session, record.epoch, is_live=False)
    with pytest.raises(JournalError, match=f"{record.session}-1 has lost its beginning"):
        stranger.apply([final(1)], None)
    new_applier(database, record)
    assert stranger.apply([final(1)], None) == []


def test_a_batch_is_written_as_a_whole_or_not_at_all(database: Database) -> None:
    record = begun()
    applier = new_applier(database, record)

    def fail(*_: Any) -> None:
        raise DatabaseAwayError("gone")

    event.listen(database.engine, "commit", fail)
    with pytest.raises(DatabaseAwayError):
        applier.apply([final(1)], Position(1, 10))
    event.remove(database.engine, "commit", fail)
    assert rows(database, UTTERANCE, record.session) == []
    assert applier.watermark() == Position(1, 0)
    assert applier.apply([final(1)], Position(1, 10)) == []


def test_a_beginning_that_was_not_committed_is_made_again(database: Database) -> None:
    record = begun()
    applier = Applier(database, record.space, record.session, record.epoch)

    def fail(*_: Any) -> None:
        raise DatabaseAwayError("gone")

    event.listen(database.engine, "commit", fail)
    with pytest.raises(DatabaseAwayError):
        applier.apply([record, final(1)], None)
    event.remove(database.engine, "commit", fail)
    assert applier.apply([record, final(1)], None) == []
    assert len(rows(database, UTTERANCE, record.session)) == 1


def test_a_batch_takes_a_statement_for_each_kind_of_record(database: Database) -> None:
    record = begun()
    applier = new_applier(database, record)
    statements: list[str] = []
    event.listen(
        database.engine,
        "before_cursor_execute",
        lambda _connection, _cursor, statement, *_: statements.append(statement.split()[0]),
    )
    applier.apply(
        [final(1), stem(1), final(2), final(1, 2), stem(2), Gap(start_ms=1, end_ms=2, reason="stt_down")],
        Position(1, 10),
    )
    assert [word for word in statements if word != "BEGIN"] == ["INSERT"] * 3 + ["UPDATE"] * 2


# --- What is refused ----------------------------------------------------------------------------------


def test_what_the_database_refuses_keeps_nothing_else_from_it(database: Database) -> None:
    record = begun()
    applier = new_applier(database, record)
    batch = [
        final(1),
        final(2, text="A secret.", confidence=0.5, start_ms=2**70),
        Gap(start_ms=1, end_ms=2, reason="stt_down"),
        final(3, id="not ours"),
        stem(1, duration_ms=2**64),
        final(4),
    ]
    for _ in range(2):
        assert applier.apply(batch, Position(1, 500)) == [
            Refusal(1, "final"),
            Refusal(3, "final"),
            Refusal(4, "stem"),
        ]
    assert [row.id for row in rows(database, UTTERANCE, record.session)] == ["1-1", "1-4"]
    assert len(rows(database, GAP, record.session)) == 1
    # It stays before what was refused, so that the journal is kept by whoever drains it.
    assert applier.watermark() < Position(1, 500)
    applier.apply([final(5)], Position(1, 600))
    assert applier.watermark() < Position(1, 500)
    told = rows(database, PROCESSING_ERROR, record.session)
    assert len(told) == 3
    for row in told:
        assert (row.stage, row.code) == ("persistence", "refused")
        assert f"{record.session}-1" in row.message
        assert "secret" not in row.message


def test_a_journal_of_an_unknown_space_is_refused_as_a_whole(database: Database) -> None:
    record = begun(space="unknown")
    applier = Applier(database, record.space, record.session, record.epoch)
    assert applier.apply([record, final(1)], Position(1, 10)) == [Refusal(0, "begun"), Refusal(1, "final")]
    assert applier.watermark() == Position(1, 0)


@pytest.mark.parametrize("text", [*HARD, "\ud800 alone"], ids=lambda text: ascii(text)[:12])
def test_any_text_is_kept(database: Database, text: str) -> None:
    record = begun(room=text.encode(errors="replace").decode())
    applier = new_applier(database, record)
    # What a journal holds has no lone surrogates, but a caption that goes to the database directly may.
    batch = [
        final(1).model_copy(update={"text": text, "name": text, "identity": text}),
        Presence(identity="a", name="", joined_ms=0).model_copy(update={"identity": text, "name": text}),
        Usage(identity="a", speech_ms=1, stt_ms=1).model_copy(update={"identity": text}),
        Gap(start_ms=0, end_ms=1, reason="a").model_copy(update={"identity": text, "reason": text}),
        stem(1).model_copy(update={"identity": text, "track": text, "path": text}),
        Failure(id="a", stage="", code="", message="", at=AT).model_copy(
            update={"id": f"{record.session}{text}", "stage": text, "code": text, "message": text}
        ),
    ]
    for _ in range(2):
        assert applier.apply(batch, Position(1, 10)) == []
    clean = text.replace("\0", "\ufffd").replace("\ud800", "?")
    kept = one(database, UTTERANCE, record.session)
    assert kept.text == clean
    assert kept.identity == one(database, PARTICIPANT, record.session).identity
    assert len(kept.identity.encode()) <= 512
    for table in KEPT:
        assert len(rows(database, table, record.session)) == 1


def test_names_that_are_too_long_for_an_index_stay_apart(database: Database) -> None:
    record = begun()
    names = ["é" * 5_000 + end for end in ("a", "b")]
    new_applier(database, record).apply(
        [Presence(identity=name, name="", joined_ms=0) for name in names], None
    )
    assert len(rows(database, PARTICIPANT, record.session)) == 2


# --- The law ------------------------------------------------------------------------------------------

# Few keys, so that they meet.
NAMES = st.sampled_from(["a\0", "\U0001f600"])
SMALL = st.integers(0, 3)


def key_of(record: Record) -> Hashable:
    match record:
        case Final():
            return "final", record.id
        case Presence():
            return "presence", record.identity, record.joined_ms
        case Gap():
            return "gap", record.start_ms, record.identity, record.reason
        case Stem():
            return "stem", record.track, record.number
        case Usage():
            return "usage", record.identity
        case Failure():
            return "failure", record.id
        case _:
            return record.kind


def rank_of(record: Record) -> int:
    """The higher one wins; records of the same rank and key are alike."""
    match record:
        case Final():
            return record.revision
        case Presence():
            return -1 if record.left_ms is None else record.left_ms
        case Gap():
            return record.end_ms
        case Stem():
            return -1 if record.duration_ms is None else record.duration_ms
        case Usage():
            return record.speech_ms
        case _:
            return 0


def a_presence(identity: str, joined_ms: int, left_ms: int | None) -> Presence:
    return Presence(identity=identity, name=f"{identity} {left_ms}", joined_ms=joined_ms, left_ms=left_ms)


def a_failure(number: int) -> Failure:
    return Failure(id=f"f{number}", stage="stt", code="timeout", message="No answer.", at=AT)


RECORDS: list[st.SearchStrategy[Record]] = [
    st.builds(final, st.integers(1, 2), st.integers(1, 4)),
    st.builds(a_presence, NAMES, st.integers(0, 1), st.none() | SMALL),
    st.builds(Gap, start_ms=st.just(0), end_ms=SMALL, identity=NAMES, reason=st.just("stt_down")),
    st.builds(
        lambda number, duration_ms: stem(number, duration_ms=duration_ms, path=f"{duration_ms}"),
        st.integers(1, 2),
        st.none() | SMALL,
    ),
    st.builds(lambda identity, ms: Usage(identity=identity, speech_ms=ms, stt_ms=2 * ms), NAMES, SMALL),
    st.builds(a_failure, SMALL),
    st.just(Ended(reason="room_closed", end_ms=9, at=AT)),
]
OF_ONE_KIND = st.one_of(*(st.lists(kind, min_size=2, max_size=8) for kind in RECORDS))
OF_ALL = st.lists(st.one_of(*RECORDS), max_size=25)


def everything(database: Database, session: str) -> list[list[tuple[Any, ...]]]:
    """What is kept of a session, without its own id."""
    row = session_row(database, session)
    kept = [[(row.status, row.epoch, row.ended_at, row.ended_by)]]
    for table in KEPT:
        kept.append(
            [
                tuple(
                    str(value).removeprefix(session)
                    for name, value in row._mapping.items()
                    if name != "session_id"
                )
                for row in rows(database, table, session)
            ]
        )
    return kept


def applied(database: Database, batches: Sequence[Sequence[Record]]) -> list[list[tuple[Any, ...]]]:
    record = begun()

    def own(one: Record) -> Record:
        """A failure's id is its own in the whole database."""
        return one.model_copy(update={"id": record.session + one.id}) if isinstance(one, Failure) else one

    for number, batch in enumerate(batches):
        # Now and then somebody else goes on.
        if number % 3 == 0:
            applier = new_applier(database, record, is_live=False)
        assert applier.apply([own(one) for one in batch], None) == []
    if not batches:
        new_applier(database, record, is_live=False)
    return everything(database, record.session)


def check_law(database: Database, records: list[Record], choose: Callable[[int], int]) -> None:
    """Whatever the batches and whatever is applied again, each key's winner is what is kept."""
    winners: dict[Hashable, Record] = {}
    for record in records:
        before = winners.get(key_of(record))
        if before is None or rank_of(record) > rank_of(before):
            winners[key_of(record)] = record
    # Every prefix may be applied again, here by somebody who knows nothing of the watermark.
    again = [*records[: choose(len(records))], *records, *records[: choose(len(records))]]
    batches = []
    while again:
        size = 1 + choose(len(again) - 1)
        batches.append(again[:size])
        again = again[size:]
    assert applied(database, batches) == applied(database, [list(winners.values())])


@given(records=OF_ONE_KIND | OF_ALL, data=st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_records_give_the_same_rows_however_often_and_in_which_order_they_come(
    database: Database, records: list[Record], data: st.DataObject
) -> None:
    check_law(database, records, lambda most: data.draw(st.integers(0, most)))
