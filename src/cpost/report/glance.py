"""The summary as a picture: what each operator and server used as bars, what is declared and recommended as marks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cpost.model import Advice, OperatorRecord, Run, ServerRecord
from cpost.report.charts import MEGABYTES, Unit, value_ticks
from cpost.report.overview import anchor_of, state_of
from cpost.report.view import Bar, Glance, GlanceRow
from cpost.units import MILLICORES_PER_CORE

_CORES = Unit("cores", MILLICORES_PER_CORE)
_MILLICORES_PER_PERCENT = 10
_STEP_BYTES = 1000
_FAR = 2.0  # what is declared so many times above all else would flatten the bars: it stands at the end instead
_MARGIN = 1.04


@dataclass(frozen=True, slots=True)
class _Amounts:
    """What a bar shows, in steps; `need` is what a request has to cover."""

    steady: float | None
    highest: float | None
    need: float | None
    declared: float | None
    wanted: float | None


@dataclass(frozen=True, slots=True)
class _Subject:
    """Who a row is about; `place` tells it from others of its name."""

    place: str
    name: str
    small: str
    record: OperatorRecord | ServerRecord


def glance(runs: Sequence[tuple[str, Run]]) -> Glance | None:
    """The picture; None where nothing is known of anybody's use.

    Args:
        runs: each with the label that tells it from the others.
    """
    subjects = [each for label, run in runs for each in _subjects(run, label if len(runs) > 1 else "")]
    order = list(dict.fromkeys(each.place for each in subjects))
    subjects.sort(key=lambda each: order.index(each.place))
    cpu, memory = [_cpu(each.record) for each in subjects], [_memory(each.record) for each in subjects]
    cpu_end, memory_end = _end(cpu), _end(memory)
    if not cpu_end or not memory_end:
        return None
    bars = [(_bar(of_cpu, cpu_end), _bar(of_memory, memory_end)) for of_cpu, of_memory in zip(cpu, memory, strict=True)]
    return Glance(
        scales=(("CPU, cores", value_ticks(cpu_end, _CORES)), ("Memory, MB", value_ticks(memory_end, MEGABYTES))),
        rows=tuple(
            GlanceRow(each.name, each.small, _bad_end(each.record), both)
            for each, both in zip(subjects, bars, strict=True)
        ),
    )


def _subjects(run: Run, label: str) -> Iterator[_Subject]:
    for record in run.operators:
        yield _Subject(anchor_of(record.operator), record.operator, label, record)
        for server in record.servers:
            of = ", ".join(filter(None, (f"server of {record.operator}", label)))
            yield _Subject(anchor_of(record.operator, server.name), server.name, of, server)
    for server in run.servers:
        of = ", ".join(filter(None, ("shared server", label)))
        yield _Subject(anchor_of("", server.name), server.name, of, server)


def _bad_end(record: OperatorRecord | ServerRecord) -> str:
    """How it ended, where that is bad: what it used is no more than it came to then."""
    state, bad = state_of(record.result)
    return state if bad else ""


def _cpu(record: OperatorRecord | ServerRecord) -> _Amounts:
    """A server's under load, which it is sized by; where it had none, over its whole life."""
    usage = (record.load if isinstance(record, ServerRecord) else None) or record.usage
    rates = (usage.cpu_pct.average, usage.cpu_pct.maximum, usage.cpu_pct.p95) if usage else (None, None, None)
    steady, highest, need = (None if rate is None else rate * _MILLICORES_PER_PERCENT for rate in rates)
    wanted = record.recommendation.requests.cpu_millicores if record.recommendation.status is Advice.OK else None
    return _Amounts(steady, highest, need, record.declared.cpu_millicores, wanted)


def _memory(record: OperatorRecord | ServerRecord) -> _Amounts:
    usage, advice = record.usage, record.recommendation
    need = _steps(usage.need_peak_bytes if usage else None)
    peak = _steps(usage.memory_bytes.maximum if usage else None)
    wanted = _steps(advice.requests.memory_bytes if advice.status is Advice.OK else None)
    return _Amounts(need, peak, need, _steps(record.declared.memory_bytes), wanted)


def _steps(value_bytes: float | None) -> float | None:
    return None if value_bytes is None else value_bytes / _STEP_BYTES


def _end(amounts: Sequence[_Amounts]) -> int:
    """Where the scale ends, in steps; 0 where no use is known."""
    used = [value for each in amounts for value in (each.steady, each.highest) if value is not None]
    if not used:
        return 0
    highest = max(used + [each.wanted for each in amounts if each.wanted is not None])
    declared = [each.declared for each in amounts if each.declared is not None and each.declared <= highest * _FAR]
    return math.ceil(max(highest, *declared, 1) * _MARGIN)


def _bar(amounts: _Amounts, end: int) -> Bar:
    declared, need = amounts.declared, amounts.need
    beyond = declared is not None and declared > end
    return Bar(
        steady=_share(amounts.steady, end),
        highest=_share(amounts.highest, end),
        declared=100 if beyond else _share(declared, end),
        wanted=_share(amounts.wanted, end),
        beyond=beyond,
        short=declared is not None and need is not None and declared < need,
    )


def _share(value: float | None, end: int) -> float | None:
    return None if value is None else 100 * value / end
