"""What a user sees: in a pipe, quiet, as JSON, on a terminal; texts of strangers never steer it."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from builders import MB, REFUSED, pipeline, record, repeat, result, run, sample, server, server_record, step

from cpost.console import CommandConsole, Console
from cpost.doctor import Finding, Verdict
from cpost.model import Doubt, ModelServed, Options, Outcome, Plan, Spread, Spreads, TritonFacts
from cpost.session import Preview
from cpost.store import load_run

S = 10**9
SERIES = "timestamp,cpu_percent,memory,more\n1.5,50.000,2.5,x\n"


class Terminal(io.StringIO):
    """A stream that a person looks at."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def series(tmp_path: Path) -> Path:
    (tmp_path / "a_final_result.csv").write_text(SERIES)
    return tmp_path / "a_final_result.csv"


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out


def test_an_operator_from_banner_to_summary(capsys: pytest.CaptureFixture[str], series: Path) -> None:
    console = Console()
    console.operator_begins(step(operator="seg"))
    console.operator_runs("c0ffee")
    console.operator_ends(record("seg"), series, kept=False)
    lines = said(capsys).splitlines()
    assert "Executing Operator seg" in lines[1]
    assert lines[2:4] == ["Running operator ...", "The container id is: c0ffee"]
    assert "Operator seg Metrics Data" in lines[4]
    assert "|        1.5        |   50.000    |      2.5       |" in lines
    assert any("Operator seg Summary" in line for line in lines)


def test_results_that_stay_are_named_not_shown(capsys: pytest.CaptureFixture[str], series: Path) -> None:
    Console().operator_ends(record(), series, kept=True)
    text = said(capsys)
    assert f"Results are stored in {series}" in text
    assert "Metrics Data" not in text


def test_a_failure_is_told_with_its_code_cause_and_log(capsys: pytest.CaptureFixture[str], series: Path) -> None:
    how = result(Outcome.FAILED, cause="killed", exit_code=137, log_tail=tuple(f"line {i}" for i in range(20)))
    Console().operator_ends(record(result=how, recommendation=REFUSED), series, kept=True)
    text = said(capsys)
    assert "Operator a failed with exitcode 137: killed\n" in text
    assert [line for line in text.splitlines() if line.startswith("  | ")] == [f"  | line {i}" for i in range(10, 20)]


def test_a_log_is_shown_even_when_quiet(capsys: pytest.CaptureFixture[str], series: Path) -> None:
    how = result(Outcome.FAILED, cause="exit code 3", exit_code=3, log_tail=("no such file",))
    Console(quiet=True).operator_ends(record(result=how, recommendation=REFUSED), series, kept=True)
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == "The last lines of the log of a:\n  | no such file\n"


def test_places_are_shown_without_detours(capsys: pytest.CaptureFixture[str], series: Path) -> None:
    detour = series.parent / "x/.."
    (series.parent / "x").mkdir()
    Console().operator_ends(record(), detour / series.name, kept=True)
    Console().run_ends(run(options=Options(metrics_dir=str(detour)), complete=True))
    text = said(capsys)
    assert f"Results are stored in {series}\n" in text
    assert f"The record is in {series.parent}/run.json" in text


def test_the_end_says_why_there_is_no_recommendation(capsys: pytest.CaptureFixture[str]) -> None:
    failed = record(result=result(Outcome.FAILED, cause="killed", exit_code=137), recommendation=REFUSED)
    Console(quiet=True).run_ends(run(failed, complete=True))
    assert "\nNo recommendation for a: the operator failed\n" in said(capsys)


def test_a_plain_exit_code_is_not_said_twice(capsys: pytest.CaptureFixture[str], series: Path) -> None:
    how = result(Outcome.FAILED, cause="exit code 3", exit_code=3)
    Console().operator_ends(record(result=how, recommendation=REFUSED), series, kept=True)
    assert "Operator a failed with exitcode 3\n" in said(capsys)


def test_several_runs_of_an_operator(capsys: pytest.CaptureFixture[str], series: Path) -> None:
    console = Console()
    console.operator_begins(step(operator="seg"))
    done = [repeat(number, 2, cold=number == 1, series_file=f"seg_{number}.csv") for number in (1, 2)]
    for each, shown in zip(done, (series, None), strict=True):
        console.repeat_begins(each.name)
        console.operator_progress(10 * S, 50, sample(0, memory=MB), MB)
        console.repeat_ends("seg", each, shown)
    spreads = Spreads(wall_ns=Spread(S, S, 2 * S, 2))
    console.operator_ends(
        record("seg", repeats=tuple(done), spreads=spreads, doubts=(Doubt("too few", "--repeat 5"),)), series, kept=True
    )
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert [line for line in lines if "epeat" in line] == [
        "Running repeat 1 of 2 ...",
        "  repeat 1 of 2, 10.0 s, CPU 50.000 %, memory 1.000 MB, peak 1.000 MB",
        "Repeat 1 of 2 (cold): time -, CPU time -, CPU maximum 100.000 %, memory peak 1.000 MB",
        "Running repeat 2 of 2 ...",
        "  repeat 2 of 2, 10.0 s, CPU 50.000 %, memory 1.000 MB, peak 1.000 MB",
        "Repeat 2 of 2 (warm): time -, CPU time -, CPU maximum 100.000 %, memory peak 1.000 MB",
    ]
    assert sum("Metrics Data" in line for line in lines) == 1
    assert "Its earlier runs' are beside it: seg_1.csv" in lines
    assert any("Minimum" in line and "Spread" in line for line in lines)
    assert captured.err == "cpost: warning: seg: too few\n  what to do: --repeat 5\n"


def test_what_goes_for_every_repeat_is_said_once(capsys: pytest.CaptureFixture[str], series: Path) -> None:
    console = Console(quiet=True)
    console.operator_begins(step())
    done = [repeat(1, result=result(warnings=("odd",))), repeat(2, result=result(warnings=("odd", "busy")))]
    for each in done:
        console.repeat_ends("a", each, series)
    console.operator_ends(record(result=done[-1].result, repeats=tuple(done)), series, kept=False)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "cpost: warning: a, repeat 1 of 3: odd",
        "cpost: warning: a, repeat 2 of 3: busy",
    ]
    console.operator_begins(step(operator="b"))
    console.repeat_ends("b", done[0], series)
    assert capsys.readouterr().err == "cpost: warning: b, repeat 1 of 3: odd\n"


def test_the_next_operator_s_progress_names_no_repeat(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    console.repeat_begins("repeat 2 of 2")
    console.operator_begins(step())
    console.operator_progress(10 * S, 50, sample(0, memory=MB), MB)
    assert said(capsys).splitlines()[-1].startswith("  10.0 s, CPU")


def test_warnings_go_to_stderr_even_when_quiet(capsys: pytest.CaptureFixture[str], series: Path) -> None:
    console = Console(quiet=True)
    console.operator_begins(step())
    console.operator_ends(record(result=result(warnings=("the host was busy",))), series, kept=False)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "cpost: warning: a: the host was busy\n"


def test_quiet_leaves_the_final_grid(capsys: pytest.CaptureFixture[str]) -> None:
    Console(quiet=True).run_ends(run(record(), complete=True))
    text = said(capsys)
    assert text.startswith("+--")
    assert text.endswith("--+\n")


def test_a_partial_run_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    Console().run_ends(run(record(), stopped_by="signal 2"))
    assert "the run is partial, it was stopped by signal 2" in capsys.readouterr().err


def test_where_the_record_is(capsys: pytest.CaptureFixture[str]) -> None:
    Console().run_ends(run(options=Options(metrics_dir="/m"), complete=True))
    text = said(capsys)
    assert "/m/run.json" in text
    assert "/m/summary.csv" in text


def test_as_json_stdout_is_the_record_alone(capsys: pytest.CaptureFixture[str], series: Path, tmp_path: Path) -> None:
    console, kept = Console(as_json=True), run(record(), complete=True)
    console.operator_begins(step())
    console.operator_ends(record(), series, kept=False)
    console.run_ends(kept)
    captured = capsys.readouterr()
    (tmp_path / "run.json").write_text(captured.out)
    assert load_run(tmp_path / "run.json") == kept
    assert "Executing Operator" in captured.err


def test_a_plan_for_people_and_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    shown = Preview(Plan(pipeline(warnings=("p.yaml:1:1: odd",)), (step(),)), {"img:1": True})
    Console().plan(shown)
    captured = capsys.readouterr()
    assert "img:1 (present)" in captured.out
    assert captured.err == "cpost: warning: p.yaml:1:1: odd\n"
    Console(as_json=True).plan(shown)
    data = json.loads(said(capsys))
    assert data["pipeline"]["name"] == "p"
    assert data["steps"][0]["operator"] == "a"
    assert data["images_present"] == {"img:1": True}


def test_a_finding_and_its_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    Console().finding(Finding("swap", Verdict.WARNING, "half used", "free memory"))
    Console().finding(Finding("python", Verdict.OK, "3.11"))
    assert said(capsys).splitlines() == [
        "warning  swap     half used",
        "                  what to do: free memory",
        "ok       python   3.11",
    ]


# ---------------------------------------------------------------- progress


def shown_at(console: Console, *elapsed_s: float) -> None:
    for at in elapsed_s:
        console.operator_progress(int(at * S), 124.5, sample(0, memory=3 * MB), 4 * MB)


def test_in_a_pipe_progress_is_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    console.operator_begins(step())
    shown_at(console, *(i / 10 for i in range(250)))
    lines = said(capsys).splitlines()[3:]
    assert lines == [
        "  10.0 s, CPU 124.500 %, memory 3.000 MB, peak 4.000 MB",
        "  20.0 s, CPU 124.500 %, memory 3.000 MB, peak 4.000 MB",
    ]


def test_unknown_figures_are_dashes(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    Console().operator_progress(S, None, None, None)
    assert "1.0 s, CPU -, memory -, peak -" in terminal.getvalue()


def test_on_a_terminal_one_line_is_rewritten(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", "30")
    console = Console()
    shown_at(console, 0.1, 0.15, 0.4)
    console.note("done")
    parts = terminal.getvalue().split("\r\x1b[K")
    assert len(parts) == 4
    assert parts[0] == ""
    assert all(len(part) == 29 for part in parts[1:3])  # never a second line on a narrow terminal
    assert parts[3].endswith("done\n") or parts[3] == "done\n"


def test_quiet_shows_no_progress(capsys: pytest.CaptureFixture[str]) -> None:
    shown_at(Console(quiet=True), 1, 60)
    assert said(capsys) == ""


def test_a_pull_in_a_pipe_is_two_lines(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    for progress in ("", "a1 Downloading", "a1 Extracting", "done"):
        console.pulling("img:1", progress)
    assert said(capsys).splitlines() == ["Pulling image img:1 ...", "Pulled image img:1"]


# ---------------------------------------------------------------- questions, signals


def test_nobody_is_asked_where_there_is_nobody(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert not Console().goes_on(record("seg"))
    assert "Stopping after seg" in said(capsys)


@pytest.mark.parametrize(("answer", "goes_on"), [("y\n", True), ("n\n", False), ("\n", False)])
def test_on_a_terminal_the_user_decides(monkeypatch: pytest.MonkeyPatch, answer: str, goes_on: bool) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert Console().goes_on(record()) == goes_on


@pytest.mark.parametrize(("count", "word"), [(1, "stopping the operator"), (2, "killing the operator")])
def test_a_signal_is_announced_without_any_buffer(monkeypatch: pytest.MonkeyPatch, count: int, word: str) -> None:
    written: list[tuple[int, bytes]] = []
    monkeypatch.setattr(os, "write", lambda descriptor, text: written.append((descriptor, text)))
    Console().announce_signal(15, count)
    ((descriptor, text),) = written
    assert descriptor == 2
    assert b"SIGTERM" in text
    assert word.encode() in text


def test_a_terminal_that_is_gone_keeps_nobody_from_stopping(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: Any) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "write", gone)
    Console().announce_signal(1, 1)


# ---------------------------------------------------------------- beside a command


def test_beside_a_command_nothing_goes_to_stdout_and_nothing_comes_before_its_end(
    capsys: pytest.CaptureFixture[str], series: Path
) -> None:
    console = CommandConsole()
    console.operator_begins(step())
    console.operator_runs("process 7")
    console.operator_progress(10**12, 50.0, sample(1, memory=MB), MB)
    assert capsys.readouterr() == ("", "")
    console.operator_ends(record(), series, kept=False)
    console.run_ends(run(record(), complete=True))
    out, err = capsys.readouterr()
    assert out == ""
    assert "Operator a Summary" in err
    assert "Metrics Data" not in err
    assert err.count("256") == 1, "one table is enough for one command"


def test_beside_a_command_the_record_replaces_the_tables(capsys: pytest.CaptureFixture[str], series: Path) -> None:
    console = CommandConsole(as_json=True)
    console.operator_ends(record(), series, kept=False)
    console.run_ends(run(record()))
    out, err = capsys.readouterr()
    assert out == ""
    assert json.loads(err)["operators"][0]["operator"] == "a"


def test_beside_a_command_quiet_leaves_the_grid(capsys: pytest.CaptureFixture[str], series: Path) -> None:
    console = CommandConsole(quiet=True)
    console.operator_ends(record(recommendation=REFUSED), series, kept=False)
    console.run_ends(run(record(recommendation=REFUSED), complete=True))
    err = capsys.readouterr().err
    assert err.startswith("+--")
    assert "No recommendation for a: the operator failed" in err


@pytest.mark.parametrize(
    ("signum", "count", "word"),
    [(15, 1, "asking"), (15, 2, "killing"), (2, 2, "asking"), (2, 3, "killing"), (1, 1, "asking")],
)
def test_beside_a_command_a_signal_is_announced(
    monkeypatch: pytest.MonkeyPatch, signum: int, count: int, word: str
) -> None:
    written: list[bytes] = []
    monkeypatch.setattr(os, "write", lambda _, text: written.append(text))
    CommandConsole().announce_signal(2, 1)
    assert written == [], "the first Ctrl-C is the command's own"
    CommandConsole().announce_signal(signum, count)
    assert word.encode() in written[0]


# ---------------------------------------------------------------- servers

DEAD = result(Outcome.FAILED, cause="signal 9", exit_code=137, log_tail=(f"| {'x':60} | {'-' * 60}+", "the end"))
SHORT_LINES = ["  | | x    | ---+", "  | the end"]


def log_lines(text: str, title: str) -> list[str]:
    return text.partition(f"{title}\n")[2].splitlines()[:2]


def test_a_server_s_start_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    console.server_starts(server("triton", models=("double", "other")))
    console.server_starts(server("web"))
    console.server_ready(server("web"), 1_500_000_000)
    assert said(capsys).splitlines() == [
        "Starting server triton with double, other ...",
        "Starting server web ...",
        "Server web is ready after 1.500 s",
    ]


def test_a_failure_shows_what_its_servers_said_last(capsys: pytest.CaptureFixture[str], series: Path) -> None:
    servers = (server_record(result=DEAD, recommendation=REFUSED), server_record("web"))
    failed = record(result=result(Outcome.FAILED, cause="c"), recommendation=REFUSED, servers=servers)
    Console().operator_ends(failed, series, kept=True)
    text = said(capsys)
    shown = log_lines(text, "The last lines of the log of its server triton:")
    assert [line.replace(" ", "") for line in shown] == [line.replace(" ", "") for line in SHORT_LINES]
    assert len(shown[0]) < 30  # what only fills up a wide table is left out
    assert "its server web" not in text


def test_where_a_server_s_series_is_or_the_series(capsys: pytest.CaptureFixture[str], series: Path) -> None:
    served = server_record(series_file="a__triton_final_result.csv")
    Console().operator_ends(record(servers=(served,)), series, kept=True)
    assert "\nIts servers' are beside it: a__triton_final_result.csv\n" in said(capsys)
    series.with_name("a__triton_final_result.csv").write_text(SERIES.replace("50.000", "70.000"))
    Console().operator_ends(record(servers=(served,)), series, kept=False)
    text = said(capsys)
    assert text.index("   50.000    |") < text.index("Operator a__triton Metrics Data") < text.index("   70.000    |")


def test_what_a_server_served_and_what_bent_its_figures(capsys: pytest.CaptureFixture[str], series: Path) -> None:
    facts = TritonFacts("2", (ModelServed("double", "1", 0),))
    served = server_record(result=result(warnings=("odd",)), triton=facts)
    Console().operator_ends(record("seg", servers=(served,)), series, kept=True)
    told = capsys.readouterr()
    assert "Server triton served seg: model double: 0 requests\n" in told.out
    assert "cpost: warning: seg, server triton: odd\n" in told.err


def test_the_end_says_why_servers_have_no_recommendation(capsys: pytest.CaptureFixture[str]) -> None:
    own = server_record(recommendation=REFUSED)
    shared = server_record("all", recommendation=REFUSED, result=DEAD)
    Console().run_ends(run(record("seg", servers=(own,)), servers=(shared,), complete=True))
    text = said(capsys)
    assert "No recommendation for server triton of seg: the operator failed\n" in text
    assert "No recommendation for server all: the operator failed\n" in text
    assert log_lines(text, "The last lines of the log of server all:")[1] == SHORT_LINES[1]
