"""Where controllers are mounted, and groups made, filled and removed; on plain directories."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from cpost.errors import HostError
from cpost.measure.cgroup import Group, Hierarchies

V2_LINE = "30 20 0:1 / /cg rw - cgroup2 cgroup2 rw"
CPU_LINE = "31 20 0:2 / /cg/cpu rw - cgroup cgroup rw,cpu,cpuacct"
MEMORY_LINE = "32 20 0:3 / /cg/memory rw shared:9 - cgroup cgroup rw,memory"
NAMED_LINE = "33 20 0:4 / /cg/systemd rw - cgroup none rw,xattr,name=systemd"
OTHERS = "1 0 8:1 / / rw - ext4 /dev/sda rw\n2 1 0:5 / /proc rw - proc proc rw\nnonsense\n3 1 0:6 - cgroup\n"


def mounted(root: Path, *lines: str, processes: dict[int, str] | None = None) -> Hierarchies:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/mountinfo").write_text(OTHERS + "\n".join(lines) + "\n")
    for pid, text in (processes or {}).items():
        (root / f"proc/{pid}").mkdir()
        (root / f"proc/{pid}/cgroup").write_text(text)
    for name in ("cg/cpu", "cg/memory", "cg/systemd"):
        (root / name).mkdir(parents=True)
    return Hierarchies.read(root)


# ---------------------------------------------------------------- mounts


@pytest.mark.parametrize(
    ("lines", "layout"),
    [
        ([V2_LINE], "v2"),
        ([CPU_LINE, MEMORY_LINE], "v1"),
        ([CPU_LINE, MEMORY_LINE, V2_LINE], "hybrid"),
        ([V2_LINE, NAMED_LINE], "v2"),
    ],
)
def test_layout(tmp_path: Path, lines: list[str], layout: str) -> None:
    assert mounted(tmp_path, *lines).layout == layout


@pytest.mark.parametrize("lines", [[], [CPU_LINE], [NAMED_LINE]])
def test_a_host_without_counters_is_refused_with_a_remedy(tmp_path: Path, lines: list[str]) -> None:
    with pytest.raises(HostError) as caught:
        mounted(tmp_path, *lines)
    assert "control groups" in caught.value.message
    assert "mount cgroup2" in caught.value.hint


def test_a_host_without_proc_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="mountinfo"):
        Hierarchies.read(tmp_path)


def test_a_mount_point_may_hold_a_space(tmp_path: Path) -> None:
    found = mounted(tmp_path, V2_LINE.replace("/cg", r"/c\040g")).group("/x")
    assert found.directories == {"unified": tmp_path / "c g/x"}


def test_of_two_mounts_of_a_controller_the_first_counts(tmp_path: Path) -> None:
    found = mounted(tmp_path, CPU_LINE, MEMORY_LINE, MEMORY_LINE.replace("/cg", "/again")).group("x")
    assert found.directories["memory"] == tmp_path / "cg/memory/x"


@pytest.mark.parametrize(
    ("mount_root", "path", "wanted"),
    [("/", "/docker/abc", "cg/docker/abc"), ("/docker/abc", "/docker/abc/inner", "cg/inner"), ("/a/b", "/a/b", "cg")],
)
def test_a_process_s_group_counts_from_the_mount_s_root(
    tmp_path: Path, mount_root: str, path: str, wanted: str
) -> None:
    line = V2_LINE.replace(" / ", f" {mount_root} ")
    found = mounted(tmp_path, line, processes={7: f"1:name=systemd:/else\n0::{path}\n"}).group_of(7)
    assert found is not None
    assert {key: path.resolve() for key, path in found.directories.items()} == {"unified": tmp_path / wanted}


def test_a_path_may_hold_colons(tmp_path: Path) -> None:
    found = mounted(tmp_path, V2_LINE, processes={7: "0::/a:b:c\n"}).group_of(7)
    assert found is not None
    assert found.directories == {"unified": tmp_path / "cg/a:b:c"}


# ---------------------------------------------------------------- groups


@pytest.fixture
def v1(tmp_path: Path) -> Hierarchies:
    return mounted(tmp_path, CPU_LINE, MEMORY_LINE, NAMED_LINE)


def test_a_group_is_made_where_counters_are_read(v1: Hierarchies, tmp_path: Path) -> None:
    group = v1.group("cpost_x")
    group.make()
    group.make()  # once more does no harm
    made = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("cpost_x")}
    assert made == {"cg/cpu/cpost_x", "cg/memory/cpost_x"}
    assert group.remove()
    assert not list(tmp_path.rglob("cpost_x"))


@pytest.mark.parametrize(
    ("hierarchy", "file", "before", "after"),
    [
        ("memory", "memory.use_hierarchy", "0", "1"),
        ("memory", "memory.swappiness", "60", "0"),
        ("unified", "memory.swap.max", "max", "0"),
    ],
)
def test_a_group_counts_its_children_and_does_not_swap(
    tmp_path: Path, hierarchy: str, file: str, before: str, after: str
) -> None:
    folder = tmp_path / "g"
    folder.mkdir()
    (folder / file).write_text(before)
    Group({hierarchy: folder}).make()
    assert (folder / file).read_text() == after
    assert [path.name for path in folder.iterdir()] == [file]


def test_children_and_processes(v1: Hierarchies, tmp_path: Path) -> None:
    group = v1.group("g")
    assert (list(group.children()), group.pids()) == ([], [])
    for name in ("cg/cpu/g/b", "cg/memory/g/a", "cg/memory/g/b"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "cg/memory/g/link").symlink_to("a")
    (tmp_path / "cg/memory/g/a/cgroup.procs").write_text("12\n7\n")
    (tmp_path / "cg/cpu/g/b/cgroup.procs").write_text("")
    (tmp_path / "cg/memory/g/b/cgroup.procs").write_text("5\n")
    first, second = group.children()
    assert (first.directories["memory"].name, first.pids()) == ("a", [12, 7])
    assert (second.directories["cpu"].name, second.pids()) == ("b", [5])


def test_a_group_goes_with_all_below_it_and_nothing_beside(v1: Hierarchies, tmp_path: Path) -> None:
    for name in ("cg/cpu/g/a/b", "cg/memory/g/a", "cg/memory/other"):
        (tmp_path / name).mkdir(parents=True)
    assert v1.group("g").remove()
    assert v1.group("never there").remove()
    assert sorted(path.name for path in tmp_path.glob("cg/*/*")) == ["other"]


def test_a_group_in_use_stays_and_that_is_said(v1: Hierarchies, tmp_path: Path) -> None:
    busy = tmp_path / "cg/cpu/g/a"
    (busy / "file").mkdir(parents=True)
    (busy / "cgroup.procs").write_text("1")
    assert not v1.group("g").remove(timeout_s=0)
    assert busy.is_dir()
    assert not (busy / "file").exists()


def test_links_out_of_a_group_are_not_followed(v1: Hierarchies, tmp_path: Path) -> None:
    (tmp_path / "elsewhere/kept").mkdir(parents=True)
    (tmp_path / "cg/cpu/g").mkdir()
    (tmp_path / "cg/cpu/g/link").symlink_to(tmp_path / "elsewhere")
    assert not v1.group("g").remove(timeout_s=0)
    assert (tmp_path / "elsewhere/kept").is_dir()


def test_whether_groups_may_be_made_is_tried(v1: Hierarchies, tmp_path: Path) -> None:
    assert v1.may_make_groups("probe")
    (tmp_path / "cg/memory").rmdir()
    assert not v1.may_make_groups("probe")
    assert not list(tmp_path.rglob("probe"))


def test_groups_are_found_by_name_in_any_hierarchy(v1: Hierarchies, tmp_path: Path) -> None:
    for name in ("cg/cpu/cpost_b", "cg/memory/cpost_a", "cg/memory/cpost_b", "cg/memory/docker"):
        (tmp_path / name).mkdir()
    assert [name for name, _ in v1.groups_named("cpost_")] == ["cpost_a", "cpost_b"]


# ---------------------------------------------------------------- a command's group


def test_a_process_outside_our_pid_namespace_is_nobody_s(tmp_path: Path) -> None:
    (tmp_path / "cgroup.procs").write_text("0\n12\n0\n")
    assert Group({"memory": tmp_path}).pids() == [12]


def test_a_process_joins_wherever_the_group_was_made(v1: Hierarchies, tmp_path: Path) -> None:
    group = v1.group("g").child("inner")
    v1.group("g").make()
    group.make()
    group.join(77)
    assert (tmp_path / "cg/cpu/g/inner/cgroup.procs").read_text() == "77"
    assert (tmp_path / "cg/memory/g/inner/cgroup.procs").read_text() == "77"
    assert not (tmp_path / "cg/systemd/g").exists()


@pytest.mark.parametrize(
    ("hierarchy", "file", "tells"),
    [
        ("memory", "memory.usage_in_bytes", True),
        ("unified", "memory.current", True),
        ("unified", "memory.pressure", False),
    ],
)
def test_a_group_tells_memory_where_its_files_are(tmp_path: Path, hierarchy: str, file: str, tells: bool) -> None:
    assert not Group({hierarchy: tmp_path}).tells_memory()
    (tmp_path / file).touch()
    assert Group({hierarchy: tmp_path}).tells_memory() == tells


@pytest.mark.parametrize(
    ("hierarchies", "written"),
    [
        (("memory", "unified"), {"memory/memory.limit_in_bytes", "memory/memory.memsw.limit_in_bytes"}),
        (("unified",), {"unified/memory.max"}),
    ],
)
def test_a_limit_holds_for_the_group_s_memory(tmp_path: Path, hierarchies: tuple[str, ...], written: set[str]) -> None:
    for name in hierarchies:
        (tmp_path / name).mkdir()
    Group({name: tmp_path / name for name in hierarchies}).cap_memory(4096)
    made = {str(path.relative_to(tmp_path)): path.read_text() for path in tmp_path.glob("*/*")}
    assert made == dict.fromkeys(written, "4096")


def test_all_below_a_group_are_killed(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    started = [subprocess.Popen(["sleep", "100"]) for _ in range(2)]
    for process, folder in zip(started, (tmp_path, tmp_path / "a/b"), strict=True):
        (folder / "cgroup.procs").write_text(f"{process.pid}\n")
    assert Group({"memory": tmp_path}).kill(timeout_s=0.1) == 2  # a plain file goes on naming them
    assert [process.wait(5) for process in started] == [-9, -9]
