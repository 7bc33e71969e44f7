"""Each speaker's audio on disk, as segments, and what becomes of it when the disk does not take it.

Synchronous: everything here is called from one thread, in order.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import structlog

from agent.recording.placing import Placer, Stretch
from agent.recording.segment import FaultCode, SegmentError, SegmentWriter
from agent.values import Samples
from persistence.records import Stem

__all__ = ["Fault", "Stems", "safe_name"]

log = structlog.get_logger(__name__)

Fault = Literal["disk_low"] | FaultCode

RETRY_S = 5.0  # until a disk that failed is tried again
TRIAL_S = 1.0  # a segment's first page is written after 0.4 s: only then has the disk taken anything
# What has to be free, beyond what must stay so, before it is tried again: some seconds of many speakers.
ROOM_TO_GO_ON_BYTES = 1 << 20

LONGEST_NAME = 100  # with a number and an ending it is far below the 255 bytes that file systems take


@dataclass(slots=True)
class _Segment:
    """A file that is being written."""

    stretch: Stretch
    stem: Stem
    writer: SegmentWriter
    given_ms: float = 0.0


@dataclass(slots=True)
class _Track:
    """A track that was ever opened; `number` is that of its newest segment."""

    id: str
    identity: str
    sample_rate_hz: int
    placer: Placer
    number: int
    is_open: bool = True
    segment: _Segment | None = None


class Stems:
    """Writes the tracks of one epoch of a session below a folder.

    Where the disk fails, or has less left than it must, all segments are closed and audio is dropped, until
    a later try succeeds: then each track goes on in a new segment. `fault` says what is wrong.

    Args:
        folder: Of all stems; it is made, with all that lies below, for this user only.
        space: The space, session and epoch name the folder of these stems.
        session: See `space`.
        epoch: See `space`.
        bitrate_kbps: Of Opus.
        min_free_bytes: What the disk must have left.
    """

    def __init__(
        self, folder: Path, *, space: str, session: str, epoch: int, bitrate_kbps: int, min_free_bytes: int
    ) -> None:
        self._folder = folder
        self._place = Path(safe_name(space), safe_name(session), str(epoch))
        self._bitrate_kbps = bitrate_kbps
        self._min_free_bytes = min_free_bytes
        self._tracks: dict[str, _Track] = {}
        self._changed: list[Stem] = []
        self._retry_s: float | None = None  # None while it writes
        self._trial_until_s = 0.0
        self._now_s = 0.0
        self.fault: Fault | None = None
        self.segments = 0
        self.written_ms = 0.0
        self.dropped_ms = 0.0

    def open(self, track_id: str, identity: str, sample_rate_hz: int) -> None:
        """Expect audio of a track from now on, at 48000, 24000, 16000, 12000 or 8000 Hz."""
        self.close(track_id)
        before = self._tracks.get(track_id)
        placer = Placer(sample_rate_hz, before.placer.end_ms if before else 0)
        number = before.number if before else 0
        self._tracks[track_id] = _Track(track_id, identity, sample_rate_hz, placer, number)

    def push(self, track_id: str, samples: Samples, received_ms: int) -> None:
        """Write samples of an open track, the last of which arrived at `received_ms`."""
        track = self._tracks.get(track_id)
        if track is not None and track.is_open and self._retry_s is None:
            self._write(track, track.placer.push(samples, received_ms))
        elif track is not None:
            self.dropped_ms += _duration_ms(track, samples)

    def close(self, track_id: str) -> None:
        """Expect no more audio of a track: it is muted or gone."""
        track = self._tracks.get(track_id)
        if track is not None and track.is_open:
            self._write(track, track.placer.flush())
            self._end(track)
            track.is_open = False

    def close_all(self) -> None:
        """Finish every segment. Nothing can be written until a track is opened again."""
        for track_id in list(self._tracks):
            self.close(track_id)

    def check(self, now_s: float) -> None:
        """See how the disk is: stop where it has too little left, try again where it failed a while ago.

        Args:
            now_s: Of any clock that does not go back.
        """
        self._now_s = now_s
        try:
            _make_folder(self._folder)
            disk = os.statvfs(self._folder)
        except OSError:
            self._fail("disk_error")
            return
        free_bytes = disk.f_bavail * disk.f_frsize
        if self._retry_s is None:
            if not free_bytes:
                self._fail("disk_full")  # what is written may fit into a block that it has already
            elif free_bytes < self._min_free_bytes:
                self._fail("disk_low")
            elif now_s >= self._trial_until_s:
                self.fault = None
        elif free_bytes >= self._min_free_bytes + ROOM_TO_GO_ON_BYTES and now_s >= self._retry_s:
            self._retry_s = None
            self._trial_until_s = now_s + TRIAL_S

    def take_changed(self) -> Sequence[Stem]:
        """The segments that were opened or closed since this was asked last, in order."""
        changed, self._changed = self._changed, []
        return changed

    def _write(self, track: _Track, placed: Sequence[tuple[Stretch, Samples]]) -> None:
        for stretch, samples in placed:
            try:
                if track.segment is None or track.segment.stretch is not stretch:
                    self._end(track)
                    self._begin(track, stretch)
                if track.segment is not None:
                    track.segment.writer.write(samples)
            except SegmentError as error:
                self._give_up(track, error)
            duration_ms = _duration_ms(track, samples)
            if track.segment is None:
                self.dropped_ms += duration_ms
            else:
                track.segment.given_ms += duration_ms
                self.written_ms += duration_ms

    def _begin(self, track: _Track, stretch: Stretch) -> None:
        if not track.is_open or self._retry_s is not None:
            return  # what came before has just failed
        track.number += 1
        path = self._place / f"{safe_name(track.id)}-{track.number:04}.ogg"
        try:
            _make_folder(self._folder / self._place)
        except OSError as error:
            raise SegmentError("disk_error", f"recording: {self._place} cannot be made: {error}") from None
        writer = SegmentWriter(self._folder / path, track.sample_rate_hz, self._bitrate_kbps)
        stem = Stem(
            track=track.id,
            number=track.number,
            identity=track.identity,
            path=path.as_posix(),
            sample_rate_hz=track.sample_rate_hz,
            start_ms=stretch.start_ms,
        )
        track.segment = _Segment(stretch, stem, writer)
        self.segments += 1
        self._changed.append(stem)

    def _end(self, track: _Track, ended_by: str = "") -> None:
        """Finish the segment that is open, if one is."""
        segment, track.segment = track.segment, None
        if segment is None:
            return
        try:
            duration_ms, size_bytes = segment.writer.close()
        except SegmentError as error:
            ended_by = error.code
            duration_ms, size_bytes = segment.writer.close()
            self._give_up(track, error)
        lost_ms = segment.given_ms - duration_ms
        self.written_ms -= lost_ms
        self.dropped_ms += lost_ms
        figures = {
            "start_ms": segment.stretch.start_ms,
            "duration_ms": duration_ms,
            "size_bytes": size_bytes,
            "ended_by": ended_by,
        }
        self._changed.append(segment.stem.model_copy(update=figures))

    def _give_up(self, track: _Track, error: SegmentError) -> None:
        if error.code == "encoder_error":
            log.error("recording.track_failed", track=track.id, error=str(error))
            track.is_open = False
            self._end(track, error.code)
        else:
            self._fail(error.code)

    def _fail(self, fault: Fault) -> None:
        """Stop writing, of whichever track: they share the disk."""
        if self._retry_s is not None:
            return
        log.warning("recording.failed", reason=fault)
        self.fault = fault
        self._retry_s = self._now_s + RETRY_S
        for track in self._tracks.values():
            self.dropped_ms += sum(_duration_ms(track, samples) for _, samples in track.placer.flush())
            self._end(track, fault)


def safe_name(name: str) -> str:
    """A name from outside as one that every file system takes; different names stay different."""
    quoted = quote(name, safe="", errors="surrogatepass").replace(".", "%2E").replace("~", "%7E")
    if 0 < len(quoted) <= LONGEST_NAME:
        return quoted
    end = "~" + hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return quoted[: LONGEST_NAME - len(end)] + end


def _make_folder(folder: Path) -> None:
    """Make a folder and what is missing above it. `Path.mkdir` would let others see into the latter."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def _duration_ms(track: _Track, samples: Samples) -> float:
    return 1000 * len(samples) / track.sample_rate_hz
