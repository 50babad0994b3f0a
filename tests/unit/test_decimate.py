"""Thinning out: no peak is lost, nothing is made up, gaps stay gaps."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from cpost.report.decimate import Decimator, Point

STEPS = st.lists(
    st.tuples(st.integers(0, 5000), st.integers(-9, 9) | st.integers(-(10**9), 10**12)), min_size=1, max_size=300
)


def points_of(steps: list[tuple[int, int]]) -> list[Point]:
    at, points = 0, []
    for step, value in steps:
        at += step
        points.append((at, value))
    return points


def decimated(points: list[Point], stretches: int) -> Decimator:
    decimator = Decimator(stretches)
    for point in points:
        decimator.add(*point)
    return decimator


@given(STEPS, st.integers(2, 40))
def test_every_peak_is_kept_and_none_is_made_up(steps: list[tuple[int, int]], stretches: int) -> None:
    points = points_of(steps)
    drawn = [point for piece in decimated(points, stretches).pieces(10) for point in piece]
    assert set(drawn) <= set(points)
    assert len(drawn) <= 2 * stretches
    assert [at for at, _ in drawn] == sorted(at for at, _ in drawn)
    values = [value for _, value in points]
    assert max(value for _, value in drawn) == max(values)
    assert min(value for _, value in drawn) == min(values)


@given(STEPS, st.integers(2, 40))
def test_whatever_lies_in_a_stretch_lies_between_two_points_that_are_drawn(
    steps: list[tuple[int, int]], stretches: int
) -> None:
    points = points_of(steps)
    decimator = decimated(points, stretches)
    drawn = [point for piece in decimator.pieces(10) for point in piece]
    width = next(w for w in (2**n for n in range(60)) if len({at // w for at, _ in points}) <= stretches)
    for at, value in points:
        near = [other for when, other in drawn if when // width == at // width]
        assert min(near) <= value <= max(near)


@given(STEPS, st.integers(1, 2000))
def test_points_of_one_piece_are_no_farther_apart_than_a_gap(steps: list[tuple[int, int]], gap: int) -> None:
    points = sorted(dict(points_of(steps)).items())  # one for each time, so that each is drawn
    pieces = decimated(points, len(points) * 5001).pieces(gap)
    assert [point for piece in pieces for point in piece] == points
    for piece in pieces:
        assert all(later - earlier <= gap for (earlier, _), (later, _) in itertools.pairwise(piece))
    for before, after in itertools.pairwise(pieces):
        assert after[0][0] - before[-1][0] > gap


def test_a_gap_is_seen_however_much_is_thinned_out() -> None:
    points = [(at, at % 7) for at in [*range(0, 100_000, 10), *range(150_000, 250_000, 10)]]
    first, second = decimated(points, 50).pieces(50)
    assert first[-1][0] < 100_000
    assert second[0][0] >= 150_000
