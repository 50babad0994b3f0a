"""Curves of runs under limits: where their points, marks and levels stand, and what is said of each."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
from builders import MB, MS, record, result, run, usage

from cpost.model import (
    CpuChoice,
    Enforced,
    MemoryChoice,
    OperatorRecord,
    Outcome,
    Resources,
    Search,
    Trial,
    Verdict,
    allowance_ns,
)
from cpost.report.curves import Curve, Pin, Point
from cpost.report.page import render
from cpost.report.proofs import search_section
from cpost.report.sections import Source

HOSTILE = "<img src=x onerror=alert(1)>\"'&"
USAGE = usage(memory=100 * MB, need_peak_bytes=60 * MB)


def trial(verdict: Verdict, wall_ms: int | None, memory_mb: int | None = None, cores: int | None = None) -> Trial:
    limits = Resources(cores and cores * 1000, memory_mb and memory_mb * MB)
    slowdown = None if wall_ms is None else wall_ms / 2000 - 1
    cause = f"broke {HOSTILE}" if verdict is Verdict.BROKEN else ""
    outcome = Outcome.OOM_KILLED if verdict is Verdict.BROKEN else Outcome.COMPLETED
    ended = result(outcome, wall_ns=wall_ms and wall_ms * MS)
    return Trial((Enforced("a", limits),), verdict, cause, ended, slowdown=slowdown)


def curves(
    memory: tuple[Trial, ...] | None = None,
    cpu: tuple[Trial, ...] | None = None,
    baseline_ms: int | None = 2000,
    **given: int,
) -> tuple[Curve, ...]:
    return search_section(searched(memory, cpu, baseline_ms, **given), found(memory, cpu, baseline_ms, **given)).curves


def found(
    memory: tuple[Trial, ...] | None, cpu: tuple[Trial, ...] | None, baseline_ms: int | None, **given: int
) -> Search:
    smallest = given.get("smallest_mb")
    return Search(
        baseline_ms and baseline_ms * MS,
        0.1,
        None if memory is None else MemoryChoice(memory, smallest and smallest * MB),
        None if cpu is None else CpuChoice(cpu, *map(given.get, ("knee", "cheapest")), bool(given.get("timed"))),
    )


def searched(*tried: object, **given: int) -> OperatorRecord:
    return record(usage=USAGE, search=found(*tried, **given))  # type: ignore[arg-type]


MEMORY = (
    trial(Verdict.HOLDS, 2000, 110),
    trial(Verdict.BROKEN, 300, 60),
    trial(Verdict.SLOW, 3000, 70),
    trial(Verdict.HOLDS, 2100, 80),
)


def test_what_ran_for_a_set_time_has_no_curve_of_times_by_cores() -> None:
    tried = (trial(Verdict.HOLDS, 2000, cores=1), trial(Verdict.HOLDS, 2000, cores=2))
    assert len(curves(cpu=tried)) == 1
    assert curves(cpu=tried, timed=1) == ()


# ---------------------------------------------------------------- memory


def test_every_run_is_a_point_at_its_limit_and_time() -> None:
    (curve,) = curves(MEMORY, smallest_mb=80)
    assert [(dot.style, dot.timed) for dot in curve.dots] == [
        ("broken", False),
        ("slow", True),
        ("holds", True),
        ("holds", True),
    ]
    assert [dot.left for dot in curve.dots] == pytest.approx([6, 23.6, 41.2, 94])
    broken, slow, passed, least = (dot.top for dot in curve.dots)
    assert 0 < broken < curve.strip < slow < passed < least < 100
    zero = next(tick.percent for tick in curve.time_ticks if tick.label in ("0", "0.0"))
    assert zero == 100
    # In proportion to their times, from zero up.
    assert (zero - slow) / (zero - least) == pytest.approx(3000 / 2000)
    assert curve.pieces == ()


def test_what_broke_has_no_time_even_where_it_took_some() -> None:
    (curve,) = curves(MEMORY)
    assert [dot.text for dot in curve.dots] == [
        f"60.000 MB: breaks, broke {HOSTILE}",
        "70.000 MB: 3.000 s, +50.0%, too slow",
        "80.000 MB: 2.100 s, +5.0%, holds",
        "110.000 MB: 2.000 s, +0.0%, holds",
    ]
    assert curve.styles == ("holds", "slow", "broken")


def test_need_peak_and_the_smallest_are_marked_each_in_a_lane() -> None:
    (curve,) = curves(MEMORY, smallest_mb=80)
    assert [(pin.label, pin.lane, pin.other_side) for pin in curve.placed_pins] == [
        ("need 60.000 MB", 0, False),
        ("smallest that passed 80.000 MB", 1, False),
        ("kernel's peak 100.000 MB", 2, True),
    ]
    assert curve.placed_pins[1].percent == curve.dots[2].left


def test_what_is_not_known_is_not_marked() -> None:
    search = found(MEMORY, None, None)
    unread = replace(USAGE, need_peak_bytes=None, peaks_sampled=True)
    (curve,) = search_section(record(usage=unread, search=search), search).curves
    assert [pin.label for pin in curve.pins] == ["highest sample >= 100.000 MB"]
    assert curve.levels == ()
    (without,) = search_section(record(usage=None, search=search), search).curves
    assert without.pins == ()


def test_the_allowed_time_is_the_one_that_runs_are_judged_by() -> None:
    (curve,) = curves(MEMORY)
    assert [level.label for level in curve.drawn_levels] == ["without limits 2.00 s", "allowed 2.20 s"]
    (short,) = curves((trial(Verdict.HOLDS, 250, 80),), baseline_ms=200)
    assert [level.label for level in short.drawn_levels] == ["without limits 0.20 s", "allowed 0.30 s"]
    assert allowance_ns(200 * MS, 0.1) == 100 * MS


def test_a_level_far_above_is_named_and_not_drawn() -> None:
    (curve,) = curves((trial(Verdict.HOLDS, 100, 80),))
    assert curve.drawn_levels == ()
    assert curve.levels_above == ("without limits 2.00 s", "allowed 2.20 s")


# ---------------------------------------------------------------- CPU


def test_doublings_are_equally_wide_and_joined() -> None:
    tried = tuple(trial(Verdict.HOLDS, 8000 // cores, cores=cores) for cores in (4, 1, 2))
    (curve,) = curves(cpu=tried, knee=2000, cheapest=1000)
    assert [dot.left for dot in curve.dots] == pytest.approx([6, 50, 94])
    assert curve.pieces == ((curve.dots[0], curve.dots[1]), (curve.dots[1], curve.dots[2]))
    assert [tick.label for tick in curve.limit_ticks] == ["1", "2", "4"]
    assert [(pin.label, pin.percent) for pin in curve.placed_pins] == [
        ("cheapest: cpu 1", curve.dots[0].left),
        ("knee: cpu 2", curve.dots[1].left),
    ]


def test_the_line_leaves_out_what_has_no_time() -> None:
    tried = (
        trial(Verdict.SLOW, 9000, cores=1),
        trial(Verdict.BROKEN, 100, cores=2),
        trial(Verdict.HOLDS, 2000, cores=4),
    )
    (curve,) = curves(cpu=tried)
    first, _, last = curve.dots
    assert curve.pieces == ((first, last),)


# ---------------------------------------------------------------- little to draw


def test_one_run_alone_stands_in_the_middle() -> None:
    tried = trial(Verdict.HOLDS, 2000, 80), trial(Verdict.HOLDS, 2000, cores=2)
    alone = replace(searched(None, None, None), usage=None)
    both = search_section(alone, found((tried[0],), (tried[1],), 2000)).curves
    for curve, label in zip(both, ("80", "2"), strict=True):
        (dot,) = curve.dots
        assert dot.left == 50
        assert [tick.label for tick in curve.limit_ticks] == [label]
        assert curve.pieces == ()


def test_where_all_broke_the_levels_make_the_axis_or_there_is_none() -> None:
    broken = (trial(Verdict.BROKEN, None, 60), trial(Verdict.BROKEN, 10, 80))
    (curve,) = curves(broken)
    assert {dot.top for dot in curve.dots} == {curve.strip / 2}
    assert [level.label for level in curve.drawn_levels] == ["without limits 2.00 s", "allowed 2.20 s"]
    (nothing,) = curves(broken, baseline_ms=None)
    assert (nothing.time_ticks, nothing.drawn_levels) == ((), ())
    assert len(nothing.dots) == 2


@pytest.mark.parametrize("tried", [(), (trial(Verdict.HOLDS, 2000),)])
def test_without_a_limit_there_is_no_curve(tried: tuple[Trial, ...]) -> None:
    assert curves(tried, tried) == ()
    assert curves() == ()


def test_labels_below_do_not_cover_one_another() -> None:
    points = tuple(Point(at, 1, "holds", str(at)) for at in (1, 2, 4, 8, 16, 32, 62, 64))
    curve = Curve("", "cores", points, (), (), "", doubling=True)
    lefts = [tick.percent for tick in curve.limit_ticks]
    assert [tick.label for tick in curve.limit_ticks][-1] == "62"
    assert min(after - before for before, after in itertools.pairwise(lefts)) >= 7
    near = Curve("", "MB", (Point(61.9, 1, "holds", ""),), (), (Pin(62.9, "", ""),), "")
    assert [tick.label for tick in near.limit_ticks] == ["62", "62.2", "62.4", "62.6", "62.8"]


def test_what_is_hostile_stands_there_as_text(tmp_path: Path) -> None:
    html = render([Source("", run(searched(MEMORY, None, 2000)), tmp_path)])
    assert "<img" not in html
    assert html.count("&lt;img src=x onerror=alert(1)&gt;&#34;&#39;&amp;") == 3  # table, point, description
