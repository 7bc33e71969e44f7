"""Runs a whole session under virtual time and keeps what it published."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from livekit.agents import stt

from agent.audio.activity import VoiceActivityDetector
from agent.recording.recorder import Recorder
from agent.session.announcer import SessionIdentity
from agent.session.lead import Lead
from agent.session.limits import SessionLimits
from agent.session.session import Session, SessionReport
from agent.session.source import Source
from agent.transcription.engine import Engine
from agent.transcription.transcriber import Transcriber
from agent.values import Caption, Event
from plugins.stt.traits import Traits
from tests.support.kept import Kept
from tests.support.numbered_speech import Loudness
from tests.support.transcribing import PLAIN
from tests.support.virtual_time import run_virtual

INFERENCE_S = 0.15  # charged for each decode, so that what is decoded when does not depend on the machine


@dataclass
class Published:
    """What a session told its viewers, each event with the second at which it went out, and what it kept."""

    events: list[tuple[float, Event]] = field(default_factory=list)
    kept: Kept = field(default_factory=Kept)
    report: SessionReport | None = None

    async def publish(self, event: Event) -> None:
        self.events.append((asyncio.get_running_loop().time(), event))

    @property
    def captions(self) -> list[Caption]:
        return [event.caption for _, event in self.events if event.caption]

    @property
    def finals(self) -> list[Caption]:
        return [caption for caption in self.captions if caption.is_final]

    @property
    def states(self) -> list[dict[str, Any]]:
        return [dict(event.body) for _, event in self.events if event.kind == "state"]

    @property
    def captions_states(self) -> list[tuple[str, str | None]]:
        """How the captions were said to be, and why, each change once."""
        told = [(state["captions"], state["captions_reason"]) for state in self.states]
        return [key for key, _ in groupby(told)]

    def comparable(self) -> list[tuple[float, str, dict[str, Any]]]:
        return [(round(at_s, 6), event.kind, dict(event.body)) for at_s, event in self.events]


def run_session(
    source: Source,
    new_engine: Callable[[], stt.STT[Any]],
    *,
    traits: Traits = PLAIN,
    new_detector: Callable[[], VoiceActivityDetector] = Loudness,
    published: Published | None = None,
    end_after_s: float | None = None,
    limits: SessionLimits = SessionLimits(),  # noqa: B008  it is frozen
    identity: SessionIdentity = SessionIdentity("session-1", 1, "agent-1"),  # noqa: B008
    new_recorder: Callable[[Kept], Recorder] | None = None,
    lead: Lead | None = None,
    begin: Callable[[Session], Coroutine[Any, Any, object]] | None = None,
) -> Published:
    """Run a session to its end, on the floor unless `traits` say that the engine needs the sum.

    `new_engine` is called inside the event loop; `begin` is run beside the session.
    """
    published = published or Published()

    async def main() -> None:
        engine = new_engine()
        session = Session(
            source,
            published,
            Transcriber([Engine("test", engine, traits)]),
            published.kept,
            new_recorder(published.kept) if new_recorder else None,
            identity,
            limits=limits,
            lead=lead,
            languages=["en"],
            new_detector=new_detector,
            partials_per_s=4.0,
        )
        if end_after_s is not None:
            asyncio.get_running_loop().call_later(end_after_s, session.end, "asked")
        beside = asyncio.create_task(begin(session)) if begin else None
        published.report = await session.run()
        if beside is not None:
            await beside
        await engine.aclose()

    run_virtual(main(), charge=_charge)
    return published


def _charge(function: Callable[..., Any], _took_s: float) -> float:
    """Inference takes its fixed time; what the front end computes and the recorder writes takes none."""
    return 0.0 if getattr(function, "__name__", "") in ("_process", "_record") else INFERENCE_S
