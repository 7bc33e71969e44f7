"""The figures, one command each: `python -m benchmarks.NAME`, all of them: `python -m benchmarks`."""
