"""Two records -> what differs between them, and whether that is more than the runs' own spread; pure.

What is compared is the median of a side's runs, of memory the highest. A side's own spread is the width of its inner
half, from the lower quartile to the upper one: one odd run among several does not widen it. A difference is beyond the
spread where it is more than those of both sides together. docs/checking.md says how often chance does that.
"""

from __future__ import annotations

import shlex
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from cpost.model import (
    PIPELINE,
    Advice,
    Certainty,
    Comparison,
    Declared,
    Difference,
    Figure,
    HostDifference,
    HostFacts,
    Meaning,
    OperatorRecord,
    Outcome,
    Recommendation,
    Repeat,
    RepeatKind,
    Resources,
    Run,
    ServerKind,
    ServerRecord,
    StepResult,
    SubjectDifferences,
    Usage,
    busiest,
    cpu_rate_certainty,
    cpu_time_certainty,
    fullest,
    need_certainty,
    peak_certainty,
)
from cpost.policy import sized_server
from cpost.spread import FIGURES, MEMORY, PERCENT, TIME_NS, TIME_US, Bound, Read, measured, spread
from cpost.units import format_mb, format_seconds

SHOWN = tuple(figure for figure in Figure if figure is not Figure.CPU_P99_PCT)
_NOT_KNOWN, _NONE = "not known", "none"
_SAME_SIZE_SHARE = 100  # the kernel keeps a little for itself, each version another little
_SHORT_ID = 12
_GRAINS: Mapping[Figure, Bound] = {
    Figure.WALL_NS: TIME_NS,
    Figure.CPU_US: TIME_US,
    Figure.MEMORY_PEAK_BYTES: MEMORY,
    Figure.NEED_PEAK_BYTES: MEMORY,
    Figure.GPU_MEMORY_PEAK_BYTES: MEMORY,
}
_DOUBTFUL_LAST = tuple(Certainty)


@dataclass(frozen=True, slots=True)
class Subject:
    """An operator, or a server beside one, as a thing that declares, has figures and gets advice.

    Attributes:
        usage: what its advice is made of; of a server, see `policy.sized_server`.
        runs: those that count, one by one; a single one where it was not repeated, none where it did not end well.
        server: of an operator, or of all.
    """

    name: str
    image: str
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
        _for_all(figure, old) if old else None,
        _for_all(figure, new) if new else None,
        _meaning(figure, old, new),
        spread(old),
        spread(new),
        certainty(figure, before),
        certainty(figure, after),
    )


def certainty(figure: Figure, subject: Subject) -> Certainty:
    """How sure a figure is over all runs that count: as the least sure of them."""
    return max((_certainty(figure, run) for run in subject.runs), key=_DOUBTFUL_LAST.index, default=Certainty.EXACT)


def _certainty(figure: Figure, run: Repeat) -> Certainty:
    if figure.of_gpu or figure is Figure.WALL_NS:
        return Certainty.EXACT
    if run.usage is not None and figure.of_cpu_rate:
        return cpu_rate_certainty(run.result, run.usage)
    if run.usage is not None and figure is Figure.MEMORY_PEAK_BYTES:
        return peak_certainty(run.result, run.usage)
    return need_certainty(run.result) if figure.of_memory else cpu_time_certainty(run.result)


def _grain(figure: Figure) -> float:
    """What clocks and counters cannot tell apart, in the figure's unit."""
    return _GRAINS.get(figure, PERCENT).least


# ---------------------------------------------------------------- what else may explain a difference


def host_differences(before: Run, after: Run) -> tuple[HostDifference, ...]:
    """What the hosts, the ways of measuring, and then what was run, do not have in common."""
    return (
        *_differing(_FACTS, before, after),
        *_sizes_apart(before.host, after.host),
        *_of_subjects(subjects(before), subjects(after)),
        *_differing(_TESTED, before, after, tested=True),
    )


def _differing(
    facts: Mapping[str, Callable[[Run], str]], before: Run, after: Run, *, tested: bool = False
) -> Iterator[HostDifference]:
    for what, show in facts.items():
        old, new = show(before), show(after)
        if old != new:
            yield HostDifference(what, old or _NOT_KNOWN, new or _NOT_KNOWN, tested)


def _sizes_apart(before: HostFacts, after: HostFacts) -> Iterator[HostDifference]:
    for what, sizes in (
        ("memory", (before.memory_bytes, after.memory_bytes)),
        ("swap", (before.swap_bytes, after.swap_bytes)),
    ):
        old, new = (size or 0 for size in sizes)
        if abs(old - new) * _SAME_SIZE_SHARE > max(old, new):
            shown = [_NOT_KNOWN if size is None else format_mb(size) for size in sizes]
            yield HostDifference(what, shown[0], shown[1])


def _of_subjects(old: Mapping[str, Subject], new: Mapping[str, Subject]) -> Iterator[HostDifference]:
    """How each was measured, and what it was made from."""
    for name in (name for name in new if name in old):
        sources = _source(old[name]), _source(new[name])
        if all(sources) and sources[0] != sources[1]:
            yield HostDifference(f"source of {name}", *sources)
        images = _image(old[name]), _image(new[name])
        if images[0] != images[1]:
            yield HostDifference(f"image of {name}", *images, tested=True)


def _source(subject: Subject) -> str:
    return subject.result.totals.source if subject.result.totals else ""


def _image(subject: Subject) -> str:
    """With the beginning of its id: the same name may stand for another image a day later."""
    image_id = subject.result.image_id.removeprefix("sha256:")[:_SHORT_ID]
    return f"{subject.image} ({image_id})" if image_id else subject.image


def _gpus(run: Run) -> str:
    names = Counter(gpu.name for gpu in run.host.gpus)
    return ", ".join(f"{count} x {name}" for name, count in names.items()) or _NONE


def _triton_arguments(run: Run) -> str:
    """None, too, where no Triton ran."""
    servers = [*run.servers, *(server for record in run.operators for server in record.servers)]
    served = any(server.kind is ServerKind.TRITON for server in servers)
    return (shlex.join(run.options.triton_args) if served else "") or _NONE


def _stated(value: int | None, show: Callable[[int], str]) -> str:
    return _NONE if value is None else show(value)


_FACTS: Mapping[str, Callable[[Run], str]] = {
    "architecture": lambda run: run.host.architecture,
    "CPUs": lambda run: "" if run.host.cpus is None else str(run.host.cpus),
    "CPU model": lambda run: run.host.cpu_model,
    "GPUs": _gpus,
    "GPU driver": lambda run: run.host.gpu_driver or _NONE,
    "kernel": lambda run: run.host.kernel,
    "control groups": lambda run: run.host.cgroup_layout,
    "engine": lambda run: run.host.engine_version,
    "CPU window": lambda run: format_seconds(run.options.window_ns),
    "sampling period": lambda run: format_seconds(run.options.period_ns),
    "warm-ups": lambda run: str(run.options.warmup),
    "duration": lambda run: _stated(run.options.duration_ns, format_seconds),
    "memory limit": lambda run: _stated(run.options.memory_limit_bytes, format_mb),
    "size of /dev/shm": lambda run: format_mb(run.options.shm_bytes),
    "use of GPUs": lambda run: "none (--no_gpu)" if run.options.no_gpu else "as declared",
    "Triton arguments": _triton_arguments,
}
_TESTED: Mapping[str, Callable[[Run], str]] = {
    "format": lambda run: run.pipeline_format.value if run.pipeline_format else "",
    "pipeline": lambda run: run.pipeline_name,
    "pipeline file": lambda run: run.pipeline_digest[:_SHORT_ID],
}


# ---------------------------------------------------------------- subjects


def _operator(record: OperatorRecord) -> Subject:
    return Subject(
        record.operator,
        record.image,
        Declared(record.declared, record.declared_limits, site=record.site),
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
        server.image,
        Declared(server.declared, server.declared_limits),
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


def _for_all(figure: Figure, values: Sequence[float]) -> float:
    """The one that stands for all runs."""
    return max(values) if figure.of_memory else statistics.median(values)


def _meaning(figure: Figure, before: Sequence[float], after: Sequence[float]) -> Meaning:
    if not before or not after:
        return Meaning.UNKNOWN
    change = abs(_for_all(figure, after) - _for_all(figure, before))
    if change == 0:
        return Meaning.SAME
    if change <= _inner_half(before) + _inner_half(after):
        return Meaning.SPREAD
    if change <= _grain(figure):
        return Meaning.GRAIN
    return Meaning.BEYOND if len(before) > 1 and len(after) > 1 else Meaning.SINGLE


def _inner_half(values: Sequence[float]) -> float:
    """How far the quartiles lie apart, interpolated between runs; a single run has no spread."""
    if len(values) < 2:
        return 0.0
    lower, _, upper = statistics.quantiles(values, n=4, method="inclusive")
    return upper - lower


def _p95(run: Repeat) -> float | None:
    return run.usage.cpu_pct.p95 if run.usage else None


def _p99(run: Repeat) -> float | None:
    return run.usage.cpu_pct.p99 if run.usage else None


def _gpu_busy(run: Repeat) -> float | None:
    busy = busiest(run.usage.gpus) if run.usage else None
    return busy.busy_average_pct if busy else None


def _gpu_memory(run: Repeat) -> float | None:
    full = fullest(run.usage.gpus) if run.usage else None
    return full.memory_peak_bytes if full else None


_READ: Mapping[Figure, Read] = {
    **FIGURES,
    Figure.CPU_P95_PCT: _p95,
    Figure.CPU_P99_PCT: _p99,
    Figure.GPU_BUSY_AVERAGE_PCT: _gpu_busy,
    Figure.GPU_MEMORY_PEAK_BYTES: _gpu_memory,
}


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
