"""Processes that carry a run's name are found and killed, others are not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cpost.errors import HostError
from cpost.measure import cleanup, marked
from cpost.measure.owner import Owner

RUN = "20260101T000000xab12"
NAME = Owner.current().name(RUN)
OTHER = Owner.current().name("20260101T000000xffff")


@pytest.fixture
def carrying() -> Iterator[Callable[[str], subprocess.Popen[bytes]]]:
    """Start processes that carry a name."""
    started: list[subprocess.Popen[bytes]] = []

    def start(name: str) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen(["sleep", "100"], env={**os.environ, marked.VARIABLE: name}))
        environment = Path(f"/proc/{started[-1].pid}/environ")
        while name.encode() not in environment.read_bytes():  # the kernel fills it in the course of exec
            assert started[-1].poll() is None
        return started[-1]

    yield start
    for each in started:
        each.kill()
        each.wait()


def test_only_what_carries_the_name_is_killed(carrying: Callable[[str], subprocess.Popen[bytes]]) -> None:
    mine, other, foreign = carrying(NAME), carrying(OTHER), carrying("somebody's")
    assert {NAME, OTHER} <= set(marked.names())
    assert "somebody's" not in marked.names()
    assert marked.kill(NAME)
    assert mine.wait(5) == -9
    assert (other.poll(), foreign.poll()) == (None, None)
    assert NAME not in marked.names()


def test_whether_a_process_carries_a_name(carrying: Callable[[str], subprocess.Popen[bytes]]) -> None:
    mine = carrying(NAME)
    assert marked.carries(mine.pid, NAME) is True
    assert marked.carries(mine.pid, NAME[:-1]) is False
    mine.kill()
    mine.wait()
    assert marked.carries(mine.pid, NAME) is None


def test_what_cannot_be_killed_is_said(
    carrying: Callable[[str], subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    carrying(NAME)
    monkeypatch.setattr(os, "kill", lambda *_: None)
    assert not marked.kill(NAME, timeout_s=0.05)


def test_a_process_does_not_find_itself() -> None:
    """`cpost exec -- cpost exec ...`: the inner one carries the outer one's name."""
    look = f"from cpost.measure import marked; print({NAME!r} in marked.names())"
    done = subprocess.run(
        [sys.executable, "-c", look],
        env={**os.environ, marked.VARIABLE: NAME},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False\n"


def test_a_dead_run_s_processes_are_leftovers(
    carrying: Callable[[str], subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with subprocess.Popen(["true"]) as gone:
        dead = Owner.current().__class__(Owner.current().boot, Owner.current().pid_namespace, gone.pid, 1).name(RUN)
    left, living = carrying(dead), carrying(NAME)
    found = [each for each in cleanup.leftovers_of_dead_runs(None, None) if each.name in (dead, NAME)]
    assert [(each.kind, each.name, each.run_id) for each in found] == [("process", dead, RUN)]
    assert cleanup.remove_leftovers(found) == (found, [])
    assert left.wait(5) == -9
    assert living.poll() is None
    monkeypatch.setattr(marked, "kill", lambda _: False)
    with pytest.raises(HostError):
        found[0].remove()
