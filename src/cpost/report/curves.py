"""Curves of runs under limits as data: a limit across, the time that each run took upwards, every run a point.

Unlike a chart's lines, points are few, and each is read out in words that are its own. All places are percent of the
drawing, so that marks keep their shape in whatever place there is.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from cpost.report.charts import FAR, HEADROOM, SECONDS, Level, Placed, round_step, value_ticks

_STRIP = 14.0  # percent of the height, kept for runs without a time where there are any
_MARGIN = 6.0  # percent of the width, on either side
_LEAST_GAP = 7.0  # percent between two labels below


@dataclass(frozen=True, slots=True)
class Point:
    """One run.

    Attributes:
        at: the limit that it ran under.
        value_ms: its time; None = it says nothing.
        style: what became of it: holds, slow or broken.
        text: all of it in words.
    """

    at: float
    value_ms: int | None
    style: str
    text: str


@dataclass(frozen=True, slots=True)
class Pin:
    """A limit with a name."""

    at: float
    label: str
    style: str


@dataclass(frozen=True, slots=True)
class Dot:
    """A point in the drawing, in percent from the left and from the top; `timed` = it stands where its time is."""

    left: float
    top: float
    style: str
    text: str
    timed: bool


@dataclass(frozen=True, slots=True)
class Curve:
    """All that a drawing needs.

    Attributes:
        unit: of the limits.
        points: one at least.
        levels: times to compare with, in milliseconds.
        joined: a line goes through the points that have a time.
        doubling: each doubling of the limit is as wide as the next, and what was tried is what stands below.
        source: where the figures come from, and what is compared.
    """

    title: str
    unit: str
    points: tuple[Point, ...]
    levels: tuple[Level, ...]
    pins: tuple[Pin, ...]
    source: str
    joined: bool = False
    doubling: bool = False

    @property
    def dots(self) -> tuple[Dot, ...]:
        """The points from the lowest limit on; those without a time stand in a strip of their own above all others."""
        ordered = sorted(self.points, key=lambda point: point.at)
        return tuple(
            Dot(self._left(each.at), self._top(each.value_ms), each.style, each.text, each.value_ms is not None)
            for each in ordered
        )

    @property
    def pieces(self) -> tuple[tuple[Dot, Dot], ...]:
        """The straight pieces of the line, which nothing without a time is part of."""
        timed = [dot for dot in self.dots if dot.timed] if self.joined else []
        return tuple(itertools.pairwise(timed))

    @property
    def strip(self) -> float:
        """The height of the strip for runs without a time; 0 = there is none."""
        return _STRIP if any(point.value_ms is None for point in self.points) else 0.0

    @property
    def styles(self) -> tuple[str, ...]:
        """What became of the runs that are here, the best first."""
        found = {point.style for point in self.points}
        return tuple(style for style in ("holds", "slow", "broken") if style in found)

    @property
    def time_ticks(self) -> tuple[Placed, ...]:
        """Labels of the axis of times, in percent from the top; none where no time is known."""
        ticks = value_ticks(self._highest_ms, SECONDS) if self._times else ()
        return tuple(Placed(self._below_strip(tick.percent), tick.label) for tick in ticks)

    @property
    def limit_ticks(self) -> tuple[Placed, ...]:
        """Labels of the axis of limits, in percent from the left."""
        placed: list[Placed] = []
        for at in self._tried() if self.doubling else self._round():
            left = self._left(at)
            if not placed or left - placed[-1].percent >= _LEAST_GAP:
                placed.append(Placed(left, f"{at:,.6g}"))
        return tuple(placed)

    @property
    def drawn_levels(self) -> tuple[Placed, ...]:
        """Levels within the drawing, in percent from the top."""
        return tuple(
            Placed(self._top(level.value), f"{level.label} {SECONDS.text(level.value)}", level.style)
            for level in self.levels
            if level.value is not None and level.value <= self._highest_ms
        )

    @property
    def levels_above(self) -> tuple[str, ...]:
        """Levels that are far above all points, in words."""
        return tuple(
            f"{level.label} {SECONDS.text(level.value)}"
            for level in self.levels
            if level.value is not None and level.value > self._highest_ms
        )

    @property
    def placed_pins(self) -> tuple[Placed, ...]:
        """Named limits, each in a lane of its own; in the right half they have their words on their left."""
        ordered = enumerate(sorted(self.pins, key=lambda pin: pin.at))
        lefts = ((lane, pin, self._left(pin.at)) for lane, pin in ordered)
        return tuple(Placed(left, pin.label, pin.style, left > 50, lane=lane) for lane, pin, left in lefts)

    @property
    def description(self) -> str:
        """What the curve shows, for those who do not see it."""
        levels = [f"{level.label} {SECONDS.text(level.value)}" for level in self.levels if level.value is not None]
        pins = [pin.label for pin in sorted(self.pins, key=lambda pin: pin.at)]
        return ". ".join([self.title, *(dot.text for dot in self.dots), *levels, *pins])

    @property
    def _times(self) -> list[int]:
        """What the axis has to hold: a level far above all points would flatten them, and is named instead."""
        timed = [point.value_ms for point in self.points if point.value_ms is not None]
        levels = [level.value for level in self.levels if level.value is not None]
        return timed + [value for value in levels if not timed or value <= max(timed) * FAR]

    @property
    def _highest_ms(self) -> int:
        return math.ceil(max(self._times, default=1) * HEADROOM) or 1

    def _top(self, value_ms: int | None) -> float:
        if value_ms is None:
            return self.strip / 2
        return self._below_strip(100 - 100 * value_ms / self._highest_ms)

    def _below_strip(self, percent: float) -> float:
        return self.strip + percent * (100 - self.strip) / 100

    def _left(self, at: float) -> float:
        low, high = (self._scaled(each) for each in self._ends())
        share = (self._scaled(at) - low) / (high - low) if high > low else 0.5
        return _MARGIN + share * (100 - 2 * _MARGIN)

    def _scaled(self, at: float) -> float:
        return math.log2(at) if self.doubling else at

    def _ends(self) -> tuple[float, float]:
        shown = [*(point.at for point in self.points), *(pin.at for pin in self.pins)]
        return min(shown), max(shown)

    def _tried(self) -> list[float]:
        return sorted({point.at for point in self.points})

    def _round(self) -> list[float]:
        low, high = self._ends()
        if low == high:
            return [low]
        step = round_step((high - low) / 5)
        return [place * step for place in range(math.ceil(low / step), int(high / step) + 1)]
