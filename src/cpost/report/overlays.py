"""Charts of several runs, one line for each: repeats of an operator, runs under limits, runs on different days."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from cpost.model import Resources, StepResult, Usage
from cpost.report.charts import MEGABYTES, PERCENT, SECONDS, Chart, Level, Line, Mark, Unit
from cpost.report.figures import end_marks, end_ms, steps
from cpost.report.series import NEED, OVERLAID_COLUMNS, Series, Traces

MOST_OVERLAID = 8  # as many colours as there are
LINES, GPU_LINES = 4, 2  # of one run, at most, and for each GPU
_CPU = "Percent of one core over the window that ends at each point."
_NOTHING = Resources()
_GPU_CHARTS = (
    ("busy", PERCENT, "util_percent", "Share of time in which any kernel ran, whoever's; NVML."),
    ("memory", MEGABYTES, "own_memory_bytes", "What its own processes held; NVML, at each look."),
)


@dataclass(frozen=True, slots=True)
class Strand:
    """One of the runs.

    Attributes:
        name: tells it from the others.
        colour: below `MOST_OVERLAID`; the same wherever the run is drawn.
        limits: what it was held to.
        usage: None = not known, and so is which GPUs it was on.
    """

    name: str
    colour: int
    series: Series
    result: StepResult
    limits: Resources = _NOTHING
    usage: Usage | None = None

    @property
    def style(self) -> str:
        """The name of its look."""
        return f"o{self.colour}"


def colours(places: Iterable[int]) -> list[int]:
    """A colour for each of at most `MOST_OVERLAID` runs: by its place among all, or else one that is free."""
    chosen: list[int] = []
    for place in places:
        wanted = place % MOST_OVERLAID
        free = (each for each in range(MOST_OVERLAID) if each not in chosen)
        chosen.append(next(free) if wanted in chosen else wanted)
    return chosen


def columns(gpus: int) -> tuple[str, ...]:
    """What is read of a series to be laid over others, on a host with so many GPUs."""
    of_gpus = (f"gpu{place}_{column}" for place in range(gpus) for _, _, column, _ in _GPU_CHARTS)
    return (*OVERLAID_COLUMNS, *of_gpus)


def overlaid(strands: Sequence[Strand], gpus: int = 0) -> tuple[Chart, ...]:
    """The charts; times count from each run's own start.

    Args:
        gpus: how many the host has.
    """
    end = max((end_ms(each.series, each.result) for each in strands), default=1)
    marks = tuple(mark for each in strands for mark in _bad_ends(each))
    by_cpu = [(each, each.limits.cpu_millicores) for each in strands]
    by_memory = [(each, steps(each.limits.memory_bytes)) for each in strands]
    found = (
        _chart("CPU", PERCENT, strands, "cpu_percent", _CPU, _limits(by_cpu)),
        _chart("Memory charged", MEGABYTES, strands, "memory_bytes", "The total, cache included.", _limits(by_memory)),
        _chart("Memory need", MEGABYTES, strands, NEED, "The total less what the kernel could have dropped."),
        _throttling(strands),
        *_gpus(strands, gpus),
    )
    return tuple(
        Chart(each.title, each.unit, each.lines, end, each.source, each.levels, marks) for each in found if each
    )


def _chart(
    title: str, unit: Unit, strands: Sequence[Strand], column: str, source: str, levels: tuple[Level, ...] = ()
) -> Chart | None:
    lines = tuple(
        Line(each.name, each.style, each.series.traces[column]) for each in strands if column in each.series.traces
    )
    return Chart(title, unit, lines, 1, source, levels) if lines else None


def _throttling(strands: Sequence[Strand]) -> Chart | None:
    """Of those that were held back; None where nobody was."""
    lines = (Line(each.name, each.style, _held_back(each)) for each in strands)
    held = tuple(line for line in lines if line.highest)
    source = "Time held back by a CPU limit so far; the kernel's cpu.stat."
    return Chart("Throttling", SECONDS, held, 1, source) if held else None


def _held_back(strand: Strand) -> Traces:
    return strand.series.traces.get("throttled_us", ())


def _gpus(strands: Sequence[Strand], gpus: int) -> Iterator[Chart | None]:
    for place in range(gpus):
        on_it = [each for each in strands if _used(each.usage, place)]
        for title, unit, column, source in _GPU_CHARTS:
            yield _chart(f"GPU {place} {title}", unit, on_it, f"gpu{place}_{column}", source)


def _used(usage: Usage | None, place: int) -> bool:
    """Whether it was on a GPU, or that is not known."""
    return usage is None or place >= len(usage.gpus) or usage.gpus[place].used


def _limits(held: Sequence[tuple[Strand, int | None]]) -> tuple[Level, ...]:
    """What the runs were held to: one level where that was the same for all, else one for each in its colour."""
    known = [(strand, value) for strand, value in held if value is not None]
    if len({value for _, value in known}) == 1:
        return (Level("limit", "limit", known[0][1]),)
    return tuple(Level(f"limit of {strand.name}", strand.style, value) for strand, value in known)


def _bad_ends(strand: Strand) -> Iterator[Mark]:
    """Out-of-memory kills, and how it ended where that is bad: where a line ends well it just ends."""
    for mark in end_marks(strand.result, strand.series):
        if mark.bad:
            yield Mark(mark.at_ms, mark.label, mark.bad, mark.count, strand.name)
