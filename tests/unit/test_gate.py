"""The gate: declared against needed at the exact bounds, growth against a baseline, and what cannot be judged."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from builders import MB, REFUSED, advice, record, repeat, result, run, totals, usage
from hypothesis import given
from hypothesis import strategies as st

from cpost.gate import check
from cpost.model import (
    ALL_GPUS,
    ENGINE_STATS,
    LAST_SAMPLE,
    PROCESS_TREE,
    Bounds,
    Check,
    Declared,
    GateReport,
    GpuUsage,
    OperatorRecord,
    Origin,
    Outcome,
    Repeat,
    Resources,
    Rule,
    Ruling,
    Run,
    ServerKind,
    ServerRecord,
    Statistic,
    Verdict,
)
from cpost.units import MIB

PASSED, FAILED, SKIPPED = Ruling.PASSED, Ruling.FAILED, Ruling.SKIPPED
NOTHING, USUAL = Resources(), Bounds()
ORIGIN = Origin("p.yaml", 7, 3)


def whole(*records: OperatorRecord, **given: Any) -> Run:
    return run(*records, **{"complete": True, **given})


def found(report: GateReport, rule: Rule, subject: str = "a") -> Check:
    (one,) = [each for each in report.checks if (each.subject, each.rule) == (subject, rule)]
    return one


def judged(declared: Resources, limits: Resources = NOTHING, bounds: Bounds = USUAL, **given: Any) -> GateReport:
    """One operator that declares this in a file; it needs one core and 100 MB unless told otherwise."""
    stated = {"usage": usage(100.0, 300 * MB, need_peak_bytes=100 * MB), **given}
    return check(whole(record(**stated)), bounds, {"a": Declared(declared, limits, ORIGIN)})


# ---------------------------------------------------------------- requests and limits


@pytest.mark.parametrize(
    ("memory", "verdict"),
    [
        (100 * MB - 1, FAILED),
        (100 * MB, PASSED),
        (300 * MB, PASSED),
        (300 * MB + 1, FAILED),
    ],
)
def test_a_memory_request_is_held_against_the_need(memory: int, verdict: Ruling) -> None:
    one = found(judged(Resources(memory_bytes=memory)), Rule.MEMORY_REQUEST)
    assert (one.verdict, one.declared, one.needed, one.recommended) == (verdict, memory, 100 * MB, 256 * MB)
    assert "100.000 MB (need peak) needed" in one.text
    assert ("recommended: 256.000 MB" in one.text) == (verdict is FAILED)
    assert one.origin == ORIGIN


@pytest.mark.parametrize(("cpu", "verdict"), [(1859, FAILED), (1860, PASSED), (5580, PASSED), (5581, FAILED)])
def test_a_cpu_request_is_held_against_p95(cpu: int, verdict: Ruling) -> None:
    rates = Statistic(150.0, 400.0, 160.0, 186.0, 300.0)
    one = found(judged(Resources(cpu), usage=replace(usage(), cpu_pct=rates)), Rule.CPU_REQUEST)
    assert (one.verdict, one.needed) == (verdict, 1860)
    assert "1.86 CPU (p95 of 0.200 s windows) needed" in one.text


@pytest.mark.parametrize(("which", "needed"), [("average", 1500), ("p95", 1860), ("p99", 3000), ("maximum", 4000)])
def test_another_rate_may_be_what_is_needed(which: str, needed: int) -> None:
    rates = Statistic(150.0, 400.0, 160.0, 186.0, 300.0)
    report = judged(Resources(needed - 1), bounds=Bounds(cpu_need=which), usage=replace(usage(), cpu_pct=rates))
    assert (found(report, Rule.CPU_REQUEST).verdict, found(report, Rule.CPU_REQUEST).needed) == (FAILED, needed)


@given(
    need=st.integers(0, 2**45),
    declared=st.integers(0, 2**47),
    recommended=st.integers(1, 2**45),
    over=st.fractions(1, 100),
)
def test_too_little_and_too_much(need: int, declared: int, recommended: int, over: Fraction) -> None:
    report = judged(
        Resources(memory_bytes=declared),
        bounds=Bounds(max_over=over),
        usage=usage(need_peak_bytes=need),
        recommendation=advice(memory=recommended),
    )
    fits = need <= declared <= max(over * need, recommended, need + 64 * MIB)
    assert (found(report, Rule.MEMORY_REQUEST).verdict is PASSED) == fits
    assert report.failed == (not fits)


@pytest.mark.parametrize(
    ("cpu", "memory", "verdict"), [(120, 6 * MB + 64 * MIB, PASSED), (121, 6 * MB + 64 * MIB + 1, FAILED)]
)
def test_what_is_little_in_itself_is_never_too_much(cpu: int, memory: int, verdict: Ruling) -> None:
    tiny = usage(2.0, 6 * MB, need_peak_bytes=6 * MB)
    report = judged(Resources(cpu, memory), usage=tiny, recommendation=advice(10, 16 * MIB))
    assert found(report, Rule.CPU_REQUEST).verdict is found(report, Rule.MEMORY_REQUEST).verdict is verdict


def test_what_is_recommended_is_never_too_much() -> None:
    small = usage(3.0, 5 * MB, need_peak_bytes=2 * MB)
    assert not judged(Resources(1000, 256 * MB), usage=small).failed
    assert found(judged(Resources(1001), usage=small), Rule.CPU_REQUEST).verdict is FAILED
    assert found(judged(Resources(1000, 256 * MB + 1), usage=small), Rule.MEMORY_REQUEST).verdict is FAILED


@pytest.mark.parametrize("sampled", [True, False])
def test_where_the_need_is_unknown_the_peak_stands_in(sampled: bool) -> None:
    peaked = usage(memory=300 * MB, peaks_sampled=sampled)
    report = judged(Resources(memory_bytes=300 * MB - 1), usage=peaked)
    one = found(report, Rule.MEMORY_REQUEST)
    assert (one.verdict, one.needed) == (FAILED, 300 * MB)
    assert ("highest sample" if sampled else "kernel peak") + ", need unknown" in one.text
    assert not judged(Resources(memory_bytes=300 * MB), usage=peaked).failed


def test_a_limit_may_be_generous_but_not_too_little() -> None:
    roomy = judged(Resources(), Resources(64_000, 64_000 * MB))
    assert [each.verdict for each in roomy.checks if each.rule in (Rule.CPU_LIMIT, Rule.MEMORY_LIMIT)] == [PASSED] * 2
    tight = judged(Resources(), Resources(999, 100 * MB - 1))
    assert found(tight, Rule.CPU_LIMIT).verdict is FAILED
    assert found(tight, Rule.MEMORY_LIMIT).verdict is FAILED
    assert not judged(Resources(), Resources(1000, 100 * MB)).failed


@pytest.mark.parametrize(("limits", "shown"), [(Resources(3000, 7), (3000, 7)), (Resources(), (1000, 256 * MB))])
def test_for_a_limit_the_recommended_limit_is_shown(limits: Resources, shown: tuple[int, int]) -> None:
    report = judged(NOTHING, Resources(1, 1), recommendation=replace(advice(), limits=limits))
    assert (found(report, Rule.CPU_LIMIT).recommended, found(report, Rule.MEMORY_LIMIT).recommended) == shown


def test_what_is_not_declared_is_skipped() -> None:
    report = judged(Resources(1000))
    assert not report.failed
    assert found(report, Rule.MEMORY_REQUEST).verdict is SKIPPED
    assert found(report, Rule.MEMORY_REQUEST).text == "not declared; recommended: 256.000 MB"
    assert {each.rule for each in report.checks}.isdisjoint({Rule.CPU_LIMIT, Rule.MEMORY_LIMIT, Rule.GPU_REQUEST})
    bare = check(whole(record()), USUAL)
    assert (found(bare, Rule.DECLARED).verdict, bare.failed) == (SKIPPED, False)


def test_the_record_declares_where_no_file_does() -> None:
    small = record(declared=Resources(memory_bytes=MB - 1))
    assert found(check(whole(small), USUAL), Rule.MEMORY_REQUEST).verdict is FAILED
    tight = record(declared_limits=Resources(500, MB - 1))
    report = check(whole(replace(tight, servers=(server(declared_limits=Resources(500, MB - 1)),))), USUAL)
    for subject in ("a", "a__svc"):
        assert found(report, Rule.CPU_LIMIT, subject).verdict is FAILED
        assert found(report, Rule.MEMORY_LIMIT, subject).verdict is FAILED
    assert not check(whole(small), USUAL, {"a": Declared(Resources(memory_bytes=MB))}).failed


def test_of_a_lower_bound_nobody_knows_whether_a_request_is_too_much() -> None:
    seen = result(totals=totals(source=ENGINE_STATS))
    much = judged(Resources(8000, 8000 * MB), result=seen)
    assert not much.failed
    assert found(much, Rule.CPU_REQUEST).verdict is found(much, Rule.MEMORY_REQUEST).verdict is SKIPPED
    assert ">= 100.000 MB" in found(much, Rule.MEMORY_REQUEST).text
    little = judged(Resources(999, 100 * MB - 1), result=seen)
    assert found(little, Rule.CPU_REQUEST).verdict is found(little, Rule.MEMORY_REQUEST).verdict is FAILED


@pytest.mark.parametrize(("tail_ns", "verdict"), [(9 * 10**9, SKIPPED), (10**7, FAILED)])
def test_where_the_end_was_not_seen_more_may_be_needed(tail_ns: int, verdict: Ruling) -> None:
    seen = result(wall_ns=10**10, totals=totals(source=LAST_SAMPLE, tail_ns=tail_ns))
    much = judged(Resources(8000, 8000 * MB), result=seen)
    assert found(much, Rule.CPU_REQUEST).verdict is found(much, Rule.MEMORY_REQUEST).verdict is verdict
    assert (">= 1 CPU (p95" in found(much, Rule.CPU_REQUEST).text) == (verdict is SKIPPED)
    assert (">= 100.000 MB (need peak)" in found(much, Rule.MEMORY_REQUEST).text) == (verdict is SKIPPED)


def test_of_a_lower_bound_nobody_knows_whether_a_request_is_enough() -> None:
    seen = result(totals=totals(source=ENGINE_STATS))
    right = judged(Resources(1000, 100 * MB), Resources(1000, 100 * MB), result=seen)
    for rule in (Rule.CPU_REQUEST, Rule.MEMORY_REQUEST, Rule.CPU_LIMIT, Rule.MEMORY_LIMIT):
        one = found(right, rule)
        assert one.verdict is SKIPPED
        assert one.text.endswith("as much as was seen, but more may be needed (not all of its life was seen)")


@pytest.mark.parametrize(("share", "verdict"), [(None, FAILED), (0.2, FAILED), (0.21, SKIPPED)])
def test_on_a_busy_host_the_cpu_that_is_needed_is_a_lower_bound(share: float | None, verdict: Ruling) -> None:
    stated = {"usage": usage(31.0, 300 * MB, need_peak_bytes=100 * MB, others_cpu_share=share)}
    much = judged(Resources(8000, 8000 * MB), **stated)
    cpu, memory = found(much, Rule.CPU_REQUEST), found(much, Rule.MEMORY_REQUEST)
    assert (cpu.verdict, memory.verdict) == (verdict, FAILED)
    assert (">= 0.31 CPU" in cpu.text) == (verdict is SKIPPED)
    assert ">=" not in memory.text
    little = judged(Resources(309), **stated)
    assert found(little, Rule.CPU_REQUEST).verdict is FAILED
    enough = found(judged(Resources(310), **stated), Rule.CPU_REQUEST)
    assert enough.verdict is (SKIPPED if verdict is SKIPPED else PASSED)
    assert ("(21% of the host's CPUs were busy with other work)" in enough.text) == (verdict is SKIPPED)


def test_growth_from_a_lower_bound_may_be_none() -> None:
    def side(cpu: float, share: float) -> Run:
        return whole(record(usage=usage(cpu, others_cpu_share=share), result=result(totals=totals(10**6))))

    grown = check(side(100.0, 0.0), USUAL, baseline=side(31.0, 0.9))
    assert found(grown, Rule.CPU_GROWTH).verdict is SKIPPED
    assert "the baseline may have used as much" in found(grown, Rule.CPU_GROWTH).text
    assert found(check(side(100.0, 0.9), USUAL, baseline=side(31.0, 0.0)), Rule.CPU_GROWTH).verdict is FAILED
    assert found(grown, Rule.CPU_TIME_GROWTH).verdict is PASSED


# ---------------------------------------------------------------- one place for several


def uses(declared: int, *needs: int, **given: Any) -> GateReport:
    """Operators a, b, ... that are uses of one template, and need so many MB; twice that is recommended."""
    records = [
        record(
            name,
            usage=usage(1.0, need * MB, need_peak_bytes=need * MB),
            recommendation=advice(10, 2 * need * MB),
            declared=Resources(10, declared * MB),
            site="work",
            **given,
        )
        for name, need in zip("abc", needs, strict=False)
    ]
    return check(whole(*records), USUAL)


def test_a_place_is_held_to_the_most_that_any_of_its_uses_needs() -> None:
    apart = uses(600, 20, 300)
    assert not apart.failed
    assert found(apart, Rule.MEMORY_REQUEST, "a").verdict is PASSED
    assert (found(apart, Rule.MEMORY_REQUEST, "a").site, found(apart, Rule.MEMORY_REQUEST, "a").recommended) == (
        "work",
        600 * MB,
    )
    little = uses(299, 20, 300)
    assert found(little, Rule.MEMORY_REQUEST, "a").verdict is PASSED
    assert found(little, Rule.MEMORY_REQUEST, "b").verdict is FAILED
    much = uses(901, 20, 300)
    for name in "ab":
        assert found(much, Rule.MEMORY_REQUEST, name).verdict is FAILED
        assert found(much, Rule.MEMORY_REQUEST, name).text.endswith("recommended: 600.000 MB")


def test_what_an_unknown_use_needs_is_never_too_much() -> None:
    records = [
        record("a", usage=usage(1.0, 20 * MB), declared=Resources(memory_bytes=900 * MB), site="work"),
        record("b", usage=None, recommendation=REFUSED, declared=Resources(memory_bytes=900 * MB), site="work"),
    ]
    report = check(whole(*records), USUAL)
    assert found(report, Rule.MEMORY_REQUEST, "a").verdict is PASSED
    assert found(report, Rule.MEASURED, "b").verdict is FAILED
    alone = check(whole(replace(records[0], site="")), USUAL)
    assert found(alone, Rule.MEMORY_REQUEST, "a").verdict is FAILED


def test_a_doubt_about_one_use_is_one_about_the_place() -> None:
    first, second = (
        record(name, usage=usage(31.0, others_cpu_share=share), declared=Resources(8000), site="work")
        for name, share in (("a", 0.0), ("b", 0.9))
    )
    report = check(whole(first, second), USUAL)
    assert found(report, Rule.CPU_REQUEST, "a").verdict is found(report, Rule.CPU_REQUEST, "b").verdict is SKIPPED
    assert found(check(whole(first), USUAL), Rule.CPU_REQUEST, "a").verdict is FAILED


# ---------------------------------------------------------------- what the file says


def test_a_misspelt_key_is_told_whatever_else_is_found() -> None:
    doubts = (('unknown key "memroy" in requests: did you mean "memory"?', Origin("p.yaml", 3, 9)),)
    for wanted in (Declared(Resources(1000), doubts=doubts), Declared(doubts=doubts)):
        one = found(check(whole(record()), USUAL, {"a": wanted}), Rule.DECLARED)
        assert (one.verdict, one.text, one.origin) == (SKIPPED, *doubts[0])


def test_an_amount_is_told_at_its_own_place() -> None:
    wanted = Declared(Resources(1, 1), origin=ORIGIN, site="svc", origins={Rule.MEMORY_REQUEST: Origin("p.yaml", 9, 5)})
    report = check(whole(record()), USUAL, {"a": wanted})
    assert found(report, Rule.MEMORY_REQUEST).origin == Origin("p.yaml", 9, 5)
    assert found(report, Rule.CPU_REQUEST).origin == ORIGIN
    assert found(report, Rule.MEMORY_REQUEST).site == "svc"
    assert found(check(whole(record()), USUAL, {"a": replace(wanted, site="a")}), Rule.MEMORY_REQUEST).site == ""


def test_amounts_are_said_in_the_unit_that_they_are_written_in() -> None:
    one = found(judged(Resources(memory_bytes=64 * MIB), recommendation=advice(10, 144 * MIB)), Rule.MEMORY_REQUEST)
    assert one.text == "64Mi declared, 100.000 MB (need peak) needed: too little; recommended: 144Mi"


def test_an_estimate_is_marked() -> None:
    report = judged(Resources(memory_bytes=100 * MB), result=result(totals=totals(source=PROCESS_TREE)))
    assert "~ 100.000 MB" in found(report, Rule.MEMORY_REQUEST).text


@pytest.mark.parametrize(("count", "verdict"), [(2, PASSED), (3, PASSED), (4, FAILED)])
def test_gpus_on_which_it_was_never_seen_are_too_many(count: int, verdict: Ruling) -> None:
    ok = replace(advice(), requests=Resources(1000, 256 * MB, 1))
    seen = usage(gpus=(GpuUsage("x", used=True), *[GpuUsage("y")] * (count - 1)))
    report = judged(Resources(gpu_count=count), usage=seen, recommendation=ok)
    assert found(report, Rule.GPU_REQUEST).verdict is verdict


@pytest.mark.parametrize(
    ("count", "verdict", "said"),
    [
        (0, FAILED, "0 GPU declared, 1 GPU (those that it was seen on) needed: too little; recommended: 1 GPU"),
        (None, SKIPPED, "not declared; recommended: 1 GPU"),
    ],
)
def test_an_operator_that_was_seen_on_a_gpu_has_to_declare_it(count: int | None, verdict: Ruling, said: str) -> None:
    ok = replace(advice(), requests=Resources(1000, 256 * MB, 1))
    seen = usage(gpus=(GpuUsage("x", used=True),))
    one = found(judged(Resources(1000, gpu_count=count), usage=seen, recommendation=ok), Rule.GPU_REQUEST)
    assert (one.verdict, one.text, one.needed) == (verdict, said, 1)


@pytest.mark.parametrize("count", [0, None])
def test_of_an_operator_that_neither_asks_for_gpus_nor_uses_any_nothing_is_said(count: int | None) -> None:
    report = judged(Resources(1000, gpu_count=count), usage=usage(gpus=(GpuUsage("x"),)))
    assert not [each for each in report.checks if each.rule is Rule.GPU_REQUEST]


def test_all_gpus_are_no_number() -> None:
    seen = usage(gpus=(GpuUsage("x", used=True),))
    ok = replace(advice(), requests=Resources(1000, 256 * MB, 1))
    report = judged(Resources(gpu_count=ALL_GPUS), usage=seen, recommendation=ok)
    assert not [each for each in report.checks if each.rule is Rule.GPU_REQUEST]
    assert not report.failed


def test_an_operator_that_was_seen_on_no_gpu_may_need_it_all_the_same() -> None:
    ok = replace(advice(), requests=Resources(1000, 256 * MB, 1))
    report = judged(Resources(gpu_count=1), usage=usage(gpus=(GpuUsage("x"),)), recommendation=ok)
    assert found(report, Rule.GPU_REQUEST).verdict is SKIPPED
    assert "seen on none" in found(report, Rule.GPU_REQUEST).text


# ---------------------------------------------------------------- what cannot be said to be fine


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"recommendation": REFUSED, "result": result(Outcome.FAILED)}, "the operator failed"),
        ({"usage": None}, "no counters could be read"),
        (
            {"recommendation": replace(advice(), verified=Verdict.BROKEN)},
            "it failed when it was run under what is recommended for it",
        ),
        ({"recommendation": replace(REFUSED, reasons=("reached the limit",))}, "reached the limit"),
    ],
)
def test_an_operator_without_a_recommendation_fails_the_gate(given: dict[str, Any], reason: str) -> None:
    report = judged(Resources(1000, 100 * MB), **given)
    one = found(report, Rule.MEASURED)
    assert (one.verdict, one.text, one.origin) == (FAILED, f"nothing can be said of it: {reason}", ORIGIN)
    assert [each.rule for each in report.checks if each.subject == "a"] == [Rule.MEASURED]


@pytest.mark.parametrize("verdict", [Verdict.HOLDS, Verdict.SLOW, None])
def test_what_did_not_fail_under_its_recommendation_is_judged_as_ever(verdict: Verdict | None) -> None:
    assert not judged(Resources(1000, 100 * MB), recommendation=replace(advice(), verified=verdict)).failed


def test_a_figure_that_was_not_read_fails_the_gate() -> None:
    blind = replace(usage(), cpu_pct=Statistic(100.0, 100.0), memory_bytes=Statistic())
    report = judged(Resources(1000, MB), usage=blind)
    assert "1 CPU declared, and its CPU rate could not be measured" in found(report, Rule.CPU_REQUEST).text
    assert found(report, Rule.CPU_REQUEST).verdict is found(report, Rule.MEMORY_REQUEST).verdict is FAILED


@pytest.mark.parametrize(
    ("declared", "verdict"),
    [
        (Declared(Resources(1000), origin=ORIGIN), FAILED),
        (Declared(limits=Resources(1000), origin=ORIGIN), FAILED),
        (Declared(origin=ORIGIN), SKIPPED),
    ],
)
def test_what_the_file_has_and_the_run_has_not_is_named(declared: Declared, verdict: Ruling) -> None:
    report = check(whole(record()), USUAL, {"b": declared})
    assert (found(report, Rule.MEASURED, "b").verdict, report.failed) == (verdict, verdict is FAILED)
    assert found(report, Rule.MEASURED, "b").origin == ORIGIN


def test_what_the_run_has_and_the_file_has_not_is_named() -> None:
    report = check(whole(record(declared=Resources(memory_bytes=1))), USUAL, {})
    assert found(report, Rule.DECLARED).verdict is SKIPPED
    assert not report.failed


def test_where_nothing_was_measured_nothing_passes() -> None:
    report = check(whole(), USUAL)
    assert found(report, Rule.COMPLETE, "run").verdict is PASSED
    assert found(report, Rule.MEASURED, "run").verdict is FAILED
    assert report.failed
    shared = check(whole(servers=(server(),)), USUAL)
    assert not [each for each in shared.checks if each.subject == "run" and each.rule is Rule.MEASURED]


def test_a_partial_run_fails_the_gate() -> None:
    report = check(run(record(), complete=False, stopped_by="SIGTERM"), USUAL)
    assert found(report, Rule.COMPLETE, "run").verdict is FAILED
    assert "SIGTERM" in found(report, Rule.COMPLETE, "run").text
    assert found(check(whole(record()), USUAL), Rule.COMPLETE, "run").verdict is PASSED


# ---------------------------------------------------------------- servers


def server(**given: Any) -> ServerRecord:
    stated: dict[str, Any] = {
        "kind": ServerKind.SERVICE,
        "image": "img:1",
        "models": (),
        "declared": Resources(1000, 100 * MB),
        "result": result(),
        "recommendation": advice(),
        "usage": usage(500.0, 200 * MB, need_peak_bytes=100 * MB),
        "load": usage(100.0, 50 * MB),
        **given,
    }
    return ServerRecord("svc", **stated)


def test_a_server_is_judged_by_its_load_s_cpu_and_its_life_s_memory() -> None:
    fine = check(whole(record(servers=(server(),)), servers=(server(),)), USUAL)
    assert not fine.failed
    for subject in ("a__svc", "pipeline__svc"):
        assert found(fine, Rule.CPU_REQUEST, subject).needed == 1000
        assert found(fine, Rule.MEMORY_REQUEST, subject).needed == 100 * MB
    tight = server(declared=Resources(999, 100 * MB - 1))
    for subject, report in (
        ("a__svc", check(whole(record(servers=(tight,))), USUAL)),
        ("pipeline__svc", check(whole(servers=(tight,)), USUAL)),
    ):
        assert found(report, Rule.CPU_REQUEST, subject).verdict is FAILED
        assert found(report, Rule.MEMORY_REQUEST, subject).verdict is FAILED


def test_a_server_that_declares_nothing_is_not_asked_for() -> None:
    silent = server(declared=Resources(), recommendation=REFUSED)
    report = check(whole(record(servers=(silent,))), USUAL)
    assert [each for each in report.checks if each.subject == "a__svc"] == []
    loud = check(whole(record(servers=(replace(silent, declared=Resources(1000)),))), USUAL)
    assert found(loud, Rule.MEASURED, "a__svc").verdict is FAILED


# ---------------------------------------------------------------- growth


def grown(old: list[int], new: list[int], percent: int = 10, known: bool = True) -> Check:
    """What is said of a memory need (or peak) in MB that was `old` and is `new`."""

    def side(needs: list[int]) -> OperatorRecord:
        runs = [
            repeat(index + 1, len(needs), usage=usage(memory=need * MB, need_peak_bytes=need * MB if known else None))
            for index, need in enumerate(needs)
        ]
        return one(runs[0]) if len(runs) == 1 else record(repeats=tuple(runs))

    def one(only: Repeat) -> OperatorRecord:
        return record(usage=only.usage)

    bounds = Bounds(max_growth=Fraction(percent, 100))
    report = check(whole(side(new)), bounds, baseline=whole(side(old), run_id="before"))
    assert report.baseline_id == "before"
    return found(report, Rule.MEMORY_GROWTH)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(
    ("old", "new", "verdict"),
    [
        ([100], [110], PASSED),
        ([100], [111], FAILED),
        ([100], [50], PASSED),
        ([100] * 3, [110] * 3, PASSED),
        ([100] * 3, [111] * 3, FAILED),
        ([90, 100, 130], [130, 140, 150], SKIPPED),  # it may be noise
        ([90, 100, 110], [130, 140, 150], FAILED),
        ([100], [90, 95, 111, 115], SKIPPED),  # a single run among the others
        ([100], [90, 130, 150], FAILED),
        ([100] * 5, [100, 100, 100, 300, 100], FAILED),  # the worst run sizes it
        ([100] * 5, [99, 200, 200, 200, 200], FAILED),  # one odd run excuses nothing
        ([100] * 3, [104] * 3, PASSED),
    ],
)
def test_growth_is_more_than_the_spread_and_what_is_allowed(
    old: list[int], new: list[int], verdict: Ruling, known: bool
) -> None:
    one = grown(old, new, known=known)
    assert one.verdict is verdict
    assert one.text.startswith("memory need" if known else "memory peak")


def test_growth_says_what_it_can_tell() -> None:
    single = grown([100], [150])
    assert "100.000 MB in the baseline, 150.000 MB now (+50.0%; single runs: cannot tell noise)" in single.text
    assert "grown by more than 10 %" in single.text
    assert "beyond the runs' own spread" in grown([100] * 3, [150] * 3).text
    assert grown([0], [6]).verdict is FAILED
    assert grown([0], [5]).verdict is PASSED  # the grain
    assert grown([10], [14]).text.endswith(
        "(+40.0%; within the grain of clocks and counters): grown by more than 10 %, "
        "but no more than clocks and counters can tell apart"
    )
    assert grown([90, 100, 130], [130, 140, 150]).text.endswith(
        "(+15.4%; within the runs' own spread): grown by more than 10 %, "
        "but no more than runs of it differ by themselves: it cannot be told from noise"
    )


@given(
    old=st.lists(st.integers(1, 10**5), min_size=1, max_size=4),
    new=st.lists(st.integers(1, 10**5), min_size=1, max_size=4),
)
def test_growth_fails_on_no_runs_that_shrink_and_on_all_that_lie_far_above(old: list[int], new: list[int]) -> None:
    if grown(old, new).verdict is not PASSED:
        assert max(new) > 1.1 * max(old)
    if min(new) > 1.2 * max(old) + 10 + max(new) - min(new) + max(old) - min(old):
        assert grown(old, new).verdict is FAILED


def test_of_time_and_rates_the_medians_are_compared() -> None:
    def side(times: list[int]) -> Run:
        return whole(record(repeats=tuple(repeat(n, 5, result=result(totals=totals(t))) for n, t in enumerate(times))))

    one = check(side([10**6, 10**6, 10**6, 3 * 10**6, 10**6]), USUAL, baseline=side([10**6] * 5))
    assert found(one, Rule.CPU_TIME_GROWTH).verdict is PASSED


def test_growth_of_a_lower_bound_or_an_estimate_is_marked() -> None:
    def side(source: str) -> Run:
        return whole(record(usage=usage(need_peak_bytes=100 * MB), result=result(totals=totals(1, source=source))))

    report = check(side(ENGINE_STATS), USUAL, baseline=side(PROCESS_TREE))
    assert found(report, Rule.MEMORY_GROWTH).text.startswith(
        "memory need ~ 100.000 MB in the baseline, >= 100.000 MB now"
    )
    assert found(report, Rule.CPU_GROWTH).text.startswith("CPU p95 100.000 % in the baseline, >= 100.000 % now")
    assert "source of a" in [each.what for each in report.hosts]


def test_gpu_memory_may_not_grow_either() -> None:
    def side(memory: int | None) -> Run:
        return whole(record(usage=usage(gpus=(GpuUsage("x", used=True, memory_peak_bytes=memory),))))

    one = found(check(side(20_000 * MB), USUAL, baseline=side(2000 * MB)), Rule.GPU_MEMORY_GROWTH)
    assert one.verdict is FAILED
    assert one.text.startswith("GPU memory 2000.000 MB in the baseline, 20000.000 MB now (+900.0%")
    assert found(check(side(2200 * MB), USUAL, baseline=side(2000 * MB)), Rule.GPU_MEMORY_GROWTH).verdict is PASSED
    assert found(check(side(1), USUAL, baseline=side(None)), Rule.GPU_MEMORY_GROWTH).verdict is SKIPPED
    neither = check(side(None), USUAL, baseline=whole(record()))
    assert not [each for each in neither.checks if each.rule is Rule.GPU_MEMORY_GROWTH]


@pytest.mark.parametrize("verified", [None, *Verdict])
@pytest.mark.parametrize("refused", [False, True])
def test_whether_the_baseline_s_recommendation_holds_plays_no_part(verified: Verdict | None, refused: bool) -> None:
    advised = replace(REFUSED if refused else advice(), verified=verified)
    old = record(usage=usage(need_peak_bytes=200 * MB), recommendation=advised)
    new = record(usage=usage(need_peak_bytes=800 * MB))
    assert found(check(whole(new), USUAL, baseline=whole(old)), Rule.MEMORY_GROWTH).verdict is FAILED


def test_more_cpu_is_growth_too() -> None:
    old = record(result=result(totals=totals(1_000_000)))
    new = record(usage=usage(150.0), result=result(totals=totals(2_000_000)))
    report = check(whole(new), USUAL, baseline=whole(old))
    assert found(report, Rule.CPU_TIME_GROWTH).verdict is found(report, Rule.CPU_GROWTH).verdict is FAILED
    assert found(report, Rule.MEMORY_GROWTH).verdict is PASSED
    assert found(report, Rule.CPU_GROWTH).text.startswith("CPU p95 100.000 % in the baseline")
    untold = check(whole(record()), USUAL, baseline=whole(record()))
    assert found(untold, Rule.CPU_TIME_GROWTH).verdict is SKIPPED


def test_what_has_no_counterpart_in_the_baseline_is_named() -> None:
    failed: dict[str, Any] = {"recommendation": REFUSED, "result": result(Outcome.FAILED, cause="exit code 1")}
    killed: dict[str, Any] = {**failed, "result": result(Outcome.OOM_KILLED)}
    old = whole(record("a", **failed), record("gone"), record("bad"), record("blind", usage=None))
    new = whole(record("a"), record("new"), record("bad", **killed), record("blind"))
    report = check(new, USUAL, baseline=old)
    texts = {each.subject: each.text for each in report.checks if each.rule is Rule.BASELINE}
    assert texts == {
        "a": "the baseline says nothing of it: exit code 1",
        "blind": "the baseline says nothing of it: no counters could be read",
        "new": "the baseline does not have it",
        "bad": "nothing to compare: oom killed",
        "gone": "the baseline has it, this run does not",
    }
    assert {each.verdict for each in report.checks if each.rule is Rule.BASELINE} == {SKIPPED}


def test_without_a_baseline_nothing_is_said_of_one() -> None:
    report = check(whole(record()), USUAL)
    assert (report.baseline_id, report.hosts) == ("", ())
    assert not any("growth" in each.rule.value or each.rule is Rule.BASELINE for each in report.checks)
