"""Whether an operator runs slower because it is profiled.

One operator does the same piece of work over and over in a run of cpost, and all of cpost's processes are halted and
let go on in turns. So the same process is measured with and without cpost many times, a moment apart.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from benchmarks import clocks, cpost_runs, table
from benchmarks.cpost_runs import Operator
from benchmarks.ranges import median_interval
from benchmarks.setting import Setting
from benchmarks.table import Findings, Line

THEME = "Operator slowed down by being profiled every 10 ms"
_ROUNDS = 30_000_000  # some 10 ms
_BLOCK_S = 0.4
_SETTLE_NS = 30_000_000
_LEAD_S = 1.5
_MOST_PERCENT = 1.0
NOTES = (
    "Slowdown: median of pairs and its 95 % confidence interval by the sign test. Within the aim if the whole interval "
    "is. On one CPU: cpost and the operator are kept on the same one.",
)


@dataclass(frozen=True, slots=True)
class Block:
    """A stretch of time (wall clock, ns) in which cpost worked, or was halted."""

    from_ns: int
    to_ns: int
    profiled: bool


def measure(setting: Setting) -> Findings:
    """The slowdown on CPUs of their own, and on one CPU."""
    pairs = setting.scale.pairs
    lines = [_line("CPUs as the kernel gives them", slowdowns_of(setting, pairs, cpu=None))]
    lines.append(_line("on one CPU with cpost", slowdowns_of(setting, pairs, cpu=0)))
    return Findings(lines, NOTES)


def _line(what: str, slowdowns: Sequence[float]) -> Line:
    median, low, high = median_interval(slowdowns)
    cell = f"{median:+.2f} ({low:+.2f}..{high:+.2f})"
    aim = f"within {_MOST_PERCENT:g} %"
    return Line(THEME, f"{what}, {len(slowdowns)} pairs", "%", {table.CPOST: cell}, aim, high <= _MOST_PERCENT)


def slowdowns_of(setting: Setting, pairs: int, *, cpu: int | None) -> list[float]:
    """By how many percent each pair's profiled block was slower."""
    lasting_s = 2 * pairs * _BLOCK_S + _LEAD_S
    verbs = ("chunks", str(round(lasting_s * 1000)), str(_ROUNDS))
    operator = Operator("worker", verbs if cpu is None else ("on", str(cpu), *verbs))
    with cpost_runs.work_folder() as folder, _kept_on(cpu):
        running = cpost_runs.start(setting.image, [operator], folder)
        running.await_samples("worker")
        blocks = _take_turns(running.process.pid, pairs)
        truth = running.finish().truth("worker")
    return compare(blocks, truth.chunks)


def compare(blocks: Sequence[Block], chunks: Sequence[tuple[int, int]]) -> list[float]:
    """Percent by which the chunks of each profiled block took longer than those of the block after it."""
    found = []
    for profiled, halted in zip(blocks[::2], blocks[1::2], strict=True):
        with_it, without = (_mean_ns(block, chunks) for block in (profiled, halted))
        if with_it is not None and without is not None:
            found.append((with_it / without - 1) * 100)
    return found


def _mean_ns(block: Block, chunks: Sequence[tuple[int, int]]) -> float | None:
    """Mean duration of the chunks that lie in a block as a whole."""
    inside = [took for at, took in chunks if at >= block.from_ns + _SETTLE_NS and at + took <= block.to_ns]
    return sum(inside) / len(inside) if inside else None


def _take_turns(pid: int, pairs: int) -> list[Block]:
    """Let cpost work and halt it in turns."""
    pids, blocks = clocks.tree(pid), []
    try:
        for number in range(2 * pairs):
            profiled = number % 2 == 0
            _signal(pids, signal.SIGCONT if profiled else signal.SIGSTOP)
            begin_ns = time.time_ns()
            time.sleep(_BLOCK_S)
            blocks.append(Block(begin_ns, time.time_ns(), profiled))
    finally:
        _signal(pids, signal.SIGCONT)
    return blocks


def _signal(pids: Sequence[int], signum: int) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signum)


@contextmanager
def _kept_on(cpu: int | None) -> Iterator[None]:
    """Keep this process, and so all that it starts, on one CPU."""
    before = os.sched_getaffinity(0)
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
