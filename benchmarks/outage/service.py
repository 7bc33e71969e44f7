"""The stand-in as a process: `python -m benchmarks.outage.service --port PORT [--wrong …] [--listen-at …]`.

It hears which windows it was sent, and goes wrong at SIGUSR1 until SIGUSR2.
"""

import argparse
import asyncio
import json
import time
from signal import SIGUSR1, SIGUSR2

from tests.support.deepgram import Behaviour, DeepgramServer, by_level


async def _serve(port: int, wrong: Behaviour, listen_at_s: float) -> None:
    loop = asyncio.get_running_loop()
    wanted: asyncio.Queue[Behaviour] = asyncio.Queue()
    loop.add_signal_handler(SIGUSR1, wanted.put_nowait, wrong)
    loop.add_signal_handler(SIGUSR2, wanted.put_nowait, Behaviour())
    await asyncio.sleep(listen_at_s - time.monotonic())
    async with DeepgramServer(by_level, port=port) as server:
        while True:
            await server.behave(await wanted.get())


def _main() -> None:
    options = argparse.ArgumentParser(description="A stand-in for Deepgram that breaks at a signal.")
    options.add_argument("--port", type=int, required=True)
    options.add_argument("--wrong", type=json.loads, default={}, help="what is wrong, as a JSON object")
    options.add_argument("--listen-at", type=float, default=0.0, metavar="S", help="by the monotonic clock")
    asked = options.parse_args()
    asyncio.run(_serve(asked.port, Behaviour(**asked.wrong), asked.listen_at))


if __name__ == "__main__":
    _main()
