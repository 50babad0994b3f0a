"""Two records: what differs, and whether the runs' own spread explains it."""

from __future__ import annotations

import statistics
from dataclasses import replace
from typing import Any

import pytest
from builders import MB, MS, REFUSED, advice, record, repeat, result, run, totals, usage
from hypothesis import given
from hypothesis import strategies as st

from cpost.compare import compare, difference, host_differences, subjects
from cpost.model import (
    Comparison,
    Figure,
    HostFacts,
    Meaning,
    OperatorRecord,
    Options,
    Outcome,
    RepeatKind,
    Resources,
    Run,
    ServerKind,
    ServerRecord,
    Statistic,
)

WALLS = st.lists(st.integers(0, 5000), min_size=1, max_size=5)


def timed(walls_ms: list[int]) -> OperatorRecord:
    """An operator that took this long, in one run or in several."""
    results = [result(wall_ns=wall * MS) for wall in walls_ms]
    if len(results) == 1:
        return record(result=results[0])
    runs = [repeat(index + 1, len(results), result=each) for index, each in enumerate(results)]
    return record(result=results[-1], repeats=tuple(runs))


def meaning(old: list[int], new: list[int]) -> Meaning:
    sides = (subjects(run(timed(walls)))["a"] for walls in (old, new))
    return difference(Figure.WALL_NS, *sides).meaning


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ([1000], [1000], Meaning.SAME),
        ([1000], [1100], Meaning.GRAIN),
        ([1000], [1101], Meaning.SINGLE),
        ([1000], [899], Meaning.SINGLE),
        ([1000, 1200], [1200, 1400], Meaning.SPREAD),
        ([1000, 1200], [1201, 1400], Meaning.BEYOND),
        ([1201, 1400], [1000, 1200], Meaning.BEYOND),
        ([1000, 1010], [1011, 1020], Meaning.GRAIN),
        ([1000, 2000], [1900], Meaning.SPREAD),
        ([1000, 2000], [2001], Meaning.SINGLE),
    ],
)
def test_what_a_difference_means(old: list[int], new: list[int], expected: Meaning) -> None:
    assert meaning(old, new) is expected


@given(old=WALLS, new=WALLS)
def test_a_difference_means_the_same_from_both_sides(old: list[int], new: list[int]) -> None:
    assert meaning(old, new) is meaning(new, old)
    if meaning(old, new) in (Meaning.BEYOND, Meaning.SINGLE):
        assert min(new) > max(old) or min(old) > max(new)
        assert (meaning(old, new) is Meaning.BEYOND) == (len(old) > 1 and len(new) > 1)
    assert (meaning(old, new) is Meaning.SAME) == (statistics.median(old) == statistics.median(new))


def test_of_repeats_the_median_is_compared() -> None:
    one, other = (subjects(run(timed(walls)))["a"] for walls in ([1000, 1200, 3000], [2000]))
    found = difference(Figure.WALL_NS, one, other)
    assert (found.before, found.after, found.change) == (1200 * MS, 2000 * MS, 800 * MS)
    assert found.before_spread is not None
    assert (found.before_spread.minimum, found.before_spread.maximum, found.before_spread.count) == (
        10**9,
        3 * 10**9,
        3,
    )
    assert found.after_spread is None
    assert found.share == pytest.approx(2 / 3)


def test_warm_ups_and_failed_repeats_are_not_compared() -> None:
    runs = (
        repeat(1, 1, kind=RepeatKind.WARMUP, result=result(wall_ns=1)),
        repeat(1, 2, result=result(wall_ns=2)),
        repeat(2, 2, result=result(Outcome.FAILED, wall_ns=3)),
    )
    (one,) = subjects(run(record(repeats=runs))).values()
    assert [each.result.wall_ns for each in one.runs] == [2]


def test_every_figure_is_read() -> None:
    stated = usage(memory=7 * MB, cpu_pct=Statistic(1.0, 2.0, 3.0, 4.0, 5.0), need_peak_bytes=6 * MB)
    (found,) = both(record(usage=stated, result=result(wall_ns=8, totals=totals(9)))).subjects
    assert {each.figure: each.before for each in found.figures} == {
        Figure.WALL_NS: 8,
        Figure.CPU_US: 9,
        Figure.CPU_AVERAGE_PCT: 1.0,
        Figure.CPU_P95_PCT: 4.0,
        Figure.CPU_MAXIMUM_PCT: 2.0,
        Figure.MEMORY_PEAK_BYTES: 7 * MB,
        Figure.NEED_PEAK_BYTES: 6 * MB,
    }
    p99 = difference(Figure.CPU_P99_PCT, *[subjects(run(record(usage=stated)))["a"]] * 2)
    assert (p99.before, p99.share) == (5.0, 0)


def both(one: OperatorRecord) -> Comparison:
    return compare(run(one), run(one))


def test_what_is_not_known_of_both_is_unknown() -> None:
    failed = record(result=result(Outcome.FAILED, cause="exit code 1"), recommendation=REFUSED)
    found = compare(run(record()), run(failed)).subjects[0]
    assert {each.meaning for each in found.figures} == {Meaning.UNKNOWN}
    assert (found.before, found.after) == (Resources(1000, 256 * MB), None)
    assert found.remarks == ("the second did not end well: exit code 1",)
    assert compare(run(failed), run(record())).subjects[0].remarks == ("the first did not end well: exit code 1",)


def test_operators_are_matched_by_name() -> None:
    found = compare(run(record("b"), record("old"), run_id="x"), run(record("new"), record("b"), run_id="y"))
    assert (found.before, found.after) == ("x", "y")
    assert [each.name for each in found.subjects] == ["b"]
    assert (found.only_before, found.only_after) == (("old",), ("new",))


# ---------------------------------------------------------------- servers


def server(**given: Any) -> ServerRecord:
    stated: dict[str, Any] = {"declared": Resources(), "result": result(), "recommendation": advice(), **given}
    return ServerRecord("svc", ServerKind.SERVICE, "img:1", (), **stated)


def test_servers_are_compared_as_they_are_sized() -> None:
    runs = tuple(repeat(n, 2, servers=(server(usage=usage(900.0, n * MB), load=usage(n * 100.0, MB)),)) for n in (1, 2))
    ended = repeat(3, 3, result=result(Outcome.FAILED), servers=runs[-1].servers)
    kept = run(record(repeats=(*runs, ended), servers=(runs[-1].servers)), servers=(server(usage=usage(50.0)),))
    found = subjects(kept)
    assert list(found) == ["a", "a__svc", "pipeline__svc"]
    assert [each.server for each in found.values()] == [False, True, True]
    seen = [each.usage for each in found["a__svc"].runs]
    assert [(each.cpu_pct.average, each.memory_bytes.maximum) for each in seen if each] == [(100, MB), (200, 2 * MB)]
    assert len(found["pipeline__svc"].runs) == 1


# ---------------------------------------------------------------- hosts


def hosted(**facts: Any) -> Run:
    stated: dict[str, Any] = {"cpus": 4, "cpu_model": "X", "memory_bytes": 1000 * MB, "kernel": "6.1", **facts}
    return run(host=HostFacts(**stated))


@pytest.mark.parametrize(
    ("facts", "shown"),
    [
        ({}, None),
        ({"cpus": 8}, ("CPUs", "4", "8")),
        ({"cpus": None}, ("CPUs", "4", "not known")),
        ({"cpu_model": "Y"}, ("CPU model", "X", "Y")),
        ({"cpu_model": ""}, ("CPU model", "X", "not known")),
        ({"kernel": "6.2"}, ("kernel", "6.1", "6.2")),
        ({"cgroup_layout": "v2"}, ("control groups", "not known", "v2")),
        ({"engine_version": "25.0"}, ("engine", "not known", "25.0")),
        ({"architecture": "arm"}, ("architecture", "not known", "arm")),
        ({"memory_bytes": 990 * MB}, None),
        ({"memory_bytes": 990 * MB - 1}, ("memory", "1000.000 MB", "990.000 MB")),
        ({"memory_bytes": None}, ("memory", "1000.000 MB", "not known")),
        ({"hostname": "other"}, None),
    ],
)
def test_what_hosts_do_not_have_in_common(facts: dict[str, Any], shown: tuple[str, str, str] | None) -> None:
    found = host_differences(hosted(), hosted(**facts))
    assert [(each.what, each.before, each.after) for each in found] == ([shown] if shown else [])


def test_another_way_of_measuring_is_told() -> None:
    slow = replace(hosted(), options=Options(window_ns=10**9, period_ns=20 * MS))
    found = compare(hosted(), slow).hosts
    assert [(each.what, each.before, each.after) for each in found] == [
        ("CPU window", "0.200 s", "1.000 s"),
        ("sampling period", "0.010 s", "0.020 s"),
    ]
