"""A server's life in stretches: idle while it waits for its operator, under load while that runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from cpost.gpu_usage import GpuBuilder
from cpost.model import LAST_SAMPLE, Outcome, Sample, StepResult, Totals, Usage
from cpost.model.gpu import Gpu, GpuLook
from cpost.units import NS_PER_S
from cpost.usage import UsageBuilder

_TOLD_LATE_NS = 2 * NS_PER_S  # by then it is known when a stretch began


class Phases:
    """Sorts samples and looks at the GPUs by the stretch that they fall into; both come in the order of time.

    Times count from the server's first instruction. What comes waits until no mark can come before it any more.

    Args:
        window_ns: the span over which CPU rates are taken.
        cpus: how many the host has.
    """

    def __init__(self, window_ns: int, cpus: int, gpus: Sequence[Gpu]) -> None:
        self._idle = _Stretch(window_ns, cpus, gpus)
        self._load = _Stretch(window_ns, cpus, gpus)
        self._marks: list[tuple[int, _Stretch | None]] = []
        self._samples: deque[Sample] = deque()
        self._looks: deque[tuple[int, GpuLook]] = deque()
        self._before: Sample | None = None

    def ready(self, t_ns: int) -> None:
        """It was ready, and idle from then on."""
        self._marks.append((t_ns, self._idle))

    def load_began(self, t_ns: int) -> None:
        """Its operator began."""
        self._marks.append((t_ns, self._load))

    def load_ended(self, t_ns: int) -> None:
        """Its operator ended; until another begins the time counts for nothing."""
        self._marks.append((t_ns, None))

    def add(self, sample: Sample) -> None:
        """Take a sample."""
        self._samples.append(sample)
        self._sort(sample.t_ns - _TOLD_LATE_NS)

    def look(self, look: GpuLook, start_ns: int) -> None:
        """Take a look at the GPUs; `start_ns` is the server's first instruction (Unix)."""
        self._looks.append((start_ns, look))

    def finish(self) -> tuple[Usage | None, Usage | None]:
        """The usage idle and under load; None where there were not two samples."""
        self._sort(None)
        return self._idle.finish(), self._load.finish()

    def _sort(self, until_ns: int | None) -> None:
        while self._samples and (until_ns is None or self._samples[0].t_ns <= until_ns):
            sample = self._samples.popleft()
            _, stretch = self._at(sample.t_ns)
            if stretch is not None:
                stretch.add(sample, self._before)
            self._before = sample
        while self._looks and (until_ns is None or self._looks[0][1].at_ns - self._looks[0][0] <= until_ns):
            start_ns, look = self._looks.popleft()
            self._sort_look(start_ns, look)

    def _sort_look(self, start_ns: int, look: GpuLook) -> None:
        began_ns, stretch = self._at(look.at_ns - start_ns)
        if look.at_ns < start_ns:  # what was in use before the server is what its own use is told from
            for each in (self._idle, self._load):
                each.gpus.add(look, start_ns)
        elif stretch is not None:
            stretch.gpus.add(look, start_ns + began_ns)

    def _at(self, t_ns: int) -> tuple[int, _Stretch | None]:
        """The stretch that holds an instant, and when it began."""
        return max((mark for mark in self._marks if mark[0] <= t_ns), key=lambda mark: mark[0], default=(0, None))


class _Stretch:
    """One kind of time; where it comes in pieces, they are joined as if nothing lay between them."""

    def __init__(self, window_ns: int, cpus: int, gpus: Sequence[Gpu]) -> None:
        self._usage = UsageBuilder(window_ns, cpus)
        self._offset: Sample | None = None
        self._raw: Sample | None = None
        self._last: Sample | None = None
        self.gpus = GpuBuilder(gpus)

    def add(self, sample: Sample, before: Sample | None) -> None:
        """Take a sample; `before` is the one before it, whatever that belongs to."""
        if before is not self._raw or self._offset is None:
            self._join(before or sample)
        assert self._offset is not None
        self._raw = sample
        self._last = sample._replace(
            t_ns=sample.t_ns - self._offset.t_ns, cpu_us=max(0, sample.cpu_us - self._offset.cpu_us)
        )
        self._usage.add(self._last)

    def _join(self, start: Sample) -> None:
        """Go on, from `start`, where the last piece ended."""
        t_ns, cpu_us = (self._last.t_ns, self._last.cpu_us) if self._last else (0, 0)
        self._offset = start._replace(t_ns=start.t_ns - t_ns, cpu_us=start.cpu_us - cpu_us)

    def finish(self) -> Usage | None:
        last = self._last
        if last is None or last.t_ns == 0:
            return None
        peak = self._usage.memory_peak_bytes if last.memory_peak_bytes is not None else None
        totals = Totals(source=LAST_SAMPLE, cpu_us=last.cpu_us, memory_peak_bytes=peak)
        usage = self._usage.finish(StepResult("", Outcome.COMPLETED, wall_ns=last.t_ns, totals=totals))
        return replace(usage, gpus=self.gpus.finish()) if usage is not None else None
