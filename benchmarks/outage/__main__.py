"""`python -m benchmarks.outage`."""

from agent.cli.ending import end_process
from benchmarks.outage import main

if __name__ == "__main__":
    end_process(main())
