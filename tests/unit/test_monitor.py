"""Podman's monitor is found beside the container's group and put aside; on plain directories."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cpost.measure.cgroup import UNIFIED, Group
from cpost.measure.monitor import MonitorWatch
from waiting import until

CONTAINERS = ["libpod-1f2e", "libpod-1f2e.scope", "1f2e", "docker-1f2e.scope"]
MONITORS = ["conmon", "libpod-conmon-1f2e.scope"]


class Looked(Group):
    """Counts how often somebody began to look for monitors."""

    looks = 0

    def monitors(self) -> Iterator[Group]:
        self.looks += 1
        return super().monitors()


def looked(parent: Looked) -> None:
    """Wait for one whole look from now on: the second that begins tells that the first is over."""
    begun = parent.looks
    until(lambda: parent.looks >= begun + 2, "looks for monitors")


@pytest.fixture
def parent(tmp_path: Path) -> Looked:
    return group(tmp_path, "parent")


@pytest.fixture
def aside(tmp_path: Path) -> Group:
    return group(tmp_path, "aside")


def group(root: Path, name: str) -> Looked:
    made = Looked({"cpuset": root / "cpuset" / name, "memory": root / "memory" / name, "pids": root / "pids" / name})
    for path in made.directories.values():
        path.mkdir(parents=True)
    return made


def fill(parent: Group, name: str, pids: str, hierarchies: tuple[str, ...] = ("cpuset", "memory", "pids")) -> None:
    for hierarchy in hierarchies:
        (parent.directories[hierarchy] / name).mkdir(exist_ok=True)
        (parent.directories[hierarchy] / name / "cgroup.procs").write_text(pids)


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("monitor", MONITORS)
def test_monitor_is_told_from_the_container(parent: Group, container: str, monitor: str) -> None:
    fill(parent, monitor, "7\n")
    fill(parent, container, "8\n9\n")
    assert [each.pids() for each in parent.children()] == [[8, 9]]
    assert [each.pids() for each in parent.monitors()] == [[7]]


def test_processes_that_crun_keeps_one_group_below(tmp_path: Path) -> None:
    scope = tmp_path / "parent.slice/libpod-1f2e.scope"
    (scope / "container").mkdir(parents=True)
    (scope / "cgroup.procs").write_text("")
    (scope / "container/cgroup.procs").write_text("8\n")
    (child,) = Group({UNIFIED: scope.parent}).children()
    assert child.directories[UNIFIED] == scope
    assert child.pids() == [8]


def test_every_process_moves_in_every_hierarchy_that_is_read(parent: Group, aside: Group) -> None:
    fill(parent, "conmon", "7\n")
    (monitor,) = parent.monitors()
    assert not monitor.move_processes(aside)  # plain files: it is still there
    moved = {name: (path / "cgroup.procs").exists() for name, path in aside.directories.items()}
    assert moved == {"cpuset": False, "memory": True, "pids": True}
    assert (aside.directories["memory"] / "cgroup.procs").read_text() == "7"


def test_group_without_processes_has_all_of_them_moved(parent: Group, aside: Group) -> None:
    fill(parent, "conmon", "")
    (monitor,) = parent.monitors()
    assert monitor.move_processes(aside)


@pytest.mark.parametrize(("pids", "counted"), [("", False), ("7\n", True)])
def test_monitor_that_shows_up_while_watched(parent: Looked, aside: Group, pids: str, counted: bool) -> None:
    with MonitorWatch(parent, aside) as watch:
        fill(parent, "conmon", pids)
        looked(parent)
    assert watch.counted is counted
    assert (aside.directories["memory"] / "cgroup.procs").exists() is counted


def test_without_a_monitor_nothing_moves(parent: Looked, aside: Group) -> None:
    fill(parent, "1f2e", "8\n")
    with MonitorWatch(parent, aside) as watch:
        looked(parent)
    assert not watch.counted
    assert not list(aside.directories["memory"].iterdir())
