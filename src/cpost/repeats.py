"""Runs an operator as often as the options ask: warm-ups first, then measured repeats, one right after the other.

All runs of one operator come before the next operator, so that each reads the same inputs, and only the first of them
may find image and inputs still on the disk. Every run gets empty output folders; those of the last one stay.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

from cpost import gpu_usage, spread
from cpost.interrupts import Interrupts
from cpost.measure import cleanup, host
from cpost.measure.container import Bench
from cpost.measure.outcome import StepObserver
from cpost.measure.owner import LABEL_OPERATOR
from cpost.measure.servers import SharedServers
from cpost.measure.step import measure_step
from cpost.model import (
    ENGINE_STATS,
    Advice,
    OperatorRecord,
    Options,
    Outcome,
    Repeat,
    RepeatKind,
    Server,
    ServerRecord,
    Step,
    StepResult,
    Usage,
)
from cpost.model.gpu import Gpu
from cpost.outputs import OutputFolders
from cpost.policy import for_server, recommend, recommend_worst, refuse, sized_server
from cpost.recorder import Audience, GpuRecorder, Recorder, SeriesRecorder, ServerRecorder
from cpost.store import RunFolder
from cpost.units import format_mb


class RepeatAudience(Audience, Protocol):
    """Who is shown the progress of an operator's runs; told of each only where there are several."""

    def repeat_begins(self, name: str) -> None:
        """One of several runs of an operator begins; `name` is its `Repeat.name`."""

    def repeat_ends(self, operator: str, repeat: Repeat, series: Path | None) -> None:
        """It ended; `series` is to be shown now, None where its file stays or the operator's end shows it."""


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

    def renew(self, step: Step) -> None:
        """Make all that a run may have changed as it was before the first."""


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
        used_us = result.totals.cpu_us + measured.beside_cpu_us if result.totals else None
        return replace(result, warnings=(*result.warnings, *(watch.warnings(used_us) if here else ())))

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

    def renew(self, step: Step) -> None:
        """Empty output folders; everything else a container cannot change, or takes with it."""
        labels = {**self._bench.labels, LABEL_OPERATOR: step.operator}
        images = (self._image_ids[step.image],)
        engine = self._bench.engine
        self._outputs.renew(step, lambda folder: cleanup.remove_as_engine(engine, folder, images, labels))


class Runner:
    """Runs operators, each as often as the options say.

    Args:
        cpus: how many the host has.
        keep: puts an operator's record on disk as it is so far; called between its runs, never for a single one.
    """

    def __init__(
        self,
        subject: Subject,
        folder: RunFolder,
        options: Options,
        cpus: int,
        interrupts: Interrupts,
        audience: RepeatAudience,
        keep: Callable[[OperatorRecord], None],
    ) -> None:
        self._subject = subject
        self._folder = folder
        self._options = options
        self._cpus = cpus
        self._interrupts = interrupts
        self._audience = audience
        self._keep = keep
        self._shared: list[ServerRecorder] = []

    def run(self, step: Step, warnings: Iterable[str] = ()) -> OperatorRecord:
        """Run a step once, or as often as the options ask; a run that does not end well is its last.

        Args:
            warnings: go into the result of each run.

        Raises:
            Interrupted: between two runs; what was kept last is then true, as it is whenever something is raised.
            CpostError: a run could not be begun or measured.
        """
        options = self._options
        if options.repeat == 1 and not options.warmup:
            once = self._once(step, 0, warnings)
            gpus = (step.declared.gpu_count, step.gpu_count)
            advice = recommend(options.policy, once.result, once.usage, step.memory_limit_bytes, *gpus)
            return OperatorRecord(
                operator=step.operator,
                image=step.image,
                declared=step.declared,
                result=once.result,
                recommendation=advice,
                usage=once.usage,
                series_file=self._named(self._folder.series_path(step.operator)),
                servers=once.servers,
            )
        done: list[Repeat] = []
        asked = [(RepeatKind.WARMUP, n, options.warmup) for n in range(1, options.warmup + 1)]
        asked += [(RepeatKind.MEASURED, n, options.repeat) for n in range(1, options.repeat + 1)]
        for kind, number, planned in asked:
            if done:
                self._make_room(step, done)
            self._audience.repeat_begins(kind.nth(number, planned))
            once = self._once(step, len(done), warnings)
            series = self._named(self._folder.series_path(step.operator))
            done.append(Repeat(kind, number, planned, not done, once.result, once.usage, series, once.servers))
            if once.result.outcome is not Outcome.COMPLETED or len(done) == len(asked):
                break
            self._keep(self._record(step, done))
            self._tell(step, done[-1], shown=True)
        self._tell(step, done[-1], shown=False)
        return self._record(step, done)

    def _once(self, step: Step, earlier: int, warnings: Iterable[str]) -> _Once:
        names = {server.step.operator: server.step.image for server in step.servers}
        recording = Recorder(self._series(step.operator)[0], self._audience, self._beside)
        with contextlib.closing(recording):
            result = self._subject.measure(step, recording, earlier)
            usage = recording.finish(result)
            servers = tuple(
                self._server_record(each, names[each.name], step.operator, result.outcome) for each in recording.servers
            )
        remarks = self._subject.remarks(step, usage)
        return _Once(replace(result, warnings=(*result.warnings, *remarks, *warnings)), usage, servers)

    def _series(self, name: str) -> tuple[SeriesRecorder, GpuRecorder]:
        gpus = self._subject.gpus(name)
        return SeriesRecorder(self._folder, name, self._options.window_ns, self._cpus, gpus), gpus

    def _beside(self, server: Server) -> ServerRecorder:
        """What records a server that is about to be started."""
        series, gpus = self._series(server.step.operator)
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
                records.append(self._server_record(recorder, images[recorder.name], "an operator", outcome))
        return tuple(records)

    def _server_record(self, recorder: ServerRecorder, image: str, operator: str, outcome: Outcome) -> ServerRecord:
        """The record of a server that has ended.

        Args:
            image: its name.
            operator, outcome: whom it served, and how that ended: of a load that was not whole nothing follows.
        """
        policy = self._options.policy
        problems = self._subject.problems(recorder.name)
        record = recorder.record(policy, image, kept=self._options.metrics_dir is not None, problems=problems)
        if outcome is not Outcome.COMPLETED and record.recommendation.status is Advice.OK:
            return replace(record, recommendation=refuse(policy, f"{operator}, which it served, did not end well"))
        return record

    def _make_room(self, step: Step, done: list[Repeat]) -> None:
        """Before the next run: everything as it was, and the last run's series out of the way.

        The record names the moved file before a new one takes the old name: what it says is true at any moment,
        but for the few between the move and the write, when it names a file that is not there.
        """
        self._interrupts.check()
        self._subject.renew(step)
        last = done[-1]
        moved = self._folder.move_series(step.operator, last.kind, last.number)
        names = {server.name: server.step.operator for server in step.servers}
        servers = []
        for server in last.servers:
            series = self._folder.move_series(names[server.name], last.kind, last.number)
            servers.append(replace(server, series_file=self._named(series)))
        done[-1] = replace(last, series_file=self._named(moved), servers=tuple(servers))
        self._keep(self._record(step, done))

    def _record(self, step: Step, done: Sequence[Repeat]) -> OperatorRecord:
        options, last = self._options, done[-1]
        gpus = (step.declared.gpu_count, step.gpu_count)
        advice = recommend_worst(options.policy, done, options.repeat, step.memory_limit_bytes, *gpus)
        whole = len(spread.measured(done)) == options.repeat
        return OperatorRecord(
            operator=step.operator,
            image=step.image,
            declared=step.declared,
            result=last.result,
            recommendation=advice,
            usage=spread.joined(done),
            series_file=last.series_file,
            repeats=tuple(done),
            spreads=spread.spreads(done),
            doubts=spread.doubts(done) if whole else (),
            servers=tuple(self._joined(server, step, done) for server in last.servers),
        )

    def _joined(self, server: ServerRecord, step: Step, done: Sequence[Repeat]) -> ServerRecord:
        """One record for a server that was started anew for each run of its operator."""
        planned = next(each.step for each in step.servers if each.name == server.name)
        runs = [(repeat, each) for repeat in done for each in repeat.servers if each.name == server.name]

        def usage(read: Callable[[ServerRecord], Usage | None]) -> list[Repeat]:
            return [replace(repeat, result=each.result, usage=read(each), servers=()) for repeat, each in runs]

        sized = usage(lambda each: sized_server(each.usage, each.load))
        limit_bytes, gpus = planned.memory_limit_bytes, (planned.declared.gpu_count, planned.gpu_count)
        advice = recommend_worst(self._options.policy, sized, self._options.repeat, limit_bytes, *gpus)
        refused = server.recommendation.status is Advice.REFUSED
        return replace(
            server,
            recommendation=server.recommendation if refused else for_server(advice),
            usage=spread.joined(usage(lambda each: each.usage)),
            idle=spread.joined(usage(lambda each: each.idle)),
            load=spread.joined(usage(lambda each: each.load)),
        )

    def _named(self, series: Path) -> str:
        """What the record calls a series; nothing where its folder goes with the run."""
        return series.name if self._options.metrics_dir is not None else ""

    def _tell(self, step: Step, repeat: Repeat, *, shown: bool) -> None:
        passing = shown and self._options.metrics_dir is None
        self._audience.repeat_ends(step.operator, repeat, self._folder.series_path(step.operator) if passing else None)


class _Once(NamedTuple):
    """What came of one run of an operator."""

    result: StepResult
    usage: Usage | None
    servers: tuple[ServerRecord, ...]
