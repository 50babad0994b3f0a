"""The figures that runs are compared by: what people call them, how they are shown, and how sure they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import NamedTuple

from cpost.model.readings import ENGINE_STATS, LAST_SAMPLE, PROCESS_TREE, StepResult
from cpost.model.sizing import Usage
from cpost.units import NS_PER_S, format_cpu_time, format_mb, format_percent, format_seconds

# An end that was not seen is passed over where it is no longer than what lies between two looks at memory's parts, and
# no more of the life than p95 leaves out.
_SHORT_END_NS = NS_PER_S // 10
_SHORT_END_PART = 20
# Of the host's CPU time: above this, others may have had what an operator would have used.
BUSY_SHARE = 0.20


class _Look(NamedTuple):
    label: str
    show: Callable[[float], str]


class Figure(str, Enum):
    """What is compared between runs; units as the name says."""

    WALL_NS = "wall_ns"
    CPU_US = "cpu_us"
    CPU_AVERAGE_PCT = "cpu_average_pct"
    CPU_P95_PCT = "cpu_p95_pct"
    CPU_P99_PCT = "cpu_p99_pct"
    CPU_MAXIMUM_PCT = "cpu_maximum_pct"
    MEMORY_PEAK_BYTES = "memory_peak_bytes"
    NEED_PEAK_BYTES = "need_peak_bytes"
    GPU_BUSY_AVERAGE_PCT = "gpu_busy_average_pct"
    GPU_MEMORY_PEAK_BYTES = "gpu_memory_peak_bytes"

    @property
    def label(self) -> str:
        """What it is called within a sentence."""
        return _LOOKS[self].label

    @property
    def heading(self) -> str:
        """What it is called at the head of a row."""
        return self.label[0].upper() + self.label[1:]

    @property
    def of_memory(self) -> bool:
        """Of several runs the highest counts, as it is what a request has to bear; of all others the median."""
        return self in (Figure.MEMORY_PEAK_BYTES, Figure.NEED_PEAK_BYTES, Figure.GPU_MEMORY_PEAK_BYTES)

    @property
    def of_cpu_rate(self) -> bool:
        """How much of the CPUs it had at a time, which depends on who else wanted them."""
        return self.value.startswith("cpu_") and self is not Figure.CPU_US

    @property
    def of_gpu(self) -> bool:
        """Known only where there are GPUs."""
        return self in (Figure.GPU_BUSY_AVERAGE_PCT, Figure.GPU_MEMORY_PEAK_BYTES)

    def show(self, value: float) -> str:
        """A value with its unit, for people."""
        return _LOOKS[self].show(value)


_LOOKS: Mapping[Figure, _Look] = {
    Figure.WALL_NS: _Look("wall time", format_seconds),
    Figure.CPU_US: _Look("CPU time", format_cpu_time),
    Figure.CPU_AVERAGE_PCT: _Look("CPU average", format_percent),
    Figure.CPU_P95_PCT: _Look("CPU p95", format_percent),
    Figure.CPU_P99_PCT: _Look("CPU p99", format_percent),
    Figure.CPU_MAXIMUM_PCT: _Look("CPU maximum", format_percent),
    Figure.MEMORY_PEAK_BYTES: _Look("memory peak", format_mb),
    Figure.NEED_PEAK_BYTES: _Look("memory need", format_mb),
    Figure.GPU_BUSY_AVERAGE_PCT: _Look("GPU busy", format_percent),
    Figure.GPU_MEMORY_PEAK_BYTES: _Look("GPU memory", format_mb),
}


class Certainty(Enum):
    """How sure a figure is; the more doubtful, the later. The values are the marks that stand before it."""

    EXACT = ""
    ESTIMATE = "~ "
    AT_LEAST = ">= "


def cpu_time_certainty(result: StepResult) -> Certainty:
    """Of its CPU time, which is the same work's whoever else had the CPUs."""
    return Certainty.AT_LEAST if _end_unseen(result) else Certainty.EXACT


def cpu_rate_certainty(result: StepResult, usage: Usage) -> Certainty:
    """Of its CPU rates: beside other work it may have got less than it would have used."""
    return Certainty.AT_LEAST if held_up_by_others(usage) else cpu_time_certainty(result)


def held_up_by_others(usage: Usage) -> bool:
    """Whether the host was busy with other work meanwhile."""
    return usage.others_cpu_share is not None and usage.others_cpu_share > BUSY_SHARE


def need_certainty(result: StepResult) -> Certainty:
    """Of its memory need."""
    if result.totals is not None and result.totals.source == PROCESS_TREE:
        return Certainty.ESTIMATE
    return Certainty.AT_LEAST if _end_unseen(result) else Certainty.EXACT


def peak_certainty(result: StepResult, usage: Usage) -> Certainty:
    """Of its memory peak."""
    found = need_certainty(result)
    return Certainty.AT_LEAST if found is Certainty.EXACT and usage.peaks_sampled else found


def _end_unseen(result: StepResult) -> bool:
    """Whether more than a little of its life was not seen, or no more than a sample a second."""
    totals = result.totals
    if totals is None or totals.source not in (ENGINE_STATS, LAST_SAMPLE):
        return False
    short_ns = _SHORT_END_NS if result.wall_ns is None else min(_SHORT_END_NS, result.wall_ns // _SHORT_END_PART)
    return totals.source == ENGINE_STATS or totals.tail_ns > short_ns
