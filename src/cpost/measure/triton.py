"""A Triton inference server's HTTP side: is it ready, what has it loaded, what has it done.

Nothing here raises for what a server or a network can do: an answer that makes no sense is no answer. Paths and bodies
are those of the KServe v2 protocol with Triton's model repository extension, the metrics those of its manual.
"""

from __future__ import annotations

import http.client
import json
import math
import socket
import time
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from cpost.measure.engine_errors import printable
from cpost.model import ModelServed, TritonFacts, TritonGpu

MAX_BODY_BYTES = 8 * 1024 * 1024

_OK = 200
_NOT_FOUND = 404
_TIMEOUT_S = 2.0
_BODY_S = 5.0
_CHUNK_BYTES = 64 * 1024
_REASON_CHARACTERS = 400

# Our words for the server's counters. The failures come once for each reason, older servers tell each counter once for
# each GPU: all that a model's version has of one name is added up.
_COUNTERS = {
    "nv_inference_request_success": "requests",
    "nv_inference_request_failure": "failures",
    "nv_inference_count": "inferences",
    "nv_inference_exec_count": "executions",
    "nv_cache_num_hits_per_model": "cached",
    "nv_inference_request_duration_us": "request_us",
    "nv_inference_queue_duration_us": "queue_us",
    "nv_inference_compute_input_duration_us": "compute_us",
    "nv_inference_compute_infer_duration_us": "compute_us",
    "nv_inference_compute_output_duration_us": "compute_us",
    "nv_inference_compute_duration_us": "compute_us",  # the one counter of servers with the v1 API
}
# Our fields, and what the server's unit (bytes, share of one, watt) is multiplied by.
_GAUGES = {
    "nv_gpu_memory_used_bytes": ("memory_used_bytes", 1),
    "nv_gpu_memory_total_bytes": ("memory_total_bytes", 1),
    "nv_gpu_utilization": ("utilization_pct", 100),
    "nv_gpu_power_usage": ("power_mw", 1000),
}

ModelKey = tuple[str, str]


@dataclass(frozen=True, slots=True)
class ModelState:
    """What the repository's index says of a model's version.

    Attributes:
        version: empty where none was loaded.
        state: READY, LOADING, UNLOADING or UNAVAILABLE; empty = never loaded, as an ensemble whose parts failed.
        reason: why it is not ready, the first paragraph in one printable line; empty where the server gives none.
    """

    name: str
    version: str = ""
    state: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Counters:
    """One look at a server's metrics: by (model, version) the counters since its start, and its GPUs."""

    models: Mapping[ModelKey, Mapping[str, float]] = field(default_factory=dict)
    gpus: tuple[TritonGpu, ...] = ()


class TritonApi:
    """Asks one server, with a connection for each question.

    Args:
        host: address or name; no proxy stands in between.
        timeout_s: how long to wait for a connection, and for each next part of an answer.
    """

    def __init__(
        self, host: str, http_port: int = 8000, metrics_port: int = 8002, *, timeout_s: float = _TIMEOUT_S
    ) -> None:
        self._host = host
        self._http_port = http_port
        self._metrics_port = metrics_port
        self._timeout_s = timeout_s

    def server_ready(self) -> bool | None:
        """Whether the server and all models that it was told to load are ready; None = no Triton answers.

        A server of which one model failed stays at False for good: `states` says which.
        """
        status = self._status("/v2/health/ready")
        if status == _NOT_FOUND:  # a server from before the v2 protocol
            status = self._status("/api/health/ready")
        return None if status in (None, _NOT_FOUND) else status == _OK

    def model_ready(self, name: str) -> bool:
        """Whether some version of a model can be asked; where the v2 protocol is not known, whether the server is."""
        status = self._status(f"/v2/models/{quote(name, safe='')}/ready")
        if status == _NOT_FOUND:
            status = self._status("/api/health/ready")
        return status == _OK

    def states(self, names: Iterable[str]) -> tuple[ModelState, ...]:
        """What the server says of the models named, in that order, their versions in the server's.

        A model that the server does not list (it found no version of it) is left out; () where nobody answers.
        """
        found = _json(self._get(self._http_port, "/v2/repository/index", method="POST"))
        entries = [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []
        return tuple(_state(entry) for name in dict.fromkeys(names) for entry in entries if entry.get("name") == name)

    def version(self) -> str:
        """The server's version; empty where it does not tell."""
        found = _json(self._get(self._http_port, "/v2"))
        return _text(found.get("version")) if isinstance(found, dict) else ""

    def counters(self) -> Counters | None:
        """The server's metrics as of now; None where there are none, or none that can be read."""
        answer = self._get(self._metrics_port, "/metrics")
        return _counters(answer[1]) if answer and answer[0] == _OK else None

    def _status(self, path: str) -> int | None:
        answer = self._get(self._http_port, path)
        return answer[0] if answer else None

    def _get(self, port: int, path: str, *, method: str = "GET") -> tuple[int, bytes] | None:
        """Status and body of an answer; None where none came whole, in time, and below `MAX_BODY_BYTES`."""
        try:
            with closing(http.client.HTTPConnection(self._host, port, timeout=self._timeout_s)) as connection:
                connection.request(method, path)
                response = connection.getresponse()
                body = _body(response, time.monotonic() + _BODY_S)
        except (OSError, http.client.HTTPException, ValueError):
            return None
        return None if body is None else (response.status, body)


def port_accepts(host: str, port: int, timeout_s: float) -> bool:
    """Whether something takes a connection at a port within that time."""
    try:
        with socket.create_connection((host, port), timeout=timeout_s):
            return True
    except (OSError, ValueError):
        return False


def facts(version: str, before: Counters | None, after: Counters | None) -> TritonFacts | None:
    """What a server did between two looks.

    Args:
        before: None = the server was started for this: its counters began at zero.
        after: None = it tells nothing.

    Returns:
        None where there is no look afterwards. A model any of whose counters fell was loaded anew, or its server
        started anew: what it counted since then is all that is known. GPUs are as of the second look.
    """
    if after is None:
        return None
    earlier = before.models if before else {}
    served = (_served(key, _risen(earlier.get(key, {}), after.models[key])) for key in sorted(after.models, key=_order))
    return TritonFacts(version, tuple(served), after.gpus)


# ---------------------------------------------------------------- answers


def _body(response: http.client.HTTPResponse, deadline: float) -> bytes | None:
    """The whole body; None where it is too long, cut short, or takes too long.

    `read1` returns with what has come, so that the deadline is seen while a server sends byte by byte.
    """
    parts: list[bytes] = []
    length, stated = 0, response.length
    while part := response.read1(_CHUNK_BYTES):
        parts.append(part)
        length += len(part)
        if length > MAX_BODY_BYTES or time.monotonic() > deadline:
            return None
    return b"".join(parts) if stated in (None, length) else None


def _json(answer: tuple[int, bytes] | None) -> Any:
    if answer is None or answer[0] != _OK:
        return None
    try:
        return json.loads(answer[1])
    except (ValueError, RecursionError):
        return None


def _state(entry: Mapping[str, Any]) -> ModelState:
    reason, _, _ = str(entry.get("reason") or "").strip().partition("\n\n")
    return ModelState(
        name=str(entry["name"]),
        version=_text(entry.get("version")),
        state=_text(entry.get("state")),
        reason=_text(" ".join(reason.split("\n"))),
    )


def _text(value: object) -> str:
    return printable(value[:_REASON_CHARACTERS]) if isinstance(value, str) else ""


# ---------------------------------------------------------------- metrics


def _counters(body: bytes) -> Counters | None:
    from prometheus_client.parser import text_string_to_metric_families

    models: dict[ModelKey, dict[str, float]] = {}
    gpus: dict[str, dict[str, int | float]] = {}
    try:
        families = list(text_string_to_metric_families(body.decode("utf-8", "replace")))
    except Exception:  # the parser names no errors of its own, and meets whatever listens at the port
        return None
    for sample in (sample for family in families for sample in family.samples):
        name, labels, value = sample.name.removesuffix("_total"), sample.labels, sample.value  # the parser adds _total
        if not math.isfinite(value) or value < 0:
            continue
        if name in _COUNTERS and "model" in labels:
            counted = models.setdefault((labels["model"], labels.get("version", "")), {})
            counted[_COUNTERS[name]] = counted.get(_COUNTERS[name], 0) + value
        elif name in _GAUGES and "gpu_uuid" in labels:
            amount, factor = _GAUGES[name]
            gpus.setdefault(labels["gpu_uuid"], {})[amount] = value * factor
    if not any(family.name.startswith("nv_") for family in families):
        return None  # something else's metrics
    return Counters(models, tuple(_gpu(uuid, read) for uuid, read in sorted(gpus.items())))


def _gpu(uuid: str, read: Mapping[str, int | float]) -> TritonGpu:
    return TritonGpu(
        printable(uuid),
        memory_used_bytes=_whole(read.get("memory_used_bytes")),
        memory_total_bytes=_whole(read.get("memory_total_bytes")),
        utilization_pct=read.get("utilization_pct"),
        power_mw=_whole(read.get("power_mw")),
    )


def _risen(before: Mapping[str, float], after: Mapping[str, float]) -> Mapping[str, float]:
    if any(after.get(name, 0) < value for name, value in before.items()):
        return after
    return {name: value - before.get(name, 0) for name, value in after.items()}


def _served(key: ModelKey, risen: Mapping[str, float]) -> ModelServed:
    requests = risen.get("requests")
    computed = None if requests is None else requests - risen.get("cached", 0)
    return ModelServed(
        name=printable(key[0]),
        version=printable(key[1]),
        requests=_whole(requests),
        failures=_whole(risen.get("failures")),
        inferences=_whole(risen.get("inferences")),
        executions=_whole(risen.get("executions")),
        queue_us_mean=_mean(risen.get("queue_us"), requests),
        compute_us_mean=_mean(risen.get("compute_us"), computed),
        request_us_mean=_mean(risen.get("request_us"), requests),
    )


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)


def _mean(total: float | None, count: float | None) -> float | None:
    return total / count if total is not None and count is not None and count > 0 else None


def _order(key: ModelKey) -> tuple[str, int, str]:
    name, version = key
    return name, int(version) if version.isdecimal() else -1, version
