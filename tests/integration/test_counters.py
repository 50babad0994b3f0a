"""What single counters say, and that a counter which a kernel does not have is unknown, on whatever kernel this is."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from integration import harness
from integration.conftest import Operator
from integration.harness import CGROUPS, Cpost, Host, Record

MB = 10**6
ON_V2 = (CGROUPS / "cgroup.controllers").exists()
KERNEL = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])
HAS_PRESSURE = Path("/proc/pressure/cpu").exists()
RESETS_PEAK = not ON_V2 or KERNEL >= (6, 12)

Rows = list[dict[str, str]]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory, op: Operator, before: object) -> tuple[Rows, Record]:
    """Rows and record of an operator that holds memory of three kinds."""
    folder = tmp_path_factory.mktemp("mixed")
    fill = (
        "head -c 30000000 /dev/zero >/dev/shm/x; head -c 40000000 /dev/zero >/tmp/x; exec appetite touch 50 sleep 2500"
    )
    (folder / "pipeline.yaml").write_text(harness.definition([op("mixed", "sh", "-c", fill)]))
    (folder / "payload").mkdir()
    done = Cpost(folder)("pipeline.yaml", "payload", "--json", "--metrics_dir", folder / "metrics").ended(0)
    return harness.rows_of(folder / "metrics/mixed_final_result.csv"), done.operator("mixed")


def highest(rows: Rows, column: str) -> int:
    return max(int(row[column]) for row in rows if row[column])


@pytest.mark.v2
def test_memory_is_split_by_kind(mixed: tuple[Rows, Record]) -> None:
    rows, _ = mixed
    assert 50 * MB <= highest(rows, "anon_bytes") <= 53 * MB
    assert 30 * MB <= highest(rows, "shmem_bytes") <= 31 * MB
    assert 70 * MB <= highest(rows, "file_bytes") <= 73 * MB  # shared memory is file memory to the kernel
    assert 40 * MB <= highest(rows, "reclaimable_bytes") <= 43 * MB
    assert 0 < highest(rows, "kernel_bytes") < 10 * MB


@pytest.mark.v2
def test_shared_memory_is_need_and_file_cache_is_not(mixed: tuple[Rows, Record]) -> None:
    _, found = mixed
    assert 120 * MB <= found["result"]["totals"]["memory_peak_bytes"] <= 127 * MB
    assert 80 * MB <= found["usage"]["need_peak_bytes"] <= 87 * MB


@pytest.mark.v2
def test_pressure_is_unknown_where_the_kernel_has_none(mixed: tuple[Rows, Record]) -> None:
    rows, _ = mixed
    complete = [row for row in rows if row["pids"]]
    assert complete
    for column in ("psi_cpu_some_us", "psi_memory_full_us", "psi_io_some_us"):
        assert {row[column] != "" for row in complete} == {HAS_PRESSURE}


@pytest.mark.v2
def test_interval_peak_is_unknown_where_the_mark_cannot_be_set_back(mixed: tuple[Rows, Record]) -> None:
    rows, _ = mixed
    assert any(row["memory_interval_peak_bytes"] for row in rows) is RESETS_PEAK


@pytest.mark.v2
def test_bytes_written_are_counted_on_v2(mixed: tuple[Rows, Record]) -> None:
    _, found = mixed
    written = found["result"]["totals"]["io_write_bytes"]
    if ON_V2:
        assert written >= 40 * MB
    else:  # v1 counts on no disk that never had a limit, and not what is written back later
        assert written is None or written >= 0


@pytest.mark.v2
def test_throttled_operator_tells_so(
    cpost: Cpost, op: Operator, pipeline: Callable[..., Path], payload: Path, host: Host, image: str
) -> None:
    waiting = op("held-back", "sh", "-c", "sleep 2; exec appetite burn 300 1")
    running = cpost.start(pipeline(waiting), payload, "--json")
    container = harness.until(lambda: host.live(image, running.process.pid), "the operator's container")[0]
    container.update(cpu_period=100_000, cpu_quota=20_000)
    totals = running.wait().ended(0).operator("held-back")["result"]["totals"]
    assert totals["throttled_periods"] >= 5
    assert totals["throttled_us"] > 200_000
