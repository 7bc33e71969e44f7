"""Cursors mean the same when they come back."""

import string
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.console import cursor
from agent.errors import InputError
from persistence.catalogue import SessionCursor
from persistence.transcripts import FinalCursor

NUMBERS = st.integers(min_value=0, max_value=2**63 - 1)


@given(st.datetimes(timezones=st.just(UTC)), st.text(string.hexdigits, min_size=1, max_size=32))
def test_a_place_in_a_list_of_sessions_comes_back(started_at: datetime, id_: str) -> None:
    place = SessionCursor(started_at, id_)

    assert cursor.to_sessions(cursor.of_sessions(place)) == place


@given(NUMBERS, NUMBERS, NUMBERS)
def test_a_place_in_a_transcript_comes_back(start_ms: int, epoch: int, number: int) -> None:
    place = FinalCursor(start_ms, epoch, number)

    text = cursor.of_finals(place)
    assert cursor.to_finals(text) == place
    assert set(text) <= set(string.ascii_letters + string.digits + "-_")


@given(st.text(max_size=500))
def test_any_other_text_is_refused(text: str) -> None:
    for read in (cursor.to_sessions, cursor.to_finals):
        with pytest.raises(InputError, match="cursor"):
            read(text)


def test_a_cursor_of_another_list_is_refused() -> None:
    with pytest.raises(InputError):
        cursor.to_finals(cursor.of_sessions(SessionCursor(datetime(2026, 3, 1, tzinfo=UTC), "a")))
    with pytest.raises(InputError):
        cursor.to_sessions(cursor.of_finals(FinalCursor(1, 2, 3)))
