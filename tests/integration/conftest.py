"""Fixtures of the black-box tests. They need a Docker engine and root; tests/run.sh sees to both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from images.build import ensure_images
from images.triton import ensure_triton_image
from integration import harness
from integration.harness import Cpost, Decoys, Done, Host, Record

Pipeline = Callable[..., Path]
Operator = Callable[..., Record]

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.engine)


@pytest.fixture(scope="session")
def client() -> Iterator[docker.DockerClient]:
    """The engine."""
    engine = docker.from_env(timeout=60)
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def image(client: docker.DockerClient) -> str:
    """The test image, see images/build.py."""
    return ensure_images(client)


@pytest.fixture(scope="session")
def triton_image(client: docker.DockerClient) -> str:
    """The image of the inference server, see images/triton.py."""
    return ensure_triton_image(client)


@pytest.fixture(scope="session")
def decoys(client: docker.DockerClient, image: str) -> Iterator[Decoys]:
    """Somebody else's objects."""
    made = Decoys(client, image)
    yield made
    made.remove()


@pytest.fixture(scope="session")
def host(client: docker.DockerClient) -> Host:
    """Looks at the engine and the kernel."""
    return Host(client)


@pytest.fixture(scope="session")
def before(host: Host, decoys: Decoys) -> frozenset[str]:
    """What was on the host before the first test."""
    return host.objects()


@pytest.fixture(autouse=True)
def nothing_left(host: Host, before: frozenset[str], decoys: Decoys) -> Iterator[None]:
    """After each test everything that cpost has made is gone, and what it has not made is still there."""
    yield
    # What shows up only now is another session's and no affair of this test's.
    candidates = host.objects() - before
    gone = lambda: not candidates & host.objects()  # noqa: E731
    harness.until(gone, f"removal of {sorted(candidates)}", within_s=harness.REMOVAL_S)
    decoys.check()


@pytest.fixture
def cpost(tmp_path: Path, nothing_left: None) -> Iterator[Cpost]:
    """Runs cpost; checks in the end that its temporary folder is empty."""
    runner = Cpost(tmp_path)
    yield runner
    runner.end()
    harness.until(
        lambda: not list(runner.temp.iterdir()), f"removal of what is in {runner.temp}", within_s=harness.REMOVAL_S
    )


@pytest.fixture(scope="session")
def op(image: str) -> Operator:
    """Write one operator: op(name, *command, image=..., **other keys)."""

    def build(name: str, *command: str, **fields: Any) -> Record:
        return harness.operator(name, *command, **{"image": image, **fields})

    return build


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    """Write a definition of these operators (or this text) to a file."""

    def write(*operators: Record, text: str | None = None) -> Path:
        path = tmp_path / "pipeline.yaml"
        path.write_text(text if text is not None else harness.definition(operators))
        return path

    return write


@pytest.fixture
def payload(tmp_path: Path) -> Path:
    """A folder with the pipeline's input."""
    folder = tmp_path / "payload"
    folder.mkdir()
    (folder / "scan.txt").write_text("a scan\n")
    return folder


@pytest.fixture
def metrics(tmp_path: Path) -> Path:
    """A folder for the results, not made yet."""
    return tmp_path / "metrics"


@pytest.fixture
def measure(cpost: Cpost, pipeline: Pipeline, payload: Path) -> Callable[..., Done]:
    """Run a pipeline of these operators with --json and the given options."""

    def run(*operators: Record, options: tuple[str | Path, ...] = ()) -> Done:
        return cpost("run", pipeline(*operators), payload, "--json", *options)

    return run
