"""`python -m benchmarks.chaos`."""

from agent.cli.ending import end_process
from benchmarks.chaos import main

if __name__ == "__main__":
    end_process(main())
