"""Between the sampler and the disk: writes samples down as they come and folds them into usage."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from cpost import gpu_usage
from cpost.gpu_usage import GpuBuilder
from cpost.measure.outcome import ServerObserver
from cpost.model import (
    ENGINE_STATS,
    OperatorRecord,
    Outcome,
    Run,
    Sample,
    Server,
    ServerRecord,
    Step,
    StepResult,
    TritonFacts,
    Usage,
)
from cpost.model.gpu import Gpu, GpuLook, GpuReading, GpuUsage
from cpost.phases import Phases
from cpost.policy import for_server, recommend, sized_server
from cpost.report import spreadsheet
from cpost.store import SeriesFile
from cpost.usage import UsageBuilder


class Audience(Protocol):
    """Who is shown the progress of a step."""

    def operator_runs(self, container: str) -> None:
        """Its container runs."""

    def operator_progress(
        self, elapsed_ns: int, percent: float | None, sample: Sample | None, peak: int | None
    ) -> None:
        """It still runs: CPU percent over the last window, the last sample, the memory peak so far (bytes)."""

    def server_starts(self, server: Server) -> None:
        """A server beside it is about to be started."""

    def server_ready(self, server: Server, after_ns: int) -> None:
        """It can be asked; `after_ns` = since its first instruction."""


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

    Attributes:
        heard: is told of each look too, and of the first instruction (Unix, ns).
    """

    def __init__(self, gpus: Sequence[Gpu], take: Callable[[], list[GpuLook]]) -> None:
        self.gpus = gpus
        self.heard: Callable[[GpuLook, int], None] = lambda _look, _start_ns: None
        self._take = take
        self._builder = GpuBuilder(gpus)
        self._waiting: deque[GpuLook] = deque()
        self._nothing: tuple[GpuReading | None, ...] = (None,) * len(gpus)

    def collect(self) -> None:
        """Fetch what has come."""
        self._waiting.extend(self._take())

    def up_to(self, at_ns: int, start_ns: int) -> tuple[GpuReading | None, ...]:
        """What goes into the row of this time (Unix): the newest figures that have come since the row before."""
        newest = self._nothing
        while self._waiting and self._waiting[0].at_ns <= at_ns:
            look = self._waiting.popleft()
            self._builder.add(look, start_ns)
            self.heard(look, start_ns)
            if look.at_ns >= start_ns:
                newest = tuple(_newer(*pair) for pair in zip(newest, look.readings, strict=True))
        return newest

    def finish(self, start_ns: int, end_ns: int) -> tuple[GpuUsage, ...]:
        """The usage of each GPU; what came after the operator's end may still tell of the time before."""
        for look in self._waiting:
            self._builder.add(look, start_ns, end_ns)
            self.heard(look, start_ns)
        return self._builder.finish()


def _newer(before: GpuReading | None, reading: GpuReading) -> GpuReading:
    """A reading, and where it has no news of the busy time, that of the one before."""
    return reading if reading.busy or before is None else reading._replace(busy=before.busy)


class SeriesRecorder:
    """Writes a container's samples down as they come and folds them into its usage.

    Args:
        file: where the series goes, its header written.
        cpus: how many the host has.
        gpus: joins the GPUs' figures to the rows.

    Attributes:
        percent: CPU percent over the last window.
        last: the last sample.
    """

    def __init__(self, file: SeriesFile, window_ns: int, cpus: int, gpus: GpuRecorder) -> None:
        self._file = file
        self._gpus = gpus
        self._builder = UsageBuilder(window_ns, cpus)
        self._first_at_ns = 0
        self.percent: float | None = None
        self.last: Sample | None = None
        self.path: Path = file.path

    @property
    def memory_peak_bytes(self) -> int | None:
        """The highest that was seen until now."""
        return self._builder.memory_peak_bytes

    def samples(self, first_at_ns: int, samples: list[Sample]) -> None:
        """See `SampleObserver`. Rows go out one sample late: the very last row's rate may depend on how it ended."""
        lines = []
        self._gpus.collect()
        self._first_at_ns = first_at_ns
        for sample in samples:
            if self.last is not None:
                lines.append(self._row(self.last, self.percent))
            self.percent = self._builder.add(sample)
            self.last = sample
        self._file.write("".join(lines))

    def finish(self, result: StepResult) -> Usage | None:
        """Work out the usage and write the last row; a life shorter than one window has its only rate there."""
        usage = self._builder.finish(result)
        if self.last is not None:
            percent = self.percent
            if percent is None and usage is not None:
                percent = usage.cpu_pct.maximum
            self._gpus.collect()
            self._file.write(self._row(self.last, percent))
            here = result.totals is None or result.totals.source != ENGINE_STATS  # else the GPUs seen are not its own
            gpus = self._gpus.finish(self._first_at_ns, self._first_at_ns + self.last.t_ns) if here else ()
            usage = replace(usage, gpus=gpus) if usage is not None else None
        return usage

    def _row(self, sample: Sample, percent: float | None) -> str:
        readings = self._gpus.up_to(self._first_at_ns + sample.t_ns, self._first_at_ns)
        return spreadsheet.series_row(sample, percent, self._first_at_ns, readings)

    def close(self) -> None:
        """Close the series file."""
        self._file.close()


class Recorder:
    """Records an operator and passes on its progress; a `StepObserver`.

    Args:
        series: its own.
        beside: makes what looks on at one of its servers; None where it has none.

    Attributes:
        servers: those of its own servers.
    """

    def __init__(
        self, series: SeriesRecorder, audience: Audience, beside: Callable[[Server], ServerRecorder] | None = None
    ) -> None:
        self._series = series
        self._audience = audience
        self._beside = beside
        self.servers: list[ServerRecorder] = []
        self.path = series.path
        self.samples = series.samples
        self.finish = series.finish

    def started(self, container: str) -> None:
        """See `SampleObserver`."""
        self._audience.operator_runs(container)

    def progress(self, elapsed_ns: int) -> None:
        """See `StepObserver`."""
        series = self._series
        self._audience.operator_progress(elapsed_ns, series.percent, series.last, series.memory_peak_bytes)

    def server(self, server: Server) -> ServerObserver:
        """See `StepObserver`."""
        assert self._beside is not None
        recorder = self._beside(server)
        if not server.shared:
            self.servers.append(recorder)
        return recorder

    def close(self) -> None:
        """Close the series files."""
        for recorder in self.servers:
            recorder.close()
        self._series.close()


class ServerRecorder:
    """Records a server, as a whole and in stretches; a `ServerObserver`.

    Args:
        series: its own.
        gpus: those that the series joins to its rows.
    """

    def __init__(
        self, server: Server, series: SeriesRecorder, gpus: GpuRecorder, window_ns: int, cpus: int, audience: Audience
    ) -> None:
        self._server = server
        self._series = series
        self._gpus = gpus
        self._audience = audience
        self._phases = Phases(window_ns, cpus, gpus.gpus)
        self._ready_ns: int | None = None
        self._ended: tuple[StepResult, TritonFacts | None] | None = None
        self.name = server.step.operator
        gpus.heard = self._phases.look
        audience.server_starts(server)

    def started(self, container: str) -> None:
        """See `SampleObserver`."""

    def samples(self, first_at_ns: int, samples: list[Sample]) -> None:
        """See `SampleObserver`."""
        self._series.samples(first_at_ns, samples)
        for sample in samples:
            self._phases.add(sample)

    def ready(self, t_ns: int) -> None:
        """See `ServerObserver`."""
        self._ready_ns = t_ns
        self._phases.ready(t_ns)
        self._audience.server_ready(self._server, t_ns)

    def load_began(self, t_ns: int) -> None:
        """See `ServerObserver`."""
        self._phases.load_began(t_ns)

    def load_ended(self, t_ns: int) -> None:
        """See `ServerObserver`."""
        self._phases.load_ended(t_ns)

    def ended(self, result: StepResult, triton: TritonFacts | None) -> None:
        """See `ServerObserver`."""
        self._ended = result, triton

    def record(
        self, policy: str, image: str, *, kept: bool, problems: Sequence[str] = (), others_share: float | None = None
    ) -> ServerRecord:
        """All that is known of it; call once, after its end.

        Args:
            image: its name, where the server was started by id.
            kept: its series stays.
            problems: what could not be read of the GPUs meanwhile.
            others_share: see `StepResult.others_cpu_share`.
        """
        server, step = self._server, self._server.step
        result, triton = self._ended or (StepResult(step.operator, Outcome.FAILED, "it was not started"), None)
        result = replace(result, others_cpu_share=others_share)
        usage = self._series.finish(result)
        idle, load = self._phases.finish()
        remarks = gpu_usage.remarks(self._gpus.gpus, usage.gpus, 0, server=True) if usage else ()
        result = replace(result, warnings=(*result.warnings, *problems, *remarks))
        of_step = (step.memory_limit_bytes, step.declared.gpu_count, step.gpu_count, step.granularity)
        advice = recommend(policy, result, sized_server(usage, load), *of_step)
        return ServerRecord(
            name=server.name,
            kind=server.kind,
            image=image,
            models=server.models,
            declared=step.declared,
            declared_limits=step.limits,
            result=result,
            recommendation=for_server(advice, load),
            usage=usage,
            ready_ns=self._ready_ns,
            idle=idle,
            load=load,
            triton=triton,
            series_file=self._series.path.name if kept else "",
        )

    def close(self) -> None:
        """Close the series file."""
        self._series.close()
