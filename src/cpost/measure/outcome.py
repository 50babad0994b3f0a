"""How a step ended, from all that is known; what is the same for a container and for a bare command."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Protocol

from cpost.model import KERNEL, Outcome, Sample, Sampling, Server, Step, StepResult, Totals, TritonFacts
from cpost.units import NS_PER_S, format_mb, format_seconds

if TYPE_CHECKING:  # a bare command needs no engine, and does not load its library
    from cpost.measure.engine import ContainerState

STOP_GRACE_NS = 5 * NS_PER_S
NOT_STARTED_CODES = {126: "the command is not executable", 127: "the command was not found"}
_SIGKILL_CODE = 137
_LAST_SIGNAL = 64
_LONG_GAP_NS, _LONG_GAP_PERIODS = NS_PER_S, 20
_CLOCK_STEP_NS = NS_PER_S // 2  # time servers move a clock by less


class SampleObserver(Protocol):
    """Who looks on while a container runs; called in the main thread."""

    def started(self, container: str) -> None:
        """The container runs."""

    def samples(self, first_at_ns: int, samples: list[Sample]) -> None:
        """Samples came; `first_at_ns` is the wall-clock time (Unix, ns) of t_ns = 0."""


class ServerObserver(SampleObserver, Protocol):
    """Who looks on while a server runs; times are on the scale of its samples' t_ns."""

    def ready(self, t_ns: int) -> None:
        """It can be asked now."""

    def load_began(self, t_ns: int) -> None:
        """An operator that uses it has begun."""

    def load_ended(self, t_ns: int) -> None:
        """That operator has ended."""

    def ended(self, result: StepResult, triton: TritonFacts | None) -> None:
        """It is not measured any more; no sample comes after this."""


class StepObserver(SampleObserver, Protocol):
    """Who looks on while a step runs; called in the main thread."""

    def progress(self, elapsed_ns: int) -> None:
        """Some 100 ms have passed."""

    def server(self, server: Server) -> ServerObserver:
        """One of its servers is about to be started; what is returned looks on at that."""


def verdict(
    step: Step, exit_code: int, state: ContainerState | None, totals: Totals | None, *, stopped_as: Outcome | None
) -> tuple[Outcome, str]:
    """How a step ended, from all that is known: user stop, time-out, memory kill, signal, code, in this order.

    The engine's own memory-kill flag misses some kills; either it or the kernel's count is enough. Only without a
    count to the end a kill at the limit stands for one: cache alone may fill memory up to there.
    """
    if stopped_as is Outcome.TIMED_OUT:
        return stopped_as, f"stopped after the time-out of {format_seconds(step.timeout_ns or 0)}"
    if stopped_as is Outcome.FAILED:
        return stopped_as, "stopped, as its server was gone"
    if stopped_as is Outcome.COMPLETED:
        exit_code = 0  # whatever a service makes of being stopped
    elif stopped_as is not None:
        return stopped_as, "stopped on request"
    kills = (totals.oom_kills if totals else None) or 0
    counted = totals is not None and totals.oom_kills is not None and totals.source == KERNEL
    peak = (totals.memory_peak_bytes if totals else None) or 0
    flagged = state is not None and state.oom_killed
    at_limit = not counted and exit_code == _SIGKILL_CODE and 0 < step.memory_limit_bytes <= peak
    if exit_code != 0 and (kills or flagged or at_limit):
        at = f" at the limit of {format_mb(step.memory_limit_bytes)}" if step.memory_limit_bytes else ""
        return Outcome.OOM_KILLED, f"killed for memory{at}"
    if 128 < exit_code <= 128 + _LAST_SIGNAL:
        return Outcome.FAILED, f"ended by signal {exit_code - 128} (exit code {exit_code})"
    if exit_code != 0:
        reason = NOT_STARTED_CODES.get(exit_code)
        return Outcome.FAILED, reason or f"exit code {exit_code}"
    if kills or flagged:
        return Outcome.COMPLETED, "a process was killed for memory, although the operator ended well"
    return Outcome.COMPLETED, ""


def sampling_warnings(sampling: Sampling) -> list[str]:
    """What bent the series of a step, or would surprise its reader."""
    found = []
    if sampling.longest_gap_ns > max(_LONG_GAP_NS, _LONG_GAP_PERIODS * sampling.period_ns):
        found.append(
            f"the sampler was held up for {format_seconds(sampling.longest_gap_ns)}: the series has a gap there "
            f"({sampling.ticks_missed} of {sampling.ticks_due} ticks missed in all)"
        )
    if sampling.counter_resets:
        found.append(
            "the CPU counter went backwards (somebody has set it back): what was used around then may be missing"
        )
    if abs(sampling.clock_step_ns) > _CLOCK_STEP_NS:
        found.append(
            f"the wall clock was set by {sampling.clock_step_ns / NS_PER_S:+.1f} s meanwhile: "
            "timestamps go on by the clock of the start, durations are right"
        )
    if sampling.suspended_ns > _CLOCK_STEP_NS:
        found.append(f"the machine slept for {format_seconds(sampling.suspended_ns)} meanwhile, which is not counted")
    return found


def iso_time(at_ns: int) -> str:
    """A wall-clock time (Unix, ns) as the record writes it: UTC, ISO 8601, milliseconds."""
    return datetime.fromtimestamp(at_ns / NS_PER_S, timezone.utc).isoformat(timespec="milliseconds")
