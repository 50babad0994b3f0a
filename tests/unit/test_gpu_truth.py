"""The benchmark for a real GPU, as far as it can be tried without one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import fake_nvml

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu_truth.py"
MIB = 2**20
Truth = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def truth(tmp_path: Path, nvml_library: Path) -> Truth:
    """Run the benchmark with stand-ins for both of NVIDIA's libraries."""
    script = tmp_path / "nvml"
    fake_nvml.write(script, "driver 550", "device GPU-a 80000 500 Fake A100", f"process 0 {os.getpid()} 700")
    fake_nvml.compile_into(tmp_path, "cuda.c", "libcuda.so.1")
    paths = f"{nvml_library.parent}:{tmp_path}"

    def run(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "LD_LIBRARY_PATH": paths, fake_nvml.VARIABLE: str(script), **more}
        return subprocess.run([sys.executable, str(SCRIPT), *words], env=env, capture_output=True, text=True)

    return run


def test_the_rise_is_compared_with_what_was_stated(truth: Truth) -> None:
    done = truth("--sizes", "64", "1000", "--neighbour", "300", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["gpu"], found["uuid"], found["driver"]) == ("Fake A100", "GPU-a", "550")
    assert [each["size_bytes"] for each in found["sizes"]] == [64 * MIB, 1000 * MIB]
    for each in found["sizes"]:
        assert each["context_bytes"] == 100_000_000
        assert each["error_bytes"] == each["measured_bytes"] - each["size_bytes"]
        assert abs(each["error_bytes"]) <= 500_000  # the stand-in counts in whole MB


def test_an_error_above_the_aim_is_exit_code_1(truth: Truth) -> None:
    done = truth("--sizes", "64", FAKE_CUDA_EXCESS_MB="70")
    assert done.returncode == 1, done.stderr
    assert "+66." in done.stdout  # 70 MB in MiB


def test_no_gpu_is_said_with_exit_code_5(truth: Truth, tmp_path: Path) -> None:
    (tmp_path / fake_nvml.SONAME).write_bytes(b"no library")
    done = truth(LD_LIBRARY_PATH=str(tmp_path))
    assert (done.returncode, done.stdout) == (5, "")
    assert "no GPU to be seen here (no NVIDIA driver, " in done.stderr
    assert "what to do:" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--gpu", "1"], "has 1 GPU(s), and no number 1"),
        (["--sizes", "50000"], "cuMemAlloc_v2 failed with CUDA error 2"),
    ],
)
def test_what_cannot_be_measured_is_said(truth: Truth, words: list[str], said: str) -> None:
    done = truth(*words)
    assert done.returncode == 5
    assert said in done.stderr


def test_a_host_without_cuda_is_said(truth: Truth, nvml_library: Path) -> None:
    done = truth(LD_LIBRARY_PATH=str(nvml_library.parent))
    assert done.returncode == 5
    assert "CUDA could not be used: libcuda.so.1" in done.stderr
