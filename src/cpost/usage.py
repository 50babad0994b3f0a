"""Series -> usage: CPU rates over a stated window, percentiles weighted by time, memory split into need and cache.

Works on a stream with bounded memory: percentiles come from histograms with a fine resolution (one millicore, 64 KiB),
rounded up to the resolution's edge, so a percentile is never understated.
"""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple

from cpost.model import ENGINE_STATS, PROCESS_TREE, Detail, Sample, Statistic, StepResult, Totals, Usage
from cpost.units import NS_PER_US, round_up

_MEMORY_RESOLUTION_BYTES = 64 * 1024
# How far memory.stat may be from the total: charges are counted in batches per CPU (mm/memcontrol.c).
_LAG_BYTES, _LAG_SHARE, _CHARGE_BATCH_BYTES = 2 * 2**20, 50, 64 * 4096
# A reading that took longer than this share of a window may be of any moment in between: no rate begins or ends there.
_UNSURE_SHARE = 100
_LONGEST_TICK_NS = 10**7  # a kernel's timer tick is 1 to 10 ms
# Counters count from the operator's first instruction, so there they are zero whenever the first sample comes.
_ORIGIN = Sample(0, 0, None, None, None, None, None, None)


class Histogram:
    """Values weighted by how long they held, at a fixed resolution.

    Args:
        resolution: values are counted in steps of this size, rounded up.
        significant_bits: large values in coarser steps, of this many significant bits: 11 make one in 2000, and some
            ten thousand counters for memory that wanders over 100 GB for a day.
    """

    def __init__(self, resolution: int = 1, significant_bits: int = 64) -> None:
        self._resolution = resolution
        self._significant_bits = significant_bits
        self._weights: dict[int, int] = {}
        self.total = 0
        self._sum = 0.0
        self.maximum: float | None = None

    def add(self, value: float, weight: int) -> None:
        """Count `value` (not negative) for `weight` (any unit of time, not negative)."""
        self.maximum = value if self.maximum is None else max(self.maximum, value)
        if weight > 0:
            coarse = 1 << max(0, int(value).bit_length() - self._significant_bits)
            edge = round_up(math.ceil(value), max(self._resolution, coarse))
            self._weights[edge] = self._weights.get(edge, 0) + weight
            self.total += weight
            self._sum += value * weight

    def average(self) -> float | None:
        """Mean over time; None without any weight."""
        return self._sum / self.total if self.total else self.maximum

    def percentile(self, percent: float) -> float | None:
        """Smallest value that was not exceeded for at least `percent` % of the time (nearest rank), rounded up to
        the resolution but never above the maximum; None where nothing was added."""
        if not self._weights or self.maximum is None:
            return self.maximum
        wanted, seen = self.total * percent / 100, 0
        for edge in sorted(self._weights):
            seen += self._weights[edge]
            if seen >= wanted:
                return min(float(edge), self.maximum)
        return self.maximum


class _Look(NamedTuple):
    """Total and need at one look at memory.stat."""

    memory_bytes: int
    need_bytes: int


class UsageBuilder:
    """Folds a step's samples into its usage, one at a time, in the order of time.

    Args:
        window_ns: the span over which CPU rates are taken.
        cpus: how many the host has.
    """

    def __init__(self, window_ns: int, cpus: int) -> None:
        self._window_ns = window_ns
        self._cpus = cpus
        self._recent = deque([_ORIGIN])
        self._cpu_millicores = Histogram()
        self._memory = Histogram(_MEMORY_RESOLUTION_BYTES, significant_bits=11)
        self._cpu_counted_ns = 0
        self._last: Sample | None = None
        self._peak_since_look = 0
        self._look = _Look(0, 0)
        self._need_peak: int | None = None
        self._working_set_peak: int | None = None
        self._dev_shm_peak: int | None = None
        self._cache_peak: int | None = None
        self.memory_peak_bytes: int | None = None

    def add(self, sample: Sample) -> float | None:
        """Fold one sample in.

        Returns:
            CPU percent (100 = one core) over the window that ends at this sample; None until a whole window has passed,
            and where the reading itself was held up.
        """
        percent = self._add_cpu(sample)
        self._add_memory(sample)
        self._last = sample
        return percent

    def finish(self, result: StepResult) -> Usage | None:
        """The usage of the whole step; None where no counter was read.

        A life shorter than one window is one window: all its rates are its average.
        """
        totals, wall_ns = result.totals, result.wall_ns
        if totals is None:
            return None
        average = totals.cpu_us * NS_PER_US * 100 / wall_ns if wall_ns else None
        if average is not None and wall_ns is not None:
            average = min(average, self._cpus * 100.0)
            # The whole life is a span of at least one window, too.
            self._cpu_millicores.add(average * 10, 0 if self._cpu_counted_ns else wall_ns)
        period_ns = result.sampling.period_ns if result.sampling else 0
        return Usage(
            window_ns=max(self._window_ns, period_ns),  # no rate is over less than two samples
            cpu_pct=Statistic(average, *(_tenth(value) for value in _figures(self._cpu_millicores))),
            memory_bytes=self._memory_statistic(totals),
            need_peak_bytes=self._need(totals),
            working_set_peak_bytes=self._working_set_peak,
            dev_shm_peak_bytes=self._dev_shm_peak,
            cache_peak_bytes=self._cache_peak,
            peaks_sampled=totals.memory_peak_bytes is None or totals.source in (PROCESS_TREE, ENGINE_STATS),
            others_cpu_share=result.others_cpu_share,
        )

    # ------------------------------------------------------------ CPU

    def _add_cpu(self, sample: Sample) -> float | None:
        recent = self._recent
        if sample.read_ns * _UNSURE_SHARE > self._window_ns:
            return None
        recent.append(sample)
        if sample.t_ns - recent[0].t_ns < self._window_ns:
            return None
        while len(recent) > 2 and sample.t_ns - recent[1].t_ns >= self._window_ns:
            recent.popleft()
        percent = self._possible(_percent(recent[0], sample))
        self._count_cpu(percent, sample.t_ns)
        return percent

    def _possible(self, percent: float) -> float:
        """No more than the host has, and no more than whole cores where only the counters' grain is above them.

        The counters of a running thread move with the timer tick, so a rate over a window may come out a little above
        what is physically there, and the maximum picks the worst: one busy thread reads as 101 %, and rounding up
        would ask for a second core. The grains of several cores partly cancel out, hence the square root.
        """
        percent = min(percent, self._cpus * 100.0)
        cores = int(percent // 100)
        grain = 100 * _LONGEST_TICK_NS / self._window_ns
        return cores * 100.0 if cores and percent - cores * 100 <= grain * math.sqrt(cores) else percent

    def _count_cpu(self, percent: float, t_ns: int) -> None:
        self._cpu_millicores.add(percent * 10, t_ns - self._cpu_counted_ns)
        self._cpu_counted_ns = t_ns

    # ------------------------------------------------------------ memory

    def _add_memory(self, sample: Sample) -> None:
        if sample.memory_bytes is None:
            return
        peak = max(sample.memory_bytes, sample.memory_peak_bytes or 0)
        self.memory_peak_bytes = max(self.memory_peak_bytes or 0, peak)
        self._memory.add(sample.memory_bytes, sample.t_ns - (self._last.t_ns if self._last else 0))
        self._peak_since_look = max(self._peak_since_look, peak)
        if sample.detail is not None:
            self._add_detail(sample.memory_bytes, sample.detail)

    def _add_detail(self, memory_bytes: int, detail: Detail) -> None:
        """Need between two looks at memory.stat: the higher of the two, and on top what the peak was above both.

        memory.stat lags behind the total on some kernels: a look whose parts do not add up to the total is left out.
        """
        if detail.dev_shm_bytes is not None:
            self._dev_shm_peak = max(self._dev_shm_peak or 0, detail.dev_shm_bytes)
        if detail.inactive_file_bytes is not None:
            working_set = max(0, memory_bytes - detail.inactive_file_bytes)
            self._working_set_peak = max(self._working_set_peak or 0, working_set)
        if detail.reclaimable_bytes is None or self._lags(memory_bytes, detail):
            return
        self._cache_peak = max(self._cache_peak or 0, detail.reclaimable_bytes)
        look = _Look(memory_bytes, max(0, memory_bytes - detail.reclaimable_bytes))
        self._need_peak = max(self._need_peak or 0, self._need_up_to(look))
        self._look, self._peak_since_look = look, memory_bytes

    def _need_up_to(self, look: _Look) -> int:
        excess = self._peak_since_look - max(self._look.memory_bytes, look.memory_bytes)
        return max(self._look.need_bytes, look.need_bytes) + max(0, excess)

    def _lags(self, memory_bytes: int, detail: Detail) -> bool:
        parts = (detail.anon_bytes, detail.file_bytes, detail.kernel_bytes)
        known = [part for part in parts if part is not None]
        if len(known) < len(parts):
            return False  # nothing to check against
        tolerance = _LAG_BYTES + self._cpus * _CHARGE_BATCH_BYTES + memory_bytes // _LAG_SHARE
        return abs(sum(known) - memory_bytes) > tolerance

    def _need(self, totals: Totals) -> int | None:
        if self._need_peak is None:
            return None
        # What came after the last look that added up counts as need.
        need = max(self._need_peak, self._need_up_to(self._look)) + self._unseen(totals)
        return need if totals.memory_peak_bytes is None else min(need, totals.memory_peak_bytes)

    def _unseen(self, totals: Totals) -> int:
        """How far the kernel's peak was above all that samples saw, where these have no peaks of their own.

        No look says what that was, so it counts as need, unless it was the runtime's.
        """
        peak, seen = totals.memory_peak_bytes, self.memory_peak_bytes
        if peak is None or seen is None or peak == totals.startup_memory_peak_bytes:
            return 0
        return max(0, peak - seen)

    def _memory_statistic(self, totals: Totals) -> Statistic:
        highest, p50, p95, p99 = _figures(self._memory)
        known = [value for value in (totals.memory_peak_bytes, self.memory_peak_bytes, highest) if value is not None]
        # The kernel's own mark is the truth; what was sampled stands in only where there is none.
        peak = totals.memory_peak_bytes if totals.memory_peak_bytes is not None else max(known, default=None)
        return Statistic(self._memory.average(), peak, p50, p95, p99)


def _percent(first: Sample, last: Sample) -> float:
    """CPU percent between two samples: microseconds of CPU per microsecond of time, times 100."""
    span_ns = last.t_ns - first.t_ns
    return max(0, last.cpu_us - first.cpu_us) * NS_PER_US * 100 / span_ns


def _figures(histogram: Histogram) -> tuple[float | None, float | None, float | None, float | None]:
    return histogram.maximum, histogram.percentile(50), histogram.percentile(95), histogram.percentile(99)


def _tenth(value: float | None) -> float | None:
    return None if value is None else value / 10
