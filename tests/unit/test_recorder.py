"""Between the sampler and the disk: rows as they come, one late, and the usage at the end."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from builders import MB, MS, result, sample, server, totals

from cpost.model import Advice, Outcome, Resources, Sample, Server, StepResult, TritonFacts, Usage
from cpost.model.gpu import BusySpan, Gpu, GpuLook, GpuReading
from cpost.recorder import GpuRecorder, Recorder, SeriesRecorder, ServerRecorder
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

    def server_starts(self, started: Server) -> None:
        self.shown.append(("starts", started.name))

    def server_ready(self, started: Server, after_ns: int) -> None:
        self.shown.append(("ready", started.name, after_ns))


@pytest.fixture
def audience() -> Audience:
    return Audience()


@pytest.fixture
def recorder(tmp_path: Path, audience: Audience) -> Recorder:
    return recorder_of(tmp_path, audience, GpuRecorder((), list))


def series_of(folder: Path, name: str, gpus: GpuRecorder) -> SeriesRecorder:
    file = RunFolder(folder, [name], overwrite=False).open_series(name, series_header(len(gpus.gpus)))
    return SeriesRecorder(file, 20 * MS, 8, gpus)


def recorder_of(folder: Path, audience: Audience, gpus: GpuRecorder) -> Recorder:
    return Recorder(series_of(folder, "seg", gpus), audience)


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


# ---------------------------------------------------------------- servers


def server_recorder(folder: Path, audience: Audience, gpus: GpuRecorder, which: Server | None = None) -> ServerRecorder:
    which = which or server(
        "triton", models=("m",), declared=Resources(1000), limits=Resources(2), memory_limit_bytes=10**12
    )
    return ServerRecorder(which, series_of(folder, "a__triton", gpus), gpus, 20 * MS, 8, audience)


def serve(recorder: ServerRecorder) -> None:
    """Three seconds: it loads, using 90 %, waits, and works at 200 %, with 50, 20 and 80 MB."""
    cpu_us = 0
    for t_ms in range(0, 3001, 10):
        percent, memory = (90, 50) if t_ms <= 1000 else (0, 20) if t_ms <= 2000 else (200, 80)
        cpu_us += percent * 100 if t_ms else 0
        recorder.samples(AT, [sample(t_ms, cpu_us, memory * MB, memory_peak_bytes=memory * MB)])
        if t_ms == 1050:
            recorder.ready(1000 * MS)
        if t_ms == 2100:
            recorder.load_began(2000 * MS)
    recorder.load_ended(3000 * MS)


WHOLE = totals(2_900_000, memory_peak_bytes=90 * MB)


def test_a_server_is_recorded_as_a_whole_and_in_stretches(tmp_path: Path, audience: Audience) -> None:
    recorder = server_recorder(tmp_path, audience, GpuRecorder((), list))
    serve(recorder)
    recorder.ended(result(totals=WHOLE, wall_ns=3000 * MS), TritonFacts("2.51.0"))
    made = recorder.record("peak", "triton:1", kept=True)
    recorder.close()
    assert audience.shown == [("starts", "triton"), ("ready", "triton", 1000 * MS)]
    assert (made.name, made.image, made.models) == ("triton", "triton:1", ("m",))
    assert (made.declared, made.declared_limits) == (Resources(1000), Resources(2))
    assert (made.ready_ns, made.triton, made.series_file) == (
        10**9,
        TritonFacts("2.51.0"),
        "a__triton_final_result.csv",
    )
    assert made.usage is not None
    assert made.idle is not None
    assert made.load is not None
    assert made.usage.cpu_pct.average == pytest.approx(290 / 3)
    assert made.usage.memory_bytes.maximum == 90 * MB
    assert made.idle.cpu_pct.average == pytest.approx(0, abs=1)
    assert made.load.cpu_pct.average == pytest.approx(200, abs=3)
    assert (made.idle.memory_bytes.maximum, made.load.memory_bytes.maximum) == (50 * MB, 80 * MB)
    assert made.recommendation.requests == Resources(2000, 256 * MB)
    assert any("while its operator ran" in reason for reason in made.recommendation.reasons)
    assert len((tmp_path / made.series_file).read_text().splitlines()) == 302


def test_what_is_odd_about_a_server_is_among_its_warnings(tmp_path: Path, audience: Audience) -> None:
    recorder = server_recorder(tmp_path, audience, GpuRecorder((), list))
    recorder.ended(result(Outcome.FAILED, cause="exit code 7", warnings=("one",)), None)
    made = recorder.record("peak", "triton:1", kept=False, problems=("two",))
    recorder.close()
    assert made.result.warnings == ("one", "two")
    assert (made.series_file, made.usage, made.load, made.ready_ns) == ("", None, None, None)
    assert made.recommendation.reasons == ("the server failed (exit code 7)",)


def test_a_server_that_was_never_started_has_a_record_that_says_so(tmp_path: Path, audience: Audience) -> None:
    recorder = server_recorder(tmp_path, audience, GpuRecorder((), list))
    made = recorder.record("peak", "triton:1", kept=True)
    recorder.close()
    assert (made.result.outcome, made.result.cause) == (Outcome.FAILED, "it was not started")
    assert made.recommendation.status is Advice.REFUSED


def test_a_server_reaching_its_limit_is_refused(tmp_path: Path, audience: Audience) -> None:
    tight = server("triton", memory_limit_bytes=90 * MB)
    recorder = server_recorder(tmp_path, audience, GpuRecorder((), list), tight)
    serve(recorder)
    recorder.ended(result(totals=WHOLE, wall_ns=3000 * MS), None)
    made = recorder.record("peak", "triton:1", kept=True)
    recorder.close()
    assert made.recommendation.reasons == ("its memory reached the limit of 90.000 MB: more may be of use to it",)


def test_looks_at_gpus_go_to_a_server_s_stretches_too(tmp_path: Path, audience: Audience) -> None:
    come = [look(-5, 0), look(500, 900), look(1500, 300), look(2500, 700), look(2990, 650)]
    gpus = GpuRecorder((Gpu("GPU-a", "A", 1000), Gpu("GPU-b", "B")), lambda: [come.pop(0) for _ in come[:1]])
    recorder = server_recorder(tmp_path, audience, gpus)
    serve(recorder)
    recorder.ended(result(totals=WHOLE, wall_ns=3000 * MS), None)
    made = recorder.record("peak", "triton:1", kept=True)
    recorder.close()
    peaks = [used.gpus[0].memory_peak_bytes for used in (made.usage, made.idle, made.load) if used is not None]
    assert peaks == [900, 300, 700]


def test_a_recorder_keeps_its_own_servers_apart_from_shared_ones(tmp_path: Path, audience: Audience) -> None:
    gpus = GpuRecorder((), list)
    made = []

    def beside(which: Server) -> ServerRecorder:
        made.append(server_recorder(tmp_path / which.name, audience, gpus, which))
        return made[-1]

    recorder = Recorder(series_of(tmp_path, "seg", gpus), audience, beside)
    own, shared = recorder.server(server("own")), recorder.server(server("all", shared=True))
    assert recorder.servers == [own]
    assert made == [own, shared]
    recorder.close()
    made[1].close()
