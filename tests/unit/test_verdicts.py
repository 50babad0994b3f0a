"""`cpost check` and `cpost compare` on run folders: what they read, print and exit with."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from builders import MB, advice, record, run, usage
from test_cli import called

from cpost.definition import load
from cpost.errors import ExitCode
from cpost.model import OperatorRecord, Resources, Statistic
from cpost.store import RUN_FILE, json_text
from cpost.units import MIB

DEFINITION = """\
api-version: 0.4.0
name: p
operators:
- name: a
  container: {image: img, tag: "1"}
  requests: {cpu: 1, memory: %d}
  services:
  - {name: one, container: {image: srv, tag: "1"}, requests: {memory: 9}, connections: {http: [{name: X, port: 5001}]}}
  - {name: two, container: {image: srv, tag: "1"}, connections: {http: [{name: Y, port: 5002}]}}
"""


def folder(path: Path, *records: OperatorRecord, **given: Any) -> str:
    """A run folder with such a record; its only operator needs a core and 100 MB."""
    kept = records or (record(usage=usage(memory=100 * MB), declared=Resources(1000, 256 * MB)),)
    path.mkdir()
    (path / RUN_FILE).write_text(json_text(run(*kept, **{"complete": True, **given})))
    return str(path)


def definition(path: Path, memory: int) -> str:
    path.write_text(DEFINITION % memory)
    return str(path)


def said(capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    shown = capsys.readouterr()
    return shown.out, shown.err


# ---------------------------------------------------------------- check


def test_the_record_alone_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called(monkeypatch, "check", folder(tmp_path / "run")) == ExitCode.OK
    assert said(capsys) == ("Gate passed: 4 checks, 4 passed\n", "")


def test_a_file_s_requests_are_judged_at_their_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = definition(tmp_path / "p.yaml", 99)
    assert called(monkeypatch, "check", folder(tmp_path / "run"), file) == ExitCode.GATE_FAILED
    out, err = said(capsys)
    assert err == ""
    assert out.splitlines() == [
        "FAILED  a: memory_request: 99.000 MB declared, 100.000 MB (kernel peak, need unknown) needed: too little; "
        f"recommended: 256.000 MB ({file}:6)",
        f"FAILED  a__one: measured: declared, but not measured in this run ({file}:4)",
        "Gate failed: 5 checks, 3 passed, 2 failed",
    ]


MANIFEST = """\
apiVersion: v1
kind: Pod
metadata: {name: pod}
spec:
  containers:
  - name: a
    image: img
    resources:
      requests: {cpu: 999m, memory: 100M}
      limits: {cpu: 2, memory: %s}
---
apiVersion: v1
kind: Pod
metadata: {name: other}
spec: {containers: [{name: b, image: img}]}
"""


@pytest.mark.parametrize("memory", ["100M", "99M"])
def test_a_manifest_s_requests_and_limits_are_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], memory: str
) -> None:
    file = tmp_path / "pod.yaml"
    file.write_text(MANIFEST % memory)
    assert called(monkeypatch, "check", folder(tmp_path / "run"), str(file)) == ExitCode.GATE_FAILED
    out, _ = said(capsys)
    assert "FAILED  a: cpu_request: 0.999 CPU declared, 1 CPU (p95 of 0.200 s windows) needed: too little" in out
    assert f"SKIPPED b: measured: not measured in this run; declares nothing ({file}:15)" in out
    assert ("FAILED  a: memory_limit" in out) == (memory == "99M")


def test_a_file_that_has_nothing_of_the_run_is_the_wrong_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = folder(tmp_path / "run", *(record(f"op\x1b{n}", declared=Resources(1000)) for n in range(10)))
    file = definition(tmp_path / "p.yaml", 256)
    assert called(monkeypatch, "check", kept, file) == ExitCode.USAGE
    out, err = said(capsys)
    assert out == ""
    assert f"nothing in {file} was measured in this run: it has a, a__one, the run has op\\x1b0, op\\x1b1," in err
    assert "op\\x1b7 and 2 more\n  what to do: name the file that was run" in err


def test_a_run_without_operators_fails_the_gate_with_any_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / RUN_FILE).write_text(json_text(run(complete=True)))
    for words in ([], [definition(tmp_path / "p.yaml", 256)]):
        assert called(monkeypatch, "check", str(tmp_path / "run"), *words) == ExitCode.GATE_FAILED
        assert "FAILED  run: measured: no operator was measured" in said(capsys)[0]


@pytest.mark.parametrize("text", ["api-version: 0.4.0\nname: p\noperators: []\n", "kind: Pod\n", "{", "services: 1"])
def test_what_declares_nothing_at_all_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    (tmp_path / "f.yaml").write_text(text)
    assert called(monkeypatch, "check", folder(tmp_path / "run"), str(tmp_path / "f.yaml")) == ExitCode.USAGE
    out, err = said(capsys)
    assert out == ""
    assert err.startswith(f"cpost: error: {tmp_path / 'f.yaml'}")


@pytest.mark.parametrize(("words", "code"), [("--max_over 2.55", 3), ("--max-over 2.56", 0), ("--max_over 1", 3)])
def test_how_much_is_too_much_is_an_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, code: int
) -> None:
    big = record(usage=usage(memory=100 * MB), declared=Resources(memory_bytes=256 * MB + 1))
    exact = record(usage=usage(memory=200 * MB), declared=Resources(memory_bytes=512 * MB))
    assert called(monkeypatch, "check", folder(tmp_path / "big", big), *words.split()) == 3
    assert called(monkeypatch, "check", folder(tmp_path / "exact", exact), *words.split()) == code


@pytest.mark.parametrize(("percent", "code"), [("50%", 0), ("0.5", 0), ("49.9%", 3)])
def test_how_much_may_grow_is_an_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], percent: str, code: int
) -> None:
    old = folder(tmp_path / "old", record(usage=usage(memory=100 * MB)), complete=False, stopped_by="SIGINT")
    new = folder(tmp_path / "new", record(usage=usage(memory=150 * MB)))
    assert called(monkeypatch, "check", new, "--baseline", old, "--max_growth", percent) == code
    out, err = said(capsys)
    assert ("FAILED  a: memory_growth: memory peak 100.000 MB in the baseline, 150.000 MB now" in out) == (code == 3)
    assert err == f"cpost: warning: {old}: the run is partial, it was stopped by SIGINT\n"


def test_another_cpu_rate_may_be_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spiky = replace(usage(), cpu_pct=Statistic(100.0, 250.0, 90.0, 100.0, 200.0))
    kept = folder(tmp_path / "run", record(usage=spiky, declared=Resources(2000)))
    assert called(monkeypatch, "check", kept) == ExitCode.OK
    assert called(monkeypatch, "check", kept, "--cpu_need", "p99") == ExitCode.OK
    assert called(monkeypatch, "check", kept, "--cpu-need", "maximum") == ExitCode.GATE_FAILED


def test_every_format_says_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("check", folder(tmp_path / "run"), definition(tmp_path / "p.yaml", 99), "--format")
    shown = {}
    for form in ("text", "json", "github", "junit"):
        assert called(monkeypatch, *words, form) == ExitCode.GATE_FAILED
        shown[form] = said(capsys)[0]
    assert shown["text"].count("FAILED") == shown["github"].count("::error file=") == 2
    data = json.loads(shown["json"])
    assert (data["verdict"], data["counts"]["failed"]) == ("failed", 2)
    (suite,) = ElementTree.fromstring(shown["junit"])
    assert suite.get("failures") == "2"


@pytest.mark.parametrize(
    "words",
    ["--max_over 0.9", "--max_over much", "--max_over 3%", "--max_growth 11", "--format xml", "--cpu_need p50"],
)
def test_wrong_options_are_usage_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: str
) -> None:
    assert called(monkeypatch, "check", folder(tmp_path / "run"), *words.split()) == ExitCode.USAGE
    assert said(capsys)[0] == ""


@pytest.mark.parametrize("words", [["check", "X"], ["check", "OK", "--baseline", "X"], ["compare", "OK", "X"]])
def test_what_is_no_run_folder_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    places = {"X": str(tmp_path), "OK": folder(tmp_path / "run")}
    assert called(monkeypatch, *(places.get(word, word) for word in words)) == ExitCode.USAGE
    assert "not a run's record" in said(capsys)[1]


def test_a_definition_with_faults_is_not_taken_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = definition(tmp_path / "p.yaml", 256)
    Path(file).write_text(Path(file).read_text().replace("5001", "1"))
    assert called(monkeypatch, "check", folder(tmp_path / "run"), file) == ExitCode.USAGE
    assert "1 is not a port that a service may use" in said(capsys)[1]


@pytest.mark.parametrize("words", [["check"], ["compare"], ["report"]])
def test_a_damaged_record_is_told_not_traced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    kept = folder(tmp_path / "run")
    data = json.loads((tmp_path / "run" / RUN_FILE).read_text())
    data["operators"][0]["usage"]["cpu_pct"]["p95"] = float("nan")
    (tmp_path / "run" / RUN_FILE).write_text(json.dumps(data))
    assert called(monkeypatch, *words, kept, *([kept] if words == ["compare"] else [])) == ExitCode.USAGE
    assert "not a run's record (NaN is not a number that a record may have)" in said(capsys)[1]


def test_a_date_that_is_none_leaves_the_page_without_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = folder(tmp_path / "run", created_at="2026-99-99T00:00:00Z", ended_at="2026-99-99T00:00:00Z")
    assert called(monkeypatch, "report", kept) == ExitCode.OK


def test_a_file_that_is_no_definition_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called(monkeypatch, "check", folder(tmp_path / "run"), str(tmp_path / "none.yaml")) == ExitCode.USAGE
    assert "none.yaml" in said(capsys)[1]


# ---------------------------------------------------------------- compare


def test_two_runs_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old = folder(tmp_path / "old", record(usage=usage(memory=100 * MB)), run_id="x")
    new = folder(tmp_path / "new", record(usage=usage(memory=150 * MB)), run_id="y", complete=False)
    assert called(monkeypatch, "compare", old, new) == ExitCode.OK
    out, err = said(capsys)
    assert "+50.0 %" in out
    assert err == f"cpost: warning: {new}: the run is partial, it was stopped by an error\n"
    assert called(monkeypatch, "compare", old, new, "--json") == ExitCode.OK
    data = json.loads(said(capsys)[0])
    assert (data["before"], data["after"]) == ("x", "y")
    assert data["subjects"][0]["figures"]["memory_peak_bytes"]["meaning"] == "single"


# ---------------------------------------------------------------- places in the file

WORKFLOW = """\
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {name: w}
spec:
  entrypoint: main
  templates:
  - name: main
    steps:
    - - {name: one, template: work}
      - {name: two, template: work}
  - name: work
    container:
      image: i
      resources:
        requests: {memory: 80Mi, cpu: 10m}
        limit: {memory: 80Mi}
"""


def test_a_template_of_several_uses_is_one_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What `cpost apply` writes there, the most that any needs, is right for all."""
    file = tmp_path / "w.yaml"
    file.write_text(WORKFLOW)
    records = [
        record(name, usage=usage(1.0, size, need_peak_bytes=size), recommendation=advice(10, size))
        for name, size in (("work.one", MB), ("work.two", 80 * MIB))
    ]
    made = folder(tmp_path / "run", *records)
    assert called(monkeypatch, "check", made, str(file)) == ExitCode.OK
    said(capsys)
    file.write_text(WORKFLOW.replace("{memory: 80Mi, cpu", "{memory: 79Mi, cpu"))
    assert called(monkeypatch, "check", made, str(file)) == ExitCode.GATE_FAILED
    (line,) = [line for line in said(capsys)[0].splitlines() if line.startswith("FAILED")]
    assert line.startswith(
        "FAILED  work.two (work in the file): memory_request: 79Mi declared, 83.886 MB (need peak) needed"
    )
    assert line.endswith(f"recommended: 80Mi ({file}:15)")


def test_misspelt_keys_of_amounts_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "w.yaml"
    file.write_text(WORKFLOW)
    called(monkeypatch, "check", folder(tmp_path / "run", record("work.one"), record("work.two")), str(file))
    doubt = 'unknown key "limit" in resources: did you mean "limits"?'
    assert f"SKIPPED work.one (work in the file): declared: {doubt} ({file}:16)" in said(capsys)[0]


def test_without_a_file_the_places_are_those_of_the_file_that_was_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = definition(tmp_path / "p.yaml", 99)
    low = record(declared=Resources(1000, 99 * MB), usage=usage(memory=100 * MB))
    stated = {"pipeline_file": file, "pipeline_digest": load(file).digest}
    made = folder(tmp_path / "run", low, **stated)
    assert called(monkeypatch, "check", made) == ExitCode.GATE_FAILED
    assert said(capsys)[0].splitlines()[0].endswith(f"recommended: 256.000 MB ({file}:6)")
    definition(tmp_path / "p.yaml", 500)  # no longer what was run
    assert called(monkeypatch, "check", made) == ExitCode.GATE_FAILED
    assert said(capsys)[0].splitlines()[0].endswith("recommended: 256.000 MB")


def test_a_folder_that_is_not_there_is_called_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called(monkeypatch, "check", str(tmp_path / "nosuch")) == ExitCode.USAGE
    assert (
        said(capsys)[1].splitlines()[0]
        == f"cpost: error: {tmp_path}/nosuch: not a run's record: there is no such folder"
    )
