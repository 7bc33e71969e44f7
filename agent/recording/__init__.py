"""Recording: each speaker's audio on the worker's disk, while the session runs."""
