"""Following a command's processes: real ones, of known appetite."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from cpost.measure import tree
from cpost.measure.tree import TreeMeter, TreeSampler
from cpost.model import Sample

BURN = "import time\nwhile time.process_time() < {s}: pass\n"
PERIOD = 5 * 10**6


def others(*kin: int) -> tuple[int, ...]:
    """Children of this process, such as tests that run elsewhere at the same time, but for these."""
    return tuple(child.pid for child in psutil.Process().children() if child.pid not in kin)


@pytest.fixture
def family() -> Iterator[subprocess.Popen[bytes]]:
    """A shell that waits, with a child that has burned 200 ms and lives, and one that has burned 100 ms and is gone."""
    lives = f"{sys.executable} -c '{BURN.format(s=0.2)}\nprint(flush=True)\nimport time; time.sleep(100)'"
    gone = f"{sys.executable} -c '{BURN.format(s=0.1)}'"
    with subprocess.Popen(["sh", "-c", f"{gone}; {lives} & wait"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        for child in psutil.Process(process.pid).children() if process.poll() is None else ():
            child.kill()
        process.kill()


def test_the_living_and_the_waited_for_are_summed_up(family: subprocess.Popen[bytes]) -> None:
    meter = TreeMeter(family.pid, others(family.pid))
    look = meter.look(detailed=True)
    assert look is not None
    sample = meter.sample(7, look, 10**9)
    assert 7 < sample.t_ns == 7 + look.t_ns < 10**9, "the search comes first"
    assert 290_000 <= sample.cpu_us < 600_000
    assert sample.memory_bytes is not None
    assert sample.detail is not None
    assert 10**6 < (sample.detail.anon_bytes or 0) < sample.memory_bytes
    assert sample.pids == 2
    assert (sample.memory_peak_bytes, sample.throttled_us, sample.detail.reclaimable_bytes) == (None, None, None)


def test_other_children_of_this_process_do_not_count(family: subprocess.Popen[bytes]) -> None:
    with subprocess.Popen(["sleep", "100"]) as other:
        meter = TreeMeter(family.pid, others(family.pid))
        sample = meter.look(detailed=True)
        assert sample is not None
        assert sample.pids == 2
        other.kill()


def test_counters_never_go_backwards(family: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    meter = TreeMeter(family.pid, others(family.pid))
    before = meter.look(detailed=False)
    monkeypatch.setattr(tree, "process_cpu_us", lambda _: 0)
    after = meter.look(detailed=False)
    assert before is not None
    assert after is not None
    assert after.cpu_us >= before.cpu_us > 0


def test_nothing_is_read_of_what_is_gone() -> None:
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    assert TreeMeter(gone.pid, others()).look(detailed=True) is None


def test_a_whole_life() -> None:
    """Baseline out, what was waited for in, to the kernel's own figure."""
    child = "subprocess.run([sys.executable, '-c', sys.argv[1]])"
    work = f"import subprocess, sys\ninput()\nx = bytearray(60_000_000)\n{child}"
    process = subprocess.Popen(
        [sys.executable, "-c", work, BURN.format(s=0.15)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    assert process.stdin is not None
    while tree.process_cpu_us(process.pid) < 5000:  # it is still at its start
        time.sleep(0.01)
    time.sleep(0.2)
    samples: list[Sample] = []
    sampler = TreeSampler(process.pid, others(process.pid), PERIOD, samples.extend)
    sampler.prepare()
    sampler.start()
    base_us = tree.process_cpu_us(process.pid)
    process.stdin.write(b"\n")
    process.stdin.close()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    _, _, usage = os.wait4(process.pid, 0)
    process.returncode = 0
    sampler.stop()
    assert (sampler.kill_rest(), sampler.error) == (0, "")
    totals = sampler.totals(usage)
    sampler.close()
    assert totals.source == "process tree"
    assert abs(totals.cpu_us - round((usage.ru_utime + usage.ru_stime) * 1e6) + base_us) <= 2000
    assert totals.cpu_us >= 150_000
    assert totals.startup_cpu_us == pytest.approx(base_us, abs=2000)
    assert (totals.memory_peak_bytes or 0) >= 60_000_000
    assert samples[0].cpu_us < samples[-1].cpu_us <= totals.cpu_us
    assert sampler.life.sampling is not None
    assert sampler.life.sampling.samples == len(samples)
