"""The one story: definition -> plan -> measure -> usage -> recommendation -> run folder.

The command line and whatever comes after it call this; what happens is told to an `Observer`, nothing is printed here.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field, replace
from pathlib import Path

from cpost import store
from cpost.definition import load
from cpost.definition.models import models_to_load
from cpost.errors import ExitCode, HostError, UsageError
from cpost.execution import Execution, Observer
from cpost.interrupts import Interrupts
from cpost.measure import cleanup, host
from cpost.measure.cgroup import Hierarchies
from cpost.measure.engine import Engine
from cpost.measure.gpu_watch import gpu_facts
from cpost.measure.sampler import SamplingProcess
from cpost.model import Advice, Operator, OperatorRecord, Options, Outcome, Pipeline, Plan, Run, Verdict
from cpost.plan import Place, images_of, make_plan, needed
from cpost.preflight import by_format, check_folders, check_runnable, models_of
from cpost.search import SearchPlan
from cpost.treatment import Proving, Searching, Sizing, Treatment

_PLACEHOLDER_WORK_DIR = Path("<work folder>")


@dataclass(frozen=True, slots=True)
class Preview:
    """What a run would do: the plan, which images are here (None = no engine to ask), and what cannot be run."""

    plan: Plan
    images: dict[str, bool | None] = field(default_factory=dict)
    reasons_against: dict[str, tuple[str, ...]] = field(default_factory=dict)


def preview(pipeline_file: Path, options: Options) -> Preview:
    """Make the plan of a pipeline without running anything; images are looked up where an engine answers.

    Raises:
        CpostError: the definition cannot be used, or the input folder is not there.
    """
    if options.input_dir:
        check_folders(options)
    pipeline = load(pipeline_file)
    place = Place(
        input_dir=Path(options.input_dir or "<input>"),
        work_dir=Path(options.outputs_dir) if options.outputs_dir else _PLACEHOLDER_WORK_DIR,
        shared_dir=_PLACEHOLDER_WORK_DIR / "shared",
        models_dir=Path(options.models_dir) if options.models_dir else None,
        memory_bytes=host.memory_bytes(),
        gpus=len(gpu_facts().gpus),
    )
    models = models_to_load(pipeline, Path(options.models_dir)) if options.models_dir else None
    plan = make_plan(pipeline, place, options, models)
    images: dict[str, bool | None] = dict.fromkeys(images_of(plan))
    with contextlib.suppress(HostError):
        engine = Engine()
        images = {image: engine.image_id(image) is not None for image in images}
    against = {operator.name: operator.unsupported for operator in pipeline.operators if operator.unsupported}
    return Preview(plan, images, against)


def exit_code(run: Run, *, proving: bool = False) -> int:
    """The exit code that a run's outcome asks for.

    Args:
        proving: it is an earlier run, whose recommendations were proven now: how it ended then is not asked.
    """
    verifications = [record.verification for record in run.operators]
    unproven = any(each is not None and each.verdict is not Verdict.HOLDS for each in verifications)
    untried = (proving or run.options.verify) and None in verifications
    outcomes = set[Outcome]() if proving else {record.result.outcome for record in run.operators}
    if Outcome.ENGINE_LOST in outcomes:
        return ExitCode.ENVIRONMENT
    if outcomes & {Outcome.FAILED, Outcome.OOM_KILLED}:
        return ExitCode.OPERATOR_FAILED
    if Outcome.TIMED_OUT in outcomes:
        return ExitCode.TIMED_OUT
    return ExitCode.GATE_FAILED if unproven or untried else ExitCode.OK


def sweep(engine: Engine | None, *, dry_run: bool = False) -> tuple[list[cleanup.Leftover], list[str]]:
    """Find and remove what dead runs of this boot left.

    Args:
        engine: None = look only for what is not on an engine.

    Returns:
        What was removed (what would be, in a dry run), and what could not be removed, one line each.
    """
    hierarchies = None
    with contextlib.suppress(HostError):
        hierarchies = Hierarchies.read()
    found = cleanup.leftovers_of_dead_runs(engine, hierarchies)
    return (found, []) if dry_run else cleanup.remove_leftovers(found)


def size_pipeline(pipeline_file: Path, options: Options, observer: Observer, interrupts: Interrupts) -> Run:
    """Run every operator of a pipeline, measure it, and recommend requests; prove them where the options ask for it.

    Returns:
        The record; `complete` is False where a failed operator or a signal ended it early.

    Raises:
        CpostError: whatever kept it from running; what was measured until then is in the metrics folder.
    """
    return _execute(load(pipeline_file), options, observer, interrupts, Sizing())


def verify_run(folder: Path, max_slowdown: float, observer: Observer, interrupts: Interrupts) -> Run:
    """Run the pipeline of an earlier run again, each operator under what was recommended for it.

    Returns:
        The earlier run's record with the verdicts, and with what came of its recommendations; it is in the folder, too.

    Raises:
        CpostError: the folder holds no run with recommendations, or its pipeline is not what it was.
    """
    earlier = store.load_run(folder)
    if not earlier.pipeline_digest:
        raise UsageError(f"{folder} holds the run of a single command", "only runs of pipelines can be verified")
    pipeline = load(Path(earlier.pipeline_file))
    _check_same(earlier, pipeline)
    options = replace(
        earlier.options, metrics_dir=str(folder), outputs_dir=None, overwrite=False, max_slowdown=max_slowdown
    )
    return _execute(pipeline, options, observer, interrupts, Proving(earlier), earlier)


def search_pipeline(
    pipeline_file: Path, options: Options, plan: SearchPlan, observer: Observer, interrupts: Interrupts
) -> Run:
    """Run a pipeline, and look for the smallest memory and the right number of cores of its operators.

    Raises:
        CpostError: see `size_pipeline`; an operator that is looked for is not in the pipeline.
    """
    pipeline = load(pipeline_file)
    names = {operator.name for operator in pipeline.operators}
    for name in sorted(plan.operators - names):
        raise UsageError(f"the pipeline has no operator {name}", f"it has {', '.join(sorted(names))}")
    if plan.operators:
        kept = needed(pipeline.operators, plan.operators)
        left = [operator.name for operator in pipeline.operators if operator not in kept]
        if left:
            observer.note(f"Not run, as nothing of theirs is needed: {', '.join(left)}")
        pipeline = replace(pipeline, operators=kept)
    return _execute(pipeline, options, observer, interrupts, Searching(plan))


def _execute(
    pipeline: Pipeline,
    options: Options,
    observer: Observer,
    interrupts: Interrupts,
    treatment: Treatment,
    earlier: Run | None = None,
) -> Run:
    for warning in pipeline.warnings:
        observer.warn(warning)
    options = by_format(options, pipeline)
    check_runnable(pipeline, options)
    check_folders(options)
    models = models_of(pipeline, options)
    # First of all, because it comes up while the engine is being asked.
    with SamplingProcess() as sampling:
        with interrupts.breaking():
            engine = Engine()
            _tell_leftovers(engine, observer)
            execution = Execution(pipeline, models, options, observer, interrupts, engine, sampling, treatment, earlier)
        with contextlib.closing(engine):
            return execution.run()


def _check_same(earlier: Run, pipeline: Pipeline) -> None:
    if earlier.pipeline_digest != pipeline.digest and not _runs_the_same(earlier, pipeline):
        raise UsageError(
            f"{earlier.pipeline_file} is not what it was when it was measured: it runs something else",
            "measure it again; what was recommended may be for other operators",
        )
    names = {operator.name for operator in pipeline.operators}
    missing = names - {record.operator for record in earlier.operators}
    if missing:
        raise UsageError(f"the run is partial: {', '.join(sorted(missing))} was not measured", "measure it again")
    if not any(record.recommendation.status is Advice.OK for record in earlier.operators):
        raise UsageError("the run recommends nothing, so there is nothing to prove", "see its reasons in run.json")


def _runs_the_same(earlier: Run, pipeline: Pipeline) -> bool:
    """Whether a file has not changed in what is run: what was recommended may stand in it meanwhile."""
    records = {record.operator: record for record in earlier.operators}
    operators = tuple(_as_measured(each, records.get(each.name)) for each in pipeline.operators)
    return replace(pipeline, operators=operators).work_digest == earlier.work_digest


def _as_measured(operator: Operator, record: OperatorRecord | None) -> Operator:
    """An operator with the GPUs that it was measured with, where it now asks for those that were recommended."""
    wanted = record and record.recommendation.requests.gpu_count
    if record is None or wanted is None or operator.requests.gpu_count != wanted:
        return operator
    return replace(operator, requests=replace(operator.requests, gpu_count=record.declared.gpu_count))


def _tell_leftovers(engine: Engine, observer: Observer) -> None:
    removed, failures = sweep(engine)
    if removed:
        runs = ", ".join(sorted({item.run_id for item in removed}))
        observer.note(f"Removed {len(removed)} leftover(s) of runs that did not end by themselves ({runs}).")
    for failure in failures:
        observer.warn(f"an earlier run's {failure}")
    others = cleanup.live_runs(engine)
    if others:
        observer.warn(
            f"another cpost is measuring on this engine ({', '.join(others)}): CPU figures may come out too low"
        )
