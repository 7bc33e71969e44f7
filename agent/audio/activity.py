"""Voice activity: how much voice there is in which track, and when."""

from array import array
from bisect import bisect_left, bisect_right
from typing import Protocol

import numpy as np

from agent.values import SAMPLES_PER_MS, Block, Samples, Voice

__all__ = ["VoiceActivityDetector", "VoiceDetector", "VoiceLog"]

WINDOW_SAMPLES = 512  # what the detector takes at a time
WINDOW_MS = WINDOW_SAMPLES // SAMPLES_PER_MS
KEEP_MS = 120_000  # far longer than any utterance, so that a late final still finds its speakers


class VoiceActivityDetector(Protocol):
    """A detector with a state of its own, as `livekit.local_inference.VAD` (Silero) is."""

    def predict(self, pcm: Samples) -> float:
        """The probability of voice, 0 to 1, in the next 512 samples of 16 kHz audio."""
        ...

    def reset(self) -> None:
        """Forget what was heard."""
        ...


class VoiceDetector:
    """Measures the voice in the blocks of one track, window by window."""

    def __init__(self, detector: VoiceActivityDetector) -> None:
        self._detector = detector
        self._pending: Samples = np.empty(0, np.int16)
        self._pending_ms = 0

    def measure(self, block: Block) -> list[Voice]:
        """The voice in every window that this block completes; after a gap the detector starts afresh."""
        expected_ms = self._pending_ms + len(self._pending) // SAMPLES_PER_MS
        if block.start_ms != expected_ms:
            self._detector.reset()
            self._pending = np.empty(0, np.int16)
            self._pending_ms = block.start_ms
        samples = np.concatenate((self._pending, block.samples))
        voices = []
        windows = len(samples) // WINDOW_SAMPLES
        for index in range(windows):
            window = samples[index * WINDOW_SAMPLES : (index + 1) * WINDOW_SAMPLES]
            start_ms = self._pending_ms + index * WINDOW_MS
            voice_ms = self._detector.predict(window) * WINDOW_MS
            voices.append(Voice(block.track_id, start_ms, start_ms + WINDOW_MS, voice_ms))
        self._pending = samples[windows * WINDOW_SAMPLES :]
        self._pending_ms += windows * WINDOW_MS
        return voices


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

    def add(self, voice: Voice) -> None:
        self._starts_ms.append(voice.start_ms)
        self._ends_ms.append(voice.end_ms)
        self._totals_ms.append(self._totals_ms[-1] + voice.voice_ms)

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

    def add(self, identity: str, voice: Voice) -> None:
        """Note a window of somebody's voice. Windows of one track come in order of time."""
        history = self._histories.setdefault(identity, {}).setdefault(voice.track_id, _History())
        history.add(voice)
        if history.is_long():
            self._forget(voice.end_ms - KEEP_MS)

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
