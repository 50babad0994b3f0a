"""The search for the smallest limits, against operators that are simulated: known needs, known curves."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from builders import MB, REFUSED, record, result, step, totals, usage
from hypothesis import given
from hypothesis import strategies as st

from cpost.model import Enforced, MemoryChoice, OperatorRecord, Outcome, Resources, Search, Step, StepResult, Trial
from cpost.search import Searcher, SearchPlan, between, chosen_cpu, doublings, memory_of
from cpost.trials import Observed, judge

MIB = 2**20
GB = 10**9
SECOND = 10**9
Behave = Callable[[Resources], StepResult]


def well(wall_ns: float = SECOND) -> StepResult:
    return result(wall_ns=int(wall_ns), totals=totals(oom_kills=0, throttled_periods=0))


def killed() -> StepResult:
    return result(Outcome.OOM_KILLED, cause="killed for memory")


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
        return judge(Observed(self._behave(limits), usage(), None), enforced, baseline_ns, self.max_slowdown)


def searched(
    behave: Behave,
    measured: OperatorRecord,
    *,
    memory: bool = True,
    cpu: bool = False,
    most_runs: int = 20,
    cores: int = 4,
) -> tuple[OperatorRecord, Simulated]:
    runs: Any = Simulated(behave, cores)
    plan = SearchPlan(frozenset(), memory, cpu, most_runs)
    return Searcher(runs, plan).search(step(), measured), runs


def measured(peak: int, need: int | None = None, **given: Any) -> OperatorRecord:
    return record(result=well(), usage=usage(memory=peak, need_peak_bytes=need), **given)


def found(made: OperatorRecord) -> Search:
    assert made.search is not None
    return made.search


def smallest(made: OperatorRecord) -> MemoryChoice:
    memory = found(made).memory
    assert memory is not None
    return memory


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
    assert len(runs.ran) <= 4 + 13 + 5  # raises; halves of 64 GB down to 8 MiB; a 32nd of what is left then
    failing = [memory_of(trial) for trial in memory.trials if memory_of(trial) < threshold]
    least = min(memory_of(trial) for trial in memory.trials)
    if failing:
        assert max(failing) < memory.smallest_bytes
        assert between(max(failing), memory.smallest_bytes) is None
    else:
        assert memory.smallest_bytes == least
        assert least <= max(8 * MIB, need + MIB)  # what it was seen to be unable to do without


@given(low=st.integers(1, 64 * GB), width=st.integers(0, 64 * GB))
def test_what_is_tried_next_lies_between_and_ends(low: int, width: int) -> None:
    high, rounds = low + width, 0
    while (middle := between(low, high)) is not None:
        assert low < middle < high
        assert middle % MIB == 0
        low, rounds = middle, rounds + 1
    assert high - low <= max(16 * MIB, high // 16)
    assert rounds < 40


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
    assert (memory.smallest_bytes, memory.settled, len(runs.ran)) == (20 * MIB, True, 2)
    tiny = smallest(searched(needs(0), measured(10 * GB, 1))[0])
    assert tiny.smallest_bytes == 8 * MIB  # engines refuse less than 6


def test_an_operator_that_gets_slow_without_cache_has_not_passed() -> None:
    def reads(limits: Resources) -> StepResult:
        return well(SECOND if (limits.memory_bytes or 0) >= 500 * MIB else 3 * SECOND)

    memory = smallest(searched(reads, measured(GB, 20 * MIB))[0])
    assert memory.smallest_bytes is not None
    assert 500 * MIB <= memory.smallest_bytes <= 540 * MIB
    assert {trial.verdict.value for trial in memory.trials} == {"holds", "slow"}


def test_where_the_need_is_unknown_half_the_peak_is_the_lower_end() -> None:
    _, runs = searched(needs(0), measured(GB))
    assert [limits.memory_bytes for limits, *_ in runs.ran] == [954 * MIB + MIB, 477 * MIB]


def test_where_the_peak_does_not_do_more_is_tried_three_times() -> None:
    memory = smallest(searched(needs(12 * GB // 10), measured(GB, GB))[0])
    assert memory.settled
    assert memory.smallest_bytes is not None
    assert memory.smallest_bytes >= 12 * GB // 10
    hopeless, runs = searched(needs(GB**2), measured(GB, GB))
    assert (smallest(hopeless).smallest_bytes, smallest(hopeless).settled) == (None, False)
    assert len(runs.ran) == 4
    limits = [each.memory_bytes or 0 for each, *_ in runs.ran]
    assert limits == sorted(set(limits))


@pytest.mark.parametrize("budget", [1, 2, 3, 4])
def test_a_spent_budget_leaves_what_passed_and_says_that_it_is_not_settled(budget: int) -> None:
    made, runs = searched(needs(300 * MIB), measured(8 * GB, 8 * MIB), most_runs=budget)
    memory = smallest(made)
    assert len(runs.ran) == len(memory.trials) == budget
    assert not memory.settled
    assert memory.smallest_bytes == min(memory_of(trial) for trial in memory.trials if trial.verdict.value == "holds")


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
        (10, 2, [1, 2, 4, 8], 2, 1),  # 12, 11, 10.5 (not 5 % less than 11: the end)
    ],
)
def test_the_curve_of_a_known_operator(
    serial: float, parallel: float, tried: list[int], knee: int, cheapest: int
) -> None:
    made, _ = searched(amdahl(serial, parallel), measured(GB), memory=False, cpu=True, cores=16)
    assert found(made).memory is None
    choice = found(made).cpu
    assert choice is not None
    cores = [(trial.enforced[0].limits.cpu_millicores or 0) // 1000 for trial in choice.trials]
    assert cores == tried[: len(cores)]
    walls = [trial.result.wall_ns or 0 for trial in choice.trials]
    gains = [now < before * 0.95 for before, now in itertools.pairwise(walls)]
    assert all(gains[:-1])
    assert not gains[-1] or cores[-1] == 16
    assert (choice.knee_millicores, choice.cheapest_millicores) == (1000 * knee, 1000 * cheapest)


def test_a_superlinear_operator_is_cheapest_with_more_cores() -> None:
    walls = {1: 10.0, 2: 3.0, 4: 2.9}
    made, _ = searched(
        lambda limits: well(walls[(limits.cpu_millicores or 0) // 1000] * SECOND), measured(GB), memory=False, cpu=True
    )
    choice = found(made).cpu
    assert choice is not None
    assert (choice.knee_millicores, choice.cheapest_millicores) == (2000, 2000)


def test_within_a_tenth_of_a_second_fewer_cores_do() -> None:
    made, _ = searched(amdahl(0.01, 0.1), measured(GB), memory=False, cpu=True)
    choice = found(made).cpu
    assert choice is not None
    assert choice.knee_millicores == 1000


def test_without_a_run_that_ended_well_nothing_follows() -> None:
    assert chosen_cpu([], 0.1).knee_millicores is None
    made, runs = searched(lambda _: killed(), measured(GB), memory=False, cpu=True, cores=2)
    choice = found(made).cpu
    assert choice is not None
    assert (choice.knee_millicores, choice.cheapest_millicores, len(runs.ran)) == (None, None, 2)


def test_the_budget_is_for_both() -> None:
    made, runs = searched(needs(0), measured(GB, MB), cpu=True, most_runs=3, cores=16)
    assert len(runs.ran) == 3
    memory, cpu = found(made).memory, found(made).cpu
    assert memory is not None
    assert cpu is not None
    assert (len(memory.trials), len(cpu.trials)) == (2, 1)


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
    made, runs = searched(lambda _: well() if next(count) == 0 else result(outcome), measured(GB, MB), cpu=True)
    assert len(runs.ran) == 2
    assert found(made).cpu is None
    assert not smallest(made).settled
    assert smallest(made).smallest_bytes is not None
