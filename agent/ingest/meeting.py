"""A recorded meeting in a folder: one track per participant, and what was said where that is known."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agent.errors import InputError
from agent.values import Samples

__all__ = ["Meeting", "Segment", "load_meeting"]

TRACK_SUFFIXES = (".ogg", ".opus", ".wav")
TRUTH_FILE = "truth.json"


@dataclass(frozen=True, slots=True)
class Segment:
    """What one participant says without a pause, in seconds since the meeting began."""

    speaker: str
    text: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True, eq=False)
class Meeting:
    """The tracks of a meeting, by participant, all of one length.

    `tracks` are mono `int16` of shape `(samples,)` at `sample_rate_hz`. A segment that the cut goes through
    is kept whole, so that it may begin before 0 or end after `duration_s`.
    """

    name: str
    tracks: Mapping[str, Samples]
    sample_rate_hz: int
    duration_s: float
    segments: tuple[Segment, ...]


class _TruthSegment(BaseModel):
    speaker: str
    text: str
    start: float = Field(ge=0)
    end: float = Field(ge=0)


class _Truth(BaseModel):
    """truth.json. What else is written there is for other readers."""

    model_config = ConfigDict(extra="ignore")

    segments: tuple[_TruthSegment, ...] = ()
    duration: float = Field(default=0.0, ge=0)


def load_meeting(
    folder: Path, *, sample_rate_hz: int = 48_000, start_s: float = 0.0, end_s: float | None = None
) -> Meeting:
    """Read a meeting, or a cut of it.

    Args:
        folder: Holds an Ogg/Opus or WAV file per participant, named after them, and truth.json where it is
            known what was said.
        sample_rate_hz: What the tracks are resampled to.
        start_s: Where the cut begins; times in the result count from here.
        end_s: Where the cut ends; None is the end of the meeting.

    Raises:
        InputError: The folder, a track, truth.json or the cut cannot be used.
    """
    if start_s < 0:
        raise InputError(f"cut from {start_s:g} s is wrong; it must begin at 0 or later")
    if end_s is not None and end_s <= start_s:
        raise InputError(f"cut from {start_s:g} s to {end_s:g} s is empty; it must end after it begins")
    paths = _track_paths(folder)
    truth = _read_truth(folder / TRUTH_FILE)
    first = round(start_s * sample_rate_hz)
    last = None if end_s is None else round(end_s * sample_rate_hz)
    heard = {name: _read_track(path, sample_rate_hz, first, last) for name, path in paths.items()}
    known_end = round(truth.duration * sample_rate_hz)
    if last is not None:
        known_end = min(known_end, last)
    length = max(known_end - first, *(len(samples) for samples in heard.values()))
    if length <= 0:
        raise InputError(f"meeting {folder} is over before {start_s:g} s; choose an earlier start")
    duration_s = length / sample_rate_hz
    return Meeting(
        name=folder.resolve().name,
        tracks={name: np.pad(samples, (0, length - len(samples))) for name, samples in heard.items()},
        sample_rate_hz=sample_rate_hz,
        duration_s=duration_s,
        segments=tuple(_cut(truth.segments, start_s, start_s + duration_s)),
    )


def _track_paths(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise InputError(f"meeting {folder} is not a folder; give one that holds a track per participant")
    paths: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in TRACK_SUFFIXES or path.name.startswith("."):
            continue
        if path.stem in paths:
            raise InputError(f"meeting {folder} has two tracks of {path.stem}; leave one")
        paths[path.stem] = path
    if not paths:
        raise InputError(
            f"meeting {folder} has no tracks; they are files that end in {', '.join(TRACK_SUFFIXES)}"
        )
    return paths


def _read_truth(path: Path) -> _Truth:
    if not path.exists():
        return _Truth()
    try:
        return _Truth.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path} is wrong{f' at {where}' if where else ''}: {first['msg']}") from None


def _read_track(path: Path, sample_rate_hz: int, first: int, last: int | None) -> Samples:
    """The samples of a track from `first` up to `last`, fewer where it is shorter."""
    kept: list[Samples] = []
    position = 0
    try:
        for samples in _decode(path, sample_rate_hz):
            stop = len(samples) if last is None else last - position
            kept.append(samples[max(0, first - position) : max(0, stop)])
            position += len(samples)
            if stop <= len(samples) and last is not None:
                break
    except (av.FFmpegError, OSError) as error:
        raise InputError(f"track {path} cannot be read: {error.strerror or error}") from None
    return np.concatenate(kept) if kept else np.zeros(0, np.int16)


def _decode(path: Path, sample_rate_hz: int) -> Iterator[Samples]:
    """A sound file as mono blocks of any length, resampled."""
    resampler = av.AudioResampler(format="s16", layout="mono", rate=sample_rate_hz)
    with av.open(path) as container:
        if not container.streams.audio:
            raise InputError(f"track {path} cannot be read: it holds no audio")
        for frame in container.decode(audio=0):
            for resampled in resampler.resample(frame):
                yield resampled.to_ndarray()[0]
        for resampled in resampler.resample(None):
            yield resampled.to_ndarray()[0]


def _cut(segments: tuple[_TruthSegment, ...], start_s: float, end_s: float) -> Iterator[Segment]:
    for segment in segments:
        if segment.end > start_s and segment.start < end_s:
            yield Segment(segment.speaker, segment.text, segment.start - start_s, segment.end - start_s)
