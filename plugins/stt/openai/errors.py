"""The service's failures in the terms of livekit-agents. Messages hold neither a key nor what anybody said.

The service quotes keys and prompts in its own messages, so of these only codes are kept. Where it says how
long to wait, the `body` of an APIStatusError has those seconds as `retry_after`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import aiohttp
import openai
from livekit.agents import APIConnectionError, APIError, APIStatusError, APITimeoutError

__all__ = ["of_handshake", "of_request", "retry_after_s", "status_error"]


def status_error(
    status_code: int, code: str = "", *, retry_after_s: float | None = None, request_id: str | None = None
) -> APIStatusError:
    """Make the error of a refusal. `code` is the service's own word for it."""
    body = {key: value for key, value in (("code", code), ("retry_after", retry_after_s)) if value}
    return APIStatusError(
        f"openai: refused with status {status_code}",
        status_code=status_code,
        request_id=request_id,
        body=body or None,
    )


def of_handshake(error: aiohttp.ClientError | OSError | ValueError) -> APIError:
    """Say why a connection to the Realtime API could not be opened."""
    if isinstance(error, TimeoutError):
        return APITimeoutError("openai: not connected in time")
    if isinstance(error, aiohttp.WSServerHandshakeError):
        headers: Mapping[str, str] = error.headers or {}
        return status_error(
            error.status, retry_after_s=retry_after_s(headers), request_id=headers.get("x-request-id")
        )
    return APIConnectionError(f"openai: not connected ({type(error).__name__})")


def of_request(error: openai.OpenAIError) -> APIError:
    """Say why a transcription could not be had."""
    match error:
        case openai.APITimeoutError():
            return APITimeoutError("openai: not transcribed in time")
        case openai.APIStatusError():
            code = error.code if isinstance(error.code, str) else ""
            return status_error(
                error.status_code,
                code,
                retry_after_s=retry_after_s(error.response.headers),
                request_id=error.request_id,
            )
        case _:
            return APIConnectionError(f"openai: not transcribed ({type(error).__name__})")


def retry_after_s(headers: Mapping[str, str], *, now: datetime | None = None) -> float | None:
    """Read how long to wait, in any of the forms that HTTP (RFC 9110, 10.2.3) and the service have for it.

    Args:
        headers: Of an answer; those of aiohttp and of the client find names in any case.
        now: An aware time, for the form that names a date.
    """
    if (wait_ms := _positive(headers.get("retry-after-ms", ""))) is not None:
        return wait_ms / 1000
    value = headers.get("retry-after", "")
    if (wait_s := _positive(value)) is not None:
        return wait_s
    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        return None
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return max((until - (now or datetime.now(UTC))).total_seconds(), 0.0)


def _positive(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None
