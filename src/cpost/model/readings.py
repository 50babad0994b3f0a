"""What is read while a step runs, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple


class Detail(NamedTuple):
    """The slower beat of a sample; None = this host does not tell.

    Memory in bytes as in memory.stat (hierarchical), `kernel_bytes` = kernel memory charged to the group,
    `reclaimable_bytes` = what the kernel can drop at no cost to the operator (file cache without shared memory, and
    reclaimable slab where it is told). `oom_kills` counts since the group was made. io in bytes, cumulative.
    Pressure (PSI) totals in microseconds, cumulative. `dev_shm_bytes` = what lies in the container's /dev/shm.
    """

    anon_bytes: int | None = None
    shmem_bytes: int | None = None
    file_bytes: int | None = None
    inactive_file_bytes: int | None = None
    kernel_bytes: int | None = None
    reclaimable_bytes: int | None = None
    oom_kills: int | None = None
    io_read_bytes: int | None = None
    io_write_bytes: int | None = None
    psi_cpu_some_us: int | None = None
    psi_memory_some_us: int | None = None
    psi_memory_full_us: int | None = None
    psi_io_some_us: int | None = None
    psi_io_full_us: int | None = None
    dev_shm_bytes: int | None = None


class Sample(NamedTuple):
    """One reading of cumulative counters at one instant; raw, never rates.

    t_ns counts from the start of the operator's first program (from the start of sampling where that is not known).
    memory_peak_bytes is the kernel's high-water mark since the sample before; None where the kernel cannot reset it.
    pids counts processes and threads, the container's init among them, at the slower beat; so do the user and system
    parts of the CPU time where they cost a reading of their own (v1).
    read_ns is how long the reading took: where it is long, the counters may be younger than t_ns by as much.
    """

    t_ns: int
    cpu_us: int
    cpu_user_us: int | None
    cpu_system_us: int | None
    throttled_us: int | None
    throttled_periods: int | None
    memory_bytes: int | None
    memory_peak_bytes: int | None
    detail: Detail | None = None
    pids: int | None = None
    read_ns: int = 0


KERNEL, LAST_SAMPLE, PROCESS_TREE, ENGINE_STATS = "kernel", "last sample", "process tree", "engine stats"


@dataclass(frozen=True, slots=True)
class Totals:
    """What the kernel says about the whole life of a step, start-up of the container runtime taken out.

    Attributes:
        source: "kernel" (read after the end, exact); "last sample" (`tail_ns` of the end were not seen); "process tree"
            (memory an estimate); "engine stats" (a sample a second, `tail_ns` not seen).
        startup_cpu_us: CPU time that the container runtime used before the operator's first instruction; taken out
            of the other figures. None = could not be told apart, and is then contained in them.
        memory_peak_bytes: the kernel's high-water mark, page cache included.
    """

    source: str
    cpu_us: int
    cpu_user_us: int | None = None
    cpu_system_us: int | None = None
    throttled_us: int | None = None
    throttled_periods: int | None = None
    memory_peak_bytes: int | None = None
    oom_kills: int | None = None
    pids_peak: int | None = None
    io_read_bytes: int | None = None
    io_write_bytes: int | None = None
    startup_cpu_us: int | None = None
    startup_memory_peak_bytes: int | None = None
    tail_ns: int = 0


@dataclass(frozen=True, slots=True)
class Sampling:
    """How well the sampler did its work and what it cost.

    Attributes:
        sampler_cpu_us: CPU of the sampling process in this time.
        counter_resets: how often the CPU counter was found below its last value; counting went on from there.
        clock_step_ns: how far the wall clock was set forward (back: negative) meanwhile; durations do not depend on it.
        suspended_ns: how long the machine slept meanwhile.
    """

    period_ns: int
    samples: int = 0
    ticks_due: int = 0
    ticks_missed: int = 0
    longest_gap_ns: int = 0
    sampler_cpu_us: int = 0
    counter_resets: int = 0
    clock_step_ns: int = 0
    suspended_ns: int = 0


class Outcome(str, Enum):
    """How a step ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    OOM_KILLED = "oom_killed"
    TIMED_OUT = "timed_out"
    INTERRUPTED = "interrupted"
    ENGINE_LOST = "engine_lost"


@dataclass(frozen=True, slots=True)
class StepResult:
    """What happened to one step.

    Attributes:
        cause: one line in words; empty for a plain success.
        exit_code: the container's; None = it has none or it was lost.
        wall_ns: first instruction to the end of the main process.
        log_tail: the last lines that the operator wrote, control characters shown escaped.
        others_cpu_share: of the CPU time that the host had meanwhile, what went to others than the operator and its
            servers; None = not looked at, or over too soon to tell.
    """

    operator: str
    outcome: Outcome
    cause: str = ""
    exit_code: int | None = None
    image_id: str = ""
    container_id: str = ""
    started_at: str = ""
    wall_ns: int | None = None
    totals: Totals | None = None
    sampling: Sampling | None = None
    log_tail: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    others_cpu_share: float | None = None
