"""Windows of tracks whose voice a test lays down by hand, and laws of what a floor makes of them."""

from collections.abc import Iterator, Sequence

import numpy as np

from agent.audio.activity import WINDOW_MS, WINDOW_SAMPLES, Window

VOICE, SILENCE = 0.9, 0.02


def windows_of(
    track_id: str, spoken_ms: Sequence[tuple[int, int]], until_ms: int, start_ms: int = 0
) -> list[Window]:
    """Windows from `start_ms` on, with voice where `spoken_ms` says so.

    Each sample tells its window's number, so that what is sent can be told from what was said.
    """
    windows = []
    for number, at_ms in enumerate(range(start_ms, until_ms, WINDOW_MS)):
        has_voice = any(begin_ms <= at_ms < end_ms for begin_ms, end_ms in spoken_ms)
        samples = np.full(WINDOW_SAMPLES, number % 30_000, np.int16)
        windows.append(Window(track_id, at_ms, samples, VOICE if has_voice else SILENCE))
    return windows


def in_time(*tracks: Sequence[Window]) -> Iterator[Window]:
    """The windows of several tracks in the order in which they arrive."""
    yield from sorted((window for track in tracks for window in track), key=lambda window: window.end_ms)
