"""Pipeline + host + options -> ordered steps. Pure: nothing is read, made or run here."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import PurePath

from cpost.model import Input, Mount, Operator, Options, Pipeline, Plan, Step
from cpost.units import MIB, whole_pages

# Set for every operator: Clara's base image waits for lock files of the platform without it.
_NO_SYNC_LOCK = ("NVIDIA_CLARA_NOSYNCLOCK", "1")
_HOST_RESERVE_BYTES = 512 * MIB
_HOST_RESERVE_SHARE = 20


def make_plan(
    pipeline: Pipeline, *, input_dir: PurePath, work_dir: PurePath, options: Options, host_memory_bytes: int
) -> Plan:
    """Make every operator ready to run, in the order of execution.

    Args:
        input_dir: the payload's folder on the host.
        work_dir: where each operator gets a folder for its outputs.
        host_memory_bytes: the host's memory; sets the ceiling where the options set none.
    """
    limit_bytes = options.memory_limit_bytes or whole_pages(host_ceiling_bytes(host_memory_bytes))
    steps = [
        _make_step(index, operator, input_dir, work_dir, options, limit_bytes)
        for index, operator in enumerate(execution_order(pipeline.operators))
    ]
    return Plan(pipeline, tuple(steps))


def host_ceiling_bytes(host_memory_bytes: int) -> int:
    """What an operator may use without endangering the host: all but a twentieth, and at least 512 MiB, of it."""
    reserve = max(_HOST_RESERVE_BYTES, host_memory_bytes // _HOST_RESERVE_SHARE)
    return max(-(-host_memory_bytes // 2), host_memory_bytes - reserve)


def execution_order(operators: tuple[Operator, ...]) -> Iterator[Operator]:
    """Producers before consumers, otherwise in the order written; the definition has been checked for cycles."""
    place = {operator.name: index for index, operator in enumerate(operators)}
    sorter = TopologicalSorter({operator.name: operator.upstream for operator in operators})
    sorter.prepare()
    ready: list[int] = []
    while sorter.is_active():
        for name in sorter.get_ready():
            heapq.heappush(ready, place[name])
        operator = operators[heapq.heappop(ready)]
        yield operator
        sorter.done(operator.name)


def _make_step(
    index: int, operator: Operator, input_dir: PurePath, work_dir: PurePath, options: Options, limit_bytes: int
) -> Step:
    folder = work_dir / operator.name
    outputs = [(item, folder / item.name if item.name else folder) for item in operator.outputs if item.path]
    mounts = [_input_mount(item, input_dir, work_dir) for item in operator.inputs if item.path]
    mounts += [Mount(str(source), str(item.path), read_only=False) for item, source in outputs]
    return Step(
        index=index,
        operator=operator.name,
        image=operator.image,
        command=operator.command,
        env=tuple({_NO_SYNC_LOCK[0]: _NO_SYNC_LOCK[1], **dict(operator.env)}.items()),
        mounts=tuple(mounts),
        output_folders=tuple(dict.fromkeys([str(folder), *(str(source) for _, source in outputs)])),
        upstream=operator.upstream,
        declared=operator.requests,
        models=operator.models,
        services=tuple(service.name for service in operator.services),
        gpu_count=0 if options.no_gpu else operator.requests.gpu_count or 0,
        shm_bytes=options.shm_bytes,
        pids_limit=options.pids_limit,
        memory_limit_bytes=limit_bytes,
        timeout_ns=options.timeout_ns,
        unsupported=operator.unsupported,
    )


def _input_mount(item: Input, input_dir: PurePath, work_dir: PurePath) -> Mount:
    """The payload, or a folder of the producer: a named output's, or all of its output. Nobody may change either:
    what a later operator reads must not depend on who read it before.
    """
    folder = input_dir if item.source is None else work_dir / item.source
    if item.source is not None and item.name:
        folder /= item.name
    return Mount(str(folder), str(item.path), read_only=True)
