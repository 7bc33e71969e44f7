"""The promise: nothing that a viewer saw as final is ever lost, whoever is killed at whatever moment."""

import asyncio
import json
import os
import random
import sys

from agent.cli.local_livekit import LocalLiveKit
from agent.config import Settings
from agent.ingest.meeting import load_meeting
from agent.room.player import Player
from benchmarks.chaos import Room, look_for, torment, until_drained
from tests.support.counting_room import (
    LIMIT_S,
    as_kept,
    as_seen,
    counting_room,
    finals_in_database,
    finals_in_journal,
    serving,
    session_of,
    speech,
)
from tests.support.gathering import Reader, reading, until
from tests.support.meetings import INCIDENT_REVIEW
from tests.support.worker import RunningWorker

ROOMS = 4
KILLS = 20
BEHIND_MS = 1_000  # what the recording may lack of what was said before a kill
BUSY_MS = 1_000  # what audio takes from a speaker to the recording where other tests have the processors


async def exported(worker: RunningWorker, session: str) -> dict[str, object]:
    """What `roomscribe export` gives of a session."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "agent", "export", session, "--format", "json"),
        cwd=worker.data_dir,
        env={**os.environ, "ROOMSCRIBE_DATA_DIR": str(worker.data_dir)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    found: dict[str, object] = json.loads(output)
    return found


async def assert_everywhere_the_same(settings: Settings, worker: RunningWorker, reader: Reader) -> None:
    """What a viewer saw as final is in the journal, in the database and in the export, and nothing else."""
    session = reader.finals[0]["session"]
    seen = as_seen(reader.finals)
    assert as_kept(finals_in_journal(settings, session))[: len(seen)] == seen
    await until(
        lambda: as_kept(finals_in_database(settings, session))[: len(seen)] == seen,
        what="the same finals in the database",
    )
    finals = (await exported(worker, session))["finals"]
    assert isinstance(finals, list)
    # In the order in which it was said, and without the number of the event.
    assert {final[1:] for final in as_seen({"seq": None, **final} for final in finals)} >= {
        final[1:] for final in seen
    }


async def test_every_final_that_a_viewer_saw_is_the_same_in_journal_database_and_export(
    livekit: LocalLiveKit, counting_worker: RunningWorker, room_name: str
):
    async with serving(livekit, counting_worker) as (settings, rooms):
        async with counting_room(livekit, rooms, room_name) as reader:
            for count in range(1, 11):
                await until(lambda count=count: len(reader.finals) >= count, what="another final")
                seen = as_seen(reader.finals)
                kept = as_kept(finals_in_journal(settings, reader.finals[0]["session"]))
                assert kept[: len(seen)] == seen
            await assert_everywhere_the_same(settings, counting_worker, reader)
        session = reader.finals[0]["session"]
        await until(lambda: session_of(settings, room_name).summary.ended_at, what="the session's end")
        kept = as_kept(finals_in_database(settings, session))
        assert kept[: len(reader.finals)] == as_seen(reader.finals)
        assert [final[0] for final in kept] == list(range(1, len(kept) + 1))
        await until(lambda: not any(settings.journal_dir.glob(f"{session}-*")), what="the end of its journal")


async def test_what_somebody_says_is_the_same_in_journal_database_and_export(
    livekit: LocalLiveKit, worker: RunningWorker, room_name: str
):
    opening = load_meeting(INCIDENT_REVIEW, end_s=5)
    async with (
        serving(livekit, worker) as (settings, rooms),
        reading(rooms, livekit.url, room_name) as reader,
        Player(livekit.url, lambda identity: rooms.token(room_name, identity)) as player,
    ):
        await (await player.join({"Nora": opening.tracks["Nora"]})).run()
        await until(
            lambda: "joining" in "".join(final["text"] for final in reader.finals),
            what="what she said",
            limit_s=LIMIT_S,
        )
        await assert_everywhere_the_same(settings, worker, reader)


async def test_finals_that_viewers_saw_survive_twenty_kills_at_random_moments(
    livekit: LocalLiveKit, counting_worker: RunningWorker, room_name: str
):
    async with serving(livekit, counting_worker) as (settings, rooms):
        stages = [Room(f"{room_name}-{number}", rooms, counting_worker) for number in range(ROOMS)]
        dice, words = random.Random(room_name), speech()
        async with asyncio.TaskGroup() as tasks:
            for stage in stages:
                tasks.create_task(torment(stage, livekit.url, words, KILLS // ROOMS, dice))
        await until_drained(settings)
        outcome = await asyncio.to_thread(look_for, settings, stages)
    assert sum(len(stage.kills) for stage in stages) == KILLS
    assert outcome.finals > KILLS
    assert (outcome.lost, outcome.changed, outcome.twice, outcome.unplayable) == ([], [], [], [])
    assert max(outcome.behind_ms) <= BEHIND_MS + BUSY_MS
    # Every agent went on with the session of its room, and said that it was away before.
    for stage in stages:
        detail = session_of(settings, stage.name)
        assert [epoch.epoch for epoch in detail.epochs] == list(range(1, KILLS // ROOMS + 2))
        assert [gap.reason for gap in detail.gaps] == ["agent_away"] * (KILLS // ROOMS)
