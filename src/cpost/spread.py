"""Several runs of one operator -> how far their figures lie apart, what they come to together, and what is doubtful.

Spread means (maximum - minimum) / median: what a request has to bear is how far apart two runs can be, and more repeats
do not make that look smaller. docs/numbers.md gives the reasons for the bounds.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from cpost.model import Doubt, Figure, OperatorRecord, Outcome, Repeat, RepeatKind, Spread, Spreads, Statistic, Usage
from cpost.model.gpu import GpuMemorySource, GpuUsage
from cpost.units import MB, NS_PER_S, US_PER_S, format_cpu_time, format_mb, format_percent, format_seconds

Read = Callable[[Repeat], float | None]


class Bound(NamedTuple):
    """How far apart figures may be: a share, and what is the clocks' and counters' grain in an operator of any size."""

    share: float
    least: float

    def width(self, figure: float) -> float:
        """How far figures of this size may lie apart."""
        return max(self.share * figure, self.least)


FEWEST_REPEATS = 3
TIME_BOUND = 0.20
MEMORY_BOUND = 0.10
TIME_NS = Bound(TIME_BOUND, NS_PER_S / 10)
TIME_US = Bound(TIME_BOUND, US_PER_S / 10)
PERCENT = Bound(TIME_BOUND, 10)
MEMORY = Bound(MEMORY_BOUND, 5 * MB)

_TIME_REMEDY = "measure on a quiet host; if it stays, see whether it does the same work each time"
_MEMORY_REMEDY = "see whether it does the same work each time; more repeats show whether higher peaks come"


def measured(repeats: Iterable[Repeat]) -> list[Repeat]:
    """The repeats whose figures count: no warm-ups, and none that did not end well."""
    return [
        repeat
        for repeat in repeats
        if repeat.kind is RepeatKind.MEASURED and repeat.result.outcome is Outcome.COMPLETED
    ]


def baseline_wall_ns(record: OperatorRecord) -> int | None:
    """How long an operator takes without limits: its run, or the median of its measured repeats."""
    walls = [repeat.result.wall_ns for repeat in measured(record.repeats)] or [record.result.wall_ns]
    known = [wall for wall in walls if wall is not None]
    return int(statistics.median(known)) if known else None


def spread(values: Iterable[float | None]) -> Spread | None:
    """Lowest, median and highest of what is known; None where fewer than two are."""
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return None
    return Spread(min(known), statistics.median(known), max(known), len(known))


def spreads(repeats: Sequence[Repeat]) -> Spreads | None:
    """The spread of every figure over the measured repeats; None where no two have any."""
    counted = measured(repeats)
    if len(counted) < 2:
        return None
    found = Spreads(**{figure.value: spread(map(read, counted)) for figure, read in FIGURES.items()})
    return found if found != Spreads() else None


def joined(repeats: Sequence[Repeat]) -> Usage | None:
    """One usage for several runs: the median of the averages, and the highest of everything else.

    Warm-ups take part only where nothing else was run. None where no run has a usage.
    """
    chosen = [repeat for repeat in repeats if repeat.kind is RepeatKind.MEASURED] or repeats
    usages = [repeat.usage for repeat in chosen if repeat.usage is not None]
    if not usages:
        return None
    return replace(
        usages[-1],
        cpu_pct=_joined([usage.cpu_pct for usage in usages]),
        memory_bytes=_joined([usage.memory_bytes for usage in usages]),
        **{name: _highest(usages, name) for name in _PEAKS},
        gpus=_joined_gpus(usages),
        peaks_sampled=any(usage.peaks_sampled for usage in usages),
    )


def doubts(repeats: Sequence[Repeat]) -> tuple[Doubt, ...]:
    """What makes repeats that all ended well say less than they seem to; empty where a single run was asked for."""
    counted = measured(repeats)
    if len(counted) < 2:
        return ()
    short, cold = _too_short(counted), _cold(counted)
    # A cold run that stands out has its own line; the others are then judged among themselves.
    found = [_too_few(counted), short, cold, *_unsteady(counted[1:] if cold else counted, rates=short is None)]
    return tuple(doubt for doubt in found if doubt is not None)


# ---------------------------------------------------------------- figures


def _cpu_us(repeat: Repeat) -> float | None:
    return repeat.result.totals.cpu_us if repeat.result.totals else None


def _wall_ns(repeat: Repeat) -> float | None:
    return repeat.result.wall_ns


def _cpu_average(repeat: Repeat) -> float | None:
    return repeat.usage.cpu_pct.average if repeat.usage else None


def _cpu_maximum(repeat: Repeat) -> float | None:
    return repeat.usage.cpu_pct.maximum if repeat.usage else None


def _memory_peak(repeat: Repeat) -> float | None:
    return repeat.usage.memory_bytes.maximum if repeat.usage else None


def _need_peak(repeat: Repeat) -> float | None:
    return repeat.usage.need_peak_bytes if repeat.usage else None


FIGURES: dict[Figure, Read] = {  # as the fields of `Spreads`
    Figure.WALL_NS: _wall_ns,
    Figure.CPU_US: _cpu_us,
    Figure.CPU_AVERAGE_PCT: _cpu_average,
    Figure.CPU_MAXIMUM_PCT: _cpu_maximum,
    Figure.MEMORY_PEAK_BYTES: _memory_peak,
    Figure.NEED_PEAK_BYTES: _need_peak,
}


_PEAKS = (
    "need_peak_bytes",
    "working_set_peak_bytes",
    "dev_shm_peak_bytes",
    "cache_peak_bytes",
    "others_cpu_share",
)
_GPU_AVERAGES = ("busy_average_pct", "memory_average_bytes", "power_average_mw", "sm_clock_average_mhz")
_GPU_PEAKS = (
    "busy_maximum_pct",
    "memory_peak_bytes",
    "device_peak_bytes",
    "baseline_bytes",
    "power_maximum_mw",
    "longest_gap_ns",
    "companions",
)
# The less they tell of the operator alone, the later.
_SOURCES = (GpuMemorySource.NONE, GpuMemorySource.PROCESSES, GpuMemorySource.DEVICE)


def _joined(parts: Sequence[Statistic]) -> Statistic:
    return Statistic(
        _median(parts, "average"), **{name: _highest(parts, name) for name in ("maximum", "p50", "p95", "p99")}
    )


def _joined_gpus(usages: Sequence[Usage]) -> tuple[GpuUsage, ...]:
    """As `joined`; what makes a figure doubtful in one run does so for all, and `looks` is the fewest."""
    last = next((usage.gpus for usage in reversed(usages) if usage.gpus), ())
    return tuple(_joined_gpu([gpu for usage in usages for gpu in usage.gpus if gpu.uuid == one.uuid]) for one in last)


def _joined_gpu(runs: Sequence[GpuUsage]) -> GpuUsage:
    return replace(
        runs[-1],
        memory_source=max((run.memory_source for run in runs), key=_SOURCES.index),
        looks=min(run.looks for run in runs),
        used=any(run.used for run in runs),
        shared=any(run.shared for run in runs),
        accompanied=any(run.accompanied for run in runs),
        preallocated=any(run.preallocated for run in runs),
        **{name: _median(runs, name) for name in _GPU_AVERAGES},
        **{name: _highest(runs, name) for name in _GPU_PEAKS},
    )


def _median(parts: Iterable[object], name: str) -> Any:
    """The median of a field over records of one type; None where none has it."""
    known = [value for part in parts if (value := getattr(part, name)) is not None]
    return statistics.median(known) if known else None


def _highest(parts: Iterable[object], name: str) -> Any:
    """The highest of a field over records of one type; None where none has it."""
    return max((value for part in parts if (value := getattr(part, name)) is not None), default=None)


# ---------------------------------------------------------------- doubts


def _too_few(counted: Sequence[Repeat]) -> Doubt | None:
    if len(counted) >= FEWEST_REPEATS:
        return None
    return Doubt(f"{len(counted)} repeats are too few to tell a steady operator from a lucky one", "--repeat 5")


def _too_short(counted: Sequence[Repeat]) -> Doubt | None:
    wall = spread(map(_wall_ns, counted))
    window_ns = max((repeat.usage.window_ns for repeat in counted if repeat.usage), default=0)
    if wall is None or wall.median >= window_ns:
        return None
    return Doubt(
        f"it ends after {format_seconds(wall.median)}, within one CPU window of {format_seconds(window_ns)}: "
        "its highest CPU rate is no more than its average",
        "give it a larger input, or a shorter --window",
    )


def _cold(counted: Sequence[Repeat]) -> Doubt | None:
    """The first repeat was the operator's first run, and stands out as reading from the disk makes it.

    It took longer without more CPU time, or its memory peak was higher although what it needed would have fitted below
    the others' peaks. Where the work itself was more, it was not the cold.
    """
    if not counted[0].cold or len(counted) < FEWEST_REPEATS:
        return None
    parts = []
    if _first_above(counted, _wall_ns, TIME_NS) and not _first_above(counted, _cpu_us, TIME_US):
        parts.append(f"time {_first_and_others(counted, _wall_ns, format_seconds)}")
    need, peaks = _need_peak(counted[0]), _others(counted, _memory_peak)
    fits = need is not None and bool(peaks) and need - max(peaks) <= MEMORY.width(max(peaks))
    if fits and _first_above(counted, _memory_peak, MEMORY):
        parts.append(f"memory peak {_first_and_others(counted, _memory_peak, format_mb)}")
    if not parts:
        return None
    return Doubt(
        f"its first repeat stands out, as a cold one does that reads from the disk: {'; '.join(parts)}",
        "--warmup 1 sizes it warm; as it is, the recommendation bears the cold run, too",
    )


def _first_above(counted: Sequence[Repeat], read: Read, bound: Bound) -> bool:
    first, others = read(counted[0]), _others(counted, read)
    return first is not None and bool(others) and first - max(others) > bound.width(max(others))


def _first_and_others(counted: Sequence[Repeat], read: Read, show: Callable[[float], str]) -> str:
    return f"{show(read(counted[0]) or 0)}, the others' at most {show(max(_others(counted, read)))}"


def _others(counted: Sequence[Repeat], read: Read) -> list[float]:
    return [value for repeat in counted[1:] if (value := read(repeat)) is not None]


def _unsteady(counted: Sequence[Repeat], *, rates: bool) -> list[Doubt]:
    times = [
        _apart("wall time", spread(map(_wall_ns, counted)), format_seconds, TIME_NS),
        _apart("CPU time", spread(map(_cpu_us, counted)), format_cpu_time, TIME_US),
        _apart("highest CPU rate", spread(map(_cpu_maximum, counted)), format_percent, PERCENT) if rates else "",
    ]
    memory = [
        _apart("memory peak", spread(map(_memory_peak, counted)), format_mb, MEMORY),
        _apart("memory need", spread(map(_need_peak, counted)), format_mb, MEMORY),
    ]
    return [
        Doubt(f"repeats differ by more than {bound:.0%} of their median: {', '.join(filter(None, found))}", remedy)
        for found, bound, remedy in ((times, TIME_BOUND, _TIME_REMEDY), (memory, MEMORY_BOUND, _MEMORY_REMEDY))
        if any(found)
    ]


def _apart(label: str, over: Spread | None, show: Callable[[float], str], bound: Bound) -> str:
    """What is said of a figure whose spread is above the bound; empty for others."""
    if over is None or over.maximum - over.minimum <= bound.width(over.median):
        return ""
    share = f"{over.share:.0%}" if over.share is not None else "no median"
    return f"{label} {show(over.minimum)} to {show(over.maximum)} ({share})"
