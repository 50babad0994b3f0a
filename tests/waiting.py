"""Waiting for what takes a while, on any host."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

# User-mode Linux (see tests/vm): control groups v2, counters that move in timer ticks, slow page faults and processes.
IN_UML = "User Mode Linux" in Path("/proc/cpuinfo").read_text()
PATIENCE_S = 480.0 if IN_UML else 60.0

T = TypeVar("T")


def until(question: Callable[[], T], what: str = "what a test waits for", within_s: float = PATIENCE_S) -> T:
    """Ask until the answer is true and return it."""
    deadline = time.monotonic() + within_s
    while not (answer := question()):
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        time.sleep(0.02)
    return answer
