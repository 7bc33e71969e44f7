"""One room's process: from the job that LiveKit assigns to a live session.

Everything here is importable without side effects and picklable, since the worker's fork server imports it
once for all rooms.
"""

import asyncio
import contextlib
import os
import uuid
from dataclasses import asdict

import structlog
from livekit.agents import AutoSubscribe, JobContext, JobProcess
from livekit.local_inference import VAD, init_vad

from agent.config import Settings
from agent.room.publisher import RoomPublisher
from agent.room.source import RoomSource
from agent.session.announcer import SessionIdentity
from agent.session.session import Session
from agent.telemetry.logs import configure_structlog
from agent.transcription.transcriber import Transcriber
from plugins.stt import load_engine

__all__ = ["LEAVE_TIMEOUT_S", "enter", "leave", "prewarm"]

log = structlog.get_logger(__name__)

LEAVE_TIMEOUT_S = 30.0  # more than a session takes to give out its last finals
CLOSE_TIMEOUT_S = 2.0
FIRST_EPOCH = 1

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


async def enter(settings: Settings, context: JobContext) -> None:
    """Join the room and begin its session; returns when that is set up, as LiveKit's shutdown asks for."""
    session_id = uuid.uuid4().hex
    structlog.contextvars.bind_contextvars(session=session_id, room=context.job.room.name, job=context.job.id)
    source = RoomSource(context.room, settings.room)
    try:
        await context.connect(auto_subscribe=AutoSubscribe.SUBSCRIBE_NONE)
    except Exception as error:  # noqa: BLE001  whatever it is, there is no session, and the job is over
        # A room that was closed while we were on our way, or a server that is gone.
        # Its message is not logged: it may hold the address that we joined by, and that the token.
        log.warning("room.not_joined", error=type(error).__name__)
        context.shutdown("room not joined")
        return
    source.start()
    session = Session(
        source,
        publisher := RoomPublisher(context.room),
        Transcriber(context.proc.userdata[ENGINE]),
        SessionIdentity(session_id, FIRST_EPOCH, context.room.local_participant.identity),
        languages=[settings.stt.language],
        new_detector=VAD,
        partials_per_s=settings.captions.partials_per_s,
    )
    context.proc.userdata[SESSION] = session
    context.proc.userdata[RUNNING] = asyncio.create_task(
        _live(context, source, publisher, session), name="session"
    )


async def leave(context: JobContext) -> None:
    """End the session, if there is one, and wait until its last captions are out."""
    running = context.proc.userdata.get(RUNNING)
    if running is None:
        return
    context.proc.userdata[SESSION].end("job_ended")
    await asyncio.wait((running,), timeout=LEAVE_TIMEOUT_S)


async def _live(context: JobContext, source: RoomSource, publisher: RoomPublisher, session: Session) -> None:
    log.info("session.started", pid=os.getpid())
    try:
        async with publisher:
            report = await session.run()
        log.info("session.ended", failed_sends=publisher.failed, **asdict(report))
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
