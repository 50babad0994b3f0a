"""The servers beside an operator: started, awaited, measured to the operator's end, removed.

Each is a container like the operator's, with a meter of its own, on the operator's private network; no port of the host
is used. They are asked over the network whether they are ready, so the engine has to be on this host.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from cpost.errors import EngineError
from cpost.measure.container import Bench, End, Ended, MeasuredContainer, measured_container
from cpost.measure.engine import Owned
from cpost.measure.outcome import ServerObserver, StepObserver
from cpost.measure.sampler import SamplingProcess
from cpost.measure.triton import Counters, ModelState, TritonApi, facts, port_accepts
from cpost.model import Outcome, Sample, Server, ServerKind, Step, StepResult, TritonFacts
from cpost.units import NS_PER_S, format_mb, format_seconds

_POLL_S = 0.02
_REST = 3  # asking takes a quarter of the time at most
_ANSWER_S = 1.0
_SETTLE_NS = 2 * NS_PER_S  # a model that is neither there nor on its way for so long has failed
_DEATH_S = 0.3  # by then the kernel has told of a server whose end made its operator fail
_DEATH_TOLD_S = 5.0
_SHARED_PLACE = "shared"


class RunningServer:
    """One server from its start to its removal.

    Args:
        place: where in the run.
        sampling: nothing else uses it until `close`.

    Attributes:
        host: its address on the network.
        is_ready: whether it was found ready.
        gone_ns: when it was seen to have failed, on the monotonic clock; None where it has not.
        result: once it is not measured any more.
    """

    def __init__(
        self,
        server: Server,
        place: str,
        bench: Bench,
        network: str,
        sampling: SamplingProcess,
        observer: ServerObserver,
    ) -> None:
        self._server = server
        self._bench = bench
        self._observer = observer
        self._last_cpu_us = 0
        self._seen_cpu_us = 0
        self._settling_since_ns: int | None = None
        self._before: Counters | None = None
        self._begun = False
        self._end: End | None = None
        self._failure: StepResult | None = None
        self.is_ready = False
        self.gone_ns: int | None = None
        self.result: StepResult | None = None
        self._removal = contextlib.ExitStack()
        with contextlib.ExitStack() as stack:
            self._container: MeasuredContainer = stack.enter_context(
                measured_container(server.step, place, bench, network, sampling, self)
            )
            failure = self._container.start()
            self.host = bench.engine.ip_address(self._container.id, network)
            self._removal = stack.pop_all()
        if failure is not None:
            self._fail(failure)
        self._triton = TritonApi(self.host, self._http_port())

    @property
    def server(self) -> Server:
        """What was started."""
        return self._server

    def _http_port(self) -> int:
        ports = [each.port for each in self._server.connections if each.port and "GRPC" not in each.name.upper()]
        return ports[0] if ports else 8000

    # ------------------------------------------------------------ what the container tells

    def started(self, container: str) -> None:
        """See `SampleObserver`."""
        self._observer.started(container)

    def samples(self, first_at_ns: int, samples: list[Sample]) -> None:
        """See `SampleObserver`."""
        self._last_cpu_us = samples[-1].cpu_us
        self._observer.samples(first_at_ns, samples)

    def look(self, timeout_s: float = 0) -> None:
        """Hand on what has come, and see whether it still runs."""
        if self.result is None and self._end is None:
            self._end = self._container.look(timeout_s)
            if self._end is not None and self._end != Ended(0):
                self.gone_ns = time.monotonic_ns()

    # ------------------------------------------------------------ ready

    def check_ready(self, deadline_ns: int) -> tuple[Outcome, str] | None:
        """Ask whether it is ready, once: `is_ready` says so; returns what is the matter where it will not be, or where
        it was and has ended."""
        if self.is_ready:
            return self._ended_since()
        if self._failure is None and self._ask():
            self._become_ready()
        elif self._failure is None:
            problem = self._problem(late=time.monotonic_ns() > deadline_ns)
            if problem is not None:
                self._fail(self._container.result(*problem, exit_code=None))
        return (self._failure.outcome, self._failure.cause) if self._failure is not None else None

    def _ended_since(self) -> tuple[Outcome, str] | None:
        self.look()
        if self._end is None:
            return None
        self.finish()
        assert self.result is not None
        return Outcome.FAILED, f"it has ended: {self.result.cause or 'exit code 0'}"

    def _ask(self) -> bool:
        if self._end is not None or self._container.life.started_ns is None:
            return False
        if self._server.kind is ServerKind.TRITON:
            return self._triton.server_ready() is True and all(map(self._triton.model_ready, self._server.models))
        ports = [each.port for each in self._server.connections if each.port] + list(self._server.ports)
        if not all(port_accepts(self.host, port, _ANSWER_S) for port in ports):
            return False
        return not (self._server.speaks_triton and ports) or self._triton.server_ready() is not False

    def _become_ready(self) -> None:
        self.is_ready = True
        self._observer.ready(self._t_ns(time.monotonic_ns()))
        if self._server.speaks_triton:
            self._before = self._triton.counters()

    def _problem(self, *, late: bool) -> tuple[Outcome, str] | None:
        """Why it will not be ready."""
        self.look()
        if self._end is not None:
            self._container.stop_sampling()
            ended = self._container.conclude(self._end)
            return ended.outcome if ended.outcome is not Outcome.COMPLETED else Outcome.FAILED, (
                f"it ended before it was ready: {ended.cause or 'exit code 0'}"
            )
        states = self._model_states()
        unready = self._unready_models(states)
        if late:
            said = f" ({unready})" if unready else " (it does not answer yet)"
            limit = format_seconds(self._bench.server_timeout_ns)
            return Outcome.TIMED_OUT, f"it was not ready within {limit}, its time by --triton_timeout{said}"
        return (Outcome.FAILED, unready) if states is not None and unready and self._is_settled(states) else None

    def _is_settled(self, states: Sequence[ModelState]) -> bool:
        """Whether no model of it is on its way, for some time: a load may be about to begin."""
        now_ns = time.monotonic_ns()
        if self._settling_since_ns is None or any(state.state == "LOADING" for state in states):
            self._settling_since_ns = now_ns
        return now_ns - self._settling_since_ns > _SETTLE_NS

    def _model_states(self) -> Sequence[ModelState] | None:
        """What a Triton says of its models; None where it says nothing."""
        if self._server.kind is not ServerKind.TRITON or self._triton.server_ready() is None:
            return None
        return self._triton.states(self._server.models)

    def _unready_models(self, states: Sequence[ModelState] | None) -> str:
        """The models that are not ready, in words; empty where nothing is known of them."""
        said = (_unready(name, states) for name in self._server.models) if states is not None else ()
        return "; ".join(filter(None, said))

    def _fail(self, failure: StepResult) -> None:
        """It will not be ready: nothing more is expected of it."""
        self._failure = failure
        self._container.stop_sampling()
        self._finish(
            replace(
                self._container.conclude(None),
                outcome=failure.outcome,
                cause=failure.cause,
                exit_code=failure.exit_code,
                log_tail=failure.log_tail,
            )
        )

    # ------------------------------------------------------------ under load

    def load_began(self, at_ns: int) -> None:
        """The operator's first instruction (monotonic)."""
        if not self._begun:
            self._begun = True
            self._observer.load_began(self._t_ns(at_ns))

    def load_ended(self, at_ns: int) -> None:
        """The operator's end (monotonic)."""
        if self._begun:
            self._begun = False
            self._observer.load_ended(self._t_ns(at_ns))

    def _t_ns(self, at_ns: int) -> int:
        return at_ns - (self._container.life.started_ns or at_ns)

    def cpu_us(self) -> int:
        """CPU time that it has used since the last call."""
        total_us = self._last_cpu_us
        if self.result is not None and self.result.totals is not None:
            total_us = self.result.totals.cpu_us + (self.result.totals.startup_cpu_us or 0)
        used_us, self._seen_cpu_us = total_us - self._seen_cpu_us, total_us
        return max(0, used_us)

    # ------------------------------------------------------------ the end

    def settle(self) -> None:
        """After a failure of its operator: find out whether its own end was the reason."""
        deadline = time.monotonic() + _DEATH_S
        while self.result is None and self._end is None and time.monotonic() < deadline:
            self.look(_POLL_S)
            if self._container.life.ended_ns is not None and self._end is None:
                self.look(_DEATH_TOLD_S)

    def why(self) -> str:
        """What was wrong with it while its operator ran; empty where nothing was."""
        name, result = self._server.name, self.result
        if result is not None and result.outcome is not Outcome.COMPLETED:
            return f"its server {name} failed: {result.cause}"
        if result is not None and result.totals is not None and result.totals.oom_kills:
            at = f" at the limit of {format_mb(self._server.step.memory_limit_bytes)}"
            return f"a process of its server {name} was killed for memory{at}"
        if self._end is not None:
            return f"its server {name} ended before it did"
        return ""

    def finish(self) -> None:
        """Measure it no more; what it does from now on is not counted."""
        if self.result is not None:
            return
        self.look()
        triton = self._scraped() if self._end is None else None
        self._container.stop_sampling()
        self._finish(self._container.conclude(self._end), triton)

    def _finish(self, result: StepResult, triton: TritonFacts | None = None) -> None:
        self.result = result
        self._observer.ended(result, triton)

    def _scraped(self) -> TritonFacts | None:
        if not self._server.speaks_triton or not self.is_ready:
            return None
        return facts(self._triton.version(), self._before, self._triton.counters())

    def close(self) -> None:
        """Finish it, and remove its container."""
        with self._removal:
            self.finish()


def _unready(name: str, states: Sequence[ModelState]) -> str:
    """What is said of a model of which no version is ready: on its way, failed with a reason, or not even listed."""
    own = [state for state in states if state.name == name]
    if any(state.state == "READY" for state in own):
        return ""
    telling = [state for state in own if state.state == "LOADING"] + [state for state in own if state.reason]
    if not telling:
        return f"model {name}: {own[0].state if own and own[0].state else 'not loaded'}, see its log"
    return f"model {name}: {telling[0].state}{f', {telling[0].reason}' if telling[0].reason else ''}"


class SharedServers:
    """Servers that stay for the whole run; each is started when the first operator that uses it is about to."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._running: dict[str, RunningServer] = {}

    def get(self, server: Server, observer: StepObserver) -> RunningServer:
        """The running one; started, with an observer of this operator's, if it was not."""
        key = server.step.operator
        if key not in self._running:
            bench, number = self._bench, len(self._running) + 1
            sampling = bench.sampling_beside[-number]
            place = f"{_SHARED_PLACE}{number}"
            self._running[key] = RunningServer(server, place, bench, bench.network, sampling, observer.server(server))
        return self._running[key]

    def close(self) -> None:
        """Finish and remove all of them."""
        with contextlib.ExitStack() as stack:
            for running in self._running.values():
                stack.callback(running.close)


class Servers:
    """The servers of one step, running.

    Attributes:
        network: which they and the operator are on.
    """

    def __init__(self, step: Step, bench: Bench, network: str, running: Sequence[RunningServer]) -> None:
        self._step = step
        self._bench = bench
        self._running = running
        self.network = network

    @classmethod
    @contextmanager
    def of(
        cls, step: Step, place: str, bench: Bench, observer: StepObserver, shared: SharedServers
    ) -> Iterator[Servers]:
        """Start them all; those of the step alone are removed at the end of the block, with their network."""
        own = [server for server in step.servers if not server.shared]
        with contextlib.ExitStack() as stack:
            network = bench.network
            if own and len(own) == len(step.servers):
                network = stack.enter_context(_network_of_its_own(place, bench))
            running = [shared.get(server, observer) for server in step.servers if server.shared]
            for number, server in enumerate(own):
                sampling = bench.sampling_beside[number]
                beside = RunningServer(server, f"{place}s{number}", bench, network, sampling, observer.server(server))
                running.append(stack.enter_context(contextlib.closing(beside)))
            yield cls(step, bench, network, running)

    def await_ready(self) -> StepResult | None:
        """Wait until all are ready; returns how the step ended where one of them will not be."""
        deadline_ns = time.monotonic_ns() + self._bench.server_timeout_ns
        while True:
            asked_ns = time.monotonic_ns()
            for running in self._running:
                problem = running.check_ready(deadline_ns)
                if problem is not None:
                    return self._not_ready(running, *problem)
            waiting = [running for running in self._running if not running.is_ready]
            if not waiting:
                return None
            if self._bench.interrupts.signum is not None:
                return StepResult(self._step.operator, Outcome.INTERRUPTED, "stopped on request")
            waiting[0].look(max(_POLL_S, _REST * (time.monotonic_ns() - asked_ns) / NS_PER_S))

    def _not_ready(self, running: RunningServer, outcome: Outcome, cause: str) -> StepResult:
        if outcome is Outcome.OOM_KILLED:  # not the operator was
            outcome = Outcome.FAILED
        return StepResult(self._step.operator, outcome, f"its server {running.server.name}: {cause}")

    def variables(self) -> dict[str, str]:
        """What the operator gets in its environment: host:port of each connection."""
        return {
            connection.name: f"{running.host}:{connection.port}"
            for running in self._running
            for connection in running.server.connections
        }

    def look(self) -> None:
        """See `RunningServer.look`."""
        for running in self._running:
            running.look()

    @property
    def gone_ns(self) -> int | None:
        """When the first of them was seen to have failed."""
        return min((running.gone_ns for running in self._running if running.gone_ns is not None), default=None)

    def load_began(self, at_ns: int | None) -> None:
        """See `RunningServer.load_began`; None = not yet."""
        if at_ns is not None:
            for running in self._running:
                running.load_began(at_ns)

    def conclude(self, result: StepResult, began_ns: int | None, ended_ns: int | None) -> StepResult:
        """End the measuring of the step's own servers, and say of a failed operator where it was a server's fault.

        Args:
            began_ns, ended_ns: the operator's, on the monotonic clock.
        """
        failed = result.outcome in (Outcome.FAILED, Outcome.ENGINE_LOST)
        self.load_began(began_ns)
        for running in self._running:
            if failed:
                running.settle()
            if ended_ns is not None:
                running.load_ended(ended_ns)
            if not running.server.shared or running.gone_ns is not None:
                running.finish()
        reasons = [why for running in self._running if (why := running.why())]
        if not reasons:
            return result
        if result.outcome is Outcome.FAILED:
            return replace(result, cause="; ".join([*reasons, *([result.cause] if result.exit_code else [])]))
        return replace(result, warnings=(*result.warnings, *reasons))

    def cpu_us(self) -> int:
        """CPU time that they used beside the operator, start included."""
        return sum(running.cpu_us() for running in self._running)


@contextmanager
def _network_of_its_own(place: str, bench: Bench) -> Iterator[str]:
    name = bench.name(place)
    network = bench.engine.create_network(name, bench.labels)
    try:
        yield name
    finally:
        with contextlib.suppress(EngineError):  # what stays is removed with the run, by its label
            bench.engine.remove(Owned("network", network, name, bench.labels))
