"""A container's group at the paths of other engines: recorded trees, moved (data/cgroups/README.md)."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from trees import copy_tree, figures, read

from cpost.measure.cgroup import Hierarchies
from cpost.measure.meter import open_meter

ID = "1f2e" * 16
USER = "user.slice/user-1000.slice/user@1000.service"
PATHS = {
    "Docker, cgroupfs": f"docker/{ID}",
    "Docker, systemd": f"system.slice/docker-{ID}.scope",
    "rootless Docker, systemd": f"{USER}/user.slice/docker-{ID}.scope",
    "rootless Docker, cgroupfs": f"{USER}/docker.service/docker/{ID}",
    "Podman, cgroupfs": f"libpod_parent/libpod-{ID}",
    "Podman, systemd, runc": f"machine.slice/libpod-{ID}.scope",
    "Podman, systemd, crun": f"machine.slice/libpod-{ID}.scope/container",
    "rootless Podman, runc": f"{USER}/user.slice/libpod-{ID}.scope",
    "rootless Podman, crun": f"{USER}/user.slice/user-libpod_pod_1f2e.slice/libpod-{ID}.scope/container",
}
RECORDED = {"v2": "v2-systemd", "hybrid": "hybrid-cgroupfs"}


@dataclass
class Moved:
    """A recorded tree whose container has another path."""

    hierarchies: Hierarchies
    pid: int
    recorded: str


@pytest.fixture(params=RECORDED)
def moved(request: pytest.FixtureRequest, tmp_path: Path, path: str) -> Moved:
    name = RECORDED[request.param]
    tree = copy_tree(name, tmp_path)
    for hierarchy, container in tree.container.directories.items():
        source, target = container, tree.parent.directories[hierarchy].parent / path
        if source.is_dir():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(source, target)
    cgroup = tree.root / f"proc/{tree.pid}/cgroup"
    lines = [line.split(":", 2)[:2] for line in cgroup.read_text().splitlines()]
    cgroup.write_text("".join(f"{number}:{controllers}:/{path}\n" for number, controllers in lines))
    return Moved(tree.hierarchies, tree.pid, name)


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_container_s_group_is_found_by_its_process(moved: Moved) -> None:
    assert moved.hierarchies.contains(moved.pid, ID)
    group = moved.hierarchies.group_of(moved.pid)
    assert group is not None
    assert moved.pid in group.pids()


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_counters_are_read_there(moved: Moved) -> None:
    group = moved.hierarchies.group_of(moved.pid)
    assert group is not None
    found, expected = read(open_meter(moved.hierarchies, group, own=False)), figures(moved.recorded)
    assert found.throttled_periods == expected.throttled_periods
    assert found.pids == expected.pids
    assert found.detail is not None
    assert expected.detail is not None
    assert found.detail.anon_bytes == expected.detail.anon_bytes
    assert found.detail.oom_kills == 1
