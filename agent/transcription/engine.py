"""A speech engine as the driver sees it, and what the driver tells of engines and turns."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from livekit.agents import stt

from agent.config import Stt
from agent.values import Heard
from plugins.stt import load_engine
from plugins.stt.traits import TRAITS, Traits, traits_of

__all__ = [
    "Engine",
    "EngineDown",
    "EngineUp",
    "Heed",
    "Missed",
    "Told",
    "TurnEnds",
    "TurnWaits",
    "load_engines",
]

SPARE_BELOW_RATE = 1.5  # a stream that takes audio no faster never catches up with people who talk at once


@dataclass(frozen=True, slots=True)
class Engine:
    """A speech engine under the name that the settings give it, and what it can do.

    `language` is what its streams are told that is spoken; None leaves it to the engine.
    """

    name: str
    stt: stt.STT[Any]
    traits: Traits
    language: str | None = None

    @property
    def lanes(self) -> int:
        """How many turns it takes at once, each in a stream.

        One that can neither be fed fast nor take whole turns gets a second stream, for turns that wait.
        """
        has_spare = self.traits.burst_rate < SPARE_BELOW_RATE and not self.traits.recognizes
        return self.traits.live_turns + (1 if has_spare and self.traits.finalizes else 0)


def load_engines(settings: Stt) -> list[Engine]:
    """Make the engines that the settings name, in their order, and load their models. Blocks.

    Raises:
        EngineError: One of them is unknown, or cannot be loaded.
    """
    engines = []
    for name in settings.engines:
        engine = load_engine(name, settings)
        engine.prewarm()
        # Ours are made for a language; others are told with each stream.
        language = None if name in TRAITS else settings.language
        engines.append(Engine(name, engine, traits_of(name, engine), language))
    return engines


@dataclass(frozen=True, slots=True)
class EngineUp:
    """The engine of this name takes audio."""

    name: str


@dataclass(frozen=True, slots=True)
class EngineDown:
    """No engine takes audio; the last one failed for this reason. What is said is kept for a while."""

    reason: str


@dataclass(frozen=True, slots=True)
class TurnWaits:
    """Somebody speaks, and is recognised a little later."""

    turn: int
    track_id: str
    start_ms: int


@dataclass(frozen=True, slots=True)
class TurnEnds:
    """Nothing more will be heard of a turn, which lay there in the session.

    One that `is_void` was somebody else's voice, as was found too late.
    """

    turn: int
    track_id: str
    start_ms: int
    end_ms: int
    is_void: bool = False


@dataclass(frozen=True, slots=True)
class Missed:
    """Speech of a track that nobody will recognise any more."""

    track_id: str
    start_ms: int
    end_ms: int
    reason: str


Told = Heard | EngineUp | EngineDown | TurnWaits | TurnEnds | Missed
Heed = Callable[[Told], None]
