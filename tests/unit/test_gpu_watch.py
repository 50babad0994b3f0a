"""The thread beside a step: looks come, the join by process, and a driver that hangs or is not there."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from builders import step

import fake_nvml
from cpost.errors import HostError
from cpost.measure import gpu_watch
from cpost.measure.gpu_watch import GpuFacts, GpuWatch, gpu_facts, require_gpus
from cpost.model.gpu import Gpu, GpuLook

MB = 10**6
A100 = "device GPU-a 40000 500 A100"
Script = Callable[..., None]
Start = Callable[..., GpuWatch]


@pytest.fixture
def start(nvml_script: Script) -> Iterator[Start]:
    """A watch of GPUs that say what a script says."""
    started: list[GpuWatch] = []

    def watch(*lines: str) -> GpuWatch:
        nvml_script(*lines)
        started.append(GpuWatch())
        return started[-1]

    yield watch
    for each in started:
        each.close()


def looks_of(watch: GpuWatch, count: int) -> list[GpuLook]:
    """Wait for so many looks."""
    found: list[GpuLook] = []
    deadline = time.monotonic() + 20
    while len(found) < count:
        assert time.monotonic() < deadline, f"{len(found)} looks instead of {count}"
        found += watch.take()
        time.sleep(0.01)
    return found


def test_the_first_look_is_over_before_the_step_begins(start: Start) -> None:
    watch = start(A100)
    with watch.watching(lambda _: True):
        (first, *_) = watch.take()
        assert first.at_ns <= time.time_ns()
        later = looks_of(watch, 2)
    at = [look.at_ns for look in (first, *later, *watch.take())]
    assert at == sorted(at)
    assert len(at) >= 4  # one more at the end
    assert watch.problems() == []


def test_memory_goes_to_the_step_whose_process_holds_it(start: Start, nvml_script: Script) -> None:
    lines = (A100, "process 0 11 300", "process 0 12 200")
    watch = start(*lines)
    for own, wanted in ((11, 300), (12, 200), (13, 0)):
        with watch.watching(lambda pid, own=own: pid == own):
            pass
        assert {look.readings[0].own_memory_bytes for look in watch.take()} == {wanted * MB}


def test_a_process_that_has_just_ended_stays_whose_it_was(start: Start) -> None:
    answers = [True, None]
    watch = start(A100, "process 0 11 300")
    with watch.watching(lambda _: answers.pop(0) if len(answers) > 1 else answers[0]):
        found = looks_of(watch, 3)
    assert {look.readings[0].own_memory_bytes for look in found} == {300 * MB}
    with watch.watching(lambda _: None):  # never seen alive: nobody's
        pass
    assert {look.readings[0].own_memory_bytes for look in watch.take()} == {0}


def test_each_step_has_its_own_problems(start: Start, nvml_script: Script) -> None:
    watch = start(A100, "error nvmlDeviceGetPowerUsage 3 1")
    with watch.watching(lambda _: True):
        looks_of(watch, 3)
    assert len(watch.problems()) == 1
    nvml_script(A100, "power 0 5")
    with watch.watching(lambda _: True):
        assert looks_of(watch, 1)[0].readings[0].power_mw == 5
    assert watch.problems() == []


def test_a_failure_of_ours_in_the_thread_is_reported_and_the_next_step_is_watched(start: Start) -> None:
    def fail(pid: int) -> bool:
        raise ValueError(pid)

    watch = start(A100, "process 0 11 300")
    with watch.watching(fail):
        pass
    assert watch.problems() == ["looking at the GPUs broke off: ValueError(11)"]
    with watch.watching(lambda _: True):
        assert looks_of(watch, 2)


def test_looks_that_nobody_fetches_do_not_pile_up(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_watch, "_MOST_LOOKS", 2)
    watch = start(A100)
    began_ns = time.time_ns()
    with watch.watching(lambda _: True):
        assert watch._step is not None
        for _ in range(400):
            time.sleep(0.01)
            if min(look.at_ns for look in tuple(watch._step.looks)) > began_ns + 10**8:
                break
    assert len(watch.take()) == 2


# ---------------------------------------------------------------- a driver that hangs


def test_a_driver_that_hangs_from_the_start_holds_nobody_up(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_watch, "_OPEN_S", 0.05)
    watch = start(A100, "hang nvmlInitWithFlags 3000 1")
    assert watch.facts == GpuFacts(absent_because="the NVIDIA driver did not answer within 0.05 s")
    with watch.watching(lambda _: True):
        pass
    assert (watch.take(), watch.problems()) == ([], [])


def test_a_driver_that_hangs_in_a_step_is_a_warning_and_is_waited_for_once(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_watch, "_ANSWER_S", 0.2)
    watch = start(A100, "hang nvmlDeviceGetPowerUsage 1500 1")
    with watch.watching(lambda _: True):
        pass
    assert watch.take() == []
    (problem,) = watch.problems()
    assert "did not answer before the operator started" in problem


def test_a_driver_that_hangs_at_the_end_is_a_warning(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_watch, "_ANSWER_S", 0.3)
    watch = start(A100, "hang nvmlDeviceGetPowerUsage 1500 3")
    with watch.watching(lambda _: True):
        assert looks_of(watch, 2)
        time.sleep(0.2)
    (problem,) = watch.problems()
    assert "at the operator's end" in problem


def test_a_driver_that_comes_back_is_used_again(start: Start, nvml_script: Script) -> None:
    watch = start(A100, "hang nvmlDeviceGetPowerUsage 300 1")
    watch._patience_s = 0.05
    with watch.watching(lambda _: True):
        pass
    nvml_script(A100)
    with watch.watching(lambda _: True):
        assert looks_of(watch, 2)


def test_a_driver_that_answers_again_is_given_its_time_again(
    start: Start, nvml_script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slow to wake, and from then on slower than one that is known to hang is waited for."""
    watch = start(A100, "hang nvmlDeviceGetPowerUsage 600 1")
    monkeypatch.setattr(gpu_watch, "_KNOWN_TO_HANG_S", 0.05)
    watch._patience_s = 0.05
    with watch.watching(lambda _: True):
        assert looks_of(watch, 1)
    assert "before the operator started" in watch.problems()[0]
    nvml_script(A100, "hang nvmlDeviceGetPowerUsage 300 1")
    with watch.watching(lambda _: True):
        assert watch.take()
    assert watch.problems() == []


# ---------------------------------------------------------------- none


def test_without_gpus_nothing_is_watched(start: Start) -> None:
    watch = start("driver 550")
    assert watch.facts == GpuFacts(driver="550", absent_because="the driver lists none")
    with watch.watching(lambda _: True):
        pass
    assert (watch.take(), watch.problems()) == ([], [])


def test_a_lost_gpu_is_among_the_facts(start: Start) -> None:
    facts = start(A100, "error nvmlDeviceGetUUID 15 1").facts
    assert facts.gpus == ()
    assert "GPU is lost" in facts.absent_because


def test_facts_can_be_had_alone(nvml_script: Script) -> None:
    nvml_script("driver 550", A100)
    assert [gpu.name for gpu in gpu_facts().gpus] == ["A100"]
    nvml_script(A100, "error nvmlInitWithFlags 9 1")
    assert gpu_facts() == GpuFacts(absent_because="Driver Not Loaded (NVML error 9)")


@pytest.mark.parametrize(("library", "words"), [(b"no library", "no NVIDIA driver, "), (None, "NVML error 9")])
def test_a_library_that_cannot_be_loaded_says_so(
    tmp_path: Path, nvml_library: Path, library: bytes | None, words: str
) -> None:
    """In a process of its own: what is loaded once stays loaded."""
    (tmp_path / fake_nvml.SONAME).write_bytes(nvml_library.read_bytes() if library is None else library)
    look = "from cpost.measure.gpu_watch import gpu_facts\nprint(gpu_facts().absent_because)"
    env = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", look], env=env, capture_output=True, text=True, check=True)
    assert words in done.stdout


# ---------------------------------------------------------------- asked for


def test_gpus_that_are_not_there_are_said() -> None:
    one = GpuFacts((Gpu("GPU-a", "A100"),), "550")
    none = GpuFacts(absent_because="no driver")
    for_one, for_two = ([step(), step(operator="seg", gpu_count=count)] for count in (1, 2))
    require_gpus(none, [step()])
    require_gpus(one, for_one)
    with pytest.raises(HostError, match=r"operator seg asks for a GPU.*no driver") as caught:
        require_gpus(none, for_one)
    assert "--no_gpu" in caught.value.hint
    with pytest.raises(HostError, match=r"operator seg asks for gpu: 2, and this host has 1"):
        require_gpus(one, for_two)


def test_gpus_of_this_host_are_disregarded_where_operators_run_elsewhere(start: Start) -> None:
    watch = start(A100)
    assert watch.facts.gpus
    watch.disregard("they run on there")
    assert watch.facts == GpuFacts(absent_because="they run on there")
    with watch.watching(lambda _: True):
        assert watch.take() == []


def test_gpus_can_be_disregarded_in_the_middle_of_a_step(start: Start) -> None:
    watch = start(A100)
    with watch.watching(lambda _: True):
        assert watch.take()
        watch.disregard("it turns out that they run there")
    assert (watch.take(), watch.problems()) == ([], [])
