"""A launcher waits under its own name, becomes the command when told to, and says why it cannot.

It forks, which a process with threads should not, and other tests leave some: so each test here has a process of its
own.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cpost.measure.launcher import Launcher, NotStarted


def alone(check: Callable[..., None], *arguments: Any) -> None:
    """Run a check of this module in a new interpreter; fail as it does."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        pool.submit(check, *arguments).result()


def name_of(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def test_it_waits_under_its_own_name_and_becomes_the_command(tmp_path: Path) -> None:
    alone(waits_and_becomes, tmp_path)


def waits_and_becomes(tmp_path: Path) -> None:
    launcher = Launcher(
        ["sh", "-c", 'echo "$A" >"$1"; sleep 100', "-", str(tmp_path / "out")], {**os.environ, "A": "b"}
    )
    assert name_of(launcher.pid) == "cpost-exec"
    assert not (tmp_path / "out").exists()
    launcher.go()
    assert name_of(launcher.pid) == "sh"
    while not (tmp_path / "out").exists() or not (tmp_path / "out").read_text():
        assert os.waitpid(launcher.pid, os.WNOHANG) == (0, 0)
    os.kill(launcher.pid, signal.SIGKILL)
    launcher.close()
    assert (tmp_path / "out").read_text() == "b\n"


def test_one_that_is_never_told_to_go_ends(tmp_path: Path) -> None:
    alone(ends_untold, tmp_path)


def ends_untold(tmp_path: Path) -> None:
    launcher = Launcher(["touch", str(tmp_path / "ran")], os.environ)
    launcher.close()
    with pytest.raises(ProcessLookupError):
        os.kill(launcher.pid, 0)
    assert not (tmp_path / "ran").exists()


def test_one_that_was_killed_meanwhile_is_no_error() -> None:
    alone(is_killed_meanwhile)


def is_killed_meanwhile() -> None:
    launcher = Launcher(["true"], os.environ)
    os.kill(launcher.pid, signal.SIGKILL)
    launcher.go()
    assert os.waitstatus_to_exitcode(os.waitpid(launcher.pid, 0)[1]) == -9
    launcher.close()


@pytest.mark.parametrize(
    ("program", "code", "words"),
    [
        ("no-such-program", 127, "No such file"),
        ("/etc/passwd", 126, "denied"),
        ("/etc/passwd/x", 127, "Not a directory"),
    ],
)
def test_what_cannot_be_started_says_why(program: str, code: int, words: str) -> None:
    alone(says_why, program, code, words)


def says_why(program: str, code: int, words: str) -> None:
    launcher = Launcher([program], os.environ)
    with pytest.raises(NotStarted) as caught:
        launcher.go()
    launcher.close()
    assert (caught.value.exit_code, program in caught.value.message) == (code, True)
    assert words in caught.value.message
    assert caught.value.hint
    with pytest.raises(ChildProcessError):
        os.waitpid(launcher.pid, 0)


def test_signals_that_python_ignores_are_the_command_s_again(tmp_path: Path) -> None:
    launcher = Launcher(["sh", "-c", f"grep SigIgn /proc/$$/status >{tmp_path}/ignored"], os.environ)
    launcher.go()
    launcher.close()
    ignored = int((tmp_path / "ignored").read_text().split()[1], 16)
    assert not ignored & (1 << (signal.SIGPIPE - 1))
