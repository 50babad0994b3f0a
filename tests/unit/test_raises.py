"""Which limit is raised by how much after a run that did not hold, what is tried again, and what comes of it all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from builders import MB, MS, result, sample, totals, usage
from hypothesis import given
from hypothesis import strategies as st

from cpost.model import Detail, Enforced, Outcome, Resources, StepResult, Trial
from cpost.model.definition import FINE, WHOLE_CORES
from cpost.raises import MOST_TRIALS, lasting, next_try, raised
from cpost.trials import Observed, judge

SECOND = 10**9
MIB = 2**20
CORES = 8
OWN = Enforced("a", Resources(1000, 256 * MB), 64 * MIB)
SERVER = Enforced("a__s", Resources(2000, 512 * MB), 64 * MIB)


def ran(wall_ms: float | None = 1000, periods: int | None = 0, kills: int | None = 0, **given: Any) -> StepResult:
    wall_ns = None if wall_ms is None else int(wall_ms * MS)
    peak = given.pop("peak", None)
    counted = totals(throttled_periods=periods, oom_kills=kills, memory_peak_bytes=peak)
    return result(**{"wall_ns": wall_ns, "totals": counted, **given})


def failed(**given: Any) -> StepResult:
    return ran(outcome=Outcome.FAILED, cause="exit code 3", **given)


def tried(
    run: StepResult, *servers: StepResult, own: Enforced = OWN, stalled_us: int | None = None, **used: Any
) -> Trial:
    last = sample(1, detail=Detail(psi_memory_some_us=stalled_us))
    return judge(Observed(run, usage(**used), last, servers), [own, SERVER][: 1 + len(servers)], SECOND, 0.1)


def memory(each: Enforced) -> int | None:
    return each.limits.memory_bytes


# ---------------------------------------------------------------- killed


@pytest.mark.parametrize(
    ("own", "server", "after", "names"),
    [
        (ran(outcome=Outcome.OOM_KILLED), ran(), [384, 512], "a"),
        (failed(), ran(outcome=Outcome.OOM_KILLED), [256, 768], "a__s"),
        (ran(kills=1), ran(kills=1), [384, 768], "a, a__s"),
    ],
)
def test_memory_of_whatever_was_killed_is_raised_by_half(
    own: StepResult, server: StepResult, after: list[int], names: str
) -> None:
    found = raised(tried(own, server), CORES)
    assert found is not None
    assert list(map(memory, found[0])) == [each * MB for each in after]
    assert found[1] == f"raised: memory of {names} by half: killed for memory"


@pytest.mark.parametrize("steps", [WHOLE_CORES, FINE])
@given(before=st.integers(1, 10**12))
def test_more_memory_is_at_least_half_more_in_steps_of_the_format(steps: Any, before: int) -> None:
    own = replace(OWN, limits=Resources(1000, before))
    found = raised(tried(ran(kills=1), own=own), CORES, steps)
    assert found is not None
    after = memory(found[0][0])
    assert after is not None
    assert after % steps.memory_step_bytes == 0
    assert before * 1.5 <= after < before * 1.5 + 17 * MB
    assert found[0][0] == replace(own, limits=Resources(1000, after))


# ---------------------------------------------------------------- slow


@pytest.mark.parametrize(
    ("cpu", "whole", "fine"),
    [(10, 1000, 110), (250, 1000, 380), (1000, 2000, 1500), (2000, 3000, 3000), (3000, 5000, 4500)],
)
def test_cpu_is_raised_by_half_in_steps_of_the_format(cpu: int, whole: int, fine: int) -> None:
    trial = tried(ran(2000, periods=2), own=replace(OWN, limits=Resources(cpu, MB)))
    for steps, after in ((WHOLE_CORES, whole), (FINE, fine)):
        found = raised(trial, CORES, steps)
        assert found is not None
        assert found[0][0].limits == Resources(after, MB)
        assert found[1] == "raised: CPU of a by half: held back by its limit"


@pytest.mark.parametrize(("periods", "is_raised"), [(1, False), (2, True)])
def test_a_twentieth_of_the_periods_is_no_reason(periods: int, is_raised: bool) -> None:
    trial = tried(ran(2000, periods=periods))
    assert (raised(trial, CORES) is not None) is is_raised
    assert raised(trial, CORES, short_share=0.04) is not None


@pytest.mark.parametrize(("cores", "is_raised"), [(1, False), (2, True), (None, True)])
def test_cpu_is_not_raised_above_the_host_s(cores: int | None, is_raised: bool) -> None:
    assert (raised(tried(ran(2000, periods=20)), cores) is not None) is is_raised


def test_a_run_that_was_stopped_was_a_slow_one() -> None:
    found = raised(tried(ran(2000, periods=20, outcome=Outcome.TIMED_OUT)), CORES)
    assert found is not None
    assert found[0][0].limits.cpu_millicores == 2000
    assert raised(tried(ran(2000, outcome=Outcome.TIMED_OUT)), CORES) is None


def test_whatever_was_held_back_gets_more_and_nothing_else() -> None:
    more = replace(SERVER, limits=Resources(3000, 512 * MB))
    server = raised(tried(ran(2000), ran(2000, periods=10)), CORES)
    assert server == ((OWN, more), "raised: CPU of a__s by half: held back by its limit")
    both = raised(tried(ran(2000, periods=2), ran(2000, periods=10)), CORES)
    assert both is not None
    assert both[0] == (replace(OWN, limits=Resources(2000, 256 * MB)), more)


@pytest.mark.parametrize(
    ("peak", "stalled_us", "is_raised"),
    [
        (0.96, None, True),
        (0.94, None, False),
        (0.96, 0, False),  # where stalls are counted, a limit full of cache is no want
        (0.1, 110_000, True),
        (0.1, 90_000, False),
    ],
)
def test_slow_for_want_of_memory(peak: float, stalled_us: int | None, is_raised: bool) -> None:
    found = raised(tried(ran(2000), stalled_us=stalled_us, memory=peak * 256 * MB), CORES)
    assert (found is not None) is is_raised
    if found is not None:
        assert found[0][0].limits == Resources(1000, 384 * MB)


@pytest.mark.parametrize(("peak", "is_raised"), [(0.96, True), (0.94, False)])
def test_slow_beside_a_server_at_its_memory_limit(peak: float, is_raised: bool) -> None:
    found = raised(tried(ran(2000), ran(2000, peak=int(peak * 512 * MB)), stalled_us=0), CORES)
    assert (found is not None) is is_raised
    if found is not None:
        assert list(map(memory, found[0])) == [256 * MB, 768 * MB]


def test_where_no_limit_is_to_blame_none_is_raised() -> None:
    assert raised(tried(ran(5000)), CORES) is None
    assert raised(tried(ran(5000, periods=40), own=Enforced("a", Resources())), CORES) is None


# ---------------------------------------------------------------- failed


def test_what_failed_at_its_memory_limit_gets_more() -> None:
    found = raised(tried(failed(), memory=0.96 * 256 * MB), CORES)
    assert found == (
        (replace(OWN, limits=Resources(1000, 384 * MB)),),
        "raised: memory of a by half: it failed at its limit",
    )


def test_what_failed_and_had_used_dev_shm_gets_the_double() -> None:
    found = raised(tried(failed(), dev_shm_peak_bytes=4096), CORES)
    assert found is not None
    assert found[0] == (replace(OWN, dev_shm_bytes=128 * MIB),)


def test_what_failed_for_no_reason_that_shows_is_tried_once_more_then_raised() -> None:
    first = tried(failed(), dev_shm_peak_bytes=0)
    assert raised(first, CORES) is None
    again = next_try([first], CORES)
    assert again == ((OWN,), "tried again: nothing shows that it lacked anything")
    blind = next_try([first, first], CORES)
    assert blind is not None
    assert blind[0] == (Enforced("a", Resources(1000, 384 * MB), 128 * MIB),)
    assert blind[1].endswith("it failed twice without being killed")
    bare = tried(failed(), own=Enforced("a", Resources(1000)))
    assert next_try([bare, bare], CORES) is None


def test_a_server_that_failed_is_to_blame_for_its_operator() -> None:
    trial = tried(failed(), failed(peak=0), memory=256 * MB, dev_shm_peak_bytes=64 * MIB)
    assert raised(trial, CORES) is None  # what the operator was at its limit of is not why it failed
    blind = next_try([trial, trial], CORES)
    assert blind is not None
    assert blind[0] == (OWN, Enforced("a__s", Resources(2000, 768 * MB), 128 * MIB))
    at_limit = raised(tried(failed(), failed(peak=512 * MB)), CORES)
    assert at_limit is not None
    assert list(map(memory, at_limit[0])) == [256 * MB, 768 * MB]


# ---------------------------------------------------------------- one try after the other


def test_nothing_follows_what_holds_and_nothing_the_last_try() -> None:
    killed = tried(ran(kills=1))
    assert next_try([tried(ran())], CORES) is None
    assert next_try([killed] * (MOST_TRIALS - 1), CORES) is not None
    assert next_try([killed] * MOST_TRIALS, CORES) is None


def test_what_is_slow_for_no_limit_s_sake_is_tried_once_more_and_only_once() -> None:
    slow = tried(ran(5000))
    assert next_try([slow], CORES) == ((OWN,), "tried again: no limit held it back, the host may have been busy")
    assert next_try([slow, slow], CORES) is None


def test_raises_that_changed_nothing_are_taken_back() -> None:
    more, most = (replace(OWN, limits=Resources(1000, each * MB)) for each in (384, 576))
    first, again, third, last = tried(failed()), tried(failed()), tried(failed(), own=more), tried(failed(), own=most)
    assert lasting([first, again, third, last]) == (OWN,)
    assert lasting([tried(ran(kills=1)), tried(failed(), own=more), tried(failed(), own=most)]) == (more,)
    assert lasting([first, again, tried(ran(), own=more)]) == (more,)
    assert lasting([tried(ran(kills=1)), tried(ran(kills=1), own=more)]) == (more,)
