"""How fast a stream may be fed."""

from math import inf

__all__ = ["Pacer"]

AHEAD_MS = 300.0  # of audio in one go: a held pause, or a network that stumbled


class Pacer:
    """A token bucket: audio at a rate, and a little ahead of it. Pure.

    Args:
        rate: How much faster than real time.
        now_s: When it begins.
    """

    def __init__(self, rate: float, now_s: float) -> None:
        self._rate = rate
        self._at_s = now_s
        self._allowed_ms = AHEAD_MS

    def allowed_ms(self, now_s: float) -> float:
        """How much audio may be sent now."""
        if self._rate == inf:
            return inf
        self._allowed_ms = min(self._allowed_ms + 1000 * self._rate * (now_s - self._at_s), AHEAD_MS)
        self._at_s = now_s
        return self._allowed_ms

    def spend(self, sent_ms: float) -> None:
        """So much was sent."""
        self._allowed_ms -= sent_ms
