"""One room's process: from the job that LiveKit assigns to an agent that leads its room.

Everything here is importable without side effects and picklable, since the worker's fork server imports it
once for all rooms.
"""

import asyncio
import contextlib
import os
from dataclasses import asdict
from functools import partial

import structlog
from livekit.agents import AutoSubscribe, JobContext, JobProcess
from livekit.local_inference import VAD, init_vad

from agent.commands import heed_commands
from agent.config import Settings
from agent.errors import DatabaseError, LiveKitError
from agent.leadership import Leadership
from agent.opening import (
    give_back,
    is_recorded,
    limits_of,
    new_recorder,
    new_store,
    open_session,
    room_config,
)
from agent.room.dispatch import AgentInRoom, Errand, Rooms
from agent.room.publisher import TRANSCRIPTION_TOPIC, RoomPublisher
from agent.room.rivals import hear_epochs
from agent.room.source import RoomSource
from agent.session.announcer import SessionIdentity
from agent.session.session import HANDED_OVER, JOB_ENDED, SUPERSEDED, Session
from agent.telemetry.logs import configure_structlog
from agent.transcription.engine import load_engines
from agent.transcription.transcriber import Transcriber
from agent.values import SAMPLE_RATE_HZ
from persistence import sessions
from persistence.database import Database
from persistence.database_thread import DatabaseThread
from persistence.records import DEFAULT_SPACE, Begun
from persistence.sessions import Opening, Refused
from persistence.tables import RoomConfig

__all__ = ["LEAVE_TIMEOUT_S", "enter", "leave", "prewarm"]

log = structlog.get_logger(__name__)

FINISH_TIMEOUT_S = 25.0  # more than a session takes to give out its last finals and to keep them
SUCCESSOR_S = 8.0  # for a successor to come, and for a pause in which it takes over
LEAVE_TIMEOUT_S = FINISH_TIMEOUT_S + SUCCESSOR_S + 3.0
ROOM_SPEAKS_S = 0.5
CLOSE_TIMEOUT_S = 2.0
STEM_SAMPLE_RATE_HZ = 48_000  # what WebRTC sends
SID_TIMEOUT_S = 5.0
RECONNECT_TRIES = 5
RECONNECT_RETRY_S = 0.5  # LiveKit lists who has connected anew a moment later

ROOM_IS_GONE = {"room_closed", "room_deleted"}
ENGINES = "engines"
AGENT = "agent"


def prewarm(settings: Settings, process: JobProcess) -> None:
    """Load the models before a room needs them.

    Raises:
        EngineError: The speech engine cannot be loaded.
    """
    configure_structlog()
    init_vad()
    process.userdata[ENGINES] = load_engines(settings.stt)


async def enter(settings: Settings, worker: str, context: JobContext) -> None:
    """Take the lead of a room, or stand by for it; returns when that is set up, since LiveKit waits for it.

    Args:
        settings: Those of the worker.
        worker: What the worker is called.
        context: LiveKit's, of this job.
    """
    structlog.contextvars.bind_contextvars(room=context.job.room.name, job=context.job.id)
    errand = Errand.decode(context.job.metadata)
    if errand.sid and errand.sid != context.job.room.sid:
        log.info("room.is_another", meant=errand.sid, found=context.job.room.sid)
        context.shutdown("the room is another one")
        return
    agent = _Agent(settings, worker, context, errand)
    context.proc.userdata[AGENT] = agent
    await agent.enter()


async def leave(context: JobContext) -> None:
    """End the session, if there is one, and wait until its last captions are out."""
    agent: _Agent | None = context.proc.userdata.get(AGENT)
    if agent is not None:
        await agent.leave()


class _Agent:
    """The agent of one room, from its coming to its leaving."""

    def __init__(self, settings: Settings, worker: str, context: JobContext, errand: Errand) -> None:
        self._settings = settings
        self._worker = worker
        self._context = context
        self._errand = errand
        self._room = context.job.room.name
        self._identity = context.local_participant_identity
        self._rooms = Rooms(settings)
        self._database = DatabaseThread(Database.of(settings))
        self._leadership = Leadership(
            Database.of_leases(settings),
            self._rooms,
            space=DEFAULT_SPACE,
            room=self._room,
            sid=context.job.room.sid,
            agent=self._identity,
            worker=worker,
            dead=errand.died,
        )
        self._own_sid = ""
        self._has_asked_for_successor = False
        self._source: RoomSource | None = None
        self._session: Session | None = None
        self._handing_over: asyncio.Task[None] | None = None
        self._reconnecting: asyncio.Task[None] | None = None
        self._running: asyncio.Task[None] | None = None

    async def enter(self) -> None:
        """Join the room; what follows goes on by itself."""
        # A room without an agent waits for both.
        joining = asyncio.create_task(self._join(), name="agent.join")
        if self._errand.handover:
            config = await room_config(self._database, self._room)
            if source := await joining:
                source.listen(self._sample_rate_hz(config))
                self._running = asyncio.create_task(self._take_over(source), name="agent.take_over")
                return
        else:
            opened = await self._open() if await self._leadership.take() else None
            source = await joining
            if source and opened:
                opening, zero_s = opened
                source.listen(self._sample_rate_hz(opening.room_config))
                leading = self._lead(opening, zero_s, source)
                self._running = asyncio.create_task(leading, name="agent.lead")
                return
            if opened:
                await give_back(opened[0].begun, self._database)
        await self._leadership.give_up()
        await self._close("the room is not ours to lead")

    async def leave(self) -> None:
        """End the session, if there is one, and wait until its last captions are out."""
        if self._running is None:
            return
        if self._session is None:
            self._running.cancel()  # it stands by
        else:
            # A room that closes ends its job too, often before it says so itself; that is the better reason.
            await asyncio.wait((self._running,), timeout=ROOM_SPEAKS_S)
            if self._reconnecting is not None:
                await asyncio.wait((self._reconnecting,), timeout=RECONNECT_TRIES * RECONNECT_RETRY_S)
            if self._has_asked_for_successor:
                # LiveKit takes the job from us, not the room: words go on being heard meanwhile.
                await asyncio.wait((self._running,), timeout=SUCCESSOR_S)
            self._session.end(HANDED_OVER if self._leadership.has_successor else JOB_ENDED)
        await asyncio.wait((self._running,), timeout=FINISH_TIMEOUT_S)

    async def _join(self) -> RoomSource | None:
        """Join the room and ask for who is to be heard in it; None where that cannot be."""
        room = self._context.room
        self._source = source = RoomSource(room, self._settings.room)
        # The SDK would log a line for each caption of another agent, which this one may stand by for.
        room.register_text_stream_handler(TRANSCRIPTION_TOPIC, lambda _reader, _sender: None)
        try:
            await self._context.connect(
                auto_subscribe=AutoSubscribe.SUBSCRIBE_NONE,
                # With one for both ways, a track that is asked for comes 0.2 s later: it is our side that
                # offers then, after a wait on either side.
                single_peer_connection=False,
            )
        except Exception as error:  # noqa: BLE001  whatever it is, there is no session, and the job is over
            # A room that was closed while we were on our way, or a server that is gone.
            # Its message is not logged: it may hold the address that we joined by, and that the token.
            log.warning("room.not_joined", error=type(error).__name__)
            return None
        self._own_sid = room.local_participant.sid
        source.subscribe()
        return source

    def _sample_rate_hz(self, config: RoomConfig | None) -> int:
        return STEM_SAMPLE_RATE_HZ if is_recorded(self._settings, config) else SAMPLE_RATE_HZ

    async def _open(self, cut_ms: int | None = None) -> tuple[Opening, float] | None:
        opened = await open_session(
            self._settings,
            self._database,
            room=self._room,
            room_sid=self._leadership.sid,
            agent=self._identity,
            worker=self._worker,
            cut_ms=cut_ms,
            seq_until=self._leadership.seq_until,
        )
        if isinstance(opened, Refused):
            log.info("session.refused", reason=f"the room's session was ended: {opened.reason}")
            return None
        return opened

    async def _take_over(self, source: RoomSource) -> None:
        """Stand by for an agent that leaves the room, and go on where it stopped hearing."""
        try:
            is_ours = await self._leadership.stand_by(self._errand.handover, source)
            if is_ours and (opened := await self._open(self._leadership.cut_ms)):
                await self._lead(*opened, source)
        except Exception:
            log.exception("session.failed")
        finally:
            if self._session is None:
                await self._leadership.give_up()
                await self._close("nothing was handed over")

    async def _lead(self, opening: Opening, zero_s: float, source: RoomSource) -> None:
        """Lead the room until its session ends, or somebody else leads it."""
        begun = opening.begun
        structlog.contextvars.bind_contextvars(session=begun.session)
        now_ms = round((asyncio.get_running_loop().time() - zero_s) * 1000)
        cut_ms = self._leadership.cut_ms
        offset_ms = now_ms if cut_ms is None else begun.offset_ms
        source.forget_before(zero_s + offset_ms / 1000)
        store = new_store(self._settings, begun, self._database)
        publisher = RoomPublisher(self._context.room)
        records = is_recorded(self._settings, opening.room_config)
        self._session = session = Session(
            source,
            publisher,
            Transcriber(self._context.proc.userdata[ENGINES]),
            store,
            new_recorder(self._settings, begun, store) if records else None,
            SessionIdentity(
                begun.session,
                begun.epoch,
                self._identity,
                offset_ms=offset_ms,
                first_seq=opening.next_seq,
            ),
            limits=limits_of(self._settings, opening.room_config),
            lead=self._leadership,
            zero_s=zero_s,
            languages=begun.languages,
            new_detector=VAD,
            partials_per_s=self._settings.captions.partials_per_s,
        )
        log.info(
            "session.started",
            pid=os.getpid(),
            epoch=begun.epoch,
            provisional=begun.is_provisional,
            took_over=cut_ms is not None,
        )

        def hand_over(has_successor: bool) -> None:
            if self._handing_over is not None and not has_successor:
                self._handing_over.cancel()  # it waits for a pause; who was to take over is gone
                self._handing_over = None
            elif self._handing_over is None and has_successor:
                log.info("session.hands_over")
                self._handing_over = asyncio.create_task(session.hand_over(), name="agent.hand_over")

        self._leadership.lead(
            begun.epoch, source, lambda: session.last_seq, hand_over, partial(session.end, SUPERSEDED)
        )
        beside = [
            asyncio.create_task(self._tell_cut(session), name="agent.tell_cut"),
            asyncio.create_task(
                heed_commands(self._database, begun, session.end), name="agent.heed_commands"
            ),
        ]
        self._context.room.on("reconnected", partial(self._on_reconnected, begun))
        hear_epochs(self._context.room, self._leadership.hear_epoch)
        try:
            async with store, publisher:
                report = await session.run()
                beside[-1].cancel()  # before the store closes the database
            await self._leadership.give_up()
            log.info(
                "session.ended",
                failed_sends=publisher.failed,
                dropped_notes=store.dropped_notes,
                **asdict(report),
            )
        except Exception:
            # The job ends with the session, and leaves its lease: that brings a successor.
            log.exception("session.failed")
        finally:
            for task in (*beside, self._handing_over, self._reconnecting):
                if task is not None:
                    task.cancel()
            await self._close("session ended")

    async def _tell_cut(self, session: Session) -> None:
        """When the session ends, tell who stands by from when on; a room that is gone is nobody's to lead."""
        cut_ms = await session.until_ending()
        if session.ended_by in ROOM_IS_GONE:
            # The next room of that name need not wait for the last words of this one.
            await self._leadership.give_up()
        else:
            await self._leadership.cut(cut_ms)

    def _on_reconnected(self, begun: Begun) -> None:
        if self._reconnecting is None or self._reconnecting.done():
            following = self._after_reconnect(begun)
            self._reconnecting = asyncio.create_task(following, name="agent.after_reconnect")

    async def _after_reconnect(self, begun: Begun) -> None:
        """See what a connection that was made anew means for this agent.

        LiveKit ends the job of an agent that reconnects fully, half a second later (livekit#4887): somebody
        else is to take over, and `leave` waits for that. Where LiveKit itself was started again, it knows of
        no job, and the room has another SID.
        """
        for _ in range(RECONNECT_TRIES):
            try:
                sids = await self._rooms.open_sids([self._room])
                mine = {agent.sid for agent in await self._rooms.agents_in(self._room) if self._is_me(agent)}
                if mine and sids and self._leadership.sid not in sids:
                    self._own_sid = mine.pop()
                    await self._follow_room(begun, sids.pop())
                    return
                if mine and self._own_sid not in mine:
                    log.warning("room.reconnected_fully")
                    errand = Errand(self._leadership.sid, handover=self._identity)
                    await self._rooms.dispatch(self._room, errand)
                    self._has_asked_for_successor = True
                    return
            except LiveKitError as error:
                log.warning("livekit.away", problem=str(error))
            await asyncio.sleep(RECONNECT_RETRY_S)

    def _is_me(self, agent: AgentInRoom) -> bool:
        return agent.identity == self._identity

    async def _follow_room(self, begun: Begun, sid: str) -> None:
        """The room is another one for LiveKit, and the same meeting."""
        log.warning("room.has_another_sid", sid=sid)
        self._leadership.sid = sid

        def add_sid() -> None:
            with self._database.database.write() as connection:
                placed = sessions.placement(connection, begun.space, begun.session, begun.epoch)
                if placed is not None:
                    sessions.add_sid(connection, begun.space, placed.session_id, sid)

        try:
            await self._database.call(add_sid, SID_TIMEOUT_S)
        except DatabaseError as error:
            log.warning("database.away", problem=str(error))

    async def _close(self, reason: str) -> None:
        """Leave the room."""
        # First of all, so that nothing below can keep the job alive.
        self._context.shutdown(reason)
        if self._source is not None:
            await self._source.aclose()
        self._leadership.close()
        self._database.close()
        await self._rooms.aclose()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                for engine in self._context.proc.userdata[ENGINES]:
                    await engine.stt.aclose()
