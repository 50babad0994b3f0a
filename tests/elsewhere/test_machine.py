"""The virtual machine's script by itself: what it passes on, and that nothing of it stays."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from elsewhere.place import TREE
from integration import harness

RUN = str(TREE / "tests/vm/run")
TMP = Path("/tmp")


@pytest.fixture
def before() -> set[Path]:
    """The folders of machines that others run at the moment."""
    return machines()


def machines() -> set[Path]:
    return set(TMP.glob("cpost-vm.*"))


def processes(name: str) -> list[int]:
    """Processes with a name in their command line, but for those that are dead and not yet waited for."""
    found = psutil.process_iter(["cmdline", "status"])
    dead = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    return [
        each.pid for each in found if name in " ".join(each.info["cmdline"] or ()) and each.info["status"] not in dead
    ]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([RUN, *words], capture_output=True, text=True, check=False, cwd=TREE / "tests")


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


def test_time_limit() -> None:
    done = run("-n", "-t", "3", "sleep", "1000")
    assert done.returncode == 125
    wrong, remedy = done.stderr.splitlines()[-2:]
    assert wrong == "cpost tests: the virtual machine was killed after 3 s"
    assert remedy.startswith("  what to do: look at /tmp/cpost-vm.")
    kept = Path(remedy.split()[5].rstrip(","))
    assert (kept / "console").exists()
    harness.until(lambda: not processes(kept.name), "the end of the machine's processes")
    shutil.rmtree(kept)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_the_machine(before: set[Path], signum: signal.Signals) -> None:
    running = subprocess.Popen([RUN, "-n", "sleep", "1000"], cwd=TREE)
    while not (mine := machines() - before):
        time.sleep(0.05)
    time.sleep(1.5)
    running.send_signal(signum)
    assert running.wait(30) == 128 + signum
    assert not mine & machines()
    harness.until(lambda: not any(processes(each.name) for each in mine), "the end of the machine's processes")


def test_command_that_is_missing_is_said_in_words() -> None:
    assert run("-n", "no-such-program").returncode == 127
    done = run()
    assert done.returncode == 125
    assert "Usage: tests/vm/run" in done.stderr
