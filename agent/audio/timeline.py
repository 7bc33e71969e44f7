"""Places the blocks of all tracks on one time axis.

Frames from a room carry no time of their own, only that of their arrival, and arrivals jitter. So a track's
first block is placed by its arrival, and every later one follows the one before by its count of samples.
"""

from dataclasses import dataclass, field

import numpy as np

from agent.values import SAMPLES_PER_MS, Block, Samples

__all__ = ["Timeline"]

MAX_WAIT_MS = 200  # a stalled event loop or network rarely holds one track back longer than the others
MAX_LATE_MS = 200  # what comes later than this after what was before it follows a hole, not a delay
MAX_LEAD_MS = 200  # a track ahead of its arrivals is late in the mix: its next pause is shortened
MOST_LEAD_MS = 2_000  # one that never pauses is cut all the same, else its captions stay late
QUIET = 328  # -40 dBFS: below it there is no voice to lose


@dataclass(slots=True)
class _Track:
    next_ms: int | None = None  # where the next block goes; None before the first
    rest: Samples = field(default_factory=lambda: np.empty(0, np.int16))  # less than a millisecond


class Timeline:
    """Session time for the blocks of every open track.

    A track is open while it can send audio. What comes too late for its place is moved up, so that no word
    is lost; a track that is ahead of its own arrivals by that is brought back in its pauses. Both are
    counted. What arrives in one go is placed in one call, since only the last of it has just arrived.
    """

    def __init__(self) -> None:
        self._tracks: dict[str, _Track] = {}
        self._taken_ms = 0
        self._latest_ms = 0
        self._placed_ms = 0
        self.moved_ms = 0
        self.trimmed_ms = 0

    def open(self, track_id: str) -> None:
        """Expect audio of this track from now on. Opening it twice begins it anew."""
        self._tracks[track_id] = _Track()

    def close(self, track_id: str) -> None:
        """Expect no more audio of this track: it was muted or is gone."""
        self._tracks.pop(track_id, None)

    def place(self, track_id: str, samples: Samples, received_ms: int) -> Block | None:
        """Give a block its place, or None where less than a millisecond is there or the track is not open.

        Args:
            samples: `int16` of shape `(samples,)` at 16 kHz.
            received_ms: Session time at which the last of them arrived.
        """
        track = self._tracks.get(track_id)
        if track is None:
            return None
        self._latest_ms = max(self._latest_ms, received_ms)
        samples = np.concatenate((track.rest, samples)) if len(track.rest) else samples
        duration_ms = len(samples) // SAMPLES_PER_MS
        whole = duration_ms * SAMPLES_PER_MS
        track.rest = samples[whole:].copy()
        if duration_ms == 0:
            return None
        samples = samples[:whole]
        arrived_ms = received_ms - duration_ms
        follows = track.next_ms is not None and arrived_ms - track.next_ms <= MAX_LATE_MS
        wanted_ms = track.next_ms if follows and track.next_ms is not None else arrived_ms
        start_ms = max(wanted_ms, self._taken_ms, 0)
        if follows:
            self.moved_ms += start_ms - wanted_ms
        lead_ms = start_ms - arrived_ms
        if lead_ms > MOST_LEAD_MS or (lead_ms > MAX_LEAD_MS and _is_quiet(samples)):
            cut_ms = min(lead_ms - MAX_LEAD_MS, duration_ms)
            self.trimmed_ms += cut_ms
            samples = samples[cut_ms * SAMPLES_PER_MS :]
            duration_ms -= cut_ms
        track.next_ms = start_ms + duration_ms
        self._placed_ms = max(self._placed_ms, track.next_ms)
        return Block(track_id, start_ms, samples) if duration_ms else None

    def ready_ms(self) -> int:
        """Session time up to which nothing more is waited for: every open track was heard, or is stalled."""
        heard = [track.next_ms for track in self._tracks.values() if track.next_ms is not None]
        ready = min(heard, default=self._placed_ms)
        return max(ready, self._latest_ms - MAX_WAIT_MS, self._taken_ms)

    def end_ms(self) -> int:
        """Session time up to which anything was placed."""
        return max(self._placed_ms, self._taken_ms)

    def take(self, until_ms: int) -> None:
        """Everything before `until_ms` has been used: later blocks are placed after it."""
        self._taken_ms = max(self._taken_ms, until_ms)


def _is_quiet(samples: Samples) -> bool:
    return bool(np.abs(samples.astype(np.int32)).max() < QUIET)
