"""One room's process: from the job that LiveKit assigns to a live session.

Everything here is importable without side effects and picklable, since the worker's fork server imports it
once for all rooms.
"""

import asyncio
import contextlib
import os
import time
import uuid
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial

import structlog
from livekit.agents import AutoSubscribe, JobContext, JobProcess
from livekit.local_inference import VAD, init_vad

from agent.config import Settings
from agent.errors import DatabaseError, JournalError
from agent.recording.recorder import Recorder
from agent.room.publisher import RoomPublisher
from agent.room.source import RoomSource
from agent.session.announcer import SessionIdentity
from agent.session.limits import SessionLimits
from agent.session.session import Session
from agent.telemetry.logs import configure_structlog
from agent.transcription.transcriber import Transcriber
from agent.values import SAMPLE_RATE_HZ
from persistence import sessions
from persistence.apply import Applier
from persistence.database import Database
from persistence.database_thread import DatabaseThread
from persistence.journal.drain import drain_all, is_there
from persistence.journal.writer import Journal, JournalLimits
from persistence.records import DEFAULT_SPACE, Begun
from persistence.session_store import SessionStore
from persistence.sessions import Opening, Refused
from plugins.stt import load_engine

__all__ = ["LEAVE_TIMEOUT_S", "enter", "leave", "prewarm"]

log = structlog.get_logger(__name__)

LEAVE_TIMEOUT_S = 35.0  # more than a session takes to give out its last finals and to keep them
ROOM_SPEAKS_S = 0.5
CLOSE_TIMEOUT_S = 2.0
BEGIN_TIMEOUT_S = 3.0  # for the database to answer; a session can begin without it
PREDECESSOR_S = 0.5  # to wait for somebody else who drains what an agent before us has left
PREDECESSOR_POLL_S = 0.02
STEM_SAMPLE_RATE_HZ = 48_000  # what WebRTC sends

ENGINE = "engine"
SESSION = "session"
RUNNING = "running"


def prewarm(settings: Settings, process: JobProcess) -> None:
    """Load the models before a room needs them.

    Raises:
        EngineError: The speech engine cannot be loaded.
    """
    configure_structlog()
    init_vad()
    engine = load_engine(settings.stt.engines[0], settings.stt)
    engine.prewarm()
    process.userdata[ENGINE] = engine


async def enter(settings: Settings, worker: str, context: JobContext) -> None:
    """Join the room and begin its session; returns when that is set up, as LiveKit's shutdown asks for.

    Args:
        settings: Those of the worker.
        worker: What the worker is called.
        context: LiveKit's, of this job.
    """
    structlog.contextvars.bind_contextvars(room=context.job.room.name, job=context.job.id)
    database = DatabaseThread(Database.of(settings))
    opening = await _open(settings, worker, context, database)
    opened_s = asyncio.get_running_loop().time()
    if isinstance(opening, Refused):
        log.info("session.refused", reason=f"the room's session was ended: {opening.reason}")
        database.close()
        context.shutdown("session ended before")
        return
    begun = opening.begun
    structlog.contextvars.bind_contextvars(session=begun.session)
    is_recorded = _is_recorded(settings, opening)
    source = RoomSource(
        context.room,
        settings.room,
        sample_rate_hz=STEM_SAMPLE_RATE_HZ if is_recorded else SAMPLE_RATE_HZ,
    )
    try:
        await context.connect(auto_subscribe=AutoSubscribe.SUBSCRIBE_NONE)
    except Exception as error:  # noqa: BLE001  whatever it is, there is no session, and the job is over
        # A room that was closed while we were on our way, or a server that is gone.
        # Its message is not logged: it may hold the address that we joined by, and that the token.
        log.warning("room.not_joined", error=type(error).__name__)
        await _give_back(begun, database)
        context.shutdown("room not joined")
        return
    source.start()
    store = _new_store(settings, begun, database)
    session = Session(
        source,
        publisher := RoomPublisher(context.room),
        Transcriber(context.proc.userdata[ENGINE]),
        store,
        _new_recorder(settings, begun, store) if is_recorded else None,
        SessionIdentity(
            begun.session,
            begun.epoch,
            context.room.local_participant.identity,
            offset_ms=begun.offset_ms + round((asyncio.get_running_loop().time() - opened_s) * 1000),
            first_seq=opening.next_seq,
        ),
        limits=_limits(settings, opening),
        languages=begun.languages,
        new_detector=VAD,
        partials_per_s=settings.captions.partials_per_s,
    )
    context.proc.userdata[SESSION] = session
    context.proc.userdata[RUNNING] = asyncio.create_task(
        _live(context, source, publisher, store, session), name="session"
    )
    log.info("session.started", pid=os.getpid(), epoch=begun.epoch, provisional=begun.is_provisional)


async def leave(context: JobContext) -> None:
    """End the session, if there is one, and wait until its last captions are out."""
    running = context.proc.userdata.get(RUNNING)
    if running is None:
        return
    # A room that closes ends its job too, often before it says so itself; and that is the better reason.
    await asyncio.wait((running,), timeout=ROOM_SPEAKS_S)
    context.proc.userdata[SESSION].end("job_ended")
    await asyncio.wait((running,), timeout=LEAVE_TIMEOUT_S)


async def _live(
    context: JobContext, source: RoomSource, publisher: RoomPublisher, store: SessionStore, session: Session
) -> None:
    try:
        async with store, publisher:
            report = await session.run()
        log.info(
            "session.ended",
            failed_sends=publisher.failed,
            dropped_notes=store.dropped_notes,
            **asdict(report),
        )
    except Exception:
        # The job ends with the session; who dispatched it sees the room without its agent.
        log.exception("session.failed")
    finally:
        # First of all, so that nothing below can keep the job alive.
        context.shutdown("session ended")
        await source.aclose()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await context.proc.userdata[ENGINE].aclose()


async def _open(
    settings: Settings, worker: str, context: JobContext, database: DatabaseThread
) -> Opening | Refused:
    """Take the room's next epoch from the database; without it, begin a session that it will place later."""
    room = context.job.room
    new_id = uuid.uuid4().hex

    def begin() -> Opening | Refused:
        _drain_predecessor(settings, database.database, room.name)
        with database.database.write() as connection:
            return sessions.begin(
                connection,
                space=DEFAULT_SPACE,
                room=room.name,
                room_sid=room.sid,
                worker=worker,
                languages=[settings.stt.language],
                new_id=new_id,
                agent=context.local_participant_identity,
            )

    try:
        return await database.call(begin, BEGIN_TIMEOUT_S)
    except DatabaseError as error:
        log.warning("session.begins_without_database", problem=str(error))
    begun = Begun(
        session=new_id,
        # Higher than any that the database has given for this room, and than an earlier one of this kind.
        epoch=int(time.time()),
        room=room.name,
        room_sid=room.sid,
        agent=context.local_participant_identity,
        worker=worker,
        languages=(settings.stt.language,),
        started_at=datetime.now(UTC),
        offset_ms=0,
        is_provisional=True,
    )
    return Opening(begun, 1, None)


async def _give_back(begun: Begun, database: DatabaseThread) -> None:
    """Nothing comes of an epoch that was taken."""
    settle = Applier(database.database, begun.space, begun.session, begun.epoch).settle
    try:
        await database.call(settle, BEGIN_TIMEOUT_S)
    except DatabaseError as error:
        log.warning("database.away", problem=str(error))
    database.close()


def _drain_predecessor(settings: Settings, database: Database, room: str) -> None:
    """Bring over what an agent that died here left of this room: numbers and times go on after it."""
    deadline_s = time.monotonic() + PREDECESSOR_S
    try:
        while is_there(settings.journal_dir, room) and time.monotonic() < deadline_s:
            if not drain_all(settings.journal_dir, database, room=room):
                time.sleep(PREDECESSOR_POLL_S)  # the worker is at it, or that agent lives
    except JournalError as error:
        log.warning("journal.not_drained", problem=str(error))


def _new_store(settings: Settings, begun: Begun, database: DatabaseThread) -> SessionStore:
    limits = JournalLimits(max_bytes=settings.journal.max_mb * 1_000_000)
    return SessionStore(
        begun,
        partial(Journal.create, settings.journal_dir, begun, limits),
        database,
        sync=settings.journal.sync,
        sync_interval_s=settings.journal.sync_interval_ms / 1000,
        # In the order in which they began, so that a later one is placed in the session of an earlier one.
        prepare=partial(_drain_predecessor, settings, database.database, begun.room)
        if begun.is_provisional
        else None,
    )


def _new_recorder(settings: Settings, begun: Begun, store: SessionStore) -> Recorder:
    return Recorder(
        settings.stems_dir,
        space=begun.space,
        session=begun.session,
        epoch=begun.epoch,
        bitrate_kbps=settings.recording.bitrate_kbps,
        min_free_mb=settings.recording.min_free_mb,
        on_stem=store.note,
    )


def _is_recorded(settings: Settings, opening: Opening) -> bool:
    room = opening.room_config
    return settings.recording.enabled if room is None or room.is_recorded is None else room.is_recorded


def _limits(settings: Settings, opening: Opening) -> SessionLimits:
    """Those of the room, and those of the settings where the room has none of its own."""
    names = ("idle_s", "max_duration_s", "max_participants")
    of_room = {name: getattr(opening.room_config, name, None) for name in names}
    of_settings = settings.limits.model_dump()
    return SessionLimits(
        **of_settings | {name: value for name, value in of_room.items() if value is not None}
    )
