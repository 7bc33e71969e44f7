"""LocalAgreement-2: which words of an unfinished utterance will not change any more.

A decode of speech that is still going on is a guess, and its last words are the worst of it. The
policy of Liu et al. (2020), applied to Whisper by Macháček et al. (2023, "Turning Whisper into
Real-Time Transcription System"), confirms the longest prefix on which two hypotheses in a row
agree; the last word of a hypothesis is held back (Liu's hold-n with n = 1). Confirmed words are
given to the next decode as its beginning, so a hypothesis here is always the continuation of what
is confirmed, and nothing confirmed can be contradicted.

Decoding costs grow with the audio. Once the window exceeds `WINDOW_LIMIT_S` its beginning is
dropped up to a confirmed word; the words dropped stay in the text and serve as context. Only then
must the times of the words be right, and not merely plausible.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from plugins.stt.whisper.word import DecodedWord

__all__ = ["WINDOW_KEPT_S", "WINDOW_LIMIT_S", "LocalAgreement"]

WINDOW_LIMIT_S = 6.0  # a window of this length is decoded well within the interval of two partials
WINDOW_KEPT_S = 3.0  # with less audio than this before them, new words lose accuracy


class LocalAgreement:
    """The text of one open utterance, hypothesis by hypothesis.

    All times are seconds since the first sample of the utterance.
    """

    def __init__(self) -> None:
        self._confirmed: list[DecodedWord] = []
        self._tentative: tuple[DecodedWord, ...] = ()
        # How many confirmed words lie before the window.
        self._trimmed = 0
        self._window_start_s = 0.0

    @property
    def words(self) -> tuple[DecodedWord, ...]:
        """Every word so far: the confirmed ones, then those of the last hypothesis."""
        return (*self._confirmed, *self._tentative)

    @property
    def stable_words(self) -> int:
        """How many leading `words` are confirmed."""
        return len(self._confirmed)

    @property
    def window_start_s(self) -> float:
        """Where the audio to decode next begins."""
        return self._window_start_s

    @property
    def context(self) -> tuple[DecodedWord, ...]:
        """The confirmed words spoken before the window."""
        return tuple(self._confirmed[: self._trimmed])

    @property
    def prefix(self) -> tuple[DecodedWord, ...]:
        """The confirmed words in the window, with which the next hypothesis begins."""
        return tuple(self._confirmed[self._trimmed :])

    @property
    def confirmed_until_s(self) -> float:
        """Where the last confirmed word ends, 0 before there is one."""
        return self._confirmed[-1].end_s if self._confirmed else 0.0

    def needs_times(self, window_s: float) -> bool:
        """Whether the decode of a window this long must find the times of its words."""
        return window_s > WINDOW_LIMIT_S

    def update(
        self,
        continuation: Sequence[DecodedWord],
        *,
        window_s: float,
        prefix: Sequence[DecodedWord] = (),
    ) -> None:
        """Take the next hypothesis and confirm what it has in common with the one before.

        Args:
            continuation: the words that follow the confirmed ones; their times count from the
                start of the window that was decoded.
            window_s: the length of that window.
            prefix: the confirmed words in the window, where their times were found anew.
        """
        if prefix:
            self._time_anew(self._trimmed, self._moved(prefix))
        self._agree(self._moved(continuation), window_s)

    def adopt(self, words: Sequence[DecodedWord], *, utterance_s: float) -> bool:
        """Take a decode of the whole utterance as the next hypothesis, if it confirms the confirmed words.

        Args:
            words: all of them; their times count from the start of the utterance.
            utterance_s: how much of the utterance was decoded.

        Returns:
            Whether it was taken.
        """
        known = len(self._confirmed)
        if [word.text for word in words[:known]] != [word.text for word in self._confirmed]:
            return False
        self._time_anew(0, words[:known])
        self._agree(words[known:], utterance_s - self._window_start_s)
        return True

    def _moved(self, words: Sequence[DecodedWord]) -> list[DecodedWord]:
        """Count the times from the start of the utterance instead of the window."""
        by_s = self._window_start_s
        return [replace(word, start_s=by_s + word.start_s, end_s=by_s + word.end_s) for word in words]

    def _time_anew(self, first: int, timed: Sequence[DecodedWord]) -> None:
        known = self._confirmed[first : first + len(timed)]
        self._confirmed[first : first + len(timed)] = [
            replace(word, start_s=times.start_s, end_s=times.end_s)
            for word, times in zip(known, timed, strict=True)
        ]

    def _agree(self, hypothesis: Sequence[DecodedWord], window_s: float) -> None:
        agreed = 0
        for before, now in zip(self._tentative, hypothesis, strict=False):
            if before.text != now.text:
                break
            agreed += 1
        # Where the audio ends within a word the model completes it, and often the sentence with it.
        agreed = min(agreed, max(0, len(hypothesis) - 1))
        self._confirmed += hypothesis[:agreed]
        self._tentative = tuple(hypothesis[agreed:])
        if self.needs_times(window_s):
            self._trim(latest_s=self._window_start_s + window_s - WINDOW_KEPT_S)

    def _trim(self, *, latest_s: float) -> None:
        """Move the window's start to the last gap between confirmed words up to `latest_s`."""
        for index in range(len(self._confirmed) - 1, self._trimmed, -1):
            gap_s = (self._confirmed[index - 1].end_s + self._confirmed[index].start_s) / 2
            if self._window_start_s < gap_s <= latest_s:
                self._window_start_s = gap_s
                self._trimmed = index
                return
