"""The tables. Each row belongs to a space; session time is in milliseconds, wall time is UTC."""

from datetime import UTC, datetime
from enum import StrEnum
from hashlib import sha256
from typing import Any

from sqlalchemy import JSON, BigInteger, DateTime, Dialect, Index, String, TypeDecorator, text
from sqlmodel import Field, SQLModel

__all__ = [
    "SCHEMA",
    "AgentDeath",
    "Analysis",
    "AnalysisStatus",
    "ApiKey",
    "AuditEvent",
    "Evidence",
    "Gap",
    "Lease",
    "Participant",
    "ProcessingError",
    "Rendering",
    "RoomConfig",
    "Session",
    "SessionCommand",
    "SessionEpoch",
    "SessionSid",
    "SessionStatus",
    "Space",
    "Statement",
    "Stem",
    "Usage",
    "Utterance",
]

SCHEMA = SQLModel.metadata
KEY_BYTES = 512  # several of them share an index
HASH_CHARACTERS = 32


class Text(TypeDecorator[str]):
    """Text from outside: PostgreSQL refuses NUL, and nothing stores half of a surrogate pair."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        if value is None:
            return None
        return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")


class Key(Text):
    """Text from outside that an index holds: PostgreSQL refuses more than some 2700 bytes there.

    What is longer is cut, and told apart by a hash.
    """

    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        text = super().process_bind_param(value, dialect)
        if text is None or len(encoded := text.encode()) <= KEY_BYTES:
            return text
        head = encoded[: KEY_BYTES - HASH_CHARACTERS - 1].decode(errors="ignore")
        return f"{head}#{sha256(encoded).hexdigest()[:HASH_CHARACTERS]}"


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC time, also on SQLite, which has no time zones."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.astimezone(UTC) if value is not None else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class SessionStatus(StrEnum):
    """Where a session is in its life."""

    CREATED = "created"
    LIVE = "live"
    ENDED = "ended"
    MERGED = "merged"  # it was provisional, and is a part of another one


class AnalysisStatus(StrEnum):
    """Where a run of an analysis is."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class Space(SQLModel, table=True):
    """A tenant: nothing is seen across its wall."""

    __tablename__ = "space"

    id: str = Field(sa_type=Key, primary_key=True)
    name: str = Field(sa_type=Text)
    created_at: datetime = Field(sa_type=UtcDateTime)


class Session(SQLModel, table=True):
    """What was said in one room from its opening to its end, whoever led it.

    `epoch` is the newest one. `heard_at` is when its agent last gave a sign of life. `merged_into` names
    the session that a provisional one turned out to be.
    """

    __tablename__ = "session"
    __table_args__ = (
        Index("session_by_start", "space_id", "started_at", "id"),
        Index("session_by_room", "space_id", "room", "started_at", "id"),
        Index("session_by_status", "status", "heard_at"),
    )

    id: str = Field(sa_type=Key, primary_key=True)
    space_id: str = Field(sa_type=Key, foreign_key="space.id")
    room: str = Field(sa_type=Key)
    status: str = Field(sa_type=Key)
    epoch: int = Field(sa_type=BigInteger)
    languages: list[str] = Field(sa_type=JSON)
    started_at: datetime = Field(sa_type=UtcDateTime)
    heard_at: datetime = Field(sa_type=UtcDateTime)
    ended_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    ended_by: str = Field(default="", sa_type=Text)
    merged_into: str | None = Field(default=None, sa_type=Key, foreign_key="session.id")


class SessionSid(SQLModel, table=True):
    """A LiveKit room, by its SID, that belongs to a session."""

    __tablename__ = "session_sid"
    __table_args__ = (Index("session_sid_by_sid", "space_id", "sid"),)

    session_id: str = Field(sa_type=Key, primary_key=True, foreign_key="session.id")
    sid: str = Field(sa_type=Key, primary_key=True)
    space_id: str = Field(sa_type=Key, foreign_key="space.id")
    since: datetime = Field(sa_type=UtcDateTime)


class SessionEpoch(SQLModel, table=True):
    """One agent that led a session, and how far its journal has come into the database.

    `published_as` and `published_epoch` are what this agent told viewers; they differ from `session_id` and
    `epoch` only where it began without the database. `shift_ms` is added to its session times then.
    `journal_segment` and `journal_offset_bytes` are the watermark: everything before is in the database.
    From `settled_at` on nothing more comes: the agent is gone, and its journal is in the database.
    """

    __tablename__ = "session_epoch"
    __table_args__ = (
        Index("session_epoch_by_session", "session_id", "epoch", unique=True),
        Index(
            "session_epoch_unsettled",
            "worker",
            sqlite_where=text("settled_at IS NULL"),
            postgresql_where=text("settled_at IS NULL"),
        ),
    )

    published_as: str = Field(sa_type=Key, primary_key=True)
    published_epoch: int = Field(sa_type=BigInteger, primary_key=True)
    session_id: str = Field(sa_type=Key, foreign_key="session.id")
    epoch: int = Field(sa_type=BigInteger)
    space_id: str = Field(sa_type=Key, foreign_key="space.id")
    agent: str = Field(sa_type=Text)
    worker: str = Field(sa_type=Text)
    began_at: datetime = Field(sa_type=UtcDateTime)
    shift_ms: int = Field(default=0, sa_type=BigInteger)
    journal_segment: int = Field(default=0)
    journal_offset_bytes: int = Field(default=0, sa_type=BigInteger)
    settled_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class Participant(SQLModel, table=True):
    """A stretch of time in which somebody was in the room, and their name as it was."""

    __tablename__ = "participant"

    session_id: str = Field(sa_type=Key, primary_key=True, foreign_key="session.id")
    epoch: int = Field(sa_type=BigInteger, primary_key=True)
    identity: str = Field(sa_type=Key, primary_key=True)
    joined_ms: int = Field(sa_type=BigInteger, primary_key=True)
    space_id: str = Field(sa_type=Key, foreign_key="space.id")
    name: str = Field(sa_type=Text)
    left_ms: int | None = Field(default=None, sa_type=BigInteger)


class Utterance(SQLModel, table=True):
    """A final caption. `id` is the caption's, `{epoch}-{number}`; `seq` that of the event viewers got."""

    __tablename__ = "utterance"
    __table_args__ = (Index("utterance_by_time", "space_id", "session_id", "start_ms", "epoch", "number"),)

    session_id: str = Field(sa_type=Key, primary_key=True, foreign_key="session.id")
    id: str = Field(sa_type=Key, primary_key=True)
    space_id: str = Field(sa_type=Key, foreign_key="space.id")
    epoch: int = Field(sa_type=BigInteger)
    number: int = Field(sa_type=BigInteger)
    revision: int
    seq: int = Field(sa_type=BigInteger)
    identity: str = Field(sa_type=Key)
    name: str = Field(sa_type=Text)
    text: str = Field(sa_type=Text)
    language: str = Field(sa_type=Text)
    confidence: float
    has_overlap: bool
    start_ms: int = Field(sa_type=BigInteger)
    end_ms: int = Field(sa_type=BigInteger)
    at: datetime = Field(sa_type=UtcDateTime)


class Gap(SQLModel, table=True):
    """A stretch that was not heard, or not turned into text; of everybody where `identity` is empty."""

    __tablename__ = "gap"

    session_id: str = Field(sa_type=Key, primary_key=True, foreign_key="session.id")
    epoch: int = Field(sa_type=BigInteger, primary_key=True)
    start_ms: int = Field(sa_type=BigInteger, primary_key=True)
    identity: str = Field(sa_type=Key, primary_key=True)
    reason: str = Field(sa_type=Key, primary_key=True)
    space_id: str = Field(sa_type=Key, foreign_key="space.id")
    end_ms: int = Field(sa_type=BigInteger)


class Stem(SQLModel, table=True):
    """A segment of one track's audio, on the disk of `worker`; open while `duration_ms` is None."""

    __tablename__ = "stem"
    __table_args__ = (
        Index(
            "stem_open",
            "worker",
            sqlite_where=text("duration_ms IS NULL"),
            postgresql_where=text("duration_ms IS NULL"),
        ),
    )

    session_id: str = Field(sa_type=Key, primary_key=True, foreign_key="session.id")
    epoch: int = Field(sa_type=BigInteger, primary_key=True)
    track: str = Field(sa_type=Key, primary_key=True)
    number: int = Field(primary_key=True)
    space_id: str = Field(sa_type=Key, foreign_key="space.id")
    identity: str = Field(sa_type=Key)
    worker: str = Field(sa_type=Text)
    path: str = Field(sa_type=Text)
    sample_rate_hz: int
    start_ms: int = Field(sa_type=BigInteger)
    duration_ms: int | None = Field(default=None, sa_type=BigInteger)
    size_bytes: int | None = Field(default=None, sa_type=BigInteger)
    ended_by: str = Field(default="", sa_type=Text)


class Usage(SQLModel, table=True):
    """What a participant has used while one agent led the session; nobody's where `identity` is empty."""

    __tablename__ = "usage"

    session_id: str = Field(sa_type=Key, primary_key=True, foreign_key="session.id")
    epoch: int = Field(sa_type=BigInteger, primary_key=True)
    identity: str = Field(sa_type=Key, primary_key=True)
    space_id: str = Field(sa_type=Key, foreign_key="space.id")
    speech_ms: int = Field(sa_type=BigInteger)
    stt_ms: int = Field(sa_type=BigInteger)
    covered_ms: int = Field(default=0, sa_type=BigInteger, sa_column_kwargs={"server_default": "0"})


class RoomConfig(SQLModel, table=True):
    """What is set for one room; None leaves it to the settings.

    `has_agent` says whether it gets an agent even if nobody asks for one, or none whoever asks; None gives it
    one where it is asked for.
    """

    __tablename__ = "room_config"

    space_id: str = Field(sa_type=Key, primary_key=True, foreign_key="space.id")
    room: str = Field(sa_type=Key, primary_key=True)
    idle_s: int | None = None
    max_duration_s: int | None = None
    max_participants: int | None = None
    is_recorded: bool | None = None
    has_agent: bool | None = None


class Lease(SQLModel, table=True):
    """Which agent leads a room, until when, and who stands by to take over from it.

    It belongs to a space as all rows do, but without a foreign key: SQLite keeps leases in a file of their
    own. The reconciler's has neither space nor room. `cut_ms` is up to where in session time the holder
    hears, once it hands over. `seq_until` is the last number that it may give before it renews the lease.
    `is_released` tells a lease that was given up from one whose holder died.
    """

    __tablename__ = "lease"

    space_id: str = Field(sa_type=Key, primary_key=True)
    room: str = Field(sa_type=Key, primary_key=True)
    sid: str = Field(sa_type=Key)
    holder: str = Field(sa_type=Text)
    worker: str = Field(sa_type=Text)
    epoch: int = Field(sa_type=BigInteger)
    acquired_at: datetime = Field(sa_type=UtcDateTime)
    renewed_at: datetime = Field(sa_type=UtcDateTime)
    expires_at: datetime = Field(sa_type=UtcDateTime)
    successor: str = Field(default="", sa_type=Text)
    successor_expires_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    cut_ms: int | None = Field(default=None, sa_type=BigInteger)
    seq_until: int = Field(default=0, sa_type=BigInteger)
    is_released: bool = False


class AgentDeath(SQLModel, table=True):
    """An agent that died soon after it began to run, `age_ms` after."""

    __tablename__ = "agent_death"
    __table_args__ = (Index("agent_death_by_time", "at"),)

    space_id: str = Field(sa_type=Key, primary_key=True, foreign_key="space.id")
    room: str = Field(sa_type=Key, primary_key=True)
    holder: str = Field(sa_type=Key, primary_key=True)
    sid: str = Field(sa_type=Key)
    worker: str = Field(sa_type=Text)
    at: datetime = Field(sa_type=UtcDateTime)
    age_ms: int = Field(sa_type=BigInteger)


class SessionCommand(SQLModel, table=True):
    """What somebody asked the agent of a session to do, and what became of it."""

    __tablename__ = "session_command"
    __table_args__ = (
        Index(
            "session_command_waiting",
            "session_id",
            sqlite_where=text("done_at IS NULL"),
            postgresql_where=text("done_at IS NULL"),
        ),
    )

    id: str = Field(sa_type=Key, primary_key=True)
    space_id: str = Field(sa_type=Key, foreign_key="space.id")
    session_id: str = Field(sa_type=Key, foreign_key="session.id")
    kind: str = Field(sa_type=Text)
    body: dict[str, Any] = Field(default_factory=dict, sa_type=JSON)
    asked_by: str = Field(sa_type=Text)
    asked_at: datetime = Field(sa_type=UtcDateTime)
    done_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    outcome: str = Field(default="", sa_type=Text)


class ProcessingError(SQLModel, table=True):
    """Something that went wrong and that an admin should know of."""

    __tablename__ = "processing_error"
    __table_args__ = (
        Index("processing_error_by_time", "space_id", "at", "id"),
        Index("processing_error_by_session", "session_id", "at", "id"),
    )

    id: str = Field(sa_type=Key, primary_key=True)
    space_id: str = Field(sa_type=Key, foreign_key="space.id")
    session_id: str | None = Field(default=None, sa_type=Key, foreign_key="session.id")
    stage: str = Field(sa_type=Text)
    code: str = Field(sa_type=Text)
    message: str = Field(sa_type=Text)
    at: datetime = Field(sa_type=UtcDateTime)
    is_read: bool = False


class Analysis(SQLModel, table=True):
    """One run of an analysis of a session. The newest by `version` is the one that counts.

    `step` is the one that runs, or failed; `attempt` rises each time that somebody has a failed run tried
    again. A session that was taken for over and went on ends another time, and `session_ended_at` tells which
    end this is of. `incomplete` names what was missing where not all of the session could be had. `claims` is
    how many statements the engine made, and `drops` how many of them did not hold, by the reason.
    """

    __tablename__ = "analysis"
    __table_args__ = (
        Index("analysis_by_session", "space_id", "session_id", "version", unique=True),
        Index(
            "analysis_unfinished",
            "session_ended_at",
            sqlite_where=text("finished_at IS NULL"),
            postgresql_where=text("finished_at IS NULL"),
        ),
    )

    id: str = Field(sa_type=Key, primary_key=True)
    space_id: str = Field(sa_type=Key, foreign_key="space.id")
    session_id: str = Field(sa_type=Key, foreign_key="session.id")
    version: int
    scenario: str = Field(sa_type=Key)
    scenario_version: int
    engine: str = Field(sa_type=Text)
    language: str = Field(sa_type=Text)
    status: str = Field(sa_type=Key)
    step: str = Field(default="", sa_type=Text)
    attempt: int = 1
    session_ended_at: datetime = Field(sa_type=UtcDateTime)
    created_at: datetime = Field(sa_type=UtcDateTime)
    finished_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    incomplete: list[str] = Field(default_factory=list, sa_type=JSON)
    statistics: dict[str, Any] = Field(default_factory=dict, sa_type=JSON)
    keywords: list[str] = Field(default_factory=list, sa_type=JSON)
    claims: int = 0
    drops: dict[str, int] = Field(default_factory=dict, sa_type=JSON)


class Statement(SQLModel, table=True):
    """What an analysis says. Its owner is who is to do it, where it is an action."""

    __tablename__ = "statement"

    analysis_id: str = Field(sa_type=Key, primary_key=True, foreign_key="analysis.id")
    number: int = Field(primary_key=True)
    space_id: str = Field(sa_type=Key, foreign_key="space.id")
    kind: str = Field(sa_type=Key)
    text: str = Field(sa_type=Text)
    owner_identity: str = Field(default="", sa_type=Text)
    owner_name: str = Field(default="", sa_type=Text)
    due: str = Field(default="", sa_type=Text)
    confidence: float
    support: str = Field(sa_type=Text)


class Evidence(SQLModel, table=True):
    """The words that a statement rests on: characters of an utterance, from one offset up to the other."""

    __tablename__ = "evidence"

    analysis_id: str = Field(sa_type=Key, primary_key=True, foreign_key="analysis.id")
    statement: int = Field(primary_key=True)
    number: int = Field(primary_key=True)
    space_id: str = Field(sa_type=Key, foreign_key="space.id")
    utterance: str = Field(sa_type=Key)
    start_offset: int
    end_offset: int
    identity: str = Field(sa_type=Key)
    name: str = Field(sa_type=Text)
    text: str = Field(sa_type=Text)
    start_ms: int = Field(sa_type=BigInteger)
    end_ms: int = Field(sa_type=BigInteger)


class Rendering(SQLModel, table=True):
    """Audio made of a session's stems, for listening. `path` is relative to the folder of all of them."""

    __tablename__ = "rendering"

    session_id: str = Field(sa_type=Key, primary_key=True, foreign_key="session.id")
    kind: str = Field(sa_type=Key, primary_key=True)
    space_id: str = Field(sa_type=Key, foreign_key="space.id")
    path: str = Field(sa_type=Text)
    media_type: str = Field(sa_type=Text)
    duration_ms: int = Field(sa_type=BigInteger)
    size_bytes: int = Field(sa_type=BigInteger)
    made_at: datetime = Field(sa_type=UtcDateTime)


class ApiKey(SQLModel, table=True):
    """Who holds the key that hashes to `hash` may read what is in its space."""

    __tablename__ = "api_key"
    __table_args__ = (Index("api_key_by_hash", "hash", unique=True),)

    id: str = Field(sa_type=Key, primary_key=True)
    space_id: str = Field(sa_type=Key, foreign_key="space.id")
    name: str = Field(sa_type=Text)
    hash: str = Field(sa_type=Key)
    created_at: datetime = Field(sa_type=UtcDateTime)
    used_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    revoked_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class AuditEvent(SQLModel, table=True):
    """Who did what to what was kept."""

    __tablename__ = "audit_event"
    __table_args__ = (Index("audit_event_by_time", "space_id", "at", "id"),)

    id: str = Field(sa_type=Key, primary_key=True)
    space_id: str = Field(sa_type=Key, foreign_key="space.id")
    at: datetime = Field(sa_type=UtcDateTime)
    actor: str = Field(sa_type=Text)
    action: str = Field(sa_type=Text)
    subject: str = Field(sa_type=Text)
    detail: dict[str, Any] = Field(default_factory=dict, sa_type=JSON)
