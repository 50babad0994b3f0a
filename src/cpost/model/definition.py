"""What a definition says, and what is to be run because of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
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
class Granularity:
    """The steps in which a format's requests are written.

    Attributes:
        peak_memory_step_bytes: of the policy that sizes by the kernel's peak.
    """

    cpu_step_millicores: int
    memory_step_bytes: int
    peak_memory_step_bytes: int


# Clara takes whole cores and whole megabytes; the peak policy keeps the steps of the first cpost.
WHOLE_CORES = Granularity(1000, 10**6, 256 * 10**6)
FINE = Granularity(10, 16 * 2**20, 16 * 2**20)


class Format(str, Enum):
    """Whose rules a definition follows."""

    CLARA = "clara"
    KUBERNETES = "kubernetes"
    ARGO = "argo"
    COMPOSE = "compose"

    @property
    def policy(self) -> str:
        """How requests follow from usage where the user does not say: Clara's requests act as ceilings, too."""
        return "peak" if self is Format.CLARA else "p95"

    @property
    def granularity(self) -> Granularity:
        """The steps that its requests come in."""
        return WHOLE_CORES if self is Format.CLARA else FINE


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
        entry: the file or folder in there that is meant; empty = all of it.
    """

    path: str | None
    source: str | None = None
    name: str | None = None
    data_type: DataType | None = None
    entry: str = ""


@dataclass(frozen=True, slots=True)
class Output:
    """What an operator writes: a folder inside the container, named or not.

    Attributes:
        copied: it is copied out at the operator's end, and may be a single file; otherwise a folder is mounted there.
        optional: it need not be there at the end (of what is copied).
    """

    path: str | None
    name: str | None = None
    data_type: DataType | None = None
    copied: bool = False
    optional: bool = False


@dataclass(frozen=True, slots=True)
class File:
    """A file that the definition holds itself; `name` is relative to where its folder is mounted."""

    name: str
    content: bytes
    mode: int = 0o644


@dataclass(frozen=True, slots=True)
class Volume:
    """A folder made for the run, or one of the host.

    Attributes:
        name: all operators that name it get the same folder.
        path: where the container sees it.
        part: the folder or file in it that is mounted; empty = all of it.
        files: what lies in it from the start; such a folder belongs to nobody but the definition.
        source: the folder or file of the host; empty = a fresh folder.
    """

    name: str
    path: str
    read_only: bool = False
    part: str = ""
    files: tuple[File, ...] = ()
    source: str = ""


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
        entrypoint: replaces the image's; () = the image's is used, ("",) = none is.
        workdir, user: empty = the image's.
        limits: what the definition allows it at most, today.
        volumes: folders other than inputs and outputs.
        after: operators that have to end before it, whether or not it reads anything of theirs.
        companions: containers that run beside it, from before its start to its end.
        ports: those at which it answers others, if it is a companion.
        aliases: names under which others reach it, if it is a companion.
        shm_bytes: size of /dev/shm; None = not stated.
        long_running: it does not end by itself.
        site: what the container is called whose requests these are, as several operators may be uses of one; empty =
            as the operator.
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
    entrypoint: tuple[str, ...] = ()
    workdir: str = ""
    user: str = ""
    limits: Resources = Resources()
    volumes: tuple[Volume, ...] = ()
    after: tuple[str, ...] = ()
    companions: tuple[Operator, ...] = ()
    ports: tuple[int, ...] = ()
    aliases: tuple[str, ...] = ()
    shm_bytes: int | None = None
    long_running: bool = False
    site: str = ""

    @property
    def upstream(self) -> tuple[str, ...]:
        """Names of the operators whose output this one reads, each once, in the order written."""
        return tuple(dict.fromkeys(item.source for item in self.inputs if item.source is not None))


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A parsed definition; operators in the order written, which is not the order of execution.

    Attributes:
        digest: sha256 over the bytes of the file and of every file that it imports.
        warnings: what was accepted but looks wrong, or is not done here, each with file, line and column.
        format: whose rules the file follows.
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
    format: Format = Format.CLARA

    @property
    def work_digest(self) -> str:
        """sha256, in hex, over what is run: images, commands, variables, folders, order. Not over what is declared
        but for GPUs, which are given, nor over comments and the like. Another version of cpost may come to another one.
        """
        return hashlib.sha256(repr([_work(operator) for operator in self.operators]).encode()).hexdigest()

    def is_shared(self, companion: str) -> bool:
        """Whether several operators need a companion: it stays up between them, with all that they have left in it."""
        return sum(each.name == companion for one in self.operators for each in one.companions) > 1

    def companion_name(self, operator: str, companion: str) -> str:
        """What a companion's files are called."""
        return f"{PIPELINE if self.is_shared(companion) else operator}__{companion}"


def _work(operator: Operator) -> Operator:
    """An operator without its place in the file, and without resources that it is not given."""
    return replace(
        operator,
        requests=_gpus(operator.requests),
        limits=Resources(),
        shm_bytes=None,
        origin=None,
        services=tuple(replace(service, requests=_gpus(service.requests)) for service in operator.services),
        companions=tuple(map(_work, operator.companions)),
    )


def _gpus(resources: Resources) -> Resources:
    return Resources(gpu_count=resources.gpu_count)


@dataclass(frozen=True, slots=True)
class Mount:
    """A folder or file of the host that the container sees at `target`."""

    source: str
    target: str
    read_only: bool


@dataclass(frozen=True, slots=True)
class HostFile:
    """A file that is written on the host before a container starts, at an absolute path."""

    path: str
    content: bytes
    mode: int


@dataclass(frozen=True, slots=True)
class CopyOut:
    """A file or folder of a container that is copied into a folder of the host when the container has ended."""

    path: str
    folder: str
    optional: bool = False


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
        after: operators that it follows without reading anything of theirs.
        limits: what its definition allows it; it is not held to them.
        volume_folders: host folders that must exist before its start, or its servers'; they stay for later operators.
        files: written there before.
        copies: what is fetched from its container at its end.
        duration_ns: it is stopped after this time, and has done then what it was there for; None = it ends by itself.
        site: see `Operator`.
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
    entrypoint: tuple[str, ...] = ()
    workdir: str = ""
    user: str = ""
    aliases: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    limits: Resources = Resources()
    volume_folders: tuple[str, ...] = ()
    files: tuple[HostFile, ...] = ()
    copies: tuple[CopyOut, ...] = ()
    duration_ns: int | None = None
    granularity: Granularity = WHOLE_CORES
    site: str = ""


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
        ports: others at which it answers.
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
    ports: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """The ordered steps of one pipeline."""

    pipeline: Pipeline
    steps: tuple[Step, ...]
