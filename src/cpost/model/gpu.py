"""The domain types of GPUs: frozen, no input or output, integers in base units; None means "not read"."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU, or one instance of a GPU that is divided (MIG).

    Attributes:
        memory_bytes: all that it has.
        parent_uuid: of an instance: the GPU that it is a part of.
    """

    uuid: str
    name: str
    memory_bytes: int | None = None
    parent_uuid: str = ""


class BusySpan(NamedTuple):
    """For which share of a stretch of time any kernel ran on a GPU, by the driver; end in Unix ns, busy in percent."""

    end_ns: int
    span_ns: int
    percent: int


class GpuReading(NamedTuple):
    """One look at one GPU.

    memory_bytes is what is in use on the device, listed_bytes what all processes that the driver lists hold together,
    own_memory_bytes what the own processes hold of the operator or server that is looked at. own_processes,
    companion_processes (of whatever else cpost watches at the same time: the operator's servers, a server's operator)
    and other_processes (of anybody else) count those listed. busy are the stretches that the driver has finished since
    the look before.
    """

    busy: tuple[BusySpan, ...] = ()
    memory_bytes: int | None = None
    listed_bytes: int | None = None
    own_memory_bytes: int | None = None
    own_processes: int | None = None
    other_processes: int | None = None
    power_mw: int | None = None
    sm_clock_mhz: int | None = None
    companion_processes: int | None = None


class GpuLook(NamedTuple):
    """One look at all GPUs of the host, in the order of its facts; at_ns in Unix ns.

    companions is how many others were watched at the same time, on a GPU or not.
    """

    at_ns: int
    readings: tuple[GpuReading, ...]
    companions: int = 0


class GpuMemorySource(str, Enum):
    """Where GPU memory was read: of the operator's own processes, or as the rise of the whole device's."""

    PROCESSES = "processes"
    DEVICE = "device"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class GpuUsage:
    """What an operator, or a server, used of one GPU. Averages and percentiles are weighted by time.

    Attributes:
        used: whether the operator was on it: a process of its own was listed, or the device's memory rose.
        busy_*_pct: share of the time in which any kernel ran on the device, whoever's it was. None = not available.
        memory_*_bytes: the operator's own; `memory_source` says where from.
        device_peak_bytes: the highest that was in use on the device, by anybody.
        baseline_bytes: in use on the device before the operator started.
        shared: whether somebody else's process was on it meanwhile, one that cpost did not watch.
        companions: how many others were watched meanwhile (its servers, its operator), at most. With any, a rise of the
            device's memory may be theirs.
        accompanied: whether a process of theirs was on it.
        preallocated: whether most of the free memory was taken at once and kept: the peak is an upper bound then.
        longest_gap_ns: between two looks; a peak in it is not seen.
    """

    uuid: str
    used: bool = False
    busy_average_pct: float | None = None
    busy_maximum_pct: float | None = None
    memory_average_bytes: float | None = None
    memory_peak_bytes: int | None = None
    memory_source: GpuMemorySource = GpuMemorySource.NONE
    device_peak_bytes: int | None = None
    baseline_bytes: int | None = None
    power_average_mw: float | None = None
    power_maximum_mw: int | None = None
    sm_clock_average_mhz: float | None = None
    shared: bool = False
    companions: int = 0
    accompanied: bool = False
    preallocated: bool = False
    looks: int = 0
    longest_gap_ns: int = 0


def busiest(gpus: tuple[GpuUsage, ...]) -> GpuUsage | None:
    """Of the GPUs that the operator used, the one that was busy for the longest; None where it used none."""
    return max((gpu for gpu in gpus if gpu.used), key=lambda gpu: gpu.busy_average_pct or 0, default=None)


def fullest(gpus: tuple[GpuUsage, ...]) -> GpuUsage | None:
    """The GPU on which the operator held the most memory; None where that could be read of none."""
    known = (gpu for gpu in gpus if gpu.memory_peak_bytes is not None)
    return max(known, key=lambda gpu: gpu.memory_peak_bytes or 0, default=None)
