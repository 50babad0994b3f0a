"""A step's life as the sampling process sees it: from the container runtime's work to the main process's end.

First the step's control group is watched as it comes to life. The container runtime works in it before the operator
does; the change of the main process's command name marks the operator's first instruction, and the counters' values
of that instant are the baseline. Then the sampling loop runs until the main process ends. The totals are read last.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from cpost.measure.cgroup import COMMAND_GROUP, Group, Hierarchies
from cpost.measure.counters import CounterFile
from cpost.measure.loop import ProcessClock, RealTimeShare, sample_until_end, sharpen
from cpost.measure.meter import Meter, open_meter
from cpost.model import KERNEL, LAST_SAMPLE, Detail, Sample, Sampling, Totals
from cpost.units import NS_PER_MS, NS_PER_S

_WATCH_PERIOD_S = 0.001
_NOBODY_YET_PERIOD_S = 0.002
_REST = 3
_LATE_NS = 10 * NS_PER_MS
LAUNCHER = "cpost-exec"  # what the process that becomes a bare command is called until then
_RUNTIME_COMMANDS = ("runc", "crun", "youki", "exe", "conmon")
_RUNTIME_PREFIXES = ("runc:[", "containerd-shim")
_GONE = ""
_INIT_COMMANDS = ("docker-init", "catatonit", "podman-init")  # what engines put in front of the operator


@dataclass(slots=True)
class Life:
    """What the sampler saw of a step; times are monotonic, `started_at_ns` is the wall clock's (Unix)."""

    started_ns: int | None = None
    started_at_ns: int = 0
    ended_ns: int | None = None
    baseline: Sample | None = None
    startup_memory_peak_bytes: int | None = None
    last: Sample | None = None
    sampling: Sampling | None = None


class _FirstLook(NamedTuple):
    """A look at the group while it comes to life."""

    at_ns: int
    reading: Sample | None


class LifeWatch:
    """Watches and samples one step from its first instruction to its end, in a thread of its own.

    Args:
        hierarchies: where the counters are.
        parent: the group that cpost made for the step; None where it may not make groups.
        period_ns: time from one sample to the next.
        emit: gets batches of samples, from the sampling thread; counters count from the baseline.
        tell: called from that thread after the first look at what comes to life, when the step has begun, and when it
            has ended; `life` says when.
    """

    def __init__(
        self,
        hierarchies: Hierarchies,
        parent: Group | None,
        period_ns: int,
        emit: Callable[[list[Sample]], None],
        tell: Callable[[], None] = lambda: None,
    ) -> None:
        self._hierarchies = hierarchies
        self._parent = parent
        self._period_ns = period_ns
        self._emit = emit
        self._tell = tell
        self._meter: Meter | None = None
        self._pid: int | None = None
        self._runtime_pid: int | None = None
        self._runtime_command = CounterFile(None)
        self._init_seen = False
        self._bare = False
        self._child: Group | None = None
        self._programs: list[int] = []
        self._before: _FirstLook | None = None
        self._before_init: _FirstLook | None = None
        self._clock: ProcessClock | None = None
        self._stopped = threading.Event()
        self.started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cpost-sampler", daemon=True)
        self.life = Life()
        self.error: Exception | None = None

    def start(self) -> None:
        """Begin to watch for the step's first instruction; call before the container starts."""
        self._thread.start()

    def attach(self, pid: int) -> None:
        """Tell the main process's id as the engine knows it, for where there is no parent group to watch."""
        self._pid = pid

    def stop(self, timeout_s: float = 5.0) -> bool:
        """Stop sampling if it still goes on, and wait for the thread; False where that does not end."""
        self._stopped.set()
        if self._clock is not None:
            self._clock.stop()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def close(self) -> None:
        """Give back files and descriptors."""
        self._runtime_command.close()
        if self._meter is not None:
            self._meter.close()
        if self._clock is not None:
            self._clock.close()

    @property
    def exact(self) -> bool:
        """Whether totals outlive the container: they are read from a group of cpost's own."""
        return self._parent is not None

    def totals(self) -> Totals | None:
        """The totals of the step's life; call after its end. None where no counter was ever read."""
        life, meter = self.life, self._meter
        if meter is None:
            return None
        final = self._rebase(meter.read(0, detailed=True)) if self.exact else life.last
        if final is None:
            return None
        last = (life.last.detail if life.last else None) or Detail()
        detail = final.detail or last
        end_ns = (life.ended_ns or 0) - (life.started_ns or 0)
        return Totals(
            source=KERNEL if self.exact else LAST_SAMPLE,
            cpu_us=final.cpu_us,
            cpu_user_us=final.cpu_user_us,
            cpu_system_us=final.cpu_system_us,
            throttled_us=final.throttled_us,
            throttled_periods=final.throttled_periods,
            memory_peak_bytes=meter.peak_bytes(),
            oom_kills=detail.oom_kills,
            pids_peak=meter.pids_peak(),
            # A v1 group forgets the io of a container that is gone.
            io_read_bytes=_larger(detail.io_read_bytes, last.io_read_bytes),
            io_write_bytes=_larger(detail.io_write_bytes, last.io_write_bytes),
            startup_cpu_us=life.baseline.cpu_us if life.baseline else None,
            startup_memory_peak_bytes=life.startup_memory_peak_bytes,
            tail_ns=0 if self.exact else max(0, end_ns - final.t_ns),
        )

    # ------------------------------------------------------------ in the thread

    def _run(self) -> None:
        sharpen()
        try:
            pid = self._watch()
            if pid is not None:
                self._sample(pid)
        except Exception as error:  # a thread has nobody to raise to: the step reports it
            self.error = error

    def _watch(self) -> int | None:
        """Wait for the operator's first instruction; returns the main process's id, None when stopped before."""
        if self._parent is not None:
            self._meter = open_meter(self._hierarchies, self._parent, own=True)
        while not self._stopped.is_set():
            look = _FirstLook(time.monotonic_ns(), self._meter.read(0, detailed=False) if self._meter else None)
            pid = self._program()
            if pid is not None:
                # The last look at which the runtime was still at work: time and counters of the same instant.
                self._begin(self._before or look if self.exact else _FirstLook(look.at_ns, None))
                return pid
            first, self._before = self._before is None, look
            if first:
                self._tell()
            if not self._init_seen:
                self._before_init = look
            period_s = _WATCH_PERIOD_S if self._runtime_pid else _NOBODY_YET_PERIOD_S
            # On a slow host looking must not take the time of what is looked at.
            self._stopped.wait(max(period_s, _REST * (time.monotonic_ns() - look.at_ns) / NS_PER_S))
        return None

    def _program(self) -> int | None:
        """The main process, once the operator's program runs: found below the parent group, else as `attach` told."""
        command = _name(self._runtime_command.read())
        if command != _GONE and self._is_runtime(command):
            return None  # as at the last look
        for child in self._parent.children() if self._parent else ():
            self._bare = child.name == COMMAND_GROUP
            found = {pid: _command(pid) for pid in sorted(child.pids())}
            main = self._main(found)
            if main is None:
                self._follow(max(found, default=None))
            elif found[main] in _INIT_COMMANDS and self._is_alone(main, found):
                self._runtime_pid, self._init_seen = main, True
            else:
                # Not before: the runtime enters one hierarchy after the other.
                if self._meter is not None:
                    self._meter.attach(child, main)
                self._programs = [pid for pid in found if pid != main or found[pid] not in _INIT_COMMANDS]
                self._child = child
                return main
            return None if found else self._came_and_went()
        if self._runtime_pid is None and self._pid is not None:
            self._fall_back(self._pid)
            return self._pid
        return self._came_and_went()

    def _main(self, found: Mapping[int, str]) -> int | None:
        """The main process once it is no more the runtime's: the one that was the runtime's, or that the engine says;
        else the one with the lowest id, which is the oldest unless ids have begun anew."""
        others = [pid for pid, command in found.items() if not self._is_runtime(command)]
        known = (pid for pid in (self._runtime_pid, self._pid) if pid in others)
        return next(known, next(iter(others), None))

    def _is_alone(self, main: int, found: Mapping[int, str]) -> bool:
        """Whether none but the runtime's is beside a process. Ids do not tell who is younger: they begin anew."""
        return all(pid == main or self._is_runtime(command) for pid, command in found.items())

    def _is_runtime(self, command: str) -> bool:
        """Whether a process of this name is not yet the operator's; one without a name was a helper that is gone."""
        if self._bare:
            return command in (LAUNCHER, _GONE)
        return command in (*_RUNTIME_COMMANDS, _GONE) or command.startswith(_RUNTIME_PREFIXES)

    def _follow(self, runtime_pid: int | None) -> None:
        """Keep the file with the command name of the runtime's process, which is to become the operator's, open."""
        if runtime_pid not in (None, self._runtime_pid):
            self._runtime_pid = runtime_pid
            self._runtime_command.close()
            self._runtime_command = CounterFile(Path(f"/proc/{runtime_pid}/comm"))

    def _came_and_went(self) -> int | None:
        """Nobody left, but somebody was there: between two looks, maybe the first of which saw the init."""
        if self._runtime_pid is not None:
            self._before = self._before_init or self._before
        return self._runtime_pid

    def _fall_back(self, pid: int) -> None:
        """Sample the container's own group: there is none of ours above it, and it goes away with the container."""
        group = self._hierarchies.group_of(pid)
        if group is not None:
            if self._meter is not None:
                self._meter.close()
            self._parent = None
            self._meter = open_meter(self._hierarchies, group, own=False)

    def _begin(self, began: _FirstLook) -> None:
        self.life.started_ns = began.at_ns
        self.life.started_at_ns = time.time_ns() - (time.monotonic_ns() - began.at_ns)
        if self._meter is not None:
            self.life.baseline = self._baseline(self._meter, began)
            if self.exact and not _is_late(began):  # else the mark may be the operator's already: it stays
                self.life.startup_memory_peak_bytes = self._meter.begin()
        self.started.set()
        self._tell()

    def _baseline(self, meter: Meter, began: _FirstLook) -> Sample | None:
        """The counters at the operator's first instruction, which came between the look before and now.

        What the group has used by now less what the operator's own processes have is the runtime's, as long as none of
        them has ended or begun meanwhile, which after a late look is not certain. They are read last, so that
        nothing of theirs is lost.
        """
        before, now = began.reading, meter.read(0, detailed=False)
        ran_us = _run_time_us(self._programs)
        detailed = meter.read(0, detailed=True)
        if now is None or detailed is None or before is None:
            return before or detailed  # found late, without a group of our own: all that was used until now is start-up
        baseline = _completed(before, detailed)
        if ran_us is None or _is_late(began) or not self._programs_are_all():
            return baseline
        return baseline._replace(cpu_us=max(before.cpu_us, now.cpu_us - ran_us))

    def _programs_are_all(self) -> bool:
        """Whether the operator's processes are still those that were found first, the init aside."""
        return self._child is not None and len(set(self._child.pids()) - set(self._programs)) <= 1

    def _sample(self, pid: int) -> None:
        assert self._meter is not None
        assert self.life.started_ns is not None
        self._clock = ProcessClock(pid)
        if self._stopped.is_set():
            self._clock.stop()
        self._share = RealTimeShare()
        cpu_before_ns, clocks_before = time.process_time_ns(), _Clocks()
        sampling = sample_until_end(self._meter, self._clock, self._period_ns, self.life.started_ns, self._hand_over)
        self.life.ended_ns = time.monotonic_ns()
        clocks = _Clocks()
        self.life.sampling = replace(
            sampling,
            sampler_cpu_us=(time.process_time_ns() - cpu_before_ns) // 1000,
            counter_resets=self._meter.resets,
            clock_step_ns=clocks.wall_lead_ns - clocks_before.wall_lead_ns,
            suspended_ns=clocks.suspended_ns - clocks_before.suspended_ns,
        )
        self._tell()

    def _hand_over(self, batch: list[Sample]) -> None:
        self._share.check()
        samples = [rebased for sample in batch if (rebased := self._rebase(sample)) is not None]
        if samples:
            self.life.last = samples[-1]
            self._emit(samples)

    def _rebase(self, sample: Sample | None) -> Sample | None:
        """Count from the baseline: what the container runtime used before is not the operator's."""
        base = self.life.baseline
        if sample is None or base is None:
            return sample
        detail = sample.detail
        if detail is not None and base.detail is not None:
            cumulative = ("io_read_bytes", "io_write_bytes", *(name for name in Detail._fields if "psi" in name))
            changes = {name: _less(getattr(detail, name), getattr(base.detail, name)) for name in cumulative}
            detail = detail._replace(**changes)
        return sample._replace(
            cpu_us=max(0, sample.cpu_us - base.cpu_us),
            cpu_user_us=_less(sample.cpu_user_us, base.cpu_user_us),
            cpu_system_us=_less(sample.cpu_system_us, base.cpu_system_us),
            detail=detail,
        )


class _Clocks:
    """What the clocks say beside the monotonic one, which neither steps nor runs while the machine sleeps."""

    def __init__(self) -> None:
        monotonic_ns = time.monotonic_ns()
        since_boot_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        self.suspended_ns = since_boot_ns - monotonic_ns
        self.wall_lead_ns = time.time_ns() - since_boot_ns


def _completed(baseline: Sample, now: Sample) -> Sample:
    """The baseline with what only a detailed reading tells, which comes a moment later."""
    return baseline._replace(
        detail=now.detail,
        cpu_user_us=now.cpu_user_us if baseline.cpu_user_us is None else baseline.cpu_user_us,
        cpu_system_us=now.cpu_system_us if baseline.cpu_system_us is None else baseline.cpu_system_us,
    )


def _command(pid: int) -> str:
    """A process's command name; none for one that is gone already."""
    try:
        return _name(Path(f"/proc/{pid}/comm").read_bytes())
    except OSError:
        return _GONE


def _name(comm: bytes) -> str:
    return comm.decode(errors="replace").rstrip("\n")


def _is_late(began: _FirstLook) -> bool:
    """Whether so much time has passed since a look that the operator may have done much since."""
    return time.monotonic_ns() - began.at_ns > _LATE_NS


def _run_time_us(pids: list[int]) -> int | None:
    """CPU time of these processes' threads since their fork (the first field of schedstat, proc(5)); None = unknown."""
    total_ns = 0
    try:
        for pid in pids:
            for thread in Path(f"/proc/{pid}/task").iterdir():
                total_ns += int((thread / "schedstat").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return None
    return total_ns // 1000 or None  # zeros: this kernel does not count


def _larger(one: int | None, other: int | None) -> int | None:
    return max((value for value in (one, other) if value is not None), default=None)


def _less(value: int | None, base: int | None) -> int | None:
    return value if value is None or base is None else max(0, value - base)
