"""Looks at the GPUs beside those that are measured, in a thread of its own: a driver that hangs holds up nobody else.

The thread is a daemon, and whoever waits for it waits for a stated time only. A driver that does not answer in time is
a warning; what it says later is used from then on. However many are watched, a round reads each GPU once.
"""

from __future__ import annotations

import ctypes
import functools
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cpost.errors import HostError
from cpost.measure.gpu_subject import Subject
from cpost.model import Step
from cpost.model.gpu import Gpu, GpuLook

if TYPE_CHECKING:
    from cpost.measure.nvml import Driver, GpuMeter

PERIOD_S = 0.05
_LIBRARY = "libnvidia-ml.so.1"
_REST_PER_COST = 4  # looks take a fifth of the thread's time at most: the operator's own calls wait for the same driver
_OPEN_S = 10.0  # without its persistence daemon a driver of many GPUs takes seconds to wake
_ANSWER_S = 2.0
_KNOWN_TO_HANG_S = 0.1


@dataclass(frozen=True, slots=True)
class GpuFacts:
    """The host's GPUs and their driver, or why there are none to see."""

    gpus: tuple[Gpu, ...] = ()
    driver: str = ""
    absent_because: str = ""
    problems: tuple[str, ...] = ()


class GpuWatch:
    """The host's GPUs, from its construction until `close`; without a driver all of it is empty."""

    def __init__(self) -> None:
        self._found = GpuFacts()
        self._opened = threading.Event()
        self._news: queue.SimpleQueue[Subject | None] = queue.SimpleQueue()
        self._subjects: dict[str, Subject] = {}
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
        self._subjects.clear()

    @contextmanager
    def watching(self, name: str, is_own: Callable[[int], bool | None]) -> Iterator[None]:
        """Look at the GPUs on behalf of one subject while the body runs; the first look is over before it begins.

        Several may be watched at once, each under a name of its own: they are one another's companions.

        Args:
            is_own: whether a process of this host is the subject's; None = it is gone. Called in the thread.
        """
        if not self.facts.gpus:
            yield
            return
        subject = self._subjects[name] = Subject(name, is_own)
        self._news.put(subject)
        self._wait(subject, subject.first, f"before {name} started: its GPU figures begin late, or are missing")
        try:
            yield
        finally:
            subject.stop.set()
            self._news.put(subject)
            self._wait(subject, subject.done, f"at the end of {name}: the last of its GPU figures are missing")

    def take(self, name: str) -> list[GpuLook]:
        """The looks that have come since the last call, for the subject of this name now or last watched."""
        subject, looks = self._subjects.get(name), []
        while subject is not None and subject.looks:
            looks.append(subject.looks.popleft())
        if looks:  # a driver that was slow to wake answers now
            self._patience_s = _ANSWER_S
        return looks

    def problems(self, name: str) -> list[str]:
        """What could not be read during the subject of this name now or last watched, one line each."""
        return list(self._subjects[name].problems) if name in self._subjects else []

    def close(self) -> None:
        """Let go of the driver; a thread that hangs in it is left to the end of the process."""
        self._news.put(None)
        self._thread.join(self._patience_s)

    def _wait(self, subject: Subject, event: threading.Event, consequence: str) -> None:
        if not event.wait(self._patience_s):
            self._patience_s = _KNOWN_TO_HANG_S
            subject.never_answered(consequence)

    # ------------------------------------------------------------ in the thread

    def _run(self) -> None:
        try:
            driver = self._open()
        finally:
            self._opened.set()
        if driver is None:
            return
        rounds = _Rounds(driver)
        rest_s: float | None = None
        while self._attend(rounds, rest_s):
            rest_s = rounds.look()
        driver.close()

    def _attend(self, rounds: _Rounds, rest_s: float | None) -> bool:
        """Rest for so long (None: until told something), or until somebody begins or ends. False: it is all over."""
        try:
            news = self._news.get(timeout=rest_s)
            while news is not None:
                rounds.hear_of(news)
                news = self._news.get_nowait()
        except queue.Empty:
            return True
        return False

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


class _Rounds:
    """Looks at all GPUs on behalf of all who are watched; everything in it belongs to the thread."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._meters: list[GpuMeter] = []
        self._active: list[Subject] = []

    def hear_of(self, subject: Subject) -> None:
        """Somebody begins to be watched, or is not to be any more: one that is over before its first look gets none."""
        if subject in self._active or subject.done.is_set():
            return  # the next round is its last, or it has broken off
        if subject.stop.is_set():
            subject.finish()
            return
        self._make_ready()
        self._active.append(subject)

    def _make_ready(self) -> None:
        from cpost.measure.nvml import GpuMeter

        if not self._active:
            self._meters = [GpuMeter(device, f"GPU {place}") for place, device in enumerate(self._driver.devices)]
            return
        for meter in self._meters:
            meter.renew()

    def look(self) -> float | None:
        """One round: the last one for those who have been told to stop.

        Returns:
            For how many seconds to rest; None where nobody is watched any more.
        """
        began_s = time.monotonic()
        ending = [subject for subject in self._active if subject.stop.is_set()]
        try:
            self._look()
        except Exception as error:  # each of them reports it
            for subject in self._active:
                if not subject.done.is_set():
                    subject.break_off(error)
        for subject in ending:
            subject.finish()
        self._active = [subject for subject in self._active if not subject.done.is_set()]
        return max(PERIOD_S, (time.monotonic() - began_s) * _REST_PER_COST) if self._active else None

    def _look(self) -> None:
        at_ns = time.time_ns()
        readings = [meter.read() for meter in self._meters]
        listed = {pid for reading in readings for pid in reading.held or ()}
        owned: dict[Subject, set[int]] = {}
        for subject in self._active:
            try:
                owned[subject] = subject.own_of(listed)
            except Exception as error:  # it reports that itself, and the others are looked at nevertheless
                subject.break_off(error)
        for subject, own in owned.items():
            others = {other: theirs for other, theirs in owned.items() if other is not subject}
            subject.see(at_ns, readings, own, others)
