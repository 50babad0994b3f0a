"""A command without a control group: its processes are followed from parent to child, and summed up.

CPU: each living process tells its own CPU time to the nanosecond (the clock of another process, clock_getcpuclockid(3))
and that of the children that it has waited for to the timer tick (proc(5)); whoever waits for a dead process is told
all of it to the microsecond (wait4(2)). cpost makes itself the one that orphans fall to (PR_SET_CHILD_SUBREAPER,
prctl(2)), so at the end nothing is missing but children that their parent chose never to wait for.

Memory: resident sets, summed up. Pages that processes share count once for each, and file cache that is not mapped and
kernel memory do not count at all, so this is an estimate, and its peak one between samples.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

import psutil

from cpost.errors import HostError
from cpost.measure.life import Life
from cpost.measure.loop import ProcessClock, sample_until_end
from cpost.model import PROCESS_TREE, Detail, Sample, Totals
from cpost.units import NS_PER_MS, NS_PER_US, US_PER_S

_PR_SET_CHILD_SUBREAPER = 36
_GRAIN_NS = 10 * NS_PER_MS  # of the counters; a reading that takes less is of one moment
_SEARCH_SHARE = 10  # looking for new processes takes a tenth of the time at most
_KILL_TIMEOUT_S = 5.0
_GONE = (psutil.NoSuchProcess, psutil.AccessDenied)


def adopt_orphans() -> None:
    """Let orphaned descendants of this process fall to it, not to init.

    Raises:
        HostError: the kernel does not.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise HostError("processes cannot be followed on this kernel", "run cpost on Linux 3.4 or newer")


def process_cpu_us(pid: int) -> int:
    """CPU time of a process, its children not among it; OSError where it is gone."""
    return time.clock_gettime_ns((~pid << 3) | 2) // NS_PER_US  # MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED) of Linux


class TreeMeter:
    """Sums up a process and all that descends from it; what fell to this process as an orphan is among it.

    Args:
        pid: the command's main process.
        others: children of this process that are none of the command's.
    """

    def __init__(self, pid: int, others: Iterable[int]) -> None:
        self._pid = pid
        self._self = psutil.Process()
        self._others = frozenset(others)
        self._members: list[psutil.Process] = []
        self._search_at_ns = 0
        self._highest_cpu_us = 0
        self.reaped_us = 0
        self.memory_peak_bytes: int | None = None
        self.pids_peak: int | None = None

    def look(self, *, detailed: bool, complete: bool = False) -> Sample | None:
        """What the processes have used since they began; None where none is left.

        Its time counts from the call: looking for new processes comes first, and takes a while.
        """
        called_ns = time.monotonic_ns()
        self._search()
        searched_ns = time.monotonic_ns()
        cpu_us, user_s, system_s, resident, private, threads = self.reaped_us, 0.0, 0.0, 0, 0, 0
        for process in self._members:
            try:
                # Parents come first: a child that is waited for meanwhile is missing once rather than there twice.
                times, memory = process.cpu_times(), process.memory_info()
                cpu_us += process_cpu_us(process.pid)
                threads += process.num_threads() if detailed or complete else 0
            except (*_GONE, OSError):
                continue
            cpu_us += round((times.children_user + times.children_system) * US_PER_S)
            user_s, system_s = (
                user_s + times.user + times.children_user,
                system_s + times.system + times.children_system,
            )
            resident, private = resident + memory.rss, private + max(0, memory.rss - memory.shared)
        if not resident:
            return None
        self._highest_cpu_us = max(self._highest_cpu_us, cpu_us)
        self.memory_peak_bytes = max(self.memory_peak_bytes or 0, resident)
        self.pids_peak = max(self.pids_peak or 0, threads) or None
        user_us, system_us = round(user_s * US_PER_S), round(system_s * US_PER_S)
        detail = Detail(anon_bytes=private) if detailed else None
        pids = threads if detailed else None
        read_ns = time.monotonic_ns() - searched_ns
        return Sample(
            searched_ns - called_ns,
            self._highest_cpu_us,
            user_us,
            system_us,
            None,
            None,
            resident,
            None,
            detail,
            pids,
            read_ns if read_ns > _GRAIN_NS else 0,
        )

    def sample(self, t_ns: int, look: Sample, read_ns: int) -> Sample:  # noqa: ARG002 - the look knows better
        """The sample of a look that was asked for at `t_ns`."""
        return look._replace(t_ns=t_ns + look.t_ns)

    def _search(self) -> None:
        """Look for new processes, as often as that costs little."""
        began_ns = time.monotonic_ns()
        if began_ns < self._search_at_ns:
            return
        self._members = self._descendants()
        self._reap()
        ended_ns = time.monotonic_ns()
        self._search_at_ns = ended_ns + _SEARCH_SHARE * (ended_ns - began_ns)

    def _descendants(self) -> list[psutil.Process]:
        """All that belongs to the command, parents before their children."""
        return [each for each in self._self.children(recursive=True) if each.pid not in self._others]

    def _reap(self) -> None:
        """Wait for what fell to this process as an orphan and has ended, and count what it used."""
        for process in self._members:
            try:
                if process.pid == self._pid or process.ppid() != os.getpid():
                    continue
                pid, _, usage = os.wait4(process.pid, os.WNOHANG)
            except (*_GONE, ChildProcessError):
                continue
            self.reaped_us += _cpu_us(usage) if pid else 0

    def kill_rest(self) -> int:
        """Kill and reap whatever is left of the command once its main process was waited for; returns how many."""
        deadline, killed = time.monotonic() + _KILL_TIMEOUT_S, set[int]()
        while (members := self._descendants()) and time.monotonic() < deadline:
            self._members = members
            for process in members:
                try:
                    if process.status() != psutil.STATUS_ZOMBIE:
                        process.send_signal(signal.SIGKILL)
                        killed.add(process.pid)
                except _GONE:
                    continue
            self._reap()
            time.sleep(0.005)
        return len(killed)


class TreeSampler:
    """Samples a command by its process tree; what `Sampler` is for a control group.

    Args:
        pid: the main process, which waits to become the command.
        others: children of this process that are none of the command's.
        emit: gets batches of samples, from the sampling thread; counters count from `prepare`.
    """

    def __init__(self, pid: int, others: Iterable[int], period_ns: int, emit: Callable[[list[Sample]], None]) -> None:
        self._pid = pid
        self._meter = TreeMeter(pid, others)
        self._period_ns = period_ns
        self._emit = emit
        self._clock = ProcessClock(pid)
        self._thread = threading.Thread(target=self._run, name="cpost-tree", daemon=True)
        self._base_us = 0
        # A process forked from this one begins with this one's memory, and its mark of the peak remembers that.
        self._marked_above_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        self.life = Life()
        self.error = ""

    def prepare(self) -> None:
        """Take the baseline; call just before the command's first instruction."""
        self._base_us = process_cpu_us(self._pid)
        self.life.started_ns = time.monotonic_ns()
        self.life.started_at_ns = time.time_ns()

    def start(self) -> None:
        """Begin to sample; call when the process has become the command, whose memory is its own only then."""
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Stop sampling if it still goes on, and wait for the thread."""
        self._clock.stop()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def close(self) -> None:
        """Give back descriptors."""
        self._clock.close()

    def kill_rest(self) -> int:
        """Kill whatever the command left behind; returns how many processes that were."""
        return self._meter.kill_rest()

    def totals(self, usage: resource.struct_rusage) -> Totals:
        """The totals of the command's life; call when nothing of it is left.

        Args:
            usage: what the kernel said when the main process was waited for: its own, and that of all that it waited
                for itself.
        """
        last = self.life.last
        cpu_us = max(_cpu_us(usage) + self._meter.reaped_us - self._base_us, last.cpu_us if last else 0)
        largest = usage.ru_maxrss * 1024
        peaks = (self._meter.memory_peak_bytes, largest if largest > self._marked_above_bytes else None)
        return Totals(
            source=PROCESS_TREE,
            cpu_us=max(0, cpu_us),
            memory_peak_bytes=max((peak for peak in peaks if peak is not None), default=None),
            pids_peak=self._meter.pids_peak,
            startup_cpu_us=self._base_us,
        )

    def _run(self) -> None:
        assert self.life.started_ns is not None
        cpu_before_ns = time.thread_time_ns()
        try:
            sampling = sample_until_end(
                self._meter, self._clock, self._period_ns, self.life.started_ns, self._hand_over
            )
        except Exception as error:  # a thread has nobody to raise to: the command's measurement reports it
            self.error = repr(error)
            return
        self.life.ended_ns = time.monotonic_ns()
        cost_us = (time.thread_time_ns() - cpu_before_ns) // NS_PER_US
        self.life.sampling = replace(sampling, sampler_cpu_us=cost_us)

    def _hand_over(self, batch: list[Sample]) -> None:
        samples = [sample._replace(cpu_us=max(0, sample.cpu_us - self._base_us)) for sample in batch]
        self.life.last = samples[-1]
        self._emit(samples)


def _cpu_us(usage: resource.struct_rusage) -> int:
    return round((usage.ru_utime + usage.ru_stime) * US_PER_S)
