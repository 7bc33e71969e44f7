"""How a database finds what it is asked for."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event

from persistence.database import Database

__all__ = ["plans", "sorts"]


@contextmanager
def plans(database: Database) -> Iterator[list[str]]:
    """The plans of all queries that are made meanwhile; they are in the list when the context is left.

    Where a table has but a few rows PostgreSQL reads them all, whatever indexes there are.
    """
    asked: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("SELECT"):
            asked.append((statement, parameters))

    found: list[str] = []
    event.listen(database.engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(database.engine, "before_cursor_execute", note)
    with database.write() as connection:
        connection.exec_driver_sql("ANALYZE")
        explain = "EXPLAIN QUERY PLAN" if database.is_sqlite else "EXPLAIN"
        for statement, parameters in asked:
            rows = connection.exec_driver_sql(f"{explain} {statement}", parameters).all()
            found.append("\n".join(str(row[-1]) for row in rows))


def sorts(plan: str) -> bool:
    """Whether rows are sorted that do not come in order."""
    return "Sort" in plan or "TEMP B-TREE" in plan
