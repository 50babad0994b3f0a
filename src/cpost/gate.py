"""Records -> what the gate finds: declared against needed, and growth against a baseline; pure.

What is needed does not depend on the policy that sized the run, only what is recommended does: memory is the need peak
(the peak where the need is not known), CPU a percentile of the windowed rate. docs/checking.md gives the reasons.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
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
    held_up_by_others,
)
from cpost.units import MIB, MILLICORES_PER_CORE, format_cores, format_mb, format_seconds, format_size

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
    stated = {name: subject.declared for name, subject in found.items()} if declared is None else declared
    checks += _of_subjects(found, stated, bounds)
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


def _of_subjects(found: Mapping[str, Subject], declared: Mapping[str, Declared], bounds: Bounds) -> Iterator[Check]:
    """What each is held to is the most that anybody needs who has the place in the file in common with it."""
    uses = {name: _uses(subject, bounds) for name, subject in found.items()}
    users: dict[str, list[str]] = {}
    for name in found:
        users.setdefault(_place(name, declared.get(name)), []).append(name)
    for name, subject in found.items():
        wanted = declared.get(name)
        others = [uses[other] for other in users[_place(name, wanted)] if other != name]
        site = wanted.site if wanted is not None and wanted.site != name else ""
        for each in _of_subject(subject, wanted, uses[name], others, bounds):
            yield replace(each, site=site)


def _place(name: str, wanted: Declared | None) -> str:
    return (wanted.site if wanted is not None else "") or name


def _of_subject(
    subject: Subject, wanted: Declared | None, own: _Uses, others: Sequence[_Uses], bounds: Bounds
) -> Iterator[Check]:
    declares = wanted is not None and not _empty(wanted)
    doubts = wanted.doubts if wanted is not None else ()
    if subject.server and not declares and not doubts:
        return
    origin = wanted.origin if wanted else None
    reason = _no_figures(subject)
    if reason:
        yield Check(subject.name, Rule.MEASURED, Ruling.FAILED, f"nothing can be said of it: {reason}", origin)
    else:
        yield Check(subject.name, Rule.MEASURED, Ruling.PASSED, "measured", origin)
    for text, at in doubts:
        yield Check(subject.name, Rule.DECLARED, Ruling.SKIPPED, text, at)
    if reason:
        return
    if wanted is None:
        yield Check(subject.name, Rule.DECLARED, Ruling.SKIPPED, "measured, but the file does not have it")
    elif declares:
        yield from _amounts(subject, wanted, own, others, bounds)
    elif not doubts:
        yield Check(subject.name, Rule.DECLARED, Ruling.SKIPPED, "it declares nothing", origin)


def _no_figures(subject: Subject) -> str:
    """Why nothing follows from its figures; empty where something does."""
    if subject.advice.status is Advice.REFUSED:
        return subject.advice.reasons[0] if subject.advice.reasons else "there is no recommendation for it"
    if subject.advice.verified is Verdict.BROKEN:
        return "it failed when it was run under what is recommended for it"
    return "" if subject.usage is not None else "no counters could be read"


class _Need(NamedTuple):
    """How much of something is needed; None = not known. `doubt` is why it may be more; empty = it is not."""

    amount: int | None
    text: str
    doubt: str = ""


class _Kind(NamedTuple):
    """What is requested: how it is shown, and how much more than needed is too small to speak of (in its base unit)."""

    show: Callable[[int], str]
    slack: int


class _Use(NamedTuple):
    """How much of something one user of a place needs, and what is recommended for it; None = no number."""

    need: _Need
    recommended: int | None


_Uses = Mapping[Rule, _Use]


def _uses(subject: Subject, bounds: Bounds) -> _Uses:
    """What a subject needs, by the rule that is applied to what is declared of it."""
    usage, advice = subject.usage, subject.advice
    reason = _no_figures(subject)
    if usage is None or reason:
        return dict.fromkeys(_KINDS, _Use(_Need(None, reason), None))
    cpu, memory = _cpu_need(subject, usage, bounds.cpu_need), _memory_need(subject, usage)
    requests, limits = advice.requests, advice.limits
    of_cpu, of_memory = requests.cpu_millicores, requests.memory_bytes
    return {
        Rule.CPU_REQUEST: _Use(cpu, of_cpu),
        Rule.MEMORY_REQUEST: _Use(memory, of_memory),
        Rule.GPU_REQUEST: _Use(_gpu_need(usage, requests), requests.gpu_count),
        Rule.CPU_LIMIT: _Use(cpu, limits.cpu_millicores or of_cpu),
        Rule.MEMORY_LIMIT: _Use(memory, limits.memory_bytes or of_memory),
    }


def _amounts(
    subject: Subject, wanted: Declared, own: _Uses, others: Sequence[_Uses], bounds: Bounds
) -> Iterator[Check]:
    requests, limits = wanted.requests, wanted.limits
    amounts = {
        Rule.CPU_REQUEST: requests.cpu_millicores,
        Rule.MEMORY_REQUEST: requests.memory_bytes,
        Rule.GPU_REQUEST: requests.gpu_count,
        Rule.CPU_LIMIT: limits.cpu_millicores,
        Rule.MEMORY_LIMIT: limits.memory_bytes,
    }
    for rule, declared in amounts.items():
        if _plays_a_part(rule, declared, own[rule]):
            judge = _Judge(subject.name, rule, own[rule], [each[rule] for each in others], bounds.max_over)
            found = judge.request(declared) if rule in _REQUESTS else judge.limit(declared)
            yield replace(found, origin=wanted.origins.get(rule, wanted.origin))


def _plays_a_part(rule: Rule, declared: int | None, own: _Use) -> bool:
    if rule is Rule.GPU_REQUEST:
        return declared != ALL_GPUS and (bool(declared) or own.need.amount is not None)
    return rule in _REQUESTS or declared is not None


class _Judge(NamedTuple):
    """Holds one amount against what is needed of it.

    Attributes:
        own: what the subject needs.
        others: likewise, those that have the amount in common with it.
    """

    subject: str
    rule: Rule
    own: _Use
    others: Sequence[_Use]
    max_over: Fraction

    def request(self, declared: int | None) -> Check:
        """Too little, too much, or right; what is recommended is never too much, nor is what another one needs."""
        found = self.limit(declared)
        if declared is None or found.verdict is Ruling.FAILED or not self._over(declared):
            return found
        words = f"more than {_number(self.max_over)} times that"
        doubts = [use.need.doubt for use in (self.own, *self.others) if use.need.doubt]
        if doubts:
            text = f"{self._held(declared)}: {words}, but more may be needed ({doubts[0]})"
            return replace(found, verdict=Ruling.SKIPPED, text=text)
        return replace(found, verdict=Ruling.FAILED, text=f"{found.text}: {words}{self._advice()}")

    def limit(self, declared: int | None) -> Check:
        """Too little, or not."""
        need = self.own.need
        made = Check(
            self.subject,
            self.rule,
            Ruling.PASSED,
            "",
            declared=declared,
            needed=need.amount,
            recommended=self._recommended(),
        )
        if declared is None:
            return replace(made, verdict=Ruling.SKIPPED, text=f"not declared{self._advice()}")
        if need.amount is None:
            verdict = Ruling.SKIPPED if self.rule is Rule.GPU_REQUEST else Ruling.FAILED
            return replace(made, verdict=verdict, text=f"{self._show(declared)} declared, and {need.text}")
        text = self._held(declared)
        if declared < need.amount:
            return replace(made, verdict=Ruling.FAILED, text=f"{text}: too little{self._advice()}")
        if need.doubt:
            text += f": as much as was seen, but more may be needed ({need.doubt})"
            return replace(made, verdict=Ruling.SKIPPED, text=text)
        return replace(made, text=text)

    def _held(self, declared: int) -> str:
        return f"{self._show(declared)} declared, {self.own.need.text} needed"

    def _over(self, declared: int) -> bool:
        """Whether nobody who has the amount can have a use for it; where a need is not known, nobody knows."""
        fine = [self._enough(use) for use in (self.own, *self.others)]
        return all(each is not None and declared > each for each in fine)

    def _enough(self, use: _Use) -> int | None:
        need = use.need.amount
        if need is None:
            return None
        return max(math.floor(self.max_over * need), need + _KINDS[self.rule].slack, use.recommended or 0)

    def _recommended(self) -> int | None:
        """The most that is recommended for anybody who has the amount."""
        known = [use.recommended for use in (self.own, *self.others) if use.recommended is not None]
        return max(known, default=None)

    def _advice(self) -> str:
        recommended = self._recommended()
        return f"; recommended: {self._show(recommended)}" if recommended is not None else ""

    def _show(self, amount: int) -> str:
        return _KINDS[self.rule].show(amount)


def _cpu_need(subject: Subject, usage: Usage, which: str) -> _Need:
    """Rounded up to the resolution of the percentiles, a thousandth of a core."""
    percent: float | None = getattr(usage.cpu_pct, which)
    if percent is None:
        return _Need(None, "its CPU rate could not be measured")
    millicores = math.ceil(round(percent * MILLICORES_PER_CORE / 100, 6))
    name = which if which == "average" else f"{which} of {format_seconds(usage.window_ns)} windows"
    return _need(subject, usage, CPU_NEEDS[which], millicores, f"{_cores(millicores)} ({name})")


def _memory_need(subject: Subject, usage: Usage) -> _Need:
    """The need; where it is not known the peak."""
    if usage.need_peak_bytes is not None:
        text = f"{format_mb(usage.need_peak_bytes)} (need peak)"
        return _need(subject, usage, Figure.NEED_PEAK_BYTES, usage.need_peak_bytes, text)
    if usage.memory_bytes.maximum is None:
        return _Need(None, "its memory could not be measured")
    peak = "highest sample" if usage.peaks_sampled else "kernel peak"
    amount = math.ceil(usage.memory_bytes.maximum)
    return _need(subject, usage, Figure.MEMORY_PEAK_BYTES, amount, f"{format_mb(amount)} ({peak}, need unknown)")


def _need(subject: Subject, usage: Usage, figure: Figure, amount: int, text: str) -> _Need:
    sure = certainty(figure, subject)
    doubt = ""
    if sure is Certainty.AT_LEAST:
        busy = figure.of_cpu_rate and held_up_by_others(usage)
        doubt = f"{usage.others_cpu_share:.0%} of the host's CPUs were busy with other work" if busy else _UNSEEN
    return _Need(amount, f"{sure.value}{text}", doubt)


def _gpu_need(usage: Usage, advice: Resources) -> _Need:
    """As many as are recommended, where that comes from having been seen on some."""
    if advice.gpu_count is None or not any(gpu.used for gpu in usage.gpus):
        return _Need(None, "it was seen on none: how many it needs is not known")
    return _Need(advice.gpu_count, f"{_gpus(advice.gpu_count)} (those that it was seen on)")


def _cores(millicores: int) -> str:
    return f"{format_cores(millicores)} CPU"


def _gpus(count: int) -> str:
    return f"{count} GPU"


_CPU, _MEMORY, _GPUS = _Kind(_cores, 100), _Kind(format_size, 64 * MIB), _Kind(_gpus, 0)
_KINDS = {
    Rule.CPU_REQUEST: _CPU,
    Rule.MEMORY_REQUEST: _MEMORY,
    Rule.GPU_REQUEST: _GPUS,
    Rule.CPU_LIMIT: _CPU,
    Rule.MEMORY_LIMIT: _MEMORY,
}
_REQUESTS = (Rule.CPU_REQUEST, Rule.MEMORY_REQUEST, Rule.GPU_REQUEST)
_UNSEEN = "not all of its life was seen"


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
    if verdict is Ruling.FAILED and found.before_certainty is Certainty.AT_LEAST:
        verdict, excuse = Ruling.SKIPPED, "but the baseline may have used as much: more than its figure is not known"
    above = f"grown by more than {_number(bounds.max_growth * 100)} %"
    return Check(name, rule, verdict, f"{text}: {above}{', ' if excuse else ''}{excuse}")
