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


def missing(series: Series) -> tuple[Note, ...]:
    """What could not be read of a series, as a note."""
    return (Note("missing", series.problem),) if series.problem else ()
