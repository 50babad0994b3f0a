"""The sampling loop with a clock that stands still unless told: deadlines, missed ticks, gaps, the end."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator

import pytest
from builders import MS, sample
from hypothesis import given
from hypothesis import strategies as st

from cpost.measure.loop import ProcessClock, sample_until_end
from cpost.model import Detail, Sample, Sampling

PERIOD = 10 * MS
START = 5_000 * MS


class Clock:
    """Jumps to the deadline, or to the process's end; a freeze makes it oversleep once."""

    def __init__(self, end_ms: float, freeze: tuple[float, float] | None = None) -> None:
        self.now = START
        self.end = START + int(end_ms * MS)
        self.freeze = freeze

    def now_ns(self) -> int:
        return self.now

    def wait_until(self, deadline_ns: int) -> bool:
        target = max(self.now, min(deadline_ns, self.end))
        if self.freeze and target >= START + self.freeze[0] * MS:
            target += int(self.freeze[1] * MS)
            self.freeze = None
        self.now = target
        return self.now >= self.end


class Meter:
    """Takes its time to read, and is gone when told."""

    def __init__(self, clock: Clock, cost_ms: Callable[[int], float], gone: Callable[[int], bool]) -> None:
        self._clock, self._cost_ms, self._gone = clock, cost_ms, gone
        self.readings = self.sampled = 0
        self.complete: list[int | None] = []

    def look(self, *, detailed: bool, complete: bool = False) -> Detail | str | None:
        assert detailed or not complete
        self.complete.append((self._clock.now - START) // MS if complete else None)
        self._clock.now += int(self._cost_ms(self.readings) * MS)
        self.readings += 1
        if self._gone(self.readings):
            return None
        return Detail() if detailed else "no detail"

    def sample(self, t_ns: int, look: Detail | str, read_ns: int) -> Sample | None:
        assert read_ns == int(self._cost_ms(self.sampled) * MS)
        self.sampled += 1
        return sample(t_ns / MS, detail=look if isinstance(look, Detail) else None)


class Measured:
    """What one sampling loop did."""

    def __init__(
        self,
        end_ms: float,
        *,
        cost_ms: float | Callable[[int], float] = 0,
        freeze: tuple[float, float] | None = None,
        gone: Callable[[int], bool] = lambda _: False,
    ) -> None:
        clock = Clock(end_ms, freeze)
        fixed = cost_ms if callable(cost_ms) else lambda _: cost_ms
        self.batches: list[list[Sample]] = []
        self.meter = Meter(clock, fixed, gone)
        self.said: Sampling = sample_until_end(self.meter, clock, PERIOD, START, self.batches.append)
        self.samples = [each for batch in self.batches for each in batch]

    @property
    def times_ms(self) -> list[float]:
        return [each.t_ns / MS for each in self.samples]


# ---------------------------------------------------------------- ticks


def test_a_sample_at_once_one_per_period_one_at_the_end() -> None:
    done = Measured(35)
    assert done.times_ms == [0, 10, 20, 30, 35]
    assert done.said == Sampling(PERIOD, samples=5, ticks_due=4, ticks_missed=0, longest_gap_ns=PERIOD)


def test_slow_readings_do_not_shift_the_deadlines() -> None:
    done = Measured(1000, cost_ms=7)
    assert done.times_ms == [*range(0, 1000, 10), 1000]
    assert done.said.ticks_missed == 0


def test_a_reading_longer_than_the_period_misses_ticks_and_finds_back_to_the_grid() -> None:
    done = Measured(100, cost_ms=lambda reading: 25 if reading == 2 else 0)
    assert done.times_ms == [0, 10, 20, 50, 60, 70, 80, 90, 100]
    assert (done.said.ticks_due, done.said.ticks_missed) == (10, 2)
    assert done.said.longest_gap_ns == 30 * MS


def test_a_freeze_is_missed_ticks_and_a_gap() -> None:
    done = Measured(3000, freeze=(500, 2000))
    assert done.times_ms[50:53] == [2500, 2510, 2520]
    assert done.said.longest_gap_ns == 2010 * MS
    assert done.said.ticks_missed == 200
    assert done.said.ticks_due == 300


def test_a_freeze_that_the_operator_did_not_survive_is_a_gap_too() -> None:
    done = Measured(510, freeze=(510, 2000))
    assert done.times_ms[-2:] == [500, 2510]
    assert done.said.longest_gap_ns == 2010 * MS


@given(st.integers(0, 500), st.lists(st.integers(0, 60), min_size=1, max_size=40))
def test_every_tick_is_read_or_missed(end_ms: int, costs_ms: list[int]) -> None:
    done = Measured(end_ms, cost_ms=lambda reading: costs_ms[reading % len(costs_ms)])
    ticks, last = done.times_ms[:-1], done.times_ms[-1]
    assert all(time_ms % 10 == 0 for time_ms in ticks)
    assert ticks == sorted(set(ticks))
    assert last >= end_ms
    assert done.said.ticks_missed == done.said.ticks_due - len(ticks)
    assert done.said.samples == len(ticks) + 1


# ---------------------------------------------------------------- short lives and vanished groups


def test_a_process_that_has_ended_already_still_gets_its_two_readings() -> None:
    done = Measured(0)
    assert done.times_ms == [0, 0]
    assert all(each.detail is not None for each in done.samples)
    assert done.said == Sampling(PERIOD, samples=2, ticks_due=1, ticks_missed=0, longest_gap_ns=0)


def test_a_meter_without_counters_yields_no_samples_and_no_error() -> None:
    done = Measured(300, gone=lambda _: True)
    assert (done.batches, done.said.samples, done.said.longest_gap_ns) == ([], 0, 0)


def test_what_was_read_before_the_group_vanished_is_handed_over() -> None:
    done = Measured(300, gone=lambda reading: reading > 7)
    assert done.times_ms == [0, 10, 20, 30, 40, 50, 60]
    assert done.said.samples == 7


# ---------------------------------------------------------------- details and batches


def test_details_come_first_last_and_every_100_ms() -> None:
    done = Measured(355)
    assert [each.t_ns / MS for each in done.samples if each.detail is not None] == [0, 100, 200, 300, 355]


def test_all_the_rest_comes_first_last_and_with_every_fifth_detail() -> None:
    done = Measured(1255)
    assert [at for at in done.meter.complete if at is not None] == [0, 500, 1000, 1255]


def test_after_a_freeze_details_come_back_to_their_beat() -> None:
    done = Measured(800, freeze=(150, 300))
    assert [each.t_ns / MS for each in done.samples if each.detail is not None] == [0, 100, 450, 500, 600, 700, 800]


def test_samples_are_handed_over_at_once_then_every_200_ms_and_at_the_end() -> None:
    done = Measured(450)
    spans = [(batch[0].t_ns / MS, batch[-1].t_ns / MS) for batch in done.batches]
    assert spans == [(0, 0), (10, 200), (210, 400), (410, 450)]


def test_a_batch_is_the_receiver_s_own() -> None:
    done = Measured(1000)
    assert len({id(batch) for batch in done.batches}) == len(done.batches)
    assert done.times_ms == [*range(0, 1000, 10), 1000]


# ---------------------------------------------------------------- the real clock


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that lives until its input ends."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        yield process
        process.kill()


def soon(seconds: float = 0.005) -> int:
    return time.monotonic_ns() + int(seconds * 10**9)


def test_the_clock_sleeps_to_the_deadline_while_the_process_lives(child: subprocess.Popen[bytes]) -> None:
    clock = ProcessClock(child.pid)
    deadline = soon()
    assert not clock.wait_until(deadline)
    assert clock.now_ns() >= deadline
    assert not clock.wait_until(deadline)  # a deadline that has passed is no wait
    clock.close()


def test_the_clock_wakes_at_once_when_the_process_ends(child: subprocess.Popen[bytes]) -> None:
    clock = ProcessClock(child.pid)
    assert child.stdin is not None
    child.stdin.close()
    deadline = soon(60)
    assert clock.wait_until(deadline)
    assert clock.now_ns() < deadline
    assert clock.wait_until(deadline)
    clock.close()


def test_a_process_that_is_gone_has_ended(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()
    clock = ProcessClock(child.pid)
    assert clock.wait_until(soon(60))
    clock.close()


def test_the_watch_can_be_stopped(child: subprocess.Popen[bytes]) -> None:
    clock = ProcessClock(child.pid)
    for _ in range(70_000):
        clock.stop()  # never blocks, however often
    assert clock.wait_until(soon(60))
    clock.close()


def test_without_pidfd_the_process_is_looked_for(
    child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def old_kernel(_pid: int) -> int:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("os.pidfd_open", old_kernel)
    clock = ProcessClock(child.pid)
    assert not clock.wait_until(soon(0))
    child.kill()
    child.wait()
    assert clock.wait_until(soon(0))
    clock.close()
