"""Servers beside operators where a run is refused, stopped or killed; nothing of them is left (see conftest)."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from images.triton import MODELS
from integration import harness
from integration.conftest import Operator, Pipeline
from integration.harness import Cpost, Done, Host, Record, Running

# Starts cpost with next to no patience for an operator whose server is gone.
NO_PATIENCE = (
    sys.executable,
    "-c",
    "import runpy, sys; from cpost.measure import step; step._ALONE_GRACE_NS = 10**8; "
    "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')",
)
Service = Callable[..., Record]
Start = Callable[..., Running]


@pytest.fixture
def service(image: str) -> Service:
    """Write one service of an operator, see `harness.service`."""
    return lambda name, *command, **fields: harness.service(name, *command, **{"image": image, **fields})


@pytest.fixture
def start(cpost: Cpost, pipeline: Pipeline, payload: Path, metrics: Path, triton_image: str) -> Start:
    """Start a run of operators whose servers find the test models."""

    def begin(*operators: Record, options: tuple[str | Path, ...] = (), under: tuple[str, ...] = ()) -> Running:
        models = ("--models_dir", MODELS, "--triton_image", triton_image)
        return cpost.start(pipeline(*operators), payload, *models, "--metrics_dir", metrics, *options, under=under)

    return begin


def run_and_server(running: Running, host: Host, image: str, server_image: str, count: int) -> None:
    """Wait until as many containers of a run are there."""

    def are_there() -> bool:
        names = {
            each.id for each in (*host.live(image, running.process.pid), *host.live(server_image, running.process.pid))
        }
        return len(names) == count

    harness.until(are_there, f"{count} containers")


# ---------------------------------------------------------------- refused


def refused(done: Done, code: int, *words: str) -> None:
    done.ended(code)
    for word in words:
        assert word in done.err
    assert "what to do: " in done.err
    assert "Executing" not in done.out


def test_a_model_that_the_repository_does_not_hold(start: Start, op: Operator, metrics: Path) -> None:
    done = start(op("asks", "true", models=[{"name": "duoble"}])).wait()
    refused(done, 2, 'model "duoble" of operator "asks"', "double")
    assert not metrics.exists()


def test_models_without_a_repository(cpost: Cpost, pipeline: Pipeline, op: Operator, payload: Path) -> None:
    done = cpost(pipeline(op("asks", "true", models=[{"name": "double"}])), payload)
    refused(done, 2, "operator asks asks for model double", "--models_dir DIR")


def test_a_triton_image_that_cannot_be_had(start: Start, op: Operator) -> None:
    asks = op("asks", "true", models=[{"name": "double"}])
    refused(start(asks, options=("--triton_image", "localhost:1/no-triton:1")).wait(), 5, "localhost:1/no-triton:1")


# ---------------------------------------------------------------- stopped


def test_a_signal_while_a_server_is_awaited(
    start: Start, op: Operator, host: Host, image: str, triton_image: str, metrics: Path
) -> None:
    running = start(op("waits", "true", models=[{"name": "slow"}]), op("next", "true"))
    run_and_server(running, host, image, triton_image, 1)
    running.signal(signal.SIGINT)
    done = running.wait().ended(130)
    assert "Server triton is ready" not in done.out
    (waits,) = harness.load_run(metrics)["operators"]
    assert (waits["result"]["outcome"], waits["result"]["cause"]) == ("interrupted", "stopped on request")
    assert waits["servers"][0]["recommendation"]["status"] == "refused"
    harness.check_csvs(metrics)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGKILL])
def test_a_signal_while_an_operator_has_a_server(
    start: Start, op: Operator, service: Service, host: Host, image: str, metrics: Path, signum: signal.Signals
) -> None:
    web = service("web", "httpd", "-f", "-p", "8080", http=[("WEB", 8080)])
    running = start(op("asks", "sleep", "60", services=[web]))
    run_and_server(running, host, image, image, 2)
    for container in host.live(image, running.process.pid):
        assert not container.attrs["HostConfig"]["PortBindings"]
        assert not any(container.attrs["NetworkSettings"]["Ports"].values())
    running.signal(signum)
    done = running.wait()
    killed = signum is signal.SIGKILL
    assert done.code == (-signum if killed else 128 + signum)
    rows = harness.rows_of(metrics / "asks__web_final_result.csv", torn_allowed=killed)
    if not killed:
        (asks,) = harness.load_run(metrics)["operators"]
        assert asks["result"]["outcome"] == "interrupted"
        assert asks["servers"][0]["result"]["sampling"]["samples"] == len(rows)
        assert "its server" not in asks["result"]["cause"]


def test_an_operator_that_does_not_mind_the_end_of_its_server_is_stopped(
    start: Start, op: Operator, service: Service, metrics: Path
) -> None:
    once = service("once", "sh", "-c", "nc -l -p 8080; sleep 0.5; exit 3", http=[("ONCE", 8080)])  # one caller: cpost
    done = start(op("minds-not", "sleep", "60", services=[once]), under=NO_PATIENCE).wait().ended(1)
    (record,) = harness.load_run(metrics)["operators"]
    assert record["result"]["outcome"] == "failed"
    assert record["result"]["cause"] == "its server once failed: exit code 3; stopped, as its server was gone"
    assert record["servers"][0]["result"]["exit_code"] == 3
    assert "minds-not failed with exitcode 143" in done.out


# ---------------------------------------------------------------- alone, and not alone


@pytest.fixture
def reading(
    cpost: Cpost, pipeline: Pipeline, op: Operator, service: Service, payload: Path
) -> Callable[[Path], Running]:
    """Start a run of an operator that reads the name of its server, and holds 30 MB."""
    web = service("web", "sh", "-c", "mkdir /w; hostname >/w/name; exec httpd -f -p 8080 -h /w", http=[("WEB", 8080)])
    reads = "wget -q -O /out/name http://$WEB/name; appetite touch 30 sleep 800; ! ls /out/other"
    definition = pipeline(op("reads", "sh", "-ec", reads, output=[{"path": "/out"}], services=[web]))
    return lambda folder: cpost.start(
        definition, payload, "--metrics_dir", folder / "metrics", "--outputs_dir", folder / "outputs"
    )


def check_read(running: Running, folder: Path) -> None:
    """Check that an operator has read its own server's name, and that both were measured apart."""
    done = running.wait().ended(0)
    (record,) = harness.load_run(folder / "metrics")["operators"]
    (server,) = record["servers"]
    name = (folder / "outputs" / "reads" / "name").read_text().strip()
    assert name == server["result"]["container_id"][:12]
    assert record["usage"]["memory_bytes"]["maximum"] > 30e6 > server["usage"]["memory_bytes"]["maximum"] > 0
    assert server["load"]["cpu_pct"]["maximum"] is not None
    assert server["result"]["totals"]["source"] == "kernel"
    assert server["ready_ns"] > 0
    assert "Server web is ready after" in done.out
    harness.check_csvs(folder / "metrics")


@pytest.mark.v2
def test_a_server_and_its_operator_are_measured_apart(reading: Callable[[Path], Running], tmp_path: Path) -> None:
    check_read(reading(tmp_path / "one"), tmp_path / "one")


def test_two_runs_with_the_same_services_do_not_meet(reading: Callable[[Path], Running], tmp_path: Path) -> None:
    started = {tmp_path / name: reading(tmp_path / name) for name in ("one", "two")}
    for folder, running in started.items():
        check_read(running, folder)


# ---------------------------------------------------------------- the plan


def test_a_plan_shows_what_servers_would_run(
    cpost: Cpost, pipeline: Pipeline, op: Operator, service: Service, image: str, triton_image: str
) -> None:
    asks = op("asks", models=[{"name": "twice"}], services=[service("web", "httpd", http=[("WEB", 8080)])])
    definition = pipeline(asks)
    shown = cpost("plan", definition, "--models_dir", MODELS, "--triton_image", triton_image).ended(0).out
    assert f"server      web: {image} (present)" in shown
    assert f"server      triton: {triton_image} (present)" in shown
    assert "--load-model=twice --load-model=double" in shown  # what the ensemble needs
    assert f"mount     {MODELS} -> /models (read-only)" in shown
    assert "tells     WEB=<its address>:8080" in shown
    assert "--load-model=double" not in cpost("plan", definition).ended(0).out  # nobody looked
