import mmap
import os
import subprocess
import sys

import pytest

pytest.importorskip("psutil", reason="psutil is in the dependency group bench")
if sys.platform != "linux":
    pytest.skip("proportional set size is a thing of Linux", allow_module_level=True)

from benchmarks.process_cost import CostMeter


def test_work_costs_processor_time() -> None:
    meter = CostMeter(os.getpid())
    while meter.sample().cpu_s == 0:
        sum(range(10_000))

    assert meter.sample().wall_s > 0


def test_memory_is_the_most_that_was_seen() -> None:
    meter = CostMeter(os.getpid())
    before = meter.sample().pss_bytes
    # Mapped, not allocated: the allocator may have as much in reserve.
    with mmap.mmap(-1, 50_000_000) as ballast:
        ballast.write(os.urandom(50_000_000))
        with_ballast = meter.sample().pss_bytes

    assert with_ballast - before > 30_000_000
    assert meter.sample().pss_bytes >= with_ballast


def test_a_process_that_has_ended_is_said() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()

    with pytest.raises(ProcessLookupError, match=f"process {ended.pid} has ended"):
        CostMeter(ended.pid)
