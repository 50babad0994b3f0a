"""What one sample costs, back to back and at a pace, and what the whole of cpost costs while an operator runs."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from benchmarks import clocks, cpost_runs, cpost_sampler, endurance, naive, programs, rivals, table
from benchmarks.cpost_runs import Operator
from benchmarks.ranges import Range, range_of, ratios
from benchmarks.setting import Setting
from benchmarks.table import Findings, Line

THEME = "Cost of sampling"
_BACK_TO_BACK = 20_000
_PERIOD_NS = 10_000_000
_SETTLE_S = 0.7
_SPARE_S = 3.0
_CSV_ROWS = 20_000
_MOST_BACK, _MOST_PACED, _MOST_DEFAULT, _MOST_1MS, _MOST_CSV = 2.5, 1.3, 0.5, 4.0, 15.0
NOTES = (
    "Cost: the C loop reads the same files as cpost's meter, kept open, the slower beat's every tenth time; open+parse "
    "is a Python loop that opens, reads, splits and closes the same files each time.",
    "Cost at a pace: CPU time by the kernel's account, waking up included: of cpost's sampling process; of docker "
    "stats the engine's above its idle use, and the client's, per sample, of which there is one a second. All of it: "
    "also the process that writes the rows.",
)


def measure(setting: Setting) -> Findings:
    """All costs."""
    with _subject() as (group, pid, schedule):
        back = _back_to_back(setting, group, schedule)
        paced, tree_us = _paced(setting, group, pid, schedule)
    shares = _rival_shares(setting)
    rivals_us = {tool: range_of([share / 100 / rate * 1e6]) for tool, (share, rate) in shares.items()}
    ours = range_of(_whole(setting, "10ms"))
    cells = {table.CPOST: ours, **{tool: range_of([share]) for tool, (share, _) in shares.items()}}
    aim, met = f"< {_MOST_DEFAULT:g} %", ours.median < _MOST_DEFAULT
    rows_us = [endurance.row_cost_us(_CSV_ROWS) for _ in paced[table.CPOST]]
    row_shares = ratios([100 * each for each in rows_us], paced[table.CPOST])
    lines = [
        Line(THEME, "one sample, back to back", "us", _ranges(back)),
        _ratio(back, _MOST_BACK),
        Line(THEME, "one sample at 100 Hz, CPU", "us", {**_ranges(paced), **rivals_us}),
        _ratio(paced, _MOST_PACED),
        Line(THEME, "all of it while an operator runs, of one core", "%", cells, aim, met),
        _most("the same with --period 1ms", range_of(_whole(setting, "1ms")), _MOST_1MS),
        _most("a row of CSV, of what a sample costs at 100 Hz", row_shares, _MOST_CSV),
    ]
    return Findings(lines, (*NOTES, f"Cost at a pace: psutil over a process tree takes {tree_us:.0f} us a sample."))


def _ranges(costs: dict[str, list[float]]) -> dict[str, Range]:
    return {tool: range_of(values) for tool, values in costs.items()}


@contextmanager
def _subject() -> Iterator[tuple[str, int, Path]]:
    """An idle process below a group, and the schedule of what the meter reads of it: (group, pid, schedule file)."""
    with cpost_sampler.watched_process() as (group, pid), tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "schedule")
        with cpost_sampler.meter_of(group) as meter:
            path.write_text(cpost_sampler.schedule(meter))
        yield group, pid, path


def _ratio(costs: dict[str, list[float]], most: float) -> Line:
    found = ratios(costs[table.CPOST], costs[table.LIMIT])
    cells = {table.CPOST: found, table.NAIVE: ratios(costs[table.NAIVE], costs[table.LIMIT])}
    return Line(THEME, "the same against the C loop", "ratio", cells, f"<= {most:g}", found.median <= most)


def _most(what: str, found: Range, most: float) -> Line:
    return Line(THEME, what, "%", {table.CPOST: found}, f"< {most:g} %", found.median < most)


def _back_to_back(setting: Setting, group: str, schedule: Path) -> dict[str, list[float]]:
    """Microseconds per sample, in turns."""
    costs: dict[str, list[float]] = {table.CPOST: [], table.LIMIT: [], table.NAIVE: []}
    opened = naive.file_reader(schedule.read_text())
    with cpost_sampler.meter_of(group) as meter:
        for _ in range(setting.scale.repeats):
            costs[table.CPOST].append(cpost_sampler.back_to_back_ns(meter, _BACK_TO_BACK) / 1000)
            costs[table.LIMIT].append(programs.back_to_back_ns(schedule, _BACK_TO_BACK) / 1000)
            begin_ns = time.perf_counter_ns()
            for number in range(_BACK_TO_BACK // 10):
                opened(number)
            costs[table.NAIVE].append((time.perf_counter_ns() - begin_ns) / (_BACK_TO_BACK / 10) / 1000)
    return costs


# ---------------------------------------------------------------- at a pace


def _paced(setting: Setting, group: str, pid: int, schedule: Path) -> tuple[dict[str, list[float]], float]:
    """Microseconds of CPU per sample at 100 Hz, in turns; and psutil's over a process tree."""
    seconds = setting.scale.seconds
    whole_s = round(_SETTLE_S + seconds + 1)
    commands = {
        table.CPOST: cpost_sampler.command(group, _PERIOD_NS, whole_s),
        table.LIMIT: programs.paced_command(schedule, _PERIOD_NS, whole_s),
        table.NAIVE: naive.command("files", str(schedule), _PERIOD_NS, whole_s),
    }
    costs: dict[str, list[float]] = {tool: [] for tool in commands}
    for _ in range(min(3, setting.scale.repeats)):
        for tool, command in commands.items():
            share = _share_of(command, seconds, without_parent=tool == table.CPOST)
            costs[tool].append(share * _PERIOD_NS / 1000)
    tree = _share_of(naive.command("tree", pid, _PERIOD_NS, whole_s), seconds) * _PERIOD_NS / 1000
    return costs, tree


def _share_of(command: Sequence[str], seconds: float, *, without_parent: bool = False) -> float:
    """Share of one core that a program and its children (or these alone) use in the middle of its life."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        time.sleep(_SETTLE_S)
        pids = clocks.tree(process.pid)[1 if without_parent else 0 :]
        used_ns, wall_ns = clocks.used_ns(pids, seconds)
        if process.poll() is not None:
            raise RuntimeError(f"{command[:3]} ended early with {process.returncode}")
    finally:
        process.kill()
        process.wait()
    return used_ns / wall_ns


# ---------------------------------------------------------------- all of cpost


def _whole(setting: Setting, period: str) -> list[float]:
    """Share of one core (%) that all of cpost's processes use while an operator that does nothing runs."""
    shares, seconds = [], setting.scale.seconds
    for _ in range(min(2, setting.scale.repeats)):
        operator = Operator("idle", ("sleep", str((seconds + 1) * 1000)))
        with cpost_runs.work_folder() as folder:
            running = cpost_runs.start(setting.image, [operator], folder, "--period", period)
            running.await_samples("idle")
            used_ns, wall_ns = clocks.used_ns(clocks.tree(running.process.pid), seconds)
            running.finish()
        shares.append(used_ns / wall_ns * 100)
    return shares


def _rival_shares(setting: Setting) -> dict[str, tuple[float, float]]:
    """By tool: the share of one core (%) that it uses, and its samples per second."""
    shares = {}
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        lasting = setting.scale.seconds + _SPARE_S
        share = _share_of(rivals.psrecord_command(f"sleep {lasting}", log), setting.scale.seconds)
        times = [at for at, _, _ in rivals.psrecord_rows(log)]
        shares[table.PSRECORD] = (share * 100, len(times) / max(times, default=1))
    engine = [process.pid for process in psutil.process_iter(["name"]) if process.info["name"] == "dockerd"]
    if engine:
        shares[table.DOCKER] = (_stats_share(setting, engine) * 100, 1.0)
    return shares


def _stats_share(setting: Setting, engine: list[int]) -> float:
    """Share of one core that the engine and the client use for `docker stats`, above what the engine uses anyway."""
    seconds = max(3, setting.scale.seconds)
    with rivals.container(setting.image, ["sleep", "1000"]) as running:
        idle_ns, _ = clocks.used_ns(engine, seconds)
        client = subprocess.Popen(["docker", "stats", str(running.id)], stdout=subprocess.DEVNULL)
        try:
            time.sleep(_SETTLE_S)
            client_ns = clocks.cpu_ns(client.pid)
            engine_ns, wall_ns = clocks.used_ns(engine, seconds)
            client_ns = clocks.cpu_ns(client.pid) - client_ns
        finally:
            client.kill()
            client.wait()
    return (max(0, engine_ns - idle_ns) + client_ns) / wall_ns
