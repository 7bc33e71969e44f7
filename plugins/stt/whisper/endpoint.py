"""Endpointing: where an utterance begins and ends, from voice activity.

Pure: one call a window of 32 ms, with the probability of voice and the power of the window; the
answers are positions in samples since the beginning of the stream. Utterances never overlap, and
no sample between the first and the last voice of a stretch is outside an utterance.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from agent.values import SAMPLE_RATE_HZ

__all__ = [
    "CUT_AFTER_S",
    "CUT_PAUSE_S",
    "END_SILENCE_S",
    "LONGEST_UTTERANCE_S",
    "OFF_THRESHOLD",
    "ON_THRESHOLD",
    "PRE_ROLL_S",
    "START_WINDOWS",
    "TURN_LEAD_S",
    "WINDOW_SAMPLES",
    "Closed",
    "Endpointer",
    "Opened",
]

WINDOW_SAMPLES = 512  # what the voice activity detector takes at a time

ON_THRESHOLD = 0.5  # voice begins at this probability …
OFF_THRESHOLD = 0.35  # … and lasts down to this one, so that it does not flicker between words
START_WINDOWS = 3  # 96 ms of voice: a click is shorter, a "Mm" is longer
TURN_LEAD_S = 1.0  # after a flush the detector knows no voice yet; a soft one takes it half a second
PRE_ROLL_S = 0.2  # the detector notices a soft consonant late
END_SILENCE_S = 0.5  # joining a speaker's fragments costs fewer errors than ending early
CUT_AFTER_S = 6.0  # from here on a short pause ends the utterance, so that finals keep coming
CUT_PAUSE_S = 0.15  # shorter ones are the closure of a plosive
LONGEST_UTTERANCE_S = 28.0  # the model hears 30 s at most
CUT_SEARCH_S = 8.0  # how far back a cut without a pause looks for the quietest moment


@dataclass(frozen=True, slots=True)
class Opened:
    """An utterance has begun at sample `start`, its voice at `speech_start`."""

    start: int
    speech_start: int


@dataclass(frozen=True, slots=True)
class Closed:
    """The open utterance is samples `start` to `end`, its voice `speech_start` to `speech_end`.

    `voiced_windows` of it, all in all, are at `ON_THRESHOLD` or above.
    """

    start: int
    end: int
    speech_start: int
    speech_end: int
    voiced_windows: int


class Endpointer:
    """Turns voice activity into utterances. Start and end of every range are samples, end excluded.

    An utterance opens with `START_WINDOWS` windows of voice in a row; it takes `PRE_ROLL_S` before
    them along, or, within `TURN_LEAD_S` of a flush, all that followed the flush. It closes after
    `END_SILENCE_S` of silence; once longer than `CUT_AFTER_S`, after `CUT_PAUSE_S`. One that
    reaches `LONGEST_UTTERANCE_S` is divided at its quietest moment of the last `CUT_SEARCH_S`, and
    the rest is the next utterance, already open.
    """

    def __init__(self) -> None:
        self._position = 0
        # Since the utterance opened; while none is open, in a row up to here.
        self._voiced_windows = 0
        self._is_open = False
        self._start = 0
        self._speech_start = 0
        self._speech_end = 0
        # Samples before this one belong to an earlier utterance, or to before a flush.
        self._taken_until = 0
        self._flushed_at = 0
        self._powers: deque[float] = deque(maxlen=_windows(CUT_SEARCH_S))

    @property
    def is_open(self) -> bool:
        """Whether an utterance has begun and not ended."""
        return self._is_open

    @property
    def position(self) -> int:
        """Samples seen so far."""
        return self._position

    @property
    def speech_end(self) -> int:
        """The end of the last voice in the open utterance."""
        return self._speech_end

    @property
    def voiced_windows(self) -> int:
        """How many windows of the open utterance are voice."""
        return self._voiced_windows if self._is_open else 0

    @property
    def retained_from(self) -> int:
        """The first sample that an utterance, open or to come, may still contain."""
        if self._is_open:
            return self._start
        voice_start = self._position - self._voiced_windows * WINDOW_SAMPLES
        is_turn_start = voice_start - self._flushed_at <= _samples(TURN_LEAD_S)
        wanted = self._flushed_at if is_turn_start else voice_start - _samples(PRE_ROLL_S)
        return max(self._taken_until, wanted)

    def push(self, probability: float, power: float) -> list[Opened | Closed]:
        """Take the next window.

        Args:
            probability: of voice in the window, 0 to 1.
            power: mean square of its samples, in any unit.

        Returns:
            What the window decided, in order; mostly nothing.
        """
        self._position += WINDOW_SAMPLES
        if not self._is_open:
            return self._seek_start(probability)
        self._powers.append(power)
        self._voiced_windows += probability >= ON_THRESHOLD
        is_in_voice = self._speech_end == self._position - WINDOW_SAMPLES
        if probability >= (OFF_THRESHOLD if is_in_voice else ON_THRESHOLD):
            self._speech_end = self._position
        length = self._position - self._start
        silence = self._position - self._speech_end
        if silence >= _samples(CUT_PAUSE_S if length > _samples(CUT_AFTER_S) else END_SILENCE_S):
            return [self._close(self._position)]
        if length + WINDOW_SAMPLES > _samples(LONGEST_UTTERANCE_S):
            return self._divide()
        return []

    def flush(self, remainder: int = 0) -> list[Closed]:
        """End whatever is open here; the next window begins a new stretch of audio.

        Args:
            remainder: samples since the last window, fewer than `WINDOW_SAMPLES`. They belong to
                the open utterance, as voice if the last window was voice.

        Returns:
            The utterance that was open, if any.
        """
        if self._is_open and self._speech_end == self._position:
            self._speech_end += remainder
        self._position += remainder
        closed = [self._close(self._position)] if self._is_open else []
        self._voiced_windows = 0
        self._taken_until = self._flushed_at = self._position
        return closed

    def _seek_start(self, probability: float) -> list[Opened | Closed]:
        self._voiced_windows = self._voiced_windows + 1 if probability >= ON_THRESHOLD else 0
        if self._voiced_windows < START_WINDOWS:
            return []
        self._start = self.retained_from
        self._speech_start = self._position - START_WINDOWS * WINDOW_SAMPLES
        self._speech_end = self._position
        self._is_open = True
        self._powers.clear()
        return [Opened(self._start, self._speech_start)]

    def _close(self, end: int) -> Closed:
        closed = Closed(
            self._start, end, self._speech_start, min(self._speech_end, end), self._voiced_windows
        )
        self._is_open = False
        self._voiced_windows = 0
        self._taken_until = end
        return closed

    def _divide(self) -> list[Opened | Closed]:
        """Close the utterance at its quietest moment and open the next one there."""
        span = _windows(CUT_PAUSE_S)
        powers = list(self._powers)
        _, first = min((sum(powers[first : first + span]), first) for first in range(len(powers) - span + 1))
        cut = self._position - (len(powers) - first - span // 2) * WINDOW_SAMPLES
        closed = self._close(cut)
        self._is_open = True
        self._voiced_windows = closed.voiced_windows  # the same speech goes on
        self._start = self._speech_start = cut
        self._speech_end = max(self._speech_end, cut)
        for _ in range(len(powers) - (self._position - cut) // WINDOW_SAMPLES):
            self._powers.popleft()
        return [closed, Opened(cut, cut)]


def _samples(duration_s: float) -> int:
    return round(duration_s * SAMPLE_RATE_HZ)


def _windows(duration_s: float) -> int:
    return math.ceil(duration_s * SAMPLE_RATE_HZ / WINDOW_SAMPLES)
