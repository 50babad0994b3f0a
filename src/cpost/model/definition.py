"""What a definition says, and what is to be run because of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

ALL_GPUS = -1
PIPELINE = "pipeline"  # stands for the operator's name where a server belongs to no operator alone


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
        cpu_limit_millicores: 0 = none.
        output_folders: host folders that must exist before the start, one per declared output.
        shared_folders: likewise, those that it shares with its services.
        servers: containers that run beside it from before its start to its end.
        gpu_count: how many GPUs it gets; `ALL_GPUS` = all that the host has.
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
    shared_folders: tuple[str, ...] = ()
    servers: tuple[Server, ...] = ()
    gpu_count: int = 0
    shm_bytes: int = 0
    pids_limit: int = 0
    memory_limit_bytes: int = 0
    cpu_limit_millicores: int = 0
    timeout_ns: int | None = None
    unsupported: tuple[str, ...] = ()


class ServerKind(str, Enum):
    """What a server is there for."""

    TRITON = "triton"
    SERVICE = "service"


@dataclass(frozen=True, slots=True)
class Server:
    """A container that runs beside an operator and answers it, made ready to run.

    Attributes:
        name: what people read.
        step: its container; `step.operator` is what its files are called.
        models: what a Triton has to have ready before the operator starts.
        connections: variables that the operator gets as host:port; no port is left open.
        speaks_triton: it is asked whether it is ready; of others it is enough that their ports accept.
        shared: one for all operators of the run.
    """

    name: str
    kind: ServerKind
    step: Step
    models: tuple[str, ...] = ()
    connections: tuple[HttpConnection, ...] = ()
    speaks_triton: bool = False
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """The ordered steps of one pipeline."""

    pipeline: Pipeline
    steps: tuple[Step, ...]
