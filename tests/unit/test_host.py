"""The host: facts, and what happened beside an operator."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from builders import result, totals

from cpost.measure import host
from cpost.measure.cgroup import Hierarchies
from cpost.measure.engine import EngineFacts
from cpost.measure.gpu_watch import GpuFacts
from cpost.measure.host import HostWatch
from cpost.model import StepResult

CpuTimes = namedtuple("CpuTimes", "user nice system idle iowait irq softirq steal")
Swap = namedtuple("Swap", "total used sout")
CPUS = 4


class FakeHost:
    """A host of four CPUs whose counters a test moves."""

    def __init__(self) -> None:
        self.user = self.idle = 1000.0
        self.swapped = 0

    def pass_time(self, seconds: float, *, busy: float) -> None:
        """Let time pass with so many CPU seconds of work on the whole host."""
        self.user += busy
        self.idle += CPUS * seconds - busy

    def cpu_times(self) -> CpuTimes:
        return CpuTimes(self.user, 0.0, 0.0, self.idle, 0.0, 0.0, 0.0, 0.0)

    def swap_memory(self) -> Swap:
        return Swap(0, 0, self.swapped)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    fake = FakeHost()
    monkeypatch.setattr(psutil, "cpu_times", fake.cpu_times)
    monkeypatch.setattr(psutil, "swap_memory", fake.swap_memory)
    monkeypatch.setattr(host.os, "cpu_count", lambda: CPUS)
    return fake


def warnings(
    fake: FakeHost, change: Callable[[], None], cpu_s: float = 0.0, sysfs: Path = Path("/nowhere")
) -> list[str]:
    return list(judged(fake, change, cpu_s, sysfs).warnings)


def judged(
    fake: FakeHost, change: Callable[[], None], cpu_s: float = 0.0, sysfs: Path = Path("/nowhere"), beside_s: float = 0
) -> StepResult:
    watch = HostWatch(sysfs)
    change()
    return watch.judged(result(totals=totals(int(cpu_s * 1e6))), int(beside_s * 1e6))


def test_a_quiet_host_gives_no_warning(fake: FakeHost) -> None:
    assert warnings(fake, lambda: fake.pass_time(10, busy=8), cpu_s=8) == []


def test_other_work_is_what_the_operator_did_not_do(fake: FakeHost) -> None:
    (warning,) = warnings(fake, lambda: fake.pass_time(10, busy=28), cpu_s=8)
    assert "busy with other work: 50% of its 4 CPUs" in warning
    assert "measure again when it is quiet" in warning


def test_what_others_had_is_in_the_result(fake: FakeHost) -> None:
    assert judged(fake, lambda: fake.pass_time(10, busy=28), cpu_s=8).others_cpu_share == 0.5
    assert judged(fake, lambda: fake.pass_time(10, busy=28), cpu_s=8, beside_s=20).others_cpu_share == 0
    assert judged(fake, lambda: fake.pass_time(0.9, busy=3.6)).others_cpu_share is None
    assert judged(fake, lambda: fake.pass_time(10, busy=7), cpu_s=8).others_cpu_share == 0  # clocks differ a little


def test_a_fifth_of_the_host_is_let_pass(fake: FakeHost) -> None:
    assert warnings(fake, lambda: fake.pass_time(10, busy=16), cpu_s=8) == []
    assert warnings(fake, lambda: fake.pass_time(10, busy=16.5), cpu_s=8) != []


def test_too_short_a_time_is_not_judged(fake: FakeHost) -> None:
    assert warnings(fake, lambda: fake.pass_time(0.9, busy=3.6)) == []


def test_without_the_operator_s_total_its_work_is_not_called_other_work(fake: FakeHost) -> None:
    watch = HostWatch(Path("/nowhere"))
    fake.pass_time(10, busy=40)
    found = watch.judged(result(warnings=("kept",)))
    assert (found.warnings, found.others_cpu_share) == (("kept",), None)


def test_swapping_is_told(fake: FakeHost) -> None:
    def swap() -> None:
        fake.swapped += 5_000_000

    (warning,) = warnings(fake, swap)
    assert "swapped out 5.000 MB" in warning


def test_throttling_for_heat_is_told(fake: FakeHost, tmp_path: Path) -> None:
    counter = tmp_path / "devices/system/cpu/cpu0/thermal_throttle/core_throttle_count"
    counter.parent.mkdir(parents=True)
    counter.write_text("7\n")
    assert warnings(fake, lambda: None, sysfs=tmp_path) == []
    (warning,) = warnings(fake, lambda: counter.write_text("8\n") and None, sysfs=tmp_path)
    assert "throttled" in warning


@pytest.mark.parametrize(("free", "full"), [(2**20 - 1, ["/"]), (2**20, []), (None, [])])
def test_disks_without_room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free: int | None, full: list[str]) -> None:
    monkeypatch.setattr(Path, "is_mount", lambda path: str(path) == "/")
    monkeypatch.setattr(host, "free_bytes", lambda _: free)
    assert host.full_disks([str(tmp_path), "/no/such/folder"]) == full


def test_free_space_of_a_folder_that_is_not_there_is_unknown() -> None:
    assert host.free_bytes("/no/such/folder") is None
    assert (host.free_bytes("/") or 0) > 0


# ---------------------------------------------------------------- where containers run

HERE = EngineFacts(
    "Docker", "1", "1", "overlay2", "cgroupfs", "2", "/", "here", False, "6.1", "arm", "Linux", 7, 99, "unix:///x"
)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host.platform, "node", lambda: "here")
    monkeypatch.setattr(host.platform, "release", lambda: "6.1")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, None),
        ({"address": "tcp://127.0.0.1:2375"}, None),
        ({"hostname": "in a container"}, None),  # cpost's own name may be another there
        ({"kernel": ""}, None),
        ({"kernel": "5.10"}, "they run on here, under Linux 5.10"),
        ({"operating_system": "Docker Desktop 4.30"}, "Docker Desktop runs them in a virtual machine"),
        ({"address": "tcp://10.0.0.1:2375", "hostname": "there"}, "they run on there"),
        ({"address": "ssh://there", "hostname": "there"}, "they run on there"),
    ],
)
def test_where_an_engine_s_containers_run(here: None, change: dict[str, str], words: str | None) -> None:
    assert host.elsewhere(replace(HERE, **change)) == words  # type: ignore[arg-type]


def test_the_facts_are_of_the_machine_that_runs_the_containers(here: None) -> None:
    there = host.host_facts(replace(HERE, hostname="there", kernel="5.10"), None, GpuFacts())
    assert (there.hostname, there.kernel, there.architecture, there.cpus) == ("there", "5.10", "arm", 7)
    assert (there.memory_bytes, there.swap_bytes, there.cgroup_layout) == (99, None, "v2")
    local = host.host_facts(HERE, None, GpuFacts())
    assert (local.hostname, local.memory_bytes == 99, local.engine_version) == ("here", False, "1")
    assert host.host_facts(None, None, GpuFacts()).engine_version == ""
    assert (there.cpu_model, local.cpu_model) == ("", host.cpu_model())  # the engine does not tell


@pytest.mark.parametrize(
    ("text", "model"),
    [
        ("processor\t: 0\nmodel\t\t: 85\nmodel name\t: Xeon: 2.0 \xa9\n\nmodel name\t: Other\n", "Xeon: 2.0 \xa9"),
        ("processor\t: 0\nBogoMIPS\t: 243.75\n", ""),
        ("", ""),
    ],
)
def test_the_model_of_the_first_cpu(tmp_path: Path, text: str, model: str) -> None:
    assert host.cpu_model(tmp_path / "none") == ""
    (tmp_path / "cpuinfo").write_text(text, "utf-8")
    assert host.cpu_model(tmp_path / "cpuinfo") == model


@pytest.mark.parametrize(("product", "called"), [("Docker", "4.3.1"), ("Podman", "Podman 4.3.1")])
def test_record_tells_podman_from_docker(product: str, called: str) -> None:
    facts = replace(HERE, product=product, version="4.3.1", api="1.41")
    found = host.host_facts(facts, Hierarchies({}, "v1", Path("/")), GpuFacts())
    assert (found.engine_version, found.engine_api) == (called, "1.41")
