"""GPUs beside real operators: the real pynvml, and a stand-in for the driver that lists the containers' processes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

import fake_nvml
from integration import harness
from integration.conftest import Operator, Pipeline
from integration.harness import Cpost, Done, Record

MB = 10**6
A100 = "device GPU-a 40000 500 Fake A100"
T4 = "device GPU-b 16000 0 T4"
NAME = f"gpu-{os.getpid()}"  # the processes that hold GPU memory are called so: nobody else's are
WORK = f"cp /bin/appetite /tmp/{NAME}; exec /tmp/{NAME}"
Sized = Callable[..., Done]


@pytest.fixture
def driver(tmp_path: Path, nvml_library: Path) -> Callable[..., dict[str, str]]:
    """Variables with which cpost sees GPUs that say what a script says."""

    def say(*lines: str) -> dict[str, str]:
        script = tmp_path / "nvml"
        fake_nvml.write(script, *lines)
        return {"LD_LIBRARY_PATH": str(nvml_library.parent), fake_nvml.VARIABLE: str(script)}

    return say


Driver = Callable[..., dict[str, str]]


@pytest.fixture
def size(cpost: Cpost, pipeline: Pipeline, payload: Path, metrics: Path) -> Sized:
    """Run these operators where the driver is as said."""

    def run(env: dict[str, str], *operators: Record, options: tuple[str, ...] = ()) -> Done:
        words = ("run", pipeline(*operators), payload, "--json", "--metrics_dir", metrics, *options)
        return cpost(*words, env=env)

    return run


@pytest.fixture
def worker(op: Operator) -> Callable[..., Record]:
    """An operator whose process the driver lists."""
    return lambda name, *verbs, **fields: op(name, "sh", "-c", " ".join((WORK, *verbs)), **fields)


Worker = Callable[..., Record]


def column(folder: Path, operator: str, name: str) -> list[str]:
    return [row[name] for row in harness.rows_of(folder / f"{operator}_final_result.csv")]


def table_rows(done: Done, metric: str) -> list[list[str]]:
    """The cells of the rows of this metric in all tables shown: metric, average, maximum, resource."""
    rows = ([cell.strip() for cell in line.strip("|").split("|")][-4:] for line in done.err.splitlines() if "|" in line)
    return [row for row in rows if row[0] == metric]


def test_an_operator_s_own_use_is_told_apart_from_a_neighbour_s(
    size: Sized, driver: Driver, worker: Worker, op: Operator, metrics: Path
) -> None:
    env = driver(
        "driver 550.54",
        A100,
        T4,
        f"process 0 {os.getpid()} 1000",
        f"process 0 {NAME} 300 0 700",
        f"process 0 {NAME} 100 700 99999",
        "busy 0 60",
        "power 0 250000",
        "clock 0 1410",
    )
    done = size(env, worker("user", "sleep", "1500"), op("bystander", "sleep", "0.5")).ended(0)

    host = done.record["host"]
    assert [(gpu["uuid"], gpu["name"], gpu["memory_bytes"]) for gpu in host["gpus"]] == [
        ("GPU-a", "Fake A100", 40_000 * MB),
        ("GPU-b", "T4", 16_000 * MB),
    ]
    assert host["gpu_driver"] == "550.54"
    user, other = done.operator("user")["usage"]["gpus"]
    assert (user["used"], user["memory_source"], user["memory_peak_bytes"]) == (True, "processes", 300 * MB)
    assert 100 * MB < user["memory_average_bytes"] < 300 * MB
    assert (user["baseline_bytes"], user["device_peak_bytes"]) == (1500 * MB, 1800 * MB)
    assert (user["busy_average_pct"], user["busy_maximum_pct"]) == (60, 60)
    assert (user["power_average_mw"], user["sm_clock_average_mhz"]) == (250_000, 1410)
    assert (user["shared"], user["preallocated"]) == (True, False)
    assert (other["used"], other["memory_peak_bytes"], other["shared"]) == (False, 0, False)
    assert any("other processes were on it" in each for each in done.operator("user")["result"]["warnings"])
    assert done.operator("user")["recommendation"]["requests"]["gpu_count"] == 1

    bystander = done.operator("bystander")["usage"]["gpus"]
    assert [(gpu["used"], gpu["memory_peak_bytes"]) for gpu in bystander] == [(False, 0), (False, 0)]
    assert done.operator("bystander")["recommendation"]["requests"]["gpu_count"] is None

    in_use = ["GPU", "60.000 %", "60.000 %", "gpu: 1"]
    assert table_rows(done, "GPU") == [in_use, ["GPU", "-", "-", "-"], in_use, ["GPU", "-", "-", "-"]]
    assert {row[2] for row in table_rows(done, "GPU memory")} == {"300.000 MB", "0.000 MB"}

    own = column(metrics, "user", "gpu0_own_memory_bytes")
    looks = [cell for cell in own if cell]
    assert {"300000000", "100000000"} <= set(looks) <= {"0", "300000000", "100000000"}
    assert 2 < len(looks) < len(own) / 2  # a row has figures only where a look came since the row before
    assert {"60", ""} == set(column(metrics, "user", "gpu0_util_percent"))
    assert set(column(metrics, "user", "gpu0_power_mw")) == {"250000", ""}
    assert set(column(metrics, "user", "gpu1_own_memory_bytes")) == {"0", ""}
    (summary, _) = harness.rows_of(metrics / "summary.csv")
    assert (summary["gpus_used"], summary["gpu_average_percent"], summary["gpu_memory_peak_mb"]) == ("1", "60", "300")
    harness.check_csvs(metrics)


def test_an_operator_and_its_server_are_told_apart(
    size: Sized, driver: Driver, worker: Worker, op: Operator, image: str, metrics: Path
) -> None:
    serves = f"cp /bin/appetite /tmp/srv{NAME}; exec /tmp/srv{NAME} sleep 60000"
    env = driver(A100, T4, f"process 0 {NAME} 300", f"process 0 srv{NAME} 700", "busy 0 60")
    server = harness.service("server", "sh", "-c", serves, image=image)
    done = size(env, worker("user", "sleep", "1200", services=[server]), worker("alone", "sleep", "400")).ended(0)

    user, served = done.operator("user"), done.operator("user")["servers"][0]
    memory = [each["usage"]["gpus"][0]["memory_peak_bytes"] for each in (user, served)]
    assert memory == [300 * MB, 700 * MB]
    for record in (user, served):
        gpu, other = record["usage"]["gpus"]
        assert (gpu["used"], gpu["memory_source"]) == (True, "processes")
        assert (gpu["accompanied"], gpu["companions"], gpu["shared"]) == (True, 1, False)
        assert (other["used"], other["accompanied"], other["shared"]) == (False, False, False)
        assert record["recommendation"]["requests"]["gpu_count"] == 1
        assert not [each for each in record["result"]["warnings"] if "other processes" in each]
    assert served["load"]["gpus"][0]["memory_peak_bytes"] == 700 * MB
    alone = done.operator("alone")["usage"]["gpus"][0]
    assert (alone["memory_peak_bytes"], alone["accompanied"], alone["companions"]) == (300 * MB, False, 0)

    assert "700000000" in column(metrics, "user__server", "gpu0_own_memory_bytes")
    assert "1000000000" not in column(metrics, "user", "gpu0_own_memory_bytes")
    assert table_rows(done, "server: GPU memory")[0][2] == "700.000 MB"
    harness.check_csvs(metrics)


def test_a_process_that_the_driver_does_not_list_is_measured_by_the_device(
    size: Sized, driver: Driver, worker: Worker
) -> None:
    done = size(driver(A100, f"hidden 0 {NAME} 700"), worker("user", "sleep", "500")).ended(0)
    (gpu,) = done.operator("user")["usage"]["gpus"]
    assert (gpu["used"], gpu["memory_source"], gpu["memory_peak_bytes"]) == (True, "device", 700 * MB)
    assert any("less what was in use before" in each for each in done.operator("user")["result"]["warnings"])


def test_memory_reserved_in_advance_is_marked(size: Sized, driver: Driver, worker: Worker) -> None:
    done = size(driver(A100, f"process 0 {NAME} 38000"), worker("user", "sleep", "2500")).ended(0)
    assert done.operator("user")["usage"]["gpus"][0]["preallocated"] is True
    assert "taken at once and kept" in done.err


def test_of_an_instance_utilisation_is_not_available(
    size: Sized, driver: Driver, worker: Worker, metrics: Path
) -> None:
    env = driver(A100, "mig MIG-1 5000 10 MIG 1g.5gb", "mig MIG-2 5000 10 MIG 1g.5gb", f"process 1 {NAME} 300")
    done = size(env, worker("user", "sleep", "500")).ended(0)
    assert [(gpu["uuid"], gpu["parent_uuid"]) for gpu in done.record["host"]["gpus"]] == [
        ("MIG-1", "GPU-a"),
        ("MIG-2", "GPU-a"),
    ]
    gpu = done.operator("user")["usage"]["gpus"][1]
    assert (gpu["memory_peak_bytes"], gpu["busy_average_pct"]) == (300 * MB, None)
    assert table_rows(done, "GPU")[0] == ["GPU", "not available", "not available", "gpu: 1"]
    assert set(column(metrics, "user", "gpu1_util_percent")) == {""}
    assert "300000000" in column(metrics, "user", "gpu1_own_memory_bytes")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("nvmlDeviceGetPowerUsage 15 5", "does not answer any more: GPU is lost"),
        ("nvmlDeviceGetPowerUsage 3 5", "power cannot be read: Not Supported"),
        ("nvmlDeviceGetMemoryInfo_v2 999 5", "memory cannot be read: Unknown Error"),
        ("nvmlDeviceGetComputeRunningProcesses_v3 4 5", "the list of processes cannot be read: Insufficient Perm"),
        ("nvmlDeviceGetClockInfo 77 5", "the SM clock cannot be read: an error that only the library knows"),
    ],
)
def test_a_failing_driver_is_one_warning_and_cpu_rows_go_on(
    size: Sized, driver: Driver, worker: Worker, metrics: Path, error: str, words: str
) -> None:
    env = driver(A100, f"process 0 {NAME} 300", f"error {error}")
    done = size(env, worker("user", "burn", "600", "1")).ended(0)
    warnings = done.operator("user")["result"]["warnings"]
    assert len([each for each in warnings if words in each]) == 1
    assert done.operator("user")["result"]["totals"]["cpu_us"] > 550_000
    assert all(column(metrics, "user", "cpu_us"))


def test_a_driver_that_hangs_holds_up_neither_sampling_nor_the_end(size: Sized, driver: Driver, worker: Worker) -> None:
    env = driver(A100, f"process 0 {NAME} 300", "hang nvmlDeviceGetMemoryInfo_v2 30000 3")
    done = size(env, worker("user", "sleep", "1000")).ended(0)
    result = done.operator("user")["result"]
    assert [each for each in result["warnings"] if "did not answer at the end of user" in each]
    assert result["sampling"]["longest_gap_ns"] < 5 * 10**9
    assert result["sampling"]["samples"] > 20


# ---------------------------------------------------------------- an operator that asks for one


def no_driver(tmp_path: Path) -> dict[str, str]:
    """Variables with which cpost sees no driver, whatever the host has."""
    (tmp_path / fake_nvml.SONAME).write_bytes(b"no library")
    return {"LD_LIBRARY_PATH": str(tmp_path)}


def test_a_gpu_that_is_not_there_ends_it_before_anything_is_pulled(size: Sized, op: Operator, tmp_path: Path) -> None:
    asks = op("user", "true", image="localhost:1/not-there:1", requests={"gpu": 1})
    done = size(no_driver(tmp_path), asks).ended(5)
    assert "operator user asks for a GPU" in done.err
    assert "no NVIDIA driver" in done.err
    assert "--no_gpu" in done.err
    assert "Pulling" not in done.err


def test_more_gpus_than_there_are_end_it_as_well(size: Sized, op: Operator, driver: Driver) -> None:
    done = size(driver(A100), op("user", "true", requests={"gpu": 2})).ended(5)
    assert "asks for gpu: 2, and this host has 1" in done.err


def test_an_engine_that_cannot_hand_out_gpus_is_said(size: Sized, op: Operator, driver: Driver) -> None:
    done = size(driver(A100), op("user", "true", requests={"gpu": 1})).ended(5)
    assert "container toolkit" in done.err


@pytest.mark.parametrize("option", ["--no_gpu", "--no-gpu"])
def test_without_a_gpu_it_runs_if_told_so(
    size: Sized, op: Operator, tmp_path: Path, metrics: Path, option: str
) -> None:
    asks = op("user", "appetite", "burn", "100", "1", requests={"gpu": 1})
    done = size(no_driver(tmp_path), asks, options=(option,)).ended(0)
    said = "user asks for gpu: 1 and runs without (--no_gpu)"
    assert f"cpost: warning: {said}" in done.err
    assert said in done.record["warnings"]
    assert done.record["options"]["no_gpu"] is True
    assert done.record["host"]["gpus"] == []
    advice = done.operator("user")["recommendation"]
    assert advice["requests"]["gpu_count"] == 1
    assert advice["reasons"][-1] == "gpu: as declared, it was run without any"
    assert table_rows(done, "CPU")
    assert not table_rows(done, "GPU")
    assert not [name for name in harness.rows_of(metrics / "user_final_result.csv")[0] if "gpu" in name]


# ---------------------------------------------------------------- doctor


def test_the_doctor_names_the_gpus(cpost: Cpost, driver: Driver) -> None:
    env = driver("driver 550.54", A100, T4)
    text = cpost("doctor", env=env).out
    assert "2, driver 550.54: Fake A100 (GPU-a, 38146 MiB); T4 (GPU-b, 15258 MiB)" in text
