"""Between the sampler and the disk: writes a step's samples down as they come and folds them into its usage."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from cpost.gpu_usage import GpuBuilder
from cpost.model import ENGINE_STATS, OperatorRecord, Run, Sample, Step, StepResult, Usage
from cpost.model.gpu import Gpu, GpuLook, GpuReading, GpuUsage
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


class RunObserver(Audience, Protocol):
    """Who is told what happens in a run; every call comes in the main thread."""

    def note(self, text: str) -> None:
        """Something worth a line."""

    def warn(self, text: str) -> None:
        """Something that may bend the result or surprise the user."""

    def operator_begins(self, step: Step) -> None:
        """A step is about to be run."""

    def operator_ends(self, record: OperatorRecord, series: Path, *, kept: bool) -> None:
        """It ended; `series` is readable now, and stays where it is if `kept`."""

    def run_ends(self, run: Run) -> None:
        """All that will be measured is; called however the run ends, before its things are removed."""


class GpuRecorder:
    """Joins the looks at the GPUs to the rows of a step, and folds them into its usage of each GPU.

    Args:
        gpus: those of the host.
        take: gives the looks that have come since its last call.
    """

    def __init__(self, gpus: Sequence[Gpu], take: Callable[[], list[GpuLook]]) -> None:
        self.count = len(gpus)
        self._take = take
        self._builder = GpuBuilder(gpus)
        self._waiting: deque[GpuLook] = deque()
        self._nothing: tuple[GpuReading | None, ...] = (None,) * self.count

    def collect(self) -> None:
        """Fetch what has come."""
        self._waiting.extend(self._take())

    def up_to(self, at_ns: int, start_ns: int) -> tuple[GpuReading | None, ...]:
        """What goes into the row of this time (Unix): the newest figures that have come since the row before."""
        newest = self._nothing
        while self._waiting and self._waiting[0].at_ns <= at_ns:
            look = self._waiting.popleft()
            self._builder.add(look, start_ns)
            if look.at_ns >= start_ns:
                newest = tuple(_newer(*pair) for pair in zip(newest, look.readings, strict=True))
        return newest

    def finish(self, start_ns: int, end_ns: int) -> tuple[GpuUsage, ...]:
        """The usage of each GPU; what came after the operator's end may still tell of the time before."""
        for look in self._waiting:
            self._builder.add(look, start_ns, end_ns)
        return self._builder.finish()


def _newer(before: GpuReading | None, reading: GpuReading) -> GpuReading:
    """A reading, and where it has no news of the busy time, that of the one before."""
    return reading if reading.busy or before is None else reading._replace(busy=before.busy)


class Recorder:
    """Writes a step's samples down as they come and folds them into its usage; a `StepObserver`.

    Args:
        folder: where the series goes.
        operator: whose series it is.
        cpus: how many the host has.
        gpus: joins the GPUs' figures to the rows.
    """

    def __init__(
        self, folder: RunFolder, operator: str, window_ns: int, cpus: int, audience: Audience, gpus: GpuRecorder
    ) -> None:
        self._file = folder.open_series(operator, spreadsheet.series_header(gpus.count))
        self._gpus = gpus
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
        self._gpus.collect()
        for sample in samples:
            if self._held is not None:
                lines.append(self._row(*self._held, self._percent))
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
            self._gpus.collect()
            self._file.write(self._row(sample, first_at_ns, percent))
            here = result.totals is None or result.totals.source != ENGINE_STATS  # else the GPUs seen are not its own
            gpus = self._gpus.finish(first_at_ns, first_at_ns + sample.t_ns) if here else ()
            step_usage = replace(step_usage, gpus=gpus) if step_usage is not None else None
        return step_usage

    def _row(self, sample: Sample, first_at_ns: int, percent: float | None) -> str:
        readings = self._gpus.up_to(first_at_ns + sample.t_ns, first_at_ns)
        return spreadsheet.series_row(sample, percent, first_at_ns, readings)

    def close(self) -> None:
        """Close the series file."""
        self._file.close()
