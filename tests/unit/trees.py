"""Copies of the recorded cgroup trees (data/cgroups/README.md says what is in them)."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from cpost.measure.cgroup import Group, Hierarchies
from cpost.measure.meter import Meter, open_meter
from cpost.model import Detail, Sample

RECORDED = Path(__file__).parent / "data" / "cgroups"
LAYOUTS = {
    "hybrid-cgroupfs": "hybrid",
    "v1-cgroupfs": "v1",
    "v1-comounted-systemd": "v1",
    "v2-cgroupfs": "v2",
    "v2-systemd": "v2",
}
V1 = [name for name, layout in LAYOUTS.items() if layout != "v2"]
V2 = [name for name, layout in LAYOUTS.items() if layout == "v2"]


@dataclass
class Tree:
    """A copy of a recorded tree, with its groups."""

    root: Path
    hierarchies: Hierarchies
    pid: int
    container_id: str
    parent: Group
    container: Group
    meters: list[Meter] = field(default_factory=list)

    def close(self) -> None:
        for meter in self.meters:
            meter.close()

    def file(self, name: str) -> Path:
        """The parent group's file of this name."""
        return next(path / name for path in self.parent.directories.values() if (path / name).exists())

    def files(self, name: str) -> list[Path]:
        """The parent group's file of this name, and for memory.stat the container's, which comes first."""
        groups = (self.parent, self.container) if name == "memory.stat" else (self.parent,)
        return [next(path / name for path in group.directories.values() if (path / name).exists()) for group in groups]

    def meter(self, *, attached: bool = True, own: bool = True) -> Meter:
        meter = open_meter(self.hierarchies, self.parent if own else self.container, own=own)
        self.meters.append(meter)
        if attached and own:
            meter.attach(self.container)
        return meter


def copy_tree(name: str, to: Path) -> Tree:
    root = to / name
    shutil.copytree(RECORDED / name, root, symlinks=True, copy_function=shutil.copyfile)
    hierarchies = Hierarchies.read(root)
    (cgroup,) = root.glob("proc/[0-9]*/cgroup")
    pid = int(cgroup.parent.name)
    parent, container = cgroup.read_text().splitlines()[0].rsplit("/", 2)[1:]
    found = hierarchies.group_of(pid)
    assert found is not None
    return Tree(root, hierarchies, pid, container, hierarchies.group(f"/{parent}"), found)


def read(meter: Meter, *, detailed: bool = True) -> Sample:
    sample = meter.read(7, detailed=detailed)
    assert sample is not None
    return sample


def detail(meter: Meter) -> Detail:
    found = read(meter).detail
    assert found is not None
    return found


# What the files of the parent group and the memory.stat of the container say; what all have in common is in PLAIN.
PLAIN = {"shmem_bytes": 2097152, "inactive_file_bytes": 0, "oom_kills": 1}
FIGURES: dict[str, tuple[Sample, dict[str, int | None]]] = {
    "hybrid-cgroupfs": (
        Sample(7, 219319, 120000, 84000, 110902, 3, 35364864, 67371008),
        {
            "anon_bytes": 32628736,
            "file_bytes": 2105344,
            "kernel_bytes": 499712,
            "reclaimable_bytes": 8192,
            "io_read_bytes": 8413184,
            "io_write_bytes": 8392704,
            "psi_cpu_some_us": 123587,
            "psi_memory_some_us": 3798,
            "psi_memory_full_us": 3798,
            "psi_io_some_us": 6795,
            "psi_io_full_us": 6791,
        },
    ),
    "v1-comounted-systemd": (
        Sample(7, 1680000, 1630000, 50000, 910000, 25, 35168256, 67117056),
        {
            "anon_bytes": 32620544,
            "file_bytes": 2097152,
            "kernel_bytes": 450560,
            "reclaimable_bytes": 0,
        },
    ),
    "v2-cgroupfs": (
        Sample(7, 1320000, 1300000, 20000, 780000, 22, 35348480, 67117056),
        {
            "anon_bytes": 32620544,
            "file_bytes": 2097152,
            "kernel_bytes": 434176,
            "reclaimable_bytes": 63224,
            "io_read_bytes": 8388608,
            "io_write_bytes": 8388608,
        },
    ),
    "v2-systemd": (
        Sample(7, 1230000, 1180000, 50000, 570000, 19, 35155968, 67117056),
        {
            "anon_bytes": 32620544,
            "file_bytes": 2097152,
            "kernel_bytes": 430080,
            "reclaimable_bytes": 63224,
            "io_read_bytes": 8388608,
            "io_write_bytes": 8388608,
        },
    ),
}
FIGURES["v1-cgroupfs"] = (
    FIGURES["hybrid-cgroupfs"][0],
    {key: value for key, value in FIGURES["hybrid-cgroupfs"][1].items() if "psi" not in key},
)


def figures(name: str) -> Sample:
    sample, split = FIGURES[name]
    return sample._replace(detail=Detail(**{**PLAIN, **split}), pids=5)
