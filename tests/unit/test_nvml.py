"""The door to NVML: the real pynvml against a stand-in for the driver's library."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from cpost.measure.gpu_subject import Share
from cpost.measure.nvml import Driver, GpuMeter, NoDriverError
from cpost.model.gpu import Gpu, GpuReading

MB = 10**6
GB = 1000 * MB
A100 = "device GPU-a 40000 500 Fake A100"
T4 = "device GPU-b 16000 0 T4"
Script = Callable[..., None]


class Asked:
    """The devices of a driver that says what a script says."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.problems: list[str] = []
        self._meters = [GpuMeter(device, f"GPU {i}") for i, device in enumerate(driver.devices)]
        self._shares = [Share(self.problems) for _ in driver.devices]

    def read(self, *own: int, place: int = 0) -> GpuReading:
        """One look; these processes are the operator's."""
        return self._shares[place].of(self._meters[place].read(), own, ())


@pytest.fixture
def asked(nvml_script: Script) -> Iterator[Callable[..., Asked]]:
    opened: list[Driver] = []

    def ask(*lines: str) -> Asked:
        nvml_script(*lines)
        opened.append(Driver())
        return Asked(opened[-1])

    yield ask
    for driver in opened:
        driver.close()


Ask = Callable[..., Asked]


# ---------------------------------------------------------------- what is there


def test_gpus_have_name_uuid_and_memory(asked: Ask) -> None:
    driver = asked("driver 550.54.15", A100, T4).driver
    assert driver.version == "550.54.15"
    assert [device.gpu for device in driver.devices] == [
        Gpu("GPU-a", "Fake A100", 40 * GB),
        Gpu("GPU-b", "T4", 16 * GB),
    ]
    assert driver.problems == []


def test_of_a_divided_gpu_the_instances_are_listed(asked: Ask) -> None:
    found = asked(A100, "mig MIG-1 5000 10 MIG 1g.5gb", "mig MIG-2 10000 20 MIG 2g.10gb", T4)
    assert [device.gpu for device in found.driver.devices] == [
        Gpu("MIG-1", "MIG 1g.5gb", 5 * GB, "GPU-a"),
        Gpu("MIG-2", "MIG 2g.10gb", 10 * GB, "GPU-a"),
        Gpu("GPU-b", "T4", 16 * GB),
    ]
    assert found.driver.problems == []


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("nvmlInitWithFlags 9", "Driver Not Loaded (NVML error 9)"),
        ("nvmlInitWithFlags 18", "mismatch. (NVML error 18)"),
        ("nvmlInitWithFlags 77", "only the library knows (NVML error 77)"),
        ("nvmlDeviceGetCount_v2 4", "Insufficient Permissions (NVML error 4)"),
        ("nvmlSystemGetDriverVersion 999", "Unknown Error (NVML error 999)"),
    ],
)
def test_a_driver_that_cannot_be_asked_says_why(nvml_script: Script, error: str, words: str) -> None:
    nvml_script(A100, f"error {error} 1")
    with pytest.raises(NoDriverError) as caught:
        Driver()
    assert words in str(caught.value)


def test_a_gpu_that_cannot_be_opened_does_not_hide_the_others(asked: Ask) -> None:
    driver = asked(A100, T4, "error nvmlDeviceGetUUID 15 2").driver
    assert [device.gpu.uuid for device in driver.devices] == ["GPU-a"]
    assert driver.problems == ["GPU 1 of the driver's list cannot be used: GPU is lost (NVML error 15)"]


def test_a_divided_gpu_without_instances_is_said(asked: Ask) -> None:
    driver = asked(A100, "mig MIG-1 5000 10 MIG", "error nvmlDeviceGetMigDeviceHandleByIndex 6 1").driver
    assert driver.devices == ()
    assert "has no instances" in driver.problems[0]


def test_a_gpu_without_memory_of_its_own_has_none_stated(asked: Ask) -> None:
    driver = asked(A100, "error nvmlDeviceGetMemoryInfo 3 1").driver
    assert driver.devices[0].gpu.memory_bytes is None


# ---------------------------------------------------------------- one look


def test_a_look_tells_own_memory_apart_from_others(asked: Ask) -> None:
    found = asked(
        A100, T4, "process 0 11 300", "process 0 12 200", "process 0 99 1000", "power 0 250000", "clock 0 1410"
    )
    assert found.read(11, 12, 13) == GpuReading((), 2000 * MB, 1500 * MB, 500 * MB, 2, 1, 250_000, 1410, 0)
    assert found.read(11, place=1) == GpuReading((), 0, 0, 0, 0, 0, 0, 0, 0)
    assert found.problems == []


def test_a_process_that_computes_and_draws_counts_once(asked: Ask) -> None:
    found = asked(A100, "process 0 11 300", "graphics 0 11 300", "graphics 0 12 50").read(11)
    assert (found.own_memory_bytes, found.listed_bytes, found.own_processes, found.other_processes) == (
        300 * MB,
        350 * MB,
        1,
        1,
    )


def test_memory_of_a_process_that_is_not_told_is_no_zero(asked: Ask) -> None:
    found = asked(A100, "process 0 11 n/a", "process 0 12 100")
    own = found.read(11)
    assert (own.own_memory_bytes, own.listed_bytes, own.own_processes) == (None, None, 1)
    assert found.read(12).own_memory_bytes == 100 * MB


def test_what_the_driver_keeps_for_itself_is_not_in_use(asked: Ask) -> None:
    assert asked(A100).read().memory_bytes == 500 * MB
    older = asked(A100, "error nvmlDeviceGetMemoryInfo_v2 13 1")
    assert older.read().memory_bytes == 510 * MB
    assert older.problems == []


def test_an_older_driver_lists_processes_by_its_older_call(asked: Ask) -> None:
    found = asked(A100, "process 0 11 300", "error nvmlDeviceGetComputeRunningProcesses_v3 13 1")
    assert found.read(11).own_memory_bytes == 300 * MB
    assert found.problems == []


def test_an_instance_tells_memory_and_processes_and_nothing_else(asked: Ask) -> None:
    found = asked(A100, "mig MIG-1 5000 10 MIG 1g.5gb", "process 0 11 300", "busy 0 50", "power 0 99", "clock 0 99")
    for _ in range(2):
        assert found.read(11) == GpuReading((), 310 * MB, 300 * MB, 300 * MB, 1, 0, None, None, 0)
    assert found.problems == []


# ---------------------------------------------------------------- busy time


def until_busy(found: Asked) -> GpuReading:
    deadline = time.monotonic() + 20
    while not (reading := found.read()).busy:
        assert time.monotonic() < deadline, "no utilisation came"
        time.sleep(0.005)
    return reading


@pytest.mark.parametrize("more", [(), ("inclusive",)])
def test_each_of_the_driver_s_samples_comes_once_with_its_own_time(asked: Ask, more: tuple[str, ...]) -> None:
    found = asked(A100, "busy 0 60", "period 20", *more)
    before_ns = time.time_ns()
    assert found.read().busy == ()  # that was before
    spans = [span for _ in range(3) for span in until_busy(found).busy]
    assert {(span.span_ns, span.percent) for span in spans} == {(20_000_000, 60)}
    ends = [span.end_ns for span in spans]
    assert ends == [ends[0] + i * 20_000_000 for i in range(len(ends))]
    assert before_ns < ends[0] <= ends[-1] <= time.time_ns()


def test_without_samples_the_last_average_is_taken(asked: Ask) -> None:
    found = asked(A100, "unbuffered", "busy 0 35")
    assert found.read().busy == ()
    first, second = found.read().busy[0], found.read().busy[0]
    assert (first.percent, second.percent) == (35, 35)
    assert second.end_ns - second.span_ns == first.end_ns
    assert found.problems == []


def test_a_percentage_that_cannot_be_is_left_out(asked: Ask, nvml_script: Script) -> None:
    found = asked(A100, "busy 0 4000000000", "period 20")
    found.read()
    time.sleep(0.05)
    assert found.read().busy == ()
    nvml_script(A100, "busy 0 10", "period 20")
    assert until_busy(found).busy[-1].percent == 10


# ---------------------------------------------------------------- failures

FIGURES = {
    "nvmlDeviceGetPowerUsage": ("power", "power_mw"),
    "nvmlDeviceGetClockInfo": ("the SM clock", "sm_clock_mhz"),
    "nvmlDeviceGetMemoryInfo_v2": ("memory", "memory_bytes"),
    "nvmlDeviceGetComputeRunningProcesses_v3": ("the list of processes", "own_memory_bytes"),
}
LINES = (A100, "process 0 11 300", "power 0 7", "clock 0 8")


@pytest.mark.parametrize("function", FIGURES)
@pytest.mark.parametrize("code", [3, 4])
def test_a_figure_that_is_refused_is_not_asked_for_again(
    asked: Ask, nvml_script: Script, function: str, code: int
) -> None:
    figure, field = FIGURES[function]
    is_list = "processes" in figure  # for a list pynvml calls twice, for its length and for itself
    found = asked(*LINES, f"error {function} {code} {3 if is_list else 2}")
    assert getattr(found.read(11), field) is not None
    assert getattr(found.read(11), field) is None
    nvml_script(*LINES)
    after = found.read(11)
    assert getattr(after, field) is None
    assert list(after).count(None) == (5 if is_list else 1)  # the others go on
    assert [problem.split(":")[:2] for problem in found.problems] == [["GPU 0", f" {figure} cannot be read"]]


@pytest.mark.parametrize("function", FIGURES)
@pytest.mark.parametrize("code", [999, 10, 77])
def test_a_figure_that_fails_for_once_is_tried_again(asked: Ask, nvml_script: Script, function: str, code: int) -> None:
    _, field = FIGURES[function]
    found = asked(*LINES, f"error {function} {code} 1")
    assert [getattr(found.read(11), field) for _ in range(3)] == [None] * 3
    nvml_script(*LINES)
    assert getattr(found.read(11), field) is not None
    assert len(found.problems) == 1
    assert f"NVML error {code}" in found.problems[0]
    assert "tried again" in found.problems[0]


def test_utilisation_that_fails_comes_back(asked: Ask, nvml_script: Script) -> None:
    lines = (A100, "busy 0 60", "period 20")
    found = asked(*lines, "error nvmlDeviceGetSamples 999 1")
    assert found.read().busy == ()
    nvml_script(*lines)
    assert until_busy(found).busy[-1].percent == 60
    assert len(found.problems) == 1


def test_utilisation_that_neither_call_tells_is_said_once(asked: Ask) -> None:
    found = asked(A100, "unbuffered", "error nvmlDeviceGetUtilizationRates 3 1")
    assert [found.read().busy for _ in range(3)] == [()] * 3
    (problem,) = found.problems
    assert "utilisation cannot be read" in problem


@pytest.mark.parametrize("code", [15, 16, 1])
def test_a_lost_gpu_is_left_alone_and_the_other_one_goes_on(asked: Ask, code: int) -> None:
    found = asked(*LINES, T4, f"error nvmlDeviceGetPowerUsage {code} 3")
    for place in (0, 1):
        assert found.read(11, place=place).power_mw is not None
    lost = found.read(11)
    assert (lost.memory_bytes, lost.power_mw, lost.sm_clock_mhz) == (800 * MB, None, None)
    assert found.read(11) == GpuReading()
    assert len(found.problems) == 1
    assert "GPU 0 does not answer any more" in found.problems[0]
    with closing(Driver()) as again:
        assert len(again.devices) == 2
