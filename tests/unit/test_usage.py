"""Samples -> usage: histograms, CPU rates over windows, and what is kept while a run goes on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from builders import MS, result, sample, totals
from hypothesis import given
from hypothesis import strategies as st

from cpost.model import Sample, Sampling, Usage
from cpost.usage import Histogram, UsageBuilder

MIB = 2**20
VALUES = st.lists(st.tuples(st.floats(0, 10**6), st.integers(0, 10**9)), min_size=1)


def builder_of(window_ms: int = 200, cpus: int = 64) -> UsageBuilder:
    return UsageBuilder(window_ms * MS, cpus)


def fold(samples: list[Sample], *, window_ms: int = 200, wall_ms: float | None = None, **stated: Any) -> Usage:
    """The usage of a step with these samples; its kernel totals are the last sample's unless stated."""
    builder = builder_of(window_ms)
    for each in samples:
        builder.add(each)
    last = samples[-1]
    wall_ns = last.t_ns if wall_ms is None else int(wall_ms * MS)
    made = builder.finish(result(totals=totals(**{"cpu_us": last.cpu_us, **stated}), wall_ns=wall_ns))
    assert made is not None
    return made


def rates(samples: list[Sample], window_ms: int = 200, cpus: int = 64) -> list[float | None]:
    builder = builder_of(window_ms, cpus)
    return [builder.add(each) for each in samples]


def steady(percent: float, until_ms: int, every_ms: int = 10) -> list[Sample]:
    return [sample(t, int(t * percent * 10)) for t in range(0, until_ms + 1, every_ms)]


# ---------------------------------------------------------------- histogram


def filled(values: list[tuple[float, int]], resolution: int = 1) -> Histogram:
    histogram = Histogram(resolution)
    for value, weight in values:
        histogram.add(value, weight)
    return histogram


def test_values_count_as_long_as_they_held() -> None:
    histogram = filled([(1, 90), (5, 9), (100, 1)])
    assert histogram.average() == pytest.approx((90 + 45 + 100) / 100)
    assert [histogram.percentile(share) for share in (50, 90, 90.1, 99, 99.1, 100)] == [1, 1, 5, 5, 100, 100]


def test_an_empty_histogram_knows_nothing() -> None:
    assert (Histogram().average(), Histogram().percentile(50), Histogram().maximum) == (None, None, None)


def test_a_value_without_duration_still_counts_as_maximum() -> None:
    histogram = filled([(7.5, 0)])
    assert (histogram.maximum, histogram.average(), histogram.percentile(99)) == (7.5, 7.5, 7.5)


@given(VALUES, st.integers(1, 1000))
def test_percentiles_rise_stay_below_the_maximum_and_are_never_understated(
    values: list[tuple[float, int]], resolution: int
) -> None:
    histogram = filled(values, resolution)
    shares = (1, 50, 95, 99, 100)
    figures = [histogram.percentile(share) for share in shares]
    assert figures == sorted(figures)  # type: ignore[type-var]
    assert histogram.maximum == max(value for value, _ in values)
    total = sum(weight for _, weight in values)
    for share, figure in zip(shares, figures, strict=True):
        assert figure is not None
        assert figure <= histogram.maximum
        held = sum(weight for value, weight in values if value <= figure)
        assert held >= total * share / 100
        below = sum(weight for value, weight in values if value <= figure - max(resolution, figure / 1024))
        assert below <= total * share / 100


@given(VALUES)
def test_the_average_lies_between_the_ends(values: list[tuple[float, int]]) -> None:
    average = filled(values).average()
    weighted = [value for value, weight in values if weight] or [max(value for value, _ in values)]
    assert average is not None
    assert min(weighted) <= average * (1 + 1e-9)
    assert average <= max(weighted) * (1 + 1e-9)


# ---------------------------------------------------------------- CPU


@pytest.mark.parametrize("percent", [0, 50, 100, 1134])
@pytest.mark.parametrize("every_ms", [1, 10, 70, 200, 500])
def test_a_constant_load_reads_exactly(percent: int, every_ms: int) -> None:
    cpu = fold(steady(percent, 2100, every_ms)).cpu_pct
    assert [cpu.average, cpu.maximum, cpu.p50, cpu.p95, cpu.p99] == [percent] * 5


def test_the_first_rate_comes_with_the_first_whole_window() -> None:
    found = rates(steady(100, 300))
    assert found == [None] * 20 + [100.0] * 11


def test_a_rate_is_that_of_the_window_that_ends_there() -> None:
    busy_from_100_to_200 = [sample(t, min(max(t - 100, 0), 100) * 1000) for t in range(0, 501, 10)]
    found = rates(busy_from_100_to_200, window_ms=100)
    assert [found[t // 10] for t in (90, 100, 150, 200, 250, 300, 400)] == [None, 0, 50, 100, 50, 0, 0]


def test_after_a_freeze_the_window_is_as_long_as_the_gap() -> None:
    assert rates([sample(0), sample(1000, 500_000), sample(1010, 510_000)]) == [
        None,
        50.0,
        pytest.approx(51_000 / 1010),
    ]


def test_a_burst_shows_in_the_maximum_and_by_its_time_in_the_percentiles() -> None:
    samples = [sample(t, min(t, 200) * 4000) for t in range(0, 10_001, 10)]
    cpu = fold(samples).cpu_pct
    assert (cpu.average, cpu.maximum, cpu.p50, cpu.p95, cpu.p99) == (8, 400, 0, 0, 400)


def test_a_life_shorter_than_a_window_is_one_window() -> None:
    cpu = fold([sample(0), sample(10, 9_000), sample(30, 27_000)]).cpu_pct
    assert [cpu.average, cpu.maximum, cpu.p99] == pytest.approx([90.0] * 3)


def test_a_single_sample_and_a_kernel_total_are_enough() -> None:
    used = fold([sample(0)], wall_ms=20, cpu_us=10_000, memory_peak_bytes=5)
    assert (used.cpu_pct.average, used.cpu_pct.maximum, used.memory_bytes.maximum) == (50.0, 50.0, 5)


def test_the_average_is_the_kernel_s_total_over_the_wall_time() -> None:
    used = fold(steady(100, 1000), wall_ms=2000, cpu_us=3_000_000)
    assert used.cpu_pct.average == 150


def test_the_maximum_is_never_below_the_average() -> None:
    bursts = [sample(0), sample(50, 50_000), sample(250, 50_000), sample(300, 100_000)]
    used = fold(bursts, wall_ms=300, cpu_us=100_000)
    assert used.cpu_pct.maximum == used.cpu_pct.average == pytest.approx(100 / 3)


def test_the_first_window_begins_with_the_first_instruction() -> None:
    used = fold([sample(1, 100_000), sample(200, 100_000), sample(1000, 100_000)], wall_ms=1000, cpu_us=100_000)
    assert used.cpu_pct.maximum == 50


def test_no_life_is_too_short_for_the_host_s_cpus_to_bound_it() -> None:
    used = fold([sample(0)], wall_ms=1, cpu_us=900_000)
    assert used.cpu_pct.maximum == used.cpu_pct.average == 6400


def test_without_any_counter_there_is_no_usage() -> None:
    builder = builder_of()
    assert builder.finish(result(wall_ns=MS)) is None


@pytest.mark.parametrize("wall_ns", [None, 0])
def test_without_a_wall_time_there_is_no_average(wall_ns: int | None) -> None:
    used = builder_of().finish(result(totals=totals(7), wall_ns=wall_ns))
    assert used is not None
    assert (used.cpu_pct.average, used.cpu_pct.maximum, used.memory_bytes.maximum) == (None, None, None)


def test_a_rate_is_not_above_what_the_host_has() -> None:
    assert rates([sample(0), sample(200, 801_000)], cpus=4)[-1] == 400


@pytest.mark.parametrize(
    ("busy_ms", "wanted"), [(200, 100), (203, 100), (210, 100), (211, 105.5), (190, 95), (403, 200), (2030, 1000)]
)
def test_the_counters_grain_above_whole_cores_is_left_out(busy_ms: int, wanted: float) -> None:
    """Counters move with the timer tick; one busy thread must not read as a little more than one core."""
    assert rates([sample(0), sample(200, busy_ms * 1000)])[-1] == pytest.approx(wanted)


def test_work_between_two_distant_looks_counts() -> None:
    used = fold([sample(0), sample(1000, 8_000_000)])
    assert (used.cpu_pct.average, used.cpu_pct.maximum) == (800, 800)


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 10**6)), min_size=2))
def test_counters_that_go_backwards_never_give_a_negative_rate(steps: list[tuple[int, int]]) -> None:
    t_ms, samples = 0, []
    for gap, cpu_us in steps:
        t_ms += gap
        samples.append(sample(t_ms, cpu_us))
    assert all(rate is None or rate >= 0 for rate in rates(samples, window_ms=20))


# ---------------------------------------------------------------- bounded


def sizes(value: object) -> int:
    """How many things an object holds, down to the last one."""
    if isinstance(value, dict):
        return sum(1 + sizes(item) for item in value.values())
    if hasattr(value, "__dict__"):
        return sizes(vars(value))
    return len(value) if hasattr(value, "__len__") else 0


def test_what_is_kept_does_not_grow_with_the_length_of_the_run() -> None:
    builder, kept, cpu_us = builder_of(), [], 0
    for i in range(120_001):
        cpu_us += i % 977 * 200
        builder.add(Sample(i * 100 * MS, cpu_us, None, None, None, None, i % 1000 * MIB, None))
        if i % 30_000 == 0:
            kept.append(sizes(builder))
    assert 1000 < kept[1] < 5000
    assert kept[1:] == pytest.approx([kept[1]] * 4, rel=0.02)


def test_memory_that_wanders_over_100_gib_needs_a_few_thousand_counters() -> None:
    builder = builder_of()
    for i in range(100_000):
        builder.add(sample(i * 100, memory=i * MIB))
    assert sizes(builder) < 15_000
    used = builder.finish(result(totals=totals(), wall_ns=1))
    assert used is not None
    assert used.memory_bytes.p50 == pytest.approx(50_000 * MIB, rel=1 / 1024)


def test_whole_cores_stay_whole_in_the_percentiles() -> None:
    """A request is rounded up to whole cores: a little more than 21 would be 22."""
    burst = [sample(0), sample(200, 6_000_000)]
    steady_21 = [sample(t, 6_000_000 + (t - 200) * 21_000) for t in range(400, 20_001, 200)]
    cpu = fold([*burst, *steady_21]).cpu_pct
    assert (cpu.maximum, cpu.p50, cpu.p95) == (3000, 2100, 2100)


def test_the_window_is_kept_with_the_figures() -> None:
    used = fold(steady(100, 1000), window_ms=500)
    assert used.window_ns == 500 * MS
    assert replace(used, window_ns=0) == replace(fold(steady(100, 1000)), window_ns=0)


# ---------------------------------------------------------------- readings that were held up


def test_no_rate_begins_or_ends_at_a_reading_that_was_held_up() -> None:
    """The counter was read 100 ms after the time: taken at its word, one thread would be at 150 %."""
    samples = steady(100, 1000)
    samples[50] = samples[50]._replace(cpu_us=samples[50].cpu_us + 100_000, read_ns=100 * MS)
    found = rates(samples)
    assert found[50] is None
    assert all(rate == pytest.approx(100) for at, rate in enumerate(found) if at >= 20 and at != 50)
    assert fold(samples).cpu_pct.maximum == pytest.approx(100)


def test_where_all_readings_were_held_up_the_average_stands_in() -> None:
    used = fold([each._replace(read_ns=50 * MS) for each in steady(80, 1000)])
    assert (used.cpu_pct.average, used.cpu_pct.maximum, used.cpu_pct.p95) == (80, 80, 80)


@pytest.mark.parametrize(
    ("stated", "sampled"),
    [
        ({"memory_peak_bytes": 5}, False),
        ({"memory_peak_bytes": 5, "source": "last sample"}, False),
        ({}, True),
        ({"memory_peak_bytes": 5, "source": "engine stats"}, True),
        ({"memory_peak_bytes": 5, "source": "process tree"}, True),
    ],
)
def test_a_peak_that_is_not_the_kernel_s_is_marked(stated: dict[str, Any], sampled: bool) -> None:
    assert fold([sample(10, 5, 3)], **stated).peaks_sampled == sampled


def test_a_window_is_never_shorter_than_the_time_between_samples() -> None:
    made = builder_of()
    made.add(sample(1000, 500_000, 3))
    ended = result(totals=totals(500_000), wall_ns=10**9, sampling=Sampling(10**9))
    usage = made.finish(ended)
    assert usage is not None
    assert usage.window_ns == 10**9


def test_what_others_had_of_the_host_goes_with_the_figures() -> None:
    used = builder_of().finish(result(totals=totals(7), wall_ns=MS, others_cpu_share=0.5))
    assert used is not None
    assert used.others_cpu_share == 0.5
