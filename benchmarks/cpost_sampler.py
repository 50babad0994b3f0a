"""The one place that holds cpost's sampler from inside: its meter, and its sampler on a process of the benchmark's own.

As a program it runs the sampler for a while in a process of its own, and prints when each sample was taken:

    python -m benchmarks.cpost_sampler GROUP PERIOD_NS SECONDS [busy]

`busy` keeps the main thread of that process at work meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.programs import TRUTH
from cpost.measure import counters
from cpost.measure import meter as meter_module
from cpost.measure.cgroup import UNIFIED, Group, Hierarchies
from cpost.measure.meter import Meter, open_meter
from cpost.measure.sampler import Sampler, SamplingProcess
from cpost.model import Sample

_CALLS = ("pread", "preadv", "read", "pwrite")
_CHILD = "process"
_CONTROLLERS = ("cpu", "memory", "pids", "io")
_READERS = (os, counters, meter_module)  # each may hold these calls by a name of its own


@contextlib.contextmanager
def watched_process(*verbs: str) -> Iterator[tuple[str, int]]:
    """A process below a control group, as an operator is below cpost's; yields the group's name and its pid.

    Without verbs it does nothing for as long as it is needed.
    """
    name = f"benchmark_{os.getpid()}"
    parent = Hierarchies.read().group(name)
    child = parent.child(_CHILD)
    with contextlib.ExitStack() as undo:
        undo.callback(parent.remove)
        parent.make()
        undo.enter_context(_controllers_on(parent))
        child.make()
        process = subprocess.Popen([TRUTH, *(verbs or ("sleep", "3600000"))], stdout=subprocess.DEVNULL)
        undo.callback(process.wait)
        undo.callback(process.kill)
        child.join(process.pid)
        yield name, process.pid


@contextlib.contextmanager
def meter_of(name: str) -> Iterator[Meter]:
    """The meter that cpost would read for the process below this group."""
    hierarchies = Hierarchies.read()
    parent = hierarchies.group(name)
    meter = open_meter(hierarchies, parent, own=True)
    meter.attach(parent.child(_CHILD))
    try:
        yield meter
    finally:
        meter.close()


def back_to_back_ns(meter: Meter, samples: int) -> float:
    """What one sample takes the meter without any pause, every tenth in detail."""
    begin_ns = time.perf_counter_ns()
    for number in range(samples):
        meter.read(number, detailed=number % 10 == 0)
    return (time.perf_counter_ns() - begin_ns) / samples


def schedule(meter: Meter) -> str:
    """What the meter reads (r) and writes (w) at most samples and at every tenth: "fast|slow r|w PATH" per line."""
    for number in range(3):  # what it looks at only once, or at a new high, is over
        meter.read(number, detailed=True)
    lines = []
    for beat in ("fast", "slow"):
        with _recorded_calls() as calls:
            meter.read(9, detailed=beat == "slow")
        if not calls:
            raise AssertionError("the meter reads in a way that is not seen here")
        lines += [f"{beat} {kind} {path}\n" for kind, path in calls]
    return "".join(lines)


@contextlib.contextmanager
def _recorded_calls() -> Iterator[list[tuple[str, str]]]:
    calls: list[tuple[str, str]] = []
    originals = {name: getattr(os, name) for name in _CALLS}
    places = [(module, name) for module in _READERS for name in _CALLS if hasattr(module, name)]

    def recording(name: str) -> object:
        def call(fd: int, *arguments: object) -> object:
            calls.append(("w" if name == "pwrite" else "r", str(Path(f"/proc/self/fd/{fd}").readlink())))
            return originals[name](fd, *arguments)

        return call

    for module, name in places:
        setattr(module, name, recording(name))
    try:
        yield calls
    finally:
        for module, name in places:
            setattr(module, name, originals[name])


def command(group: str, period_ns: int, seconds: float, *, busy: bool = False) -> list[str]:
    """The command that runs the sampler in a process of its own, see above."""
    words = [sys.executable, "-m", "benchmarks.cpost_sampler", group, str(period_ns), str(seconds)]
    return [*words, "busy"] if busy else words


def run_sampler(group: str, period_ns: int, seconds: float, *, busy: bool) -> list[int]:
    """Sample the process below a group for a while; returns when each sample was taken (ns)."""
    times: list[int] = []

    def take(samples: list[Sample]) -> None:
        times.extend(sample.t_ns for sample in samples)

    hierarchies = Hierarchies.read()
    with SamplingProcess() as process:
        sampler = Sampler(process, hierarchies, hierarchies.group(group), period_ns, take)
        sampler.start()
        sampler.started.wait(10)
        end = time.monotonic() + seconds
        if busy:
            _keep_busy(end)
        time.sleep(max(0.0, end - time.monotonic()))
        sampler.stop()
    if sampler.error:
        raise RuntimeError(sampler.error)
    return times


def _keep_busy(end: float) -> None:
    record = {f"key {number}": [number, str(number), None, number / 7] for number in range(200)}
    while time.monotonic() < end:
        json.dumps(record)


@contextlib.contextmanager
def _controllers_on(parent: Group) -> Iterator[None]:
    """Under v2 a group's children have the files of those controllers only that were switched on above them.

    What was off in the group above, which is the host's, is switched off again at the end.
    """
    if "memory" in parent.directories:
        yield
        return
    files = [folder / "cgroup.subtree_control" for folder in parent.directories[UNIFIED].parents[:1]]
    own = parent.directories[UNIFIED]
    files = [folder / "cgroup.subtree_control" for folder in (own.parent, own)]
    switched = [(file, name) for file in files for name in _CONTROLLERS if _switch_on(file, name)]
    try:
        yield
    finally:
        for file, name in reversed(switched):
            with contextlib.suppress(OSError):  # another group has begun to use it
                file.write_text(f"-{name}")


def _switch_on(file: Path, name: str) -> bool:
    """Whether a controller was off and is on now."""
    if name in file.read_text().split():
        return False
    try:
        file.write_text(f"+{name}")
    except OSError:
        return False
    return True


if __name__ == "__main__":
    found = run_sampler(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), busy=sys.argv[4:] == ["busy"])
    print("\n".join(map(str, found)))
