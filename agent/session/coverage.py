"""Coverage: how much of the speech that was heard is in final captions. Pure."""

from collections import defaultdict
from collections.abc import Callable, Mapping

__all__ = ["Coverage"]

MARGIN_MS = 300  # words are placed to a few hundred milliseconds

VoiceIn = Callable[[int, int], Mapping[str, float]]
"""Gives the milliseconds of voice between two session times, by identity."""


class Coverage:
    """Compares voice and finals, turn by turn: of a turn that goes on nobody can say yet."""

    def __init__(self) -> None:
        self._finals: defaultdict[int, list[tuple[str, int, int]]] = defaultdict(list)
        self._heard_ms: defaultdict[str, float] = defaultdict(float)
        self._covered_ms: defaultdict[str, float] = defaultdict(float)

    @property
    def share(self) -> float:
        """Of all speech in the turns that are over, 0 to 1; 1 where there is none."""
        heard_ms = sum(self._heard_ms.values())
        return min(sum(self._covered_ms.values()) / heard_ms, 1.0) if heard_ms else 1.0

    def covered_ms(self) -> dict[str, float]:
        """By identity, the speech that is in finals."""
        return dict(self._covered_ms)

    def final(self, turn: int, identity: str, start_ms: int, end_ms: int) -> None:
        """What somebody said in this time, within a turn, is in a final caption."""
        self._finals[turn].append((identity, start_ms - MARGIN_MS, end_ms + MARGIN_MS))

    def end(self, turn: int, start_ms: int, end_ms: int, identity: str | None, voice_in: VoiceIn) -> None:
        """A turn is over, and so are its finals.

        Args:
            turn: Its number.
            start_ms: Where in the session it began, and `end_ms` where it ended.
            end_ms: See there.
            identity: Whose turn it was; None where all who spoke meanwhile were heard in it.
            voice_in: Who had how much voice.
        """
        finals = self._finals.pop(turn, [])
        self._add(self._heard_ms, identity, voice_in(start_ms, end_ms))
        for speaker in {final[0] for final in finals}:
            spans = sorted(
                (max(begin, start_ms), min(end, end_ms)) for who, begin, end in finals if who == speaker
            )
            covered_until_ms = start_ms
            for begin_ms, finish_ms in spans:
                begin_ms = max(begin_ms, covered_until_ms)
                if finish_ms > begin_ms:
                    self._covered_ms[speaker] += voice_in(begin_ms, finish_ms).get(speaker, 0.0)
                    covered_until_ms = finish_ms

    def forget(self, turn: int) -> None:
        """A turn was none: its voice was heard somewhere else."""
        self._finals.pop(turn, None)

    @staticmethod
    def _add(sums: defaultdict[str, float], identity: str | None, voice_ms: Mapping[str, float]) -> None:
        for who, each_ms in voice_ms.items():
            if identity is None or who == identity:
                sums[who] += each_ms
