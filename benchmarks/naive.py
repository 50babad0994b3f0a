"""How a sampler is written at first thought, for comparison; runs for a while at a pace.

python -m benchmarks.naive files SCHEDULE PERIOD_NS SECONDS   opens, reads, parses and closes each file every time
python -m benchmarks.naive tree PID PERIOD_NS SECONDS         psutil over a process and its children
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

_SLOW_BEAT = 10


def command(way: str, subject: str | int, period_ns: int, seconds: float) -> list[str]:
    """The command that runs one of these ways in a process of its own."""
    return [sys.executable, "-m", "benchmarks.naive", way, str(subject), str(period_ns), str(seconds)]


def file_reader(schedule: str) -> Callable[[int], object]:
    """A function that takes the n-th sample from the files of a schedule (see `cpost_sampler.schedule`)."""
    beats: dict[str, list[str]] = {"fast": [], "slow": []}
    for line in schedule.splitlines():
        beat, kind, path = line.split(" ", 2)
        if kind == "r":
            beats[beat].append(path)

    def read(number: int) -> object:
        tables = {}
        for path in beats["fast" if number % _SLOW_BEAT else "slow"]:
            with open(path) as file:  # noqa: PTH123 - as it is written at first thought
                rows = [line.split() for line in file]
            tables[path] = {row[0]: row[-1] for row in rows if row}
        return tables

    return read


def tree_reader(pid: int) -> Callable[[int], object]:
    """A function that adds up CPU and memory over a process and its children."""
    import psutil

    process = psutil.Process(pid)

    def read(_number: int) -> object:
        family = [process, *process.children(recursive=True)]
        times, memory = [each.cpu_times() for each in family], [each.memory_info() for each in family]
        return sum(each.user + each.system for each in times), sum(each.rss for each in memory)

    return read


def main() -> None:
    """Take samples at absolute deadlines until the time is up."""
    way, subject, period_ns, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
    read = file_reader(Path(subject).read_text()) if way == "files" else tree_reader(int(subject))
    begin_ns, number = time.monotonic_ns(), 0
    while number * period_ns < seconds * 1e9:
        time.sleep(max(0, begin_ns + number * period_ns - time.monotonic_ns()) / 1e9)
        read(number)
        number += 1


if __name__ == "__main__":
    main()
