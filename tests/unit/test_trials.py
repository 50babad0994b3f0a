"""What a run under limits says, at its bounds."""

from __future__ import annotations

from typing import Any

import pytest
from builders import MB, MS, result, sample, totals, usage

from cpost.model import Detail, Enforced, Outcome, Resources, StepResult, Trial, Verdict
from cpost.trials import Observed, judge, longest_ns, throttled_share

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


@pytest.mark.parametrize(
    "run", [ran(None, outcome=Outcome.TIMED_OUT, cause="its server s: it was not ready within 5 s")]
)
def test_what_never_began_says_why(run: StepResult) -> None:
    assert judged(run).cause == "its server s: it was not ready within 5 s"


def test_a_server_that_failed_under_its_limits_is_no_proof_of_them() -> None:
    trial = judged(ran(), ran(outcome=Outcome.FAILED, cause="exit code 1"))
    assert (trial.verdict, trial.cause) == (Verdict.BROKEN, "a__s failed")
    free = Enforced("a__s", Resources())
    assert judge(Observed(ran(), usage(), None, (ran(outcome=Outcome.FAILED),)), [OWN, free], SECOND, 0.1).verdict is (
        Verdict.HOLDS
    )


# ---------------------------------------------------------------- what runs for a set time


def for_its_time(
    run: StepResult, *servers: StepResult, most: float = 0.1, stalled_us: int | None = 0, **used: Any
) -> Trial:
    last = sample(1, detail=Detail(psi_memory_some_us=stalled_us))
    seen = Observed(run, usage(**used), last, servers)
    return judge(seen, [OWN, SERVER][: 1 + len(servers)], SECOND, most, fixed=True)


@pytest.mark.parametrize(
    ("periods", "stalled_us", "most", "verdict"),
    [
        (0, 0, 0.1, Verdict.HOLDS),
        (3, 300_000, 0.1, Verdict.HOLDS),  # of 30 periods, of 3 s
        (4, 0, 0.1, Verdict.SLOW),
        (0, 310_000, 0.1, Verdict.SLOW),
        (4, 310_000, 0.2, Verdict.HOLDS),
        (30, 0, 0.1, Verdict.SLOW),
        (None, None, 0.1, Verdict.HOLDS),
    ],
)
def test_a_set_time_is_judged_by_what_was_lost_of_it(
    periods: int | None, stalled_us: int | None, most: float, verdict: Verdict
) -> None:
    trial = for_its_time(ran(3000, periods=periods), most=most, stalled_us=stalled_us)
    assert trial.verdict is verdict
    assert trial.slowdown is None  # it took three times the time of the run without limits, which says nothing
    if verdict is Verdict.SLOW:
        assert trial.cause.startswith("ran for its set time, held back by its CPU limit in ")


def test_a_server_beside_it_is_judged_likewise() -> None:
    trial = for_its_time(ran(3000), ran(3000, periods=15))
    assert trial.verdict is Verdict.SLOW
    assert trial.cause.endswith("a__s in 50 %")


@pytest.mark.parametrize(
    ("need", "stalled_us", "verdict"),
    [(0.96, None, Verdict.SLOW), (0.94, None, Verdict.HOLDS), (0.96, 0, Verdict.HOLDS), (None, None, Verdict.HOLDS)],
)
def test_where_nobody_counts_stalls_a_need_at_the_limit_is_too_much(
    need: float | None, stalled_us: int | None, verdict: Verdict
) -> None:
    bytes_needed = None if need is None else int(need * 256 * MB)
    assert for_its_time(ran(3000), stalled_us=stalled_us, need_peak_bytes=bytes_needed).verdict is verdict


def test_a_set_time_does_not_mend_what_broke() -> None:
    assert for_its_time(ran(3000, kills=1)).verdict is Verdict.BROKEN


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
