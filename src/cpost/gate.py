"""Records -> what the gate finds: declared against needed, and growth against a baseline; pure.

What is needed does not depend on the policy that sized the run, only what is recommended does: memory is the need peak
(the peak where the need is not known), CPU a percentile of the windowed rate. docs/checking.md gives the reasons.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from typing import NamedTuple

from cpost.compare import Subject, certainty, difference, host_differences, subjects
from cpost.model import (
    ALL_GPUS,
    Advice,
    Bounds,
    Certainty,
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
from cpost.units import MIB, MILLICORES_PER_CORE, format_cores, format_mb, format_seconds

CPU_NEEDS = {
    "average": Figure.CPU_AVERAGE_PCT,
    "p95": Figure.CPU_P95_PCT,
    "p99": Figure.CPU_P99_PCT,
    "maximum": Figure.CPU_MAXIMUM_PCT,
}
RUN = "run"


def check(
    run: Run, bounds: Bounds, declared: Mapping[str, Declared] | None = None, baseline: Run | None = None
) -> GateReport:
    """Hold what is declared against what a run needed.

    Args:
        declared: by name as in `compare.subjects`, to be taken in place of what the record says.
        baseline: an earlier run that usage may not have grown against.
    """
    found = subjects(run)
    checks = [*_whole(run, found)]
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
        bounds,
    )


def _whole(run: Run, found: Mapping[str, Subject]) -> Iterator[Check]:
    if run.complete:
        yield Check(RUN, Rule.COMPLETE, Ruling.PASSED, "all operators were run")
    else:
        why = f"stopped by {run.stopped_by}" if run.stopped_by else "it did not come to its end"
        yield Check(RUN, Rule.COMPLETE, Ruling.FAILED, f"the run is partial ({why}): later operators were not measured")
    if not found:
        yield Check(RUN, Rule.MEASURED, Ruling.FAILED, "no operator was measured: nothing can be said of any")


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


class _Kind(NamedTuple):
    """What is requested: how it is shown, and how much more than needed is too small to speak of (in its base unit)."""

    show: Callable[[int], str]
    slack: int


def _amounts(subject: Subject, wanted: Declared, bounds: Bounds) -> Iterator[Check]:
    usage, advice = subject.usage, subject.advice
    assert usage is not None, "who has no usage has been refused"
    cpu, memory = _cpu_need(subject, usage, bounds.cpu_need), _memory_need(subject, usage)
    gpus = _gpu_need(usage, advice.requests)
    requests, limits, asked, capped = advice.requests, advice.limits, wanted.requests, wanted.limits
    of_cpu, of_memory = requests.cpu_millicores, requests.memory_bytes
    judge = _Judge(subject.name, bounds.max_over)
    yield judge.request(Rule.CPU_REQUEST, asked.cpu_millicores, cpu, of_cpu, _CPU)
    yield judge.request(Rule.MEMORY_REQUEST, asked.memory_bytes, memory, of_memory, _MEMORY)
    if asked.gpu_count != ALL_GPUS and (asked.gpu_count or gpus.amount is not None):
        yield judge.request(Rule.GPU_REQUEST, asked.gpu_count, gpus, requests.gpu_count, _GPUS)
    if capped.cpu_millicores is not None:
        yield judge.limit(Rule.CPU_LIMIT, capped.cpu_millicores, cpu, limits.cpu_millicores or of_cpu, _CPU)
    if capped.memory_bytes is not None:
        yield judge.limit(Rule.MEMORY_LIMIT, capped.memory_bytes, memory, limits.memory_bytes or of_memory, _MEMORY)


class _Judge(NamedTuple):
    """Holds one amount against what is needed of it."""

    subject: str
    max_over: Fraction

    def request(self, rule: Rule, declared: int | None, need: _Need, recommended: int | None, of: _Kind) -> Check:
        """Too little, too much, or right; what is recommended is never too much."""
        if declared is None:
            return Check(
                self.subject,
                rule,
                Ruling.SKIPPED,
                "not declared" + _advice(recommended, of),
                needed=need.amount,
                recommended=recommended,
            )
        found = self.limit(rule, declared, need, recommended, of)
        if found.verdict is not Ruling.PASSED or not self._over(declared, need, recommended, of):
            return found
        words = f"more than {_number(self.max_over)} times that"
        if need.least:
            return replace(found, verdict=Ruling.SKIPPED, text=f"{found.text}: {words}, but more may be needed")
        return replace(found, verdict=Ruling.FAILED, text=f"{found.text}: {words}{_advice(recommended, of)}")

    def _over(self, declared: int, need: _Need, recommended: int | None, of: _Kind) -> bool:
        if need.amount is None:
            return False
        fine = max(math.floor(self.max_over * need.amount), need.amount + of.slack, recommended or 0)
        return declared > fine

    def limit(self, rule: Rule, declared: int, need: _Need, recommended: int | None, of: _Kind) -> Check:
        """Too little, or not."""
        made = Check(
            self.subject,
            rule,
            Ruling.PASSED,
            f"{of.show(declared)} declared, {need.text} needed",
            declared=declared,
            needed=need.amount,
            recommended=recommended,
        )
        if need.amount is None:
            verdict = Ruling.SKIPPED if rule is Rule.GPU_REQUEST else Ruling.FAILED
            return replace(made, verdict=verdict, text=f"{of.show(declared)} declared, and {need.text}")
        if declared >= need.amount:
            return made
        return replace(made, verdict=Ruling.FAILED, text=f"{made.text}: too little{_advice(recommended, of)}")


def _cpu_need(subject: Subject, usage: Usage, which: str) -> _Need:
    """Rounded up to the resolution of the percentiles, a thousandth of a core."""
    percent: float | None = getattr(usage.cpu_pct, which)
    if percent is None:
        return _Need(None, "its CPU rate could not be measured")
    millicores = math.ceil(round(percent * MILLICORES_PER_CORE / 100, 6))
    name = which if which == "average" else f"{which} of {format_seconds(usage.window_ns)} windows"
    return _need(millicores, name, certainty(CPU_NEEDS[which], subject), _CPU)


def _memory_need(subject: Subject, usage: Usage) -> _Need:
    """The need; where it is not known the peak."""
    if usage.need_peak_bytes is not None:
        sure = certainty(Figure.NEED_PEAK_BYTES, subject)
        return _need(usage.need_peak_bytes, "need peak", sure, _MEMORY)
    if usage.memory_bytes.maximum is None:
        return _Need(None, "its memory could not be measured")
    peak = "highest sample" if usage.peaks_sampled else "kernel peak"
    sure = certainty(Figure.MEMORY_PEAK_BYTES, subject)
    return _need(math.ceil(usage.memory_bytes.maximum), f"{peak}, need unknown", sure, _MEMORY)


def _need(amount: int, name: str, sure: Certainty, of: _Kind) -> _Need:
    return _Need(amount, f"{sure.value}{of.show(amount)} ({name})", sure is Certainty.AT_LEAST)


def _gpu_need(usage: Usage, advice: Resources) -> _Need:
    """As many as are recommended, where that comes from having been seen on some."""
    if advice.gpu_count is None or not any(gpu.used for gpu in usage.gpus):
        return _Need(None, "it was seen on none: how many it needs is not known")
    return _Need(advice.gpu_count, f"{_gpus(advice.gpu_count)} (those that it was seen on)")


def _advice(recommended: int | None, of: _Kind) -> str:
    return f"; recommended: {of.show(recommended)}" if recommended is not None else ""


def _cores(millicores: int) -> str:
    return f"{format_cores(millicores)} CPU"


def _gpus(count: int) -> str:
    return f"{count} GPU"


_CPU, _MEMORY, _GPUS = _Kind(_cores, 100), _Kind(format_mb, 64 * MIB), _Kind(_gpus, 0)


def _number(factor: Fraction) -> str:
    return f"{float(factor):g}"


# ---------------------------------------------------------------- growth


def _growths(found: Mapping[str, Subject], old: Mapping[str, Subject], bounds: Bounds) -> Iterator[Check]:
    for name, subject in found.items():
        if name not in old:
            yield Check(name, Rule.BASELINE, Ruling.SKIPPED, "the baseline does not have it")
        elif reason := _no_runs(old[name]):
            yield Check(name, Rule.BASELINE, Ruling.SKIPPED, f"the baseline says nothing of it: {reason}")
        elif reason := _no_runs(subject):
            yield Check(name, Rule.BASELINE, Ruling.SKIPPED, f"nothing to compare: {reason}")
        else:
            yield from (_growth(rule, name, each, bounds) for rule, each in _grown(old[name], subject, bounds))
    for name in old:
        if name not in found:
            yield Check(name, Rule.BASELINE, Ruling.SKIPPED, "the baseline has it, this run does not")


def _no_runs(subject: Subject) -> str:
    """Why it has no figures to compare; empty where it has. Whether its recommendation holds plays no part."""
    if not subject.runs:
        return subject.result.cause or subject.result.outcome.value.replace("_", " ")
    return "" if subject.usage is not None else "no counters could be read"


def _grown(before: Subject, after: Subject, bounds: Bounds) -> Iterator[tuple[Rule, Difference]]:
    yield Rule.CPU_TIME_GROWTH, difference(Figure.CPU_US, before, after)
    yield Rule.CPU_GROWTH, difference(CPU_NEEDS[bounds.cpu_need], before, after)
    need = difference(Figure.NEED_PEAK_BYTES, before, after)
    known = need.meaning is not Meaning.UNKNOWN
    yield Rule.MEMORY_GROWTH, need if known else difference(Figure.MEMORY_PEAK_BYTES, before, after)
    on_gpu = difference(Figure.GPU_MEMORY_PEAK_BYTES, before, after)
    if on_gpu.before is not None or on_gpu.after is not None:
        yield Rule.GPU_MEMORY_GROWTH, on_gpu


_EXCUSED = {
    Meaning.SPREAD: (Ruling.SKIPPED, "but no more than runs of it differ by themselves: it cannot be told from noise"),
    Meaning.GRAIN: (Ruling.PASSED, "but no more than clocks and counters can tell apart"),
}


def _growth(rule: Rule, name: str, found: Difference, bounds: Bounds) -> Check:
    figure = found.figure
    if found.before is None or found.after is None:
        return Check(name, rule, Ruling.SKIPPED, f"{figure.label} is not known of both runs")
    before = found.before_certainty.value + figure.show(found.before)
    after = found.after_certainty.value + figure.show(found.after)
    share = f"{found.share:+.1%}" if found.share is not None else "from nothing"
    text = f"{figure.label} {before} in the baseline, {after} now ({share}; {found.meaning.value})"
    if Fraction(found.after) - Fraction(found.before) <= bounds.max_growth * Fraction(found.before):
        return Check(name, rule, Ruling.PASSED, text)
    verdict, excuse = _EXCUSED.get(found.meaning, (Ruling.FAILED, ""))
    above = f"grown by more than {_number(bounds.max_growth * 100)} %"
    return Check(name, rule, verdict, f"{text}: {above}{', ' if excuse else ''}{excuse}")
