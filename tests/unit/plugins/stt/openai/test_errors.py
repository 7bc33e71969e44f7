"""How long the service asks to wait, in each way that it has of saying so."""

from datetime import UTC, datetime

import pytest

from plugins.stt.openai.errors import retry_after_s, status_error

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after": "Sun, 22 Nov 2026 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Sun, 22 Nov 2026 11:00:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "inf"}, None),
        ({}, None),
    ],
)
def test_wait_is_read(headers: dict[str, str], wait_s: float | None) -> None:
    assert retry_after_s(headers, now=NOW) == wait_s


def test_wait_travels_with_the_status() -> None:
    error = status_error(429, "rate_limit_exceeded", retry_after_s=7.0)
    assert error.status_code == 429
    assert error.body == {"code": "rate_limit_exceeded", "retry_after": 7.0}
    assert error.retryable
    assert not status_error(401).retryable
