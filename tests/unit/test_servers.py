"""Servers without an engine: when they are ready, why they are not, and what their end means for their operator."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from builders import result, sample, step, totals

from cpost.interrupts import Interrupts
from cpost.measure import servers
from cpost.measure.container import End, Ended
from cpost.measure.servers import RunningServer, Servers, SharedServers
from cpost.measure.triton import Counters, ModelState
from cpost.model import HttpConnection, Outcome, Server, ServerKind, StepResult, TritonFacts

S = 10**9
LONG_NS = 10**18
READY, LOADING, GONE = (ModelState("m", "1", each) for each in ("READY", "LOADING", "UNAVAILABLE"))
BROKEN = replace(GONE, reason="no weights")


class Triton:
    """Answers what it is told; the last answer stays."""

    def __init__(self) -> None:
        self.ready: list[bool | None] = [True]
        self.model: list[bool] = [True]
        self.of_models: list[tuple[ModelState, ...]] = [(READY,)]
        self.asked = 0

    def _next(self, answers: list[Any]) -> Any:
        return answers.pop(0) if len(answers) > 1 else answers[0]

    def server_ready(self) -> bool | None:
        self.asked += 1
        return self._next(self.ready)  # type: ignore[no-any-return]

    def model_ready(self, _: str) -> bool:
        return self._next(self.model)  # type: ignore[no-any-return]

    def states(self, _: object) -> tuple[ModelState, ...]:
        return self._next(self.of_models)  # type: ignore[no-any-return]

    def version(self) -> str:
        return "2.51.0"

    def counters(self) -> Counters:
        return Counters()


class Container:
    """One that runs until it is told its end."""

    def __init__(self, name: str) -> None:
        self.id = f"id of {name}"
        self.life = SimpleNamespace(started_ns=S, ended_ns=None)
        self.name = name
        self.end: End | None = None
        self.looks = 0
        self.not_started: StepResult | None = None
        self.oom_kills = 0
        self.removed = False

    def start(self) -> StepResult | None:
        return self.not_started

    def look(self, _: float = 0) -> End | None:
        self.looks += 1
        return self.end

    def stop_sampling(self) -> None:
        pass

    def conclude(self, end: End | None) -> StepResult:
        seen = totals(1000, oom_kills=self.oom_kills, startup_cpu_us=50)
        if end is None:
            return result(totals=seen)
        assert isinstance(end, Ended)
        if end.exit_code == 0:
            return result(exit_code=0, totals=seen)
        return result(Outcome.FAILED, cause=f"exit code {end.exit_code}", exit_code=end.exit_code, log_tail=("last",))

    def result(self, outcome: Outcome, cause: str, exit_code: int | None) -> StepResult:
        return result(outcome, cause=cause, exit_code=exit_code, log_tail=("last",))


class Observer:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def server(self, _: Server) -> Observer:
        return self

    def samples(self, *told: Any) -> None:
        self.told.append(("samples", *told))

    def ready(self, t_ns: int) -> None:
        self.told.append(("ready",))

    def load_began(self, t_ns: int) -> None:
        self.told.append(("load_began", t_ns))

    def load_ended(self, t_ns: int) -> None:
        self.told.append(("load_ended", t_ns))

    def ended(self, how: StepResult, triton: TritonFacts | None) -> None:
        self.told.append(("ended", how.outcome, triton))


class Bench:
    """Servers on a bench without an engine."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.triton, self.observer = Triton(), Observer()
        self.containers: dict[str, Container] = {}
        self.ports: set[int] = {8080}
        self.bench: Any = SimpleNamespace(
            engine=SimpleNamespace(
                ip_address=lambda *_: "10.0.0.2", create_network=lambda *_: "n", remove=lambda _: None
            ),
            server_timeout_ns=90 * S,
            interrupts=Interrupts(),
            network="n",
            labels={},
            name=lambda place: place,
            sampling_beside=(None, None, None),
        )
        monkeypatch.setattr(servers, "measured_container", self.measured)
        monkeypatch.setattr(servers, "TritonApi", lambda *_: self.triton)
        monkeypatch.setattr(servers, "port_accepts", lambda _, port, __: port in self.ports)

    @contextlib.contextmanager
    def measured(self, asked: Any, *_: Any) -> Iterator[Container]:
        container = self.containers.setdefault(asked.operator, Container(asked.operator))
        yield container
        container.removed = True

    def container(self, name: str) -> Container:
        """The container that a server of this name will get, or has."""
        return self.containers.setdefault(name, Container(name))

    def run(self, server: Server) -> RunningServer:
        observer: Any = self.observer
        sampling: Any = None
        return RunningServer(server, "0s0", self.bench, "n", sampling, observer)

    def ready(self, server: Server) -> RunningServer:
        running = self.run(server)
        assert awaited(running) is None
        return running

    def of(self, *running: RunningServer) -> Servers:
        return Servers(step(operator="op"), self.bench, "n", running)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


def triton(name: str = "triton", **given: Any) -> Server:
    connections = (HttpConnection("HTTP", 8000), HttpConnection("GRPC", 8001))
    return Server(name, ServerKind.TRITON, step(operator=name), ("m",), connections, **{"speaks_triton": True, **given})


def service(name: str = "web", *ports: int, **given: Any) -> Server:
    connections = tuple(HttpConnection(f"URI{port}", port) for port in ports)
    return Server(
        name, ServerKind.SERVICE, step(operator=name, memory_limit_bytes=512 * 10**6), (), connections, **given
    )


def awaited(running: RunningServer, deadline_ns: int = LONG_NS) -> tuple[Outcome, str] | None:
    while (problem := running.check_ready(deadline_ns)) is None and not running.is_ready:
        running.look(0.01)
    return problem


# ---------------------------------------------------------------- ready


def test_a_triton_is_ready_when_it_and_its_models_say_so(bench: Bench) -> None:
    bench.triton.ready, bench.triton.model = [None, False, True], [False, True]
    bench.triton.of_models = [(LOADING,)]
    assert awaited(bench.run(triton())) is None
    assert bench.triton.asked > 3
    assert bench.observer.told == [("ready",)]


def test_a_container_that_has_not_begun_is_not_asked(bench: Bench) -> None:
    bench.container("triton").life.started_ns = None
    assert awaited(bench.run(triton()), 0) is not None
    assert bench.observer.told[-1][:2] == ("ended", Outcome.TIMED_OUT)


@pytest.mark.parametrize(
    ("server", "answers", "is_ready"),
    [
        (service("web", 8080), [None], True),
        (service("web", 8080, 8081), [None], False),
        (service("web"), [None], True),  # nothing to ask it
        (service("web", speaks_triton=True), [None], True),
        (service("web", 8080, speaks_triton=True), [None], True),  # it only looked like one
        (service("web", 8080, speaks_triton=True), [True], True),
        (service("web", 8080, speaks_triton=True), [False], False),
    ],
)
def test_a_service_is_ready_when_its_ports_accept(
    bench: Bench, server: Server, answers: list[bool | None], is_ready: bool
) -> None:
    bench.triton.ready = answers
    assert (awaited(bench.run(server), 0) is None) is is_ready


def test_a_model_that_is_neither_there_nor_on_its_way_has_failed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    passing = itertools.count(S, S // 100)  # each look at the clock takes 10 ms
    monkeypatch.setattr(servers, "time", SimpleNamespace(monotonic_ns=lambda: next(passing)))
    monkeypatch.setattr(servers, "_SETTLE_NS", S // 2)
    bench.triton.ready, bench.triton.model = [False], [False]
    bench.triton.of_models = [(GONE,), *[(LOADING,)] * 100, (BROKEN,)]
    problem = awaited(bench.run(triton()))
    assert problem == (Outcome.FAILED, "model m: UNAVAILABLE, no weights")
    assert len(bench.triton.of_models) == 1  # it was loading once more first
    assert bench.observer.told == [("ended", Outcome.FAILED, None)]


@pytest.mark.parametrize(
    ("ready", "states", "said"),
    [(False, (LOADING,), "(model m: LOADING)"), (None, (), "(it does not answer yet)"), (False, (READY,), "(it does")],
)
def test_a_server_whose_time_is_up_says_where_it_was(
    bench: Bench, ready: bool | None, states: tuple[ModelState, ...], said: str
) -> None:
    bench.triton.ready, bench.triton.of_models = [ready], [states]
    problem = awaited(bench.run(triton()), 0)
    assert problem is not None
    assert problem[0] is Outcome.TIMED_OUT
    assert problem[1].startswith(f"it was not ready within 1 min 30 s, its time by --triton_timeout {said}")


@pytest.mark.parametrize(("code", "said"), [(7, "exit code 7"), (0, "exit code 0")])
def test_a_server_that_ends_before_it_is_ready_has_failed(bench: Bench, code: int, said: str) -> None:
    bench.container("triton").end = Ended(code)
    bench.triton.ready = [None]
    assert awaited(bench.run(triton())) == (Outcome.FAILED, f"it ended before it was ready: {said}")


def test_a_command_that_cannot_be_started_is_told_as_it_is(bench: Bench) -> None:
    bench.container("web").not_started = result(Outcome.FAILED, cause="the command was not found", exit_code=127)
    running = bench.run(service("web", 8080))
    assert awaited(running) == awaited(running) == (Outcome.FAILED, "the command was not found")
    assert running.result is not None
    assert running.result.exit_code == 127


def test_a_signal_ends_the_waiting(bench: Bench) -> None:
    bench.triton.ready = [False]
    bench.bench.interrupts.deliver(2)
    assert bench.of(bench.run(triton())).await_ready() == StepResult("op", Outcome.INTERRUPTED, "stopped on request")


def test_a_server_that_is_ready_and_ends_is_noticed_while_another_is_awaited(bench: Bench) -> None:
    first, second = bench.ready(service("web", 8080)), bench.run(service("late", 8080))
    bench.triton.ready = [False]
    bench.container("web").end = Ended(7)
    made = bench.of(second, first).await_ready()
    assert made is not None
    assert made.cause.startswith("its server web: it has ended")


@pytest.mark.parametrize(
    ("states", "said"),
    [
        ((READY,), ""),
        ((GONE, READY), ""),
        ((BROKEN, LOADING), "model m: LOADING"),
        ((GONE, BROKEN), "model m: UNAVAILABLE, no weights"),
        ((GONE,), "model m: UNAVAILABLE, see its log"),
        ((replace(GONE, state=""),), "model m: not loaded, see its log"),
        ((replace(READY, name="other"),), "model m: not loaded, see its log"),
        ((), "model m: not loaded, see its log"),
    ],
)
def test_what_is_said_of_a_model(states: tuple[ModelState, ...], said: str) -> None:
    assert servers._unready("m", states) == said


# ---------------------------------------------------------------- shared


def test_a_shared_server_is_started_once_and_asked_no_more(bench: Bench) -> None:
    observer: Any = bench.observer
    shared = SharedServers(bench.bench)
    first = shared.get(triton(shared=True), observer)
    assert awaited(first) is None
    asked = bench.triton.asked
    second = shared.get(triton(shared=True), observer)
    assert second is first
    assert awaited(second) is None
    assert bench.triton.asked == asked
    shared.close()
    assert bench.container("triton").removed
    assert bench.observer.told[-1][:2] == ("ended", Outcome.COMPLETED)


@pytest.mark.parametrize(("code", "said"), [(137, "exit code 137"), (0, "exit code 0")])
def test_a_server_that_has_ended_since_is_not_ready_for_the_next_operator(bench: Bench, code: int, said: str) -> None:
    running = bench.ready(triton(shared=True))
    bench.container("triton").end = Ended(code)
    assert awaited(running) == (Outcome.FAILED, f"it has ended: {said}")


# ---------------------------------------------------------------- all servers of a step


@pytest.mark.parametrize(
    ("outcome", "wanted", "cause"),
    [
        (Outcome.FAILED, Outcome.FAILED, "its server web: why"),
        (Outcome.OOM_KILLED, Outcome.FAILED, "its server web: why"),  # it was not the operator
        (Outcome.TIMED_OUT, Outcome.TIMED_OUT, "its server web: why"),
    ],
)
def test_a_step_whose_server_is_not_ready_ends_as_that_did(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, outcome: Outcome, wanted: Outcome, cause: str
) -> None:
    running = bench.run(service("web", 8080))
    monkeypatch.setattr(running, "check_ready", lambda *_: (outcome, "why"))
    assert bench.of(running).await_ready() == StepResult("op", wanted, cause)


def test_operators_get_the_address_of_each_connection(bench: Bench) -> None:
    all_of_them = bench.of(bench.ready(triton()), bench.ready(service("web", 8080)))
    assert all_of_them.variables() == {"HTTP": "10.0.0.2:8000", "GRPC": "10.0.0.2:8001", "URI8080": "10.0.0.2:8080"}


def test_the_load_lasts_from_the_operator_s_start_to_its_end(bench: Bench) -> None:
    running = bench.ready(triton())
    both = bench.of(running)
    both.load_began(None)  # it has not begun yet
    both.load_began(3 * S)
    both.load_began(3 * S)
    both.conclude(result(), 3 * S, 5 * S)
    ended = ("ended", Outcome.COMPLETED, TritonFacts("2.51.0"))
    assert bench.observer.told == [("ready",), ("load_began", 2 * S), ("load_ended", 4 * S), ended]


def test_a_shared_server_goes_on_after_the_operator(bench: Bench) -> None:
    running = bench.ready(triton(shared=True))
    assert bench.of(running).conclude(result(), 3 * S, 5 * S) == result()
    bench.of(running).conclude(result(), 7 * S, 8 * S)
    assert bench.observer.told == [
        ("ready",),
        *(("load_began", 2 * S), ("load_ended", 4 * S), ("load_began", 6 * S), ("load_ended", 7 * S)),
    ]


Change = Callable[[Container], None]


def ends_with(code: int) -> Change:
    return lambda container: setattr(container, "end", Ended(code))


def kills(container: Container) -> None:
    container.oom_kills = 1


FAILED = result(Outcome.FAILED, cause="exit code 1", exit_code=1)
LOST = result(Outcome.ENGINE_LOST, cause="lost")
OOM = "a process of its server web was killed for memory at the limit of 512.000 MB"


@pytest.mark.parametrize(
    ("operator", "change", "cause", "warnings"),
    [
        (FAILED, None, "exit code 1", ()),
        (FAILED, ends_with(137), "its server web failed: exit code 137; exit code 1", ()),
        (FAILED, ends_with(0), "its server web ended before it did; exit code 1", ()),
        (FAILED, kills, f"{OOM}; exit code 1", ()),
        (replace(FAILED, exit_code=None), ends_with(7), "its server web failed: exit code 7", ()),
        (result(), None, "", ()),
        (result(), ends_with(7), "", ("its server web failed: exit code 7",)),
        (result(), ends_with(0), "", ("its server web ended before it did",)),
        (result(), kills, "", (OOM,)),
        (LOST, ends_with(7), "lost", ("its server web failed: exit code 7",)),
    ],
)
def test_what_a_server_s_end_means_for_its_operator(
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    operator: StepResult,
    change: Change | None,
    cause: str,
    warnings: tuple[str, ...],
) -> None:
    monkeypatch.setattr(servers, "_DEATH_S", 0.0 if change is None else servers._DEATH_S)
    running = bench.ready(service("web", 8080))
    if change is not None:
        change(bench.container("web"))
    made = bench.of(running).conclude(operator, 2 * S, 3 * S)
    assert (made.outcome, made.cause, made.warnings) == (operator.outcome, cause, warnings)


def test_an_end_that_the_engine_tells_late_is_waited_for(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "_DEATH_S", 0.01)
    running, container = bench.ready(service("web", 8080)), bench.container("web")
    container.life.ended_ns = 3 * S

    def look(timeout_s: float = 0) -> End | None:
        return Ended(7) if timeout_s == servers._DEATH_TOLD_S else None

    monkeypatch.setattr(container, "look", look)
    made = bench.of(running).conclude(FAILED, 2 * S, 3 * S)
    assert made.cause == "its server web failed: exit code 7; exit code 1"


def test_an_operator_is_alone_from_when_its_first_server_failed(bench: Bench) -> None:
    first, second = bench.ready(service("web", 8080)), bench.ready(service("other", 8080))
    both = bench.of(first, second)
    bench.container("web").end = Ended(0)  # it may have done all that it was there for
    both.look()
    assert both.gone_ns is None
    bench.container("other").end = Ended(1)
    both.look()
    assert both.gone_ns == second.gone_ns is not None


def test_each_microsecond_of_a_server_is_counted_once(bench: Bench) -> None:
    running = bench.ready(service("web", 8080))
    running.samples(0, [sample(1, 100), sample(2, 400)])
    both = bench.of(running)
    assert [both.cpu_us(), both.cpu_us()] == [400, 0]
    both.conclude(result(), 2 * S, 3 * S)
    assert [both.cpu_us(), both.cpu_us()] == [650, 0]  # 1000 in all, and 50 of its start


def test_a_step_s_own_servers_and_their_network_go_with_it(bench: Bench) -> None:
    gone = []
    bench.bench.engine.remove = lambda owned: gone.append(owned.name)
    observer: Any = bench.observer
    asked = step(operator="op", servers=(service("web", 8080), triton(shared=True)))
    shared = SharedServers(bench.bench)
    with Servers.of(asked, "0", bench.bench, observer, shared) as both:
        assert both.network == "n"  # where the shared one is
        assert both.await_ready() is None
    assert bench.container("web").removed
    assert not bench.container("triton").removed
    with Servers.of(replace(asked, servers=asked.servers[:1]), "0", bench.bench, observer, shared) as alone:
        assert alone.network == "0"
    assert gone == ["0"]
