"""Control groups: where this host keeps them, and groups of cpost's own.

A group's CPU, memory, pids and io counters contain its descendants, and keep what a removed descendant used
(Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/ of the kernel's sources). So a group that cpost makes above the
container still tells the totals when the container's own group is gone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cpost.errors import HostError

UNIFIED = "unified"
COMMAND_GROUP = "cpost-command"  # below a group of cpost's own, for a command that runs without a container
_MEMORY_FILES = ("memory.usage_in_bytes", "memory.current")
_READ = ("cpuacct", "cpu", "memory", "pids", "blkio", UNIFIED)
# Podman's monitor of a container, in a group beside it: `conmon`, or with systemd a scope (libpod/oci_conmon_linux.go).
_MONITORS = ("conmon", "libpod-conmon-")
# With systemd crun keeps a container's processes in a group below the container's scope, as Podman asks of it.
_CRUN_PROCESSES = "container"


@dataclass(frozen=True, slots=True)
class _Mounted:
    directory: Path
    root: str


class Group:
    """One control group: its directory in every hierarchy where it exists or will exist."""

    def __init__(self, directories: Mapping[str, Path]) -> None:
        self.directories = dict(directories)

    def make(self) -> None:
        """Create the group in the hierarchies that the meter reads; the engine adds the others.

        Raises:
            OSError: no permission, or the file system is mounted read-only.
        """
        for name in _READ:
            if name in self.directories:
                self.directories[name].mkdir(exist_ok=True)
        self._count_descendants()
        self._switch_off_swap()

    def _count_descendants(self) -> None:
        """On v1 kernels before 5.11 a group contains its children only if it says so before it has any."""
        memory = self.directories.get("memory")
        if memory and (memory / "memory.use_hierarchy").exists():
            _write(memory / "memory.use_hierarchy", "1")

    def _switch_off_swap(self) -> None:
        """Best effort, inherited by the container; the container's own swap limit is the first line."""
        for name, file, value in (("memory", "memory.swappiness", "0"), (UNIFIED, "memory.swap.max", "0")):
            if name in self.directories and (self.directories[name] / file).exists():
                _write(self.directories[name] / file, value)

    def limit_memory(self, limit_bytes: int) -> None:
        """Give a v1 group, which does not count the memory kills below it, a limit: then it is told of them.

        On v2 it counts them without. A limit that the container has, too, reaches it here: this group's use is its
        use and a little more.
        """
        if "memory" in self.directories:
            _write(self.directories["memory"] / "memory.limit_in_bytes", str(limit_bytes))

    def remove(self, timeout_s: float = 5.0) -> bool:
        """Remove the group and empty groups below it from every hierarchy; True when nothing is left."""
        deadline = time.monotonic() + timeout_s
        while True:
            left = [path for path in self.directories.values() if not _remove_tree(path)]
            if not left:
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)

    @property
    def name(self) -> str:
        """The last part of its path."""
        return next((path.name for path in self.directories.values()), "")

    def child(self, name: str) -> Group:
        """The group of this name directly below this one."""
        return Group({key: path / name for key, path in self.directories.items()})

    def tells_memory(self) -> bool:
        """Whether the group has memory counters: on v2 only where the group above hands the controller down."""
        return any((path / name).exists() for path in self.directories.values() for name in _MEMORY_FILES)

    def cap_memory(self, limit_bytes: int) -> None:
        """Set a ceiling on the memory of the group and all below it, swap included.

        Raises:
            OSError: the kernel refuses it.
        """
        unified, memory = self.directories.get(UNIFIED), self.directories.get("memory")
        if memory is not None:
            (memory / "memory.limit_in_bytes").write_text(str(limit_bytes))
            _write(memory / "memory.memsw.limit_in_bytes", str(limit_bytes))  # there only where swap is accounted
        elif unified is not None:
            (unified / "memory.max").write_text(str(limit_bytes))

    def join(self, pid: int) -> None:
        """Move a process into this group, in every hierarchy where the group was made.

        Raises:
            OSError: the kernel refuses it.
        """
        for name in _READ:
            if name in self.directories:
                (self.directories[name] / "cgroup.procs").write_text(str(pid))

    def kill(self, timeout_s: float = 5.0) -> int:
        """Kill every process in this group and below it, until none is left; returns how many there were."""
        deadline, killed = time.monotonic() + timeout_s, set[int]()
        while pids := self._all_pids():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            killed.update(pids)
            if time.monotonic() > deadline:
                break
            time.sleep(0.005)
        return len(killed)

    def _all_pids(self) -> list[int]:
        return [*self.pids(), *(pid for child in self.children() for pid in child._all_pids())]

    def children(self) -> Iterator[Group]:
        """The groups directly below this one, but for those of an engine's monitor."""
        return (group for name, group in self._below() if not name.startswith(_MONITORS))

    def monitors(self) -> Iterator[Group]:
        """The groups directly below this one that the engine made for a monitor of the container."""
        return (group for name, group in self._below() if name.startswith(_MONITORS))

    def _below(self) -> Iterator[tuple[str, Group]]:
        """Groups and their names, as one hierarchy has them: the one with the memory."""
        path = self.directories.get("memory") or self.directories.get(UNIFIED)
        if path is None:
            return
        try:
            names = sorted(entry.name for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False))
        except OSError:
            return
        for name in names:
            yield name, self.child(name)

    def move_processes(self, to: Group) -> bool:
        """Move this group's processes to a group that `make` has made; True when none is left that is counted here."""
        counted = [(name, self.directories[name]) for name in _READ if name in self.directories]
        for name, path in counted:
            for pid in _processes(path):
                _write(to.directories[name] / "cgroup.procs", str(pid))  # one that has ended is no loss
        return not any(_processes(path) for _, path in counted)

    def pids(self) -> list[int]:
        """Process ids in this container's group; empty where the group is gone.

        A process outside this one's pid namespace has no number here (the kernel writes 0) and is left out.
        """
        paths = (path / below for below in ("", _CRUN_PROCESSES) for path in self.directories.values())
        return next((pids for path in paths if (pids := _processes(path))), [])


class Hierarchies:
    """Where this host mounts which controllers.

    Attributes:
        layout: "v2", "v1" or "hybrid" (controllers on v1 and a v2 mount beside them).
    """

    def __init__(self, mounts: Mapping[str, _Mounted], layout: str, root: Path) -> None:
        self._mounts = dict(mounts)
        self.layout = layout
        self._root = root

    @classmethod
    def read(cls, root: Path = Path("/")) -> Hierarchies:
        """Read them from /proc/self/mountinfo (below `root`, for recorded trees).

        Raises:
            HostError: no control groups are mounted, or they tell neither CPU nor memory.
        """
        try:
            lines = (root / "proc/self/mountinfo").read_text().splitlines()
        except OSError as error:
            raise HostError("this host has no /proc/self/mountinfo", "run cpost on Linux") from error
        mounts: dict[str, _Mounted] = {}
        for line in lines:
            for name, mounted in _parse_mount(line, root):
                mounts.setdefault(name, mounted)
        return cls(mounts, _layout(mounts), root)

    def group(self, path: str) -> Group:
        """The group of this path (relative to the root of every hierarchy)."""
        return Group({name: mounted.directory / path.lstrip("/") for name, mounted in self._mounts.items()})

    def group_of(self, pid: int) -> Group | None:
        """The group that process `pid` is in, from /proc; None where the process is gone."""
        try:
            lines = (self._root / f"proc/{pid}/cgroup").read_text().splitlines()
        except OSError:
            return None
        directories: dict[str, Path] = {}
        for line in lines:
            _, controllers, path = line.split(":", 2)
            for name in controllers.split(",") if controllers else [UNIFIED]:
                mounted = self._mounts.get(name)
                if mounted:
                    relative = os.path.relpath(path, mounted.root)
                    directories[name] = mounted.directory / relative
        return Group(directories)

    def contains(self, pid: int, container: str) -> bool | None:
        """Whether process `pid` of this host is in the group of this container; None where there is no such process."""
        try:
            return container in (self._root / f"proc/{pid}/cgroup").read_text()
        except OSError:
            return None

    def groups_named(self, prefix: str) -> Iterator[tuple[str, Group]]:
        """Top-level groups whose name starts with `prefix`, with their names."""
        names: set[str] = set()
        for mounted in self._mounts.values():
            try:
                names.update(entry.name for entry in os.scandir(mounted.directory) if entry.name.startswith(prefix))
            except OSError:
                continue
        for name in sorted(names):
            yield name, self.group(name)

    def may_make_groups(self, probe_name: str) -> bool:
        """Try to make and remove a group of this name."""
        group = self.group(probe_name)
        try:
            group.make()
        except OSError:
            return False
        finally:
            group.remove()
        return True


def _parse_mount(line: str, root: Path) -> Iterator[tuple[str, _Mounted]]:
    """Controllers mounted by one line of mountinfo (proc(5)): ... root point options - type source super-options."""
    left, _, right = line.partition(" - ")
    fields, (kind, _, options) = left.split(), [*right.split(None, 2), "", "", ""][:3]
    if kind not in ("cgroup", "cgroup2") or len(fields) < 5:
        return
    point = fields[4].encode().decode("unicode_escape")  # spaces are written \040
    mounted = _Mounted(root / point.lstrip("/"), fields[3])
    names = [UNIFIED] if kind == "cgroup2" else options.split(",")
    for name in names:
        if kind == "cgroup2" or name.startswith("name=") or name not in ("rw", "ro", "xattr", "clone_children"):
            yield name, mounted


def _layout(mounts: Mapping[str, _Mounted]) -> str:
    unified = mounts.get(UNIFIED)
    if "memory" in mounts and "cpuacct" in mounts:
        return "hybrid" if unified else "v1"
    if unified:
        return "v2"
    raise HostError(
        "this host mounts no control groups with CPU and memory counters",
        "mount cgroup2 on /sys/fs/cgroup, or start cpost where it is mounted (in a container: --cgroupns=host)",
    )


def _write(path: Path, value: str) -> None:
    try:
        path.write_text(value)
    except OSError:
        pass  # this kernel does not let us: what was stays


def _processes(path: Path) -> list[int]:
    try:
        return [pid for line in (path / "cgroup.procs").read_text().split() if (pid := int(line))]
    except OSError:
        return []


def _remove_tree(path: Path) -> bool:
    """Remove empty groups from the bottom up; files in them are the kernel's and go with them."""
    try:
        children = [Path(entry.path) for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return True
    except OSError:
        return False
    emptied = [_remove_tree(child) for child in children]
    try:
        path.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return all(emptied)
