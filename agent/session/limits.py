"""How long and how big a session may get."""

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Limit", "SessionLimits"]


class Limit(StrEnum):
    """A limit that ends a session."""

    IDLE = "idle"
    DURATION = "duration"
    PARTICIPANTS = "participants"


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """The limits of one session; 0 is none."""

    idle_s: int = 0
    max_duration_s: int = 0
    max_participants: int = 0

    def reached(self, *, now_ms: int, last_voice_ms: int, participants: int) -> Limit | None:
        """The limit that the session is beyond, or None.

        Args:
            now_ms: Session time.
            last_voice_ms: When somebody's voice was last heard, or the agent came.
            participants: How many are in the room.
        """
        if self.max_participants and participants > self.max_participants:
            return Limit.PARTICIPANTS
        if self.max_duration_s and now_ms >= self.max_duration_s * 1000:
            return Limit.DURATION
        if self.idle_s and now_ms - last_voice_ms >= self.idle_s * 1000:
            return Limit.IDLE
        return None

    def explain(self, limit: Limit) -> str:
        """What the people in the room are told when it ends their captions."""
        match limit:
            case Limit.IDLE:
                return f"Captions have ended: nobody spoke for {_in_words(self.idle_s)}."
            case Limit.DURATION:
                return f"Captions have ended: they last {_in_words(self.max_duration_s)} at most."
            case Limit.PARTICIPANTS:
                return f"Captions have ended: there are more than {self.max_participants} people here."


def _in_words(seconds: int) -> str:
    for size, unit in ((3600, "hour"), (60, "minute")):
        if seconds >= size and seconds % size == 0:
            count = seconds // size
            return f"{count} {unit}" if count == 1 else f"{count} {unit}s"
    return f"{seconds} seconds"
