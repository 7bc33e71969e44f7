"""Who is in the room, under which name, from when to when."""

from persistence.records import Presence

__all__ = ["Attendance"]


class Attendance:
    """Keeps the stretches of time in which people were there; another name begins another stretch."""

    def __init__(self) -> None:
        self._present: dict[str, Presence] = {}

    def __len__(self) -> int:
        return len(self._present)

    def arrive(self, identity: str, name: str, now_ms: int) -> list[Presence]:
        """Somebody is here under this name from now on. Gives what changed."""
        before = self._present.get(identity)
        if before is not None and before.name == name:
            return []
        ended = self.leave(identity, now_ms)
        self._present[identity] = Presence(identity=identity, name=name, joined_ms=now_ms)
        return [*ended, self._present[identity]]

    def leave(self, identity: str, now_ms: int) -> list[Presence]:
        """Somebody is gone. Gives what changed."""
        if (before := self._present.pop(identity, None)) is None:
            return []
        return [before.model_copy(update={"left_ms": max(now_ms, before.joined_ms)})]

    def leave_all(self, now_ms: int) -> list[Presence]:
        """It is over for everybody. Gives what changed."""
        return [ended for identity in list(self._present) for ended in self.leave(identity, now_ms)]
