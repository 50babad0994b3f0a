"""What a search tried and found, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from cpost.model import CpuChoice, MemoryChoice, OperatorRecord, Outcome, Search, Trial, Verdict, allowance_ns
from cpost.report.tables import columns_table
from cpost.report.wording import UNKNOWN, cpu_answer, memory_answer
from cpost.units import MILLICORES_PER_CORE, format_cores, format_mb, format_seconds

_Columns = dict[str, list[str]]


def summary(search: Search) -> str:
    """What runs were compared with, the tables of what was tried, in the order of the limits, and what follows."""
    parts = [_allowed(search)]
    if search.memory is not None:
        parts += [columns_table(_memory_columns(search.memory)), memory_answer(search.memory)]
    if search.cpu is not None:
        parts += [columns_table(_cpu_columns(search.cpu)), cpu_answer(search.cpu)]
    return "\n".join(filter(None, parts))


def answers(record: OperatorRecord) -> list[str]:
    """What a search found for an operator, in a line for each thing that was looked for."""
    search = record.search
    memory = [memory_answer(search.memory, record.operator)] if search and search.memory else []
    cpu = [cpu_answer(search.cpu, record.operator)] if search and search.cpu else []
    return memory + cpu


def _allowed(search: Search) -> str:
    if search.cpu is not None and search.cpu.by_throttling:
        return f"It ran for a set time, of which a CPU limit may hold it back in {search.max_slowdown:.0%}"
    tried = (*(search.memory.trials if search.memory else ()), *(search.cpu.trials if search.cpu else ()))
    if search.baseline_wall_ns is None or all(trial.slowdown is None for trial in tried):
        return ""
    longest_ns = search.baseline_wall_ns + allowance_ns(search.baseline_wall_ns, search.max_slowdown)
    without, longest = format_seconds(search.baseline_wall_ns), format_seconds(longest_ns)
    return f"Without limits it took {without}; up to {longest} is fast enough"


def _memory_columns(found: MemoryChoice) -> _Columns:
    trials = sorted(found.trials, key=lambda trial: trial.memory_bytes)
    return {
        "Memory limit": [format_mb(trial.memory_bytes) for trial in trials],
        **_time_columns(trials),
        "Waited for memory": [_share(trial.stalled_share) for trial in trials],
        "Verdict": [trial.verdict.value for trial in trials],
        "Why": ["" if trial.slowdown is not None and _is_slow(trial) else trial.cause for trial in trials],
    }


def _cpu_columns(found: CpuChoice) -> _Columns:
    """Cores times time is what one of both answers is about, and is told where that is asked for."""
    trials = sorted(found.trials, key=lambda trial: trial.cpu_millicores)
    timed = [] if found.by_throttling else [each for each in trials if each.result.outcome is Outcome.COMPLETED]
    return {
        "CPU limit": [format_cores(trial.cpu_millicores) for trial in trials],
        **_time_columns(trials),
        "Cores x time": [_core_seconds(trial) if trial in timed else UNKNOWN for trial in trials],
        "Held back": [_share(trial.throttled_share) for trial in trials],
        "Verdict": [trial.verdict.value for trial in trials],
        "Why": ["" if _is_slow(trial) else trial.cause for trial in trials],
    }


def _time_columns(trials: Sequence[Trial]) -> _Columns:
    return {
        "Time": [_seconds(trial.result.wall_ns) for trial in trials],
        "Slowdown": [UNKNOWN if each.slowdown is None else f"{each.slowdown * 100:+.1f} %" for each in trials],
    }


def _is_slow(trial: Trial) -> bool:
    """Whether it was slow and came to its end all the same; why is in columns of its own."""
    return trial.verdict is Verdict.SLOW and trial.result.outcome is Outcome.COMPLETED


def _core_seconds(trial: Trial) -> str:
    wall = trial.result.wall_ns
    return _seconds(None if wall is None else trial.cpu_millicores * wall // MILLICORES_PER_CORE)


def _seconds(time_ns: int | None) -> str:
    return UNKNOWN if time_ns is None else format_seconds(time_ns)


def _share(share: float | None) -> str:
    return UNKNOWN if share is None else f"{share * 100:.0f} %"
