"""Runs an operator once and records it: what is run, who looks on, where its series goes, what is known of its servers.

Whoever runs operators several times (repeats, runs under limits) does each time by this.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

from cpost import gpu_usage, inputs
from cpost.measure import cleanup, host
from cpost.measure.container import Bench
from cpost.measure.outcome import StepObserver
from cpost.measure.owner import LABEL_OPERATOR
from cpost.measure.servers import SharedServers
from cpost.measure.step import measure_step
from cpost.model import (
    ENGINE_STATS,
    Advice,
    Options,
    Outcome,
    Sample,
    Server,
    ServerRecord,
    Step,
    StepResult,
    Usage,
)
from cpost.model.gpu import Gpu
from cpost.outputs import OutputFolders
from cpost.policy import refuse
from cpost.recorder import Audience, GpuRecorder, Recorder, SeriesRecorder, ServerRecorder
from cpost.report import spreadsheet
from cpost.store import SeriesFile
from cpost.units import format_mb

OpenSeries = Callable[[str, str], SeriesFile]


class Once(NamedTuple):
    """What came of one run of an operator; `last` is its last sample."""

    result: StepResult
    usage: Usage | None
    servers: tuple[ServerRecord, ...] = ()
    last: Sample | None = None
    series_file: str = ""


class Subject(Protocol):
    """What is run: the operators' containers, or whatever else can be measured and run again."""

    def measure(self, step: Step, observer: StepObserver, earlier: int) -> StepResult:
        """Run a step once, to its end; `earlier` is how often it was run before."""

    def gpus(self, name: str) -> GpuRecorder:
        """What joins the GPUs' figures to the rows of the next run of an operator or server of this name."""

    def problems(self, name: str) -> list[str]:
        """What could not be read of the GPUs meanwhile."""

    def remarks(self, step: Step, usage: Usage | None) -> Iterable[str]:
        """What whoever reads this usage has to know, one line each."""

    def renew(self, step: Step, outputs: OutputFolders | None = None) -> None:
        """Make all that a run may have changed as it was before the first.

        Args:
            outputs: where the step writes, if not where the pipeline does.
        """

    def discard(self, step: Step, outputs: OutputFolders) -> None:
        """Remove what the step wrote elsewhere than where the pipeline does, as far as that can be done now."""

    def cold_inputs(self, step: Step) -> tuple[str, ...]:
        """The inputs that its next run has to read from the disk."""

    def chill(self, step: Step, cold: Collection[str]) -> int | None:
        """See to it that it has to read these inputs from the disk; returns bytes of them that it need not."""


class Containers:
    """The operators of a pipeline, each in a container; a `Subject`.

    Args:
        image_ids: what is run by the steps' images: a tag may have moved since all images were looked up.
        gpus: those of the host.
    """

    def __init__(
        self,
        bench: Bench,
        outputs: OutputFolders,
        image_ids: Mapping[str, str],
        gpus: tuple[Gpu, ...],
        shared: SharedServers,
    ) -> None:
        self._bench = bench
        self._outputs = outputs
        self._image_ids = image_ids
        self._gpus = gpus
        self._shared = shared

    def measure(self, step: Step, observer: StepObserver, earlier: int) -> StepResult:
        """See `Subject`; what may have bent the figures is among the warnings."""
        watch = host.HostWatch()
        measured = measure_step(self._by_ids(step), self._bench, observer, self._shared, earlier=earlier)
        result = replace(measured.result, image_id=self._image_ids[step.image])
        # An engine may turn out to be elsewhere only once a container runs.
        seen = result.totals.source if result.totals else ""
        here = self._bench.elsewhere is None and seen != ENGINE_STATS
        room = _without_room(step) if here and result.outcome is not Outcome.COMPLETED else ()
        result = replace(result, warnings=(*result.warnings, *room))
        return watch.judged(result, measured.beside_cpu_us) if here else result

    def _by_ids(self, step: Step) -> Step:
        """The step with ids for the names of images, its servers' too: a tag may be moved meanwhile."""
        servers = (replace(server, step=self._by_ids(server.step)) for server in step.servers)
        return replace(step, image=self._image_ids[step.image], servers=tuple(servers))

    def gpus(self, name: str) -> GpuRecorder:
        """See `Subject`."""
        return GpuRecorder(self._gpus, partial(self._bench.gpus.take, name))

    def problems(self, name: str) -> list[str]:
        """See `Subject`."""
        return self._bench.gpus.problems(name)

    def remarks(self, step: Step, usage: Usage | None) -> Iterable[str]:
        """See `Subject`: the GPUs, and a /dev/shm that was full."""
        yield from self.problems(step.operator)
        if usage is None:
            return
        yield from gpu_usage.remarks(self._gpus, usage.gpus, step.gpu_count)
        if usage.dev_shm_peak_bytes is not None and 0 < step.shm_bytes <= usage.dev_shm_peak_bytes:
            yield f"its /dev/shm was full ({format_mb(step.shm_bytes)}): measure again with a larger --shm_size"

    def renew(self, step: Step, outputs: OutputFolders | None = None) -> None:
        """Empty output folders, and volumes as they were; all else a container cannot change, or takes with it."""
        (outputs or self._outputs).renew(step, self._remover(step))

    def discard(self, step: Step, outputs: OutputFolders) -> None:
        """See `Subject`."""
        outputs.discard(self._remover(step))

    def cold_inputs(self, step: Step) -> tuple[str, ...]:
        """See `Subject`; an engine elsewhere has a page cache of its own."""
        return inputs.cold_inputs(step) if self._bench.elsewhere is None else ()

    def chill(self, step: Step, cold: Collection[str]) -> int | None:
        """See `Subject`."""
        return inputs.chill(step, cold) if self._bench.elsewhere is None else None

    def _remover(self, step: Step) -> Callable[[Path], bool]:
        """Removes folders with files of other users, which the step's image may have left."""
        labels = {**self._bench.labels, LABEL_OPERATOR: step.operator}
        images = (self._image_ids[step.image],)
        engine = self._bench.engine
        return lambda folder: cleanup.remove_as_engine(engine, folder, images, labels)


def _without_room(step: Step) -> Iterator[str]:
    """What may have made a step fail whose folders are on a full disk."""
    for disk in host.full_disks((*step.output_folders, *step.shared_folders, *step.volume_folders)):
        yield (
            f"the disk at {disk}, which its output folders are on, is full: free space there, or name another one "
            "(TMPDIR, or --outputs_dir)"
        )


class Measurer:
    """Runs the operators of one run, each as often as it is asked to.

    Args:
        cpus: how many the host has.
        open_series: opens a series for a name and a header.
    """

    def __init__(
        self, subject: Subject, open_series: OpenSeries, options: Options, cpus: int, audience: Audience
    ) -> None:
        self._subject = subject
        self._open_series = open_series
        self._options = options
        self._cpus = cpus
        self._audience = audience
        self._shared: list[ServerRecorder] = []
        self._others_share: float | None = None  # the largest of all runs: shared servers were there in each

    def once(
        self, step: Step, earlier: int, warnings: Iterable[str] = (), open_series: OpenSeries | None = None
    ) -> Once:
        """Run a step.

        Args:
            earlier: how often this run has run it before.
            warnings: go into the result.
            open_series: for this run's series; None = the usual one.
        """
        names = {server.step.operator: server.step.image for server in step.servers}
        opens = open_series or self._open_series
        series = self._series(step.operator, opens)[0]
        recording = Recorder(series, self._audience, partial(self._beside, opens))
        with contextlib.closing(recording):
            result = self._subject.measure(step, recording, earlier)
            usage = recording.finish(result)
            share = result.others_cpu_share
            servers = tuple(
                self._server_record(each, names[each.name], step.operator, result.outcome, share)
                for each in recording.servers
            )
        self._others_share = max((each for each in (share, self._others_share) if each is not None), default=None)
        remarks = self._subject.remarks(step, usage)
        result = replace(result, warnings=(*result.warnings, *remarks, *warnings))
        return Once(result, usage, servers, series.last, self.named(series.path))

    def named(self, series: Path) -> str:
        """What the record calls a series; nothing where its folder goes with the run."""
        return series.name if self._options.metrics_dir is not None else ""

    def _series(self, name: str, opens: OpenSeries) -> tuple[SeriesRecorder, GpuRecorder]:
        gpus = self._subject.gpus(name)
        file = opens(name, spreadsheet.series_header(len(gpus.gpus)))
        return SeriesRecorder(file, self._options.window_ns, self._cpus, gpus), gpus

    def _beside(self, opens: OpenSeries, server: Server) -> ServerRecorder:
        """What records a server that is about to be started."""
        series, gpus = self._series(server.step.operator, self._open_series if server.shared else opens)
        recorder = ServerRecorder(server, series, gpus, self._options.window_ns, self._cpus, self._audience)
        if server.shared:
            self._shared.append(recorder)
        return recorder

    def shared_records(self, images: Mapping[str, str], outcome: Outcome) -> tuple[ServerRecord, ...]:
        """The records of the servers that the operators shared; call once, after their end.

        Args:
            images: by their files' names.
            outcome: of the operators.
        """
        records = []
        for recorder in self._shared:
            with contextlib.closing(recorder):
                of_all = ("an operator", outcome, self._others_share)
                records.append(self._server_record(recorder, images[recorder.name], *of_all))
        return tuple(records)

    def _server_record(
        self, recorder: ServerRecorder, image: str, operator: str, outcome: Outcome, others_share: float | None
    ) -> ServerRecord:
        """The record of a server that has ended.

        Args:
            image: its name.
            operator, outcome: whom it served, and how that ended: of a load that was not whole nothing follows.
            others_share: see `StepResult.others_cpu_share`.
        """
        policy = self._options.policy
        problems = self._subject.problems(recorder.name)
        kept = self._options.metrics_dir is not None
        record = recorder.record(policy, image, kept=kept, problems=problems, others_share=others_share)
        if outcome is not Outcome.COMPLETED and record.recommendation.status is Advice.OK:
            return replace(record, recommendation=refuse(policy, f"{operator}, which it served, did not end well"))
        return record
