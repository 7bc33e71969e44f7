"""What is said: people talk in turns, and at once now and then, and each word tells when it was said."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from agent.audio.activity import WINDOW_MS, Window
from tests.support.speech_windows import VOICE, windows_of

__all__ = ["LONGEST_S", "Spoken", "Talk", "number_of", "talk"]

VOICES = 4
TURN_S = (0.8, 7.0)
PAUSE_S = (0.3, 2.5)
OVERLAP_S = (0.3, 2.0)
SILENCE_S = 1.0  # at the end, so that nobody is cut off
OVERLAPS = 0.4  # of all turns begin before the last one is over
# A window's number is its place in the session and its voice's share of what a sample can hold; 0 is silence.
NUMBERS = 8_000
LONGEST_S = NUMBERS * WINDOW_MS / 1000


@dataclass(frozen=True, slots=True)
class Spoken:
    """A word, which is a window with voice in it. Times are seconds of the session."""

    track_id: str
    start_s: float

    @property
    def end_s(self) -> float:
        return self.start_s + WINDOW_MS / 1000


@dataclass(frozen=True, slots=True)
class Talk:
    """A conversation: the windows of each step of time, and what is said in them, by number."""

    steps: Sequence[Sequence[Window]]
    words: Mapping[int, Spoken]

    @property
    def tracks(self) -> Sequence[str]:
        return [window.track_id for window in self.steps[0]]


def talk(duration_s: float, seed: int) -> Talk:
    """A conversation of this length; the same for the same seed."""
    assert duration_s <= LONGEST_S
    turns = _turns(duration_s - SILENCE_S, random.Random(seed))
    until_ms = round(duration_s * 1000)
    tracks = [
        [
            replace(window, samples=window.samples + 1 + voice * NUMBERS)
            for window in windows_of(f"voice-{voice}", turns[voice], until_ms)
        ]
        for voice in range(VOICES)
    ]
    words = {
        int(window.samples[0]): Spoken(window.track_id, window.start_ms / 1000)
        for track in tracks
        for window in track
        if window.probability == VOICE
    }
    return Talk(list(zip(*tracks, strict=True)), words)


def number_of(text: str) -> int:
    """The number of the window that the stand-in heard a word in."""
    return int(text.removeprefix("w"))


def _turns(duration_s: float, dice: random.Random) -> Sequence[Sequence[tuple[int, int]]]:
    """For each voice from when to when it speaks, in ms; a voice is never its own successor."""
    turns: list[list[tuple[int, int]]] = [[] for _ in range(VOICES)]
    voice, at_s = 0, 0.5
    while at_s < duration_s:
        end_s = min(at_s + dice.uniform(*TURN_S), duration_s)
        turns[voice].append((round(at_s * 1000), round(end_s * 1000)))
        voice = (voice + dice.randrange(1, VOICES)) % VOICES
        free_s = turns[voice][-1][1] / 1000 + PAUSE_S[0] if turns[voice] else 0.0
        is_overlap = dice.random() < OVERLAPS
        at_s = max(end_s + (-dice.uniform(*OVERLAP_S) if is_overlap else dice.uniform(*PAUSE_S)), free_s)
    return turns
