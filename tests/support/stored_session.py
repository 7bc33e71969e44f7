"""A session in a database, as the journal of its one agent brings it there."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

from sqlalchemy import insert

from agent.analysis.transcript import Utterance
from persistence.apply import Applier
from persistence.database import Database
from persistence.records import DEFAULT_SPACE, Begun, Ended, Final, Record
from persistence.tables import SCHEMA

__all__ = ["AT", "StoredSession", "add_space", "as_final"]

AT = datetime(2026, 3, 1, 9, 0, tzinfo=UTC)
EPOCH = 1


class StoredSession:
    """One that has begun; it goes on by what it is told to keep.

    Args:
        is_live: Whether what it keeps is a sign of life.
    """

    def __init__(
        self,
        database: Database,
        *,
        room: str = "standup",
        space: str = DEFAULT_SPACE,
        started_at: datetime = AT,
        is_live: bool = True,
    ) -> None:
        self.id = uuid4().hex
        self.space = space
        self.started_at = started_at
        self._applier = Applier(database, space, self.id, EPOCH, is_live=is_live)
        self.keep(
            Begun(
                session=self.id,
                epoch=EPOCH,
                space=space,
                room=room,
                room_sid=f"RM_{self.id}",
                agent="agent-1",
                worker="worker-1",
                languages=("en",),
                started_at=started_at,
                offset_ms=0,
                is_provisional=False,
            )
        )

    def keep(self, *records: Record) -> None:
        """What its journal brings next, none of which is refused."""
        assert self._applier.apply(records, None) == []

    def end(self, end_ms: int, *, is_settled: bool = True) -> None:
        """It is over; `is_settled` tells whether all of its journal is in the database."""
        at = self.started_at + timedelta(milliseconds=end_ms)
        self.keep(Ended(reason="room_closed", end_ms=end_ms, at=at))
        if is_settled:
            self._applier.settle()


def as_final(
    utterance: Utterance, seq: int, at: datetime = AT, *, revision: int = 1, has_overlap: bool = False
) -> Final:
    """The caption of what was said."""
    return Final(
        id=utterance.id,
        revision=revision,
        seq=seq,
        identity=utterance.speaker.identity,
        name=utterance.speaker.name,
        text=utterance.text,
        language="en",
        confidence=0.9,
        has_overlap=has_overlap,
        start_ms=utterance.start_ms,
        end_ms=utterance.end_ms,
        at=at,
    )


def add_space(database: Database, space: str) -> None:
    """A space in which nothing is."""
    with database.write() as connection:
        connection.execute(insert(SCHEMA.tables["space"]).values(id=space, name=space, created_at=AT))
