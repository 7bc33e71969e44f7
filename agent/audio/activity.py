"""Voice activity: how much voice there is in which track, and when."""

from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass, field
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


@dataclass(slots=True)
class _History:
    ends_ms: list[int] = field(default_factory=list)
    voices: list[Voice] = field(default_factory=list)


class VoiceLog:
    """Who had how much voice in the last two minutes."""

    def __init__(self) -> None:
        self._histories: dict[str, _History] = defaultdict(_History)

    def add(self, identity: str, voice: Voice) -> None:
        """Note a window of somebody's voice. Windows of one person come in order of time."""
        history = self._histories[identity]
        history.ends_ms.append(voice.end_ms)
        history.voices.append(voice)
        if voice.end_ms - history.ends_ms[0] > 2 * KEEP_MS:
            stale = bisect_left(history.ends_ms, voice.end_ms - KEEP_MS)
            del history.ends_ms[:stale], history.voices[:stale]

    def voice_in(self, start_ms: int, end_ms: int) -> dict[str, float]:
        """Milliseconds of voice between two session times by identity, of those who had any window there."""
        found: dict[str, float] = {}
        for identity, history in self._histories.items():
            first = bisect_left(history.ends_ms, start_ms + 1)
            last = bisect_left(history.ends_ms, end_ms + WINDOW_MS)
            inside = [voice for voice in history.voices[first:last] if voice.start_ms < end_ms]
            if inside:
                found[identity] = sum(_part_of(voice, start_ms, end_ms) for voice in inside)
        return found

    def forget(self, before_ms: int) -> None:
        """Drop everybody who had no voice since a session time."""
        for identity in [i for i, h in self._histories.items() if h.ends_ms[-1] < before_ms]:
            del self._histories[identity]


def _part_of(voice: Voice, start_ms: int, end_ms: int) -> float:
    inside_ms = min(voice.end_ms, end_ms) - max(voice.start_ms, start_ms)
    return voice.voice_ms * inside_ms / (voice.end_ms - voice.start_ms)
