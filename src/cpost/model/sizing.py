"""What the readings mean: usage, its spread over repeats, recommendation."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from cpost.model.definition import Resources
from cpost.model.gpu import GpuUsage

_NOTHING = Resources()


@dataclass(frozen=True, slots=True)
class Statistic:
    """Statistics of one quantity over time; percentiles are weighted by time. None = not known."""

    average: float | None = None
    maximum: float | None = None
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Statistics of a series.

    Attributes:
        window_ns: the span over which each CPU rate is taken.
        cpu_pct: 100 = one core. `average` = the kernel's CPU total over the wall time; `maximum` and the percentiles
            over windows of `window_ns`.
        memory_bytes: what the kernel charges. `maximum` = the kernel's peak, page cache included.
        need_peak_bytes: the highest amount that the kernel could not have taken back (anonymous, shared and kernel
            memory); None where memory.stat was never read.
        working_set_peak_bytes: highest total less inactive file cache.
        dev_shm_peak_bytes: the most that lay in the container's /dev/shm at one look; it is part of the need.
        cache_peak_bytes: the most that the kernel could have taken back at one look; it is no part of the need.
        gpus: of each GPU of the host, in the order of its facts.
        peaks_sampled: the kernel's own memory peak is not known, or not to the end: `maximum` is the highest sample.
        others_cpu_share: of the host's CPU time meanwhile, what went to others; None = not known.
    """

    window_ns: int
    cpu_pct: Statistic
    memory_bytes: Statistic
    need_peak_bytes: int | None = None
    working_set_peak_bytes: int | None = None
    dev_shm_peak_bytes: int | None = None
    cache_peak_bytes: int | None = None
    gpus: tuple[GpuUsage, ...] = ()
    peaks_sampled: bool = False
    others_cpu_share: float | None = None


class Verdict(str, Enum):
    """What became of an operator that ran under limits."""

    HOLDS = "holds"
    SLOW = "slow"
    BROKEN = "broken"


class Advice(str, Enum):
    """Whether there is a recommendation."""

    OK = "ok"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Recommendation:
    """Requests (and limits, where the policy sets any) with the reasons for them, or a refusal with its reason.

    Attributes:
        dev_shm_bytes: size that /dev/shm should have; None = what was in it is not known.
        verified: what became of it in a run under it; None = it was not tried.
    """

    policy: str
    status: Advice
    requests: Resources = _NOTHING
    limits: Resources = _NOTHING
    reasons: tuple[str, ...] = ()
    dev_shm_bytes: int | None = None
    verified: Verdict | None = None
