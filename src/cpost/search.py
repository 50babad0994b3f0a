"""How small an operator can be made: its memory by bisection, its cores by the curve of its run time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import isqrt

from cpost.limited import LimitedRuns
from cpost.model import (
    CpuChoice,
    Enforced,
    MemoryChoice,
    OperatorRecord,
    Outcome,
    Resources,
    Search,
    Step,
    Trial,
    Verdict,
    allowance_ns,
)
from cpost.spread import baseline_wall_ns
from cpost.units import MIB, MILLICORES_PER_CORE, round_up

_STEP_BYTES = 16 * MIB
_GRAIN_SHARE = 32  # memory is settled to this part of it, at least to a step
_LEAST_BYTES = 8 * MIB  # engines refuse less than 6
_HEADROOM_PERCENT = 125
_MOST_RAISES = 3
_WORTH = 0.05  # twice the cores have to save this share of the time to be worth a look at still more


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """What to look for.

    Attributes:
        operators: whose; empty = all.
        most_runs: under limits, for each operator.
    """

    operators: frozenset[str]
    memory: bool
    cpu: bool
    most_runs: int


class _Spent(Exception):
    """The budget of runs is."""


class _Stopped(Exception):
    """A signal came, or the engine is gone."""


class Searcher:
    """Looks for the smallest limits that an operator passes under: it succeeds, and takes no longer than allowed.

    Args:
        runs: runs under limits.
    """

    def __init__(self, runs: LimitedRuns, plan: SearchPlan) -> None:
        self._runs = runs
        self._plan = plan

    def search(self, step: Step, record: OperatorRecord) -> OperatorRecord:
        """Search, as far as the budget goes; an operator without a whole measurement is left as it is."""
        if record.result.outcome is not Outcome.COMPLETED or record.usage is None:
            return record
        one = _One(self._runs, self._plan, step, record)
        memory = one.memory() if self._plan.memory else None
        cpu = one.cpu() if self._plan.cpu and not one.stopped else None
        return replace(record, search=Search(baseline_wall_ns(record), self._runs.max_slowdown, memory, cpu))


class _One:
    """The search for one operator."""

    def __init__(self, runs: LimitedRuns, plan: SearchPlan, step: Step, record: OperatorRecord) -> None:
        self._runs = runs
        self._plan = plan
        self._step = step
        self._record = record
        self._baseline_ns = baseline_wall_ns(record)
        self._count = 0
        self.stopped = False

    def _run(self, limits: Resources) -> Trial:
        if self._count == self._plan.most_runs:
            raise _Spent
        self._count += 1
        enforced = (Enforced(self._step.operator, limits),)
        earlier = (len(self._record.repeats) or 1) + self._count
        trial = self._runs.run(self._step, enforced, self._count, earlier, self._baseline_ns)
        if trial.result.outcome in (Outcome.INTERRUPTED, Outcome.ENGINE_LOST):
            self.stopped = True
            raise _Stopped
        return trial

    # ------------------------------------------------------------ memory

    def memory(self) -> MemoryChoice:
        """Between what it could not do without and what it peaked at."""
        trials: list[Trial] = []
        try:
            settled = self._bisect(trials)
        except (_Spent, _Stopped):
            settled = False
        smallest = min(map(memory_of, filter(_passed, trials)), default=None)
        return MemoryChoice(tuple(trials), smallest, settled and smallest is not None)

    def _bisect(self, trials: list[Trial]) -> bool:
        """Narrow it down until the next limit would be the same; the trials are kept as they come."""
        low, high = self._bounds()
        trials.append(self._memory_trial(high))
        for _ in range(_MOST_RAISES):
            if _passed(trials[-1]):
                break
            low, high = high, round_up(high * _HEADROOM_PERCENT // 100, _STEP_BYTES)
            trials.append(self._memory_trial(high))
        if not _passed(trials[-1]):
            return False
        if low < high and len(trials) == 1:
            trials.append(self._memory_trial(low))  # what it cannot do without may be enough
            if _passed(trials[-1]):
                return True
        while (middle := between(low, high)) is not None:
            trials.append(self._memory_trial(middle))
            if _passed(trials[-1]):
                high = middle
            else:
                low = middle
        return True

    def _bounds(self) -> tuple[int, int]:
        usage = self._record.usage
        assert usage is not None
        peak = int(usage.memory_bytes.maximum or 0)
        need = usage.need_peak_bytes if usage.need_peak_bytes is not None else peak // 2
        low, high = (max(_LEAST_BYTES, round_up(value, MIB)) for value in (need, peak + MIB))
        return min(low, high), high

    def _memory_trial(self, memory_bytes: int) -> Trial:
        return self._run(Resources(memory_bytes=memory_bytes))

    # ------------------------------------------------------------ CPU

    def cpu(self) -> CpuChoice:
        """At 1, 2, 4 ... cores up to all of the host, until more of them save nothing."""
        trials: list[Trial] = []
        try:
            for millicores in doublings(self._runs.cores):
                trials.append(self._run(Resources(cpu_millicores=millicores)))
                if not _still_gains(trials):
                    break
        except (_Spent, _Stopped):
            pass
        return chosen_cpu(trials, self._runs.max_slowdown)


def doublings(cores: int) -> Iterator[int]:
    """Millicores of 1, 2, 4 ... cores, and of all of them."""
    each = 1
    while each < cores:
        yield each * MILLICORES_PER_CORE
        each *= 2
    yield cores * MILLICORES_PER_CORE


def between(low: int, high: int) -> int | None:
    """The limit to try next between one that fails and one that passes; None where they are near enough.

    In whole steps of 16 MiB, or MiB where there is little of it; by equal ratios, as it is settled to a share: a peak
    far above the need costs few more runs.
    """
    grain = _STEP_BYTES if high > 4 * _STEP_BYTES else MIB
    if high - low <= max(grain, high // _GRAIN_SHARE):
        return None
    middle = round_up(isqrt(low * high), grain)
    return middle if low < middle < high else None


def chosen_cpu(trials: Sequence[Trial], max_slowdown: float) -> CpuChoice:
    """What the curve says.

    The knee: the fewest cores whose time is within the slowdown (or a tenth of a second) of the best. The cheapest:
    the least of cores times time, the fewest cores where there are several.
    """
    known = [(cores_of(trial), trial.result.wall_ns) for trial in trials if _ended(trial)]
    times = [(cores, wall_ns) for cores, wall_ns in known if wall_ns]
    if not times:
        return CpuChoice(tuple(trials))
    best = min(wall_ns for _, wall_ns in times)
    enough = best + allowance_ns(best, max_slowdown)
    knee = min(cores for cores, wall_ns in times if wall_ns <= enough)
    cheapest = min(times, key=lambda each: (each[0] * each[1], each[0]))[0]
    return CpuChoice(tuple(trials), knee, cheapest)


def memory_of(trial: Trial) -> int:
    """The memory limit of a trial."""
    return trial.enforced[0].limits.memory_bytes or 0


def cores_of(trial: Trial) -> int:
    """The CPU limit of a trial, in millicores."""
    return trial.enforced[0].limits.cpu_millicores or 0


def _passed(trial: Trial) -> bool:
    return trial.verdict is Verdict.HOLDS


def _ended(trial: Trial) -> bool:
    return trial.result.outcome is Outcome.COMPLETED and bool(trial.result.wall_ns)


def _still_gains(trials: Sequence[Trial]) -> bool:
    if len(trials) < 2 or not (_ended(trials[-1]) and _ended(trials[-2])):
        return True
    before, now = trials[-2].result.wall_ns or 0, trials[-1].result.wall_ns or 0
    return now < before * (1 - _WORTH)
