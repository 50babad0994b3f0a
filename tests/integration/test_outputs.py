"""What the user gets: on the terminal, in a pipe, in the folder of metrics, as an exit code."""

from __future__ import annotations

import datetime
import json
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from integration import harness
from integration.conftest import Operator, Pipeline
from integration.harness import CPOST, Cpost, Done, Host

Measure = Callable[..., Done]

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


@pytest.fixture
def two(pipeline: Pipeline, op: Operator) -> Path:
    """A pipeline of two short operators."""
    return pipeline(op("alpha", "appetite", "touch", "30", "sleep", "300"), op("beta", "appetite", "burn", "300", "1"))


# ---------------------------------------------------------------- the terminal's shape


@pytest.mark.parametrize("verb", [["run"], []])
def test_shape_of_the_first_cpost(cpost: Cpost, two: Path, payload: Path, metrics: Path, verb: list[str]) -> None:
    done = cpost(*verb, two, payload, "--metrics_dir", metrics).ended(0)
    for name in ("alpha", "beta"):
        assert re.search(rf"_{{3,}}Executing Operator {name}_{{3,}}", done.out)
        assert done.out.count(name) >= 3
    assert done.out.count("Running operator") == 2
    assert len(re.findall(r"\b[0-9a-f]{12,64}\b", done.out)) >= 2, "the container's id"
    for heading in ("Metric", "Average", "Maximum", "Resource", "CPU", "Memory"):
        assert heading in done.out
    assert "(Non-zero exitcode)" not in done.out
    assert "256" in done.out
    assert not re.search(r"\x1b|\r", done.text), "control characters in a pipe"


def test_quiet_and_verbose(cpost: Cpost, pipeline: Pipeline, op: Operator, payload: Path, tmp_path: Path) -> None:
    definition = pipeline(op("a", "true"))
    quiet, plain, verbose = (
        cpost(definition, payload, "--metrics_dir", tmp_path / f"metrics{option}", *([option] if option else [])).ended(
            0
        )
        for option in ("--quiet", "", "-v")
    )
    assert 0 < len(quiet.out) < len(plain.out) / 2
    assert len(verbose.out) > len(plain.out) + 100


def test_json_alone_on_stdout(cpost: Cpost, two: Path, payload: Path, metrics: Path) -> None:
    done = cpost(two, payload, "--json", "--metrics_dir", metrics).ended(0)
    assert done.record == harness.load_run(metrics)
    assert "Running operator" in done.err


def test_without_metrics_dir_the_series_go_to_stdout(cpost: Cpost, two: Path, payload: Path) -> None:
    done = cpost(two, payload).ended(0)
    assert "cpu_percent" in done.out
    numbers = [line for line in done.out.splitlines() if len(re.findall(r"\d+\.\d+", line)) >= 2]
    assert len(numbers) >= 40, "a pipe gets the whole series"


def test_closed_pipe_is_quiet(cpost: Cpost, two: Path, payload: Path, metrics: Path) -> None:
    cpost_command = f"{CPOST} {two} {payload} --metrics_dir {metrics}"
    shell = ["bash", "-c", f"{cpost_command} | head -1; exit ${{PIPESTATUS[0]}}"]
    done = subprocess.run(shell, capture_output=True, text=True, timeout=harness.PATIENCE_S, env=cpost.environment())
    assert done.stdout.count("\n") == 1
    assert all(line.startswith("cpost: warning: ") for line in done.stderr.splitlines()), done.stderr
    assert done.returncode == 0
    assert harness.load_run(metrics)["complete"] is True


# ---------------------------------------------------------------- the folder of metrics


@pytest.fixture
def measured(cpost: Cpost, two: Path, payload: Path, tmp_path: Path) -> Path:
    """A folder of metrics that was not there before, nor its parent."""
    folder = tmp_path / "not" / "there" / "yet"
    cpost(two, payload, "--metrics-dir", folder).ended(0)
    return folder


def test_folder_of_metrics(measured: Path) -> None:
    names = {"alpha_final_result.csv", "beta_final_result.csv", "summary.csv", "run.json", "report.html"}
    assert {path.name for path in measured.iterdir()} == names
    for name in ("alpha", "beta"):
        check_series(measured / f"{name}_final_result.csv")
    alpha = harness.rows_of(measured / "alpha_final_result.csv")
    assert max(float(row["memory"]) for row in alpha) == pytest.approx(31, abs=3)
    check_summary(measured)


def check_series(path: Path) -> None:
    assert path.read_text().startswith("timestamp,cpu_percent,memory,")
    rows = harness.rows_of(path)
    assert len(rows) >= 20
    percents = [row["cpu_percent"] for row in rows]
    assert all(0 <= float(each) < 100_000 for each in percents if each), "empty: no whole window has passed yet"
    assert percents[-1]
    assert abs(float(rows[0]["timestamp"]) - time.time()) < 60
    timestamps = [float(row["timestamp"]) for row in rows]
    assert timestamps == sorted(timestamps)
    assert timestamps[-1] - timestamps[0] > 0.2


def check_summary(folder: Path) -> None:
    rows = harness.rows_of(folder / "summary.csv")
    record = harness.load_run(folder)
    assert [row["operator"] for row in rows] == [each["operator"] for each in record["operators"]] == ["alpha", "beta"]
    for cell in (cell for row in rows for cell in row.values()):
        assert not cell.startswith(FORMULA_STARTS) or re.fullmatch(r"-?\d+(\.\d+)?", cell)


def test_record_is_whole(measured: Path, client: docker.DockerClient, image: str, two: Path) -> None:
    record = harness.load_run(measured)
    assert isinstance(record["schema_version"], int)
    assert record["complete"] is True
    assert record["pipeline_name"] == "tested"
    assert Path(record["pipeline_file"]).name == two.name
    assert re.fullmatch(r"(sha256:)?[0-9a-f]{64}", record["pipeline_digest"])
    assert record["host"]["engine_version"] == client.version()["Version"]
    assert record["host"]["cpus"] >= 1
    assert record["host"]["memory_bytes"] > 10**8
    assert record["options"]["period_ns"] == 10_000_000
    for key in ("created_at", "ended_at"):
        assert datetime.datetime.fromisoformat(record[key].replace("Z", "+00:00")).tzinfo is not None
    for each in record["operators"]:
        check_operator(each, client.images.get(image).id, image)


def check_operator(found: dict[str, Any], image_id: str | None, image: str) -> None:
    assert found["image"] == image
    assert found["result"]["image_id"] == image_id
    assert re.fullmatch(r"[0-9a-f]{64}", found["result"]["container_id"])
    assert found["recommendation"]["reasons"]
    assert found["series_file"] == f"{found['operator']}_final_result.csv"


def test_declared_requests_are_kept(measure: Measure, op: Operator) -> None:
    done = measure(op("a", "true", requests={"cpu": 3, "memory": 4096})).ended(0)
    assert done.operator("a")["declared"]["cpu_millicores"] == 3000
    assert done.operator("a")["declared"]["memory_bytes"] in (4096 * 10**6, 4096 * 2**20)


def test_result_is_not_overwritten_unasked(
    cpost: Cpost, two: Path, payload: Path, measured: Path, host: Host, image: str
) -> None:
    first = {path.name: path.read_bytes() for path in measured.iterdir()}
    since = time.time()
    refused = cpost(two, payload, "--metrics_dir", measured).ended(2)
    assert "--overwrite" in refused.err
    assert host.created_since(since, image) == []
    assert {path.name: path.read_bytes() for path in measured.iterdir()} == first
    cpost(two, payload, "--metrics_dir", measured, "--overwrite").ended(0)
    assert harness.load_run(measured)["run_id"] != json.loads(first["run.json"])["run_id"]


def test_somebody_elses_files_do_not_matter(cpost: Cpost, two: Path, payload: Path, metrics: Path) -> None:
    metrics.mkdir()
    (metrics / "notes.txt").write_text("mine\n")
    cpost(two, payload, "--metrics_dir", metrics).ended(0)
    assert (metrics / "notes.txt").read_text() == "mine\n"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder that holds 160 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160k", "cpost-test", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_terminal_that_takes_nothing(cpost: Cpost, two: Path, payload: Path, metrics: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = cpost.start(two, payload, "--metrics_dir", metrics, stdout=full).wait().ended(5)
    assert "cpost: error: the output could not be written: No space left on device\n  what to do: " in done.err
    assert harness.load_run(metrics)["complete"] is True


@pytest.mark.parametrize("option", ["--metrics_dir", "--outputs_dir"])
def test_payload_is_no_place_for_results(cpost: Cpost, two: Path, payload: Path, option: str) -> None:
    done = cpost(two, payload, option, payload / "results").ended(2)
    assert "input folder" in done.err
    assert not (payload / "results").exists()


def test_two_runs_do_not_share_a_folder(
    cpost: Cpost, pipeline: Pipeline, op: Operator, payload: Path, metrics: Path, host: Host, image: str
) -> None:
    first = cpost.start(pipeline(op("long", "sleep", "60")), payload, "--metrics_dir", metrics)
    harness.until(lambda: host.live(image, first.process.pid), "the operator's container")
    done = cpost(pipeline(op("other", "true")), payload, "--metrics_dir", metrics, "--overwrite").ended(2)
    assert "another cpost is writing to" in done.err
    first.signal(signal.SIGINT)
    first.wait().ended(130)


def test_full_disk(cpost: Cpost, pipeline: Pipeline, op: Operator, payload: Path, small_disk: Path) -> None:
    definition = pipeline(op("a", "appetite", "burn", "2500", "1"))
    done = cpost(definition, payload, "--metrics_dir", small_disk, "--period", "1ms").ended(5)
    assert "disk full" in done.err.lower()
    assert str(small_disk) in done.err
    assert len(harness.rows_of(small_disk / "a_final_result.csv", torn_allowed=True)) > 20


def test_a_full_work_folder_is_told_with_the_end_of_the_log(
    cpost: Cpost, pipeline: Pipeline, op: Operator, payload: Path, metrics: Path, small_disk: Path
) -> None:
    write = "dd if=/dev/zero of=/out/full bs=1k count=500"
    definition = pipeline(op("a", "sh", "-c", write, output=[{"path": "/out"}]))
    done = cpost(definition, payload, "--metrics_dir", metrics, "-q", env={"TMPDIR": str(small_disk)}).ended(1)
    assert f"cpost: warning: a: the disk at {small_disk}, which its output folders are on, is full: " in done.err
    assert "The last lines of the log of a:\n  | " in done.err
    assert "No space left on device" in done.err
    assert "of the log" not in done.out


# ---------------------------------------------------------------- before anything runs


def test_a_temporary_folder_that_is_not_there(cpost: Cpost, two: Path, payload: Path, metrics: Path) -> None:
    done = cpost(two, payload, "--metrics_dir", metrics, env={"TMPDIR": "/no/such"}).ended(5)
    assert done.err.endswith(
        "cpost: error: TMPDIR cannot be used: /no/such is no folder\n"
        "  what to do: name another folder, or unset TMPDIR\n"
    )
    assert not metrics.exists()


@pytest.mark.parametrize("address", ["unix:///no/such.sock", "tcp://127.0.0.1:1"])
def test_no_engine(cpost: Cpost, two: Path, payload: Path, address: str) -> None:
    done = cpost(two, payload, env={"DOCKER_HOST": address}).ended(5)
    assert done.out == ""
    lines = done.err.strip().splitlines()
    assert len(lines) == 2, done.err
    assert address in lines[0]


def test_missing_files(cpost: Cpost, two: Path, payload: Path, tmp_path: Path) -> None:
    cpost(tmp_path / "no.yaml", payload).ended(2)
    cpost(two, tmp_path / "nowhere").ended(2)
    cpost(two, two).ended(2)
    cpost(two).ended(2)


@pytest.mark.parametrize(
    "options",
    [
        ["--force", "maybe"],
        ["--period", "0"],
        ["--period", "often"],
        ["--window", "-1s"],
        ["--timeout", "0"],
        ["--memory_limit", "much"],
        ["--memory_limit", "1MB"],
        ["--policy", "guess"],
    ],
)
def test_impossible_options(cpost: Cpost, two: Path, payload: Path, options: list[str]) -> None:
    done = cpost(two, payload, *options).ended(2)
    assert options[0].replace("_", "-") in done.err.replace("_", "-")


def test_faulty_definition(cpost: Cpost, pipeline: Pipeline, op: Operator, payload: Path) -> None:
    text = harness.definition([op("a", "true", input=[{"path": "/in", "from": "ghost"}]), op("A", "true")])
    done = cpost(pipeline(text=text), payload).ended(2)
    assert len(re.findall(r"pipeline\.yaml:\d+:\d+", done.err)) >= 2, "both faults"
    assert "ghost" in done.err


# ---------------------------------------------------------------- plan and doctor


def test_plan_runs_nothing(cpost: Cpost, two: Path, payload: Path, host: Host, image: str) -> None:
    since = time.time()
    done = cpost("plan", two, payload).ended(0)
    assert done.out.index("alpha") < done.out.index("beta")
    assert image in done.out
    cpost("plan", two).ended(0)
    assert host.created_since(since, image) == []


def test_plan_as_json(cpost: Cpost, pipeline: Pipeline, op: Operator, payload: Path, image: str) -> None:
    reader = op("reader", "true", input=[{"path": "/in", "from": "writer"}, {"path": "/payload"}])
    writer = op("writer", "true", output=[{"path": "/out"}], variables={"A": "1"})
    planned = json.loads(cpost("plan", pipeline(reader, writer), payload, "--json").ended(0).out)
    first, second = planned["steps"]
    assert (first["operator"], second["operator"]) == ("writer", "reader")
    assert first["image"] == image
    assert first["command"] == ["true"]
    assert ["A", "1"] in first["env"]
    mounts = {mount["target"]: mount for mount in second["mounts"]}
    assert mounts["/payload"]["source"] == str(payload)
    assert planned["pipeline"]["name"] == "tested"
    assert mounts["/payload"]["read_only"] is True
    assert "/in" in mounts


def test_plan_names_images_that_are_not_here(cpost: Cpost, pipeline: Pipeline, op: Operator) -> None:
    done = cpost("plan", pipeline(op("a", image="127.0.0.1:1/not/here:1"), op("b", "true"))).ended(0)
    assert "pull" in done.out.lower()
    assert "present" in done.out.lower()


def test_plan_of_a_cycle(cpost: Cpost, pipeline: Pipeline, op: Operator) -> None:
    a = op("a", "true", input=[{"path": "/in", "from": "b"}], output=[{"path": "/out"}])
    b = op("b", "true", input=[{"path": "/in", "from": "a"}], output=[{"path": "/out"}])
    done = cpost("plan", pipeline(a, b)).ended(2)
    assert "cycle" in done.err
    assert re.search(r"a -> b -> a|b -> a -> b", done.err.replace("→", "->"))


def test_doctor_is_content_here(cpost: Cpost, client: docker.DockerClient) -> None:
    done = cpost("doctor").ended(0)
    assert client.version()["Version"] in done.out
    for subject in ("Python", "engine", "cgroup", "swap", "gpu", "disk"):
        assert subject.lower() in done.out.lower()


def test_doctor_without_an_engine(cpost: Cpost) -> None:
    done = cpost("doctor", env={"DOCKER_HOST": "unix:///no/such.sock"}).ended(5)
    assert "unix:///no/such.sock" in done.text
