"""Where a session keeps what must not be lost: a protocol."""

from typing import Protocol

from agent.values import Storage
from persistence.records import Final, Record

__all__ = ["Store"]


class Store(Protocol):
    """What a session gives its records to. It keeps their order."""

    @property
    def storage(self) -> Storage:
        """Where what is said now is safe."""
        ...

    def note(self, record: Record) -> None:
        """Keep a record that nobody waits for; within a second it is safe, where anything is."""
        ...

    async def keep(self, record: Final) -> bool:
        """Keep a final before viewers see it; tells whether it is safe from a crash now."""
        ...
