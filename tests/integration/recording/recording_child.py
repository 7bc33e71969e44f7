"""Records a track in real time until it is killed: its argument is the folder.

Prints the path of each segment when it is opened, and how much was pushed.
"""

# ruff: noqa: T201  the test reads what is printed

import asyncio
import sys
from pathlib import Path

import numpy as np

from agent.recording.recorder import Recorder

RATE_HZ = 48_000
BLOCK_MS = 50


async def main(folder: Path) -> None:
    recorder = Recorder(
        folder,
        space="default",
        session="s",
        epoch=1,
        bitrate_kbps=32,
        min_free_mb=0,
        on_stem=lambda stem: print("stem", stem.path, flush=True),
    )
    recorder.open("TR_a", "nora", RATE_HZ)
    loop = asyncio.get_running_loop()
    started_s = loop.time()
    noise = np.random.default_rng(0)
    pushed_ms = 0
    while True:
        await asyncio.sleep(started_s + (pushed_ms + BLOCK_MS) / 1000 - loop.time())
        samples = (1_000 * noise.standard_normal(RATE_HZ * BLOCK_MS // 1000)).astype(np.int16)
        pushed_ms += BLOCK_MS
        recorder.push("TR_a", samples, pushed_ms)
        print("pushed", pushed_ms, flush=True)


asyncio.run(main(Path(sys.argv[1])))
