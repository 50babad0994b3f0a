"""Two records -> what differs between them, and whether that is more than the runs' own spread; pure.

Beyond the spread means that all runs of one side lie on one side of all runs of the other. If nothing had changed, that
would happen by chance with n and m runs once in (n + m choose n) cases for each direction: 1 in 252 with five each.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from cpost.model import (
    PIPELINE,
    Advice,
    Comparison,
    Declared,
    Difference,
    Figure,
    HostDifference,
    Meaning,
    OperatorRecord,
    Outcome,
    Recommendation,
    Repeat,
    RepeatKind,
    Resources,
    Run,
    ServerRecord,
    StepResult,
    SubjectDifferences,
    Usage,
)
from cpost.policy import sized_server
from cpost.spread import FIGURES, MEMORY, PERCENT, TIME_NS, TIME_US, Bound, Read, measured, spread
from cpost.units import format_mb, format_seconds

SHOWN = tuple(figure for figure in Figure if figure is not Figure.CPU_P99_PCT)
_NOT_KNOWN = "not known"
_SAME_MEMORY_SHARE = 100  # the kernel keeps a little for itself, each version another little
_GRAINS: Mapping[Figure, Bound] = {
    Figure.WALL_NS: TIME_NS,
    Figure.CPU_US: TIME_US,
    Figure.MEMORY_PEAK_BYTES: MEMORY,
    Figure.NEED_PEAK_BYTES: MEMORY,
}


@dataclass(frozen=True, slots=True)
class Subject:
    """An operator, or a server beside one, as a thing that declares, has figures and gets advice.

    Attributes:
        usage: what its advice is made of; of a server, see `policy.sized_server`.
        runs: those that count, one by one; a single one where it was not repeated, none where it did not end well.
        server: of an operator, or of all.
    """

    name: str
    declared: Declared
    result: StepResult
    advice: Recommendation
    usage: Usage | None
    runs: tuple[Repeat, ...]
    server: bool = False


def subjects(run: Run) -> dict[str, Subject]:
    """All that was measured, by the names of its files: "operator", "operator__server", "pipeline__server" (shared)."""
    found: list[Subject] = []
    for record in run.operators:
        found.append(_operator(record))
        found += [_server(record.operator, server, record.repeats) for server in record.servers]
    found += [_server(PIPELINE, server, ()) for server in run.servers]
    return {subject.name: subject for subject in found}


def compare(before: Run, after: Run) -> Comparison:
    """All that differs between two runs, operator by operator in the order of the second."""
    old, new = subjects(before), subjects(after)
    return Comparison(
        before.run_id,
        after.run_id,
        hosts=host_differences(before, after),
        subjects=tuple(_differences(old[name], new[name]) for name in new if name in old),
        only_before=tuple(name for name in old if name not in new),
        only_after=tuple(name for name in new if name not in old),
    )


def difference(figure: Figure, before: Subject, after: Subject) -> Difference:
    """One figure of both, and what the difference may be taken for."""
    old, new = _values(figure, before), _values(figure, after)
    return Difference(
        figure,
        statistics.median(old) if old else None,
        statistics.median(new) if new else None,
        _meaning(old, new, _grain(figure)),
        spread(old),
        spread(new),
    )


def _grain(figure: Figure) -> float:
    """What clocks and counters cannot tell apart, in the figure's unit."""
    return _GRAINS.get(figure, PERCENT).least


def host_differences(before: Run, after: Run) -> tuple[HostDifference, ...]:
    """What the hosts, and the ways of measuring, do not have in common."""
    facts = [
        HostDifference(what, show(before) or _NOT_KNOWN, show(after) or _NOT_KNOWN)
        for what, show in _FACTS.items()
        if show(before) != show(after)
    ]
    old, new = before.host.memory_bytes or 0, after.host.memory_bytes or 0
    if abs(old - new) * _SAME_MEMORY_SHARE > max(old, new):
        facts.append(HostDifference("memory", *(format_mb(size) if size else _NOT_KNOWN for size in (old, new))))
    return tuple(facts)


_FACTS: Mapping[str, Callable[[Run], str]] = {
    "architecture": lambda run: run.host.architecture,
    "CPUs": lambda run: "" if run.host.cpus is None else str(run.host.cpus),
    "CPU model": lambda run: run.host.cpu_model,
    "kernel": lambda run: run.host.kernel,
    "control groups": lambda run: run.host.cgroup_layout,
    "engine": lambda run: run.host.engine_version,
    "CPU window": lambda run: format_seconds(run.options.window_ns),
    "sampling period": lambda run: format_seconds(run.options.period_ns),
}


# ---------------------------------------------------------------- subjects


def _operator(record: OperatorRecord) -> Subject:
    return Subject(
        record.operator,
        Declared(record.declared),
        record.result,
        record.recommendation,
        record.usage,
        _runs(record.repeats, record.result, record.usage),
    )


def _server(owner: str, server: ServerRecord, repeats: Sequence[Repeat]) -> Subject:
    usage = sized_server(server.usage, server.load)
    runs = [
        replace(repeat, result=each.result, usage=sized_server(each.usage, each.load))
        for repeat in measured(repeats)
        for each in repeat.servers
        if each.name == server.name
    ]
    return Subject(
        f"{owner}__{server.name}",
        Declared(server.declared),
        server.result,
        server.recommendation,
        usage,
        _runs(runs, server.result, usage),
        server=True,
    )


def _runs(repeats: Iterable[Repeat], result: StepResult, usage: Usage | None) -> tuple[Repeat, ...]:
    alone = Repeat(RepeatKind.MEASURED, number=1, planned=1, cold=True, result=result, usage=usage)
    return tuple(measured(tuple(repeats) or [alone]))


# ---------------------------------------------------------------- figures


def _values(figure: Figure, subject: Subject) -> list[float]:
    return [value for run in subject.runs if (value := _READ[figure](run)) is not None]


def _p95(run: Repeat) -> float | None:
    return run.usage.cpu_pct.p95 if run.usage else None


def _p99(run: Repeat) -> float | None:
    return run.usage.cpu_pct.p99 if run.usage else None


_READ: Mapping[Figure, Read] = {
    **{Figure(name): read for name, read in FIGURES.items()},
    Figure.CPU_P95_PCT: _p95,
    Figure.CPU_P99_PCT: _p99,
}


def _meaning(before: Sequence[float], after: Sequence[float], least: float) -> Meaning:
    if not before or not after:
        return Meaning.UNKNOWN
    change = abs(statistics.median(after) - statistics.median(before))
    if change == 0:
        return Meaning.SAME
    if min(before) <= max(after) and min(after) <= max(before):
        return Meaning.SPREAD
    if change <= least:
        return Meaning.GRAIN
    return Meaning.BEYOND if len(before) > 1 and len(after) > 1 else Meaning.SINGLE


def _differences(before: Subject, after: Subject) -> SubjectDifferences:
    return SubjectDifferences(
        after.name,
        tuple(difference(figure, before, after) for figure in SHOWN),
        _recommended(before),
        _recommended(after),
        tuple(
            f"the {which} did not end well: {side.result.cause or side.result.outcome.value}"
            for which, side in (("first", before), ("second", after))
            if side.result.outcome is not Outcome.COMPLETED
        ),
    )


def _recommended(subject: Subject) -> Resources | None:
    return subject.advice.requests if subject.advice.status is Advice.OK else None
