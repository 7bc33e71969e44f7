"""How a session begins: its epoch is taken from the database, its parts are made as the room wants them."""

import time
import uuid
from datetime import UTC, datetime
from functools import partial

import structlog

from agent.config import Settings
from agent.errors import DatabaseError, JournalError
from agent.recording.recorder import Recorder
from agent.session.limits import SessionLimits
from persistence import sessions
from persistence.apply import Applier
from persistence.database import Database
from persistence.database_thread import DatabaseThread
from persistence.journal.drain import drain_all, is_there, last_seqs
from persistence.journal.writer import Journal, JournalLimits
from persistence.records import DEFAULT_SPACE, Begun
from persistence.session_store import SessionStore
from persistence.sessions import Opening, Refused
from persistence.tables import RoomConfig

__all__ = [
    "give_back",
    "is_recorded",
    "limits_of",
    "new_recorder",
    "new_store",
    "open_session",
    "room_config",
]

log = structlog.get_logger(__name__)

BEGIN_TIMEOUT_S = 4.0  # for the database to answer; a session can begin without it, and its room waits
PREDECESSOR_S = 0.5  # to wait for somebody else who drains what an agent before us has left
PREDECESSOR_POLL_S = 0.02


async def open_session(
    settings: Settings,
    database: DatabaseThread,
    *,
    room: str,
    room_sid: str,
    agent: str,
    worker: str,
    cut_ms: int | None = None,
    seq_until: int = 0,
) -> tuple[Opening, float] | Refused:
    """Take the room's next epoch from the database; without it, begin a session that it will place later.

    Args:
        settings: Those of the worker.
        database: The session's own.
        room: Its name.
        room_sid: The room as LiveKit knows it now.
        agent: The agent's identity in the room.
        worker: What the worker is called.
        cut_ms: Up to where, in session time, the agent before has heard, if it handed over.
        seq_until: The last number that it may have given, where nobody knows better.

    Returns:
        How it begins, and when its session time was 0 on the event loop's clock.
    """
    new_id = uuid.uuid4().hex

    def begin() -> tuple[Opening, float] | Refused:
        seqs = _drain_predecessor(settings, database.database, room)
        with database.database.write() as connection:
            opening = sessions.begin(
                connection,
                space=DEFAULT_SPACE,
                room=room,
                room_sid=room_sid,
                worker=worker,
                languages=[settings.stt.language],
                new_id=new_id,
                agent=agent,
                cut_ms=cut_ms,
                last_seqs=seqs,
                seq_until=seq_until,
            )
            if isinstance(opening, Refused):
                return opening
            # Two clocks are read at once; the transaction may have waited for others before.
            passed = sessions.database_time(connection) - opening.at
            now_s = time.monotonic()  # the event loop's clock
            return opening, now_s - opening.now_ms / 1000 - passed.total_seconds()

    try:
        return await database.call(begin, BEGIN_TIMEOUT_S)
    except DatabaseError as error:
        log.warning("session.begins_without_database", problem=str(error))
    begun = Begun(
        session=new_id,
        # Higher than any that the database has given for this room, and than an earlier one of this kind.
        epoch=int(time.time()),
        room=room,
        room_sid=room_sid,
        agent=agent,
        worker=worker,
        languages=(settings.stt.language,),
        started_at=datetime.now(UTC),
        offset_ms=0,
        is_provisional=True,
    )
    return Opening(begun, 1, None, begun.started_at), time.monotonic()


async def give_back(begun: Begun, database: DatabaseThread) -> None:
    """Nothing comes of an epoch that was taken."""
    settle = Applier(database.database, begun.space, begun.session, begun.epoch).settle
    try:
        await database.call(settle, BEGIN_TIMEOUT_S)
    except DatabaseError as error:
        log.warning("database.away", problem=str(error))


async def room_config(database: DatabaseThread, room: str) -> RoomConfig | None:
    """What is set for a room; None where nothing is, or the database is away."""

    def read() -> RoomConfig | None:
        with database.database.read() as connection:
            return sessions.room_config(connection, DEFAULT_SPACE, room)

    try:
        return await database.call(read, BEGIN_TIMEOUT_S)
    except DatabaseError:
        return None  # as a session that begins without it


def new_store(settings: Settings, begun: Begun, database: DatabaseThread) -> SessionStore:
    """Where a session keeps its records."""
    limits = JournalLimits(max_bytes=settings.journal.max_mb * 1_000_000)

    def drain() -> None:
        _drain_predecessor(settings, database.database, begun.room)

    return SessionStore(
        begun,
        partial(Journal.create, settings.journal_dir, begun, limits),
        database,
        sync=settings.journal.sync,
        sync_interval_s=settings.journal.sync_interval_ms / 1000,
        # In the order in which they began, so that a later one is placed in the session of an earlier one.
        prepare=drain if begun.is_provisional else None,
    )


def new_recorder(settings: Settings, begun: Begun, store: SessionStore) -> Recorder:
    """What writes a session's audio."""
    return Recorder(
        settings.stems_dir,
        space=begun.space,
        session=begun.session,
        epoch=begun.epoch,
        bitrate_kbps=settings.recording.bitrate_kbps,
        min_free_mb=settings.recording.min_free_mb,
        on_stem=store.note,
    )


def is_recorded(settings: Settings, room: RoomConfig | None) -> bool:
    """Whether a room's audio is written down."""
    return settings.recording.enabled if room is None or room.is_recorded is None else room.is_recorded


def limits_of(settings: Settings, room: RoomConfig | None) -> SessionLimits:
    """Those of the room, and those of the settings where the room has none of its own."""
    names = ("idle_s", "max_duration_s", "max_participants")
    of_room = {name: getattr(room, name, None) for name in names}
    of_settings = settings.limits.model_dump()
    return SessionLimits(
        **of_settings | {name: value for name, value in of_room.items() if value is not None}
    )


def _drain_predecessor(settings: Settings, database: Database, room: str) -> dict[str, int]:
    """Bring over what an agent before us left of this room: numbers and times go on after it.

    Returns:
        The last `seq` by session of what cannot be brought over now: an agent holds it that is gone from the
        room, or stands still.
    """
    deadline_s = time.monotonic() + PREDECESSOR_S
    folder = settings.journal_dir
    try:
        while is_there(folder, room) and time.monotonic() < deadline_s:
            if not drain_all(folder, database, room=room):
                time.sleep(PREDECESSOR_POLL_S)
        return last_seqs(folder, room)
    except JournalError as error:
        log.warning("journal.not_drained", problem=str(error))
        return {}
