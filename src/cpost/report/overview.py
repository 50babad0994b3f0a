"""The page's first table: of each operator and server what was declared, used and is recommended, side by side."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from cpost.model import Advice, OperatorRecord, Outcome, Run, ServerRecord, Statistic, StepResult, Verdict
from cpost.model.gpu import busiest, fullest
from cpost.report.view import Cell, Column, Table
from cpost.report.wording import UNKNOWN, VERDICTS, cpu_mark, marks, need_mark, peak_mark
from cpost.units import MB, format_cores, format_request, format_seconds

_NOTHING = Cell(UNKNOWN)
_ADVICE_STYLES = {-1: ("lower", "from {}"), 0: ("same", "as declared"), 1: ("raise", "from {}")}


@dataclass(frozen=True, slots=True)
class _Row:
    """One line of the table: an operator, or a server and whose it is."""

    run: str
    name: str
    anchor: str
    record: OperatorRecord | ServerRecord
    server: str = ""


_Read = Callable[[_Row], Cell]


def anchor_of(operator: str, server: str = "") -> str:
    """The address within the page of an operator's or a server's section; empty operator = servers that are shared."""
    return re.sub(r"[^\w.-]", "_", f"of-{operator}--{server}" if server else f"of-{operator}", flags=re.ASCII)


def state_of(result: StepResult) -> tuple[str, bool]:
    """How it ended in a few words, and whether that is bad."""
    if result.outcome is Outcome.COMPLETED:
        found = marks(result)
        return (", ".join(found) or "completed"), bool(found)
    code = "" if result.exit_code is None else f" (exit code {result.exit_code})"
    return result.outcome.value.replace("_", " ").replace("oom", "OOM") + code, True


def summary(runs: Sequence[tuple[str, Run]]) -> Table:
    """The table over one run, or over several with the same operators beside one another.

    Args:
        runs: each with the label that tells it from the others.
    """
    rows = [row for label, run in runs for row in _rows(label, run)]
    several = len(runs) > 1
    if several:
        order = list(dict.fromkeys(row.anchor for row in rows))
        rows.sort(key=lambda row: order.index(row.anchor))
    columns = [each for each in _COLUMNS if several or each[0].title != "Run"]
    cells = [(column, [read(row) for row in rows], optional) for column, read, optional in columns]
    shown = [(column, read) for column, read, optional in cells if not optional or any(c.text != UNKNOWN for c in read)]
    return Table(
        "What each operator used, and what it should ask for",
        tuple(column for column, _ in shown),
        tuple(zip(*(read for _, read in shown), strict=True)),
    )


def _rows(label: str, run: Run) -> Iterator[_Row]:
    for record in run.operators:
        yield _Row(label, record.operator, anchor_of(record.operator), record)
        for server in record.servers:
            yield _Row(label, server.name, anchor_of(record.operator, server.name), server, "its server")
    for server in run.servers:
        yield _Row(label, server.name, anchor_of("", server.name), server, "shared server")


def _name(row: _Row) -> Cell:
    return Cell(row.name, "server" if row.server else "", row.server, row.anchor)


def _state(row: _Row) -> Cell:
    text, bad = state_of(row.record.result)
    return Cell(text, "bad" if bad else "good")


def _wall(row: _Row) -> Cell:
    wall_ns = row.record.result.wall_ns
    return _NOTHING if wall_ns is None else Cell(format_seconds(wall_ns))


def _cpu_average(row: _Row) -> Cell:
    return _cpu(row, lambda cpu: cpu.average)


def _cpu_maximum(row: _Row) -> Cell:
    return _cpu(row, lambda cpu: cpu.maximum)


def _cpu(row: _Row, read: Callable[[Statistic], float | None]) -> Cell:
    """A server's under load, which it is sized by; where it had none, its whole life stands in."""
    record = row.record
    load = record.load if isinstance(record, ServerRecord) else None
    usage = load or record.usage
    mark = cpu_mark(record.result, record.usage) if record.usage else ""
    cell = _number(read(usage.cpu_pct) if usage else None, 1, mark)
    return replace(cell, small="whole life") if row.server and usage and load is None else cell


def _need(row: _Row) -> Cell:
    usage = row.record.usage
    return _number(usage.need_peak_bytes if usage else None, MB, need_mark(row.record.result))


def _peak(row: _Row) -> Cell:
    usage = row.record.usage
    if usage is None:
        return _NOTHING
    return _number(usage.memory_bytes.maximum, MB, peak_mark(row.record.result, usage))


def _gpu_busy(row: _Row) -> Cell:
    busy = busiest(row.record.usage.gpus) if row.record.usage else None
    if busy is not None and busy.busy_maximum_pct is None:
        return Cell("not available")
    return _number(busy.busy_maximum_pct if busy else None, 1)


def _gpu_memory(row: _Row) -> Cell:
    full = fullest(row.record.usage.gpus) if row.record.usage else None
    return _number(full.memory_peak_bytes if full else None, MB)


def _declared(field: str, show: Callable[[int], str]) -> _Read:
    def read(row: _Row) -> Cell:
        value: int | None = getattr(row.record.declared, field)
        limit: int | None = getattr(row.record.declared_limits, field)
        return Cell(UNKNOWN if value is None else show(value), small="" if limit is None else f"limit {show(limit)}")

    return read


def _recommended(field: str, show: Callable[[int], str]) -> _Read:
    def read(row: _Row) -> Cell:
        advice = row.record.recommendation
        if advice.status is not Advice.OK:
            return Cell("none", "refused", "why: see below")
        value: int | None = getattr(advice.requests, field)
        if value is None:
            return _NOTHING
        declared: int | None = getattr(row.record.declared, field)
        if declared is None:
            return Cell(show(value), "wanted")
        style, small = _ADVICE_STYLES[(value > declared) - (value < declared)]
        return Cell(show(value), style, small.format(show(declared)))

    return read


def _gpus_recommended(row: _Row) -> Cell:
    """Nothing where GPUs played no part: that a number of none is refused says nothing."""
    record = row.record
    with_gpus = record.declared.gpu_count is not None or (record.usage is not None and record.usage.gpus)
    return _recommended("gpu_count", str)(row) if with_gpus else _NOTHING


def _verified(row: _Row) -> Cell:
    """What became of the recommendation when it was applied, and how much longer that took."""
    verdict = row.record.recommendation.verified
    if verdict is None:
        return _NOTHING
    proof = None if isinstance(row.record, ServerRecord) else row.record.verification
    slowdown = proof.trials[-1].slowdown if proof is not None and proof.trials else None
    small = "" if slowdown is None else f"{slowdown * 100:+.1f} % time"
    return Cell(VERDICTS[verdict], "good" if verdict is Verdict.HOLDS else "bad", small)


def _number(value: float | None, unit: int, mark: str = "") -> Cell:
    return _NOTHING if value is None else Cell(f"{mark}{value / unit:,.1f}")


_CPU, _MEMORY, _GPU = "CPU", "Memory, MB", "GPU"
# What a reader sees from left to right; the last word: left out where no row knows it.
_COLUMNS: tuple[tuple[Column, _Read, bool], ...] = (
    (Column("Operator", number=False), _name, False),
    (Column("Run", number=False), lambda row: Cell(row.run), False),
    (Column("Outcome", number=False), _state, False),
    (Column("Time", hint="from the first instruction to the end of the main process"), _wall, False),
    (Column("average %", _CPU, "the kernel's total over the wall time; 100 % is one core"), _cpu_average, False),
    (Column("highest %", _CPU, "highest rate over any window"), _cpu_maximum, False),
    (Column("declared", _CPU, "cores, in the definition"), _declared("cpu_millicores", format_cores), False),
    (Column("recommended", _CPU, "cores"), _recommended("cpu_millicores", format_cores), False),
    (Column("need", _MEMORY, "highest part that the kernel could not have taken back"), _need, False),
    (Column("peak", _MEMORY, "the highest that was charged, file cache included"), _peak, False),
    (
        Column("declared", _MEMORY, "in the definition"),
        _declared("memory_bytes", format_request),
        False,
    ),
    (
        Column("recommended", _MEMORY, "10^6 bytes, or as marked"),
        _recommended("memory_bytes", format_request),
        False,
    ),
    (Column("Verified", hint="run again with the recommendation as its limits", number=False), _verified, True),
    (Column("busy %", _GPU, "the busiest one's highest stretch"), _gpu_busy, True),
    (Column("memory, MB", _GPU, "its own, on the fullest one"), _gpu_memory, True),
    (Column("declared", _GPU, "how many, in the definition"), _declared("gpu_count", str), True),
    (Column("recommended", _GPU, "how many"), _gpus_recommended, True),
)
