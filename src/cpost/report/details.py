"""The figures of one operator or server: those that stand out, and all of them with where each is from."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from cpost.model import (
    KERNEL,
    Figure,
    OperatorRecord,
    Options,
    Resources,
    ServerRecord,
    Spread,
    Spreads,
    Statistic,
    StepResult,
    Usage,
)
from cpost.model.gpu import GpuUsage
from cpost.report.view import Cell, Column, Fact, Table
from cpost.report.wording import UNKNOWN, cpu_mark, cpu_time_mark, need_mark, peak_mark
from cpost.units import (
    MB,
    NS_PER_MS,
    format_cores,
    format_cpu_time,
    format_mb,
    format_percent,
    format_request,
    format_seconds,
)

_Show = Callable[[float], str]
_FIGURE_COLUMNS = (Column("Figure", number=False), Column("Value"), Column("Where it is from", number=False))


def operator_facts(record: OperatorRecord) -> tuple[Fact, ...]:
    """What one looks for first."""
    result, usage = record.result, record.usage
    cpu = usage.cpu_pct if usage else Statistic()
    before = cpu_mark(result, usage) if usage else ""
    need = _shown(usage.need_peak_bytes if usage else None, _mb, need_mark(result))
    repeats = f"the last of {len(record.repeats)} runs" if record.repeats else ""
    return (
        Fact("Time", _shown(result.wall_ns, format_seconds), repeats),
        Fact("CPU, average", _shown(cpu.average, _percent, before), "of one core, over its life"),
        Fact("CPU, highest", _shown(cpu.maximum, _percent, before), _window(usage)),
        Fact("Memory need", need, "could not be taken back"),
        Fact("Memory peak", _peak(result, usage), "file cache included"),
        *_request_facts(record),
    )


def server_facts(server: ServerRecord) -> tuple[Fact, ...]:
    """What one looks for first; requests only of a Triton, which counts them."""
    idle, load = server.idle, server.load
    before = cpu_mark(server.result, server.usage) if server.usage else ""
    highest = [_shown(usage.cpu_pct.maximum if usage else None, _percent, before) for usage in (idle, load)]
    facts = [
        Fact("Ready after", _shown(server.ready_ns, format_seconds), "from its first instruction"),
        Fact("CPU, highest idle", highest[0], _window(idle)),
        Fact("CPU, highest under load", highest[1], _window(load)),
        Fact("Memory idle", _shown(idle.memory_bytes.maximum if idle else None, _mb), "at most"),
        Fact("Memory peak", _peak(server.result, server.usage), "over its whole life"),
    ]
    if server.triton is not None:
        known = [model.requests for model in server.triton.models if model.requests is not None]
        facts.append(Fact("Requests served", str(sum(known)) if known else UNKNOWN, "by its own counters"))
    return (*facts, *_request_facts(server))


def operator_tables(record: OperatorRecord, options: Options) -> tuple[Table, ...]:
    """All figures."""
    caption = "All figures; totals and sampling are the last run's" if record.repeats else "All figures"
    tables = [_figures(caption, record.result, record.usage, options)]
    if record.usage is not None and record.usage.gpus:
        tables.append(_gpu_table(record.usage.gpus))
    return tuple(tables)


def server_tables(server: ServerRecord, options: Options) -> tuple[Table, ...]:
    """All figures, idle beside load, and what a Triton served."""
    tables = [_stretch_table(server)]
    if server.triton is not None and server.triton.models:
        tables.append(_served_table(server))
    tables.append(_figures("All figures", server.result, server.usage, options))
    if server.usage is not None and server.usage.gpus:
        tables.append(_gpu_table(server.usage.gpus))
    return tuple(tables)


def spread_table(spreads: Spreads) -> Table:
    """How far the repeats lie apart."""
    columns = (Column("Over the repeats", number=False), *map(Column, ("Minimum", "Median", "Maximum", "Spread")))
    rows = [_spread_row(figure, over) for figure, over in spreads.known()]
    return Table("Spread over the repeats: (maximum - minimum) / median", columns, tuple(rows))


def _request_facts(record: OperatorRecord | ServerRecord) -> Iterator[Fact]:
    wanted, declared, limits = record.recommendation.requests, record.declared, record.declared_limits
    limited = f"; limits: {_requests(limits)}" if limits != Resources() else ""
    yield Fact("Recommended", _requests(wanted), f"declared: {_requests(declared)}{limited}", "wanted")


def _requests(requests: Resources) -> str:
    parts = []
    if requests.cpu_millicores is not None:
        parts.append(f"cpu {format_cores(requests.cpu_millicores)}")
    if requests.memory_bytes is not None:
        parts.append(f"memory {format_request(requests.memory_bytes)}")
    if requests.gpu_count is not None:
        parts.append(f"gpu {requests.gpu_count}")
    return ", ".join(parts) or "none"


def _figures(caption: str, result: StepResult, usage: Usage | None, options: Options) -> Table:
    rows = [*_total_rows(result), *(_usage_rows(result, usage) if usage else ()), *_sampling_rows(result, options)]
    return Table(caption, _FIGURE_COLUMNS, tuple(tuple(map(Cell, row)) for row in rows))


def _total_rows(result: StepResult) -> Iterator[tuple[str, str, str]]:
    totals = result.totals
    yield "wall time", _shown(result.wall_ns, format_seconds), "first instruction to the end of the main process"
    if totals is None:
        return
    source = "the kernel's totals, read after the end" if totals.source == KERNEL else f"source: {totals.source}"
    yield "CPU time", _shown(totals.cpu_us, format_cpu_time, cpu_time_mark(result)), source
    yield "of that, user", _shown(totals.cpu_user_us, format_cpu_time), source
    yield "of that, system", _shown(totals.cpu_system_us, format_cpu_time), source
    yield "container's start-up", _shown(totals.startup_cpu_us, format_cpu_time), "CPU time; not in the other figures"
    yield "held back by a CPU limit", _shown(totals.throttled_us, format_cpu_time), source
    yield "out-of-memory kills", _shown(totals.oom_kills, _whole), source
    yield "most processes and threads", _shown(totals.pids_peak, _whole), source
    yield "read from disk", _shown(totals.io_read_bytes, format_mb), f"{source}; not what came from the page cache"
    yield "written to disk", _shown(totals.io_write_bytes, format_mb), source
    if totals.tail_ns:
        yield "not seen at the end", format_seconds(totals.tail_ns), "after the last sample"


def _usage_rows(result: StepResult, usage: Usage) -> Iterator[tuple[str, str, str]]:
    cpu, memory, before = usage.cpu_pct, usage.memory_bytes, cpu_mark(result, usage)
    yield "CPU, average", _shown(cpu.average, format_percent, before), "CPU time over wall time"
    for label, value in (("p50", cpu.p50), ("p95", cpu.p95), ("p99", cpu.p99), ("highest", cpu.maximum)):
        yield f"CPU, {label}", _shown(value, format_percent, before), f"over windows of {_ms(usage.window_ns)}"
    yield "memory, average", _shown(memory.average, format_mb), "what was charged at each sample, weighted by time"
    yield "memory, p95", _shown(memory.p95, format_mb), "likewise, not exceeded for 95 % of the time"
    kernel = "the highest sample" if usage.peaks_sampled else "the kernel's own high-water mark, file cache included"
    yield "memory, peak", _peak(result, usage, format_mb), kernel
    need = _shown(usage.need_peak_bytes, format_mb, need_mark(result))
    yield "memory, need peak", need, "total less what the kernel could have dropped"
    yield "memory, cache peak", _shown(usage.cache_peak_bytes, format_mb), "what the kernel could have dropped"
    working = "total less inactive file cache"
    yield "memory, working set peak", _shown(usage.working_set_peak_bytes, format_mb), working
    yield "in /dev/shm, peak", _shown(usage.dev_shm_peak_bytes, format_mb), "the file system's own figure, at each look"


def _sampling_rows(result: StepResult, options: Options) -> Iterator[tuple[str, str, str]]:
    sampling = result.sampling
    if sampling is None:
        yield "samples", UNKNOWN, f"planned: every {_ms(options.period_ns)}"
        return
    yield "samples", f"{sampling.samples:,}", f"every {_ms(sampling.period_ns)}"
    missed = f"{sampling.ticks_missed:,} of {sampling.ticks_due:,}"
    yield "samples missed", missed, "the sampler was held up"
    yield "longest time without a sample", format_seconds(sampling.longest_gap_ns), "counted by the sampler"
    yield "the sampler's own CPU time", format_cpu_time(sampling.sampler_cpu_us), "in a process of its own"


def _spread_row(figure: Figure, over: Spread) -> tuple[Cell, ...]:
    share = UNKNOWN if over.share is None else f"{over.share * 100:.1f} %"
    values = map(figure.show, (over.minimum, over.median, over.maximum))
    return tuple(map(Cell, (figure.heading, *values, share)))


def _stretch_table(server: ServerRecord) -> Table:
    stretches = (("whole life", server.usage), ("idle: ready, not yet asked", server.idle), ("load", server.load))
    columns = (
        Column("Stretch", number=False),
        *(Column(title, "CPU") for title in ("average", "highest")),
        *(Column(title, "Memory") for title in ("average", "highest")),
    )
    before = cpu_mark(server.result, server.usage) if server.usage else ""
    rows = []
    for label, usage in stretches:
        cpu, memory = (usage.cpu_pct, usage.memory_bytes) if usage else (Statistic(), Statistic())
        shares = (_shown(value, format_percent, before) for value in (cpu.average, cpu.maximum))
        sizes = (_shown(value, format_mb) for value in (memory.average, memory.maximum))
        rows.append(tuple(map(Cell, (label, *shares, *sizes))))
    return Table("Idle and under load", columns, tuple(rows))


def _served_table(server: ServerRecord) -> Table:
    columns = (
        Column("Model", number=False),
        *map(Column, ("Requests", "Failed", "Inferences", "Batches", "In the queue", "Computing")),
    )
    rows = []
    for model in server.triton.models if server.triton else ():
        counts = (_shown(n, _whole) for n in (model.requests, model.failures, model.inferences, model.executions))
        times = (_shown(us, _milliseconds) for us in (model.queue_us_mean, model.compute_us_mean))
        rows.append(tuple(map(Cell, (f"{model.name}, version {model.version}", *counts, *times))))
    return Table("What it served: the server's own counters, before and after; times are means", columns, tuple(rows))


def _gpu_table(gpus: tuple[GpuUsage, ...]) -> Table:
    titles = ("Busy, average", "Busy, highest", "Own memory, average", "Own memory, peak", "Device's peak", "Power")
    rows = []
    for place, gpu in enumerate(gpus):
        cells = [f"GPU {place}" if gpu.used else f"GPU {place} (not used)"]
        cells += [_shown(value, format_percent) for value in (gpu.busy_average_pct, gpu.busy_maximum_pct)]
        cells += [
            _shown(value, format_mb)
            for value in (gpu.memory_average_bytes, gpu.memory_peak_bytes, gpu.device_peak_bytes)
        ]
        cells.append(_shown(gpu.power_average_mw, lambda mw: f"{mw / 1000:.1f} W"))
        rows.append(tuple(map(Cell, cells)))
    columns = (Column("NVML", number=False), *map(Column, titles))
    return Table("GPUs: busy = share of time in which any kernel ran, whoever's", columns, tuple(rows))


def _peak(result: StepResult, usage: Usage | None, show: _Show | None = None) -> str:
    if usage is None:
        return UNKNOWN
    return _shown(usage.memory_bytes.maximum, show or _mb, peak_mark(result, usage))


def _shown(value: float | None, show: _Show, mark: str = "") -> str:
    return UNKNOWN if value is None else mark + show(value)


def _window(usage: Usage | None) -> str:
    return f"over any {_ms(usage.window_ns)}" if usage else ""


def _ms(value_ns: int) -> str:
    return f"{value_ns / NS_PER_MS:g} ms"


def _percent(value: float) -> str:
    return f"{value:,.1f} %"


def _mb(value_bytes: float) -> str:
    return f"{value_bytes / MB:,.1f} MB"


def _milliseconds(value_us: float) -> str:
    return f"{value_us / 1000:.2f} ms"


def _whole(value: float) -> str:
    return f"{value:,.0f}"
