"""Finals in the order of their audio. Pure: times are seconds of the audio sent.

Deepgram's finals tile what was sent: each begins where the one before it ends. So a final that begins later
tells that the service owes one: it is late, or lost to a service that said nothing for a while. To take the
later one for an answer to all before it would lose words and tell nobody.
"""

from plugins.stt.deepgram.results import Results

__all__ = ["FinalsInOrder"]

HOLE_S = 0.5  # less than a turn of one short word with its pre-roll


class FinalsInOrder:
    """Holds finals back until those before them have come."""

    def __init__(self) -> None:
        self._until_s = 0.0
        self._early: list[Results] = []

    @property
    def owed_s(self) -> float:
        """How much audio before a final has none; 0 where none is held back."""
        return self._early[0].start - self._until_s if self._early else 0.0

    def hear(self, final: Results, sent_s: float) -> list[Results]:
        """Take a final.

        Args:
            final: It. One with times outside the audio says nothing of what else is owed, and is never held.
            sent_s: How much audio there is.

        Returns:
            What can be given out now, in order.
        """
        if final.start > sent_s:
            return [final]
        self._early.append(final)
        self._early.sort(key=lambda early: early.start)
        ready: list[Results] = []
        while self._early and self._early[0].start <= self._until_s + HOLE_S:
            ready.append(first := self._early.pop(0))
            self._until_s = max(self._until_s, min(first.end, sent_s))
        return ready
