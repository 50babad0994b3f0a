"""Series read back for drawing, as they are and as they should not be."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders import MB, sample

from cpost.model import Detail, Sample
from cpost.model.gpu import BusySpan, GpuReading
from cpost.report import spreadsheet
from cpost.report.series import COLUMNS, GPU_COLUMNS, NEED, read_series


def write(folder: Path, rows: list[tuple[Sample, float | None]], *more: str) -> Path:
    path = folder / "a_final_result.csv"
    lines = [spreadsheet.series_row(sample, percent, 10**18) for sample, percent in rows]
    path.write_text(spreadsheet.series_header() + "".join(lines) + "".join(more))
    return path


def test_what_is_drawn_is_what_was_written(tmp_path: Path) -> None:
    detail = Detail(reclaimable_bytes=3 * MB, oom_kills=0)
    path = write(
        tmp_path,
        [
            (sample(0, 0, 10 * MB, memory_peak_bytes=11 * MB, detail=detail), None),
            (sample(10, 5000, 20 * MB, memory_peak_bytes=25 * MB), 51.25),
            (sample(20, 9000, 5 * MB, detail=detail._replace(oom_kills=2)), 47.5),
        ],
    )
    series = read_series(path, 100, 10)
    assert series.traces == {
        "cpu_percent": (((10, 512), (20, 475)),),
        "memory_bytes": (((0, 10_000), (10, 20_000), (20, 5_000)),),
        "memory_interval_peak_bytes": (((0, 11_000), (10, 25_000)),),
        "reclaimable_bytes": (((0, 3_000), (20, 3_000)),),
        NEED: (((0, 7_000), (20, 2_000)),),
    }
    assert (series.rows, series.end_ms, series.oom_kills, series.problem) == (3, 20, ((20, 2),), "")


def test_out_of_memory_kills_are_counted_to_the_end_however_often_they_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("elapsed_s,oom_kills\n" + "".join(f"{n / 100},{3 * n}\n" for n in range(41)))
    kills = read_series(tmp_path / "a.csv", 100, 10).oom_kills
    assert kills[0] == (10, 3)
    assert len(kills) == 12
    assert sum(count for _, count in kills) == 120


def test_cells_that_are_empty_for_long_are_a_gap(tmp_path: Path) -> None:
    known = [*range(0, 300, 10), *range(600, 900, 10)]
    rows = [(sample(at, 0, MB), 1.0 if at in known else None) for at in range(0, 900, 10)]
    series = read_series(write(tmp_path, rows), 1000, 10)
    first, second = series.traces["cpu_percent"]
    assert (first[-1][0], second[0][0]) == (290, 600)
    assert len(series.traces["memory_bytes"]) == 1


def test_columns_of_gpus(tmp_path: Path) -> None:
    reading = GpuReading((BusySpan(0, 1, 97),), 3_000_000_000, None, 2_000_000_000, None, None, 123_400, 1980)
    path = tmp_path / "a.csv"
    row = spreadsheet.series_row(sample(5, 0, MB), None, 0, (None, reading))
    path.write_text(spreadsheet.series_header(2) + row)
    traces = read_series(path, 10, 10).traces
    assert {name: pieces[0][0][1] for name, pieces in traces.items() if name.startswith("gpu")} == {
        "gpu1_util_percent": 970,
        "gpu1_memory_bytes": 3_000_000,
        "gpu1_own_memory_bytes": 2_000_000,
        "gpu1_power_mw": 1234,
        "gpu1_sm_clock_mhz": 1980,
    }


def test_all_columns_that_are_drawn_are_written() -> None:
    header = spreadsheet.series_header(1).strip().split(",")
    assert {*COLUMNS, *(f"gpu0_{column}" for column in GPU_COLUMNS)} <= set(header)


def test_only_the_columns_that_are_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path, [(sample(0, 0, MB, detail=Detail(reclaimable_bytes=0)), 1.0)])
    assert list(read_series(path, 10, 10, ["cpu_percent"]).traces) == ["cpu_percent"]


@pytest.mark.parametrize(
    "torn", ["1,2\n", "x" * 500 + "\n", ",,,nan" + "," * 22 + "\n", ",,,inf" + "," * 22 + "\n", "\0\n"]
)
def test_rows_that_make_no_sense_are_left_out_and_counted(tmp_path: Path, torn: str) -> None:
    series = read_series(write(tmp_path, [(sample(0, 0, MB), 1.0)], torn, torn), 10, 10)
    assert series.rows == 1
    assert series.problem == "2 rows of a_final_result.csv make no sense and are left out"


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    assert read_series(tmp_path / "gone.csv", 10, 10).problem == "its series gone.csv is not there"
    other = tmp_path / "other.csv"
    other.write_bytes(b"\xff\xfe\0a,b\n1,2\n")
    assert read_series(other, 10, 10).problem == "other.csv is no series of cpost's: it has no column elapsed_s"
    assert read_series(write(tmp_path, []), 10, 10).problem == "its series a_final_result.csv has no rows"
