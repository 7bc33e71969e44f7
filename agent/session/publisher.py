"""Where a session's events go: a protocol."""

from typing import Protocol

from agent.values import Event

__all__ = ["Publisher"]


class Publisher(Protocol):
    """What a session speaks to. One at a time: the session awaits each call before the next."""

    async def publish(self, event: Event) -> None:
        """Send an event to every viewer, and return when it is on its way.

        Raises nothing for a viewer that is away; a publisher whose way out is closed counts and logs what
        it could not send.
        """
        ...
