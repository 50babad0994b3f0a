"""The sampling loop: reads a meter at absolute deadlines until a process ends, and counts what it missed."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from cpost.model import Sample, Sampling
from cpost.units import NS_PER_MS, NS_PER_S

DETAIL_BEAT_NS = 100 * NS_PER_MS
_DETAILS_PER_REST = 5  # how many looks at the memory's parts come with one at all the rest
_BATCH_NS = 200 * NS_PER_MS
_PR_SET_TIMERSLACK = 29
_REAL_TIME_PRIORITY = 1
_REAL_TIME_MOST = 4  # a quarter of a core

Look = TypeVar("Look")


class Clock(Protocol):
    """Time as the sampling loop sees it."""

    def now_ns(self) -> int:
        """Monotonic time."""

    def wait_until(self, deadline_ns: int) -> bool:
        """Sleep to the deadline; True, and at once, when the watched process has ended."""


class Readable(Protocol[Look]):
    """What the sampling loop reads: a `Meter`, or a script in a test."""

    def look(self, *, detailed: bool, complete: bool = False) -> Look | None:
        """Fetch the counters as they stand: the fast ones, in detail also the memory's parts, or all; None where they
        are gone."""

    def sample(self, t_ns: int, look: Look, read_ns: int) -> Sample | None:
        """Make a sample of what was fetched; None where it makes no sense."""


class ProcessClock:
    """The real clock, beside one process; `stop` ends the watch early.

    Args:
        pid: the process whose end `wait_until` tells.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._watched = [self._wake_read]
        self._pidfd: int | None = None
        try:
            self._pidfd = os.pidfd_open(pid)
            self._watched.append(self._pidfd)
        except ProcessLookupError:
            self.stop()
        except OSError:
            pass  # Linux before 5.3: look for the process at every tick

    now_ns = staticmethod(time.monotonic_ns)

    def wait_until(self, deadline_ns: int) -> bool:
        """See `Clock`."""
        timeout_s = max(0, deadline_ns - time.monotonic_ns()) / NS_PER_S
        ready, _, _ = select.select(self._watched, (), (), timeout_s)
        return bool(ready) or (self._pidfd is None and not Path(f"/proc/{self._pid}").exists())

    def stop(self) -> None:
        """Make `wait_until` return True from now on."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"x")

    def close(self) -> None:
        """Give back the descriptors."""
        for descriptor in (self._wake_read, self._wake_write, self._pidfd):
            if descriptor is not None:
                os.close(descriptor)


class _Batch(Generic[Look]):
    """Looks that were not handed over yet; numbers are made of them then, many at a time."""

    def __init__(self, meter: Readable[Look], start_ns: int, emit: Callable[[list[Sample]], None]) -> None:
        self._meter = meter
        self._start_ns = start_ns
        self._emit = emit
        self._looks: list[tuple[int, Look, int]] = []
        self._due_ns = start_ns
        self._previous_ns = start_ns
        self.samples = self.longest_gap_ns = 0

    def add(self, at_ns: int, look: Look | None, read_ns: int) -> None:
        """Keep a look, and hand the batch over when it is due."""
        if look is not None:
            self._looks.append((at_ns, look, read_ns))
        if at_ns >= self._due_ns and self._looks:
            self.hand_over()
            self._due_ns = at_ns + _BATCH_NS

    def hand_over(self) -> None:
        """Make samples of the looks and emit them."""
        meter, start_ns = self._meter, self._start_ns
        made = [meter.sample(at_ns - start_ns, look, read_ns) for at_ns, look, read_ns in self._looks]
        self._looks.clear()
        samples = [sample for sample in made if sample is not None]
        for sample in samples:
            at_ns = start_ns + sample.t_ns
            self.longest_gap_ns = max(self.longest_gap_ns, at_ns - self._previous_ns)
            self._previous_ns = at_ns
        self.samples += len(samples)
        if samples:
            self._emit(samples)


def sample_until_end(
    meter: Readable[Look], clock: Clock, period_ns: int, start_ns: int, emit: Callable[[list[Sample]], None]
) -> Sampling:
    """Read `meter` every period until the clock says that the process ended; one more sample is taken then.

    Args:
        start_ns: where t_ns = 0 is; the first sample is taken at once, the k-th is due at start_ns + k periods.
        emit: gets the samples in batches of some 200 ms, with absolute counters and relative times.
    """
    batch = _Batch(meter, start_ns, emit)
    detail_due_ns = start_ns
    tick = missed = details = 0
    ended = False
    while not ended:
        now_ns = clock.now_ns()
        detailed = now_ns >= detail_due_ns
        look = meter.look(detailed=detailed, complete=detailed and details % _DETAILS_PER_REST == 0)
        batch.add(now_ns, look, clock.now_ns() - now_ns)
        if detailed:
            details += 1
            detail_due_ns += DETAIL_BEAT_NS * (1 + (now_ns - detail_due_ns) // DETAIL_BEAT_NS)
        due = (clock.now_ns() - start_ns) // period_ns + 1
        missed += due - tick - 1
        tick = due
        ended = clock.wait_until(start_ns + tick * period_ns)
    now_ns = clock.now_ns()
    look = meter.look(detailed=True, complete=True)
    batch.add(now_ns, look, clock.now_ns() - now_ns)
    batch.hand_over()
    return Sampling(period_ns, batch.samples, tick, missed, batch.longest_gap_ns)


def sharpen() -> None:
    """Let this thread's sleeps end on time, also where every core is busy, which is what operators make of a host.

    The default timer slack of 50 us is there to save power (prctl(2)). A thread that is scheduled in real time
    (sched(7)) need not wait for its turn; that is for root, and bounded by the little that the loop does.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(_REAL_TIME_PRIORITY))


class RealTimeShare:
    """Takes real time from a thread that needs much of a core, as it may on a slow host or at a very short period."""

    def __init__(self) -> None:
        self._at_ns, self._cpu_ns = time.monotonic_ns(), time.thread_time_ns()

    def check(self) -> None:
        """Look at the share since the last look, in the thread concerned."""
        at_ns, cpu_ns = time.monotonic_ns(), time.thread_time_ns()
        if (cpu_ns - self._cpu_ns) * _REAL_TIME_MOST > at_ns - self._at_ns > _BATCH_NS // 2:
            with contextlib.suppress(OSError):
                os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        self._at_ns, self._cpu_ns = at_ns, cpu_ns
