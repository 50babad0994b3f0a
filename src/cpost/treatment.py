"""What a run does to each operator: measure it, prove what was recommended, look for the smallest that will do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from cpost.errors import HostError
from cpost.interrupts import Interrupts
from cpost.limited import ENDS_ALL, LimitedRuns, TrialAudience, Verifier
from cpost.measurer import Measurer, Subject
from cpost.model import OperatorRecord, Options, Outcome, Run, Step, StepResult
from cpost.outputs import OutputFolders
from cpost.repeats import RepeatAudience, Runner
from cpost.search import Searcher, SearchPlan
from cpost.store import SEARCH, VERIFY, RunFolder


class Audience(RepeatAudience, TrialAudience, Protocol):
    """Who is shown what is done to operators."""


@dataclass(frozen=True, slots=True)
class Workshop:
    """What a treatment works with.

    Attributes:
        cores: how many the host has.
        scratch: where runs write whose outputs nobody reads.
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

    def measure(self, step: Step, warnings: Iterable[str]) -> OperatorRecord:
        """Run a step as often as the options ask."""
        runner = Runner(
            self.subject, self.measurer, self.folder, self.options, self.interrupts, self.audience, self.keep
        )
        return runner.run(step, warnings)

    def limited(self, word: str, scratch: OutputFolders | None) -> LimitedRuns:
        """Runs under limits."""
        return LimitedRuns(
            self.measurer,
            self.subject,
            self.folder,
            scratch,
            self.audience,
            word,
            self.options.max_slowdown,
            self.cores,
        )

    def unless_over(self, record: OperatorRecord, last: StepResult | None) -> OperatorRecord:
        """The record, unless the run is over.

        Args:
            last: how the last run of the operator ended; None where there was none.

        Raises:
            Interrupted: a signal came; the record is kept, as it is in the other case.
            HostError: the engine was lost.
        """
        if last is not None and last.outcome in ENDS_ALL:
            self.keep(record)
            self.interrupts.check()
            raise HostError(
                f"the engine was lost while {record.operator} ran under limits ({last.cause})",
                "see that it runs (docker version), then `cpost verify` or `cpost search` again",
            )
        return record


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
        record = shop.measure(step, warnings)
        if not shop.options.verify:
            return record
        shop.keep(record)
        runs = shop.limited(VERIFY, shop.scratch)
        return shop.unless_over(Verifier(runs).verify(step, record), runs.last)


class Proving:
    """Proves what an earlier run recommended.

    Args:
        earlier: that run.
    """

    def __init__(self, earlier: Run) -> None:
        self._records = {record.operator: record for record in earlier.operators}

    def treat(self, step: Step, shop: Workshop, warnings: Iterable[str]) -> OperatorRecord:
        """See `Treatment`; later operators read what the last run of it wrote, which has to be a whole one."""
        runs = shop.limited(VERIFY, None)
        proven = shop.unless_over(Verifier(runs).verify(step, self._records[step.operator]), runs.last)
        names = (step.operator, *(server.step.operator for server in step.servers))
        if runs.last is not None and runs.last.outcome is Outcome.COMPLETED:
            shop.folder.drop_trials(VERIFY, names, runs.count)
            return proven
        shop.subject.renew(step)
        number = runs.count + 1
        shop.audience.repeat_begins("without limits")
        once = shop.measurer.once(step, number, warnings, partial(shop.folder.open_trial, VERIFY, number))
        shop.unless_over(proven, once.result)
        shop.folder.drop_trials(VERIFY, names, number)
        return _ended_as(proven, once.result)


def _ended_as(record: OperatorRecord, now: StepResult) -> OperatorRecord:
    """The record with how the operator ended now, where that or the earlier end was no good one."""
    before = record.result
    if before.outcome is now.outcome is Outcome.COMPLETED:
        return record
    ended = replace(before, outcome=now.outcome, cause=now.cause, exit_code=now.exit_code, log_tail=now.log_tail)
    return replace(record, result=ended)


class Searching:
    """Measures, and looks for the smallest that will do.

    Args:
        plan: what to look for, and for which operators.
    """

    def __init__(self, plan: SearchPlan) -> None:
        self._plan = plan

    def treat(self, step: Step, shop: Workshop, warnings: Iterable[str]) -> OperatorRecord:
        """See `Treatment`."""
        record = shop.measure(step, warnings)
        if self._plan.operators and step.operator not in self._plan.operators:
            return record
        shop.keep(record)
        runs = shop.limited(SEARCH, shop.scratch)
        return shop.unless_over(Searcher(runs, self._plan).search(step, record), runs.last)
