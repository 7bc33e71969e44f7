"""Which of several speech engines is used: the first that is not waiting to be tried again."""

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Failover"]

FIRST_BACKOFF_S = 0.5
MAX_BACKOFF_S = 8.0  # an engine that is back after a minute finds that nothing has been dropped yet
BUSY_BACKOFF_S = 2.0  # one that has said that it is asked too much


@dataclass(slots=True)
class _Health:
    backoff_s: float = 0.0
    retry_s: float = 0.0
    failed_s: float = float("-inf")
    proved_s: float = float("-inf")


class Failover:
    """The health of each engine in order of preference. Pure.

    A failed engine is tried again after a time that doubles with each failure and is partly random, so that
    the rooms of a server do not all come back in the same instant.

    Args:
        count: Of engines.
        jitter: Gives a random number of 0 to 1.
    """

    def __init__(self, count: int, jitter: Callable[[], float]) -> None:
        self._engines = [_Health() for _ in range(count)]
        self._jitter = jitter

    def choose(self, now_s: float) -> int | None:
        """The engine to use now; None while all of them wait to be tried again."""
        return next((index for index in range(len(self._engines)) if self.is_ready(index, now_s)), None)

    def wait_s(self, now_s: float) -> float:
        """How long it takes until one may be used."""
        return max(min(each.retry_s for each in self._engines) - now_s, 0.0)

    def failed(self, index: int, opened_s: float, now_s: float, *, busy_s: float | None = None) -> None:
        """A stream that was opened at `opened_s` has failed. Streams that fail together count once.

        Args:
            busy_s: Set where the engine is asked too much; for how long it wants to be left alone, or 0.
        """
        engine = self._engines[index]
        if opened_s < engine.failed_s:
            return
        engine.failed_s = now_s
        least_s = FIRST_BACKOFF_S if busy_s is None else max(busy_s, BUSY_BACKOFF_S)
        engine.backoff_s = min(max(engine.backoff_s * 2, least_s), max(MAX_BACKOFF_S, least_s))
        engine.retry_s = now_s + max(engine.backoff_s * (0.5 + self._jitter() / 2), busy_s or 0.0)

    def proved(self, index: int, opened_s: float, now_s: float) -> None:
        """A stream that was opened at `opened_s` works.

        The engine's next failure is its first, unless another stream of it has failed since then: it may take
        no further ones.
        """
        engine = self._engines[index]
        engine.proved_s = now_s
        if opened_s >= engine.failed_s:
            engine.backoff_s = engine.retry_s = 0.0

    def is_ready(self, index: int, now_s: float) -> bool:
        """Whether it is not waiting to be tried again."""
        return self._engines[index].retry_s <= now_s

    def has_proved(self, index: int, since_s: float) -> bool:
        """Whether it has worked since then."""
        return self._engines[index].proved_s > since_s
