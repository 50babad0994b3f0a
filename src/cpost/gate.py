"""Records -> what the gate finds: declared against needed, and growth against a baseline; pure.

What is needed does not depend on the policy that sized the run, only what is recommended does: memory is the need peak
(the peak where the need is not known), CPU a percentile of the windowed rate. docs/checking.md gives the reasons.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import NamedTuple

from cpost.compare import Subject, difference, host_differences, subjects
from cpost.model import (
    ALL_GPUS,
    ENGINE_STATS,
    PROCESS_TREE,
    Advice,
    Check,
    Declared,
    Difference,
    Figure,
    GateReport,
    Meaning,
    Resources,
    Rule,
    Ruling,
    Run,
    Usage,
    Verdict,
)
from cpost.units import MILLICORES_PER_CORE, format_cores, format_cpu_time, format_mb, format_percent, format_seconds

CPU_NEEDS = {
    "average": Figure.CPU_AVERAGE_PCT,
    "p95": Figure.CPU_P95_PCT,
    "p99": Figure.CPU_P99_PCT,
    "maximum": Figure.CPU_MAXIMUM_PCT,
}
RUN = "run"
_GROWN = {
    Figure.CPU_US: ("CPU time", format_cpu_time),
    Figure.NEED_PEAK_BYTES: ("memory need", format_mb),
    Figure.MEMORY_PEAK_BYTES: ("memory peak", format_mb),
}
_MARKS = {ENGINE_STATS: ">= ", PROCESS_TREE: "~ "}


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the gate lets pass.

    Attributes:
        max_over: a request may be this many times what is needed.
        max_growth: usage may grow by this share of the baseline's.
        cpu_need: which CPU rate counts as needed, a key of `CPU_NEEDS`.
    """

    max_over: Fraction = Fraction(3)
    max_growth: Fraction = Fraction(1, 10)
    cpu_need: str = "p95"


def check(
    run: Run, bounds: Bounds, declared: Mapping[str, Declared] | None = None, baseline: Run | None = None
) -> GateReport:
    """Hold what is declared against what a run needed.

    Args:
        declared: by name as in `compare.subjects`, to be taken in place of what the record says.
        baseline: an earlier run that usage may not have grown against.
    """
    found = subjects(run)
    checks = [*_whole(run)]
    for subject in found.values():
        wanted = subject.declared if declared is None else declared.get(subject.name)
        checks += _of_subject(subject, wanted, bounds)
    checks += [_unmeasured(name, wanted) for name, wanted in (declared or {}).items() if name not in found]
    if baseline is not None:
        checks += _growths(found, subjects(baseline), bounds)
    return GateReport(
        run.pipeline_name,
        run.run_id,
        baseline.run_id if baseline else "",
        host_differences(baseline, run) if baseline else (),
        tuple(checks),
    )


def _whole(run: Run) -> Iterator[Check]:
    if run.complete:
        yield Check(RUN, Rule.COMPLETE, Ruling.PASSED, "all operators were run")
    else:
        why = f"stopped by {run.stopped_by}" if run.stopped_by else "it did not come to its end"
        yield Check(RUN, Rule.COMPLETE, Ruling.FAILED, f"the run is partial ({why}): later operators were not measured")


def _unmeasured(name: str, wanted: Declared) -> Check:
    if _empty(wanted):
        return Check(name, Rule.MEASURED, Ruling.SKIPPED, "not measured in this run; declares nothing", wanted.origin)
    return Check(name, Rule.MEASURED, Ruling.FAILED, "declared, but not measured in this run", wanted.origin)


def _empty(declared: Declared) -> bool:
    return declared.requests == Resources() == declared.limits


# ---------------------------------------------------------------- one operator or server


def _of_subject(subject: Subject, wanted: Declared | None, bounds: Bounds) -> Iterator[Check]:
    declares = wanted is not None and not _empty(wanted)
    if subject.server and not declares:
        return
    origin = wanted.origin if wanted else None
    reason = _no_figures(subject)
    if reason:
        yield Check(subject.name, Rule.MEASURED, Ruling.FAILED, f"nothing can be said of it: {reason}", origin)
        return
    yield Check(subject.name, Rule.MEASURED, Ruling.PASSED, "measured", origin)
    if wanted is None:
        yield Check(subject.name, Rule.DECLARED, Ruling.SKIPPED, "measured, but the file does not have it")
    elif not declares:
        yield Check(subject.name, Rule.DECLARED, Ruling.SKIPPED, "it declares nothing", origin)
    else:
        for found in _amounts(subject, wanted, bounds):
            yield replace(found, origin=origin)


def _no_figures(subject: Subject) -> str:
    """Why nothing follows from its figures; empty where something does."""
    if subject.advice.status is Advice.REFUSED:
        return subject.advice.reasons[0] if subject.advice.reasons else "there is no recommendation for it"
    if subject.advice.verified is Verdict.BROKEN:
        return "it failed when it was run under what is recommended for it"
    return "" if subject.usage is not None else "no counters could be read"


class _Need(NamedTuple):
    """How much of something is needed; None = not known. `least` = it may be more."""

    amount: int | None
    text: str
    least: bool = False


def _amounts(subject: Subject, wanted: Declared, bounds: Bounds) -> Iterator[Check]:
    usage, advice = subject.usage, subject.advice
    assert usage is not None, "who has no usage has been refused"
    source = subject.result.totals.source if subject.result.totals else ""
    cpu, memory = _cpu_need(usage, bounds.cpu_need, source), _memory_need(usage, source)
    requests, limits, asked, capped = advice.requests, advice.limits, wanted.requests, wanted.limits
    of_cpu, of_memory = requests.cpu_millicores, requests.memory_bytes
    judge = _Judge(subject.name, bounds.max_over)
    yield judge.request(Rule.CPU_REQUEST, asked.cpu_millicores, cpu, of_cpu, _cores)
    yield judge.request(Rule.MEMORY_REQUEST, asked.memory_bytes, memory, of_memory, format_mb)
    if asked.gpu_count and asked.gpu_count != ALL_GPUS:
        yield judge.request(Rule.GPU_REQUEST, asked.gpu_count, _gpu_need(usage, requests), requests.gpu_count, _gpus)
    if capped.cpu_millicores is not None:
        yield judge.limit(Rule.CPU_LIMIT, capped.cpu_millicores, cpu, limits.cpu_millicores or of_cpu, _cores)
    if capped.memory_bytes is not None:
        yield judge.limit(Rule.MEMORY_LIMIT, capped.memory_bytes, memory, limits.memory_bytes or of_memory, format_mb)


class _Judge(NamedTuple):
    """Holds one amount against what is needed of it."""

    subject: str
    max_over: Fraction

    def request(
        self, rule: Rule, declared: int | None, need: _Need, recommended: int | None, show: Callable[[int], str]
    ) -> Check:
        """Too little, too much, or right; what is recommended is never too much."""
        if declared is None:
            return Check(
                self.subject,
                rule,
                Ruling.SKIPPED,
                "not declared" + _advice(recommended, show),
                needed=need.amount,
                recommended=recommended,
            )
        found = self.limit(rule, declared, need, recommended, show)
        over = need.amount is not None and declared > max(self.max_over * need.amount, Fraction(recommended or 0))
        if found.verdict is not Ruling.PASSED or not over:
            return found
        words = f"more than {_number(self.max_over)} times that"
        if need.least:
            return replace(found, verdict=Ruling.SKIPPED, text=f"{found.text}: {words}, but more may be needed")
        return replace(found, verdict=Ruling.FAILED, text=f"{found.text}: {words}{_advice(recommended, show)}")

    def limit(
        self, rule: Rule, declared: int, need: _Need, recommended: int | None, show: Callable[[int], str]
    ) -> Check:
        """Too little, or not."""
        made = Check(
            self.subject,
            rule,
            Ruling.PASSED,
            f"{show(declared)} declared, {need.text} needed",
            declared=declared,
            needed=need.amount,
            recommended=recommended,
        )
        if need.amount is None:
            verdict = Ruling.SKIPPED if rule is Rule.GPU_REQUEST else Ruling.FAILED
            return replace(made, verdict=verdict, text=f"{show(declared)} declared, and {need.text}")
        if declared >= need.amount:
            return made
        return replace(made, verdict=Ruling.FAILED, text=f"{made.text}: too little{_advice(recommended, show)}")


def _cpu_need(usage: Usage, which: str, source: str) -> _Need:
    """Rounded up to the resolution of the percentiles, a thousandth of a core."""
    percent: float | None = getattr(usage.cpu_pct, which)
    if percent is None:
        return _Need(None, "its CPU rate could not be measured")
    millicores = math.ceil(round(percent * MILLICORES_PER_CORE / 100, 6))
    name = which if which == "average" else f"{which} of {format_seconds(usage.window_ns)} windows"
    least = source == ENGINE_STATS
    return _Need(millicores, f"{'>= ' if least else ''}{_cores(millicores)} ({name})", least)


def _memory_need(usage: Usage, source: str) -> _Need:
    need = usage.need_peak_bytes if usage.need_peak_bytes is not None else usage.memory_bytes.maximum
    if need is None:
        return _Need(None, "its memory could not be measured")
    peak = "highest sample" if usage.peaks_sampled else "kernel peak"
    name = "need peak" if usage.need_peak_bytes is not None else f"{peak}, need unknown"
    need_bytes = math.ceil(need)
    return _Need(need_bytes, f"{_MARKS.get(source, '')}{format_mb(need_bytes)} ({name})", source == ENGINE_STATS)


def _gpu_need(usage: Usage, advice: Resources) -> _Need:
    """As many as are recommended, where that comes from having been seen on some."""
    if advice.gpu_count is None or not any(gpu.used for gpu in usage.gpus):
        return _Need(None, "it was seen on none: how many it needs is not known")
    return _Need(advice.gpu_count, f"{_gpus(advice.gpu_count)} (those that it was seen on)")


def _advice(recommended: int | None, show: Callable[[int], str]) -> str:
    return f"; recommended: {show(recommended)}" if recommended is not None else ""


def _cores(millicores: int) -> str:
    return f"{format_cores(millicores)} CPU"


def _gpus(count: int) -> str:
    return f"{count} GPU"


def _number(factor: Fraction) -> str:
    return f"{float(factor):g}"


# ---------------------------------------------------------------- growth


def _growths(found: Mapping[str, Subject], old: Mapping[str, Subject], bounds: Bounds) -> Iterator[Check]:
    for name, subject in found.items():
        if name not in old:
            yield Check(name, Rule.BASELINE, Ruling.SKIPPED, "the baseline does not have it")
        elif _no_figures(old[name]):
            reason = _no_figures(old[name])
            yield Check(name, Rule.BASELINE, Ruling.SKIPPED, f"the baseline says nothing of it: {reason}")
        elif _no_figures(subject):
            yield Check(name, Rule.BASELINE, Ruling.SKIPPED, f"nothing to compare: {_no_figures(subject)}")
        else:
            yield from (_growth(rule, name, each, bounds) for rule, each in _grown(old[name], subject, bounds))
    for name in old:
        if name not in found:
            yield Check(name, Rule.BASELINE, Ruling.SKIPPED, "the baseline has it, this run does not")


def _grown(before: Subject, after: Subject, bounds: Bounds) -> Iterator[tuple[Rule, Difference]]:
    yield Rule.CPU_TIME_GROWTH, difference(Figure.CPU_US, before, after)
    yield Rule.CPU_GROWTH, difference(CPU_NEEDS[bounds.cpu_need], before, after)
    need = difference(Figure.NEED_PEAK_BYTES, before, after)
    known = need.meaning is not Meaning.UNKNOWN
    yield Rule.MEMORY_GROWTH, need if known else difference(Figure.MEMORY_PEAK_BYTES, before, after)


def _growth(rule: Rule, name: str, found: Difference, bounds: Bounds) -> Check:
    label, show = _GROWN.get(found.figure, (f"CPU rate ({bounds.cpu_need})", format_percent))
    if found.before is None or found.after is None or found.change is None:
        return Check(name, rule, Ruling.SKIPPED, f"{label} is not known of both runs")
    share = f"{found.share:+.1%}" if found.share is not None else "from nothing"
    text = f"{label} {show(found.before)} in the baseline, {show(found.after)} now ({share}; {found.meaning.value})"
    above = Fraction(found.change) > bounds.max_growth * Fraction(found.before)
    if not above or found.meaning not in (Meaning.BEYOND, Meaning.SINGLE):
        return Check(name, rule, Ruling.PASSED, text)
    return Check(name, rule, Ruling.FAILED, f"{text}: grown by more than {_number(bounds.max_growth * 100)} %")
