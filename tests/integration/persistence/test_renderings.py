"""Audio that was made of a session's stems, and what it is made of."""

from datetime import UTC, datetime
from uuid import uuid4

import pytest
from sqlalchemy import func, insert, select

from agent.errors import DatabaseError
from persistence import renderings
from persistence.apply import Applier
from persistence.database import Database
from persistence.records import DEFAULT_SPACE, Begun, Stem
from persistence.renderings import Rendering, Source
from persistence.rows import RENDERING
from persistence.tables import SCHEMA

AT = datetime(2026, 3, 1, 9, 0, tzinfo=UTC)


def stem(identity: str, number: int, start_ms: int, duration_ms: int | None = 60_000) -> Stem:
    return Stem(
        track=f"TR_{identity}", number=number, identity=identity, path=f"{identity}-{number}.ogg",
        sample_rate_hz=48_000, start_ms=start_ms, duration_ms=duration_ms,
    )  # fmt: skip


def source(identity: str, number: int, start_ms: int) -> Source:
    return Source(identity, "worker-1", f"{identity}-{number}.ogg", 48_000, start_ms, 60_000)


def keep(database: Database, *stems: Stem) -> str:
    begun = Begun(
        session=uuid4().hex, epoch=1, room="planning", room_sid=f"RM_{uuid4().hex}", agent="agent-1",
        worker="worker-1", languages=("en",), started_at=AT, offset_ms=0, is_provisional=True,
    )  # fmt: skip
    assert Applier(database, begun.space, begun.session, begun.epoch).apply([begun, *stems], None) == []
    return begun.session


def put(database: Database, session: str, path: str, kind: str = renderings.LISTENING) -> None:
    with database.write() as connection:
        renderings.put(
            connection, DEFAULT_SPACE, session, path=path, media_type="audio/ogg", duration_ms=3 * 10**9,
            size_bytes=5 * 10**9, kind=kind,
        )  # fmt: skip


def get(database: Database, session: str, kind: str = renderings.LISTENING) -> Rendering | None:
    with database.read() as connection:
        return renderings.get(connection, DEFAULT_SPACE, session, kind)


def count(database: Database) -> int:
    with database.read() as connection:
        return connection.execute(select(func.count()).select_from(RENDERING)).scalar_one()


def test_segments_that_have_ended_are_in_the_order_of_time(database: Database) -> None:
    session = keep(
        database,
        stem("ben", 2, 60_000),
        stem("anna", 1, 0),
        stem("anna", 3, 120_000, duration_ms=None),
        stem("ben", 1, 500),
        stem("anna", 2, 60_000),
    )
    keep(database, stem("greta", 1, 0))
    with database.read() as connection:
        assert renderings.closed_stems(connection, DEFAULT_SPACE, session) == [
            source("anna", 1, 0),
            source("ben", 1, 500),
            source("anna", 2, 60_000),
            source("ben", 2, 60_000),
        ]
        assert renderings.closed_stems(connection, "other", session) == []
        assert renderings.closed_stems(connection, DEFAULT_SPACE, "unknown") == []


def test_rendering_is_read_back_as_it_was_put(database: Database) -> None:
    session = keep(database)
    assert get(database, session) is None
    put(database, session, "a.ogg")
    found = get(database, session)
    assert found is not None
    assert found == Rendering("a.ogg", "audio/ogg", 3 * 10**9, 5 * 10**9, found.made_at)
    assert found.made_at.utcoffset() is not None


def test_rendering_that_is_put_twice_is_there_once_with_what_came_last(database: Database) -> None:
    session, other = keep(database), keep(database)
    put(database, other, "other.ogg")
    put(database, session, "masked.ogg", kind="masked")
    for path in ("a.ogg", "a.ogg", "b.ogg"):
        put(database, session, path)
    assert count(database) == 3
    paths = [
        found.path
        for found in (get(database, session), get(database, session, "masked"), get(database, other))
        if found is not None
    ]
    assert paths == ["b.ogg", "masked.ogg", "other.ogg"]


def test_rendering_is_neither_seen_nor_replaced_from_another_space(database: Database) -> None:
    with database.write() as connection:
        connection.execute(insert(SCHEMA.tables["space"]).values(id="other", name="other", created_at=AT))
    session = keep(database)
    put(database, session, "a.ogg")
    with database.read() as connection:
        assert renderings.get(connection, "other", session) is None
    with pytest.raises(DatabaseError), database.write() as connection:
        renderings.put(
            connection, "other", session, path="b.ogg", media_type="audio/ogg", duration_ms=1, size_bytes=1
        )
    found = get(database, session)
    assert found is not None
    assert found.path == "a.ogg"
