"""Proves recommendations: runs operators with them as limits, and says in the record what came of it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import cpost
from cpost.errors import Interrupted
from cpost.limited import ENDS_ALL, LimitedRuns, NotRun
from cpost.measure.outcome import iso_time
from cpost.model import (
    LEAST_MEMORY_BYTES,
    Advice,
    Enforced,
    HostFacts,
    OperatorRecord,
    Recommendation,
    Resources,
    ServerRecord,
    Step,
    Trial,
    Verdict,
    Verification,
)
from cpost.raises import SHORT_SHARE, lasting, next_try
from cpost.spread import baseline_wall_ns
from cpost.trials import held_back
from cpost.units import MB, MILLICORES_PER_CORE, format_mb, format_seconds, round_up

_MUCH_CACHED_BYTES = 16 * MB  # of inputs, which a reader with a small limit might have been slower without
# How the reasons begin that an earlier verification left.
_PROOFS = ("verified:", "not verified:", "raised:", "tried again:", "not tried again:", "put back:")


class Verifier:
    """Proves recommendations by running operators with them as limits, raising those that do not hold.

    Args:
        runs: runs under limits.
        here: the host that they are on.
        measured: the host that the recommendations are from.
    """

    def __init__(self, runs: LimitedRuns, here: HostFacts, measured: HostFacts) -> None:
        self._runs = runs
        self._here = here
        self._is_elsewhere = (here.hostname, here.cpus) != (measured.hostname, measured.cpus)

    def verify(self, step: Step, record: OperatorRecord) -> OperatorRecord:
        """Run a step with its recommendation enforced, again with higher limits where that does not hold.

        Args:
            record: of the step's run without limits; without a recommendation there is nothing to prove.

        Returns:
            The record with the verification and the recommendation that came of it. Where a run under limits ended by
            a signal or with the engine, of the runs before; as it was where there were none.
        """
        if record.recommendation.status is not Advice.OK:
            return record
        baseline_ns = baseline_wall_ns(record)
        wanted, why = _with_least(_recommended(step, record), step)
        try:
            trials, cut_short = self._tried(step, wanted, why, len(record.repeats) or 1, baseline_ns)
        except NotRun as error:
            return _unproven(record, str(error))
        if not trials:
            return record
        if cut_short:
            why.append("tried again: a run that did not come to its end, and says nothing")
        found = Verification(
            verdict=trials[-1].verdict,
            baseline_wall_ns=baseline_ns,
            max_slowdown=self._runs.max_slowdown,
            trials=tuple(trials),
            ended_at=iso_time(time.time_ns()),
            hostname=self._here.hostname,
            cpus=self._here.cpus,
            cpost_version=cpost.__version__,
        )
        return _proven(record, found, wanted, [*self._said(step, found, wanted), *why])

    def _tried(
        self, step: Step, wanted: Sequence[Enforced], why: list[str], earlier: int, baseline_ns: int | None
    ) -> tuple[list[Trial], bool]:
        """The runs under limits that came to their end, and whether one did not; what was done on the way goes into
        `why`."""
        cores = self._runs.cores
        short = SHORT_SHARE if step.duration_ns is None else min(SHORT_SHARE, self._runs.max_slowdown)
        trials: list[Trial] = []
        enforced = _possible(wanted, step, cores)
        while True:
            try:
                trial = self._runs.run(step, enforced, len(trials) + 1, earlier + len(trials), baseline_ns)
            except Interrupted:
                return trials, True
            except NotRun as error:
                if not trials:
                    raise
                why[-1] = f"not tried again: {error}"  # nor raised
                return trials, False
            if trial.result.outcome in ENDS_ALL:
                return trials, True
            trials.append(trial)
            following = next_try(trials, cores, step.granularity, short)
            if following is None:
                return trials, False
            possible = _possible(following[0], step, cores)
            if possible == enforced and following[0] != enforced:
                return trials, False  # the host has no more
            enforced = possible
            why.append(following[1])

    def _said(self, step: Step, found: Verification, wanted: Sequence[Enforced]) -> list[str]:
        """What came of it, in words."""
        last = found.trials[-1]
        verb = {Verdict.HOLDS: "held", Verdict.SLOW: "was too slow", Verdict.BROKEN: "failed"}[found.verdict]
        told = f" ({last.cause})" if last.cause else _time(last)
        if _clamped(wanted, found.trials):
            most = "; ".join(f"{each.name}: {each.text}" for each in last.enforced)
            said = f"not verified: this host cannot give as much; with {most} it {verb}{told}"
        elif found.verdict is Verdict.HOLDS:
            said = f"verified: held in a run under these limits{told}"
        else:
            said = f"not verified: under these limits it {verb}{told}"
        shared = [server.name for server in step.servers if server.shared]
        if shared:
            said += f"; {', '.join(shared)}, which other operators share, had no limits"
        if step.duration_ns is None and not found.baseline_wall_ns:
            said += "; whether it was slower is not known, as its time without limits is not"
        if last.cached_input_bytes is not None and last.cached_input_bytes >= _MUCH_CACHED_BYTES:
            said += f"; {format_mb(last.cached_input_bytes)} of its inputs lay in the page cache, for free"
        if self._is_elsewhere:
            said += f"; on another host ({self._here.hostname}), so its time says little"
        put_back = lasting(found.trials) != last.enforced
        return [said, *(["put back: it failed with more, too"] if put_back else [])]


# ---------------------------------------------------------------- limits


def _recommended(step: Step, record: OperatorRecord) -> tuple[Enforced, ...]:
    """What is recommended for an operator and for its own servers; nothing for one without a recommendation."""
    servers = {server.name: server.recommendation for server in record.servers}
    own = [server for server in step.servers if not server.shared]
    return (
        _enforced(step.operator, record.recommendation),
        *(_enforced(server.step.operator, servers[server.name]) for server in own if server.name in servers),
    )


def _enforced(name: str, advice: Recommendation) -> Enforced:
    if advice.status is not Advice.OK:
        return Enforced(name, Resources())
    requests = advice.requests
    return Enforced(name, Resources(requests.cpu_millicores, requests.memory_bytes), advice.dev_shm_bytes)


def _with_least(recommended: Sequence[Enforced], step: Step) -> tuple[list[Enforced], list[str]]:
    """What is recommended, and no less memory than a container starts with, in the format's steps; and why."""
    least = round_up(LEAST_MEMORY_BYTES, step.granularity.memory_step_bytes)
    wanted, why = [], []
    for each in recommended:
        memory = each.limits.memory_bytes
        if memory is not None and memory < least:
            why.append(f"raised: memory of {each.name} to {format_mb(least)}: engines start no container with less")
            each = replace(each, limits=replace(each.limits, memory_bytes=least))
        wanted.append(each)
    return wanted, why


def _possible(enforced: Sequence[Enforced], step: Step, cores: int) -> tuple[Enforced, ...]:
    """As far as this host can give it."""

    def clamped(each: Enforced) -> Enforced:
        cpu, memory = each.limits.cpu_millicores, each.limits.memory_bytes
        if cpu is not None:
            cpu = min(cpu, cores * MILLICORES_PER_CORE)
        if memory is not None:
            memory = min(memory, step.memory_limit_bytes or memory)
        return replace(each, limits=Resources(cpu, memory))

    return tuple(map(clamped, enforced))


def _clamped(wanted: Sequence[Enforced], trials: Sequence[Trial]) -> bool:
    """Whether anything could be given less than is recommended for it."""
    return any(
        _highest(before.limits, now.limits) != now.limits
        for before, now in zip(wanted, trials[-1].enforced, strict=False)
    )


def _highest(one: Resources, other: Resources) -> Resources:
    """The higher of each amount, as far as the second has it."""

    def higher(before: int | None, now: int | None) -> int | None:
        return now if before is None or now is None else max(before, now)

    return replace(
        other,
        cpu_millicores=higher(one.cpu_millicores, other.cpu_millicores),
        memory_bytes=higher(one.memory_bytes, other.memory_bytes),
    )


# ---------------------------------------------------------------- into the record


def _proven(
    record: OperatorRecord, found: Verification, wanted: Sequence[Enforced], reasons: Sequence[str]
) -> OperatorRecord:
    """The record with what came of it as its recommendation; what this host cannot give stays as it was."""
    verdict = None if _clamped(wanted, found.trials) else found.verdict
    before = {each.name: each for each in wanted}
    limits = {
        each.name: replace(each, limits=_highest(before[each.name].limits, each.limits))
        for each in lasting(found.trials)
    }

    def server(each: ServerRecord) -> ServerRecord:
        enforced = limits.get(f"{record.operator}__{each.name}")
        return replace(each, recommendation=_marked(each.recommendation, enforced, verdict, reasons))

    servers = tuple(map(server, record.servers))
    advice = _marked(record.recommendation, limits[record.operator], verdict, reasons)
    return replace(record, recommendation=advice, verification=found, servers=servers)


def _unproven(record: OperatorRecord, reason: str) -> OperatorRecord:
    advice = record.recommendation
    reasons = (*_unproofed(advice.reasons), f"not verified: {reason}")
    return replace(record, recommendation=replace(advice, reasons=reasons, verified=None))


def _unproofed(reasons: Sequence[str]) -> Iterator[str]:
    return (reason for reason in reasons if not reason.startswith(_PROOFS))


def _marked(
    advice: Recommendation, enforced: Enforced | None, verdict: Verdict | None, reasons: Sequence[str]
) -> Recommendation:
    if enforced is None or advice.status is not Advice.OK:
        return advice
    amounts = enforced.limits
    requests = replace(advice.requests, cpu_millicores=amounts.cpu_millicores, memory_bytes=amounts.memory_bytes)
    # A limit that the policy sets is the request it was made of, or lies open.
    limits = replace(
        advice.limits,
        cpu_millicores=amounts.cpu_millicores if advice.limits.cpu_millicores is not None else None,
        memory_bytes=amounts.memory_bytes if advice.limits.memory_bytes is not None else None,
    )
    return replace(
        advice,
        requests=requests,
        limits=limits,
        dev_shm_bytes=enforced.dev_shm_bytes,
        reasons=(*_unproofed(advice.reasons), *reasons),
        verified=verdict,
    )


def _time(trial: Trial) -> str:
    wall_ns = trial.result.wall_ns
    if wall_ns is None:
        return ""
    slowdown = [f"{trial.slowdown * 100:+.1f} %"] if trial.slowdown is not None else held_back(trial)
    return f" ({', '.join([format_seconds(wall_ns), *slowdown])})"
