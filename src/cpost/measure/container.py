"""One container under measurement: created, started, sampled to its end or to its stop, always removed.

Operators and their servers are the same here; who waits for what is in `step.py` and `servers.py`.
"""

from __future__ import annotations

import contextlib
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
from cpost.measure.life import Life
from cpost.measure.monitor import MonitorWatch
from cpost.measure.outcome import NOT_STARTED_CODES, SampleObserver, iso_time, sampling_warnings, verdict
from cpost.measure.owner import LABEL_OPERATOR
from cpost.measure.sampler import Sampler, SamplingProcess
from cpost.measure.stats import STATS_WARNING, StatsSampler
from cpost.model import Outcome, Sample, Step, StepResult, Totals
from cpost.units import NS_PER_S

LOG_TAIL_LINES = 20
LOOK_S = 0.1
_WAIT_S = 5
_RECONNECT_S = 30.0
_STOPPED_CODES = (137, 143)  # how an engine that goes down ends a container: SIGTERM, then SIGKILL


@dataclass(frozen=True, slots=True)
class Bench:
    """What all steps of a run share.

    Attributes:
        sampling: samples the operators.
        sampling_beside: one for each server that may run beside an operator.
        server_timeout_ns: for a server to become ready.
        hierarchies: where the host's counters are.
        network: for what needs none of its own.
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
    sampling_beside: tuple[SamplingProcess, ...] = ()
    server_timeout_ns: int = 0

    def name(self, place: str) -> str:
        """What a container or a network for this place in the run is called."""
        return f"cpost_{self.run_id}_{place}"


@dataclass(frozen=True, slots=True)
class Ended:
    """The container's end."""

    exit_code: int


@dataclass(frozen=True, slots=True)
class Lost:
    """The engine cannot tell of the container any more."""

    error: EngineError


End = Ended | Lost


@contextmanager
def measured_container(
    step: Step, place: str, bench: Bench, network: str, sampling: SamplingProcess, observer: SampleObserver
) -> Iterator[MeasuredContainer]:
    """Create a step's container, not started; it is removed at the end of the block, whatever state it is in.

    Args:
        place: where in the run; what is made for it is named accordingly.
        sampling: nothing else uses it within the block.
    """
    labels = {**bench.labels, LABEL_OPERATOR: step.operator}
    name = bench.name(f"{place}_{step.operator}")
    with _parent_group(step, place, bench) as (parent, aside, parent_name):
        container = bench.engine.create(step, name, labels, network, parent_name)
        try:
            with bench.gpus.watching(step.operator, lambda pid: bench.hierarchies.contains(pid, container)):
                measured = MeasuredContainer(step, bench, sampling, observer, container, parent, aside)
                try:
                    yield measured
                finally:
                    measured.stop_sampling()
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


class MeasuredContainer:
    """One container and its sampler; what the sampler sends goes to the observer in the thread that asks for events.

    Args:
        parent: the group above the container's that cpost made; None where it may not.
        aside: where the engine's monitor is put.

    Attributes:
        id: the engine's.
        started_ns: when the engine had started it, on the monotonic clock; 0 = not yet.
    """

    def __init__(
        self,
        step: Step,
        bench: Bench,
        sampling: SamplingProcess,
        observer: SampleObserver,
        container: str,
        parent: Group | None,
        aside: Group | None,
    ) -> None:
        self._step = step
        self._bench = bench
        self._observer = observer
        self._parent = parent
        self._aside = aside
        self._events: queue.SimpleQueue[list[Sample] | End] = queue.SimpleQueue()
        self._sampler: Sampler | StatsSampler
        if bench.elsewhere is None:
            self._sampler = Sampler(sampling, bench.hierarchies, parent, bench.period_ns, self._events.put)
        else:
            self._sampler = StatsSampler(bench.engine, container, self._events.put)
        self._warnings: list[str] = []
        self._end: End | None = None
        self.id = container
        self.started_ns = 0

    @property
    def life(self) -> Life:
        """What the sampler knows of it until now."""
        return self._sampler.life

    # ------------------------------------------------------------ start

    def start(self) -> StepResult | None:
        """Start it; returns a result where its command could not be started.

        Raises:
            HostError: the engine or the host failed, not the command.
        """
        self._sampler.start()
        try:
            self._start_container()
        except EngineLost:
            raise
        except EngineError as error:
            state = self._bench.engine.inspect(self.id)
            reason = NOT_STARTED_CODES.get(state.exit_code)
            if reason is None:
                raise
            return self.result(Outcome.FAILED, f"{reason}: {error.reason}", state.exit_code)
        self.started_ns = time.monotonic_ns()
        self._observer.started(self.id)
        threading.Thread(target=self._wait, name="cpost-wait", daemon=True).start()
        sampler = self._sampler
        if isinstance(sampler, Sampler) and not (sampler.exact and sampler.started.wait(LOOK_S)):
            self._attach(sampler)
        return None

    def _start_container(self) -> None:
        if self._parent is None or self._aside is None:
            self._bench.engine.start(self.id)
            return
        with MonitorWatch(self._parent, self._aside) as watch:
            self._bench.engine.start(self.id)
        if watch.counted:
            self._warnings.append("Podman's monitor is counted with the operator: CPU and memory may be too high")

    def _attach(self, sampler: Sampler) -> None:
        """Help the sampler where it cannot find the container from above."""
        state = self._bench.engine.inspect(self.id)
        if state.pid == 0:
            return  # it has ended
        inside = self._bench.hierarchies.contains(state.pid, self.id)
        if inside is None:
            again = self._bench.engine.inspect(self.id)
            inside = None if again.pid != state.pid else False
        if inside:
            sampler.attach(state.pid)
        elif inside is False:
            self._ask_engine()

    def _ask_engine(self) -> None:
        """Go on with the engine's statistics: its process ids are not this host's, and no GPU of this host is its."""
        self._bench.gpus.disregard("the operators run on another machine")
        self._sampler.stop()
        self._sampler = StatsSampler(self._bench.engine, self.id, self._events.put)
        self._sampler.start()
        self._warnings.append(f"the engine's containers do not run among this host's processes: {STATS_WARNING}")

    # ------------------------------------------------------------ until the end

    def _wait(self) -> None:
        """In a thread: wait for the container's end, over a lost connection if the engine comes back."""
        while True:
            try:
                code = self._bench.engine.wait(self.id, _WAIT_S)
            except EngineError as error:
                if not self._reconnected(error):
                    return
                continue
            if code is not None:
                self._events.put(Ended(code))
                return

    def _reconnected(self, error: EngineError) -> bool:
        """Whether the container still runs under an engine that came back; else reports the end."""
        deadline = time.monotonic() + _RECONNECT_S
        while time.monotonic() < deadline:
            if self._bench.engine.answers():
                try:
                    state = self._bench.engine.inspect(self.id)
                except EngineError:
                    break
                if state.status not in ("exited", "dead"):
                    self._warnings.append("the connection to the engine was lost for a while")
                    return True
                if state.exit_code not in _STOPPED_CODES:
                    self._events.put(Ended(state.exit_code))
                    return False
                break
            time.sleep(0.5)
        self._events.put(Lost(error))
        return False

    def look(self, timeout_s: float = 0) -> End | None:
        """Hand on what has come since the last look, waiting for something at most this long; returns the end once it
        has come.

        Raises:
            EngineLost: the kernel says that it has ended, and the engine does not for long: it hangs.
        """
        while self._end is None:
            try:
                event = self._events.get(timeout=timeout_s) if timeout_s else self._events.get_nowait()
            except queue.Empty:
                break
            timeout_s = 0
            self._take(event)
        if self._end is None:
            self._check_silence()
        return self._end

    def _take(self, event: list[Sample] | End) -> None:
        if not isinstance(event, list):
            self._end = self._end or event
        elif event:
            self._observer.samples(self.life.started_at_ns, event)

    def _check_silence(self) -> None:
        ended_ns = self.life.ended_ns
        if ended_ns is not None and time.monotonic_ns() - ended_ns > _RECONNECT_S * NS_PER_S:
            raise EngineLost(
                "engine: the operator has ended, and the engine does not tell how",
                "see whether the engine still runs (docker version)",
            )

    def signal(self, name: str) -> None:
        """Send a signal to its main process."""
        self._bench.engine.signal(self.id, name)

    # ------------------------------------------------------------ the end

    def stop_sampling(self) -> None:
        """Stop sampling, and hand on what has come; what the container still does is not counted any more."""
        self._sampler.stop()
        while not self._events.empty():
            self._take(self._events.get())

    def conclude(self, end: End | None, stopped_as: Outcome | None = None) -> StepResult:
        """How it ended, with its totals; call after `stop_sampling`.

        Args:
            end: as `look` told; None = it runs, and has done all that it was there for.
            stopped_as: why cpost made it end.
        """
        totals = self._sampler.totals()
        if isinstance(end, Lost):
            return self.result(stopped_as or Outcome.ENGINE_LOST, end.error.message, None, totals)
        if end is None:
            return self.result(Outcome.COMPLETED, "", None, totals)
        state, lost = self._final_state(end.exit_code)
        totals = _with_engine_flag(totals, state)
        outcome, cause = verdict(self._step, end.exit_code, state, totals, stopped_as=stopped_as)
        if lost and stopped_as is None:
            outcome, cause = Outcome.ENGINE_LOST, "the engine stopped and took the container with it"
        if state is None and outcome in (Outcome.COMPLETED, Outcome.FAILED):  # Podman tells exit code 0 of such a one
            outcome, cause = Outcome.FAILED, "the container was removed by somebody else"
        return self.result(outcome, cause, end.exit_code, totals)

    def _final_state(self, exit_code: int) -> tuple[ContainerState | None, bool]:
        """The engine's own view (None = container gone), and whether a kill was the engine's going down."""
        try:
            state: ContainerState | None = self._bench.engine.inspect(self.id)
        except EngineError as error:
            return None, error.status != 404
        return state, exit_code in _STOPPED_CODES and not self._bench.engine.answers()

    def result(self, outcome: Outcome, cause: str, exit_code: int | None, totals: Totals | None = None) -> StepResult:
        """A result with all that is known of the container by now."""
        life = self.life
        warnings = list(self._warnings)
        if self._sampler.error:
            warnings.append(f"sampling broke off: {self._sampler.error}")
        exact = self._sampler.exact or isinstance(self._sampler, StatsSampler)
        if self._bench.group_name is not None and not exact and life.started_ns:
            warnings.append("the engine did not use cpost's control group: first and last moments are missing")
        if life.sampling is not None:
            warnings += sampling_warnings(life.sampling)
        started_ns, ended_ns = life.started_ns, life.ended_ns
        return StepResult(
            operator=self._step.operator,
            outcome=outcome,
            cause=cause,
            exit_code=exit_code,
            image_id=self._step.image,
            container_id=self.id,
            started_at=iso_time(life.started_at_ns) if started_ns else "",
            wall_ns=ended_ns - started_ns if started_ns and ended_ns else None,
            totals=totals,
            sampling=life.sampling,
            log_tail=self._log_tail() if outcome is not Outcome.COMPLETED else (),
            warnings=tuple(warnings),
        )

    def _log_tail(self) -> tuple[str, ...]:
        try:
            return self._bench.engine.log_tail(self.id, LOG_TAIL_LINES)
        except EngineError:
            return ()


def _with_engine_flag(totals: Totals | None, state: ContainerState | None) -> Totals | None:
    """The engine's memory-kill flag stands for one kill at least, where the kernel's counter was not seen in time."""
    if totals is None or state is None or not state.oom_killed:
        return totals
    return replace(totals, oom_kills=max(1, totals.oom_kills or 0))
