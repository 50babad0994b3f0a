"""The numbers against operators of known appetite."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from integration import harness
from integration.conftest import Operator
from integration.harness import Cpost, Done, Host, Record, everywhere

MB = 10**6
BURNS_MS = {"blink": 30, "one-thread": 400, "two-threads": 800, "long-burn": 2500}
TOUCHES_MB = {"small": 20, "large": 150, "spike": 90}
ALL = [*BURNS_MS, *TOUCHES_MB, "brief", "instant", "shared", "shared-longer", "cached"]


@pytest.fixture(scope="module")
def metrics_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("known") / "metrics"


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory, op: Operator, before: object, metrics_folder: Path) -> Done:
    """One run of operators of known appetite."""
    folder = tmp_path_factory.mktemp("known")
    operators = [
        op("blink", "appetite", "burn", str(BURNS_MS["blink"]), "1"),
        op("one-thread", "appetite", "burn", str(BURNS_MS["one-thread"]), "1"),
        op("two-threads", "appetite", "burn", str(BURNS_MS["two-threads"]), "2"),
        op("long-burn", "appetite", "burn", str(BURNS_MS["long-burn"]), "2"),
        op("small", "appetite", "touch", str(TOUCHES_MB["small"])),
        op("large", "appetite", "touch", str(TOUCHES_MB["large"]), "sleep", "300"),
        op("spike", "appetite", "sleep", "100", "touch", str(TOUCHES_MB["spike"]), "free", "sleep", "100"),
        op("brief", "appetite", "sleep", "30"),
        op("instant", "appetite"),
        op("shared", "sh", "-c", "head -c 40000000 /dev/zero >/dev/shm/x"),
        op("shared-longer", "sh", "-c", "head -c 90000000 /dev/zero >/dev/shm/x; sleep 0.2"),
        op("cached", "sh", "-c", "head -c 60000000 /dev/zero >/tmp/x; sleep 2.5"),
    ]
    (folder / "pipeline.yaml").write_text(harness.definition(operators))
    (folder / "payload").mkdir()
    cpost = Cpost(folder)
    return cpost("pipeline.yaml", "payload", "--json", "--metrics_dir", metrics_folder).ended(0)


@everywhere
@pytest.mark.parametrize("name", BURNS_MS)
def test_cpu_total_is_what_was_burned(known: Done, name: str) -> None:
    burned_us = BURNS_MS[name] * 1000
    totals = known.operator(name)["result"]["totals"]
    assert totals["source"] == "kernel"
    assert abs(totals["cpu_us"] - burned_us) <= max(burned_us // 100, harness.CPU_SLACK_US)


@pytest.mark.v2
@pytest.mark.parametrize("name", BURNS_MS)
def test_user_and_system_make_the_total(known: Done, name: str) -> None:
    totals = known.operator(name)["result"]["totals"]
    parts = totals["cpu_user_us"] + totals["cpu_system_us"]
    # cgroup v1 counts the parts in timer ticks, each given whole to whoever runs then: far off on a busy host.
    assert parts == pytest.approx(totals["cpu_us"], rel=0.35, abs=50_000)


@everywhere
@pytest.mark.parametrize("name", TOUCHES_MB)
def test_peak_is_what_was_touched(known: Done, name: str) -> None:
    touched = TOUCHES_MB[name] * MB
    found = known.operator(name)
    assert touched <= found["result"]["totals"]["memory_peak_bytes"] <= touched + 3 * MB
    assert found["usage"]["memory_bytes"]["maximum"] == found["result"]["totals"]["memory_peak_bytes"]


@everywhere
@pytest.mark.parametrize("name", ["brief", "instant"])
def test_short_operator_has_totals_and_a_row(known: Done, name: str) -> None:
    result = known.operator(name)["result"]
    assert (result["outcome"], result["exit_code"]) == ("completed", 0)
    assert 0 < result["totals"]["cpu_us"] < 30_000 + harness.CPU_SLACK_US
    assert 0 < result["totals"]["memory_peak_bytes"] < 8 * MB
    assert name in known.err.splitlines()[-1] or any(name in line and "|" in line for line in known.err.splitlines())


@everywhere
def test_brief_operator_has_its_wall_time(known: Done) -> None:
    wall_ns = known.operator("brief")["result"]["wall_ns"]
    assert 29e6 < wall_ns < 1e9


@everywhere
def test_shared_memory_counts(known: Done) -> None:
    found = known.operator("shared")
    assert found["result"]["totals"]["memory_peak_bytes"] >= 40 * MB
    assert found["usage"]["need_peak_bytes"] >= 40 * MB


def test_the_size_of_dev_shm_is_recommended(known: Done) -> None:
    filled = known.operator("shared-longer")
    assert filled["usage"]["dev_shm_peak_bytes"] == pytest.approx(90 * MB, abs=2**16)
    assert (
        filled["recommendation"]["dev_shm_bytes"]
        == -(-filled["usage"]["dev_shm_peak_bytes"] * 115 // 100 // 2**20) * 2**20
    )
    assert known.operator("small")["usage"]["dev_shm_peak_bytes"] in (0, None)


@everywhere
@pytest.mark.parametrize("name", TOUCHES_MB)
def test_need_is_at_least_what_was_touched(known: Done, name: str) -> None:
    assert known.operator(name)["usage"]["need_peak_bytes"] >= TOUCHES_MB[name] * MB


@everywhere
def test_page_cache_is_told_from_need(known: Done) -> None:
    found = known.operator("cached")  # it lives so long because memory.stat may lag by 2 s
    assert 60 * MB <= found["result"]["totals"]["memory_peak_bytes"] <= 66 * MB
    assert 0 < found["usage"]["need_peak_bytes"] < 15 * MB
    assert 55 * MB <= found["usage"]["cache_peak_bytes"] <= 66 * MB


@everywhere
@pytest.mark.parametrize("name", ALL)
def test_average_cpu_is_total_over_wall_time(known: Done, name: str) -> None:
    found = known.operator(name)
    cpu_us, wall_ns = found["result"]["totals"]["cpu_us"], found["result"]["wall_ns"]
    assert found["usage"]["cpu_pct"]["average"] == pytest.approx(cpu_us * 1e3 / wall_ns * 100, rel=0.02, abs=0.1)


@everywhere
@pytest.mark.parametrize("name", ALL)
def test_statistics_are_in_order(known: Done, name: str) -> None:
    usage = known.operator(name)["usage"]
    for each in (usage["cpu_pct"], usage["memory_bytes"]):
        known_values = [each[key] for key in ("p50", "p95", "p99", "maximum") if each[key] is not None]
        assert known_values == sorted(known_values)
        assert each["average"] is None or each["average"] <= each["maximum"] * 1.0001


@everywhere
@pytest.mark.parametrize("name", ALL)
def test_recommendation_follows_the_rule_of_policy_peak(known: Done, name: str) -> None:
    found = known.operator(name)
    assert found["recommendation"]["status"] == "ok"
    requests, usage = found["recommendation"]["requests"], found["usage"]
    cores = -(-usage["cpu_pct"]["maximum"] // 100)
    assert requests["cpu_millicores"] == max(1, cores) * 1000
    assert requests["memory_bytes"] == -(-(usage["memory_bytes"]["maximum"] + 100 * MB) // (256 * MB)) * 256 * MB


@everywhere
def test_sampler_reports_on_itself(known: Done) -> None:
    sampling = known.operator("long-burn")["result"]["sampling"]
    assert sampling["period_ns"] == 10_000_000
    assert 0 < sampling["samples"] <= sampling["ticks_due"] + 2
    assert 0 <= sampling["ticks_missed"] <= sampling["ticks_due"]
    # User-mode Linux counts whole ticks, and the sampler, woken by the tick, is done before the next one.
    assert sampling["sampler_cpu_us"] >= (0 if harness.IN_UML else 1)


@everywhere
@pytest.mark.parametrize("name", ["long-burn", "large"])
def test_series_ends_at_the_totals(known: Done, metrics_folder: Path, name: str) -> None:
    found = known.operator(name)
    rows = harness.rows_of(metrics_folder / found["series_file"])
    timestamps = [float(row["timestamp"]) for row in rows]
    assert timestamps == sorted(timestamps)
    assert len(rows) == found["result"]["sampling"]["samples"]
    peak_mb = found["result"]["totals"]["memory_peak_bytes"] / MB
    assert max(float(row["memory"]) for row in rows) <= peak_mb + 0.01


def test_spikes_of_a_millisecond_stand_in_the_series(
    measure: Callable[..., Done], op: Operator, tmp_path: Path
) -> None:
    spikes, size = 12, 6 * MB
    words = ["sleep", "45", "touch", str(size // MB), "free"] * spikes
    done = measure(op("spiky", "appetite", *words, "sleep", "45"), options=("--metrics_dir", tmp_path / "m")).ended(0)
    found = done.operator("spiky")
    assert found["result"]["totals"]["memory_peak_bytes"] == pytest.approx(size, abs=2 * MB)
    rows = harness.rows_of(tmp_path / "m" / found["series_file"])
    peaks = [int(row["memory_interval_peak_bytes"]) for row in rows if row["memory_interval_peak_bytes"]]
    if not peaks:  # no set-back mark before Linux 6.12 on v2: unknown, and the total is exact all the same
        assert found["result"]["totals"]["source"] == "kernel"
        return
    high = [peak > size for peak in peaks]
    assert sum(now and not before for before, now in itertools.pairwise([False, *high])) == spikes


def test_period_and_window_are_kept(measure: Callable[..., Done], op: Operator) -> None:
    done = measure(op("a", "appetite", "burn", "300", "1"), options=("--period", "50ms", "--window", "100ms")).ended(0)
    assert done.operator("a")["result"]["sampling"]["period_ns"] == 50_000_000
    assert done.operator("a")["usage"]["window_ns"] == 100_000_000


@pytest.mark.parametrize("policy", ["peak", "p95", "p99"])
def test_policies_never_give_less_memory_than_was_seen(measure: Callable[..., Done], op: Operator, policy: str) -> None:
    done = measure(op("a", "appetite", "touch", "300", "sleep", "50"), options=("--policy", policy)).ended(0)
    advice = done.operator("a")["recommendation"]
    assert advice["status"] == "ok"
    assert policy in advice["policy"]
    assert advice["requests"]["memory_bytes"] >= done.operator("a")["usage"]["need_peak_bytes"] > 0


@everywhere
def test_operator_killed_for_memory(measure: Callable[..., Done], op: Operator) -> None:
    done = measure(op("greedy", "appetite", "hog"), options=("--memory_limit", "64MB")).ended(1)
    found = done.operator("greedy")
    assert found["result"]["outcome"] == "oom_killed"
    assert found["result"]["exit_code"] == 137
    assert found["result"]["totals"]["oom_kills"] >= 1
    assert found["result"]["totals"]["memory_peak_bytes"] == pytest.approx(64 * MB, rel=0.01)
    refused_with_reason(found, "memory")
    assert "(Non-zero exitcode)" in done.err


@everywhere
def test_child_killed_for_memory_is_told(measure: Callable[..., Done], op: Operator) -> None:
    done = measure(op("parent", "appetite", "child", "hog"), options=("--memory_limit", "64MB")).ended(0)
    found = done.operator("parent")
    assert (found["result"]["outcome"], found["result"]["exit_code"]) == ("completed", 0)
    assert found["result"]["totals"]["oom_kills"] >= 1
    words = [*found["recommendation"]["reasons"], *found["result"]["warnings"]]
    assert any("memory" in each.lower() and "kill" in each.lower() for each in words), words


@pytest.mark.podman
def test_memory_kill_at_once_is_told(measure: Callable[..., Done], op: Operator) -> None:
    quick = ("sh", "-c", "dd if=/dev/zero of=/dev/null bs=200M count=1")
    done = measure(op("quick", *quick), options=("--memory_limit", "32MB")).ended(1)
    assert done.operator("quick")["result"]["outcome"] == "oom_killed"


def test_memory_kills_are_told_from_other_kills_however_many_at_a_time(
    cpost: Cpost, op: Operator, pipeline: Callable[..., Path], payload: Path
) -> None:
    """Kills within milliseconds, several runs at once: where the engine's own mark misses some."""
    fill = "head -c 60000000 /dev/zero >/tmp/x; kill -9 $$"
    file = pipeline(
        op("a-kill", "sh", "-c", "kill -9 $$"),
        op("b-quick", "sh", "-c", "dd if=/dev/zero of=/dev/null bs=200M count=1"),
        op("c-cache-at-the-limit", "sh", "-c", fill),
        op("d-child", "appetite", "child", "hog"),
    )
    options = ("--json", "--memory_limit", "32MiB", "--force", "cont")
    at_once = [cpost.start("run", file, payload, *options) for _ in range(4)]
    for done in [each.wait(120).ended(1) for each in at_once]:
        outcomes = [
            (done.operator(name)["result"]["outcome"]) for name in ("a-kill", "b-quick", "c-cache-at-the-limit")
        ]
        assert outcomes == ["failed", "oom_killed", "failed"]
        assert done.operator("d-child")["result"]["totals"]["oom_kills"] >= 1
        assert done.operator("d-child")["recommendation"]["status"] == "refused"


@pytest.mark.podman
def test_kill_by_signal_is_no_memory_kill(measure: Callable[..., Done], op: Operator) -> None:
    done = measure(op("killed", "sh", "-c", "kill -9 $$")).ended(1)
    result = done.operator("killed")["result"]
    assert (result["outcome"], result["exit_code"]) == ("failed", 137)
    assert result["totals"]["oom_kills"] == 0


@everywhere
def test_cache_up_to_the_limit_is_no_need_for_it_but_gets_no_number(measure: Callable[..., Done], op: Operator) -> None:
    """No page size divides this limit; the kernel rounds it down."""
    fill = op("filling", "sh", "-c", "head -c 90000000 /dev/zero >/tmp/x")
    done = measure(fill, options=("--memory_limit", "60MB")).ended(0)
    refused_with_reason(done.operator("filling"), "limit")


def test_limit_is_a_ceiling_without_swap(
    cpost: Cpost, op: Operator, pipeline: Callable[..., Path], payload: Path, host: Host, image: str
) -> None:
    running = cpost.start(pipeline(op("a", "sleep", "2")), payload, "--memory_limit", "100MB")
    container = harness.until(lambda: host.live(image, running.process.pid), "the operator's container")[0]
    limits: Record = container.attrs["HostConfig"]
    assert limits["Memory"] == 100 * MB - 100 * MB % 4096  # as the kernel takes it: whole pages
    assert limits["MemorySwap"] == limits["Memory"] or host.swap_limits(container) == {0}
    running.wait().ended(0)


def refused_with_reason(found: Record, word: str) -> None:
    advice = found["recommendation"]
    assert advice["status"] == "refused"
    assert advice["requests"] == {"cpu_millicores": None, "memory_bytes": None, "gpu_count": None}
    assert any(word in reason.lower() for reason in advice["reasons"]), advice["reasons"]
