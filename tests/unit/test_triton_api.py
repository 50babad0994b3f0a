"""The inference server's HTTP side, against a real HTTP server that gives what Triton 2.51 gave, or nonsense."""

from __future__ import annotations

import http.server
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cpost.measure import triton
from cpost.measure.triton import Counters, ModelState, TritonApi, facts, port_accepts
from cpost.model import ModelServed, TritonFacts, TritonGpu

RECORDED = Path(__file__).parent / "data" / "triton"
READY, MODEL, INDEX, SERVER, METRICS, OLD_READY = (
    "GET /v2/health/ready",
    "GET /v2/models/double/ready",
    "POST /v2/repository/index",
    "GET /v2",
    "GET /metrics",
    "GET /api/health/ready",
)
HTML = b"<!DOCTYPE html><html><body>Welcome to nginx!</body></html>"
GPU = """\
nv_gpu_utilization{gpu_uuid="GPU-b"} 0.25
nv_gpu_memory_total_bytes{gpu_uuid="GPU-b"} 150754820096.000000
nv_gpu_memory_used_bytes{gpu_uuid="GPU-b"} 1048576.000000
nv_gpu_power_usage{gpu_uuid="GPU-b"} 75.4321
nv_gpu_utilization{gpu_uuid="GPU-a"} NaN
nv_gpu_memory_used_bytes{gpu_uuid="GPU-a"} 0
"""


def recorded(name: str) -> bytes:
    return (RECORDED / name).read_bytes()


@dataclass
class Server:
    """A server that answers as it is told: status and body by request, or raw bytes in the place of an answer."""

    port: int
    answers: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    raw: dict[str, bytes] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)
    released: threading.Event = field(default_factory=threading.Event)

    @property
    def api(self) -> TritonApi:
        return TritonApi("127.0.0.1", self.port, self.port, timeout_s=0.5)


@pytest.fixture
def server() -> Iterator[Server]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self) -> None:
            asked = f"{self.command} {self.path}"
            if asked in made.silent:
                made.released.wait()
            elif asked in made.raw:
                self.wfile.write(made.raw[asked])
            else:
                status, body = made.answers.get(asked, (404, b'{"error":"Not Found"}'))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        do_GET = do_POST = answer  # noqa: N815

        def log_message(self, *args: object) -> None:
            pass

        def handle(self) -> None:
            try:
                super().handle()
            except ConnectionError:
                pass  # the client had enough

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        made = Server(listening.server_address[1])
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.released.set()
        listening.shutdown()
        thread.join()


@pytest.fixture
def closed_port() -> int:
    with closing(socket.socket()) as held:
        held.bind(("127.0.0.1", 0))
        port: int = held.getsockname()[1]
        return port


# ---------------------------------------------------------------- ready


def test_a_server_is_ready_not_ready_or_not_there(server: Server, closed_port: int) -> None:
    server.answers[READY] = (200, b"")
    assert server.api.server_ready() is True
    server.answers[READY] = (400, b"")
    assert server.api.server_ready() is False
    assert TritonApi("127.0.0.1", closed_port).server_ready() is None


def test_a_server_of_the_first_api_is_asked_in_its_own_way(server: Server) -> None:
    server.answers[OLD_READY] = (200, b"")
    assert server.api.server_ready() is True
    assert server.api.model_ready("double") is True
    server.answers[OLD_READY] = (400, b"")
    assert server.api.server_ready() is False
    assert server.api.model_ready("double") is False


def test_a_server_that_knows_no_health_is_no_triton(server: Server) -> None:
    assert server.api.server_ready() is None


def test_a_model_is_ready_or_not(server: Server, closed_port: int) -> None:
    server.answers[MODEL] = (200, b"")
    assert server.api.model_ready("double") is True
    server.answers["GET /v2/models/bad/ready"] = (400, b'{"error":"Model version not ready"}')
    assert server.api.model_ready("bad") is False
    assert TritonApi("127.0.0.1", closed_port).model_ready("double") is False


def test_a_model_of_any_name_can_be_asked_for(server: Server) -> None:
    server.answers["GET /v2/models/a%20b%3F%23%2F%C3%A9/ready"] = (200, b"")
    assert server.api.model_ready("a b?#/é") is True


# ---------------------------------------------------------------- states


def test_the_states_of_the_models_named(server: Server) -> None:
    server.answers[INDEX] = (200, recorded("index.json"))
    assert server.api.states(["ens", "misnamed", "bad", "unlisted", "bad"]) == (
        ModelState("ens", "1", "READY"),
        ModelState("misnamed"),
        ModelState("bad", "1", "UNAVAILABLE", "Internal: RuntimeError: no weights"),
    )


def test_a_models_versions_are_told_apart(server: Server) -> None:
    index = [{"name": "m", "version": v, "state": s} for v, s in (("2", "LOADING"), ("1", "UNLOADING"))]
    server.answers[INDEX] = (200, json.dumps(index).encode())
    assert server.api.states(("m",)) == (ModelState("m", "2", "LOADING"), ModelState("m", "1", "UNLOADING"))


def test_a_reason_cannot_steer_the_terminal_and_is_one_line(server: Server) -> None:
    index = [{"name": "m", "state": "UNAVAILABLE", "reason": "\n\x1b[2Ja\u202eb\r\nc" + "d" * 5000 + "\n\nAt:\n x"}]
    server.answers[INDEX] = (200, json.dumps(index).encode())
    (state,) = server.api.states(("m",))
    assert state.reason.startswith(r"\x1b[2Ja\u202eb\r cddd")
    assert state.reason.isprintable()
    assert len(state.reason) < 500


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"{}", b"7", b"[1, null, {}]", b'[{"name": ["double"]}]', HTML, b"\xff\xfe", b"[" * 10**5],
)
def test_an_index_that_makes_no_sense_tells_of_no_model(server: Server, body: bytes) -> None:
    server.answers[INDEX] = (200, body)
    assert server.api.states(("double",)) == ()


def test_parts_that_make_no_sense_are_left_out(server: Server) -> None:
    server.answers[INDEX] = (200, b'[{"name": "m", "version": 1, "state": null, "reason": ["x"]}]')
    (state,) = server.api.states(("m",))
    assert (state.name, state.version, state.state) == ("m", "", "")


# ---------------------------------------------------------------- version


def test_the_version_of_the_server(server: Server) -> None:
    server.answers[SERVER] = (200, recorded("server.json"))
    assert server.api.version() == "2.51.0"


@pytest.mark.parametrize("body", [b"[]", b'{"version": 2}', b"{}", HTML, b'{"version": "2.5'])
def test_a_version_that_is_not_told_is_empty(server: Server, body: bytes) -> None:
    server.answers[SERVER] = (200, body)
    assert server.api.version() == ""


# ---------------------------------------------------------------- whatever a network can do


def test_an_error_is_no_answer(server: Server) -> None:
    for asked in (READY, MODEL, INDEX, SERVER, METRICS):
        server.answers[asked] = (500, b"[]")
    api = server.api
    assert api.server_ready() is False
    assert (api.model_ready("double"), api.states(("double",)), api.version(), api.counters()) == (False, (), "", None)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"HTTP/1.1 20",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n[]",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n[]",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
    ],
)
def test_a_broken_answer_is_none(server: Server, raw: bytes) -> None:
    for asked in (READY, MODEL, INDEX, SERVER, METRICS):
        server.raw[asked] = raw
    api = server.api
    assert (api.server_ready(), api.model_ready("double"), api.states(("double",))) == (None, False, ())
    assert (api.version(), api.counters()) == ("", None)


def test_a_server_that_takes_the_call_and_says_nothing(server: Server) -> None:
    server.silent = {READY, MODEL, INDEX, SERVER, METRICS}
    api = server.api
    assert (api.server_ready(), api.model_ready("double"), api.states(("double",))) == (None, False, ())
    assert (api.version(), api.counters()) == ("", None)


def test_a_server_that_answers_byte_by_byte_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton, "_BODY_S", -1.0)  # the time is over with the first part
    server.answers[SERVER] = (200, recorded("server.json"))
    assert server.api.version() == ""


def test_a_body_is_read_to_a_bound_only(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    text = recorded("server.json")
    server.raw[SERVER] = b"HTTP/1.0 200 OK\r\n\r\n" + text
    monkeypatch.setattr(triton, "MAX_BODY_BYTES", len(text))
    assert server.api.version() == "2.51.0"
    monkeypatch.setattr(triton, "MAX_BODY_BYTES", len(text) - 1)
    assert server.api.version() == ""


@pytest.mark.parametrize("host", ["", "no such host", "a" * 300, "\u2603.invalid", "a..b", "x\0y", "a\nb"])
def test_a_host_that_cannot_be_is_not_there(host: str) -> None:
    assert TritonApi(host, 1, 1).server_ready() is None
    assert port_accepts(host, 1, 0.1) is False


def test_no_proxy_is_asked(server: Server, monkeypatch: pytest.MonkeyPatch, closed_port: int) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port}")
    server.answers[READY] = (200, b"")
    assert server.api.server_ready() is True


def test_a_port_accepts_or_not(server: Server, closed_port: int) -> None:
    assert port_accepts("127.0.0.1", server.port, 1.0) is True
    assert port_accepts("127.0.0.1", closed_port, 1.0) is False
    assert port_accepts("127.0.0.1", 70_000, 1.0) is False


# ---------------------------------------------------------------- counters


def look(server: Server, text: str | bytes) -> Counters:
    server.answers[METRICS] = (200, text if isinstance(text, bytes) else text.encode())
    counters = server.api.counters()
    assert counters is not None
    return counters


def test_what_was_served_between_two_looks(server: Server) -> None:
    idle, served = look(server, recorded("metrics_idle.txt")), look(server, recorded("metrics_served.txt"))
    double = ModelServed("double", "1", 4, 0, 4, 4, 128 / 4, (219 + 29855 + 477) / 4, 30699 / 4)
    failed = ModelServed("ens", "1", 0, 2, 0, 0, None, None, None)
    assert facts("2.51.0", idle, served) == TritonFacts("2.51.0", (double, failed), ())
    assert facts("2.51.0", None, served) == TritonFacts("2.51.0", (double, failed), ())
    nothing = facts("", served, served)
    assert nothing is not None
    assert nothing.models == (ModelServed("double", "1", 0, 0, 0, 0), ModelServed("ens", "1", 0, 0, 0, 0))
    assert facts("2.51.0", idle, None) is None


def counted(version: str = "1", **counters: float) -> Counters:
    return Counters({("m", version): counters})


def one(before: Counters | None, after: Counters) -> ModelServed:
    found = facts("", before, after)
    assert found is not None
    (model,) = found.models
    return model


def test_of_a_shared_server_only_the_difference_counts() -> None:
    before = counted(requests=10, failures=1, inferences=40, executions=5, request_us=1000, queue_us=100)
    after = counted(requests=12, failures=4, inferences=44, executions=6, request_us=1500, queue_us=104)
    assert one(before, after) == ModelServed("m", "1", 2, 3, 4, 1, 2.0, None, 250.0)


def test_counters_that_start_again_are_taken_as_they_are() -> None:
    before = counted(requests=10, failures=1, request_us=1000)
    assert one(before, counted(requests=12, failures=0, request_us=1200)) == ModelServed(
        "m", "1", 12, 0, request_us_mean=100.0
    )
    assert one(before, counted(requests=12)) == ModelServed("m", "1", 12)


def test_a_version_loaded_meanwhile_counts_from_zero() -> None:
    assert one(counted("1", requests=5), counted("2", requests=3)) == ModelServed("m", "2", 3)


def test_answers_from_the_cache_take_no_part_in_the_time_of_computing() -> None:
    model = one(None, counted(requests=10, cached=8, compute_us=500, request_us=1000))
    assert (model.compute_us_mean, model.request_us_mean) == (250.0, 100.0)
    assert one(None, counted(requests=8, cached=8, compute_us=0, request_us=80)).compute_us_mean is None


def test_versions_are_sorted_as_numbers() -> None:
    after = Counters({("b", "1"): {}, ("a", "10"): {}, ("a", "9"): {}, ("a", "x"): {}})
    found = facts("", None, after)
    assert found is not None
    assert [(m.name, m.version) for m in found.models] == [("a", "x"), ("a", "9"), ("a", "10"), ("b", "1")]


def test_counters_of_older_servers_are_added_up(server: Server) -> None:
    text = """\
nv_inference_request_success{gpu_uuid="GPU-a",model="m",version="1"} 2
nv_inference_request_success{gpu_uuid="GPU-b",model="m",version="1"} 3
nv_inference_compute_duration_us{gpu_uuid="GPU-a",model="m",version="1"} 40
nv_inference_compute_duration_us{gpu_uuid="GPU-b",model="m",version="1"} 60
nv_inference_request_failure{model="m",version="1"} 1
"""
    assert one(None, look(server, text)) == ModelServed("m", "1", 5, 1, compute_us_mean=20.0)


def test_gpus_are_as_last_told_and_none_is_not_zero(server: Server) -> None:
    after = look(server, GPU)
    found = facts("", look(server, GPU.replace("75.4321", "300")), after)
    assert found is not None
    assert found.gpus == (
        TritonGpu("GPU-a", memory_used_bytes=0),
        TritonGpu("GPU-b", 1048576, 150754820096, 25.0, 75432),
    )


@pytest.mark.parametrize("body", [b"", HTML, b"{", b'a{b="c} 1', b"a 1 2 3 4", b"nv_inference_count{model} x"])
def test_metrics_that_make_no_sense_are_none(server: Server, body: bytes) -> None:
    server.answers[METRICS] = (200, body)
    assert server.api.counters() is None


def test_a_server_without_metrics_has_none(server: Server, closed_port: int) -> None:
    assert server.api.counters() is None
    assert TritonApi("127.0.0.1", server.port, closed_port).counters() is None


def test_numbers_that_are_none_are_left_out(server: Server) -> None:
    text = 'nv_inference_request_success{model="m",version="1"} +Inf\nnv_inference_count{model="m",version="1"} -1\n'
    assert look(server, text) == Counters()


def test_the_parser_is_not_loaded_before_metrics_are_read() -> None:
    code = "import sys, cpost.cli, cpost.measure.triton; sys.exit('prometheus_client' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
