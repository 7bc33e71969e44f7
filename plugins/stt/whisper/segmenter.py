"""Segmentation: a continuous stream of samples in, utterances out. Silence is not kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from agent.values import Samples
from plugins.stt.whisper.endpoint import START_WINDOWS, WINDOW_SAMPLES, Closed, Endpointer, Opened

__all__ = ["Segmenter", "Utterance"]

SPEECH_WINDOWS = 5  # 160 ms of voice: a brief "No" has seven

_BYTES_PER_SAMPLE = 2


@dataclass(frozen=True, slots=True, eq=False)
class Utterance:
    """A stretch of speech. Positions are samples since the beginning of the stream.

    `samples` are `start` to `end`; the voice in them begins at `speech_start`, after the pre-roll,
    and ends at `speech_end`, before the silence that closed the utterance. `voiced_windows` of the
    detector's windows are voice. None are where a whole turn is so short that the detector, which
    knew no voice before it, may have missed the speech.
    """

    start: int
    speech_start: int
    speech_end: int
    voiced_windows: int
    samples: Samples

    @property
    def has_speech(self) -> bool:
        """Whether voice activity alone tells that somebody speaks."""
        return self.voiced_windows >= SPEECH_WINDOWS

    @property
    def end(self) -> int:
        """The position after the last sample."""
        return self.start + len(self.samples)


class Segmenter:
    """Keeps the samples of the open utterance, and otherwise no more than a pre-roll."""

    def __init__(self, voice_probability: Callable[[Samples], float]) -> None:
        """Begin a stream.

        Args:
            voice_probability: of the next `WINDOW_SAMPLES` samples, 0 to 1; called once a window.
        """
        self._voice_probability = voice_probability
        self._endpointer = Endpointer()
        self._opened: Opened | None = None
        # The samples from position `_kept_from` on; a bytearray drops its beginning cheaply.
        self._kept = bytearray()
        self._kept_from = 0
        self._flushed_at = 0
        self._is_unheard = True  # nothing has opened since the last flush

    @property
    def opened(self) -> Opened | None:
        """Where the utterance that is going on began."""
        return self._opened

    @property
    def position(self) -> int:
        """How many samples have been decided on."""
        return self._endpointer.position

    @property
    def speech_end(self) -> int:
        """Where the last voice in the utterance that is going on ended."""
        return self._endpointer.speech_end

    @property
    def kept_samples(self) -> int:
        """How many samples are in memory."""
        return len(self._kept) // _BYTES_PER_SAMPLE

    def heard(self, opened: Opened) -> Utterance:
        """Return a copy of the utterance that is going on, as far as it has been decided on."""
        return Utterance(
            start=opened.start,
            speech_start=opened.speech_start,
            speech_end=self._endpointer.speech_end,
            voiced_windows=self._endpointer.voiced_windows,
            samples=self._copy(opened.start, self._endpointer.position),
        )

    def pending(self) -> Utterance | None:
        """Return what `flush` would return now of the utterance that is going on, if one is."""
        if self._opened is None:
            return None
        decided, remainder = self._endpointer.position, self._undecided()
        speech_end = self._endpointer.speech_end
        return Utterance(
            start=self._opened.start,
            speech_start=self._opened.speech_start,
            speech_end=speech_end + remainder if speech_end == decided else speech_end,
            voiced_windows=self._endpointer.voiced_windows,
            samples=self._copy(self._opened.start, decided + remainder),
        )

    def push(self, samples: Samples) -> list[Utterance]:
        """Take int16 samples of shape (samples,) and return the utterances that they ended."""
        self._kept += samples.tobytes()
        closed: list[Utterance] = []
        while self._undecided() >= WINDOW_SAMPLES:
            position = self._endpointer.position
            window = self._copy(position, position + WINDOW_SAMPLES)
            power = float(np.mean(np.square(window, dtype=np.float32)))
            decisions = self._endpointer.push(self._voice_probability(window), power)
            closed += self._apply(decisions)
        return closed

    def flush(self) -> list[Utterance]:
        """End the open utterance with the last sample pushed, and return it.

        Where no voice was found since the last flush, and all samples since then are still here, they
        are returned as an utterance without voiced windows.
        """
        end = self._endpointer.position + self._undecided()
        is_whole = self._endpointer.retained_from == self._flushed_at
        unheard: list[Utterance] = []
        if self._is_unheard and is_whole and end - self._flushed_at >= START_WINDOWS * WINDOW_SAMPLES:
            start = self._flushed_at
            unheard = [Utterance(start, start, end, 0, self._copy(start, end))]
        closed = self._apply(self._endpointer.flush(self._undecided()))
        self._flushed_at, self._is_unheard = end, True
        return closed or unheard

    def _apply(self, decisions: Iterable[Opened | Closed]) -> list[Utterance]:
        closed: list[Utterance] = []
        for decision in decisions:
            match decision:
                case Opened():
                    self._opened = decision
                    self._is_unheard = False
                case Closed(start, end, speech_start, speech_end, voiced):
                    self._opened = None
                    samples = self._copy(start, end)
                    closed.append(Utterance(start, speech_start, speech_end, voiced, samples))
        retained_from = self._endpointer.retained_from
        del self._kept[: (retained_from - self._kept_from) * _BYTES_PER_SAMPLE]
        self._kept_from = retained_from
        return closed

    def _undecided(self) -> int:
        return self._kept_from + self.kept_samples - self._endpointer.position

    def _copy(self, start: int, end: int) -> Samples:
        first = (start - self._kept_from) * _BYTES_PER_SAMPLE
        last = (end - self._kept_from) * _BYTES_PER_SAMPLE
        return np.frombuffer(bytes(self._kept[first:last]), np.int16)
