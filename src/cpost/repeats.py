"""Runs an operator as often as the options ask: warm-ups first, then measured repeats, one right after the other.

All runs of one operator come before the next operator, so that each reads the same inputs, and only the first of them
may find image and inputs still on the disk. Every run gets empty output folders; those of the last one stay.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from cpost import gpu_usage, spread
from cpost.interrupts import Interrupts
from cpost.measure import cleanup, host
from cpost.measure.outcome import StepObserver
from cpost.measure.owner import LABEL_OPERATOR
from cpost.measure.step import Bench, measure_step
from cpost.model import (
    ENGINE_STATS,
    OperatorRecord,
    Options,
    Outcome,
    Repeat,
    RepeatKind,
    Step,
    StepResult,
    Usage,
)
from cpost.model.gpu import Gpu
from cpost.outputs import OutputFolders
from cpost.policy import recommend, recommend_worst
from cpost.recorder import Audience, GpuRecorder, Recorder
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

    def gpus(self) -> GpuRecorder:
        """What joins the GPUs' figures to the rows of the next run."""

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
        self, bench: Bench, outputs: OutputFolders, image_ids: Mapping[str, str], gpus: tuple[Gpu, ...]
    ) -> None:
        self._bench = bench
        self._outputs = outputs
        self._image_ids = image_ids
        self._gpus = gpus

    def measure(self, step: Step, observer: StepObserver, earlier: int) -> StepResult:
        """See `Subject`; what may have bent the figures is among the warnings."""
        image_id = self._image_ids[step.image]
        watch = host.HostWatch()
        result = measure_step(replace(step, image=image_id), self._bench, observer, earlier=earlier)
        # An engine may turn out to be elsewhere only once a container runs.
        seen = result.totals.source if result.totals else ""
        here = self._bench.elsewhere is None and seen != ENGINE_STATS
        beside = watch.warnings(result.totals.cpu_us if result.totals else None) if here else ()
        return replace(result, image_id=image_id, warnings=(*result.warnings, *beside))

    def gpus(self) -> GpuRecorder:
        """See `Subject`."""
        return GpuRecorder(self._gpus, self._bench.gpus.take)

    def remarks(self, step: Step, usage: Usage | None) -> Iterable[str]:
        """See `Subject`: the GPUs, and a /dev/shm that was full."""
        yield from self._bench.gpus.problems()
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
            result, usage = self._once(step, 0, warnings)
            gpus = (step.declared.gpu_count, step.gpu_count)
            advice = recommend(options.policy, result, usage, step.memory_limit_bytes, *gpus)
            series = self._named(self._folder.series_path(step.operator))
            return OperatorRecord(step.operator, step.image, step.declared, result, advice, usage, series)
        done: list[Repeat] = []
        asked = [(RepeatKind.WARMUP, n, options.warmup) for n in range(1, options.warmup + 1)]
        asked += [(RepeatKind.MEASURED, n, options.repeat) for n in range(1, options.repeat + 1)]
        for kind, number, planned in asked:
            if done:
                self._make_room(step, done)
            self._audience.repeat_begins(kind.nth(number, planned))
            result, usage = self._once(step, len(done), warnings)
            series = self._named(self._folder.series_path(step.operator))
            done.append(Repeat(kind, number, planned, not done, result, usage, series))
            if result.outcome is not Outcome.COMPLETED or len(done) == len(asked):
                break
            self._keep(self._record(step, done))
            self._tell(step, done[-1], shown=True)
        self._tell(step, done[-1], shown=False)
        return self._record(step, done)

    def _once(self, step: Step, earlier: int, warnings: Iterable[str]) -> tuple[StepResult, Usage | None]:
        recording = Recorder(
            self._folder, step.operator, self._options.window_ns, self._cpus, self._audience, self._subject.gpus()
        )
        with contextlib.closing(recording):
            result = self._subject.measure(step, recording, earlier)
            usage = recording.finish(result)
        remarks = self._subject.remarks(step, usage)
        return replace(result, warnings=(*result.warnings, *remarks, *warnings)), usage

    def _make_room(self, step: Step, done: list[Repeat]) -> None:
        """Before the next run: everything as it was, and the last run's series out of the way.

        The record names the moved file before a new one takes the old name: what it says is true at any moment,
        but for the few between the move and the write, when it names a file that is not there.
        """
        self._interrupts.check()
        self._subject.renew(step)
        last = done[-1]
        moved = self._folder.move_series(step.operator, last.kind, last.number)
        done[-1] = replace(last, series_file=self._named(moved))
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
        )

    def _named(self, series: Path) -> str:
        """What the record calls a series; nothing where its folder goes with the run."""
        return series.name if self._options.metrics_dir is not None else ""

    def _tell(self, step: Step, repeat: Repeat, *, shown: bool) -> None:
        passing = shown and self._options.metrics_dir is None
        self._audience.repeat_ends(step.operator, repeat, self._folder.series_path(step.operator) if passing else None)
