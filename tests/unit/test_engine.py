"""What the SDK raises and what registries say, turned into one message and one thing to do."""

from __future__ import annotations

import gc
import socket
import struct
import unicodedata
import warnings
from pathlib import Path
from typing import Any

import docker
import pytest
import requests
import urllib3
from hypothesis import given
from hypothesis import strategies as st

from cpost.errors import EngineError, EngineLost, HostError
from cpost.measure.engine import Engine
from cpost.measure.engine_errors import printable
from cpost.measure.pulling import split_reference


def api_error(status: int | None, words: str) -> docker.errors.APIError:
    response = None
    if status is not None:
        response = requests.Response()
        response.status_code = status
    return docker.errors.APIError(f"{status}: {words}", response=response, explanation=words)


class Api:
    """Answers every call with the same error, or with what it is told."""

    def __init__(self, error: Exception | None = None, **answers: Any) -> None:
        self.error = error
        self.answers = answers
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append((name, args, kwargs))
            if self.error is not None:
                raise self.error
            return self.answers[name]

        return call


def engine(error: Exception | None = None, **answers: Any) -> Engine:
    made = Engine.__new__(Engine)
    made.address = "unix:///x"
    made._api = made._pull_api = Api(error, **answers)  # type: ignore[assignment]
    return made


# ---------------------------------------------------------------- families of errors

LOST = [
    requests.ConnectionError("reset"),
    requests.ReadTimeout("Read timed out."),
    requests.exceptions.ChunkedEncodingError("cut"),
    urllib3.exceptions.ProtocolError("cut"),
    docker.errors.StreamParseError("garbage"),
    struct.error("unpack requires 8 bytes"),
]


@pytest.mark.parametrize("error", LOST, ids=lambda error: type(error).__name__)
def test_every_family_of_the_sdk_s_errors_is_mapped(error: Exception) -> None:
    with pytest.raises(EngineError) as caught:
        engine(error).log_tail("c", 3)
    assert caught.value.message.startswith("engine: read log: ")
    assert caught.value.hint
    assert caught.value.status is None
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", LOST[:4], ids=lambda error: type(error).__name__)
def test_a_broken_connection_is_a_lost_engine(error: Exception) -> None:
    with pytest.raises(EngineLost, match="the connection was lost") as caught:
        engine(error).start("c")
    assert "cpost clean" in caught.value.hint


@pytest.mark.parametrize("status", [400, 404, 409, 500])
def test_the_engine_s_own_words_are_kept(status: int) -> None:
    with pytest.raises(EngineError) as caught:
        engine(api_error(status, "no such \x1b[31mthing")).start("c")
    assert not isinstance(caught.value, EngineLost)
    assert (caught.value.status, caught.value.reason) == (status, r"no such \x1b[31mthing")
    assert caught.value.message == r"engine: start container: no such \x1b[31mthing"


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        ("mkdir /var/lib: no space left on device", "docker system df"),
        (
            "could not find an available, non-overlapping IPv4 address pool: all predefined address pools",
            "network prune",
        ),
        ('could not select device driver "" with capabilities: [[gpu]]', "NVIDIA driver"),
        ("something else", "cpost doctor"),
    ],
)
def test_the_hint_fits_the_engine_s_words(words: str, remedy: str) -> None:
    with pytest.raises(EngineError) as caught:
        engine(api_error(500, words)).create_network("n", {})
    assert remedy in caught.value.hint


@pytest.mark.parametrize(
    "error", [docker.errors.DockerException("odd"), requests.exceptions.InvalidURL("odd"), api_error(None, "odd")]
)
def test_other_errors_of_the_families_are_the_engine_s(error: Exception) -> None:
    with pytest.raises(EngineError, match="odd"):
        engine(error).inspect("c")


def test_a_bug_stays_a_bug() -> None:
    with pytest.raises(ZeroDivisionError):
        engine(ZeroDivisionError()).inspect("c")


def test_whether_it_answers() -> None:
    assert engine(ping=True).answers()
    assert not engine(requests.ConnectionError()).answers()


# ---------------------------------------------------------------- pulls

HUB, OWN = "library/x:1", "reg.example:5000/x:1"


@pytest.mark.parametrize(
    ("reason", "remedy"),
    [
        ("Head https://reg: no basic auth credentials", "log in"),
        ("unexpected status from HEAD request: 401 Unauthorized", "log in"),
        ("pull access denied for x, repository does not exist or may require 'docker login'", "log in"),
        ("error parsing HTTP 403 response body: denied: forbidden", "log in"),
        ("manifest unknown: manifest unknown", "check the name and tag"),
        ("manifest for x:1 not found", "check the name and tag"),
        ("toomanyrequests: You have reached your pull rate limit", "wait"),
        ("received unexpected HTTP status: 429", "wait"),
        ("dial tcp 127.0.0.1:5000: connect: connection refused", "can be reached"),
        ("lookup reg.example: no such host", "can be reached"),
        ("failed to register layer: write /x: no space left on device", "docker system df"),
    ],
)
@pytest.mark.parametrize("as_event", [True, False])
def test_a_pull_that_failed_says_what_to_do(reason: str, remedy: str, as_event: bool) -> None:
    pulling = engine(pull=[{"status": "Pulling"}, {"error": reason}]) if as_event else engine(api_error(500, reason))
    with pytest.raises(HostError) as caught:
        pulling.pull(OWN, lambda _: None)
    assert caught.value.message == f"cannot pull image {OWN}: {reason}"
    assert remedy in caught.value.hint


@pytest.mark.parametrize("reason", ["denied", "manifest unknown", "toomanyrequests", "no such host"])
@pytest.mark.parametrize(
    ("reference", "login"),
    [
        (OWN, "docker login reg.example:5000"),
        ("nvcr.io/nvidia/x@sha256:ab", "docker login nvcr.io"),
        ("localhost/x", "docker login localhost"),
        (HUB, "docker login"),
        ("alpine", "docker login"),
    ],
)
def test_a_log_in_names_the_registry(reason: str, reference: str, login: str) -> None:
    with pytest.raises(HostError) as caught:
        engine(api_error(500, reason)).pull(reference, lambda _: None)
    assert login in caught.value.hint
    assert "login )" not in caught.value.hint
    assert (login == "docker login") == ("docker login " not in caught.value.hint.replace("docker login;", ""))


def test_a_pull_over_a_lost_connection_is_a_lost_engine() -> None:
    with pytest.raises(EngineLost):
        engine(requests.ConnectionError("reset")).pull(HUB, lambda _: None)


def test_a_pull_tells_its_progress_safely() -> None:
    events = [{"status": "Pulling", "id": "a1"}, {"id": "a1", "status": "Down\x1b[2J", "progress": "[=> ]"}, {}]
    told: list[str] = []
    made = engine(pull=events)
    made.pull("reg.example/x:2", told.append)
    assert told == ["a1 Pulling", r"a1 Down\x1b[2J [=> ]", ""]
    assert made._api.calls == [("pull", ("reg.example/x",), {"tag": "2", "stream": True, "decode": True})]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("reference", "wanted"),
    [
        ("alpine", ("alpine", "latest")),
        ("alpine:3.20", ("alpine", "3.20")),
        ("reg.io:5000/a/b", ("reg.io:5000/a/b", "latest")),
        ("reg.io:5000/a/b:1.2", ("reg.io:5000/a/b", "1.2")),
        ("a/b@sha256:0123", ("a/b", "sha256:0123")),
        ("reg.io:5000/a@sha256:0123", ("reg.io:5000/a", "sha256:0123")),
    ],
)
def test_references_are_split_for_the_sdk(reference: str, wanted: tuple[str, str]) -> None:
    assert split_reference(reference) == wanted


# ---------------------------------------------------------------- no engine


@pytest.mark.parametrize(
    ("words", "what", "remedy"),
    [
        (
            "('Connection aborted.', PermissionError(13, 'Permission denied'))",
            "may not use its socket",
            "usermod -aG docker",
        ),
        ("('Connection aborted.', FileNotFoundError(2, 'No such file or directory'))", "no such socket", "docker.io"),
        ("('Connection aborted.', ConnectionRefusedError(111, 'Connection refused'))", "refused", "systemctl start"),
        ("Name or service not known", "somewhere: Name or service not known", "DOCKER_HOST"),
        (
            "HTTPConnectionPool(host='x', port=1): Max retries exceeded with url: /v (Caused by NameResolutionError"
            "(\"HTTPConnection(host='x', port=1): Failed to resolve 'x' ([Errno -2] Name unknown)\"))",
            "somewhere: Name unknown",
            "DOCKER_HOST",
        ),
        ("Install paramiko package to enable ssh:// support", "does not speak SSH", "ssh -NL"),
    ],
)
def test_without_an_engine_the_hint_fits_the_failure(
    monkeypatch: pytest.MonkeyPatch, words: str, what: str, remedy: str
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise docker.errors.DockerException(f"Error while fetching server API version: {words}")

    monkeypatch.setenv("DOCKER_HOST", "unix:///somewhere")
    monkeypatch.setattr(docker, "APIClient", refuse)
    with pytest.raises(HostError) as caught:
        Engine()
    assert "no Docker engine answers at unix:///somewhere" in caught.value.message
    assert what in caught.value.message
    assert "Pool" not in caught.value.message
    assert remedy in caught.value.hint


def test_an_engine_of_another_host_is_not_started_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise docker.errors.DockerException("NewConnectionError('...: [Errno 111] Connection refused')")

    monkeypatch.setenv("DOCKER_HOST", "tcp://far:2375")
    monkeypatch.setattr(docker, "APIClient", refuse)
    with pytest.raises(HostError, match="the connection was refused") as caught:
        Engine()
    assert "systemctl" not in caught.value.hint


def test_a_missing_socket_in_earnest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with pytest.raises(HostError, match="there is no such socket"):
        Engine()


def test_a_dead_socket_in_earnest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "dead.sock"))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/dead.sock")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the SDK forgets its socket
        with pytest.raises(HostError, match="the connection was refused"):
            Engine()
        gc.collect()


@pytest.mark.parametrize("address", ["ftp://x", "fd://1", "npipe://x", "tcp://x:y:z", "http://[::"])
def test_an_address_that_is_none_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, address: str) -> None:
    monkeypatch.setenv("DOCKER_HOST", address)
    with pytest.raises(HostError) as caught:
        Engine()
    assert address in caught.value.message


# ---------------------------------------------------------------- text of strangers


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("plain, größer, 日本, 🙂", "plain, größer, 日本, 🙂"),
        ("a\tb", "a    b"),
        ("done\r", "done"),
        ("50%\r100%", r"50%\r100%"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x00\x08\x7f", r"\x00\x08\x7f"),
        ("\x9b31m", r"\x9b31m"),
        ("\u202eevil\u202c", r"\u202eevil\u202c"),
        ("\u2066a\u2069", r"\u2066a\u2069"),
        ("a\u2028b\u200bc\ufeff", r"a\u2028b\u200bc\ufeff"),
        ("\ud800", r"\ud800"),
        ("back\\slash", "back\\slash"),
    ],
)
def test_what_would_steer_a_terminal_is_escaped(text: str, wanted: str) -> None:
    assert printable(text) == wanted


@given(st.text(st.characters()))
def test_no_text_steers_a_terminal(text: str) -> None:
    shown = printable(text)
    assert {unicodedata.category(char) for char in shown}.isdisjoint({"Cc", "Cf", "Cs", "Zl", "Zp"})
    shown.encode("utf-8")
