"""Charts as data: axes, lines, levels, marks and stretches, in steps that a drawing takes as they are.

A line's path is written in the series' own steps (milliseconds; tenths of a percent, thousands of bytes), and the
drawing scales it. So the page holds each point once: what draws it is what a reader's cursor reads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from cpost.report.decimate import Point

HEIGHT = 1000  # of the drawing, stretched to whatever place there is
_WIDEST = 1000
_LABEL = 9.0  # percent of the height: a level's label
_CHARACTER = 2.1  # percent of the width: a letter of an event's words where the drawing is narrowest, on a phone
HEADROOM = 1.18
FAR = 2.0  # a level above so many times the highest point would flatten the lines: it is named instead
_SECONDS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600)
_STEPS_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, *(1000 * seconds for seconds in _SECONDS))


@dataclass(frozen=True, slots=True)
class Unit:
    """What values are shown in; `steps` of a series' values make one of it."""

    name: str
    steps: int
    decimals: int = 1

    def text(self, value: float) -> str:
        """A value in steps, with its unit."""
        return f"{value / self.steps:,.{self.decimals}f} {self.name}"


PERCENT = Unit("%", 10)
MEGABYTES = Unit("MB", 1000)
SECONDS = Unit("s", 1000, 2)
WATTS = Unit("W", 10)
MEGAHERTZ = Unit("MHz", 1, 0)


@dataclass(frozen=True, slots=True)
class Line:
    """One series in a chart.

    Attributes:
        style: how it looks: the name of a role, or o0, o1, ... for one of several alike.
        area: filled down to zero.
    """

    label: str
    style: str
    pieces: tuple[tuple[Point, ...], ...]
    area: bool = False
    hint: str = ""

    @property
    def highest(self) -> int:
        """The highest point; 0 where there is none."""
        return max((value for piece in self.pieces for _, value in piece), default=0)

    @property
    def path(self) -> str:
        """SVG path data in steps, relative where that is shorter; a piece of an area begins and ends at zero."""
        return "".join(_path(piece, area=self.area) for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class Level:
    """A level to compare a line with: what is recommended, a limit, the kernel's own peak.

    Attributes:
        amount: how its value is said where it has a unit of its own; empty = in the chart's.
    """

    label: str
    style: str
    value: int | None
    amount: str = ""

    def text(self, unit: Unit) -> str:
        """Its label and its value."""
        return f"{self.label} {self.amount or unit.text(self.value or 0)}"


@dataclass(frozen=True, slots=True)
class Mark:
    """An event on the time axis; `bad` ones are to be noticed.

    Attributes:
        count: how often it happened there.
        of: whose it is, where several runs are in one chart.
    """

    at_ms: int
    label: str
    bad: bool = False
    count: int = 1
    of: str = ""

    @property
    def text(self) -> str:
        """What it says: "12 OOM kills", "run 2: killed for memory"."""
        what = self.label if self.count == 1 else f"{self.count} {self.label}s"
        return f"{self.of}: {what}" if self.of else what


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of the time with a name."""

    from_ms: int
    to_ms: int
    label: str
    style: str


@dataclass(frozen=True, slots=True)
class Placed:
    """A label in a drawing, in percent of its height or width; `other_side` and `lane` keep it off its neighbours."""

    percent: float
    label: str
    style: str = ""
    other_side: bool = False
    value: int = 0
    lane: int = 0


@dataclass(frozen=True, slots=True)
class Chart:
    """All that a drawing needs; the properties are in steps or percent.

    Attributes:
        source: where the figures come from, and over which window.
    """

    title: str
    unit: Unit
    lines: tuple[Line, ...]
    end_ms: int
    source: str
    levels: tuple[Level, ...] = ()
    marks: tuple[Mark, ...] = ()
    stretches: tuple[Stretch, ...] = ()

    @property
    def top(self) -> int:
        """The upper end of the value axis."""
        highest = max(line.highest for line in self.lines) or self.unit.steps
        values = [level.value for level in self.levels if level.value is not None and level.value <= highest * FAR]
        return math.ceil(max(highest, *values, 1) * HEADROOM)

    @property
    def transform(self) -> str:
        """From steps to the drawing."""
        return f"matrix({_WIDEST / self.end_ms:.8g} 0 0 {-HEIGHT / self.top:.8g} 0 {HEIGHT})"

    @property
    def value_ticks(self) -> tuple[Placed, ...]:
        """Labels of the value axis, in percent from the top."""
        return value_ticks(self.top, self.unit)

    @property
    def time_ticks(self) -> tuple[Placed, ...]:
        """Labels of the time axis, in percent from the left."""
        step_ms = next((step for step in _STEPS_MS if self.end_ms / step <= 8), self.end_ms / 4)
        return tuple(
            Placed(100 * place * step_ms / self.end_ms, clock(place * step_ms, step_ms))
            for place in range(int(self.end_ms / step_ms) + 1)
        )

    @property
    def drawn_levels(self) -> tuple[Placed, ...]:
        """Levels within the drawing, from the highest down; percent is where the upper edge of the label is.

        That is above the line, or else, where another label is there already, below that one.
        """
        levels = sorted((level for level in self.levels if self._fits(level)), key=lambda each: -(each.value or 0))
        placed: list[Placed] = []
        end = 0.0
        for level in levels:
            value = level.value or 0
            percent = max(end, 100 - 100 * value / self.top - _LABEL)
            end = percent + _LABEL
            placed.append(Placed(percent, level.text(self.unit), level.style, value=value))
        return _within(placed)

    @property
    def levels_above(self) -> tuple[str, ...]:
        """Levels that are far above all lines, in words."""
        above = (level for level in self.levels if level.value is not None and not self._fits(level))
        return tuple(level.text(self.unit) for level in above)

    @property
    def placed_marks(self) -> tuple[Placed, ...]:
        """The words of events, in percent from the left; those in the right half are on the left of their event.

        What happened again and again within the width of its words is said once, with how often.
        """
        placed: list[Placed] = []
        taken: list[tuple[int, float, float]] = []
        for mark in self._folded():
            percent = self._left(mark)
            wide, left = len(mark.text) * _CHARACTER, percent > 50
            begin, end = (percent - wide, percent) if left else (percent, percent + wide)
            crossed = {lane for lane, low, high in taken if begin < high and low < end}
            lane = next(each for each in range(len(taken) + 1) if each not in crossed)
            taken.append((lane, begin, end))
            placed.append(Placed(percent, mark.text, "bad" if mark.bad else "", left, mark.at_ms, lane))
        return tuple(placed)

    @property
    def description(self) -> str:
        """What the chart shows, for those who do not see it."""
        highest = "; ".join(f"{line.label} at most {self.unit.text(line.highest)}" for line in self.lines)
        levels = [level.text(self.unit) for level in self.levels if level.value is not None]
        events = [f"{mark.text} at {mark.at_ms / 1000:.2f} s" for mark in self.marks]
        parts = [f"{self.title} over {self.end_ms / 1000:.2f} s: {highest}", *levels, *events]
        return ". ".join(parts)

    def _fits(self, level: Level) -> bool:
        return level.value is not None and level.value <= self.top

    def _left(self, mark: Mark) -> float:
        return 100 * min(mark.at_ms, self.end_ms) / self.end_ms

    def _folded(self) -> list[Mark]:
        """Events in their order, those alike and near one another as one."""
        folded: list[Mark] = []
        last: dict[tuple[str, str], int] = {}
        for mark in sorted(self.marks, key=lambda each: each.at_ms):
            kind = (mark.of, mark.label)
            first = folded[last[kind]] if kind in last else None
            if first is not None and self._left(mark) - self._left(first) < (len(first.text) + 3) * _CHARACTER:
                folded[last[kind]] = replace(first, count=first.count + mark.count)
            else:
                last[kind] = len(folded)
                folded.append(mark)
        return folded


def _within(placed: Sequence[Placed]) -> tuple[Placed, ...]:
    """Labels that would reach below the drawing moved up, and those that are in their way."""
    lowest = 100.0
    moved: list[Placed] = []
    for each in reversed(placed):
        lowest = min(each.percent, lowest - _LABEL)
        moved.append(replace(each, percent=lowest))
    return tuple(reversed(moved))


def value_ticks(top: int, unit: Unit) -> tuple[Placed, ...]:
    """Labels of an axis of values from 0 to `top` steps, in percent from the top."""
    step = round_step(top / unit.steps / 5) * unit.steps
    decimals = max(0, -math.floor(math.log10(step / unit.steps)))
    return tuple(
        Placed(100 - 100 * place * step / top, f"{place * step / unit.steps:,.{decimals}f}")
        for place in range(int(top / step) + 1)
    )


def clock(at_ms: float, step_ms: float) -> str:
    """A time on the axis: "0.05 s", "12 s", "3:20", "1:05:00"; as fine as the step between two of them asks for."""
    seconds = at_ms / 1000
    if step_ms < 1000:
        return f"{seconds:.{math.ceil(-math.log10(step_ms / 1000))}f} s"
    minutes, rest = divmod(round(seconds), 60)
    if step_ms < 60_000 and minutes < 2:
        return f"{round(seconds)} s"
    return f"{minutes}:{rest:02}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def round_step(least: float) -> float:
    """The next of 1, 2, 5, 10, ... that is not below."""
    power: float = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * 0.999)


def _path(piece: Sequence[Point], *, area: bool) -> str:
    (before_at, before), rest = piece[0], piece[1:]
    parts = [f"M{before_at} 0v{before}" if area else f"M{before_at} {before}"]
    parts.append("l" if rest else "h0")
    steps = []
    for at, value in rest:
        steps.append(f"{at - before_at} {value - before}")
        before_at, before = at, value
    parts.append(" ".join(steps).replace(" -", "-"))
    return "".join(parts) + ("V0" if area else "")
