"""The summary's bars: what was used, and where what is declared and recommended stands beside it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from builders import MB, REFUSED, advice, record, result, run, server_record, usage

from cpost.model import OperatorRecord, Outcome, Resources, Statistic
from cpost.report.glance import glance
from cpost.report.view import Bar


def bars(*records: OperatorRecord) -> dict[str, tuple[Bar, ...]]:
    drawn = glance([("", run(*records))])
    assert drawn is not None
    return {row.name: row.bars for row in drawn.rows}


def used(need_mb: int, peak_mb: int, **given: object) -> OperatorRecord:
    made = usage(memory=peak_mb * MB, need_peak_bytes=need_mb * MB)
    return record(usage=made, recommendation=advice(2000, 1000 * MB), **given)


def test_all_amounts_share_a_scale() -> None:
    cpu, memory = bars(used(250, 500, declared=Resources(1000, 750 * MB)))["a"]
    assert cpu.steady == pytest.approx(100 / 2 / 1.04, rel=0.01)  # one core of two
    assert (memory.steady, memory.highest, memory.declared) == pytest.approx(
        (memory.wanted / 4, memory.wanted / 2, memory.wanted * 3 / 4)
    )
    assert 90 < memory.wanted < 100
    assert (cpu.short, memory.short, memory.beyond) == (False, False, False)


def test_what_is_declared_below_the_need_is_marked() -> None:
    rates = Statistic(average=50, maximum=390, p95=150)
    held = replace(used(250, 500), usage=replace(usage(), cpu_pct=rates, need_peak_bytes=250 * MB))
    for cpu, memory, short in ((1499, 249, [True, True]), (1500, 250, [False, False]), (None, None, [False, False])):
        declared = Resources(cpu, None if memory is None else memory * MB)
        assert [bar.short for bar in bars(replace(held, declared=declared))["a"]] == short


def test_what_is_declared_far_above_all_else_does_not_flatten_the_bars() -> None:
    _, memory = bars(used(250, 500, declared=Resources(None, 2001 * MB)))["a"]
    assert (memory.declared, memory.beyond) == (100, True)
    assert memory.wanted > 90
    _, memory = bars(used(250, 500, declared=Resources(None, 1999 * MB)))["a"]
    assert memory.declared > 90
    assert not memory.beyond


def test_what_is_not_known_is_not_drawn() -> None:
    drawn = bars(used(250, 500), record("b", usage=None, recommendation=REFUSED))
    assert drawn["b"] == (Bar(None, None, None, None, beyond=False, short=False),) * 2
    assert glance([("", run(record(usage=None)))]) is None
    assert glance([("", run())]) is None


def test_servers_stand_below_their_operators_and_failures_are_named() -> None:
    killed = record("b", result=result(Outcome.OOM_KILLED, exit_code=137), recommendation=REFUSED)
    drawn = glance([("", run(used(1, 2, servers=(server_record(),)), killed, servers=(server_record("db"),)))])
    assert drawn is not None
    assert [(row.name, row.small, row.failure) for row in drawn.rows] == [
        ("a", "", ""),
        ("triton", "server of a", ""),
        ("b", "", "OOM killed (exit code 137)"),
        ("db", "shared server", ""),
    ]


def test_runs_of_an_operator_are_neighbours() -> None:
    drawn = glance([("one", run(used(1, 2), record("b"))), ("two", run(record("b"), used(1, 2)))])
    assert drawn is not None
    assert [(row.name, row.small) for row in drawn.rows] == [("a", "one"), ("a", "two"), ("b", "one"), ("b", "two")]
