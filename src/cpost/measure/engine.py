"""The engine: one adapter between cpost and the Docker SDK.

Every call has a name and a time-out, and each of the three families of errors that the SDK lets through (docker,
requests, urllib3) becomes an `EngineError`, `EngineLost` where the connection broke or the time ran out.
Containers are never removed by the engine itself: that would lose the exit code.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import docker
import requests
import urllib3
from docker.utils import kwargs_from_env

from cpost.errors import EngineError, EngineLost
from cpost.measure.engine_errors import FREE_ENGINE_DISK, no_engine, printable, pull_failed
from cpost.measure.pulling import pull_line, split_reference
from cpost.model import Step
from cpost.units import parse_time_ns

_CALL_TIMEOUT_S = 60
_PULL_TIMEOUT_S = 300
_REMOVE_PAUSE_S = 0.05
_NANOS_PER_MILLI = 10**6
_BUSY, _BUSY_TIMEOUT_S = 403, 3.0  # a network that somebody else's container hangs on
_LOG_LIMITS = {"max-size": "10m", "max-file": "2"}
# A stream cut in the middle of a frame or of a JSON object surfaces as one of the last two.
_CUT = (docker.errors.StreamParseError, struct.error)
_LOST = (
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
    urllib3.exceptions.HTTPError,
    *_CUT,
)
_FAMILIES = (docker.errors.DockerException, requests.RequestException, urllib3.exceptions.HTTPError, *_CUT)
# What an image may have for removing files.
_REMOVERS = (
    ("rm", "-rf", "--"),
    ("busybox", "rm", "-rf", "--"),
    ("python3", "-c", "import shutil, sys; [shutil.rmtree(each) for each in sys.argv[1:]]"),
)


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What the engine says of itself.

    Attributes:
        product: "Docker" or "Podman".
    """

    product: str
    version: str
    api: str
    storage_driver: str
    cgroup_driver: str
    cgroup_version: str
    root_folder: str
    hostname: str
    rootless: bool
    kernel: str = ""
    architecture: str = ""
    operating_system: str = ""
    cpus: int | None = None
    memory_bytes: int | None = None
    address: str = "unix:"


@dataclass(frozen=True, slots=True)
class ContainerState:
    """What the engine knows of a container; times are Unix, by the engine's clock, None = not yet."""

    status: str
    pid: int
    exit_code: int
    oom_killed: bool
    started_at_ns: int | None = None
    finished_at_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Owned:
    """A container or network that carries a run's label."""

    kind: str
    id: str
    name: str
    labels: Mapping[str, str]


class Engine:
    """A connection to the engine that DOCKER_HOST, or else the default socket, names.

    Raises:
        HostError: nothing answers there; the hint says what to do about the kind of failure.
    """

    _knows_all = False  # whether everything that carries the run's label was created, and answered, through this object
    _unanswered = False

    def __init__(self) -> None:
        self.address = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
        try:
            self._api = self._connect(_CALL_TIMEOUT_S)
            self._pull_api = self._connect(_PULL_TIMEOUT_S)
        except (*_FAMILIES, ValueError) as error:  # ValueError: an address that is none
            raise no_engine(self.address, error) from error

    def _connect(self, timeout_s: int) -> docker.APIClient:
        return docker.APIClient(version="auto", timeout=timeout_s, **kwargs_from_env())

    def close(self) -> None:
        """Close the connections."""
        self._api.close()
        self._pull_api.close()

    # ------------------------------------------------------------ the engine itself

    def facts(self) -> EngineFacts:
        """Ask for version, drivers and storage."""
        with _call("info"):
            info, version = self._api.info(), self._api.version()
        components = [str(each.get("Name", "")) for each in version.get("Components") or ()]
        return EngineFacts(
            product="Podman" if any(name.startswith("Podman") for name in components) else "Docker",
            version=str(version.get("Version", "")),
            api=str(version.get("ApiVersion", "")),
            storage_driver=str(info.get("Driver", "")),
            cgroup_driver=str(info.get("CgroupDriver", "")),
            cgroup_version=str(info.get("CgroupVersion", "")),
            root_folder=str(info.get("DockerRootDir", "")),
            hostname=str(info.get("Name", "")),
            rootless=any("rootless" in option for option in info.get("SecurityOptions") or ()),
            kernel=str(info.get("KernelVersion", "")),
            architecture=str(info.get("Architecture", "")),
            operating_system=str(info.get("OperatingSystem", "")),
            cpus=info.get("NCPU"),
            memory_bytes=info.get("MemTotal"),
            address=self.address,
        )

    def answers(self) -> bool:
        """Whether the engine answers a ping now."""
        try:
            return bool(self._api.ping())
        except _FAMILIES:
            return False

    # ------------------------------------------------------------ images

    def image_id(self, reference: str) -> str | None:
        """The id of a local image; None where it is not here."""
        try:
            with _call(f"inspect image {reference}"):
                return str(self._api.inspect_image(reference)["Id"])  # type: ignore[no-untyped-call]
        except EngineError as error:
            if error.status == 404:
                return None
            raise

    def images_named(self, repository: str) -> list[str]:
        """Tags of local images of a repository."""
        with _call("list images"):
            return [tag for image in self._api.images(name=repository) for tag in image.get("RepoTags") or ()]

    def pull(self, reference: str, progress: Callable[[str], None]) -> None:
        """Pull an image; `progress` gets one short line at a time.

        Raises:
            HostError: the registry's own words, and what to do.
        """
        repository, tag = split_reference(reference)
        try:
            with _call(f"pull {reference}"):
                for event in self._pull_api.pull(repository, tag=tag, stream=True, decode=True):
                    if "error" in event:
                        raise pull_failed(reference, str(event["error"]))
                    progress(pull_line(event))
        except EngineLost:
            raise
        except EngineError as error:
            raise pull_failed(reference, error.reason) from error

    # ------------------------------------------------------------ networks

    def create_network(self, name: str, labels: Mapping[str, str]) -> str:
        """Create a private bridge network; returns its id."""
        with _call(f"create network {name}"), self._creating():
            network = self._api.create_network(name, driver="bridge", check_duplicate=True, labels=dict(labels))
        return str(network["Id"])

    # ------------------------------------------------------------ containers

    def create(self, step: Step, name: str, labels: Mapping[str, str], network: str, cgroup_parent: str | None) -> str:
        """Create the container of a step, not started; returns its id."""
        mounts = [
            docker.types.Mount(mount.target, mount.source, type="bind", read_only=mount.read_only)
            for mount in step.mounts
        ]
        gpus = [docker.types.DeviceRequest(count=step.gpu_count, capabilities=[["gpu"]])] if step.gpu_count else None
        host_config = self._api.create_host_config(
            mounts=mounts,
            network_mode=network,
            init=True,
            mem_limit=step.memory_limit_bytes,
            memswap_limit=step.memory_limit_bytes,  # equal to the limit: no swap
            nano_cpus=step.cpu_limit_millicores * _NANOS_PER_MILLI or None,
            shm_size=step.shm_bytes,
            pids_limit=step.pids_limit,
            security_opt=["no-new-privileges"],
            log_config=docker.types.LogConfig(type="json-file", config=_LOG_LIMITS),
            restart_policy={"Name": "no"},
            cgroup_parent=cgroup_parent,
            device_requests=gpus,
        )
        with _call(f"create container {name}"), self._creating():
            created = self._api.create_container(
                step.image,
                entrypoint=list(step.entrypoint) or None,
                command=list(step.command) or None,
                working_dir=step.workdir or None,
                user=step.user or None,
                networking_config=self._known_as(step.aliases, network),
                environment=dict(step.env),
                labels=dict(labels),
                name=name,
                host_config=host_config,
                healthcheck=docker.types.Healthcheck(test=["NONE"]),  # it would run, and be counted, in the container
            )
        return str(created["Id"])

    def _known_as(self, aliases: Sequence[str], network: str) -> Any:
        """Names under which others of its network reach a container."""
        if not aliases:
            return None
        endpoint = self._api.create_endpoint_config(aliases=list(aliases))
        return self._api.create_networking_config({network: endpoint})  # type: ignore[arg-type]  # the stubs are wrong

    def archive(self, container: str, path: str) -> Iterator[bytes] | None:
        """A file or folder of a container as a tar archive, also when it has ended; None where it is not there."""
        try:
            with _call(f"copy {path} from container"):
                chunks, _ = self._api.get_archive(container, path)
                yielded: Iterator[bytes] = chunks
        except EngineError as error:
            if error.status == 404:
                return None
            raise
        return _reading(yielded, f"copy {path} from container")

    def start(self, container: str) -> None:
        """Start a container; returns when its first process runs."""
        with _call("start container"):
            self._api.start(container)

    def wait(self, container: str, timeout_s: int) -> int | None:
        """Wait for the end; returns the exit code, None where it still runs after `timeout_s`."""
        try:
            return int(self._api.wait(container, timeout=timeout_s)["StatusCode"])
        except (requests.ConnectionError, requests.Timeout) as error:
            # The SDK raises ConnectionError for a time-out of its own, too.
            if "timed out" in str(error).lower():
                return None
            raise _mapped("wait for container", error) from error
        except _FAMILIES as error:
            raise _mapped("wait for container", error) from error

    def inspect(self, container: str) -> ContainerState:
        """What the engine knows of a container."""
        with _call("inspect container"):
            state: dict[str, Any] = self._api.inspect_container(container)["State"]
        return ContainerState(
            status=str(state.get("Status", "")),
            pid=int(state.get("Pid", 0)),
            exit_code=int(state.get("ExitCode", 0)),
            oom_killed=bool(state.get("OOMKilled")),
            started_at_ns=parse_time_ns(str(state.get("StartedAt", ""))),
            finished_at_ns=parse_time_ns(str(state.get("FinishedAt", ""))),
        )

    def ip_address(self, container: str, network: str) -> str:
        """The container's IP address on a network; empty where it has none, as one that has ended."""
        with _call("inspect container"):
            networks = self._api.inspect_container(container)["NetworkSettings"].get("Networks") or {}
        return str((networks.get(network) or {}).get("IPAddress") or "")

    def stats(self, container: str) -> Iterator[Mapping[str, Any]]:
        """The container's statistics, once a second, until it is removed; all zeros while it does not run."""
        with _call("read statistics"):
            yield from self._api.stats(container, decode=True, stream=True)

    def log_tail(self, container: str, lines: int) -> tuple[str, ...]:
        """The last lines that a container wrote, control characters shown escaped."""
        with _call("read log"):
            raw = self._api.logs(container, tail=lines)
        assert isinstance(raw, bytes)
        text = raw.decode("utf-8", "backslashreplace")
        return tuple(printable(line)[:400] for line in text.split("\n") if line.strip())[-lines:]

    def signal(self, container: str, name: str) -> None:
        """Send a signal; a container that has ended already is no error."""
        try:
            with _call(f"send {name}"):
                self._api.kill(container, signal=name)
        except EngineError as error:
            if error.status not in (404, 409):
                raise

    # ------------------------------------------------------------ removing

    def owned(self, filters: Mapping[str, str]) -> list[Owned]:
        """Containers, then networks, with these labels (an empty value asks for the label alone)."""
        wanted = [f"{key}={value}" if value else key for key, value in filters.items()]
        with _call("list containers"):
            containers = self._api.containers(all=True, filters={"label": wanted})
        with _call("list networks"):
            networks = self._api.networks(filters={"label": wanted})
        found = [
            Owned("container", str(item["Id"]), str((item.get("Names") or [item["Id"]])[0]).lstrip("/"), item["Labels"])
            for item in containers
        ]
        return found + [Owned("network", str(i["Id"]), str(i["Name"]), i.get("Labels") or {}) for i in networks]

    def remove(self, item: Owned) -> None:
        """Remove a container (killed first, with its anonymous volumes) or a network; one that is gone is no error."""
        try:
            with _call(f"remove {item.kind} {item.name}"):
                if item.kind == "container":
                    self._api.remove_container(item.id, force=True, v=True)
                else:
                    self._api.remove_network(item.id)
        except EngineError as error:
            if error.status != 404 and "already in progress" not in error.reason:
                raise

    @contextmanager
    def _creating(self) -> Iterator[None]:
        """Note whether everything that was to be created here has been answered."""
        try:
            yield
        except BaseException:
            self._unanswered = True
            raise
        finally:
            self._knows_all = not self._unanswered

    def remove_labelled(self, filters: Mapping[str, str], timeout_s: float = 60.0) -> int:
        """Remove everything with these labels until two looks in a row find nothing; returns how many.

        One look is not enough unless every create was answered here: one that timed out at our end, or another
        process's, may still take effect at the engine's.
        """
        deadline, removed, empty_looks = time.monotonic() + timeout_s, 0, 0
        while empty_looks < 2:
            found = self.owned(filters)
            empty_looks = 0 if found else empty_looks + 1
            failures = [failure for item in found if (failure := self._try_to_remove(item)) is not None]
            removed += len(found) - len(failures)
            if self._knows_all and not failures:
                break
            if failures and all(failure.status == _BUSY for failure in failures):
                deadline = min(deadline, time.monotonic() + _BUSY_TIMEOUT_S)
            if found and time.monotonic() > deadline:
                raise failures[-1] if failures else EngineError(f"engine: {found[0].name} is still there")
            if empty_looks == 0:
                time.sleep(_REMOVE_PAUSE_S)
        return removed

    def _try_to_remove(self, item: Owned) -> EngineError | None:
        try:
            self.remove(item)
        except EngineError as error:
            return error
        return None

    def remove_files(self, image: str, folder: str, labels: Mapping[str, str]) -> bool:
        """Empty a folder with the engine's rights, for files that belong to another user; True where it worked.

        Runs what an image that is here anyway has for it: the one that wrote the files.
        """
        return any(self._removes_files(image, folder, labels, program) for program in _REMOVERS)

    def _removes_files(self, image: str, folder: str, labels: Mapping[str, str], program: tuple[str, ...]) -> bool:
        host_config = self._api.create_host_config(
            mounts=[docker.types.Mount("/cpost-remove", folder, type="bind")], network_mode="none"
        )
        try:
            with _call("create clean-up container"):
                container = str(
                    self._api.create_container(
                        image,
                        entrypoint=list(program),
                        command=[f"/cpost-remove/{entry}" for entry in os.listdir(folder)],  # noqa: PTH208
                        user="0",
                        labels=dict(labels),
                        host_config=host_config,
                    )["Id"]
                )
            self.start(container)
            return self.wait(container, _CALL_TIMEOUT_S) == 0
        except EngineError:
            return False


def _reading(chunks: Iterator[bytes], what: str) -> Iterator[bytes]:
    with _call(what):
        yield from chunks


@contextmanager
def _call(what: str) -> Iterator[None]:
    """Name a call and map whatever the SDK raises in it."""
    try:
        yield
    except _FAMILIES as error:
        raise _mapped(what, error) from error


def _mapped(what: str, error: Exception) -> EngineError:
    if isinstance(error, docker.errors.APIError) and error.status_code is not None:
        reason = printable(str(error.explanation or error))
        hint = "look at the engine's words; `cpost doctor` checks the engine"
        if "no space left" in reason:
            hint = FREE_ENGINE_DISK
        if "select device driver" in reason:
            hint = "install the NVIDIA driver and container toolkit on this host, or take gpu out of the requests"
        if "container-init binary" in reason:
            hint = "install the init that Podman gives to containers: sudo apt-get install catatonit"
        if "address pools" in reason:
            hint = "remove unused networks (docker network prune; cpost clean for cpost's own), then start again"
        return EngineError(f"engine: {what}: {reason}", hint, status=error.status_code, reason=reason)
    if isinstance(error, _LOST):
        return EngineLost(
            f"engine: {what}: the connection was lost ({type(error).__name__})",
            "see whether the engine still runs (docker version), then `cpost clean` removes what this run left",
            reason=str(error),
        )
    return EngineError(f"engine: {what}: {error}", "`cpost doctor` checks the engine", reason=str(error))
