"""Which charts an operator or a server gets, and what stands in each of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cpost.model import (
    ENGINE_STATS,
    PROCESS_TREE,
    Advice,
    OperatorRecord,
    Options,
    Outcome,
    ServerRecord,
    StepResult,
    Usage,
)
from cpost.model.gpu import Gpu
from cpost.report.charts import (
    MEGABYTES,
    MEGAHERTZ,
    PERCENT,
    SECONDS,
    WATTS,
    Chart,
    Level,
    Line,
    Mark,
    Stretch,
    Unit,
)
from cpost.report.series import NEED, Series
from cpost.units import MB, NS_PER_MS, format_size

_STEP_BYTES = 1000  # a memory chart's step
_ENDS = {
    Outcome.OOM_KILLED: "killed for memory",
    Outcome.TIMED_OUT: "timed out",
    Outcome.INTERRUPTED: "interrupted",
    Outcome.ENGINE_LOST: "engine lost",
}
_CPU_SOURCES = {
    PROCESS_TREE: "the processes' own clocks",
    ENGINE_STATS: "the engine's statistics, over one second at least",
}
_MEMORY_SOURCES = {
    PROCESS_TREE: "resident sets, summed up over the processes: an estimate",
    ENGINE_STATS: "the engine's statistics, a sample a second",
}
_GPU_CHARTS = (
    (
        "busy",
        PERCENT,
        (("util_percent", "any kernel ran", "cpu", True),),
        "Share of time in which any kernel ran, whoever's, over the driver's last stretch; NVML.",
    ),
    (
        "memory",
        MEGABYTES,
        (
            ("own_memory_bytes", "its own processes", "need", True),
            ("memory_bytes", "in use on the device", "total", False),
        ),
        "What its own processes held, and what anybody did; NVML, at each look.",
    ),
    ("power", WATTS, (("power_mw", "board", "total", False),), "Of the whole board, averaged by the driver; NVML."),
    ("SM clock", MEGAHERTZ, (("sm_clock_mhz", "SM clock", "total", False),), "At each look; NVML."),
)


def end_marks(result: StepResult, series: Series) -> tuple[Mark, ...]:
    """The first instruction, out-of-memory kills, and how it ended."""
    marks = [Mark(0, "start")] + [Mark(at, "OOM kill", bad=True, count=count) for at, count in series.oom_kills]
    kills = result.totals.oom_kills if result.totals else None
    unseen = (kills or 0) - sum(count for _, count in series.oom_kills)
    if unseen > 0:  # the kernel's total has more than any row: nobody knows when, so they stand at the end
        marks.append(Mark(end_ms(series, result), "unseen OOM kill", bad=True, count=unseen))
    if result.wall_ns is not None:
        bad = result.outcome is not Outcome.COMPLETED
        said = "end" if result.exit_code is None else f"exit {result.exit_code}"
        marks.append(Mark(result.wall_ns // NS_PER_MS, _ENDS.get(result.outcome, said), bad))
    return tuple(marks)


def charts(
    record: OperatorRecord | ServerRecord,
    series: Series,
    options: Options,
    gpus: Sequence[Gpu],
    marks: tuple[Mark, ...],
    stretches: tuple[Stretch, ...] = (),
) -> tuple[Chart, ...]:
    """The charts of one run of an operator or a server; none where its series has no rows.

    Args:
        gpus: those of the host.
    """
    found = (_cpu(record, series, options), _memory(record, series, options), _throttling(series))
    end = end_ms(series, record.result)
    drawn = [chart for chart in (*found, *_gpus(record, series, gpus)) if chart is not None]
    return tuple(
        Chart(chart.title, chart.unit, chart.lines, end, chart.source, chart.levels, marks, stretches)
        for chart in drawn
    )


def end_ms(series: Series, result: StepResult) -> int:
    """When it ended, or the series did, whatever was later; never 0."""
    return max(series.end_ms, (result.wall_ns or 0) // NS_PER_MS, 1)


def _chart(title: str, unit: Unit, lines: tuple[Line, ...], source: str, levels: tuple[Level, ...] = ()) -> Chart:
    return Chart(title, unit, lines, 1, source, levels)


def _cpu(record: OperatorRecord | ServerRecord, series: Series, options: Options) -> Chart | None:
    pieces = series.traces.get("cpu_percent")
    if pieces is None:
        return None
    window_ns = record.usage.window_ns if record.usage else options.window_ns
    source = _CPU_SOURCES.get(_source(record.result), "the control group's counter")
    wanted = record.recommendation.requests.cpu_millicores if record.recommendation.status is Advice.OK else None
    levels = (  # a thousandth of a core is a tenth of a percent, a step
        Level("recommended", "wanted", wanted),
        Level("declared", "declared", record.declared.cpu_millicores),
    )
    return _chart(
        "CPU",
        PERCENT,
        (Line("CPU", "cpu", pieces, area=True),),
        f"Percent of one core over the {window_ns / NS_PER_MS:g} ms that end at each point; {source}.",
        levels,
    )


def _memory(record: OperatorRecord | ServerRecord, series: Series, options: Options) -> Chart | None:
    lines = tuple(
        Line(label, style, series.traces[column], area=style == "need", hint=hint)
        for column, label, style, hint in (
            (NEED, "need", "need", "the total less what the kernel could have dropped"),
            ("reclaimable_bytes", "cache", "cache", "what the kernel could have dropped"),
            ("memory_interval_peak_bytes", "peak between samples", "peak", "the kernel's mark since the row before"),
            ("memory_bytes", "total", "total", "all that is charged, file cache included"),
        )
        if column in series.traces
    )
    if not lines:
        return None
    source = _MEMORY_SOURCES.get(_source(record.result), "what the kernel charges to the control group")
    return _chart("Memory", MEGABYTES, lines, f"At each sample; {source}. MB = 10^6 bytes.", _levels(record, options))


def _levels(record: OperatorRecord | ServerRecord, options: Options) -> tuple[Level, ...]:
    usage, advice = _own_usage(record), record.recommendation
    peak = usage.memory_bytes.maximum if usage else None
    wanted = advice.requests.memory_bytes if advice.status is Advice.OK else None
    sampled = usage is not None and usage.peaks_sampled
    return (
        Level("highest sample" if sampled else "kernel's peak", "kernel", steps(peak)),
        Level("need peak", "need", steps(usage.need_peak_bytes if usage else None)),
        Level("recommended", "wanted", steps(wanted), _own_unit(wanted)),
        Level("declared", "declared", steps(record.declared.memory_bytes), _own_unit(record.declared.memory_bytes)),
        Level("memory limit", "limit", steps(options.memory_limit_bytes)),
    )


def _own_unit(value_bytes: int | None) -> str:
    """How an amount is said that stands in the file, where no round number of megabytes is the same."""
    return format_size(value_bytes) if value_bytes is not None and value_bytes % MB else ""


def _own_usage(record: OperatorRecord | ServerRecord) -> Usage | None:
    """Of the very run whose series is drawn, where a record's own is one over all repeats."""
    return record.repeats[-1].usage if isinstance(record, OperatorRecord) and record.repeats else record.usage


def _throttling(series: Series) -> Chart | None:
    line = Line("held back", "peak", series.traces.get("throttled_us", ()), area=True)
    if not line.highest:
        return None
    return _chart("Throttling", SECONDS, (line,), "Time held back by a CPU limit so far; the kernel's cpu.stat.")


def _gpus(record: OperatorRecord | ServerRecord, series: Series, gpus: Sequence[Gpu]) -> Iterator[Chart]:
    used = record.usage.gpus if record.usage else ()
    for place, gpu in enumerate(gpus):
        if place < len(used) and not used[place].used:
            continue
        for title, unit, columns, source in _GPU_CHARTS:
            lines = tuple(
                Line(label, style, series.traces[f"gpu{place}_{column}"], area=area)
                for column, label, style, area in columns
                if f"gpu{place}_{column}" in series.traces
            )
            if lines:
                yield _chart(f"GPU {place} {title}", unit, lines, f"{gpu.name}. {source}")


def _source(result: StepResult) -> str:
    return result.totals.source if result.totals else ""


def steps(value_bytes: float | None) -> int | None:
    """Bytes in the steps of a memory chart."""
    return None if value_bytes is None else round(value_bytes / _STEP_BYTES)
