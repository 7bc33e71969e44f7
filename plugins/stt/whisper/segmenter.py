"""Segmentation: a continuous stream of samples in, utterances out. Silence is not kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from agent.values import Samples
from plugins.stt.whisper.endpoint import WINDOW_SAMPLES, Closed, Endpointer, Opened

__all__ = ["Segmenter", "Utterance"]

_BYTES_PER_SAMPLE = 2


@dataclass(frozen=True, slots=True, eq=False)
class Utterance:
    """A stretch of speech. Positions are samples since the beginning of the stream.

    `samples` are `start` to `end`; the voice in them begins at `speech_start`, after the pre-roll,
    and ends at `speech_end`, before the silence that closed the utterance.
    """

    start: int
    speech_start: int
    speech_end: int
    samples: Samples

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
            samples=self._copy(opened.start, self._endpointer.position),
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
        """End the open utterance with the last sample pushed, and return it."""
        return self._apply(self._endpointer.flush(self._undecided()))

    def _apply(self, decisions: Iterable[Opened | Closed]) -> list[Utterance]:
        closed: list[Utterance] = []
        for decision in decisions:
            match decision:
                case Opened():
                    self._opened = decision
                case Closed(start, end, speech_start, speech_end):
                    self._opened = None
                    closed.append(Utterance(start, speech_start, speech_end, self._copy(start, end)))
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
