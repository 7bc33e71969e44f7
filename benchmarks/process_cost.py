"""What a process costs while something runs: processor time and memory."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil  # type: ignore[import-untyped]

__all__ = ["CostMeter", "ProcessCost"]


@dataclass(frozen=True, slots=True)
class ProcessCost:
    """Processor seconds, user and system, spent in `wall_s` seconds; and the most memory that was seen.

    `pss_bytes` is the proportional set size: a page that several processes share counts in parts.
    """

    cpu_s: float
    wall_s: float
    pss_bytes: int


class CostMeter:
    """Measures a process from now on. Linux only.

    Raises:
        ProcessLookupError: There is no such process; `sample` raises it when the process has ended.
    """

    def __init__(self, pid: int) -> None:
        with _lookup(pid):
            self._process = psutil.Process(pid)
            self._cpu_began_s = self._cpu_s()
        self._began_s = time.monotonic()
        self._pss_bytes = 0

    def sample(self) -> ProcessCost:
        """The cost so far. Memory is looked at only here: call it now and then. Takes some milliseconds."""
        with _lookup(self._process.pid):
            self._pss_bytes = max(self._pss_bytes, self._process.memory_full_info().pss)
            cpu_s = self._cpu_s() - self._cpu_began_s
        return ProcessCost(cpu_s, time.monotonic() - self._began_s, self._pss_bytes)

    def _cpu_s(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)


@contextmanager
def _lookup(pid: int) -> Iterator[None]:
    try:
        yield
    except psutil.NoSuchProcess:
        raise ProcessLookupError(f"process {pid} has ended and cannot be measured") from None
