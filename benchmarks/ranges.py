"""Statistics of repeated measurements; pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Range:
    """Median and range of `count` measurements of one quantity."""

    median: float
    low: float
    high: float
    count: int


def range_of(values: Iterable[float]) -> Range:
    """Median and range of one value or more."""
    known = sorted(values)
    return Range(statistics.median(known), known[0], known[-1], len(known))


def quantile(values: Iterable[float], share: float) -> float:
    """The smallest value that at least `share` (0 to 1) of all do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def ratios(ones: Sequence[float], others: Sequence[float]) -> Range:
    """Ratios of values that were measured side by side."""
    return range_of(one / other for one, other in zip(ones, others, strict=True))


def median_interval(values: Iterable[float], confidence: float = 0.95) -> tuple[float, float, float]:
    """Median and its confidence interval, from the order of the values alone (sign test): no distribution is assumed.

    The interval goes from the k-th smallest to the k-th largest value, where k is the largest whose binomial tails
    hold no more than what `confidence` leaves; with too few values (below 6 at 95 %) it is the whole range.
    """
    ordered = sorted(values)
    count, tail, k = len(ordered), 0.0, 0
    while k < count // 2:
        tail += math.comb(count, k) / 2**count
        if 2 * tail > 1 - confidence:
            break
        k += 1
    k = max(k, 1)
    return statistics.median(ordered), ordered[k - 1], ordered[count - k]
