"""The pure parts of the benchmarks: statistics, the table, and what is concluded from times and series."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import (
    applied,
    cpost_sampler,
    endurance,
    memory_kills,
    naive,
    overhead,
    recommendations,
    slowdown,
    spikes,
    table,
)
from benchmarks.applied import Applied, Fate, Tried
from benchmarks.cpost_runs import Operator
from benchmarks.formulas import FORMULAS, Limits
from benchmarks.programs import Spike, parse_report
from benchmarks.ranges import Range, median_interval, quantile, range_of, ratios
from benchmarks.recommendations import Known
from benchmarks.slowdown import Block
from benchmarks.spikes import Stretch
from benchmarks.table import Line
from cpost.measure.cgroup import UNIFIED, Group
from cpost.model import Enforced, Outcome, Resources, Trial, Verdict
from cpost.trials import throttled_share
from tests.unit import builders

MS, MB = 10**6, 10**6
FIGURES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60)


# ---------------------------------------------------------------- statistics


def test_spread_is_median_and_range() -> None:
    assert range_of([3, 1, 8, 2]) == Range(2.5, 1, 8, 4)


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.0, 1)])
def test_quantile_is_the_nearest_rank(share: float, expected: int) -> None:
    assert quantile(range(100, 0, -1), share) == expected


def test_ratios_are_of_values_measured_side_by_side() -> None:
    assert ratios([2.0, 9.0], [1.0, 3.0]) == Range(2.5, 2.0, 3.0, 2)


@pytest.mark.parametrize(("count", "rank"), [(6, 1), (8, 1), (9, 2), (20, 6), (30, 10)])  # from tables of the sign test
def test_interval_of_the_median_is_that_of_the_sign_test(count: int, rank: int) -> None:
    _, low, high = median_interval(range(1, count + 1))
    assert (low, high) == (rank, count + 1 - rank)


@given(FIGURES)
def test_interval_holds_the_median(values: list[float]) -> None:
    median, low, high = median_interval(values)
    assert min(values) <= low <= median <= high <= max(values)


# ---------------------------------------------------------------- the table


def test_table_has_every_tool_and_every_verdict() -> None:
    lines = [
        Line("Cost", "one", "us", {table.CPOST: Range(2.0, 1.0, 3.5, 3)}, "<= 2", True),
        Line("Cost", "two", "", {table.DOCKER: "3 of 4"}, "all", False),
        Line("Truth", "three", "MB", {table.CPOST: Range(0.5, 0.5, 0.5, 1)}, signed=True),
    ]
    text = table.render(lines).splitlines()
    assert all(tool in text[0] for tool in table.TOOLS)
    rows = {row.split("  ")[0]: row for row in text}
    assert "2.00 (1.00..3.50)" in rows["one (us)"]
    assert rows["one (us)"].endswith("<= 2  met")
    assert rows["two"].split()[-2:] == ["all", "MISSED"]
    assert "+0.50 " in rows["three (MB)"]
    assert text.index("Cost") < text.index(rows["two"]) < text.index("Truth") < text.index(rows["three (MB)"])
    assert text.count("Cost") == 1
    column = text[0].index(table.DOCKER)
    assert rows["two"][column:].startswith("3 of 4")
    assert rows["three (MB)"][column:].startswith("- ")


def test_table_as_data_survives_json() -> None:
    data = json.loads(
        json.dumps(table.as_data([Line("T", "w", "s", {table.CPOST: range_of([1.0]), table.LIMIT: "x"})]))
    )
    assert data[0]["cells"] == {"cpost": {"median": 1.0, "low": 1.0, "high": 1.0, "count": 1}, "C loop": "x"}
    assert data[0]["met"] is None


# ---------------------------------------------------------------- spikes


def series(sizes: Iterable[int], period_ns: int = 10 * MS) -> list[Stretch]:
    """Samples of these sizes (MB), each for the period before it."""
    return [Stretch((n - 1) * period_ns, n * period_ns, size * MB) for n, size in enumerate(sizes)]


def test_spikes_count_where_they_are() -> None:
    found = series([50, 50, 52, 50, 50, 50, 50, 50])
    at_its_place = Spike(12 * MS, 13 * MS, 14 * MS, 15 * MS)
    elsewhere = Spike(52 * MS, 53 * MS, 54 * MS, 55 * MS)
    assert spikes.seen_spikes([at_its_place, elsewhere], found, 2 * MB) == 1


def test_half_a_spike_is_none() -> None:
    found = series([50, 50, 51, 50, 50])
    assert spikes.seen_spikes([Spike(12 * MS, 13 * MS, 14 * MS, 15 * MS)], found, 2 * MB) == 0


def test_what_shows_nothing_but_spikes_shows_none() -> None:
    assert spikes.seen_spikes([Spike(0, 1, 2 * MS, 50 * MS)], series([52, 52, 52]), 2 * MB) == 0
    assert spikes.seen_spikes([Spike(0, 1, 2, 3)], [], 2 * MB) == 0


def test_interval_peaks_reach_back_to_the_row_before() -> None:
    rows = [
        {"timestamp": "1.000000", "memory_bytes": "5", "memory_interval_peak_bytes": ""},
        {"timestamp": "1.010000", "memory_bytes": "6", "memory_interval_peak_bytes": "9"},
    ]
    peaks = spikes.stretches_of(rows, "memory_interval_peak_bytes")
    assert peaks == [Stretch(1_000_000_000, 1_010_000_000, 9)]
    instants = spikes.stretches_of(rows, "memory_bytes")
    assert instants[1] == Stretch(1_010_000_000, 1_010_000_000, 6)


# ---------------------------------------------------------------- times


def test_slowdown_compares_each_profiled_block_with_the_one_after() -> None:
    blocks = [Block(0, 200 * MS, True), Block(200 * MS, 400 * MS, False)]
    chunks = [
        (5 * MS, 90 * MS),  # the moment of the switch is left out
        (100 * MS, 11 * MS),
        (195 * MS, 50 * MS),  # over the border
        (300 * MS, 10 * MS),
    ]
    assert slowdown.compare(blocks, chunks) == [pytest.approx(10)]
    assert slowdown.compare(blocks, chunks[:2]) == []


def test_phases_lie_between_the_engines_events() -> None:
    kinds = [("network", "create"), *(("container", each) for each in ("create", "die", "destroy"))]
    kinds.append(("network", "destroy"))
    events = [{"Type": kind, "Action": action, "timeNano": 10 * n * MS} for n, (kind, action) in enumerate(kinds, 1)]
    phases = overhead.phases_of(events, 0, 100 * MS)
    assert phases == {**dict.fromkeys(overhead.PHASES, 10.0), "exited": 50.0}


@pytest.mark.parametrize(("was_on", "after"), [("cpu memory pids io", "cpu memory pids io"), ("", "-cpu")])
def test_controllers_that_were_off_are_switched_off_again(tmp_path: Path, was_on: str, after: str) -> None:
    """On plain files, which hold what was written last."""
    group = Group({UNIFIED: tmp_path / "own"})
    (tmp_path / "own").mkdir()
    files = [folder / "cgroup.subtree_control" for folder in (tmp_path, tmp_path / "own")]
    for file, text in zip(files, (was_on, ""), strict=True):
        file.write_text(text)
    with cpost_sampler._controllers_on(group):
        assert [file.read_text() for file in files] == [was_on or "+io", "+io"]
    assert [file.read_text() for file in files] == [after, "-cpu"]


def test_storm_is_half_memory_kills_of_all_kinds() -> None:
    named = memory_kills.commands(6)
    assert len(named) == 12
    assert len(dict(named)) == 12
    kinds = [command for name, command in named if name.startswith("memory")]
    assert len(set(kinds)) == 3


# ---------------------------------------------------------------- programs


def test_report_is_read() -> None:
    text = "cpu_ns 5000\nanonymous_bytes 100\npage_table_bytes 20\nspike 1 2 3 4\nchunk 7 8\nchunk 9 10\n"
    truth = parse_report(text)
    assert (truth.cpu_ns, truth.held_bytes) == (5000, 120)
    assert truth.spikes == (Spike(1, 2, 3, 4),)
    assert truth.chunks == ((7, 8), (9, 10))
    assert parse_report("cpu_ns 1\n").held_bytes is None


def test_naive_reader_reads_what_the_schedule_says(tmp_path: Path) -> None:
    usage, stat = tmp_path / "usage", tmp_path / "stat"
    usage.write_text("42\n")
    stat.write_text("a 1\nb 2\n")
    read = naive.file_reader(f"fast r {usage}\nfast w {usage}\nslow r {usage}\nslow r {stat}\n")
    assert read(1) == {str(usage): {"42": "42"}}
    assert read(10) == {str(usage): {"42": "42"}, str(stat): {"a": "1", "b": "2"}}


def test_simulated_run_takes_all_its_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[str] = []
    monkeypatch.setattr(endurance.SeriesFile, "write", lambda _self, lines: rows.append(lines))
    endurance.simulate(1000)
    assert "".join(rows).count("\n") >= 1000  # the header, and all rows but the last, which waits for the end


# ---------------------------------------------------------------- recommendations


def trial(verdict: Verdict, outcome: Outcome = Outcome.COMPLETED, **given: Any) -> Trial:
    totals = builders.totals(oom_kills=given.pop("oom_kills", 0), throttled_periods=given.pop("throttled_periods", 0))
    ended = builders.result(outcome, totals=totals, wall_ns=1000 * MS)
    enforced = (Enforced("a", Resources(1000, 100 * MB)),)
    return Trial(enforced, verdict, "", ended, throttled_share=throttled_share(ended), **given)


@pytest.mark.parametrize(
    ("ran", "fate"),
    [
        (trial(Verdict.HOLDS), Fate.HELD),
        (trial(Verdict.BROKEN, Outcome.OOM_KILLED), Fate.KILLED),
        (trial(Verdict.BROKEN, oom_kills=1), Fate.KILLED),
        (trial(Verdict.BROKEN, Outcome.TIMED_OUT), Fate.SLOW),
        (trial(Verdict.BROKEN, Outcome.FAILED), Fate.FAILED),
        (trial(Verdict.SLOW, throttled_periods=5), Fate.SLOW),
        (trial(Verdict.SLOW, usage=builders.usage(memory=99 * MB)), Fate.SLOW),
        (trial(Verdict.SLOW), Fate.HELD),  # neither limit held it back
    ],
)
def test_fate_is_what_the_limits_did(ran: Trial, fate: Fate) -> None:
    assert applied.fate_of(ran) is fate


def test_formulas_are_compared_over_what_they_recommend() -> None:
    """Two operators of 2 s, each 1 s of CPU on one thread: 1 / (0.2 + 1) cores suffice."""
    ample, scarce = Limits(1000, 400 * MB), Limits(500, 100 * MB)
    ended = builders.result(totals=builders.totals(1_000_000), wall_ns=2000 * MS)
    pairs = []
    for name in ("a", "b"):
        advised: dict[str, Limits | None] = dict.fromkeys(FORMULAS)
        advised |= {"cpost `peak`": ample, "KRR, a sample each second": scarce if name == "a" else ample}
        known = Known(Operator(name), "works", 100 * MB)
        tried = {ample: Tried(Fate.SLOW, 0.254), scarce: Tried(Fate.KILLED)}
        pairs.append((known, Applied(builders.record(name, result=ended), advised, tried)))
    rows = {row[0]: row for row in recommendations.grid(pairs).rows}
    assert rows["cpost `peak`"] == ("cpost `peak`", "2 of 2", "0", "0", "2", "0", "4.00", "1.20")
    assert rows["KRR, a sample each second"][1:] == ("2 of 2", "0", "1", "1", "0", "2.00", "0.85")
    assert rows["VPA target"][1:] == ("0 of 2", "0", "0", "0", "0", "-", "-")
    cells = dict(zip(recommendations.detail(pairs).header, recommendations.detail(pairs).rows[0], strict=True))
    assert cells["KRR, a sample each second"] == "0.5, 100, **killed**"
    assert cells["cpost `peak`"] == "1, 400, **slow** +25 %"
    assert (cells["time, s"], cells["need, MB"], cells["cores that suffice"]) == ("2.00", "100", "0.83")
    assert cells["VPA target"] == "-"


def test_a_table_of_ones_own_is_markdown() -> None:
    text = table.markdown(table.Grid("What", ("a", "b"), [("1", "2"), ("3", "4")]))
    assert text == "What:\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n| 3 | 4 |\n"
