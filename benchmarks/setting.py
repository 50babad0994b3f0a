"""What all themes share: the image, and how much of everything to measure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scale:
    """How much to measure.

    Attributes:
        repeats: of short measurements.
        seconds: of one paced measurement.
        lifetimes_ms: of the operators whose CPU total is checked, and how often each.
        spikes: of each length.
        pairs: of the operator's speed with and without cpost.
        streamed_mib, shared_mib: sizes of the file that is streamed and of what is written to /dev/shm.
        storm: memory kills, and as many other kills.
        endurance_samples: samples of the simulated long run.
        advised: operators of the corpus for which recommendations are applied.
    """

    repeats: int
    seconds: int
    lifetimes_ms: tuple[tuple[int, int], ...]
    spikes: int
    pairs: int
    streamed_mib: int
    shared_mib: int
    storm: int
    endurance_samples: int
    advised: int


FULL = Scale(
    repeats=5,
    seconds=5,
    lifetimes_ms=((30, 5), (100, 3), (1000, 3), (10000, 1)),
    spikes=20,
    pairs=30,
    streamed_mib=4096,
    shared_mib=1024,
    storm=24,
    endurance_samples=2_000_000,
    advised=11,
)
QUICK = Scale(
    repeats=2,
    seconds=1,
    lifetimes_ms=((30, 2), (100, 1), (1000, 1)),
    spikes=3,
    pairs=4,
    streamed_mib=256,
    shared_mib=128,
    storm=8,
    endurance_samples=100_000,
    advised=2,
)


@dataclass(frozen=True, slots=True)
class Setting:
    """One run of the benchmarks.

    Attributes:
        image: a local image with a shell; what runs in it is mounted into it.
    """

    image: str
    scale: Scale
