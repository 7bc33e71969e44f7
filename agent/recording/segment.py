"""One segment of a stem: an Ogg/Opus file that stays playable however its writer ends."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import av
from av.audio.stream import AudioStream

from agent.errors import RecordingError
from agent.values import Samples

__all__ = ["FaultCode", "SegmentError", "SegmentWriter", "measure"]

FaultCode = Literal["disk_full", "disk_error", "encoder_error"]

# A page goes to the file when the next one is complete: so kill -9 takes 0.36 s at most, for 2 % of the size.
OGG_OPTIONS = {"page_duration": "200000", "flush_packets": "1"}

# Above 6 libopus analyses the signal to choose among its codecs, for four times the processor time and 0.2 dB
# less distance of the log mel spectrum from that of the original.
OPUS_OPTIONS = {"compression_level": "6"}

GRANULES_PER_MS = 48  # Ogg/Opus counts at 48 kHz, whatever went in (RFC 7845)
MAX_PAGE_BYTES = 65_307
PAGE_HEADER_BYTES = 27
PRE_SKIP_AT = 10  # in the OpusHead packet
NO_GRANULE = 2**64 - 1  # on a page in which no packet ends

DISK_FULL = {errno.ENOSPC, errno.EDQUOT}


class SegmentError(RecordingError):
    """A segment cannot be written. `code` says why: the disk is full or fails, or it cannot be encoded."""

    def __init__(self, code: FaultCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class SegmentWriter:
    """Writes one file, which must not be there yet; only this user may read it.

    After an error nothing more can be written, and `close` keeps what is there.

    Args:
        path: In a folder that exists.
        sample_rate_hz: Of what is written: 48000, 24000, 16000, 12000 or 8000.
        bitrate_kbps: Of Opus.

    Raises:
        SegmentError: It cannot be created; then there is no file.
    """

    def __init__(self, path: Path, sample_rate_hz: int, bitrate_kbps: int) -> None:
        self._path = path
        self._sample_rate_hz = sample_rate_hz
        self._samples = 0
        self._is_over = False
        self._has_failed = False
        with self._explained():
            file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        try:
            with self._explained():
                try:
                    os.write(file, b"\0")  # of a header that cannot be written, nothing would tell
                finally:
                    os.close(file)
                # With the name of its protocol, since a colon in a path would be taken for the end of one.
                self._container = av.open(f"file:{path}", "w", format="ogg", options=OGG_OPTIONS)
                self._stream: AudioStream = self._container.add_stream(
                    "libopus", rate=sample_rate_hz, layout="mono", options=OPUS_OPTIONS
                )
                self._stream.bit_rate = bitrate_kbps * 1000
                self._container.start_encoding()
        except SegmentError:
            with suppress(OSError, AttributeError):  # where it was not even opened
                self._container.close()
            with suppress(OSError):
                path.unlink()
            raise

    def write(self, samples: Samples) -> None:
        """Append `int16` of shape `(samples,)`.

        Raises:
            SegmentError: It could not be encoded or written.
        """
        with self._explained():
            frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
            frame.sample_rate = self._sample_rate_hz
            frame.pts = self._samples
            self._encode(frame)
            self._samples += len(samples)

    def close(self) -> tuple[int, int]:
        """Finish the file and give its duration in milliseconds and its size in bytes. Idempotent.

        Raises:
            SegmentError: The rest could not be written. Call it again for the figures of what is there.
        """
        if not self._is_over:
            self._is_over = True
            try:
                if not self._has_failed:
                    with self._explained():
                        self._encode(None)
            finally:
                self._close_container()
        try:
            return measure(self._path), self._path.stat().st_size
        except (RecordingError, OSError):
            return 0, 0  # the disk that it was on is gone

    def _close_container(self) -> None:
        has_failed_before = self._has_failed
        try:
            with self._explained():
                self._container.close()
        except SegmentError:
            if not has_failed_before:
                raise

    def _encode(self, frame: av.AudioFrame | None) -> None:
        for packet in self._stream.encode(frame):
            self._container.mux(packet)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (OSError, av.FFmpegError, ValueError) as error:
            self._has_failed = True
            if not isinstance(error, OSError):
                raise SegmentError(
                    "encoder_error", f"recording: {self._path} cannot be encoded: {error}"
                ) from None
            code: FaultCode = "disk_full" if error.errno in DISK_FULL else "disk_error"
            reason = os.strerror(error.errno or errno.EIO)
            raise SegmentError(code, f"recording: {self._path} cannot be written: {reason}") from None


def measure(path: Path) -> int:
    """The duration in milliseconds of what can be played of a segment, also of one that a crash cut off.

    Raises:
        RecordingError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(MAX_PAGE_BYTES)
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - 2 * MAX_PAGE_BYTES, 0))
            tail = file.read()
    except OSError as error:
        raise RecordingError(f"recording: {path} cannot be read: {error.strerror}") from None
    opus = head.find(b"OpusHead")
    if opus < 0 or len(head) < opus + PRE_SKIP_AT + 2:
        return 0
    pre_skip = int.from_bytes(head[opus + PRE_SKIP_AT : opus + PRE_SKIP_AT + 2], "little")
    return max(_last_granule(tail) - pre_skip, 0) // GRANULES_PER_MS


def _last_granule(tail: bytes) -> int:
    """The granule position of the last page that is whole, 0 where there is none."""
    at = tail.rfind(b"OggS")
    while at >= 0:
        granule = int.from_bytes(tail[at + 6 : at + 14], "little")
        if _is_whole(tail[at : at + MAX_PAGE_BYTES]) and granule != NO_GRANULE:
            return granule
        at = tail.rfind(b"OggS", 0, at)
    return 0


def _is_whole(page: bytes) -> bool:
    """Whether bytes that begin as a page hold all of it."""
    if len(page) < PAGE_HEADER_BYTES:
        return False
    segments = page[26]
    lengths = page[PAGE_HEADER_BYTES : PAGE_HEADER_BYTES + segments]
    return len(lengths) == segments and len(page) >= PAGE_HEADER_BYTES + segments + sum(lengths)
