"""The engine's containers cannot be seen from where cpost runs: its own statistics stand in."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from integration import harness
from integration.conftest import Operator, Pipeline
from integration.harness import Cpost, Done, Record

MB = 10**6
OTHER_PROCESSES = ("unshare", "--pid", "--fork", "--mount-proc")
OTHER_HOST = ("unshare", "--uts", "sh", "-c", 'hostname elsewhere; exec "$0" "$@"')


@pytest.fixture
def forwarded() -> Iterator[str]:
    """A TCP address that leads to the engine."""
    engine = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")
    listener = socket.create_server(("127.0.0.1", 0))
    opened: list[socket.socket] = [listener]
    threads: list[threading.Thread] = []

    def start(work: Callable[..., None], *sockets: socket.socket) -> None:
        threads.append(threading.Thread(target=work, args=sockets))
        threads[-1].start()

    def accept() -> None:
        with contextlib.suppress(OSError):  # the listener is shut
            while True:
                near, _ = listener.accept()
                far = socket.socket(socket.AF_UNIX)
                far.connect(engine)
                opened.extend((near, far))
                start(pump, near, far)
                start(pump, far, near)

    def pump(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    start(accept)
    yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"
    for each in opened:
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
    for thread in threads:
        thread.join()
    for each in opened:
        each.close()


@pytest.fixture(params=["found out when the container runs", "known beforehand"])
def run(request: pytest.FixtureRequest, cpost: Cpost, payload: Path, forwarded: str) -> Callable[..., Done]:
    """Run a definition where the containers' counters cannot be read."""
    if request.param == "known beforehand":
        return lambda path, *options: cpost(
            "run", path, payload, *options, under=OTHER_HOST, env={"DOCKER_HOST": forwarded}
        )
    return lambda path, *options: cpost("run", path, payload, *options, under=OTHER_PROCESSES)


def check_measured(found: Record) -> None:
    """The appetite was 800 ms and 60 MB; it slept long enough for a sample after that."""
    result, usage = found["result"], found["usage"]
    totals = result["totals"]
    assert (result["outcome"], totals["source"]) == ("completed", "engine stats")
    assert 800_000 <= totals["cpu_us"] <= 1_000_000  # the container's start is in it
    assert 60 * MB <= totals["memory_peak_bytes"] <= 80 * MB
    assert 0 < totals["tail_ns"] < 2.5e9
    assert result["wall_ns"] >= 3.8e9
    assert result["sampling"]["samples"] in range(3, 20)
    assert (usage["window_ns"], usage["peaks_sampled"]) == (10**9, True)
    assert found["recommendation"]["status"] == "ok"
    assert any("one sample a second" in reason for reason in found["recommendation"]["reasons"])


def test_figures_are_sampled_and_say_so(
    run: Callable[..., Done], pipeline: Pipeline, op: Operator, metrics: Path
) -> None:
    appetite = ("appetite", "touch", "60", "burn", "800", "1", "sleep", "3000")
    done = run(pipeline(op("a", *appetite)), "--metrics_dir", metrics).ended(0)
    (found,) = harness.load_run(metrics)["operators"]
    check_measured(found)
    assert done.err.count("the engine's statistics stand in") == 1
    assert done.out.count(">= ") == 6, "CPU average, CPU maximum and memory maximum in two tables"
    rows = harness.rows_of(metrics / "a_final_result.csv")
    assert len(rows) == found["result"]["sampling"]["samples"]
    assert int(rows[-1]["cpu_us"]) == found["result"]["totals"]["cpu_us"]
    assert {row["memory_interval_peak_bytes"] + row["oom_kills"] + row["psi_cpu_some_us"] for row in rows} == {""}
    (summary,) = harness.rows_of(metrics / "summary.csv")
    assert (summary["source"], summary["startup_cpu_s"], summary["oom_kills"]) == ("engine stats", "", "")


def test_what_was_never_sampled_is_not_recommended(run: Callable[..., Done], pipeline: Pipeline, op: Operator) -> None:
    """It ends before the engine's first beat; where the host is slow, one beat may have been in time."""
    found = run(pipeline(op("a", "true")), "--json").ended(0).operator("a")
    assert found["result"]["outcome"] == "completed"
    read = found["result"]["totals"] is not None and found["usage"]["cpu_pct"]["maximum"] is not None
    assert found["recommendation"]["status"] == ("ok" if read else "refused")


def test_it_is_known_beforehand_where_the_address_says_so(cpost: Cpost, forwarded: str) -> None:
    done = cpost("doctor", under=OTHER_HOST, env={"DOCKER_HOST": forwarded}).ended(0)
    assert "the containers' counters cannot be read here (they run on " in done.out
    assert "one sample a second" in done.out
