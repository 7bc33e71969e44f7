"""What goes wrong with the service, in the errors that the STT interface knows.

No message holds the key, or a word that somebody said. Where the service says how long to wait, the `body` of
an APIStatusError has those seconds as `retry_after`.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus

from livekit.agents import APIStatusError

__all__ = ["refused", "retry_after_s"]

_DETAIL_CHARS = 200


def refused(
    what: str, status: int, headers: Mapping[str, str], *, detail: str | None, now: datetime | None = None
) -> APIStatusError:
    """The error for an answer with an HTTP status.

    Args:
        what: What was asked for, as in "the stream".
        status: The HTTP status.
        headers: Those of the answer; names in any case.
        detail: What the service says about it.
        now: Aware time against which a date in Retry-After counts; None is the present.
    """
    lower = {name.lower(): value for name, value in headers.items()}
    try:
        phrase = f" {HTTPStatus(status).phrase}"
    except ValueError:
        phrase = ""
    because = f" ({detail[:_DETAIL_CHARS]})" if detail else ""
    wait_s = retry_after_s(lower.get("retry-after"), now or datetime.now(UTC))
    return APIStatusError(
        f"deepgram refused {what}: HTTP {status}{phrase}{because}",
        status_code=status,
        request_id=lower.get("dg-request-id"),
        body=None if wait_s is None else {"retry_after": wait_s},
    )


def retry_after_s(value: str | None, now: datetime) -> float | None:
    """The seconds that a Retry-After header asks for (RFC 9110, 10.2.3); None where it says nothing."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now.timestamp())
