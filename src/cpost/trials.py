"""What a run under limits says: whether it held, why not, and which limit is to be raised by how much. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cpost.model import Enforced, Outcome, Resources, Sample, StepResult, Trial, Usage, Verdict, allowance_ns
from cpost.units import MB, MILLICORES_PER_CORE, NS_PER_MS, NS_PER_S, NS_PER_US, format_seconds, round_up

MOST_TRIALS = 4  # the recommendation, and three raises
_PATIENCE, _START_NS = 3, 5 * NS_PER_S
_PERIOD_NS = 100 * NS_PER_MS  # of the CPU scheduler's quota, where nobody says otherwise (engines do not)
_THROTTLED = 0.05
_STALLED = 0.05
_NEAR_LIMIT = 0.95
_MEMORY_FACTOR_PERCENT, _MEMORY_STEP_BYTES = 150, 16 * MB
_CPU_FACTOR_PERCENT = 150


@dataclass(frozen=True, slots=True)
class Observed:
    """One run of an operator and its servers, as it was measured.

    Attributes:
        last: its last sample.
        servers: how they ended.
    """

    result: StepResult
    usage: Usage | None
    last: Sample | None
    servers: tuple[StepResult, ...] = ()
    series_file: str = ""


def longest_ns(
    own: Enforced, baseline_wall_ns: int | None, max_slowdown: float, cores: int, asked_ns: int | None
) -> int | None:
    """How long a run under limits may take before it is stopped; None = for ever.

    Three times as long as without limits and 5 s: below its need an operator may thrash for hours before it dies, and
    is too slow long before. Cores alone make nobody thrash, so with few of them it may take as many times longer as
    the host has more.

    Args:
        own: the limits of the operator.
        asked_ns: the user's time-out. It bounds runs without limits: one that is allowed to be slower than these is
            not broken by it.
    """
    if not baseline_wall_ns:
        return asked_ns
    allowed_ns = baseline_wall_ns + allowance_ns(baseline_wall_ns, max_slowdown)
    cpu, patient_ns = own.limits.cpu_millicores, _PATIENCE * baseline_wall_ns
    if cpu and own.limits.memory_bytes is None:
        patient_ns = max(patient_ns, patient_ns * cores * MILLICORES_PER_CORE // cpu)
    if asked_ns is not None:
        patient_ns = min(patient_ns, asked_ns)
    return max(patient_ns, allowed_ns) + _START_NS


def judge(run: Observed, enforced: Sequence[Enforced], baseline_wall_ns: int | None, max_slowdown: float) -> Trial:
    """Say whether an operator held under its limits.

    Args:
        enforced: on the operator, then on its servers.
        baseline_wall_ns: its time without them.
        max_slowdown: how much longer it may take, as a share; a tenth of a second is never held against it.
    """
    slowdown = _slowdown(run.result, baseline_wall_ns)
    trial = Trial(
        enforced=tuple(enforced),
        verdict=Verdict.HOLDS,
        cause="",
        result=run.result,
        usage=run.usage,
        slowdown=slowdown,
        throttled_share=throttled_share(run.result),
        stalled_share=_stalled_share(run),
        servers=run.servers,
        series_file=run.series_file,
    )
    broken = _broken(trial)
    if broken:
        return replace(trial, verdict=Verdict.BROKEN, cause=broken)
    if run.result.outcome is Outcome.TIMED_OUT:
        return replace(trial, verdict=Verdict.SLOW, cause=_stopped(trial, baseline_wall_ns))
    if slowdown is not None and _takes_too_long(run.result, baseline_wall_ns, max_slowdown):
        return replace(trial, verdict=Verdict.SLOW, cause=_slow(trial, slowdown))
    return trial


def _broken(trial: Trial) -> str:
    result = trial.result
    if result.outcome not in (Outcome.COMPLETED, Outcome.TIMED_OUT):
        return result.cause or result.outcome.value
    for each, name in zip((result, *trial.servers), trial.enforced, strict=False):
        if _killed(each):
            return f"a process of {name.name} was killed for memory"
    return ""


def _stopped(trial: Trial, baseline_wall_ns: int | None) -> str:
    wall_ns = trial.result.wall_ns
    after = f" after {format_seconds(wall_ns)}" if wall_ns is not None else ""
    than = f", where it took {format_seconds(baseline_wall_ns)} without limits" if baseline_wall_ns else ""
    return _held_back(f"was stopped{after}{than}", trial)


def _slow(trial: Trial, slowdown: float) -> str:
    return _held_back(f"took {slowdown * 100:.0f} % longer", trial)


def _held_back(said: str, trial: Trial) -> str:
    parts = [said]
    if trial.throttled_share is not None:
        parts.append(f"held back by its CPU limit in {trial.throttled_share * 100:.0f} % of the time")
    if trial.stalled_share is not None:
        parts.append(f"waiting for memory in {trial.stalled_share * 100:.0f} %")
    return ", ".join(parts)


def _takes_too_long(result: StepResult, baseline_wall_ns: int | None, max_slowdown: float) -> bool:
    """In whole nanoseconds: a share that is allowed to the last digit is not lost to rounding."""
    if result.wall_ns is None or not baseline_wall_ns:
        return False
    return result.wall_ns - baseline_wall_ns > allowance_ns(baseline_wall_ns, max_slowdown)


def _slowdown(result: StepResult, baseline_wall_ns: int | None) -> float | None:
    """Of a run that came to its end: one that was cut short took no time that says anything."""
    if result.outcome is not Outcome.COMPLETED or result.wall_ns is None or not baseline_wall_ns:
        return None
    return result.wall_ns / baseline_wall_ns - 1


def throttled_share(result: StepResult) -> float | None:
    """Of the scheduler's periods in a life, those in which the quota ran out; None where nobody counted."""
    if result.totals is None or result.totals.throttled_periods is None or not result.wall_ns:
        return None
    return min(1.0, result.totals.throttled_periods * _PERIOD_NS / result.wall_ns)


def _stalled_share(run: Observed) -> float | None:
    detail = run.last.detail if run.last is not None else None
    if detail is None or detail.psi_memory_some_us is None or not run.result.wall_ns:
        return None
    return detail.psi_memory_some_us * NS_PER_US / run.result.wall_ns


# ---------------------------------------------------------------- raising


def raised(trial: Trial, cores: int | None = None) -> tuple[tuple[Enforced, ...], str] | None:
    """Higher limits for another try, and why; None where no limit seems to be to blame.

    The rule: memory by half, rounded up to 16 MB, for a container that was killed for memory, or that took too long and
    was at its limit or waited for memory in over 5 % of the time; CPU by half, at least a core, where its quota ran out
    in over 5 % of the periods; /dev/shm to the double where it was full. An operator that failed otherwise gets half as
    much memory again, as some programs answer a refused allocation by failing, and /dev/shm to the double: what fills
    it just before the end is seen by no sample.

    Args:
        cores: how many the host has: a CPU limit of so many or more holds nothing back. None = not known.
    """
    results = zip(trial.enforced, (trial.result, *trial.servers), strict=False)
    killed = [each for each, result in results if _killed(result)]
    if killed:
        higher = tuple(_more_memory(each) if each in killed else each for each in trial.enforced)
        return higher, f"memory of {', '.join(each.name for each in killed)} by half: killed for memory"
    if trial.verdict is Verdict.SLOW:
        return _raised_for_speed(trial, cores)
    own, *others = trial.enforced
    shm_peak = trial.usage.dev_shm_peak_bytes if trial.usage else None
    if own.dev_shm_bytes and shm_peak is not None and shm_peak >= _NEAR_LIMIT * own.dev_shm_bytes:
        return (_more_shm(own), *others), "shared memory to the double: it was full"
    if trial.result.outcome is Outcome.FAILED and (own.limits.memory_bytes or own.dev_shm_bytes):
        higher = (_more_shm(_more_memory(own)), *others)
        return higher, "memory by half, shared memory to the double: it failed without being killed"
    return None


def _raised_for_speed(trial: Trial, cores: int | None) -> tuple[tuple[Enforced, ...], str] | None:
    own, *others = trial.enforced
    if _lacks_cpu(own, trial.throttled_share, cores):
        return (_more_cpu(own), *others), "CPU by half: it was held back by its limit"
    for place, result in enumerate(trial.servers):
        server = others[place]
        if _lacks_cpu(server, throttled_share(result), cores):
            others[place] = _more_cpu(server)
            return (own, *others), f"CPU of {server.name} by half: it was held back by its limit"
    peak = trial.usage.memory_bytes.maximum if trial.usage else None
    at_limit = own.limits.memory_bytes and peak is not None and peak >= _NEAR_LIMIT * own.limits.memory_bytes
    if at_limit or (trial.stalled_share or 0) > _STALLED:
        return (_more_memory(own), *others), "memory by half: it was at its limit"
    return None


def _lacks_cpu(each: Enforced, throttled: float | None, cores: int | None) -> bool:
    limit = each.limits.cpu_millicores
    has_all = cores is not None and limit is not None and limit >= cores * MILLICORES_PER_CORE
    return limit is not None and not has_all and (throttled or 0) > _THROTTLED


def _killed(result: StepResult) -> bool:
    return result.outcome is Outcome.OOM_KILLED or bool(result.totals and result.totals.oom_kills)


def _more_memory(each: Enforced) -> Enforced:
    memory = each.limits.memory_bytes
    if memory is None:
        return each
    higher = round_up(-(-memory * _MEMORY_FACTOR_PERCENT // 100), _MEMORY_STEP_BYTES)
    return replace(each, limits=replace(each.limits, memory_bytes=higher))


def _more_shm(each: Enforced) -> Enforced:
    return replace(each, dev_shm_bytes=2 * each.dev_shm_bytes) if each.dev_shm_bytes else each


def _more_cpu(each: Enforced) -> Enforced:
    cpu = each.limits.cpu_millicores or 0
    higher = max(cpu + MILLICORES_PER_CORE, round_up(cpu * _CPU_FACTOR_PERCENT // 100, MILLICORES_PER_CORE))
    return replace(each, limits=replace(each.limits, cpu_millicores=higher))


def requests_of(each: Enforced, before: Resources) -> Resources:
    """A recommendation's requests with what was enforced in their place; GPUs are not limited."""
    return replace(before, cpu_millicores=each.limits.cpu_millicores, memory_bytes=each.limits.memory_bytes)
