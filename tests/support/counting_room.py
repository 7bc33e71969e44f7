"""Rooms in which somebody speaks without an end, with the engine that counts; and what was kept of them."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import select

from agent.cli.local_livekit import LocalLiveKit
from agent.config import Settings
from agent.ingest.meeting import load_meeting
from agent.room.dispatch import Rooms
from agent.room.player import SAMPLE_RATE_HZ, Playback, Talker
from agent.values import Samples
from persistence import sessions, transcripts
from persistence.database import Database
from persistence.journal.folder import journals
from persistence.journal.reading import read_segments, start
from persistence.records import DEFAULT_SPACE, Final
from persistence.sessions import SessionDetail
from persistence.tables import SCHEMA
from tests.support.gathering import Reader, reading
from tests.support.meetings import INCIDENT_REVIEW

__all__ = [
    "SPEAKER",
    "as_kept",
    "as_seen",
    "column",
    "counting_room",
    "finals_in_database",
    "finals_in_journal",
    "session_of",
    "speaking",
    "speech",
]

SPEAKER = "Nora"
SESSION = SCHEMA.tables["session"]


def speech() -> Samples:
    """Somebody who speaks most of the time."""
    return load_meeting(INCIDENT_REVIEW, end_s=10).tracks[SPEAKER][SAMPLE_RATE_HZ:]


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


def as_seen(captions: Iterable[dict[str, Any]]) -> list[tuple[object, ...]]:
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
            (summary,) = sessions.list_sessions(connection, DEFAULT_SPACE, room=room).items
            detail = sessions.get_session(connection, DEFAULT_SPACE, summary.id)
    finally:
        database.close()
    assert detail is not None
    return detail


def column(settings: Settings, table: str, *names: str) -> Sequence[Any]:
    """Some columns of all rows of a table."""
    database = Database(settings.database_url)
    try:
        with database.read() as connection:
            return connection.execute(select(SCHEMA.tables[table].c[names])).all()
    finally:
        database.close()
