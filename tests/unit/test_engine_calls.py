"""What the adapter asks of the engine, and what it makes of the answers."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import docker
import pytest
import requests
from builders import step
from test_engine import Api, api_error, engine

from cpost.errors import EngineError, EngineLost
from cpost.measure.engine import ContainerState, Engine, EngineFacts, Owned
from cpost.model import Mount


def calls(made: Engine) -> list[tuple[str, tuple[Any, ...], dict[str, Any]]]:
    api: Any = made._api
    return api.calls  # type: ignore[no-any-return]


def answering(**answers: Any) -> Engine:
    """An engine whose host configs are the SDK's own."""
    made = engine(**answers)
    made._api.create_host_config = docker.APIClient("unix:///x", version="1.41").create_host_config  # type: ignore[method-assign]
    return made


# ---------------------------------------------------------------- containers


def created(**stated: Any) -> dict[str, Any]:
    made = answering(create_container={"Id": "c1"})
    assert made.create(step(**stated), "name", {"l": "v"}, "net", "/parent") == "c1"
    ((_, (image,), given),) = calls(made)
    return {"image": image, **given, **given["host_config"]}


def test_a_container_is_fenced_in() -> None:
    made = created(memory_limit_bytes=2**30, shm_bytes=2**26, pids_limit=99)
    assert (made["image"], made["name"], made["labels"], made["NetworkMode"]) == ("img:1", "name", {"l": "v"}, "net")
    assert (made["Memory"], made["MemorySwap"], made["ShmSize"], made["PidsLimit"]) == (2**30, 2**30, 2**26, 99)
    assert made["SecurityOpt"] == ["no-new-privileges"]
    assert made["CgroupParent"] == "/parent"
    assert made["Init"] is True
    assert made["RestartPolicy"] == {"Name": "no"}
    assert made["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "2"}}
    assert not {"Privileged", "AutoRemove", "Binds", "DeviceRequests"} & made.keys()


def test_a_container_gets_its_command_variables_mounts_and_gpus() -> None:
    mounts = (Mount("/host/a:b, c", "/in", read_only=True), Mount("/host/out", "/out", read_only=False))
    made = created(command=("sh", "-c", ""), env=(("A", "1"), ("B", "x=y\n")), mounts=mounts, gpu_count=2)
    assert made["command"] == ["sh", "-c", ""]
    assert made["environment"] == {"A": "1", "B": "x=y\n"}
    assert [(m["Type"], m["Source"], m["Target"], m["ReadOnly"]) for m in made["Mounts"]] == [
        ("bind", "/host/a:b, c", "/in", True),
        ("bind", "/host/out", "/out", False),
    ]
    assert made["DeviceRequests"][0]["Count"] == 2


def test_without_a_command_the_image_decides() -> None:
    assert created()["command"] is None


def test_inspect_tells_the_state() -> None:
    state = {"Status": "exited", "Pid": 0, "ExitCode": 137, "OOMKilled": True, "Error": "", "More": 1}
    assert engine(inspect_container={"State": state}).inspect("c") == ContainerState("exited", 0, 137, True)
    assert engine(inspect_container={"State": {}}).inspect("c") == ContainerState("", 0, 0, False)
    times = {"StartedAt": "2026-01-01T00:00:00.5Z", "FinishedAt": "0001-01-01T00:00:00Z"}
    state_then = engine(inspect_container={"State": times}).inspect("c")
    assert (state_then.started_at_ns, state_then.finished_at_ns) == (1767225600_500_000_000, None)


def test_statistics_come_one_after_the_other() -> None:
    made = engine(stats=iter([{"read": "1"}, {"read": "2"}]))
    assert [each["read"] for each in made.stats("c")] == ["1", "2"]
    assert calls(made) == [("stats", ("c",), {"decode": True, "stream": True})]
    with pytest.raises(EngineLost):
        list(engine(requests.ConnectionError("reset")).stats("c"))


@pytest.mark.parametrize(
    "error", [requests.ConnectionError("UnixHTTPConnectionPool: Read timed out."), requests.ReadTimeout("timed out")]
)
def test_waiting_in_vain_is_no_error(error: Exception) -> None:
    assert engine(error).wait("c", 5) is None


@pytest.mark.parametrize("error", [requests.ConnectionError("reset"), requests.exceptions.ChunkedEncodingError("cut")])
def test_waiting_over_a_lost_connection_is_one(error: Exception) -> None:
    with pytest.raises(EngineLost):
        engine(error).wait("c", 5)


def test_waiting_for_a_container_that_is_gone_is_an_error_with_its_status() -> None:
    with pytest.raises(EngineError) as caught:
        engine(api_error(404, "No such container")).wait("c", 5)
    assert caught.value.status == 404


def test_the_wait_tells_the_exit_code() -> None:
    assert engine(wait={"StatusCode": 44, "Error": None}).wait("c", 5) == 44


@pytest.mark.parametrize(("status", "raised"), [(404, False), (409, False), (500, True)])
def test_a_signal_to_a_container_that_has_ended_is_no_error(status: int, raised: bool) -> None:
    made = engine(api_error(status, "x"))
    if raised:
        with pytest.raises(EngineError):
            made.signal("c", "SIGTERM")
    else:
        made.signal("c", "SIGTERM")


def test_the_log_s_last_lines_are_safe_and_short() -> None:
    raw = b"one\n\n  \ntwo\x1b[2J\xff\r\n" + b"x" * 1000 + b"\nlast"
    made = engine(logs=raw)
    assert made.log_tail("c", 20) == ("one", r"two\x1b[2J\xff", "x" * 400, "last")
    assert made.log_tail("c", 2) == ("x" * 400, "last")
    assert calls(made)[0] == ("logs", ("c",), {"tail": 20})
    assert engine(logs=b"").log_tail("c", 5) == ()


# ---------------------------------------------------------------- images and facts


def test_an_image_is_here_or_not() -> None:
    assert engine(inspect_image={"Id": "sha256:1"}).image_id("x") == "sha256:1"
    assert engine(api_error(404, "No such image")).image_id("x") is None
    with pytest.raises(EngineError):
        engine(api_error(500, "broken")).image_id("x")


def test_tags_of_local_images() -> None:
    images = [{"RepoTags": ["t:1", "t:2"]}, {"RepoTags": None}, {}]
    assert engine(images=images).images_named("t") == ["t:1", "t:2"]


def test_facts() -> None:
    info = {
        "Driver": "overlay2",
        "CgroupDriver": "systemd",
        "CgroupVersion": "2",
        "DockerRootDir": "/d",
        "Name": "h",
        "SecurityOptions": ["name=seccomp", "name=rootless"],
        "KernelVersion": "6.1",
        "Architecture": "aarch64",
        "OperatingSystem": "Docker Desktop",
        "NCPU": 12,
        "MemTotal": 10**9,
    }
    made = engine(info=info, version={"Version": "28.1", "ApiVersion": "1.49"})
    there = ("6.1", "aarch64", "Docker Desktop", 12, 10**9, "unix:///x")
    assert made.facts() == EngineFacts("Docker", "28.1", "1.49", "overlay2", "systemd", "2", "/d", "h", True, *there)
    assert engine(info={"SecurityOptions": None}, version={}).facts().rootless is False


@pytest.mark.parametrize(
    ("components", "product"),
    [(["Engine", "containerd", "runc"], "Docker"), (["Podman Engine", "Conmon", "OCI Runtime (runc)"], "Podman")],
)
def test_the_product_is_told_by_its_components(components: list[str], product: str) -> None:
    version = {"Version": "4.3.1", "Components": [{"Name": name} for name in components]}
    assert engine(info={}, version=version).facts().product == product


# ---------------------------------------------------------------- removing


def test_what_carries_a_label_containers_first() -> None:
    made = engine(
        containers=[{"Id": "1", "Names": ["/a"], "Labels": {"k": "v"}}, {"Id": "2", "Names": None, "Labels": {}}],
        networks=[{"Id": "3", "Name": "n", "Labels": None}],
    )
    assert made.owned({"k": "v", "any": ""}) == [
        Owned("container", "1", "a", {"k": "v"}),
        Owned("container", "2", "2", {}),
        Owned("network", "3", "n", {}),
    ]
    assert [call[2]["filters"] for call in calls(made)] == [{"label": ["k=v", "any"]}] * 2
    assert calls(made)[0][2]["all"] is True


@pytest.mark.parametrize(
    ("status", "words", "raised"),
    [
        (404, "No such container", False),
        (409, "removal of container x is already in progress", False),
        (409, "container is in use", True),
        (500, "device busy", True),
    ],
)
@pytest.mark.parametrize("kind", ["container", "network"])
def test_removing_what_is_gone_is_no_error(kind: str, status: int, words: str, raised: bool) -> None:
    made = engine(api_error(status, words))
    if raised:
        with pytest.raises(EngineError, match=f"remove {kind} x"):
            made.remove(Owned(kind, "id", "x", {}))
    else:
        made.remove(Owned(kind, "id", "x", {}))


def test_containers_go_by_force_with_their_volumes() -> None:
    made = engine(remove_container=None, remove_network=None)
    made.remove(Owned("container", "id", "x", {}))
    made.remove(Owned("network", "id", "x", {}))
    assert calls(made) == [
        ("remove_container", ("id",), {"force": True, "v": True}),
        ("remove_network", ("id",), {}),
    ]


class Labelled(Engine):
    """Shows these things, one list per look (then nothing), and refuses to remove as often as it is told."""

    def __init__(self, *looks: list[str], refusals: int = 0) -> None:
        self.looks = list(looks)
        self.looked = 0
        self.refusals = refusals
        self.removed: list[str] = []

    def owned(self, filters: Mapping[str, str]) -> list[Owned]:
        self.looked += 1
        assert self.looked < 1000, "it never ends"
        names = self.looks.pop(0) if len(self.looks) > 1 or not self.refusals else self.looks[0]
        return [Owned("container", name, name, {}) for name in names]

    def remove(self, item: Owned) -> None:
        if self.refusals:
            self.refusals -= 1
            raise EngineError("engine: busy")
        self.removed.append(item.name)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Time goes on by a second whenever somebody looks at it or sleeps."""
    now = [0.0]

    def tick(*_: float) -> float:
        now[0] += 1
        return now[0]

    monkeypatch.setattr(time, "monotonic", tick)
    monkeypatch.setattr(time, "sleep", tick)
    return now


def test_removing_looks_until_nothing_is_left_twice(clock: list[float]) -> None:
    late = Labelled(["a", "b"], [], ["c"], [], [])
    assert late.remove_labelled({"k": "v"}) == 3
    assert late.removed == ["a", "b", "c"]
    assert late.looked == 5


def test_one_look_is_enough_where_every_create_was_answered(clock: list[float]) -> None:
    made = Labelled(["a", "b"])
    with made._creating():
        pass
    assert made.remove_labelled({"k": "v"}) == 2
    assert made.looked == 1


def test_a_create_without_an_answer_may_come_late(clock: list[float]) -> None:
    made = Labelled(["a"], [], ["late"], [], [])
    with made._creating():
        pass
    with pytest.raises(TimeoutError), made._creating():
        raise TimeoutError
    with made._creating():
        pass
    assert made.remove_labelled({"k": "v"}) == 2
    assert made.looked == 5


def test_removing_tries_again(clock: list[float]) -> None:
    made = Labelled(["a"], ["a"], [], [], refusals=1)
    assert made.remove_labelled({}) == 1


def test_removing_gives_up_with_the_engine_s_words(clock: list[float]) -> None:
    with pytest.raises(EngineError, match="busy"):
        Labelled(["a"], refusals=10**6).remove_labelled({}, timeout_s=20)


def test_removing_ends_although_something_stays(clock: list[float]) -> None:
    class Stuck(Labelled):
        def owned(self, filters: Mapping[str, str]) -> list[Owned]:
            self.looks = [["a"], ["a"]]
            return super().owned(filters)

    with pytest.raises(EngineError):
        Stuck().remove_labelled({}, timeout_s=20)


def test_foreign_files_go_with_the_image_that_wrote_them(tmp_path: Any) -> None:
    (tmp_path / "-rf").write_text("")
    (tmp_path / "a b").mkdir()
    made = answering(create_container={"Id": "c1"}, start=None, wait={"StatusCode": 0})
    assert made.remove_files("img:1", str(tmp_path), {"l": "v"})
    (_, (image,), given), *rest = calls(made)
    assert (image, given["entrypoint"], given["user"]) == ("img:1", ["rm", "-rf", "--"], "0")
    assert sorted(given["command"]) == ["/cpost-remove/-rf", "/cpost-remove/a b"]
    assert given["host_config"]["NetworkMode"] == "none"
    assert [name for name, *_ in rest] == ["start", "wait"]


@pytest.mark.parametrize("code", [1, 127])
def test_where_that_does_not_work_it_says_so(tmp_path: Any, code: int) -> None:
    assert not answering(create_container={"Id": "c1"}, start=None, wait={"StatusCode": code}).remove_files(
        "i", str(tmp_path), {}
    )
    failing = answering()
    failing._api.error = api_error(500, "no such image")  # type: ignore[attr-defined]
    assert not failing.remove_files("i", str(tmp_path), {})
    assert isinstance(failing._api, Api)


def test_a_container_gets_what_replaces_the_image_s_own() -> None:
    plain = created()
    assert [plain[key] for key in ("entrypoint", "working_dir", "user", "networking_config")] == [None] * 4
    made = answering(create_container={"Id": "c1"}, create_endpoint_config="endpoint", create_networking_config="known")
    made.create(step(entrypoint=("sh",), workdir="/w", user="1:2", aliases=("db",)), "name", {}, "net", None)
    asked = {name: (args, given) for name, args, given in calls(made)}
    assert asked["create_endpoint_config"] == ((), {"aliases": ["db"]})
    assert asked["create_networking_config"] == (({"net": "endpoint"},), {})
    given = asked["create_container"][1]
    assert (given["entrypoint"], given["working_dir"], given["user"]) == (["sh"], "/w", "1:2")
    assert given["networking_config"] == "known"


def test_what_is_not_there_has_no_archive() -> None:
    assert engine(api_error(404, "no such file")).archive("c", "/x") is None
    assert list(engine(get_archive=(iter([b"1", b"2"]), {})).archive("c", "/x") or ()) == [b"1", b"2"]
    with pytest.raises(EngineError):
        engine(api_error(500, "broken")).archive("c", "/x")

    def cut() -> Iterator[bytes]:
        yield b"1"
        raise requests.ConnectionError("reset")

    with pytest.raises(EngineLost):
        list(engine(get_archive=(cut(), {})).archive("c", "/x") or ())
