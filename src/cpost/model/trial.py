"""Runs under limits: whether a recommendation holds, and how small it can be."""

from __future__ import annotations

from dataclasses import dataclass

from cpost.model.definition import Resources
from cpost.model.readings import StepResult
from cpost.model.sizing import Usage, Verdict
from cpost.units import MIB, NS_PER_S, format_cores, format_limit, format_mb

LEAST_MEMORY_BYTES = 6 * MIB  # engines set no smaller limit
# A start takes some 10 ms more or less, whatever the operator: less than this is no slowdown.
_GRAIN_NS = NS_PER_S // 10


def allowance_ns(baseline_wall_ns: int, max_slowdown: float) -> int:
    """How much longer than without limits a run may take: a share of that time, a tenth of a second at least."""
    return max(round(baseline_wall_ns * max_slowdown), _GRAIN_NS)


@dataclass(frozen=True, slots=True)
class Enforced:
    """What one container was limited to; None = as in any run.

    Attributes:
        name: the operator's, or its server's (operator, two underscores, server).
    """

    name: str
    limits: Resources
    dev_shm_bytes: int | None = None

    @property
    def text(self) -> str:
        """The limits in words: "cpu 1, memory 256.000 MB, shared memory 67.109 MB"."""
        parts = []
        if self.limits.cpu_millicores is not None:
            parts.append(f"cpu {format_cores(self.limits.cpu_millicores)}")
        if self.limits.memory_bytes is not None:
            parts.append(f"memory {format_limit(self.limits.memory_bytes)}")
        if self.dev_shm_bytes is not None:
            parts.append(f"shared memory {format_mb(self.dev_shm_bytes)}")
        return ", ".join(parts) or "no limits"


@dataclass(frozen=True, slots=True)
class Trial:
    """One run of an operator under limits.

    Attributes:
        enforced: on the operator, then on its servers.
        cause: one line in words; empty where it holds.
        slowdown: its time over the time without limits, less one; None where either is not known, or it did not end
            well.
        throttled_share: of the CPU scheduler's periods (100 ms) in its life, those in which it had used up its share.
        stalled_share: of its life, the time in which some task of it waited for memory (PSI); None = the kernel does
            not tell.
        servers: how they ended, in the order of `enforced`.
        cached_input_bytes: of its inputs, what lay in the page cache when it began: no limit pays for that. None = the
            kernel does not tell.
    """

    enforced: tuple[Enforced, ...]
    verdict: Verdict
    cause: str
    result: StepResult
    usage: Usage | None = None
    slowdown: float | None = None
    throttled_share: float | None = None
    stalled_share: float | None = None
    servers: tuple[StepResult, ...] = ()
    series_file: str = ""
    cached_input_bytes: int | None = None

    def __post_init__(self) -> None:
        """Raise `ValueError` where nothing says what the operator was limited to."""
        if not self.enforced:
            raise ValueError("a run under limits without the operator's limits")

    @property
    def memory_bytes(self) -> int:
        """What the operator's memory was limited to; 0 = it was not."""
        return self.enforced[0].limits.memory_bytes or 0

    @property
    def cpu_millicores(self) -> int:
        """What the operator's CPU was limited to; 0 = it was not."""
        return self.enforced[0].limits.cpu_millicores or 0


@dataclass(frozen=True, slots=True)
class Verification:
    """Whether a recommendation held when it was applied.

    Attributes:
        verdict: of the last trial. Its limits are the recommendation now, but for what the host could not give, and
            for raises that were taken back.
        baseline_wall_ns: the time without limits that trials are compared with; the median of repeats.
        max_slowdown: the most that was allowed.
        ended_at: when the last run ended (ISO 8601, UTC).
        hostname, cpus: of the host that it ran on, which need not be the one that was measured on; empty, None = not
            told.
        cpost_version: which cpost did it; empty = not told.
    """

    verdict: Verdict
    baseline_wall_ns: int | None
    max_slowdown: float
    trials: tuple[Trial, ...]
    ended_at: str = ""
    hostname: str = ""
    cpus: int | None = None
    cpost_version: str = ""


@dataclass(frozen=True, slots=True)
class CpuChoice:
    """Numbers of cores that were tried, and what follows.

    Attributes:
        knee_millicores: the fewest cores that do: more of them save little time, or do not hold it back less often.
        cheapest_millicores: where cores times time is least; None by throttling.
        by_throttling: of an operator that runs for a set time, which no limit makes longer: judged by how often its
            quota held it back.
        cause: why it is not settled, in a few words; empty where it is.
    """

    trials: tuple[Trial, ...]
    knee_millicores: int | None = None
    cheapest_millicores: int | None = None
    by_throttling: bool = False
    settled: bool = False
    cause: str = ""


@dataclass(frozen=True, slots=True)
class MemoryChoice:
    """Memory limits that were tried, and the smallest that passed.

    Attributes:
        settled: the next smaller limit that would be tried is known to fail, or nothing smaller would be: it is what
            the operator was seen to be unable to do without, or the least that engines set.
        cause: why it is not settled, in a few words; empty where it is.
    """

    trials: tuple[Trial, ...]
    smallest_bytes: int | None = None
    settled: bool = False
    cause: str = ""


@dataclass(frozen=True, slots=True)
class Search:
    """How small an operator can be made; None = was not asked for."""

    baseline_wall_ns: int | None
    max_slowdown: float
    memory: MemoryChoice | None = None
    cpu: CpuChoice | None = None
