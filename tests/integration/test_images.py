"""Images that are not here: pulled where that works, and nothing is started where it does not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from images.build import root_archive
from integration.conftest import Operator, Pipeline
from integration.harness import Cpost, Host
from integration.registry import Registry

REFUSALS = {
    "no credentials": (401, "UNAUTHORIZED", "authentication required", "no basic auth credentials"),
    "denied": (403, "DENIED", "requested access to the resource is denied", "denied"),
    "unknown": (404, "MANIFEST_UNKNOWN", "manifest unknown", "manifest unknown"),
    "too many": (429, "TOOMANYREQUESTS", "you have reached your pull rate limit", "toomanyrequests"),
}


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as server:
        yield server


def check_refused(cpost: Cpost, definition: Path, payload: Path, image: str, words: str) -> None:
    done = cpost(definition, payload, "--metrics_dir", payload.parent / "new/metrics").ended(5)
    assert not (payload.parent / "new").exists()
    assert image in done.err
    assert words in done.err
    assert "docker login" in done.err


@pytest.mark.parametrize("name", REFUSALS)
def test_pull_refused(
    cpost: Cpost, pipeline: Pipeline, op: Operator, payload: Path, host: Host, image: str, registry: Registry, name: str
) -> None:
    status, code, message, words = REFUSALS[name]
    registry.refuse(status, code, message)
    missing = f"{registry.address}/clara/segment:1.0"
    since = time.time()
    check_refused(cpost, pipeline(op("here", "true"), op("gone", image=missing)), payload, missing, words)
    assert host.created_since(since, image) == []


def test_registry_out_of_reach(
    cpost: Cpost, pipeline: Pipeline, op: Operator, payload: Path, host: Host, image: str
) -> None:
    missing = "127.0.0.1:1/clara/segment:1.0"
    since = time.time()
    check_refused(
        cpost, pipeline(op("here", "true"), op("gone", image=missing)), payload, missing, "connection refused"
    )
    assert host.created_since(since, image) == []


def test_image_is_pulled(
    cpost: Cpost, pipeline: Pipeline, op: Operator, payload: Path, client: docker.DockerClient, registry: Registry
) -> None:
    layer = root_archive(b"", shell=True)
    reference = registry.serve("served", layer, client.version()["Arch"])
    try:
        done = cpost(pipeline(op("a", "true", image=reference)), payload, "--json").ended(0)
        assert reference in done.err
        assert done.operator("a")["result"]["image_id"] == client.images.get(reference).id
    finally:
        client.images.remove(reference)


@pytest.mark.parametrize("bad", ["UPPER/case:1", "spaces in it:1", ":1"])
def test_impossible_reference(
    cpost: Cpost, pipeline: Pipeline, op: Operator, payload: Path, host: Host, image: str, bad: str
) -> None:
    since = time.time()
    done = cpost(pipeline(op("here", "true"), op("gone", image=bad)), payload).ended(2)
    assert "pipeline.yaml:" in done.err
    assert host.created_since(since, image) == []
