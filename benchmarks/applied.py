"""Applies recommendations: an operator is measured once, then run again under each limit that some formula recommends.

The runs are those of `cpost verify` (cpost.limited), each the first trial of a verification: nothing is raised.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from benchmarks import cpost_runs, formulas
from benchmarks.cpost_runs import Operator
from benchmarks.formulas import Formula, Limits, Seen
from cpost.definition import load
from cpost.execution import Execution
from cpost.interrupts import Interrupts
from cpost.limited import LimitedRuns
from cpost.measure.engine import Engine
from cpost.measure.sampler import SamplingProcess
from cpost.model import Enforced, OperatorRecord, Options, Outcome, Resources, Step, Trial, Verdict
from cpost.raises import raised
from cpost.store import VERIFY
from cpost.treatment import Workshop
from cpost.units import MILLICORES_PER_CORE, NS_PER_S

_MOST_NS = 20 * NS_PER_S  # far more than any operator takes that is not starved
_BEYOND_DOUBT = 1.0  # slower by as much (a share) is no whim of the host's


class Fate(Enum):
    """What became of an operator under a recommendation."""

    HELD = "held"
    KILLED = "killed for memory"
    SLOW = "slow"
    FAILED = "failed otherwise"


class Tried(NamedTuple):
    """A recommendation that was applied; `slowdown` = the time over that without limits, less one; None = not known."""

    fate: Fate
    slowdown: float | None = None


@dataclass(frozen=True)
class Applied:
    """One operator.

    Attributes:
        record: of its run without limits.
        advised: what each formula recommends; None = nothing.
        tried: what became of it under each distinct recommendation.
    """

    record: OperatorRecord
    advised: Mapping[str, Limits | None]
    tried: Mapping[Limits, Tried]


def apply(
    image: str, operators: Iterable[Operator], payload: Path, folder: Path, recommending: Mapping[str, Formula]
) -> list[Applied]:
    """Measure each operator, and run it under whatever the formulas recommend for it.

    Args:
        payload: what the operators read; before each run its files are taken out of the page cache.
        folder: for what the runs write.

    Raises:
        RuntimeError: a run could not be done, or an operator failed without any limits.
    """
    pipeline = load(cpost_runs.write_pipeline(image, operators, folder))
    options = Options(
        input_dir=str(payload), metrics_dir=str(folder / "metrics"), timeout_ns=_MOST_NS, on_failure="cont"
    )
    treatment, interrupts = _Applying(folder / "metrics", payload, recommending), Interrupts()
    with interrupts.installed(), SamplingProcess() as sampling, closing(Engine()) as engine:
        run = Execution(pipeline, {}, options, _Nobody(), interrupts, engine, sampling, treatment).run()
    if not run.complete:
        raise RuntimeError(f"the run ended early: {run.stopped_by}")
    return treatment.applied


def fate_of(trial: Trial) -> Fate:
    """What a run under limits says.

    One whose time is up was too slow. One that was slow although no limit held it back (see `cpost.raises.raised`)
    held: the host was to blame.
    """
    result = trial.result
    if result.outcome is Outcome.OOM_KILLED or (result.totals is not None and result.totals.oom_kills):
        return Fate.KILLED
    if result.outcome is Outcome.TIMED_OUT:
        return Fate.SLOW
    if trial.verdict is Verdict.SLOW:
        return Fate.HELD if raised(trial) is None else Fate.SLOW
    return Fate.HELD if trial.verdict is Verdict.HOLDS else Fate.FAILED


@dataclass
class _Applying:
    """What is done to each operator; a `cpost.treatment.Treatment`."""

    metrics: Path
    payload: Path
    recommending: Mapping[str, Formula]
    applied: list[Applied] = field(default_factory=list)

    def treat(self, step: Step, shop: Workshop, warnings: Iterable[str]) -> OperatorRecord:
        """Measure it, then run it under each distinct recommendation."""
        self._forget_payload()
        record = shop.measure(step, warnings)
        if record.result.outcome is not Outcome.COMPLETED:
            raise RuntimeError(f"{step.operator} failed without limits: {record.result.cause}")
        rows = cpost_runs.read_series(self.metrics / record.series_file)
        seen = Seen(formulas.readings_of(rows), record.result, record.usage)
        advised = {name: formula(seen) for name, formula in self.recommending.items()}
        distinct = list(dict.fromkeys(limits for limits in advised.values() if limits is not None))
        trials = _Trials(step, record, shop.limited(VERIFY, shop.scratch), self._forget_payload)
        self.applied.append(Applied(record, advised, {limits: trials.tried(limits) for limits in distinct}))
        return record

    def _forget_payload(self) -> None:
        """Whoever reads a file that is cached already is not charged for it."""
        for path in self.payload.iterdir():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)


@dataclass
class _Trials:
    """Runs of one operator under limits."""

    step: Step
    record: OperatorRecord
    runs: LimitedRuns
    before_each: Callable[[], None]
    count: int = 0

    def tried(self, limits: Limits) -> Tried:
        """A run that is a little too slow gets a second chance: the host may have had its share in that."""
        tried = self._run(limits)
        doubtful = tried.fate is Fate.SLOW and tried.slowdown is not None and tried.slowdown < _BEYOND_DOUBT
        return self._run(limits) if doubtful else tried

    def _run(self, limits: Limits) -> Tried:
        self.count += 1
        self.before_each()
        most_millicores = self.runs.cores * MILLICORES_PER_CORE  # engines refuse more than the host has
        resources = Resources(min(limits.cpu_millicores, most_millicores), limits.memory_bytes)
        enforced = (Enforced(self.step.operator, resources),)
        trial = self.runs.run(self.step, enforced, self.count, self.count, self.record.result.wall_ns)
        return Tried(fate_of(trial), trial.slowdown)


class _Nobody:
    """Nobody looks on, but warnings are told."""

    def warn(self, text: str) -> None:
        print(f"cpost: {text}", file=sys.stderr)

    def __getattr__(self, _name: str) -> Callable[..., None]:
        return lambda *_said, **_also: None
