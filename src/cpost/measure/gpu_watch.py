"""Looks at the GPUs beside a step, in a thread of its own: a driver that hangs holds up nobody but this thread.

The thread is a daemon, and whoever waits for it waits for a stated time only. A driver that does not answer in time is
a warning; what it says later is used from then on.
"""

from __future__ import annotations

import ctypes
import functools
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cpost.errors import HostError
from cpost.model import Step
from cpost.model.gpu import Gpu, GpuLook

if TYPE_CHECKING:
    from cpost.measure.nvml import Driver

PERIOD_S = 0.05
_LIBRARY = "libnvidia-ml.so.1"
_REST_PER_COST = 4  # looks take a fifth of the thread's time at most: the operator's own calls wait for the same driver
_OPEN_S = 10.0  # without its persistence daemon a driver of many GPUs takes seconds to wake
_ANSWER_S = 2.0
_KNOWN_TO_HANG_S = 0.1
_MOST_LOOKS = 20_000  # that nobody fetches: a quarter of an hour without a sample


@dataclass(frozen=True, slots=True)
class GpuFacts:
    """The host's GPUs and their driver, or why there are none to see."""

    gpus: tuple[Gpu, ...] = ()
    driver: str = ""
    absent_because: str = ""
    problems: tuple[str, ...] = ()


@dataclass(slots=True, eq=False)
class _Beside:
    """One step, as the thread sees it."""

    is_own: Callable[[int], bool | None]
    known: dict[int, bool] = field(default_factory=dict)
    looks: deque[GpuLook] = field(default_factory=lambda: deque(maxlen=_MOST_LOOKS))
    problems: list[str] = field(default_factory=list)
    silent: bool = False
    first: threading.Event = field(default_factory=threading.Event)
    stop: threading.Event = field(default_factory=threading.Event)
    done: threading.Event = field(default_factory=threading.Event)

    def owns(self, pid: int) -> bool:
        """Whether a process is the step's; the driver may still list one that has just ended."""
        answer = self.is_own(pid)
        if answer is not None:
            self.known[pid] = answer
        return self.known.get(pid, False)


class GpuWatch:
    """The host's GPUs, from its construction until `close`; without a driver all of it is empty."""

    def __init__(self) -> None:
        self._found = GpuFacts()
        self._opened = threading.Event()
        self._steps: queue.SimpleQueue[_Beside | None] = queue.SimpleQueue()
        self._step: _Beside | None = None
        self._patience_s = _ANSWER_S
        self._thread = threading.Thread(target=self._run, name="cpost-gpu", daemon=True)
        self._thread.start()

    @functools.cached_property
    def facts(self) -> GpuFacts:
        """What is there; waits until the driver has told, or for ten seconds."""
        if self._opened.wait(_OPEN_S):
            return self._found
        return GpuFacts(absent_because=f"the NVIDIA driver did not answer within {_OPEN_S:g} s")

    def disregard(self, reason: str) -> None:
        """Take it that there are none: the operators run elsewhere. What was seen until now is dropped."""
        self.facts = GpuFacts(absent_because=reason)
        self._step = None

    @contextmanager
    def watching(self, is_own: Callable[[int], bool | None]) -> Iterator[None]:
        """Look at the GPUs while the body runs; the first look is over before it begins.

        Args:
            is_own: whether a process of this host is the step's; None = it is gone. Called in the thread.
        """
        if not self.facts.gpus:
            yield
            return
        step = self._step = _Beside(is_own)
        self._steps.put(step)
        if not step.first.wait(self._patience_s):
            self._give_up(step, "before the operator started: its GPU figures begin late, or are missing")
        try:
            yield
        finally:
            step.stop.set()
            if not step.done.wait(self._patience_s):
                self._give_up(step, "at the operator's end: the last of its GPU figures are missing")

    def take(self) -> list[GpuLook]:
        """The looks that have come since the last call, for the step now or last watched."""
        looks = []
        while self._step is not None and self._step.looks:
            looks.append(self._step.looks.popleft())
        if looks:  # a driver that was slow to wake answers now
            self._patience_s = _ANSWER_S
        return looks

    def problems(self) -> list[str]:
        """What could not be read during the step now or last watched, one line each."""
        return list(self._step.problems) if self._step else []

    def close(self) -> None:
        """Let go of the driver; a thread that hangs in it is left to the end of the process."""
        self._steps.put(None)
        self._thread.join(self._patience_s)

    def _give_up(self, step: _Beside, consequence: str) -> None:
        self._patience_s = _KNOWN_TO_HANG_S
        if not step.silent:
            step.silent = True
            step.problems.append(f"the NVIDIA driver did not answer {consequence}")

    # ------------------------------------------------------------ in the thread

    def _run(self) -> None:
        try:
            driver = self._open()
        finally:
            self._opened.set()
        if driver is None:
            return
        while (step := self._steps.get()) is not None:
            try:
                _look_on(driver, step)
            except Exception as error:  # a thread has nobody to raise to: the step reports it
                step.problems.append(f"looking at the GPUs broke off: {error!r}")
            step.first.set()
            step.done.set()
        driver.close()

    def _open(self) -> Driver | None:
        try:
            ctypes.CDLL(_LIBRARY)  # where there is none, pynvml's import is saved: it takes longer than all else here
        except OSError as error:
            self._found = GpuFacts(absent_because=f"no NVIDIA driver, {error}")
            return None
        try:
            from cpost.measure import nvml

            driver = nvml.Driver()
        except Exception as error:  # the host's facts say why
            self._found = GpuFacts(absent_because=str(error) or repr(error))
            return None
        gpus = tuple(device.gpu for device in driver.devices)
        because = "" if gpus else "; ".join(driver.problems) or "the driver lists none"
        self._found = GpuFacts(gpus, driver.version, because, tuple(driver.problems))
        return driver


def gpu_facts() -> GpuFacts:
    """Ask the driver once."""
    watch = GpuWatch()
    try:
        return watch.facts
    finally:
        watch.close()


def require_gpus(facts: GpuFacts, steps: Iterable[Step]) -> None:
    """Raise `HostError` where a step asks for more GPUs than there are."""
    for step in steps:
        if step.gpu_count and not facts.gpus:
            raise HostError(
                f"operator {step.operator} asks for a GPU, and there is none to be seen here ({facts.absent_because})",
                "install the NVIDIA driver and container toolkit, or run it without a GPU (--no_gpu)",
            )
        if step.gpu_count > len(facts.gpus):
            raise HostError(
                f"operator {step.operator} asks for gpu: {step.gpu_count}, and this host has {len(facts.gpus)}",
                "run it on a host with more GPUs, or without any (--no_gpu)",
            )


def _look_on(driver: Driver, step: _Beside) -> None:
    """Look until told to stop, and once more then. A step that was over before its first look gets none."""
    from cpost.measure.nvml import GpuMeter

    meters = [GpuMeter(device, f"GPU {place}", step.problems) for place, device in enumerate(driver.devices)]
    last = False
    while not last and not (step.stop.is_set() and not step.first.is_set()):
        last = step.stop.is_set()
        began_s, at_ns = time.monotonic(), time.time_ns()
        step.looks.append(GpuLook(at_ns, tuple(meter.read(step.owns) for meter in meters)))
        step.first.set()
        step.stop.wait(max(PERIOD_S, (time.monotonic() - began_s) * _REST_PER_COST))
