"""The record of a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from enum import Enum

from cpost.defaults import TRITON_IMAGE
from cpost.model.definition import Format, Resources, ServerKind
from cpost.model.figures import Figure
from cpost.model.gpu import Gpu
from cpost.model.readings import StepResult
from cpost.model.serving import TritonFacts
from cpost.model.sizing import Recommendation, Usage
from cpost.model.trial import Search, Verification
from cpost.units import NS_PER_MS, NS_PER_S

_NOTHING = Resources()


@dataclass(frozen=True, slots=True)
class HostFacts:
    """The machine and the engine that a run was measured on; empty or None = not told."""

    hostname: str = ""
    kernel: str = ""
    architecture: str = ""
    cpu_model: str = ""
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
class ServerRecord:
    """A server beside an operator: how it did, what it used idle and under load, what is recommended for it.

    Attributes:
        declared, declared_limits: what the definition requests for it and allows it.
        result: of its container; a server that stayed up to the end has completed.
        usage: from its first instruction to its operator's end; start and loading of models included.
        ready_ns: first instruction to ready; None = it never was.
        idle: from ready to its operator's first instruction; None = too short for two samples.
        load: while its operator ran (where it is one for the whole run: while any did that uses it).
        triton: what a Triton tells of itself; None = not a Triton, or it told nothing.
    """

    name: str
    kind: ServerKind
    image: str
    models: tuple[str, ...]
    declared: Resources
    result: StepResult
    recommendation: Recommendation
    usage: Usage | None = None
    ready_ns: int | None = None
    idle: Usage | None = None
    load: Usage | None = None
    triton: TritonFacts | None = None
    series_file: str = ""
    declared_limits: Resources = _NOTHING


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
    servers: tuple[ServerRecord, ...] = ()

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

    def known(self) -> Iterator[tuple[Figure, Spread]]:
        """Those that there are, in the order in which people look at them."""
        for each in fields(self):
            over: Spread | None = getattr(self, each.name)
            if over is not None:
                yield Figure(each.name), over


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why repeats may say less than they seem to, and what to do: one line each."""

    what: str
    remedy: str


@dataclass(frozen=True, slots=True)
class OperatorRecord:
    """One operator of a run: what was declared, what happened, what it means, what is recommended.

    Attributes:
        declared, declared_limits: what the definition requests for it and allows it. It was not held to either.
        result: of the last run of the operator; `series_file` is that one's too, and so are the outputs.
        usage: over repeats: the median of their averages, and the highest of everything else.
        repeats: all runs of the operator in their order, warm-ups included; empty where it was run just once.
        spreads: None where no two measured repeats ended well and have a figure.
        servers: those that ran beside it and ended with it; over repeats as `usage` is.
        verification: None = its recommendation was not tried.
        cold_inputs: where its container (a server's: with its name and a colon) saw inputs that were not in the page
            cache when its run began, and so were read from the disk and charged to it; empty for several runs.
        search: None = nothing smaller was looked for.
        site: what the definition calls the container that it is a use of; empty = as the operator.
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
    servers: tuple[ServerRecord, ...] = ()
    verification: Verification | None = None
    cold_inputs: tuple[str, ...] = ()
    search: Search | None = None
    site: str = ""
    declared_limits: Resources = _NOTHING


@dataclass(frozen=True, slots=True)
class Options:
    """What the user chose for a run; kept in the record.

    Attributes:
        repeat: how often each operator is run and measured.
        warmup: how often before that, without any say in the recommendation.
        verify: run each operator once more with its recommendation as limits.
        max_slowdown: how much longer it may take then, as a share.
        triton_scope: "operator" = a fresh Triton for each operator with models, "pipeline" = one for all of them.
        triton_timeout_ns: for a Triton or service to become ready.
        policy: empty = what the definition's format calls for.
        duration_ns: how long operators run that do not end by themselves.
    """

    period_ns: int = 10 * NS_PER_MS
    window_ns: int = 200 * NS_PER_MS
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
    verify: bool = False
    max_slowdown: float = 0.10
    triton_image: str = TRITON_IMAGE
    triton_args: tuple[str, ...] = ()
    triton_scope: str = "operator"
    triton_timeout_ns: int = 120 * NS_PER_S
    duration_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """The record of one whole execution of a pipeline; `complete` is False where it ended before its last step.

    `servers` are those that served several operators; all others are in the records of theirs. `pipeline_format` is
    whose rules the definition follows; None = there is none. `work_digest` is over what was run, whatever was declared
    for it; empty = not known.
    """

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
    servers: tuple[ServerRecord, ...] = ()
    warnings: tuple[str, ...] = ()
    complete: bool = False
    stopped_by: str = ""
    ended_at: str = field(default="")
    pipeline_format: Format | None = None
    work_digest: str = ""
