"""How small an operator can be made: its memory by bisection, its cores by the curve of its run time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import isqrt

from cpost.errors import Interrupted
from cpost.limited import ENDS_ALL, LimitedRuns, NotRun
from cpost.model import (
    LEAST_MEMORY_BYTES,
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
from cpost.raises import SHORT_SHARE
from cpost.spread import baseline_wall_ns
from cpost.trials import was_killed
from cpost.units import MIB, MILLICORES_PER_CORE, format_mb, round_up

_STEP_BYTES = 16 * MIB
_GRAIN_SHARE = 32  # memory is settled to this part of it, at least to a step
_HEADROOM_PERCENT = 125
_MOST_RAISES = 3
_INTERRUPTED = "the search was interrupted"
_NONE_ENDED = "no run ended well"
_WORTH = 0.05  # more cores have to save this share of the time to be worth a look at still more


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


class _Ended(Exception):
    """The search ended before it was settled; its text says why."""


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
        self._trials: list[Trial] = []
        self._refusals: set[int | None] = set()
        self.stopped = False

    def _run(self, limits: Resources) -> Trial:
        """Run it under limits, and note that; raises `_Ended` where it may not be run, or its end says nothing."""
        if self._count == self._plan.most_runs:
            raise _Ended(f"the budget of {self._plan.most_runs} runs was spent, see --max_runs")
        self._count += 1
        enforced = (Enforced(self._step.operator, limits),)
        earlier = (len(self._record.repeats) or 1) + self._count
        try:
            trial = self._runs.run(self._step, enforced, self._count, earlier, self._baseline_ns)
        except (Interrupted, NotRun) as error:
            self.stopped = True
            raise _Ended(_INTERRUPTED if isinstance(error, Interrupted) else str(error)) from error
        if trial.result.outcome in ENDS_ALL:
            self.stopped = True
            interrupted = trial.result.outcome is Outcome.INTERRUPTED
            raise _Ended(_INTERRUPTED if interrupted else "the engine was lost")
        self._trials.append(trial)
        return trial

    def _tried(self, walk: Callable[[], str]) -> tuple[tuple[Trial, ...], str]:
        """The runs that were made, and why it is not settled; empty where it is."""
        self._trials = []
        try:
            cause = walk()
        except _Ended as ended:
            cause = str(ended)
        return tuple(self._trials), cause

    # ------------------------------------------------------------ memory

    def memory(self) -> MemoryChoice:
        """Between what it could not do without and what it peaked at."""
        trials, cause = self._tried(self._bisect)
        smallest = min((trial.memory_bytes for trial in trials if _passed(trial)), default=None)
        return MemoryChoice(trials, smallest, not cause, cause)

    def _bisect(self) -> str:
        """Narrow it down until the next limit would be the same."""
        low, highs = self._bounds()
        if self._passes(low):
            return ""
        for high in highs:
            if self._passes(high):
                self._narrow(low, high)
                return ""
            low = high
        ceiling = self._step.memory_limit_bytes
        if low == ceiling:
            return f"{format_mb(ceiling)} is all that an operator may use here, see --memory_limit"
        return f"more than {format_mb(low)} was not tried"

    def _narrow(self, low: int, high: int) -> None:
        while (middle := between(low, high)) is not None:
            if self._passes(middle):
                high = middle
            else:
                low = middle

    def _bounds(self) -> tuple[int, list[int]]:
        """What it could not do without, and the limits to try where that is too little, rising: its peak, then more."""
        usage = self._record.usage
        assert usage is not None
        peak = int(usage.memory_bytes.maximum or 0)
        highs = [round_up(peak + MIB, MIB)]
        for _ in range(_MOST_RAISES):
            highs.append(round_up(highs[-1] * _HEADROOM_PERCENT // 100, _STEP_BYTES))
        ceiling = self._step.memory_limit_bytes or highs[-1]
        least = max(LEAST_MEMORY_BYTES, round_up(usage.need_peak_bytes or 0, MIB))  # a need that is unknown is none
        low = min(least, ceiling)
        return low, sorted({each for high in highs if (each := min(high, ceiling)) > low})

    def _passes(self, memory_bytes: int) -> bool:
        """Whether it passes; where it fails and nothing says that memory was short, it may do so by chance.

        What fails twice in the same way has its reasons, and is taken at its word from then on.
        """
        limits = Resources(memory_bytes=memory_bytes)
        first = self._run(limits)
        code = first.result.exit_code
        if not _may_be_chance(first) or code in self._refusals:
            return _passed(first)
        second = self._run(limits)
        if _failed(first) and _failed(second) and second.result.exit_code == code:
            self._refusals.add(code)
        return _passed(second)

    # ------------------------------------------------------------ CPU

    def cpu(self) -> CpuChoice:
        """At 1, 2, 4 ... cores up to all of the host, until more of them are of no use."""
        if self._step.duration_ns is not None:
            trials, cause = self._tried(self._until_not_held_back)
            return unthrottled_cpu(trials, self._runs.cores, self._runs.max_slowdown, cause)
        trials, cause = self._tried(self._until_flat)
        whole = any(trial.cpu_millicores == self._runs.cores * MILLICORES_PER_CORE for trial in trials)
        return chosen_cpu(trials, self._runs.max_slowdown, None if whole else self._baseline_ns, cause)

    def _until_flat(self) -> str:
        for millicores in doublings(self._runs.cores):
            self._run(Resources(cpu_millicores=millicores))
            if not _is_flat(self._trials):
                continue
            if self._is_fast():
                return ""
            # Without limits it was faster, so some number of cores has to make a difference: was it chance?
            self._run(Resources(cpu_millicores=millicores))
        return (
            "" if self._is_fast() else "with all cores, too, it was slower than without limits, maybe the host was busy"
        )

    def _is_fast(self) -> bool:
        """Whether it has been as fast as without limits, as far as that can be told."""
        times = _fastest(self._trials)
        if self._baseline_ns is None or not times:
            return True
        longest_ns = self._baseline_ns + allowance_ns(self._baseline_ns, self._runs.max_slowdown)
        return min(times.values()) <= longest_ns

    def _until_not_held_back(self) -> str:
        for millicores in doublings(self._runs.cores):
            trial = self._run(Resources(cpu_millicores=millicores))
            if _ended(trial) and trial.throttled_share is None:
                return "how often a limit holds it back is not told here"
            if not _is_held_back(trial, self._runs.max_slowdown):
                break
        return ""


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
    # They are more than a step apart, so there is a whole one below where there is none above.
    return middle if middle < high else middle - grain


def chosen_cpu(
    trials: Sequence[Trial], max_slowdown: float, baseline_ns: int | None = None, cause: str = ""
) -> CpuChoice:
    """What the curve says.

    The knee: the fewest cores whose time is within the slowdown (or a tenth of a second) of the best. The cheapest:
    the least of cores times time, the fewest cores where there are several.

    Args:
        baseline_ns: the time without limits, with which it is compared where not all cores of the host were tried.
        cause: why it is not settled.
    """
    times = _fastest(trials)
    if not times:
        return CpuChoice(tuple(trials), cause=cause or _NONE_ENDED)
    best = min(times.values())
    if baseline_ns is not None:
        best = min(best, baseline_ns)
    enough = best + allowance_ns(best, max_slowdown)
    knee = min((cores for cores, wall_ns in times.items() if wall_ns <= enough), default=None)
    cheapest = min(times, key=lambda cores: (cores * times[cores], cores))
    return CpuChoice(tuple(trials), knee, cheapest, settled=not cause, cause=cause)


def unthrottled_cpu(trials: Sequence[Trial], cores: int, most_share: float, cause: str = "") -> CpuChoice:
    """The fewest cores that do not hold back what runs for a set time; all that a host has never do.

    Args:
        cores: how many the host has.
        most_share: of its life, in which it may be held back.
        cause: why it is not settled.
    """
    whole = cores * MILLICORES_PER_CORE
    enough = [
        trial.cpu_millicores
        for trial in trials
        if not _is_held_back(trial, most_share)
        or (trial.cpu_millicores >= whole and _ended(trial) and trial.throttled_share is not None)
    ]
    cause = cause or ("" if enough else _NONE_ENDED)
    return CpuChoice(tuple(trials), min(enough, default=None), by_throttling=True, settled=not cause, cause=cause)


def _fastest(trials: Sequence[Trial]) -> dict[int, int]:
    """The shortest time (ns) by millicores, in the order of the runs; only of runs that ended well."""
    times: dict[int, int] = {}
    for trial in trials:
        if _ended(trial) and (wall_ns := trial.result.wall_ns):
            times[trial.cpu_millicores] = min(wall_ns, times.get(trial.cpu_millicores, wall_ns))
    return times


def _passed(trial: Trial) -> bool:
    return trial.verdict is Verdict.HOLDS


def _ended(trial: Trial) -> bool:
    return trial.result.outcome is Outcome.COMPLETED


def _failed(trial: Trial) -> bool:
    return trial.result.outcome is Outcome.FAILED


def _is_held_back(trial: Trial, most_share: float) -> bool:
    """Whether its CPU limit held it back in more of its life than that, or nobody can tell."""
    return not _ended(trial) or trial.throttled_share is None or trial.throttled_share > most_share


def _may_be_chance(trial: Trial) -> bool:
    """Whether it took too long, or failed, with no sign that its memory was to blame."""
    late = trial.verdict is Verdict.SLOW and trial.slowdown is not None
    return (late or _failed(trial)) and not was_killed(trial.result) and (trial.stalled_share or 0) <= SHORT_SHARE


def _is_flat(trials: Sequence[Trial]) -> bool:
    """Whether the last number of cores saved next to nothing over the fewer ones."""
    times = _fastest(trials)
    last = times.pop(trials[-1].cpu_millicores, None)
    return last is not None and bool(times) and last >= min(times.values()) * (1 - _WORTH)
