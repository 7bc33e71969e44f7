"""A process that records is killed: what it wrote plays."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import av
import pytest

from agent.recording.segment import measure

CHILD = Path(__file__).with_name("recording_child.py")
ROOT = Path(__file__).parents[3]
MAX_LOST_MS = 1_000


@pytest.fixture
def child(tmp_path) -> Iterator[subprocess.Popen]:
    command = [sys.executable, str(CHILD), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=None) as process:
        yield process
        process.kill()


@pytest.mark.parametrize("after_ms", [1_500, 1_650, 1_900, 2_150, 2_600])
def test_stem_of_a_killed_process_plays_to_within_a_second_of_the_kill(child, tmp_path, after_ms):
    path, pushed_ms = None, 0
    for line in child.stdout:
        kind, value = line.split()
        if kind == "stem":
            path = tmp_path / value
        else:
            pushed_ms = int(value)
        if pushed_ms >= after_ms:
            break
    child.kill()
    rest = [int(line.split()[1]) for line in child.stdout if line.startswith("pushed")]
    child.wait()

    assert path is not None
    with av.open(str(path)) as container:
        played_ms = sum(frame.samples for frame in container.decode(audio=0)) // 48
    assert measure(path) == played_ms
    assert played_ms >= max([pushed_ms, *rest]) - MAX_LOST_MS
