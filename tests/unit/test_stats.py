"""The engine's statistics as samples and totals: what they tell, and what they do not."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from cpost.errors import EngineLost
from cpost.measure import stats
from cpost.measure.engine import ContainerState
from cpost.measure.stats import StatsSampler, read_sample
from cpost.model import Detail, Sample

S = 10**9
STARTED = 1767225600 * S
NEVER = "0001-01-01T00:00:00Z"


def told(second: float, cpu_ms: int = 0, memory: int | None = 10, **more: Any) -> dict[str, Any]:
    """One object of the stream, so long after the container's start."""
    whole, part = divmod(round(second * 1000), 1000)
    return {
        "read": f"2026-01-01T00:00:{whole:02}.{part:03}Z",
        "cpu_stats": {
            "cpu_usage": {
                "total_usage": cpu_ms * 10**6,
                "usage_in_usermode": cpu_ms * 10**6,
                "usage_in_kernelmode": 7000,
            },
            "throttling_data": {"throttled_time": 3000, "throttled_periods": 2, "periods": 4},
        },
        "memory_stats": {} if memory is None else {"usage": memory, **more},
        "pids_stats": {"current": 3},
    }


IDLE = {**told(0), "read": NEVER, "memory_stats": {}, "pids_stats": {}}


class Engine:
    """Streams what it is given; a list that is over is a connection that broke."""

    def __init__(self, *streams: list[dict[str, Any]], ended: float | None = 5.0) -> None:
        self._streams = list(streams)
        self._ended_ns = None if ended is None else STARTED + round(ended * S)
        self.over = threading.Event()

    def stats(self, container: str) -> Iterator[Mapping[str, Any]]:
        if not self._streams:
            self.over.set()
            return
        yield from self._streams.pop(0)
        raise EngineLost("cut")

    def inspect(self, container: str) -> ContainerState:
        return ContainerState("running", 1, 0, False, STARTED, self._ended_ns)


@pytest.fixture
def sampled(monkeypatch: pytest.MonkeyPatch) -> Callable[[Engine], tuple[StatsSampler, list[Sample]]]:
    """Let a sampler hear all that an engine says."""
    monkeypatch.setattr(stats, "_AGAIN_S", 0.001)

    def hear(engine: Any) -> tuple[StatsSampler, list[Sample]]:
        samples: list[Sample] = []
        sampler = StatsSampler(engine, "c", samples.extend)
        sampler.start()
        assert engine.over.wait(10)
        sampler.stop()
        return sampler, samples

    return hear


def test_a_container_of_v1() -> None:
    stat = {"total_rss": 5, "total_shmem": 2, "total_cache": 9, "total_inactive_file": 4, "rss": 1, "cache": 1}
    made = read_sample(told(1, 250, 20, stats=stat, max_usage=30), 99)
    assert made == Sample(99, 250_000, 250_000, 7, 3, 2, 20, None, Detail(5, 2, 9, 4, reclaimable_bytes=7), 3)


def test_a_container_of_v2() -> None:
    stat = {"anon": 5, "shmem": 2, "file": 9, "inactive_file": 4, "slab_reclaimable": 1}
    blocks = [{"op": "read", "value": 4}, {"op": "write", "value": 6}, {"op": "read", "value": 1}]
    made = read_sample({**told(1, 1, 20, stats=stat), "blkio_stats": {"io_service_bytes_recursive": blocks}}, 0)
    assert made.detail == Detail(5, 2, 9, 4, reclaimable_bytes=8, io_read_bytes=5, io_write_bytes=6)


def test_what_is_not_told_is_unknown() -> None:
    old = {"total_rss": 5, "total_cache": 9, "total_inactive_file": 4}  # an engine that does not tell shared memory
    bare = {**told(1, stats=old), "blkio_stats": {"io_service_bytes_recursive": None}}
    assert read_sample(bare, 0).detail == Detail(5, None, 9, 4)
    assert read_sample({**told(1), "pids_stats": {}}, 0).pids is None
    assert read_sample(told(1), 0).detail == Detail()


def test_before_the_start_and_after_the_end_nothing_is_read(sampled: Any) -> None:
    sampler, samples = sampled(Engine([IDLE, told(1, 100, 10), told(2, 300, 30), told(3, 310, 20), IDLE]))
    assert [(each.t_ns // S, each.cpu_us, each.memory_bytes) for each in samples] == [
        (1, 100_000, 10),
        (2, 300_000, 30),
        (3, 310_000, 20),
    ]
    assert sampler.life.started_at_ns == STARTED


def test_totals_are_the_last_sample_s_and_say_what_they_missed(sampled: Any) -> None:
    sampler, _ = sampled(Engine([told(1, 100, 10, max_usage=90), told(2.5, 300, 30, max_usage=95)]))
    totals = sampler.totals()
    assert (totals.source, totals.cpu_us, totals.tail_ns) == ("engine stats", 300_000, 2.5 * S)
    assert (totals.memory_peak_bytes, totals.pids_peak) == (95, 3)
    assert (totals.startup_cpu_us, totals.oom_kills) == (None, None)
    assert (sampler.life.ended_ns - sampler.life.started_ns) == 5 * S
    assert (sampler.life.sampling.samples, sampler.life.sampling.longest_gap_ns) == (2, 1.5 * S)


def test_without_a_mark_there_is_no_kernel_peak(sampled: Any) -> None:
    sampler, _ = sampled(Engine([told(1, 100, 10)], ended=None))
    assert (sampler.totals().memory_peak_bytes, sampler.totals().tail_ns) == (None, 0)


def test_what_was_over_before_the_first_beat_has_no_totals_but_a_length(sampled: Any) -> None:
    sampler, samples = sampled(Engine([IDLE, IDLE], ended=0.25))
    assert (samples, sampler.totals(), sampler.started.is_set()) == ([], None, False)
    assert sampler.life.ended_ns - sampler.life.started_ns == S // 4


def test_a_connection_that_breaks_is_made_again(sampled: Any) -> None:
    sampler, samples = sampled(Engine([told(1, 100)], [told(4, 400)]))
    assert [each.cpu_us for each in samples] == [100_000, 400_000]
    assert sampler.error == ""


def test_a_sample_whose_start_is_not_known_is_left_out(sampled: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine([told(1, 100), told(2, 200), told(3, 300)])
    answer, asked = engine.inspect, []

    def inspect(container: str) -> ContainerState:
        asked.append(container)
        if len(asked) == 1:
            raise EngineLost("cut")
        return answer(container)

    monkeypatch.setattr(engine, "inspect", inspect)
    sampler, samples = sampled(engine)
    assert [(each.t_ns // S, each.cpu_us) for each in samples] == [(2, 200_000), (3, 300_000)]
    sampler.totals()
    assert (sampler.life.sampling.samples, sampler.life.sampling.longest_gap_ns) == (2, 2 * S)


def test_an_answer_of_another_shape_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    broken: Any = Engine([{"read": "2026-01-01T00:00:01Z"}])
    sampler = StatsSampler(broken, "c", print)
    sampler._run()
    assert "KeyError" in sampler.error
