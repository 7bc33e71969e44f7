"""Which rooms an agent is dispatched into, and when: decided from what is known, with times as arguments.

Nothing here knows a clock, LiveKit or the database.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase

from persistence.open_rooms import RoomRecord
from persistence.sessions import ENDED_FOR_GOOD, ENDED_FOR_NOW

__all__ = ["JOIN_S", "Pursuit", "Reason", "Verdict", "is_among", "may_want_agent", "wants_agent"]

JOIN_S = 3.0  # a worker takes a dispatch at once, and its agent leads as soon as it runs
LONGEST_WAIT_S = 30.0  # between two dispatches where nobody comes: all workers are full, or there is none


class Verdict(StrEnum):
    """What is done about a room that nobody leads."""

    UNWANTED = "unwanted"
    EMPTY = "empty"
    PARKED = "parked"
    WAIT = "wait"
    DISPATCH = "dispatch"


class Reason(StrEnum):
    """Why an agent is dispatched."""

    AGENT_DIED = "agent_died"  # its process ended
    AGENT_LEFT = "agent_left"  # it ended in an orderly way, and its room goes on
    LEASE_LAPSED = "lease_lapsed"  # nobody has heard from it
    NEVER_CAME = "never_came"


def is_among(room: str, patterns: Sequence[str]) -> bool:
    """Whether a room's name matches one of the patterns, as a shell's do."""
    return any(fnmatchcase(room, pattern) for pattern in patterns)


def may_want_agent(record: RoomRecord, *, is_served: bool) -> bool:
    """Whether it is worth asking LiveKit if a room has asked for an agent.

    Args:
        is_served: Whether the settings let rooms of this name have one.
    """
    if record.has_agent is False or record.ended_by in ENDED_FOR_GOOD | ENDED_FOR_NOW:
        return False
    return record.has_agent is True or is_served


def wants_agent(record: RoomRecord, *, is_served: bool, was_asked: bool) -> bool:
    """Whether a room wants an agent: it is set for the room, it asks, or its session goes on.

    A session that goes on counts by itself: in a room that a restarted LiveKit server has made anew, nobody
    has asked. One that was ended is never brought back.
    """
    if not may_want_agent(record, is_served=is_served):
        return False
    return record.has_agent is True or record.has_open_session or was_asked


@dataclass(slots=True)
class Pursuit:
    """How an agent is got into one room: when it was asked in, and which one died. Times in seconds.

    Attributes:
        reason: Why the next one is to come.
        dead: The identity of the one that died last.
    """

    reason: Reason = Reason.NEVER_CAME
    dead: str = ""
    _tries: int = 0
    _asked_s: float | None = None
    _died_s: float | None = None

    def note_death(self, agent: str, reason: Reason, now_s: float) -> None:
        """An agent has died: its successor need not wait. Counts once for each."""
        if agent != self.dead:
            self.dead, self._died_s, self.reason, self._tries = agent, now_s, reason, 0

    def note_left(self, agent: str) -> None:
        """An agent has left in an orderly way. The next one may, too, so it waits its turn."""
        if agent != self.dead:
            self.dead, self.reason = agent, Reason.AGENT_LEFT

    def note_asked(self, asked_s: float) -> None:
        """Somebody, who may be LiveKit itself, has asked an agent in."""
        self._asked_s = max(asked_s, asked_s if self._asked_s is None else self._asked_s)

    def note_dispatched(self, now_s: float) -> None:
        """We have asked an agent in; whatever happens, we do not at once do it again."""
        self.note_asked(now_s)
        self._tries += 1
        self._died_s, self.reason = None, Reason.NEVER_CAME

    @property
    def due_s(self) -> float:
        """When an agent is to be dispatched, if none comes before."""
        if self._asked_s is None or (self._died_s is not None and self._asked_s <= self._died_s):
            return 0.0
        wait_s = JOIN_S * 2.0 ** max(self._tries - 1, 0)
        return self._asked_s + min(wait_s, LONGEST_WAIT_S)

    def decide(self, *, is_wanted: bool, people: int, is_parked: bool, now_s: float) -> Verdict:
        """What is to be done now."""
        if not is_wanted:
            return Verdict.UNWANTED
        if not people:
            return Verdict.EMPTY
        if is_parked:
            return Verdict.PARKED
        return Verdict.DISPATCH if now_s >= self.due_s else Verdict.WAIT
