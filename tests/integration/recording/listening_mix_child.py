"""Renders a mix until it is killed: its arguments are the folder of a segment, its name, and the output.

The segment goes on for half an hour, by being heard again and again.
"""

import sys
from pathlib import Path

from agent.recording.listening_mix import render
from persistence.renderings import Source

SEGMENT_MS = 2_000
DURATION_MS = 1_800_000

folder, name, output = sys.argv[1:]
sources = [
    Source("nora", "worker", name, 48_000, start_ms, SEGMENT_MS)
    for start_ms in range(0, DURATION_MS, SEGMENT_MS)
]
render(sources, Path(folder), Path(output), duration_ms=DURATION_MS)
