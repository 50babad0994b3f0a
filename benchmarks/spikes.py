"""Memory spikes of known length: whether the series shows each at its place, and how true the peak is."""

from __future__ import annotations

import statistics
import subprocess
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from benchmarks import cpost_runs, rivals, table
from benchmarks.cpost_runs import Operator
from benchmarks.programs import Spike
from benchmarks.ranges import Range, range_of
from benchmarks.rivals import Seen
from benchmarks.setting import Setting
from benchmarks.table import Findings, Line

THEME = "Memory spikes in the series, each at its place"
PEAK_THEME = "Memory peak: error against what was touched"
LENGTHS_MS = (1, 5, 10, 50, 500)
_MB = 10**6
_HEAP_MIB, _SPIKE_MB, _GAP_MS = 50, 2, 60
_PLACE_NS = 5_000_000
_TOLERANCE_MB = 1.0
POLLING = "cpost's samples of usage alone"
NOTES = (
    f"Spikes: {_SPIKE_MB} MB above a heap of {_HEAP_MIB} MiB, of the stated length at half their height; seen = a "
    "sample of more than half the height within 5 ms of it. runexec keeps no series.",
    "Spikes: cpost reads and resets the kernel's high-water mark at every sample; where the kernel cannot reset it "
    "(v2 before Linux 6.12), only samples of usage are left, and no aim is set.",
    "Memory peak: the truth is the workload's own anonymous memory and page tables. What cpost has on top of that is "
    "the init, the kernel's memory for both, and what each CPU charges in advance (256 KiB). psrecord counts resident "
    "pages, those of the program's file too, and no kernel memory.",
)


@dataclass(frozen=True, slots=True)
class Stretch:
    """How much memory a tool saw over a stretch of time (an instant where it only samples); wall clock, ns."""

    from_ns: int
    to_ns: int
    size_bytes: int


def seen_spikes(spikes: Iterable[Spike], stretches: Sequence[Stretch], height_bytes: int) -> int:
    """How many spikes a series shows: more than half the height above what is usual beside them, within 5 ms."""
    wanted = list(spikes)
    beside = [each.size_bytes for each in stretches if not any(_meets(each, spike) for spike in wanted)]
    if not beside:
        return 0  # all that was seen is spikes: there is nothing to tell them from
    threshold = statistics.median_low(beside) + height_bytes / 2
    high = [each for each in stretches if each.size_bytes > threshold]
    return sum(any(_meets(each, spike) for each in high) for spike in wanted)


def _meets(stretch: Stretch, spike: Spike) -> bool:
    return stretch.to_ns >= spike.begin_ns - _PLACE_NS and stretch.from_ns <= spike.gone_ns + _PLACE_NS


def stretches_of(rows: Sequence[dict[str, str]], column: str) -> list[Stretch]:
    """A column of cpost's series: the interval's peak holds since the row before, everything else at an instant."""
    found, before_ns = [], None
    for row in rows:
        at_ns = round(float(row["timestamp"]) * 1e6) * 1000
        since_ns = before_ns if before_ns is not None and column == "memory_interval_peak_bytes" else at_ns
        if row[column]:
            found.append(Stretch(since_ns, at_ns, int(row[column])))
        before_ns = at_ns
    return found


def measure(setting: Setting) -> Findings:
    """Two lines per length: how many spikes each tool shows, and how true its peak is."""
    rounds = max(1, setting.scale.spikes // 10)
    count = -(-setting.scale.spikes // rounds)
    results = [_Results(length_ms, rounds * count) for length_ms in LENGTHS_MS]
    for _ in range(rounds):
        _with_cpost(setting, results, count)
        _with_rivals(setting, results, count)
    lines = [each.detection() for each in results] + [each.peak() for each in results]
    return Findings(lines, NOTES)


class _Results:
    """What all tools saw of the spikes of one length."""

    def __init__(self, length_ms: int, spikes: int) -> None:
        self.length_ms = length_ms
        self._spikes = spikes
        self._shown: dict[str, int] = {}
        self._errors_mb: dict[str, list[float]] = {}
        self.resettable = True
        self.failing: set[str] = set()

    def verbs(self, count: int) -> tuple[str, ...]:
        return ("heap", str(_HEAP_MIB), "spikes", *map(str, (count, _SPIKE_MB, self.length_ms, _GAP_MS)))

    def add_shown(self, tool: str, shown: int) -> None:
        self._shown[tool] = self._shown.get(tool, 0) + shown

    def add_peak(self, tool: str, peak_bytes: int | None, held_bytes: int | None) -> None:
        if peak_bytes is not None and held_bytes is not None:
            error = (peak_bytes - held_bytes - _SPIKE_MB * _MB) / _MB
            self._errors_mb.setdefault(tool, []).append(error)

    def detection(self) -> Line:
        cells = {tool: f"{shown} of {self._spikes}" for tool, shown in self._shown.items() if tool != POLLING}
        what = f"{self.length_ms} ms (samples of usage alone: {self._shown[POLLING]})"
        if not self.resettable:
            return Line(THEME, what, "", cells)
        return Line(THEME, what, "", cells, "all", self._shown[table.CPOST] == self._spikes)

    def peak(self) -> Line:
        cells: dict[str, Range | str] = dict.fromkeys(self.failing, "fails")
        cells.update({tool: range_of(errors) for tool, errors in self._errors_mb.items()})
        median = statistics.median(self._errors_mb[table.CPOST])
        aim = f"within {_TOLERANCE_MB:g} MB"
        what = f"spikes of {self.length_ms} ms"
        return Line(PEAK_THEME, what, "MB", cells, aim, abs(median) <= _TOLERANCE_MB, signed=True)


def _with_cpost(setting: Setting, results: Sequence[_Results], count: int) -> None:
    names = {f"spikes-{each.length_ms}": each for each in results}
    with cpost_runs.work_folder() as folder:
        operators = [Operator(name, each.verbs(count)) for name, each in names.items()]
        finished = cpost_runs.run(setting.image, operators, folder)
        for name, each in names.items():
            truth, rows = finished.truth(name), finished.series(name)
            each.resettable = any(row["memory_interval_peak_bytes"] for row in rows)
            best = "memory_interval_peak_bytes" if each.resettable else "memory_bytes"
            for tool, column in ((table.CPOST, best), (POLLING, "memory_bytes")):
                each.add_shown(tool, seen_spikes(truth.spikes, stretches_of(rows, column), _SPIKE_MB * _MB))
            each.add_peak(table.CPOST, finished.totals(name)["memory_peak_bytes"], truth.held_bytes)


def _with_rivals(setting: Setting, results: Sequence[_Results], count: int) -> None:
    looks: dict[str, Callable[[Sequence[str]], Seen]] = {
        table.DOCKER: lambda verbs: rivals.docker_stats(setting.image, verbs),
        table.PSRECORD: rivals.psrecord,
        table.RUNEXEC: rivals.runexec,
    }
    for each in results:
        for tool, look in looks.items():
            try:
                seen = look(each.verbs(count))
            except (subprocess.CalledProcessError, OSError):
                each.failing.add(tool)
                continue
            each.add_peak(tool, seen.peak_bytes, seen.truth.held_bytes)
            if seen.memory:
                stretches = [Stretch(at_ns, at_ns, size) for at_ns, size in seen.memory]
                each.add_shown(tool, seen_spikes(seen.truth.spikes, stretches, _SPIKE_MB * _MB))
