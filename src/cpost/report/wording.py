"""What a reader is told of a result in a word or a mark, the same in tables and on the page."""

from __future__ import annotations

from cpost.model import ENGINE_STATS, PROCESS_TREE, CpuChoice, MemoryChoice, Outcome, StepResult, Usage, Verdict
from cpost.units import format_cores, format_mb

UNKNOWN = "-"
VERDICTS = {Verdict.HOLDS: "Holds", Verdict.SLOW: "Too slow", Verdict.BROKEN: "Breaks"}
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


def memory_answer(found: MemoryChoice) -> str:
    """What follows from the memory limits that were tried."""
    if not found.trials:
        return "No memory limit was tried."
    if found.smallest_bytes is None:
        return "No memory limit that was tried was enough."
    doubt = "" if found.settled else " (the budget of runs ended before it was settled: less may do)"
    return f"The smallest memory that passed: {format_mb(found.smallest_bytes)}{doubt}"


def cpu_answer(found: CpuChoice) -> str:
    """What follows from the numbers of cores that were tried."""
    if not found.trials:
        return "No number of cores was tried: the budget of runs ended before (--max_runs)."
    if found.knee_millicores is None or found.cheapest_millicores is None:
        return "No number of cores can be named: no run ended well."
    knee, cheapest = format_cores(found.knee_millicores), format_cores(found.cheapest_millicores)
    return f"The fewest cores that are fast enough: {knee}; cores times time is least with {cheapest}"
