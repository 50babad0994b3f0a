"""Memory of a step: the kernel's peak, figures weighted by time, and the need under the cache."""

from __future__ import annotations

from typing import Any

import pytest
from builders import MS, result, sample, totals
from hypothesis import given
from hypothesis import strategies as st

from cpost.model import Detail, Sample, Usage
from cpost.usage import UsageBuilder

MIB = 2**20


def fold(samples: list[Sample], **stated: Any) -> Usage:
    """The usage of a step with these samples, and with these kernel totals."""
    builder = UsageBuilder(200 * MS, cpus=64)
    for each in samples:
        builder.add(each)
    made = builder.finish(result(totals=totals(**stated), wall_ns=samples[-1].t_ns))
    assert made is not None
    return made


def test_the_kernel_s_peak_is_the_maximum_whatever_was_sampled() -> None:
    samples = [sample(0, memory=MIB), sample(100, memory=3 * MIB), sample(200, memory=MIB)]
    assert fold(samples, memory_peak_bytes=9 * MIB).memory_bytes.maximum == 9 * MIB
    assert fold(samples, memory_peak_bytes=2 * MIB).memory_bytes.maximum == 2 * MIB
    assert fold(samples).memory_bytes.maximum == 3 * MIB


def test_the_mark_between_two_samples_counts_where_the_kernel_keeps_no_other() -> None:
    samples = [sample(0, memory=MIB), sample(10, memory=MIB, memory_peak_bytes=7 * MIB)]
    assert fold(samples).memory_bytes.maximum == 7 * MIB


def test_memory_is_weighted_by_time() -> None:
    samples = [sample(0, memory=0), sample(900, memory=MIB), sample(1000, memory=11 * MIB)]
    memory = fold(samples).memory_bytes
    assert memory.average == 2 * MIB
    assert (memory.p50, memory.p95) == (MIB, 11 * MIB)


def test_memory_percentiles_are_rounded_up_to_64_kib_but_not_over_the_maximum() -> None:
    samples = [sample(0, memory=1), sample(900, memory=1), sample(1000, memory=100_000)]
    memory = fold(samples).memory_bytes
    assert (memory.p50, memory.p99) == (65_536, 100_000)


def test_missing_memory_stays_unknown() -> None:
    used = fold([sample(0), sample(500, detail=Detail(reclaimable_bytes=1, inactive_file_bytes=1))])
    assert (used.memory_bytes.average, used.memory_bytes.maximum, used.memory_bytes.p95) == (None, None, None)
    assert (used.need_peak_bytes, used.working_set_peak_bytes) == (None, None)


# ---------------------------------------------------------------- need and cache


def looked(t_ms: int, memory_mib: int, cache_mib: int, **stated: Any) -> Sample:
    """A sample with a look at memory.stat: so much of it the kernel can drop."""
    detail = Detail(reclaimable_bytes=cache_mib * MIB, inactive_file_bytes=cache_mib * MIB // 2)
    return sample(t_ms, memory=memory_mib * MIB, detail=detail, **stated)


def need_mib(*samples: Sample, **stated: Any) -> float:
    need = fold(list(samples), **stated).need_peak_bytes
    assert need is not None
    return need / MIB


@pytest.mark.parametrize(
    ("peak_mib", "startup_mib", "need"),
    [(91, 4, 81), (91, None, 81), (91, 91, 78), (88, 4, 78), (200, 4, 190)],
    ids=["unseen", "start-up not known", "the runtime's own", "all seen", "far above"],
)
def test_what_no_sample_saw_of_the_kernel_s_peak_counts_as_need(
    peak_mib: int, startup_mib: int | None, need: int
) -> None:
    """Where samples have no peaks of their own: memory that comes and goes between two of them."""
    startup = None if startup_mib is None else startup_mib * MIB
    readings = [looked(0, 2, 0), looked(10, 88, 10), looked(20, 12, 10)]
    assert need_mib(*readings, memory_peak_bytes=peak_mib * MIB, startup_memory_peak_bytes=startup) == need


def test_cache_is_not_needed() -> None:
    reading = [looked(t, 10 + t, t) for t in range(0, 1001, 100)]
    assert need_mib(*reading) == 10
    assert fold(reading).working_set_peak_bytes == (10 + 500) * MIB


def test_the_highest_need_may_come_with_a_low_total() -> None:
    assert need_mib(looked(0, 20, 0), looked(100, 320, 310), looked(200, 90, 30), looked(300, 330, 325)) == 60


@pytest.mark.parametrize(
    "spike", [sample(150, memory=900 * MIB), sample(150, memory=50 * MIB, memory_peak_bytes=900 * MIB)]
)
def test_a_spike_between_two_looks_is_needed_as_far_as_it_is_above_both(spike: Sample) -> None:
    assert need_mib(looked(100, 50, 0), looked(140, 50, 40), spike, looked(200, 80, 30)) == 50 + 900 - 80


def test_a_spike_belongs_to_one_interval_only() -> None:
    spike = sample(150, memory=900 * MIB)
    assert need_mib(looked(100, 50, 0), spike, looked(200, 60, 10), looked(300, 300, 10)) == 50 + 840


def test_what_comes_after_the_last_look_is_needed() -> None:
    assert need_mib(looked(0, 50, 10), sample(50, memory=90 * MIB)) == 40 + 40


def test_the_need_is_never_above_the_kernel_s_peak_nor_below_zero() -> None:
    assert need_mib(looked(0, 50, 0), memory_peak_bytes=30 * MIB) == 30
    assert need_mib(looked(0, 5, 50), looked(100, 5, 50), looked(200, 1, 900)) == 0


@pytest.mark.parametrize(("anon_mib", "need"), [(10, 40), (380, 400), (400, 400)])
def test_a_look_that_lags_behind_the_total_is_left_out(anon_mib: int, need: int) -> None:
    """The kernel adds memory.stat up now and then only; parts far from the total tell nothing about it."""
    parts = {"anon_bytes": anon_mib * MIB, "file_bytes": 100 * MIB, "kernel_bytes": 0, "reclaimable_bytes": 100 * MIB}
    late = sample(100, memory=500 * MIB, detail=Detail(**parts))
    assert need_mib(looked(0, 40, 0), late, looked(200, 540, 500)) == need


def test_without_memory_stat_the_need_is_unknown() -> None:
    used = fold([sample(0, memory=MIB), sample(10, memory=MIB, detail=Detail(anon_bytes=3))])
    assert (used.need_peak_bytes, used.working_set_peak_bytes) == (None, None)


LOADS = st.lists(st.tuples(st.integers(0, 2**32), st.integers(0, 2**32), st.booleans()), min_size=1)


@given(LOADS)
def test_need_and_working_set_lie_between_zero_and_the_highest_total(loads: list[tuple[int, int, bool]]) -> None:
    samples = []
    for i, (memory, cache, seen) in enumerate(loads):
        share = cache % (memory + 1)
        detail = Detail(reclaimable_bytes=share, inactive_file_bytes=share) if seen else None
        samples.append(sample(i * 10, memory=memory, detail=detail))
    used = fold(samples)
    highest = max(memory for memory, _, _ in loads)
    for figure in (used.need_peak_bytes, used.working_set_peak_bytes):
        assert (figure is not None) == any(seen for _, _, seen in loads)
        assert figure is None or 0 <= figure <= highest
    floors = [memory - cache % (memory + 1) for memory, cache, seen in loads if seen]
    assert not floors or (used.need_peak_bytes or 0) >= max(floors)


def test_the_most_that_lay_in_dev_shm() -> None:
    samples = [sample(at, memory=MIB, detail=Detail(dev_shm_bytes=held)) for at, held in ((0, 0), (100, 7), (200, 3))]
    assert fold(samples).dev_shm_peak_bytes == 7
    assert fold([sample(0, memory=MIB, detail=Detail())]).dev_shm_peak_bytes is None
