"""Rooms in which somebody speaks without an end, with the engine that counts; and what was kept of them."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import Row, select

from agent.cli.local_livekit import LocalLiveKit
from agent.config import Settings
from agent.ingest.meeting import load_meeting
from agent.room.dispatch import Rooms
from agent.room.player import SAMPLE_RATE_HZ, Playback, Talker
from agent.values import Samples
from persistence import catalogue, transcripts
from persistence.catalogue import SessionDetail
from persistence.database import Database
from persistence.journal.folder import journals
from persistence.journal.reading import read_segments, start
from persistence.records import DEFAULT_SPACE, Final
from persistence.tables import SCHEMA
from tests.support.gathering import Reader, reading, settings_for, until
from tests.support.meetings import INCIDENT_REVIEW
from tests.support.worker import RunningWorker

__all__ = [
    "LIMIT_S",
    "SPEAKER",
    "as_kept",
    "as_seen",
    "counting_room",
    "finals_in_database",
    "finals_in_journal",
    "kill_agent",
    "more_finals",
    "says",
    "serving",
    "session_of",
    "speaking",
    "speech",
    "stems_of",
    "until_kept",
]

LIMIT_S = 60.0  # for what takes seconds on a machine that has nothing else to do
SPEAKER = "Nora"


def speech() -> Samples:
    """Somebody who speaks most of the time."""
    return load_meeting(INCIDENT_REVIEW, end_s=10).tracks[SPEAKER][SAMPLE_RATE_HZ:]


@asynccontextmanager
async def serving(
    livekit: LocalLiveKit, worker: RunningWorker, database_url: str = ""
) -> AsyncIterator[tuple[Settings, Rooms]]:
    """What a worker was told, and the rooms that it serves."""
    settings = settings_for(
        livekit, agent_name=worker.agent_name, data_dir=worker.data_dir, database_url=database_url
    )
    async with Rooms(settings) as rooms:
        yield settings, rooms


@asynccontextmanager
async def speaking(
    url: str, rooms: Rooms, room: str, samples: Samples | None = None
) -> AsyncIterator[Talker]:
    """Somebody speaks in a room until the end, where they fall silent and leave."""
    words = speech() if samples is None else samples
    talker = await Talker.join(url, rooms.token(room, SPEAKER))
    microphone = await talker.publish()

    async def speak() -> None:
        while True:
            await Playback({microphone: words}).run()

    task = asyncio.create_task(speak())
    try:
        yield talker
    finally:
        task.cancel()
        await asyncio.wait((task,))
        await talker.leave()


@asynccontextmanager
async def counting_room(livekit: LocalLiveKit, rooms: Rooms, room: str) -> AsyncIterator[Reader]:
    """A room with an agent, somebody who speaks, and somebody who reads along."""
    async with reading(rooms, livekit.url, room) as reader, speaking(livekit.url, rooms, room):
        yield reader


def as_seen(captions: Iterable[Mapping[str, Any]]) -> list[tuple[object, ...]]:
    """What is to be the same everywhere, of captions as viewers get them."""
    return [
        (
            *(caption[key] for key in ("seq", "id", "rev", "text", "lang", "start_ms", "end_ms")),
            *(caption[key] for key in ("confidence", "overlap")),
            caption["speaker"]["identity"],
            caption["speaker"]["name"],
        )
        for caption in captions
    ]


def as_kept(finals: Iterable[Final]) -> list[tuple[object, ...]]:
    """The same of finals as they are kept."""
    return [
        (
            *(final.seq, final.id, final.revision, final.text, final.language, final.start_ms, final.end_ms),
            *(final.confidence, final.has_overlap, final.identity, final.name),
        )
        for final in finals
    ]


def finals_in_journal(settings: Settings, session: str) -> list[Final]:
    """The finals in the journals of a session, which may be live."""
    return [
        entry.record
        for info in journals(settings.journal_dir)
        if info.session == session
        for scan in read_segments(info, start(info))
        for entry in scan.entries
        if isinstance(entry.record, Final)
    ]


def finals_in_database(settings: Settings, session: str) -> list[Final]:
    """The finals of a session by their `seq`."""
    database = Database(settings.database_url)
    try:
        with database.read() as connection:
            found = list(transcripts.iter_finals(connection, DEFAULT_SPACE, session))
    finally:
        database.close()
    return sorted(found, key=lambda final: final.seq)


def session_of(settings: Settings, room: str) -> SessionDetail:
    """The only session that a room has had."""
    database = Database(settings.database_url)
    try:
        with database.read() as connection:
            (summary,) = catalogue.list_sessions(connection, DEFAULT_SPACE, room=room).items
            detail = catalogue.get_session(connection, DEFAULT_SPACE, summary.id)
    finally:
        database.close()
    assert detail is not None
    return detail


def stems_of(settings: Settings, session: str) -> Sequence[Row[Any]]:
    """The segments of a session's audio, in the order in which they were begun."""
    stem = SCHEMA.tables["stem"]
    query = select(stem).where(stem.c.session_id == session).order_by(stem.c.epoch, stem.c.number)
    database = Database(settings.database_url)
    try:
        with database.read() as connection:
            return connection.execute(query).all()
    finally:
        database.close()


async def more_finals(reader: Reader, count: int = 3) -> None:
    """Wait until somebody has read so many more of them."""
    wanted = len(reader.finals) + count
    await until(lambda: len(reader.finals) >= wanted, what="more finals")


def says(reader: Reader, **wanted: object) -> Callable[[], bool]:
    """Whether the newest state is so, to wait for it."""
    return lambda: bool(reader.states) and wanted.items() <= reader.states[-1].items()


async def until_kept(settings: Settings, session: str, finals: Iterable[Mapping[str, Any]]) -> None:
    """Wait until the database has these finals in their order, as they were seen, and no number is missing.

    It may have more: those that come after them, and one that an agent kept when it was killed.
    """
    seen = as_seen(finals)

    def are_kept() -> bool:
        kept = as_kept(finals_in_database(settings, session))
        numbers = [final[0] for final in kept]
        return [final for final in kept if final in seen] == seen and numbers == list(range(1, len(kept) + 1))

    await until(are_kept, what="the same finals in the database", limit_s=LIMIT_S)


def kill_agent(worker: RunningWorker, room: str) -> None:
    """End the process of a room's agent at once."""
    os.kill(worker.logged("session.started", room=room)[-1]["pid"], signal.SIGKILL)
