"""Refusals keep the status, the request's id and how long to wait."""

from datetime import UTC, datetime

import pytest

from plugins.stt.deepgram.errors import refused, retry_after_s

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "expected_s"),
    [
        (None, None),
        ("7", 7.0),
        (" 0 ", 0.0),
        ("Sun, 22 Nov 2026 12:00:30 GMT", 30.0),
        ("Sun, 22 Nov 2026 12:00:30 -0000", 30.0),
        ("Sun, 22 Nov 2026 11:00:00 GMT", 0.0),
        ("soon", None),
        ("-3", None),
        ("1.5", None),
        ("", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, expected_s: float | None) -> None:
    assert retry_after_s(value, NOW) == expected_s


def test_refusal_says_what_the_service_said() -> None:
    headers = {"dg-request-id": "42", "RETRY-AFTER": "3"}
    error = refused("the stream", 429, headers, detail="Too many streams", now=NOW)

    assert error.message == "deepgram refused the stream: HTTP 429 Too Many Requests (Too many streams)"
    assert (error.status_code, error.request_id, error.body) == (429, "42", {"retry_after": 3.0})
    assert error.retryable


def test_refusal_with_a_status_of_their_own_and_a_long_story_is_short() -> None:
    error = refused("the recording", 499, {}, detail="x" * 5000, now=NOW)

    assert error.message.startswith("deepgram refused the recording: HTTP 499 (xxx")
    assert len(error.message) < 300


def test_wrong_key_is_not_worth_another_try() -> None:
    assert not refused("the stream", 401, {}, detail=None, now=NOW).retryable
