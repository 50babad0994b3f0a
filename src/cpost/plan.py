"""Pipeline + host + options -> ordered steps. Pure: nothing is read, made or run here."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from graphlib import TopologicalSorter
from pathlib import PurePath

from cpost.errors import UsageError
from cpost.model import (
    ALL_GPUS,
    PIPELINE,
    CopyOut,
    Format,
    HostFile,
    HttpConnection,
    Input,
    Mount,
    Operator,
    Options,
    Pipeline,
    Plan,
    Resources,
    Server,
    ServerKind,
    Service,
    Step,
    Volume,
)
from cpost.units import MIB, whole_pages

# Set for every operator: Clara's base image waits for lock files of the platform without it.
_NO_SYNC_LOCK = ("NVIDIA_CLARA_NOSYNCLOCK", "1")
_TRITON = "triton"
_HTTP_PORT, _GRPC_PORT = 8000, 8001
_TRITON_CONNECTIONS = (
    HttpConnection("NVIDIA_TRITON_HTTPURI", _HTTP_PORT),
    HttpConnection("NVIDIA_TRITON_GRPCURI", _GRPC_PORT),
    HttpConnection("NVIDIA_CLARA_TRTISURI", _HTTP_PORT),
    HttpConnection("CLARA_TRITON_URI", _HTTP_PORT),
)
# The first is where the models are for a Triton that cpost starts. A service of the platform finds them below the
# second, whose name a variable tells.
_MODELS_FOLDER, _DATA_FOLDER = "/models", "/clara/common"
_DATA_VARIABLE = "NVIDIA_CLARA_SERVICE_DATA_PATH"
_HOST_RESERVE_BYTES = 512 * MIB
_HOST_RESERVE_SHARE = 20


@dataclass(frozen=True, slots=True)
class Place:
    """Where a plan will be run.

    Attributes:
        input_dir: the payload's folder on the host.
        work_dir: where each operator gets a folder for its outputs.
        shared_dir: where operators and their services get folders that both write to.
        models_dir: the model repository; None = there is none.
        memory_bytes: the host's memory; sets the ceiling where the options set none.
        gpus: how many the host has.
    """

    input_dir: PurePath
    work_dir: PurePath
    shared_dir: PurePath
    models_dir: PurePath | None
    memory_bytes: int
    gpus: int = 0


def make_plan(
    pipeline: Pipeline, place: Place, options: Options, models: Mapping[str, tuple[str, ...]] | None = None
) -> Plan:
    """Make every operator ready to run, with its servers, in the order of execution.

    Args:
        models: what a Triton has to load for each operator, where the model repository was looked at; without it what
            they ask for.

    Raises:
        UsageError: files of two servers, or of an operator and a server, would have one name.
    """
    asked = {each.name: each.models for each in pipeline.operators}
    planner = _Planner(place, options, models or asked, pipeline)
    steps = [planner.step(index, operator) for index, operator in enumerate(execution_order(pipeline.operators))]
    _check_names(steps)
    return Plan(pipeline, tuple(steps))


def servers_of(plan: Plan) -> Iterator[Server]:
    """All servers of a plan, each once."""
    yield from {server.step.operator: server for step in plan.steps for server in step.servers}.values()


def images_of(plan: Plan) -> list[str]:
    """The images of operators and servers, each once, in the order of their use; what has none cannot be run."""
    used = (each.image for step in plan.steps for each in (*(server.step for server in step.servers), step))
    return list(dict.fromkeys(filter(None, used)))


def host_ceiling_bytes(host_memory_bytes: int) -> int:
    """What an operator may use without endangering the host: all but a twentieth, and at least 512 MiB, of it."""
    reserve = max(_HOST_RESERVE_BYTES, host_memory_bytes // _HOST_RESERVE_SHARE)
    return max(-(-host_memory_bytes // 2), host_memory_bytes - reserve)


def execution_order(operators: tuple[Operator, ...]) -> Iterator[Operator]:
    """Producers before consumers, otherwise in the order written; the definition has been checked for cycles."""
    place = {operator.name: index for index, operator in enumerate(operators)}
    sorter = TopologicalSorter({operator.name: (*operator.upstream, *operator.after) for operator in operators})
    sorter.prepare()
    ready: list[int] = []
    while sorter.is_active():
        for name in sorter.get_ready():
            heapq.heappush(ready, place[name])
        operator = operators[heapq.heappop(ready)]
        yield operator
        sorter.done(operator.name)


def needed(operators: tuple[Operator, ...], names: Collection[str]) -> tuple[Operator, ...]:
    """Of all operators these and those that have to run before them, in the order written.

    That are whoever's outputs they read or whose end they wait for, and what comes before them in the order of
    execution and writes to a volume that they have in common.
    """
    by_name = {operator.name: operator for operator in operators}
    earlier: dict[str, set[str]] = {}
    for operator in execution_order(operators):
        sharing = [name for name in earlier if _volumes(by_name[name], written=True) & _volumes(operator)]
        befores = {*operator.upstream, *operator.after, *sharing}
        earlier[operator.name] = befores.union(*(earlier[before] for before in befores))
    wanted = set(names).union(*(earlier[name] for name in names))
    return tuple(operator for operator in operators if operator.name in wanted)


def _volumes(operator: Operator, *, written: bool = False) -> set[str]:
    """Names of the fresh folders that an operator, or what runs beside it, sees; or may write to."""
    every = (volume for each in (operator, *operator.companions) for volume in each.volumes)
    return {each.name for each in every if not each.source and not (written and each.read_only)}


class _Planner:
    """Makes the steps of one plan."""

    def __init__(
        self, place: Place, options: Options, models: Mapping[str, tuple[str, ...]], pipeline: Pipeline
    ) -> None:
        self._place = place
        self._always = (_NO_SYNC_LOCK,) if pipeline.format is Format.CLARA else ()
        self._pipeline = pipeline
        self._options = options
        self._models = models
        self._bare = Step(
            index=0,
            operator="",
            image="",
            command=(),
            env=(),
            mounts=(),
            output_folders=(),
            upstream=(),
            declared=Resources(),
            shm_bytes=options.shm_bytes,
            pids_limit=options.pids_limit,
            memory_limit_bytes=options.memory_limit_bytes or whole_pages(host_ceiling_bytes(place.memory_bytes)),
            granularity=pipeline.format.granularity,
        )

    def step(self, index: int, operator: Operator) -> Step:
        """An operator made ready to run."""
        work_dir = self._place.work_dir
        folder = work_dir / operator.name
        outputs = [(item, folder / item.name if item.name else folder) for item in operator.outputs if item.path]
        mounts = [_input_mount(item, self._place.input_dir, work_dir) for item in operator.inputs if item.path]
        mounts += [Mount(str(source), str(item.path), read_only=False) for item, source in outputs if not item.copied]
        shared = self._volumes(operator, operator.services)
        bare = self._container(operator)
        return replace(
            bare,
            index=index,
            operator=operator.name,
            env=tuple({**dict(self._always), **dict(operator.env)}.items()),
            mounts=(*mounts, *shared, *bare.mounts),
            output_folders=tuple(dict.fromkeys([str(folder), *(str(source) for _, source in outputs)])),
            shared_folders=tuple(mount.source for mount in shared),
            volume_folders=tuple(self._fresh(operator, *operator.companions)),
            files=tuple(self._files(operator, *operator.companions)),
            copies=tuple(
                CopyOut(str(item.path), str(source), item.optional) for item, source in outputs if item.copied
            ),
            upstream=operator.upstream,
            after=operator.after,
            servers=tuple(self._servers(index, operator)),
            timeout_ns=self._options.timeout_ns,
            duration_ns=self._options.duration_ns if operator.long_running else None,
            unsupported=operator.unsupported,
        )

    def _container(self, operator: Operator) -> Step:
        """What is the same for an operator and for a companion."""
        return replace(
            self._bare,
            image=operator.image,
            entrypoint=operator.entrypoint,
            command=operator.command,
            env=operator.env,
            workdir=operator.workdir,
            user=operator.user,
            aliases=operator.aliases,
            mounts=tuple(
                Mount(str(self._source(operator, each)), each.path, each.read_only) for each in operator.volumes
            ),
            declared=self._counted(operator.requests),
            limits=self._counted(operator.limits),
            shm_bytes=operator.shm_bytes or self._bare.shm_bytes,
            gpu_count=self._gpus(self._counted(operator.requests)),
            site=operator.site,
        )

    def _counted(self, amounts: Resources) -> Resources:
        """All GPUs are those of the host, and one at least."""
        return replace(amounts, gpu_count=max(1, self._place.gpus)) if amounts.gpu_count == ALL_GPUS else amounts

    # ------------------------------------------------------------ volumes

    def _source(self, operator: Operator, volume: Volume) -> PurePath:
        if volume.source:
            return PurePath(volume.source)
        return self._folder(operator, volume) / volume.part if volume.part else self._folder(operator, volume)

    def _folder(self, operator: Operator, volume: Volume) -> PurePath:
        """Where a fresh folder is; one with files of the definition is the operator's own."""
        if volume.files:
            return self._place.shared_dir / "files" / operator.name / volume.name
        return self._place.shared_dir / "volumes" / volume.name

    def _fresh(self, *operators: Operator) -> Iterator[str]:
        for operator in operators:
            for volume in operator.volumes:
                if not volume.source:
                    yield str(self._folder(operator, volume))
                    if volume.part and not volume.files:
                        yield str(self._source(operator, volume))

    def _files(self, *operators: Operator) -> Iterator[HostFile]:
        for operator in operators:
            for volume in operator.volumes:
                for file in volume.files:
                    yield HostFile(str(self._folder(operator, volume) / file.name), file.content, file.mode)

    def _gpus(self, requests: Resources) -> int:
        return 0 if self._options.no_gpu else requests.gpu_count or 0

    # ------------------------------------------------------------ servers

    def _servers(self, index: int, operator: Operator) -> Iterator[Server]:
        yield from self._services(index, operator)
        for companion in operator.companions:
            name = self._pipeline.companion_name(operator.name, companion.name)
            bare = self._container(companion)
            read = (_input_mount(item, self._place.input_dir, self._place.work_dir) for item in companion.inputs)
            step = replace(bare, index=index, operator=name, mounts=(*read, *bare.mounts))
            shared = self._pipeline.is_shared(companion.name)
            yield Server(companion.name, ServerKind.SERVICE, step, ports=companion.ports, shared=shared)
        if operator.models and self._options.triton_scope == "pipeline":
            everybodys = dict.fromkeys(name for names in self._models.values() for name in names)
            yield self._triton(f"{PIPELINE}__{_TRITON}", index, _TRITON, tuple(everybodys), shared=True)
        elif operator.models:
            taken = any(service.name.lower() == _TRITON for service in operator.services)
            name = f"models-{_TRITON}" if taken else _TRITON
            yield self._triton(f"{operator.name}__{name}", index, name, self._models[operator.name], shared=False)

    def _triton(self, full_name: str, index: int, name: str, models: tuple[str, ...], *, shared: bool) -> Server:
        """A Triton that serves these models and no others, on all GPUs of the host."""
        options = self._options
        step = replace(
            self._bare,
            index=index,
            operator=full_name,
            image=options.triton_image,
            command=(
                "tritonserver",
                f"--model-repository={_MODELS_FOLDER}",
                "--model-control-mode=explicit",
                *(f"--load-model={model}" for model in models),
                "--exit-on-error=false",  # it stays, and can be asked which model failed and why
                *options.triton_args,
            ),
            mounts=(Mount(str(self._place.models_dir or "<models>"), _MODELS_FOLDER, read_only=True),),
            gpu_count=ALL_GPUS if self._place.gpus and not options.no_gpu else 0,
        )
        return Server(name, ServerKind.TRITON, step, models, _TRITON_CONNECTIONS, speaks_triton=True, shared=shared)

    def _services(self, index: int, operator: Operator) -> Iterator[Server]:
        """One server for all services of the operator that have image and command in common."""
        alike: dict[tuple[str, tuple[str, ...]], list[Service]] = {}
        for service in operator.services:
            alike.setdefault((service.image, service.command), []).append(service)
        for (image, command), services in alike.items():
            first = services[0]
            environment = {_DATA_VARIABLE: _DATA_FOLDER}
            for service in services:
                environment.update(service.env)
            step = replace(
                self._bare,
                index=index,
                operator=f"{operator.name}__{first.name}",
                image=image,
                command=tuple(word.replace(f"$({_DATA_VARIABLE})", _DATA_FOLDER) for word in command),
                env=tuple(environment.items()),
                mounts=(*self._service_models(), *self._volumes(operator, services)),
                declared=first.requests,
                gpu_count=self._gpus(first.requests),
            )
            triton = _looks_like_triton(image, command)
            connections = tuple(_with_port(each) for service in services for each in service.http)
            yield Server(first.name, ServerKind.SERVICE, step, (), connections, speaks_triton=triton)

    def _service_models(self) -> Iterator[Mount]:
        """The models where the platform keeps them, and where the first cpost put them."""
        if self._place.models_dir is not None:
            for target in (f"{_DATA_FOLDER}/models", _MODELS_FOLDER):
                yield Mount(str(self._place.models_dir), target, read_only=True)

    def _volumes(self, operator: Operator, services: Sequence[Service]) -> tuple[Mount, ...]:
        """Folders that the operator and its services share; the same path is the same folder."""
        paths = dict.fromkeys(volume.path for service in services for volume in service.volumes)
        root = self._place.shared_dir / operator.name
        return tuple(Mount(str(root / path.strip("/").replace("/", "_")), path, read_only=False) for path in paths)


def _with_port(connection: HttpConnection) -> HttpConnection:
    """A connection without a port means Triton's, which is what the platform's services were."""
    default = _GRPC_PORT if "GRPC" in connection.name.upper() else _HTTP_PORT
    return replace(connection, port=connection.port or default)


def _looks_like_triton(image: str, command: Sequence[str]) -> bool:
    """Whether a service is an inference server of that family, under any of the names that it has had."""
    words = f"{image} {command[0] if command else ''}".lower()
    return any(name in words for name in ("triton", "trtis", "tensorrtserver", "trtserver"))


def _check_names(steps: Sequence[Step]) -> None:
    """Files are called by these names; on some file systems letter case makes no difference."""
    taken = {step.operator.lower(): f"operator {step.operator}" for step in steps}
    shared = {server.step.operator: server for step in steps for server in step.servers if server.shared}
    own = (server for step in steps for server in step.servers if not server.shared)
    for server in (*shared.values(), *own):
        name = server.step.operator
        if name.lower() in taken:
            raise UsageError(
                f"the files of server {server.name} would be called {name}, as those of {taken[name.lower()]} are",
                "rename one of them",
            )
        taken[name.lower()] = f"server {server.name}"


def _input_mount(item: Input, input_dir: PurePath, work_dir: PurePath) -> Mount:
    """The payload, or a folder of the producer: a named output's, or all of its output. Nobody may change either:
    what a later operator reads must not depend on who read it before.
    """
    folder = input_dir if item.source is None else work_dir / item.source
    if item.source is not None and item.name:
        folder /= item.name
    return Mount(str(folder / item.entry if item.entry else folder), str(item.path), read_only=True)
