"""The tools that people use in cpost's place, each in the way its users use it.

- docker stats: the engine's stream of statistics over a container, read from its start to its end.
- psrecord: a command on the host, every 10 ms, with its children.
- runexec (BenchExec): a command on the host, control groups on, its own container mode off.
"""

from __future__ import annotations

import csv
import itertools
import math
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
from docker.models.containers import Container

from benchmarks.programs import BUILT, TRUTH, Truth, installed, parse_report
from cpost.units import parse_time_ns

PERIOD_S = 0.01
LABEL = "cpost-benchmark"


@dataclass(frozen=True, slots=True)
class Seen:
    """What a tool saw of one run of the workload.

    Attributes:
        cpu_ns: the CPU total that its user ends up with; None where it tells none.
        peak_bytes: the memory peak that its user ends up with.
        memory: (wall clock in ns, bytes) of each sample; empty where it takes none.
    """

    truth: Truth
    cpu_ns: float | None
    peak_bytes: int | None
    memory: Sequence[tuple[int, int]] = ()


# ---------------------------------------------------------------- docker stats


@contextmanager
def container(image: str, command: Sequence[str], folder: Path | None = None, **settings: Any) -> Iterator[Container]:
    """A started container, the programs at /in and `folder` at /out; removed at the end."""
    client = docker.from_env(timeout=120)
    volumes = {str(BUILT): {"bind": "/in", "mode": "ro"}}
    if folder is not None:
        volumes[str(folder)] = {"bind": "/out", "mode": "rw"}
    fixed: dict[str, Any] = {"init": True, "network_mode": "none", "labels": [LABEL], "detach": True}
    made = client.containers.create(image, list(command), volumes=volumes, **{**fixed, **settings})
    try:
        made.start()
        yield made
    finally:
        made.remove(force=True)
        client.close()


def docker_stats(image: str, verbs: Sequence[str]) -> Seen:
    """The engine's stream, from the container's start until it says that there is nothing more."""
    with tempfile.TemporaryDirectory() as folder:
        with container(image, ["/in/truth", "to", "/out/report", *verbs], Path(folder)) as running:
            samples: list[dict[str, Any]] = []
            stream: Any = running.stats(stream=True, decode=True)
            for each in stream:
                if not each["memory_stats"]:  # the container has ended
                    break
                samples.append(each)
            running.wait()
        truth = parse_report(Path(folder, "report").read_text())
    memory = [(parse_time_ns(each["read"]) or 0, int(each["memory_stats"]["usage"])) for each in samples]
    cpu = [float(each["cpu_stats"]["cpu_usage"]["total_usage"]) for each in samples]
    return Seen(truth, max(cpu, default=None), max((size for _, size in memory), default=None), memory)


# ---------------------------------------------------------------- psrecord


def psrecord_command(command: str, log: Path) -> list[str]:
    """How psrecord is called."""
    options = ["--log", str(log), "--log-format", "csv", "--interval", str(PERIOD_S), "--include-children"]
    return [installed("psrecord"), command, *options]


def psrecord(verbs: Sequence[str]) -> Seen:
    """psrecord over the workload on the host; the CPU total is its percentages times their intervals."""
    with tempfile.TemporaryDirectory() as folder:
        report, log = Path(folder, "report"), Path(folder, "log")
        words = psrecord_command(" ".join([str(TRUTH), "to", str(report), *verbs]), log)
        begin_ns = time.time_ns()
        subprocess.run(words, check=True, capture_output=True)
        truth, rows = parse_report(report.read_text()), psrecord_rows(log)
        began_ns = round(log.stat().st_mtime_ns - rows[-1][0] * 1e9) if rows else begin_ns
    spans = [(later[0] - earlier[0]) * later[1] / 100 for earlier, later in itertools.pairwise(rows)]
    memory = [(began_ns + round(at * 1e9), size) for at, _, size in rows]
    return Seen(truth, math.fsum(spans) * 1e9, max((size for _, size in memory), default=None), memory)


def psrecord_rows(log: Path) -> list[tuple[float, float, int]]:
    """(seconds, CPU percent, bytes) of each sample of a log."""
    with log.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [(float(r["elapsed_time"]), float(r["cpu"]), round(float(r["mem_real"]) * 2**20)) for r in rows]


# ---------------------------------------------------------------- runexec


def runexec(verbs: Sequence[str]) -> Seen:
    """runexec over the workload on the host."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report")
        words = [installed("runexec"), "--quiet", "--no-container", "--output", str(Path(folder, "log")), "--"]
        words += [str(TRUTH), "to", str(report), *verbs]
        out = subprocess.run(words, check=True, capture_output=True, text=True).stdout
        truth = parse_report(report.read_text())
    said = dict(line.split("=", 1) for line in out.splitlines() if "=" in line)
    cpu, memory = said.get("cputime"), said.get("memory")
    return Seen(truth, float(cpu.rstrip("s")) * 1e9 if cpu else None, int(memory.rstrip("B")) if memory else None)
