"""Who leads a room and who takes over from it, agents that died early, and commands for sessions."""

from alembic import op
from sqlalchemy import JSON, BigInteger, Boolean, Column, DateTime, ForeignKey, String, text

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.drop_table("lease")  # nothing has used it
    op.create_table(
        "lease",
        Column("space_id", String, primary_key=True),
        Column("room", String, primary_key=True),
        Column("sid", String, nullable=False),
        Column("holder", String, nullable=False),
        Column("worker", String, nullable=False),
        Column("epoch", BigInteger, nullable=False),
        Column("acquired_at", DateTime(timezone=True), nullable=False),
        Column("renewed_at", DateTime(timezone=True), nullable=False),
        Column("expires_at", DateTime(timezone=True), nullable=False),
        Column("successor", String, nullable=False),
        Column("successor_expires_at", DateTime(timezone=True)),
        Column("cut_ms", BigInteger),
        Column("seq_until", BigInteger, nullable=False),
        Column("is_released", Boolean, nullable=False),
    )
    op.create_table(
        "agent_death",
        Column("space_id", String, ForeignKey("space.id"), primary_key=True),
        Column("room", String, primary_key=True),
        Column("holder", String, primary_key=True),
        Column("sid", String, nullable=False),
        Column("worker", String, nullable=False),
        Column("at", DateTime(timezone=True), nullable=False),
        Column("age_ms", BigInteger, nullable=False),
    )
    op.create_index("agent_death_by_time", "agent_death", ["at"])
    op.create_table(
        "session_command",
        Column("id", String, primary_key=True),
        Column("space_id", String, ForeignKey("space.id"), nullable=False),
        Column("session_id", String, ForeignKey("session.id"), nullable=False),
        Column("kind", String, nullable=False),
        Column("body", JSON, nullable=False),
        Column("asked_by", String, nullable=False),
        Column("asked_at", DateTime(timezone=True), nullable=False),
        Column("done_at", DateTime(timezone=True)),
        Column("outcome", String, nullable=False),
    )
    op.create_index(
        "session_command_waiting",
        "session_command",
        ["session_id"],
        sqlite_where=text("done_at IS NULL"),
        postgresql_where=text("done_at IS NULL"),
    )
    op.add_column("room_config", Column("has_agent", Boolean))
