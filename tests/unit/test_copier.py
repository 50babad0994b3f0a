"""Copies of folders: whole or not at all, only where there is room, and never longer than cpost itself."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cpost import copier
from cpost.copier import Copier
from cpost.errors import Interrupted
from cpost.interrupts import Interrupts
from cpost.measure import marked


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with a megabyte in it, in a folder in it."""
    folder = tmp_path / "data"
    (folder / "part").mkdir(parents=True)
    (folder / "part/file").write_bytes(b"x" * 2**20)
    return folder


def doing(monkeypatch: pytest.MonkeyPatch, script: str) -> list[subprocess.Popen[str]]:
    """Let a shell script, which gets source and place, copy; returns what was started."""
    started: list[subprocess.Popen[str]] = []
    popen = subprocess.Popen

    def start(command: list[str], **given: Any) -> Any:
        started.append(popen(["/bin/sh", "-c", script, *command[-3:]], **given))
        return started[-1]

    monkeypatch.setattr(copier.subprocess, "Popen", start)
    return started


def test_what_others_own_is_only_copied_by_root(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Copier(Interrupts())
    owner, group = data.stat().st_uid, data.stat().st_gid
    monkeypatch.setattr(os, "geteuid", lambda: owner or 1000)
    monkeypatch.setattr(os, "getegid", lambda: group)
    (data / "part/file").chmod(0o600)
    statuses = {"own": (owner or 1000, group), "user": (4242, group), "group": (owner or 1000, 4242)}
    monkeypatch.setattr(os, "getgroups", list)
    for who, (uid, gid) in statuses.items():
        met = SimpleNamespace(st_uid=uid, st_gid=gid, st_blocks=0)
        monkeypatch.setattr(Path, "lstat", lambda _, met=met: met)
        assert plain.refusal(data, data) == ("" if who == "own" else "it holds files of another user")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert plain.refusal(data, data) == ""


@pytest.mark.parametrize(("free", "refused"), [(2**20, True), (2**22, False)])
def test_half_of_the_disk_stays_free(data: Path, monkeypatch: pytest.MonkeyPatch, free: int, refused: bool) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    said = Copier(Interrupts()).refusal(data, data)
    assert said == ("it would take more than half of the free disk" if refused else "")


def test_what_cannot_be_looked_at_is_not_copied(tmp_path: Path) -> None:
    assert Copier(Interrupts()).refusal(tmp_path / "gone", tmp_path) == "No such file or directory"


def test_nothing_is_left_of_half_a_copy(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    doing(monkeypatch, 'mkdir "$2"; echo half >"$2/file"; echo "cp: no space left" >&2; exit 1')
    assert Copier(Interrupts()).copy(data, tmp_path / "to") == "cp: no space left"
    assert not (tmp_path / "to").exists()


def test_a_signal_breaks_a_copy_off(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupts, to = Interrupts(), tmp_path / "to"
    started = doing(monkeypatch, 'mkdir "$2"; echo half >"$2/file"; exec sleep 60')

    def stop() -> None:
        while not (to / "file").exists():
            time.sleep(0.01)
        interrupts.deliver(signal.SIGINT)

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(Interrupted):
        Copier(interrupts).copy(data, to)
    thread.join()
    assert started[0].returncode == -signal.SIGKILL
    assert not to.exists()
    with pytest.raises(Interrupted):
        Copier(interrupts).refusal(data, tmp_path)
    with pytest.raises(Interrupted):
        Copier(interrupts).copy(data, to)


def test_a_copy_is_out_of_the_terminals_reach_and_found_by_the_runs_name(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = tmp_path / "noted"
    doing(monkeypatch, f'cut -d " " -f 6 /proc/$$/stat >"{noted}"; echo "${marked.VARIABLE}" >>"{noted}"')
    assert Copier(Interrupts(), "cpost_of_a_run").copy(data, tmp_path / "to") == ""
    session, name = noted.read_text().split()
    assert int(session) != os.getsid(0)
    assert name == "cpost_of_a_run"
