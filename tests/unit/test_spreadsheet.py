"""CSV: units in the names, empty cells for what was not read, no cell that a spreadsheet would run."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import pandas
import pytest
from builders import MB, MS, REFUSED, advice, record, repeat, result, sample, server_record, totals, usage
from hypothesis import given
from hypothesis import strategies as st

from cpost.model import (
    Detail,
    Doubt,
    ModelServed,
    OperatorRecord,
    Outcome,
    RepeatKind,
    Resources,
    Sample,
    Sampling,
    Spread,
    Spreads,
    Statistic,
    TritonFacts,
)
from cpost.model.gpu import GpuUsage
from cpost.report.spreadsheet import (
    SERIES_COLUMNS,
    SUMMARY_COLUMNS,
    Cell,
    defuse,
    series_header,
    series_row,
    summary,
)

AT = 1_700_000_000_123_456_789
DETAIL = Detail(*range(101, 101 + len(Detail._fields)))
FULL = Sample(1_500_000_000, 10, 7, 3, 5, 2, 405_242_000, 406_000_000, DETAIL, 4)
REPEATED = SUMMARY_COLUMNS[SUMMARY_COLUMNS.index("warmups") + 1 : SUMMARY_COLUMNS.index("server_of")]
SERVED = SUMMARY_COLUMNS[SUMMARY_COLUMNS.index("server_of") : SUMMARY_COLUMNS.index("compute_mean_ms") + 1]
TRIED = SUMMARY_COLUMNS[SUMMARY_COLUMNS.index("compute_mean_ms") + 1 :]
COUNTS = st.none() | st.integers(0, 2**63)
SAMPLES = st.builds(
    Sample,
    t_ns=st.integers(0, 10**15),
    cpu_us=st.integers(0, 2**53),
    memory_bytes=COUNTS,
    pids=COUNTS,
    detail=st.none() | st.builds(Detail, **dict.fromkeys(Detail._fields, COUNTS)),
)
RECORD = record(
    "seg",
    image="reg.io/seg:1",
    declared=Resources(2000, 1024 * MB, 1),
    declared_limits=Resources(4000),
    result=result(
        exit_code=0,
        wall_ns=2_500_000_000,
        totals=totals(
            3_000_000,
            throttled_us=250_000,
            oom_kills=0,
            pids_peak=9,
            io_read_bytes=4096,
            startup_cpu_us=40_000,
        ),
        sampling=Sampling(10 * MS, samples=251, ticks_due=251, ticks_missed=1),
    ),
    usage=replace(
        usage(),
        cpu_pct=Statistic(120, 1134.358, 100.5, 400, 1000),
        memory_bytes=Statistic(1.5 * MB, 405_242_000, None, 2 * MB),
        need_peak_bytes=300 * MB,
        working_set_peak_bytes=400 * MB,
        dev_shm_peak_bytes=30 * MB,
        cache_peak_bytes=50 * MB,
        gpus=(
            GpuUsage("GPU-idle", busy_average_pct=0, busy_maximum_pct=0, memory_peak_bytes=0),
            GpuUsage("GPU-a", True, 40.5, 97, 1500e6, 3_000_000_000),
        ),
    ),
    recommendation=replace(advice(), requests=Resources(12_000, 512 * MB, 1), dev_shm_bytes=64 * 2**20),
)


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


# ---------------------------------------------------------------- the series


def test_the_first_columns_are_the_first_cpost_s() -> None:
    assert series_header().startswith("timestamp,cpu_percent,memory,elapsed_s,cpu_us,")
    assert series_header() == ",".join(SERIES_COLUMNS) + "\n"
    assert len(set(SERIES_COLUMNS)) == len(SERIES_COLUMNS)
    assert set(Detail._fields) < set(SERIES_COLUMNS)


def test_a_row_has_every_figure_in_its_column() -> None:
    (row,) = rows(series_header() + series_row(FULL, 124.7138, AT))
    assert row == {
        "timestamp": "1700000001.623456",
        "cpu_percent": "124.714",
        "memory": "405.242000",
        "elapsed_s": "1.500000",
        "cpu_us": "10",
        "cpu_user_us": "7",
        "cpu_system_us": "3",
        "throttled_us": "5",
        "throttled_periods": "2",
        "memory_bytes": "405242000",
        "memory_interval_peak_bytes": "406000000",
        "pids": "4",
        **{name: str(getattr(DETAIL, name)) for name in Detail._fields},
    }


def test_what_was_not_read_is_empty_and_a_zero_is_a_zero() -> None:
    (row,) = rows(series_header() + series_row(sample(0, 0, memory=0), None, AT))
    assert {key for key, cell in row.items() if cell} == {
        "timestamp",
        "elapsed_s",
        "cpu_us",
        "memory",
        "memory_bytes",
    }
    assert (row["memory"], row["memory_bytes"], row["cpu_us"]) == ("0.000000", "0", "0")


@given(st.lists(SAMPLES, max_size=5))
def test_a_series_reads_back_with_the_same_values(samples: list[Sample]) -> None:
    text = series_header() + "".join(series_row(each, None, AT) for each in samples)
    read = rows(text)
    assert len(read) == len(samples)
    for row, each in zip(read, samples, strict=True):
        detail = each.detail or Detail()
        for name in ("cpu_us", "memory_bytes", "pids", *Detail._fields):
            value = getattr(detail if name in Detail._fields else each, name)
            assert row[name] == ("" if value is None else str(value)), name
        assert abs(float(row["elapsed_s"]) * 1e9 - each.t_ns) <= max(501, each.t_ns * 1e-12)
        assert None not in row


def test_pandas_reads_a_series() -> None:
    some = [FULL, FULL._replace(t_ns=2 * 10**9, detail=None, memory_bytes=None), FULL._replace(t_ns=3 * 10**9)]
    table = pandas.read_csv(io.StringIO(series_header() + "".join(series_row(each, 50, AT) for each in some)))
    assert list(table.columns) == list(SERIES_COLUMNS)
    assert list(table["elapsed_s"]) == [1.5, 2, 3]
    assert list(table["memory"].fillna(-1)) == [405.242, -1, 405.242]
    assert list(table["anon_bytes"].fillna(-1)) == [101, -1, 101]
    assert table["timestamp"][0] == pytest.approx(AT / 1e9 + 1.5, abs=1e-5)


# ---------------------------------------------------------------- the summary


def test_a_summary_row_has_every_figure_in_its_column() -> None:
    (row,) = rows(summary([RECORD], complete=True))
    assert row == {
        "operator": "seg",
        "outcome": "completed",
        "cause": "",
        "exit_code": "0",
        "wall_s": "2.5",
        "cpu_total_s": "3",
        "cpu_average_percent": "120",
        "cpu_p50_percent": "100.5",
        "cpu_p95_percent": "400",
        "cpu_p99_percent": "1000",
        "cpu_maximum_percent": "1134.358",
        "memory_average_mb": "1.5",
        "memory_p95_mb": "2",
        "memory_peak_mb": "405.242",
        "memory_need_peak_mb": "300",
        "cache_peak_mb": "50",
        "working_set_peak_mb": "400",
        "dev_shm_peak_mb": "30",
        "startup_cpu_s": "0.04",
        "throttled_s": "0.25",
        "oom_kills": "0",
        "pids_peak": "9",
        "io_read_bytes": "4096",
        "io_write_bytes": "",
        "gpus_used": "1",
        "gpu_average_percent": "40.5",
        "gpu_maximum_percent": "97",
        "gpu_memory_average_mb": "1500",
        "gpu_memory_peak_mb": "3000",
        "samples": "251",
        "ticks_missed": "1",
        "source": "kernel",
        "declared_cpu": "2",
        "declared_memory_mb": "1024",
        "declared_gpu": "1",
        "declared_cpu_limit": "4",
        "declared_memory_limit_mb": "",
        "policy": "peak",
        "recommended_cpu": "12",
        "recommended_memory_mb": "512",
        "recommended_dev_shm_mb": "67.108864",
        "recommended_gpu": "1",
        "reasons": "why",
        "image": "reg.io/seg:1",
        "run_complete": "yes",
        "repeats": "1",
        "warmups": "0",
        **dict.fromkeys((*REPEATED, *SERVED, *TRIED), ""),
    }


def test_the_columns_of_repeats_come_last_and_are_filled_where_there_are_several() -> None:
    spreads = Spreads(
        wall_ns=Spread(10**9, 1.5e9, 2 * 10**9, 3),
        cpu_us=Spread(1, 2, 3 * 10**6, 3),
        cpu_average_pct=Spread(0, 10.5, 11, 3),
        cpu_maximum_pct=Spread(100, 101, 250, 3),
        memory_peak_bytes=Spread(MB, 2 * MB, 3 * MB, 3),
    )
    runs = (repeat(1, 1, kind=RepeatKind.WARMUP), *(repeat(number) for number in (1, 2, 3)))
    several = replace(RECORD, repeats=runs, spreads=spreads, doubts=(Doubt("=odd", "look"), Doubt("short", "wait")))
    (row,) = rows(summary([several], complete=True))
    columns = list(row)
    after = columns.index("run_complete") + 1
    assert columns[after : after + len(REPEATED) + 2] == ["repeats", "warmups", *REPEATED]
    assert (row["repeats"], row["warmups"], row["doubts"]) == ("3", "1", "'=odd; short")
    assert {name: row[name] for name in REPEATED[:-1] if row[name]} == {
        "wall_minimum_s": "1",
        "wall_median_s": "1.5",
        "wall_maximum_s": "2",
        "cpu_total_minimum_s": "0.000001",
        "cpu_total_median_s": "0.000002",
        "cpu_total_maximum_s": "3",
        "cpu_average_minimum_percent": "0",
        "cpu_average_median_percent": "10.5",
        "cpu_average_maximum_percent": "11",
        "cpu_maximum_minimum_percent": "100",
        "cpu_maximum_median_percent": "101",
        "cpu_maximum_maximum_percent": "250",
        "memory_peak_minimum_mb": "1",
        "memory_peak_median_mb": "2",
        "memory_peak_maximum_mb": "3",
    }


def test_a_partial_run_says_so_in_every_row() -> None:
    assert [row["run_complete"] for row in rows(summary([RECORD, RECORD], complete=False))] == ["no", "no"]


def test_a_refused_operator_has_a_reason_and_no_numbers() -> None:
    failed = record(result=result(Outcome.FAILED, cause="exit code 1", exit_code=1), usage=None, recommendation=REFUSED)
    (row,) = rows(summary([failed], complete=True))
    assert (row["outcome"], row["cause"], row["exit_code"]) == ("failed", "exit code 1", "1")
    assert (row["recommended_cpu"], row["recommended_memory_mb"]) == ("", "")
    assert row["reasons"] == "the operator failed"
    assert all(row[name] == "" for name in SUMMARY_COLUMNS if "percent" in name or name.endswith(("_s", "_bytes")))


def test_no_operators_leave_the_header() -> None:
    assert summary([], complete=True) == ",".join(SUMMARY_COLUMNS) + "\n"


def test_pandas_reads_a_summary() -> None:
    table = pandas.read_csv(io.StringIO(summary([RECORD, replace(RECORD, usage=None, operator="b")], complete=True)))
    assert list(table.columns) == list(SUMMARY_COLUMNS)
    assert list(table["operator"]) == ["seg", "b"]
    assert list(table["memory_peak_mb"].fillna(0)) == [405.242, 0]
    assert list(table["recommended_memory_mb"]) == [512, 512]


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)


@given(TEXTS, TEXTS, TEXTS)
def test_any_text_stays_in_its_cell(name: str, image: str, cause: str) -> None:
    hostile: OperatorRecord = record(
        name, image=image, result=result(Outcome.FAILED, cause=cause), recommendation=REFUSED
    )
    (row,) = rows(summary([hostile, hostile], complete=True))[1:]
    assert [row[key].removeprefix("'") for key in ("operator", "image", "cause")] == [
        text.removeprefix("'") for text in (name, image, cause)
    ]
    assert row["policy"] == "peak"


# ---------------------------------------------------------------- formulas


@pytest.mark.parametrize("start", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx"])
@pytest.mark.parametrize("before", ["", " ", "   ", "text\n", "text\n  ", "\n\n", "text\r", "text\r\n "])
def test_text_that_begins_like_a_formula_is_defused(start: str, before: str) -> None:
    assert defuse(before + start) == f"'{before}{start}"


@pytest.mark.parametrize("text", ["", "a=b", "1-2", "a@b.c", "exit code 1", " x", "a\nb", "(-1)", "'=1"])
def test_other_text_stays_as_it_is(text: str) -> None:
    assert defuse(text) == text


@pytest.mark.parametrize("number", [-5, -0.5, 0, 7, 1.25, None])
def test_numbers_are_never_touched(number: Cell) -> None:
    assert defuse(number) is number


def test_formulas_do_not_get_into_a_summary() -> None:
    evil = record(
        "=cmd|' /C calc'!A0",
        image="@img",
        result=result(Outcome.FAILED, cause="a\n=1", exit_code=-1),
        recommendation=replace(REFUSED, reasons=("-2+3",)),
    )
    (row,) = rows(summary([evil], complete=True))
    assert row["operator"] == "'=cmd|' /C calc'!A0"
    assert (row["image"], row["cause"], row["reasons"]) == ("'@img", "'a\n=1", "'-2+3")
    assert row["exit_code"] == "-1"


# ---------------------------------------------------------------- servers


def test_a_server_s_row_follows_its_operator_s() -> None:
    models = (
        ModelServed("double", "1", 3, 1, queue_us_mean=2000.0, compute_us_mean=8000.0),
        ModelServed("other", "1", 1, 0, queue_us_mean=6000.0, compute_us_mean=4000.0),
        ModelServed("idle", "1", 0, 0),
        ModelServed("untold", "1", 1, 0),  # no zero goes into the means for it
    )
    served = server_record(triton=TritonFacts("2.51.0", models))
    shared = server_record("all", triton=None, ready_ns=None, idle=None, load=None, recommendation=REFUSED)
    first, own, second, last = rows(summary([record("a", servers=(served,)), record("b")], [shared], complete=True))
    assert [each["operator"] for each in (first, own, second, last)] == ["a", "a__triton", "b", "pipeline__all"]
    assert {name: own[name] for name in SERVED} == {
        "server_of": "a",
        "ready_s": "1.5",
        "idle_cpu_average_percent": "1",
        "idle_cpu_maximum_percent": "1",
        "idle_memory_maximum_mb": "100",
        "load_cpu_average_percent": "150",
        "load_cpu_maximum_percent": "150",
        "load_memory_maximum_mb": "200",
        "requests_served": "5",
        "requests_failed": "1",
        "queue_mean_ms": "3",  # each request counts as much as the next
        "compute_mean_ms": "7",
    }
    assert (own["memory_peak_mb"], own["recommended_memory_mb"], own["image"]) == ("300", "512", "img:2")
    for operator in (first, second):
        assert {operator[name] for name in SERVED} == {""}
    assert {name: last[name] for name in SERVED if last[name]} == {"server_of": "pipeline"}
    assert (last["recommended_memory_mb"], last["run_complete"]) == ("", "yes")


def test_means_of_no_requests_are_unknown() -> None:
    served = server_record(triton=TritonFacts("2", (ModelServed("idle", "1", 0, 2),)))
    _, own = rows(summary([record(servers=(served,))], complete=False))
    assert [own[name] for name in SERVED[-4:]] == ["0", "2", "", ""]
