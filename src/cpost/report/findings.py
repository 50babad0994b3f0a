"""What the gate found, and how two runs differ: for people, for GitHub, for readers of JUnit's XML, and as plain data.

Names and causes come from definitions and operators, so whatever does not print as itself is shown as an escape. That
also leaves nothing that XML 1.0 cannot hold.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any
from xml.etree import ElementTree

from cpost.model import (
    Certainty,
    Check,
    Comparison,
    Difference,
    Figure,
    GateReport,
    HostDifference,
    Meaning,
    Resources,
    Ruling,
    Spread,
    SubjectDifferences,
)
from cpost.report.tables import comparison_table, requests_text
from cpost.terminal import visible

_UNKNOWN = "-"
_BASELINE = "the baseline's"
_ANNOTATIONS = {Ruling.FAILED: "error", Ruling.SKIPPED: "notice"}


# ---------------------------------------------------------------- the gate


def text(report: GateReport) -> str:
    """The hosts' differences, a line per finding, and one that closes."""
    lines = [_host_line(each, _BASELINE) for each in report.hosts]
    lines += [f"{check.verdict.value.upper():<8}{_line(check)}{_place(check)}" for check in _told(report)]
    return "\n".join([*lines, closing(report)])


def closing(report: GateReport) -> str:
    """One line: what came of how many checks."""
    counts = Counter(check.verdict for check in report.checks)
    parts = [f"{counts[verdict]} {verdict.value}" for verdict in Ruling if counts[verdict]]
    count = len(report.checks)
    verdict = "failed" if report.failed else "passed"
    return f"Gate {verdict}: {count} check{'' if count == 1 else 's'}, {', '.join(parts)}"


def github(report: GateReport) -> str:
    """Workflow commands of GitHub Actions: an annotation per finding, at its place in the file where that is known."""
    lines = [
        f"::{'notice' if each.tested else 'warning'} title=cpost::{_data(_host_line(each, _BASELINE))}"
        for each in report.hosts
    ]
    return "\n".join([*lines, *map(_annotation, _told(report)), closing(report)])


def junit(report: GateReport) -> str:
    """XML as JUnit's reports are read by CI servers: a test case per operator and rule."""
    root = ElementTree.Element("testsuites")
    counts = Counter(check.verdict for check in report.checks)
    suite = ElementTree.SubElement(
        root,
        "testsuite",
        name=visible(f"cpost check {report.pipeline}"),
        tests=str(len(report.checks)),
        failures=str(counts[Ruling.FAILED]),
        skipped=str(counts[Ruling.SKIPPED]),
        errors="0",
    )
    if report.hosts:
        properties = ElementTree.SubElement(suite, "properties")
        for each in report.hosts:
            value = visible(f"{each.after}, the baseline's {each.before}")
            ElementTree.SubElement(properties, "property", name=f"host: {each.what}", value=value)
    for check in report.checks:
        _case(suite, check)
    ElementTree.indent(root)
    # In ASCII, with everything else as references: it reads the same whatever encoding the output has.
    written: bytes = ElementTree.tostring(root, "us-ascii", xml_declaration=True)
    return written.decode("ascii")


def gate_data(report: GateReport) -> dict[str, Any]:
    """The report as plain data; its keys are promised."""
    counts = Counter(check.verdict for check in report.checks)
    return {
        "verdict": (Ruling.FAILED if report.failed else Ruling.PASSED).value,
        "pipeline": report.pipeline,
        "run_id": report.run_id,
        "baseline_id": report.baseline_id or None,
        "bounds": {
            "max_over": float(report.bounds.max_over),
            "max_growth": float(report.bounds.max_growth),
            "cpu_need": report.bounds.cpu_need,
        },
        "counts": {verdict.value: counts[verdict] for verdict in Ruling},
        "hosts": _host_data(report.hosts),
        "checks": [
            {
                "subject": check.subject,
                "site": check.site or check.subject,
                "rule": check.rule.value,
                "verdict": check.verdict.value,
                "text": check.text,
                "file": check.origin.file if check.origin else None,
                "line": check.origin.line if check.origin else None,
                "declared": check.declared,
                "needed": check.needed,
                "recommended": check.recommended,
            }
            for check in report.checks
        ],
    }


def _told(report: GateReport) -> list[Check]:
    return [check for check in report.checks if check.verdict is not Ruling.PASSED]


def _line(check: Check) -> str:
    who = f"{check.subject} ({check.site} in the file)" if check.site else check.subject
    return visible(f"{who}: {check.rule.value}: {check.text}")


def _place(check: Check) -> str:
    return visible(f" ({check.origin.file}:{check.origin.line})") if check.origin else ""


def _annotation(check: Check) -> str:
    """As in "workflow commands for GitHub Actions": `::error file=,line=,title=::message`."""
    origin = check.origin
    place = [f"file={_property(origin.file)}", f"line={origin.line}"] if origin else []
    properties = ",".join([*place, f"title={_property(f'cpost {check.rule.value}')}"])
    return f"::{_ANNOTATIONS[check.verdict]} {properties}::{_data(_line(check))}"


def _data(text: str) -> str:
    """Escaped as the runner takes it back: percent signs and ends of lines."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    """Likewise, for what stands before the message: also what does not print, and what ends a property."""
    return _data(visible(text)).replace(":", "%3A").replace(",", "%2C")


def _case(suite: ElementTree.Element, check: Check) -> None:
    place = {"file": visible(check.origin.file), "line": str(check.origin.line)} if check.origin else {}
    names = {"classname": visible(check.subject), "name": check.rule.value}
    case = ElementTree.SubElement(suite, "testcase", {**names, **place})
    message = visible(check.text)
    if check.verdict is Ruling.FAILED:
        failure = ElementTree.SubElement(case, "failure", message=message, type=check.rule.value)
        failure.text = _line(check) + _place(check)
    elif check.verdict is Ruling.SKIPPED:
        ElementTree.SubElement(case, "skipped", message=message)


def _host_line(each: HostDifference, others: str) -> str:
    return visible(f"Different {each.what}: {each.after}, {others} {each.before}")


def _host_data(hosts: Sequence[HostDifference]) -> list[dict[str, str | bool]]:
    return [{"what": each.what, "before": each.before, "after": each.after, "tested": each.tested} for each in hosts]


# ---------------------------------------------------------------- two runs


def comparison(found: Comparison) -> str:
    """The hosts' differences, a table for each operator and server, and what only one run has."""
    blocks = ["\n".join(_host_line(each, "the first's") for each in found.hosts)] if found.hosts else []
    blocks += [_subject_text(each) for each in found.subjects]
    blocks += [visible(f"{name}: only the first run has it") for name in found.only_before]
    blocks += [visible(f"{name}: only the second run has it") for name in found.only_after]
    return "\n\n".join(blocks) or "Neither run has any operator."


def comparison_data(found: Comparison) -> dict[str, Any]:
    """The comparison as plain data; its keys are promised."""
    return {
        "before": found.before,
        "after": found.after,
        "hosts": _host_data(found.hosts),
        "subjects": [
            {
                "name": each.name,
                "figures": {figure.figure.value: _figure_data(figure) for figure in each.figures},
                "recommended": {"before": _resources(each.before), "after": _resources(each.after)},
                "remarks": list(each.remarks),
            }
            for each in found.subjects
        ],
        "only_before": list(found.only_before),
        "only_after": list(found.only_after),
    }


def _subject_text(found: SubjectDifferences) -> str:
    rows = [_figure_row(each) for each in found.figures if _told_of(each)]
    rows += [[*row, "", ""] for row in _recommended_rows(found)]
    return "\n".join([visible(found.name), comparison_table(rows), *map(visible, found.remarks)])


def _told_of(found: Difference) -> bool:
    """GPUs have rows only where there are any."""
    return not found.figure.of_gpu or found.before is not None or found.after is not None


def _figure_row(found: Difference) -> list[str]:
    change = _UNKNOWN if found.share is None else f"{found.share * 100:+.1f} %"
    meaning = _UNKNOWN if found.meaning is Meaning.UNKNOWN else found.meaning.value
    before = _figure_cell(found.figure, found.before, found.before_certainty, found.before_spread)
    after = _figure_cell(found.figure, found.after, found.after_certainty, found.after_spread)
    return [found.figure.heading, before, after, change, meaning]


def _figure_cell(figure: Figure, value: float | None, sure: Certainty, over: Spread | None) -> str:
    if value is None:
        return _UNKNOWN
    shown = sure.value + figure.show(value)
    return shown if over is None else f"{shown} ({figure.show(over.minimum)} to {figure.show(over.maximum)})"


def _recommended_rows(found: SubjectDifferences) -> Iterator[list[str]]:
    before, after = (requests_text(each) if each else ("none", "none") for each in (found.before, found.after))
    yield ["Recommended CPU", before[0], after[0]]
    yield ["Recommended memory", before[1], after[1]]
    counts = [each.gpu_count if each else None for each in (found.before, found.after)]
    if any(count is not None for count in counts):
        yield ["Recommended GPU", *(_UNKNOWN if count is None else f"gpu: {count}" for count in counts)]


def _figure_data(found: Difference) -> dict[str, Any]:
    return {
        "before": found.before,
        "after": found.after,
        "change": found.change,
        "share": found.share,
        "meaning": found.meaning.name.lower(),
        "before_certainty": found.before_certainty.name.lower(),
        "after_certainty": found.after_certainty.name.lower(),
        "before_spread": _spread_data(found.before_spread),
        "after_spread": _spread_data(found.after_spread),
    }


def _spread_data(over: Spread | None) -> dict[str, float] | None:
    return {"minimum": over.minimum, "maximum": over.maximum, "runs": over.count} if over else None


def _resources(resources: Resources | None) -> dict[str, int | None] | None:
    if resources is None:
        return None
    return {
        "cpu_millicores": resources.cpu_millicores,
        "memory_bytes": resources.memory_bytes,
        "gpu_count": resources.gpu_count,
    }
