"""The verbs that judge records: `cpost check` and `cpost compare`. They measure nothing and need no engine."""

from __future__ import annotations

import sys
from collections.abc import Collection
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cpost.cli_options import PATH
from cpost.errors import ExitCode, UsageError
from cpost.terminal import visible
from cpost.units import parse_factor, parse_share

if TYPE_CHECKING:
    from cpost.console import Console
    from cpost.model import Declared, GateReport, Run

_MOST_NAMES = 8


@click.command()
@click.argument("run_dir", metavar="RUN_DIR", type=PATH)
@click.argument("file", metavar="[FILE]", required=False, type=PATH)
@click.option(
    "--max_over",
    "--max-over",
    type=parse_factor,
    metavar="FACTOR",
    default="3.0",
    show_default=True,
    help="How many times what is needed a request may be.",
)
@click.option("--baseline", metavar="RUN_DIR", type=PATH, help="An earlier run to compare with.")
@click.option(
    "--max_growth",
    "--max-growth",
    type=parse_share,
    metavar="SHARE",
    default="10%",
    show_default=True,
    help="How much more than the baseline may be used.",
)
@click.option(
    "--cpu_need",
    "--cpu-need",
    type=click.Choice(["average", "p95", "p99", "maximum"]),
    default="p95",
    show_default=True,
    help="Which CPU rate counts as needed.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "github", "junit"]),
    default="text",
    show_default=True,
    help="What is printed on stdout.",
)
def check(
    run_dir: Path,
    file: Path | None,
    *,
    max_over: Fraction,
    baseline: Path | None,
    max_growth: Fraction,
    cpu_need: str,
    form: str,
) -> None:
    """Hold declared requests against what the run in RUN_DIR needed; exit with 3 where they do not fit.

    What is declared comes from FILE, or else from the run's own record.
    """
    from cpost import gate
    from cpost.console import Console
    from cpost.model import Bounds
    from cpost.store import load_run

    console = Console()
    run, earlier = load_run(run_dir), None if baseline is None else _loaded(baseline, console)
    wanted = _as_recorded(run) if file is None else _declared(file, run)
    report = gate.check(run, Bounds(max_over, max_growth, cpu_need), wanted, earlier)
    console.note(_rendered(report, form))
    sys.exit(ExitCode.GATE_FAILED if report.failed else ExitCode.OK)


@click.command()
@click.argument("run_a", metavar="RUN_A", type=PATH)
@click.argument("run_b", metavar="RUN_B", type=PATH)
@click.option("--json", "as_json", is_flag=True, help="Print the differences as JSON.")
def compare(run_a: Path, run_b: Path, *, as_json: bool) -> None:
    """Show what differs between two runs, and whether that is more than their own spread."""
    from cpost.compare import compare
    from cpost.console import Console
    from cpost.report import findings
    from cpost.store import json_text

    console = Console()
    found = compare(_loaded(run_a, console), _loaded(run_b, console))
    console.note(json_text(findings.comparison_data(found)).rstrip() if as_json else findings.comparison(found))


def _loaded(folder: Path, console: Console) -> Run:
    """A record, with a warning where it is not whole."""
    from cpost.store import load_run

    run = load_run(folder)
    if not run.complete:
        console.warn(f"{folder}: the run is partial, it was stopped by {run.stopped_by or 'an error'}")
    return run


def _as_recorded(run: Run) -> dict[str, Declared]:
    """What the record has; with the places in the file that was run, where that is there as it was."""
    from cpost.compare import subjects
    from cpost.definition.declared import declared
    from cpost.definition.loading import load
    from cpost.errors import DefinitionError

    kept = {name: subject.declared for name, subject in subjects(run).items()}
    file = Path(run.pipeline_file)
    try:
        there = declared(file) if run.pipeline_digest and load(file).digest == run.pipeline_digest else {}
    except DefinitionError:
        there = {}
    return {
        name: replace(there[name], requests=each.requests, limits=each.limits) if name in there else each
        for name, each in kept.items()
    }


def _declared(file: Path, run: Run) -> dict[str, Declared]:
    """What the file declares; raises `UsageError` where nothing in it has a name of this run's."""
    from cpost.compare import subjects
    from cpost.definition.declared import declared

    found, measured = declared(file), subjects(run)
    if measured and found.keys().isdisjoint(measured):
        raise UsageError(
            f"nothing in {file} was measured in this run: it has {_named(found)}, the run has {_named(measured)}",
            "name the file that was run, or one whose containers are called as that one's are",
        )
    return found


def _named(names: Collection[str]) -> str:
    first, rest = [visible(name) for name in names][:_MOST_NAMES], len(names) - _MOST_NAMES
    return ", ".join(first) + (f" and {rest} more" if rest > 0 else "")


def _rendered(report: GateReport, form: str) -> str:
    from cpost.report import findings
    from cpost.store import json_text

    if form == "json":
        return json_text(findings.gate_data(report)).rstrip()
    if form == "github":
        return findings.github(report)
    return findings.junit(report) if form == "junit" else findings.text(report)
