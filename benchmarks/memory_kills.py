"""A storm of memory kills and of other kills, several at a time: each must be called what it was."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks import cpost_runs, rivals, table
from benchmarks.cpost_runs import Operator
from benchmarks.setting import Setting
from benchmarks.table import Findings, Line

THEME = "Kills told apart, 8 operators at a time"
_AT_A_TIME = 8
_LIMIT_BYTES = 64 * 10**6
_HOG = ("/in/truth", "hog", "200")
_CHILD_HOG = ("/in/truth", "child", "hog", "200")  # the operator itself ends well
_QUICK_HOG = ("dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1")
_MEMORY_KILLS = (_HOG, _CHILD_HOG, _QUICK_HOG)
_PLAIN_KILL = ("sh", "-c", "kill -9 $$")
NOTES = (
    "Kills: a third of the memory kills each hits the operator, a child of an operator that ends well, and an operator "
    "in its first milliseconds. docker: the engine's own flag (State.OOMKilled) after the end.",
)


def commands(storm: int) -> list[tuple[str, Sequence[str]]]:
    """Named commands: `storm` memory kills of all kinds, and as many plain ones, in turns."""
    named: list[tuple[str, Sequence[str]]] = []
    for number in range(storm):
        named.append((f"memory-{number}", _MEMORY_KILLS[number % len(_MEMORY_KILLS)]))
        named.append((f"plain-{number}", _PLAIN_KILL))
    return named


def measure(setting: Setting) -> Findings:
    """Memory kills that were seen, and plain ones that were called memory kills."""
    named, storm = commands(setting.scale.storm), setting.scale.storm
    shares = [named[start::_AT_A_TIME] for start in range(min(_AT_A_TIME, len(named)))]
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        ours = dict(ChainMap(*pool.map(lambda share: _with_cpost(setting, share), shares)))
        flags = {name: pool.submit(_engine_flag, setting, command) for name, command in named}
    theirs = {name: flag.result() for name, flag in flags.items()}
    found = {tool: _counts(verdicts) for tool, verdicts in ((table.CPOST, ours), (table.DOCKER, theirs))}
    seen = {tool: f"{memory} of {storm}" for tool, (memory, _) in found.items()}
    called = {tool: f"{plain} of {storm}" for tool, (_, plain) in found.items()}
    memory, plain = found[table.CPOST]
    lines = [
        Line(THEME, "memory kills seen", "", seen, "all", memory == storm),
        Line(THEME, "kill -9 called a memory kill", "", called, "none", plain == 0),
    ]
    return Findings(lines, NOTES)


def _counts(verdicts: dict[str, bool]) -> tuple[int, int]:
    """How many of the memory kills and of the plain ones were called memory kills."""
    memory, plain = ([said for name, said in verdicts.items() if name.startswith(kind)] for kind in ("memory", "plain"))
    return sum(memory), sum(plain)


def _with_cpost(setting: Setting, named: Sequence[tuple[str, Sequence[str]]]) -> dict[str, bool]:
    """Whether cpost speaks of a memory kill, by operator."""
    with cpost_runs.work_folder() as folder:
        operators = [Operator(name, command=command) for name, command in named]
        options = ("--memory_limit", str(_LIMIT_BYTES), "--force", "cont")
        finished = cpost_runs.run(setting.image, operators, folder, *options)
    return {
        name: each["result"]["outcome"] == "oom_killed" or bool((each["result"]["totals"] or {}).get("oom_kills"))
        for name, each in finished.operators.items()
    }


def _engine_flag(setting: Setting, command: Sequence[str]) -> bool:
    """Whether the engine's own flag is set after such an end."""
    limits: dict[str, Any] = {"mem_limit": _LIMIT_BYTES, "memswap_limit": _LIMIT_BYTES}
    with rivals.container(setting.image, command, **limits) as running:
        running.wait()
        running.reload()
        return bool(running.attrs["State"]["OOMKilled"])
