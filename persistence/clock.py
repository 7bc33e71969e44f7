"""What time it is by the clock of the database, which all workers share."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, Connection, Interval, func, literal, select, type_coerce

from persistence.tables import UtcDateTime

__all__ = ["clock", "database_time"]


def clock(connection: Connection, later_s: float = 0.0) -> ColumnElement[datetime]:
    """The database's own time, as a part of a statement, or what it will be `later_s` from then.

    SQLite has none that is finer than ours, and is on the same machine.
    """
    later = timedelta(seconds=later_s)
    if connection.dialect.name == "sqlite":
        return literal(datetime.now(UTC) + later, UtcDateTime())
    # now() would be when the transaction began, maybe long before it got its locks.
    now: ColumnElement[datetime] = func.clock_timestamp(type_=UtcDateTime())
    return type_coerce(now + literal(later, Interval()), UtcDateTime()) if later else now


def database_time(connection: Connection) -> datetime:
    """What time it is by the clock of the database."""
    at: datetime = connection.execute(select(clock(connection))).scalar_one()
    return at
