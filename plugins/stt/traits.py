"""What an engine can do, as data: the driver asks these, never which engine it is."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from livekit.agents import stt

__all__ = ["FLUSHED", "TRAITS", "Traits", "traits_of"]

FLUSHED = "flushed"
"""The `request_id` of the END_OF_SPEECH by which a stream says that all before a flush has been answered."""


@dataclass(frozen=True, slots=True)
class Traits:
    """What an engine can do.

    Attributes:
        finalizes: A flush brings the final of all that was sent. One that cannot hears the sum of all tracks.
        acknowledges: Its streams say when a flush has been answered, by `FLUSHED`.
        recognizes: `recognize()` takes a whole turn, beside the stream.
        live_turns: So many streams at once cost no more than one.
        burst_rate: How much faster than real time a stream takes audio.
        has_word_times: Its words have times.
        speculates: A stream has `prepare_final`, to begin a final before it is asked for.
        bills: What is paid for: the seconds that a stream is open, the audio sent, or nothing.
        stall_after_s: One that owes an answer for longer than this has stalled.
    """

    finalizes: bool
    acknowledges: bool
    recognizes: bool
    live_turns: int
    burst_rate: float
    has_word_times: bool
    speculates: bool
    bills: Literal["stream", "audio", "nothing"]
    stall_after_s: float


TRAITS: Mapping[str, Traits] = MappingProxyType(
    {
        "whisper": Traits(
            finalizes=True,
            acknowledges=True,
            recognizes=True,
            live_turns=2,
            burst_rate=math.inf,
            has_word_times=True,
            speculates=True,
            bills="nothing",
            stall_after_s=60.0,  # a busy machine, not a lost connection
        ),
        "deepgram": Traits(
            finalizes=True,
            acknowledges=True,
            recognizes=True,
            live_turns=1,
            burst_rate=1.25,
            has_word_times=True,
            speculates=False,
            bills="audio",
            stall_after_s=5.0,
        ),
        "openai": Traits(
            finalizes=True,
            acknowledges=True,
            recognizes=True,
            live_turns=1,
            burst_rate=2.0,
            has_word_times=False,
            speculates=False,
            bills="audio",
            stall_after_s=10.0,
        ),
    }
)


def traits_of(name: str, engine: stt.STT[Any]) -> Traits:
    """What is known of one of ours, and what somebody else's engine says of itself.

    Args:
        name: As in `stt.engines`.
        engine: The engine that it named.
    """
    if (known := TRAITS.get(name)) is not None:
        return known
    says = engine.capabilities
    return Traits(
        finalizes=says.manual_flush,
        acknowledges=False,
        recognizes=says.offline_recognize,
        live_turns=1,
        burst_rate=1.25,
        has_word_times=says.aligned_transcript == "word",
        speculates=False,
        bills="stream",
        stall_after_s=10.0,
    )
