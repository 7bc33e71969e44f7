"""Places a track's audio in session time, by when it arrives and by how much of it there is.

Samples carry no time of their own. The network and a busy machine only ever delay them: so where audio goes
on without a hole, the earliest that any of it arrived, less its count of samples, is where it began. Audio
that is late is told from audio that was lost by what follows: what is late has caught up soon.
"""

from collections.abc import Sequence

from agent.values import Samples

__all__ = ["Placer", "Stretch"]

# A place is right within 20 ms. Of these a sender's clock that is off by 200 ppm takes 12 in the longest
# stretch, and rounding two.
MAX_STRETCH_MS = 60_000
MAX_LATE_MS = 18  # what is later, and stays so, follows a hole
MAX_AHEAD_MS = 6  # a fast clock sends more audio than fits; what is beyond this is cut where a stretch begins

DOUBT_MS = 400  # a busy machine or network has caught up by then; a crash takes what is in doubt
MAX_JITTER_MS = 150  # at the end, what is not later than this has not lost anything


class Stretch:
    """Audio of one track without a hole in it. Its beginning is known better the longer it goes on.

    Args:
        sample_rate_hz: Of the track.
        from_ms: Where what was before it ends.
    """

    def __init__(self, sample_rate_hz: int, from_ms: int) -> None:
        self._samples_per_ms = sample_rate_hz / 1000
        self._from_ms = from_ms
        self._samples = 0
        self._began_ms = float("inf")

    @property
    def start_ms(self) -> int:
        """Session time of the first sample, as far as is known."""
        return max(round(self._began_ms), self._from_ms)

    @property
    def ahead_ms(self) -> float:
        """How much later than it began it is placed, because of what was before it."""
        return self.start_ms - self._began_ms

    @property
    def duration_ms(self) -> float:
        return self._samples / self._samples_per_ms

    @property
    def end_ms(self) -> int:
        """Session time, in whole milliseconds, before which nothing else of this track is placed."""
        return self.start_ms + int(-(-self.duration_ms // 1))

    def late_ms(self, samples: int, received_ms: int) -> float:
        """How late the last of so many further samples arrived, by what is known so far."""
        return received_ms - self._began_ms - (self._samples + samples) / self._samples_per_ms

    def add(self, samples: int, received_ms: int) -> None:
        """Go on with so many samples, the last of which arrived at `received_ms`."""
        self._samples += samples
        self._began_ms = min(self._began_ms, received_ms - self.duration_ms)


class Placer:
    """Divides a track's audio into stretches, which never overlap, and places each within 20 ms.

    `trimmed` counts samples of a fast clock for which there was no time.

    Args:
        sample_rate_hz: Of the track.
        from_ms: Session time before which nothing is placed.
    """

    def __init__(self, sample_rate_hz: int, from_ms: int = 0) -> None:
        self._sample_rate_hz = sample_rate_hz
        self._from_ms = from_ms
        self._stretch: Stretch | None = None
        self._doubtful: list[tuple[Samples, int]] = []
        self.trimmed = 0

    @property
    def end_ms(self) -> int:
        """Session time up to which anything was placed."""
        return self._from_ms if self._stretch is None else self._stretch.end_ms

    def push(self, samples: Samples, received_ms: int) -> Sequence[tuple[Stretch, Samples]]:
        """Take samples and give those whose place is known now, in order, each with the stretch it is in.

        Args:
            samples: `int16` of shape `(samples,)` at the track's rate.
            received_ms: Session time at which the last of them arrived.
        """
        if not len(samples):
            return ()
        self._doubtful.append((samples, received_ms))
        if self._stretch is None:
            return self._settle(Stretch(self._sample_rate_hz, self._from_ms))
        waiting = sum(len(doubtful) for doubtful, _ in self._doubtful)
        if self._stretch.late_ms(waiting, received_ms) <= MAX_LATE_MS:
            if self._stretch.duration_ms + 1000 * waiting / self._sample_rate_hz <= MAX_STRETCH_MS:
                return self._settle(self._stretch)
            self._trim(self._stretch)
            return self._cut()
        return self._cut() if received_ms - self._doubtful[0][1] >= DOUBT_MS else ()

    def flush(self) -> Sequence[tuple[Stretch, Samples]]:
        """The track ends or pauses here: give what is in doubt."""
        placed: list[tuple[Stretch, Samples]] = []
        while self._doubtful:
            waiting = sum(len(doubtful) for doubtful, _ in self._doubtful)
            if self._stretch and self._stretch.late_ms(waiting, self._doubtful[-1][1]) <= MAX_JITTER_MS:
                placed += self._settle(self._stretch)
            else:
                placed += self._cut()
        self._from_ms, self._stretch = self.end_ms, None
        return placed

    def _trim(self, before: Stretch) -> None:
        if before.ahead_ms > MAX_AHEAD_MS:
            samples, received_ms = self._doubtful[0]
            cut = samples[: round(before.ahead_ms * self._sample_rate_hz / 1000)]
            self.trimmed += len(cut)
            self._doubtful[0] = (samples[len(cut) :], received_ms)

    def _cut(self) -> Sequence[tuple[Stretch, Samples]]:
        """Begin a new stretch with what is in doubt."""
        self._from_ms, self._stretch = self.end_ms, None
        doubtful, self._doubtful = self._doubtful, []
        return [placed for samples, received_ms in doubtful for placed in self.push(samples, received_ms)]

    def _settle(self, stretch: Stretch) -> Sequence[tuple[Stretch, Samples]]:
        """What is in doubt belongs to this stretch."""
        self._stretch = stretch
        doubtful, self._doubtful = self._doubtful, []
        for samples, received_ms in doubtful:
            stretch.add(len(samples), received_ms)
        return [(stretch, samples) for samples, _ in doubtful]
