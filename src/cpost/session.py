"""The one story: definition -> plan -> measure -> usage -> recommendation -> run folder.

The command line and whatever comes after it call this; what happens is told to an `Observer`, nothing is printed here.
"""

from __future__ import annotations

import contextlib
import signal
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Protocol

import cpost
from cpost import store
from cpost.definition import load
from cpost.errors import CpostError, ExitCode, HostError, Interrupted, StoreError, UsageError
from cpost.interrupts import Interrupts
from cpost.measure import cleanup, host
from cpost.measure.cgroup import Hierarchies
from cpost.measure.engine import Engine
from cpost.measure.guard import Guard
from cpost.measure.owner import LABEL_VERSION, Owner, new_run_id
from cpost.measure.step import Bench, measure_step
from cpost.model import (
    OperatorRecord,
    Options,
    Outcome,
    Pipeline,
    Plan,
    Run,
    Step,
)
from cpost.plan import make_plan
from cpost.policy import recommend
from cpost.recorder import Audience, Recorder
from cpost.report import spreadsheet

_PLACEHOLDER_WORK_DIR = Path("<work folder>")


class Observer(Audience, Protocol):
    """Who is told what happens; every call comes in the main thread."""

    def note(self, text: str) -> None:
        """Something worth a line."""

    def warn(self, text: str) -> None:
        """Something that may bend the result or surprise the user."""

    def pulling(self, image: str, progress: str) -> None:
        """An image is being pulled; `progress` is empty at the start and "done" at the end."""

    def operator_begins(self, step: Step) -> None:
        """A step is about to be run."""

    def operator_ends(self, record: OperatorRecord, series: Path, *, kept: bool) -> None:
        """It ended; `series` is readable now, and stays where it is if `kept`."""

    def goes_on(self, record: OperatorRecord) -> bool:
        """Asked after a failed operator under `on_failure` "none": whether to go on."""


@dataclass(frozen=True, slots=True)
class Preview:
    """What a run would do: the plan, and which images are here (None = no engine to ask)."""

    plan: Plan
    images: dict[str, bool | None] = field(default_factory=dict)


def preview(pipeline_file: Path, options: Options) -> Preview:
    """Make the plan of a pipeline without running anything; images are looked up where an engine answers."""
    pipeline = load(pipeline_file)
    plan = make_plan(
        pipeline,
        input_dir=Path(options.input_dir or "<input>"),
        work_dir=Path(options.outputs_dir) if options.outputs_dir else _PLACEHOLDER_WORK_DIR,
        options=options,
        host_memory_bytes=host.memory_bytes(),
    )
    images: dict[str, bool | None] = dict.fromkeys(step.image for step in plan.steps)
    with contextlib.suppress(HostError):
        engine = Engine()
        images = {image: engine.image_id(image) is not None for image in images}
    return Preview(plan, images)


def exit_code(run: Run) -> int:
    """The exit code that a run's outcome asks for."""
    outcomes = {record.result.outcome for record in run.operators}
    if Outcome.ENGINE_LOST in outcomes:
        return ExitCode.ENVIRONMENT
    if outcomes & {Outcome.FAILED, Outcome.OOM_KILLED}:
        return ExitCode.OPERATOR_FAILED
    return ExitCode.TIMED_OUT if Outcome.TIMED_OUT in outcomes else ExitCode.OK


def sweep(engine: Engine, *, dry_run: bool = False) -> tuple[list[cleanup.Leftover], list[str]]:
    """Find and remove what dead runs of this boot left; returns what was found and what could not be removed."""
    hierarchies = None
    with contextlib.suppress(HostError):
        hierarchies = Hierarchies.read()
    found = cleanup.leftovers_of_dead_runs(engine, hierarchies)
    return found, [] if dry_run else cleanup.remove_leftovers(found)


def size_pipeline(pipeline_file: Path, options: Options, observer: Observer, interrupts: Interrupts) -> Run:
    """Run every operator of a pipeline, measure it, and recommend requests.

    Returns:
        The record; `complete` is False where a failed operator or a signal ended it early.

    Raises:
        CpostError: whatever kept it from running; what was measured until then is in the metrics folder.
    """
    pipeline = load(pipeline_file)
    for warning in pipeline.warnings:
        observer.warn(warning)
    _check_runnable(pipeline)
    _check_folders(options)
    engine = Engine()
    with contextlib.closing(engine):
        _tell_leftovers(engine, observer)
        return _Session(pipeline, options, observer, interrupts, engine).run()


class _Session:
    """One run from the first look at the engine to the last row."""

    def __init__(
        self, pipeline: Pipeline, options: Options, observer: Observer, interrupts: Interrupts, engine: Engine
    ) -> None:
        self._pipeline = pipeline
        self._options = options
        self._observer = observer
        self._interrupts = interrupts
        self._engine = engine
        self._hierarchies = Hierarchies.read()
        self._engine_facts = engine.facts()
        self._owner = Owner.current()
        self._run_id = new_run_id()
        self._work = cleanup.work_folder(self._owner.name(self._run_id))
        self._outputs = self._work / "outputs"
        self._output_folders: list[Path] = []
        self._run = self._begin()

    def _begin(self) -> Run:
        return Run(
            schema_version=store.SCHEMA_VERSION,
            run_id=self._run_id,
            cpost_version=cpost.__version__,
            created_at=_now(),
            pipeline_name=self._pipeline.name,
            pipeline_file=self._pipeline.file,
            pipeline_digest=self._pipeline.digest,
            host=host.host_facts(self._engine_facts, self._hierarchies),
            options=self._options,
            warnings=self._pipeline.warnings,
        )

    def run(self) -> Run:
        guard = Guard(self._run_id, self._owner.name(self._run_id))
        try:
            self._work.mkdir(mode=0o700)
            folder = self._folder()
            plan = self._plan()
            image_ids = self._images(plan)
            folder.prepare()
            try:
                self._measure(plan, image_ids, folder)
            finally:
                folder.close()
        finally:
            self._clean_up()
            guard.release()
        return self._run

    # ------------------------------------------------------------ before the first operator

    def _plan(self) -> Plan:
        options = self._options
        if options.outputs_dir:
            self._outputs = Path(options.outputs_dir).resolve()
        plan = make_plan(
            self._pipeline,
            input_dir=Path(options.input_dir).resolve(),
            work_dir=self._outputs,
            options=options,
            host_memory_bytes=host.memory_bytes(),
        )
        for step in plan.steps:
            _make_output_folders(step, self._outputs / step.operator, overwrite=options.overwrite)
            self._output_folders += map(Path, step.output_folders)
        return plan

    def _images(self, plan: Plan) -> dict[str, str]:
        """Ids of all images; what is not here is pulled, all of it before the first operator starts."""
        ids: dict[str, str] = {}
        for image in dict.fromkeys(step.image for step in plan.steps):
            found = self._engine.image_id(image)
            if found is None:
                self._pull(image)
                found = self._engine.image_id(image) or ""
            ids[image] = found
        return ids

    def _pull(self, image: str) -> None:
        self._observer.pulling(image, "")
        with self._interrupts.breaking():
            self._engine.pull(image, lambda line: self._observer.pulling(image, line))
        self._observer.pulling(image, "done")

    def _folder(self) -> store.RunFolder:
        if self._options.metrics_dir:
            return store.RunFolder(Path(self._options.metrics_dir), overwrite=self._options.overwrite)
        return store.RunFolder(self._work / "metrics", overwrite=False)

    # ------------------------------------------------------------ the operators

    def _measure(self, plan: Plan, image_ids: dict[str, str], folder: store.RunFolder) -> None:
        labels = {**self._owner.labels(self._run_id), LABEL_VERSION: cpost.__version__}
        network = f"cpost_{self._run_id}"
        try:
            self._interrupts.check()
            self._engine.create_network(network, labels)
            bench = self._bench(labels, network)
            for step in plan.steps:
                self._interrupts.check()
                record = self._measure_one(step, bench, image_ids[step.image], folder)
                if not self._after(record, folder):
                    return
            self._run = replace(self._run, complete=True)
        except Interrupted as interrupted:
            self._run = replace(self._run, stopped_by=signal.Signals(interrupted.signum).name)
        except CpostError as error:
            self._run = replace(self._run, stopped_by=error.message)
            raise
        finally:
            self._run = replace(self._run, ended_at=_now())
            self._save(folder)

    def _bench(self, labels: dict[str, str], network: str) -> Bench:
        name = self._owner.name(self._run_id)
        probe = f"{name}_probe"
        may_make = self._hierarchies.may_make_groups(probe)
        if not may_make:
            self._warn("cpost may not make control groups here: what an operator did at its very end may be missing")
        return Bench(
            engine=self._engine,
            hierarchies=self._hierarchies,
            run_id=self._run_id,
            labels=labels,
            network=network,
            group_name=name if may_make else None,
            cgroup_driver=self._engine_facts.cgroup_driver,
            period_ns=self._options.period_ns,
            interrupts=self._interrupts,
        )

    def _measure_one(self, step: Step, bench: Bench, image_id: str, folder: store.RunFolder) -> OperatorRecord:
        self._observer.operator_begins(step)
        self._refuse_links(step)
        watch = host.HostWatch()
        cpus = self._run.host.cpus or 1
        recording = Recorder(folder, step.operator, self._options.window_ns, cpus, self._observer)
        with contextlib.closing(recording):
            result = measure_step(step, bench, recording)
            step_usage = recording.finish(result)
        totals = result.totals
        warnings = (*result.warnings, *watch.warnings(totals.cpu_us if totals else None))
        result = replace(result, image_id=image_id, warnings=warnings)
        advice = recommend(self._options.policy, result, step_usage)
        record = OperatorRecord(step.operator, step.image, step.declared, result, advice, step_usage)
        kept = self._options.metrics_dir is not None
        if kept:
            record = replace(record, series_file=recording.path.name)
        self._run = replace(self._run, operators=(*self._run.operators, record))
        self._observer.operator_ends(record, recording.path, kept=kept)
        return record

    def _refuse_links(self, step: Step) -> None:
        """An operator may have put a link in the place of a folder that is handed on: the host must not follow it."""
        for mount in step.mounts:
            source = Path(mount.source)
            if source.is_relative_to(self._outputs) and cleanup.has_link(source, below=self._outputs):
                raise HostError(
                    f"{step.operator} is not run: an earlier operator put a link in the place of {source}",
                    "see what the operators before it do to their output folder",
                )

    def _after(self, record: OperatorRecord, folder: store.RunFolder) -> bool:
        """Put the record on disk; returns whether the run goes on after this operator."""
        self._save(folder)
        outcome = record.result.outcome
        if outcome is Outcome.COMPLETED:
            return True
        if outcome is Outcome.ENGINE_LOST:
            raise HostError(
                f"the engine was lost while {record.operator} ran: {record.result.cause}",
                "see that it runs (docker version); `cpost clean` then removes what is left of this run",
            )
        self._interrupts.check()
        with self._interrupts.breaking():
            on_failure = self._options.on_failure
            goes_on = on_failure == "cont" or (on_failure == "none" and self._observer.goes_on(record))
        if not goes_on:
            self._run = replace(self._run, stopped_by=f"{record.operator}: {record.result.cause}")
        return goes_on

    def _save(self, folder: store.RunFolder) -> None:
        folder.save(self._run, spreadsheet.summary(self._run.operators, complete=self._run.complete))

    def _warn(self, text: str) -> None:
        self._run = replace(self._run, warnings=(*self._run.warnings, text))
        self._observer.warn(text)

    # ------------------------------------------------------------ after the last operator

    def _clean_up(self) -> None:
        """Remove all that this run made; signals cannot cancel it."""
        self._remove_foreign_files(self._work / "outputs")
        for failure in cleanup.remove_run(self._engine, self._hierarchies, self._owner, self._run_id):
            self._observer.warn(f"could not be removed: {failure}")
        for folder in self._output_folders:
            if folder.is_dir() and not cleanup.has_link(folder, below=self._outputs):
                folder.chmod(0o755)

    def _remove_foreign_files(self, outputs: Path) -> None:
        """Files that an operator wrote as another user go with the engine's rights, where cpost's own do not do."""
        if not outputs.exists() or cleanup.remove_tree(outputs):
            return
        labels = self._owner.labels(self._run_id)
        for image in dict.fromkeys(record.image for record in self._run.operators):
            if self._engine.remove_files(image, str(outputs), labels):
                return


def _tell_leftovers(engine: Engine, observer: Observer) -> None:
    found, failures = sweep(engine)
    if found:
        runs = ", ".join(sorted({item.run_id for item in found}))
        observer.note(f"Removed {len(found)} leftovers of runs that were killed ({runs}).")
    for failure in failures:
        observer.warn(f"could not be removed: {failure}")


def _check_runnable(pipeline: Pipeline) -> None:
    for operator in pipeline.operators:
        if operator.unsupported:
            raise UsageError(
                f"operator {operator.name} cannot be run here: {operator.unsupported[0]}",
                f"`cpost plan {pipeline.file}` shows the graph; only data that travels by disk can be handed on here",
            )
        if operator.models or operator.services:
            wants = "models" if operator.models else "services"
            raise UsageError(
                f"operator {operator.name} asks for {wants}, and this version starts no inference servers or services",
                "size the pipeline without that operator for now",
            )


def _check_folders(options: Options) -> None:
    for what, name in (("input folder", options.input_dir), ("models folder", options.models_dir)):
        if name is not None and not Path(name).is_dir():
            raise UsageError(f"the {what} {name} is not there, or is no folder", f"name the {what}'s path")


def _make_output_folders(step: Step, folder: Path, *, overwrite: bool) -> None:
    """Make an operator's output folders, writable for whatever user its image runs as."""
    if folder.exists() and any(folder.iterdir()):
        if not overwrite:
            raise UsageError(
                f"{folder} holds files already: earlier outputs are never overwritten unasked",
                "name another --outputs_dir, or allow it with --overwrite",
            )
        cleanup.remove_tree(folder)
    try:
        for path in map(Path, step.output_folders):
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(0o777)
    except OSError as error:
        raise StoreError(f"cannot make {folder}: {error.strerror}", "name a folder that you may write to") from error


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
