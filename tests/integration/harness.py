"""What the tests do cpost with: run it, write pipelines for it, look at what it left."""

from __future__ import annotations

import contextlib
import csv
import functools
import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import docker
import psutil
import pytest
import yaml
from docker.errors import DockerException, NotFound
from docker.models.containers import Container

from waiting import IN_UML, PATIENCE_S
from waiting import until as until  # the tests call it by this room's name

CPOST = Path(sys.executable).with_name("cpost")
CGROUPS = Path("/sys/fs/cgroup")
TMP = Path(tempfile.gettempdir())
# User-mode Linux counts CPU in ticks of 10 ms, and as used what a busy host takes from it; a start there takes seconds.
CPU_SLACK_US = 150_000 if IN_UML else 20_000
REMOVAL_S = 30.0 if IN_UML else 10.0
# Starts cpost with a grace that no test sees the end of: what ends all the same was not waited for.
ENDLESS_GRACE = (
    sys.executable,
    "-c",
    "import runpy, sys; from cpost.measure import outcome; outcome.STOP_GRACE_NS = 10**18; "
    "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')",
)

# Likewise, giving up on an engine that stays away after four seconds, not thirty.
LITTLE_PATIENCE = (
    sys.executable,
    "-c",
    "import runpy, sys; from cpost.measure import container; container._RECONNECT_S = 4.0; "
    "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')",
)

Record = dict[str, Any]
Test = TypeVar("Test", bound=Callable[..., None])


def everywhere(test: Test) -> Test:
    """Mark a test that runs once more with control groups v2, and once more on Podman (tests/elsewhere)."""
    return pytest.mark.v2(pytest.mark.podman(test))


# ---------------------------------------------------------------- pipelines


def operator(name: str, *command: str, image: str, **fields: Any) -> Record:
    """Return one operator of a definition; `image` is a full reference with a tag."""
    repository, _, tag = image.rpartition(":")
    container: Record = {"image": repository, "tag": tag}
    if command:
        container["command"] = list(command)
    return {"name": name, "container": container, **fields}


def service(
    name: str,
    *command: str,
    image: str,
    http: Iterable[tuple[str, int | None]] = (),
    volumes: Iterable[str] = (),
    **fields: Any,
) -> Record:
    """Return one service of an operator; `http` = variables and ports, `volumes` = the folders that are shared."""
    connections = {
        "http": [{"name": variable} | ({"port": port} if port else {}) for variable, port in http],
        "volume": [{"name": path.strip("/"), "path": path} for path in volumes],
    }
    return operator(name, *command, image=image, connections=connections, **fields)


def definition(operators: Iterable[Record]) -> str:
    """Return the text of a definition of these operators."""
    head = {"api-version": "0.4.0", "name": "tested", "orchestrator": "Clara"}
    return yaml.safe_dump({**head, "operators": list(operators)}, sort_keys=False)


# ---------------------------------------------------------------- running cpost


@dataclass(frozen=True)
class Done:
    """A finished cpost."""

    code: int
    out: str
    err: str

    @functools.cached_property
    def record(self) -> Record:
        """What --json printed."""
        loaded: Record = json.loads(self.out)
        return loaded

    @property
    def text(self) -> str:
        return self.out + self.err

    def operator(self, name: str) -> Record:
        """The record of one operator."""
        found: Record = next(each for each in self.record["operators"] if each["operator"] == name)
        return found

    def ended(self, code: int) -> Done:
        """Check the exit code, and that no bug showed up; return itself."""
        assert self.code == code, f"exit code {self.code} instead of {code}\n{self.text}"
        assert "Traceback" not in self.text, self.text
        return self


class Running:
    """A cpost that is still at work."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def signal(self, signum: int) -> None:
        """Send a signal to cpost alone; to one that has ended it does nothing."""
        self.process.send_signal(signum)

    def wait(self, timeout_s: float = PATIENCE_S) -> Done:
        """Wait for its end."""
        out, err = self.process.communicate(timeout=timeout_s)
        return Done(self.process.returncode, out or "", err or "")

    def guards(self) -> list[psutil.Process]:
        """The processes that it has started."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def end(self) -> None:
        """Kill it if it still runs; its guard then removes what it made."""
        if self.process.poll() is None:
            self.process.kill()
        with contextlib.suppress(ValueError):  # its pipes are closed already
            self.process.communicate(timeout=PATIENCE_S)


class Cpost:
    """Runs the command line as a child process whose temporary files go to a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.temp = folder / "tmp"
        self.temp.mkdir()
        self._folder = folder
        self.started: list[Running] = []

    def start(
        self, *arguments: str | Path, env: dict[str, str] | None = None, under: Sequence[str] = (), **popen: Any
    ) -> Running:
        """Start it; `under` = a program that starts it, with arguments."""
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **popen}
        command = [*under, str(CPOST), *map(str, arguments)]
        environment = {**self.environment(), **(env or {})}
        process = subprocess.Popen(command, env=environment, text=True, cwd=self._folder, **pipes)
        self.started.append(Running(process))
        return self.started[-1]

    def __call__(
        self, *arguments: str | Path, env: dict[str, str] | None = None, under: Sequence[str] = (), **popen: Any
    ) -> Done:
        return self.start(*arguments, env=env, under=under, **popen).wait()

    def environment(self) -> dict[str, str]:
        """The variables that it gets."""
        return {**os.environ, "TMPDIR": str(self.temp), "COLUMNS": "200"}

    def end(self) -> None:
        for each in self.started:
            each.end()


# ---------------------------------------------------------------- what is on the host


class Host:
    """Looks at the engine and the kernel, past cpost."""

    def __init__(self, client: docker.DockerClient) -> None:
        self.client = client

    def objects(self) -> frozenset[str]:
        """Every container, network, cgroup and temporary folder that cpost might have made, but for live runs'."""
        found = {*self._containers(), *self._networks()}
        return frozenset(each for each in found if not _owner_lives(each)) | groups_and_folders()

    def live(self, image: str, pid: int | None = None) -> list[Container]:
        """Running containers of an image; with `pid`, those that the cpost with this process id has started."""
        # Not asked of the engine: Podman takes neither a short name nor an id for an ancestor.
        found = self.client.containers.list(ignore_removed=True)
        of_image = [each for each in found if _digits(each.attrs["Image"]) == _digits(self.client.images.get(image).id)]
        return [each for each in of_image if pid is None or str(pid) in _words(each.labels)]

    def swap_limits(self, container: Container) -> set[int]:
        """What v2 groups above the container's own allow it in swap, in bytes; nothing where they set no limit."""
        path = Path(f"/proc/{container.attrs['State']['Pid']}/cgroup").read_text().strip().rpartition("::")[2]
        files = [CGROUPS / str(above).lstrip("/") / "memory.swap.max" for above in Path(path).parents]
        return {int(text) for file in files if file.exists() and (text := file.read_text().strip()) != "max"}

    def created_since(self, since: float, image: str) -> list[str]:
        """Ids of containers of an image that were created after a moment of the wall clock."""
        filters = {"type": "container", "event": "create", "image": image}
        stream = self.client.events(since=int(since), until=int(time.time()) + 1, filters=filters, decode=True)
        return [event["id"] for event in stream if event["timeNano"] > since * 1e9]

    def _containers(self) -> Iterable[str]:
        return (f"container {each['Id']} {each['Labels']}" for each in self.client.api.containers(all=True))

    def _networks(self) -> Iterable[str]:
        return (f"network {each['Name']} {each['Labels']}" for each in self.client.api.networks())


def groups_and_folders() -> frozenset[str]:
    """Every cgroup and temporary folder that cpost might have made, but for live runs'."""
    groups = (f"cgroup {folder}" for folder, _, _ in os.walk(CGROUPS) if Path(folder).name.startswith("cpost"))
    folders = (f"folder {path}" for path in TMP.glob("cpost_*"))
    return frozenset(each for each in (*groups, *folders) if not _owner_lives(each))


def _owner_lives(named: str) -> bool:
    """Whether a name or labels tell of a process that is alive: another session's run, no affair of this one's."""
    found = re.search(r"'cpost\.pid': '(\d+)'|p(\d+)s\d+|cpost_decoy(\d+)", named)
    return found is not None and psutil.pid_exists(int(found[1] or found[2] or found[3]))


def _digits(image_id: str | None) -> str:
    return (image_id or "").removeprefix("sha256:")


def _words(labels: dict[str, str]) -> set[str]:
    return {word for value in labels.values() for word in value.replace("-", " ").replace(":", " ").split()}


class Decoys:
    """Somebody else's container, network and cgroup, which must survive whatever cpost does."""

    def __init__(self, client: docker.DockerClient, image: str) -> None:
        self._client = client
        self._made: list[Any] = []
        mine = str(os.getpid())  # another session of these tests has its own
        memory = CGROUPS / "memory"
        self._cgroup = (memory if memory.is_dir() else CGROUPS) / f"cpost_decoy{mine}"
        try:
            for name in (f"somebody-elses{mine}", f"cpost_decoy{mine}"):
                labels = {"cpost-test": f"cpost_decoy{mine}"}
                network = client.networks.create(name, check_duplicate=True, labels=labels)
                self._made.append(network)
                self._made.append(
                    client.containers.run(
                        image, ["sleep", "100000"], name=name, network=name, labels=labels, detach=True
                    )
                )
            self._cgroup.mkdir()
        except DockerException:
            self.remove()
            raise

    def check(self) -> None:
        """Fail unless all of them are as they were."""
        for each in self._made:
            each.reload()  # fails where it is gone
            assert getattr(each, "status", "running") == "running", f"{each.name} is not running any more"
        assert self._cgroup.is_dir(), f"{self._cgroup} is gone"

    def remove(self) -> None:
        for each in reversed(self._made):
            with contextlib.suppress(NotFound):
                each.remove(**({"force": True} if isinstance(each, Container) else {}))
        with contextlib.suppress(FileNotFoundError):
            self._cgroup.rmdir()


# ---------------------------------------------------------------- what cpost wrote


def rows_of(path: Path, *, torn_allowed: bool = False) -> list[dict[str, str]]:
    """Read a CSV and check its shape: every row has the header's fields; after kill -9 the last may be torn."""
    text = path.read_text()
    complete, _, torn = text.rpartition("\n")
    assert torn_allowed or not torn, f"{path.name} ends in the middle of a row: {torn!r}"
    lines = list(csv.reader(io.StringIO(complete)))
    if not lines and torn_allowed:
        return []
    header, *rows = lines
    assert len(set(header)) == len(header)
    for row in rows:
        assert len(row) == len(header), f"{path.name}: {row}"
    return [dict(zip(header, row, strict=True)) for row in rows]


def check_csvs(folder: Path, *, torn_allowed: bool = False) -> None:
    """Check the shape of every CSV in a folder."""
    for path in folder.glob("*.csv"):
        rows_of(path, torn_allowed=torn_allowed)


def load_run(folder: Path) -> Record:
    """Read run.json."""
    loaded: Record = json.loads((folder / "run.json").read_text())
    return loaded


def kill(process: psutil.Process) -> None:
    """SIGKILL a process that may have ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(signal.SIGKILL)
