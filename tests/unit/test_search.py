"""The search for the smallest limits, against operators that are simulated: known needs, known curves."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from builders import MB, REFUSED, record, result, sample, step, totals, usage
from hypothesis import given
from hypothesis import strategies as st

from cpost.model import (
    LEAST_MEMORY_BYTES,
    CpuChoice,
    Detail,
    Enforced,
    MemoryChoice,
    OperatorRecord,
    Outcome,
    Resources,
    Search,
    Step,
    StepResult,
    Trial,
)
from cpost.search import Searcher, SearchPlan, between, chosen_cpu, doublings
from cpost.trials import Observed, judge

MIB = 2**20
GB = 10**9
SECOND = 10**9
Behave = Callable[[Resources], StepResult | Observed]


def well(wall_ns: float = SECOND) -> StepResult:
    return result(wall_ns=int(wall_ns), totals=totals(oom_kills=0, throttled_periods=0))


def killed() -> StepResult:
    return result(Outcome.OOM_KILLED, cause="killed for memory")


def failed() -> StepResult:
    return result(Outcome.FAILED, cause="exit code 3", exit_code=3)


def stalled(wall_ns: float) -> Observed:
    """A run that waited for memory in half of its life."""
    last = sample(0, detail=Detail(psi_memory_some_us=int(wall_ns) // 2000))
    return Observed(well(wall_ns), usage(), last)


def needs(threshold: int) -> Behave:
    return lambda limits: well() if (limits.memory_bytes or GB**2) >= threshold else killed()


class Simulated:
    """Runs under limits of an operator that behaves as told."""

    def __init__(self, behave: Behave, cores: int) -> None:
        self._behave = behave
        self.max_slowdown = 0.1
        self.cores = cores
        self.ran: list[tuple[Resources, int, int]] = []

    def run(self, _: Step, enforced: Sequence[Enforced], number: int, earlier: int, baseline_ns: int | None) -> Trial:
        limits = enforced[0].limits
        self.ran.append((limits, number, earlier))
        made = self._behave(limits)
        run = made if isinstance(made, Observed) else Observed(made, usage(), None)
        return judge(run, enforced, baseline_ns, self.max_slowdown)


def searched(
    behave: Behave,
    measured: OperatorRecord,
    *,
    memory: bool = True,
    cpu: bool = False,
    most_runs: int = 20,
    cores: int = 4,
    **of_step: Any,
) -> tuple[OperatorRecord, Simulated]:
    runs: Any = Simulated(behave, cores)
    plan = SearchPlan(frozenset(), memory, cpu, most_runs)
    return Searcher(runs, plan).search(step(**of_step), measured), runs


def measured(peak: int, need: int | None = None, wall_ns: float = SECOND, **given: Any) -> OperatorRecord:
    return record(result=well(wall_ns), usage=usage(memory=peak, need_peak_bytes=need), **given)


def found(made: OperatorRecord) -> Search:
    assert made.search is not None
    return made.search


def smallest(made: OperatorRecord) -> MemoryChoice:
    memory = found(made).memory
    assert memory is not None
    return memory


def cores_of(made: OperatorRecord) -> CpuChoice:
    cpu = found(made).cpu
    assert cpu is not None
    return cpu


def limits_of(runs: Simulated) -> list[int]:
    return [limits.memory_bytes or 0 for limits, *_ in runs.ran]


# ---------------------------------------------------------------- memory


@given(
    peak=st.integers(MB, 64 * GB),
    need_share=st.floats(0, 1),
    threshold_share=st.floats(0, 1.5),
)
def test_the_smallest_passes_and_the_next_smaller_is_known_to_fail(
    peak: int, need_share: float, threshold_share: float
) -> None:
    need, threshold = int(peak * need_share), max(9 * MIB, int(peak * threshold_share))
    made, runs = searched(needs(threshold), measured(peak, need))
    memory = smallest(made)
    assert memory.settled
    assert memory.smallest_bytes is not None
    assert memory.smallest_bytes >= threshold
    assert len(runs.ran) <= 5 + 13 + 5  # need, peak and raises; halves of 64 GB down to 8 MiB; a 32nd of what is left
    failing = [trial.memory_bytes for trial in memory.trials if trial.memory_bytes < threshold]
    least = min(trial.memory_bytes for trial in memory.trials)
    if failing:
        assert max(failing) < memory.smallest_bytes
        assert between(max(failing), memory.smallest_bytes) is None
    else:
        assert memory.smallest_bytes == least
        assert least <= max(LEAST_MEMORY_BYTES, need + MIB)  # what it was seen to be unable to do without


@given(low=st.integers(1, 64 * GB), width=st.integers(0, 64 * GB))
def test_what_is_tried_next_lies_between_and_ends(low: int, width: int) -> None:
    high, rounds = low + width, 0
    while (middle := between(low, high)) is not None:
        assert low < middle < high
        assert middle % MIB == 0
        low, rounds = middle, rounds + 1
    assert high - low <= max(16 * MIB, high // 32)
    assert rounds < 40


def test_nothing_is_settled_further_apart_than_a_step() -> None:
    for high in range(8, 601):
        step_mib = 16 if high > 64 else 1
        for low in range(8, high):
            middle = between(low * MIB, high * MIB)
            assert (middle is None) == (high - low <= max(step_mib, high / 32)), (low, high)
            assert middle is None or (low * MIB < middle < high * MIB and middle % (step_mib * MIB) == 0), (low, high)


def test_small_limits_are_settled_to_a_mebibyte_and_large_ones_to_a_share() -> None:
    small = smallest(searched(needs(31 * MIB + 1), measured(60 * MIB, 20 * MIB))[0])
    assert small.smallest_bytes is not None
    assert small.smallest_bytes <= 33 * MIB
    large = smallest(searched(needs(5 * GB), measured(10 * GB, GB))[0])
    assert large.smallest_bytes is not None
    assert 5 * GB <= large.smallest_bytes <= 5 * GB * (1 + 1 / 16)
    assert large.smallest_bytes % (16 * MIB) == 0


def test_a_reader_of_files_passes_at_its_need() -> None:
    made, runs = searched(needs(0), measured(10 * GB, 20 * MIB))
    memory = smallest(made)
    assert (memory.smallest_bytes, memory.settled, len(runs.ran)) == (20 * MIB, True, 1)
    tiny = smallest(searched(needs(0), measured(MB, 1))[0])
    assert (tiny.smallest_bytes, tiny.settled) == (LEAST_MEMORY_BYTES, True)


def test_the_peak_is_not_tried_where_the_need_does() -> None:
    assert limits_of(searched(needs(0), measured(50 * MIB, 49 * MIB))[1]) == [49 * MIB]
    assert limits_of(searched(needs(50 * MIB), measured(50 * MIB, 49 * MIB))[1]) == [49 * MIB, 51 * MIB, 50 * MIB]


def test_an_operator_that_gets_slow_without_cache_has_not_passed() -> None:
    def reads(limits: Resources) -> StepResult:
        return well(SECOND if (limits.memory_bytes or 0) >= 500 * MIB else 3 * SECOND)

    memory = smallest(searched(reads, measured(GB, 20 * MIB))[0])
    assert memory.smallest_bytes is not None
    assert 500 * MIB <= memory.smallest_bytes <= 540 * MIB
    assert {trial.verdict.value for trial in memory.trials} == {"holds", "slow"}


def test_where_the_need_is_unknown_all_is_searched_down_to_the_least_that_engines_set() -> None:
    made, runs = searched(needs(0), measured(GB))
    assert (limits_of(runs), smallest(made).settled) == ([LEAST_MEMORY_BYTES], True)
    memory = smallest(searched(needs(100 * MIB), measured(GB))[0])
    assert memory.settled
    assert memory.smallest_bytes is not None
    assert 100 * MIB <= memory.smallest_bytes <= 116 * MIB


def test_where_the_peak_does_not_do_more_is_tried_three_times() -> None:
    memory = smallest(searched(needs(12 * GB // 10), measured(GB, GB))[0])
    assert memory.settled
    assert memory.smallest_bytes is not None
    assert memory.smallest_bytes >= 12 * GB // 10
    hopeless, runs = searched(needs(GB**2), measured(GB, GB))
    assert (smallest(hopeless).smallest_bytes, smallest(hopeless).settled) == (None, False)
    assert len(runs.ran) == 5
    limits = limits_of(runs)
    assert limits == sorted(set(limits))
    assert smallest(hopeless).cause == f"more than {limits[-1] / MB:.3f} MB was not tried"


@pytest.mark.parametrize("ceiling", [1000 * MIB, 1001 * MIB, 1100 * MIB, 1001 * MIB + 4096])
def test_no_limit_is_above_what_an_operator_may_use(ceiling: int) -> None:
    made, runs = searched(needs(GB**2), measured(1000 * MIB, 900 * MIB), memory_limit_bytes=ceiling)
    assert max(limits_of(runs)) == ceiling
    assert len(limits_of(runs)) == len(set(limits_of(runs)))
    assert smallest(made).smallest_bytes is None
    assert smallest(made).cause.endswith("is all that an operator may use here, see --memory_limit")


def by_chance(behave: Behave, unlucky: dict[int, StepResult | Observed]) -> Behave:
    """The same, but for single runs, by their number from 1."""
    count = itertools.count(1)
    return lambda limits: unlucky.get(next(count)) or behave(limits)


@pytest.mark.parametrize("number", range(1, 8))
@pytest.mark.parametrize("bad_luck", [well(2 * SECOND), failed()])
def test_one_run_that_is_slow_or_fails_by_chance_changes_nothing(number: int, bad_luck: StepResult) -> None:
    of, quiet = measured(GB, 20 * MIB), needs(110 * MIB)
    expected, usually = searched(quiet, of)
    assert len(usually.ran) == 7
    made, runs = searched(by_chance(quiet, {number: bad_luck}), of)
    assert smallest(made).smallest_bytes == smallest(expected).smallest_bytes
    assert smallest(made).settled
    again = [low for low, high in itertools.pairwise(limits_of(runs)) if low == high]
    assert again == [limits_of(usually)[number - 1]]


def test_what_is_slow_for_want_of_memory_is_not_tried_again() -> None:
    def reads(limits: Resources) -> Observed | StepResult:
        return well() if (limits.memory_bytes or 0) >= 500 * MIB else stalled(3 * SECOND)

    _, runs = searched(reads, measured(GB, 20 * MIB))
    assert len(set(limits_of(runs))) == len(runs.ran)


def test_what_was_killed_inside_is_not_tried_again() -> None:
    inside = result(Outcome.FAILED, cause="exit code 3", exit_code=3, totals=totals(oom_kills=1))
    _, runs = searched(lambda limits: well() if (limits.memory_bytes or 0) > GB else inside, measured(GB, 20 * MIB))
    assert len(set(limits_of(runs))) == len(runs.ran)


def test_what_fails_twice_in_the_same_way_is_believed_from_then_on() -> None:
    made, runs = searched(lambda limits: well() if (limits.memory_bytes or 0) > GB else failed(), measured(GB, MB))
    first, second, *others = limits_of(runs)
    assert first == second
    assert len(set(others)) == len(others)
    assert smallest(made).settled
    codes = itertools.count(1)
    other = lambda _: result(Outcome.FAILED, cause="exit code", exit_code=next(codes))  # noqa: E731
    assert len(searched(other, measured(GB, MB))[1].ran) == 10


def test_runs_that_are_tried_twice_count_twice() -> None:
    made, runs = searched(lambda _: well(2 * SECOND), measured(GB, 20 * MIB), most_runs=3)
    assert len(runs.ran) == len(smallest(made).trials) == 3
    assert smallest(made).cause == "the budget of 3 runs was spent, see --max_runs"


@pytest.mark.parametrize("budget", [1, 2, 3, 4])
def test_a_spent_budget_leaves_what_passed_and_says_that_it_is_not_settled(budget: int) -> None:
    made, runs = searched(needs(300 * MIB), measured(8 * GB, 8 * MIB), most_runs=budget)
    memory = smallest(made)
    assert len(runs.ran) == len(memory.trials) == budget
    assert not memory.settled
    assert memory.cause == f"the budget of {budget} runs was spent, see --max_runs"
    passed = [trial.memory_bytes for trial in memory.trials if trial.verdict.value == "holds"]
    assert memory.smallest_bytes == min(passed, default=None)


def test_runs_are_numbered_and_know_how_many_came_before() -> None:
    _, runs = searched(needs(0), measured(GB, MB), cpu=True)
    assert [(number, earlier) for _, number, earlier in runs.ran] == [(n, n + 1) for n in range(1, len(runs.ran) + 1)]


# ---------------------------------------------------------------- CPU


def amdahl(serial_s: float, parallel_s: float) -> Behave:
    def run(limits: Resources) -> StepResult:
        cores = (limits.cpu_millicores or 0) / 1000
        return well((serial_s + parallel_s / cores) * SECOND)

    return run


@pytest.mark.parametrize(("cores", "wanted"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (12, [1, 2, 4, 8, 12])])
def test_doublings(cores: int, wanted: list[int]) -> None:
    assert list(doublings(cores)) == [1000 * each for each in wanted]


@pytest.mark.parametrize(
    ("serial", "parallel", "tried", "knee", "cheapest"),
    [
        (0, 64, [1, 2, 4, 8, 16], 16, 1),  # each core is worth its price
        (10, 0, [1, 2], 1, 1),  # one does it all
        (10, 10, [1, 2, 4, 8, 16], 8, 1),  # 20, 15, 12.5, 11.25, 10.625: the last saves over 5 %
        (10, 2, [1, 2, 4], 2, 1),  # 12, 11, 10.5 (not 5 % less than 11: the end)
    ],
)
def test_the_curve_of_a_known_operator(
    serial: float, parallel: float, tried: list[int], knee: int, cheapest: int
) -> None:
    unlimited = (serial + parallel / 16) * SECOND
    made, _ = searched(amdahl(serial, parallel), measured(GB, wall_ns=unlimited), memory=False, cpu=True, cores=16)
    assert found(made).memory is None
    choice = found(made).cpu
    assert choice is not None
    cores = [(trial.enforced[0].limits.cpu_millicores or 0) // 1000 for trial in choice.trials]
    assert cores == tried
    assert choice.settled
    walls = [trial.result.wall_ns or 0 for trial in choice.trials]
    gains = [now < before * 0.95 for before, now in itertools.pairwise(walls)]
    assert all(gains[:-1])
    assert not gains[-1] or cores[-1] == 16
    assert (choice.knee_millicores, choice.cheapest_millicores) == (1000 * knee, 1000 * cheapest)


def timed(*walls_s: float) -> Behave:
    """Each run takes the next of these times."""
    left = iter(walls_s)
    return lambda _: well(next(left) * SECOND)


def curve(*walls_s: float, unlimited_s: float, most_runs: int = 20, cores: int = 16) -> CpuChoice:
    of = measured(GB, wall_ns=unlimited_s * SECOND)
    made, runs = searched(timed(*walls_s), of, memory=False, cpu=True, most_runs=most_runs, cores=cores)
    assert len(runs.ran) == len(walls_s)
    return cores_of(made)


def test_a_step_that_saved_nothing_is_tried_again_where_without_limits_it_was_faster() -> None:
    found = curve(10, 9.9, 5.1, 2.6, 2.55, unlimited_s=2.5)  # 1, 2 (unlucky), 2 again, 4, 8
    assert [trial.cpu_millicores // 1000 for trial in found.trials] == [1, 2, 2, 4, 8]
    assert (found.knee_millicores, found.settled) == (4000, True)
    assert found.cheapest_millicores == 1000  # 10, 10.2, 10.4


def test_a_plateau_is_crossed_where_without_limits_it_was_faster() -> None:
    found = curve(10, 10, 10, 2.6, 2.6, unlimited_s=2.5)  # 1, 2, 2 again, 4, 8
    assert (found.knee_millicores, found.settled) == (4000, True)


def test_a_host_that_got_busy_is_no_settled_answer() -> None:
    found = curve(10, 9.9, 9.8, unlimited_s=2.5, cores=2)  # 1, 2, 2 again
    assert (found.knee_millicores, found.settled) == (1000, False)
    assert "maybe the host was busy" in found.cause


def test_a_budget_that_ends_the_curve_is_said() -> None:
    found = curve(10, 5, unlimited_s=2.5, most_runs=2)
    assert (found.settled, found.cause) == (False, "the budget of 2 runs was spent, see --max_runs")
    assert (found.knee_millicores, found.cheapest_millicores) == (None, 1000)  # without limits it was twice as fast
    fast = curve(2.6, 2.2, unlimited_s=2.5, most_runs=2)
    assert (fast.knee_millicores, fast.settled) == (2000, False)


# ---------------------------------------------------------------- what runs for a set time


def service(busy_cores: float, told: bool = True) -> Behave:
    """Keeps so many cores busy as long as it may; held back in each period below that."""

    def run(limits: Resources) -> StepResult:
        held = 100 if (limits.cpu_millicores or 0) < busy_cores * 1000 else 2
        return result(wall_ns=10 * SECOND, totals=totals(oom_kills=0, throttled_periods=held if told else None))

    return run


def served(behave: Behave, cores: int = 16, most_runs: int = 20) -> CpuChoice:
    of = measured(GB, wall_ns=10 * SECOND)
    words: Any = {"memory": False, "cpu": True, "duration_ns": 10 * SECOND}
    return cores_of(searched(behave, of, cores=cores, most_runs=most_runs, **words)[0])


@pytest.mark.parametrize(("busy", "cores", "tried"), [(0.5, 16, 1), (3, 16, 3), (12, 16, 5), (20, 16, 5)])
def test_cores_of_a_service_are_judged_by_throttling(busy: float, cores: int, tried: int) -> None:
    found = served(service(busy), cores)
    assert found.by_throttling
    assert found.settled
    assert len(found.trials) == tried
    wanted = next((each for each in (1, 2, 4, 8) if each >= busy), cores)
    assert (found.knee_millicores, found.cheapest_millicores) == (1000 * wanted, None)


def test_a_service_s_cores_are_not_guessed() -> None:
    spent = served(service(8), most_runs=2)
    assert (spent.knee_millicores, spent.settled) == (None, False)
    assert "the budget of 2 runs was spent" in spent.cause
    untold = served(service(0.5, told=False))
    assert (untold.knee_millicores, untold.settled, len(untold.trials)) == (None, False, 1)
    assert "not told" in untold.cause
    dead = served(lambda _: killed(), cores=2)
    assert (dead.knee_millicores, dead.settled, dead.cause) == (None, False, "no run ended well")


# ---------------------------------------------------------------- odd curves


def test_a_superlinear_operator_is_cheapest_with_more_cores() -> None:
    walls = {1: 10.0, 2: 3.0, 4: 2.9}
    made, _ = searched(
        lambda limits: well(walls[(limits.cpu_millicores or 0) // 1000] * SECOND),
        measured(GB, wall_ns=2.9 * SECOND),
        memory=False,
        cpu=True,
    )
    choice = found(made).cpu
    assert choice is not None
    assert (choice.knee_millicores, choice.cheapest_millicores) == (2000, 2000)


def test_within_a_tenth_of_a_second_fewer_cores_do() -> None:
    made, _ = searched(amdahl(0.01, 0.1), measured(GB, wall_ns=0.035 * SECOND), memory=False, cpu=True)
    choice = found(made).cpu
    assert choice is not None
    assert choice.knee_millicores == 1000


def test_without_a_run_that_ended_well_nothing_follows() -> None:
    assert chosen_cpu([], 0.1).knee_millicores is None
    made, runs = searched(lambda _: killed(), measured(GB), memory=False, cpu=True, cores=2)
    choice = found(made).cpu
    assert choice is not None
    assert (choice.knee_millicores, choice.cheapest_millicores, len(runs.ran)) == (None, None, 2)
    assert (choice.settled, choice.cause) == (False, "no run ended well")


def test_the_budget_is_for_both() -> None:
    made, runs = searched(needs(2 * MB), measured(3 * MB, MB), cpu=True, most_runs=3, cores=16)
    assert len(runs.ran) == 3
    memory, cpu = found(made).memory, found(made).cpu
    assert memory is not None
    assert cpu is not None
    assert (len(memory.trials), len(cpu.trials)) == (1, 2)


# ---------------------------------------------------------------- not at all, or not to the end


@pytest.mark.parametrize(
    "unmeasured",
    [record(result=result(Outcome.FAILED), recommendation=REFUSED), record(result=well(), usage=None)],
)
def test_what_was_not_measured_is_left_as_it_is(unmeasured: OperatorRecord) -> None:
    made, runs = searched(needs(0), unmeasured, cpu=True)
    assert made == unmeasured
    assert runs.ran == []


@pytest.mark.parametrize("outcome", [Outcome.INTERRUPTED, Outcome.ENGINE_LOST])
def test_an_end_from_outside_keeps_what_was_found(outcome: Outcome) -> None:
    count = iter(range(9))
    ends = (killed(), well(), result(outcome))
    made, runs = searched(lambda _: ends[next(count)], measured(GB, MB), cpu=True)
    assert len(runs.ran) == 3
    assert found(made).cpu is None
    assert not smallest(made).settled
    assert smallest(made).smallest_bytes is not None
    said = {Outcome.INTERRUPTED: "the search was interrupted", Outcome.ENGINE_LOST: "the engine was lost"}
    assert smallest(made).cause == said[outcome]
