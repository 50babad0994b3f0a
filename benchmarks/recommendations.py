"""Whose recommendation holds when it is applied? See `formulas` for each formula and what it is taken to have seen.

A corpus of operators of known appetite is measured, each once; each formula is replayed on that run; each distinct
recommendation is applied in a real second run, both figures as limits: CPU as the scheduler's quota, memory without
swap.

- *held*: it succeeded, no process was killed for memory, and it took at most 10 % (or 0.1 s) longer than without
  limits. One that was slower without being held back by a limit (its quota ran out in under 5 % of the scheduler's
  periods, its memory stayed below 95 % of the limit) says something of the host only, and held; any other slow one is
  repeated once, unless it took twice the time. KRR and VPA name CPU requests without a limit, and so do cpost's `p95`
  and `p99`: on a host with CPU to spare none of these would be slow. As a quota a request is what is left on a full
  host. So slow runs are counted apart from kills.
- *need*: what the operator itself takes by construction (anonymous memory, buffers, files in /dev/shm). The few MB
  that the kernel and the container's init take are not in it.
- *cores that suffice*: from the exact CPU total and time of the run without limits (`formulas.cores_that_suffice`).
- /dev/shm is 1 GiB for all, although cpost recommends its size too: the others say nothing about it.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import applied, cpost_runs, formulas, table
from benchmarks.applied import Applied, Fate
from benchmarks.cpost_runs import Operator
from benchmarks.formulas import FORMULAS, Limits
from benchmarks.setting import Setting
from benchmarks.table import Findings, Grid, Line
from cpost.model import Options, allowance_ns
from cpost.units import MB, MIB, MILLICORES_PER_CORE, NS_PER_S, NS_PER_US

THEME = "Recommendations that hold when they are applied"
_FILE_MIB = 768
_SLACK = Options().max_slowdown
_SIGNS = {Fate.HELD: "held", Fate.KILLED: "**killed**", Fate.SLOW: "**slow**", Fate.FAILED: "**failed**"}
_APPETITE = "/bin/appetite"
NOTES = (
    "Recommendations: applied as limits, CPU requests too (as a quota). Held: at most 10 % (or 0.1 s) longer, nothing "
    "killed. What each formula is taken to have seen: benchmarks/formulas.py.",
)


@dataclass(frozen=True, slots=True)
class Known:
    """An operator of known appetite.

    Attributes:
        what: it does, in words.
        need_bytes: of its own memory, at its highest.
        threads: that work at a time, whenever it works.
    """

    operator: Operator
    what: str
    need_bytes: int
    threads: int = 1


def _appetite(name: str, what: str, verbs: str, need_mb: int, threads: int = 1) -> Known:
    return Known(Operator(name, command=[_APPETITE, *verbs.split()]), what, need_mb * MB, threads)


def _shell(name: str, what: str, script: str, need_bytes: int) -> Known:
    return Known(Operator(name, command=["sh", "-c", script]), what, need_bytes)


CORPUS = (
    _appetite("blink", "works for 80 ms", "touch 30 burn 80 1", 30),
    _appetite("burst", "0.5 s on two threads, then waits 2 s", "touch 40 burn 1000 2 sleep 2000", 40, 2),
    _appetite("steady", "one thread for 2 s", "touch 40 burn 2000 1", 40),
    _appetite("pair", "two threads for 2 s", "touch 40 burn 4000 2", 40, 2),
    _appetite("peak", "500 MB for 50 ms, in the middle", "sleep 1100 touch 500 sleep 50 free sleep 1100", 500),
    _appetite("growing", "20 MB more every 0.15 s", "touch 20 sleep 150 " * 15, 300),
    _appetite("last", "200 MB more in its last 0.2 s", "touch 50 sleep 2200 touch 200 sleep 100", 250),
    _shell(
        "reader",
        f"reads {_FILE_MIB} MiB through a buffer of 32 MiB",
        "sleep 1; dd if=/in/file of=/dev/null bs=32M; sleep 1",
        32 * MIB,
    ),
    _shell(
        "shared",
        "200 MiB in /dev/shm",
        "sleep 0.3; dd if=/dev/zero of=/dev/shm/file bs=1M count=200; sleep 1.7",
        200 * MIB,
    ),
    _shell(
        "swarm",
        "40 processes, one after the other",
        f"n=0; while [ $n -lt 40 ]; do {_APPETITE} touch 25 burn 40 1; n=$((n+1)); done",
        25 * MB,
    ),
    _appetite("waiting", "20 ms of work every 0.5 s", "touch 60 " + "burn 20 1 sleep 480 " * 5, 60),
)


def measure(setting: Setting) -> Findings:
    """Apply all formulas to the corpus."""
    corpus = CORPUS[: setting.scale.advised]
    with cpost_runs.work_folder() as folder:
        payload = folder / "payload"
        _make_payload(payload)
        operators = [known.operator for known in corpus]
        found = applied.apply(setting.image, operators, payload, folder, FORMULAS)
    by_name = {each.record.operator: each for each in found}
    pairs = [(known, by_name[known.operator.name]) for known in corpus]
    lines = [_line(name, pairs) for name in FORMULAS if "cpost" in name]
    return Findings(lines, [*NOTES, *_remarks(found)], [grid(pairs), detail(pairs)])


def _make_payload(folder: Path) -> None:
    """A file without blocks on the disk: once read, its pages are in the cache all the same."""
    folder.mkdir()
    with (folder / "file").open("wb") as file:
        file.truncate(_FILE_MIB * MIB)


def _remarks(found: Sequence[Applied]) -> list[str]:
    """What cpost itself says of the host during the runs without limits, with which all is compared."""
    warnings = [(each.record.operator, warning) for each in found for warning in each.record.result.warnings]
    return [f"{operator}: {warning}" for operator, warning in warnings if warning.startswith("the host")]


Pairs = Sequence[tuple[Known, Applied]]


def _line(name: str, pairs: Pairs) -> Line:
    fates = [each.tried[limits].fate for _, each in pairs if (limits := each.advised[name]) is not None]
    held, killed = fates.count(Fate.HELD), fates.count(Fate.KILLED)
    said = f"{held} of {len(pairs)}, {killed} killed"
    return Line(THEME, name, "", {table.CPOST: said}, "none killed", killed == 0)


def grid(pairs: Pairs) -> Grid:
    """One row per formula: for how many operators it has a recommendation, what became of them, how much it is."""
    header = ("formula", "recommends", *(fate.value for fate in Fate), "memory / need", "cores / cores that suffice")
    rows = []
    for name in FORMULAS:
        advised = [(known, each, limits) for known, each in pairs if (limits := each.advised[name]) is not None]
        fates = [each.tried[limits].fate for _, each, limits in advised]
        counts = (str(fates.count(fate)) for fate in Fate)
        memory = _mean([limits.memory_bytes / known.need_bytes for known, _, limits in advised])
        cores = _mean([limits.cpu_millicores / MILLICORES_PER_CORE / enough(*each) for *each, limits in advised])
        rows.append((name, f"{len(advised)} of {len(pairs)}", *counts, memory, cores))
    return Grid("Each formula over the corpus (means are geometric, over what it recommends)", header, rows)


def detail(pairs: Pairs) -> Grid:
    """One row per operator: what is known, what each formula recommends, what became of it."""
    header = ("operator", "what it does", "time, s", "need, MB", "cores that suffice", *FORMULAS)
    rows = [
        (
            known.operator.name,
            known.what,
            f"{(each.record.result.wall_ns or 0) / NS_PER_S:.2f}",
            f"{known.need_bytes / MB:.0f}",
            f"{enough(known, each):.2f}",
            *(_cell(each, each.advised[name]) for name in FORMULAS),
        )
        for known, each in pairs
    ]
    return Grid("Each operator (cores, MB, what became of it)", header, rows)


def enough(known: Known, each: Applied) -> float:
    """The fewest cores under which an operator would hold."""
    result = each.record.result
    assert result.totals is not None
    assert result.wall_ns is not None
    slack_ns = allowance_ns(result.wall_ns, _SLACK)
    return formulas.cores_that_suffice(result.totals.cpu_us * NS_PER_US, result.wall_ns, known.threads, slack_ns)


def _cell(each: Applied, limits: Limits | None) -> str:
    if limits is None:
        return "-"
    cores, memory = limits.cpu_millicores / MILLICORES_PER_CORE, math.ceil(limits.memory_bytes / MB)
    tried = each.tried[limits]
    percent = f" {tried.slowdown * 100:+.0f} %" if tried.fate is Fate.SLOW and tried.slowdown is not None else ""
    return f"{cores:g}, {memory}, {_SIGNS[tried.fate]}{percent}"


def _mean(ratios: Sequence[float]) -> str:
    return f"{statistics.geometric_mean(ratios):.2f}" if ratios else "-"
