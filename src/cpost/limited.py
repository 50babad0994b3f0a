"""Runs operators under limits, for whoever proves a recommendation or looks for the smallest that will do."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

from cpost.errors import HostError, StoreError
from cpost.measurer import Measurer, Once, Subject
from cpost.model import Enforced, Outcome, Step, StepResult, Trial
from cpost.outputs import OutputFolders
from cpost.store import RunFolder
from cpost.trials import Observed, judge, longest_ns
from cpost.units import whole_pages

ENDS_ALL = (Outcome.INTERRUPTED, Outcome.ENGINE_LOST)


class NotRun(Exception):
    """A run under limits, in folders of its own, could not be prepared; its text says why, in one line."""


class TrialAudience(Protocol):
    """Who is shown runs under limits."""

    def trial_begins(self, operator: str, limits: str) -> None:
        """An operator is about to be run under these limits."""

    def trial_ends(self, trial: Trial) -> None:
        """It ended."""


class LimitedRuns:
    """Runs operators under limits, one run after the other, and judges each.

    Args:
        scratch: where they write, so that the outputs of the run without limits stay; None = where the pipeline does.
        word: what the series of these runs are called.
        max_slowdown: how much longer than without limits, as a share.
        cores: how many the host has.
        cold_inputs: those that the run without limits had to read from the disk, so that these have to, too.

    Attributes:
        last: how the last one ended; None = there was none.
        count: how many there were.
    """

    def __init__(
        self,
        measurer: Measurer,
        subject: Subject,
        folder: RunFolder,
        scratch: OutputFolders | None,
        audience: TrialAudience,
        word: str,
        max_slowdown: float,
        cores: int,
        cold_inputs: Collection[str] = (),
    ) -> None:
        self._measurer = measurer
        self._subject = subject
        self._folder = folder
        self._scratch = scratch
        self._audience = audience
        self._word = word
        self.max_slowdown = max_slowdown
        self.cores = cores
        self._cold_inputs = cold_inputs
        self.last: StepResult | None = None
        self.count = 0

    def run(
        self, step: Step, enforced: Sequence[Enforced], number: int, earlier: int, baseline_ns: int | None
    ) -> Trial:
        """Run a step under limits, in output folders that are empty at first.

        Args:
            enforced: on the operator, then on its own servers.
            number: of this run among those under limits, from 1.
            earlier: how often the step was run at all.
            baseline_ns: its time without limits; one that takes many times as long is stopped.

        Raises:
            NotRun: its own folders could not be made as the run without limits found them.
            HostError: the pipeline's could not.
            Interrupted: a signal came meanwhile.
        """
        limited = replace(_limited(step, enforced), timeout_ns=self._longest_ns(step, enforced[0], baseline_ns))
        if self._scratch is not None:
            limited = self._scratch.moved(limited)
        self._renew(limited)
        self._audience.trial_begins(step.operator, _told(step, enforced))
        cached_bytes = self._subject.chill(limited, self._cold_inputs)
        once = self._measurer.once(limited, earlier, (), partial(self._folder.open_trial, self._word, number))
        fixed = step.duration_ns is not None
        trial = judge(_observed(once), enforced, baseline_ns, self.max_slowdown, fixed=fixed)
        trial = replace(trial, cached_input_bytes=cached_bytes)
        self.last = trial.result
        self.count += 1
        self._audience.trial_ends(trial)
        return trial

    def _renew(self, limited: Step) -> None:
        try:
            self._subject.renew(limited, self._scratch)
        except (HostError, StoreError) as error:
            if self._scratch is None:
                raise
            raise NotRun(error.message) from error

    def _longest_ns(self, step: Step, own: Enforced, baseline_ns: int | None) -> int | None:
        if step.duration_ns is not None:
            return step.timeout_ns
        return longest_ns(own, baseline_ns, self.max_slowdown, self.cores, step.timeout_ns)


def _told(step: Step, enforced: Sequence[Enforced]) -> str:
    """What people read: the operator's limits, and those of its servers, which may have none."""
    own, *servers = enforced
    limited = [f"{each.name} with {each.text}" for each in servers]
    names = {each.name for each in servers}
    free = [f"{each.step.operator} without limits" for each in step.servers if each.step.operator not in names]
    return "; ".join([own.text, *limited, *free])


def _limited(step: Step, enforced: Sequence[Enforced]) -> Step:
    """The step, and its servers, with these limits."""
    limits = {each.name: each for each in enforced}
    servers = tuple(replace(server, step=_limited(server.step, enforced)) for server in step.servers)
    own = limits.get(step.operator)
    if own is None:
        return replace(step, servers=servers)
    return replace(
        step,
        servers=servers,
        cpu_limit_millicores=own.limits.cpu_millicores or 0,
        memory_limit_bytes=whole_pages(own.limits.memory_bytes) if own.limits.memory_bytes else step.memory_limit_bytes,
        shm_bytes=own.dev_shm_bytes or step.shm_bytes,
    )


def _observed(once: Once) -> Observed:
    servers = tuple(server.result for server in once.servers)
    return Observed(once.result, once.usage, once.last, servers, once.series_file)
