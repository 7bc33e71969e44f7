"""When a room is parked whose agents keep dying."""

from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persistence.deaths import PARK_DEATHS, PARK_WITHIN_S, PARKED_S, is_parked

NOW = datetime(2026, 3, 1, 9, 0, tzinfo=UTC)
AGO_S = st.lists(st.integers(-600, 900), max_size=8)


def parked(*ago_s: float, now: datetime = NOW) -> bool:
    return is_parked([NOW - timedelta(seconds=s) for s in ago_s], now)


@pytest.mark.parametrize(
    ("ago_s", "expected"),
    [
        ((), False),
        ((0, 0), False),
        ((0, 0, 0), True),
        ((0, 60, PARK_WITHIN_S), True),
        ((0, 60, PARK_WITHIN_S + 1), False),
        ((60, PARK_WITHIN_S, 0), True),
        ((PARKED_S - 1, PARKED_S, PARKED_S + 1), True),
        ((PARKED_S, PARKED_S, PARKED_S), False),
        # It was tried again, and died once more.
        ((0, PARKED_S + 5, PARKED_S + 6, PARKED_S + 7), False),
        ((0, 1, 2, PARKED_S + 5, PARKED_S + 6, PARKED_S + 7), True),
        # The clock was put back.
        ((-3_600, 0, 0), False),
        ((-3_600, 0, 0, 0), True),
    ],
)
def test_three_early_deaths_in_two_minutes_park_a_room_for_five(
    ago_s: tuple[float, ...], expected: bool
) -> None:
    assert parked(*ago_s) is expected


@given(AGO_S)
def test_every_room_is_tried_again(ago_s: list[int]) -> None:
    newest = min(ago_s, default=0)

    assert not parked(*ago_s, now=NOW + timedelta(seconds=PARKED_S - newest))


@given(AGO_S)
def test_no_room_is_parked_for_fewer_deaths(ago_s: list[int]) -> None:
    assert not parked(*ago_s[: PARK_DEATHS - 1])


@given(AGO_S, st.randoms())
def test_their_order_says_nothing(ago_s: list[int], random: Random) -> None:
    shuffled = ago_s.copy()
    random.shuffle(shuffled)

    assert parked(*shuffled) == parked(*ago_s)


@given(AGO_S)
def test_three_more_right_now_park_any_room(ago_s: list[int]) -> None:
    assert parked(*ago_s, 0, 0, 0)
