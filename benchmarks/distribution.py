"""Percentiles of measured values."""

import math
from collections.abc import Sequence

__all__ = ["percentile"]


def percentile(values: Sequence[float], percent: float) -> float | None:
    """The smallest value that at least `percent` per cent of the values do not exceed, None for no values.

    By nearest rank: the result is one of the values, so that nothing is printed that nobody measured.
    """
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(percent / 100 * len(values)) - 1)]
