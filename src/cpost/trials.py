"""What a run under limits says: whether it held, and why not. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cpost.model import Enforced, Outcome, Sample, StepResult, Trial, Usage, Verdict, allowance_ns
from cpost.units import MILLICORES_PER_CORE, NS_PER_MS, NS_PER_S, NS_PER_US, format_seconds

_PATIENCE, _START_NS = 3, 5 * NS_PER_S
_PERIOD_NS = 100 * NS_PER_MS  # of the CPU scheduler's quota, where nobody says otherwise (engines do not)
NEAR_LIMIT = 0.95


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


def judge(
    run: Observed,
    enforced: Sequence[Enforced],
    baseline_wall_ns: int | None,
    max_slowdown: float,
    *,
    fixed: bool = False,
) -> Trial:
    """Say whether an operator held under its limits.

    Args:
        enforced: on the operator, then on its servers.
        baseline_wall_ns: its time without them.
        max_slowdown: how much longer it may take, as a share; a tenth of a second is never held against it.
        fixed: it runs for a set time, which says nothing. It may then be held back by its limits in that share of it.
    """
    trial = Trial(
        enforced=tuple(enforced),
        verdict=Verdict.HOLDS,
        cause="",
        result=run.result,
        usage=run.usage,
        slowdown=None if fixed else _slowdown(run.result, baseline_wall_ns),
        throttled_share=throttled_share(run.result),
        stalled_share=_stalled_share(run),
        servers=run.servers,
        series_file=run.series_file,
    )
    broken = _broken(trial)
    if broken:
        return replace(trial, verdict=Verdict.BROKEN, cause=broken)
    slow = _slow_for_its_set_time(trial, max_slowdown) if fixed else _slow(trial, baseline_wall_ns, max_slowdown)
    return replace(trial, verdict=Verdict.SLOW, cause=slow) if slow else trial


def _broken(trial: Trial) -> str:
    """What broke, in words; empty where nothing did."""
    result = trial.result
    if result.outcome not in (Outcome.COMPLETED, Outcome.TIMED_OUT):
        return result.cause or result.outcome.value
    for each, name in containers(trial):
        if was_killed(each):
            return f"a process of {name.name} was killed for memory"
    failed = failed_servers(trial)
    return f"{failed[0].name} failed" if failed else ""


def containers(trial: Trial) -> list[tuple[StepResult, Enforced]]:
    """How the operator and its servers ended, each with its limits."""
    return list(zip((trial.result, *trial.servers), trial.enforced, strict=False))


def was_killed(result: StepResult) -> bool:
    """Whether anything of a container was killed for memory."""
    return result.outcome is Outcome.OOM_KILLED or bool(result.totals and result.totals.oom_kills)


def failed_servers(trial: Trial) -> list[Enforced]:
    """The servers that did not stay up to the end under their limits; one without limits did so by itself."""
    _, *servers = containers(trial)
    return [each for result, each in servers if result.outcome is Outcome.FAILED and _is_limited(each)]


def _is_limited(each: Enforced) -> bool:
    return each.limits.memory_bytes is not None or each.dev_shm_bytes is not None


# ---------------------------------------------------------------- slow


def _slow(trial: Trial, baseline_wall_ns: int | None, max_slowdown: float) -> str:
    """In which way it was too slow, in words; empty where it was not."""
    if trial.result.outcome is Outcome.TIMED_OUT:
        if trial.result.wall_ns is None:
            return trial.result.cause or "was stopped"
        after = f" after {format_seconds(trial.result.wall_ns)}"
        than = f", where it took {format_seconds(baseline_wall_ns)} without limits" if baseline_wall_ns else ""
        return ", ".join([f"was stopped{after}{than}", *held_back(trial)])
    if trial.slowdown is None or not _takes_too_long(trial.result, baseline_wall_ns, max_slowdown):
        return ""
    return ", ".join([f"took {trial.slowdown * 100:.0f} % longer", *held_back(trial)])


def _slow_for_its_set_time(trial: Trial, most_share: float) -> str:
    """Likewise, of what is stopped after a set time whatever it gets done in it."""
    shares = [trial.throttled_share, trial.stalled_share, *map(throttled_share, trial.servers)]
    if max(share or 0 for share in shares) > most_share:
        servers = zip(trial.enforced[1:], trial.servers, strict=False)
        beside = [
            f"{each.name} in {share * 100:.0f} %"
            for each, result in servers
            if (share := throttled_share(result)) is not None and share > most_share
        ]
        return ", ".join(["ran for its set time", *held_back(trial), *beside])
    need_bytes, limit_bytes = trial.usage and trial.usage.need_peak_bytes, trial.enforced[0].limits.memory_bytes
    if trial.stalled_share is None and need_bytes and limit_bytes and need_bytes >= NEAR_LIMIT * limit_bytes:
        return "could not do without any of the memory that its limit leaves it"
    return ""


def held_back(trial: Trial) -> list[str]:
    """By what, and in how much of its life, in words, as far as anybody counted."""
    parts = []
    if trial.throttled_share is not None:
        parts.append(f"held back by its CPU limit in {trial.throttled_share * 100:.0f} % of the time")
    if trial.stalled_share is not None:
        parts.append(f"waiting for memory in {trial.stalled_share * 100:.0f} %")
    return parts


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
