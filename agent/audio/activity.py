"""Voice activity: how much voice there is in which track, and when."""

from array import array
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from agent.values import SAMPLES_PER_MS, Block, Samples

__all__ = ["WINDOW_MS", "VoiceActivityDetector", "VoiceDetector", "VoiceLog", "Window"]

WINDOW_SAMPLES = 512  # what the detector takes at a time
WINDOW_MS = WINDOW_SAMPLES // SAMPLES_PER_MS
KEEP_MS = 120_000  # far longer than any utterance, so that a late final still finds its speakers


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """A piece of one track, `WINDOW_MS` long, and the probability that there is voice in it."""

    track_id: str
    start_ms: int
    samples: Samples
    probability: float

    @property
    def end_ms(self) -> int:
        return self.start_ms + WINDOW_MS

    @property
    def voice_ms(self) -> float:
        """How much voice it holds."""
        return self.probability * WINDOW_MS


class VoiceActivityDetector(Protocol):
    """A detector with a state of its own, as `livekit.local_inference.VAD` (Silero) is."""

    def predict(self, pcm: Samples) -> float:
        """The probability of voice, 0 to 1, in the next 512 samples of 16 kHz audio."""
        ...

    def reset(self) -> None:
        """Forget what was heard."""
        ...


class VoiceDetector:
    """Finds the voice in the blocks of one track, window by window."""

    def __init__(self, detector: VoiceActivityDetector) -> None:
        self._detector = detector
        self._pending: Samples = np.empty(0, np.int16)
        self._pending_ms = 0

    def detect(self, block: Block) -> list[Window]:
        """Every window that this block completes; after a gap the detector starts afresh."""
        windows = []
        if block.start_ms != self._pending_ms + len(self._pending) // SAMPLES_PER_MS:
            windows = self.finish(block.track_id)
            self._detector.reset()
            self._pending_ms = block.start_ms
        samples = np.concatenate((self._pending, block.samples))
        count = len(samples) // WINDOW_SAMPLES
        for index in range(count):
            piece = samples[index * WINDOW_SAMPLES : (index + 1) * WINDOW_SAMPLES]
            start_ms = self._pending_ms + index * WINDOW_MS
            windows.append(Window(block.track_id, start_ms, piece, self._detector.predict(piece)))
        self._pending = samples[count * WINDOW_SAMPLES :]
        self._pending_ms += count * WINDOW_MS
        return windows

    def finish(self, track_id: str) -> list[Window]:
        """The window that is not complete, filled up with silence: nothing follows it directly."""
        rest, self._pending = self._pending, np.empty(0, np.int16)
        if not len(rest):
            return []
        piece = np.pad(rest, (0, WINDOW_SAMPLES - len(rest)))
        return [Window(track_id, self._pending_ms, piece, self._detector.predict(piece))]


class _History:
    """The voice of one track, as running totals: any span of it costs two look-ups."""

    __slots__ = ("_ends_ms", "_starts_ms", "_totals_ms")

    def __init__(self) -> None:
        self._starts_ms = array("q")
        self._ends_ms = array("q")
        self._totals_ms = array("d", [0.0])

    @property
    def end_ms(self) -> int:
        return self._ends_ms[-1] if self._ends_ms else 0

    def add(self, window: Window) -> None:
        self._starts_ms.append(window.start_ms)
        self._ends_ms.append(window.end_ms)
        self._totals_ms.append(self._totals_ms[-1] + window.voice_ms)

    def is_long(self) -> bool:
        return self._ends_ms[-1] - self._ends_ms[0] > 2 * KEEP_MS

    def forget(self, before_ms: int) -> None:
        stale = bisect_left(self._ends_ms, before_ms)
        del self._starts_ms[:stale], self._ends_ms[:stale], self._totals_ms[:stale]

    def voice_in(self, start_ms: int, end_ms: int) -> float | None:
        """Milliseconds of voice between two session times, None where the track was not heard at all."""
        first = bisect_right(self._ends_ms, start_ms)
        last = bisect_left(self._starts_ms, end_ms)
        if first >= last:
            return None
        total = self._totals_ms[last] - self._totals_ms[first]
        return total - self._part(first, start_ms, first_part=True) - self._part(last - 1, end_ms)

    def _part(self, index: int, edge_ms: int, *, first_part: bool = False) -> float:
        """The voice of a window that lies before an edge in it, or else behind it."""
        start_ms, end_ms = self._starts_ms[index], self._ends_ms[index]
        outside_ms = max(edge_ms - start_ms if first_part else end_ms - edge_ms, 0)
        voice_ms = self._totals_ms[index + 1] - self._totals_ms[index]
        return voice_ms * outside_ms / (end_ms - start_ms)


class VoiceLog:
    """Who had how much voice in the last two minutes. Whoever is silent for longer is forgotten."""

    def __init__(self) -> None:
        self._histories: dict[str, dict[str, _History]] = {}

    def add(self, identity: str, window: Window) -> None:
        """Note a window of somebody's voice. Windows of one track come in order of time."""
        history = self._histories.setdefault(identity, {}).setdefault(window.track_id, _History())
        history.add(window)
        if history.is_long():
            self._forget(window.end_ms - KEEP_MS)

    def voice_in(self, start_ms: int, end_ms: int) -> dict[str, float]:
        """Milliseconds of voice between two session times, by identity of all who could be heard there.

        Who is heard by two tracks has the voice of the one that has more of it.
        """
        found: dict[str, float] = {}
        for identity, histories in self._histories.items():
            voices_ms = [history.voice_in(start_ms, end_ms) for history in histories.values()]
            if heard_ms := [voice_ms for voice_ms in voices_ms if voice_ms is not None]:
                found[identity] = max(heard_ms)
        return found

    def _forget(self, before_ms: int) -> None:
        for identity, histories in list(self._histories.items()):
            for track_id, history in list(histories.items()):
                if history.end_ms < before_ms:
                    del histories[track_id]
                else:
                    history.forget(before_ms)
            if not histories:
                del self._histories[identity]
