"""Looks at the GPUs -> what the operator used of each: weighted by time, its own, never a zero for a guess."""

from __future__ import annotations

from typing import Any

import pytest
from builders import MB, MS

from cpost.gpu_usage import GpuBuilder, remarks
from cpost.model.gpu import BusySpan, Gpu, GpuLook, GpuMemorySource, GpuReading, GpuUsage, busiest, fullest

AT = 1_700_000_000 * 10**9
GB = 1000 * MB
GPU = Gpu("GPU-a", "A100", 40 * GB)


def reading(own: int | None = 0, others: int = 0, base: int = 0, **given: Any) -> GpuReading:
    """Own and others' memory in bytes; each holds some exactly if it is a listed process."""
    stated = {
        "memory_bytes": (own or 0) + others + base,
        "listed_bytes": None if own is None else own + others,
        "own_memory_bytes": own,
        "own_processes": None if own is None else int(own > 0),
        "other_processes": None if own is None else int(others > 0),
    }
    return GpuReading(**{**stated, **given})


def used(*looks: tuple[float, GpuReading], end_ms: float | None = None, gpu: Gpu = GPU) -> GpuUsage:
    """The usage from looks at these times (ms from the operator's start)."""
    builder = GpuBuilder([gpu])
    for t_ms, each in looks:
        end_ns = None if end_ms is None else AT + int(end_ms * MS)
        builder.add(GpuLook(AT + int(t_ms * MS), (each,)), AT, end_ns)
    return builder.finish()[0]


def said(usage: GpuUsage, gpu: Gpu = GPU) -> str:
    return "; ".join(remarks([gpu], [usage], 0))


# ---------------------------------------------------------------- memory


def test_own_memory_is_weighted_by_time_and_apart_from_others() -> None:
    found = used(
        (-10, reading(0, others=5 * GB, base=GB)),
        (100, reading(1 * GB, others=6 * GB, base=GB)),
        (400, reading(3 * GB, others=5 * GB, base=GB)),
    )
    assert found.memory_source is GpuMemorySource.PROCESSES
    assert found.memory_peak_bytes == 3 * GB
    assert found.memory_average_bytes == pytest.approx((1 * 100 + 3 * 300) / 400 * GB)
    assert (found.baseline_bytes, found.device_peak_bytes) == (6 * GB, 9 * GB)
    assert (found.used, found.shared, found.looks, found.longest_gap_ns) == (True, True, 2, 300 * MS)
    assert "other processes were on it" in said(found)


def test_what_comes_before_the_start_and_after_the_end_is_not_the_operator_s() -> None:
    found = used((-10, reading(7 * GB)), (50, reading(GB)), (150, reading(9 * GB)), end_ms=100)
    assert (found.memory_peak_bytes, found.looks) == (GB, 1)


def test_an_operator_that_was_never_on_it_has_read_zeros() -> None:
    found = used((-10, reading(0, others=GB)), (50, reading(0, others=30 * GB)), (99, reading(0, others=30 * GB)))
    assert (found.used, found.memory_peak_bytes, found.memory_average_bytes) == (False, 0, 0)
    assert found.memory_source is GpuMemorySource.PROCESSES
    assert said(found) == ""  # whose GPU it is does not concern it


def test_without_a_list_of_processes_it_is_the_device_s_rise() -> None:
    found = used((-10, reading(None, base=2 * GB)), (50, reading(None, base=3 * GB)), (99, reading(None, base=5 * GB)))
    assert (found.memory_source, found.memory_peak_bytes, found.used) == (GpuMemorySource.DEVICE, 3 * GB, True)
    assert "whole device's, less what was in use before" in said(found)


def test_a_small_rise_of_the_device_is_the_driver_s_own() -> None:
    found = used((-10, reading(None, base=2 * GB)), (50, reading(None, base=2 * GB + 60 * MB)))
    assert (found.used, found.memory_peak_bytes) == (False, 60 * MB)
    assert said(found) == ""


def test_a_process_whose_memory_is_not_told_is_measured_by_the_device() -> None:
    hidden = reading(0, base=4 * GB, own_processes=1, own_memory_bytes=None, listed_bytes=None)
    found = used((-10, reading(0, base=GB)), (20, reading(0, base=GB)), (50, hidden))
    assert (found.memory_source, found.memory_peak_bytes, found.used) == (GpuMemorySource.DEVICE, 3 * GB, True)


def test_memory_that_no_listed_process_accounts_for_is_taken_for_the_operator_s() -> None:
    """So where cpost runs in a container: the driver's ids are not those that it sees."""
    before, after = reading(0, others=GB), reading(0, others=GB, base=2 * GB)
    found = used((-10, before), (50, after))
    assert (found.memory_source, found.memory_peak_bytes, found.used) == (GpuMemorySource.DEVICE, 2 * GB, True)


def test_without_a_baseline_a_device_tells_nothing_of_the_operator() -> None:
    found = used((50, reading(None, base=3 * GB)))
    assert (found.memory_source, found.memory_peak_bytes, found.used) == (GpuMemorySource.NONE, None, False)
    assert (found.device_peak_bytes, found.baseline_bytes) == (3 * GB, None)


def test_nothing_read_is_nothing_known() -> None:
    assert used((-10, GpuReading()), (50, GpuReading())) == GpuUsage("GPU-a", looks=1, longest_gap_ns=50 * MS)
    assert used() == GpuUsage("GPU-a")


def test_a_long_gap_between_looks_is_said() -> None:
    assert "2.500 s between two looks" in said(used((100, reading(GB)), (2600, reading(GB))))


# ---------------------------------------------------------------- busy time, power, clock


def busy(end_ms: float, span_ms: float, percent: int) -> BusySpan:
    return BusySpan(AT + int(end_ms * MS), int(span_ms * MS), percent)


def test_busy_time_is_weighted_by_the_driver_s_own_stretches() -> None:
    found = used(
        (250, reading(GB, busy=(busy(100, 100, 10), busy(200, 100, 20)))),
        (300, reading(GB)),
        (650, reading(GB, busy=(busy(600, 400, 80),))),
    )
    assert found.busy_average_pct == pytest.approx((10 * 100 + 20 * 100 + 80 * 400) / 600)
    assert found.busy_maximum_pct == 80


def test_of_a_stretch_over_the_edge_the_part_inside_counts() -> None:
    early, late = busy(50, 150, 90), busy(250, 100, 30)
    found = used((60, reading(GB, busy=(early,))), (260, reading(GB, busy=(late,))), end_ms=200)
    assert found.busy_average_pct == pytest.approx((90 * 50 + 30 * 50) / 100)
    outside = used(
        (-5, reading(0, busy=(busy(-10, 100, 99),))), (50, reading(GB, busy=(busy(300, 90, 99),))), end_ms=200
    )
    assert (outside.busy_average_pct, outside.busy_maximum_pct) == (None, None)


def test_power_and_clock() -> None:
    found = used(
        (100, reading(GB, power_mw=100, sm_clock_mhz=1000)), (300, reading(GB, power_mw=400, sm_clock_mhz=1300))
    )
    assert (found.power_average_mw, found.power_maximum_mw, found.sm_clock_average_mhz) == (300, 400, 1200)


# ---------------------------------------------------------------- reserved in advance


def reserving(*steps_gb: tuple[float, float], until_ms: float = 5000, gpu: Gpu = GPU, base: int = 0) -> bool:
    """Looks every 50 ms at own memory that changes at the times given."""
    looks = [(-10.0, reading(0, base=base))]
    for t_ms in range(0, int(until_ms), 50):
        own = [gb for at_ms, gb in steps_gb if t_ms >= at_ms]
        looks.append((t_ms, reading(int(own[-1] * GB) if own else 0, base=base)))
    found = used(*looks, gpu=gpu)
    assert ("taken at once and kept" in said(found, gpu)) is found.preallocated
    return found.preallocated


def test_most_of_the_free_memory_at_once_and_kept_looks_reserved() -> None:
    assert reserving((500, 0.4), (800, 38))
    assert reserving((0, 30))  # three quarters
    assert reserving((500, 14), base=20 * GB)  # of what others left
    assert reserving((500, 38), (4900, 0))  # given back at the very end


def test_what_grows_or_falls_or_is_small_or_brief_does_not() -> None:
    assert not reserving(*((t, t / 5000 * 38) for t in range(0, 5000, 50)))
    assert not reserving(*((t, t / 2500 * 38) for t in range(0, 2550, 50)), until_ms=30_000)
    assert not reserving((500, 38), (2000, 20))
    assert not reserving((500, 20))
    assert not reserving((500, 38), until_ms=1500)
    assert not reserving((500, 19), (2500, 38))
    assert not reserving((500, 38), gpu=Gpu("GPU-a", "A100"))  # its size is not known


# ---------------------------------------------------------------- beside companions


def beside(*looks: tuple[float, GpuReading, int], end_ms: float | None = None) -> GpuUsage:
    """The usage from looks at these times (ms from the start), each with so many others watched."""
    builder = GpuBuilder([GPU])
    for t_ms, each, companions in looks:
        end_ns = None if end_ms is None else AT + int(end_ms * MS)
        builder.add(GpuLook(AT + int(t_ms * MS), (each,), companions), AT, end_ns)
    return builder.finish()[0]


def test_a_companion_on_the_gpu_is_not_somebody_else() -> None:
    both = reading(GB, others=5 * GB, other_processes=0, companion_processes=1)
    found = beside((-10, reading(0), 1), (50, both, 1), (99, reading(GB), 1))
    assert (found.accompanied, found.shared, found.companions) == (True, False, 1)
    assert (found.memory_source, found.memory_peak_bytes) == (GpuMemorySource.PROCESSES, GB)
    assert said(found) == (
        "GPU 0: the operator and a server of it were both on it: its utilisation is of both, memory is told apart"
    )
    (of_the_server,) = remarks([GPU], [found], 0, server=True)
    assert "the server and its operator or another server were both on it" in of_the_server


def test_a_companion_that_was_elsewhere_or_at_another_time_is_nothing_to_speak_of() -> None:
    both = reading(GB, others=GB, other_processes=0, companion_processes=1)
    found = beside((-10, both, 2), (50, reading(GB), 1), (150, both, 2), end_ms=100)
    assert (found.accompanied, found.companions) == (False, 1)
    assert said(found) == ""
    off = beside((50, reading(0, others=GB, other_processes=0, companion_processes=1), 1))
    assert (off.used, off.accompanied) == (False, True)
    assert said(off) == ""


def test_a_rise_of_the_device_may_be_a_companion_s() -> None:
    found = beside((-10, reading(None, base=2 * GB), 1), (50, reading(None, base=5 * GB), 1))
    assert (found.memory_source, found.memory_peak_bytes, found.used) == (GpuMemorySource.DEVICE, 3 * GB, True)
    assert "a server of it ran meanwhile, and some or all of it may be theirs" in said(found)
    (of_the_server,) = remarks([GPU], [found], 0, server=True)
    assert "does not tell the server's own memory" in of_the_server
    assert "its operator or another server ran meanwhile" in of_the_server


def test_where_both_are_listed_without_their_memory_it_is_not_told_apart() -> None:
    untold = reading(0, base=4 * GB, own_processes=1, own_memory_bytes=None, listed_bytes=None, companion_processes=1)
    found = beside((-10, reading(0, base=GB), 1), (50, untold, 1))
    assert found.memory_source is GpuMemorySource.DEVICE
    assert "may be theirs" in said(found)
    assert "its utilisation is of both, memory cannot be told apart" in said(found)


# ---------------------------------------------------------------- of several


def test_an_operator_that_got_a_gpu_and_was_on_none_is_asked_about() -> None:
    on, off = GpuUsage("GPU-a", used=True), GpuUsage("GPU-b")
    assert "fall back to the CPU" in "".join(remarks([GPU, GPU], [off, off], 1))
    assert not list(remarks([GPU, GPU], [off, off], 0))
    assert not list(remarks([GPU, GPU], [off, on], 2))
    assert not list(remarks([], [], 1))


def test_the_busiest_and_the_fullest_are_chosen_among_those_that_tell() -> None:
    idle, a = GpuUsage("idle", False, 100, 100, 0, 0), GpuUsage("a", True, 10, 90, 1, 9)
    b, unknown = GpuUsage("b", True, 20, 80, 1, 8), GpuUsage("c", True)
    assert busiest((idle, unknown, a, b)) is b
    assert fullest((idle, unknown, a, b)) is a
    assert busiest((idle,)) is None
    assert fullest((unknown,)) is None
    assert busiest(()) is fullest(()) is None
