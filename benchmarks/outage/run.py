"""One session with one outage, in real time."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from agent.audio.activity import WINDOW_MS
from agent.audio.front_end import Closed, Opened
from agent.transcription.engine import Engine, Told
from agent.transcription.transcriber import Transcriber
from benchmarks.outage.faults import FAILOVER, UNDISTURBED, Service
from benchmarks.outage.talk import Talk
from plugins.stt.deepgram import DeepgramSTT
from plugins.stt.traits import traits_of
from tests.support.deepgram import KEY
from tests.support.toxiproxy import Toxiproxy

__all__ = ["BEFORE_S", "Plan", "Session", "Started", "prepare", "run"]

BEFORE_S = 12.0
AFTER_S = 30.0  # the talk goes on, so that a backlog has to be made up for beside it
PATIENCE_S = 150.0  # for the rest; what has waited longer than the ring is told as missed
POLL_S = 0.2
END_S = 30.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to happen in a session."""

    kind: str
    length_s: float

    @property
    def name(self) -> str:
        return self.kind if self.kind == UNDISTURBED else f"{self.kind}_{self.length_s:g}s"

    @property
    def talk_s(self) -> float:
        return BEFORE_S + self.length_s + AFTER_S


@dataclass(slots=True)
class Session:
    """What happened in a session, in seconds of its time."""

    plan: Plan
    talk: Talk
    began_s: float = 0.0  # the outage
    ended_s: float = 0.0
    told: list[tuple[float, Told]] = field(default_factory=list)
    late_steps_s: float = 0.0  # by how much windows came later than they should, at most
    has_finished: bool = True


@dataclass(frozen=True, slots=True)
class Started:
    """The engines of a session and the first one's stand-in, which will break."""

    service: Service
    engines: Sequence[Engine]


async def prepare(plan: Plan, folder: Path, stack: AsyncExitStack, toxiproxy: Toxiproxy | None) -> Started:
    """Start what a session needs; the stack ends it."""
    services = [Service(plan.kind, folder / f"{plan.name}-1.log", toxiproxy)]
    if plan.kind == FAILOVER:
        services.append(Service(UNDISTURBED, folder / f"{plan.name}-2.log"))
    engines = []
    for number, service in enumerate(services, start=1):
        stack.callback(service.kill)
        await service.start()
        engine = DeepgramSTT(api_key=KEY, base_url=service.url)
        stack.push_async_callback(engine.aclose)
        await asyncio.to_thread(engine.prewarm)
        engines.append(Engine(f"engine-{number}", engine, traits_of("deepgram", engine)))
    return Started(services[0], engines)


async def run(plan: Plan, talk: Talk, started: Started) -> Session:
    """Let people talk, and the engine break while they do."""
    structlog.contextvars.bind_contextvars(session=plan.name)
    loop = asyncio.get_running_loop()
    session = Session(plan, talk)
    transcriber = Transcriber(started.engines)
    origin_s = loop.time()  # the monotonic clock, as faults are timed

    def now_s() -> float:
        return loop.time() - origin_s

    running = asyncio.create_task(transcriber.run(lambda told: session.told.append((now_s(), told))))
    breaking = asyncio.create_task(_break(session, started.service, origin_s))
    transcriber.push([Opened(track_id) for track_id in talk.tracks], 0)
    for index, windows in enumerate(talk.steps, start=1):
        due_s = index * WINDOW_MS / 1000
        await asyncio.sleep(due_s - now_s())
        session.late_steps_s = max(session.late_steps_s, now_s() - due_s)
        transcriber.push(windows, index * WINDOW_MS)
    transcriber.push([Closed(track_id) for track_id in talk.tracks], round(now_s() * 1000))
    await breaking
    give_up_s = now_s() + PATIENCE_S
    while not transcriber.is_settled and now_s() < give_up_s:
        await asyncio.sleep(POLL_S)
        transcriber.push([], round(now_s() * 1000))
    transcriber.finish()
    _, hanging = await asyncio.wait((running,), timeout=END_S)
    if hanging:
        session.has_finished = False
        running.cancel()
        await asyncio.wait((running,))
    else:
        running.result()
    transcriber.give_up()
    return session


async def _break(session: Session, service: Service, origin_s: float) -> None:
    """Make the outage, and note from when to when it was."""
    if session.plan.kind == UNDISTURBED:
        return
    session.began_s = BEFORE_S
    until_s = await service.fail(session.plan.kind, origin_s + BEFORE_S, session.plan.length_s)
    session.ended_s = until_s - origin_s
