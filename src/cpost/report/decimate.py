"""A long series -> few points that look the same: of each stretch of time its lowest and its highest value.

Points come one after the other and are not kept, so memory does not grow with the series; how long it will be need not
be known. No peak is lost: whatever lies in a stretch lies between two points that are drawn, both of them measured.
"""

from __future__ import annotations

Point = tuple[int, int]
_Stretch = list[int]  # first and last time, time and value of the lowest point, time and value of the highest

_FIRST, _LAST, _LOW_AT, _LOW, _HIGH_AT, _HIGH = range(6)


class Decimator:
    """Thins out one series.

    Args:
        stretches: how many there may be at most; each gives two points at most. There are at least half as many once
            the series has so many points, evenly spread.
    """

    def __init__(self, stretches: int) -> None:
        self._most = stretches
        self._width = 1
        self._end = 0
        self._stretches: list[_Stretch] = []

    def add(self, at: int, value: int) -> None:
        """Take a point; times (whole numbers, from 0) do not fall."""
        if at >= self._end or not self._stretches:
            self._stretches.append([at, at, at, value, at, value])
            if len(self._stretches) > self._most:
                self._widen()
            self._end = (at // self._width + 1) * self._width
            return
        stretch = self._stretches[-1]
        stretch[_LAST] = at
        if value > stretch[_HIGH]:
            stretch[_HIGH_AT], stretch[_HIGH] = at, value
        elif value < stretch[_LOW]:
            stretch[_LOW_AT], stretch[_LOW] = at, value

    def pieces(self, gap: int) -> tuple[tuple[Point, ...], ...]:
        """The points, in pieces between which nothing was read.

        Args:
            gap: the longest time between two points of one piece; what is shorter than a stretch is never seen as one.
        """
        gap = max(gap, self._width)
        pieces: list[list[Point]] = []
        last: int | None = None
        for first, end, *extremes in self._stretches:
            if last is None or first - last > gap:
                pieces.append([])
            pieces[-1] += sorted({(extremes[0], extremes[1]), (extremes[2], extremes[3])})
            last = end
        return tuple(map(tuple, pieces))

    def _widen(self) -> None:
        """Make stretches twice as long, until there is room again."""
        while len(self._stretches) > self._most:
            self._width *= 2
            joined = self._stretches[:1]
            for stretch in self._stretches[1:]:
                if stretch[_FIRST] // self._width == joined[-1][_FIRST] // self._width:
                    _join(joined[-1], stretch)
                else:
                    joined.append(stretch)
            self._stretches = joined


def _join(stretch: _Stretch, later: _Stretch) -> None:
    stretch[_LAST] = later[_LAST]
    if later[_HIGH] > stretch[_HIGH]:
        stretch[_HIGH_AT], stretch[_HIGH] = later[_HIGH_AT], later[_HIGH]
    if later[_LOW] < stretch[_LOW]:
        stretch[_LOW_AT], stretch[_LOW] = later[_LOW_AT], later[_LOW]
