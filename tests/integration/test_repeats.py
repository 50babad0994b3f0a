"""Operators that are run several times: fresh outputs, spreads, the worst repeat, and ends before the last one."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from docker.errors import APIError
from docker.models.containers import Container

from integration import harness
from integration.conftest import Operator, Pipeline
from integration.harness import Cpost, Done, Host, Record, Running

Measure = Callable[..., Done]

# Touches 20 MB more for each second that the host has been up, over and over again: no two runs need the same.
RESTLESS = "appetite touch $((20 * (1 + $(cut -d. -f1 /proc/uptime) % 15))) sleep 1100"
# Fails, or takes an hour, once the test has put a file with that name into the payload.
OBEDIENT = "[ ! -e /in/fail ]; [ ! -e /in/wait ] || sleep 3600; sleep 1"


@pytest.fixture
def obedient(cpost: Cpost, pipeline: Pipeline, op: Operator, payload: Path, metrics: Path) -> Callable[..., Running]:
    """Start a run of five repeats of an operator that does what the payload says, and of one more operator."""
    first = op("first", "sh", "-ec", OBEDIENT, input=[{"path": "/in"}], output=[{"path": "/out"}])
    second = op("second", "true", input=[{"path": "/in", "from": "first"}])

    def start(*options: str) -> Running:
        words = ("--repeat", "5", "--metrics_dir", metrics, *options)
        running = cpost.start(pipeline(first, second), payload, *words)
        harness.until((metrics / "first_repeat1.csv").exists, "the second repeat")
        return running

    return start


def peaks(record: Record) -> list[int]:
    return [each["usage"]["memory_bytes"]["maximum"] for each in record["repeats"]]


# ---------------------------------------------------------------- all runs end well


def test_a_steady_operator_run_four_times(
    cpost: Cpost, pipeline: Pipeline, op: Operator, payload: Path, metrics: Path
) -> None:
    definition = pipeline(op("calm", "appetite", "touch", "60", "sleep", "500"))
    done = cpost(definition, payload, "--repeat", "3", "--warmup", "1", "--metrics_dir", metrics).ended(0)
    record = harness.load_run(metrics)["operators"][0]
    runs = record["repeats"]
    assert [(each["kind"], each["number"], each["cold"]) for each in runs] == [
        ("warmup", 1, True),
        ("measured", 1, False),
        ("measured", 2, False),
        ("measured", 3, False),
    ]
    assert len({each["result"]["container_id"] for each in runs}) == 4
    names = ["calm_warmup1.csv", "calm_repeat1.csv", "calm_repeat2.csv", "calm_final_result.csv"]
    assert [each["series_file"] for each in runs] == names
    assert {path.name for path in metrics.iterdir()} == {*names, "summary.csv", "run.json", "report.html"}
    assert all(len(harness.rows_of(metrics / name)) > 20 for name in names)
    over = record["spreads"]["memory_peak_bytes"]
    assert 60e6 < over["minimum"] <= over["median"] <= over["maximum"] < 66e6
    assert not any("memory" in doubt["what"] for doubt in record["doubts"])
    assert re.search(r"^Warm-up 1 of 1 \(cold\): ", done.out, re.MULTILINE)
    assert re.search(r"^Repeat 3 of 3 \(warm\): ", done.out, re.MULTILINE)
    judged = cpost("check", metrics, definition, "--baseline", metrics).ended(0)
    assert judged.out.startswith("SKIPPED calm: declared: it declares nothing")
    assert judged.out.endswith("Gate passed: 6 checks, 5 passed, 1 skipped\n")
    assert re.search(r"Metric +\| +Minimum +\| +Median +\| +Maximum +\| +Spread", done.out)
    (row,) = harness.rows_of(metrics / "summary.csv")
    assert (row["repeats"], row["warmups"]) == ("3", "1")
    assert float(row["memory_peak_mb"]) == float(row["memory_peak_maximum_mb"])


def test_the_worst_repeat_decides(measure: Measure, op: Operator) -> None:
    done = measure(op("restless", "sh", "-ec", RESTLESS), options=("--repeat", "3")).ended(0)
    record = done.operator("restless")
    worst = max(peaks(record))
    assert len({round(peak / 1e7) for peak in peaks(record)}) == 3, "no two alike"
    assert record["usage"]["memory_bytes"]["maximum"] == worst
    wanted = -(-(worst + 100 * 10**6) // (256 * 10**6)) * 256 * 10**6
    assert record["recommendation"]["requests"]["memory_bytes"] == wanted
    decides = peaks(record).index(worst) + 1
    assert any(f"(repeat {decides} of 3)" in reason for reason in record["recommendation"]["reasons"])
    (doubt,) = (each for each in record["doubts"] if "memory peak" in each["what"])
    assert f"{doubt['what']}\n  what to do: {doubt['remedy']}\n" in done.err


def test_outputs_are_those_of_the_last_run_alone(measure: Measure, op: Operator, tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    write = '[ -z "$(ls /out)" ]; cp /etc/hostname /out/$(hostname); mkdir /out/locked; chmod 000 /out/locked'
    writer = op("writer", "sh", "-ec", write, output=[{"path": "/out"}])
    # The reader's runs all see the same: what the writer's last one left.
    reader = op("reader", "sh", "-ec", "ls -x /in; exit 7", input=[{"path": "/in", "from": "writer"}])
    done = measure(writer, reader, options=("--repeat", "3", "--outputs_dir", outputs)).ended(1)
    last = done.operator("writer")["repeats"][-1]["result"]["container_id"][:12]
    assert {path.name for path in (outputs / "writer").iterdir()} == {last, "locked"}
    assert last in done.operator("reader")["result"]["log_tail"][0]
    assert len(done.operator("reader")["repeats"]) == 1


def test_the_time_out_is_per_run(measure: Measure, op: Operator) -> None:
    done = measure(op("a", "sleep", "1"), options=("--repeat", "3", "--timeout", "2500ms")).ended(0)
    assert len(done.operator("a")["repeats"]) == 3


def test_metrics_of_every_run_go_to_stdout(cpost: Cpost, pipeline: Pipeline, op: Operator, payload: Path) -> None:
    done = cpost(pipeline(op("a", "sleep", "0.3")), payload, "--repeat", "2").ended(0)
    assert done.out.count("Operator a Metrics Data") == 2


def test_a_shorter_run_leaves_nothing_of_a_longer_one(
    cpost: Cpost, pipeline: Pipeline, op: Operator, payload: Path, metrics: Path
) -> None:
    definition = pipeline(op("a", "true"), op("a_repeat1", "true"))
    cpost(definition, payload, "--metrics_dir", metrics, "--repeat", "3").ended(0)
    for name in ("run.json", "summary.csv", "report.html", "a_final_result.csv", "a_repeat1_final_result.csv"):
        (metrics / name).unlink()
    refused = cpost(definition, payload, "--metrics_dir", metrics).ended(2)
    assert "a_repeat1.csv is there already" in refused.err
    cpost(definition, payload, "--metrics_dir", metrics, "--overwrite").ended(0)
    assert {path.name for path in metrics.glob("*.csv")} == {
        "summary.csv",
        "a_final_result.csv",
        "a_repeat1_final_result.csv",
    }


# ---------------------------------------------------------------- not all runs end well


@pytest.mark.parametrize("force", ["stop", "cont"])
def test_a_repeat_that_fails_is_the_last_and_refuses_for_all(
    obedient: Callable[..., Running], payload: Path, metrics: Path, force: str
) -> None:
    running = obedient("--force", force)
    (payload / "fail").touch()
    done = running.wait().ended(1)
    run = harness.load_run(metrics)
    first = run["operators"][0]
    count = len(first["repeats"])
    assert 2 <= count <= 3
    outcomes = [each["result"]["outcome"] for each in first["repeats"]]
    assert outcomes == ["completed"] * (count - 1) + ["failed"]
    assert first["recommendation"]["status"] == "refused"
    assert f"repeat {count} of 5: the operator failed" in first["recommendation"]["reasons"][0]
    assert f"No recommendation for first: repeat {count} of 5" in done.out
    assert first["series_file"] == "first_final_result.csv"
    assert run["complete"] is (force == "cont")
    if force == "cont":
        assert len(run["operators"][1]["repeats"]) == 5
        warned = [each["result"]["warnings"] for each in run["operators"][1]["repeats"]]
        assert all(any("what first left, which failed" in line for line in each) for each in warned)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_in_the_middle_of_a_repeat(
    obedient: Callable[..., Running], payload: Path, metrics: Path, host: Host, image: str, signum: signal.Signals
) -> None:
    running = obedient()
    (payload / "wait").touch()

    def waits() -> bool:
        words = (word for each in host.live(image, running.process.pid) for line in processes(each) for word in line)
        return any("3600" in word for word in words)

    harness.until(waits, "the second or third repeat, which waits")
    running.signal(signum)
    done = running.wait()
    run = harness.load_run(metrics)
    (first,) = run["operators"]
    killed = signum is signal.SIGKILL
    assert done.code == (-signum if killed else 128 + signum)
    outcomes = [each["result"]["outcome"] for each in first["repeats"]]
    ended = [path.name for path in sorted(metrics.glob("first_repeat*.csv"))]
    assert outcomes == ["completed"] * len(ended) + ([] if killed else ["interrupted"])
    assert [each["series_file"] for each in first["repeats"]][: len(ended)] == ended
    assert run["complete"] is False
    assert first["recommendation"]["status"] == "refused"
    for name in ended:
        assert len(harness.rows_of(metrics / name)) > 30
    harness.check_csvs(metrics, torn_allowed=killed)


def processes(container: Container) -> list[list[str]]:
    """What runs in a container; nothing where it is gone."""
    try:
        return container.top()["Processes"] or []
    except APIError:
        return []


def test_a_time_out_in_the_middle_of_repeats(obedient: Callable[..., Running], payload: Path, metrics: Path) -> None:
    running = obedient("--timeout", "3s")
    (payload / "wait").touch()
    running.wait().ended(4)
    (first,) = harness.load_run(metrics)["operators"]
    assert first["result"]["outcome"] == "timed_out"
    assert first["repeats"][0]["result"]["outcome"] == "completed"


def test_a_warm_up_that_fails_is_the_end(measure: Measure, op: Operator) -> None:
    done = measure(op("bad", "false"), op("next", "true"), options=("--warmup", "2", "--repeat", "3")).ended(1)
    (bad,) = done.record["operators"]
    assert [(each["kind"], each["result"]["outcome"]) for each in bad["repeats"]] == [("warmup", "failed")]
    assert bad["recommendation"]["reasons"][0].startswith("warm-up 1 of 2: the operator failed")
