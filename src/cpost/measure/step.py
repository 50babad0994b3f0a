"""One step: its servers started and awaited, its container run to its end, everything removed."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace

from cpost.errors import EngineError
from cpost.measure.artifacts import fetch
from cpost.measure.container import LOOK_S, Bench, End, Lost, MeasuredContainer, measured_container
from cpost.measure.outcome import STOP_GRACE_NS, StepObserver
from cpost.measure.servers import Servers, SharedServers
from cpost.model import Outcome, Step, StepResult
from cpost.units import NS_PER_S

_ALONE_GRACE_NS = 10 * NS_PER_S


@dataclass(frozen=True, slots=True)
class Measured:
    """How a step ended, and the CPU time that its servers used beside it; a failed operator is a result, no error."""

    result: StepResult
    beside_cpu_us: int = 0


def measure_step(
    step: Step, bench: Bench, observer: StepObserver, shared: SharedServers, *, earlier: int = 0
) -> Measured:
    """Run one step to its end and measure it, and so its servers.

    Args:
        shared: the servers that outlive the step.
        earlier: how often this run has run the step before; what is made for it is named accordingly, so that nothing
            that could not be removed at once gets into its way.

    Raises:
        HostError: the engine or the host failed, not the operator.
    """
    place = f"{step.index}r{earlier}" if earlier else str(step.index)
    with Servers.of(step, place, bench, observer, shared) as servers:
        problem = servers.await_ready()
        if problem is not None:
            return Measured(problem)
        # What the operator sets itself stays as it is.
        step = replace(step, env=tuple({**servers.variables(), **dict(step.env)}.items()))
        with measured_container(step, place, bench, servers.network, bench.sampling, observer) as container:
            result = _Measurement(step, bench, observer, container, servers).result()
        result = servers.conclude(result, container.life.started_ns, container.life.ended_ns)
        return Measured(result, servers.cpu_us())


class _Measurement:
    """One operator from start to end."""

    def __init__(
        self, step: Step, bench: Bench, observer: StepObserver, container: MeasuredContainer, servers: Servers
    ) -> None:
        self._step = step
        self._bench = bench
        self._observer = observer
        self._container = container
        self._servers = servers
        self._stopped_as: Outcome | None = None
        self._kill_at_ns: int | None = None

    def result(self) -> StepResult:
        failure = self._container.start()
        if failure is not None:
            return failure
        end = self._until_end()
        self._container.stop_sampling()
        result = self._container.conclude(end, self._stopped_as)
        if result.outcome is Outcome.COMPLETED:
            missing = fetch(self._step.copies, self._container.id, self._bench.engine)
            if missing:
                return replace(result, outcome=Outcome.FAILED, cause=f"it did not write its output {missing[0]}")
            return replace(result, warnings=(*result.warnings, *_empty_outputs(self._step), *self._early()))
        return result

    def _early(self) -> tuple[str, ...]:
        if self._step.duration_ns is None or self._stopped_as is not None:
            return ()
        return ("it ended by itself before its --duration was over: was it meant to stay?",)

    def _until_end(self) -> End:
        while True:
            try:
                end = self._container.look(LOOK_S)
                if end is not None:
                    return end
                self._servers.load_began(self._container.life.started_ns)  # before samples of that time are handed on
                self._servers.look()
                self._observer.progress(time.monotonic_ns() - self._container.started_ns)
                self._stop_if_due()
            except EngineError as error:
                return Lost(error)

    def _stop_if_due(self) -> None:
        """Ask the operator to end when a signal came, its time is up or its server is gone for a while; kill it when
        its grace is over."""
        now_ns = time.monotonic_ns()
        interrupts = self._bench.interrupts
        if self._kill_at_ns is None and self._stopped_as is None:
            self._stopped_as = self._reason_to_stop(now_ns)
            if self._stopped_as is not None:
                self._kill_at_ns = now_ns + STOP_GRACE_NS
                self._container.signal("SIGTERM")
        if self._kill_at_ns is not None and (now_ns > self._kill_at_ns or interrupts.count > 1):
            self._kill_at_ns = None
            self._container.signal("SIGKILL")

    def _reason_to_stop(self, now_ns: int) -> Outcome | None:
        if self._bench.interrupts.signum is not None:
            return Outcome.INTERRUPTED
        timeout_ns = self._step.timeout_ns
        if timeout_ns is not None and now_ns - self._container.started_ns > timeout_ns:
            return Outcome.TIMED_OUT
        duration_ns = self._step.duration_ns
        if duration_ns is not None and now_ns - self._container.started_ns > duration_ns:
            return Outcome.COMPLETED
        gone_ns = self._servers.gone_ns
        return Outcome.FAILED if gone_ns is not None and now_ns - gone_ns > _ALONE_GRACE_NS else None


def _empty_outputs(step: Step) -> tuple[str, ...]:
    empty = []
    for mount in step.mounts:
        try:
            if mount.source in step.output_folders and not any(os.scandir(mount.source)):
                empty.append(f"nothing was written to its output {mount.target}")
        except OSError:
            continue
    return tuple(empty)
