"""The domain types: frozen, no input or output, integers in base units with the unit in the name.

None means "not read" or "not stated"; 0 means that zero was read. Times are monotonic unless named `_at` (aware UTC,
ISO 8601). Data flows from top to bottom of this file: Pipeline -> Plan -> Sample -> StepResult -> Usage ->
Recommendation -> Run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from cpost.gpu_model import Gpu, GpuUsage

# ---------------------------------------------------------------- pipeline


@dataclass(frozen=True, slots=True)
class Resources:
    """Declared, limited or recommended amounts; None = not stated."""

    cpu_millicores: int | None = None
    memory_bytes: int | None = None
    gpu_count: int | None = None


@dataclass(frozen=True, slots=True)
class DataType:
    """The type of a typed input or output: stream, array, string or a primitive such as uint8."""

    kind: str
    element: str | None = None
    shape: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Input:
    """What an operator reads.

    Attributes:
        path: folder inside the container; None where data does not travel by disk.
        source: the operator that produced it; None = the pipeline's payload.
        name: the producer's named output; None = its whole output folder.
    """

    path: str | None
    source: str | None = None
    name: str | None = None
    data_type: DataType | None = None


@dataclass(frozen=True, slots=True)
class Output:
    """What an operator writes: a folder inside the container, named or not."""

    path: str | None
    name: str | None = None
    data_type: DataType | None = None


@dataclass(frozen=True, slots=True)
class HttpConnection:
    """A service's port, exported to its operators as the variable `name` = host:port; port None = the default."""

    name: str
    port: int | None = None


@dataclass(frozen=True, slots=True)
class VolumeConnection:
    """A folder that a service and its operators share."""

    name: str
    path: str


@dataclass(frozen=True, slots=True)
class Service:
    """A container that an operator needs beside it while it runs."""

    name: str
    image: str
    command: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    requests: Resources = Resources()
    http: tuple[HttpConnection, ...] = ()
    volumes: tuple[VolumeConnection, ...] = ()
    host_volume_path: str | None = None


@dataclass(frozen=True, slots=True)
class Origin:
    """Where in which file something was written; line and column count from 1."""

    file: str
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Operator:
    """One container of a pipeline, as its definition states it.

    Attributes:
        image: full reference with tag or digest.
        command: acts as Docker's CMD: the image's entrypoint gets it as arguments where there is one.
        env: variables in the order written, values exactly as written.
        requests: what the definition declares today.
        models: names of folders in the model repository that a Triton server must serve.
        unsupported: why this operator cannot be run on this host; empty = it can.
    """

    name: str
    image: str
    command: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    inputs: tuple[Input, ...] = ()
    outputs: tuple[Output, ...] = ()
    requests: Resources = Resources()
    models: tuple[str, ...] = ()
    services: tuple[Service, ...] = ()
    unsupported: tuple[str, ...] = ()
    origin: Origin | None = None

    @property
    def upstream(self) -> tuple[str, ...]:
        """Names of the operators whose output this one reads, each once, in the order written."""
        return tuple(dict.fromkeys(item.source for item in self.inputs if item.source is not None))


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A parsed definition; operators in the order written, which is not the order of execution.

    Attributes:
        digest: sha256 over the bytes of the file and of every file that it imports.
        warnings: what was accepted but looks wrong, each with file, line and column.
    """

    name: str
    api_version: str
    operators: tuple[Operator, ...]
    digest: str
    file: str
    description: str = ""
    orchestrator: str = ""
    pull_secrets: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


# ---------------------------------------------------------------- plan


@dataclass(frozen=True, slots=True)
class Mount:
    """A folder of the host that the container sees at `target`."""

    source: str
    target: str
    read_only: bool


@dataclass(frozen=True, slots=True)
class Step:
    """An operator made ready to run.

    Attributes:
        index: place in the order of execution, from 0.
        memory_limit_bytes: ceiling that protects the host; swap is switched off by giving it as the swap limit too.
        output_folders: host folders that must exist before the start, one per declared output.
    """

    index: int
    operator: str
    image: str
    command: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    mounts: tuple[Mount, ...]
    output_folders: tuple[str, ...]
    upstream: tuple[str, ...]
    declared: Resources
    models: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    gpu_count: int = 0
    shm_bytes: int = 0
    pids_limit: int = 0
    memory_limit_bytes: int = 0
    timeout_ns: int | None = None
    unsupported: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """The ordered steps of one pipeline."""

    pipeline: Pipeline
    steps: tuple[Step, ...]


# ---------------------------------------------------------------- what is read


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


# ---------------------------------------------------------------- what it means


@dataclass(frozen=True, slots=True)
class Statistic:
    """Statistics of one quantity over time; percentiles are weighted by time. None = not known."""

    average: float | None = None
    maximum: float | None = None
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Statistics of a series.

    Attributes:
        window_ns: the span over which each CPU rate is taken.
        cpu_pct: 100 = one core. `average` = the kernel's CPU total over the wall time; `maximum` and the percentiles
            over windows of `window_ns`.
        memory_bytes: what the kernel charges. `maximum` = the kernel's peak, page cache included.
        need_peak_bytes: the highest amount that the kernel could not have taken back (anonymous, shared and kernel
            memory); None where memory.stat was never read.
        working_set_peak_bytes: highest total less inactive file cache.
        dev_shm_peak_bytes: the most that lay in the container's /dev/shm at one look; it is part of the need.
        cache_peak_bytes: the most that the kernel could have taken back at one look; it is no part of the need.
        gpus: of each GPU of the host, in the order of its facts.
        peaks_sampled: the kernel's own memory peak is not known, or not to the end: `maximum` is the highest sample.
    """

    window_ns: int
    cpu_pct: Statistic
    memory_bytes: Statistic
    need_peak_bytes: int | None = None
    working_set_peak_bytes: int | None = None
    dev_shm_peak_bytes: int | None = None
    cache_peak_bytes: int | None = None
    gpus: tuple[GpuUsage, ...] = ()
    peaks_sampled: bool = False


class Advice(str, Enum):
    """Whether there is a recommendation."""

    OK = "ok"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Recommendation:
    """Requests (and limits, where the policy sets any) with the reasons for them, or a refusal with its reason.

    Attributes:
        dev_shm_bytes: size that /dev/shm should have; None = what was in it is not known.
    """

    policy: str
    status: Advice
    requests: Resources = Resources()
    limits: Resources = Resources()
    reasons: tuple[str, ...] = ()
    dev_shm_bytes: int | None = None


# ---------------------------------------------------------------- run


@dataclass(frozen=True, slots=True)
class HostFacts:
    """The machine and the engine that a run was measured on."""

    hostname: str = ""
    kernel: str = ""
    architecture: str = ""
    cpus: int | None = None
    memory_bytes: int | None = None
    swap_bytes: int | None = None
    cgroup_layout: str = ""
    cgroup_driver: str = ""
    engine_version: str = ""
    engine_api: str = ""
    storage_driver: str = ""
    gpus: tuple[Gpu, ...] = ()
    gpu_driver: str = ""


class RepeatKind(str, Enum):
    """What a repeat is for: a warm-up's figures are kept, but nothing follows from them."""

    WARMUP = "warmup"
    MEASURED = "measured"

    def nth(self, number: int, planned: int) -> str:
        """What people read: "repeat 2 of 5", "warm-up 1 of 1"."""
        return f"{'warm-up' if self is RepeatKind.WARMUP else 'repeat'} {number} of {planned}"


@dataclass(frozen=True, slots=True)
class Repeat:
    """One of several runs of an operator.

    Attributes:
        number: place among those of its kind, from 1.
        planned: how many of its kind were asked for.
        cold: it was the operator's first in this run, so its image and inputs may have come from the disk and been
            charged to it; how much did is in `result.totals.io_read_bytes`, where that is known.
    """

    kind: RepeatKind
    number: int
    planned: int
    cold: bool
    result: StepResult
    usage: Usage | None = None
    series_file: str = ""

    @property
    def name(self) -> str:
        """What people read, see `RepeatKind.nth`."""
        return self.kind.nth(self.number, self.planned)


@dataclass(frozen=True, slots=True)
class Spread:
    """One figure over the measured repeats that ended well and had it."""

    minimum: float
    median: float
    maximum: float
    count: int

    @property
    def share(self) -> float | None:
        """From the lowest to the highest, as a share of the median; None where the median is 0 and others are not."""
        width = self.maximum - self.minimum
        return width / self.median if self.median else None if width else 0.0


@dataclass(frozen=True, slots=True)
class Spreads:
    """The figures that are looked at over repeats; None = no two repeats had it. Units and meanings as in `Usage`."""

    wall_ns: Spread | None = None
    cpu_us: Spread | None = None
    cpu_average_pct: Spread | None = None
    cpu_maximum_pct: Spread | None = None
    memory_peak_bytes: Spread | None = None
    need_peak_bytes: Spread | None = None


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why repeats may say less than they seem to, and what to do: one line each."""

    what: str
    remedy: str


@dataclass(frozen=True, slots=True)
class OperatorRecord:
    """One operator of a run: what was declared, what happened, what it means, what is recommended.

    Attributes:
        result: of the last run of the operator; `series_file` is that one's too, and so are the outputs.
        usage: over repeats: the median of their averages, and the highest of everything else.
        repeats: all runs of the operator in their order, warm-ups included; empty where it was run just once.
        spreads: None where no two measured repeats ended well and have a figure.
    """

    operator: str
    image: str
    declared: Resources
    result: StepResult
    recommendation: Recommendation
    usage: Usage | None = None
    series_file: str = ""
    repeats: tuple[Repeat, ...] = ()
    spreads: Spreads | None = None
    doubts: tuple[Doubt, ...] = ()


@dataclass(frozen=True, slots=True)
class Options:
    """What the user chose for a run; kept in the record.

    Attributes:
        repeat: how often each operator is run and measured.
        warmup: how often before that, without any say in the recommendation.
    """

    period_ns: int = 10 * 10**6
    window_ns: int = 200 * 10**6
    policy: str = "peak"
    timeout_ns: int | None = None
    shm_bytes: int = 2**30
    memory_limit_bytes: int | None = None
    pids_limit: int = 8192
    on_failure: str = "none"
    input_dir: str = ""
    metrics_dir: str | None = None
    outputs_dir: str | None = None
    models_dir: str | None = None
    overwrite: bool = False
    no_gpu: bool = False
    repeat: int = 1
    warmup: int = 0


@dataclass(frozen=True, slots=True)
class Run:
    """The record of one whole execution of a pipeline; `complete` is False where it ended before its last step."""

    schema_version: int
    run_id: str
    cpost_version: str
    created_at: str
    pipeline_name: str
    pipeline_file: str
    pipeline_digest: str
    host: HostFacts
    options: Options
    operators: tuple[OperatorRecord, ...] = ()
    warnings: tuple[str, ...] = ()
    complete: bool = False
    stopped_by: str = ""
    ended_at: str = field(default="")
