"""What this host can and cannot do for cpost, each finding with its remedy."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from cpost.defaults import TRITON_IMAGE
from cpost.errors import HostError
from cpost.measure import host
from cpost.measure.cgroup import Hierarchies
from cpost.measure.cleanup import temporary_folder
from cpost.measure.engine import Engine, EngineFacts
from cpost.measure.gpu_watch import gpu_facts
from cpost.measure.owner import Owner, new_run_id
from cpost.measure.stats import STATS_WARNING
from cpost.model.gpu import Gpu
from cpost.units import MB, MIB

_LITTLE_DISK_BYTES = 5000 * MB
_OLDEST_TRIED = {"Docker": 20, "Podman": 4}
_TRITON_REPOSITORY = TRITON_IMAGE.partition(":")[0]


class Verdict(str, Enum):
    """How a finding is meant."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "FAILURE"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the examination; `remedy` is empty where nothing needs doing."""

    subject: str
    verdict: Verdict
    text: str
    remedy: str = ""


def examine() -> Iterator[Finding]:
    """Look at everything that a run needs, from the most to the least important."""
    yield _python()
    hierarchies = _read_hierarchies()
    facts: EngineFacts | None = None
    try:
        engine = Engine()
        facts = engine.facts()
        yield _engine(facts)
    except HostError as error:
        yield Finding("engine", Verdict.FAILURE, error.message, error.hint)
    yield from _cgroups(hierarchies, facts)
    yield _swap()
    yield _gpus()
    yield from _disks(facts)
    if facts is not None:
        yield _triton(engine)


def _python() -> Finding:
    # An older Python than 3.10 does not get this far: pip refuses to install cpost there.
    return Finding("python", Verdict.OK, f"{platform.python_version()} ({sys.executable})")


def _engine(facts: EngineFacts) -> Finding:
    drivers = f"cgroup driver {facts.cgroup_driver}, storage {facts.storage_driver}"
    text = f"{facts.product} {facts.version} (API {facts.api}), {drivers}"
    major = facts.version.split(".")[0]
    if major.isdigit() and int(major) < _OLDEST_TRIED[facts.product]:
        return Finding(
            "engine", Verdict.WARNING, text, "cpost is tried on Docker 20.10 and Podman 4.3, and newer: update it"
        )
    if facts.rootless:
        return Finding(
            "engine", Verdict.WARNING, f"{text}, rootless", "totals may end with the container: use a root engine"
        )
    return Finding("engine", Verdict.OK, text)


def _read_hierarchies() -> Hierarchies | HostError:
    try:
        return Hierarchies.read()
    except HostError as error:
        return error


def _cgroups(hierarchies: Hierarchies | HostError, facts: EngineFacts | None) -> Iterator[Finding]:
    if isinstance(hierarchies, HostError):
        yield Finding("cgroups", Verdict.FAILURE, hierarchies.message, hierarchies.hint)
        return
    driver = f", engine says v{facts.cgroup_version}" if facts and facts.cgroup_version else ""
    yield Finding("cgroups", Verdict.OK, f"{hierarchies.layout}{driver}")
    away = host.elsewhere(facts) if facts else None
    if away is not None:
        yield Finding(
            "totals",
            Verdict.WARNING,
            f"the containers' counters cannot be read here ({away}): {STATS_WARNING}",
            "start cpost on the machine that runs the engine for exact totals",
        )
        return
    if hierarchies.may_make_groups(f"{Owner.current().name(new_run_id())}_probe"):
        yield Finding("totals", Verdict.OK, "cpost may make control groups: totals survive the container, exactly")
    else:
        yield Finding(
            "totals",
            Verdict.WARNING,
            "cpost may not make control groups: totals come from the last sample before the container's end",
            "start cpost as root (sudo cpost ...) for exact totals",
        )


def _swap() -> Finding:
    total, used = host.swap_bytes()
    if total == 0:
        return Finding("swap", Verdict.OK, "none on this host")
    text = f"{total // MIB} MiB on this host; operators run without it"
    if used > total // 2:
        return Finding("swap", Verdict.WARNING, f"{text}; more than half is in use", "free memory before you measure")
    return Finding("swap", Verdict.OK, text)


def _gpus() -> Finding:
    gpus = gpu_facts()
    if gpus.problems:
        remedy = "nvidia-smi says more of it; the kernel's log (dmesg) has the driver's messages (Xid)"
        return Finding("gpu", Verdict.WARNING, "; ".join((*map(_gpu, gpus.gpus), *gpus.problems)), remedy)
    if gpus.gpus:
        text = f"{len(gpus.gpus)}, driver {gpus.driver}: {'; '.join(map(_gpu, gpus.gpus))}"
        return Finding("gpu", Verdict.OK, text)
    return Finding(
        "gpu",
        Verdict.WARNING,
        f"none to be seen: {gpus.absent_because or 'the driver lists none'}",
        "needed only for operators that ask for gpu: install the NVIDIA driver and container toolkit",
    )


def _gpu(gpu: Gpu) -> str:
    memory = f", {gpu.memory_bytes // MIB} MiB" if gpu.memory_bytes is not None else ""
    return f"{gpu.name} ({gpu.uuid}{memory})"


def _disks(facts: EngineFacts | None) -> Iterator[Finding]:
    places = {}
    try:
        places["work"] = str(temporary_folder())
    except HostError as error:
        yield Finding("disk", Verdict.FAILURE, error.message, error.hint)
    if facts is not None and facts.root_folder:
        places["engine"] = facts.root_folder
    for name, folder in places.items():
        free = host.free_bytes(folder)
        if free is None:
            continue  # a folder of the engine that we may not look into
        text = f"{free // MB} MB free in {folder} ({name})"
        if free < _LITTLE_DISK_BYTES:
            yield Finding("disk", Verdict.WARNING, text, "free some space, or point TMPDIR at a larger disk")
        else:
            yield Finding("disk", Verdict.OK, text)


def _triton(engine: Engine) -> Finding:
    try:
        images = engine.images_named(_TRITON_REPOSITORY)
    except HostError as error:
        return Finding("triton", Verdict.WARNING, error.message, error.hint)
    if images:
        return Finding("triton", Verdict.OK, ", ".join(images))
    return Finding(
        "triton",
        Verdict.WARNING,
        f"no {_TRITON_REPOSITORY} image is here",
        f"only pipelines with models need one, and pull {TRITON_IMAGE} themselves (or name another: --triton_image)",
    )
