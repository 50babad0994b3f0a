"""Rows for spreadsheets: the series of a step and the summary of a run, as CSV text.

The first three columns of a series are the first cpost's. Units stand in the names; MB = 10^6 bytes; an empty cell
means "not read". Text that a spreadsheet would run as a formula is defused with a leading apostrophe; numbers never.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence

from cpost.model import (
    PIPELINE,
    Advice,
    Detail,
    ModelServed,
    OperatorRecord,
    RepeatKind,
    Resources,
    Sample,
    ServerRecord,
    Spread,
    Statistic,
    Trial,
    TritonFacts,
    Usage,
)
from cpost.model.gpu import GpuReading, busiest, fullest
from cpost.units import MB, NS_PER_S, NS_PER_US, US_PER_S

SERIES_COLUMNS = (
    "timestamp",
    "cpu_percent",
    "memory",
    "elapsed_s",
    "cpu_us",
    "cpu_user_us",
    "cpu_system_us",
    "throttled_us",
    "throttled_periods",
    "memory_bytes",
    "memory_interval_peak_bytes",
    "pids",
    *Detail._fields,
)
GPU_COLUMNS = ("util_percent", "memory_bytes", "own_memory_bytes", "power_mw", "sm_clock_mhz")
_SPREADS = (  # column, its unit, the field of `Spreads`, how many of that are one of the unit
    ("wall", "s", "wall_ns", NS_PER_S),
    ("cpu_total", "s", "cpu_us", US_PER_S),
    ("cpu_average", "percent", "cpu_average_pct", 1),
    ("cpu_maximum", "percent", "cpu_maximum_pct", 1),
    ("memory_peak", "mb", "memory_peak_bytes", MB),
    ("memory_need_peak", "mb", "need_peak_bytes", MB),
)
SUMMARY_COLUMNS = (
    "operator",
    "outcome",
    "cause",
    "exit_code",
    "wall_s",
    "cpu_total_s",
    "cpu_average_percent",
    "cpu_p50_percent",
    "cpu_p95_percent",
    "cpu_p99_percent",
    "cpu_maximum_percent",
    "memory_average_mb",
    "memory_p95_mb",
    "memory_peak_mb",
    "memory_need_peak_mb",
    "cache_peak_mb",
    "working_set_peak_mb",
    "dev_shm_peak_mb",
    "startup_cpu_s",
    "throttled_s",
    "oom_kills",
    "pids_peak",
    "io_read_bytes",
    "io_write_bytes",
    "gpus_used",
    "gpu_average_percent",
    "gpu_maximum_percent",
    "gpu_memory_average_mb",
    "gpu_memory_peak_mb",
    "samples",
    "ticks_missed",
    "source",
    "declared_cpu",
    "declared_memory_mb",
    "declared_gpu",
    "declared_cpu_limit",
    "declared_memory_limit_mb",
    "policy",
    "recommended_cpu",
    "recommended_memory_mb",
    "recommended_dev_shm_mb",
    "recommended_gpu",
    "reasons",
    "image",
    "run_complete",
    "repeats",
    "warmups",
    *(f"{name}_{part}_{unit}" for name, unit, *_ in _SPREADS for part in ("minimum", "median", "maximum")),
    "doubts",
    "server_of",
    "ready_s",
    "idle_cpu_average_percent",
    "idle_cpu_maximum_percent",
    "idle_memory_maximum_mb",
    "load_cpu_average_percent",
    "load_cpu_maximum_percent",
    "load_memory_maximum_mb",
    "requests_served",
    "requests_failed",
    "queue_mean_ms",
    "compute_mean_ms",
    "verified",
    "verify_runs",
    "verify_slowdown_percent",
    "verify_throttled_percent",
    "smallest_memory_mb",
    "smallest_memory_settled",
    "knee_cpu",
    "cheapest_cpu",
    "cpu_settled",
)
TRIAL_COLUMNS = (
    "operator",
    "purpose",
    "cpu_limit",
    "memory_limit_mb",
    "dev_shm_mb",
    "verdict",
    "cause",
    "outcome",
    "wall_s",
    "slowdown_percent",
    "throttled_percent",
    "memory_stalled_percent",
    "memory_peak_mb",
    "oom_kills",
    "series",
)
_FORMULA_STARTS = ("=", "+", "-", "@", "\t")
Cell = str | int | float | None


def series_header(gpus: int = 0) -> str:
    """The first line of a series, on a host with this many GPUs."""
    of_gpus = (f"gpu{place}_{column}" for place in range(gpus) for column in GPU_COLUMNS)
    return ",".join((*SERIES_COLUMNS, *of_gpus)) + "\n"


def series_row(
    sample: Sample, percent: float | None, first_at_ns: int, readings: Sequence[GpuReading | None] = ()
) -> str:
    """One line of a series.

    Args:
        percent: CPU percent over the window that ends here; None = no whole window yet.
        first_at_ns: wall-clock time (Unix, ns) of t_ns = 0.
        readings: of each GPU of the host; None where none has come since the row before.
    """
    at_ns = first_at_ns + sample.t_ns
    detail = sample.detail or _NO_DETAIL
    memory = sample.memory_bytes
    cells = (
        f"{at_ns // NS_PER_S}.{at_ns % NS_PER_S // NS_PER_US:06}",
        None if percent is None else f"{percent:.3f}",
        None if memory is None else f"{memory / MB:.6f}",
        f"{sample.t_ns / NS_PER_S:.6f}",
        *sample[1:6],
        memory,
        sample.memory_peak_bytes,
        sample.pids,
        *detail,
        *(cell for reading in readings for cell in _gpu_cells(reading or _NO_READING)),
    )
    return ",".join("" if cell is None else str(cell) for cell in cells) + "\n"


def _gpu_cells(reading: GpuReading) -> Sequence[Cell]:
    percent = reading.busy[-1].percent if reading.busy else None
    return percent, reading.memory_bytes, reading.own_memory_bytes, reading.power_mw, reading.sm_clock_mhz


def summary(records: Iterable[OperatorRecord], servers: Iterable[ServerRecord] = (), *, complete: bool) -> str:
    """The whole summary: one row per operator, in the order of execution, each followed by its servers'.

    Args:
        servers: those that operators shared.
        complete: whether the run got to its last operator; stands in every row.
    """
    last = _yes_no(complete)
    rows: list[Sequence[Cell]] = []
    for record in records:
        rows.append((*_summary_row(record), last, *_repeat_cells(record), *_NO_SERVER, *_trial_cells(record)))
        rows += [_server_row(server, record.operator, last) for server in record.servers]
    rows += [_server_row(server, PIPELINE, last) for server in servers]
    return "".join(map(_line, [SUMMARY_COLUMNS, *(tuple(map(defuse, row)) for row in rows)]))


def trials(records: Iterable[OperatorRecord]) -> str:
    """One row per container of each run under limits, in the order of the runs; empty where there was none."""
    rows = [row for record in records for purpose, trial in _trials(record) for row in _trial_rows(purpose, trial)]
    return "".join(map(_line, [TRIAL_COLUMNS, *(tuple(map(defuse, row)) for row in rows)])) if rows else ""


def _trials(record: OperatorRecord) -> Iterator[tuple[str, Trial]]:
    found, search = record.verification, record.search
    yield from (("verify", trial) for trial in (found.trials if found else ()))
    yield from (("search memory", trial) for trial in (search.memory.trials if search and search.memory else ()))
    yield from (("search cpu", trial) for trial in (search.cpu.trials if search and search.cpu else ()))


def _trial_rows(purpose: str, trial: Trial) -> Iterator[Sequence[Cell]]:
    """The operator's row, then its servers'; how it did in comparison is the operator's alone."""
    suffix = trial.series_file.removeprefix(trial.result.operator)
    compared = (_percent(trial.slowdown), _percent(trial.throttled_share), _percent(trial.stalled_share))
    for place, (each, result) in enumerate(zip(trial.enforced, (trial.result, *trial.servers), strict=False)):
        totals = result.totals
        yield (
            each.name,
            purpose,
            _scaled(each.limits.cpu_millicores, 1000),
            _scaled(each.limits.memory_bytes, MB),
            _scaled(each.dev_shm_bytes, MB),
            trial.verdict.value,
            trial.cause,
            result.outcome.value,
            _scaled(result.wall_ns, NS_PER_S),
            *((None,) * 3 if place else compared),
            _scaled(totals.memory_peak_bytes if totals else None, MB),
            totals.oom_kills if totals else None,
            each.name + suffix if suffix else None,
        )


def _line(cells: Sequence[Cell]) -> str:
    """One row of CSV. The writer quotes what its own line end contains, so that has to be both characters."""
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="\r\n").writerow(cells)
    return buffer.getvalue().removesuffix("\r\n") + "\n"


def defuse(cell: Cell) -> Cell:
    """Text that begins like a formula, also behind spaces or on a later line, gets an apostrophe in front."""
    if not isinstance(cell, str):
        return cell
    risky = "\r" in cell or any(line.lstrip(" ").startswith(_FORMULA_STARTS) for line in cell.split("\n"))
    return f"'{cell}" if risky else cell


def _summary_row(record: OperatorRecord) -> Sequence[Cell]:
    result, usage, advice = record.result, record.usage, record.recommendation
    totals, sampling = result.totals, result.sampling
    cpu = usage.cpu_pct if usage else Statistic()
    memory = usage.memory_bytes if usage else Statistic()
    requests = advice.requests if advice.status is Advice.OK else Resources()
    row: tuple[Cell, ...] = (
        record.operator,
        result.outcome.value,
        result.cause,
        result.exit_code,
        _scaled(result.wall_ns, NS_PER_S),
        _scaled(totals.cpu_us if totals else None, US_PER_S),
        *(_scaled(value, 1) for value in (cpu.average, cpu.p50, cpu.p95, cpu.p99, cpu.maximum)),
        *(_scaled(value, MB) for value in (memory.average, memory.p95, memory.maximum)),
        _scaled(usage.need_peak_bytes if usage else None, MB),
        _scaled(usage.cache_peak_bytes if usage else None, MB),
        _scaled(usage.working_set_peak_bytes if usage else None, MB),
        _scaled(usage.dev_shm_peak_bytes if usage else None, MB),
        _scaled(totals.startup_cpu_us if totals else None, US_PER_S),
        _scaled(totals.throttled_us if totals else None, US_PER_S),
        *((totals.oom_kills, totals.pids_peak) if totals else (None, None)),
        *((totals.io_read_bytes, totals.io_write_bytes) if totals else (None, None)),
        *_gpu_summary(usage),
        *((sampling.samples, sampling.ticks_missed) if sampling else (None, None)),
        totals.source if totals else None,
        *_resources(record.declared),
        record.declared.gpu_count,
        *_resources(record.declared_limits),
        advice.policy,
        *_resources(requests),
        _scaled(advice.dev_shm_bytes, MB),
        requests.gpu_count,
        "; ".join(advice.reasons),
        record.image,
    )
    return row


def _server_row(server: ServerRecord, of: str, last: Cell) -> Sequence[Cell]:
    """A server's row; its whole life is where an operator's figures are."""
    name = f"{of}__{server.name}"
    like_operator = OperatorRecord(
        name,
        server.image,
        server.declared,
        server.result,
        server.recommendation,
        server.usage,
        server.series_file,
        declared_limits=server.declared_limits,
    )
    idle, load = server.idle, server.load
    return (
        *_summary_row(like_operator),
        last,
        *_repeat_cells(like_operator),
        of,
        _scaled(server.ready_ns, NS_PER_S),
        *(_scaled(value, 1) for value in ((idle.cpu_pct.average, idle.cpu_pct.maximum) if idle else (None, None))),
        _scaled(idle.memory_bytes.maximum if idle else None, MB),
        *(_scaled(value, 1) for value in ((load.cpu_pct.average, load.cpu_pct.maximum) if load else (None, None))),
        _scaled(load.memory_bytes.maximum if load else None, MB),
        *_served_cells(server.triton),
        server.recommendation.verified.value if server.recommendation.verified else None,
        *(None,) * (len(_TRIALS) - 1),
    )


def _trial_cells(record: OperatorRecord) -> Sequence[Cell]:
    """Of the last run under what was recommended, and of the search."""
    found, search = record.verification, record.search
    last = found.trials[-1] if found is not None else None
    memory, cpu = (search.memory, search.cpu) if search is not None else (None, None)
    return (
        found.verdict.value if found is not None else None,
        len(found.trials) if found is not None else None,
        _percent(last.slowdown if last else None),
        _percent(last.throttled_share if last else None),
        _scaled(memory.smallest_bytes if memory else None, MB),
        _yes_no(memory.settled if memory else None),
        _scaled(cpu.knee_millicores if cpu else None, 1000),
        _scaled(cpu.cheapest_millicores if cpu else None, 1000),
        _yes_no(cpu.settled if cpu else None),
    )


def _yes_no(known: bool | None) -> Cell:
    return None if known is None else "yes" if known else "no"


def _percent(share: float | None) -> Cell:
    """A number, as it may be below 0, and text that begins with a minus is taken for a formula."""
    return None if share is None else round(share * 100, 3) + 0.0


def _served_cells(triton: TritonFacts | None) -> Sequence[Cell]:
    """Over all models: requests, and the means of what each of them took."""
    if triton is None:
        return (None,) * 4
    requests = sum(model.requests or 0 for model in triton.models)

    def mean(read: Callable[[ModelServed], float | None]) -> float | None:
        known = [(us, model.requests) for model in triton.models if model.requests and (us := read(model)) is not None]
        return sum(us * count for us, count in known) / sum(count for _, count in known) if known else None

    return (
        requests,
        sum(model.failures or 0 for model in triton.models),
        _scaled(mean(lambda model: model.queue_us_mean), 1000),
        _scaled(mean(lambda model: model.compute_us_mean), 1000),
    )


def _gpu_summary(usage: Usage | None) -> Sequence[Cell]:
    """How many GPUs were used; the busiest one's time, the fullest one's memory."""
    if usage is None or not usage.gpus:
        return (None,) * 5
    busy, full = busiest(usage.gpus), fullest(usage.gpus)
    return (
        sum(gpu.used for gpu in usage.gpus),
        _scaled(busy.busy_average_pct if busy else None, 1),
        _scaled(busy.busy_maximum_pct if busy else None, 1),
        _scaled(full.memory_average_bytes if full else None, MB),
        _scaled(full.memory_peak_bytes if full else None, MB),
    )


def _repeat_cells(record: OperatorRecord) -> Iterator[Cell]:
    warmups = sum(repeat.kind is RepeatKind.WARMUP for repeat in record.repeats)
    yield from (len(record.repeats) - warmups if record.repeats else 1, warmups)
    for _, _, field, unit in _SPREADS:
        over: Spread | None = getattr(record.spreads, field, None)
        yield from (_scaled(value, unit) for value in _parts(over))
    yield "; ".join(doubt.what for doubt in record.doubts)


def _parts(over: Spread | None) -> tuple[float | None, float | None, float | None]:
    return (over.minimum, over.median, over.maximum) if over else (None, None, None)


def _resources(resources: Resources) -> tuple[Cell, Cell]:
    return _scaled(resources.cpu_millicores, 1000), _scaled(resources.memory_bytes, MB)


def _scaled(value: float | None, unit: int) -> Cell:
    """A number in a larger unit, six digits after the point at most, without trailing zeros."""
    if value is None:
        return None
    text = f"{value / unit:.6f}".rstrip("0").rstrip(".")
    return text if text != "-0" else "0"


_NO_DETAIL = Detail()
_TRIALS = SUMMARY_COLUMNS[SUMMARY_COLUMNS.index("verified") :]
_NO_SERVER: Sequence[Cell] = (None,) * (SUMMARY_COLUMNS.index("verified") - SUMMARY_COLUMNS.index("server_of"))
_NO_READING = GpuReading()
