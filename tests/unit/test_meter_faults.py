"""The meter where files are missing or make no sense: unknown, never a zero, never a crash."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from trees import LAYOUTS, V2, Tree, figures, read

from cpost.measure.meter import Meter, open_meter
from cpost.model import Sample

Open = Callable[[str], Tree]
GARBAGE = ["", "max\n", "banana", "\n", "12 13\n", "0x10\n", "\x00\x00", "nan", "\udcff\udcfe", "=" * 100_000]
SPLIT = ("anon_bytes", "shmem_bytes", "file_bytes", "inactive_file_bytes", "reclaimable_bytes")
# What is lost with each file.
V1_FILES: dict[str, tuple[str, ...]] = {
    "memory.usage_in_bytes": ("memory_bytes",),
    "memory.max_usage_in_bytes": ("memory_peak_bytes",),
    "memory.stat": SPLIT,
    "memory.kmem.usage_in_bytes": ("kernel_bytes",),
    "pids.current": ("pids",),
    "blkio.throttle.io_service_bytes_recursive": ("io_read_bytes", "io_write_bytes"),
    "cpuacct.usage_user": ("cpu_user_us",),
    "cpuacct.usage_sys": ("cpu_system_us",),
    "cpu.pressure": ("psi_cpu_some_us",),
    "memory.pressure": ("psi_memory_some_us", "psi_memory_full_us"),
    "io.pressure": ("psi_io_some_us", "psi_io_full_us"),
}
V2_FILES: dict[str, tuple[str, ...]] = {
    "memory.current": ("memory_bytes",),
    "memory.peak": ("memory_peak_bytes",),
    "memory.stat": (*SPLIT, "kernel_bytes"),
    "memory.events": ("oom_kills",),
    "pids.current": ("pids",),
}
CASES = [("hybrid-cgroupfs", file, lost) for file, lost in V1_FILES.items()]
CASES += [("v2-systemd", file, lost) for file, lost in V2_FILES.items()]


def without(sample: Sample, lost: tuple[str, ...]) -> Sample:
    assert sample.detail is not None
    detail = sample.detail._replace(**{name: None for name in lost if name in sample.detail._fields})
    return sample._replace(detail=detail, **{name: None for name in lost if name in sample._fields})


@pytest.mark.parametrize(("name", "file", "lost"), CASES)
def test_a_missing_file_loses_its_own_figures_only(recorded: Open, name: str, file: str, lost: tuple[str, ...]) -> None:
    tree = recorded(name)
    for path in tree.files(file):
        path.unlink()
    assert read(tree.meter()) == without(figures(name), lost)


@pytest.mark.parametrize(("name", "file", "lost"), CASES)
def test_garbage_in_a_file_loses_its_own_figures_only(
    recorded: Open, name: str, file: str, lost: tuple[str, ...]
) -> None:
    tree = recorded(name)
    mark = tree.file("memory.peak" if name in V2 else "memory.max_usage_in_bytes")
    kernel_says, broken = mark.read_text(), tree.files(file)
    for text in GARBAGE:
        mark.write_text(kernel_says)  # reading set it back
        for path in broken:
            path.write_bytes(text.encode(errors="surrogateescape"))
        meter = tree.meter()
        assert read(meter) == without(figures(name), lost), text
        meter.close()


@pytest.mark.parametrize(("name", "file"), [("v1-cgroupfs", "cpuacct.usage"), ("v2-cgroupfs", "cpu.stat")])
def test_without_a_cpu_counter_there_is_no_sample(recorded: Open, name: str, file: str) -> None:
    tree = recorded(name)
    meter = tree.meter()
    for text in GARBAGE:
        tree.file(file).write_bytes(text.encode(errors="surrogateescape"))
        assert meter.read(0, detailed=True) is None, text


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_group_that_is_not_there_reads_as_nothing(recorded: Open, name: str) -> None:
    tree = recorded(name)
    meter = open_meter(tree.hierarchies, tree.hierarchies.group("nobody"), own=True)
    assert meter.read(0, detailed=True) is None
    assert (meter.peak_bytes(), meter.pids_peak(), meter.begin()) == (None, None, None)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_closed_meter_reads_as_nothing(recorded: Open, name: str) -> None:
    meter: Meter = recorded(name).meter()
    meter.close()
    meter.close()
    assert meter.read(0, detailed=True) is None
