"""Sections about runs under limits: whether a recommendation held, and how small an operator could be made."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cpost.model import Enforced, OperatorRecord, Search, Trial, Verdict, Verification
from cpost.report.figures import MOST_OVERLAID, OVERLAID_COLUMNS, overlaid
from cpost.report.overview import anchor_of
from cpost.report.reader import Reader, missing
from cpost.report.series import Series
from cpost.report.view import Cell, Column, Note, Section, Table
from cpost.report.wording import UNKNOWN, VERDICTS, cpu_answer, memory_answer
from cpost.units import format_cores, format_mb, format_seconds

_COLUMNS = (
    Column("Limits", number=False),
    Column("Verdict", number=False),
    Column("Time"),
    Column("Slowdown", hint="its time over the time without limits, less one"),
    Column("Held back by its CPU limit", hint="of the scheduler's periods of 100 ms, those in which it was; cpu.stat"),
    Column("Waited for memory", hint="of its life; the kernel's pressure (PSI)"),
    Column("Why", number=False),
)


def verified_section(record: OperatorRecord, verification: Verification, reader: Reader) -> Section:
    """What became of the recommendation: the runs under it, over the one without limits."""
    read: list[tuple[str, Series]] = [("no limits", reader.read(record.series_file, record.result, OVERLAID_COLUMNS))]
    for number, trial in enumerate(verification.trials[: MOST_OVERLAID - 1], 1):
        series = reader.read(trial.series_file, trial.result, OVERLAID_COLUMNS)
        read.append((f"under limits, run {number}", series))
    caption = f"Run under what was recommended, {_allowed(verification.max_slowdown, verification.baseline_wall_ns)}"
    return Section(
        title=f"{record.operator} under its recommendation",
        anchor=f"{anchor_of(record.operator)}--verified",
        state=VERDICTS[verification.verdict].lower(),
        bad=verification.verdict is not Verdict.HOLDS,
        notes=tuple(Note(note.kind, f"{name}: {note.text}") for name, series in read for note in missing(series)),
        tables=(_trials(caption, verification.trials),),
        charts=overlaid(read),
    )


def search_section(record: OperatorRecord, search: Search) -> Section:
    """What was tried, in the order of the limits, and what follows."""
    tables, notes = [], []
    allowed = _allowed(search.max_slowdown, search.baseline_wall_ns)
    if search.memory is not None:
        notes.append(Note("found", memory_answer(search.memory)))
        tables.append(_trials(f"Memory limits, {allowed}", search.memory.trials, _memory))
    if search.cpu is not None:
        notes.append(Note("found", cpu_answer(search.cpu)))
        tables.append(_trials(f"CPU limits, {allowed}", search.cpu.trials, _cpu))
    return Section(
        title=f"How small {record.operator} can be",
        anchor=f"{anchor_of(record.operator)}--search",
        notes=tuple(notes),
        tables=tuple(tables),
    )


def _allowed(max_slowdown: float, baseline_wall_ns: int | None) -> str:
    baseline = UNKNOWN if baseline_wall_ns is None else format_seconds(baseline_wall_ns)
    return f"at most {max_slowdown:.0%} longer than {baseline}"


def _memory(trial: Trial) -> int:
    return trial.enforced[0].limits.memory_bytes or 0


def _cpu(trial: Trial) -> int:
    return trial.enforced[0].limits.cpu_millicores or 0


def _trials(caption: str, trials: Sequence[Trial], by: Callable[[Trial], int] | None = None) -> Table:
    ordered = trials if by is None else sorted(trials, key=by)
    return Table(caption, _COLUMNS, tuple(map(_row, ordered)))


def _row(trial: Trial) -> tuple[Cell, ...]:
    wall = trial.result.wall_ns
    return (
        Cell("; ".join(map(_limits, trial.enforced)) or "none"),
        Cell(VERDICTS[trial.verdict], "good" if trial.verdict is Verdict.HOLDS else "bad"),
        Cell(UNKNOWN if wall is None else format_seconds(wall)),
        Cell(_share(trial.slowdown, "+.1%")),
        Cell(_share(trial.throttled_share, ".1%")),
        Cell(_share(trial.stalled_share, ".1%")),
        Cell(trial.cause),
    )


def _limits(enforced: Enforced) -> str:
    limits, parts = enforced.limits, []
    if limits.cpu_millicores is not None:
        parts.append(f"cpu {format_cores(limits.cpu_millicores)}")
    if limits.memory_bytes is not None:
        parts.append(f"memory {format_mb(limits.memory_bytes)}")
    if enforced.dev_shm_bytes is not None:
        parts.append(f"shared memory {format_mb(enforced.dev_shm_bytes)}")
    return f"{enforced.name}: {', '.join(parts) or 'none'}"


def _share(value: float | None, form: str) -> str:
    return UNKNOWN if value is None else format(value, form)
