"""What would be recommended for an operator, by cpost's policies and by other tools' formulas, from one series; pure.

All of them are given the same run. What each is taken to have seen of it:

- cpost `peak`, `p95`, `p99`: its own policies on the record of the run: CPU rates over 200 ms at any phase, the
  kernel's memory peak, need apart from cache.
- NVIDIA's Clara Pipeline Operator Sizing Tool: a reading each 200 ms, one of them right at the operator's start.
  cpu = highest rate between two neighbours, in percent, / 100, rounded up (at least 1); memory = highest mean of two
  neighbours' usage, page cache included, in MB of 10^6, + 100, rounded up to multiples of 256. It divides by the
  number of pairs, so it breaks off where there is none: no recommendation. Its real CPU denominator (timer ticks of
  /proc/stat) is coarser than the clock used here, and it may also see the container's start-up, which no series has.
- KRR (Robusta), strategy `simple`: scrapes each 30 s, one of them right at the start, looked at in its steps of 75 s.
  cpu = 95th percentile (interpolated) of the rates between steps, no limit; memory = highest working set (usage less
  inactive file cache) at a step + 15 %, as request and limit. Rounded up to 1 m and 1 MiB, at least 10 m and
  100 MiB; refuses under 100 points. Memory kills are not among what it is told.
- VPA (Kubernetes), the recommender's target: a sample each 60 s, one of them right at the start. cpu = 90th
  percentile of a histogram of the rates between them, + 15 %; memory = the same of the peaks of days, and one run has
  one peak: the highest working set at a sample. A histogram gives the upper end of a bucket, and each bucket is 5 %
  wider than the one below, from 0.01 cores and 10 MB on. At least 25 m and 250 MiB. Samples' weights halve in 24 h:
  within a run all are equal.
- Either, "a sample each second": the charitable variant: samples and steps of 1 s, and no fewest points.

KRR and VPA look at weeks of a workload. Here they get the one run that cpost gets; more runs would give them more
chances to see a peak, with the same gaps between samples in each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from benchmarks.ranges import quantile
from cpost.model import StepResult, Usage
from cpost.policy import recommend
from cpost.units import MB, MIB, MILLICORES_PER_CORE, NS_PER_MS, NS_PER_S, NS_PER_US, round_up

_CLARA_PERIOD_NS = 200 * NS_PER_MS
_CLARA_MARGIN_MB, _CLARA_STEP_MB = 100, 256
_KRR_SCRAPE_NS, _KRR_STEP_NS, _KRR_FEWEST_POINTS = 30 * NS_PER_S, 75 * NS_PER_S, 100
_KRR_CPU_SHARE, _KRR_LEAST_MILLICORES, _KRR_LEAST_BYTES = 0.95, 10, 100 * MIB
_VPA_SAMPLE_NS, _VPA_SHARE = 60 * NS_PER_S, 0.90
_VPA_LEAST_MILLICORES, _VPA_LEAST_BYTES = 25, 250 * MIB
_VPA_GROWTH, _VPA_CPU_BUCKET, _VPA_MEMORY_BUCKET = 1.05, 0.01, 10 * MB
_MARGIN_PERCENT = 115  # KRR's for memory, VPA's for both


class Reading(NamedTuple):
    """Counters at one instant, from the operator's first instruction on; `working_set_bytes` lacks inactive cache."""

    t_ns: int
    cpu_us: int
    memory_bytes: int
    working_set_bytes: int


@dataclass(frozen=True, slots=True)
class Seen:
    """One run of an operator.

    Attributes:
        readings: its series, in the order of time, from the origin on.
    """

    readings: Sequence[Reading]
    result: StepResult
    usage: Usage | None


@dataclass(frozen=True, slots=True)
class Limits:
    """A recommendation."""

    cpu_millicores: int
    memory_bytes: int


Formula = Callable[[Seen], Limits | None]


def readings_of(rows: Iterable[Mapping[str, str]]) -> list[Reading]:
    """The readings of a series' rows; inactive cache, which not every row has, is the row's before."""
    readings, inactive = [Reading(0, 0, 0, 0)], 0
    for row in rows:
        inactive = int(row["inactive_file_bytes"] or inactive)
        memory = int(row["memory_bytes"])
        t_ns = round(float(row["elapsed_s"]) * NS_PER_S)
        readings.append(Reading(t_ns, int(row["cpu_us"]), memory, max(0, memory - inactive)))
    return readings


def every(readings: Sequence[Reading], period_ns: int, until_ns: int | None = None) -> list[Reading]:
    """What somebody sees who looks at the start and then in such a period: the last reading up to then.

    Args:
        until_ns: of the last look; None = the last reading.
    """
    found, place = [], 0
    for t_ns in range(0, (readings[-1].t_ns if until_ns is None else until_ns) + 1, period_ns):
        while place + 1 < len(readings) and readings[place + 1].t_ns <= t_ns:
            place += 1
        found.append(readings[place])
    return found


def policy(name: str) -> Formula:
    """One of cpost's own policies."""

    def formula(seen: Seen) -> Limits | None:
        advice = recommend(name, seen.result, seen.usage)
        cpu, memory = advice.requests.cpu_millicores, advice.requests.memory_bytes
        return None if cpu is None or memory is None else Limits(cpu, memory)

    return formula


def clara(seen: Seen) -> Limits | None:
    """NVIDIA's first tool."""
    pairs = list(pairwise(every(seen.readings, _CLARA_PERIOD_NS)))
    if not pairs:
        return None
    cores = max(1, math.ceil(max(rates([one for pair in pairs for one in pair]), default=0)))
    highest_mb = max(one.memory_bytes + other.memory_bytes for one, other in pairs) / 2 / MB
    steps = math.ceil((highest_mb + _CLARA_MARGIN_MB) / _CLARA_STEP_MB)
    return Limits(cores * MILLICORES_PER_CORE, steps * _CLARA_STEP_MB * MB)


def krr(seen: Seen) -> Limits | None:
    """KRR's strategy `simple`."""
    scrapes = every(seen.readings, _KRR_SCRAPE_NS)
    points = every(scrapes, _KRR_STEP_NS, seen.readings[-1].t_ns)
    return krr_of(points) if len(points) >= _KRR_FEWEST_POINTS else None


def krr_of(points: Sequence[Reading]) -> Limits | None:
    """The same from the points of its steps, however many; None without a rate."""
    cores = rates(points)
    if not cores:
        return None
    millicores = math.ceil(interpolated(cores, _KRR_CPU_SHARE) * MILLICORES_PER_CORE)
    memory = _with_margin(max(point.working_set_bytes for point in points))
    return Limits(max(_KRR_LEAST_MILLICORES, millicores), max(_KRR_LEAST_BYTES, round_up(memory, MIB)))


def vpa(seen: Seen) -> Limits | None:
    """The target of VPA's recommender."""
    return vpa_of(every(seen.readings, _VPA_SAMPLE_NS))


def vpa_of(samples: Sequence[Reading]) -> Limits | None:
    """The same from samples; None without a rate."""
    cores = rates(samples)
    if not cores:
        return None
    cpu = bucket_end(quantile(cores, _VPA_SHARE), _VPA_CPU_BUCKET)
    memory = bucket_end(max(sample.working_set_bytes for sample in samples), _VPA_MEMORY_BUCKET)
    millicores = math.ceil(cpu * MILLICORES_PER_CORE * _MARGIN_PERCENT / 100)
    return Limits(max(_VPA_LEAST_MILLICORES, millicores), max(_VPA_LEAST_BYTES, _with_margin(math.ceil(memory))))


def each_second(formula: Callable[[Sequence[Reading]], Limits | None]) -> Formula:
    """The charitable variant."""
    return lambda seen: formula(every(seen.readings, NS_PER_S))


FORMULAS: Mapping[str, Formula] = {
    "cpost `peak`": policy("peak"),
    "cpost `p95`": policy("p95"),
    "cpost `p99`": policy("p99"),
    "NVIDIA's first tool": clara,
    "KRR `simple`": krr,
    "KRR, a sample each second": each_second(krr_of),
    "VPA target": vpa,
    "VPA, a sample each second": each_second(vpa_of),
}


def rates(readings: Sequence[Reading]) -> list[float]:
    """Cores used between neighbours; a reading that is seen twice has no rate."""
    return [
        (later.cpu_us - earlier.cpu_us) * NS_PER_US / (later.t_ns - earlier.t_ns)
        for earlier, later in pairwise(readings)
        if later.t_ns > earlier.t_ns
    ]


def interpolated(values: Iterable[float], share: float) -> float:
    """A quantile as Prometheus takes it: between the two nearest ranks in proportion."""
    ordered = sorted(values)
    rank = share * (len(ordered) - 1)
    low, high = ordered[math.floor(rank)], ordered[math.ceil(rank)]
    return low + (high - low) * (rank - math.floor(rank))


def bucket_end(value: float, first: float, growth: float = _VPA_GROWTH) -> float:
    """The upper end of a value's bucket, where the lowest is `first` wide and each `growth` times the one below."""
    bucket = 0 if value < first else int(math.log(value * (growth - 1) / first + 1, growth))
    return first * (growth ** (bucket + 1) - 1) / (growth - 1)


def cores_that_suffice(cpu_ns: int, wall_ns: int, threads: int, slack_ns: int) -> float:
    """The fewest cores with which a run takes no longer than `slack_ns` more.

    The run works with `threads` threads or waits, and CPU is handed out evenly: with c of them the work takes cpu / c.
    """
    return cpu_ns / (slack_ns + min(cpu_ns / threads, wall_ns))


def _with_margin(memory_bytes: int) -> int:
    return -(-memory_bytes * _MARGIN_PERCENT // 100)
