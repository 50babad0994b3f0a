"""`cpost exec`: one command without a container, in a control group of its own or by its process tree."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from images.build import compile_appetite
from integration import harness
from integration.harness import Cpost, Done, Record, Running

MB = 10**6
NOBODY = 65534
# Another user may make no control groups; the one right that is left lets it read a Python in root's home.
AS_NOBODY = (
    "setpriv",
    f"--reuid={NOBODY}",
    f"--regid={NOBODY}",
    "--clear-groups",
    "--inh-caps=-all,+dac_read_search",
    "--ambient-caps=-all,+dac_read_search",
)
NO_ENGINE = {"DOCKER_HOST": "unix:///nonexistent"}
SOURCES = {"group": "kernel", "tree": "process tree"}

Exec = Callable[..., Running]
Measured = Callable[..., Record]


@pytest.fixture(autouse=True)
def nothing_left(tmp_path: Path) -> Iterator[Cpost]:
    """After each test every group and folder that its cposts have made is gone; no engine is asked."""
    runner = Cpost(tmp_path)
    yield runner
    runner.end()
    owners = tuple(f"p{each.process.pid}s" for each in runner.started)
    made = lambda: [each for each in harness.groups_and_folders() if any(owner in each for owner in owners)]  # noqa: E731
    harness.until(lambda: not made(), f"removal of {made()}", within_s=10)
    harness.until(lambda: not list(runner.temp.iterdir()), f"removal of what is in {runner.temp}", within_s=10)


@pytest.fixture
def cpost(nothing_left: Cpost) -> Cpost:
    """Runs cpost."""
    return nothing_left


@pytest.fixture(scope="session")
def appetite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program of known appetites, on the host."""
    path = tmp_path_factory.mktemp("appetite") / "appetite"
    path.write_bytes(compile_appetite())
    path.chmod(0o755)
    return path


@pytest.fixture(params=["group", "tree"])
def way(request: pytest.FixtureRequest) -> str:
    """How the command is watched."""
    return str(request.param)


@pytest.fixture
def start(cpost: Cpost, way: str) -> Exec:
    """Start `cpost exec`, where no engine answers."""
    if way == "tree":
        os.chown(cpost.temp, NOBODY, NOBODY)
    under = AS_NOBODY if way == "tree" else ()
    return lambda *arguments, start_with=(), **popen: cpost.start(
        "exec", *arguments, under=(*under, *start_with), env=NO_ENGINE, **popen
    )


@pytest.fixture
def measured(start: Exec, way: str) -> Measured:
    """Measure a command; return its record, whose source has been checked."""

    def run(*command: str | Path, code: int = 0, options: tuple[str, ...] = ()) -> Record:
        done = start("--json", *options, "--", *command).wait().ended(code)
        record = record_in(done)
        assert record["result"]["totals"]["source"] == SOURCES[way]
        assert ("process tree" in done.err) == (way == "tree")
        return record

    return run


def record_in(done: Done) -> Record:
    """The only operator's record: the last thing on stderr."""
    loaded: Record = json.loads(done.err[done.err.index("\n{") if not done.err.startswith("{") else 0 :])
    return dict(loaded["operators"][0])


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# ---------------------------------------------------------------- figures


def test_known_appetites_are_measured(measured: Measured, appetite: Path, way: str) -> None:
    found = measured(appetite, "touch", "100", "burn", "500", "2", "sleep", "300")
    totals, usage = found["result"]["totals"], found["usage"]
    assert abs(totals["cpu_us"] - 500_000) <= 15_000
    assert 100 * MB <= totals["memory_peak_bytes"] <= 102 * MB
    assert found["result"]["wall_ns"] >= 0.5e9
    assert usage["memory_bytes"]["maximum"] == totals["memory_peak_bytes"]
    assert found["recommendation"]["requests"]["memory_bytes"] == 256 * MB
    assert found["result"]["outcome"] == "completed"
    assert found["operator"] == "appetite"


def test_short_lived_children_count(measured: Measured, appetite: Path) -> None:
    """Each is gone before anybody looks for it; who waits for it is told."""
    found = measured("sh", "-c", f"for i in 1 2 3 4 5 6 7 8 9 10; do {appetite} burn 20 1; done")
    assert abs(found["result"]["totals"]["cpu_us"] - 200_000) <= 60_000  # with the start of ten processes
    assert found["result"]["totals"]["cpu_us"] >= 200_000


def test_what_is_left_behind_is_counted_then_killed(measured: Measured, appetite: Path, tmp_path: Path) -> None:
    """A daemon in a session of its own, whose parent is gone."""
    pid_file = tmp_path / "pid"
    pid_file.touch()
    pid_file.chmod(0o666)
    burned = f"echo $$ >{pid_file}; {appetite} burn 150 1; echo >>{pid_file}; exec sleep 100000"
    leave = f"(setsid sh -c '{burned}' &) ; until [ $(wc -l <{pid_file}) = 2 ]; do sleep 0.1; done"
    found = measured("sh", "-c", leave)
    assert 150_000 <= found["result"]["totals"]["cpu_us"] <= 250_000
    assert any("left behind" in warning for warning in found["result"]["warnings"])
    assert not alive(int(pid_file.read_text()))


def test_an_orphan_that_has_ended_is_counted(measured: Measured, appetite: Path, tmp_path: Path) -> None:
    (tmp_path / "pid").touch()
    (tmp_path / "pid").chmod(0o666)
    orphan = f"(setsid sh -c 'echo $$ >{tmp_path}/pid; exec {appetite} burn 150 1' &)"
    wait = f"until [ -s {tmp_path}/pid ] && [ ! -e /proc/$(cat {tmp_path}/pid) ]; do sleep 0.1; done"
    found = measured("sh", "-c", f"{orphan}; {wait}; {appetite} burn 250 1")
    assert 400_000 <= found["result"]["totals"]["cpu_us"] <= 520_000
    assert not any("left behind" in warning for warning in found["result"]["warnings"])


def test_a_command_that_is_over_at_once(measured: Measured, way: str) -> None:
    found = measured("true")
    assert 0 < found["result"]["totals"]["cpu_us"] < 50_000
    assert 0 < found["result"]["wall_ns"] < 2e9
    if way == "group":
        assert 0 < found["result"]["totals"]["memory_peak_bytes"] < 5 * MB
        assert found["recommendation"]["status"] == "ok"


@pytest.mark.parametrize("way", ["group"], indirect=True)
def test_a_memory_limit_is_a_limit(measured: Measured, appetite: Path) -> None:
    found = measured(appetite, "hog", code=137, options=("--memory_limit", "61440000"))
    assert found["result"]["outcome"] == "oom_killed"
    assert "61.440 MB" in found["result"]["cause"]
    assert found["recommendation"]["status"] == "refused"


@pytest.mark.parametrize("way", ["tree"], indirect=True)
def test_a_limit_that_cannot_be_set_is_refused(start: Exec, tmp_path: Path) -> None:
    done = start("--memory_limit", "60MB", "--", "touch", tmp_path / "ran").wait().ended(5)
    assert "no memory limit can be set here" in done.err
    assert "what to do" in done.err
    assert not (tmp_path / "ran").exists()


def test_results_go_to_a_folder(start: Exec, appetite: Path, cpost: Cpost, way: str) -> None:
    folder = cpost.temp.parent / "results" / "metrics"
    folder.parent.mkdir()
    folder.parent.chmod(0o777)
    options = ("--name", "mine", "--metrics_dir", folder, "--policy", "p95")
    done = start(*options, "--", appetite, "touch", "20", "burn", "300", "1").wait().ended(0)
    assert {path.name for path in folder.iterdir()} == {
        "mine_final_result.csv",
        "summary.csv",
        "run.json",
        "report.html",
    }
    harness.check_csvs(folder)
    record = harness.load_run(folder)
    assert (record["complete"], record["pipeline_name"]) == (True, "cpost exec")
    assert record["pipeline_file"].endswith("appetite touch 20 burn 300 1")
    rows = harness.rows_of(folder / "mine_final_result.csv")
    assert len(rows) > 15
    totals = record["operators"][0]["result"]["totals"]
    assert totals["cpu_us"] >= 290_000
    assert int(rows[-1]["cpu_us"]) >= 200_000  # the last row is a sample: the kernel's grain and the tail are missing
    assert (rows[-1]["throttled_us"] == "") == (way == "tree")
    (summary,) = harness.rows_of(folder / "summary.csv")
    assert (summary["operator"], summary["outcome"], summary["source"]) == ("mine", "completed", SOURCES[way])
    assert "mine" in done.err
    assert "never overwritten unasked" in start(*options, "--", "true").wait().ended(2).err
    start(*options, "--overwrite", "--", "no-such-program").wait().ended(127)
    assert harness.load_run(folder) == record
    assert harness.rows_of(folder / "mine_final_result.csv") == rows
    start(*options, "--overwrite", "--", "true").wait().ended(0)
    assert harness.load_run(folder) != record


# ---------------------------------------------------------------- the command's own


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 42", 42), ("kill -9 $$", 137), ("kill -SEGV $$", 139), ("nosuch", 127)]
)
def test_the_exit_code_is_the_command_s(start: Exec, script: str, code: int) -> None:
    start("-q", "--", "sh", "-c", script).wait().ended(code)


def test_what_cannot_be_started(start: Exec, tmp_path: Path) -> None:
    plain, script = tmp_path / "plain", tmp_path / "script"
    plain.write_text("echo\n")
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    for program, code in (("no-such-program", 127), (script, 127), (plain, 126), (tmp_path, 126)):
        done = start("--", program).wait().ended(code)
        assert done.out == ""
        first, second = done.err.splitlines()[-2:]
        assert first.startswith(f"cpost: error: cannot start {program}: ")
        assert second.startswith("  what to do: ")


def test_input_and_output_are_the_command_s(start: Exec, tmp_path: Path) -> None:
    with (tmp_path / "in").open("w+") as given:
        given.write("a line\n")
        given.seek(0)
        done = start("--", "sh", "-c", "cat; echo error >&2; pwd", "-n", stdin=given).wait().ended(0)
    assert done.out.splitlines() == ["a line", str(tmp_path)]
    assert "error" in done.err.splitlines()
    assert "Summary" in done.err


def test_output_that_is_lost_is_an_error(start: Exec) -> None:
    with Path("/dev/full").open("w") as full:
        done = start("--json", "--", "echo", "done", stderr=full).wait().ended(5)
    assert done.out == "done\n"


def test_options_of_the_command_stay_its_own(start: Exec) -> None:
    assert start("-q", "echo", "--json", "--", "-q").wait().ended(0).out == "--json -- -q\n"


# ---------------------------------------------------------------- signals


@pytest.fixture
def started(start: Exec, tmp_path: Path) -> Callable[..., Running]:
    """Start a shell script; return when it has said that it runs."""

    def run(script: str, *options: str, **popen: Any) -> Running:
        there = tmp_path / "there"
        there.mkdir(exist_ok=True)
        there.chmod(0o777)
        running = start(*options, "--", "sh", "-c", f"{script.format(ready=f'echo $$ >{there}/pid')}", **popen)
        harness.until(lambda: (there / "pid").exists() and (there / "pid").read_text().strip(), "the command's start")
        return running

    return run


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_is_passed_on(started: Callable[..., Running], signum: signal.Signals) -> None:
    """Without a terminal SIGINT reaches cpost alone."""
    name = signum.name.removeprefix("SIG")
    running = started(f"trap 'echo got it; exit 7' {name}; {{ready}}; while :; do sleep 0.05; done")
    running.signal(signum)
    done = running.wait().ended(7)
    assert done.out == "got it\n"
    assert "No recommendation" in done.err or "none" in done.err


def test_a_second_signal_kills(started: Callable[..., Running]) -> None:
    running = started("trap '' TERM; {ready}; while :; do sleep 0.05; done", start_with=harness.ENDLESS_GRACE)
    running.signal(signal.SIGTERM)
    time.sleep(0.3)
    assert running.process.poll() is None
    running.signal(signal.SIGTERM)
    running.wait().ended(137)


def test_time_is_up(started: Callable[..., Running]) -> None:
    done = started("trap 'exit 0' TERM; {ready}; while :; do sleep 0.05; done", "--timeout", "1s").wait().ended(4)
    assert "the run is partial, it was stopped by the time-out of 1.000 s" in done.err


def test_ctrl_c_reaches_the_command_once(cpost: Cpost, tmp_path: Path, way: str) -> None:
    """On a terminal; the command answers it and goes on, and so does cpost."""
    if way == "tree":
        os.chown(cpost.temp, NOBODY, NOBODY)
    script = "trap 'echo interrupt' INT; echo ready; sleep 1.5; echo awake; sleep 1; exit 3"
    words = [*(AS_NOBODY if way == "tree" else ()), str(harness.CPOST), "exec", "-q", "--", "sh", "-c", script]
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe(words[0], words, {**cpost.environment(), **NO_ENGINE})
    text = b""
    with contextlib.suppress(OSError):  # EIO: the terminal's other side is closed
        while part := os.read(terminal, 4096):
            if b"ready" in part:
                os.write(terminal, b"\x03")
            text += part
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
    assert text.count(b"interrupt\r\n") == 1
    assert b"awake" in text
    assert b"(Interrupted)" in text


@pytest.mark.parametrize(("trap", "code"), [("-", 130), ("exit 0", 0)])
@pytest.mark.parametrize("way", ["group"], indirect=True)
def test_a_command_that_ends_at_ctrl_c_was_interrupted(
    cpost: Cpost, tmp_path: Path, way: str, trap: str, code: int
) -> None:
    """On a terminal, where it may be over before cpost has looked for a signal."""
    script = f"trap '{trap}' INT; echo ready; while :; do sleep 0.01; done"
    options = ["exec", "-q", "--metrics_dir", str(tmp_path / "m"), "--", "sh", "-c", script]
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe(str(harness.CPOST), [str(harness.CPOST), *options], {**cpost.environment(), **NO_ENGINE})
    with contextlib.suppress(OSError):  # EIO: the terminal's other side is closed
        while part := os.read(terminal, 4096):
            if b"ready" in part:
                os.write(terminal, b"\x03")
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == code
    record = harness.load_run(tmp_path / "m")
    assert (record["complete"], record["stopped_by"]) == (False, "SIGINT")
    assert record["operators"][0]["result"]["outcome"] == "interrupted"
    assert record["operators"][0]["recommendation"]["status"] == "refused"


# ---------------------------------------------------------------- nothing is left


@pytest.fixture
def family(started: Callable[..., Running], tmp_path: Path) -> Iterator[tuple[Running, list[int]]]:
    """A command with a child in a session of its own, and the ids of both."""
    running = started(f"setsid sh -c 'echo $$ >{tmp_path}/there/child; sleep 100000' & {{ready}}; sleep 100000")
    child = tmp_path / "there/child"
    harness.until(lambda: child.exists() and child.read_text().strip(), "the child's start")
    pids = [int(path.read_text()) for path in (tmp_path / "there/pid", child)]
    assert all(map(alive, pids))
    yield running, pids
    for pid in filter(alive, pids):
        os.kill(pid, signal.SIGKILL)


def test_kill_9_leaves_nothing(family: tuple[Running, list[int]]) -> None:
    running, pids = family
    running.signal(signal.SIGKILL)
    harness.until(lambda: not any(map(alive, pids)), "the end of the command's processes", within_s=10)
    running.process.wait(10)
    # That no group, folder or guard is left is checked after every test.


def test_the_next_start_removes_what_a_killed_guard_could_not(
    family: tuple[Running, list[int]], start: Exec, way: str
) -> None:
    running, pids = family
    processes = running.guards()
    guards = [each for each in processes if "cpost.measure.guard" in " ".join(each.cmdline())]
    assert len(guards) == 1
    guards[0].suspend()  # else it would be quicker than the second kill
    running.process.kill()
    running.process.wait(10)
    harness.kill(guards[0])
    assert all(map(alive, pids))
    done = start("-v", "--", "true").wait().ended(0)
    assert not any(map(alive, pids))
    assert "leftover" in done.err


def test_sigterm_leaves_nothing(family: tuple[Running, list[int]]) -> None:
    running, pids = family
    running.signal(signal.SIGTERM)
    running.wait().ended(143)
    assert not any(map(alive, pids))


def test_a_full_disk_ends_the_command(cpost: Cpost, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "none", small], check=True)
    try:
        done = cpost("exec", "--metrics_dir", small / "m", "--period", "1ms", "--", "sleep", "100").ended(5)
        record = harness.load_run(small / "m")
    finally:
        subprocess.run(["umount", small], check=True)
    assert "disk full" in done.err
    assert (record["complete"], record["operators"]) == (False, [])
    assert "disk full" in record["stopped_by"]
