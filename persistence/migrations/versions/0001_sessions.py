"""The tables of sessions and what was said in them, and the default space."""

from datetime import UTC, datetime

from alembic import op
from sqlalchemy import JSON, BigInteger, Boolean, Column, DateTime, Float, ForeignKey, Integer, String, text

revision = "0001"
down_revision = None


def upgrade() -> None:
    space = op.create_table(
        "space",
        Column("id", String, primary_key=True),
        Column("name", String, nullable=False),
        Column("created_at", DateTime(timezone=True), nullable=False),
    )
    op.bulk_insert(space, [{"id": "default", "name": "Default", "created_at": datetime.now(UTC)}])
    op.create_table(
        "session",
        Column("id", String, primary_key=True),
        Column("space_id", String, ForeignKey("space.id"), nullable=False),
        Column("room", String, nullable=False),
        Column("status", String, nullable=False),
        Column("epoch", BigInteger, nullable=False),
        Column("languages", JSON, nullable=False),
        Column("started_at", DateTime(timezone=True), nullable=False),
        Column("heard_at", DateTime(timezone=True), nullable=False),
        Column("ended_at", DateTime(timezone=True)),
        Column("ended_by", String, nullable=False),
        Column("merged_into", String, ForeignKey("session.id")),
    )
    op.create_index("session_by_room", "session", ["space_id", "room", "started_at", "id"])
    op.create_index("session_by_start", "session", ["space_id", "started_at", "id"])
    op.create_index("session_by_status", "session", ["status", "heard_at"])
    op.create_table(
        "session_sid",
        Column("session_id", String, ForeignKey("session.id"), primary_key=True),
        Column("sid", String, primary_key=True),
        Column("space_id", String, ForeignKey("space.id"), nullable=False),
        Column("since", DateTime(timezone=True), nullable=False),
    )
    op.create_index("session_sid_by_sid", "session_sid", ["space_id", "sid"])
    op.create_table(
        "session_epoch",
        Column("published_as", String, primary_key=True),
        Column("published_epoch", BigInteger, primary_key=True),
        Column("session_id", String, ForeignKey("session.id"), nullable=False),
        Column("epoch", BigInteger, nullable=False),
        Column("space_id", String, ForeignKey("space.id"), nullable=False),
        Column("agent", String, nullable=False),
        Column("worker", String, nullable=False),
        Column("began_at", DateTime(timezone=True), nullable=False),
        Column("shift_ms", BigInteger, nullable=False),
        Column("journal_segment", Integer, nullable=False),
        Column("journal_offset_bytes", BigInteger, nullable=False),
        Column("settled_at", DateTime(timezone=True)),
    )
    op.create_index("session_epoch_by_session", "session_epoch", ["session_id", "epoch"], unique=True)
    op.create_index(
        "session_epoch_unsettled",
        "session_epoch",
        ["worker"],
        sqlite_where=text("settled_at IS NULL"),
        postgresql_where=text("settled_at IS NULL"),
    )
    op.create_table(
        "participant",
        Column("session_id", String, ForeignKey("session.id"), primary_key=True),
        Column("epoch", BigInteger, primary_key=True),
        Column("identity", String, primary_key=True),
        Column("joined_ms", BigInteger, primary_key=True),
        Column("space_id", String, ForeignKey("space.id"), nullable=False),
        Column("name", String, nullable=False),
        Column("left_ms", BigInteger),
    )
    op.create_table(
        "utterance",
        Column("session_id", String, ForeignKey("session.id"), primary_key=True),
        Column("id", String, primary_key=True),
        Column("space_id", String, ForeignKey("space.id"), nullable=False),
        Column("epoch", BigInteger, nullable=False),
        Column("number", BigInteger, nullable=False),
        Column("revision", Integer, nullable=False),
        Column("seq", BigInteger, nullable=False),
        Column("identity", String, nullable=False),
        Column("name", String, nullable=False),
        Column("text", String, nullable=False),
        Column("language", String, nullable=False),
        Column("confidence", Float, nullable=False),
        Column("has_overlap", Boolean, nullable=False),
        Column("start_ms", BigInteger, nullable=False),
        Column("end_ms", BigInteger, nullable=False),
        Column("at", DateTime(timezone=True), nullable=False),
    )
    op.create_index(
        "utterance_by_time", "utterance", ["space_id", "session_id", "start_ms", "epoch", "number"]
    )
    op.create_table(
        "gap",
        Column("session_id", String, ForeignKey("session.id"), primary_key=True),
        Column("epoch", BigInteger, primary_key=True),
        Column("start_ms", BigInteger, primary_key=True),
        Column("identity", String, primary_key=True),
        Column("reason", String, primary_key=True),
        Column("space_id", String, ForeignKey("space.id"), nullable=False),
        Column("end_ms", BigInteger, nullable=False),
    )
    op.create_table(
        "stem",
        Column("session_id", String, ForeignKey("session.id"), primary_key=True),
        Column("epoch", BigInteger, primary_key=True),
        Column("track", String, primary_key=True),
        Column("number", Integer, primary_key=True),
        Column("space_id", String, ForeignKey("space.id"), nullable=False),
        Column("identity", String, nullable=False),
        Column("worker", String, nullable=False),
        Column("path", String, nullable=False),
        Column("sample_rate_hz", Integer, nullable=False),
        Column("start_ms", BigInteger, nullable=False),
        Column("duration_ms", BigInteger),
        Column("size_bytes", BigInteger),
        Column("ended_by", String, nullable=False),
    )
    op.create_index(
        "stem_open",
        "stem",
        ["worker"],
        sqlite_where=text("duration_ms IS NULL"),
        postgresql_where=text("duration_ms IS NULL"),
    )
    op.create_table(
        "usage",
        Column("session_id", String, ForeignKey("session.id"), primary_key=True),
        Column("epoch", BigInteger, primary_key=True),
        Column("identity", String, primary_key=True),
        Column("space_id", String, ForeignKey("space.id"), nullable=False),
        Column("speech_ms", BigInteger, nullable=False),
        Column("stt_ms", BigInteger, nullable=False),
    )
    op.create_table(
        "room_config",
        Column("space_id", String, ForeignKey("space.id"), primary_key=True),
        Column("room", String, primary_key=True),
        Column("idle_s", Integer),
        Column("max_duration_s", Integer),
        Column("max_participants", Integer),
        Column("is_recorded", Boolean),
    )
    op.create_table(
        "lease",
        Column("space_id", String, ForeignKey("space.id"), primary_key=True),
        Column("room", String, primary_key=True),
        Column("sid", String, nullable=False),
        Column("holder", String, nullable=False),
        Column("epoch", BigInteger, nullable=False),
        Column("expires_at", DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "processing_error",
        Column("id", String, primary_key=True),
        Column("space_id", String, ForeignKey("space.id"), nullable=False),
        Column("session_id", String, ForeignKey("session.id")),
        Column("stage", String, nullable=False),
        Column("code", String, nullable=False),
        Column("message", String, nullable=False),
        Column("at", DateTime(timezone=True), nullable=False),
        Column("is_read", Boolean, nullable=False),
    )
    op.create_index("processing_error_by_session", "processing_error", ["session_id", "at", "id"])
    op.create_index("processing_error_by_time", "processing_error", ["space_id", "at", "id"])
    op.create_table(
        "audit_event",
        Column("id", String, primary_key=True),
        Column("space_id", String, ForeignKey("space.id"), nullable=False),
        Column("at", DateTime(timezone=True), nullable=False),
        Column("actor", String, nullable=False),
        Column("action", String, nullable=False),
        Column("subject", String, nullable=False),
        Column("detail", JSON, nullable=False),
    )
    op.create_index("audit_event_by_time", "audit_event", ["space_id", "at", "id"])
