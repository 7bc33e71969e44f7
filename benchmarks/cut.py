"""The part of a meeting that a benchmark uses, and what was said in it when."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from agent.errors import InputError
from agent.ingest.meeting import Meeting, Segment, load_meeting
from benchmarks.alignment import Word, align_meeting, spoken_segments, within

__all__ = ["Cut", "read_cut"]

PROGRESS_SEGMENTS = 10


@dataclass(frozen=True, slots=True)
class Cut:
    """A part of a meeting. `words` count from its beginning, those at its edges left out."""

    folder: Path
    meeting: Meeting
    words: Sequence[Word]

    @property
    def truth(self) -> list[Segment]:
        """The words, by speaker and segment."""
        return spoken_segments(self.words)

    @property
    def speech_s(self) -> float:
        """The sum of all segments within it, those who speak at once counted each."""
        spans = (
            min(segment.end_s, self.meeting.duration_s) - max(segment.start_s, 0.0)
            for segment in self.meeting.segments
        )
        return sum(spans)

    @property
    def overlap_share(self) -> float:
        """Of the time in which anybody speaks, the share in which two or more do."""
        edges = sorted(
            edge for each in self.meeting.segments for edge in ((each.start_s, 1), (each.end_s, -1))
        )
        speaking, before_s, any_s, several_s = 0, 0.0, 0.0, 0.0
        for at_s, change in edges:
            any_s += (at_s - before_s) * (speaking > 0)
            several_s += (at_s - before_s) * (speaking > 1)
            speaking, before_s = speaking + change, at_s
        return several_s / any_s if any_s else 0.0


def read_cut(
    folder: Path,
    console: Console,
    *,
    start_s: float = 0.0,
    end_s: float | None = None,
    sample_rate_hz: int | None = None,
) -> Cut:
    """Load a part of a meeting, and find out when its words are spoken.

    Raises:
        InputError: The folder holds no meeting, or nothing is said in that part of it.
    """
    rate = {} if sample_rate_hz is None else {"sample_rate_hz": sample_rate_hz}
    meeting = load_meeting(folder, start_s=start_s, end_s=end_s, **rate)
    if not meeting.segments:
        raise InputError(f"meeting {folder} has nothing in truth.json to compare with; choose another cut")

    def on_progress(done: int, total: int) -> None:
        if done % PROGRESS_SEGMENTS == 0 or done == total:
            console.print(f"{meeting.name}: word times of {done} of {total} segments")

    stop_s = start_s + meeting.duration_s
    words = within(align_meeting(folder, start_s, stop_s, on_progress=on_progress), start_s, stop_s)
    return Cut(folder, meeting, words)
