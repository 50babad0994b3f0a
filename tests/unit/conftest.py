"""What all unit tests share: property tests are bounded by examples, not by the clock, and leave no files."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from rig import Rig
from trees import Tree, copy_tree

import fake_nvml

# How long it takes to make examples says how busy the host is, and nothing of the code.
settings.register_profile(
    "cpost",
    max_examples=30,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("cpost")


@pytest.fixture
def recorded(tmp_path: Path) -> Iterator[Callable[[str], Tree]]:
    """Opens a copy of a recorded cgroup tree by its name."""
    opened: list[Tree] = []

    def open_copy(name: str) -> Tree:
        opened.append(copy_tree(name, tmp_path))
        return opened[-1]

    yield open_copy
    for tree in opened:
        tree.close()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """A group on a plain file system and a process that lives until told."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as child:
        yield Rig(tmp_path, child)
        child.kill()


@pytest.fixture
def nvml_script(nvml_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Says what the driver will tell from now on, line by line; the real pynvml asks the stand-in in this process."""
    ctypes.CDLL(str(nvml_library))  # loaded once, it is found again by its name
    script = tmp_path / "nvml"
    monkeypatch.setenv(fake_nvml.VARIABLE, str(script))
    return lambda *lines: fake_nvml.write(script, *lines)
