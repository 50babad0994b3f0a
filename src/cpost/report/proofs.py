"""Sections about runs under limits: whether a recommendation held, and how small an operator could be."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cpost.model import (
    CpuChoice,
    MemoryChoice,
    OperatorRecord,
    Outcome,
    Resources,
    Search,
    Trial,
    Verdict,
    Verification,
    allowance_ns,
)
from cpost.report.charts import Level
from cpost.report.curves import Curve, Pin, Point
from cpost.report.overlays import MOST_OVERLAID, Strand, columns, overlaid
from cpost.report.overview import anchor_of
from cpost.report.reader import Reader
from cpost.report.view import Cell, Column, Note, Section, Table
from cpost.report.wording import UNKNOWN, VERDICTS, cpu_answer, memory_answer, peak_mark
from cpost.units import MB, MILLICORES_PER_CORE, NS_PER_MS, format_cores, format_mb, format_seconds

_COLUMNS = (
    Column("Verdict", number=False),
    Column("Time"),
    Column("Slowdown", hint="its time over the time without limits, less one"),
    Column("Held back by its CPU limit", hint="of the scheduler's periods of 100 ms, those in which it was; cpu.stat"),
    Column("Waited for memory", hint="of its life; the kernel's pressure (PSI)"),
    Column("Why", number=False),
)


def verified_section(record: OperatorRecord, verification: Verification, reader: Reader, gpus: int) -> Section:
    """What became of the recommendation: the runs under it, over the one without limits.

    Args:
        gpus: how many the host has.
    """
    trials = verification.trials[: MOST_OVERLAID - 1]
    series = reader.read(record.series_file, record.result, columns(gpus))
    strands = [Strand("no limits", 0, series, record.result, usage=record.usage)]
    for number, trial in enumerate(trials, 1):
        series = reader.read(trial.series_file, trial.result, columns(gpus))
        limits = trial.enforced[0].limits if trial.enforced else Resources()
        strands.append(Strand(_name(number), number, series, trial.result, limits, trial.usage))
    notes = [
        Note(note.kind, f"{each.name}: {note.text}")
        for each in strands
        for note in reader.missing(each.series, each.result)
    ]
    notes += [
        Note("warning", f"{_name(number)}: {warning}")
        for number, trial in enumerate(verification.trials, 1)
        for warning in trial.result.warnings
    ]
    caption = f"Run under what was recommended{_occasion(verification)}, {_allowed(verification)}"
    return Section(
        title=f"{record.operator} under its recommendation",
        anchor=f"{anchor_of(record.operator)}--verified",
        state=VERDICTS[verification.verdict].lower(),
        bad=verification.verdict is not Verdict.HOLDS,
        notes=tuple(notes),
        tables=(_numbered(caption, verification.trials),),
        charts=overlaid(strands, gpus),
    )


def search_section(record: OperatorRecord, search: Search) -> Section:
    """What was tried, in the order of the limits, and what follows."""
    tables, notes, curves = list[Table](), list[Note](), list[Curve]()
    allowed = _allowed(search)
    if search.memory is not None:
        notes.append(Note("found", memory_answer(search.memory)))
        curves += _memory_curve(record, search, search.memory)
        tables.append(_trials(f"Memory limits, {allowed}", search.memory.trials, lambda trial: trial.memory_bytes))
    if search.cpu is not None:
        notes.append(Note("found", cpu_answer(search.cpu)))
        curves += _cpu_curve(search, search.cpu)
        tables.append(_trials(f"CPU limits, {allowed}", search.cpu.trials, lambda trial: trial.cpu_millicores))
    return Section(
        title=f"How small {record.operator} can be",
        anchor=f"{anchor_of(record.operator)}--search",
        notes=tuple(notes),
        tables=tuple(tables),
        curves=tuple(curves),
    )


# ---------------------------------------------------------------- curves


def _memory_curve(record: OperatorRecord, search: Search, found: MemoryChoice) -> list[Curve]:
    """The curve; none where nothing was tried."""
    tried = ((each, each.memory_bytes) for each in found.trials)
    points = tuple(_point(each, limit / MB, format_mb(limit)) for each, limit in tried if limit)
    if not points:
        return []
    source = "Each point is a run under that limit. Need and peak are the run's without limits. MB = 10^6 bytes."
    pins = (*_unlimited(record), *_pin("smallest that passed", "wanted", found.smallest_bytes))
    return [Curve("Time by memory limit", "MB", points, _levels(search), pins, source)]


def _unlimited(record: OperatorRecord) -> tuple[Pin, ...]:
    usage = record.usage
    if usage is None:
        return ()
    peak = usage.memory_bytes.maximum
    label = "highest sample" if usage.peaks_sampled else "kernel's peak"
    return (
        *_pin("need", "need", usage.need_peak_bytes),
        *_pin(label, "kernel", None if peak is None else int(peak), peak_mark(record.result, usage)),
    )


def _pin(label: str, style: str, value_bytes: int | None, mark: str = "") -> tuple[Pin, ...]:
    if value_bytes is None:
        return ()
    return (Pin(value_bytes / MB, f"{label} {mark}{format_mb(value_bytes)}", style),)


def _cpu_curve(search: Search, found: CpuChoice) -> list[Curve]:
    """Likewise; none of what ran for a set time, which is as long with any number of cores."""
    tried = ((each, each.cpu_millicores) for each in found.trials)
    points = tuple(_point(each, cpu / MILLICORES_PER_CORE, f"cpu {format_cores(cpu)}") for each, cpu in tried if cpu)
    if not points or found.by_throttling:
        return []
    source = (
        "Each point is a run with so many cores, each doubling as wide as the next. Knee: from there on more cores "
        "save little time. Cheapest: cores times time is least."
    )
    named = (("knee", "wanted", found.knee_millicores), ("cheapest", "kernel", found.cheapest_millicores))
    pins = tuple(
        Pin(value / MILLICORES_PER_CORE, f"{label}: cpu {format_cores(value)}", style)
        for label, style, value in named
        if value is not None
    )
    return [Curve("Time by cores", "cores", points, _levels(search), pins, source, joined=True, doubling=True)]


def _point(trial: Trial, at: float, limit: str) -> Point:
    """A run that broke, or was stopped, has no time that says anything: how long it took depends on the limit."""
    whole = trial.verdict is not Verdict.BROKEN and trial.result.outcome is Outcome.COMPLETED
    wall_ns = trial.result.wall_ns if whole else None
    time = [] if wall_ns is None else [format_seconds(wall_ns)]
    slowdown = [] if wall_ns is None or trial.slowdown is None else [_share(trial.slowdown, "+.1%")]
    cause = [trial.cause] if wall_ns is None and trial.cause else []
    said = [*time, *slowdown, VERDICTS[trial.verdict].lower(), *cause]
    value_ms = None if wall_ns is None else round(wall_ns / NS_PER_MS)
    return Point(at, value_ms, trial.verdict.value, f"{limit}: {', '.join(said)}")


def _levels(search: Search) -> tuple[Level, ...]:
    baseline_ns = search.baseline_wall_ns
    if baseline_ns is None:
        return ()
    longest_ns = baseline_ns + allowance_ns(baseline_ns, search.max_slowdown)
    return (
        Level("without limits", "total", round(baseline_ns / NS_PER_MS)),
        Level("allowed", "limit", round(longest_ns / NS_PER_MS)),
    )


# ---------------------------------------------------------------- tables


def _allowed(proof: Verification | Search) -> str:
    """How long a run may take, in words: the share of a short one is less than what is never held against it."""
    baseline_ns, share = proof.baseline_wall_ns, f"{proof.max_slowdown:.0%}"
    if baseline_ns is None:
        return f"at most {share} slower than without limits, which took a time that is not known"
    allowed_ns = allowance_ns(baseline_ns, proof.max_slowdown)
    longest = format_seconds(baseline_ns + allowed_ns)
    by = share if allowed_ns == round(baseline_ns * proof.max_slowdown) else format_seconds(allowed_ns)
    return f"for at most {longest}: {by} longer than the {format_seconds(baseline_ns)} without limits"


def _occasion(verification: Verification) -> str:
    """When and where it was, as far as the record tells."""
    where = f" on {verification.hostname}" if verification.hostname else ""
    return where + (f" ({verification.ended_at})" if verification.ended_at else "")


def _trials(caption: str, trials: Sequence[Trial], by: Callable[[Trial], int]) -> Table:
    """What a search tried, from the lowest limit on."""
    rows = tuple((Cell(_limits(trial)), *_row(trial)) for trial in sorted(trials, key=by))
    return Table(caption, (Column("Limits", number=False), *_COLUMNS), rows)


def _numbered(caption: str, trials: Sequence[Trial]) -> Table:
    """Runs one after the other, called as their lines are."""
    rows = tuple((Cell(_name(n), small=_limits(trial)), *_row(trial)) for n, trial in enumerate(trials, 1))
    return Table(caption, (Column("Run, and its limits", number=False), *_COLUMNS), rows)


def _name(number: int) -> str:
    return f"run {number}"


def _row(trial: Trial) -> tuple[Cell, ...]:
    wall = trial.result.wall_ns
    return (
        Cell(VERDICTS[trial.verdict], "good" if trial.verdict is Verdict.HOLDS else "bad"),
        Cell(UNKNOWN if wall is None else format_seconds(wall)),
        Cell(_share(trial.slowdown, "+.1%")),
        Cell(_share(trial.throttled_share, ".1%")),
        Cell(_share(trial.stalled_share, ".1%")),
        Cell(trial.cause),
    )


def _limits(trial: Trial) -> str:
    """Of the operator, and of each of its servers by its name."""
    if len(trial.enforced) == 1:
        return trial.enforced[0].text
    return "; ".join(f"{each.name}: {each.text}" for each in trial.enforced) or "none"


def _share(value: float | None, form: str) -> str:
    return UNKNOWN if value is None else format(value, form)
