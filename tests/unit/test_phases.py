"""A server's life in stretches: what falls into which, pieces that are joined, and marks that are told late."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from builders import MB, MS, sample
from hypothesis import given
from hypothesis import strategies as st

from cpost.model import Sample, Usage
from cpost.model.gpu import Gpu, GpuLook, GpuMemorySource, GpuReading
from cpost.phases import Phases

AT = 1_700_000_000 * 10**9
PERIOD_MS = 10
Mark = tuple[str, int]


def life(*stretches: tuple[int, float, int]) -> list[Sample]:
    """Samples of a server; each stretch: until which ms, at which CPU percent, with how much memory (MB)."""
    made, t_ms, cpu_us = [sample(0, 0, MB, memory_peak_bytes=MB)], 0, 0.0
    for until_ms, percent, memory in stretches:
        while t_ms < until_ms:
            t_ms += PERIOD_MS
            cpu_us += percent * PERIOD_MS * 10
            made.append(sample(t_ms, round(cpu_us), memory * MB, memory_peak_bytes=(memory + 1) * MB))
    return made


def sorted_into(samples: Sequence[Sample], *marks: Mark, late_ms: int = 0) -> tuple[Usage | None, Usage | None]:
    """Idle and load; each mark is told when so much time has passed since."""
    phases = Phases(100 * MS, 8, ())
    waiting = list(marks)
    for each in samples:
        while waiting and waiting[0][1] + late_ms <= each.t_ns // MS:
            name, t_ms = waiting.pop(0)
            getattr(phases, name)(t_ms * MS)
        phases.add(each)
    for name, t_ms in waiting:
        getattr(phases, name)(t_ms * MS)
    return phases.finish()


LIFE = life((500, 90, 10), (1000, 10, 50), (2000, 150, 200), (2500, 30, 80))
MARKS: tuple[Mark, ...] = (("ready", 500), ("load_began", 1000), ("load_ended", 2000))


def test_idle_and_load_have_figures_of_their_own() -> None:
    idle, load = sorted_into(LIFE, *MARKS)
    assert idle is not None
    assert load is not None
    # A stretch begins at the sample before its first: at most one period of the time before is in it.
    assert idle.cpu_pct.average == pytest.approx(10, abs=80 * PERIOD_MS / 500)
    assert load.cpu_pct.average == pytest.approx(150, abs=140 * PERIOD_MS / 1000 + 0.2)
    assert load.cpu_pct.maximum == pytest.approx(150)
    assert (idle.memory_bytes.maximum, load.memory_bytes.maximum) == (51 * MB, 201 * MB)
    assert idle.memory_bytes.average == pytest.approx(50 * MB, rel=0.05)
    assert load.memory_bytes.average == pytest.approx(200 * MB, rel=0.05)


@given(st.integers(0, 1900))
def test_marks_may_be_told_late(late_ms: int) -> None:
    assert sorted_into(LIFE, *MARKS, late_ms=late_ms) == sorted_into(LIFE, *MARKS)


def test_what_was_not_is_unknown() -> None:
    assert sorted_into([]) == (None, None)
    assert sorted_into(LIFE) == (None, None)
    idle, load = sorted_into(LIFE, ("ready", 500))
    assert idle is not None
    assert load is None
    assert sorted_into(LIFE[:1], ("ready", 0), ("load_began", 0)) == (None, None)


def test_a_load_between_two_samples_is_unknown() -> None:
    _, load = sorted_into(LIFE, ("ready", 500), ("load_began", 1001), ("load_ended", 1009))
    assert load is None


def test_a_server_without_kernel_peaks_has_those_that_were_sampled() -> None:
    samples = [each._replace(memory_peak_bytes=None) for each in LIFE]
    _, load = sorted_into(samples, *MARKS)
    assert load is not None
    assert (load.memory_bytes.maximum, load.peaks_sampled) == (200 * MB, True)


@given(st.lists(st.tuples(st.integers(5, 60), st.integers(0, 60)), min_size=1, max_size=5), st.floats(1, 700))
def test_the_loads_of_several_operators_are_joined_without_what_lies_between(
    pieces: list[tuple[int, int]], percent: float
) -> None:
    """Each piece: for how many periods an operator ran, and for how many none did after it."""
    stretches, marks, t_ms = [(100, 5.0, 1)], [("ready", 50)], 100
    for ran, rested in pieces:
        marks.append(("load_began", t_ms + 1))
        t_ms += ran * PERIOD_MS
        stretches.append((t_ms, percent, 100))
        marks.append(("load_ended", t_ms + 1))
        t_ms += rested * PERIOD_MS
        stretches.append((t_ms, 0.0, 500))
    _, load = sorted_into(life(*stretches), *marks)
    assert load is not None
    assert load.cpu_pct.average == pytest.approx(percent, rel=0.01, abs=0.5)
    assert load.memory_bytes.maximum == 101 * MB


# ---------------------------------------------------------------- GPUs


def look(t_ms: int, own_mb: int, base_mb: int = 500) -> GpuLook:
    reading = GpuReading(
        memory_bytes=(own_mb + base_mb) * MB,
        listed_bytes=own_mb * MB,
        own_memory_bytes=own_mb * MB,
        own_processes=int(own_mb > 0),
        other_processes=0,
    )
    return GpuLook(AT + t_ms * MS, (reading,))


def test_looks_at_gpus_go_with_their_stretch_and_both_know_what_was_before() -> None:
    phases = Phases(100 * MS, 8, (Gpu("GPU-a", "A", 40_000 * MB),))
    for each in (look(-20, 0), look(100, 900), look(600, 300), look(900, 310), look(1500, 700), look(2200, 999)):
        phases.look(each, AT)
    for name, t_ms in MARKS:
        getattr(phases, name)(t_ms * MS)
    for each in LIFE:
        phases.add(each)
    idle, load = phases.finish()
    assert idle is not None
    assert load is not None
    gpus = [used.gpus[0] for used in (idle, load)]
    assert [gpu.memory_peak_bytes for gpu in gpus] == [310 * MB, 700 * MB]
    assert [gpu.baseline_bytes for gpu in gpus] == [500 * MB, 500 * MB]
    assert [gpu.looks for gpu in gpus] == [2, 1]
    assert {gpu.memory_source for gpu in gpus} == {GpuMemorySource.PROCESSES}
