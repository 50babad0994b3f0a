"""How evenly samples are taken: the error of the intervals between them at 100 Hz, and missed ticks."""

from __future__ import annotations

import itertools
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import cpost_runs, cpost_sampler, programs, rivals, table
from benchmarks.cpost_runs import Operator
from benchmarks.ranges import quantile, range_of
from benchmarks.setting import Setting
from benchmarks.table import Findings, Line

THEME = "Jitter: error of the interval between two samples at 100 Hz"
_PERIOD_NS = 10_000_000
_SKIPPED = 20
_FIGURES = (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
NOTES = (
    "Jitter, idle: cpost from the CSV of a run; busy: cpost's sampler in a process whose main thread serialises JSON, "
    "the C loop beside a process that burns CPU. psrecord sleeps 10 ms after each sample, so that each comes late by "
    "what the one before took. docker stats gives one sample a second.",
)
Errors = Sequence[float]


def measure(setting: Setting) -> Findings:
    """Interval errors, idle and busy, and missed ticks."""
    with cpost_sampler.watched_process() as (group, _), tempfile.TemporaryDirectory() as folder:
        schedule = Path(folder, "schedule")
        with cpost_sampler.meter_of(group) as meter:
            schedule.write_text(cpost_sampler.schedule(meter))
        seconds = setting.scale.seconds
        loop = programs.paced_command(schedule, _PERIOD_NS, seconds)
        idle, missed = _idle_run(setting)
        quiet = {table.CPOST: idle, table.LIMIT: _errors_us(_times_of(loop)), table.PSRECORD: _psrecord(setting)}
        busy_sampler = cpost_sampler.command(group, _PERIOD_NS, seconds, busy=True)
        loaded = {table.CPOST: _errors_us(_times_of(busy_sampler)), table.LIMIT: _beside_load(loop, seconds)}
    lines = [_line(f"idle, {name}", share, quiet) for name, share in _FIGURES]
    lines += [_line(f"busy, {name}", share, loaded) for name, share in _FIGURES]
    lines.append(Line(THEME, "ticks missed, idle", "", {table.CPOST: missed}, "none", missed.startswith("0 ")))
    return Findings(lines, NOTES)


def _line(what: str, share: float, errors: dict[str, Errors]) -> Line:
    cells = {tool: range_of([quantile(values, share)]) if values else None for tool, values in errors.items()}
    return Line(THEME, what, "us", cells, digits=0)


def _errors_us(times_ns: Sequence[int]) -> Errors:
    """How far each interval is from the period; the start is left out."""
    settled = times_ns[_SKIPPED:-1]  # the last sample is that of the end
    return [abs(later - earlier - _PERIOD_NS) / 1000 for earlier, later in itertools.pairwise(settled)]


def _times_of(command: Sequence[str]) -> list[int]:
    return list(map(int, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()))


def _beside_load(command: Sequence[str], seconds: int) -> Errors:
    load = subprocess.Popen([programs.TRUTH, "burn", str((seconds + 1) * 1000)], stdout=subprocess.DEVNULL)
    try:
        return _errors_us(_times_of(command))
    finally:
        load.kill()
        load.wait()


def _idle_run(setting: Setting) -> tuple[Errors, str]:
    """The errors in the series of an operator that does nothing, and its missed ticks in words."""
    operator = Operator("idle", ("sleep", str(setting.scale.seconds * 1000)))
    with cpost_runs.work_folder() as folder:
        finished = cpost_runs.run(setting.image, [operator], folder)
        times_ns = [round(float(row["elapsed_s"]) * 1e6) * 1000 for row in finished.series("idle")]
    sampling = finished.operators["idle"]["result"]["sampling"]
    return _errors_us(times_ns), f"{sampling['ticks_missed']} of {sampling['ticks_due']}"


def _psrecord(setting: Setting) -> Errors:
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        command = rivals.psrecord_command(f"sleep {setting.scale.seconds}", log)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return _errors_us([round(at * 1e9) for at, _, _ in rivals.psrecord_rows(log)])
