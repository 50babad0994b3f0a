"""What a reader is told of a result in a word or a mark, the same in tables and on the page."""

from __future__ import annotations

from cpost.model import ENGINE_STATS, PROCESS_TREE, Outcome, StepResult, Usage

UNKNOWN = "-"
_MARKS = {
    Outcome.OOM_KILLED: "Killed for memory",
    Outcome.TIMED_OUT: "Timed out",
    Outcome.INTERRUPTED: "Interrupted",
    Outcome.ENGINE_LOST: "Engine lost",
}


def marks(result: StepResult) -> list[str]:
    """What is wrong with how it ended, each in a few words; empty where nothing is."""
    found = ["Non-zero exitcode"] if result.exit_code else []
    if result.outcome in _MARKS:
        found.append(_MARKS[result.outcome])
    elif result.outcome is Outcome.COMPLETED and result.totals is not None and result.totals.oom_kills:
        found.append("OOM kill inside")
    return found


def cpu_mark(result: StepResult) -> str:
    """What stands before its CPU figures: nothing, or that they are lower bounds."""
    return ">= " if result.totals is not None and result.totals.source == ENGINE_STATS else ""


def peak_mark(result: StepResult, usage: Usage) -> str:
    """What stands before its memory peak: nothing, or that it is an estimate or a lower bound."""
    if not usage.peaks_sampled:
        return ""
    return "~ " if result.totals is not None and result.totals.source == PROCESS_TREE else ">= "
