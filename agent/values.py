"""The values that travel between packages: small, frozen, without behaviour of their own.

Session time is an integer of milliseconds since the session began (`start_ms`, `end_ms`). Samples are mono
`int16` of shape `(samples,)` at `SAMPLE_RATE_HZ` unless their track says otherwise.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "SAMPLES_PER_MS",
    "SAMPLE_RATE_HZ",
    "Block",
    "Caption",
    "Event",
    "Heard",
    "Samples",
    "Speaker",
    "Storage",
    "Track",
    "Word",
]

SAMPLE_RATE_HZ = 16_000  # what speech engines and voice activity detection are trained on
SAMPLES_PER_MS = SAMPLE_RATE_HZ // 1000

Samples = NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class Speaker:
    """Somebody who can be named in a caption. `identity` is unique in the room, `name` is for people."""

    identity: str
    name: str


@dataclass(frozen=True, slots=True)
class Track:
    """One stream of sound from one person, whose samples come at `sample_rate_hz`."""

    id: str
    speaker: Speaker
    sample_rate_hz: int = SAMPLE_RATE_HZ


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Samples of one track, placed in session time."""

    track_id: str
    start_ms: int
    samples: Samples

    @property
    def end_ms(self) -> int:
        return self.start_ms + len(self.samples) // SAMPLES_PER_MS


@dataclass(frozen=True, slots=True)
class Word:
    """One recognised word. `confidence` is 0 to 1."""

    text: str
    start_ms: int
    end_ms: int
    confidence: float


@dataclass(frozen=True, slots=True)
class Heard:
    """What an engine said about one utterance, in session time.

    A later value with the same `utterance` replaces an earlier one; the one with `is_final` is the last.
    `words` may be empty where the engine gives no word times. The first `stable_words` of them will not
    change before the final. `track_id` is that of the one track in which it was said, within `turn`; of a sum
    of tracks it is empty.
    """

    utterance: int
    is_final: bool
    text: str
    start_ms: int
    end_ms: int
    language: str
    confidence: float
    words: tuple[Word, ...] = ()
    stable_words: int = 0
    turn: int = 0
    track_id: str = ""


@dataclass(frozen=True, slots=True)
class Caption:
    """What viewers see: one person's words, or what is known of them so far.

    `revision` rises with each change under the same `id`. `stable_chars` of the text will not change
    before the final. `confidence` is the share of the voice in the caption's time that is this speaker's;
    `has_overlap` tells that somebody else spoke as well. A caption that is not final and has no text has
    been withdrawn: a viewer takes it away; unless it `is_waiting`, which shows who speaks before the words
    are there.
    """

    id: str
    revision: int
    is_final: bool
    speaker: Speaker
    confidence: float
    has_overlap: bool
    text: str
    stable_chars: int
    language: str
    start_ms: int
    end_ms: int
    is_waiting: bool = False


class Storage(StrEnum):
    """Where what is said now is safe."""

    DATABASE = "database"  # as it should be, by way of the journal
    JOURNAL = "journal"  # on the worker's disk: the database is away, and gets it when it is back
    DATABASE_ONLY = "database_only"  # the worker's disk takes nothing more
    NOWHERE = "nowhere"  # nothing becomes final until this is over


@dataclass(frozen=True, slots=True)
class Event:
    """One message to viewers.

    `epoch` rises with each agent that takes the session over. `seq` numbers the durable events and is None
    for the rest. `at` is an aware UTC time. `body` is JSON data. `caption` is set where the body is one, for
    publishers that have a further way to show captions.
    """

    session: str
    epoch: int
    kind: str
    at: datetime
    body: Mapping[str, Any]
    seq: int | None = None
    caption: Caption | None = field(default=None, compare=False)
