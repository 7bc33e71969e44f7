"""The messages of the Realtime API, as far as transcription needs them. Pure.

https://developers.openai.com/api/docs/guides/realtime-transcription
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass

from plugins.stt.openai.hints import Hints
from plugins.stt.openai.transcript import Usage, parse_usage

__all__ = [
    "REALTIME_RATE_HZ",
    "SHORTEST_COMMIT_S",
    "Committed",
    "Completed",
    "Configured",
    "Delta",
    "Failed",
    "Irrelevant",
    "Malformed",
    "Message",
    "Refused",
    "append",
    "commit",
    "configure",
    "parse",
]

REALTIME_RATE_HZ = 24_000  # the only rate of PCM that is taken
SHORTEST_COMMIT_S = 0.12  # less than 100 ms is refused; the rest is for rounding

_ITEM_EVENT = "conversation.item.input_audio_transcription."


@dataclass(frozen=True, slots=True)
class Configured:
    """The session is what was asked for."""


@dataclass(frozen=True, slots=True)
class Committed:
    """What was in the buffer has become an item."""

    item_id: str


@dataclass(frozen=True, slots=True)
class Delta:
    """More text of an item."""

    item_id: str
    text: str


@dataclass(frozen=True, slots=True)
class Completed:
    """The whole text of an item."""

    item_id: str
    text: str
    usage: Usage


@dataclass(frozen=True, slots=True)
class Failed:
    """An item has no text and will have none."""

    item_id: str
    code: str

    @property
    def status_code(self) -> int | None:
        """The HTTP status that says the same; None where it is about what was in the audio."""
        return _STATUS_CODES.get(self.code)


@dataclass(frozen=True, slots=True)
class Refused:
    """The service reports an error. `event_id` names the message of ours that caused it, where one did."""

    code: str
    kind: str
    event_id: str | None

    @property
    def is_expiry(self) -> bool:
        """Whether the session has reached its longest duration."""
        return self.code == "session_expired"

    @property
    def is_empty_commit(self) -> bool:
        """Whether there was too little audio to make an item of."""
        return self.code == "input_audio_buffer_commit_empty"

    @property
    def status_code(self) -> int | None:
        """The HTTP status that says the same; None where the session goes on as if nothing had been."""
        if self.code in _STATUS_CODES:
            return _STATUS_CODES[self.code]
        if self.kind in _STATUS_CODES:
            return _STATUS_CODES[self.kind]
        # What we asked for was not done: audio is missing, or the session is not what it should be.
        return None if self.event_id is None else 400


@dataclass(frozen=True, slots=True)
class Irrelevant:
    """Whatever else the service tells."""


@dataclass(frozen=True, slots=True)
class Malformed:
    """No message of this protocol."""


Message = Configured | Committed | Delta | Completed | Failed | Refused | Irrelevant | Malformed

_STATUS_CODES = {
    "invalid_api_key": 401,
    "authentication_error": 401,
    "permission_error": 403,
    "insufficient_quota": 429,
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
    "server_error": 500,
}


def configure(model: str, hints: Hints) -> str:
    """Make the session one that transcribes what is committed, and nothing by itself."""
    transcription: dict[str, object] = {"model": model, "language": hints.language}
    if hints.keywords:
        transcription["keywords"] = hints.keywords
    if hints.prompt:
        transcription["prompt"] = hints.prompt
    audio = {
        "format": {"type": "audio/pcm", "rate": REALTIME_RATE_HZ},
        "transcription": transcription,
        "turn_detection": None,
    }
    session = {"type": "transcription", "audio": {"input": audio}}
    return json.dumps({"type": "session.update", "event_id": "configure", "session": session})


def append(pcm: bytes) -> str:
    """Add 16 bit samples at `REALTIME_RATE_HZ` to the buffer."""
    audio = base64.b64encode(pcm).decode()
    return json.dumps({"type": "input_audio_buffer.append", "event_id": "append", "audio": audio})


def commit(event_id: str) -> str:
    """Make an item of the buffer, and have it transcribed."""
    return json.dumps({"type": "input_audio_buffer.commit", "event_id": event_id})


def parse(data: str | bytes) -> Message:
    """Read what the service says. Never raises."""
    try:
        message = json.loads(data)
    except (ValueError, RecursionError):
        return Malformed()
    if not isinstance(message, dict) or not isinstance(kind := message.get("type"), str):
        return Malformed()
    if kind == "error":
        return _refused(message.get("error"))
    if kind == "session.updated":
        return Configured()
    if kind != "input_audio_buffer.committed" and not kind.startswith(_ITEM_EVENT):
        return Irrelevant()
    if not isinstance(item_id := message.get("item_id"), str) or not item_id:
        return Malformed()
    return _of_item(kind.removeprefix(_ITEM_EVENT), item_id, message)


def _of_item(kind: str, item_id: str, message: Mapping[str, object]) -> Message:
    match kind:
        case "input_audio_buffer.committed":
            return Committed(item_id)
        case "delta":
            text = message.get("delta")
            return Delta(item_id, text) if isinstance(text, str) else Malformed()
        case "completed":
            text = message.get("transcript")
            if not isinstance(text, str):
                # The item is over all the same: whoever waits for it need not wait any longer.
                return Failed(item_id, "malformed")
            return Completed(item_id, text.strip(), parse_usage(message.get("usage")))
        case "failed":
            return Failed(item_id, _refused(message.get("error")).code)
        case _:
            return Irrelevant()


def _refused(error: object) -> Refused:
    known = error if isinstance(error, Mapping) else {}
    code, kind, event_id = known.get("code"), known.get("type"), known.get("event_id")
    return Refused(
        code=code if isinstance(code, str) else "",
        kind=kind if isinstance(kind, str) else "",
        event_id=event_id if isinstance(event_id, str) else None,
    )
