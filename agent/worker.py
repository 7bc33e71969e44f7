"""The worker: registers with LiveKit, takes rooms up to a limit, and runs each in a process of its own."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from functools import partial

import structlog
from livekit.agents import AgentServer, JobRequest, WorkerPermissions

from agent import job
from agent.config import Settings
from agent.errors import ConfigError, DatabaseAwayError, DatabaseError, EngineError, LiveKitError
from agent.recovery import Recovery, settle_database
from agent.room.dispatch import Rooms
from agent.telemetry.logs import configure_logs
from agent.worker_name import worker_name
from persistence.database import Database
from plugins.stt import engine_modules, load_engine

__all__ = ["Gate", "build_server", "run_worker"]

log = structlog.get_logger(__name__)

FULL = 1.0
# LiveKit gives no job to a worker that reports 0.7 or more, whatever the worker's own threshold says.
MOST_LOAD_BELOW_FULL = 0.69
INITIALIZE_TIMEOUT_S = 60.0  # several models being loaded at once on a busy machine
STOP_TIMEOUT_S = job.LEAVE_TIMEOUT_S + 3.0  # then its processes end with it
GRACE_S = 2.0  # so that a job's own time is over before it is killed
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
    """

    def __init__(self, max_jobs: int) -> None:
        self._max_jobs = max_jobs
        self._starting: set[str] = set()

    async def decide(self, request: JobRequest, running: int) -> None:
        """Take a job, or leave it to another worker at once: LiveKit waits for three seconds only."""
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


def build_server(settings: Settings, worker: str) -> AgentServer:
    """A LiveKit agent server with our gate, our permissions and our job, not yet running.

    Args:
        settings: Those of the worker.
        worker: What it is called.
    """
    gate = Gate(settings.worker.max_jobs)
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
        setup_fnc=partial(job.prewarm, settings),
        preload_modules=["agent.job", *engine_modules(settings.stt.engines[0])],
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
    """Serve until SIGTERM or SIGINT, then end the sessions and return.

    Raises:
        ConfigError: The speech engine, the database or the port that the settings name cannot be had.
    """
    configure_logs(settings.log.level, settings.log.format)
    _own_the_environment()
    await asyncio.to_thread(_try_engine, settings)
    await asyncio.to_thread(_try_database, settings)
    worker = await asyncio.to_thread(_name, settings)
    async with Rooms(settings) as rooms:
        await _say_if_away(rooms)
        recovering = asyncio.create_task(Recovery(settings, worker, rooms).run(), name="worker.recover")
        try:
            await _serve(settings, worker)
        finally:
            recovering.cancel()
            await asyncio.gather(recovering, return_exceptions=True)


async def _serve(settings: Settings, worker: str) -> None:
    """Take rooms until a signal comes."""
    server = build_server(settings, worker)
    server.on("worker_registered", lambda *_: log.info("worker.ready", max_jobs=settings.worker.max_jobs))
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stop.set)
    serving = asyncio.create_task(server.run(), name="worker.serve")
    stopping = asyncio.create_task(stop.wait(), name="worker.stop")
    try:
        await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
        if not serving.done():
            log.info("worker.stopping", sessions=len(server.active_jobs))
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await server.aclose()
        await serving
    except TimeoutError:
        log.error("worker.stop_timed_out", waited_s=STOP_TIMEOUT_S)
    except OSError as error:
        where = f"{settings.worker.health_host}:{settings.worker.health_port}"
        raise ConfigError(
            f"config: worker.health_host and worker.health_port {where} cannot be used: {error.strerror}; "
            "0 takes any free port"
        ) from error
    finally:
        stopping.cancel()


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
        load_engine(settings.stt.engines[0], settings.stt).prewarm()
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
