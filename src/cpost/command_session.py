"""The story of one bare command: start -> measure -> usage -> recommendation -> run folder. It needs no engine.

The record has the shape of a pipeline's, with one operator.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from signal import Signals

import cpost
from cpost import store
from cpost.errors import CpostError, HostError, StoreError, UsageError
from cpost.gpu_usage import remarks
from cpost.interrupts import Interrupts
from cpost.measure import cleanup, host
from cpost.measure.cgroup import Hierarchies
from cpost.measure.command import CommandBench, measure_command, prepare_launch
from cpost.measure.gpu_watch import GpuWatch
from cpost.measure.guard import Guard
from cpost.measure.launcher import Launcher
from cpost.measure.outcome import iso_time
from cpost.measure.owner import Owner, new_run_id
from cpost.model import HostFacts, OperatorRecord, Options, Outcome, Resources, Run, Step
from cpost.policy import recommend
from cpost.publish import publish
from cpost.recorder import GpuRecorder, Recorder, RunObserver, SeriesRecorder
from cpost.report import spreadsheet
from cpost.units import format_seconds

KIND = "cpost exec"  # stands in the record where a pipeline's name does
_NAME = re.compile(r"\w[\w.+-]{0,99}", re.ASCII)


def size_command(
    command: Sequence[str], name: str | None, options: Options, observer: RunObserver, interrupts: Interrupts
) -> Run:
    """Run one command, measure it, and recommend requests.

    Args:
        command: program and arguments.
        name: what the command is called in tables and files; None = after its program.

    Returns:
        The record, with one operator; `complete` is False where a signal or the time-out ended it.

    Raises:
        NotStarted: the command could not be started.
        CpostError: whatever else kept it from running, or its results from being written.
    """
    session = _CommandSession(command, _checked(name, command[0]), options, observer, interrupts)
    return session.run()


class _CommandSession:
    """One command from its start to the last row."""

    def __init__(
        self, command: Sequence[str], name: str, options: Options, observer: RunObserver, interrupts: Interrupts
    ) -> None:
        self._options = options
        self._observer = observer
        self._interrupts = interrupts
        self._owner = Owner.current()
        self._hierarchies: Hierarchies | None = None
        with contextlib.suppress(HostError):
            self._hierarchies = Hierarchies.read()
        self._step = Step(
            index=0,
            operator=name,
            image="",
            command=tuple(command),
            env=(),
            mounts=(),
            output_folders=(),
            upstream=(),
            declared=Resources(),
            timeout_ns=options.timeout_ns,
            memory_limit_bytes=options.memory_limit_bytes or 0,
        )
        self._run = Run(
            schema_version=store.SCHEMA_VERSION,
            run_id=new_run_id(),
            cpost_version=cpost.__version__,
            created_at=iso_time(time.time_ns()),
            pipeline_name=KIND,
            pipeline_file=shlex.join(command),
            pipeline_digest="",
            host=HostFacts(),
            options=options,
        )
        self._name = self._owner.name(self._run.run_id)
        self._work = cleanup.work_folder(self._name)
        self._begun = False

    def run(self) -> Run:
        self._sweep()
        guard = Guard(self._run.run_id, self._name, engine=False)
        try:
            with contextlib.closing(self._folder()) as folder:
                folder.reserve()
                self._interrupts.check()
                # First of all, while there is no other thread: the GPUs are asked in one.
                with contextlib.closing(prepare_launch(self._step.command, self._name)) as launcher:
                    self._measure(folder, launcher, guard.pid)
        finally:
            self._clean_up(guard)
        return self._run

    def _sweep(self) -> None:
        """Remove what dead runs left, as far as no engine is needed for it."""
        found = cleanup.leftovers_of_dead_runs(None, self._hierarchies)
        removed, failures = cleanup.remove_leftovers(found)
        if removed:
            self._observer.note(f"Removed {len(removed)} leftover(s) of runs that did not end by themselves.")
        for failure in failures:
            self._observer.warn(f"an earlier run's {failure}")

    def _folder(self) -> store.RunFolder:
        path = Path(self._options.metrics_dir) if self._options.metrics_dir else self._work
        try:
            self._work.mkdir(mode=0o700)
        except OSError as error:
            raise StoreError(
                f"cannot make {self._work}: {error.strerror}", "free space there, or set TMPDIR"
            ) from error
        return store.RunFolder(path, [self._step.operator], overwrite=self._options.overwrite)

    def _measure(self, folder: store.RunFolder, launcher: Launcher, guard_pid: int) -> None:
        """From the command's start on there is a record, however it ends."""
        try:
            self._conclude(self._measured(folder, launcher, guard_pid))
        except CpostError as error:
            self._run = replace(self._run, stopped_by=error.message)
            raise
        finally:
            if self._begun:
                self._run = replace(self._run, ended_at=iso_time(time.time_ns()))
                folder.save(self._run, spreadsheet.summary(self._run.operators, complete=self._run.complete))
                self._observer.run_ends(self._run)
                if self._options.metrics_dir is not None:
                    publish(self._run, folder, self._observer, self._interrupts)

    def _measured(self, folder: store.RunFolder, launcher: Launcher, guard_pid: int) -> OperatorRecord:
        step, options = self._step, self._options
        with contextlib.closing(GpuWatch()) as gpus, contextlib.ExitStack() as at_end:
            facts = host.host_facts(None, self._hierarchies, gpus.facts)
            self._run = replace(self._run, host=facts)
            self._observer.operator_begins(step)
            bench = CommandBench(
                launcher, self._hierarchies, self._name, (guard_pid,), options.period_ns, self._interrupts, gpus
            )
            watch = host.HostWatch()
            beside = GpuRecorder(facts.gpus, partial(gpus.take, step.operator))
            begun: list[Recorder] = []

            def begin() -> Recorder:
                begun.append(at_end.enter_context(contextlib.closing(self._begin(folder, beside))))
                return begun[0]

            result = watch.judged(measure_command(step, bench, begin))
            usage = begun[0].finish(result)
            warnings = gpus.problems(step.operator)
            warnings += remarks(facts.gpus, usage.gpus, given=0) if usage else ()
        result = replace(result, warnings=(*result.warnings, *warnings))
        advice = recommend(options.policy, result, usage, step.memory_limit_bytes)
        kept = options.metrics_dir is not None
        series_file = begun[0].path.name if kept else ""
        record = OperatorRecord(step.operator, step.image, step.declared, result, advice, usage, series_file)
        self._run = replace(self._run, operators=(record,))
        self._observer.operator_ends(record, begun[0].path, kept=kept)
        return record

    def _begin(self, folder: store.RunFolder, gpus: GpuRecorder) -> Recorder:
        """The command has started. An earlier result goes only now: one that cannot be started leaves it as it was."""
        folder.prepare()
        self._begun = True
        cpus = self._run.host.cpus or 1
        file = folder.open_series(self._step.operator, spreadsheet.series_header(len(gpus.gpus)))
        series = SeriesRecorder(file, self._options.window_ns, cpus, gpus)
        return Recorder(series, self._observer)

    def _conclude(self, record: OperatorRecord) -> None:
        outcome = record.result.outcome
        if outcome is Outcome.INTERRUPTED and self._interrupts.signum is not None:
            self._run = replace(self._run, stopped_by=Signals(self._interrupts.signum).name)
        elif outcome is Outcome.TIMED_OUT:
            self._run = replace(
                self._run, stopped_by=f"the time-out of {format_seconds(self._options.timeout_ns or 0)}"
            )
        else:
            self._run = replace(self._run, complete=True)

    def _clean_up(self, guard: Guard) -> None:
        failures = cleanup.remove_run(None, self._hierarchies, self._owner, self._run.run_id)
        for failure in failures:
            self._observer.warn(f"could not be removed: {failure}")
        guard.release()


def _checked(name: str | None, program: str) -> str:
    """The name that was given, or one made from the program's; it becomes part of file names."""
    if name is None:
        made = re.sub(r"[^\w.+-]+", "-", Path(program).name, flags=re.ASCII).strip("-.")[:100]
        return made if _NAME.fullmatch(made) else "command"
    if _NAME.fullmatch(name) is None:
        raise UsageError(f"{name!r} cannot be a name: it becomes part of file names", "letters, digits, _ . + -")
    return name
