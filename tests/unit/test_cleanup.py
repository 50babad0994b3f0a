"""Removing folders, groups and what dead runs left; nothing of anybody else's."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cpost.errors import EngineError, HostError
from cpost.measure import cleanup
from cpost.measure.cgroup import Hierarchies
from cpost.measure.cleanup import Leftover, has_link, remove_group, remove_leftovers, remove_tree
from cpost.measure.engine import Owned
from cpost.measure.owner import Owner

NOBODY = 65534
LIVING = Owner.current()
DEAD = replace(LIVING, start_ticks=LIVING.start_ticks + 1)
ELSEWHERE = replace(DEAD, boot="000000000000")
RUN = "20260101T000000xab12"


class Engine:
    """Holds containers and networks; refuses to remove what it is told to."""

    def __init__(self, *items: Owned, stuck: str = "") -> None:
        self.items = list(items)
        self.stuck = stuck
        self.asked: list[Mapping[str, str]] = []

    def owned(self, filters: Mapping[str, str]) -> list[Owned]:
        self.asked.append(filters)
        return list(self.items)

    def remove(self, item: Owned) -> None:
        if item.name == self.stuck:
            raise EngineError("engine: it will not go")
        self.items.remove(item)

    def remove_labelled(self, filters: Mapping[str, str]) -> int:
        self.asked.append(filters)
        if self.stuck:
            raise EngineError("engine: it will not go")
        return 0


@pytest.fixture
def plain_user() -> Iterator[Path]:
    """A folder of a user without root's rights, whom the test then acts as."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "own"
        folder.mkdir()
        if os.geteuid() == 0:
            Path(name).chmod(0o755)
            os.chown(folder, NOBODY, NOBODY)
            os.seteuid(NOBODY)
        try:
            yield folder
        finally:
            os.seteuid(os.getuid())


@pytest.fixture
def temp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are looked for."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv("TMPDIR", raising=False)
    return tmp_path


@pytest.fixture
def groups(tmp_path: Path) -> Hierarchies:
    (tmp_path / "h/proc/self").mkdir(parents=True)
    (tmp_path / "h/proc/self/mountinfo").write_text("1 1 0:1 / /cg rw - cgroup2 cgroup2 rw\n")
    (tmp_path / "h/cg").mkdir()
    return Hierarchies.read(tmp_path / "h")


def named(kind: str, owner: Owner, name: str = "x") -> Owned:
    return Owned(kind, f"id-{name}", name, owner.labels(RUN))


def leftovers(engine: Any, hierarchies: Hierarchies | None = None) -> list[Leftover]:
    return cleanup.leftovers_of_dead_runs(engine, hierarchies)


# ---------------------------------------------------------------- folders


def test_closed_folders_go_too(plain_user: Path) -> None:
    folder = plain_user / "run"
    (folder / "a/b/c").mkdir(parents=True)
    (folder / "a/b/c/file").write_text("x")
    for path, mode in ((folder / "a/b/c", 0), (folder / "a/b", 0o400), (folder / "a", 0o500)):
        path.chmod(mode)
    assert remove_tree(folder)
    assert not folder.exists()


def test_links_go_but_what_they_show_stays(plain_user: Path) -> None:
    folder, kept = plain_user / "run", plain_user / "kept"
    kept.mkdir(mode=0o500)
    (folder / "a").mkdir(parents=True)
    (folder / "a/link").symlink_to(kept)
    (folder / "a/loop").symlink_to("loop")
    assert remove_tree(folder)
    assert kept.stat().st_mode & 0o777 == 0o500


def test_a_folder_that_is_not_there_is_removed_already(tmp_path: Path) -> None:
    assert remove_tree(tmp_path / "none")


def test_what_cannot_be_removed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)
    assert not remove_tree(tmp_path)


@pytest.mark.parametrize(
    ("path", "linked"),
    [("top/plain/deep", False), ("top/link", True), ("top/link/deep", True), ("top/plain/none", False), ("top", False)],
)
def test_whether_a_link_is_on_the_way(tmp_path: Path, path: str, linked: bool) -> None:
    (tmp_path / "elsewhere/deep").mkdir(parents=True)
    (tmp_path / "real/plain/deep").mkdir(parents=True)
    (tmp_path / "top").symlink_to("real")  # the user's own business
    (tmp_path / "top/link").symlink_to(tmp_path / "elsewhere")
    assert has_link(tmp_path / path, below=tmp_path / "top") == linked


# ---------------------------------------------------------------- leftovers


def test_only_what_a_dead_process_of_this_boot_left_is_found(temp: Path, groups: Hierarchies) -> None:
    engine = Engine(
        named("container", DEAD, "dead"),
        named("container", LIVING, "living"),
        named("network", DEAD, "net"),
        named("network", ELSEWHERE, "elsewhere"),
        Owned("container", "1", "foreign", {"cpost.run": "theirs"}),
    )
    for owner in (DEAD, LIVING, ELSEWHERE):
        (temp / owner.name(RUN)).mkdir()
        (temp / "h/cg" / f"{owner.name(RUN)}_0").mkdir()
    (temp / "cpost_of_somebody").mkdir()
    (temp / "h/cg/cpost_of_somebody").mkdir()
    found = leftovers(engine, groups)
    assert [(item.kind, item.name, item.run_id) for item in found] == [
        ("container", "dead", RUN),
        ("network", "net", RUN),
        ("control group", f"{DEAD.name(RUN)}_0", RUN),
        ("folder", str(temp / DEAD.name(RUN)), RUN),
    ]
    assert engine.asked == [{"cpost.run": ""}]
    assert remove_leftovers(found) == (found, [])
    assert [item.name for item in engine.items] == ["living", "elsewhere", "foreign"]
    assert not (temp / DEAD.name(RUN)).exists()
    assert len(list((temp / "h/cg").iterdir())) == 3
    assert leftovers(engine, groups) == []


def test_links_and_files_are_no_folders_of_ours(temp: Path) -> None:
    (temp / f"{DEAD.name(RUN)}_file").write_text("x")
    (temp / f"{DEAD.name(RUN)}_link").symlink_to(temp)
    assert leftovers(Engine()) == []


def test_another_user_s_folder_is_not_ours_whatever_it_is_called(temp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (temp / DEAD.name(RUN)).mkdir()
    assert len(leftovers(Engine())) == 1
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY)
    assert leftovers(Engine()) == []


def test_what_does_not_go_is_told_and_does_not_keep_the_rest(temp: Path, groups: Hierarchies) -> None:
    busy = temp / "h/cg" / DEAD.name(RUN)
    busy.mkdir()
    engine = Engine(named("container", DEAD, "a"), named("network", DEAD, "b"), stuck="a")

    def refuse() -> None:
        raise HostError("still in use")

    found = [*leftovers(engine, groups), Leftover("folder", "f", RUN, refuse)]
    removed, failures = remove_leftovers(found)
    assert failures == ["container a: engine: it will not go", "folder f: still in use"]
    assert removed == found[1:-1]
    assert [item.name for item in engine.items] == ["a"]
    assert not busy.exists()


# ---------------------------------------------------------------- one run


def test_a_run_s_own_things_go_and_only_those(temp: Path, groups: Hierarchies) -> None:
    other = LIVING.name("20260101T000000xffff")
    for name in (LIVING.name(RUN), other):
        (temp / name).mkdir()
        (temp / "h/cg" / f"{name}_0" / "inner").mkdir(parents=True)
    engine: Any = Engine()
    assert cleanup.remove_run(engine, groups, LIVING, RUN) == []
    assert engine.asked == [LIVING.labels(RUN)]
    assert [path.name for path in temp.glob("cpost_*")] == [other]
    assert [path.name for path in (temp / "h/cg").iterdir()] == [f"{other}_0"]


def test_without_engine_and_groups_the_folder_still_goes(temp: Path) -> None:
    (temp / LIVING.name(RUN)).mkdir()
    assert cleanup.remove_run(None, None, LIVING, RUN) == []
    assert not list(temp.iterdir())


def test_a_folder_beside_the_outputs_goes_with_its_run(temp: Path) -> None:
    beside = temp / f".{LIVING.name(RUN)}"
    (beside / "a").mkdir(parents=True)
    assert cleanup.remove_run(None, None, LIVING, RUN, (), [beside]) == []
    assert not list(temp.iterdir())


def test_a_folder_beside_outputs_goes_with_the_next_run_there(temp: Path) -> None:
    kept = [f".{LIVING.name(RUN)}", ".cpost_outputs", LIVING.name(RUN), "a"]
    for name in (*kept, f".{DEAD.name(RUN)}"):
        (temp / name).mkdir()
    (temp / f".{DEAD.name('20260101T000000xffff')}").symlink_to("a")
    cleanup.remove_dead_folders(temp)
    assert sorted(path.name for path in temp.iterdir() if not path.is_symlink()) == sorted(kept)
    cleanup.remove_dead_folders(temp / "missing")


def test_every_failure_is_told(temp: Path, groups: Hierarchies, monkeypatch: pytest.MonkeyPatch) -> None:
    (temp / LIVING.name(RUN)).mkdir()
    (temp / "h/cg" / LIVING.name(RUN)).mkdir()
    monkeypatch.setattr(cleanup, "remove_tree", lambda _: False)
    monkeypatch.setattr(cleanup, "remove_group", lambda *_: False)
    monkeypatch.setattr(cleanup.marked, "kill", lambda _: False)
    engine: Any = Engine(stuck="x")
    failures = cleanup.remove_run(engine, groups, LIVING, RUN)
    assert [failure.split()[0] for failure in failures] == ["engine:", "processes", "control", "folder"]


def test_a_slice_is_stopped_with_systemd_first(groups: Hierarchies, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[list[str]] = []

    def run(command: list[str], **_: Any) -> None:
        called.append(command)
        raise FileNotFoundError(command[0])

    monkeypatch.setattr(subprocess, "run", run)
    assert remove_group("cpost_x.slice", groups.group("cpost_x.slice"))
    assert remove_group("cpost_x", groups.group("cpost_x"))
    assert called == [["systemctl", "stop", "cpost_x.slice"]]


# ---------------------------------------------------------------- the work folder


def test_the_work_folder_is_where_it_was_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", f"{tmp_path}/x/../")
    assert cleanup.work_folder("a") == tmp_path / "a"
    monkeypatch.delenv("TMPDIR")
    monkeypatch.setattr(tempfile, "tempdir", None)
    assert cleanup.work_folder("a").parent.is_dir()


@pytest.mark.parametrize(("name", "why"), [("none", "is no folder"), ("/proc", "may not be written to, or is full")])
def test_no_other_disk_is_filled_than_the_one_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, why: str
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", str(tmp_path / name))
    with pytest.raises(HostError, match=f"TMPDIR cannot be used: .*{name} {why}"):
        cleanup.work_folder("a")
    monkeypatch.setattr(tempfile, "tempdir", None)
