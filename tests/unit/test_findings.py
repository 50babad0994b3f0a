"""What the gate found and how runs differ, in every format."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from fractions import Fraction
from xml.etree import ElementTree

import pytest
from builders import MB, MS, REFUSED, advice, record, repeat, result, run, totals, usage
from hypothesis import given
from hypothesis import strategies as st

from cpost.compare import compare
from cpost.model import (
    ENGINE_STATS,
    PROCESS_TREE,
    Bounds,
    Check,
    GateReport,
    GpuUsage,
    HostDifference,
    Origin,
    Resources,
    Rule,
    Ruling,
)
from cpost.report import findings
from cpost.terminal import visible

CHECKS = (
    Check("a", Rule.MEASURED, Ruling.PASSED, "measured"),
    Check("a", Rule.MEMORY_REQUEST, Ruling.FAILED, "1 MB declared: 100 % off", Origin("p.yaml", 12, 3), 1, 2, 3),
    Check("a__svc", Rule.DECLARED, Ruling.SKIPPED, "it declares nothing"),
)
HOSTS = (HostDifference("CPUs", "4", "8"),)


def report(*checks: Check, hosts: tuple[HostDifference, ...] = ()) -> GateReport:
    return GateReport("p", "now", "before" if hosts else "", hosts, checks)


# ---------------------------------------------------------------- text


def test_a_line_per_finding_and_one_that_closes() -> None:
    assert findings.text(report(*CHECKS, hosts=HOSTS)).splitlines() == [
        "Different CPUs: 8, the baseline's 4",
        "FAILED  a: memory_request: 1 MB declared: 100 % off (p.yaml:12)",
        "SKIPPED a__svc: declared: it declares nothing",
        "Gate failed: 3 checks, 1 passed, 1 failed, 1 skipped",
    ]
    assert findings.text(report(CHECKS[0])) == "Gate passed: 1 check, 1 passed"


def test_a_stranger_s_text_stays_on_its_line() -> None:
    nasty = Check("a\nb", Rule.MEASURED, Ruling.FAILED, "said \x1b[31m\r\n::error::x", Origin("p\n\x1b.yaml", 1, 1))
    for shown in (findings.text(report(nasty)), findings.github(report(nasty))):
        assert len(shown.splitlines()) == 2
        assert "\x1b" not in shown


# ---------------------------------------------------------------- GitHub


def unescaped(text: str) -> str:
    """As the runner takes it back."""
    for escape, char in (("%3A", ":"), ("%2C", ","), ("%0A", "\n"), ("%0D", "\r"), ("%25", "%")):
        text = text.replace(escape, char)
    return text


def test_annotations_stand_at_their_place() -> None:
    assert findings.github(report(*CHECKS, hosts=HOSTS)).splitlines() == [
        "::warning title=cpost::Different CPUs: 8, the baseline's 4",
        "::error file=p.yaml,line=12,title=cpost memory_request::a: memory_request: 1 MB declared: 100 %25 off",
        "::notice title=cpost declared::a__svc: declared: it declares nothing",
        "Gate failed: 3 checks, 1 passed, 1 failed, 1 skipped",
    ]


def test_what_is_there_to_be_changed_is_only_noted() -> None:
    hosts = (*HOSTS, HostDifference("image of a", "x:1", "x:2", tested=True))
    assert findings.github(report(CHECKS[0], hosts=hosts)).splitlines()[:2] == [
        "::warning title=cpost::Different CPUs: 8, the baseline's 4",
        "::notice title=cpost::Different image of a: x:2, the baseline's x:1",
    ]
    assert [each["tested"] for each in findings.gate_data(report(hosts=hosts))["hosts"]] == [False, True]


@given(file=st.text(st.sampled_from("a%:,\n\r\x1b0A3C25"), min_size=1), text=st.text(st.sampled_from("a%:,0A25")))
def test_annotations_are_escaped(file: str, text: str) -> None:
    shown = findings.github(report(Check("s", Rule.MEASURED, Ruling.FAILED, text, Origin(file, 4, 1))))
    annotation, _ = shown.split("\n")
    match = re.fullmatch(r"::error file=([^:,]*),line=4,title=[^:,]*::(.*)", annotation)
    assert match is not None
    assert unescaped(match[1]) == visible(file)
    assert unescaped(match[2]) == f"s: measured: {text}"


# ---------------------------------------------------------------- JUnit


def test_junit_has_a_case_per_operator_and_rule() -> None:
    (suite,) = ElementTree.fromstring(findings.junit(report(*CHECKS, hosts=HOSTS)))
    assert suite.attrib == {"name": "cpost check p", "tests": "3", "failures": "1", "skipped": "1", "errors": "0"}
    properties, *cases = suite
    assert properties[0].attrib == {"name": "host: CPUs", "value": "8, the baseline's 4"}
    assert [(case.get("classname"), case.get("name"), [child.tag for child in case]) for case in cases] == [
        ("a", "measured", []),
        ("a", "memory_request", ["failure"]),
        ("a__svc", "declared", ["skipped"]),
    ]
    failure = cases[1][0]
    assert (cases[1].get("file"), cases[1].get("line")) == ("p.yaml", "12")
    assert failure.attrib == {"message": "1 MB declared: 100 % off", "type": "memory_request"}
    assert failure.text == "a: memory_request: 1 MB declared: 100 % off (p.yaml:12)"


@given(text=st.text())
def test_junit_is_ascii_and_parses_whatever_it_holds(text: str) -> None:
    made = findings.junit(report(Check(text, Rule.MEASURED, Ruling.FAILED, text, Origin(text, 1, 1))))
    assert made.isascii()
    message = ElementTree.fromstring(made)[0][0][0].get("message")
    if text.isprintable():
        assert message == text


# ---------------------------------------------------------------- data


def test_the_gate_s_keys_are_promised() -> None:
    bounds = Bounds(Fraction(5, 2), Fraction(1, 5), "p99")
    assert findings.gate_data(replace(report(*CHECKS[1:2], hosts=HOSTS), bounds=bounds)) == {
        "verdict": "failed",
        "pipeline": "p",
        "run_id": "now",
        "baseline_id": "before",
        "bounds": {"max_over": 2.5, "max_growth": 0.2, "cpu_need": "p99"},
        "counts": {"passed": 0, "failed": 1, "skipped": 0},
        "hosts": [{"what": "CPUs", "before": "4", "after": "8", "tested": False}],
        "checks": [
            {
                "subject": "a",
                "site": "a",
                "rule": "memory_request",
                "verdict": "failed",
                "text": "1 MB declared: 100 % off",
                "file": "p.yaml",
                "line": 12,
                "declared": 1,
                "needed": 2,
                "recommended": 3,
            }
        ],
    }
    bare = findings.gate_data(report(CHECKS[0]))
    assert (bare["verdict"], bare["baseline_id"], bare["checks"][0]["file"]) == ("passed", None, None)


# ---------------------------------------------------------------- two runs


def row(shown: str, metric: str) -> list[str]:
    (line,) = [line for line in shown.splitlines() if line.startswith("| ") and metric in line]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_comparison_is_a_table_for_each_operator() -> None:
    runs = tuple(repeat(n, 2, usage=usage(100.0, n * 100 * MB), result=result(wall_ns=n * 1000 * MS)) for n in (1, 2))
    old = run(record(repeats=runs, usage=usage()), record("gone"), run_id="x")
    more = replace(advice(2000, 512 * MB), requests=Resources(2000, 512 * MB, 1))
    new = run(record(usage=usage(300.0, 600 * MB), recommendation=more), record("new"), run_id="y")
    shown = findings.comparison(compare(old, new))
    assert row(shown, "Memory peak") == [
        "Memory peak",
        "200.000 MB (100.000 MB to 200.000 MB)",
        "600.000 MB",
        "+200.0 %",
        "single runs: cannot tell noise",
    ]
    assert row(shown, "CPU time") == ["CPU time", "-", "-", "-", "-"]
    assert row(shown, "Wall time")[1:3] == ["1.500 s (1.000 s to 2.000 s)", "-"]
    assert row(shown, "Recommended CPU")[1:3] == ["cpu: 1", "cpu: 2"]
    assert row(shown, "Recommended memory")[1:3] == ["memory: 256", "memory: 512"]
    assert row(shown, "Recommended GPU")[1:3] == ["-", "gpu: 1"]
    assert shown.endswith("gone: only the first run has it\n\nnew: only the second run has it")


def test_a_comparison_marks_what_is_no_more_than_a_bound_or_an_estimate() -> None:
    stated = usage(100.0, 300 * MB, need_peak_bytes=200 * MB)
    tree = record(usage=stated, result=result(totals=totals(source=PROCESS_TREE)))
    stats = record(usage=stated, result=result(totals=totals(source=ENGINE_STATS)))
    found = compare(run(tree), run(stats))
    shown = findings.comparison(found)
    assert row(shown, "CPU p95")[1:3] == ["100.000 %", ">= 100.000 %"]
    assert row(shown, "Memory need")[1:3] == ["~ 200.000 MB", ">= 200.000 MB"]
    assert row(shown, "Memory peak")[1:3] == ["~ 300.000 MB", ">= 300.000 MB"]
    need = findings.comparison_data(found)["subjects"][0]["figures"]["need_peak_bytes"]
    assert (need["before_certainty"], need["after_certainty"]) == ("estimate", "at_least")
    assert shown.startswith("Different source of a: engine stats, the first's process tree\n")


def test_gpus_have_rows_where_there_are_any() -> None:
    gpu = GpuUsage("x", used=True, busy_average_pct=40.0, memory_peak_bytes=2000 * MB)
    more = replace(gpu, busy_average_pct=60.0, memory_peak_bytes=20_000 * MB)
    old, new = (run(record(usage=usage(gpus=(each,)))) for each in (gpu, more))
    shown = findings.comparison(compare(old, new))
    assert row(shown, "GPU busy")[1:4] == ["40.000 %", "60.000 %", "+50.0 %"]
    assert row(shown, "GPU memory")[1:4] == ["2000.000 MB", "20000.000 MB", "+900.0 %"]
    assert "GPU" not in findings.comparison(compare(run(record()), run(record())))
    assert row(findings.comparison(compare(run(record()), new)), "GPU memory")[1:3] == ["-", "20000.000 MB"]


def test_hosts_come_first_and_remarks_below() -> None:
    refused = run(record(recommendation=REFUSED))
    found = replace(compare(refused, refused), hosts=HOSTS)
    found = replace(found, subjects=(replace(found.subjects[0], remarks=("it\nfailed",)),))
    shown = findings.comparison(found)
    assert shown.startswith("Different CPUs: 8, the first's 4\n\na\n+")
    assert shown.endswith("it\\nfailed")
    assert row(shown, "Recommended CPU")[1:3] == ["none", "none"]
    assert "Recommended GPU" not in shown
    assert findings.comparison(compare(run(), run())) == "Neither run has any operator."


def test_the_comparison_s_keys_are_promised() -> None:
    runs = tuple(repeat(n, 2, result=result(wall_ns=n)) for n in (1, 3))
    old, new = run(record(repeats=runs), run_id="x"), run(record(recommendation=REFUSED), run_id="y")
    data = json.loads(json.dumps(findings.comparison_data(replace(compare(old, new), hosts=HOSTS))))
    assert (data["before"], data["after"], data["hosts"][0]["what"]) == ("x", "y", "CPUs")
    (subject,) = data["subjects"]
    assert set(subject) == {"name", "figures", "recommended", "remarks"}
    assert subject["figures"]["wall_ns"] == {
        "before": 2,
        "after": None,
        "change": None,
        "share": None,
        "meaning": "unknown",
        "before_certainty": "exact",
        "after_certainty": "exact",
        "before_spread": {"minimum": 1, "maximum": 3, "runs": 2},
        "after_spread": None,
    }
    assert subject["recommended"] == {
        "before": {"cpu_millicores": 1000, "memory_bytes": 256 * MB, "gpu_count": None},
        "after": None,
    }
    assert (data["only_before"], data["only_after"]) == ([], [])


@pytest.mark.parametrize("verdict", list(Ruling))
def test_only_a_broken_rule_fails_the_gate(verdict: Ruling) -> None:
    assert report(replace(CHECKS[0], verdict=verdict)).failed == (verdict is Ruling.FAILED)
