"""A session's stems mixed into one file for listening, in which time is session time.

AAC in MP4, which every browser plays, phones of some years too, and seeks to the right place: its index
stands at the front, and an edit list says which samples the encoder put before the first.
"""

import errno
import fcntl
import os
import tempfile
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import structlog
from numpy.typing import NDArray

from agent.errors import RecordingError
from persistence.journal.folder import sync_folder
from persistence.renderings import Source

__all__ = ["MEDIA_TYPE", "Rendered", "render"]

log = structlog.get_logger(__name__)

MEDIA_TYPE = "audio/mp4"

RATE_HZ = 48_000  # what Opus decodes to, whatever went in (RFC 7845)
SAMPLES_PER_MS = RATE_HZ // 1000
BITRATE = 64_000  # a voice of 48 kHz loses little by it, and an hour takes 29 MB
# At this rate it is nearer to the original than the default, by 0.4 dB of the log mel spectrum, for two
# thirds of the processor time.
AAC_OPTIONS = {"aac_coder": "fast"}
MP4_OPTIONS = {"movflags": "+faststart"}

BLOCK_MS = 5_000  # takes 1 MB; longer ones are not mixed faster

# Below it nothing is changed, so one voice sounds as it is; several at once come near full scale, never over.
KNEE = 0.8

# A segment's duration is cut to whole milliseconds, and a player may leave out the last packet of 20 ms.
MAX_SHORT_MS = 20

DISK_FULL = {errno.ENOSPC, errno.EDQUOT}
# These say nothing about the segment that is opened.
EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}

_Mix = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Rendered:
    """What was made. `missing` is the number of segments that could not be read, or not to their end."""

    duration_ms: int
    size_bytes: int
    missing: int


def render(sources: Sequence[Source], stems_dir: Path, output: Path, *, duration_ms: int) -> Rendered:
    """Mix segments into one file, mono. It blocks, for minutes after a session of hours: call it in a thread.

    The file is there when it is whole and on disk, however the process ends; it takes the place of one of the
    same name. Memory grows with how many are heard at once and, by 12 MB an hour, with the duration.
    A segment is left out from where it cannot be read.

    Args:
        sources: Segments of Ogg/Opus, in any order. What is of them before session time 0, after
            `duration_ms` or beyond their own duration is left out.
        stems_dir: What their paths are relative to.
        output: Only this user may read it, and the folders above it that are made.
        duration_ms: How long the file is, with silence where nobody is heard.

    Raises:
        RecordingError: It cannot be written, or there is nothing to be: the duration is 0.
    """
    if duration_ms <= 0:
        raise RecordingError(
            f"recording: {output} cannot be made of {duration_ms} ms; it takes a session of 1 ms or more"
        )
    segments = [_Segment(source, stems_dir, duration_ms * SAMPLES_PER_MS) for source in sources]
    with _explained(output, duration_ms), _becoming(output) as part:
        with closing(_mixed(segments, duration_ms * SAMPLES_PER_MS)) as blocks:
            _encode(blocks, part)
        size_bytes = part.stat().st_size
    missing = [segment for segment in segments if segment.is_missing]
    if missing:
        log.warning(
            "recording.segments_missing",
            missing=len(missing),
            segments=len(segments),
            first=missing[0].source.path,
            reason=missing[0].reason,
        )
    return Rendered(duration_ms, size_bytes, len(missing))


class _Segment:
    """One segment, of which not more is read than is due. It is open from its first sample to its last.

    Args:
        source: Where it is, in the folder and in session time.
        stems_dir: The folder.
        until: The sample of session time at which the mix ends.
    """

    def __init__(self, source: Source, stems_dir: Path, until: int) -> None:
        self.source = source
        self.begin = source.start_ms * SAMPLES_PER_MS
        self.end = min(self.begin + source.duration_ms * SAMPLES_PER_MS, until)
        self.is_over = False
        self.reason = "it is shorter than it was"
        self._path = stems_dir / source.path
        self._heard = 0
        self._pieces = self._read()
        self._rest: tuple[int, _Mix] | None = None

    @property
    def is_missing(self) -> bool:
        """Whether something of it was not there, once it was its turn."""
        short = self.end - max(self.begin, 0) - self._heard
        return short > MAX_SHORT_MS * SAMPLES_PER_MS

    def add_to(self, mix: _Mix, mix_begin: int) -> None:
        """Add what is of it in a part of the session, which goes on where the one before it ended."""
        mix_end = mix_begin + len(mix)
        while (piece := self._rest or next(self._pieces, None)) is not None:
            at, samples = self._rest = piece
            if at >= mix_end:
                return
            due = samples[: mix_end - at]
            mix[at - mix_begin : at - mix_begin + len(due)] += due
            self._heard += len(due)
            self._rest = (mix_end, samples[len(due) :]) if len(due) < len(samples) else None
        self.is_over = True

    def close(self) -> None:
        """Read no more of it."""
        self._pieces.close()

    def _read(self) -> Generator[tuple[int, _Mix], None, None]:
        """Its samples, each piece with its place in the session, until it ends or cannot be read."""
        try:
            for at, samples in _decoded(self._path):
                begin = self.begin + at
                piece = samples[max(-begin, 0) : max(self.end - begin, 0)]
                if len(piece):
                    yield max(begin, 0), piece
                if begin + len(samples) >= self.end:
                    return
        # A file without a track of audio is an IndexError.
        except (av.FFmpegError, OSError, ValueError, IndexError) as error:
            if isinstance(error, OSError) and error.errno in EXHAUSTED:
                raise RecordingError(
                    f"recording: {self._path} cannot be opened: {os.strerror(error.errno)}; it takes one"
                    " open file for each who is heard at once: raise the limit (ulimit -n) and try again"
                ) from None
            self.reason = str(error)


def _decoded(path: Path) -> Iterator[tuple[int, _Mix]]:
    """The audio of a segment, each frame with the number of its first sample.

    Frames say themselves where they are: where a page is damaged, what follows it is in its place still.
    """
    # With the name of its protocol, since a colon in a path would be taken for the end of one.
    with av.open(f"file:{path}", format="ogg") as container:
        next_at = 0
        for frame in container.decode(audio=0):
            at = next_at if frame.pts is None else frame.pts
            if frame.sample_rate != RATE_HZ or at < next_at:
                raise ValueError("it is not a segment of Ogg/Opus")
            next_at = at + frame.samples
            samples: _Mix = frame.to_ndarray().mean(axis=0, dtype=np.float32)
            yield at, samples


def _mixed(segments: Iterable[_Segment], total: int) -> Generator[_Mix, None, None]:
    """The sum of segments from session time 0, in blocks, as many samples as are asked for."""
    waiting = deque(sorted(segments, key=lambda segment: segment.begin))
    heard: list[_Segment] = []
    block = BLOCK_MS * SAMPLES_PER_MS
    try:
        for begin in range(0, total, block):
            mix = np.zeros(min(block, total - begin), np.float32)
            while waiting and waiting[0].begin < begin + len(mix):
                heard.append(waiting.popleft())
            for segment in heard:
                segment.add_to(mix, begin)
            heard = [segment for segment in heard if not segment.is_over]
            yield _limited(mix)
    finally:
        for segment in heard:
            segment.close()


def _limited(mix: _Mix) -> _Mix:
    """Bend what is above the knee so that it stays below full scale."""
    over = np.abs(mix) - KNEE
    (loud,) = np.nonzero(over > 0)
    bent = KNEE + (1 - KNEE) * np.tanh(over[loud] / (1 - KNEE))
    mix[loud] = np.copysign(bent, mix[loud])
    return mix


def _encode(blocks: Iterable[_Mix], path: Path) -> None:
    with av.open(f"file:{path}", "w", format="mp4", options=MP4_OPTIONS) as container:
        stream = container.add_stream("aac", rate=RATE_HZ, layout="mono", options=AAC_OPTIONS)
        stream.bit_rate = BITRATE
        at = 0
        for block in blocks:
            frame = av.AudioFrame.from_ndarray(block.reshape(1, -1), format="fltp", layout="mono")
            frame.sample_rate = RATE_HZ
            frame.pts = at
            at += len(block)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@contextmanager
def _becoming(output: Path) -> Iterator[Path]:
    """An empty file beside the output, which takes its place, synced, unless an error is raised.

    What killed processes left beside it is removed. Others that make the same output are not disturbed.
    """
    for folder in (*reversed(output.parent.parents), output.parent):
        folder.mkdir(mode=0o700, exist_ok=True)  # all at once they would be open to others, but for the last
    prefix, suffix = f".{output.name}.", ".part"
    for left in output.parent.iterdir():
        if left.name.startswith(prefix) and left.name.endswith(suffix):
            _remove_unless_in_use(left)
    descriptor, name = tempfile.mkstemp(suffix, prefix, output.parent)
    part = Path(name)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield part
        os.fsync(descriptor)
        part.replace(output)
        sync_folder(output.parent)
    finally:
        os.close(descriptor)
        part.unlink(missing_ok=True)


def _remove_unless_in_use(part: Path) -> None:
    """Remove a file whose maker is gone: the kernel has released its lock, however it ended."""
    with suppress(FileNotFoundError, BlockingIOError):
        descriptor = os.open(part, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            part.unlink()
        finally:
            os.close(descriptor)


@contextmanager
def _explained(output: Path, duration_ms: int) -> Iterator[None]:
    try:
        yield
    except (OSError, av.FFmpegError, ValueError) as error:
        is_full = isinstance(error, OSError) and error.errno in DISK_FULL
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        if is_full:
            needed_mb = -(-duration_ms * BITRATE // 8_000_000_000)
            reason += f"; it takes about {needed_mb} MB: free as much on its disk and try again"
        raise RecordingError(f"recording: {output} cannot be written: {reason}") from None
