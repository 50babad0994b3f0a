"""What a run under limits says, at its bounds; which limit is raised by how much."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from builders import MB, MS, result, sample, totals, usage
from hypothesis import given
from hypothesis import strategies as st

from cpost.model import Detail, Enforced, Outcome, Resources, StepResult, Trial, Verdict
from cpost.trials import Observed, judge, longest_ns, raised, requests_of, throttled_share

SECOND = 10**9
CORES = 8
OWN = Enforced("a", Resources(1000, 256 * MB), 64 * 2**20)
SERVER = Enforced("a__s", Resources(2000, 512 * MB), 64 * 2**20)


def ran(wall_ms: float | None = 1000, periods: int | None = 0, kills: int | None = 0, **given: Any) -> StepResult:
    wall_ns = None if wall_ms is None else int(wall_ms * MS)
    return result(**{"wall_ns": wall_ns, "totals": totals(throttled_periods=periods, oom_kills=kills), **given})


def judged(run: StepResult, *servers: StepResult, baseline: int | None = SECOND, most: float = 0.1) -> Trial:
    return judge(Observed(run, usage(), None, servers), [OWN, SERVER][: 1 + len(servers)], baseline, most)


# ---------------------------------------------------------------- judged


@pytest.mark.parametrize(
    ("baseline_ms", "wall_ms", "verdict"),
    [
        (2000, 1000, Verdict.HOLDS),
        (2000, 2200, Verdict.HOLDS),
        (2000, 2201, Verdict.SLOW),
        (1000, 1100, Verdict.HOLDS),
        (1000, 1101, Verdict.SLOW),
        (50, 150, Verdict.HOLDS),  # a tenth of a second is never held against it
        (50, 151, Verdict.SLOW),
        (None, 9000, Verdict.HOLDS),
        (0, 9000, Verdict.HOLDS),
        (1000, None, Verdict.HOLDS),
    ],
)
def test_how_much_longer_it_may_take(baseline_ms: int | None, wall_ms: int | None, verdict: Verdict) -> None:
    baseline = None if baseline_ms is None else baseline_ms * MS
    trial = judged(ran(wall_ms), baseline=baseline)
    assert trial.verdict is verdict
    assert (trial.cause == "") is (verdict is Verdict.HOLDS)
    if not baseline or wall_ms is None:
        assert trial.slowdown is None
    else:
        assert trial.slowdown == pytest.approx(wall_ms * MS / baseline - 1)


def test_the_allowed_slowdown_is_a_share() -> None:
    assert judged(ran(1499), most=0.5).verdict is Verdict.HOLDS
    assert judged(ran(1501), most=0.5).verdict is Verdict.SLOW
    assert judged(ran(1150), most=0).verdict is Verdict.SLOW


@pytest.mark.parametrize(
    ("run", "cause"),
    [
        (ran(outcome=Outcome.OOM_KILLED, cause="killed for memory"), "killed for memory"),
        (ran(outcome=Outcome.FAILED, cause="exit code 3"), "exit code 3"),
        (ran(outcome=Outcome.FAILED), "failed"),
        (ran(kills=1), "a process of a was killed for memory"),
    ],
)
def test_what_does_not_end_well_is_broken_however_fast(run: StepResult, cause: str) -> None:
    trial = judged(run)
    assert (trial.verdict, trial.cause) == (Verdict.BROKEN, cause)
    assert (trial.slowdown is None) is (run.outcome is not Outcome.COMPLETED)


def test_a_run_that_was_stopped_was_too_slow_unless_something_was_killed() -> None:
    stopped = judged(ran(8000, periods=40, outcome=Outcome.TIMED_OUT))
    assert stopped.verdict is Verdict.SLOW
    assert stopped.slowdown is None
    assert stopped.cause == (
        "was stopped after 8.000 s, where it took 1.000 s without limits, "
        "held back by its CPU limit in 50 % of the time"
    )
    assert judged(ran(None, outcome=Outcome.TIMED_OUT, totals=None), baseline=None).cause == "was stopped"
    assert judged(ran(8000, kills=1, outcome=Outcome.TIMED_OUT)).verdict is Verdict.BROKEN


@pytest.mark.parametrize(
    ("limits", "baseline_s", "asked_s", "longest_s"),
    [
        (Resources(1000, MB), 10, None, 35),
        (Resources(memory_bytes=MB), 10, None, 35),
        (Resources(1000), 10, None, 3 * 8 * 10 + 5),  # an eighth of the host's cores
        (Resources(16000), 10, None, 35),
        (Resources(1000, MB), 10, 60, 35),
        (Resources(1000, MB), 10, 20, 25),
        (Resources(1000, MB), 10, 10.5, 16),  # as slow as it may be, however little of the user's time is left
        (Resources(1000, MB), None, 60, 60),
        (Resources(1000, MB), None, None, None),
    ],
)
def test_how_long_a_run_may_take(
    limits: Resources, baseline_s: int | None, asked_s: float | None, longest_s: int | None
) -> None:
    baseline, asked, longest = (
        None if each is None else int(each * SECOND) for each in (baseline_s, asked_s, longest_s)
    )
    assert longest_ns(Enforced("a", limits), baseline, 0.1, CORES, asked) == longest


def test_what_is_allowed_to_be_far_slower_is_waited_for() -> None:
    assert longest_ns(OWN, 10 * SECOND, 10.0, CORES, None) == 115 * SECOND


def test_a_kill_in_a_server_is_named() -> None:
    assert judged(ran(), ran(kills=2)).cause == "a process of a__s was killed for memory"
    assert judged(ran(), ran()).verdict is Verdict.HOLDS


def test_a_slow_run_says_what_held_it_back() -> None:
    last = sample(1, detail=Detail(psi_memory_some_us=500_000))
    trial = judge(Observed(ran(2000, periods=10), usage(), last), [OWN], SECOND, 0.1)
    assert (
        trial.cause == "took 100 % longer, held back by its CPU limit in 50 % of the time, waiting for memory in 25 %"
    )
    assert (trial.throttled_share, trial.stalled_share) == (0.5, 0.25)


@pytest.mark.parametrize("run", [ran(2000, periods=None), ran(2000, totals=None)])
def test_what_nobody_counted_is_unknown_and_not_said(run: StepResult) -> None:
    trial = judged(run)
    assert (trial.throttled_share, trial.stalled_share) == (None, None)
    assert trial.cause == "took 100 % longer"


def test_a_share_of_the_periods_is_never_more_than_all() -> None:
    assert throttled_share(ran(1000, periods=5)) == 0.5
    assert throttled_share(ran(1000, periods=99)) == 1.0
    assert throttled_share(ran(None, periods=5)) is None


# ---------------------------------------------------------------- raised


def memory(each: Enforced) -> int | None:
    return each.limits.memory_bytes


def test_memory_of_whatever_was_killed_is_raised_by_half() -> None:
    own = raised(judged(ran(outcome=Outcome.OOM_KILLED), ran()), CORES)
    assert own is not None
    assert (list(map(memory, own[0])), own[1]) == ([384 * MB, 512 * MB], "memory of a by half: killed for memory")
    server = raised(judged(ran(outcome=Outcome.FAILED, cause="no answer"), ran(outcome=Outcome.OOM_KILLED)), CORES)
    assert server is not None
    assert list(map(memory, server[0])) == [256 * MB, 768 * MB]
    assert "of a__s by half" in server[1]
    both = raised(judged(ran(kills=1), ran(kills=1)), CORES)
    assert both is not None
    assert list(map(memory, both[0])) == [384 * MB, 768 * MB]


@given(st.integers(1, 10**12))
def test_more_memory_is_at_least_half_more_in_whole_steps(before: int) -> None:
    own = replace(OWN, limits=Resources(1000, before))
    found = raised(judge(Observed(ran(kills=1), None, None), [own], SECOND, 0.1), CORES)
    assert found is not None
    after = memory(found[0][0])
    assert after is not None
    assert after % (16 * MB) == 0
    assert before * 1.5 <= after < before * 1.5 + 16 * MB + 1
    assert found[0][0] == replace(own, limits=Resources(1000, after))


def test_a_full_dev_shm_is_doubled() -> None:
    seen = usage(dev_shm_peak_bytes=int(0.96 * 64 * 2**20))
    found = raised(judge(Observed(ran(outcome=Outcome.FAILED), seen, None), [OWN], SECOND, 0.1), CORES)
    assert found == ((replace(OWN, dev_shm_bytes=2**27),), "shared memory to the double: it was full")


def test_a_failure_without_a_kill_gets_more_of_what_no_sample_may_have_seen() -> None:
    found = raised(judged(ran(outcome=Outcome.FAILED)), CORES)
    assert found is not None
    assert found[0] == (Enforced("a", Resources(1000, 384 * MB), 2**27),)
    assert "failed without being killed" in found[1]
    bare = Enforced("a", Resources(1000))
    assert raised(judge(Observed(ran(outcome=Outcome.FAILED), None, None), [bare], SECOND, 0.1), CORES) is None


@pytest.mark.parametrize(("cpu", "after"), [(250, 1250), (1000, 2000), (2000, 3000), (3000, 5000), (4000, 6000)])
def test_cpu_is_raised_by_half_and_at_least_a_core(cpu: int, after: int) -> None:
    own = replace(OWN, limits=Resources(cpu, MB))
    trial = judge(Observed(ran(2000, periods=2), usage(), None), [own], SECOND, 0.1)
    found = raised(trial, CORES)
    assert found is not None
    assert found[0][0].limits == Resources(after, MB)
    assert found[1] == "CPU by half: it was held back by its limit"


@pytest.mark.parametrize(("periods", "is_raised"), [(1, False), (2, True)])
def test_a_twentieth_of_the_periods_is_no_reason(periods: int, is_raised: bool) -> None:
    trial = judged(ran(2000, periods=periods))
    assert (raised(trial, CORES) is not None) is is_raised


@pytest.mark.parametrize(("cores", "is_raised"), [(1, False), (2, True), (None, True)])
def test_cpu_is_not_raised_above_the_host_s(cores: int | None, is_raised: bool) -> None:
    assert (raised(judged(ran(2000, periods=20)), cores) is not None) is is_raised


def test_a_timed_out_run_was_a_slow_one() -> None:
    found = raised(judged(ran(2000, periods=20, outcome=Outcome.TIMED_OUT)), CORES)
    assert found is not None
    assert found[0][0].limits.cpu_millicores == 2000
    assert raised(judged(ran(2000, outcome=Outcome.TIMED_OUT)), CORES) is None


def test_a_server_that_was_held_back_is_raised_alone() -> None:
    found = raised(judged(ran(2000), ran(2000, periods=10)), CORES)
    assert found is not None
    assert found[0] == (OWN, replace(SERVER, limits=Resources(3000, 512 * MB)))
    assert found[1] == "CPU of a__s by half: it was held back by its limit"


@pytest.mark.parametrize(
    ("peak", "stalled_us", "is_raised"),
    [(0.96, 0, True), (0.94, 0, False), (0.1, 110_000, True), (0.1, 90_000, False)],
)
def test_slow_at_the_memory_limit(peak: float, stalled_us: int, is_raised: bool) -> None:
    last = sample(1, detail=Detail(psi_memory_some_us=stalled_us))
    trial = judge(Observed(ran(2000), usage(memory=peak * 256 * MB), last), [OWN], SECOND, 0.1)
    found = raised(trial, CORES)
    assert (found is not None) is is_raised
    if found is not None:
        assert found[0][0].limits == Resources(1000, 384 * MB)


def test_where_no_limit_is_to_blame_none_is_raised() -> None:
    assert raised(judged(ran(5000)), CORES) is None
    free = judge(Observed(ran(5000, periods=40), usage(), None), [Enforced("a", Resources())], SECOND, 0.1)
    assert raised(free, CORES) is None


# ---------------------------------------------------------------- in words


@pytest.mark.parametrize(
    ("each", "text"),
    [
        (OWN, "cpu 1, memory 256.000 MB, shared memory 67.109 MB"),
        (Enforced("a", Resources(1500)), "cpu 1.5"),
        (Enforced("a", Resources(memory_bytes=MB)), "memory 1.000 MB"),
        (Enforced("a", Resources(), 2**20), "shared memory 1.049 MB"),
        (Enforced("a", Resources()), "no limits"),
    ],
)
def test_limits_in_words(each: Enforced, text: str) -> None:
    assert each.text == text


def test_gpus_are_not_limited() -> None:
    assert requests_of(OWN, Resources(5000, 1, 2)) == Resources(1000, 256 * MB, 2)
