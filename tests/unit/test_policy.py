"""Usage -> recommendation: the first cpost's figures, never below what was seen, refusals with a reason."""

from __future__ import annotations

from dataclasses import replace

import pytest
from builders import repeat, result, totals, usage
from hypothesis import given
from hypothesis import strategies as st

from cpost.model import (
    FINE,
    Advice,
    Outcome,
    Recommendation,
    Repeat,
    RepeatKind,
    Resources,
    Statistic,
    StepResult,
    Usage,
)
from cpost.model.gpu import GpuMemorySource, GpuUsage
from cpost.policy import POLICIES, for_server, recommend, recommend_worst, sized_server

MB = 10**6
BYTES = st.integers(0, 2**42)
PERCENT = st.floats(0, 100_000)


def sized(policy: str, used: Usage) -> Resources:
    made = recommend(policy, result(), used)
    assert made.status is Advice.OK
    return made.requests


def cpu_of(policy: str, percent: float) -> int:
    cores = sized(policy, usage(percent)).cpu_millicores
    assert cores is not None
    return cores


def memory_of(policy: str, peak: int, need: int | None = None) -> int:
    size = sized(policy, usage(memory=peak, need_peak_bytes=need)).memory_bytes
    assert size is not None
    return size


@pytest.mark.parametrize(
    ("peak_mb", "wanted_mb"),
    [(405.242, 512), (552.313, 768), (4455.412, 4608), (2.633, 256), (156, 256), (156.000001, 512), (0, 256)],
)
def test_memory_as_the_first_cpost_had_it(peak_mb: float, wanted_mb: int) -> None:
    assert memory_of("peak", round(peak_mb * MB)) == wanted_mb * MB


@pytest.mark.parametrize(
    ("percent", "cores"),
    [(1134.358, 12), (1097.941, 11), (100.0, 1), (100.001, 2), (99.9, 1), (0.0, 1), (100.0000000001, 1)],
)
def test_cpu_as_the_first_cpost_had_it(percent: float, cores: int) -> None:
    assert cpu_of("peak", percent) == cores * 1000


def test_a_peak_policy_also_limits_to_what_it_requests() -> None:
    made = recommend("peak", result(), usage(1134.358, 4_455_412_000))
    assert made.limits == made.requests == Resources(12_000, 4608 * MB)
    assert made.reasons == (
        "cpu: highest 200 ms window 1134.358 %, rounded up to whole cores",
        "memory: kernel peak 4455.412 MB + 100.000 MB, rounded up to 256.000 MB steps",
    )


@pytest.mark.parametrize(("policy", "cores", "share"), [("p95", 2000, 95), ("p99", 4000, 99)])
def test_a_percentile_policy_takes_its_own_figures(policy: str, cores: int, share: int) -> None:
    cpu = Statistic(average=50, maximum=900, p50=100, p95=150, p99=350)
    used = replace(usage(memory=1000 * MB, need_peak_bytes=100 * MB), cpu_pct=cpu)
    made = recommend(policy, result(), used)
    assert made == Recommendation(
        policy,
        Advice.OK,
        Resources(cores, 115 * MB),
        Resources(memory_bytes=115 * MB),  # CPU has no limit
        made.reasons,
    )
    assert f"{share} % of the time" in made.reasons[0]
    assert "need peak 100.000 MB + 15 %" in made.reasons[1]


def test_where_the_need_is_unknown_the_peak_stands_in_and_says_so() -> None:
    made = recommend("p95", result(), usage(memory=200 * MB))
    assert made.requests.memory_bytes == 230 * MB
    assert "need unknown" in made.reasons[1]


# ---------------------------------------------------------------- properties


@given(BYTES)
def test_the_peak_policy_never_goes_below_the_peak(peak: int) -> None:
    assert memory_of("peak", peak) >= peak + 100 * MB
    assert memory_of("peak", peak) < peak + 357 * MB


@pytest.mark.parametrize("policy", ["p95", "p99"])
@given(need=BYTES)
def test_percentile_policies_never_go_below_the_need(policy: str, need: int) -> None:
    size = memory_of(policy, 2 * need, need)
    assert size >= max(MB, need * 115 / 100)
    assert size <= need * 115 // 100 + 1 + MB


@pytest.mark.parametrize("policy", sorted(POLICIES))
@given(first=BYTES, second=BYTES)
def test_more_memory_used_is_never_less_recommended(policy: str, first: int, second: int) -> None:
    low, high = sorted((first, second))
    assert memory_of(policy, low, low) <= memory_of(policy, high, high)


@pytest.mark.parametrize("policy", sorted(POLICIES))
@given(percent=PERCENT)
def test_cpu_is_whole_cores_at_least_one_and_not_below_the_figure(policy: str, percent: float) -> None:
    millicores = cpu_of(policy, percent)
    assert millicores % 1000 == 0
    assert millicores >= 1000
    assert percent * 10 - 1e-6 <= millicores < max(percent * 10, 1e-6) + 1000


@pytest.mark.parametrize("policy", sorted(POLICIES))
@given(first=PERCENT, second=PERCENT)
def test_more_cpu_used_is_never_less_recommended(policy: str, first: float, second: float) -> None:
    low, high = sorted((first, second))
    assert cpu_of(policy, low) <= cpu_of(policy, high)


# ---------------------------------------------------------------- refusals


def assert_refused(made: Recommendation, *words: str) -> None:
    assert made.status is Advice.REFUSED
    assert made.requests == made.limits == Resources()
    assert len(made.reasons) == 1
    for word in words:
        assert word in made.reasons[0]


@pytest.mark.parametrize("policy", sorted(POLICIES))
@pytest.mark.parametrize("outcome", [each for each in Outcome if each is not Outcome.COMPLETED])
def test_only_an_operator_that_ended_well_is_sized(policy: str, outcome: Outcome) -> None:
    made = recommend(policy, result(outcome, cause="because"), usage())
    assert_refused(made, "(because)")
    assert made.policy == policy


def test_each_refusal_has_a_reason_of_its_own() -> None:
    reasons = {recommend("peak", result(each), usage()).reasons[0] for each in Outcome if each is not Outcome.COMPLETED}
    assert len(reasons) == len(Outcome) - 1


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_a_figure_at_the_ceiling_is_the_ceiling_s(policy: str) -> None:
    used = usage()
    figure = used.memory_bytes.maximum
    assert figure is not None
    assert_refused(recommend(policy, result(), used, int(figure)), "reached the limit")
    assert recommend(policy, result(), used, int(figure) + 1).status is Advice.OK


def test_a_memory_kill_inside_an_operator_that_ended_well() -> None:
    assert_refused(recommend("peak", result(totals=totals(oom_kills=1)), usage()), "killed for memory")


@pytest.mark.parametrize("kills", [0, None])
def test_no_known_memory_kill_is_none(kills: int | None) -> None:
    assert recommend("peak", result(totals=totals(oom_kills=kills)), usage()).status is Advice.OK


@pytest.mark.parametrize("policy", sorted(POLICIES))
@pytest.mark.parametrize(
    ("used", "words"),
    [
        (None, ["no counters"]),
        (usage(cpu=None), ["CPU could not be measured"]),
        (usage(memory=None), ["memory could not be measured"]),
        (usage(None, None), ["CPU and memory could not be measured"]),
    ],
)
def test_what_was_not_measured_is_not_recommended(policy: str, used: Usage | None, words: list[str]) -> None:
    assert_refused(recommend(policy, result(), used), *words)


def test_a_memory_kill_is_only_looked_at_after_the_outcome() -> None:
    made = recommend("peak", result(Outcome.FAILED, totals=totals(oom_kills=2)), usage())
    assert_refused(made, "the operator failed")


@pytest.mark.parametrize(
    ("peak_bytes", "size_mib"), [(0, 64), (1, 64), (50 * 2**20, 64), (100 * 2**20, 115), (2**30, 1178)]
)
@pytest.mark.parametrize("policy", POLICIES)
def test_the_size_of_dev_shm_is_recommended_where_it_is_known(policy: str, peak_bytes: int, size_mib: int) -> None:
    made = recommend(policy, result(), usage(dev_shm_peak_bytes=peak_bytes))
    assert made.dev_shm_bytes == size_mib * 2**20
    assert any("/dev/shm" in reason for reason in made.reasons) == (peak_bytes > 0)


def test_an_unknown_dev_shm_gets_no_size_and_neither_does_a_refused_operator() -> None:
    assert recommend("peak", result(), usage()).dev_shm_bytes is None
    assert recommend("peak", result(Outcome.FAILED), usage(dev_shm_peak_bytes=5)).dev_shm_bytes is None


def test_the_cache_beside_the_need_is_told() -> None:
    used = usage(memory=900 * MB, need_peak_bytes=100 * MB, cache_peak_bytes=800 * MB)
    assert (
        "memory: need peak 100.000 MB + 15 % + 32.000 MB for file cache (the rest of it, up to 768.000 MB, can go)"
        in recommend("p95", result(), used).reasons
    )


# ---------------------------------------------------------------- GPUs

ON = GpuUsage("GPU-on", used=True, memory_source=GpuMemorySource.PROCESSES, looks=100)
OFF = replace(ON, used=False)
FEW = replace(OFF, looks=19)
VAGUE = replace(OFF, memory_source=GpuMemorySource.DEVICE)
RISEN = replace(VAGUE, used=True)
RISEN_BESIDE = replace(RISEN, companions=1)


@pytest.mark.parametrize(
    ("gpus", "declared", "wanted", "because"),
    [
        ((ON, OFF), 1, 1, "held memory on"),
        ((ON, ON), 2, 2, "held memory on"),
        ((ON, OFF), 2, 1, "on 1 of the 2 declared"),
        ((ON, FEW), 2, 2, "not tell enough"),
        ((ON, VAGUE), 2, 2, "not tell enough"),
        ((OFF, OFF), 1, 1, "nothing better is known"),
        ((ON, OFF), None, 1, "held memory on"),
        ((RISEN, OFF), None, 1, "held memory on"),
        ((RISEN_BESIDE, OFF), 1, 1, "nothing better is known"),
        ((ON, RISEN_BESIDE), None, 1, "held memory on"),
        ((), 2, 2, "without any"),
    ],
)
@pytest.mark.parametrize("policy", POLICIES)
def test_gpus_to_ask_for(
    policy: str, gpus: tuple[GpuUsage, ...], declared: int | None, wanted: int, because: str
) -> None:
    made = recommend(policy, result(), usage(gpus=gpus), declared_gpus=declared)
    assert (made.requests.gpu_count, made.limits.gpu_count) == (wanted, wanted)
    assert because in made.reasons[-1]
    plain = recommend(policy, result(), usage())
    assert replace(made.requests, gpu_count=None) == plain.requests
    assert made.reasons[:-1] == plain.reasons


@pytest.mark.parametrize(("given", "because"), [(0, "it was run without any"), (2, "could not be watched")])
def test_gpus_that_nobody_could_watch_are_not_said_to_be_absent(given: int, because: str) -> None:
    alone = recommend("peak", result(), usage(), declared_gpus=2, given_gpus=given)
    several = recommend_worst("peak", runs_of([usage(), usage()]), 2, declared_gpus=2, given_gpus=given)
    for made in (alone, several):
        assert made.requests.gpu_count == 2
        assert because in made.reasons[-1]


@pytest.mark.parametrize("gpus", [(), (OFF, OFF), (RISEN_BESIDE, OFF)])
def test_whoever_neither_asks_for_a_gpu_nor_uses_one_is_told_nothing_of_gpus(gpus: tuple[GpuUsage, ...]) -> None:
    assert recommend("peak", result(), usage(gpus=gpus)) == recommend("peak", result(), usage())


def test_a_failed_operator_gets_no_number_of_gpus_either() -> None:
    made = recommend("peak", result(Outcome.FAILED, cause="exit code 1"), usage(gpus=(ON,)), declared_gpus=1)
    assert (made.status, made.requests) == (Advice.REFUSED, Resources())


# ---------------------------------------------------------------- several runs

STATISTICS = st.builds(Statistic, *[PERCENT] * 5)
USAGES = st.builds(
    lambda cpu, memory, need, dev_shm: Usage(200 * 10**6, cpu, Statistic(maximum=memory), need, None, dev_shm),
    STATISTICS,
    BYTES,
    st.none() | BYTES,
    st.none() | BYTES,
)


def runs_of(used: list[Usage]) -> list[Repeat]:
    return [repeat(number, len(used), usage=each) for number, each in enumerate(used, 1)]


def at_least(made: Resources, single: Resources) -> bool:
    pairs = ((made.cpu_millicores, single.cpu_millicores), (made.memory_bytes, single.memory_bytes))
    return all((high is None) == (low is None) and (high or 0) >= (low or 0) for high, low in pairs)


@pytest.mark.parametrize("policy", sorted(POLICIES))
@given(used=st.lists(USAGES, min_size=1, max_size=5))
def test_several_runs_get_what_the_worst_of_them_asks_for(policy: str, used: list[Usage]) -> None:
    made = recommend_worst(policy, runs_of(used), len(used))
    singles = [recommend(policy, result(), each) for each in used]
    assert made.status is Advice.OK
    for single in singles:
        assert at_least(made.requests, single.requests)
        assert at_least(made.limits, single.limits)
        assert (made.dev_shm_bytes or 0) >= (single.dev_shm_bytes or 0)
    assert made.requests.cpu_millicores in {single.requests.cpu_millicores for single in singles}
    assert made.requests.memory_bytes in {single.requests.memory_bytes for single in singles}


def test_the_reasons_name_the_repeats_that_decide() -> None:
    used = [usage(50, 900 * MB), usage(250, 100 * MB), usage(100, 300 * MB)]
    warmup = repeat(1, 1, kind=RepeatKind.WARMUP, usage=usage(900, 9000 * MB))
    made = recommend_worst("peak", [warmup, *runs_of(used)], 3)
    assert made == Recommendation(
        "peak",
        Advice.OK,
        Resources(3000, 1024 * MB),
        Resources(3000, 1024 * MB),
        (
            "cpu: highest 200 ms window 250.000 %, rounded up to whole cores (repeat 2 of 3)",
            "memory: kernel peak 900.000 MB + 100.000 MB, rounded up to 256.000 MB steps (repeat 1 of 3)",
        ),
    )


def test_each_reason_stays_with_its_figure() -> None:
    used = [usage(50, 900 * MB, dev_shm_peak_bytes=5 * MB), usage(250, 100 * MB, dev_shm_peak_bytes=600 * MB)]
    made = recommend_worst("p99", runs_of([*used, usage(100, 300 * MB)]), 3)
    assert made.dev_shm_bytes == 659 * 2**20
    reasons = {reason.partition(":")[0]: reason for reason in made.reasons}
    assert len(reasons) == len(made.reasons) == 3
    assert reasons["cpu"].endswith("(repeat 2 of 3)")
    assert reasons["memory"].endswith("(repeat 1 of 3)")
    assert reasons["shared memory (/dev/shm)"].endswith("(repeat 2 of 3)")


def test_as_many_gpus_as_the_run_that_was_on_most() -> None:
    used = [usage(gpus=(ON, OFF)), usage(gpus=(ON, ON)), usage(gpus=(OFF, ON))]
    made = recommend_worst("p95", runs_of(used), 3, declared_gpus=2)
    assert (made.requests.gpu_count, made.limits.gpu_count) == (2, 2)
    assert made.reasons[-1] == "gpu: as many as its processes held memory on (repeat 2 of 3)"
    assert recommend_worst("p95", runs_of([usage(), usage()]), 2).requests.gpu_count is None


def test_a_reason_that_is_no_figure_s_is_kept_once(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = POLICIES["peak"]
    said = {
        "peak": lambda used, steps: replace(
            made := plain(used, steps), reasons=(*made.reasons, "sampled once a second")
        )
    }
    monkeypatch.setattr("cpost.policy.POLICIES", said)
    made = recommend_worst("peak", runs_of([usage(), usage()]), 2)
    assert made.reasons[2:] == ("sampled once a second",)


def test_cpu_without_a_limit_stays_so() -> None:
    made = recommend_worst("p95", runs_of([usage(50, 900 * MB), usage(250, 100 * MB)]), 2)
    assert made.requests == Resources(3000, 1035 * MB)
    assert made.limits == Resources(memory_bytes=1035 * MB)


def test_one_measured_run_after_warm_ups_is_a_single_one() -> None:
    warmup = repeat(1, 1, kind=RepeatKind.WARMUP, usage=usage(900))
    assert recommend_worst("peak", [warmup, repeat(1, 1)], 1) == recommend("peak", result(), usage())


@pytest.mark.parametrize("kind", list(RepeatKind))
def test_a_run_that_failed_refuses_for_all(kind: RepeatKind) -> None:
    failed = repeat(2, 5, kind=kind, result=result(Outcome.FAILED, cause="exit code 3"))
    made = recommend_worst("peak", [repeat(1, 5, kind=kind), failed], 5)
    assert_refused(made, f"{failed.name}: the operator failed (exit code 3)")


@pytest.mark.parametrize(
    ("odd", "limit", "words"),
    [
        (repeat(2, usage=None), 0, "repeat 2 of 3: no counters"),
        (repeat(2, usage=usage(cpu=None)), 0, "repeat 2 of 3: CPU could not be measured"),
        (repeat(2, usage=usage(memory=5 * MB)), 5 * MB, "repeat 2 of 3: its memory reached the limit"),
        (repeat(2, result=result(totals=totals(oom_kills=1))), 0, "repeat 2 of 3: a process of the operator"),
    ],
)
def test_a_run_that_could_not_be_sized_refuses_for_all(odd: Repeat, limit: int, words: str) -> None:
    assert_refused(recommend_worst("peak", [repeat(1), odd, repeat(3)], 3, limit), words)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_fewer_runs_than_asked_for_are_not_enough(count: int) -> None:
    done = [repeat(number) for number in range(1, count + 1)]
    assert_refused(recommend_worst("peak", done, 3), f"only {count} of 3 repeats were run")


# ---------------------------------------------------------------- what was only sampled


@pytest.mark.parametrize("policy", ["peak", "p95"])
@pytest.mark.parametrize(("source", "words"), [("engine stats", "one sample a second"), ("process tree", "estimate")])
def test_a_sampled_peak_is_no_kernel_peak_and_its_doubts_are_said(policy: str, source: str, words: str) -> None:
    made = recommend(policy, result(totals=totals(source=source)), usage(memory=200 * MB, peaks_sampled=True))
    assert made.status is Advice.OK
    assert "highest sample" in made.reasons[1]
    assert words in made.reasons[2]
    assert not any("kernel peak" in reason for reason in made.reasons)


@pytest.mark.parametrize(("share", "said"), [(None, False), (0.2, False), (0.21, True)])
def test_a_recommendation_of_a_busy_host_says_so(share: float | None, said: bool) -> None:
    made = recommend("peak", result(), usage(others_cpu_share=share))
    assert any("the host was busy with other work" in reason for reason in made.reasons) == said


def test_exact_totals_leave_no_doubt() -> None:
    assert len(recommend("peak", result(totals=totals()), usage()).reasons) == 2
    refused = recommend("peak", result(totals=totals(source="engine stats")), usage(memory=None))
    assert (refused.status, len(refused.reasons)) == (Advice.REFUSED, 1)


# ---------------------------------------------------------------- servers


@pytest.mark.parametrize("policy", POLICIES)
def test_a_server_is_sized_by_the_cpu_of_its_load_and_the_memory_of_its_life(policy: str) -> None:
    whole, load = usage(780.0, 900 * MB, need_peak_bytes=900 * MB), usage(150.0, 300 * MB, window_ns=5)
    used = sized_server(whole, load)
    assert used == replace(whole, cpu_pct=load.cpu_pct, window_ns=5)
    made = for_server(recommend(policy, result(), used), load)
    assert made.requests.cpu_millicores == 2000
    assert made.requests.memory_bytes is not None
    assert made.requests.memory_bytes >= 1000 * MB
    assert made.reasons[-1].startswith("a server: CPU while its operator ran; memory over its whole life")


def test_a_server_without_a_load_is_sized_by_its_whole_life_and_says_so() -> None:
    used = sized_server(usage(780.0), None)
    assert used == usage(780.0)
    made = for_server(recommend("peak", result(), used), None)
    assert made.requests.cpu_millicores == 8000
    assert made.reasons[-1].startswith("a server: CPU and memory over its whole life")
    assert sized_server(None, usage()) is None


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (result(Outcome.FAILED, cause="model m: the operator"), "the server failed (model m: the operator)"),
        (result(totals=totals(oom_kills=1)), "a process of the server was killed for memory: its real need was"),
        (result(Outcome.TIMED_OUT), "its time was up before its end"),
    ],
)
def test_a_refusal_of_a_server_is_in_words_of_a_server(how: StepResult, said: str) -> None:
    made = for_server(recommend("peak", how, usage()), usage())
    assert_refused(made, said)
    assert len(made.reasons) == 1


def test_other_formats_have_finer_steps() -> None:
    used = usage(12.34, 20 * MB)
    made = {name: recommend(name, result(), used, steps=FINE).requests for name in ("p95", "peak")}
    assert made == {"p95": Resources(130, 32 * 2**20), "peak": Resources(130, 128 * 2**20)}
    assert "rounded up to steps of 10m" in recommend("p95", result(), used, steps=FINE).reasons[0]
    assert recommend_worst("p95", runs_of([used, used]), 2, steps=FINE).requests == made["p95"]
