"""A run of millions of samples with a simulated clock: does memory grow, and what does a row of CSV cost.

python -m benchmarks.endurance SAMPLES      prints resident bytes after a tenth and after all of them, and seconds
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import table
from benchmarks.ranges import range_of
from benchmarks.setting import Setting
from benchmarks.table import Findings, Line
from cpost.measure.loop import sample_until_end
from cpost.model import Detail, Sample
from cpost.recorder import GpuRecorder, Recorder, SeriesRecorder
from cpost.report import spreadsheet
from cpost.store import SeriesFile

THEME = "Endurance, with a simulated clock"
_PERIOD_NS, _WINDOW_NS, _CPUS = 10_000_000, 200_000_000, 4
_MOST_GROWTH_MB = 1.0
_BATCH = 20
_FIRST_AT_NS = 1_700_000_000 * 10**9
NOTES = (
    "Endurance: the sampling loop, the statistics and the CSV rows, with counters that move at every sample; the rows "
    "go to /dev/null.",
)


class _Clock:
    """A clock that jumps to every deadline, and ends after so many."""

    def __init__(self, ticks: int, at_tick: Callable[[int], None]) -> None:
        self._now_ns, self._tick, self._ticks, self._at_tick = 0, 0, ticks, at_tick

    def now_ns(self) -> int:
        return self._now_ns

    def wait_until(self, deadline_ns: int) -> bool:
        self._now_ns = deadline_ns
        self._tick += 1
        self._at_tick(self._tick)
        return self._tick >= self._ticks


class _Counters:
    """Counters of a busy operator whose memory wanders over a gigabyte."""

    def look(self, *, detailed: bool, complete: bool = False) -> bool:
        return detailed or complete

    def sample(self, t_ns: int, look: bool, read_ns: int = 0) -> Sample:
        memory = 10**8 + t_ns // 1000 * 7919 % 10**9
        cpu_us = t_ns // 1300
        if not look:
            return Sample(t_ns, cpu_us, None, None, 0, 0, memory, memory + 4096, None, None, read_ns)
        detail = Detail(*(memory // divisor for divisor in range(2, 2 + len(Detail._fields))))
        return Sample(t_ns, cpu_us, cpu_us // 2, cpu_us // 2, 0, 0, memory, memory + 4096, detail, 3, read_ns)


class _Nobody:
    """Nobody looks on."""

    def operator_runs(self, container: str) -> None: ...
    def operator_progress(self, *_seen: object) -> None: ...


def simulate(samples: int) -> tuple[int, int]:
    """Take so many samples in no time; returns resident bytes after a tenth of them and after all."""
    series = SeriesRecorder(SeriesFile(Path("/dev/null"), ""), _WINDOW_NS, _CPUS, GpuRecorder((), list))
    recorder = Recorder(series, _Nobody())
    resident = []

    def look(tick: int) -> None:
        if tick in (samples // 10, samples):
            resident.append(resident_bytes())

    def take(batch: list[Sample]) -> None:
        recorder.samples(_FIRST_AT_NS, batch)

    sample_until_end(_Counters(), _Clock(samples, look), _PERIOD_NS, 0, take)
    recorder.close()
    return resident[0], resident[1]


def row_cost_us(rows: int) -> float:
    """What one row of CSV costs, a batch at a time as cpost writes them, onto a disk."""
    counters = _Counters()
    samples = [counters.sample(n * _PERIOD_NS, n % 10 == 0) for n in range(_BATCH)]
    with tempfile.TemporaryDirectory() as folder:
        file = SeriesFile(Path(folder, "series"), spreadsheet.series_header())
        begin_ns = time.thread_time_ns()
        for _ in range(rows // _BATCH):
            file.write("".join([spreadsheet.series_row(each, 76.923, _FIRST_AT_NS) for each in samples]))
        used_ns = time.thread_time_ns() - begin_ns
        file.close()
    return used_ns / (rows // _BATCH * _BATCH) / 1000


def resident_bytes() -> int:
    """Resident memory of this process, from its page tables: exact (smaps_rollup(5))."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Rss:"))


def measure(setting: Setting) -> Findings:
    """How much memory grows between a tenth and all of the samples."""
    count = setting.scale.endurance_samples
    command = [sys.executable, "-m", "benchmarks.endurance", str(count)]
    begin, end, seconds = map(float, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
    growth = (end - begin) / 1e6
    what = f"resident memory after {count:,} samples ({end / 1e6:.1f} MB) less after a tenth of them"
    aim, met = f"< {_MOST_GROWTH_MB:g} MB", growth < _MOST_GROWTH_MB
    return Findings(
        [
            Line(THEME, what, "MB", {table.CPOST: range_of([growth])}, aim, met, signed=True),
            Line(THEME, "statistics and row of one sample", "us", {table.CPOST: range_of([seconds / count * 1e6])}),
        ],
        NOTES,
    )


if __name__ == "__main__":
    started = time.process_time()
    print(*simulate(int(sys.argv[1])), time.process_time() - started)
