"""Whether a session may still speak in its room: a protocol."""

from typing import Protocol

__all__ = ["Lead", "Unopposed"]


class Lead(Protocol):
    """Who leads a room may keep finals and publish; nobody else may, since viewers would get all twice."""

    async def confirm(self) -> bool:
        """Whether this session leads its room now. It waits while nobody can say; False is for good."""
        ...


class Unopposed:
    """Nobody else leads what this session listens to, as a recording."""

    async def confirm(self) -> bool:
        """Always."""
        return True
