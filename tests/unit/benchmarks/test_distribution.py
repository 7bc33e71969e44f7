import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.distribution import percentile

VALUES = st.lists(st.floats(allow_nan=False), min_size=1)


@pytest.mark.parametrize(("percent", "expected"), [(0, 1), (50, 2), (75, 3), (95, 4), (100, 4)])
def test_percentile_is_the_nearest_rank(percent: float, expected: float) -> None:
    assert percentile([4, 1, 3, 2], percent) == expected


def test_no_values_have_no_percentile() -> None:
    assert percentile([], 50) is None


@given(VALUES, st.floats(0, 100))
def test_percentile_is_a_measured_value_that_enough_do_not_exceed(
    values: list[float], percent: float
) -> None:
    found = percentile(values, percent)

    assert found in values
    assert sum(value <= found for value in values) >= percent / 100 * len(values) * (1 - 1e-9)
