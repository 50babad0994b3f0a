"""Two records: what differs, and whether the runs' own spread explains it."""

from __future__ import annotations

import statistics
from dataclasses import replace
from typing import Any

import pytest
from builders import MB, MS, REFUSED, advice, record, repeat, result, run, totals, usage
from hypothesis import given
from hypothesis import strategies as st

from cpost.compare import certainty, compare, difference, host_differences, subjects
from cpost.model import (
    Certainty,
    Comparison,
    Figure,
    Format,
    Gpu,
    GpuUsage,
    HostFacts,
    Meaning,
    OperatorRecord,
    Options,
    Outcome,
    RepeatKind,
    Resources,
    Run,
    ServerKind,
    ServerRecord,
    Statistic,
)

WALLS = st.lists(st.integers(0, 5000), min_size=1, max_size=5)


def timed(walls_ms: list[int]) -> OperatorRecord:
    """An operator that took this long, in one run or in several."""
    results = [result(wall_ns=wall * MS) for wall in walls_ms]
    if len(results) == 1:
        return record(result=results[0])
    runs = [repeat(index + 1, len(results), result=each) for index, each in enumerate(results)]
    return record(result=results[-1], repeats=tuple(runs))


def meaning(old: list[int], new: list[int]) -> Meaning:
    sides = (subjects(run(timed(walls)))["a"] for walls in (old, new))
    return difference(Figure.WALL_NS, *sides).meaning


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ([1000], [1000], Meaning.SAME),
        ([1000], [1100], Meaning.GRAIN),
        ([1000], [1101], Meaning.SINGLE),
        ([1000], [899], Meaning.SINGLE),
        ([1000, 1200], [1200, 1400], Meaning.SPREAD),
        ([1000, 1200], [1201, 1400], Meaning.BEYOND),
        ([1201, 1400], [1000, 1200], Meaning.BEYOND),
        ([1000, 1010], [1011, 1020], Meaning.GRAIN),
        ([1000, 2000], [1900], Meaning.SPREAD),
        ([1000, 2000], [2001], Meaning.SINGLE),
        ([1000] * 3, [900, 2000, 2000], Meaning.BEYOND),  # one odd run of three
        ([1000] * 5, [990, 2000, 2000, 2000, 2000], Meaning.BEYOND),
        ([1000] * 5, [0, 2000, 2000, 2000, 2000], Meaning.BEYOND),
        ([1000] * 5, [1000, 1000, 1000, 3000, 1000], Meaning.SAME),  # nor does one make a difference
        ([1000, 1200, 1400, 1600, 1800], [1300, 1500, 2200, 2300, 2400], Meaning.SPREAD),
        ([1000, 1200, 1400, 1600, 1800], [1300, 2200, 2201, 2300, 2400], Meaning.BEYOND),
    ],
)
def test_what_a_difference_means(old: list[int], new: list[int], expected: Meaning) -> None:
    assert meaning(old, new) is expected


@given(old=WALLS, new=WALLS)
def test_a_difference_means_the_same_from_both_sides(old: list[int], new: list[int]) -> None:
    assert meaning(old, new) is meaning(new, old)
    if meaning(old, new) in (Meaning.BEYOND, Meaning.SINGLE):
        assert (meaning(old, new) is Meaning.BEYOND) == (len(old) > 1 and len(new) > 1)
    assert (meaning(old, new) is Meaning.SAME) == (statistics.median(old) == statistics.median(new))


@given(old=WALLS, new=WALLS)
def test_runs_that_lie_wholly_apart_by_more_than_their_width_are_beyond_their_spread(
    old: list[int], new: list[int]
) -> None:
    width = max(old) - min(old) + max(new) - min(new)
    if max(min(new) - max(old), min(old) - max(new)) > max(width, 100):
        assert meaning(old, new) in (Meaning.BEYOND, Meaning.SINGLE)


@pytest.mark.parametrize(
    ("old", "new", "change", "expected"),
    [
        ([100] * 5, [100, 100, 100, 300, 100], 200, Meaning.BEYOND),
        ([100, 100, 100, 300, 100], [100] * 5, -200, Meaning.BEYOND),
        ([100, 100, 300, 100], [300, 300, 300], 0, Meaning.SAME),
        ([90, 100, 130], [130, 140, 150], 20, Meaning.SPREAD),
        ([100] * 3, [100, 100, 105], 5, Meaning.GRAIN),
        ([100], [90, 130, 150], 50, Meaning.SINGLE),
        ([100], [90, 95, 110, 115], 15, Meaning.SPREAD),
    ],
)
@pytest.mark.parametrize("figure", [Figure.NEED_PEAK_BYTES, Figure.MEMORY_PEAK_BYTES, Figure.GPU_MEMORY_PEAK_BYTES])
def test_of_memory_the_highest_run_is_compared(
    old: list[int], new: list[int], change: int, expected: Meaning, figure: Figure
) -> None:
    def side(sizes: list[int]) -> OperatorRecord:
        used = [
            usage(memory=n * MB, need_peak_bytes=n * MB, gpus=(GpuUsage("x", memory_peak_bytes=n * MB),)) for n in sizes
        ]
        runs = [repeat(index + 1, len(used), usage=each) for index, each in enumerate(used)]
        return record(usage=used[0]) if len(used) == 1 else record(repeats=tuple(runs))

    found = difference(figure, *(subjects(run(side(sizes)))["a"] for sizes in (old, new)))
    assert (found.before, found.after, found.change) == (max(old) * MB, max(new) * MB, change * MB)
    assert found.meaning is expected


def test_of_repeats_the_median_is_compared() -> None:
    one, other = (subjects(run(timed(walls)))["a"] for walls in ([1000, 1200, 3000], [2000]))
    found = difference(Figure.WALL_NS, one, other)
    assert (found.before, found.after, found.change) == (1200 * MS, 2000 * MS, 800 * MS)
    assert found.before_spread is not None
    assert (found.before_spread.minimum, found.before_spread.maximum, found.before_spread.count) == (
        10**9,
        3 * 10**9,
        3,
    )
    assert found.after_spread is None
    assert found.share == pytest.approx(2 / 3)


def test_warm_ups_and_failed_repeats_are_not_compared() -> None:
    runs = (
        repeat(1, 1, kind=RepeatKind.WARMUP, result=result(wall_ns=1)),
        repeat(1, 2, result=result(wall_ns=2)),
        repeat(2, 2, result=result(Outcome.FAILED, wall_ns=3)),
    )
    (one,) = subjects(run(record(repeats=runs))).values()
    assert [each.result.wall_ns for each in one.runs] == [2]


def test_every_figure_is_read() -> None:
    gpus = (GpuUsage("x", used=True, busy_average_pct=11.0, memory_peak_bytes=12), GpuUsage("y", memory_peak_bytes=1))
    rates = Statistic(1.0, 2.0, 3.0, 4.0, 5.0)
    stated = usage(memory=7 * MB, cpu_pct=rates, need_peak_bytes=6 * MB, gpus=gpus)
    (found,) = both(record(usage=stated, result=result(wall_ns=8, totals=totals(9)))).subjects
    assert {each.figure: each.before for each in found.figures} == {
        Figure.WALL_NS: 8,
        Figure.CPU_US: 9,
        Figure.CPU_AVERAGE_PCT: 1.0,
        Figure.CPU_P95_PCT: 4.0,
        Figure.CPU_MAXIMUM_PCT: 2.0,
        Figure.MEMORY_PEAK_BYTES: 7 * MB,
        Figure.NEED_PEAK_BYTES: 6 * MB,
        Figure.GPU_BUSY_AVERAGE_PCT: 11.0,
        Figure.GPU_MEMORY_PEAK_BYTES: 12,
    }
    p99 = difference(Figure.CPU_P99_PCT, *[subjects(run(record(usage=stated)))["a"]] * 2)
    assert (p99.before, p99.share) == (5.0, 0)


def both(one: OperatorRecord) -> Comparison:
    return compare(run(one), run(one))


def test_what_is_not_known_of_both_is_unknown() -> None:
    failed = record(result=result(Outcome.FAILED, cause="exit code 1"), recommendation=REFUSED)
    found = compare(run(record()), run(failed)).subjects[0]
    assert {each.meaning for each in found.figures} == {Meaning.UNKNOWN}
    assert (found.before, found.after) == (Resources(1000, 256 * MB), None)
    assert found.remarks == ("the second did not end well: exit code 1",)
    assert compare(run(failed), run(record())).subjects[0].remarks == ("the first did not end well: exit code 1",)


def test_operators_are_matched_by_name() -> None:
    found = compare(run(record("b"), record("old"), run_id="x"), run(record("new"), record("b"), run_id="y"))
    assert (found.before, found.after) == ("x", "y")
    assert [each.name for each in found.subjects] == ["b"]
    assert (found.only_before, found.only_after) == (("old",), ("new",))


# ---------------------------------------------------------------- servers


def server(**given: Any) -> ServerRecord:
    stated: dict[str, Any] = {"declared": Resources(), "result": result(), "recommendation": advice(), **given}
    return ServerRecord("svc", ServerKind.SERVICE, "img:1", (), **stated)


def test_servers_are_compared_as_they_are_sized() -> None:
    runs = tuple(repeat(n, 2, servers=(server(usage=usage(900.0, n * MB), load=usage(n * 100.0, MB)),)) for n in (1, 2))
    ended = repeat(3, 3, result=result(Outcome.FAILED), servers=runs[-1].servers)
    kept = run(record(repeats=(*runs, ended), servers=(runs[-1].servers)), servers=(server(usage=usage(50.0)),))
    found = subjects(kept)
    assert list(found) == ["a", "a__svc", "pipeline__svc"]
    assert [each.server for each in found.values()] == [False, True, True]
    seen = [each.usage for each in found["a__svc"].runs]
    assert [(each.cpu_pct.average, each.memory_bytes.maximum) for each in seen if each] == [(100, MB), (200, 2 * MB)]
    assert len(found["pipeline__svc"].runs) == 1


# ---------------------------------------------------------------- hosts


def hosted(**facts: Any) -> Run:
    stated: dict[str, Any] = {"cpus": 4, "cpu_model": "X", "memory_bytes": 1000 * MB, "kernel": "6.1", **facts}
    return run(host=HostFacts(**stated))


@pytest.mark.parametrize(
    ("facts", "shown"),
    [
        ({}, None),
        ({"cpus": 8}, ("CPUs", "4", "8")),
        ({"cpus": None}, ("CPUs", "4", "not known")),
        ({"cpu_model": "Y"}, ("CPU model", "X", "Y")),
        ({"cpu_model": ""}, ("CPU model", "X", "not known")),
        ({"kernel": "6.2"}, ("kernel", "6.1", "6.2")),
        ({"cgroup_layout": "v2"}, ("control groups", "not known", "v2")),
        ({"engine_version": "25.0"}, ("engine", "not known", "25.0")),
        ({"architecture": "arm"}, ("architecture", "not known", "arm")),
        ({"memory_bytes": 990 * MB}, None),
        ({"memory_bytes": 990 * MB - 1}, ("memory", "1000.000 MB", "990.000 MB")),
        ({"memory_bytes": None}, ("memory", "1000.000 MB", "not known")),
        ({"hostname": "other"}, None),
        ({"swap_bytes": 0}, None),
        ({"swap_bytes": 500 * MB}, ("swap", "not known", "500.000 MB")),
        ({"gpu_driver": "550"}, ("GPU driver", "none", "550")),
        ({"gpus": (Gpu("1", "H200"), Gpu("2", "H200"), Gpu("3", "T4"))}, ("GPUs", "none", "2 x H200, 1 x T4")),
    ],
)
def test_what_hosts_do_not_have_in_common(facts: dict[str, Any], shown: tuple[str, str, str] | None) -> None:
    found = host_differences(hosted(), hosted(**facts))
    assert [(each.what, each.before, each.after) for each in found] == ([shown] if shown else [])


OTHER_OPTIONS = {
    "warmup": ("warm-ups", "0", "2", 2),
    "duration_ns": ("duration", "none", "5.000 s", 5 * 10**9),
    "memory_limit_bytes": ("memory limit", "none", "500.000 MB", 500 * MB),
    "shm_bytes": ("size of /dev/shm", "1073.742 MB", "64.000 MB", 64 * MB),
    "no_gpu": ("use of GPUs", "as declared", "none (--no_gpu)", True),
}


@pytest.mark.parametrize("option", OTHER_OPTIONS)
def test_what_an_option_changes_is_told(option: str) -> None:
    *shown, value = OTHER_OPTIONS[option]
    found = host_differences(hosted(), replace(hosted(), options=replace(Options(), **{option: value})))
    assert [(each.what, each.before, each.after, each.tested) for each in found] == [(*shown, False)]


def test_triton_s_arguments_are_told_where_one_ran() -> None:
    def served(*arguments: str, **given: Any) -> Run:
        return run(options=Options(triton_args=arguments), **given)

    triton = replace(server(), kind=ServerKind.TRITON)
    assert host_differences(served(), served("--x")) == ()
    (found,) = host_differences(served(servers=(triton,)), served("--x=a b", servers=(triton,)))
    assert (found.what, found.before, found.after) == ("Triton arguments", "none", "'--x=a b'")
    beside = record(servers=(triton,))
    kept = replace(run(beside), options=Options(triton_args=("-v",)))
    assert [each.what for each in host_differences(run(beside), kept)] == ["Triton arguments"]


def test_what_was_run_is_told_last_and_apart() -> None:
    def made(image: str, image_id: str, source: str, **given: Any) -> Run:
        ended = result(image_id=image_id, totals=totals(source=source))
        return run(record(image=image, result=ended), **given)

    old = made("x:1", "sha256:0123456789abcdef", "kernel", pipeline_digest="0123456789abcdef")
    new = made(
        "x:1", "sha256:fedcba9876543210", "engine stats", pipeline_digest="f", pipeline_name="q",
        pipeline_format=Format.COMPOSE,
    )  # fmt: skip
    assert [(each.what, each.before, each.after, each.tested) for each in host_differences(old, new)] == [
        ("source of a", "kernel", "engine stats", False),
        ("image of a", "x:1 (0123456789ab)", "x:1 (fedcba987654)", True),
        ("format", "not known", "compose", True),
        ("pipeline", "p", "q", True),
        ("pipeline file", "0123456789ab", "f", True),
    ]
    assert host_differences(old, old) == ()


def test_operators_that_only_one_run_has_are_no_difference_of_images() -> None:
    assert host_differences(run(record("a")), run(record("b", image="other:1"))) == ()


@pytest.mark.parametrize(
    ("source", "tail_ms", "wall_ms", "cpu", "need"),
    [
        ("kernel", 0, 1000, Certainty.EXACT, Certainty.EXACT),
        ("process tree", 0, 1000, Certainty.EXACT, Certainty.ESTIMATE),
        ("engine stats", 0, 1000, Certainty.AT_LEAST, Certainty.AT_LEAST),
        ("last sample", 9000, 10_000, Certainty.AT_LEAST, Certainty.AT_LEAST),
        ("last sample", 100, 10_000, Certainty.EXACT, Certainty.EXACT),
        ("last sample", 101, 10_000, Certainty.AT_LEAST, Certainty.AT_LEAST),
        ("last sample", 50, 1000, Certainty.EXACT, Certainty.EXACT),
        ("last sample", 51, 1000, Certainty.AT_LEAST, Certainty.AT_LEAST),
        ("last sample", 101, None, Certainty.AT_LEAST, Certainty.AT_LEAST),
    ],
)
def test_how_sure_a_figure_is(source: str, tail_ms: int, wall_ms: int | None, cpu: Certainty, need: Certainty) -> None:
    ended = result(
        wall_ns=None if wall_ms is None else wall_ms * MS, totals=totals(source=source, tail_ns=tail_ms * MS)
    )
    (one,) = subjects(run(record(result=ended))).values()
    assert certainty(Figure.CPU_P95_PCT, one) is certainty(Figure.CPU_US, one) is cpu
    assert certainty(Figure.NEED_PEAK_BYTES, one) is certainty(Figure.MEMORY_PEAK_BYTES, one) is need
    assert certainty(Figure.WALL_NS, one) is certainty(Figure.GPU_MEMORY_PEAK_BYTES, one) is Certainty.EXACT
    sampled = subjects(run(record(result=ended, usage=usage(peaks_sampled=True))))["a"]
    assert certainty(Figure.MEMORY_PEAK_BYTES, sampled) is (need if need is Certainty.ESTIMATE else Certainty.AT_LEAST)


@pytest.mark.parametrize(("share", "sure"), [(None, "EXACT"), (0.2, "EXACT"), (0.21, "AT_LEAST")])
def test_beside_other_work_rates_are_lower_bounds_and_cpu_time_is_not(share: float | None, sure: str) -> None:
    (one,) = subjects(run(record(usage=usage(others_cpu_share=share)))).values()
    rates = (Figure.CPU_AVERAGE_PCT, Figure.CPU_P95_PCT, Figure.CPU_P99_PCT, Figure.CPU_MAXIMUM_PCT)
    assert {certainty(figure, one) for figure in rates} == {Certainty[sure]}
    assert {certainty(figure, one) for figure in Figure if figure not in rates} == {Certainty.EXACT}


def test_over_repeats_a_figure_is_as_sure_as_the_least_sure() -> None:
    runs = [
        repeat(n, 2, result=result(totals=totals(source=source))) for n, source in enumerate(("kernel", "engine stats"))
    ]
    (one,) = subjects(run(record(repeats=tuple(runs)))).values()
    assert certainty(Figure.CPU_US, one) is Certainty.AT_LEAST


def test_another_way_of_measuring_is_told() -> None:
    slow = replace(hosted(), options=Options(window_ns=10**9, period_ns=20 * MS))
    found = compare(hosted(), slow).hosts
    assert [(each.what, each.before, each.after) for each in found] == [
        ("CPU window", "0.200 s", "1.000 s"),
        ("sampling period", "0.010 s", "0.020 s"),
    ]
