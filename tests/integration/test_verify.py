"""Runs under limits: recommendations that hold, that are raised, that never hold; the search for the smallest."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from integration import harness
from integration.conftest import Operator, Pipeline
from integration.harness import Cpost, Done, Host, Record

MB = 10**6
# Its outputs are its container's name, so that they say which run wrote them; waits once a file asks it to.
WRITE = '[ ! -e /in/wait ] || sleep 3600; [ -z "$(ls /out)" ]; appetite touch 60; hostname >/out/name'
READ = "cp /in/name /out; dd if=/dev/zero of=/dev/shm/full bs=1M count=10 || { sleep 1; exit 3; }; appetite burn 300 1"


class Sized(NamedTuple):
    """A run of a writer and of a reader that was verified."""

    done: Done
    folder: Path
    outputs: Path
    payload: Path
    runner: Cpost

    @property
    def record(self) -> Record:
        return harness.load_run(self.folder)


@pytest.fixture(scope="module")
def sized(tmp_path_factory: pytest.TempPathFactory, op: Operator) -> Iterator[Sized]:
    """Measured and verified in one go; noise of a busy host is no slowdown here."""
    folder = tmp_path_factory.mktemp("sized")
    payload = folder / "payload"
    payload.mkdir()
    (folder / "p.yaml").write_text(
        harness.definition(
            [
                op("writer", "sh", "-ec", WRITE, input=[{"path": "/in"}], output=[{"path": "/out"}]),
                op(
                    "reader",
                    "sh",
                    "-ec",
                    READ,
                    input=[{"path": "/in", "from": "writer"}],
                    output=[{"path": "/out"}],
                ),
            ]
        )
    )
    runner = Cpost(folder)
    # Paths that are relative: a record is of use from any folder all the same.
    words = ("--metrics_dir", "metrics", "--outputs_dir", "outputs", "--verify", "--max_slowdown", "1000%")
    done = runner("p.yaml", "payload", *words)
    yield Sized(done, folder / "metrics", folder / "outputs", payload, runner)
    runner.end()


@pytest.fixture
def verify(sized: Sized, cpost: Cpost, tmp_path: Path) -> Callable[..., tuple[Done, Path]]:
    """Verify a copy of that run whose recommendations were changed by hand."""

    def run(changes: dict[str, Record], *options: str, by: Callable[..., Done] = cpost.__call__) -> tuple[Done, Path]:
        folder = copied(sized.folder, tmp_path / "copy", changes)
        return by("verify", folder, *options), folder

    return run


def copied(folder: Path, to: Path, changes: dict[str, Record]) -> Path:
    """A copy of a run folder with other recommendations: cpu_millicores, memory_bytes, dev_shm_bytes by operator or
    server; and with another time without limits, wall_ns."""
    shutil.copytree(folder, to)
    record = harness.load_run(to)
    for each in record["operators"]:
        for one in (each, *each["servers"]):
            wanted = dict(changes.get(one.get("operator") or one["name"], {}))
            if "wall_ns" in wanted:
                one["result"]["wall_ns"] = wanted.pop("wall_ns")
            if "dev_shm_bytes" in wanted:
                one["recommendation"]["dev_shm_bytes"] = wanted.pop("dev_shm_bytes")
            for part in ("requests", "limits"):
                one["recommendation"][part].update(wanted)
    (to / "run.json").write_text(json.dumps(record))
    return to


def of(record: Record, name: str) -> Record:
    found: Record = next(each for each in record["operators"] if each["operator"] == name)
    return found


def verdicts(record: Record) -> list[str]:
    return [each["verdict"] for each in record["verification"]["trials"]]


# ---------------------------------------------------------------- in one go


@pytest.mark.v2
def test_what_was_measured_holds_when_it_is_enforced(sized: Sized) -> None:
    sized.done.ended(0)
    for name in ("writer", "reader"):
        record = of(sized.record, name)
        assert verdicts(record) == ["holds"]
        assert record["recommendation"]["verified"] == "holds"
        (trial,) = record["verification"]["trials"]
        requests = record["recommendation"]["requests"]
        assert trial["enforced"][0]["limits"]["memory_bytes"] == requests["memory_bytes"] == 256 * MB
        assert trial["result"]["totals"]["throttled_periods"] is not None
        assert len(harness.rows_of(sized.folder / f"{name}_verify1.csv")) >= 2
    assert "cpu: 1 (verified)" in sized.done.out
    assert "Running writer under limits: cpu 1, memory 256.000 MB, shared memory " in sized.done.out
    assert "\nHolds: " in sized.done.out


def test_later_operators_read_what_the_run_without_limits_wrote(sized: Sized) -> None:
    writer = of(sized.record, "writer")
    measured = writer["result"]["container_id"][:12]
    assert (sized.outputs / "writer" / "name").read_text().strip() == measured
    assert writer["verification"]["trials"][0]["result"]["container_id"][:12] != measured
    assert (sized.outputs / "reader" / "name").read_text().strip() == measured


def test_runs_under_limits_have_a_table_of_their_own(sized: Sized) -> None:
    rows = harness.rows_of(sized.folder / "trials.csv")
    assert [(each["operator"], each["purpose"], each["verdict"]) for each in rows] == [
        ("writer", "verify", "holds"),
        ("reader", "verify", "holds"),
    ]
    assert [each["series"] for each in rows] == ["writer_verify1.csv", "reader_verify1.csv"]
    assert all(float(each["memory_limit_mb"]) == 256 and float(each["slowdown_percent"]) > -100 for each in rows)
    summary = harness.rows_of(sized.folder / "summary.csv")
    assert [(each["verified"], each["verify_runs"]) for each in summary] == [("holds", "1")] * 2


# ---------------------------------------------------------------- cpost verify


def test_too_little_is_raised_until_it_holds(verify: Callable[..., tuple[Done, Path]]) -> None:
    little: dict[str, Record] = {
        "writer": {"memory_bytes": 32 * MB},
        # 300 ms of CPU take 15 s with so little of a core, and far less than 2.4 s with one, on a busy host, too.
        "reader": {"cpu_millicores": 20, "dev_shm_bytes": 8 * 2**20, "wall_ns": 1200 * 10**6},
    }
    done, folder = verify(little, "--max_slowdown", "100%")
    done.ended(0)
    record = harness.load_run(folder)
    writer, reader = of(record, "writer"), of(record, "reader")
    assert verdicts(writer) == ["broken", "broken", "holds"]
    assert writer["recommendation"]["requests"]["memory_bytes"] == 80 * MB  # 32, 48, 72 in steps of 16
    assert [each for each in writer["recommendation"]["reasons"] if each.startswith("raised:")] == [
        "raised: memory of writer by half: killed for memory"
    ] * 2
    assert verdicts(reader) == ["broken", "slow", "holds"]
    assert reader["recommendation"]["dev_shm_bytes"] == 16 * 2**20
    assert reader["recommendation"]["requests"]["cpu_millicores"] == 1000
    stopped = reader["verification"]["trials"][1]
    assert stopped["throttled_share"] > 0.3
    assert stopped["result"]["outcome"] == "timed_out"
    assert stopped["slowdown"] is None
    assert "held back by its CPU limit in" in done.out
    assert "memory: 80 (verified)" in done.out
    # What was measured stays as it was.
    assert "memory_peak_mb" in (folder / "summary.csv").read_text()
    assert (folder / "writer_final_result.csv").exists()
    names = {path.name for path in folder.glob("*_verify*.csv")}
    assert names == {f"{name}_verify{number}.csv" for name in ("writer", "reader") for number in (1, 2, 3)}


def test_what_never_holds_is_said_and_later_operators_get_whole_outputs(
    verify: Callable[..., tuple[Done, Path]],
) -> None:
    done, folder = verify({"writer": {"memory_bytes": 10 * MB}}, "--max_slowdown", "1000%")
    done.ended(3)
    record = harness.load_run(folder)
    writer, reader = of(record, "writer"), of(record, "reader")
    assert verdicts(writer) == ["broken"] * 4
    assert writer["result"]["outcome"] == "completed"
    assert verdicts(reader) == ["holds"]  # it fails without the writer's file, which no run under limits came to
    assert "Running without limits ..." in done.out
    assert "memory: 48 (broken)" in done.out
    assert "The recommendation for writer did not hold: " in done.out
    assert record["complete"] is True


def test_a_signal_leaves_the_earlier_record(sized: Sized, cpost: Cpost, tmp_path: Path, host: Host, image: str) -> None:
    folder = copied(sized.folder, tmp_path / "copy", {})
    payload = tmp_path / "payload"
    payload.mkdir()
    (payload / "wait").touch()
    record = harness.load_run(folder)
    record["options"]["input_dir"] = str(payload)
    (folder / "run.json").write_text(json.dumps(record))
    page = (folder / "report.html").read_bytes()
    series = {path.name: path.read_bytes() for path in folder.glob("*.csv*")}
    running = cpost.start("verify", folder)
    harness.until(lambda: bool(host.live(image, running.process.pid)), "the run under limits")
    running.signal(signal.SIGINT)
    done = running.wait().ended(130)
    after = harness.load_run(folder)
    assert after["operators"] == record["operators"]
    assert (folder / "report.html").read_bytes() == page
    assert {name: (folder / name).read_bytes() for name in series} == series  # of the runs that the record tells of
    assert not list(folder.glob("*.new"))
    assert after["stopped_by"] == ""  # it is the measured run's, which came to its end
    assert "stopped by SIGINT: the record is as it was" in done.err
    harness.check_csvs(folder)


def test_what_was_applied_may_be_verified(sized: Sized, cpost: Cpost, tmp_path: Path) -> None:
    folder = copied(sized.folder, tmp_path / "copy", {})
    before = (sized.folder.parent / "p.yaml").read_text()
    moved_to(tmp_path / "p.yaml", before, folder)
    cpost("apply", folder, tmp_path / "p.yaml", "--in_place").ended(0)
    assert (tmp_path / "p.yaml").read_text() != before
    cpost("verify", folder, "--max_slowdown", "1000%").ended(0)


def moved_to(definition: Path, text: str, folder: Path) -> None:
    """Let a record lead to another definition."""
    definition.write_text(text)
    (folder / "run.json").write_text(json.dumps({**harness.load_run(folder), "pipeline_file": str(definition)}))


def test_a_definition_that_runs_something_else_is_refused(sized: Sized, cpost: Cpost, tmp_path: Path) -> None:
    folder = copied(sized.folder, tmp_path / "copy", {})
    changed = (sized.folder.parent / "p.yaml").read_text().replace("burn 300", "burn 301")
    moved_to(tmp_path / "p.yaml", changed, folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert "is not what it was when it was measured" in cpost("verify", folder).ended(2).err
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


# ---------------------------------------------------------------- servers


def test_servers_are_limited_too_and_raised_apart(
    cpost: Cpost, pipeline: Pipeline, op: Operator, payload: Path, metrics: Path, image: str, tmp_path: Path
) -> None:
    serve = "appetite touch 40; httpd -f -p 8000 -h /"
    service = {
        "name": "store",
        "container": {**op("x")["container"], "command": ["sh", "-ec", serve]},
        "connections": {"http": [{"name": "STORE", "port": 8000}]},
    }
    ask = op("asker", "sh", "-ec", "wget -q -O - http://$STORE/etc/passwd", services=[service])
    cpost(pipeline(ask), payload, "--metrics_dir", metrics).ended(0)
    folder = copied(metrics, tmp_path / "copy", {"store": {"memory_bytes": 32 * MB, "cpu_millicores": 1000}})
    done = cpost("verify", folder, "--max_slowdown", "1000%").ended(0)
    record = of(harness.load_run(folder), "asker")
    assert "asker__store with cpu 1, memory 32.000 MB" in done.out
    assert verdicts(record) == ["broken", "holds"]
    assert record["recommendation"]["requests"]["memory_bytes"] == 256 * MB
    (server,) = record["servers"]
    assert server["recommendation"]["requests"]["memory_bytes"] == 48 * MB
    assert server["recommendation"]["verified"] == "holds"
    rows = harness.rows_of(folder / "trials.csv")
    assert [(each["operator"], each["series"]) for each in rows[-2:]] == [
        ("asker", "asker_verify2.csv"),
        ("asker__store", "asker__store_verify2.csv"),
    ]
    assert all((folder / each["series"]).exists() for each in rows)


# ---------------------------------------------------------------- other formats

COMPOSE = """\
services:
  first:
    image: IMAGE
    command: [sh, -ec, "mkdir /data/x; appetite touch 20"]
    volumes: ["data:/data"]
  second:
    image: IMAGE
    command: [sh, -ec, '[ "$$(ls /data)" = x ]; mkdir /data/y']
    volumes: ["data:/data"]
    depends_on: {first: {condition: service_completed_successfully}}
  busy:
    image: IMAGE
    command: [appetite, burn, "100000", "2"]
    restart: always
volumes: {data: {}}
"""


def test_volumes_are_as_they_were_and_services_are_judged_by_what_held_them_back(
    cpost: Cpost, payload: Path, metrics: Path, image: str, tmp_path: Path
) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text(COMPOSE.replace("IMAGE", image))
    lenient = ("--max_slowdown", "1000%")
    cpost(file, payload, "--metrics_dir", metrics, "--duration", "1s", "--verify", *lenient).ended(0)
    record = harness.load_run(metrics)
    assert [verdicts(each) for each in record["operators"]] == [["holds"]] * 3
    folder = copied(metrics, tmp_path / "copy", {"busy": {"cpu_millicores": 50}})
    done = cpost("verify", folder, "--max_slowdown", "50%").ended(3)
    record = harness.load_run(folder)
    assert not any("broken" in verdicts(of(record, name)) for name in ("first", "second"))
    busy = of(record, "busy")["verification"]["trials"]
    assert [each["verdict"] for each in busy] == ["slow"] * 4
    assert [each["enforced"][0]["limits"]["cpu_millicores"] for each in busy] == [50, 150, 250, 380]
    assert all(each["slowdown"] is None and each["throttled_share"] > 0.5 for each in busy)
    assert "Too slow: " in done.out


# ---------------------------------------------------------------- cpost search


CORES = os.cpu_count() or 1
# Amdahl: 0.2 s whatever it gets, and 2 s of work that two cores share. It waits instead of working, for as long as its
# quota says, so that whatever else goes on here makes no difference.
AMDAHL = """
quota=$(cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || cut -d ' ' -f 1 /sys/fs/cgroup/cpu.max)
cores=$(nproc)
case $quota in max|-1) ;; *) cores=$((quota / 100000));; esac
[ $cores -le 2 ] || cores=2
exec appetite touch 60 sleep $((200 + 2000 / cores))
"""


def test_the_smallest_memory_and_the_knee_of_a_known_curve_are_found(
    cpost: Cpost, pipeline: Pipeline, op: Operator, payload: Path, metrics: Path
) -> None:
    feeder = op("feeder", "sh", "-ec", "hostname >/out/name", output=[{"path": "/out"}])
    worker = op("worker", "sh", "-ec", AMDAHL, input=[{"path": "/in", "from": "feeder"}])
    words = ("--operator", "worker", "--metrics_dir", metrics, "--max_slowdown", "30%")
    done = cpost("search", pipeline(feeder, worker), payload, *words).ended(0)
    record = harness.load_run(metrics)
    assert of(record, "feeder")["search"] is None
    assert len(list(metrics.glob("feeder_*.csv"))) == 1
    search = of(record, "worker")["search"]
    assert search["memory"]["settled"] is True
    assert 60 * MB < search["memory"]["smallest_bytes"] < 60 * MB + 8 * 2**20
    tried = [each["enforced"][0]["limits"]["cpu_millicores"] for each in search["cpu"]["trials"]]
    assert tried == [1000, 2000, *([] if CORES < 3 else [1000 * min(CORES, 4)])][: max(CORES, 1)]
    assert search["cpu"]["settled"] is True
    assert search["cpu"]["knee_millicores"] == 1000 * min(2, CORES)
    assert search["cpu"]["cheapest_millicores"] == 1000
    memory_runs, cpu_runs = len(search["memory"]["trials"]), len(tried)
    assert {path.name for path in metrics.glob("worker_search*.csv")} == {
        f"worker_search{number}.csv" for number in range(1, memory_runs + cpu_runs + 1)
    }
    rows = harness.rows_of(metrics / "trials.csv")
    assert [each["purpose"] for each in rows] == ["search memory"] * memory_runs + ["search cpu"] * cpu_runs
    assert "The smallest memory that passed for worker: " in done.out
    assert f"The fewest cores that are fast enough for worker: {min(2, CORES)}; " in done.out


def test_what_runs_for_a_set_time_gets_its_cores_by_throttling(
    cpost: Cpost, tmp_path: Path, image: str, payload: Path
) -> None:
    services = {
        "busy": {"image": image, "command": ["appetite", "burn", "60000", "8"], "ports": ["8000"]},
        "calm": {"image": image, "command": ["sleep", "60"], "ports": ["8001"]},
    }
    file = tmp_path / "compose.yaml"
    file.write_text(yaml.safe_dump({"services": services}))
    done = cpost("search", file, payload, "--duration", "1s", "--cpu", "--json").ended(0)
    for name in ("busy", "calm"):
        cpu = done.operator(name)["search"]["cpu"]
        assert (cpu["by_throttling"], cpu["settled"], cpu["cheapest_millicores"]) == (True, True, None)
        limits = [each["enforced"][0]["limits"]["cpu_millicores"] for each in cpu["trials"]]
        shares = [each["throttled_share"] for each in cpu["trials"]]
        assert limits == [1000, 2000, 4000, 8000][: len(limits)]
        # How much of the host it gets is the host's affair; where it wanted more than a core, one is not the answer.
        assert all(share > 0.1 for share in shares[:-1])
        assert cpu["knee_millicores"] == limits[-1]
    assert limits == [1000]


def test_a_reader_of_files_does_without_their_cache(
    cpost: Cpost, pipeline: Pipeline, op: Operator, payload: Path
) -> None:
    with (payload / "large").open("wb") as file:
        file.write(os.urandom(40 * MB))
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # so that it is charged to its reader
    reader = op("reader", "sh", "-ec", "cat /in/large /in/large >/dev/null", input=[{"path": "/in"}])
    words = ("--max_runs", "12", "--max_slowdown", "1000%", "--json")
    done = cpost("search", pipeline(reader), payload, *words).ended(0)
    search = done.operator("reader")["search"]
    # The least that engines take may be too little for the shell itself, now and then.
    held = [each for each in search["memory"]["trials"] if each["verdict"] == "holds"]
    assert search["memory"]["settled"] is True
    assert search["memory"]["smallest_bytes"] < 16 * MB
    assert len(search["memory"]["trials"]) + len(search["cpu"]["trials"]) <= 12
    assert done.operator("reader")["cold_inputs"] == ["/in"]
    assert held
    for trial in held:  # they had to read it, too, and paid for that
        assert trial["cached_input_bytes"] < 2**20
        assert trial["usage"]["cache_peak_bytes"] > MB


def test_an_operator_that_is_not_there_is_refused(
    cpost: Cpost, pipeline: Pipeline, op: Operator, payload: Path
) -> None:
    done = cpost("search", pipeline(op("one", "true")), payload, "--operator", "two").ended(2)
    assert done.err.splitlines() == [
        "cpost: error: the pipeline has no operator two",
        "  what to do: it has one",
    ]
