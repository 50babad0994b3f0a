"""One command without a container: start it, sample it to its end, say how it ended, leave nothing of it.

It runs in a control group of its own where cpost may make one, which tells everything exactly; else its process tree is
followed. Standard input, output and error, folder, terminal and environment are the command's own.
"""

from __future__ import annotations

import contextlib
import os
import queue
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from cpost.errors import HostError
from cpost.interrupts import Interrupts
from cpost.measure import marked, tree
from cpost.measure.cgroup import COMMAND_GROUP, Group, Hierarchies
from cpost.measure.cleanup import remove_group
from cpost.measure.gpu_watch import GpuWatch
from cpost.measure.launcher import Launcher
from cpost.measure.life import Life
from cpost.measure.outcome import STOP_GRACE_NS, StepObserver, iso_time, sampling_warnings, verdict
from cpost.measure.sampler import Sampler, SamplingProcess
from cpost.model import Outcome, Sample, Step, StepResult, Totals

_LOOK_S = 0.1
_WATCHING_S = 10.0


@dataclass(frozen=True, slots=True)
class CommandBench:
    """What a command is measured with.

    Attributes:
        launcher: waits to become the command.
        hierarchies: where the host's counters are; None where there are none.
        name: what the run's control group is called, and the mark of its processes.
        others: children of this process that are none of the command's.
    """

    launcher: Launcher
    hierarchies: Hierarchies | None
    name: str
    others: tuple[int, ...]
    period_ns: int
    interrupts: Interrupts
    gpus: GpuWatch


def prepare_launch(command: Sequence[str], name: str) -> Launcher:
    """Fork the process that will become the command and carry the run's name; call before any thread is started."""
    return Launcher(command, {**os.environ, marked.VARIABLE: name})


def measure_command(step: Step, bench: CommandBench, begin: Callable[[], StepObserver]) -> StepResult:
    """Run a command to its end and measure it.

    Args:
        begin: called once the command has started; returns who looks on. What it raises ends the command.

    Returns:
        How it ended, with totals; a failed command is a result, not an error.

    Raises:
        NotStarted: it could not be started.
        HostError: it cannot be measured here, or not under the limit that was asked for.
    """
    watching = bench.gpus.watching(step.operator, lambda pid: marked.carries(pid, bench.name))
    with watching, _watcher(step, bench) as watcher:
        return _Measurement(step, bench, begin, watcher).result()


# ---------------------------------------------------------------- two ways to watch


class _Watcher(Protocol):
    """How a command is watched: by its control group, or by its process tree."""

    warnings: tuple[str, ...]
    events: queue.SimpleQueue[list[Sample] | _Ended]

    @property
    def life(self) -> Life:
        """What was seen so far."""

    @property
    def error(self) -> str:
        """Why sampling broke off; empty where it did not."""

    def prepare(self) -> None:
        """The command is about to start."""

    def started(self) -> None:
        """It has started."""

    def finish(self, usage: resource.struct_rusage) -> tuple[Totals | None, int]:
        """It has ended: its totals, and how many processes it left behind. None of them is left now."""

    def close(self) -> None:
        """Give back what is open, and kill what is left."""


class _GroupWatcher:
    """By a control group of the command's own, below the one that is read."""

    warnings: tuple[str, ...] = ()

    def __init__(self, hierarchies: Hierarchies, parent: Group, period_ns: int) -> None:
        self.events: queue.SimpleQueue[list[Sample] | _Ended] = queue.SimpleQueue()
        self._group = parent.child(COMMAND_GROUP)
        self._process = SamplingProcess()
        self._sampler = Sampler(self._process, hierarchies, parent, period_ns, self.events.put)

    @property
    def life(self) -> Life:
        return self._sampler.life

    @property
    def error(self) -> str:
        return self._sampler.error

    def prepare(self) -> None:
        self._sampler.start()
        self._sampler.watching.wait(_WATCHING_S)

    def started(self) -> None:
        """The sampler sees it by itself."""

    def finish(self, usage: resource.struct_rusage) -> tuple[Totals | None, int]:  # noqa: ARG002 - the group knows better
        self._sampler.started.wait(_LOOK_S)  # a command that ended at once may not have been seen yet
        self._sampler.stop()
        return self._sampler.totals(), self._group.kill()

    def close(self) -> None:
        self._sampler.stop()
        self._process.close()
        self._group.kill()


class _TreeWatcher:
    """By the process tree."""

    def __init__(self, bench: CommandBench, reason: str) -> None:
        tree.adopt_orphans()
        self.events: queue.SimpleQueue[list[Sample] | _Ended] = queue.SimpleQueue()
        self._sampler = tree.TreeSampler(bench.launcher.pid, bench.others, bench.period_ns, self.events.put)
        self.warnings: tuple[str, ...] = (
            f"measured by its process tree ({reason}): memory is an estimate, and its peak a sampled one",
        )

    @property
    def life(self) -> Life:
        return self._sampler.life

    @property
    def error(self) -> str:
        return self._sampler.error

    def prepare(self) -> None:
        self._sampler.prepare()

    def started(self) -> None:
        self._sampler.start()

    def finish(self, usage: resource.struct_rusage) -> tuple[Totals | None, int]:
        self._sampler.stop()
        left = self._sampler.kill_rest()
        return (None if self.error else self._sampler.totals(usage)), left

    def close(self) -> None:
        self._sampler.stop()
        self._sampler.kill_rest()
        self._sampler.close()


@contextmanager
def _watcher(step: Step, bench: CommandBench) -> Iterator[_Watcher]:
    """The better of the two ways that this host allows; whatever is left of the command is killed at the end."""
    parent = bench.hierarchies.group(f"{bench.name}_0") if bench.hierarchies else None
    try:
        reason = _move_in(parent, bench.launcher.pid, step.memory_limit_bytes)
        if bench.hierarchies is not None and parent is not None and reason is None:
            watcher: _Watcher = _GroupWatcher(bench.hierarchies, parent, bench.period_ns)
        elif step.memory_limit_bytes:
            raise HostError(f"no memory limit can be set here: {reason}", "start cpost as root, or without the limit")
        else:
            watcher = _TreeWatcher(bench, reason or "")
        with contextlib.closing(watcher):
            yield watcher
    finally:
        if parent is not None:
            remove_group(f"{bench.name}_0", parent)


def _move_in(parent: Group | None, pid: int, limit_bytes: int) -> str | None:
    """Make the groups and move the waiting launcher into the inner one; returns what keeps it from that."""
    if parent is None:
        return "there are no control groups here"
    inner = parent.child(COMMAND_GROUP)
    try:
        parent.make()
        if not parent.tells_memory():
            return "the root control group hands no memory controller down"
        if limit_bytes:
            parent.cap_memory(limit_bytes)
        inner.make()
        inner.join(pid)
    except OSError as error:
        return f"cpost may not use control groups here: {error.strerror}"
    return None


# ---------------------------------------------------------------- from start to end


@dataclass(frozen=True, slots=True)
class _Ended:
    status: int
    usage: resource.struct_rusage


class _Measurement:
    """One command from start to end."""

    def __init__(self, step: Step, bench: CommandBench, begin: Callable[[], StepObserver], watcher: _Watcher) -> None:
        self._step = step
        self._interrupts = bench.interrupts
        self._begin = begin
        self._observer: StepObserver
        self._launcher = bench.launcher
        self._watcher = watcher
        self._stopped_as: Outcome | None = None
        self._kill_at_ns: int | None = None
        self._grace_count = 0
        self._started_ns = 0
        self._ended_ns = 0

    def result(self) -> StepResult:
        self._watcher.prepare()
        self._launcher.go()
        self._started_ns = time.monotonic_ns()
        self._watcher.started()
        waiting = threading.Thread(target=self._wait, name="cpost-wait", daemon=True)
        waiting.start()
        try:
            self._observer = self._begin()
            self._observer.started(f"process {self._launcher.pid}")
            ended = self._until_end()
        except BaseException:  # what could not be written down, say: the command goes with it
            self._send(signal.SIGKILL)
            waiting.join(_WATCHING_S)
            raise
        totals, left = self._watcher.finish(ended.usage)
        self._drain()
        return self._conclude(ended, totals, left)

    def _wait(self) -> None:
        """In a thread: wait for the main process's end."""
        pid = self._launcher.pid
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        self._ended_ns = time.monotonic_ns()  # from here on its number may become another process's
        _, status, usage = os.wait4(pid, 0)
        self._watcher.events.put(_Ended(status, usage))

    def _until_end(self) -> _Ended:
        while True:
            try:
                event = self._watcher.events.get(timeout=_LOOK_S)
            except queue.Empty:
                event = []
            if isinstance(event, _Ended):
                if self._interrupts.signum is not None:  # it may be over before anybody has looked for a signal
                    self._stopped_as = self._stopped_as or Outcome.INTERRUPTED
                return event
            self._take(event)
            self._observer.progress(time.monotonic_ns() - self._started_ns)
            self._stop_if_due()

    def _stop_if_due(self) -> None:
        """Pass a signal on, or end the command when its time is up; kill it when its grace is over.

        Ctrl-C reaches the command by itself and is the command's to answer. A second one ends it like SIGTERM, a third
        kills it.
        """
        now_ns, count, signum = time.monotonic_ns(), self._interrupts.count, self._interrupts.signum
        timeout_ns = self._step.timeout_ns
        timed_out = timeout_ns is not None and now_ns - self._started_ns > timeout_ns
        if self._kill_at_ns is not None:
            if now_ns > self._kill_at_ns or count > self._grace_count:
                self._send(signal.SIGKILL)
        elif signum == signal.SIGINT and count == 1 and not timed_out:
            if self._stopped_as is None and not _terminal_sends_to_us():
                self._send(signum)
            self._stopped_as = Outcome.INTERRUPTED
        elif signum is not None or timed_out:
            self._stopped_as = self._stopped_as or (Outcome.TIMED_OUT if signum is None else Outcome.INTERRUPTED)
            self._kill_at_ns, self._grace_count = now_ns + STOP_GRACE_NS, max(count, 1)
            self._send(signum if signum == signal.SIGHUP else signal.SIGTERM)

    def _send(self, signum: int) -> None:
        if not self._ended_ns:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self._launcher.pid, signum)

    def _take(self, samples: Iterable[Sample]) -> None:
        if batch := list(samples):
            self._observer.samples(self._watcher.life.started_at_ns, batch)

    def _drain(self) -> None:
        while not self._watcher.events.empty():
            event = self._watcher.events.get()
            if isinstance(event, list):
                self._take(event)

    def _conclude(self, ended: _Ended, totals: Totals | None, left: int) -> StepResult:
        code = os.waitstatus_to_exitcode(ended.status)
        code = code if code >= 0 else 128 - code
        outcome, cause = verdict(self._step, code, None, totals, stopped_as=self._stopped_as)
        warnings = list(self._watcher.warnings)
        if self._watcher.error:
            warnings.append(f"sampling broke off: {self._watcher.error}")
        if left:
            warnings.append(f"{left} process(es) that it had left behind were killed at its end")
        life = self._watcher.life
        if life.sampling is not None:
            warnings += sampling_warnings(life.sampling)
        wall_ns = (life.ended_ns or self._ended_ns) - (life.started_ns or self._started_ns)
        return StepResult(
            operator=self._step.operator,
            outcome=outcome,
            cause=cause,
            exit_code=code,
            started_at=iso_time(life.started_at_ns) if life.started_ns else "",
            wall_ns=wall_ns,
            totals=totals,
            sampling=life.sampling,
            warnings=tuple(warnings),
        )


def _terminal_sends_to_us() -> bool:
    """Whether this process is in the foreground of a terminal, whose Ctrl-C then reaches the command as well."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
