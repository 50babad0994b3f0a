"""Several runs of one operator: minimum, median, maximum, one usage for all, and what is doubtful."""

from __future__ import annotations

import statistics
from dataclasses import fields, replace
from typing import Any

import pytest
from builders import MB, MS, repeat, result, totals, usage
from hypothesis import given
from hypothesis import strategies as st

from cpost.model import Outcome, Repeat, RepeatKind, Spread, Statistic, Usage
from cpost.model.gpu import GpuMemorySource, GpuUsage
from cpost.spread import doubts, joined, measured, spread, spreads

FIGURES = st.none() | st.floats(0, 1e15)
STATISTICS = st.builds(Statistic, *[FIGURES] * 5)
OTHERS = ("window_ns", "cpu_pct", "memory_bytes", "gpus", "peaks_sampled")
PEAKS = [each.name for each in fields(Usage) if each.name not in OTHERS]
USAGES = st.builds(
    Usage,
    window_ns=st.just(200 * MS),
    cpu_pct=STATISTICS,
    memory_bytes=STATISTICS,
    peaks_sampled=st.booleans(),
    **dict.fromkeys(PEAKS, st.none() | st.integers(0, 2**42)),
)
FAILED = result(Outcome.FAILED, wall_ns=1)


def runs(count: int = 5, *, cold: bool = False, **figures: list[float]) -> list[Repeat]:
    """Runs of 2 s with these figures, the last of a list for all that follow; `cold` for the first."""

    def figure(name: str, usual: float, index: int) -> Any:
        given = figures.get(name, [usual])
        return given[min(index, len(given) - 1)]

    made = []
    for index in range(count):
        peak, need = figure("memory", 100, index) * MB, figure("need", 50, index) * MB
        made.append(
            repeat(
                index + 1,
                count,
                cold=cold and index == 0,
                result=result(
                    wall_ns=int(figure("wall_ms", 2000, index) * MS),
                    totals=totals(int(figure("cpu_ms", 1000, index) * 1000)),
                ),
                usage=replace(usage(figure("cpu", 100, index), peak), need_peak_bytes=int(need)),
            )
        )
    return made


def whats(repeats: list[Repeat]) -> list[str]:
    found = doubts(repeats)
    assert all(doubt.what and doubt.remedy and "\n" not in doubt.what + doubt.remedy for doubt in found)
    return [doubt.what for doubt in found]


# ---------------------------------------------------------------- spreads


@given(st.lists(FIGURES, max_size=6))
def test_a_spread_is_in_order_and_holds_all_that_is_known(values: list[float | None]) -> None:
    known = [value for value in values if value is not None]
    made = spread(values)
    assert (made is None) == (len(known) < 2)
    if made is not None:
        assert made.minimum <= made.median <= made.maximum
        assert (made.minimum, made.maximum, made.count) == (min(known), max(known), len(known))
        assert (
            sum(value <= made.median for value in known) * 2
            >= len(known)
            <= 2 * sum(value >= made.median for value in known)
        )
        assert made.share is None or made.share >= 0


@pytest.mark.parametrize(
    ("made", "share"),
    [(Spread(8, 10, 12, 3), 0.4), (Spread(5, 5, 5, 3), 0), (Spread(0, 0, 0, 2), 0), (Spread(0, 0, 1, 3), None)],
)
def test_a_share_is_of_the_median(made: Spread, share: float | None) -> None:
    assert made.share == share


def test_each_figure_has_its_spread() -> None:
    over = spreads(runs(3, wall_ms=[900, 1000, 1200], cpu_ms=[1, 2, 3], cpu=[80, 90, 95], memory=[3, 2, 1], need=[5]))
    assert over is not None
    assert over.wall_ns == Spread(900 * MS, 1000 * MS, 1200 * MS, 3)
    assert over.cpu_us == Spread(1000, 2000, 3000, 3)
    assert over.cpu_average_pct == over.cpu_maximum_pct == Spread(80, 90, 95, 3)
    assert over.memory_peak_bytes == Spread(MB, 2 * MB, 3 * MB, 3)
    assert over.need_peak_bytes == Spread(5 * MB, 5 * MB, 5 * MB, 3)


def test_what_was_not_read_has_no_spread() -> None:
    bare = [repeat(number, usage=None) for number in (1, 2, 3)]
    over = spreads([replace(each, result=result(wall_ns=5)) for each in bare])
    assert over is not None
    assert over.wall_ns == Spread(5, 5, 5, 3)
    assert spreads(bare) is None
    assert over.cpu_us is over.cpu_average_pct is over.memory_peak_bytes is over.need_peak_bytes is None


def test_warm_ups_and_failures_are_not_counted() -> None:
    first, second, third = runs(3)
    warmup = replace(first, kind=RepeatKind.WARMUP)
    failed = replace(third, result=FAILED)
    assert measured([warmup, first, second, failed]) == [first, second]
    assert spreads([warmup, first, failed]) is None
    over = spreads([warmup, first, second, failed])
    assert over is not None
    assert over.wall_ns is not None
    assert (over.wall_ns.minimum, over.wall_ns.count) == (2000 * MS, 2)


# ---------------------------------------------------------------- one usage for all


@given(st.lists(USAGES, min_size=1, max_size=5))
def test_the_joined_usage_is_nowhere_below_any_run_but_in_its_averages(used: list[Usage]) -> None:
    made = joined([repeat(number, usage=each) for number, each in enumerate(used, 1)])
    assert made is not None
    for name in ("cpu_pct", "memory_bytes"):
        parts = [getattr(each, name) for each in used]
        for figure in ("maximum", "p50", "p95", "p99"):
            known = [value for part in parts if (value := getattr(part, figure)) is not None]
            assert getattr(getattr(made, name), figure) == max(known, default=None)
        averages = [part.average for part in parts if part.average is not None]
        assert getattr(made, name).average == (statistics.median(averages) if averages else None)
    assert made.peaks_sampled == any(each.peaks_sampled for each in used)
    for figure in PEAKS:
        known = [value for each in used if (value := getattr(each, figure)) is not None]
        assert getattr(made, figure) == max(known, default=None)


GPU_FLAGS = ("used", "shared", "accompanied", "preallocated")
GPU_AVERAGES = [each.name for each in fields(GpuUsage) if "average" in each.name]
GPU_PEAKS = [
    each.name
    for each in fields(GpuUsage)
    if each.name not in ("uuid", "memory_source", "looks", *GPU_FLAGS, *GPU_AVERAGES)
]
GPU_USAGES = st.builds(
    GpuUsage,
    uuid=st.just("GPU-1"),
    **dict.fromkeys(GPU_AVERAGES, FIGURES),
    **dict.fromkeys([name for name in GPU_PEAKS if name != "longest_gap_ns"], st.none() | st.integers(0, 2**42)),
)


@given(st.lists(GPU_USAGES, min_size=1, max_size=4))
def test_gpus_are_joined_each_with_itself(used: list[GpuUsage]) -> None:
    other = GpuUsage("GPU-2", looks=7)
    made = joined([repeat(number, usage=usage(gpus=(other, each))) for number, each in enumerate(used, 1)])
    assert made is not None
    first, second = made.gpus
    assert (first, second.uuid) == (other, "GPU-1")
    for name in GPU_FLAGS:
        assert getattr(second, name) == any(getattr(each, name) for each in used)
    for name in [*GPU_PEAKS, *GPU_AVERAGES]:
        known = [value for each in used if (value := getattr(each, name)) is not None]
        wanted = statistics.median(known) if name in GPU_AVERAGES and known else max(known, default=None)
        assert getattr(second, name) == wanted, name
    assert second.looks == min(each.looks for each in used)
    sources = {each.memory_source for each in used}
    assert second.memory_source in sources
    assert (second.memory_source is GpuMemorySource.DEVICE) == (GpuMemorySource.DEVICE in sources)


def test_a_run_in_which_the_gpus_were_not_read_adds_nothing() -> None:
    one = GpuUsage("GPU-1", used=True, memory_peak_bytes=5)
    made = joined([repeat(1, usage=usage(gpus=(one,))), repeat(2, usage=usage())])
    assert made is not None
    assert made.gpus == (one,)


def test_one_busy_run_makes_all_doubtful() -> None:
    runs = [repeat(n, 3, usage=usage(others_cpu_share=share)) for n, share in enumerate((0.1, 0.9, None), 1)]
    made = joined(runs)
    assert made is not None
    assert made.others_cpu_share == 0.9


def test_warm_ups_are_joined_only_where_there_is_nothing_else() -> None:
    warmup = repeat(1, 1, kind=RepeatKind.WARMUP, usage=usage(900))
    assert joined([warmup, repeat(usage=usage(100))]) == usage(100)
    assert joined([warmup]) == usage(900)
    assert joined([warmup, repeat(usage=None)]) is None


# ---------------------------------------------------------------- doubts


@pytest.mark.parametrize("count", [3, 5, 20])
def test_a_steady_operator_leaves_no_doubt(count: int) -> None:
    steady = runs(
        count, cold=True, wall_ms=[2150, 1900, 2000], memory=[104, 99, 100], cpu=[95, 100], cpu_ms=[1100, 1000]
    )
    assert whats(steady) == []


@pytest.mark.parametrize("figures", [{}, {"memory": [100, 900]}])
def test_a_single_run_is_not_judged(figures: dict[str, list[float]]) -> None:
    warmup = replace(runs(1)[0], kind=RepeatKind.WARMUP)
    assert whats(runs(1, **figures)) == whats([warmup, *runs(1, **figures)]) == []


def test_two_are_too_few() -> None:
    (what,) = whats(runs(2))
    assert "2 repeats are too few" in what
    assert "--repeat" in doubts(runs(2))[0].remedy


@pytest.mark.parametrize(("wall_ms", "short"), [(199, True), (200, False)])
def test_an_operator_within_one_window_is_too_short(wall_ms: int, short: bool) -> None:
    found = whats(runs(wall_ms=[wall_ms]))
    assert [what for what in found if "within one CPU window of 0.200 s" in what] == found
    assert bool(found) == short


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        ({"wall_ms": [2000, 2000, 2400.1]}, "20% of their median: wall time 2.000 s to 2.400 s (20%)"),
        ({"cpu_ms": [1000, 1000, 1300]}, "20% of their median: CPU time 1.000 s to 1.300 s (30%)"),
        ({"cpu": [100, 100, 79]}, "20% of their median: highest CPU rate 79.000 % to 100.000 % (21%)"),
        ({"memory": [100, 100, 111]}, "10% of their median: memory peak 100.000 MB to 111.000 MB (11%)"),
        ({"need": [100, 100, 89]}, "10% of their median: memory need 89.000 MB to 100.000 MB (11%)"),
        ({"need": [0, 0, 7]}, "10% of their median: memory need 0.000 MB to 7.000 MB (no median)"),
    ],
)
def test_a_figure_that_differs_beyond_its_bound_is_named(figures: dict[str, list[float]], words: str) -> None:
    (what,) = whats(runs(3, **figures))
    assert words in what


@pytest.mark.parametrize(
    "figures",
    [
        {"wall_ms": [2000, 2000, 2400]},
        {"wall_ms": [300, 300, 400]},
        {"cpu_ms": [1, 1, 101]},
        {"cpu": [1, 1, 11]},
        {"memory": [100, 100, 110]},
        {"memory": [1, 1, 6]},
    ],
)
def test_at_the_bound_and_within_the_counters_grain_it_is_not(figures: dict[str, list[float]]) -> None:
    assert whats(runs(3, **figures)) == []


def test_times_and_memory_are_one_doubt_each() -> None:
    found = whats(runs(3, wall_ms=[2000, 4000], cpu_ms=[1000, 2000], memory=[100, 200], need=[50, 90]))
    assert len(found) == 2
    assert "wall time" in found[0]
    assert "CPU time" in found[0]
    assert "memory peak" in found[1]
    assert "memory need" in found[1]


def test_a_cold_first_repeat_is_told_from_an_unsteady_operator() -> None:
    slow_start = {"wall_ms": [5000, 2000], "memory": [300, 100]}
    (what,) = whats(runs(cold=True, **slow_start))
    assert "cold" in what
    assert "time 5.000 s, the others' at most 2.000 s" in what
    assert "memory peak 300.000 MB, the others' at most 100.000 MB" in what
    assert "--warmup 1" in doubts(runs(cold=True, **slow_start))[0].remedy
    assert not any("cold" in each for each in whats(runs(cold=False, **slow_start)))
    assert len(whats(runs(cold=False, **slow_start))) == 2


@pytest.mark.parametrize(
    "more_work", [{"wall_ms": [5000, 2000], "cpu_ms": [4000, 1000]}, {"memory": [300, 100], "need": [250, 50]}]
)
def test_a_first_repeat_that_did_more_work_is_no_cold_one(more_work: dict[str, list[float]]) -> None:
    (what,) = whats(runs(cold=True, **more_work))
    assert "repeats differ" in what


def without_need(one: Repeat) -> Repeat:
    assert one.usage is not None
    return replace(one, usage=replace(one.usage, need_peak_bytes=None))


def test_a_peak_is_put_down_to_the_cold_only_where_the_need_is_known() -> None:
    first, *others = runs(cold=True, memory=[300, 100])
    assert "repeats differ" in whats([without_need(first), *others])[0]
    assert "stands out" in whats([first, *map(without_need, others)])[0]


def test_rates_of_an_operator_within_one_window_are_not_judged() -> None:
    (what,) = whats(runs(wall_ms=[199], cpu=[100, 50]))
    assert "within one CPU window" in what


def test_a_cold_first_repeat_does_not_hide_others_that_differ() -> None:
    found = whats(runs(3, cold=True, wall_ms=[5000, 2000], memory=[100, 100, 150]))
    assert ["cold" in found[0], "memory peak 100.000 MB to 150.000 MB" in found[1]] == [True, True]


def test_a_first_repeat_that_is_not_the_slowest_is_no_cold_one() -> None:
    assert not any("cold" in what for what in whats(runs(cold=True, wall_ms=[3000, 2000, 3000])))
    assert not any("cold" in what for what in whats(runs(2, cold=True, wall_ms=[9000, 2000])))
