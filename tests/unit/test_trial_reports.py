"""Runs under limits as people and spreadsheets read them."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from typing import Any

import pytest
from builders import MB, MS, advice, record, result, run, sample, step, totals, usage

from cpost.console import Console
from cpost.model import (
    CpuChoice,
    Enforced,
    MemoryChoice,
    OperatorRecord,
    Options,
    Outcome,
    Resources,
    Search,
    StepResult,
    Trial,
    Verdict,
    Verification,
)
from cpost.report import searched, spreadsheet, tables

SECOND = 10**9


def trial(
    verdict: Verdict = Verdict.HOLDS,
    cause: str = "",
    **given: Any,
) -> Trial:
    stated: dict[str, Any] = {
        "enforced": (Enforced("a", Resources(1000, 256 * MB), 2**26),),
        "result": result(wall_ns=SECOND, totals=totals(oom_kills=0, memory_peak_bytes=5 * MB)),
        "usage": usage(),
        "slowdown": 0.05,
        "throttled_share": 0.25,
        "stalled_share": None,
        "series_file": "a_verify1.csv",
        **given,
    }
    return Trial(verdict=verdict, cause=cause, **stated)


def proved(*trials: Trial) -> OperatorRecord:
    verdict = trials[-1].verdict
    return record(
        recommendation=replace(advice(), verified=verdict),
        verification=Verification(verdict, SECOND, 0.1, trials),
    )


def parsed(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


# ---------------------------------------------------------------- spreadsheets


def test_without_runs_under_limits_there_is_no_table_of_them() -> None:
    assert spreadsheet.trials([record()]) == ""


def test_a_row_has_every_figure_in_its_column() -> None:
    (row,) = parsed(spreadsheet.trials([proved(trial())]))
    assert row == {
        "operator": "a",
        "purpose": "verify",
        "cpu_limit": "1",
        "memory_limit_mb": "256",
        "dev_shm_mb": "67.108864",
        "verdict": "holds",
        "cause": "",
        "outcome": "completed",
        "wall_s": "1",
        "slowdown_percent": "5.0",
        "throttled_percent": "25.0",
        "memory_stalled_percent": "",
        "memory_peak_mb": "5",
        "oom_kills": "0",
        "series": "a_verify1.csv",
    }


@pytest.mark.parametrize(("slowdown", "cell"), [(-0.0732168, "-7.322"), (-1e-9, "0.0"), (0, "0.0"), (None, "")])
def test_a_run_that_was_faster_has_a_number_no_text(slowdown: float | None, cell: str) -> None:
    made = proved(trial(slowdown=slowdown))
    assert parsed(spreadsheet.trials([made]))[0]["slowdown_percent"] == cell
    assert parsed(spreadsheet.summary([made], complete=True))[0]["verify_slowdown_percent"] == cell


def test_limits_that_were_not_set_are_empty() -> None:
    (row,) = parsed(spreadsheet.trials([proved(trial(enforced=(Enforced("a", Resources()),), series_file=""))]))
    assert (row["cpu_limit"], row["memory_limit_mb"], row["dev_shm_mb"], row["series"]) == ("", "", "", "")


def test_a_server_has_a_row_of_its_own_and_its_own_series() -> None:
    beside = Enforced("a__s", Resources(2000, 512 * MB))
    ended = StepResult("a__s", Outcome.OOM_KILLED, "killed", wall_ns=2 * SECOND, totals=totals(oom_kills=3))
    made = proved(trial(Verdict.BROKEN, "why", enforced=(Enforced("a", Resources()), beside), servers=(ended,)))
    own, server = parsed(spreadsheet.trials([made]))
    assert (own["operator"], own["series"], own["oom_kills"]) == ("a", "a_verify1.csv", "0")
    assert (server["operator"], server["series"], server["oom_kills"]) == ("a__s", "a__s_verify1.csv", "3")
    assert (server["outcome"], server["verdict"], server["wall_s"]) == ("oom_killed", "broken", "2")
    compared = ("slowdown_percent", "throttled_percent", "memory_stalled_percent")
    assert [server[name] for name in compared] == [""] * 3  # they are the operator's


def test_all_runs_in_their_order_and_the_last_one_s_figures_in_the_summary() -> None:
    memory = MemoryChoice((trial(), trial()))
    search = Search(SECOND, 0.1, memory, CpuChoice((trial(Verdict.SLOW),), 2000, 1000, settled=True))
    made = replace(proved(trial(Verdict.BROKEN), trial(slowdown=0.5)), search=search)
    purposes = [row["purpose"] for row in parsed(spreadsheet.trials([made]))]
    assert purposes == ["verify", "verify", "search memory", "search memory", "search cpu"]
    (row,) = parsed(spreadsheet.summary([made], complete=True))
    assert (row["verified"], row["verify_runs"], row["verify_slowdown_percent"]) == ("holds", "2", "50.0")
    assert (row["smallest_memory_mb"], row["knee_cpu"], row["cheapest_cpu"]) == ("", "2", "1")
    assert (row["smallest_memory_settled"], row["cpu_settled"]) == ("no", "yes")
    (without,) = parsed(spreadsheet.summary([record()], complete=True))
    assert (without["smallest_memory_settled"], without["cpu_settled"]) == ("", "")


# ---------------------------------------------------------------- tables


@pytest.mark.parametrize(
    ("one", "line"),
    [
        (trial(), "Holds: 1.000 s (+5.0 %)"),
        (trial(slowdown=None), "Holds: 1.000 s"),
        (trial(Verdict.SLOW, "took 5 % longer"), "Too slow: 1.000 s (+5.0 %), took 5 % longer"),
        (trial(Verdict.BROKEN, "killed", result=result(), slowdown=None), "Breaks: -, killed"),
        (
            trial(Verdict.BROKEN, "stopped on request", result=result(Outcome.INTERRUPTED), slowdown=None),
            "Interrupted: -, stopped on request",
        ),
        (
            trial(Verdict.BROKEN, "no answer", result=result(Outcome.ENGINE_LOST), slowdown=None),
            "Engine lost: -, no answer",
        ),
    ],
)
def test_the_line_of_a_run(one: Trial, line: str) -> None:
    assert tables.trial_line(one) == line


@pytest.mark.parametrize(
    ("verdict", "mark"), [(Verdict.HOLDS, "verified"), (Verdict.SLOW, "slow"), (Verdict.BROKEN, "broken")]
)
def test_the_last_column_says_what_became_of_it(verdict: Verdict, mark: str) -> None:
    shown = tables.operator_summary(proved(trial(verdict)))
    assert f"cpu: 1 ({mark})" in shown
    assert f"memory: 256 ({mark})" in shown
    assert "(" not in tables.operator_summary(record())


def memory_trial(memory: int, verdict: Verdict = Verdict.HOLDS, **given: Any) -> Trial:
    return trial(verdict, enforced=(Enforced("a", Resources(memory_bytes=memory * MB)),), **given)


def cells_of(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("|")[1:-1]]


def test_a_search_is_shown_in_the_order_of_the_limits() -> None:
    killed = memory_trial(50, Verdict.BROKEN, cause="killed", result=result(Outcome.OOM_KILLED), slowdown=None)
    slow = memory_trial(75, Verdict.SLOW, cause="took 5 % longer", stalled_share=0.3)
    memory = MemoryChoice((memory_trial(100), killed, slow), 100 * MB, settled=True)
    lines = searched.summary(Search(SECOND, 0.1, memory)).splitlines()
    assert lines[0] == "Without limits it took 1.000 s; up to 1.100 s is fast enough"
    assert [cells_of(line) for line in (lines[2], *lines[4:7])] == [
        ["Memory limit", "Time", "Slowdown", "Waited for memory", "Verdict", "Why"],
        ["50.000 MB", "-", "-", "-", "broken", "killed"],
        ["75.000 MB", "1.000 s", "+5.0 %", "30 %", "slow", ""],  # why is in columns
        ["100.000 MB", "1.000 s", "+5.0 %", "-", "holds", ""],
    ]
    assert lines[-1] == "The smallest memory that passed: 100.000 MB"


def test_no_time_is_named_that_nothing_was_compared_with() -> None:
    timeless = MemoryChoice((memory_trial(100, slowdown=None),), 100 * MB, settled=True)
    assert "Without limits" not in searched.summary(Search(SECOND, 0.1, timeless))
    assert "Without limits" not in searched.summary(Search(None, 0.1, MemoryChoice((memory_trial(100),), MB, True)))


def test_columns_that_say_nothing_are_left_out() -> None:
    lines = searched.summary(Search(None, 0.1, MemoryChoice((memory_trial(100),), 100 * MB, True))).splitlines()
    assert cells_of(lines[1]) == ["Memory limit", "Time", "Slowdown", "Verdict"]


def cores_trial(cores: int, **given: Any) -> Trial:
    return trial(enforced=(Enforced("a", Resources(1000 * cores)),), **given)


def test_cores_are_shown_with_their_cost() -> None:
    slow = cores_trial(2, verdict=Verdict.SLOW, cause="took longer", slowdown=0.5, throttled_share=0.9)
    dead = cores_trial(4, verdict=Verdict.BROKEN, cause="killed", result=result(Outcome.OOM_KILLED, wall_ns=SECOND))
    lines = searched.summary(Search(SECOND, 0.1, cpu=CpuChoice((dead, cores_trial(1), slow), 2000, 1000, settled=True)))
    assert [cells_of(line) for line in lines.splitlines()[2:7] if "|" in line] == [
        ["CPU limit", "Time", "Slowdown", "Cores x time", "Held back", "Verdict", "Why"],
        ["1", "1.000 s", "+5.0 %", "1.000 s", "25 %", "holds", ""],
        ["2", "1.000 s", "+50.0 %", "2.000 s", "90 %", "slow", ""],
        ["4", "1.000 s", "+5.0 %", "-", "25 %", "broken", "killed"],
    ]
    assert lines.endswith("The fewest cores that are fast enough: 2; cores times time is least with 1")


def test_what_runs_for_a_set_time_has_no_cost_in_cores() -> None:
    one = cores_trial(1, slowdown=None)
    lines = searched.summary(Search(SECOND, 0.1, cpu=CpuChoice((one,), 1000, by_throttling=True, settled=True)))
    assert lines.splitlines()[0] == "It ran for a set time, of which a CPU limit may hold it back in 10%"
    assert cells_of(lines.splitlines()[2]) == ["CPU limit", "Time", "Held back", "Verdict"]
    assert lines.endswith("The fewest cores that hold it back no more than allowed: 1")


SPENT = "the budget of 2 runs was spent, see --max_runs"


@pytest.mark.parametrize(
    ("search", "said"),
    [
        (Search(1, 0.1, MemoryChoice((), cause=SPENT)), f"No memory limit was tried: {SPENT}"),
        (
            Search(1, 0.1, MemoryChoice((memory_trial(1, Verdict.BROKEN),), cause=SPENT)),
            f"No memory limit that was tried was enough: {SPENT}",
        ),
        (
            Search(1, 0.1, MemoryChoice((memory_trial(1),), MB, cause="the search was interrupted")),
            "The smallest memory that passed: 1.000 MB (not settled, less may do: the search was interrupted)",
        ),
        (Search(1, 0.1, cpu=CpuChoice((), cause=SPENT)), f"No number of cores was tried: {SPENT}"),
        (
            Search(1, 0.1, cpu=CpuChoice((trial(),), cause="no run ended well")),
            "No number of cores that was tried was enough: no run ended well",
        ),
        (
            Search(1, 0.1, cpu=CpuChoice((trial(),), 1000, 1000, cause=SPENT)),
            f"The fewest cores that are fast enough: 1; cores times time is least with 1 (not settled: {SPENT})",
        ),
    ],
)
def test_what_a_search_did_not_find_is_said(search: Search, said: str) -> None:
    assert searched.summary(search).splitlines()[-1] == said


# ---------------------------------------------------------------- the console


def test_a_run_under_limits_in_two_lines(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    console.trial_begins("seg", "cpu 1")
    console.trial_ends(trial())
    assert capsys.readouterr().out.splitlines() == ["Running seg under limits: cpu 1 ...", "Holds: 1.000 s (+5.0 %)"]


def test_progress_under_limits_is_not_taken_for_a_repeat_s(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    console.operator_begins(step())
    console.repeat_begins("repeat 2 of 2")
    console.trial_begins("a", "cpu 1")
    console.operator_progress(11 * SECOND, None, sample(0), None)
    assert capsys.readouterr().out.splitlines()[-1].startswith("  under limits, 11.0 s")


@pytest.mark.parametrize(("verdict", "told"), [(Verdict.HOLDS, False), (Verdict.SLOW, True), (Verdict.BROKEN, True)])
def test_what_else_may_be_to_blame_is_said_where_it_does_not_hold(
    capsys: pytest.CaptureFixture[str], verdict: Verdict, told: bool
) -> None:
    Console(quiet=True).trial_ends(trial(verdict, result=result(wall_ns=MS, warnings=("the host was busy",))))
    said = capsys.readouterr()
    assert said.out == ""
    assert (said.err == "cpost: warning: a, under limits: the host was busy\n") is told
    assert bool(said.err) is told


@pytest.mark.parametrize("verdict", [Verdict.SLOW, Verdict.BROKEN])
def test_the_end_says_what_did_not_hold_even_when_quiet(capsys: pytest.CaptureFixture[str], verdict: Verdict) -> None:
    Console(quiet=True).run_ends(run(proved(trial(verdict, "because of this")), complete=True))
    assert "The recommendation for a did not hold: because of this" in capsys.readouterr().out
    Console(quiet=True).run_ends(run(proved(trial()), complete=True))
    assert "did not hold" not in capsys.readouterr().out


def test_the_end_says_what_was_found_even_when_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    search = Search(
        SECOND, 0.1, MemoryChoice((trial(),), 256 * MB, True), CpuChoice((trial(),), 2000, 1000, settled=True)
    )
    service = Search(SECOND, 0.1, None, CpuChoice((trial(),), 1000, by_throttling=True, settled=True))
    run_of = run(record(search=search), record("b", search=service), complete=True)
    Console(quiet=True).run_ends(run_of)
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "The smallest memory that passed for a: 256.000 MB",
        "The fewest cores that are fast enough for a: 2; cores times time is least with 1",
        "The fewest cores that hold b back no more than allowed: 1",
    ]


def test_containers_of_runs_under_limits_are_a_detail(capsys: pytest.CaptureFixture[str]) -> None:
    for verbose in (False, True):
        console = Console(verbose=verbose)
        console.operator_begins(step())
        console.operator_runs("first")
        console.trial_begins("a", "cpu 1")
        console.operator_runs("second")
        console.operator_begins(step())
        console.operator_runs("third")
        said = capsys.readouterr().out
        assert "The container id is: first" in said
        assert "The container id is: third" in said
        assert ("second" in said) is verbose


def test_a_verification_that_was_stopped_is_told_from_a_partial_run(capsys: pytest.CaptureFixture[str]) -> None:
    Console().run_ends(run(record(), complete=True, stopped_by="SIGINT"))
    said = capsys.readouterr().err
    assert "stopped by SIGINT: the record is as it was" in said
    assert "partial" not in said


def test_as_json_stdout_is_the_record_alone(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(as_json=True)
    console.trial_begins("a", "cpu 1")
    console.trial_ends(trial())
    console.run_ends(run(proved(trial()), complete=True, options=Options()))
    said = capsys.readouterr()
    assert said.out.startswith("{")
    assert "Holds: " in said.err
