"""A store that keeps records in memory, and can be told to take nothing."""

from agent.values import Storage
from persistence.records import Final, Record


class Kept:
    """Everything that a session gave to be kept, in order. `takes` may be set to False for a while."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.takes = True

    @property
    def storage(self) -> Storage:
        return Storage.DATABASE if self.takes else Storage.NOWHERE

    def note(self, record: Record) -> None:
        self.records.append(record)

    async def keep(self, record: Final) -> bool:
        if self.takes:
            self.records.append(record)
        return self.takes

    def of(self, kind: str) -> list[Record]:
        return [record for record in self.records if record.kind == kind]

    @property
    def finals(self) -> list[Final]:
        return [record for record in self.records if isinstance(record, Final)]
