"""Finds the series that a record names, and reads them for drawing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cpost.model import Options, StepResult
from cpost.report.series import Series, read_series
from cpost.report.view import Note
from cpost.units import NS_PER_MS


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads the series that a record names.

    Attributes:
        stretches: how finely each is drawn, see `Decimator`.
    """

    folder: Path
    options: Options
    stretches: int

    def read(self, name: str, result: StepResult, columns: Iterable[str] | None = None) -> Series:
        """A series by its name in the record; what is wrong with it is in its `problem`."""
        if not name:
            return Series(problem="no series of it was kept")
        if Path(name).name != name:  # a record may come from anywhere
            return Series(problem=f"its series {name!r} lies outside of the run's folder and is not read")
        period_ns = result.sampling.period_ns if result.sampling else self.options.period_ns
        return read_series(self.folder / name, self.stretches, period_ns / NS_PER_MS, columns)

    def missing(self, series: Series, result: StepResult) -> tuple[Note, ...]:
        """What of a series cannot be drawn, and why, as notes."""
        found = [series.problem] if series.problem else []
        if series.rows and "cpu_percent" not in series.traces:
            window = f"{self.options.window_ns / NS_PER_MS:g} ms"
            brief = result.wall_ns is not None and result.wall_ns <= self.options.window_ns
            why = f"it ended before the first window of {window} was over" if brief else "no CPU rate was read"
            found.append(f"there is no line of its CPU: {why}")
        return tuple(Note("missing", text) for text in found)
