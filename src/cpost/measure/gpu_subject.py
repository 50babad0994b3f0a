"""One of those on whose behalf the GPUs are looked at: which processes are its own, and what of a look is for it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from cpost.model.gpu import BusySpan, GpuLook, GpuReading

if TYPE_CHECKING:
    from cpost.measure.nvml import DeviceReading

_MOST_LOOKS = 20_000  # that nobody fetches: a quarter of an hour without a sample


class Subject:
    """An operator or a server, from the time when somebody begins to watch it; shared by two threads.

    Args:
        name: what it is called in problems.
        is_own: whether a process of this host is its own; None = it is gone.

    Attributes:
        looks: appended to by the thread that looks, taken from by the other one.
        problems: what could not be read, one line each.
        first, stop, done: its first look is over; it is to get no more than one last look; it has got that.
    """

    def __init__(self, name: str, is_own: Callable[[int], bool | None]) -> None:
        self.name = name
        self.looks: deque[GpuLook] = deque(maxlen=_MOST_LOOKS)
        self.problems: list[str] = []
        self.first, self.stop, self.done = threading.Event(), threading.Event(), threading.Event()
        self._is_own = is_own
        self._known: dict[int, bool] = {}
        self._companions: set[int] = set()
        self._shares: list[Share] = []
        self._silent = False

    def never_answered(self, consequence: str) -> None:
        """The driver was waited for in vain; only the first time is a problem of its own."""
        if not self._silent:
            self._silent = True
            self.problems.append(f"the NVIDIA driver did not answer {consequence}")

    def break_off(self, error: Exception) -> None:
        """It gets no more looks: a thread has nobody to raise to."""
        self.problems.append(f"looking at the GPUs broke off: {error!r}")
        self.finish()

    def finish(self) -> None:
        """It gets no more looks."""
        self.first.set()
        self.done.set()

    def own_of(self, pids: Iterable[int]) -> set[int]:
        """Those of the listed processes that are its own; the driver may still list one that has just ended."""
        return {pid for pid in pids if self._owns(pid)}

    def _owns(self, pid: int) -> bool:
        answer = self._is_own(pid)
        if answer is not None:
            self._known[pid] = answer
        return self._known.get(pid, False)

    def see(
        self, at_ns: int, readings: Sequence[DeviceReading], own: set[int], others: Mapping[Subject, set[int]]
    ) -> None:
        """Take in a look at all GPUs.

        Args:
            own: its own processes of those listed.
            others: who else is watched, with their processes; those of one that has ended stay companions for as long
                as the driver lists them.
        """
        self._companions.update(*others.values())
        self._shares = self._shares or [Share(self.problems) for _ in readings]
        found = (share.of(each, own, self._companions) for share, each in zip(self._shares, readings, strict=True))
        self.looks.append(GpuLook(at_ns, tuple(found), len(others)))
        self.first.set()


class Share:
    """What of the readings of one GPU is for one subject.

    Args:
        problems: gets one line per figure and kind of failure.
    """

    def __init__(self, problems: list[str]) -> None:
        self._problems = problems
        self._told: set[tuple[str, int]] = set()
        self._busy_begun = False

    def of(self, reading: DeviceReading, own: Collection[int], companions: Collection[int]) -> GpuReading:
        """Its look at this GPU; a process that is its own is no companion's.

        The stretches of busy time since the look before are everybody's, but the first that come after a subject has
        begun are about the time before it.
        """
        for failure in reading.failures:
            if (failure.figure, failure.code) not in self._told:
                self._told.add((failure.figure, failure.code))
                self._problems.append(failure.text)
        busy: tuple[BusySpan, ...] = ()
        if reading.busy is not None:
            busy, self._busy_begun = reading.busy if self._busy_begun else (), True
        found = GpuReading(busy, reading.memory_bytes, power_mw=reading.power_mw, sm_clock_mhz=reading.sm_clock_mhz)
        return found if reading.held is None else _with_processes(found, reading.held, own, companions)


def _with_processes(
    found: GpuReading, held: Mapping[int, int | None], own: Collection[int], companions: Collection[int]
) -> GpuReading:
    mine = [pid for pid in held if pid in own]
    theirs = [pid for pid in held if pid in companions and pid not in own]
    return found._replace(
        listed_bytes=_sum(held.values()),
        own_memory_bytes=_sum(held[pid] for pid in mine),
        own_processes=len(mine),
        other_processes=len(held) - len(mine) - len(theirs),
        companion_processes=len(theirs),
    )


def _sum(amounts: Iterable[int | None]) -> int | None:
    total = 0
    for amount in amounts:
        if amount is None:
            return None
        total += amount
    return total
