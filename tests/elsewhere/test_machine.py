"""The virtual machine's script by itself: what it passes on, and that nothing of it stays."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
import pytest

from elsewhere.place import TREE
from integration import harness

RUN = str(TREE / "tests/vm/run")


@pytest.fixture
def temp() -> Iterator[Path]:
    """Where a machine makes its folder; a short name, because sockets in it have long ones."""
    with tempfile.TemporaryDirectory(prefix="vm-") as folder:
        yield Path(folder)


def processes(name: str) -> list[int]:
    """Processes with a name in their command line, but for those that are dead and not yet waited for."""
    found = psutil.process_iter(["cmdline", "status"])
    dead = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    return [
        each.pid for each in found if name in " ".join(each.info["cmdline"] or ()) and each.info["status"] not in dead
    ]


def run(*words: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([RUN, *words], capture_output=True, text=True, check=False, cwd=TREE / "tests", env=env)


def test_output_and_exit_code_are_passed_on() -> None:
    look = "echo out; pwd; echo err >&2; cat /proc/filesystems >&2; exit 7"
    done = run("-n", "sh", "-c", look)
    assert (done.returncode, done.stdout) == (7, f"out\n{TREE / 'tests'}\n")
    assert done.stderr.startswith("err\n")
    assert "cgroup2" in done.stderr


def test_what_is_written_stays_only_below_the_shared_folder(tmp_path: Path) -> None:
    forgotten = TREE / "forgotten"
    assert run("-n", "-w", str(tmp_path), "sh", "-c", f"echo x | tee {forgotten} >{tmp_path}/kept").returncode == 0
    assert (tmp_path / "kept").read_text() == "x\n"
    assert not forgotten.exists()


def test_time_limit(temp: Path) -> None:
    done = run("-n", "-t", "3", "sleep", "1000", env={**os.environ, "TMPDIR": str(temp)})
    assert done.returncode == 125
    wrong, remedy = done.stderr.splitlines()[-2:]
    assert wrong == "cpost tests: the virtual machine was killed after 3 s"
    assert remedy.startswith(f"  what to do: look at {temp}/cpost-vm.")
    kept = Path(remedy.split()[5].rstrip(","))
    assert (kept / "console").exists()
    harness.until(lambda: not processes(kept.name), "the end of the machine's processes")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_the_machine(temp: Path, signum: signal.Signals) -> None:
    command = [RUN, "-n", "-t", "250", "sh", "-c", "echo booted; exec sleep 1000"]
    environment = {**os.environ, "TMPDIR": str(temp)}
    with subprocess.Popen(command, cwd=TREE, env=environment, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "booted\n"
        (machine,) = temp.glob("cpost-vm.*")
        assert processes(machine.name)
        running.send_signal(signum)
        assert running.wait(30) == 128 + signum
    assert not machine.exists()
    harness.until(lambda: not processes(machine.name), "the end of the machine's processes")


def test_command_that_is_missing_is_said_in_words() -> None:
    assert run("-n", "no-such-program").returncode == 127
    done = run()
    assert done.returncode == 125
    assert "Usage: tests/vm/run" in done.stderr
