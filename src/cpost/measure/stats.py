"""The engine's own statistics, for containers whose counters cannot be read here: they run on another machine.

The engine reads the container's control group once a second and streams what it found. So nothing is known of what
came between two samples, nor of the last one's end: a total is the last sample's, a peak the highest one's. Times are
the engine's clock, which need not be this host's.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cpost.errors import EngineError
from cpost.measure.engine import Engine
from cpost.measure.life import Life
from cpost.model import ENGINE_STATS, Detail, Sample, Sampling, Totals
from cpost.units import NS_PER_S, NS_PER_US, parse_time_ns

PERIOD_NS = NS_PER_S
_AGAIN_S = 1.0
STATS_WARNING = "the engine's statistics stand in, one sample a second, and peaks in between are not seen"


class StatsSampler:
    """Samples one container by its engine's statistics; what `Sampler` is for control groups of this host.

    Args:
        engine: whose container it is.
        container: its id; it need not run yet.
        emit: gets the samples, from a thread.
    """

    exact = False

    def __init__(self, engine: Engine, container: str, emit: Callable[[list[Sample]], None]) -> None:
        self._engine = engine
        self._container = container
        self._emit = emit
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cpost-stats", daemon=True)
        self._mark_bytes: int | None = None
        self._pids_peak: int | None = None
        self._samples = self._longest_gap_ns = 0
        self.started = threading.Event()
        self.life = Life()
        self.error = ""

    def start(self) -> None:
        """Open the stream; best before the container starts, since the engine's beat begins then."""
        self._thread.start()

    def stop(self) -> None:
        """Take no more samples; the stream is let go at its next beat."""
        self._stopped.set()

    def totals(self) -> Totals | None:
        """The totals as the last sample told them; call after the container's end. None where none came in time."""
        self._take_times()
        last, life = self.life.last, self.life
        if last is None:
            return None
        detail = last.detail or Detail()
        wall_ns = life.ended_ns - life.started_ns if life.ended_ns and life.started_ns else None
        life.sampling = Sampling(PERIOD_NS, self._samples, longest_gap_ns=self._longest_gap_ns)
        return Totals(
            source=ENGINE_STATS,
            cpu_us=last.cpu_us,
            cpu_user_us=last.cpu_user_us,
            cpu_system_us=last.cpu_system_us,
            throttled_us=last.throttled_us,
            throttled_periods=last.throttled_periods,
            memory_peak_bytes=self._mark_bytes,
            pids_peak=self._pids_peak,
            io_read_bytes=detail.io_read_bytes,
            io_write_bytes=detail.io_write_bytes,
            tail_ns=max(0, wall_ns - last.t_ns) if wall_ns is not None else 0,
        )

    # ------------------------------------------------------------ in the thread

    def _run(self) -> None:
        try:
            while not self._stopped.is_set():
                with contextlib.suppress(
                    EngineError
                ):  # the connection broke: what comes later counts from the start, too
                    self._follow()
                self._stopped.wait(_AGAIN_S)
        except Exception as error:  # a thread has nobody to raise to: the step reports it
            self.error = repr(error)

    def _follow(self) -> None:
        for told in self._engine.stats(self._container):
            if self._stopped.is_set():
                return
            self._take(told)

    def _take(self, told: Mapping[str, Any]) -> None:
        at_ns = parse_time_ns(str(told.get("read", "")))
        if at_ns is None or not told["memory_stats"].get("usage"):
            return  # not started yet, or ended already
        if self.life.started_ns is None:
            self._take_times()
        if self.life.started_ns is None:
            return  # the engine did not say since when; the next sample's counters hold what this one's do
        sample = read_sample(told, at_ns - self.life.started_at_ns)
        self._mark_bytes = told["memory_stats"].get("max_usage") or self._mark_bytes
        self._pids_peak = max(self._pids_peak or 0, sample.pids or 0) or None
        self._samples += 1
        self._longest_gap_ns = max(self._longest_gap_ns, sample.t_ns - (self.life.last.t_ns if self.life.last else 0))
        self.life.last = sample
        self.started.set()
        if not self._stopped.is_set():
            self._emit([sample])

    def _take_times(self) -> None:
        """Begin and end of the container, by the engine's clock."""
        try:
            state = self._engine.inspect(self._container)
        except EngineError:
            return  # it is gone, or the engine is: unknown
        if state.started_at_ns is not None:
            self.life.started_ns = self.life.started_at_ns = state.started_at_ns
        self.life.ended_ns = state.finished_at_ns


def read_sample(told: Mapping[str, Any], t_ns: int) -> Sample:
    """A sample from one object of the stream; what it does not tell stays unknown.

    The names in `stats` are those of the kernel's memory.stat: v1's sums begin with "total_".
    """
    cpu, memory, throttling = told["cpu_stats"]["cpu_usage"], told["memory_stats"], told["cpu_stats"]["throttling_data"]
    stat: Mapping[str, int] = memory.get("stats") or {}
    v1 = "total_rss" in stat
    shmem = stat.get("total_shmem" if v1 else "shmem")
    file = stat.get("total_cache" if v1 else "file")
    reclaimable = None
    if file is not None and shmem is not None:
        reclaimable = max(0, file - shmem) + stat.get("slab_reclaimable", 0)
    blocks = told.get("blkio_stats", {}).get("io_service_bytes_recursive") or ()
    detail = Detail(
        anon_bytes=stat.get("total_rss" if v1 else "anon"),
        shmem_bytes=shmem,
        file_bytes=file,
        inactive_file_bytes=stat.get("total_inactive_file" if v1 else "inactive_file"),
        reclaimable_bytes=reclaimable,
        io_read_bytes=_sum(blocks, "read"),
        io_write_bytes=_sum(blocks, "write"),
    )
    return Sample(
        t_ns=max(0, t_ns),
        cpu_us=cpu["total_usage"] // NS_PER_US,
        cpu_user_us=cpu["usage_in_usermode"] // NS_PER_US,
        cpu_system_us=cpu["usage_in_kernelmode"] // NS_PER_US,
        throttled_us=throttling["throttled_time"] // NS_PER_US,
        throttled_periods=throttling["throttled_periods"],
        memory_bytes=memory["usage"],
        memory_peak_bytes=None,
        detail=detail,
        pids=told.get("pids_stats", {}).get("current"),
    )


def _sum(blocks: Sequence[Mapping[str, Any]], kind: str) -> int | None:
    """Bytes over all devices; None where no device is named (see docs/numbers.md on v1)."""
    values = [block["value"] for block in blocks if str(block.get("op")).lower() == kind]
    return sum(values) if values else None
