"""What a run does to each operator: measure it, prove what was recommended, look for the smallest that will do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from cpost.interrupts import Interrupts
from cpost.limited import LimitedRuns, TrialAudience, Verifier
from cpost.measurer import Measurer, Subject
from cpost.model import OperatorRecord, Options, Run, Step, Verdict
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
        return Verifier(shop.limited(VERIFY, shop.scratch)).verify(step, record)


class Proving:
    """Proves what an earlier run recommended.

    Args:
        earlier: that run.
    """

    def __init__(self, earlier: Run) -> None:
        self._records = {record.operator: record for record in earlier.operators}

    def treat(self, step: Step, shop: Workshop, warnings: Iterable[str]) -> OperatorRecord:
        """See `Treatment`; later operators read what the last run of it wrote, which has to be a whole one."""
        record = self._records[step.operator]
        proven = Verifier(shop.limited(VERIFY, None)).verify(step, record)
        trials = proven.verification.trials if proven.verification else ()
        if trials and trials[-1].verdict is not Verdict.BROKEN:
            return proven
        shop.subject.renew(step)
        number = len(trials) + 1
        once = shop.measurer.once(step, number, warnings, partial(shop.folder.open_trial, VERIFY, number))
        return replace(proven, result=replace(proven.result, outcome=once.result.outcome, cause=once.result.cause))


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
        return Searcher(shop.limited(SEARCH, shop.scratch), self._plan).search(step, record)
