"""Turns: when one person's stretch of speech begins and ends, from the voice in that person's track."""

from collections import deque
from dataclasses import dataclass

import numpy as np

from agent.audio.activity import WINDOW_MS, Window

__all__ = [
    "CUT_PAUSE_MS",
    "HANGOVER_MS",
    "LONGEST_MS",
    "LONG_MS",
    "PRE_ROLL_MS",
    "Began",
    "Over",
    "Paused",
    "Spoke",
    "TurnDetector",
]

ON_PROBABILITY = 0.5  # voice begins at this probability …
OFF_PROBABILITY = 0.35  # … and lasts down to this one, so that it does not flicker between words
START_WINDOWS = 3  # 96 ms of voice: a click is shorter, a "Mm" is longer
PRE_ROLL_MS = 200  # the detector notices a soft consonant late
TAIL_MS = 200  # of silence that is sent; engines need some to tell that a word is over
PAUSED_MS = 300  # most pauses of that length are the end of a turn
HANGOVER_MS = 500  # joining a speaker's fragments costs fewer errors than cutting early
LONG_MS = 6_000  # from here on a short pause ends a turn, so that finals keep coming
CUT_PAUSE_MS = 150  # shorter ones are the closure of a plosive
SEEK_MS = 20_000  # who has not paused for so long is cut at a moment that is quieter than all before it …
LOOK_BACK_MS = 8_000  # … within this time …
LONGEST_MS = 28_000  # … or here: engines hear 30 s at most
QUIET_WINDOWS = 5  # 160 ms: how long a moment is


@dataclass(frozen=True, slots=True)
class Began:
    """Somebody speaks: the turn's audio begins at `start_ms`, a little before the voice."""

    start_ms: int


@dataclass(frozen=True, slots=True)
class Spoke:
    """The turn goes on with this audio: speech, the silence up to it, and a little after it."""

    window: Window


@dataclass(frozen=True, slots=True)
class Paused:
    """The speaker has been silent for a moment: the turn may be over soon."""


@dataclass(frozen=True, slots=True)
class Over:
    """The turn ended, at `end_ms`; `reason` is `pause`, `cut`, `longest` or `gone`."""

    end_ms: int
    reason: str


class TurnDetector:
    """Cuts the windows of one track into turns. Silence is given only where speech goes on after it."""

    def __init__(self) -> None:
        self._lead: deque[Window] = deque(maxlen=PRE_ROLL_MS // WINDOW_MS + START_WINDOWS)
        self._voiced = 0  # windows in a row, before a turn begins
        self._is_open = False
        self._is_paused = False
        self._start_ms = 0
        self._speech_end_ms = 0
        self._held: list[Window] = []
        self._powers: deque[float] = deque(maxlen=LOOK_BACK_MS // WINDOW_MS)
        self.unused_voice_ms = 0.0  # of voice that was too short for a turn

    @property
    def is_open(self) -> bool:
        """Whether a turn has begun and is not over."""
        return self._is_open

    def push(self, window: Window, pause_ms: int) -> list[Began | Spoke | Paused | Over]:
        """Take the next window of the track, which may follow a hole.

        Args:
            window: Its probability of voice decides.
            pause_ms: So much silence ends the turn now.
        """
        signals = self.wait(window.start_ms, pause_ms)
        if not self._is_open:
            return signals + self._seek_start(window)
        self._note_power(window)
        if window.probability >= (OFF_PROBABILITY if self._is_in_voice(window) else ON_PROBABILITY):
            signals += [Spoke(held) for held in self._held]
            signals.append(Spoke(window))
            self._held.clear()
            self._speech_end_ms = window.end_ms
            self._is_paused = False
        elif window.end_ms - self._speech_end_ms <= TAIL_MS:
            signals.append(Spoke(window))
        else:
            self._held.append(window)
        if self._is_too_long(window.end_ms):
            return [*signals, self._end(window.end_ms, "longest")]
        return signals + self.wait(window.end_ms, pause_ms)

    def wait(self, now_ms: int, pause_ms: int) -> list[Began | Spoke | Paused | Over]:
        """Nothing was said until `now_ms`; as for `push`."""
        if not self._is_open:
            return []
        silence_ms = now_ms - self._speech_end_ms
        if silence_ms >= pause_ms:
            return [self._end(self._speech_end_ms, "pause" if pause_ms >= HANGOVER_MS else "cut")]
        if silence_ms >= PAUSED_MS and not self._is_paused:
            self._is_paused = True
            return [Paused()]
        return []

    def stop(self) -> list[Began | Spoke | Paused | Over]:
        """The track was muted or is gone."""
        signals: list[Began | Spoke | Paused | Over] = []
        if self._is_open:
            signals.append(self._end(self._speech_end_ms, "gone"))
        self._forget_lead()
        return signals

    def abandon(self) -> None:
        """The open turn is not to be: what was said in it is somebody else's."""
        self._is_open = False
        self._held.clear()
        self._lead.clear()
        self._voiced = 0

    def _is_in_voice(self, window: Window) -> bool:
        return window.start_ms <= self._speech_end_ms

    def _seek_start(self, window: Window) -> list[Began | Spoke | Paused | Over]:
        if self._lead and window.start_ms > self._lead[-1].end_ms:
            self._forget_lead()  # there is a hole before it
        self._add_lead(window)
        self._voiced = self._voiced + 1 if window.probability >= ON_PROBABILITY else 0
        if self._voiced < START_WINDOWS:
            return []
        lead = list(self._lead)
        self._lead.clear()
        self._voiced = 0
        self._is_open, self._is_paused = True, False
        self._start_ms, self._speech_end_ms = lead[0].start_ms, window.end_ms
        self._powers.clear()
        return [Began(self._start_ms), *(Spoke(each) for each in lead)]

    def _note_power(self, window: Window) -> None:
        if window.end_ms - self._start_ms > SEEK_MS - LOOK_BACK_MS:  # nobody asks before
            self._powers.append(float(np.mean(np.square(window.samples, dtype=np.float32))))

    def _is_too_long(self, now_ms: int) -> bool:
        length_ms = now_ms - self._start_ms
        if length_ms >= LONGEST_MS:
            return True
        if length_ms < SEEK_MS or len(self._powers) <= QUIET_WINDOWS:
            return False
        sums = np.convolve(np.asarray(self._powers), np.ones(QUIET_WINDOWS), "valid")
        return bool(sums[-1] < sums[:-1].min())

    def _end(self, end_ms: int, reason: str) -> Over:
        self._is_open = False
        for window in self._held:  # it may be the pre-roll of what comes
            self._add_lead(window)
        self._held.clear()
        return Over(end_ms, reason)

    def _add_lead(self, window: Window) -> None:
        if len(self._lead) == self._lead.maxlen:
            self._forget(self._lead[0])
        self._lead.append(window)

    def _forget_lead(self) -> None:
        for window in self._lead:
            self._forget(window)
        self._lead.clear()
        self._voiced = 0

    def _forget(self, window: Window) -> None:
        if window.probability >= ON_PROBABILITY:
            self.unused_voice_ms += window.voice_ms
