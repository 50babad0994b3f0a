"""What a reader is told of a result in a word or a mark, the same in tables and on the page."""

from __future__ import annotations

from cpost.model import (
    CpuChoice,
    MemoryChoice,
    Outcome,
    StepResult,
    Trial,
    Usage,
    Verdict,
    cpu_rate_certainty,
    cpu_time_certainty,
    need_certainty,
    peak_certainty,
)
from cpost.units import format_cores, format_limit

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
    # What was stopped when its time was over has completed, whatever code it ended with.
    found = ["Non-zero exitcode"] if result.exit_code and result.outcome is not Outcome.COMPLETED else []
    if result.outcome in _MARKS:
        found.append(_MARKS[result.outcome])
    elif result.outcome is Outcome.COMPLETED and result.totals is not None and result.totals.oom_kills:
        found.append("OOM kill inside")
    return found


def ending(trial: Trial) -> str:
    """What became of a run under limits; one that was ended from outside says nothing of them."""
    if trial.result.outcome in (Outcome.INTERRUPTED, Outcome.ENGINE_LOST):
        return _MARKS[trial.result.outcome]
    return VERDICTS[trial.verdict]


def cpu_mark(result: StepResult, usage: Usage) -> str:
    """What stands before its CPU rates: nothing, or that they are lower bounds."""
    return cpu_rate_certainty(result, usage).value


def cpu_time_mark(result: StepResult) -> str:
    """Likewise, before its CPU time."""
    return cpu_time_certainty(result).value


def need_mark(result: StepResult) -> str:
    """What stands before its memory need: nothing, or that it is an estimate or a lower bound."""
    return need_certainty(result).value


def peak_mark(result: StepResult, usage: Usage) -> str:
    """Likewise, before its memory peak."""
    return peak_certainty(result, usage).value


def memory_answer(found: MemoryChoice, operator: str = "") -> str:
    """What follows from the memory limits that were tried.

    Args:
        operator: is named where there is no other sign of whose answer it is.
    """
    whose, why = _of(operator, found.cause)
    if not found.trials:
        return f"No memory limit was tried{whose}{why}"
    if found.smallest_bytes is None:
        return f"No memory limit that was tried was enough{whose}{why}"
    doubt = "" if found.settled else f" (not settled, less may do{why})"
    return f"The smallest memory that passed{whose}: {format_limit(found.smallest_bytes)}{doubt}"


def cpu_answer(found: CpuChoice, operator: str = "") -> str:
    """What follows from the numbers of cores that were tried.

    Args:
        operator: see `memory_answer`.
    """
    whose, why = _of(operator, found.cause)
    if not found.trials:
        return f"No number of cores was tried{whose}{why}"
    if found.knee_millicores is None:
        return f"No number of cores that was tried was enough{whose}{why}"
    knee = format_cores(found.knee_millicores)
    if found.cheapest_millicores is None:
        return f"The fewest cores that hold {operator or 'it'} back no more than allowed: {knee}"
    cheapest = format_cores(found.cheapest_millicores)
    doubt = "" if found.settled else f" (not settled{why})"
    return f"The fewest cores that are fast enough{whose}: {knee}; cores times time is least with {cheapest}{doubt}"


def _of(operator: str, cause: str) -> tuple[str, str]:
    return f" for {operator}" if operator else "", f": {cause}" if cause else ""
