"""CPU time of processes as the kernel accounts for it, from outside."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence

import psutil

from cpost.measure.tree import process_cpu_us
from cpost.units import NS_PER_US


def cpu_ns(pid: int) -> int:
    """CPU time of a process so far, to the microsecond; 0 where it is gone."""
    try:
        return process_cpu_us(pid) * NS_PER_US
    except OSError:
        return 0


def tree(pid: int) -> list[int]:
    """A process and all that it started."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    return []


def used_ns(pids: Sequence[int], seconds: float) -> tuple[int, int]:
    """CPU time that processes use in the coming seconds, and the wall time that really passed."""
    begin_ns, before = time.monotonic_ns(), {pid: cpu_ns(pid) for pid in pids}
    time.sleep(seconds)
    used = sum(max(0, cpu_ns(pid) - before[pid]) for pid in pids)
    return used, time.monotonic_ns() - begin_ns
