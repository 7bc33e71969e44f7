"""What was said in a session, as it is read back."""

from datetime import UTC, datetime
from uuid import uuid4

from persistence import transcripts
from persistence.apply import Applier
from persistence.database import Database
from persistence.records import DEFAULT_SPACE, Begun, Final, Gap
from persistence.transcripts import FinalCursor
from tests.support.plans import plans, sorts

AT = datetime(2026, 3, 1, 9, 0, 0, 123456, tzinfo=UTC)


def final(caption_id: str, start_ms: int) -> Final:
    return Final(
        id=caption_id,
        revision=2,
        seq=5,
        identity="anna",
        name="Anna",
        text="Guten Morgen. \U0001f600",
        language="de",
        confidence=0.25,
        has_overlap=True,
        start_ms=start_ms,
        end_ms=start_ms + 900,
        at=AT,
    )


def keep(database: Database, *records: Final | Gap) -> str:
    begun = Begun(
        session=uuid4().hex,
        epoch=1,
        room="planning",
        room_sid=f"RM_{uuid4().hex}",
        agent="agent-1",
        worker="worker-1",
        languages=("de",),
        started_at=AT,
        offset_ms=0,
        is_provisional=True,
    )
    assert Applier(database, begun.space, begun.session, begun.epoch).apply([begun, *records], None) == []
    return begun.session


def test_a_transcript_is_in_the_order_of_time_and_of_captions(database: Database) -> None:
    in_order = [final("1-2", 0), final("1-10", 0), final("9-1", 0), final("10-1", 0), final("1-1", 40)]
    session = keep(database, *reversed(in_order))
    keep(database, final("1-3", 7))
    with database.read() as connection:
        assert list(transcripts.iter_finals(connection, DEFAULT_SPACE, session)) == in_order
        assert list(transcripts.iter_finals(connection, "other", session)) == []


def test_the_pages_of_a_transcript_hold_every_final_once(database: Database) -> None:
    kept = [final(f"1-{number}", number // 3) for number in range(1, 12)]
    session = keep(database, *kept)
    for limit in (1, 4, 11, 12):
        found: list[Final] = []
        after: FinalCursor | None = None
        with database.read() as connection:
            while True:
                page = transcripts.finals(connection, DEFAULT_SPACE, session, after=after, limit=limit)
                found += page.items
                if (after := page.next) is None:
                    break
                assert len(page.items) == limit
        assert found == kept


def test_a_transcript_of_many_pages_is_read_to_its_end(database: Database) -> None:
    kept = [final(f"1-{number}", number) for number in range(1, 2 * transcripts.PAGE_FINALS + 2)]
    session = keep(database, *kept)
    with database.read() as connection:
        assert list(transcripts.iter_finals(connection, DEFAULT_SPACE, session)) == kept


def test_gaps_are_in_the_order_of_time(database: Database) -> None:
    in_order = [
        Gap(start_ms=5, end_ms=9, reason="stt_down"),
        Gap(start_ms=5, end_ms=7, identity="anna", reason="not_permitted"),
        Gap(start_ms=10, end_ms=12, reason="stt_down"),
    ]
    session = keep(database, *reversed(in_order))
    with database.read() as connection:
        assert transcripts.gaps(connection, DEFAULT_SPACE, session) == tuple(in_order)
        assert transcripts.gaps(connection, "other", session) == ()


def test_a_page_of_a_transcript_is_read_from_an_index(database: Database) -> None:
    session = keep(database, *(final(f"1-{number}", number) for number in range(1, 2_000)))
    with plans(database) as found, database.read() as connection:
        page = transcripts.finals(connection, DEFAULT_SPACE, session, limit=2)
        transcripts.finals(connection, DEFAULT_SPACE, session, limit=2, after=page.next)
    assert len(found) == 2
    for plan in found:
        assert "utterance_by_time" in plan
        assert not sorts(plan)
