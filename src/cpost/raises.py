"""After a run under limits that did not hold: what to try next, and what comes of all that was tried. Pure.

A limit is raised where something shows that it was short. Whatever else went wrong is first tried once more under the
same limits: the host or chance may have done it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import pairwise

from cpost.model import Enforced, StepResult, Trial, Verdict
from cpost.model.definition import WHOLE_CORES, Granularity
from cpost.trials import NEAR_LIMIT, containers, failed_servers, throttled_share, was_killed
from cpost.units import MB, MILLICORES_PER_CORE, round_up

MOST_TRIALS = 4  # the recommendation, and three more
SHORT_SHARE = 0.05  # of the time, from which on a limit counts as short
_MEMORY_FACTOR_PERCENT, _CPU_FACTOR_PERCENT = 150, 150
_LEAST_MEMORY_STEP_BYTES, _LEAST_CPU_STEP_MILLICORES = 16 * MB, 100

Higher = tuple[tuple[Enforced, ...], str]


def next_try(
    trials: Sequence[Trial], cores: int, steps: Granularity = WHOLE_CORES, short_share: float = SHORT_SHARE
) -> Higher | None:
    """The limits to try next, and why; None where it holds, or nothing is left to try.

    Args:
        trials: of one operator, one at least.
        cores, steps, short_share: see `raised`.
    """
    last = trials[-1]
    if last.verdict is Verdict.HOLDS or len(trials) >= MOST_TRIALS:
        return None
    higher = raised(last, cores, steps, short_share)
    if higher is not None:
        return higher
    if not any(before.enforced == after.enforced for before, after in pairwise(trials)):
        slow = "no limit held it back, the host may have been busy"
        failed = "nothing shows that it lacked anything"
        return last.enforced, f"tried again: {slow if last.verdict is Verdict.SLOW else failed}"
    return _raised_blindly(last, steps) if last.verdict is Verdict.BROKEN else None


def lasting(trials: Sequence[Trial]) -> tuple[Enforced, ...]:
    """The limits that come of it: the last ones, unless all that raises did was that it failed with more, too."""
    kept = trials[-1].enforced
    for trial in reversed(trials):
        if not _failed(trial):
            break
        kept = trial.enforced
    return kept


def raised(
    trial: Trial, cores: int | None = None, steps: Granularity = WHOLE_CORES, short_share: float = SHORT_SHARE
) -> Higher | None:
    """Higher limits where something shows that one was short, and what; None where nothing does.

    The rule: memory by half for a container that was killed for memory; CPU by half where its quota ran out in too
    much of the time; memory by half where an operator was slow and waited for memory, or was at its limit where nobody
    counts that, and likewise for a server; of what failed, memory by half where it was at its limit, and /dev/shm to
    the double where anything was in it.

    Args:
        cores: how many the host has: a CPU limit of so many or more holds nothing back. None = not known.
        steps: of the format's requests.
        short_share: of the time; more of it makes a limit short.
    """
    killed = {each.name for result, each in containers(trial) if was_killed(result)}
    if killed:
        return _higher(trial, killed, _memory_by(steps), "memory of {} by half: killed for memory")
    if trial.verdict is Verdict.SLOW:
        return _raised_for_speed(trial, cores, steps, short_share)
    return _raised_for_failure(trial, steps) if _failed(trial) else None


def _raised_for_speed(trial: Trial, cores: int | None, steps: Granularity, short_share: float) -> Higher | None:
    shares = [trial.throttled_share, *map(throttled_share, trial.servers)]
    pairs = list(zip(shares, trial.enforced, strict=False))
    throttled = {each.name for share, each in pairs if (share or 0) > short_share and not _has_all(each, cores)}
    if throttled:
        return _higher(trial, throttled, _cpu_by(steps), "CPU of {} by half: held back by its limit")
    own, *servers = containers(trial)
    if trial.stalled_share is None:
        if _is_near_limit(trial, *own):
            return _higher(trial, {own[1].name}, _memory_by(steps), "memory of {} by half: it was at its limit")
    elif trial.stalled_share > short_share:
        return _higher(trial, {own[1].name}, _memory_by(steps), "memory of {} by half: it waited for memory")
    full = {each.name for result, each in servers if _is_near_limit(trial, result, each)}
    return _higher(trial, full, _memory_by(steps), "memory of {} by half: it was at its limit") if full else None


def _raised_for_failure(trial: Trial, steps: Granularity) -> Higher | None:
    """Of servers that failed, which is why their operator did; else of the operator."""
    blamed = _blamed(trial)
    full = {each.name for result, each in containers(trial) if each in blamed and _is_near_limit(trial, result, each)}
    if full:
        return _higher(trial, full, _memory_by(steps), "memory of {} by half: it failed at its limit")
    own = trial.enforced[0]
    if own in blamed and own.dev_shm_bytes and trial.usage is not None and trial.usage.dev_shm_peak_bytes:
        return _higher(trial, {own.name}, _more_shm, "shared memory of {} to the double: it failed and had used it")
    return None


def _raised_blindly(trial: Trial, steps: Granularity) -> Higher | None:
    """For what failed twice under limits that it may have been short of unseen: a program may size itself by its
    limit or answer a refusal by ending, and what fills /dev/shm just before the end is seen by no sample."""
    more_memory = _memory_by(steps)
    names = {each.name for each in _blamed(trial)}
    found = _higher(trial, names, lambda each: _more_shm(more_memory(each)), "memory of {} by half, ")
    return found and (found[0], found[1] + "shared memory to the double: it failed twice without being killed")


def _blamed(trial: Trial) -> list[Enforced]:
    return failed_servers(trial) or [trial.enforced[0]]


def _failed(trial: Trial) -> bool:
    """Whether it broke without anything of it being killed for memory."""
    return trial.verdict is Verdict.BROKEN and not any(was_killed(result) for result, _ in containers(trial))


def _is_near_limit(trial: Trial, result: StepResult, each: Enforced) -> bool:
    """Whether a container's memory came to its limit, file cache included."""
    limit_bytes, totals = each.limits.memory_bytes, result.totals
    peaks: list[float | None] = [totals.memory_peak_bytes if totals is not None else None]
    if result is trial.result and trial.usage is not None:
        peaks.append(trial.usage.memory_bytes.maximum)
    return limit_bytes is not None and any((peak or 0) >= NEAR_LIMIT * limit_bytes for peak in peaks)


def _has_all(each: Enforced, cores: int | None) -> bool:
    """Whether a container has all cores of the host."""
    limit = each.limits.cpu_millicores
    return limit is None or (cores is not None and limit >= cores * MILLICORES_PER_CORE)


# ---------------------------------------------------------------- by how much


def _higher(trial: Trial, names: Iterable[str], more: Callable[[Enforced], Enforced], why: str) -> Higher | None:
    """All limits with those of some containers raised; None where these have none that could be."""
    chosen = set(names)
    higher = tuple(more(each) if each.name in chosen else each for each in trial.enforced)
    told = [each.name for each in trial.enforced if each.name in chosen]
    return (higher, f"raised: {why.format(', '.join(told))}") if higher != trial.enforced else None


def _memory_by(steps: Granularity) -> Callable[[Enforced], Enforced]:
    step_bytes = round_up(_LEAST_MEMORY_STEP_BYTES, steps.memory_step_bytes)

    def more(each: Enforced) -> Enforced:
        memory = each.limits.memory_bytes
        if memory is None:
            return each
        higher = round_up(-(-memory * _MEMORY_FACTOR_PERCENT // 100), step_bytes)
        return replace(each, limits=replace(each.limits, memory_bytes=higher))

    return more


def _cpu_by(steps: Granularity) -> Callable[[Enforced], Enforced]:
    def more(each: Enforced) -> Enforced:
        cpu = each.limits.cpu_millicores or 0
        higher = max(cpu + _LEAST_CPU_STEP_MILLICORES, cpu * _CPU_FACTOR_PERCENT // 100)
        return replace(each, limits=replace(each.limits, cpu_millicores=round_up(higher, steps.cpu_step_millicores)))

    return more


def _more_shm(each: Enforced) -> Enforced:
    return replace(each, dev_shm_bytes=2 * each.dev_shm_bytes) if each.dev_shm_bytes else each
