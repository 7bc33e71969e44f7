"""What a session has to keep, as records: the lines of its journal, and what the database is written from.

Every fact about a live session travels as one of these, first into the journal and from there into the
database, so that a session which is followed live and one that is drained after a crash end up the same. A
record may be written twice, or come after a newer one: applying it again changes nothing.

Session time is in milliseconds; wall time is aware UTC. `(session, epoch)` is not in the records: it is the
journal's, whose first record is `Begun`.
"""

import json
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter
from pydantic_core import PydanticSerializationError

__all__ = [
    "DEFAULT_SPACE",
    "Begun",
    "Ended",
    "Failure",
    "Final",
    "Gap",
    "Presence",
    "Record",
    "Stem",
    "Usage",
    "decode",
    "encode",
    "json_schema",
]

DEFAULT_SPACE = "default"

Ms = Annotated[int, Field(ge=0)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")  # what a newer version adds is left out

    v: Literal[1] = 1


class Begun(_Record):
    """An epoch of a session: one agent that leads it. The first record of every file of a journal.

    Session time 0 is `started_at`; this epoch begins at `offset_ms`. A provisional session was begun without
    the database: it may turn out to be one that the database knows already.
    """

    kind: Literal["begun"] = "begun"
    session: str
    epoch: Annotated[int, Field(ge=1)]
    space: str = DEFAULT_SPACE
    room: str
    room_sid: str
    agent: str
    worker: str
    languages: tuple[str, ...]
    started_at: AwareDatetime
    offset_ms: Ms
    is_provisional: bool


class Final(_Record):
    """A final caption as viewers saw it, or a later revision of it. `seq` is that of its event."""

    kind: Literal["final"] = "final"
    id: str
    revision: Annotated[int, Field(ge=1)]
    seq: Annotated[int, Field(ge=1)]
    identity: str
    name: str
    text: str
    language: str
    confidence: float
    has_overlap: bool
    start_ms: Ms
    end_ms: Ms
    at: AwareDatetime


class Presence(_Record):
    """Somebody was in the room under this name; `left_ms` is None as long as they are."""

    kind: Literal["presence"] = "presence"
    identity: str
    name: str
    joined_ms: Ms
    left_ms: Ms | None = None


class Gap(_Record):
    """A stretch that was not heard, or not turned into text; of everybody where `identity` is empty."""

    kind: Literal["gap"] = "gap"
    start_ms: Ms
    end_ms: Ms
    identity: str = ""
    reason: str


class Stem(_Record):
    """A segment of one track's audio on disk. It is open while `duration_ms` is None.

    `number` counts the segments of a track within an epoch, from 1. `path` is relative to the folder of all
    stems. A later record of the same segment replaces an earlier one: `start_ms` is known better at its end.
    `ended_by` is empty for a segment that was closed as it should be, else says what cut it short.
    """

    kind: Literal["stem"] = "stem"
    track: str
    number: Annotated[int, Field(ge=1)]
    identity: str
    path: str
    sample_rate_hz: int
    start_ms: Ms
    duration_ms: Ms | None = None
    size_bytes: Annotated[int, Field(ge=0)] | None = None
    ended_by: str = ""


class Usage(_Record):
    """What one participant has used in this epoch so far; with an empty identity, what is nobody's.

    `covered_ms` is the part of the speech that is in final captions. The figures are totals, so the larger
    ones win.
    """

    kind: Literal["usage"] = "usage"
    identity: str
    speech_ms: Ms
    stt_ms: Ms
    covered_ms: Ms = 0


class Failure(_Record):
    """Something that an admin should look at. `message` holds no word that somebody said."""

    kind: Literal["failure"] = "failure"
    id: str
    stage: str
    code: str
    message: str
    at: AwareDatetime


class Ended(_Record):
    """Nobody will go on with this session, and why."""

    kind: Literal["ended"] = "ended"
    reason: str
    end_ms: Ms
    at: AwareDatetime


Record = Annotated[
    Begun | Final | Presence | Gap | Stem | Usage | Failure | Ended, Field(discriminator="kind")
]

_ADAPTER: TypeAdapter[Record] = TypeAdapter(Record)


def encode(record: Record) -> bytes:
    """A record as JSON in UTF-8, without a line break."""
    try:
        return _ADAPTER.dump_json(record)
    except PydanticSerializationError:
        # Half of a surrogate pair, which an engine may give, is nothing in UTF-8.
        plain = json.dumps(record.model_dump(mode="json"), ensure_ascii=False)
        return plain.encode("utf-8", "replace")


def decode(data: bytes) -> Record:
    """The record that `encode` made.

    Raises:
        ValueError: It is none that this version knows.
    """
    return _ADAPTER.validate_json(data)


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a record."""
    return _ADAPTER.json_schema()
