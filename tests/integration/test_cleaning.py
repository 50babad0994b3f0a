"""What a dead run left is removed by the next start and by `cpost clean`; what is anybody else's is not."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.models.containers import Container

from integration import harness
from integration.conftest import Operator
from integration.harness import Cpost, Done, Host, Running, everywhere

Measure = Callable[..., Done]
StartRun = Callable[..., Running]
MB = 10**6


@pytest.fixture
def start_run(cpost: Cpost, tmp_path: Path, op: Operator, payload: Path, host: Host, image: str) -> StartRun:
    """Start a run of one operator; returns when its container runs."""

    def start(*command: str, options: tuple[str | Path, ...] = ()) -> Running:
        path = tmp_path / f"{'-'.join(command)}.yaml"
        path.write_text(harness.definition([op("a", *command)]))
        running = cpost.start(path, payload, "--json", *options)
        harness.until(lambda: host.live(image, running.process.pid), "the operator's container")
        return running

    return start


@pytest.fixture
def orphan(start_run: StartRun, host: Host, image: str) -> Container:
    """The container of a run whose cpost and guard were both killed."""
    running = start_run("sleep", "100")
    guards = running.guards()
    for guard in guards:
        guard.suspend()  # else it would be quicker than the second kill
    running.process.kill()
    running.process.communicate()
    for guard in guards:
        harness.kill(guard)
    (container,) = host.live(image, running.process.pid)
    return container


def exists(container: Container) -> bool:
    try:
        container.reload()
    except docker.errors.NotFound:
        return False
    return True


@everywhere
def test_clean_removes_what_a_dead_run_left(cpost: Cpost, orphan: Container, host: Host) -> None:
    run_id = orphan.labels["cpost.run"]
    before = host.objects()
    planned = cpost("clean", "--dry-run").ended(0)
    assert run_id in planned.text
    assert host.objects() == before
    cleaned = cpost("clean").ended(0)
    assert run_id in cleaned.text
    assert not exists(orphan)
    assert not [each for each in host.objects() if run_id in each]
    assert run_id not in cpost("clean").ended(0).text


def test_next_start_removes_what_a_dead_run_left(orphan: Container, measure: Measure, op: Operator, host: Host) -> None:
    done = measure(op("a", "true")).ended(0)
    assert orphan.labels["cpost.run"] in done.err
    assert not exists(orphan)


def test_clean_without_anything_to_do(cpost: Cpost) -> None:
    cpost("clean").ended(0)
    cpost("clean", "--dry-run").ended(0)


@pytest.mark.parametrize("disturbance", ["clean", "run"])
def test_live_run_is_left_alone(start_run: StartRun, cpost: Cpost, payload: Path, disturbance: str) -> None:
    running = start_run("appetite", "burn", "400", "1", "sleep", "3000")
    if disturbance == "clean":
        cpost("clean").ended(0)
    else:
        start_run("sleep", "1").wait().ended(0)
    assert running.process.poll() is None, "the disturbance came too late to mean anything"
    found = running.wait().ended(0).operator("a")
    assert found["result"]["outcome"] == "completed"
    assert abs(found["result"]["totals"]["cpu_us"] - 400_000) <= harness.CPU_SLACK_US


def test_runs_at_once_are_all_right(start_run: StartRun, tmp_path: Path) -> None:
    folders = {mb: tmp_path / f"metrics-{mb}" for mb in (20, 60, 120)}
    appetite = ("burn", "300", "1", "sleep", "2000")  # the touching is part of what is burned
    runs = {
        mb: start_run("appetite", "touch", str(mb), *appetite, options=("--metrics_dir", folder))
        for mb, folder in folders.items()
    }
    for mb, running in runs.items():
        totals = running.wait().ended(0).operator("a")["result"]["totals"]
        assert abs(totals["cpu_us"] - 300_000) <= harness.CPU_SLACK_US
        assert mb * MB <= totals["memory_peak_bytes"] <= (mb + 3) * MB
        assert {path.name for path in folders[mb].iterdir()} == {
            "a_final_result.csv",
            "summary.csv",
            "run.json",
            "report.html",
        }
        harness.check_csvs(folders[mb])


# ---------------------------------------------------------------- whose is it?


@pytest.fixture
def labelled(
    client: docker.DockerClient, image: str, start_run: StartRun, host: Host
) -> Iterator[Callable[[dict[str, str]], Container]]:
    """Make a container with the labels of a run that has ended, some of them changed."""
    running = start_run("sleep", "1")
    labels: dict[str, Any] = host.live(image, running.process.pid)[0].labels
    running.wait().ended(0)
    made: list[Container] = []

    def make(changes: dict[str, str]) -> Container:
        assert set(changes) <= set(labels)
        own = {key: value for key, value in {**labels, **changes}.items() if key.startswith("cpost.")}
        made.append(client.containers.create(image, ["true"], labels=own))
        return made[-1]

    yield make
    for container in made:
        if exists(container):
            container.remove(force=True)


NOT_PROVEN_DEAD = {
    "other boot": {"cpost.boot": "00000000-0000"},
    "other pid namespace": {"cpost.pid_ns": "1"},
    "nonsense": {"cpost.pid": "nonsense"},
}


@pytest.mark.parametrize("name", NOT_PROVEN_DEAD)
def test_owner_that_is_not_proven_dead(cpost: Cpost, labelled: Callable[..., Container], name: str) -> None:
    container = labelled(NOT_PROVEN_DEAD[name])
    cpost("clean").ended(0)
    assert exists(container)


def test_dead_owner_whose_number_is_in_use_again(cpost: Cpost, labelled: Callable[..., Container]) -> None:
    container = labelled({"cpost.pid": str(os.getpid())})  # this process started at another time than the label says
    cpost("clean").ended(0)
    assert not exists(container)


def test_dead_owner(cpost: Cpost, labelled: Callable[..., Container]) -> None:
    container = labelled({})
    cpost("clean").ended(0)
    assert not exists(container)
