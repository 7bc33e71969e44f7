"""Windows of tracks whose voice a test lays down by hand, and what a floor makes of them."""

from collections.abc import Iterator, Sequence

import numpy as np

from agent.audio.activity import WINDOW_MS, WINDOW_SAMPLES, Window
from agent.audio.floor import Feed
from agent.values import SAMPLES_PER_MS

VOICE, SILENCE = 0.9, 0.02


def windows_of(
    track_id: str, spoken_ms: Sequence[tuple[int, int]], until_ms: int, start_ms: int = 0
) -> list[Window]:
    """Windows from `start_ms` on, with voice where `spoken_ms` says so.

    Each sample tells its window's number, so that what is sent can be told from what was said.
    """
    begins_ms = np.arange(start_ms, until_ms, WINDOW_MS)
    has_voice = np.zeros(len(begins_ms), np.bool_)
    for begin_ms, end_ms in spoken_ms:
        has_voice |= (begin_ms <= begins_ms) & (begins_ms < end_ms)
    return [
        Window(
            track_id,
            int(at_ms),
            np.full(WINDOW_SAMPLES, number % 30_000, np.int16),
            VOICE if has_voice[number] else SILENCE,
        )
        for number, at_ms in enumerate(begins_ms)
    ]


def starts_ms(feed: Feed) -> list[int]:
    """Where the windows begin that a lane was given."""
    return list(range(feed.start_ms, feed.start_ms + len(feed.samples) // SAMPLES_PER_MS, WINDOW_MS))


def in_time(*tracks: Sequence[Window]) -> Iterator[Window]:
    """The windows of several tracks in the order in which they arrive."""
    yield from sorted((window for track in tracks for window in track), key=lambda window: window.end_ms)
