"""Writing a journal's records into the database: any of them as often as one likes, with the same result."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Insert, Table, and_, case, false, or_, true, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite

from agent.errors import DatabaseAwayError, DatabaseError, JournalError
from persistence import sessions
from persistence.database import Database
from persistence.position import Position
from persistence.records import Begun, Ended, Failure, Final, Gap, Presence, Record, Stem, Usage
from persistence.rows import EPOCH, GAP, PARTICIPANT, PROCESSING_ERROR, STEM, USAGE, UTTERANCE
from persistence.sessions import BEGINNING, Placement

__all__ = ["Applier", "Refusal"]

CAPTION_ID = re.compile(r"([0-9]{1,18})-([0-9]{1,18})")  # an epoch and a number that fit into 64 bits
TIMES = ("start_ms", "end_ms", "joined_ms", "left_ms")

Columns = Any  # those of the row that is there, or of the one that comes


class Refusal(NamedTuple):
    """A record that the database refuses for ever, by its place among those that were given."""

    place: int
    kind: str


@dataclass(frozen=True, slots=True)
class _Rule:
    """Where the records of a kind go, and when one replaces what is there under the same key.

    Of the columns in `larger` the larger value stays, with whichever record it came.
    """

    table: Table
    replaces: Callable[[Columns, Columns], ColumnElement[bool]]
    larger: tuple[str, ...] = ()


# What has an end never loses it to a record from before.
RULES: dict[type[Record], _Rule] = {
    Final: _Rule(UTTERANCE, lambda there, comes: comes.revision > there.revision),
    Presence: _Rule(
        PARTICIPANT, lambda there, comes: or_(there.left_ms.is_(None), comes.left_ms >= there.left_ms)
    ),
    Gap: _Rule(GAP, lambda there, comes: comes.end_ms > there.end_ms),
    Stem: _Rule(
        STEM, lambda there, comes: or_(there.duration_ms.is_(None), comes.duration_ms >= there.duration_ms)
    ),
    Usage: _Rule(USAGE, lambda there, comes: true(), larger=("speech_ms", "stt_ms", "covered_ms")),
    Failure: _Rule(PROCESSING_ERROR, lambda there, comes: false()),
}


class Applier:
    """Brings the records of one journal into the database. Use it in one thread at a time.

    Args:
        space: Whose session it is.
        published_as: The session as the journal names it.
        epoch: Likewise.
        is_live: Whether its job is alive, so that each batch is a sign of life; not where a journal is
            drained that somebody left behind.
    """

    def __init__(
        self, database: Database, space: str, published_as: str, epoch: int, *, is_live: bool = True
    ) -> None:
        self._database = database
        self._space = space
        self._published_as = published_as
        self._epoch = epoch
        self._is_live = is_live
        self._placement: Placement | None = None
        self._has_refused = False

    def watermark(self) -> Position:
        """Up to where the journal is in the database; its beginning where nothing of it is.

        Raises:
            DatabaseAwayError: The database is away.
        """
        with self._database.read() as connection:
            self._placement = sessions.placement(connection, self._space, self._published_as, self._epoch)
        return self._placement.watermark if self._placement is not None else BEGINNING

    def settle(self) -> None:
        """Nothing more comes: the job is gone, and all that it kept is in the database.

        Raises:
            DatabaseAwayError: The database is away.
        """
        with self._database.write() as connection:
            sessions.settle(connection, self._space, self._published_as, self._epoch)

    def apply(self, records: Sequence[Record], watermark: Position | None) -> list[Refusal]:
        """Write records in the order of the journal, all in one transaction.

        Args:
            records: The first ones hold the journal's `Begun`, unless the database knows the journal.
            watermark: Where the journal's next record begins; None for records that are in none.

        Returns:
            The records that the database refuses, which the journal alone has from now on; all others are
            written, and an admin is told.

        Raises:
            DatabaseAwayError: The database is away; nothing was written.
            JournalError: Nothing says which session the records belong to.
        """
        try:
            placed = self._placed(records)
        except DatabaseAwayError:
            raise
        except DatabaseError:
            return [Refusal(place, record.kind) for place, record in enumerate(records)]
        try:
            with self._database.write() as connection:
                self._write(connection, placed, records)
                self._advance(connection, placed, watermark)
        except DatabaseAwayError:
            raise
        except DatabaseError:
            refused = self._write_apart(placed, records)
            with self._database.write() as connection:
                self._write(
                    connection, placed, [self._failure(connection, records[place]) for place, _ in refused]
                )
                # It stays before what was refused: whoever drains the journal meets that, and keeps it.
                self._has_refused = True
                self._advance(connection, placed, None)
            return refused
        return []

    def _placed(self, records: Sequence[Record]) -> Placement:
        if self._placement is None:
            begun = next((record for record in records if isinstance(record, Begun)), None)
            if begun is None:
                self.watermark()
            else:
                with self._database.write() as connection:
                    placed = sessions.register(connection, begun)
                self._placement = placed
        if self._placement is None:
            raise JournalError(
                f"journal: {self._published_as}-{self._epoch} has lost its beginning, and the database does "
                "not know it; nothing says which session it belongs to"
            )
        return self._placement

    def _write_apart(self, placed: Placement, records: Sequence[Record], first: int = 0) -> list[Refusal]:
        """Write what can be written of records that are refused together, the first of them at `first`."""
        if len(records) == 1:
            return [Refusal(first, records[0].kind)]
        half = len(records) // 2
        refused = []
        for part, place in ((records[:half], first), (records[half:], first + half)):
            try:
                with self._database.write() as connection:
                    self._write(connection, placed, part)
            except DatabaseAwayError:
                raise
            except DatabaseError:
                refused += self._write_apart(placed, part, place)
        return refused

    def _write(self, connection: Connection, placed: Placement, records: Sequence[Record]) -> None:
        for kind, rule in RULES.items():
            rows = [self._row(placed, rule.table, record) for record in records if isinstance(record, kind)]
            if rows:
                connection.execute(_upsert(kind, connection.dialect.name), rows)
        for record in records:
            if isinstance(record, Ended):
                sessions.end(
                    connection,
                    placed.space_id,
                    placed.session_id,
                    record.reason,
                    record.at,
                    epoch=placed.epoch,
                )

    def _advance(self, connection: Connection, placed: Placement, watermark: Position | None) -> None:
        if self._is_live:
            sessions.touch(connection, self._space, placed.session_id)
        if watermark is None or self._has_refused:
            return
        place = (EPOCH.c.journal_segment, EPOCH.c.journal_offset_bytes)
        connection.execute(
            update(EPOCH)
            .where(
                EPOCH.c.space_id == self._space,
                EPOCH.c.published_as == self._published_as,
                EPOCH.c.published_epoch == self._epoch,
                tuple_(*place) < tuple_(watermark.segment, watermark.offset_bytes),
            )
            .values(journal_segment=watermark.segment, journal_offset_bytes=watermark.offset_bytes)
        )

    def _row(self, placed: Placement, table: Table, record: Record) -> dict[str, Any]:
        values: dict[str, Any] = {
            **record.model_dump(),
            "session_id": placed.session_id,
            "space_id": placed.space_id,
            "epoch": placed.epoch,
            "worker": placed.worker,
            "is_read": False,
        }
        for name in TIMES:
            if values.get(name) is not None:
                values[name] += placed.shift_ms
        if isinstance(record, Final):
            values |= self._caption(placed, record.id)
        return {name: values[name] for name in table.c.keys()}  # noqa: SIM118  iterating gives columns

    def _caption(self, placed: Placement, caption_id: str) -> dict[str, Any]:
        found = CAPTION_ID.fullmatch(caption_id)
        if found is None:
            raise DatabaseError("database: the id of a final is not an epoch and a number, as in 1-23")
        epoch, number = map(int, found.groups())
        if epoch == self._epoch:
            epoch = placed.epoch
        return {"id": f"{epoch}-{number}", "epoch": epoch, "number": number}

    def _failure(self, connection: Connection, record: Record) -> Failure:
        """What an admin is told of a record that was refused: the same thing once."""
        journal = f"{self._published_as}-{self._epoch}"
        print_of = sha256(f"{journal} {record!r}".encode("utf-8", "surrogatepass"))
        return Failure(
            id=print_of.hexdigest(),
            stage="persistence",
            code="refused",
            message=f"The database refuses a record of kind {record.kind}; it is kept in journal {journal}.",
            at=sessions.database_time(connection),
        )


@cache
def _upsert(kind: type[Record], dialect: str) -> Insert:
    rule = RULES[kind]
    insert = (sqlite if dialect == "sqlite" else postgresql).insert(rule.table)
    there, comes = rule.table.c, insert.excluded
    values: dict[str, Any] = {column.name: comes[column.name] for column in there if not column.primary_key}
    for name in rule.larger:
        values[name] = case((there[name] > comes[name], there[name]), else_=comes[name])
    statement: Insert = insert.on_conflict_do_update(
        index_elements=rule.table.primary_key.columns,
        set_=values,
        where=and_(there.space_id == comes.space_id, rule.replaces(there, comes)),
    )
    return statement
