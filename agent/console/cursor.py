"""The cursors of pages, as an API gives them: text that means nothing to who gets it. Pure."""

import binascii
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime

from agent.errors import InputError
from persistence.catalogue import SessionCursor
from persistence.transcripts import FinalCursor

__all__ = ["MAX_CURSOR_CHARACTERS", "of_finals", "of_sessions", "to_finals", "to_sessions"]

MAX_CURSOR_CHARACTERS = 400  # ours have fewer than 150
MAX_INTEGER = 2**63 - 1  # what a column holds

_WRONG = "the cursor is none that this list gave; take `next` of a page, or leave it out to begin anew"


def of_sessions(cursor: SessionCursor) -> str:
    """A place in a list of sessions as text."""
    return _text([cursor.started_at.astimezone(UTC).isoformat(), cursor.id])


def to_sessions(text: str) -> SessionCursor:
    """The place in a list of sessions that `of_sessions` wrote.

    Raises:
        InputError: It is none.
    """
    match _values(text):
        case [str(started_at), str(id_)]:
            try:
                return SessionCursor(_aware(started_at), id_)
            except (ValueError, OverflowError):
                pass
    raise InputError(_WRONG)


def of_finals(cursor: FinalCursor) -> str:
    """A place in a transcript as text."""
    return _text(list(cursor))


def to_finals(text: str) -> FinalCursor:
    """The place in a transcript that `of_finals` wrote.

    Raises:
        InputError: It is none.
    """
    match _values(text):
        case [int(start_ms), int(epoch), int(number)]:
            if all(0 <= value <= MAX_INTEGER for value in (start_ms, epoch, number)):
                return FinalCursor(start_ms, epoch, number)
    raise InputError(_WRONG)


def _aware(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError
    return at.astimezone(UTC)


def _text(values: list[str | int]) -> str:
    return urlsafe_b64encode(json.dumps(values, separators=(",", ":")).encode()).decode().rstrip("=")


def _values(text: str) -> object:
    if len(text) > MAX_CURSOR_CHARACTERS:
        return None
    try:
        return json.loads(urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        return None
