"""What a run does to each operator: measure it, prove what was recommended, look for the smallest that will do."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

from cpost.errors import HostError
from cpost.interrupts import Interrupts
from cpost.limited import ENDS_ALL, LimitedRuns, TrialAudience
from cpost.measurer import Measurer, Subject
from cpost.model import Advice, HostFacts, OperatorRecord, Options, Outcome, Run, Step, StepResult
from cpost.outputs import OutputFolders
from cpost.repeats import RepeatAudience, Runner
from cpost.search import Searcher, SearchPlan
from cpost.store import SEARCH, VERIFY, RunFolder
from cpost.verifier import Verifier
from cpost.volumes import Volumes


class Audience(RepeatAudience, TrialAudience, Protocol):
    """Who is shown what is done to operators."""

    def warn(self, text: str) -> None:
        """Something that may bend the result."""


@dataclass(frozen=True, slots=True)
class Workshop:
    """What a treatment works with.

    Attributes:
        cores: how many the host has.
        host: it.
        scratch: where runs write whose outputs nobody reads; emptied after each operator.
        volumes: keep what an operator finds in its volumes, where it runs several times.
        keep: puts an operator's record on disk as it is so far.
    """

    subject: Subject
    measurer: Measurer
    folder: RunFolder
    options: Options
    interrupts: Interrupts
    audience: Audience
    cores: int
    scratch: OutputFolders
    keep: Callable[[OperatorRecord], None]
    volumes: Volumes
    host: HostFacts = field(default_factory=HostFacts)

    def measure(self, step: Step, warnings: Iterable[str]) -> OperatorRecord:
        """Run a step as often as the options ask."""
        runner = Runner(
            self.subject, self.measurer, self.folder, self.options, self.interrupts, self.audience, self.keep
        )
        return runner.run(step, warnings)

    def keep_volumes(self, step: Step, *, again: bool) -> list[str]:
        """Keep what lies in its volumes, unless it is run but once; returns what could not be kept, one line each.

        Args:
            again: it is run under limits.
        """
        self.volumes.forget()
        if again or self.options.warmup or self.options.repeat > 1:
            return self.volumes.keep(step)
        return []

    def limited(self, word: str, scratch: OutputFolders | None, cold_inputs: Collection[str] = ()) -> LimitedRuns:
        """Runs under limits; see `LimitedRuns`."""
        return LimitedRuns(
            self.measurer,
            self.subject,
            self.folder,
            scratch,
            self.audience,
            word,
            self.options.max_slowdown,
            self.cores,
            cold_inputs,
        )

    def settled(self, word: str, step: Step, record: OperatorRecord, runs: LimitedRuns) -> OperatorRecord:
        """The record after runs under limits, with their series in place, unless the run is over.

        Args:
            word: what these runs' series are called.

        Raises:
            Interrupted: a signal came; the record is kept, as it is in the other case.
            HostError: the engine was lost.
        """
        over = runs.last is not None and runs.last.outcome in ENDS_ALL
        self.folder.settle_trials(word, _names(step), runs.count - over)
        self.subject.discard(step, self.scratch)
        if over or self.interrupts.signum is not None:  # it may have come between two runs
            self.keep(record)
            self.interrupts.check()
        self.go_on_after(record.operator, runs.last)
        return record

    def go_on_after(self, operator: str, last: StepResult | None) -> None:
        """Nothing, unless the run is over; raises what `settled` does."""
        if last is not None and last.outcome in ENDS_ALL:
            self.interrupts.check()
            raise HostError(
                f"the engine was lost while {operator} ran again ({last.cause})",
                "see that it runs (docker version), then `cpost verify` or `cpost search` again",
            )


class Treatment(Protocol):
    """What is done to each operator, in the order of execution; what it writes is what later ones read."""

    def treat(self, step: Step, shop: Workshop, warnings: Iterable[str]) -> OperatorRecord:
        """Do it.

        Args:
            warnings: go into the result.
        """


class Sizing:
    """Measures, and proves what follows where the options ask for that."""

    def treat(self, step: Step, shop: Workshop, warnings: Iterable[str]) -> OperatorRecord:
        """See `Treatment`."""
        options = shop.options
        shared = shop.keep_volumes(step, again=options.verify)
        record = shop.measure(step, (*warnings, *shared))
        if not options.verify:
            return record
        shop.keep(record)
        runs = shop.limited(VERIFY, shop.scratch, record.cold_inputs)
        proven = Verifier(runs, shop.host, shop.host).verify(step, record)
        return shop.settled(VERIFY, step, proven, runs)


class Proving:
    """Proves what an earlier run recommended.

    Args:
        earlier: that run.
    """

    def __init__(self, earlier: Run) -> None:
        self._host = earlier.host
        self._records = {record.operator: record for record in earlier.operators}

    def treat(self, step: Step, shop: Workshop, warnings: Iterable[str]) -> OperatorRecord:
        """See `Treatment`; later operators read what the last run of it wrote, which has to be a whole one.

        Where it had to be run without limits for that, its result is that run's; whatever else was measured is the
        earlier run's.
        """
        record = self._records[step.operator]
        for warning in shop.keep_volumes(step, again=record.recommendation.status is Advice.OK):
            shop.audience.warn(f"{step.operator}: {warning}")
        runs = shop.limited(VERIFY, None, record.cold_inputs)
        proven = Verifier(runs, shop.host, self._host).verify(step, record)
        proven = shop.settled(VERIFY, step, proven, runs)
        if runs.last is not None and runs.last.outcome is Outcome.COMPLETED:
            return proven
        result = self._without_limits(step, shop, runs.count + 1, warnings)
        if result.outcome is not Outcome.COMPLETED and proven.verification is not None:
            proven = _failing_anyway(proven, result)
        return replace(proven, result=result)

    def _without_limits(self, step: Step, shop: Workshop, number: int, warnings: Iterable[str]) -> StepResult:
        """Run it for its outputs; nothing else of that run stays."""
        shop.subject.renew(step)
        shop.audience.repeat_begins("without limits")
        try:
            once = shop.measurer.once(step, number, warnings, partial(shop.folder.open_trial, VERIFY, number))
        finally:
            shop.folder.settle_trials(VERIFY, _names(step), 0)
        shop.go_on_after(step.operator, once.result)
        return once.result


def _failing_anyway(record: OperatorRecord, now: StepResult) -> OperatorRecord:
    advice = record.recommendation
    said = f"not verified: without limits it failed, too ({now.cause or now.outcome.value})"
    return replace(record, recommendation=replace(advice, reasons=(*advice.reasons, said)))


def _names(step: Step) -> list[str]:
    """What the series of an operator and of its own servers are called after."""
    return [step.operator, *(server.step.operator for server in step.servers if not server.shared)]


class Searching:
    """Measures, and looks for the smallest that will do.

    Args:
        plan: what to look for, and for which operators.
    """

    def __init__(self, plan: SearchPlan) -> None:
        self._plan = plan

    def treat(self, step: Step, shop: Workshop, warnings: Iterable[str]) -> OperatorRecord:
        """See `Treatment`."""
        searched = not self._plan.operators or step.operator in self._plan.operators
        shared = shop.keep_volumes(step, again=searched)
        record = shop.measure(step, (*warnings, *shared))
        if not searched:
            return record
        shop.keep(record)
        runs = shop.limited(SEARCH, shop.scratch, record.cold_inputs)
        return shop.settled(SEARCH, step, Searcher(runs, self._plan).search(step, record), runs)
