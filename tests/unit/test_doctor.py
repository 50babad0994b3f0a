"""The examination of a host, with each of its parts well or ill."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cpost import doctor
from cpost.doctor import Finding, Verdict
from cpost.errors import HostError
from cpost.measure.engine import EngineFacts
from cpost.measure.gpu_watch import GpuFacts
from cpost.model.gpu import Gpu

GPUS = GpuFacts((Gpu("GPU-a", "A100", 40 * 2**30), Gpu("MIG-b", "A100 MIG 1g.5gb")), "550")
FACTS = EngineFacts("Docker", "20.10.24", "1.41", "overlay2", "cgroupfs", "2", "/", "host", rootless=False)
Examine = Callable[..., dict[str, Finding]]


class FakeEngine:
    """An engine that answers with given facts and images."""

    def __init__(self, facts: EngineFacts | HostError, images: list[str]) -> None:
        self._facts = facts
        self._images = images

    def facts(self) -> EngineFacts:
        if isinstance(self._facts, HostError):
            raise self._facts
        return self._facts

    def images_named(self, repository: str) -> list[str]:
        return [image for image in self._images if image.startswith(repository)]


class FakeHierarchies:
    """Control groups that cpost may or may not add to."""

    layout = "v2"

    def __init__(self, *, may_make: bool) -> None:
        self._may_make = may_make

    def may_make_groups(self, name: str) -> bool:
        assert name.startswith("cpost_")
        return self._may_make


@pytest.fixture
def examine(monkeypatch: pytest.MonkeyPatch) -> Examine:
    def run(**ill: Any) -> dict[str, Finding]:
        hierarchies = ill.get("hierarchies", FakeHierarchies(may_make=ill.get("may_make", True)))
        monkeypatch.setattr(doctor, "Engine", lambda: FakeEngine(ill.get("facts", FACTS), ill.get("images", [])))
        monkeypatch.setattr(doctor, "_read_hierarchies", lambda: hierarchies)
        monkeypatch.setattr(doctor, "gpu_facts", lambda: ill.get("gpus", GPUS))
        monkeypatch.setattr(doctor.host, "swap_bytes", lambda: ill.get("swap", (0, 0)))
        monkeypatch.setattr(doctor.host, "free_bytes", lambda _folder: ill.get("free", 10**12))
        return {finding.subject: finding for finding in doctor.examine()}

    return run


def test_a_host_with_everything_is_well(examine: Examine) -> None:
    found = examine(images=["nvcr.io/nvidia/tritonserver:24.01-py3"])
    assert set(found) == {"python", "engine", "cgroups", "totals", "swap", "gpu", "disk", "triton"}
    assert {finding.verdict for finding in found.values()} == {Verdict.OK}
    assert not any(finding.remedy for finding in found.values())


@pytest.mark.parametrize(
    ("subject", "ill", "verdict"),
    [
        ("engine", {"facts": HostError("no Docker engine answers", "start it")}, Verdict.FAILURE),
        ("engine", {"facts": replace(FACTS, version="19.03.1")}, Verdict.WARNING),
        ("engine", {"facts": replace(FACTS, product="Podman", version="3.4.4")}, Verdict.WARNING),
        ("engine", {"facts": replace(FACTS, rootless=True)}, Verdict.WARNING),
        ("cgroups", {"hierarchies": HostError("none are mounted", "mount them")}, Verdict.FAILURE),
        ("totals", {"may_make": False}, Verdict.WARNING),
        ("totals", {"facts": replace(FACTS, operating_system="Docker Desktop")}, Verdict.WARNING),
        ("swap", {"swap": (100, 60)}, Verdict.WARNING),
        ("gpu", {"gpus": GpuFacts(absent_because="no library")}, Verdict.WARNING),
        ("gpu", {"gpus": replace(GPUS, problems=("GPU 2 of the driver's list is lost",))}, Verdict.WARNING),
        ("disk", {"free": 10**9}, Verdict.WARNING),
        ("triton", {"images": []}, Verdict.WARNING),
    ],
)
def test_what_is_ill_comes_with_a_remedy(examine: Examine, subject: str, ill: dict[str, Any], verdict: Verdict) -> None:
    finding = examine(**ill)[subject]
    assert finding.verdict is verdict
    assert finding.remedy


def test_a_temporary_folder_that_is_passed_over_is_a_failure(
    examine: Examine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "none"))
    found = examine(facts=HostError("no Docker engine answers", "start it"))["disk"]
    assert (found.verdict, found.text) == (Verdict.FAILURE, f"TMPDIR cannot be used: {tmp_path}/none is no folder")


def test_podman_is_called_by_its_name(examine: Examine) -> None:
    found = examine(facts=replace(FACTS, product="Podman", version="4.3.1"))["engine"]
    assert (found.verdict, found.text.split(" (")[0]) == (Verdict.OK, "Podman 4.3.1")


def test_without_an_engine_the_rest_is_examined_all_the_same(examine: Examine) -> None:
    found = examine(facts=HostError("no Docker engine answers", "start it"))
    assert found["engine"].text == "no Docker engine answers"
    assert found["totals"].verdict is Verdict.OK
    assert "triton" not in found


def test_gpus_are_named(examine: Examine) -> None:
    assert examine()["gpu"].text == "2, driver 550: A100 (GPU-a, 40960 MiB); A100 MIG 1g.5gb (MIG-b)"
    ill = examine(gpus=replace(GPUS, problems=("GPU 2 of the driver's list is lost",)))["gpu"]
    assert ill.text == "A100 (GPU-a, 40960 MiB); A100 MIG 1g.5gb (MIG-b); GPU 2 of the driver's list is lost"
