"""The thread beside a step: looks come, the join by process, and a driver that hangs or is not there."""

from __future__ import annotations

import contextlib
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
from cpost.measure import gpu_subject, gpu_watch, nvml
from cpost.measure.gpu_watch import GpuFacts, GpuWatch, gpu_facts, require_gpus
from cpost.model.gpu import Gpu, GpuLook, GpuReading

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


def looks_of(watch: GpuWatch, count: int, name: str = "seg") -> list[GpuLook]:
    """Wait for so many looks."""
    found: list[GpuLook] = []
    deadline = time.monotonic() + 20
    while len(found) < count:
        assert time.monotonic() < deadline, f"{len(found)} looks instead of {count}"
        found += watch.take(name)
        time.sleep(0.01)
    return found


def test_the_first_look_is_over_before_the_step_begins(start: Start) -> None:
    watch = start(A100)
    with watch.watching("seg", lambda _: True):
        (first, *_) = watch.take("seg")
        assert first.at_ns <= time.time_ns()
        later = looks_of(watch, 2)
    at = [look.at_ns for look in (first, *later, *watch.take("seg"))]
    assert at == sorted(at)
    assert len(at) >= 4  # one more at the end
    assert watch.problems("seg") == []


def test_memory_goes_to_the_step_whose_process_holds_it(start: Start, nvml_script: Script) -> None:
    lines = (A100, "process 0 11 300", "process 0 12 200")
    watch = start(*lines)
    for own, wanted in ((11, 300), (12, 200), (13, 0)):
        with watch.watching("seg", lambda pid, own=own: pid == own):
            pass
        assert {look.readings[0].own_memory_bytes for look in watch.take("seg")} == {wanted * MB}


def test_a_process_that_has_just_ended_stays_whose_it_was(start: Start) -> None:
    answers = [True, None]
    watch = start(A100, "process 0 11 300")
    with watch.watching("seg", lambda _: answers.pop(0) if len(answers) > 1 else answers[0]):
        found = looks_of(watch, 3)
    assert {look.readings[0].own_memory_bytes for look in found} == {300 * MB}
    with watch.watching("seg", lambda _: None):  # never seen alive: nobody's
        pass
    assert {look.readings[0].own_memory_bytes for look in watch.take("seg")} == {0}


def test_each_step_has_its_own_problems(start: Start, nvml_script: Script) -> None:
    watch = start(A100, "error nvmlDeviceGetPowerUsage 3 1")
    with watch.watching("seg", lambda _: True):
        looks_of(watch, 3)
    assert len(watch.problems("seg")) == 1
    nvml_script(A100, "power 0 5")
    with watch.watching("seg", lambda _: True):
        assert looks_of(watch, 1)[0].readings[0].power_mw == 5
    assert watch.problems("seg") == []


def test_a_failure_of_ours_in_the_thread_is_reported_and_the_next_step_is_watched(start: Start) -> None:
    def fail(pid: int) -> bool:
        raise ValueError(pid)

    watch = start(A100, "process 0 11 300")
    with watch.watching("seg", fail):
        pass
    assert watch.problems("seg") == ["looking at the GPUs broke off: ValueError(11)"]
    with watch.watching("seg", lambda _: True):
        assert looks_of(watch, 2)


def test_looks_that_nobody_fetches_do_not_pile_up(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_subject, "_MOST_LOOKS", 2)
    watch = start(A100)
    began_ns = time.time_ns()
    with watch.watching("seg", lambda _: True):
        for _ in range(400):
            time.sleep(0.01)
            if min(look.at_ns for look in tuple(watch._subjects["seg"].looks)) > began_ns + 10**8:
                break
    assert len(watch.take("seg")) == 2


# ---------------------------------------------------------------- several at once


def readings_of(looks: list[GpuLook]) -> list[GpuReading]:
    return [look.readings[0] for look in looks]


def test_an_operator_and_its_server_are_told_apart(start: Start) -> None:
    """By the processes' own words, as they would be listed where each runs in a container of its own."""
    asleep = "import time; time.sleep(60)"
    with contextlib.ExitStack() as at_end:
        pids = {}
        for name in ("op", "srv"):
            words = [sys.executable, "-c", asleep, f"{name}-of-{os.getpid()}"]
            child = at_end.enter_context(subprocess.Popen(words))
            at_end.callback(child.kill)
            pids[name] = child.pid
        listed = (f"process 0 ~{name}-of-{os.getpid()} {mb}" for name, mb in (("op", 300), ("srv", 700)))
        watch = start(A100, "process 0 1 50", *listed)
        with watch.watching("srv", lambda pid: pid == pids["srv"]):
            alone = watch.take("srv")
            with watch.watching("op", lambda pid: pid == pids["op"]):
                op, srv = looks_of(watch, 3, "op"), looks_of(watch, 3, "srv")
            op += watch.take("op")
    assert {(look.companions, *look.readings[0]._replace(busy=())) for look in op} == {
        (1, (), 1550 * MB, 1050 * MB, 300 * MB, 1, 1, 0, 0, 1)
    }
    beside = [reading for look, reading in zip(srv, readings_of(srv), strict=True) if look.companions]
    assert beside
    assert {(r.own_memory_bytes, r.own_processes, r.other_processes, r.companion_processes) for r in beside} == {
        (700 * MB, 1, 1, 1)
    }
    assert {(r.own_memory_bytes, r.other_processes, r.companion_processes) for r in readings_of(alone)} == {
        (700 * MB, 2, 0)
    }


def test_each_gets_its_looks_from_its_begin_to_its_end(start: Start) -> None:
    watch = start(A100)
    with watch.watching("srv", lambda _: False):
        srv = watch.take("srv")
        before_ns = time.time_ns()
        with watch.watching("op", lambda _: False):
            (first, *_) = op = watch.take("op")
            assert before_ns <= first.at_ns
            op += looks_of(watch, 2, "op")
        op += watch.take("op")
        after_ns = time.time_ns()
        assert op[-1].at_ns <= after_ns
        srv += watch.take("srv")
        srv += looks_of(watch, 2, "srv")
        assert watch.take("op") == []
    srv += watch.take("srv")
    assert {look.at_ns for look in op} <= {look.at_ns for look in srv}  # one round is for both
    assert srv[0].at_ns < op[0].at_ns
    assert op[-1].at_ns < srv[-1].at_ns
    assert [bool(look.companions) for look in srv] == [op[0].at_ns <= look.at_ns <= op[-1].at_ns for look in srv]


def test_a_device_is_read_once_for_all(start: Start) -> None:
    """What fails from its fourth reading on has been read in three rounds, whoever they were for."""
    watch = start(A100, "power 0 5", "error nvmlDeviceGetPowerUsage 999 4")
    with watch.watching("srv", lambda _: False), watch.watching("op", lambda _: False):
        looks_of(watch, 4, "op")
    assert [reading.power_mw for reading in readings_of(watch.take("srv"))[:4]] == [5, 5, 5, None]


def test_busy_time_of_before_a_subject_is_not_its_own_and_nobody_loses_any(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_watch, "PERIOD_S", 0.3)
    watch = start(A100, "busy 0 60", "period 50")
    with watch.watching("srv", lambda _: False):
        srv = looks_of(watch, 2, "srv")
        time.sleep(0.15)  # the driver has new samples when the other one begins
        with watch.watching("op", lambda _: False):
            op = looks_of(watch, 3, "op")
        op += watch.take("op")
        srv += looks_of(watch, 2, "srv")
    srv += watch.take("srv")
    spans = [span for reading in readings_of(srv) for span in reading.busy]
    assert {span.span_ns for span in spans} == {50_000_000}
    assert [span.end_ns - spans[0].end_ns for span in spans] == [n * 50_000_000 for n in range(len(spans))]
    own = [span for reading in readings_of(op) for span in reading.busy]
    assert op[0].readings[0].busy == ()
    assert own == [span for span in spans if own[0].end_ns <= span.end_ns <= own[-1].end_ns]
    assert op[0].at_ns - 50_000_000 <= own[0].end_ns - own[0].span_ns


def test_a_companion_s_process_that_has_just_ended_is_nobody_else_s(start: Start) -> None:
    alive = True
    watch = start(A100, "process 0 11 300", "process 0 12 200")
    with watch.watching("srv", lambda pid: pid == 12):
        with watch.watching("op", lambda pid: pid == 11 if alive else None):
            looks_of(watch, 2, "op")
            alive = False
            looks_of(watch, 2, "op")
        watch.take("srv")
        after = readings_of(looks_of(watch, 2, "srv"))
    assert {(reading.companion_processes, reading.other_processes) for reading in after} == {(1, 0)}
    with watch.watching("next", lambda pid: False):  # to the next step it is
        pass
    assert {reading.other_processes for reading in readings_of(watch.take("next"))} == {2}


def test_what_is_refused_is_told_to_everyone_and_asked_for_again_for_whoever_begins(
    start: Start, nvml_script: Script
) -> None:
    watch = start(A100, "error nvmlDeviceGetPowerUsage 3 1")
    with watch.watching("srv", lambda _: False):
        with watch.watching("op", lambda _: False):
            looks_of(watch, 2, "op")
        assert watch.problems("op") == watch.problems("srv") != []
        assert len(watch.problems("op")) == 1
        nvml_script(A100, "power 0 5")
        with watch.watching("op", lambda _: False):
            assert {reading.power_mw for reading in readings_of(looks_of(watch, 2, "op"))} == {5}
        assert watch.problems("op") == []
    assert len(watch.problems("srv")) == 1


def test_a_subject_that_breaks_off_leaves_the_others_watched(start: Start) -> None:
    def fail(pid: int) -> bool:
        raise ValueError(pid)

    watch = start(A100, "process 0 11 300")
    with watch.watching("srv", lambda _: True):
        with watch.watching("op", fail):
            looks_of(watch, 3, "srv")
        assert watch.problems("op") == ["looking at the GPUs broke off: ValueError(11)"]
        assert watch.take("op") == []
        assert looks_of(watch, 2, "srv")
    assert watch.problems("srv") == []


def test_a_failure_of_ours_in_reading_ends_it_for_all(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(meter: nvml.GpuMeter) -> None:
        raise ValueError("odd")

    watch = start(A100)
    with watch.watching("srv", lambda _: False), watch.watching("op", lambda _: False):
        intact = nvml.GpuMeter.read
        monkeypatch.setattr(nvml.GpuMeter, "read", fail)
        with watch.watching("third", lambda _: False):
            pass
        monkeypatch.setattr(nvml.GpuMeter, "read", intact)
    for name in ("srv", "op", "third"):
        assert watch.problems(name) == ["looking at the GPUs broke off: ValueError('odd')"]
    with watch.watching("next", lambda _: False):
        assert watch.take("next")


def test_a_driver_that_hangs_is_waited_for_once_by_all_who_begin_and_end(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_watch, "_ANSWER_S", 0.2)
    watch = start(A100, "hang nvmlDeviceGetPowerUsage 1500 2")
    with watch.watching("srv", lambda _: False):
        time.sleep(0.1)  # it hangs in the second look
        watch.take("srv")
        with watch.watching("op", lambda _: False):
            pass
    assert ["did not answer before op started" in each for each in watch.problems("op")] == [True]
    assert ["did not answer at the end of srv" in each for each in watch.problems("srv")] == [True]
    assert watch.take("op") == []


# ---------------------------------------------------------------- a driver that hangs


def test_a_driver_that_hangs_from_the_start_holds_nobody_up(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_watch, "_OPEN_S", 0.05)
    watch = start(A100, "hang nvmlInitWithFlags 3000 1")
    assert watch.facts == GpuFacts(absent_because="the NVIDIA driver did not answer within 0.05 s")
    with watch.watching("seg", lambda _: True):
        pass
    assert (watch.take("seg"), watch.problems("seg")) == ([], [])


def test_a_driver_that_hangs_in_a_step_is_a_warning_and_is_waited_for_once(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_watch, "_ANSWER_S", 0.2)
    watch = start(A100, "hang nvmlDeviceGetPowerUsage 1500 1")
    with watch.watching("seg", lambda _: True):
        pass
    assert watch.take("seg") == []
    (problem,) = watch.problems("seg")
    assert "did not answer before seg started" in problem


def test_a_driver_that_hangs_at_the_end_is_a_warning(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_watch, "_ANSWER_S", 0.3)
    watch = start(A100, "hang nvmlDeviceGetPowerUsage 1500 3")
    with watch.watching("seg", lambda _: True):
        assert looks_of(watch, 2)
        time.sleep(0.2)
    (problem,) = watch.problems("seg")
    assert "at the end of seg" in problem


def test_a_driver_that_comes_back_is_used_again(start: Start, nvml_script: Script) -> None:
    watch = start(A100, "hang nvmlDeviceGetPowerUsage 300 1")
    watch._patience_s = 0.05
    with watch.watching("seg", lambda _: True):
        pass
    nvml_script(A100)
    with watch.watching("seg", lambda _: True):
        assert looks_of(watch, 2)


def test_a_driver_that_answers_again_is_given_its_time_again(
    start: Start, nvml_script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slow to wake, and from then on slower than one that is known to hang is waited for."""
    watch = start(A100, "hang nvmlDeviceGetPowerUsage 600 1")
    monkeypatch.setattr(gpu_watch, "_KNOWN_TO_HANG_S", 0.05)
    watch._patience_s = 0.05
    with watch.watching("seg", lambda _: True):
        assert looks_of(watch, 1)
    assert "before seg started" in watch.problems("seg")[0]
    nvml_script(A100, "hang nvmlDeviceGetPowerUsage 300 1")
    with watch.watching("seg", lambda _: True):
        assert watch.take("seg")
    assert watch.problems("seg") == []


# ---------------------------------------------------------------- none


def test_without_gpus_nothing_is_watched(start: Start) -> None:
    watch = start("driver 550")
    assert watch.facts == GpuFacts(driver="550", absent_because="the driver lists none")
    with watch.watching("seg", lambda _: True):
        pass
    assert (watch.take("seg"), watch.problems("seg")) == ([], [])


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
    with watch.watching("seg", lambda _: True):
        assert watch.take("seg") == []


def test_gpus_can_be_disregarded_in_the_middle_of_a_step(start: Start) -> None:
    watch = start(A100)
    with watch.watching("seg", lambda _: True):
        assert watch.take("seg")
        watch.disregard("it turns out that they run there")
    assert (watch.take("seg"), watch.problems("seg")) == ([], [])
