"""How much of each participant's speech is in final captions."""

from alembic import op
from sqlalchemy import BigInteger, Column

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("usage", Column("covered_ms", BigInteger, nullable=False, server_default="0"))
