"""The sampling process from its handle's side: what comes through, and what happens when one of the two is held up."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from rig import MIB, PERIOD, Rig

from cpost.measure.sampler import Sampler, SamplingProcess
from cpost.model import Sample
from waiting import until

MS = 10**6


@pytest.fixture
def process() -> Iterator[SamplingProcess]:
    with SamplingProcess() as process:
        yield process


def begin(process: SamplingProcess, rig: Rig) -> Sampler:
    """Start to sample, and let the container run."""
    sampler = Sampler(process, rig.hierarchies, rig.own, PERIOD, rig.samples.extend)
    sampler.start()
    rig.container_runs()
    assert sampler.started.wait(10)
    return sampler


def end(rig: Rig, sampler: Sampler) -> None:
    assert rig.child.stdin is not None
    rig.child.stdin.close()
    until(lambda: sampler.life.ended_ns is not None or sampler.error)
    sampler.stop()


def test_samples_life_and_totals_come_through(process: SamplingProcess, rig: Rig) -> None:
    rig.kernel_says(cpu=50_000)
    sampler = begin(process, rig)
    rig.kernel_says(cpu=350_000, memory=20 * MIB, kills=1)
    until(lambda: rig.samples and rig.samples[-1].cpu_us == 300_000)
    end(rig, sampler)
    totals = sampler.totals()
    assert totals is not None
    assert (totals.source, totals.cpu_us, totals.oom_kills) == ("kernel", 300_000, 1)
    assert (sampler.error, sampler.exact) == ("", True)
    assert sampler.life.sampling is not None
    assert sampler.life.sampling.samples == len(rig.samples)
    assert isinstance(rig.samples[0], Sample)


def test_it_tells_that_it_watches_before_anything_begins(process: SamplingProcess, rig: Rig) -> None:
    rig.kernel_says(cpu=1000)
    sampler = Sampler(process, rig.hierarchies, rig.own, PERIOD, rig.samples.extend)
    assert not sampler.watching.is_set()
    sampler.start()
    assert sampler.watching.wait(10)
    assert not sampler.started.is_set()
    rig.container_runs()
    assert sampler.started.wait(10)
    end(rig, sampler)


def test_one_process_serves_one_step_after_the_other(process: SamplingProcess, rig: Rig) -> None:
    rig.kernel_says(cpu=1000)
    first, pid = begin(process, rig), process.pid
    first.stop()
    rig.kernel_says(cpu=9000)
    second = begin(process, rig)
    end(rig, second)
    totals = second.totals()
    assert totals is not None
    assert (totals.startup_cpu_us, totals.cpu_us, process.pid) == (9000, 0, pid)


def test_never_started_never_read(process: SamplingProcess, rig: Rig) -> None:
    sampler = Sampler(process, rig.hierarchies, rig.own, PERIOD, rig.samples.extend)
    sampler.stop()
    assert sampler.totals() is None


def test_stopped_before_anything_ran(process: SamplingProcess, rig: Rig) -> None:
    rig.kernel_says()
    sampler = Sampler(process, rig.hierarchies, rig.own, PERIOD, rig.samples.extend)
    sampler.start()
    sampler.stop()
    assert (sampler.started.is_set(), rig.samples, sampler.error) == (False, [], "")


def test_without_a_group_of_our_own_the_process_is_told(process: SamplingProcess, rig: Rig) -> None:
    rig.kernel_says("cg/own/container", cpu=40_000)
    sampler = Sampler(process, rig.hierarchies, None, PERIOD, rig.samples.extend)
    sampler.start()
    sampler.attach(rig.child.pid)
    assert sampler.started.wait(10)
    end(rig, sampler)
    totals = sampler.totals()
    assert totals is not None
    assert (totals.source, sampler.exact) == ("last sample", False)


def test_a_frozen_sampler_shows_as_a_gap(process: SamplingProcess, rig: Rig) -> None:
    rig.kernel_says()
    sampler = begin(process, rig)
    until(lambda: len(rig.samples) > 5)
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(0.5)
    os.kill(process.pid, signal.SIGCONT)
    seen = len(rig.samples)
    until(lambda: len(rig.samples) > seen + 5)
    end(rig, sampler)
    said = sampler.life.sampling
    assert said is not None
    assert said.longest_gap_ns > 450 * MS
    assert said.ticks_missed >= 450 * MS // PERIOD
    times = [each.t_ns for each in rig.samples]
    assert max(late - early for early, late in itertools.pairwise(times)) == said.longest_gap_ns


def test_a_sampler_that_was_killed_is_told_and_the_next_step_gets_another(process: SamplingProcess, rig: Rig) -> None:
    rig.kernel_says(cpu=5)
    sampler, pid = begin(process, rig), process.pid
    os.kill(pid, signal.SIGKILL)
    until(lambda: sampler.error)
    sampler.stop()
    assert sampler.totals() is None
    assert "ended" in sampler.error
    again = begin(process, rig)
    end(rig, again)
    assert again.totals() is not None
    assert process.pid != pid


def test_a_late_answer_is_not_taken_for_the_next_step_s(process: SamplingProcess, rig: Rig) -> None:
    rig.kernel_says(cpu=1000)
    first = begin(process, rig)
    rig.kernel_says(cpu=500_000)
    frozen = process.pid
    os.kill(frozen, signal.SIGSTOP)
    first.stop(0.2)
    assert "does not answer" in first.error
    second = begin(process, rig)
    assert process.pid != frozen
    end(rig, second)
    totals = second.totals()
    assert totals is not None
    assert (totals.startup_cpu_us, totals.cpu_us, second.error) == (500_000, 0, "")


def test_signals_of_the_terminal_do_not_reach_it(process: SamplingProcess, rig: Rig) -> None:
    rig.kernel_says()
    sampler = begin(process, rig)
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        os.kill(process.pid, signum)
    assert os.getsid(process.pid) != os.getsid(0)
    end(rig, sampler)
    assert sampler.totals() is not None


def test_nothing_is_lost_while_nobody_takes_the_samples(rig: Rig, tmp_path: Path) -> None:
    """The reader stands still for longer than its pipe is deep, which is a page; the sampler goes on at its pace."""
    rig.kernel_says()
    script = tmp_path / "reader.py"
    script.write_text(
        "import fcntl, sys\n"
        "from pathlib import Path\n"
        "from cpost.measure.cgroup import Hierarchies\n"
        "from cpost.measure.sampler import Sampler, SamplingProcess\n"
        "hierarchies = Hierarchies.read(Path(sys.argv[1]))\n"
        "samples = []\n"
        "with SamplingProcess() as process:\n"
        "    process._ready.wait(10)\n"
        "    assert fcntl.fcntl(process._process.stdout, fcntl.F_SETPIPE_SZ, 4096) == 4096\n"
        "    sampler = Sampler(process, hierarchies, hierarchies.group('own'), 1_000_000, samples.extend)\n"
        "    sampler.start()\n"
        "    sampler.started.wait(10)\n"
        "    print('begun', flush=True)\n"
        "    sys.stdin.read()\n"
        "    sampler.stop(60)\n"
        "    said = sampler.life.sampling\n"
        "    print(len(samples), said.samples, said.ticks_due, said.ticks_missed)\n"
    )
    command = [sys.executable, str(script), str(rig.root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdin is not None
        assert reader.stdout is not None
        rig.container_runs()
        assert reader.stdout.readline() == "begun\n"
        reader.send_signal(signal.SIGSTOP)
        time.sleep(1.0)
        reader.send_signal(signal.SIGCONT)
        reader.stdin.close()
        came, made, due, missed = map(int, reader.stdout.readline().split())
    assert came == made
    assert due >= 1000
    assert made >= due - missed


def test_it_does_not_outlive_the_one_who_started_it() -> None:
    script = (
        "import os\nfrom cpost.measure.sampler import SamplingProcess\n"
        "print(SamplingProcess().pid, flush=True)\nos.read(0, 1)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        assert psutil.pid_exists(pid)
        starter.kill()
    until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
