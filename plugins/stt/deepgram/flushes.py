"""Which flushes the service has answered. Pure: times are seconds of the audio sent.

Deepgram answers a Finalize with a final marked `from_finalize`, but only "when there is a noticeable amount
of audio buffered", and what it had finalised by itself a moment earlier is not repeated. So a flush counts
as answered when a final, of whichever kind, reaches the place of the flush; and where next to nothing was
left to finalise, when no answer has come in a while.
"""

from collections import deque

__all__ = ["UNANSWERED_AFTER_S", "FlushLedger"]

SLACK_S = 0.1  # a final may end a step of the decoder before the last sample; no word is that short
LITTLE_S = 0.5  # less than a turn of one short word with its pre-roll
UNANSWERED_AFTER_S = (
    1.0  # an answer takes a third of that; nobody waits for this one but the next turn's ring
)


class FlushLedger:
    """Flushes in order, each answered once."""

    def __init__(self) -> None:
        self._pending: deque[float] = deque()
        self._flushed_s = 0.0
        self._final_until_s = 0.0
        self._unsettled_from_s: float | None = None
        self._was_finalized = False

    @property
    def pending(self) -> int:
        """How many flushes have not been answered."""
        return len(self._pending)

    def flush(self, position_s: float) -> bool:
        """Note a flush after so much audio.

        Returns:
            Whether there was audio since the last one; if not, there is nothing to answer.
        """
        if position_s <= self._flushed_s:
            return False
        self._flushed_s = position_s
        self._was_finalized = False
        self._pending.append(position_s)
        return True

    def hear_interim(self, first_word_s: float | None) -> None:
        """Note where the words of an interim begin, None if it has none."""
        self._unsettled_from_s = first_word_s

    def hear_final(self, end_s: float, *, from_finalize: bool = False) -> int:
        """Note a final of the audio up to `end_s`, and return how many flushes it answers."""
        self._unsettled_from_s = None
        self._was_finalized |= from_finalize
        self._final_until_s = max(self._final_until_s, end_s)
        return self._answer_until(self._final_until_s + SLACK_S)

    def give_up(self, position_s: float) -> int:
        """Return how many flushes count as answered, since the one at `position_s` got no answer in time.

        None do where more than a little audio is not final yet, or where words were heard in it: an answer is
        owed then, and whoever waits for it may conclude that the service has stalled.
        """
        # A marked answer that ends too early is one nevertheless, where it can be to this flush only.
        is_marked = self._was_finalized and len(self._pending) == 1
        if position_s - self._final_until_s > LITTLE_S and not is_marked:
            return 0
        if self._unsettled_from_s is not None and self._unsettled_from_s < position_s:
            return 0
        return self._answer_until(position_s)

    def end(self) -> int:
        """Return how many flushes the end of the stream answers: the service has said all it has to say."""
        return self._answer_until(self._flushed_s)

    def _answer_until(self, position_s: float) -> int:
        before = len(self._pending)
        while self._pending and self._pending[0] <= position_s:
            self._pending.popleft()
        return before - len(self._pending)
