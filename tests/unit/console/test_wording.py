"""How values are put into words."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from agent.analysis.evidence import Drop
from agent.analyst.steps import STEPS
from agent.console import wording


@pytest.mark.parametrize(
    ("ms", "words"),
    [
        (0, "0 s"),
        (1, "less than 1 s"),
        (12_400, "12 s"),
        (107_000, "1 min 47 s"),
        (60_000, "1 min"),
        (3_900_000, "1 h 5 min"),
    ],
)
def test_length_is_told_in_its_two_largest_units(ms: int, words: str) -> None:
    assert wording.duration(ms) == words


def test_session_time_has_hours_only_where_there_are_some() -> None:
    assert [wording.time(ms) for ms in (0, 62_900, 3_602_000)] == ["0:00", "1:02", "1:00:02"]


def test_nearly_all_is_not_said_to_be_all() -> None:
    assert [wording.share(part) for part in (0, 0.001, 0.5, 0.999, 1)] == [
        "0 %",
        "less than 1 %",
        "50 %",
        "99 %",
        "100 %",
    ]


def test_moment_is_in_utc_wherever_it_was() -> None:
    at = datetime(2026, 3, 2, 1, 5, tzinfo=timezone(timedelta(hours=2)))
    assert wording.moment(at) == "1 Mar 2026, 23:05 UTC"
    assert wording.timestamp(at) == "2026-03-01T23:05:00Z"
    assert wording.moment(at.astimezone(UTC)) == wording.moment(at)


def test_due_is_a_date_or_somebodys_words() -> None:
    assert [wording.due(said) for said in ("2026-03-09", "right after this call", "")] == [
        "9 Mar 2026",
        "Right after this call",
        "",
    ]


def test_every_reason_and_every_step_has_words() -> None:
    assert set(wording.DROPS) == set(Drop)
    assert set(wording.STEPS) == {"", *STEPS}
    assert wording.gap("not_known_yet") == "not known yet"
