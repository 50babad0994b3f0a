"""Between the sampler and the disk: rows as they come, one late, and the usage at the end."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from builders import MB, MS, result, sample, totals

from cpost.model import Sample, StepResult, Usage
from cpost.model.gpu import BusySpan, Gpu, GpuLook, GpuReading
from cpost.recorder import GpuRecorder, Recorder, SeriesRecorder
from cpost.report.spreadsheet import series_header
from cpost.store import RunFolder

AT = 1_700_000_000 * 10**9


class Audience:
    """Notes what it is shown."""

    def __init__(self) -> None:
        self.shown: list[tuple[Any, ...]] = []

    def operator_runs(self, container: str) -> None:
        self.shown.append((container,))

    def operator_progress(self, elapsed_ns: int, percent: float | None, last: Sample | None, peak: int | None) -> None:
        self.shown.append((elapsed_ns, percent, last, peak))


@pytest.fixture
def audience() -> Audience:
    return Audience()


@pytest.fixture
def recorder(tmp_path: Path, audience: Audience) -> Recorder:
    return recorder_of(tmp_path, audience, GpuRecorder((), list))


def recorder_of(folder: Path, audience: Audience, gpus: GpuRecorder) -> Recorder:
    file = RunFolder(folder, ["seg"], overwrite=False).open_series("seg", series_header(len(gpus.gpus)))
    series = SeriesRecorder(file, 20 * MS, 8, gpus)
    return Recorder(series, audience)


def rows(recorder: Recorder) -> list[dict[str, str]]:
    with recorder.path.open(newline="") as file:
        return list(csv.DictReader(file))


def finished(recorder: Recorder, how: StepResult) -> Usage | None:
    made = recorder.finish(how)
    recorder.close()
    return made


def test_rows_go_out_as_they_come_but_the_last(recorder: Recorder, tmp_path: Path) -> None:
    assert recorder.path == tmp_path / "seg_final_result.csv"
    recorder.samples(AT, [sample(0), sample(10, 5_000)])
    assert [row["elapsed_s"] for row in rows(recorder)] == ["0.000000"]
    recorder.samples(AT, [sample(20, 10_000), sample(30, 20_000)])
    assert [row["cpu_percent"] for row in rows(recorder)] == ["", "", "50.000"]
    used = finished(recorder, result(totals=totals(20_000), wall_ns=30 * MS))
    assert [row["cpu_percent"] for row in rows(recorder)] == ["", "", "50.000", "75.000"]
    assert rows(recorder)[-1]["timestamp"] == "1700000000.030000"
    assert used is not None
    assert used.cpu_pct.maximum == 75


def test_a_life_shorter_than_a_window_has_its_rate_in_its_last_row(recorder: Recorder) -> None:
    recorder.samples(AT, [sample(0), sample(10, 9_000)])
    used = finished(recorder, result(totals=totals(9_000), wall_ns=10 * MS))
    assert [row["cpu_percent"] for row in rows(recorder)] == ["", "90.000"]
    assert used is not None
    assert used.cpu_pct.maximum == pytest.approx(90)


def test_an_operator_without_samples_leaves_the_header(recorder: Recorder) -> None:
    assert finished(recorder, result()) is None
    assert rows(recorder) == []
    assert recorder.path.read_text().startswith("timestamp,")


def test_totals_alone_are_a_usage(recorder: Recorder) -> None:
    used = finished(recorder, result(totals=totals(5_000, memory_peak_bytes=MB), wall_ns=10 * MS))
    assert used is not None
    assert (used.cpu_pct.average, used.memory_bytes.maximum) == (50, MB)


def test_the_audience_sees_the_last_sample(recorder: Recorder, audience: Audience) -> None:
    recorder.started("c1")
    recorder.progress(5)
    last = sample(20, 10_000, memory=3 * MB, memory_peak_bytes=4 * MB)
    recorder.samples(AT, [sample(0), last])
    recorder.progress(25 * MS)
    recorder.close()
    assert audience.shown == [("c1",), (5, None, None, None), (25 * MS, 50, last, 4 * MB)]


# ---------------------------------------------------------------- GPUs


def look(t_ms: float, own: int, busy: int | None = None) -> GpuLook:
    at_ns = AT + int(t_ms * MS)
    spans = () if busy is None else (BusySpan(at_ns, 20 * MS, busy),)
    reading = GpuReading(spans, own + 1, own, own, 1, 0, 250_000, 1410)
    return GpuLook(at_ns, (reading, GpuReading(own_memory_bytes=0, own_processes=0, other_processes=0)))


def test_gpus_of_this_host_are_no_use_to_an_operator_elsewhere(tmp_path: Path, audience: Audience) -> None:
    for source, count in (("engine stats", 0), ("kernel", 1)):
        recorder = recorder_of(tmp_path / source, audience, GpuRecorder((Gpu("GPU-a", "A", 1000),), list))
        recorder.samples(AT, [sample(0), sample(20, 10_000)])
        used = finished(recorder, result(totals=totals(20_000, source=source), wall_ns=30 * MS))
        assert used is not None
        assert len(used.gpus) == count


def test_a_row_has_the_gpu_figures_that_came_since_the_row_before(tmp_path: Path, audience: Audience) -> None:
    come = [look(-5, 90, 7), look(12, 100, 30), look(17, 200), look(31, 300, 50)]
    gpus = GpuRecorder((Gpu("GPU-a", "A", 1000), Gpu("GPU-b", "B")), lambda: [come.pop(0) for _ in come[:3]])
    recorder = recorder_of(tmp_path, audience, gpus)
    recorder.samples(AT, [sample(0), sample(10, 5_000), sample(20, 10_000)])
    used = finished(recorder, result(totals=totals(20_000), wall_ns=30 * MS))
    columns = ["gpu0_util_percent", "gpu0_memory_bytes", "gpu0_own_memory_bytes", "gpu0_power_mw", "gpu0_sm_clock_mhz"]
    found = rows(recorder)
    assert list(found[0])[-10:-5] == columns
    assert [[row[column] for column in columns] for row in found] == [
        [""] * 5,
        [""] * 5,
        ["30", "201", "200", "250000", "1410"],
    ]
    assert [row["gpu1_own_memory_bytes"] for row in found] == ["", "", "0"]
    assert used is not None
    assert [gpu.memory_peak_bytes for gpu in used.gpus] == [200, 0]  # what came after the end is not the operator's


def test_without_gpus_a_series_has_no_columns_for_them(recorder: Recorder) -> None:
    recorder.samples(AT, [sample(0)])
    used = finished(recorder, result(totals=totals(5_000), wall_ns=10 * MS))
    assert not [name for name in rows(recorder)[0] if "gpu" in name]
    assert used is not None
    assert used.gpus == ()
