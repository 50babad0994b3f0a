"""The connection to the engine breaks while an operator runs; the engine itself is not touched."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from integration import harness
from integration.conftest import Operator, Pipeline
from integration.harness import Cpost, Host, Running


class Proxy:
    """A socket that leads to the engine until it is cut."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._engine = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.restore()

    def restore(self) -> None:
        """Begin to listen."""
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.path))
        listener.listen()
        self._open.append(listener)
        self._start(self._accept, listener)

    def cut(self) -> None:
        """Break all connections and take no new ones."""
        self.path.unlink(missing_ok=True)
        for each in self._open:
            with contextlib.suppress(OSError):  # it is closed at the other end
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for each in self._open:
            each.close()
        self._open.clear()
        self._threads.clear()

    def _start(self, work: Callable[..., None], *sockets: socket.socket) -> None:
        thread = threading.Thread(target=work, args=sockets)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the listener is shut
            while True:
                near, _ = listener.accept()
                far = socket.socket(socket.AF_UNIX)
                self._open += [near, far]
                far.connect(self._engine)
                self._start(_pump, near, far)
                self._start(_pump, far, near)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Proxy]:
    made = Proxy(tmp_path / "engine.sock")
    yield made
    made.cut()


@pytest.fixture
def start(
    cpost: Cpost, pipeline: Pipeline, op: Operator, payload: Path, proxy: Proxy, host: Host, image: str
) -> Callable[..., Running]:
    """Start a run whose engine is behind the proxy; returns when its operator runs."""

    def start_run(*command: str, start_with: Sequence[str] = ()) -> Running:
        operators = [op("cut-off", *command), op("next", "true")]
        env = {"DOCKER_HOST": f"unix://{proxy.path}"}
        running = cpost.start(pipeline(*operators), payload, "--json", "--force", "cont", env=env, under=start_with)
        harness.until(lambda: host.live(image, running.process.pid), "the operator's container")
        time.sleep(0.5)
        return running

    return start_run


def test_connection_that_comes_back(start: Callable[..., Running], proxy: Proxy) -> None:
    running = start("appetite", "burn", "300", "1", "sleep", "3500", "exit", "7")
    proxy.cut()
    time.sleep(1)
    proxy.restore()
    done = running.wait().ended(1)
    result = done.operator("cut-off")["result"]
    assert (result["outcome"], result["exit_code"]) == ("failed", 7)
    assert abs(result["totals"]["cpu_us"] - 300_000) <= 20_000
    assert any("connection" in each for each in result["warnings"])
    assert done.operator("next")["result"]["outcome"] == "completed"


def test_connection_that_stays_away(start: Callable[..., Running], proxy: Proxy, cpost: Cpost) -> None:
    running = start("sleep", "1000", start_with=harness.LITTLE_PATIENCE)
    proxy.cut()
    done = running.wait(timeout_s=120)
    assert done.code == 5, done
    assert "Traceback" not in done.text
    assert "cpost: error: the engine was lost while cut-off ran\n  what to do: " in done.err
    result = done.operator("cut-off")["result"]
    assert (result["outcome"], result["exit_code"]) == ("engine_lost", None)
    assert result["totals"]["memory_peak_bytes"] > 0
    assert [each["operator"] for each in done.record["operators"]] == ["cut-off"]
    cpost("clean").ended(0)  # the engine itself is there: what could not be removed is removed now
