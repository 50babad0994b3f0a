"""The sampler's thread over a group on a plain file system and a real child process: baseline, totals, fall-back."""

from __future__ import annotations

import itertools
import os
import threading

import pytest
from rig import MIB, PERIOD, Rig

from cpost.measure import life
from cpost.measure.life import LifeWatch
from cpost.model import Sample


def test_what_the_runtime_used_before_is_taken_out(rig: Rig) -> None:
    rig.kernel_says(cpu=50_000, memory=9 * MIB, io=1000)
    sampler = rig.sampler(rig.own)
    sampler.start()
    rig.container_runs()
    assert sampler.started.wait(10)
    rig.kernel_says(cpu=350_000, memory=20 * MIB, io=5000, kills=1)
    totals = rig.ends(sampler)
    assert (totals.source, totals.tail_ns) == ("kernel", 0)
    assert (totals.cpu_us, totals.cpu_user_us, totals.startup_cpu_us) == (300_000, 300_000, 50_000)
    assert (totals.io_read_bytes, totals.io_write_bytes) == (4000, 0)
    assert (totals.oom_kills, totals.pids_peak) == (1, 3)
    assert rig.samples[0].cpu_us in (0, 300_000)
    assert (rig.samples[-1].cpu_us, rig.samples[-1].memory_bytes) == (300_000, 20 * MIB)
    assert rig.samples[-1].detail is not None


@pytest.mark.parametrize(("late", "peak"), [(False, 5 * MIB), (True, 30 * MIB)])
def test_after_a_late_first_look_the_mark_is_kept(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, late: bool, peak: int
) -> None:
    """It may be the operator's already: rather the runtime's start-up in the peak than the operator's lost."""
    monkeypatch.setattr("cpost.measure.life._LATE_NS", -1 if late else 10**12)
    rig.kernel_says(memory=5 * MIB)
    (rig.root / "cg/own/memory.peak").write_text(f"{30 * MIB}\n")
    sampler = rig.sampler(rig.own)
    sampler.start()
    rig.container_runs()
    assert sampler.started.wait(10)
    totals = rig.ends(sampler)
    assert totals.memory_peak_bytes == peak
    assert totals.startup_memory_peak_bytes == (None if late else 30 * MIB)


def test_throttling_is_the_container_s_own_group_s(rig: Rig) -> None:
    rig.kernel_says()
    (rig.root / "cg/own/container/cpu.stat").write_text("usage_usec 1\nthrottled_usec 500\nnr_throttled 3\n")
    sampler = rig.sampler(rig.own)
    sampler.start()
    rig.container_runs()
    assert sampler.started.wait(10)
    totals = rig.ends(sampler)
    assert (totals.throttled_us, totals.throttled_periods) == (500, 3)


def test_times_count_from_the_start_and_the_sampling_says_how_it_went(rig: Rig) -> None:
    rig.kernel_says()
    sampler = rig.sampler(rig.own)
    sampler.start()
    rig.container_runs()
    assert sampler.started.wait(10)
    rig.ends(sampler)
    life = sampler.life
    assert life.started_ns is not None
    assert life.ended_ns is not None
    assert life.sampling is not None
    assert life.sampling.samples == len(rig.samples)
    assert life.sampling.sampler_cpu_us > 0
    times = [each.t_ns for each in rig.samples]
    assert times == sorted(times)
    assert 0 <= times[0] <= times[-1] <= life.ended_ns - life.started_ns


def test_a_counter_that_is_set_back_goes_on_from_where_it_was_and_is_told(rig: Rig) -> None:
    rig.kernel_says(cpu=50_000, io=1000)
    sampler = rig.sampler(rig.own)
    sampler.start()
    rig.container_runs()
    assert sampler.started.wait(10)
    rig.kernel_says(cpu=10_000, io=10)
    totals = rig.ends(sampler)
    assert (totals.cpu_us, totals.io_read_bytes) == (10_000, 0)
    assert sampler.life.sampling is not None
    assert sampler.life.sampling.counter_resets == 1
    assert all(before.cpu_us <= after.cpu_us for before, after in itertools.pairwise(rig.samples))


def test_the_end_is_read_after_the_container_s_group_is_gone(rig: Rig) -> None:
    rig.kernel_says()
    sampler = rig.sampler(rig.own)
    sampler.start()
    rig.container_runs()
    assert sampler.started.wait(10)
    assert rig.child.stdin is not None
    rig.child.stdin.close()
    rig.child.wait(10)
    sampler._thread.join(10)
    rig.kernel_says(cpu=77_000)  # what the kernel adds when the last process has gone
    assert rig.ends(sampler).cpu_us == 77_000


@pytest.mark.parametrize("command", ["runc:[2:INIT]", "docker-init"])
def test_an_operator_that_came_and_went_between_two_looks_has_totals(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    looked = threading.Event()

    def still_the_runtime(_pid: int) -> str:
        looked.set()
        return command

    monkeypatch.setattr("cpost.measure.life._command", still_the_runtime)
    rig.kernel_says(cpu=1000)
    rig.container_runs()
    sampler = rig.sampler(rig.own)
    sampler.start()
    assert looked.wait(10)
    rig.kernel_says(cpu=9000)
    (rig.root / "cg/own/container/cgroup.procs").write_text("")
    assert sampler.started.wait(10)
    totals = rig.ends(sampler)
    assert totals.source == "kernel"
    assert totals.cpu_us + (totals.startup_cpu_us or 0) == 9000
    assert rig.samples


@pytest.mark.parametrize("command", ["execute.sh", "crunch", "runcpu", "cpost-executor", "conmonitor"])
def test_a_command_whose_name_begins_like_a_runtime_s_is_none(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr("cpost.measure.life._command", lambda _pid: command)
    rig.kernel_says(cpu=1000)
    sampler = rig.sampler(rig.own)
    sampler.start()
    rig.container_runs()
    assert sampler.started.wait(10)
    rig.kernel_says(cpu=9000)
    assert rig.ends(sampler).cpu_us == 8000


def test_the_runtime_s_process_is_the_main_one_whatever_the_numbers(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers begin anew after the highest, so a child may have a lower one."""
    looked = threading.Event()
    commands = {rig.child.pid: "runc:[2:INIT]"}

    def commands_of(pid: int) -> str:
        looked.set()
        return commands[pid]

    monkeypatch.setattr("cpost.measure.life._command", commands_of)
    rig.kernel_says()
    rig.container_runs()
    sampler = rig.sampler(rig.own)
    sampler.start()
    assert looked.wait(10)
    commands.update({rig.child.pid: "cat", 2: "its child"})
    (rig.root / "cg/own/container/cgroup.procs").write_text(f"2\n{rig.child.pid}\n")
    assert sampler.started.wait(10)
    rig.ends(sampler)  # would not come back if the other process were watched


def test_where_the_scheduler_does_not_count_the_last_look_is_the_baseline() -> None:
    assert life._run_time_us([]) is None
    assert (life._run_time_us([os.getpid()]) or 0) > 0


@pytest.mark.parametrize("step", [-1, 1], ids=["younger", "ids began anew"])
def test_the_init_s_own_start_is_the_runtime_s(rig: Rig, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """The program has run for 5 of the 20 ms that were used since the last look at the runtime."""
    looked = threading.Event()
    program = rig.child.pid
    init = program + step
    commands = {init: "docker-init", program: "cat"}

    def commands_of(pid: int) -> str:
        looked.set()
        return commands[pid]

    monkeypatch.setattr("cpost.measure.life._command", commands_of)
    monkeypatch.setattr("cpost.measure.life._run_time_us", lambda pids: {(program,): 5_000}[tuple(pids)])
    rig.kernel_says(cpu=10_000)
    procs = rig.root / "cg/own/container/cgroup.procs"
    procs.write_text(f"{init}\n")
    sampler = rig.sampler(rig.own)
    sampler.start()
    assert looked.wait(10)
    rig.kernel_says(cpu=30_000)
    procs.write_text(f"{init}\n{program}\n")
    assert sampler.started.wait(10)
    sampler.stop()
    totals = sampler.totals()
    assert totals is not None
    assert totals.startup_cpu_us is not None
    # Where a look fell between the two writes above, what it read is the runtime's for certain.
    assert totals.startup_cpu_us in (25_000, 30_000)
    assert totals.cpu_us == 30_000 - totals.startup_cpu_us
    sampler.close()


def test_without_a_group_of_our_own_the_container_s_is_sampled(rig: Rig) -> None:
    rig.kernel_says("cg/own/container", cpu=40_000, memory=5 * MIB, kills=2)
    sampler = rig.sampler(None)
    sampler.start()
    sampler.attach(rig.child.pid)
    assert sampler.started.wait(10)
    assert not sampler.exact
    totals = rig.ends(sampler)
    # What was used before the container was found counts as start-up.
    assert (totals.source, totals.cpu_us, totals.startup_cpu_us) == ("last sample", 0, 40_000)
    assert totals.startup_memory_peak_bytes is None
    assert totals.oom_kills == 2
    assert totals.tail_ns >= 0


def test_stopped_before_anything_ran(rig: Rig) -> None:
    rig.kernel_says()
    sampler = rig.sampler(rig.own)
    sampler.start()
    sampler.stop()
    assert not sampler.started.is_set()
    assert not sampler._thread.is_alive()
    assert rig.samples == []
    sampler.close()


def test_stopped_while_the_operator_runs(rig: Rig) -> None:
    rig.kernel_says(cpu=5)
    sampler = rig.sampler(rig.own)
    sampler.start()
    rig.container_runs()
    assert sampler.started.wait(10)
    sampler.stop()
    assert not sampler._thread.is_alive()
    assert rig.child.poll() is None
    assert sampler.life.sampling is not None
    sampler.close()


def test_never_started_never_read(rig: Rig) -> None:
    sampler = rig.sampler(rig.own)
    sampler.stop()
    assert sampler.totals() is None
    sampler.close()


def test_what_breaks_in_the_thread_is_kept_for_the_step(rig: Rig) -> None:
    rig.kernel_says()
    broken = ValueError("no receiver")

    def refuse(_: list[Sample]) -> None:
        raise broken

    sampler = LifeWatch(rig.hierarchies, rig.own, PERIOD, refuse)
    sampler.start()
    rig.container_runs()
    sampler._thread.join(10)
    assert sampler.error is broken
    sampler.stop()
    sampler.close()
