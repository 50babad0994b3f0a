"""The host: facts for the record, and what happened beside the operator that may have bent its numbers."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from cpost.measure.cgroup import Hierarchies
from cpost.measure.gpu_watch import GpuFacts
from cpost.model import BUSY_SHARE, HostFacts, StepResult
from cpost.units import MIB, US_PER_S, format_mb

if TYPE_CHECKING:
    from cpost.measure.engine import EngineFacts

_SHORTEST_JUDGED_S = 1.0
_NO_ROOM_BYTES = MIB
_BUSY_FIELDS = ("user", "nice", "system", "irq", "softirq", "steal")
_THROTTLE_COUNTS = "devices/system/cpu/cpu*/thermal_throttle/*_throttle_count"


def host_facts(engine: EngineFacts | None, hierarchies: Hierarchies | None, gpus: GpuFacts) -> HostFacts:
    """The machine and the engine that a run is measured on.

    Args:
        engine: None where none is used.
        hierarchies: None where there are no control groups.
        gpus: those of this host.
    """
    here = HostFacts(
        hostname=platform.node(),
        kernel=platform.release(),
        architecture=platform.machine(),
        cpu_model=cpu_model(),
        cpus=os.cpu_count(),
        memory_bytes=memory_bytes(),
        swap_bytes=swap_bytes()[0],
        cgroup_layout=hierarchies.layout if hierarchies else "",
        gpus=gpus.gpus,
        gpu_driver=gpus.driver,
    )
    if engine is None:
        return here
    if elsewhere(engine) is not None:
        here = HostFacts(
            hostname=engine.hostname,
            kernel=engine.kernel,
            architecture=engine.architecture,
            cpus=engine.cpus,
            memory_bytes=engine.memory_bytes,
            cgroup_layout=f"v{engine.cgroup_version}" if engine.cgroup_version else "",
        )
    return replace(
        here,
        cgroup_driver=engine.cgroup_driver,
        engine_version=engine.version if engine.product == "Docker" else f"{engine.product} {engine.version}",
        engine_api=engine.api,
        storage_driver=engine.storage_driver,
    )


def elsewhere(engine: EngineFacts) -> str | None:
    """Why the engine's containers cannot be on this host's kernel; None where nothing speaks against it.

    An engine behind a forwarded socket, on a machine with the same kernel, shows only when a container runs.
    """
    if "Docker Desktop" in engine.operating_system:
        return "Docker Desktop runs them in a virtual machine"
    if engine.kernel and engine.kernel != platform.release():
        return f"they run on {engine.hostname}, under Linux {engine.kernel}"
    if not engine.address.startswith("unix:") and engine.hostname != platform.node():
        return f"they run on {engine.hostname}"
    return None


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The model of the first CPU, by the line "model name" that x86 kernels write (arch/x86/kernel/cpu/proc.c).

    Empty where there is no such line, as on ARM.
    """
    try:
        lines = cpuinfo.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    fields = (line.partition(":") for line in lines)
    return next((value.strip() for name, _, value in fields if name.strip() == "model name"), "")


def memory_bytes() -> int:
    """The host's memory."""
    return int(psutil.virtual_memory().total)


def swap_bytes() -> tuple[int, int]:
    """The host's swap: (total, used)."""
    swap = psutil.swap_memory()
    return int(swap.total), int(swap.used)


def free_bytes(folder: str) -> int | None:
    """Free space of the disk that a folder is on; None where it may not be looked at."""
    try:
        return int(psutil.disk_usage(folder).free)
    except OSError:
        return None


def full_disks(folders: Iterable[str]) -> list[str]:
    """Where the disks are mounted that hold these folders and have no room left."""
    disks = dict.fromkeys(_disk_of(Path(folder)) for folder in folders)
    return [str(disk) for disk in disks if (free := free_bytes(str(disk))) is not None and free < _NO_ROOM_BYTES]


def _disk_of(folder: Path) -> Path:
    return next(each for each in (folder, *folder.parents) if each.is_mount() or each == each.parent)


class HostWatch:
    """Notes the host's own counters at its construction; `judged` says what changed since."""

    def __init__(self, sysfs: Path = Path("/sys")) -> None:
        self._sysfs = sysfs
        self._busy_s, self._all_s = _cpu_seconds()
        self._swapped_out = psutil.swap_memory().sout
        self._throttles = self._throttle_count()

    def judged(self, result: StepResult, beside_cpu_us: int = 0) -> StepResult:
        """The result of a step that ran in between, with what may have bent its numbers.

        Args:
            beside_cpu_us: CPU time of the servers beside it.
        """
        totals = result.totals
        share = None if totals is None else self._others_share((totals.cpu_us + beside_cpu_us) / US_PER_S)
        warnings = (*result.warnings, *self._warnings(share))
        return replace(result, others_cpu_share=share, warnings=warnings)

    def _others_share(self, own_s: float) -> float | None:
        busy_s, all_s = _cpu_seconds()
        span_s = all_s - self._all_s
        if span_s / (os.cpu_count() or 1) < _SHORTEST_JUDGED_S:
            return None
        return max(0.0, (busy_s - self._busy_s - own_s) / span_s)

    def _warnings(self, others_share: float | None) -> list[str]:
        found = []
        if others_share is not None and others_share > BUSY_SHARE:
            found.append(
                f"the host was busy with other work: {others_share:.0%} of its {os.cpu_count() or 1} CPUs "
                "(times may be too long and CPU too low, memory is not affected): measure again when it is quiet"
            )
        swapped = psutil.swap_memory().sout - self._swapped_out
        if swapped > 0:
            found.append(f"the host swapped out {format_mb(swapped)} meanwhile: memory figures may be too low")
        if self._throttle_count() > self._throttles:
            found.append("the host throttled its CPUs for heat meanwhile: times may be too long")
        return found

    def _throttle_count(self) -> int:
        total = 0
        for path in self._sysfs.glob(_THROTTLE_COUNTS):
            try:
                total += int(path.read_text())
            except (OSError, ValueError):
                continue
        return total


def _cpu_seconds() -> tuple[float, float]:
    """CPU seconds of the whole host since boot: (busy, all); waiting for disks is idle time."""
    times = psutil.cpu_times()
    busy = sum(getattr(times, name, 0.0) for name in _BUSY_FIELDS)
    return busy, busy + times.idle + getattr(times, "iowait", 0.0)
