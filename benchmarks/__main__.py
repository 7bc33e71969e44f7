"""Every benchmark, one after the other: `python -m benchmarks [--meeting DIR …] [--full]`."""

import sys
from collections.abc import Callable, Sequence

from agent.cli.ending import end_process
from benchmarks import analysis, chaos, floor, live, outage, whisper, writes

BENCHMARKS: Sequence[Callable[[Sequence[str]], int]] = (
    live.main,
    whisper.main,
    floor.main,
    outage.main,
    writes.main,
    chaos.main,
    analysis.main,
)


def main() -> int:
    """Run all of them, also after one that failed; the exit code is the worst."""
    return max([run(sys.argv[1:]) for run in BENCHMARKS])


if __name__ == "__main__":
    end_process(main())
