"""cpost is told to stop, or killed: nothing is left behind, and what is on disk can be read."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import pytest

from integration import harness
from integration.conftest import Operator, Pipeline
from integration.harness import Cpost, Done, Host, Running

POINTS = 8
AT_ONCE = 4  # simultaneous runs: the same number of points in less time, and runs do not get into each other's way

Start = Callable[[Path], Running]


@pytest.fixture
def start(cpost: Cpost, pipeline: Pipeline, op: Operator, payload: Path) -> Start:
    """Start a run of two short operators with results in a folder."""
    leave = 'echo x >/out/x; mkdir /out/locked; chmod 000 /out/locked; appetite "$@"'
    first = op("first", "sh", "-ec", leave, "-", "touch", "10", "sleep", "300", output=[{"path": "/out"}])
    second = op("second", "appetite", "burn", "250", "2", input=[{"path": "/in", "from": "first"}])
    path = pipeline(first, second)
    return lambda folder: cpost.start(path, payload, "--metrics_dir", folder)


_life_s: list[float] = []


@pytest.fixture
def life_s(start: Start, tmp_path: Path) -> float:
    """How long such runs take when nobody disturbs them; measured once."""
    if not _life_s:
        began = time.monotonic()
        for running in [start(tmp_path / f"life-{i}") for i in range(AT_ONCE)]:
            running.wait().ended(0)
        _life_s.append(time.monotonic() - began)
    return _life_s[0]


def points(signum: int, batch: int, life_s: float) -> list[float]:
    """Seeded points of time for one batch; all batches together cover the life of a run evenly."""
    chance = random.Random(signum)
    everywhere = [(i + chance.random()) / POINTS * life_s for i in range(POINTS)]
    return everywhere[batch :: POINTS // AT_ONCE]


def send_at(running: dict[float, Running], signum: int) -> None:
    """Send a signal to each run at its point of time, counted from now."""
    began = time.monotonic()
    for point, each in sorted(running.items()):
        time.sleep(max(0.0, began + point - time.monotonic()))
        each.signal(signum)


@pytest.mark.parametrize("batch", range(POINTS // AT_ONCE))
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_stop_at_any_point(start: Start, life_s: float, tmp_path: Path, signum: signal.Signals, batch: int) -> None:
    folders = {point: tmp_path / f"{point:.4f}" for point in points(signum, batch, life_s)}
    running = {point: start(folder) for point, folder in folders.items()}
    send_at(running, signum)
    ended = {point: each.wait() for point, each in running.items()}
    assert any(done.code != 0 for done in ended.values())
    for point, done in ended.items():
        check_stopped(done, folders[point], signum)
    # That nothing is left is checked after every test.


def check_stopped(done: Done, folder: Path, signum: signal.Signals) -> None:
    """Check the end and the files of a run that was sent a signal at some point."""
    killed, too_early, finished = done.code == -signal.SIGKILL, done.code == -signum, done.code == 0
    assert killed or too_early or finished or done.code == 128 + signum, done
    if done.code == 128 + signum:
        assert signum.name in done.err or "interrupted" in done.err
        assert "Traceback" not in done.text
    harness.check_csvs(folder, torn_allowed=killed)
    if (folder / "run.json").exists():
        check_record(folder, finished=finished)
    else:
        assert not finished


def check_record(folder: Path, *, finished: bool) -> None:
    record = harness.load_run(folder)
    outcomes = [each["result"]["outcome"] for each in record["operators"]]
    assert record["complete"] or not finished
    assert not record["complete"] or outcomes == ["completed", "completed"]


# ---------------------------------------------------------------- in the middle of the second of three operators


@pytest.fixture
def start_long(
    cpost: Cpost, pipeline: Pipeline, op: Operator, payload: Path, metrics: Path, host: Host, image: str
) -> Callable[..., Running]:
    """Start a run whose second operator sleeps; returns when it has done so for a while."""

    def start(*verbs: str, start_with: Sequence[str] = ()) -> Running:
        definition = pipeline(
            op("first", "true"), op("second", "appetite", *verbs, "sleep", "60000"), op("third", "true")
        )
        # A session of its own, as a terminal's shell gives it: a signal to the group reaches all that is in it.
        running = cpost.start(definition, payload, "--metrics_dir", metrics, under=start_with, start_new_session=True)

        def second_runs() -> bool:
            found = host.live(image, running.process.pid)
            return bool(found) and found[0].attrs["Config"]["Cmd"][-1] == "60000"

        harness.until(second_runs, "the second operator")
        time.sleep(1.5)
        return running

    return start


@pytest.fixture
def in_the_middle(start_long: Callable[..., Running]) -> Running:
    """A run in the middle of its second operator."""
    return start_long()


@pytest.mark.parametrize("signum", [pytest.param(signal.SIGINT, marks=pytest.mark.v2), signal.SIGTERM])
def test_what_is_known_so_far_is_kept(in_the_middle: Running, metrics: Path, signum: signal.Signals) -> None:
    os.killpg(in_the_middle.process.pid, signum)
    done = in_the_middle.wait().ended(128 + signum)
    assert signum.name in done.err
    assert "partial" in done.err
    assert "second" in done.text
    record = harness.load_run(metrics)
    outcomes = {each["operator"]: each["result"]["outcome"] for each in record["operators"]}
    assert outcomes["first"] == "completed"
    assert outcomes["second"] == "interrupted"
    assert outcomes.get("third", "not_run") == "not_run"
    assert record["complete"] is False
    assert {row["run_complete"] for row in harness.rows_of(metrics / "summary.csv")} == {"no"}
    assert record["stopped_by"]
    assert len(harness.rows_of(metrics / "second_final_result.csv")) > 50
    summary = harness.rows_of(metrics / "summary.csv")
    assert {"first", "second"} <= {row["operator"] for row in summary}
    assert "interrupted" in {cell for row in summary for cell in row.values()}


def test_second_signal_skips_the_grace(start_long: Callable[..., Running]) -> None:
    running = start_long("ignore-term", start_with=harness.ENDLESS_GRACE)
    running.signal(signal.SIGINT)
    time.sleep(0.3)
    assert running.process.poll() is None
    running.signal(signal.SIGINT)
    running.wait().ended(130)


@pytest.mark.parametrize("signum", [pytest.param(signal.SIGKILL, marks=pytest.mark.podman), signal.SIGHUP])
def test_killed_run_leaves_its_rows(in_the_middle: Running, metrics: Path, signum: signal.Signals) -> None:
    in_the_middle.signal(signum)
    done = in_the_middle.wait()
    assert done.code in (-signum, 128 + signum)
    rows = harness.rows_of(metrics / "second_final_result.csv", torn_allowed=True)
    assert len(rows) > 30  # of 150; the last second may be lost
    if (metrics / "run.json").exists():
        assert harness.load_run(metrics)["complete"] is False


def test_sampling_goes_on_while_cpost_stands_still(in_the_middle: Running, metrics: Path) -> None:
    in_the_middle.signal(signal.SIGSTOP)
    time.sleep(1)
    in_the_middle.signal(signal.SIGCONT)
    time.sleep(0.3)
    in_the_middle.signal(signal.SIGTERM)
    in_the_middle.wait().ended(143)
    (second,) = (each for each in harness.load_run(metrics)["operators"] if each["operator"] == "second")
    sampling = second["result"]["sampling"]
    assert sampling["longest_gap_ns"] < 1e9
    assert sampling["ticks_due"] > 100
    assert len(harness.rows_of(metrics / second["series_file"])) == sampling["samples"]


def test_a_frozen_sampler_shows_as_a_gap(in_the_middle: Running, metrics: Path) -> None:
    (sampler,) = (each for each in in_the_middle.guards() if any("sampling" in word for word in each.cmdline()))
    sampler.suspend()
    time.sleep(2)
    sampler.resume()
    time.sleep(0.3)
    in_the_middle.signal(signal.SIGTERM)
    done = in_the_middle.wait().ended(143)
    (second,) = (each for each in harness.load_run(metrics)["operators"] if each["operator"] == "second")
    assert second["result"]["sampling"]["longest_gap_ns"] > 1.8e9
    assert second["result"]["sampling"]["ticks_missed"] > 150
    assert "the sampler was held up" in done.err


@pytest.mark.podman
def test_guard_ends_with_the_run(in_the_middle: Running) -> None:
    guards = in_the_middle.guards()
    assert guards
    in_the_middle.signal(signal.SIGTERM)
    in_the_middle.wait().ended(143)
    assert psutil.wait_procs(guards, timeout=5)[1] == []
