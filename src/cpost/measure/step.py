"""One step: create its container, start it, sample it to its end, say how it ended, always remove it."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

from cpost.errors import EngineError, EngineLost, HostError
from cpost.interrupts import Interrupts
from cpost.measure.cgroup import Group, Hierarchies
from cpost.measure.cleanup import remove_group
from cpost.measure.engine import ContainerState, Engine, Owned
from cpost.measure.gpu_watch import GpuWatch
from cpost.measure.monitor import MonitorWatch
from cpost.measure.outcome import NOT_STARTED_CODES, STOP_GRACE_NS, StepObserver, iso_time, sampling_warnings, verdict
from cpost.measure.owner import LABEL_OPERATOR
from cpost.measure.sampler import Sampler, SamplingProcess
from cpost.measure.stats import STATS_WARNING, StatsSampler
from cpost.model import Outcome, Sample, Step, StepResult, Totals
from cpost.units import NS_PER_S

LOG_TAIL_LINES = 20
_LOOK_S = 0.1
_WAIT_S = 5
_RECONNECT_S = 30.0
_STOPPED_CODES = (137, 143)  # how an engine that goes down ends a container: SIGTERM, then SIGKILL


@dataclass(frozen=True, slots=True)
class Bench:
    """What all steps of a run share.

    Attributes:
        hierarchies: where the host's counters are.
        group_name: what the run's control groups are called; None where cpost may not make any.
        labels: on everything that is made.
        elsewhere: why the containers' counters cannot be read on this host; None where they may be.
        monitored: the engine keeps a monitor beside each container: Podman.
    """

    engine: Engine
    sampling: SamplingProcess
    hierarchies: Hierarchies
    run_id: str
    labels: Mapping[str, str]
    network: str
    group_name: str | None
    cgroup_driver: str
    monitored: bool
    period_ns: int
    interrupts: Interrupts
    gpus: GpuWatch
    elsewhere: str | None = None


def measure_step(step: Step, bench: Bench, observer: StepObserver, *, earlier: int = 0) -> StepResult:
    """Run one step to its end and measure it.

    Args:
        earlier: how often this run has run the step before; what is made for it is named accordingly, so that nothing
            that could not be removed at once gets into its way.

    Returns:
        How it ended, with totals; a failed operator is a result, not an error.

    Raises:
        HostError: the engine or the host failed, not the operator.
    """
    place = f"{step.index}r{earlier}" if earlier else str(step.index)
    name = f"cpost_{bench.run_id}_{place}_{step.operator}"
    labels = {**bench.labels, LABEL_OPERATOR: step.operator}
    with _parent_group(step, place, bench) as (parent, aside, parent_name):
        container = bench.engine.create(step, name, labels, bench.network, parent_name)
        try:
            with bench.gpus.watching(lambda pid: bench.hierarchies.contains(pid, container)):
                return _Measurement(step, bench, observer, container, parent, aside).result()
        finally:
            with contextlib.suppress(EngineError):  # what stays is removed with the run, by its label
                bench.engine.remove(Owned("container", container, name, labels))


@contextmanager
def _parent_group(step: Step, place: str, bench: Bench) -> Iterator[tuple[Group | None, Group | None, str | None]]:
    """A control group of our own above the container's, one where the engine's monitor is put aside, and the first
    one's name for the engine; None where there is no such thing."""
    if bench.group_name is None:
        yield None, None, None
        return
    name = f"{bench.group_name}_{place}"
    if bench.cgroup_driver == "systemd":
        name += ".slice"
    group = bench.hierarchies.group(name)
    aside = bench.hierarchies.group(f"{bench.group_name}_{place}_monitor") if bench.monitored else None
    try:
        group.make()
        if aside is not None:
            aside.make()
        group.limit_memory(step.memory_limit_bytes)
    except OSError as error:
        raise HostError(
            f"cannot make control group {name}: {error.strerror}", "`cpost doctor` checks the host"
        ) from error
    try:
        yield group, aside, name if name.endswith(".slice") else f"/{name}"
    finally:
        remove_group(name, group)
        if aside is not None:
            aside.remove()


@dataclass(frozen=True, slots=True)
class _Ended:
    exit_code: int


@dataclass(frozen=True, slots=True)
class _Lost:
    error: EngineError


class _Measurement:
    """One container from start to end."""

    def __init__(
        self,
        step: Step,
        bench: Bench,
        observer: StepObserver,
        container: str,
        parent: Group | None,
        aside: Group | None,
    ) -> None:
        self._step = step
        self._bench = bench
        self._observer = observer
        self._container = container
        self._parent = parent
        self._aside = aside
        self._events: queue.SimpleQueue[list[Sample] | _Ended | _Lost] = queue.SimpleQueue()
        self._sampler: Sampler | StatsSampler
        if bench.elsewhere is None:
            self._sampler = Sampler(bench.sampling, bench.hierarchies, parent, bench.period_ns, self._events.put)
        else:
            self._sampler = StatsSampler(bench.engine, container, self._events.put)
        self._stopped_as: Outcome | None = None
        self._kill_at_ns: int | None = None
        self._started_ns = 0
        self._warnings: list[str] = []

    def result(self) -> StepResult:
        self._sampler.start()
        try:
            failure = self._start()
            if failure is not None:
                return failure
            end = self._until_end()
            self._sampler.stop()
            self._drain()
            return self._conclude(end)
        finally:
            self._sampler.stop()

    # ------------------------------------------------------------ start

    def _start(self) -> StepResult | None:
        """Start the container; returns a result where the operator's command could not be started."""
        try:
            self._start_container()
        except EngineLost:
            raise
        except EngineError as error:
            state = self._bench.engine.inspect(self._container)
            reason = NOT_STARTED_CODES.get(state.exit_code)
            if reason is None:
                raise
            return self._outcome(Outcome.FAILED, f"{reason}: {error.reason}", state.exit_code)
        self._started_ns = time.monotonic_ns()
        self._observer.started(self._container)
        threading.Thread(target=self._wait, name="cpost-wait", daemon=True).start()
        sampler = self._sampler
        if isinstance(sampler, Sampler) and not (sampler.exact and sampler.started.wait(_LOOK_S)):
            self._attach(sampler)
        return None

    def _start_container(self) -> None:
        if self._parent is None or self._aside is None:
            self._bench.engine.start(self._container)
            return
        with MonitorWatch(self._parent, self._aside) as watch:
            self._bench.engine.start(self._container)
        if watch.counted:
            self._warnings.append("Podman's monitor is counted with the operator: CPU and memory may be too high")

    def _attach(self, sampler: Sampler) -> None:
        """Help the sampler where it cannot find the container from above."""
        state = self._bench.engine.inspect(self._container)
        if state.pid == 0:
            return  # it has ended
        inside = self._bench.hierarchies.contains(state.pid, self._container)
        if inside is None:
            again = self._bench.engine.inspect(self._container)
            inside = None if again.pid != state.pid else False
        if inside:
            sampler.attach(state.pid)
        elif inside is False:
            self._ask_engine()

    def _ask_engine(self) -> None:
        """Go on with the engine's statistics: its process ids are not this host's, and no GPU of this host is its."""
        self._bench.gpus.disregard("the operators run on another machine")
        self._sampler.stop()
        self._sampler = StatsSampler(self._bench.engine, self._container, self._events.put)
        self._sampler.start()
        self._warnings.append(f"the engine's containers do not run among this host's processes: {STATS_WARNING}")

    # ------------------------------------------------------------ until the end

    def _wait(self) -> None:
        """In a thread: wait for the container's end, over a lost connection if the engine comes back."""
        while True:
            try:
                code = self._bench.engine.wait(self._container, _WAIT_S)
            except EngineError as error:
                if not self._reconnected(error):
                    return
                continue
            if code is not None:
                self._events.put(_Ended(code))
                return

    def _reconnected(self, error: EngineError) -> bool:
        """Whether the container still runs under an engine that came back; else reports the end."""
        deadline = time.monotonic() + _RECONNECT_S
        while time.monotonic() < deadline:
            if self._bench.engine.answers():
                try:
                    state = self._bench.engine.inspect(self._container)
                except EngineError:
                    break
                if state.status not in ("exited", "dead"):
                    self._warnings.append("the connection to the engine was lost for a while")
                    return True
                if state.exit_code not in _STOPPED_CODES:
                    self._events.put(_Ended(state.exit_code))
                    return False
                break
            time.sleep(0.5)
        self._events.put(_Lost(error))
        return False

    def _until_end(self) -> _Ended | _Lost:
        while True:
            try:
                event = self._events.get(timeout=_LOOK_S)
            except queue.Empty:
                event = []
            if not isinstance(event, list):
                return event
            self._take(event)
            self._observer.progress(time.monotonic_ns() - self._started_ns)
            try:
                self._check_silence()
                self._stop_if_due()
            except EngineError as error:
                return _Lost(error)

    def _check_silence(self) -> None:
        """The kernel says that the operator has ended; an engine that does not say so for long hangs."""
        ended_ns = self._sampler.life.ended_ns
        if ended_ns is not None and time.monotonic_ns() - ended_ns > _RECONNECT_S * NS_PER_S:
            raise EngineLost(
                "engine: the operator has ended, and the engine does not tell how",
                "see whether the engine still runs (docker version)",
            )

    def _stop_if_due(self) -> None:
        """Ask the operator to end when a signal came or its time is up, and kill it when its grace is over."""
        now_ns = time.monotonic_ns()
        interrupts = self._bench.interrupts
        timeout_ns = self._step.timeout_ns
        if self._stopped_as is None:
            if interrupts.signum is not None:
                self._stopped_as = Outcome.INTERRUPTED
            elif timeout_ns is not None and now_ns - self._started_ns > timeout_ns:
                self._stopped_as = Outcome.TIMED_OUT
            if self._stopped_as is not None:
                self._kill_at_ns = now_ns + STOP_GRACE_NS
                self._bench.engine.signal(self._container, "SIGTERM")
        if self._kill_at_ns is not None and (now_ns > self._kill_at_ns or interrupts.count > 1):
            self._kill_at_ns = None
            self._bench.engine.signal(self._container, "SIGKILL")

    def _take(self, samples: list[Sample]) -> None:
        if samples:
            self._observer.samples(self._sampler.life.started_at_ns, samples)

    def _drain(self) -> None:
        while not self._events.empty():
            event = self._events.get()
            if isinstance(event, list):
                self._take(event)

    # ------------------------------------------------------------ the end

    def _conclude(self, end: _Ended | _Lost) -> StepResult:
        totals = self._sampler.totals()
        if isinstance(end, _Lost):
            outcome = self._stopped_as or Outcome.ENGINE_LOST
            return self._outcome(outcome, end.error.message, None, totals)
        state, lost = self._final_state(end.exit_code)
        totals = _with_engine_flag(totals, state)
        outcome, cause = verdict(self._step, end.exit_code, state, totals, stopped_as=self._stopped_as)
        if lost and self._stopped_as is None:
            outcome, cause = Outcome.ENGINE_LOST, "the engine stopped and took the container with it"
        if state is None and outcome in (Outcome.COMPLETED, Outcome.FAILED):  # Podman tells exit code 0 of such a one
            outcome, cause = Outcome.FAILED, "the container was removed by somebody else"
        return self._outcome(outcome, cause, end.exit_code, totals)

    def _final_state(self, exit_code: int) -> tuple[ContainerState | None, bool]:
        """The engine's own view (None = container gone), and whether a kill was the engine's going down."""
        try:
            state: ContainerState | None = self._bench.engine.inspect(self._container)
        except EngineError as error:
            return None, error.status != 404
        return state, exit_code in _STOPPED_CODES and not self._bench.engine.answers()

    def _outcome(self, outcome: Outcome, cause: str, exit_code: int | None, totals: Totals | None = None) -> StepResult:
        life = self._sampler.life
        if self._sampler.error:
            self._warnings.append(f"sampling broke off: {self._sampler.error}")
        exact = self._sampler.exact or isinstance(self._sampler, StatsSampler)
        if self._bench.group_name is not None and not exact and life.started_ns:
            self._warnings.append("the engine did not use cpost's control group: first and last moments are missing")
        if life.sampling is not None:
            self._warnings += sampling_warnings(life.sampling)
        started_ns, ended_ns = life.started_ns, life.ended_ns
        return StepResult(
            operator=self._step.operator,
            outcome=outcome,
            cause=cause,
            exit_code=exit_code,
            container_id=self._container,
            started_at=iso_time(life.started_at_ns) if started_ns else "",
            wall_ns=ended_ns - started_ns if started_ns and ended_ns else None,
            totals=totals,
            sampling=life.sampling,
            log_tail=self._log_tail() if outcome is not Outcome.COMPLETED else (),
            warnings=(*self._warnings, *(_empty_outputs(self._step) if outcome is Outcome.COMPLETED else ())),
        )

    def _log_tail(self) -> tuple[str, ...]:
        try:
            return self._bench.engine.log_tail(self._container, LOG_TAIL_LINES)
        except EngineError:
            return ()


def _with_engine_flag(totals: Totals | None, state: ContainerState | None) -> Totals | None:
    """The engine's memory-kill flag stands for one kill at least, where the kernel's counter was not seen in time."""
    if totals is None or state is None or not state.oom_killed:
        return totals
    return replace(totals, oom_kills=max(1, totals.oom_kills or 0))


def _empty_outputs(step: Step) -> tuple[str, ...]:
    empty = []
    for mount in step.mounts:
        try:
            if mount.source in step.output_folders and not any(os.scandir(mount.source)):
                empty.append(f"nothing was written to its output {mount.target}")
        except OSError:
            continue
    return tuple(empty)
