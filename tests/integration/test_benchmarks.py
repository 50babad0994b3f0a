"""The benchmarks' own parts on a real kernel: the workload, the C loop, and the sampler on a process of theirs."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks import applied, cpost_sampler, programs
from benchmarks.applied import Fate
from benchmarks.cpost_runs import Operator
from benchmarks.formulas import Limits
from benchmarks.programs import Truth, parse_report

MS = MB = 10**6


@pytest.fixture(scope="module", autouse=True)
def built() -> None:
    """The C programs."""
    programs.build()


@pytest.fixture
def group() -> Iterator[str]:
    """The group above a process that does nothing."""
    with cpost_sampler.watched_process() as (name, _):
        yield name


def truth_of(*verbs: str) -> Truth:
    done = subprocess.run([programs.TRUTH, *verbs], check=True, capture_output=True, text=True)
    return parse_report(done.stdout)


def test_workload_uses_the_cpu_it_reports() -> None:
    assert 50 * MS <= truth_of("burn", "50").cpu_ns < 250 * MS


def test_spikes_last_as_long_as_asked_and_leave_a_gap() -> None:
    truth = truth_of("spikes", "3", "2", "20", "30")
    assert len(truth.spikes) == 3
    assert truth.held_bytes is not None
    for spike in truth.spikes:
        assert spike.begin_ns < spike.full_ns < spike.end_ns < spike.gone_ns
        assert spike.end_ns - (spike.begin_ns + spike.full_ns) // 2 >= 20 * MS
    assert all(later.begin_ns - earlier.gone_ns >= 30 * MS for earlier, later in pairwise(truth.spikes))


def test_c_loop_reads_all_that_the_meter_reads(group: str, tmp_path: Path) -> None:
    with cpost_sampler.meter_of(group) as meter:
        schedule = cpost_sampler.schedule(meter)
        assert cpost_sampler.back_to_back_ns(meter, 100) > 0
    fast, slow = (
        {line.split("/")[-1] for line in schedule.splitlines() if line.startswith(each)} for each in ("fast", "slow")
    )
    assert fast & {"cpuacct.usage", "cpu.stat"}
    assert fast & {"memory.usage_in_bytes", "memory.current"}
    assert "memory.stat" in slow - fast
    path = tmp_path / "schedule"
    path.write_text(schedule)
    assert programs.back_to_back_ns(path, 100) > 0


def test_sampler_runs_on_a_process_of_ones_own(group: str) -> None:
    times = cpost_sampler.run_sampler(group, 10 * MS, 0.5, busy=False)
    assert len(times) > 10
    assert times == sorted(times)


def test_nothing_is_left_of_a_watched_process() -> None:
    with cpost_sampler.watched_process() as (name, pid):
        assert Path(f"/proc/{pid}").exists()
        assert list(Path("/sys/fs/cgroup").rglob(name))
    assert not list(Path("/sys/fs/cgroup").rglob(name))
    assert not Path(f"/proc/{pid}").exists()


def test_recommendations_are_applied(image: str, tmp_path: Path) -> None:
    """Each distinct one in a run of its own, both figures as limits."""
    payload = tmp_path / "payload"
    payload.mkdir()
    (payload / "file").write_bytes(b"what operators read")
    operator = Operator("a", command=["/bin/appetite", "touch", "60", "burn", "100", "1"])
    enough, little, slow = Limits(1000, 100 * MB), Limits(1000, 30 * MB), Limits(200, 100 * MB)
    advised = {"enough": enough, "enough, too": enough, "little": little, "slow": slow, "nothing": None}
    formulas = {name: lambda _seen, limits=limits: limits for name, limits in advised.items()}
    (found,) = applied.apply(image, [operator], payload, tmp_path, formulas)
    assert found.advised == advised
    assert {limits: tried.fate for limits, tried in found.tried.items()} == {
        enough: Fate.HELD,
        little: Fate.KILLED,
        slow: Fate.SLOW,
    }
    trials = {path.name for path in (tmp_path / "metrics").glob("a_verify*.csv")}
    assert trials == {f"a_verify{number}.csv" for number in (1, 2, 3)}
