"""Runs operators under limits: to prove a recommendation, and for whoever looks for the smallest that will do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol

from cpost.measurer import Measurer, Once, Subject
from cpost.model import (
    LEAST_MEMORY_BYTES,
    Advice,
    Enforced,
    Mount,
    OperatorRecord,
    Outcome,
    Recommendation,
    Resources,
    ServerRecord,
    Step,
    StepResult,
    Trial,
    Verdict,
    Verification,
)
from cpost.outputs import OutputFolders
from cpost.spread import baseline_wall_ns
from cpost.store import RunFolder
from cpost.trials import MOST_TRIALS, Observed, judge, longest_ns, raised, requests_of
from cpost.units import MILLICORES_PER_CORE, format_seconds, whole_pages

_PROOFS = (
    "verified:",
    "not verified:",
    "raised:",
    "tried again:",
)  # how the reasons begin that an earlier verification left
ENDS_ALL = (Outcome.INTERRUPTED, Outcome.ENGINE_LOST)


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
    ) -> None:
        self._measurer = measurer
        self._subject = subject
        self._folder = folder
        self._scratch = scratch
        self._audience = audience
        self._word = word
        self.max_slowdown = max_slowdown
        self.cores = cores
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
        """
        self._audience.trial_begins(step.operator, _told(step, enforced))
        limited = replace(_limited(step, enforced), timeout_ns=self._longest_ns(step, enforced[0], baseline_ns))
        if self._scratch is not None:
            limited = _moved(limited, self._scratch.root)
        self._subject.renew(limited, self._scratch)
        once = self._measurer.once(limited, earlier, (), partial(self._folder.open_trial, self._word, number))
        trial = judge(_observed(once), enforced, baseline_ns, self.max_slowdown)
        self.last = trial.result
        self.count += 1
        self._audience.trial_ends(trial)
        return trial

    def _longest_ns(self, step: Step, own: Enforced, baseline_ns: int | None) -> int | None:
        if step.duration_ns is not None:
            return step.timeout_ns
        return longest_ns(own, baseline_ns, self.max_slowdown, self.cores, step.timeout_ns)


class Verifier:
    """Proves recommendations by running operators with them as limits, raising those that do not hold.

    Args:
        runs: runs under limits.
    """

    def __init__(self, runs: LimitedRuns) -> None:
        self._runs = runs

    def verify(self, step: Step, record: OperatorRecord, baseline_ns: int | None = None) -> OperatorRecord:
        """Run a step with its recommendation enforced, again with higher limits where that does not hold.

        Args:
            record: of the step's run without limits; without a recommendation there is nothing to prove.
            baseline_ns: its time without limits; None = the record's.

        Returns:
            The record with the verification and the recommendation that came of it; as it was where a run under limits
            ended by a signal or with the engine.
        """
        if record.recommendation.status is not Advice.OK:
            return record
        baseline_ns = baseline_ns or baseline_wall_ns(record)
        enforced, why = _possible(_recommended(step, record), step, self._runs.cores), list[str]()
        trials: list[Trial] = []
        earlier = len(record.repeats) or 1
        again = False
        while True:
            trials.append(self._runs.run(step, enforced, len(trials) + 1, earlier + len(trials), baseline_ns))
            last = trials[-1]
            if last.result.outcome in ENDS_ALL:
                return record
            if last.verdict is Verdict.HOLDS or len(trials) == MOST_TRIALS:
                break
            higher = raised(last, self._runs.cores)
            possible = _possible(higher[0], step, self._runs.cores) if higher is not None else enforced
            if higher is not None and possible != enforced:
                enforced = possible
                why.append(f"raised: {higher[1]}")
            elif last.verdict is Verdict.SLOW and higher is None and not again:
                again = True  # no limit held it back: maybe the host did
                why.append("tried again: no limit held it back, the host may have been busy")
            else:
                break
        found = Verification(trials[-1].verdict, baseline_ns, self._runs.max_slowdown, tuple(trials))
        unlimited = [server.name for server in step.servers if server.shared]
        return _proven(record, found, why, unlimited)


def _recommended(step: Step, record: OperatorRecord) -> tuple[Enforced, ...]:
    """What is recommended for an operator and for its own servers; nothing for one without a recommendation."""
    servers = {server.name: server.recommendation for server in record.servers}
    own = [server for server in step.servers if not server.shared]
    return (
        _enforced(step.operator, record.recommendation),
        *(_enforced(server.step.operator, servers[server.name]) for server in own if server.name in servers),
    )


def _enforced(name: str, advice: Recommendation) -> Enforced:
    if advice.status is not Advice.OK:
        return Enforced(name, Resources())
    requests = advice.requests
    return Enforced(name, Resources(requests.cpu_millicores, requests.memory_bytes), advice.dev_shm_bytes)


def _possible(enforced: Sequence[Enforced], step: Step, cores: int) -> tuple[Enforced, ...]:
    """What engine and host can enforce: no less memory than a container starts with, no more than there is."""

    def clamped(each: Enforced) -> Enforced:
        cpu, memory = each.limits.cpu_millicores, each.limits.memory_bytes
        if cpu is not None:
            cpu = min(cpu, cores * MILLICORES_PER_CORE)
        if memory is not None:
            memory = max(LEAST_MEMORY_BYTES, min(memory, step.memory_limit_bytes or memory))
        return replace(each, limits=Resources(cpu, memory))

    return tuple(map(clamped, enforced))


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


def _moved(step: Step, root: Path) -> Step:
    """The step with all that it writes below another folder."""
    before = Path(step.output_folders[0]).parent
    outputs = {source: str(root / Path(source).relative_to(before)) for source in step.output_folders}
    shared = {
        source: str(root / f"{step.operator}__shared" / str(number))
        for number, source in enumerate(step.shared_folders)
    }
    places = {**outputs, **shared}

    def mounts(all_mounts: tuple[Mount, ...]) -> tuple[Mount, ...]:
        return tuple(replace(mount, source=places.get(mount.source, mount.source)) for mount in all_mounts)

    servers = (replace(each, step=replace(each.step, mounts=mounts(each.step.mounts))) for each in step.servers)
    return replace(
        step,
        mounts=mounts(step.mounts),
        output_folders=tuple(outputs.values()),
        copies=tuple(replace(copy, folder=places.get(copy.folder, copy.folder)) for copy in step.copies),
        shared_folders=tuple(places[source] for source in step.shared_folders),
        servers=tuple(servers),
    )


def _observed(once: Once) -> Observed:
    servers = tuple(server.result for server in once.servers)
    return Observed(once.result, once.usage, once.last, servers, once.series_file)


def _proven(
    record: OperatorRecord, found: Verification, why: Sequence[str], unlimited: Sequence[str]
) -> OperatorRecord:
    """The record with what was tried last as its recommendation, marked with what became of it.

    Args:
        why: what else was done on the way.
        unlimited: servers that were beside it without limits.
    """
    last = found.trials[-1]
    said = {
        Verdict.HOLDS: f"verified: held in a run under these limits{_time(last)}",
        Verdict.SLOW: f"not verified: under these limits it {last.cause}",
        Verdict.BROKEN: f"not verified: under these limits it failed ({last.cause})",
    }[found.verdict]
    if unlimited:
        said += f"; {', '.join(unlimited)}, which other operators share, had no limits"
    reasons = [said, *why]
    limits = {each.name: each for each in last.enforced}

    def server(each: ServerRecord) -> ServerRecord:
        enforced = limits.get(f"{record.operator}__{each.name}")
        return replace(each, recommendation=_marked(each.recommendation, enforced, found, reasons))

    servers = tuple(map(server, record.servers))
    advice = _marked(record.recommendation, last.enforced[0], found, reasons)
    return replace(record, recommendation=advice, verification=found, servers=servers)


def _marked(
    advice: Recommendation, enforced: Enforced | None, found: Verification, reasons: Sequence[str]
) -> Recommendation:
    if enforced is None or advice.status is not Advice.OK:
        return advice
    # A limit that the policy sets is the request it was made of, or lies open.
    limits = replace(
        advice.limits,
        cpu_millicores=enforced.limits.cpu_millicores if advice.limits.cpu_millicores is not None else None,
        memory_bytes=enforced.limits.memory_bytes if advice.limits.memory_bytes is not None else None,
    )
    return replace(
        advice,
        requests=requests_of(enforced, advice.requests),
        limits=limits,
        dev_shm_bytes=enforced.dev_shm_bytes,
        reasons=(*(reason for reason in advice.reasons if not reason.startswith(_PROOFS)), *reasons),
        verified=found.verdict,
    )


def _time(trial: Trial) -> str:
    if trial.slowdown is None or trial.result.wall_ns is None:
        return ""
    return f" ({format_seconds(trial.result.wall_ns)}, {trial.slowdown * 100:+.1f} %)"
