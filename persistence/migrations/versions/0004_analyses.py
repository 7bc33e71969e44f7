"""Analyses with their statements and evidence, audio for listening, and keys of the console."""

from alembic import op
from sqlalchemy import JSON, BigInteger, Column, DateTime, Float, ForeignKey, Integer, String, text

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "analysis",
        Column("id", String, primary_key=True),
        Column("space_id", String, ForeignKey("space.id"), nullable=False),
        Column("session_id", String, ForeignKey("session.id"), nullable=False),
        Column("version", Integer, nullable=False),
        Column("scenario", String, nullable=False),
        Column("scenario_version", Integer, nullable=False),
        Column("engine", String, nullable=False),
        Column("language", String, nullable=False),
        Column("status", String, nullable=False),
        Column("step", String, nullable=False),
        Column("attempt", Integer, nullable=False),
        Column("session_ended_at", DateTime(timezone=True), nullable=False),
        Column("created_at", DateTime(timezone=True), nullable=False),
        Column("finished_at", DateTime(timezone=True)),
        Column("incomplete", JSON, nullable=False),
        Column("statistics", JSON, nullable=False),
        Column("keywords", JSON, nullable=False),
        Column("claims", Integer, nullable=False),
        Column("drops", JSON, nullable=False),
    )
    op.create_index("analysis_by_session", "analysis", ["space_id", "session_id", "version"], unique=True)
    op.create_index(
        "analysis_unfinished",
        "analysis",
        ["session_ended_at"],
        sqlite_where=text("finished_at IS NULL"),
        postgresql_where=text("finished_at IS NULL"),
    )
    op.create_table(
        "statement",
        Column("analysis_id", String, ForeignKey("analysis.id"), primary_key=True),
        Column("number", Integer, primary_key=True),
        Column("space_id", String, ForeignKey("space.id"), nullable=False),
        Column("kind", String, nullable=False),
        Column("text", String, nullable=False),
        Column("owner_identity", String, nullable=False),
        Column("owner_name", String, nullable=False),
        Column("due", String, nullable=False),
        Column("confidence", Float, nullable=False),
        Column("support", String, nullable=False),
    )
    op.create_table(
        "evidence",
        Column("analysis_id", String, ForeignKey("analysis.id"), primary_key=True),
        Column("statement", Integer, primary_key=True),
        Column("number", Integer, primary_key=True),
        Column("space_id", String, ForeignKey("space.id"), nullable=False),
        Column("utterance", String, nullable=False),
        Column("start_offset", Integer, nullable=False),
        Column("end_offset", Integer, nullable=False),
        Column("identity", String, nullable=False),
        Column("name", String, nullable=False),
        Column("text", String, nullable=False),
        Column("start_ms", BigInteger, nullable=False),
        Column("end_ms", BigInteger, nullable=False),
    )
    op.create_table(
        "rendering",
        Column("session_id", String, ForeignKey("session.id"), primary_key=True),
        Column("kind", String, primary_key=True),
        Column("space_id", String, ForeignKey("space.id"), nullable=False),
        Column("path", String, nullable=False),
        Column("media_type", String, nullable=False),
        Column("duration_ms", BigInteger, nullable=False),
        Column("size_bytes", BigInteger, nullable=False),
        Column("made_at", DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "api_key",
        Column("id", String, primary_key=True),
        Column("space_id", String, ForeignKey("space.id"), nullable=False),
        Column("name", String, nullable=False),
        Column("hash", String, nullable=False),
        Column("created_at", DateTime(timezone=True), nullable=False),
        Column("used_at", DateTime(timezone=True)),
        Column("revoked_at", DateTime(timezone=True)),
    )
    op.create_index("api_key_by_hash", "api_key", ["hash"], unique=True)
