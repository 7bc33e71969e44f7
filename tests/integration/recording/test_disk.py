"""A disk that is full or low, on a real file system, with a real thread."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from agent.recording.recorder import Recorder, RecordingState
from agent.recording.segment import SegmentError, SegmentWriter, measure
from persistence.records import Stem
from tests.support.gathering import until
from tests.support.tmpfs import tmpfs

RATE_HZ = 48_000
BLOCK_MS = 50
DISK_BYTES = 4_000_000
LITTLE_BYTES = 8_192  # two seconds of a track


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    with tmpfs(folder, size_bytes=DISK_BYTES) as mounted:
        yield mounted


def noise(duration_ms: int) -> np.ndarray:
    samples = np.random.default_rng(0).standard_normal(RATE_HZ * duration_ms // 1000)
    return (3_000 * samples).astype(np.int16)


def fill(disk: Path, *, but_bytes: int) -> Path:
    """Take all the room of a disk but a little."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4_096)):
                pass
        except OSError:
            file.truncate(file.tell() - but_bytes)
    return ballast


def played_ms(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(frame.samples for frame in container.decode(audio=0)) // 48


def test_segment_on_a_full_disk_keeps_what_was_written_and_can_be_closed(disk):
    writer = SegmentWriter(disk / "a.ogg", RATE_HZ, 32)
    fill(disk, but_bytes=LITTLE_BYTES)
    samples = noise(60_000)
    with pytest.raises(SegmentError) as full:
        writer.write(samples)
    assert full.value.code == "disk_full"
    duration_ms, size_bytes = writer.close()
    assert duration_ms >= 500
    assert duration_ms == measure(disk / "a.ogg") == played_ms(disk / "a.ogg")
    assert size_bytes == (disk / "a.ogg").stat().st_size


def test_segment_cannot_be_begun_on_a_full_disk_and_leaves_no_file(disk):
    fill(disk, but_bytes=0)
    with pytest.raises(SegmentError) as full:
        SegmentWriter(disk / "a.ogg", RATE_HZ, 32)
    assert full.value.code == "disk_full"
    assert [path.name for path in disk.iterdir()] == ["ballast"]


class Speaking:
    """A recorder, and somebody who speaks all the time."""

    def __init__(self, folder: Path, *, min_free_mb: int) -> None:
        self.stems: list[Stem] = []
        self.recorder = Recorder(
            folder,
            space="default",
            session="s",
            epoch=1,
            bitrate_kbps=32,
            min_free_mb=min_free_mb,
            on_stem=self.stems.append,
        )
        self.recorder.open("TR_a", "nora", RATE_HZ)
        self.pushed_ms = 0
        self._task = asyncio.create_task(self._speak())

    async def becomes(self, state: RecordingState) -> None:
        await until(lambda: self.recorder.state == state, what=f"recording is {state}")

    async def end(self) -> list[Stem]:
        """Stop, and give the records of the segments that were closed."""
        self._task.cancel()
        await self.recorder.aclose()
        return [stem for stem in self.stems if stem.duration_ms is not None]

    async def _speak(self) -> None:
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        samples = noise(BLOCK_MS)
        while True:
            await asyncio.sleep(started_s + (self.pushed_ms + BLOCK_MS) / 1000 - loop.time())
            self.pushed_ms += BLOCK_MS
            self.recorder.push("TR_a", samples, round((loop.time() - started_s) * 1000))


async def test_disk_that_fills_up_fails_the_recording_until_there_is_room_again(disk):
    speaking = Speaking(disk, min_free_mb=0)
    await until(lambda: speaking.stems, what="a segment")
    ballast = fill(disk, but_bytes=LITTLE_BYTES)
    await speaking.becomes(("failed", "disk_full"))
    ballast.unlink()
    await speaking.becomes(("on", None))
    await asyncio.sleep(0.5)
    first, *_, last = await speaking.end()
    assert (first.ended_by, last.ended_by) == ("disk_full", "")
    assert first.start_ms + first.duration_ms < last.start_ms
    for stem in (first, last):
        assert played_ms(disk / stem.path) == stem.duration_ms > 0
    recorder = speaking.recorder
    assert recorder.dropped_ms > 0
    assert recorder.written_ms + recorder.dropped_ms <= speaking.pushed_ms


async def test_segments_are_finished_before_the_disk_has_less_left_than_it_must(disk):
    speaking = Speaking(disk, min_free_mb=1)
    await until(lambda: speaking.stems, what="a segment")
    fill(disk, but_bytes=900_000)
    await speaking.becomes(("failed", "disk_low"))
    (stem,) = await speaking.end()
    assert stem.ended_by == "disk_low"
    assert played_ms(disk / stem.path) == stem.duration_ms
