"""CPU totals against what the operator's own getrusage says, by lifetime."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

from benchmarks import cpost_runs, rivals, table
from benchmarks.cpost_runs import Operator
from benchmarks.ranges import Range, range_of
from benchmarks.rivals import Seen
from benchmarks.setting import Setting
from benchmarks.table import Findings, Line

THEME = "CPU total: error against the operator's own account"
_TOLERANCE_MS, _TOLERANCE_SHARE = 2.0, 0.005
NOTES = (
    "CPU total: an operator's own account begins when the container's init forks it; what cpost has on top of that is "
    "the forking, the leaving, and what of the runtime's last work it could not tell apart.",
    "CPU total: docker stats is the last figure of the engine's stream, which comes once a second: it misses the end, "
    "and has the container's start-up in it. psrecord adds up percentages over intervals; the first is always 0 and "
    "the last is cut off. runexec reads the same kernel counter as cpost, "
    "of a process on the host, which enters the group a moment after its own account begins.",
)


def measure(setting: Setting) -> Findings:
    """One line per lifetime."""
    errors = _cpost_errors(setting)
    lines = []
    for lifetime_ms, repeats in setting.scale.lifetimes_ms:
        verbs = ("burn", str(lifetime_ms))
        ours = range_of(errors[lifetime_ms])
        cells = {
            table.CPOST: ours,
            table.DOCKER: _errors(lambda: rivals.docker_stats(setting.image, verbs), repeats),  # noqa: B023
            table.PSRECORD: _errors(lambda: rivals.psrecord(verbs), repeats),  # noqa: B023
            table.RUNEXEC: _errors(lambda: rivals.runexec(verbs), repeats),  # noqa: B023
        }
        tolerance_ms = max(_TOLERANCE_MS, _TOLERANCE_SHARE * lifetime_ms)
        aim = f"within {tolerance_ms:g} ms"
        lines.append(Line(THEME, _name(lifetime_ms), "ms", cells, aim, abs(ours.median) <= tolerance_ms, signed=True))
    return Findings(lines, NOTES)


def _cpost_errors(setting: Setting) -> dict[int, list[float]]:
    """cpost's errors (ms) by lifetime, all operators in one run."""
    names = {
        f"burn-{lifetime_ms}-{number}": lifetime_ms
        for lifetime_ms, repeats in setting.scale.lifetimes_ms
        for number in range(repeats)
    }
    errors: dict[int, list[float]] = {lifetime_ms: [] for lifetime_ms in names.values()}
    with cpost_runs.work_folder() as folder:
        operators = [Operator(name, ("burn", str(lifetime_ms))) for name, lifetime_ms in names.items()]
        finished = cpost_runs.run(setting.image, operators, folder)
        for name, lifetime_ms in names.items():
            cpu_ns = finished.totals(name)["cpu_us"] * 1000
            errors[lifetime_ms].append((cpu_ns - finished.truth(name).cpu_ns) / 1e6)
    return errors


def _errors(look: Callable[[], Seen], repeats: int) -> Range | str:
    """A rival's errors (ms); words where it saw nothing or could not do it here."""
    errors = []
    for _ in range(repeats):
        try:
            seen = look()
        except (subprocess.CalledProcessError, OSError):
            return "fails"
        if seen.cpu_ns is not None:
            errors.append((seen.cpu_ns - seen.truth.cpu_ns) / 1e6)
    return range_of(errors) if errors else "sees nothing"


def _name(lifetime_ms: int) -> str:
    return f"{lifetime_ms} ms" if lifetime_ms < 1000 else f"{lifetime_ms // 1000} s"
