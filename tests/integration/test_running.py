"""How an operator's container is made, and how it can end."""

from __future__ import annotations

import os
import pty
import re
import select
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.models.containers import Container

from integration import harness
from integration.conftest import Operator, Pipeline
from integration.harness import Cpost, Done, Host, Running

Measure = Callable[..., Done]


# ---------------------------------------------------------------- the container


class Live:
    """A running cpost and its operator's container."""

    def __init__(self, running: Running, container: Container) -> None:
        self.running = running
        self.container = container
        self.config: dict[str, Any] = container.attrs["Config"]
        self.host_config: dict[str, Any] = container.attrs["HostConfig"]

    def shell(self, command: str) -> str:
        """Run a command inside the container."""
        output = self.container.exec_run(["sh", "-c", command]).output
        assert isinstance(output, bytes)
        return output.decode().strip()


@pytest.fixture
def live(cpost: Cpost, pipeline: Pipeline, op: Operator, payload: Path, host: Host, image: str) -> Iterator[Live]:
    """An operator that is at work while the test looks at it."""
    sleeper = op("a", "sleep", "30", input=[{"path": "/input"}], output=[{"path": "/output"}])
    running = cpost.start(pipeline(sleeper), payload, "--json", "--shm_size", "256MiB")
    container = harness.until(lambda: host.live(image, running.process.pid), "the operator's container")[0]
    yield Live(running, container)
    container.kill()
    done = running.wait().ended(1)
    assert set(container.attrs["NetworkSettings"]["Networks"]) == {f"cpost_{done.record['run_id']}"}


def test_container_is_made_as_promised(live: Live, cpost: Cpost, client: docker.DockerClient) -> None:
    made = live.host_config
    assert made["Init"] is True
    assert made["ShmSize"] == 256 * 2**20
    assert made["PidsLimit"] > 0
    assert "no-new-privileges" in ",".join(made["SecurityOpt"])
    assert made["AutoRemove"] is False
    assert made["Privileged"] is False
    assert made["RestartPolicy"]["Name"] in ("", "no")
    assert made["Memory"] == made["MemorySwap"]
    assert not made["Binds"]
    assert made["CgroupParent"]
    assert made["PortBindings"] in (None, {})
    check_log_is_capped(made["LogConfig"])
    check_mounts(live.container, cpost.temp)
    check_labels_and_network(live.container, client)
    assert "NVIDIA_CLARA_NOSYNCLOCK=1" in live.config["Env"]


@pytest.mark.podman
def test_operator_finds_what_was_promised(measure: Measure, op: Operator, tmp_path: Path) -> None:
    look = "cat /proc/1/comm; df -k /dev/shm; cat /proc/1/status; env; touch /input/x || echo read-only"
    curious = op(
        "a", "sh", "-c", f"({look}) >/output/seen 2>&1", input=[{"path": "/input"}], output=[{"path": "/output"}]
    )
    measure(curious, options=("--shm_size", "256MiB", "--outputs_dir", tmp_path / "outputs")).ended(0)
    seen = (tmp_path / "outputs/a/seen").read_text()
    assert seen.splitlines()[0] in ("docker-init", "podman-init")
    assert re.search(r"^shm +262144 ", seen, re.MULTILINE)
    assert "NoNewPrivs:\t1" in seen
    assert "NVIDIA_CLARA_NOSYNCLOCK=1\n" in seen
    assert "read-only" in seen


def check_log_is_capped(log: dict[str, Any]) -> None:
    assert log["Type"] == "json-file"
    assert int(log["Config"]["max-file"]) >= 2
    assert re.fullmatch(r"\d+[km]", log["Config"]["max-size"])


def check_mounts(container: Container, temp: Path) -> None:
    mounts = {mount["Destination"]: mount for mount in container.attrs["Mounts"]}
    assert set(mounts) == {"/input", "/output"}
    assert {mount["Type"] for mount in mounts.values()} == {"bind"}
    assert mounts["/input"]["RW"] is False
    assert mounts["/output"]["RW"] is True
    assert Path(mounts["/output"]["Source"]).is_relative_to(temp)


def check_labels_and_network(container: Container, client: docker.DockerClient) -> None:
    assert container.labels["cpost.run"]
    (name,) = container.attrs["NetworkSettings"]["Networks"]
    assert name == f"cpost_{container.labels['cpost.run']}"
    network = client.networks.get(name)
    assert network.attrs["Driver"] == "bridge"
    assert network.attrs["Labels"]["cpost.run"] == container.labels["cpost.run"]


# ---------------------------------------------------------------- how it ends

FAILURES = {
    "plain": (["sh", "-c", "exit 3"], 3, ""),
    "missing command": (["/no/such/program"], 127, ""),
    "missing in the shell": (["sh", "-c", "no-such-program"], 127, ""),
    "missing shell": (["/bin/sh", "-c", "true"], 127, "-bare"),
    "not executable": (["/etc/passwd"], 126, ""),
    "not executable, no shell": (["/etc/passwd"], 126, "-bare"),
    "exits with 126 itself": (["appetite", "exit", "126"], 126, ""),
    "bad entrypoint arguments": (["no-verb"], 98, "-entry"),
}


def _where(name: str) -> list[pytest.MarkDecorator]:
    """On Podman, what its init cannot start ends with the init's own code, 1."""
    return [pytest.mark.podman] if name in ("plain", "exits with 126 itself") else []


@pytest.mark.parametrize("name", [pytest.param(name, marks=_where(name)) for name in FAILURES])
def test_failed_operator(measure: Measure, op: Operator, image: str, name: str) -> None:
    command, code, variant = FAILURES[name]
    done = measure(op("bad", *command, image=image + variant)).ended(1)
    found = done.operator("bad")
    assert found["result"]["outcome"] == "failed"
    assert found["result"]["exit_code"] == code
    assert found["result"]["cause"]
    assert found["recommendation"]["status"] == "refused"
    assert found["recommendation"]["reasons"]
    assert found["recommendation"]["requests"]["memory_bytes"] is None
    assert "(Non-zero exitcode)" in done.err


@pytest.mark.podman
def test_failed_operator_shows_the_end_of_its_log(measure: Measure, op: Operator) -> None:
    script = "for i in $(seq 1 500); do echo line $i; done; printf 'red \\033[31m text\\n' >&2; exit 4"
    done = measure(op("bad", "sh", "-c", script)).ended(1)
    tail = done.operator("bad")["result"]["log_tail"]
    assert any("line 500" in line for line in tail)
    assert not any(line == "line 1" for line in tail)
    assert "line 500" in done.err
    assert "\033[31m" not in done.text


@pytest.mark.v2
def test_operator_over_its_time_is_ended(measure: Measure, op: Operator) -> None:
    stubborn = op("stubborn", "appetite", "ignore-term", "sleep", "60000")
    done = measure(stubborn, options=("--timeout", "2s")).ended(4)
    result = done.operator("stubborn")["result"]
    assert result["outcome"] == "timed_out"
    assert 2e9 <= result["wall_ns"] < 30e9
    assert "2" in result["cause"]
    assert done.operator("stubborn")["recommendation"]["status"] == "refused"


def test_time_out_is_per_operator(measure: Measure, op: Operator) -> None:
    operators = [op(f"part-{i}", "sleep", "1") for i in range(3)]
    measure(*operators, options=("--timeout", "2500ms")).ended(0)


def test_log_flood_does_not_fill_the_disk(
    cpost: Cpost, pipeline: Pipeline, op: Operator, payload: Path, host: Host, image: str
) -> None:
    running = cpost.start(pipeline(op("loud", "appetite", "flood", "2500")), payload, "--json")
    container = harness.until(lambda: host.live(image, running.process.pid), "the operator's container")[0]
    logs = Path(host.client.info()["DockerRootDir"]) / "containers" / str(container.id)
    largest = largest_log(logs, running)
    done = running.wait().ended(0)
    assert 5e6 < largest < 25e6
    assert done.operator("loud")["recommendation"]["status"] == "ok"


def largest_log(folder: Path, running: Running) -> int:
    """Watch the log files in a folder till cpost has ended; returns the most bytes that they had."""
    largest = 0
    while running.process.poll() is None:
        sizes = [size_of(path) for path in folder.glob("*-json.log*")]
        largest = max(largest, sum(sizes))
        time.sleep(0.02)
    return largest


def size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


@pytest.mark.podman
def test_container_removed_by_somebody_else(
    cpost: Cpost, pipeline: Pipeline, op: Operator, payload: Path, host: Host, image: str
) -> None:
    running = cpost.start(pipeline(op("victim", "sleep", "30")), payload, "--json")
    container = harness.until(lambda: host.live(image, running.process.pid), "the operator's container")[0]
    container.remove(force=True)
    result = running.wait().ended(1).operator("victim")["result"]
    assert result["outcome"] == "failed"


# ---------------------------------------------------------------- --force


@pytest.mark.parametrize(("force", "second"), [("cont", "completed"), ("stop", "not_run"), ("none", "not_run")])
def test_force_says_what_happens_after_a_failure(measure: Measure, op: Operator, force: str, second: str) -> None:
    done = measure(op("bad", "false"), op("good", "true"), options=("--force", force)).ended(1)
    outcomes = {each["operator"]: each["result"]["outcome"] for each in done.record["operators"]}
    assert outcomes["bad"] == "failed"
    assert outcomes.get("good", "not_run") == second
    assert done.record["complete"] is (force == "cont")


def test_force_stop_goes_for_time_outs_too(measure: Measure, op: Operator) -> None:
    operators = [op("slow", "sleep", "60"), op("good", "true")]
    done = measure(*operators, options=("--force", "cont", "--timeout", "1s")).ended(4)
    assert done.operator("slow")["result"]["outcome"] == "timed_out"
    assert done.operator("good")["result"]["outcome"] == "completed"


@pytest.mark.parametrize(("answer", "second"), [("y", "completed"), ("n", "not_run")])
def test_terminal_is_asked_after_a_failure(
    cpost: Cpost, pipeline: Pipeline, op: Operator, payload: Path, metrics: Path, answer: str, second: str
) -> None:
    definition = pipeline(op("bad", "false"), op("good", "true"))
    terminal, end = pty.openpty()
    running = cpost.start(definition, payload, "--metrics_dir", metrics, stdin=end, stdout=end, stderr=end)
    os.close(end)
    shown = read_until(terminal, re.compile(r"continue|go on|\[y/n\]", re.IGNORECASE))
    os.write(terminal, answer.encode() + b"\n")
    shown += read_until(terminal, None)
    os.close(terminal)
    assert running.process.wait() == 1, shown
    outcomes = {each["operator"]: each["result"]["outcome"] for each in harness.load_run(metrics)["operators"]}
    assert outcomes.get("good", "not_run") == second


def read_until(terminal: int, wanted: re.Pattern[str] | None) -> str:
    """Read what a program shows on a terminal, up to something wanted or to its end."""
    text, deadline = "", time.monotonic() + harness.PATIENCE_S
    while wanted is None or not wanted.search(text):
        assert time.monotonic() < deadline, text
        if not select.select([terminal], [], [], 1)[0]:
            continue
        try:
            text += os.read(terminal, 65536).decode(errors="replace")
        except OSError:  # the other end is closed
            assert wanted is None, f"ended without a question: {text}"
            break
    return text


def test_terminal_shows_progress(cpost: Cpost, pipeline: Pipeline, op: Operator, payload: Path) -> None:
    terminal, end = pty.openpty()
    running = cpost.start(
        pipeline(op("a", "appetite", "touch", "30", "sleep", "1500")), payload, stdout=end, stderr=end
    )
    os.close(end)
    shown = read_until(terminal, None)
    os.close(terminal)
    assert running.process.wait() == 0, shown
    moments = re.findall(r"(\d\.\d) s, CPU .*?memory 3\d\.\d+ MB, peak 3\d\.\d+ MB", shown)
    assert len(set(moments)) >= 3, shown
    assert "left out" in shown, "a long series is abridged on a terminal"
