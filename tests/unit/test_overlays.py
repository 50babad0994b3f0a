"""Several runs over one another: a line and a colour for each, what each was held to, and what went wrong in it."""

from __future__ import annotations

from pathlib import Path

from builders import MB, MS, advice, record, repeat, result, run, usage

from browser.pages import write_series
from cpost.model import (
    Enforced,
    Gpu,
    GpuUsage,
    HostFacts,
    OperatorRecord,
    Options,
    Outcome,
    Resources,
    Trial,
    Verdict,
    Verification,
)
from cpost.report.charts import Chart, Level
from cpost.report.overlays import Strand, colours, columns, overlaid
from cpost.report.page import _lines
from cpost.report.reader import Reader
from cpost.report.sections import Source, compared_section, operator_section
from cpost.report.series import Series, read_series

GPUS = (Gpu("GPU-0", "A GPU"), Gpu("GPU-1", "Another"))


def series_of(folder: Path, gpus: int = 0) -> Series:
    write_series(folder / "a.csv", 60, gpus)
    return read_series(folder / "a.csv", 100, 10, columns(gpus))


def by_title(charts: tuple[Chart, ...]) -> dict[str, Chart]:
    return {each.title: each for each in charts}


def test_one_limit_for_all_is_one_level_and_several_are_their_runs_own(tmp_path: Path) -> None:
    series = series_of(tmp_path)
    held = [Resources(2000, 600 * MB), Resources(2000, 900 * MB)]
    strands = [Strand("no limits", 0, series, result())]
    strands += [Strand(f"run {n}", n, series, result(), limits) for n, limits in enumerate(held, 1)]
    charts = by_title(overlaid(strands))
    assert charts["CPU"].levels == (Level("limit", "limit", 2000),)
    assert charts["Memory charged"].levels == (
        Level("limit of run 1", "o1", 600_000),
        Level("limit of run 2", "o2", 900_000),
    )
    assert by_title(overlaid(strands[:1]))["CPU"].levels == ()


def test_what_went_wrong_is_marked_and_an_ordinary_end_is_not(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("elapsed_s,memory_bytes,oom_kills\n0.0,5,0\n0.4,5,2\n")
    killed = read_series(tmp_path / "a.csv", 100, 10)
    broken = result(Outcome.OOM_KILLED, exit_code=137, wall_ns=450 * MS)
    failed = result(Outcome.FAILED, exit_code=3, wall_ns=900 * MS)
    well = result(exit_code=0, wall_ns=800 * MS)
    strands = [
        Strand("run 1", 1, killed, broken),
        Strand("run 2", 2, Series(), failed),
        Strand("run 3", 3, killed, well),
    ]
    (chart,) = overlaid(strands)
    assert [(mark.at_ms, mark.text) for mark in chart.marks] == [
        (400, "run 1: 2 OOM kills"),
        (450, "run 1: killed for memory"),
        (900, "run 2: exit 3"),
        (400, "run 3: 2 OOM kills"),
    ]
    assert all(mark.bad for mark in chart.marks)
    assert chart.end_ms == 900


def test_who_was_held_back_is_drawn_as_such(tmp_path: Path) -> None:
    free = read_series(_free(tmp_path / "free.csv"), 100, 10, columns(0))
    held = series_of(tmp_path)
    chart = by_title(overlaid([Strand("free", 0, free, result()), Strand("held", 1, held, result())]))["Throttling"]
    assert [line.label for line in chart.lines] == ["held"]
    assert "Throttling" not in by_title(overlaid([Strand("free", 0, free, result())]))


def _free(path: Path) -> Path:
    path.write_text("elapsed_s,cpu_percent,throttled_us\n0.0,5,0\n0.4,5,0\n")
    return path


def test_gpus_are_overlaid_where_they_were_used(tmp_path: Path) -> None:
    series = series_of(tmp_path, 2)
    used = usage(gpus=(GpuUsage("GPU-0", used=True), GpuUsage("GPU-1")))
    strands = [Strand("a", 0, series, result(), usage=used), Strand("b", 1, series, result(), usage=usage())]
    charts = by_title(overlaid(strands, 2))
    assert [line.label for line in charts["GPU 0 busy"].lines] == ["a", "b"]
    assert charts["GPU 0 memory"].lines[0].highest == 700_000
    assert [line.label for line in charts["GPU 1 memory"].lines] == ["b"]
    assert not [title for title in by_title(overlaid(strands, 0)) if title.startswith("GPU")]


def test_colours_are_those_of_the_places_as_far_as_there_are_any() -> None:
    assert colours([0, 2, 3]) == [0, 2, 3]
    assert colours([1, 9, 3]) == [1, 0, 3]
    assert sorted(colours(range(3, 11))) == list(range(8))


def test_a_run_has_one_colour_on_the_whole_page(tmp_path: Path) -> None:
    write_series(tmp_path / "a.csv", 60)
    early, late = (record(name, series_file="a.csv") for name in ("early", "late"))
    sources = [Source("one", run(early), tmp_path), Source("two", run(early, late), tmp_path)]
    drawn = {name: compared_section(name, sources, 100).charts[0].lines for name in ("early", "late")}
    assert [(line.label, line.style) for line in drawn["early"]] == [("one", "o0"), ("two", "o1")]
    assert [(line.label, line.style) for line in drawn["late"]] == [("two", "o1")]


def proven(folder: Path) -> OperatorRecord:
    """Broken under 300 MB, then held under 600 MB."""
    for name in ("a.csv", "a_verify1.csv", "a_verify2.csv"):
        write_series(folder / name, 60, 2)
    broken = result(Outcome.OOM_KILLED, exit_code=137, wall_ns=500 * MS)
    trials = tuple(
        Trial((Enforced("a", Resources(1000, memory)),), verdict, "", ended, usage(), series_file=f"a_verify{n}.csv")
        for n, (memory, verdict, ended) in enumerate(
            ((300 * MB, Verdict.BROKEN, broken), (600 * MB, Verdict.HOLDS, result(wall_ns=600 * MS))), 1
        )
    )
    proof = Verification(Verdict.HOLDS, 600 * MS, 0.1, trials)
    return record("a", series_file="a.csv", recommendation=advice(), verification=proof)


def test_runs_under_limits_show_their_limits_and_how_they_broke(tmp_path: Path) -> None:
    made = run(proven(tmp_path), host=HostFacts(gpus=GPUS))
    section = operator_section(made.operators[0], made, Reader(tmp_path, Options(), 100))
    charts = by_title(section.parts[0].charts)
    assert set(charts) == {
        *("CPU", "Memory charged", "Memory need", "Throttling"),
        *(f"GPU {place} {what}" for place in (0, 1) for what in ("busy", "memory")),
    }
    assert [level.label for level in charts["Memory charged"].levels] == ["limit of run 1", "limit of run 2"]
    assert "run 1: killed for memory" in [mark.text for mark in charts["CPU"].marks]
    drawn = sum(len(chart.lines) for each in (section, *section.parts) for chart in each.charts)
    assert drawn <= _lines([Source("", made, tmp_path)])


def test_the_limit_that_runs_were_measured_under_is_a_level(tmp_path: Path) -> None:
    write_series(tmp_path / "a.csv", 60)
    options = Options(memory_limit_bytes=800 * MB)
    sources = [
        Source("one", run(record("a", series_file="a.csv"), options=options), tmp_path),
        Source("two", run(record("a", series_file="a.csv")), tmp_path),
    ]
    repeated = run(record("a", repeats=tuple(repeat(n, series_file="a.csv") for n in (1, 2))), options=options)
    of_repeats = operator_section(repeated.operators[0], repeated, Reader(tmp_path, options, 100)).parts[0]
    for section in (compared_section("a", sources, 100), of_repeats):
        assert by_title(section.charts)["Memory charged"].levels == (Level("limit", "limit", 800_000),)
