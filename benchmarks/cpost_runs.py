"""cpost as its users run it: a pipeline of operators of known truth in, the record, the series and the truth out."""

from __future__ import annotations

import csv
import functools
import json
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.programs import BUILT, Truth, installed, parse_report

_PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Operator:
    """An operator: verbs of the workload, or a whole command of the image's where `command` is given."""

    name: str
    verbs: Sequence[str] = ()
    command: Sequence[str] = ()

    def definition(self, image: str) -> dict[str, Any]:
        """Its section of the pipeline; the programs (or other payload) are at /in, its report goes to /out."""
        repository, _, tag = image.rpartition(":")
        words = list(self.command) or ["/in/truth", "to", "/out/report", *self.verbs]
        return {
            "name": self.name,
            "container": {"image": repository, "tag": tag, "command": words},
            "input": [{"path": "/in"}],
            "output": [{"path": "/out"}],
        }


@dataclass(frozen=True)
class Finished:
    """A finished run."""

    record: dict[str, Any]
    folder: Path

    @functools.cached_property
    def operators(self) -> dict[str, dict[str, Any]]:
        """The records of the operators by name."""
        return {each["operator"]: each for each in self.record["operators"]}

    def totals(self, operator: str) -> dict[str, Any]:
        """An operator's totals."""
        found: dict[str, Any] = self.operators[operator]["result"]["totals"]
        return found

    def truth(self, operator: str) -> Truth:
        """What an operator's workload said of itself."""
        return parse_report((self.folder / "outputs" / operator / "report").read_text())

    def series(self, operator: str) -> list[dict[str, str]]:
        """The rows of an operator's CSV."""
        return read_series(self.folder / "metrics" / f"{operator}_final_result.csv")


class Started:
    """A run that is still at work."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self.process = process
        self.folder = folder

    def await_samples(self, operator: str) -> None:
        """Wait until the first samples of an operator are on disk."""
        path = self.folder / "metrics" / f"{operator}_final_result.csv"
        deadline = time.monotonic() + _PATIENCE_S
        while not (path.exists() and path.read_bytes().count(b"\n") > 1):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.process.kill()
                raise RuntimeError(f"no samples of {operator}: {self.process.communicate()[1]}")
            time.sleep(0.02)

    def finish(self) -> Finished:
        """Wait for the end; raises RuntimeError where cpost could not do its work (a failed operator is no error)."""
        out, err = self.process.communicate()
        if self.process.returncode not in (0, 1):
            raise RuntimeError(f"cpost ended with {self.process.returncode}: {err}")
        return Finished(json.loads(out), self.folder)


@contextmanager
def work_folder() -> Iterator[Path]:
    """A folder for what a run reads and writes, removed at the end."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        yield Path(folder)


def write_pipeline(image: str, operators: Iterable[Operator], folder: Path) -> Path:
    """Write the definition of a pipeline of these operators to a folder; returns its path."""
    pipeline = folder / "pipeline.yaml"
    head = {"api-version": "0.4.0", "name": "benchmark"}
    pipeline.write_text(yaml.safe_dump({**head, "operators": [each.definition(image) for each in operators]}))
    return pipeline


def command(image: str, operators: Iterable[Operator], folder: Path, *options: str, payload: Path = BUILT) -> list[str]:
    """Write the pipeline; returns the command that runs it, with all results below `folder`."""
    pipeline = write_pipeline(image, operators, folder)
    kept = ("--metrics_dir", str(folder / "metrics"), "--outputs_dir", str(folder / "outputs"))
    return [installed("cpost"), "run", str(pipeline), str(payload), "--json", "--quiet", *kept, *options]


def start(image: str, operators: Iterable[Operator], folder: Path, *options: str, payload: Path = BUILT) -> Started:
    """Start a run."""
    pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    words = command(image, operators, folder, *options, payload=payload)
    return Started(subprocess.Popen(words, text=True, **pipes), folder)


def run(image: str, operators: Iterable[Operator], folder: Path, *options: str, payload: Path = BUILT) -> Finished:
    """Run a pipeline to its end (see `Started.finish` for the errors)."""
    return start(image, operators, folder, *options, payload=payload).finish()


def read_series(path: Path) -> list[dict[str, str]]:
    """The rows of a series."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
