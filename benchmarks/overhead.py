"""What cpost adds to the running of an operator: a no-op under cpost against the same by the docker command."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import docker

from benchmarks import cpost_runs, table
from benchmarks.cpost_runs import Operator
from benchmarks.ranges import range_of, ratios
from benchmarks.setting import Setting
from benchmarks.table import Findings, Line

THEME = "A no-op operator from end to end"
_MOST = 1.15
_NO_OP = ("true",)
NOTES = (
    "No-op: the docker command does the same: it creates a network, runs the container with an init on it, and removes "
    "both. Phases lie between the engine's own events: `made ready` "
    "begins with the process and ends with the network's creation (of docker: the first of three processes); "
    "`container made` ends with its creation, and so on.",
)
PHASES = ("made ready", "container made", "started and ended", "container removed", "network removed", "exited")


@dataclass(frozen=True, slots=True)
class Timed:
    """One run: its time from end to end and its phases, ms."""

    whole: float
    phases: dict[str, float]


def measure(setting: Setting) -> Findings:
    """Both ways in turns."""
    _with_cpost(setting)  # what is read from the disk for the first time is nobody's fault
    runs: dict[str, list[Timed]] = {table.CPOST: [], table.DOCKER: []}
    for number in range(2 * setting.scale.repeats):
        runs[table.CPOST].append(_with_cpost(setting))
        runs[table.DOCKER].append(_with_docker(setting, number))
    whole = {tool: [each.whole for each in timed] for tool, timed in runs.items()}
    ratio = ratios(whole[table.CPOST], whole[table.DOCKER])
    aim, met = f"<= {_MOST:g}", ratio.median <= _MOST
    lines = [
        Line(THEME, "whole", "ms", {tool: range_of(values) for tool, values in whole.items()}, digits=0),
        Line(THEME, "against the docker command", "ratio", {table.CPOST: ratio}, aim, met),
    ]
    for phase in PHASES:
        cells = {tool: range_of(each.phases[phase] for each in timed) for tool, timed in runs.items()}
        lines.append(Line(THEME, f"  {phase}", "ms", cells, digits=0))
    return Findings(lines, NOTES)


def _with_cpost(setting: Setting) -> Timed:
    with cpost_runs.work_folder() as folder:
        words = cpost_runs.command(setting.image, [Operator("noop", command=_NO_OP)], folder)
        return _timed(lambda: subprocess.run(words, check=True, capture_output=True), "cpost_")


def _with_docker(setting: Setting, number: int) -> Timed:
    name = f"benchmark_{os.getpid()}_{number}"
    container = ["docker", "run", "--rm", "--init", "--name", name, "--network", name, setting.image, *_NO_OP]
    commands = (["docker", "network", "create", name], container, ["docker", "network", "rm", name])

    def run_all() -> None:
        for words in commands:
            subprocess.run(words, check=True, capture_output=True)

    return _timed(run_all, name)


def _timed(run: Callable[[], Any], prefix: str) -> Timed:
    """Run, and read the engine's events of what is named so."""
    begin_ns = time.time_ns()
    run()
    end_ns = time.time_ns()
    return Timed((end_ns - begin_ns) / 1e6, phases_of(_events(begin_ns, prefix), begin_ns, end_ns))


def _events(since_ns: int, prefix: str) -> list[dict[str, Any]]:
    client = docker.from_env()
    until = int(time.time()) + 1  # the engine waits until then
    stream = client.events(since=since_ns // 10**9, until=until, decode=True)
    found = [each for each in stream if each["timeNano"] >= since_ns]
    client.close()
    return [each for each in found if each["Actor"]["Attributes"].get("name", "").startswith(prefix)]


def phases_of(events: Sequence[dict[str, Any]], begin_ns: int, end_ns: int) -> dict[str, float]:
    """How long each phase took (ms), from the first event of each kind."""
    at: dict[tuple[str, str], int] = {}
    for event in events:
        at.setdefault((event["Type"], event["Action"]), event["timeNano"])
    marks = [
        begin_ns,
        at["network", "create"],
        *(at["container", action] for action in ("create", "die", "destroy")),
        at["network", "destroy"],
        end_ns,
    ]
    return {name: (to_ns - from_ns) / 1e6 for name, from_ns, to_ns in zip(PHASES, marks[:-1], marks[1:], strict=True)}
