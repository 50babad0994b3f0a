"""Between the sampler and the disk: writes a step's samples down as they come and folds them into its usage."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from cpost.model import Sample, StepResult, Usage
from cpost.report import spreadsheet
from cpost.store import RunFolder
from cpost.usage import UsageBuilder


class Audience(Protocol):
    """Who is shown the progress of a step."""

    def operator_runs(self, container: str) -> None:
        """Its container runs."""

    def operator_progress(
        self, elapsed_ns: int, percent: float | None, sample: Sample | None, peak: int | None
    ) -> None:
        """It still runs: CPU percent over the last window, the last sample, the memory peak so far (bytes)."""


class Recorder:
    """Writes a step's samples down as they come and folds them into its usage; a `StepObserver`.

    Args:
        folder: where the series goes.
        operator: whose series it is.
        cpus: how many the host has.
    """

    def __init__(self, folder: RunFolder, operator: str, window_ns: int, cpus: int, audience: Audience) -> None:
        self._file = folder.open_series(operator, spreadsheet.series_header())
        self._builder = UsageBuilder(window_ns, cpus)
        self._audience = audience
        self._percent: float | None = None
        self._held: tuple[Sample, int] | None = None
        self.path: Path = self._file.path

    def started(self, container: str) -> None:
        """See `StepObserver`."""
        self._audience.operator_runs(container)

    def samples(self, first_at_ns: int, samples: list[Sample]) -> None:
        """See `StepObserver`. Rows go out one sample late: the very last row's rate may depend on how it ended."""
        lines = []
        for sample in samples:
            if self._held is not None:
                lines.append(spreadsheet.series_row(self._held[0], self._percent, self._held[1]))
            self._percent = self._builder.add(sample)
            self._held = (sample, first_at_ns)
        self._file.write("".join(lines))

    def progress(self, elapsed_ns: int) -> None:
        """See `StepObserver`."""
        last = self._held[0] if self._held else None
        self._audience.operator_progress(elapsed_ns, self._percent, last, self._builder.memory_peak_bytes)

    def finish(self, result: StepResult) -> Usage | None:
        """Work out the usage and write the last row; a life shorter than one window has its only rate there."""
        step_usage = self._builder.finish(result)
        if self._held is not None:
            sample, first_at_ns = self._held
            percent = self._percent
            if percent is None and step_usage is not None:
                percent = step_usage.cpu_pct.maximum
            self._file.write(spreadsheet.series_row(sample, percent, first_at_ns))
        return step_usage

    def close(self) -> None:
        """Close the series file."""
        self._file.close()
