"""Runs under limits: whether a recommendation holds, and how small it can be."""

from __future__ import annotations

from dataclasses import dataclass

from cpost.model.definition import Resources
from cpost.model.readings import StepResult
from cpost.model.sizing import Usage, Verdict
from cpost.units import NS_PER_S

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


@dataclass(frozen=True, slots=True)
class Verification:
    """Whether a recommendation held when it was applied.

    Attributes:
        verdict: of the last trial, whose limits are the recommendation now.
        baseline_wall_ns: the time without limits that trials are compared with; the median of repeats.
        max_slowdown: the most that was allowed.
    """

    verdict: Verdict
    baseline_wall_ns: int | None
    max_slowdown: float
    trials: tuple[Trial, ...]


@dataclass(frozen=True, slots=True)
class CpuChoice:
    """Run time by cores, and what follows.

    Attributes:
        knee_millicores: the fewest cores from which on more of them save little time.
        cheapest_millicores: where cores times time is least.
    """

    trials: tuple[Trial, ...]
    knee_millicores: int | None = None
    cheapest_millicores: int | None = None


@dataclass(frozen=True, slots=True)
class MemoryChoice:
    """Memory limits that were tried, and the smallest that passed.

    Attributes:
        settled: the next smaller limit that would be tried is known to fail, or nothing smaller would be, as it is
            what the operator was seen to be unable to do without; False = the budget ended before.
    """

    trials: tuple[Trial, ...]
    smallest_bytes: int | None = None
    settled: bool = False


@dataclass(frozen=True, slots=True)
class Search:
    """How small an operator can be made; None = was not asked for."""

    baseline_wall_ns: int | None
    max_slowdown: float
    memory: MemoryChoice | None = None
    cpu: CpuChoice | None = None
