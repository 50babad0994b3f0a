"""The formulas of other tools, on series of a few readings whose results were worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from benchmarks import formulas
from benchmarks.formulas import Limits, Reading, Seen, bucket_end, cores_that_suffice, every, interpolated, readings_of
from cpost.model import Outcome
from cpost.units import MIB
from tests.unit.builders import MB, MS, result, usage

S = 1000 * MS


def series(*steps: tuple[float, float, float], period_ns: int = S) -> list[Reading]:
    """Readings from the origin on; each step is a rate in cores, then memory and working set (MB) at its end."""
    readings = [Reading(0, 0, 0, 0)]
    for cores, memory_mb, working_set_mb in steps:
        t_ns, cpu_us = readings[-1].t_ns + period_ns, readings[-1].cpu_us + round(cores * period_ns / 1000)
        readings.append(Reading(t_ns, cpu_us, round(memory_mb * MB), round(working_set_mb * MB)))
    return readings


def seen(readings: Sequence[Reading]) -> Seen:
    return Seen(readings, result(), usage())


# ---------------------------------------------------------------- what is seen


def test_inactive_cache_is_the_last_that_was_read() -> None:
    cells = [("0.010000", "100", "50", ""), ("0.020000", "200", "60", "20"), ("0.030000", "300", "70", "")]
    names = ("elapsed_s", "cpu_us", "memory_bytes", "inactive_file_bytes")
    found = readings_of(dict(zip(names, row, strict=True)) for row in cells)
    assert found == [
        Reading(0, 0, 0, 0),
        Reading(10 * MS, 100, 50, 50),
        Reading(20 * MS, 200, 60, 40),
        Reading(30 * MS, 300, 70, 50),
    ]


def test_a_look_finds_the_last_reading_before_it() -> None:
    readings = [Reading(t, t, t, t) for t in (0, 3, 9, 11, 27)]
    assert [each.t_ns for each in every(readings, 10)] == [0, 9, 11]


def test_a_reading_seen_twice_has_no_rate() -> None:
    readings = [Reading(0, 0, 0, 0), Reading(S, 500_000, 0, 0), Reading(S, 500_000, 0, 0)]
    assert formulas.rates(readings) == [0.5]


# ---------------------------------------------------------------- cpost


def test_own_policies_are_the_products() -> None:
    looked_at = Seen((), result(), usage(cpu=150.0, memory=300 * MB, need_peak_bytes=100 * MB))
    assert formulas.policy("peak")(looked_at) == Limits(2000, 512 * MB)
    assert formulas.policy("p95")(looked_at) == Limits(2000, 115 * MB)


def test_nothing_follows_from_a_refusal() -> None:
    assert formulas.policy("peak")(Seen((), result(Outcome.FAILED), usage())) is None


# ---------------------------------------------------------------- NVIDIA's first tool


def test_clara_takes_the_mean_of_neighbours() -> None:
    """A spike of one reading counts by half: (100 + 500) / 2 + 100 = 400 MB, so 512; 105 % is more than a core."""
    readings = series((1.0, 100, 0), (1.05, 500, 0), (0.0, 100, 0), period_ns=200 * MS)
    assert formulas.clara(seen(readings)) == Limits(2000, 512 * MB)


@pytest.mark.parametrize(("memory_mb", "wanted_mb"), [(156, 256), (157, 512)])
def test_clara_rounds_up_to_256(memory_mb: int, wanted_mb: int) -> None:
    readings = series((0.5, memory_mb, 0), (0.5, memory_mb, 0), period_ns=200 * MS)
    assert formulas.clara(seen(readings)) == Limits(1000, wanted_mb * MB)


def test_clara_has_nothing_from_one_reading() -> None:
    assert formulas.clara(seen(series((1.0, 50, 50), period_ns=199 * MS))) is None


# ---------------------------------------------------------------- KRR


def test_krr_interpolates_the_rates() -> None:
    """Of 0, 0.5 and 1 the 95th percentile is 0.5 + 0.9 * 0.5; 100 MB + 15 % is 109.67 MiB."""
    readings = series((1.0, 300, 100), (0.5, 300, 80), (0.0, 300, 80))
    assert formulas.krr_of(readings) == Limits(950, 110 * MIB)


def test_krr_has_floors() -> None:
    assert formulas.krr_of(series((0.001, 5, 5), (0.001, 5, 5))) == Limits(10, 100 * MIB)


@pytest.mark.parametrize(("life_s", "wanted"), [(99 * 75 - 1, None), (99 * 75, Limits(500, 220 * MIB))])
def test_krr_refuses_under_100_points(life_s: int, wanted: Limits | None) -> None:
    steps = [(0.5, 0.0, 200.0)] * life_s
    assert formulas.krr(seen(series(*steps))) == wanted


def test_krr_sees_nothing_between_its_scrapes() -> None:
    spiky = [(0.5, 0.0, 900.0 if second in (45, 74, 75) else 200.0) for second in range(1, 7500)]
    assert formulas.krr(seen(series(*spiky))) == Limits(500, 220 * MIB)


# ---------------------------------------------------------------- VPA


def test_vpa_takes_the_ninth_of_ten_and_ends_of_buckets() -> None:
    """0.1 lies in the bucket up to 0.2 * (1.05^9 - 1) = 0.11027, 400 MB in that up to 200 * (1.05^23 - 1) = 414.3."""
    found = formulas.vpa_of(series(*[(0.1, 0, 400)] * 9, (1.0, 0, 50)))
    assert found is not None
    assert found.cpu_millicores == 127
    assert found.memory_bytes == pytest.approx(1.15 * 414.305 * MB, rel=1e-5)


def test_vpa_has_floors() -> None:
    assert formulas.vpa_of(series((0.0, 5, 5))) == Limits(25, 250 * MIB)


@pytest.mark.parametrize(("life_s", "known"), [(59, False), (60, True)])
def test_vpa_has_nothing_before_its_second_sample(life_s: int, known: bool) -> None:
    assert (formulas.vpa(seen(series(*[(0.5, 0.0, 1.0)] * life_s))) is not None) == known


@pytest.mark.parametrize(("value", "end"), [(0.0, 10.0), (9.9, 10.0), (10.1, 20.5), (20.6, 31.525)])
def test_buckets_grow_by_a_twentieth(value: float, end: float) -> None:
    assert bucket_end(value, 10.0) == pytest.approx(end)


# ---------------------------------------------------------------- the charitable variants, and arithmetic


def test_a_sample_each_second_misses_what_lies_between() -> None:
    readings = series((1.0, 0, 100), (1.0, 0, 700), (1.0, 0, 100), (1.0, 0, 110), period_ns=500 * MS)
    assert formulas.each_second(formulas.krr_of)(seen(readings)) == Limits(1000, 768 * MIB)  # 700 MB + 15 % in MiB
    shifted = series((1.0, 0, 700), (1.0, 0, 100), (1.0, 0, 110), (1.0, 0, 110), period_ns=500 * MS)
    assert formulas.each_second(formulas.krr_of)(seen(shifted)) == Limits(1000, 121 * MIB)
    assert formulas.each_second(formulas.vpa_of)(seen(readings[:2])) is None


@pytest.mark.parametrize(("share", "wanted"), [(0.0, 1.0), (0.5, 2.5), (0.95, 3.85), (1.0, 4.0)])
def test_quantiles_lie_between_ranks(share: float, wanted: float) -> None:
    assert interpolated([4.0, 1.0, 3.0, 2.0], share) == pytest.approx(wanted)
    assert interpolated([7.0], share) == 7.0


def test_cores_suffice_where_work_and_slack_are_as_long() -> None:
    """1 s of CPU on two threads, then 2 s of waiting: 1.333 cores need 0.75 s instead of 0.5, which is the slack."""
    assert cores_that_suffice(S, 2500 * MS, 2, 250 * MS) == pytest.approx(4 / 3)
