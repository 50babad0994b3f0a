"""Looks at the GPUs -> what the operator used of each; works on a stream with bounded memory, as usage.py does."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace

from cpost.model.gpu import BusySpan, Gpu, GpuLook, GpuMemorySource, GpuReading, GpuUsage
from cpost.units import MIB, NS_PER_S, format_mb, format_seconds
from cpost.usage import Histogram

_MEMORY_RESOLUTION_BYTES = 64 * 1024
# A context alone takes more than this; less may be the driver's own.
_RISE_BYTES = 64 * MIB
# A framework that reserves memory takes most of what is free at once (TensorFlow all, JAX three quarters).
_JUMP_NS = NS_PER_S
_MOST_OF_FREE, _MOST_OF_PEAK, _FLAT = 0.70, 0.80, 0.95
_FLAT_BELOW_PERCENTILE = 10
_SHORTEST_JUDGED_NS = 2 * NS_PER_S
_LONG_GAP_NS = NS_PER_S


class GpuBuilder:
    """Folds the looks at all GPUs during one step, in the order of time.

    Args:
        gpus: those that each look is about.
    """

    def __init__(self, gpus: Sequence[Gpu]) -> None:
        self._each = [_One(gpu) for gpu in gpus]
        self._companions = 0

    def add(self, look: GpuLook, start_ns: int, end_ns: int | None = None) -> None:
        """Fold one look in.

        Args:
            start_ns: the operator's first instruction (Unix); the first look, if it was before, is the baseline.
            end_ns: the operator's end, where it is known; of a later look only what is about the time before counts.
        """
        for one, reading in zip(self._each, look.readings, strict=True):
            one.add(look.at_ns, reading, start_ns, end_ns)
        if start_ns <= look.at_ns and (end_ns is None or look.at_ns <= end_ns):
            self._companions = max(self._companions, look.companions)

    def finish(self) -> tuple[GpuUsage, ...]:
        """What was used of each GPU."""
        return tuple(replace(one.finish(), companions=self._companions) for one in self._each)


def remarks(gpus: Sequence[Gpu], usages: Sequence[GpuUsage], given: int, *, server: bool = False) -> Iterator[str]:
    """What whoever reads these figures has to know, one line each.

    Args:
        given: how many GPUs the operator got.
        server: they are those of an operator's server, not of an operator.
    """
    whose, companion = ("server", "its operator or another server") if server else ("operator", "a server of it")
    if given and usages and not any(usage.used for usage in usages):
        yield f"it got gpu: {given} and was seen on none: did it fall back to the CPU?"
    for place, (gpu, usage) in enumerate(zip(gpus, usages, strict=True)):
        yield from _remarks_on_company(f"GPU {place}", usage, whose, companion)
        yield from _remarks(f"GPU {place}", gpu, usage)


def _remarks_on_company(label: str, usage: GpuUsage, whose: str, companion: str) -> Iterator[str]:
    """Whether what was seen is its own."""
    if not usage.used:
        return
    by_device = usage.memory_source is GpuMemorySource.DEVICE
    if by_device:
        theirs = f"; {companion} ran meanwhile, and some or all of it may be theirs" if usage.companions else ""
        yield (
            f"{label}: the driver does not tell the {whose}'s own memory: it is the whole device's, less what was in "
            f"use before{theirs}"
        )
    if usage.accompanied:
        memory = "cannot be told apart" if by_device else "is told apart"
        yield f"{label}: the {whose} and {companion} were both on it: its utilisation is of both, memory {memory}"
    if usage.shared:
        yield f"{label}: other processes were on it meanwhile: its utilisation is not the {whose}'s alone"


def _remarks(label: str, gpu: Gpu, usage: GpuUsage) -> Iterator[str]:
    if usage.preallocated and gpu.memory_bytes and usage.memory_peak_bytes:
        yield (
            f"{label}: most of its free memory ({format_mb(usage.memory_peak_bytes)} of {format_mb(gpu.memory_bytes)}) "
            "was taken at once and kept: a framework may have reserved it, so the peak is an upper bound "
            "(XLA_PYTHON_CLIENT_PREALLOCATE=false or TF_FORCE_GPU_ALLOW_GROWTH=true show the need)"
        )
    if usage.longest_gap_ns > _LONG_GAP_NS:
        yield f"{label}: the driver left {format_seconds(usage.longest_gap_ns)} between two looks: peaks may be missing"


class _One:
    """One GPU."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self._busy = Histogram()
        self._own = _Memory()
        self._risen = _Memory()
        self._power, self._clock = Histogram(), Histogram()
        self._baseline: GpuReading | None = None
        self._hidden_rise = 0
        self._device_peak: int | None = None
        self._listed = self._untold = self._shared = self._accompanied = False
        self._looks = self._longest_gap_ns = 0
        self._last_ns: int | None = None

    def add(self, at_ns: int, reading: GpuReading, start_ns: int, end_ns: int | None) -> None:
        for span in reading.busy:
            self._add_busy(span, start_ns, end_ns)
        if at_ns < start_ns:
            self._baseline = self._baseline or reading
        elif end_ns is None or at_ns <= end_ns:
            self._add_inside(at_ns, reading, start_ns)

    def _add_busy(self, span: BusySpan, start_ns: int, end_ns: int | None) -> None:
        """Of a stretch that lies over the operator's start or end, the part inside counts."""
        end = span.end_ns if end_ns is None else min(span.end_ns, end_ns)
        inside_ns = end - max(span.end_ns - span.span_ns, start_ns)
        if inside_ns > 0:
            self._busy.add(span.percent, inside_ns)

    def _add_inside(self, at_ns: int, reading: GpuReading, start_ns: int) -> None:
        gap_ns = at_ns - max(self._last_ns or start_ns, start_ns)
        self._last_ns = at_ns
        self._looks += 1
        self._longest_gap_ns = max(self._longest_gap_ns, gap_ns)
        self._listed = self._listed or bool(reading.own_processes)
        self._untold = self._untold or (bool(reading.own_processes) and reading.own_memory_bytes is None)
        self._shared = self._shared or bool(reading.other_processes)
        self._accompanied = self._accompanied or bool(reading.companion_processes)
        for histogram, value in ((self._power, reading.power_mw), (self._clock, reading.sm_clock_mhz)):
            if value is not None:
                histogram.add(value, gap_ns)
        if reading.own_memory_bytes is not None:
            self._own.add(at_ns, reading.own_memory_bytes, gap_ns)
        if reading.memory_bytes is not None:
            self._device_peak = max(self._device_peak or 0, reading.memory_bytes)
            self._add_rise(at_ns, reading, reading.memory_bytes, gap_ns)

    def _add_rise(self, at_ns: int, reading: GpuReading, used_bytes: int, gap_ns: int) -> None:
        """What the device holds more than before, and how much of that no listed process accounts for."""
        before = self._baseline
        if before is None or before.memory_bytes is None:
            return
        rise = used_bytes - before.memory_bytes
        self._risen.add(at_ns, max(0, rise), gap_ns)
        if reading.listed_bytes is not None and before.listed_bytes is not None:
            self._hidden_rise = max(self._hidden_rise, rise - (reading.listed_bytes - before.listed_bytes))

    def finish(self) -> GpuUsage:
        source, memory = self._memory()
        by_processes = source is GpuMemorySource.PROCESSES
        baseline = self._baseline.memory_bytes if self._baseline else None
        free = self._gpu.memory_bytes - (baseline or 0) if self._gpu.memory_bytes else None
        return GpuUsage(
            uuid=self._gpu.uuid,
            used=self._listed or (not by_processes and (memory.peak or 0) >= _RISE_BYTES),
            busy_average_pct=self._busy.average(),
            busy_maximum_pct=self._busy.maximum,
            memory_average_bytes=memory.average(),
            memory_peak_bytes=memory.peak,
            memory_source=source,
            device_peak_bytes=self._device_peak,
            baseline_bytes=baseline,
            power_average_mw=self._power.average(),
            power_maximum_mw=_whole(self._power.maximum),
            sm_clock_average_mhz=self._clock.average(),
            shared=self._shared,
            accompanied=self._accompanied,
            preallocated=free is not None and memory.reserved(free),
            looks=self._looks,
            longest_gap_ns=self._longest_gap_ns,
        )

    def _memory(self) -> tuple[GpuMemorySource, _Memory]:
        """The processes' own figures, unless they are not told, or are not the operator's by all appearance.

        Where the driver lists other ids than this host's (cpost in a container), or hides processes, the device's
        memory rises and nobody listed accounts for it.
        """
        nobody = not self._listed and self._hidden_rise >= _RISE_BYTES
        if self._own.peak is not None and not nobody and not self._untold:
            return GpuMemorySource.PROCESSES, self._own
        if self._risen.peak is not None:
            return GpuMemorySource.DEVICE, self._risen
        return GpuMemorySource.NONE, self._risen


class _Memory:
    """An amount of memory over time, from its first byte on."""

    def __init__(self) -> None:
        self._held = Histogram(_MEMORY_RESOLUTION_BYTES, significant_bits=11)
        self._since_first = Histogram(_MEMORY_RESOLUTION_BYTES, significant_bits=11)
        self._recent: deque[tuple[int, int]] = deque()
        self._jump = 0
        self.peak: int | None = None

    def add(self, at_ns: int, value: int, gap_ns: int) -> None:
        """Count `value` for the time since the look before."""
        self.peak = max(self.peak or 0, value)
        self._held.add(value, gap_ns)
        if value or self._since_first.total:
            self._since_first.add(value, gap_ns)
        if not self._recent:
            self._recent.append((at_ns - gap_ns, 0))
        self._recent.append((at_ns, value))
        while at_ns - self._recent[1][0] >= _JUMP_NS:
            self._recent.popleft()
        self._jump = max(self._jump, value - min(earlier for _, earlier in self._recent))

    def average(self) -> float | None:
        """Weighted by time."""
        return self._held.average()

    def reserved(self, free_bytes: int) -> bool:
        """Whether it looks reserved: most of what was free, most of it within a second, and kept from then on."""
        low = self._since_first.percentile(_FLAT_BELOW_PERCENTILE)
        if not self.peak or low is None or self._since_first.total < _SHORTEST_JUDGED_NS:
            return False
        flat = low >= _FLAT * self.peak
        return flat and self.peak >= _MOST_OF_FREE * free_bytes and self._jump >= _MOST_OF_PEAK * self.peak


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)
