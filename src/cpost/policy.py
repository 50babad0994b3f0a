"""Usage -> recommendation: a policy is a frozen dataclass of settings and one pure function.

Memory margins are on top of a peak, never of a percentile: a request below the peak gets the operator killed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from cpost.model import (
    ENGINE_STATS,
    PROCESS_TREE,
    Advice,
    Outcome,
    Recommendation,
    Repeat,
    RepeatKind,
    Resources,
    StepResult,
    Usage,
    held_up_by_others,
)
from cpost.model.definition import WHOLE_CORES, Granularity
from cpost.model.gpu import GpuMemorySource, GpuUsage
from cpost.units import MB, MIB, MILLICORES_PER_CORE, format_limit, format_mb, format_percent, round_up

_DEFAULT_DEV_SHM_BYTES = 64 * MIB
_FEWEST_LOOKS = 20  # a second of looks, before "never seen" is taken for an answer
_OPERATOR = "the operator"
_OUTCOME_REASONS = {
    Outcome.FAILED: f"{_OPERATOR} failed",
    Outcome.OOM_KILLED: "it needs more memory than it could get",
    Outcome.TIMED_OUT: "its time was up before its end",
    Outcome.INTERRUPTED: "it did not come to its end",
    Outcome.ENGINE_LOST: "it was not seen to its end",
}
# How a reason begins, by what it is the reason for.
_CPU_REASON, _MEMORY_REASON, _DEV_SHM_REASON, _GPU_REASON = "cpu:", "memory:", "shared memory (/dev/shm):", "gpu:"

_SERVER_REASON = "a server: CPU while its operator ran; memory over its whole life, loading of models included"
_UNLOADED_REASON = "a server: CPU and memory over its whole life, as no two samples came while its operator ran"
_DOUBTS = {
    ENGINE_STATS: "measured by the engine's statistics, one sample a second: what peaked in between was not seen, and "
    "more may be needed",
    PROCESS_TREE: "measured by the process tree: memory is an estimate (shared pages count several times, file cache "
    "and kernel memory do not), and what peaked between samples was not seen",
}
_BUSY = "the host was busy with other work: more CPU may be needed; measure again when it is quiet"


@dataclass(frozen=True, slots=True)
class PeakPolicy:
    """The first cpost's rule: whole cores of the highest CPU window, memory peak + 100 MB in steps of 256 MB."""

    name: str = "peak"
    cpu_step_millicores: int = MILLICORES_PER_CORE
    memory_margin_bytes: int = 100 * MB
    memory_step_bytes: int = 256 * MB


@dataclass(frozen=True, slots=True)
class PercentilePolicy:
    """CPU that suffices for `percentile` % of the time; memory need peak + 15 % and some of the cache it had.

    A program that streams files crawls without any cache to stream through, though nothing kills it, so what it had
    of it is kept up to `most_cache_bytes`. A Clara definition takes whole cores and whole megabytes only; other
    formats have finer steps.
    """

    name: str
    percentile: int
    cpu_step_millicores: int = MILLICORES_PER_CORE
    memory_margin_percent: int = 15
    most_cache_bytes: int = 32 * MB
    memory_step_bytes: int = MB


def peak(usage: Usage, policy: PeakPolicy) -> Recommendation:
    """Requests by the first cpost's rule; Clara's requests also act as ceilings, so the limits are the same."""
    cpu, memory = usage.cpu_pct.maximum, usage.memory_bytes.maximum
    if cpu is None or memory is None:
        return refuse(policy.name, _unmeasured(cpu, memory))
    requests = Resources(
        cpu_millicores=_cpu(cpu, policy.cpu_step_millicores),
        memory_bytes=round_up(math.ceil(memory) + policy.memory_margin_bytes, policy.memory_step_bytes),
    )
    window_ms = usage.window_ns // 10**6
    reasons = (
        f"{_CPU_REASON} highest {window_ms} ms window {format_percent(cpu)}, {_rounded(policy.cpu_step_millicores)}",
        f"{_MEMORY_REASON} {_peak_name(usage)} {format_mb(memory)} + {format_mb(policy.memory_margin_bytes)}, "
        f"rounded up to {format_limit(policy.memory_step_bytes)} steps",
    )
    return Recommendation(policy.name, Advice.OK, requests, requests, reasons)


def percentile(usage: Usage, policy: PercentilePolicy) -> Recommendation:
    """Requests from a CPU percentile and the memory need; the memory limit equals the request, CPU has no limit."""
    cpu = usage.cpu_pct.p95 if policy.percentile == 95 else usage.cpu_pct.p99
    need = _need(usage)
    if cpu is None or need is None:
        return refuse(policy.name, _unmeasured(cpu, need))
    need_bytes = math.ceil(need)
    margin_bytes = -(-need_bytes * policy.memory_margin_percent // 100)
    margin_bytes += min(policy.most_cache_bytes, usage.cache_peak_bytes or 0)
    memory_bytes = max(policy.memory_step_bytes, round_up(need_bytes + margin_bytes, policy.memory_step_bytes))
    kind = "need peak" if usage.need_peak_bytes is not None else f"{_peak_name(usage)} (need unknown)"
    reasons = (
        f"{_CPU_REASON} {policy.percentile} % of the time at or below {format_percent(cpu)}, "
        f"{_rounded(policy.cpu_step_millicores)}",
        f"{_MEMORY_REASON} {kind} {format_mb(need)} + {policy.memory_margin_percent} %{_cache(usage, policy)}",
    )
    requests = Resources(_cpu(cpu, policy.cpu_step_millicores), memory_bytes)
    return Recommendation(policy.name, Advice.OK, requests, Resources(memory_bytes=memory_bytes), reasons)


POLICIES: Mapping[str, Callable[[Usage, Granularity], Recommendation]] = {
    "peak": lambda usage, steps: peak(
        usage,
        PeakPolicy(cpu_step_millicores=steps.cpu_step_millicores, memory_step_bytes=steps.peak_memory_step_bytes),
    ),
    "p95": lambda usage, steps: percentile(usage, _percentile_policy(95, steps)),
    "p99": lambda usage, steps: percentile(usage, _percentile_policy(99, steps)),
}


def _percentile_policy(percent: int, steps: Granularity) -> PercentilePolicy:
    return PercentilePolicy(
        f"p{percent}",
        percent,
        cpu_step_millicores=steps.cpu_step_millicores,
        memory_step_bytes=steps.memory_step_bytes,
    )


def recommend(
    policy: str,
    result: StepResult,
    usage: Usage | None,
    memory_limit_bytes: int = 0,
    declared_gpus: int | None = None,
    given_gpus: int = 0,
    steps: Granularity = WHOLE_CORES,
) -> Recommendation:
    """Apply a policy of `POLICIES` to a step that ended well; anything else gets a refusal with its reason.

    Args:
        memory_limit_bytes: the ceiling that the step ran under; a figure at the ceiling is the ceiling's, not the
            operator's. 0 = none.
        declared_gpus: how many GPUs the operator asks for today.
        given_gpus: how many it got.
        steps: what its definition's format can say.
    """
    if result.outcome is not Outcome.COMPLETED:
        reason = _OUTCOME_REASONS[result.outcome]
        return refuse(policy, f"{reason} ({result.cause})" if result.cause else reason)
    if result.totals is not None and result.totals.oom_kills:
        return refuse(policy, f"a process of {_OPERATOR} was killed for memory: its real need was not seen")
    if usage is None:
        return refuse(policy, "no counters could be read")
    figure = _figures(policy, usage)[1]
    if figure is not None and 0 < memory_limit_bytes <= figure:
        return refuse(
            policy, f"its memory reached the limit of {format_mb(memory_limit_bytes)}: more may be of use to it"
        )
    advice = _with_dev_shm(POLICIES[policy](usage, steps), usage.dev_shm_peak_bytes)
    advice = _with_gpus(advice, usage.gpus, declared_gpus or 0, given_gpus)
    doubts = [_DOUBTS.get(result.totals.source if result.totals else ""), _BUSY if held_up_by_others(usage) else ""]
    return replace(advice, reasons=(*advice.reasons, *filter(None, doubts))) if advice.status is Advice.OK else advice


def sized_server(usage: Usage | None, load: Usage | None) -> Usage | None:
    """What a server is sized by: CPU while its operator ran, memory over its whole life.

    A start with less CPU takes longer; a start with less memory fails.
    """
    if usage is None or load is None:
        return usage
    return replace(usage, cpu_pct=load.cpu_pct, window_ns=load.window_ns)


def for_server(advice: Recommendation, load: Usage | None) -> Recommendation:
    """A recommendation made of such a usage, with that among its reasons; a refusal in words of a server."""
    if advice.status is Advice.REFUSED:
        return replace(advice, reasons=tuple(reason.replace(_OPERATOR, "the server", 1) for reason in advice.reasons))
    return replace(advice, reasons=(*advice.reasons, _SERVER_REASON if load is not None else _UNLOADED_REASON))


def _cache(usage: Usage, policy: PercentilePolicy) -> str:
    peak_bytes = usage.cache_peak_bytes
    if not peak_bytes:
        return ""
    kept_bytes = min(policy.most_cache_bytes, peak_bytes)
    rest = f" (the rest of it, up to {format_mb(peak_bytes - kept_bytes)}, can go)" if kept_bytes < peak_bytes else ""
    return f" + {format_mb(kept_bytes)} for file cache{rest}"


def _with_dev_shm(advice: Recommendation, peak_bytes: int | None) -> Recommendation:
    """Add the size of /dev/shm: the peak in it + 15 %, and what engines give unasked at least."""
    if peak_bytes is None or advice.status is not Advice.OK:
        return advice
    size_bytes = max(_DEFAULT_DEV_SHM_BYTES, round_up(peak_bytes + -(-peak_bytes * 15 // 100), MIB))
    reason = f"{_DEV_SHM_REASON} peak {format_mb(peak_bytes)} + 15 %, at least the 64 MiB that engines give unasked"
    return replace(
        advice, dev_shm_bytes=size_bytes, reasons=(*advice.reasons, reason) if peak_bytes else advice.reasons
    )


def _with_gpus(advice: Recommendation, gpus: Sequence[GpuUsage], declared: int, given: int) -> Recommendation:
    count, reason = gpu_request(gpus, declared, given)
    if advice.status is not Advice.OK or count == 0:
        return advice
    requests, limits = (replace(each, gpu_count=count) for each in (advice.requests, advice.limits))
    return replace(advice, requests=requests, limits=limits, reasons=(*advice.reasons, f"{_GPU_REASON} {reason}"))


def gpu_request(gpus: Sequence[GpuUsage], declared: int, given: int) -> tuple[int, str]:
    """How many GPUs to ask for, and why; 0 = do not ask.

    One on which no process of the operator was ever seen is not needed: whatever runs on a GPU holds memory there. But
    an operator that was seen on none keeps what it asks for: one that falls back to the CPU looks the same. A rise of
    the device's memory beside a companion shows nothing: it may be the companion's.
    """
    used = sum(gpu.used and not (gpu.companions and gpu.memory_source is GpuMemorySource.DEVICE) for gpu in gpus)
    if not gpus:
        unseen = "as declared: its GPUs could not be watched" if given else "as declared, it was run without any"
        return declared, unseen
    if used >= declared:
        return used, "as many as its processes held memory on"
    if used == 0:
        return declared, "as declared: no process of it was seen on any, so nothing better is known"
    if any(gpu.memory_source is not GpuMemorySource.PROCESSES or gpu.looks < _FEWEST_LOOKS for gpu in gpus):
        return declared, f"as declared; it was seen on {used}, but that does not tell enough of the others"
    return used, f"its processes held memory on {used} of the {declared} declared"


def recommend_worst(
    policy: str,
    repeats: Sequence[Repeat],
    planned: int,
    memory_limit_bytes: int = 0,
    declared_gpus: int | None = None,
    given_gpus: int = 0,
    steps: Granularity = WHOLE_CORES,
) -> Recommendation:
    """Apply a policy to several runs of an operator: the most that any of its measured repeats asks for.

    CPU and memory may come from different repeats; the reasons name them.

    Args:
        repeats: warm-ups too: they say nothing unless one did not end well.
        planned: how many measured repeats were asked for; fewer get a refusal.
        memory_limit_bytes, declared_gpus, given_gpus, steps: see `recommend`.
    """
    counted: list[_Judged] = []
    for repeat in repeats:
        if repeat.kind is RepeatKind.WARMUP and repeat.result.outcome is Outcome.COMPLETED:
            continue
        advice = recommend(policy, repeat.result, repeat.usage, memory_limit_bytes, declared_gpus, given_gpus, steps)
        if advice.status is Advice.REFUSED or repeat.usage is None:
            return refuse(policy, f"{repeat.name}: {advice.reasons[0]}")
        counted.append(_Judged.by(policy, repeat, repeat.usage, advice))
    if len(counted) < planned:
        return refuse(policy, f"only {len(counted)} of {planned} repeats were run")
    return counted[0].advice if planned == 1 else _worst(counted)


class _Judged(NamedTuple):
    """A repeat, what would be recommended for it alone, and the figures that this comes from."""

    repeat: Repeat
    advice: Recommendation
    cpu_pct: float
    memory_bytes: float
    dev_shm_bytes: int

    @classmethod
    def by(cls, policy: str, repeat: Repeat, usage: Usage, advice: Recommendation) -> _Judged:
        cpu, memory = _figures(policy, usage)
        return cls(repeat, advice, cpu or 0, memory or 0, usage.dev_shm_peak_bytes or 0)


def _worst(counted: Sequence[_Judged]) -> Recommendation:
    """More of a figure is never less of a request, so the repeat with the highest figure decides."""
    cpu = max(counted, key=lambda each: each.cpu_pct)
    memory = max(counted, key=lambda each: each.memory_bytes)
    dev_shm = max(counted, key=lambda each: (each.advice.dev_shm_bytes or 0, each.dev_shm_bytes))
    gpu = max(counted, key=lambda each: each.advice.requests.gpu_count or 0)
    deciding = ((cpu, _CPU_REASON), (memory, _MEMORY_REASON), (dev_shm, _DEV_SHM_REASON), (gpu, _GPU_REASON))
    starts = tuple(start for _, start in deciding)
    reasons = [
        f"{text} ({one.repeat.name})"
        for one, start in deciding
        for text in one.advice.reasons
        if text.startswith(start)
    ]
    # What is no figure's reason goes for the whole, whichever repeat it comes from.
    reasons += dict.fromkeys(text for one in counted for text in one.advice.reasons if not text.startswith(starts))
    return replace(
        memory.advice,
        requests=Resources(
            cpu.advice.requests.cpu_millicores,
            memory.advice.requests.memory_bytes,
            gpu.advice.requests.gpu_count,
        ),
        limits=Resources(
            cpu.advice.limits.cpu_millicores, memory.advice.limits.memory_bytes, gpu.advice.limits.gpu_count
        ),
        dev_shm_bytes=dev_shm.advice.dev_shm_bytes,
        reasons=tuple(reasons),
    )


def refuse(policy: str, reason: str) -> Recommendation:
    """No numbers, but a reason."""
    return Recommendation(policy, Advice.REFUSED, reasons=(reason,))


def _figures(policy: str, usage: Usage) -> tuple[float | None, float | None]:
    """What a policy of `POLICIES` looks at: CPU percent and bytes of memory."""
    cpu = usage.cpu_pct
    if policy == "peak":
        return cpu.maximum, usage.memory_bytes.maximum
    return (cpu.p95 if policy == "p95" else cpu.p99), _need(usage)


def _rounded(step_millicores: int) -> str:
    whole = step_millicores == MILLICORES_PER_CORE
    return f"rounded up to {'whole cores' if whole else f'steps of {step_millicores}m'}"


def _peak_name(usage: Usage) -> str:
    return "highest sample" if usage.peaks_sampled else "kernel peak"


def _need(usage: Usage) -> float | None:
    return usage.need_peak_bytes if usage.need_peak_bytes is not None else usage.memory_bytes.maximum


def _cpu(percent: float, step_millicores: int) -> int:
    """Millicores for a CPU percentage (100 = 1000 millicores), rounded up to the step, at least one step."""
    return max(step_millicores, round_up(math.ceil(round(percent * 10, 6)), step_millicores))


def _unmeasured(cpu: float | None, memory: float | None) -> str:
    missing = [name for name, value in (("CPU", cpu), ("memory", memory)) if value is None]
    return f"{' and '.join(missing)} could not be measured"
