"""How much of what live sessions hear is in finals: the query over all of them, and its gauge."""

import uuid
from contextlib import closing
from datetime import UTC, datetime
from math import isnan
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from agent import reconciler
from agent.cli.local_livekit import LocalLiveKit
from agent.reconciler import Reconciler
from agent.room.dispatch import Rooms
from persistence import schema, sessions
from persistence.apply import Applier
from persistence.database import Database
from persistence.open_rooms import live_coverage
from persistence.records import DEFAULT_SPACE, Begun, Usage
from persistence.sessions import Opening
from tests.support.gathering import settings_for

AT = datetime(2026, 3, 1, 9, 0, tzinfo=UTC)


def begun(database: Database, room: str) -> Begun:
    """A session that is live, or its next epoch."""
    with database.write() as connection:
        opening = sessions.begin(
            connection,
            space=DEFAULT_SPACE,
            room=room,
            room_sid=f"RM_{room}",
            worker="worker-1",
            languages=["en"],
            new_id=uuid.uuid4().hex,
            agent="agent-1",
        )
    assert isinstance(opening, Opening)
    return opening.begun


def used(database: Database, record: Begun, **covered_of_speech_ms: tuple[int, int]) -> None:
    """So much of what each has said in an epoch is in finals."""
    applier = Applier(database, record.space, record.session, record.epoch, is_live=True)
    usages = [
        Usage(identity=identity, speech_ms=speech_ms, covered_ms=covered_ms, stt_ms=speech_ms)
        for identity, (covered_ms, speech_ms) in covered_of_speech_ms.items()
    ]
    assert applier.apply([record, *usages], None) == []


def covered(database: Database) -> float:
    with database.read() as connection:
        return live_coverage(connection)


def test_where_nobody_speaks_all_is_covered(database: Database):
    assert covered(database) == 1.0
    used(database, begun(database, "planning"), nora=(0, 0))
    assert covered(database) == 1.0


def test_coverage_of_all_live_sessions_is_by_speech_and_not_by_session(database: Database):
    used(database, begun(database, "planning"), nora=(9_000, 9_000), omar=(0, 1_000))
    used(database, begun(database, "retro"), ines=(0, 2_000))
    assert covered(database) == pytest.approx(9 / 12)


def test_coverage_of_a_session_is_that_of_all_its_epochs(database: Database):
    used(database, begun(database, "planning"), nora=(1_000, 4_000))
    successor = begun(database, "planning")
    assert successor.epoch == 2
    used(database, successor, nora=(4_000, 4_000))
    assert covered(database) == pytest.approx(5 / 8)


def test_session_that_is_over_counts_no_more(database: Database):
    over = begun(database, "planning")
    used(database, over, nora=(0, 5_000))
    used(database, begun(database, "retro"), ines=(3_000, 4_000))
    assert covered(database) == pytest.approx(3 / 9)
    with database.write() as connection:
        assert sessions.end(connection, DEFAULT_SPACE, over.session, "host", AT)
    assert covered(database) == pytest.approx(3 / 4)


async def test_gauge_tells_the_coverage_of_all_rooms_where_one_looks_after_them_and_nowhere_else(
    livekit: LocalLiveKit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(reconciler, "UNWANTED_S", 0.0)  # it reads each time it looks
    settings = settings_for(livekit, agent_name=f"nobody-{uuid.uuid4().hex[:8]}", data_dir=tmp_path)
    async with Rooms(settings) as rooms:
        with closing(Database.of(settings)) as database:
            schema.upgrade(database)
            begun_here = begun(database, "planning")
            leader, other = (Reconciler(settings, "test", rooms) for _ in range(2))
            with closing(leader), closing(other):
                for covered_ms, expected in ((4_000, 1.0), (4_000, 0.5)):
                    used(database, begun_here, nora=(covered_ms, round(covered_ms / expected)))
                    assert await leader.take_lead()
                    await leader.look()
                    assert gauge() == pytest.approx(expected)
                assert not await other.take_lead()
                await other.look()
                assert isnan(gauge()), "one of all workers tells it"


def gauge() -> float:
    value = REGISTRY.get_sample_value("roomscribe_coverage_ratio")
    assert value is not None
    return value
