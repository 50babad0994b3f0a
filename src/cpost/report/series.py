"""Reads a series file back for drawing: row by row, thinned out on the way, whatever its length.

Times are whole milliseconds since the first instruction. Values are whole numbers in the steps of `UNITS`, by the end
of the column's name. A cell that is empty gives no point; a row that is torn or makes no sense is left out and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cpost.report.decimate import Decimator, Point

NEED = "need_bytes"  # made of two columns: the total less what the kernel could have dropped
OOM_KILLS = "oom_kills"
COLUMNS = (
    "cpu_percent",
    "memory_bytes",
    "memory_interval_peak_bytes",
    "reclaimable_bytes",
    "throttled_us",
)
OVERLAID_COLUMNS = ("cpu_percent", "memory_bytes", "reclaimable_bytes", NEED, "throttled_us")
GPU_COLUMNS = ("util_percent", "memory_bytes", "own_memory_bytes", "power_mw", "sm_clock_mhz")
UNITS = {"percent": 10, "bytes": 1e-3, "us": 1e-3, "mw": 1e-2, "mhz": 1}  # drawn steps for one of each
_TIME, _TOTAL, _RECLAIMABLE = "elapsed_s", "memory_bytes", "reclaimable_bytes"
_MOST_KILLS = 12  # times of them; later ones count with the last
_DETAIL_BEAT_MS = 100  # memory.stat is read so often, at least
_GPU_BEAT_MS = 200  # the GPUs are looked at so often, and
_GPU_BUSY_BEAT_MS = 500  # the driver has news of the busy time so often, on most GPUs
_BEATS_OF_A_GAP = 5

Traces = tuple[tuple[Point, ...], ...]  # one column: pieces, between which nothing was read


@dataclass(frozen=True, slots=True)
class Series:
    """What a series file tells, fit to be drawn.

    Attributes:
        traces: by column; those without any point are left out.
        end_ms: the last row's time; 0 where there is none.
        oom_kills: when (ms) rows first told of out-of-memory kills, and of how many more.
        problem: why it could not be read, or not all of it; empty = it was.
    """

    traces: Mapping[str, Traces] = field(default_factory=dict)
    rows: int = 0
    end_ms: int = 0
    oom_kills: tuple[tuple[int, int], ...] = ()
    problem: str = ""


def read_series(path: Path, stretches: int, period_ms: float, columns: Iterable[str] | None = None) -> Series:
    """Read a series file.

    Args:
        stretches: see `Decimator`.
        period_ms: time between two samples; several periods without a row are a gap.
        columns: only these; None = all that can be drawn.
    """
    try:
        if not path.is_file():
            return Series(problem=f"its series {path.name} is not there")
        with path.open(encoding="utf-8", errors="replace") as lines:
            names = lines.readline().rstrip("\n").split(",")
            if _TIME not in names:
                return Series(problem=f"{path.name} is no series of cpost's: it has no column {_TIME}")
            reading = _Reading(names, stretches, columns)
            reading.read(lines)
    except OSError as error:
        return Series(problem=f"its series {path.name} cannot be read: {error.strerror}")
    return reading.result(path.name, period_ms)


class _Reading:
    """One file on its way through the decimators."""

    def __init__(self, names: Sequence[str], stretches: int, columns: Iterable[str] | None) -> None:
        self._width = len(names)
        self._time_at = names.index(_TIME)
        wanted = set(names if columns is None else columns)
        drawn = [name for name in names if name in wanted and (name in COLUMNS or is_gpu_column(name))]
        self._traces = {name: Decimator(stretches) for name in drawn}
        self._plain = [(names.index(name), _scale(name), trace.add) for name, trace in self._traces.items()]
        self._parts: tuple[int, int, Callable[[int, int], None]] | None = None
        if {_TOTAL, _RECLAIMABLE} <= set(names) and (columns is None or NEED in wanted):
            self._traces[NEED] = Decimator(stretches)
            self._parts = names.index(_TOTAL), names.index(_RECLAIMABLE), self._traces[NEED].add
        self._kills_at = names.index(OOM_KILLS) if OOM_KILLS in names else None
        self._kills: list[tuple[int, int]] = []
        self._most_killed = 0
        self._rows = self._torn = self._end_ms = 0

    def read(self, lines: Iterable[str]) -> None:
        for line in lines:
            cells = line.rstrip("\n").split(",")
            try:
                self._row(cells)
                self._rows += 1
            except (ValueError, OverflowError, IndexError):
                self._torn += 1

    def _row(self, cells: Sequence[str]) -> None:
        at = max(round(float(cells[self._time_at]) * 1000), self._end_ms)
        values = [(add, round(float(cells[place]) * scale)) for place, scale, add in self._plain if cells[place]]
        for add, value in values:
            add(at, value)
        if self._parts is not None:
            total, reclaimable, add_need = self._parts
            if cells[reclaimable] and cells[total]:
                add_need(at, max(0, int(cells[total]) - int(cells[reclaimable])) // 1000)
        if self._kills_at is not None and cells[self._kills_at]:
            self._killed(at, int(cells[self._kills_at]))
        self._end_ms = at

    def _killed(self, at: int, count: int) -> None:
        more = count - self._most_killed
        if more <= 0:
            return
        self._most_killed = count
        if len(self._kills) < _MOST_KILLS:
            self._kills.append((at, more))
        else:
            last_at, before = self._kills[-1]
            self._kills[-1] = last_at, before + more

    def result(self, name: str, period_ms: float) -> Series:
        beats = {each: max(period_ms, _beat_ms(each)) * _BEATS_OF_A_GAP for each in self._traces}
        pieces = {each: trace.pieces(round(beats[each])) for each, trace in self._traces.items()}
        problem = f"{self._torn} rows of {name} make no sense and are left out" if self._torn else ""
        if not self._rows:
            problem = problem or f"its series {name} has no rows"
        traces = {each: found for each, found in pieces.items() if found}
        return Series(traces, self._rows, self._end_ms, tuple(self._kills), problem)


def is_gpu_column(name: str) -> bool:
    """Whether a column is of a GPU: "gpu0_util_percent"."""
    place, _, rest = name.partition("_")
    return place.startswith("gpu") and place[3:].isdigit() and rest in GPU_COLUMNS


def _scale(name: str) -> float:
    return UNITS[name.rpartition("_")[2]]


def _beat_ms(name: str) -> float:
    if is_gpu_column(name):
        return _GPU_BUSY_BEAT_MS if name.endswith("_percent") else _GPU_BEAT_MS
    return _DETAIL_BEAT_MS if name in (NEED, _RECLAIMABLE) else 0
