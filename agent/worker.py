"""The worker: registers with LiveKit, takes rooms up to a limit, and runs each in a process of its own."""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Protocol

import structlog
from livekit.agents import AgentServer, JobRequest, WorkerPermissions
from livekit.agents.job import RunningJobInfo

from agent import job
from agent.config import Settings
from agent.dispatch_policy import is_among
from agent.errors import ConfigError, DatabaseAwayError, DatabaseError, EngineError, LiveKitError
from agent.reconciler import Reconciler
from agent.recovery import Recovery, settle_database
from agent.room.dispatch import Errand, Rooms
from agent.telemetry.logs import configure_logs
from agent.transcription.engine import load_engines
from agent.worker_name import worker_name
from persistence.database import Database
from plugins.stt import engine_modules

__all__ = ["Gate", "build_server", "run_worker"]

log = structlog.get_logger(__name__)

FULL = 1.0
# LiveKit gives no job to a worker that reports 0.7 or more, whatever the worker's own threshold says.
MOST_LOAD_BELOW_FULL = 0.69
INITIALIZE_TIMEOUT_S = 60.0  # several models being loaded at once on a busy machine
STOP_TIMEOUT_S = job.LEAVE_TIMEOUT_S + 3.0  # then its processes end with it
GRACE_S = 2.0  # so that a job's own time is over before it is killed
HANDOVER_AGAIN_S = 10.0  # another worker may have come meanwhile
DRAIN_POLL_S = 0.2
MAX_ENDED = 100  # processes that ended and are looked after at once; the reconciler finds what is beyond
RETRY_FOR_EVER = 1_000_000_000

HIDDEN_LISTENER = WorkerPermissions(
    can_publish=False,
    can_subscribe=True,
    can_publish_data=True,
    can_update_metadata=False,
    hidden=True,
)


class Gate:
    """Decides which jobs this worker takes.

    The load thresholds of livekit-agents lose jobs in a burst: with one idle process they let one of six
    rooms in. So the threshold is off, and the gate counts what runs and what is on its way.

    Args:
        max_jobs: So many at once.
        patterns: Of the names of rooms that are served unasked.
    """

    def __init__(self, max_jobs: int, patterns: Sequence[str] = ("*",)) -> None:
        self._max_jobs = max_jobs
        self._patterns = patterns
        self._starting: set[str] = set()
        self._is_closed = False

    def close(self) -> None:
        """Take no more jobs."""
        self._is_closed = True

    async def decide(self, request: JobRequest, running: int) -> None:
        """Take a job, or leave it to another worker at once: LiveKit waits for three seconds only."""
        if self._is_closed:
            await request.reject(terminate=False)
            return
        # One of our own errands has its reasons: the room may be set to have an agent whatever its name.
        if not (is_among(request.room.name, self._patterns) or Errand.decode(request.job.metadata).sid):
            await request.reject(terminate=True)  # no other worker wants it
            return
        if running + len(self._starting) >= self._max_jobs:
            log.warning("worker.full", max_jobs=self._max_jobs, room=request.room.name)
            await request.reject(terminate=False)
            return
        self._starting.add(request.id)
        try:
            await request.accept()
        finally:
            self._starting.discard(request.id)

    def load(self, running: int) -> float:
        """What is reported to LiveKit: below its own bound until the worker is full."""
        jobs = running + len(self._starting)
        return FULL if jobs >= self._max_jobs else MOST_LOAD_BELOW_FULL * jobs / self._max_jobs


class _Bereaved(Protocol):
    """A process of livekit-agents that has ended, and the job that it had."""

    @property
    def running_job(self) -> RunningJobInfo | None: ...


class DeathWatch:
    """Tells the reconciler of each job whose process has ended, which knows whether its room misses it.

    How it ended does not tell: a process that has done its work may abort when the interpreter goes, and one
    that failed ends with 0.

    Args:
        server: Not yet running.
        reconciler: Is told.
    """

    def __init__(self, server: AgentServer, reconciler: Reconciler) -> None:
        self._server = server
        self._reconciler = reconciler
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closed = False
        server.on("worker_started", self._start)

    async def aclose(self) -> None:
        """Watch no more. Idempotent."""
        self._is_closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self) -> None:
        # Private, and made by run(): nothing public tells that a process has ended. The version is pinned.
        self._server._proc_pool.on("process_closed", self._on_closed)

    def _on_closed(self, process: _Bereaved) -> None:
        ended = process.running_job
        if ended is None or self._is_closed or len(self._tasks) >= MAX_ENDED:
            return
        task = asyncio.create_task(
            self._reconciler.agent_died(
                ended.job.room.name,
                ended.accept_arguments.identity,
                round(max(time.time() - ended.launched_at, 0.0) * 1000),
                Errand.decode(ended.job.metadata).sid or ended.job.room.sid,
            ),
            name="worker.agent_died",
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def build_server(settings: Settings, worker: str, gate: Gate) -> AgentServer:
    """A LiveKit agent server with our gate, our permissions and our job, not yet running.

    Args:
        settings: Those of the worker.
        worker: What it is called.
        gate: Decides which jobs it takes.
    """
    server = AgentServer(
        permissions=HIDDEN_LISTENER,
        load_fnc=lambda server: gate.load(len(server.active_jobs)),
        load_threshold=float("inf"),
        num_idle_processes=settings.worker.idle_processes,
        initialize_process_timeout=INITIALIZE_TIMEOUT_S,
        session_end_timeout=job.LEAVE_TIMEOUT_S + GRACE_S,
        shutdown_process_timeout=job.LEAVE_TIMEOUT_S + GRACE_S,
        max_retry=RETRY_FOR_EVER,
        ws_url=settings.livekit.url,
        api_key=settings.livekit.api_key,
        api_secret=settings.livekit.api_secret.get_secret_value(),
        host=settings.worker.health_host,
        port=settings.worker.health_port,
        prometheus_port=settings.worker.metrics_port or None,
        setup_fnc=partial(job.prewarm, settings),
        preload_modules=["agent.job", *engine_modules(settings.stt.engines)],
        log_level=settings.log.level.replace("warning", "warn").upper(),
    )

    async def on_request(request: JobRequest) -> None:
        await gate.decide(request, len(server.active_jobs))

    enter: Callable[..., Awaitable[None]] = partial(job.enter, settings, worker)
    server.rtc_session(
        enter,
        # Without a name LiveKit dispatches it to every new room that names no agent.
        agent_name=settings.dispatch.agent_name if settings.dispatch.mode == "explicit" else "",
        on_request=on_request,
        on_session_end=job.leave,
    )
    return server


async def run_worker(settings: Settings) -> None:
    """Serve until a signal comes, then leave the rooms and return.

    SIGTERM has other workers take them over, as far as `worker.drain_s` allows. A second one, or SIGINT, ends
    their sessions at once.

    Raises:
        ConfigError: The speech engine, the database or a port that the settings name cannot be had.
    """
    configure_logs(settings.log.level, settings.log.format)
    _own_the_environment()
    _try_engine(settings)  # here, since livekit's plugins load on the main thread only; nothing waits yet
    await asyncio.to_thread(_try_database, settings)
    worker = await asyncio.to_thread(_name, settings)
    async with Rooms(settings) as rooms:
        await _say_if_away(rooms)
        recovering = asyncio.create_task(Recovery(settings, worker, rooms).run(), name="worker.recover")
        try:
            await _serve(settings, worker, rooms)
        finally:
            recovering.cancel()
            await asyncio.gather(recovering, return_exceptions=True)


async def _serve(settings: Settings, worker: str, rooms: Rooms) -> None:
    """Take rooms until a signal comes."""
    patterns = settings.dispatch.rooms if settings.dispatch.mode == "automatic" else ("*",)
    gate = Gate(settings.worker.max_jobs, patterns)
    server = build_server(settings, worker, gate)
    reconciler = Reconciler(settings, worker, rooms)
    watch = DeathWatch(server, reconciler)
    registered, drain, stop = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def on_registered(*_: object) -> None:
        log.info("worker.ready", max_jobs=settings.worker.max_jobs)
        registered.set()

    def on_sigterm() -> None:
        (stop if drain.is_set() or not settings.worker.drain_s else drain).set()

    server.on("worker_registered", on_registered)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, on_sigterm)
    loop.add_signal_handler(signal.SIGINT, stop.set)
    serving = asyncio.create_task(server.run(), name="worker.serve")
    leaving = asyncio.create_task(
        _until_leaving(settings, server, gate, rooms, drain, stop), name="worker.leave"
    )
    reconciling = asyncio.create_task(_reconcile(reconciler, registered), name="worker.reconcile")
    try:
        await asyncio.wait((serving, leaving), return_when=asyncio.FIRST_COMPLETED)
        await watch.aclose()
        # First, so that another worker's looks after the rooms that this one leaves.
        await _cancel(reconciling, leaving)
        if not serving.done():
            log.info("worker.stopping", sessions=len(server.active_jobs))
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await server.aclose()
        await serving
    except TimeoutError:
        log.error("worker.stop_timed_out", waited_s=STOP_TIMEOUT_S)
    except OSError as error:
        config = settings.worker
        ports = f"{config.health_port} and worker.metrics_port {config.metrics_port}"
        raise ConfigError(
            f"config: worker.health_host {config.health_host} with worker.health_port {ports} cannot be "
            f"used: {error.strerror}; 0 is a health_port that is free, and no metrics"
        ) from error
    finally:
        await watch.aclose()
        await _cancel(reconciling, leaving)
        reconciler.close()


async def _reconcile(reconciler: Reconciler, registered: asyncio.Event) -> None:
    """Look after rooms once LiveKit has somebody to send there."""
    await registered.wait()
    await reconciler.run()


async def _until_leaving(
    settings: Settings,
    server: AgentServer,
    gate: Gate,
    rooms: Rooms,
    drain: asyncio.Event,
    stop: asyncio.Event,
) -> None:
    """Wait until it is time to end: at once when `stop` is set, with all rooms handed over after `drain`."""
    stopping = asyncio.create_task(stop.wait(), name="worker.stop")
    draining = asyncio.create_task(_drain(settings, server, gate, rooms, drain), name="worker.drain")
    try:
        await asyncio.wait((stopping, draining), return_when=asyncio.FIRST_COMPLETED)
    finally:
        await _cancel(stopping, draining)


async def _drain(
    settings: Settings, server: AgentServer, gate: Gate, rooms: Rooms, drain: asyncio.Event
) -> None:
    """Once it is asked for, take no more rooms and have others take over those that are there."""
    await drain.wait()
    gate.close()
    log.info("worker.draining", sessions=len(server.active_jobs), drain_s=settings.worker.drain_s)
    # It says to LiveKit that we are full, before it is asked for somebody else. It would wait for our jobs
    # with its lock held, which aclose() needs, and is ended before that.
    full = asyncio.create_task(server.drain(timeout=None), name="worker.full")
    loop = asyncio.get_running_loop()
    deadline_s, again_s = loop.time() + settings.worker.drain_s, loop.time()
    try:
        while server.active_jobs or not full.done():
            if loop.time() >= again_s:
                again_s = loop.time() + HANDOVER_AGAIN_S
                await asyncio.sleep(DRAIN_POLL_S)
                await _hand_over(server, rooms)
                # Where nobody takes them over, somebody may wonder why this takes so long.
                log.info("worker.waits_for_successors", sessions=len(server.active_jobs))
            if loop.time() >= deadline_s:
                log.warning("worker.drain_timed_out", sessions=len(server.active_jobs))
                return
            await asyncio.sleep(DRAIN_POLL_S)
        log.info("worker.drained")
    finally:
        await _cancel(full)


async def _hand_over(server: AgentServer, rooms: Rooms) -> None:
    """Ask for a successor in each room that we are in. Where no other worker is, we stay and go on."""
    try:
        jobs = server.active_jobs
        names = [running.job.room.name for running in jobs]
        # A dispatch would make a closed room again.
        sids = {room.name: room.sid for room in await rooms.open_rooms(names)}
        for name, running in zip(names, jobs, strict=True):
            if name in sids:
                errand = Errand(sid=sids[name], handover=running.accept_arguments.identity)
                await rooms.dispatch(name, errand)
    except LiveKitError as error:
        log.warning("livekit.away", problem=str(error))
    except Exception:
        # The rooms go on here for as long as there is time.
        log.exception("worker.hand_over_failed")


async def _cancel(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _say_if_away(rooms: Rooms) -> None:
    """Say in a sentence what is wrong with the server or the key; the SDK says the rest, and tries again."""
    try:
        await rooms.ping()
    except LiveKitError as error:
        log.warning("livekit.away", problem=str(error))


def _try_database(settings: Settings) -> None:
    """Find out before any room does whether the database is one that we can work with."""
    database = Database.of(settings)
    try:
        settle_database(settings, database)
    except DatabaseAwayError as error:
        # Sessions begin without it, and their journals wait for it.
        log.warning("database.away", problem=str(error))
    except DatabaseError as error:
        raise ConfigError(str(error)) from error
    finally:
        database.close()


def _name(settings: Settings) -> str:
    try:
        return worker_name(settings.data_dir)
    except OSError as error:
        raise ConfigError(
            f"config: data_dir {settings.data_dir} cannot be written to: {error.strerror}; "
            "set it (ROOMSCRIBE_DATA_DIR) to a folder that you may write to"
        ) from error


def _try_engine(settings: Settings) -> None:
    """Find out before any room does whether the engine works."""
    try:
        load_engines(settings.stt)
    except EngineError as error:
        raise ConfigError(str(error)) from error


def _own_the_environment() -> None:
    """Settle what our processes and the libraries in them would take from the environment."""
    # Both would replace the name that the settings give, an empty one above all.
    os.environ.pop("LIVEKIT_AGENT_NAME", None)
    os.environ.pop("LIVEKIT_AGENT_NAME_OVERRIDE", None)
    # The end-of-turn model that it would load takes 200 MB and is not used.
    os.environ["LIVEKIT_AGENTS_PRELOAD_LOCAL_INFERENCE"] = "0"
    # numpy's threads wait for work in a loop: in a room's process that takes a quarter of a core for nothing.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
