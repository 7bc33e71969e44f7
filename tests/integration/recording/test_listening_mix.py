"""A listening mix is there as a whole or not at all, also where its process is killed or the disk is full."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from agent.errors import RecordingError
from agent.recording.listening_mix import render
from agent.recording.segment import SegmentWriter
from persistence.renderings import Source
from tests.support.tmpfs import tmpfs

CHILD = Path(__file__).with_name("listening_mix_child.py")
ROOT = Path(__file__).parents[3]
RATE_HZ = 48_000
SEGMENT_MS = 2_000
PATIENCE_S = 60
PAGE_BYTES = 4_096


@pytest.fixture
def source(tmp_path: Path) -> Source:
    """Somebody who speaks for two seconds."""
    noise = np.random.default_rng(0).standard_normal(RATE_HZ * SEGMENT_MS // 1000)
    writer = SegmentWriter(tmp_path / "nora.ogg", RATE_HZ, 32)
    writer.write((3_000 * noise).astype(np.int16))
    duration_ms, _ = writer.close()
    return Source("nora", "worker", "nora.ogg", RATE_HZ, 0, duration_ms)


def parts(folder: Path) -> list[Path]:
    return list(folder.glob(".*.part"))


def played_ms(path: Path) -> float:
    with av.open(str(path)) as container:
        return sum(frame.samples for frame in container.decode(audio=0)) / 48


@pytest.fixture
def half_done(tmp_path: Path, source: Source) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has written some of a mix and is not nearly done."""
    output = tmp_path / "renderings" / "listening.m4a"
    command = [sys.executable, str(CHILD), str(tmp_path), source.path, str(output)]
    with subprocess.Popen(command, cwd=ROOT) as process:
        try:
            until_s = time.monotonic() + PATIENCE_S
            while not any(part.stat().st_size for part in parts(output.parent)):
                assert process.poll() is None
                assert time.monotonic() < until_s
                time.sleep(0.02)
            yield process
        finally:
            process.kill()


def test_kill_9_half_way_leaves_no_output_and_the_next_one_clears_up(
    tmp_path: Path, source: Source, half_done: subprocess.Popen[bytes]
) -> None:
    folder = tmp_path / "renderings"
    half_done.kill()
    half_done.wait()
    (left,) = folder.iterdir()
    assert left.suffix == ".part"

    render([source], tmp_path, folder / "listening.m4a", duration_ms=SEGMENT_MS)

    assert [path.name for path in folder.iterdir()] == ["listening.m4a"]
    assert played_ms(folder / "listening.m4a") >= SEGMENT_MS


def test_kill_9_half_way_leaves_the_output_of_before(
    tmp_path: Path, source: Source, half_done: subprocess.Popen[bytes]
) -> None:
    output = tmp_path / "renderings" / "listening.m4a"
    output.write_bytes(b"of before")
    half_done.kill()
    half_done.wait()

    assert output.read_bytes() == b"of before"


def test_another_process_that_makes_the_same_mix_is_not_disturbed(
    tmp_path: Path, source: Source, half_done: subprocess.Popen[bytes]
) -> None:
    folder = tmp_path / "renderings"
    before = parts(folder)
    render([source], tmp_path, folder / "listening.m4a", duration_ms=SEGMENT_MS)

    assert half_done.poll() is None
    assert parts(folder) == before


def test_disk_that_is_full_is_told_and_nothing_half_is_left(tmp_path: Path, source: Source) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    sources = [
        Source("nora", "worker", source.path, RATE_HZ, start_ms, SEGMENT_MS)
        for start_ms in range(0, 10_000, SEGMENT_MS)
    ]
    whole = render(sources, tmp_path, tmp_path / "whole.m4a", duration_ms=10_000)
    needed_pages = -(-whole.size_bytes // PAGE_BYTES)
    outcomes = set()
    # The last ones are taken by what a file is finished with.
    for pages in [2, needed_pages // 2, *range(needed_pages - 3, needed_pages + 3)]:
        with tmpfs(folder, size_bytes=pages * PAGE_BYTES) as disk:
            output = disk / "listening.m4a"
            try:
                render(sources, tmp_path, output, duration_ms=10_000)
            except RecordingError as error:
                outcomes.add(str(error))
                assert list(disk.iterdir()) == []
            else:
                outcomes.add("whole")
                assert output.read_bytes() == (tmp_path / "whole.m4a").read_bytes()
    assert outcomes == {
        "whole",
        f"recording: {folder / 'listening.m4a'} cannot be written: No space left on device;"
        " it takes about 1 MB: free as much on its disk and try again",
    }
