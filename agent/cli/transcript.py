"""What a viewer sees of a session: finals in order, open captions, and changes of its state. Pure.

Everything here comes from other people. Text is cleaned of control characters, and an event that is not
shaped as it should be is ignored.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from agent.captions.text import clean

__all__ = ["Line", "Notice", "Transcript"]

UNHEARD = {
    "e2ee": "the microphone is end-to-end encrypted",
    "not_permitted": "the microphone is not shared with the agent",
    "opted_out": "opted out",
}


REASONS = {
    "disk_error": "the disk fails",
    "disk_full": "the disk is full",
    "disk_low": "the disk is nearly full",
    "ended": "the session has ended",
    "agent_leaves": "the agent leaves; another one goes on when it comes",
    "backlog": "the speech engine is behind",
    "engine": "the speech engine is away",
    "limit_duration": "the session has reached its longest duration",
    "limit_idle": "nobody spoke for long",
    "limit_participants": "too many people are here",
    "storage": "neither the disk nor the database takes them",
    "too_slow": "the disk is too slow",
    "unheard": "nobody can be heard",
}


@dataclass(frozen=True, slots=True)
class Line:
    """A caption to be shown. `speaker` is the name, `identity` what tells people of one name apart."""

    identity: str
    speaker: str
    text: str
    start_ms: int

    @property
    def clock(self) -> str:
        """When it was said, as minutes and seconds of the session, with hours from the first one on."""
        minutes, seconds = divmod(self.start_ms // 1000, 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes:02}:{seconds:02}"


@dataclass(frozen=True, slots=True)
class Notice:
    """Something about the session, in a sentence."""

    text: str


class Transcript:
    """Takes events in the order in which they come, and says what to print for each."""

    def __init__(self) -> None:
        self._session = ""
        self._epoch = 0
        self._revisions: dict[str, int] = {}
        self._open: dict[str, Line] = {}
        self._state: Mapping[str, str] = {}

    @property
    def open_lines(self) -> list[Line]:
        """Captions that may still change, in the order in which they were begun."""
        return sorted(self._open.values(), key=lambda line: line.start_ms)

    def take(self, event: Mapping[str, Any]) -> list[Line | Notice]:
        """What is to be printed for good: a final, or what changed in the state."""
        try:
            if not self._is_current(str(event["session"]), int(event["epoch"])):
                return []
            match event["kind"]:
                case "caption":
                    return list(self._take_caption(event))
                case "state":
                    return list(self._take_state(event))
                case "notice":
                    return [Notice(clean(event["text"]))]
        except (KeyError, TypeError, ValueError, AttributeError):
            return []
        return []

    def _is_current(self, session: str, epoch: int) -> bool:
        """Whether the sender leads the session; what an agent says that was succeeded is left out."""
        if session != self._session:
            self._session, self._epoch = session, epoch
            self._revisions.clear()
            self._open.clear()
        if epoch > self._epoch:
            self._epoch = epoch
            self._open.clear()
        return epoch == self._epoch

    def _take_caption(self, event: Mapping[str, Any]) -> Iterator[Line]:
        caption_id, revision = str(event["id"]), int(event["rev"])
        if revision <= self._revisions.get(caption_id, -1):
            return
        speaker = event["speaker"]
        identity = clean(speaker["identity"])
        line = Line(
            identity, clean(speaker["name"]) or identity, clean(event["text"]), max(0, int(event["start_ms"]))
        )
        self._revisions[caption_id] = revision
        if event["final"]:
            self._open.pop(caption_id, None)
            if line.text:
                yield line
        elif line.text or event.get("waiting"):
            self._open[caption_id] = line
        else:
            self._open.pop(caption_id, None)

    def _take_state(self, event: Mapping[str, Any]) -> Iterator[Notice]:
        before, self._state = self._state, dict(_sentences(event))
        for key, sentence in self._state.items():
            if before.get(key) != sentence:
                yield Notice(sentence)
        for key in before.keys() - self._state.keys():
            yield Notice(f"{key}: all right again")


def _sentences(state: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is not as it should be, by the thing concerned."""
    for part in ("captions", "recording"):
        value = clean(state[part])
        if value in ("live", "on") or (part == "recording" and value == "off"):
            continue
        reason = clean(state.get(f"{part}_reason") or "")
        reason = REASONS.get(reason, reason)
        yield part, f"{part}: {value}, {reason}" if reason else f"{part}: {value}"
    for unheard in state["unheard"]:
        who = clean(unheard["identity"])
        reason = UNHEARD.get(unheard["reason"], clean(unheard["reason"]))
        yield who, f"{who} is not heard: {reason}"
