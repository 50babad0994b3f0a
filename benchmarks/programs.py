"""The programs: the C ones, built when they have changed, what the workload reports of itself, and installed ones."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
BUILT = HERE / "built"
TRUTH, LIMIT = BUILT / "truth", BUILT / "c_limit"
_FLAGS = ("-static", "-O2", "-Wall", "-Wextra", "-Werror", "-s")


@dataclass(frozen=True, slots=True)
class Spike:
    """When a spike began, stood in full, was given back, and was gone (wall clock, Unix, ns)."""

    begin_ns: int
    full_ns: int
    end_ns: int
    gone_ns: int


@dataclass(frozen=True, slots=True)
class Truth:
    """What the workload says of itself.

    Attributes:
        cpu_ns: its CPU time, by getrusage.
        held_bytes: memory of its own at the height of its spikes, the spike itself not counted: anonymous memory
            before the first one, and page tables. None where it made no spikes.
        chunks: (start on the wall clock, duration) of each piece of fixed work, ns.
    """

    cpu_ns: int
    held_bytes: int | None
    spikes: tuple[Spike, ...]
    chunks: tuple[tuple[int, int], ...]


def build() -> None:
    """Compile what is not built from these sources; raises CalledProcessError where the compiler refuses."""
    BUILT.mkdir(exist_ok=True)
    for program in (TRUTH, LIMIT):
        source = HERE / f"{program.name}.c"
        digest = hashlib.sha256(source.read_bytes()).hexdigest()
        stamp = program.with_suffix(".sha256")
        if program.exists() and stamp.exists() and stamp.read_text() == digest:
            continue
        words: list[str] = ["gcc", *_FLAGS, "-o", str(program), str(source)]
        subprocess.run(words, check=True)
        stamp.write_text(digest)


def installed(name: str) -> str:
    """The path of a program that is installed beside this Python."""
    return str(Path(sys.executable).with_name(name))


def parse_report(text: str) -> Truth:
    """Read the workload's report (its form is in truth.c)."""
    rows = [(name, [int(each) for each in numbers]) for name, *numbers in map(str.split, text.splitlines())]
    single = {name: numbers[0] for name, numbers in rows if len(numbers) == 1}
    held = None
    if "anonymous_bytes" in single:
        held = single["anonymous_bytes"] + single["page_table_bytes"]
    return Truth(
        cpu_ns=single["cpu_ns"],
        held_bytes=held,
        spikes=tuple(Spike(*numbers) for name, numbers in rows if name == "spike"),
        chunks=tuple((numbers[0], numbers[1]) for name, numbers in rows if name == "chunk"),
    )


def back_to_back_ns(schedule: Path, samples: int) -> int:
    """What one sample takes the C loop without any pause."""
    command = [str(LIMIT), "back", str(schedule), str(samples)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def paced_command(schedule: Path, period_ns: int, seconds: int) -> Sequence[str]:
    """The command of the C loop at a pace; it prints the time of each sample (ns)."""
    return [str(LIMIT), "paced", str(schedule), str(period_ns), str(seconds)]
