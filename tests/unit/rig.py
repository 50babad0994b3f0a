"""A group of cpost's own on a plain file system, and a real child process as the container's main process."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from cpost.measure.cgroup import Group, Hierarchies
from cpost.measure.life import LifeWatch
from cpost.model import Sample, Totals

PERIOD = 2 * 10**6
MIB = 2**20
FILES = {
    "cpu.stat": "usage_usec {cpu:08}\nuser_usec {cpu:08}\nsystem_usec 00000000\n",
    "memory.current": "{memory:012}\n",
    "memory.stat": "anon {memory:012}\nfile 000000000000\nshmem 000000000000\ninactive_file 000000000000\n",
    "memory.events": "oom_kill {kills:08}\n",
    "io.stat": "8:0 rbytes={io:08} wbytes=00000000\n",
    "pids.peak": "00000003\n",
}


@dataclass
class Rig:
    """A group of cpost's own with a container's below it, and the container's main process."""

    root: Path
    child: subprocess.Popen[bytes]
    samples: list[Sample] = field(default_factory=list)

    def __post_init__(self) -> None:
        (self.root / "proc/self").mkdir(parents=True)
        (self.root / "proc/self/mountinfo").write_text("1 1 0:1 / /cg rw - cgroup2 cgroup2 rw\n")
        (self.root / "cg/own/container").mkdir(parents=True)
        (self.root / f"proc/{self.child.pid}").mkdir()
        (self.root / f"proc/{self.child.pid}/cgroup").write_text("0::/own/container\n")
        self.hierarchies = Hierarchies.read(self.root)

    @property
    def own(self) -> Group:
        return self.hierarchies.group("own")

    def kernel_says(self, group: str = "cg/own", *, cpu: int = 0, memory: int = 0, io: int = 0, kills: int = 0) -> None:
        """Change the counters in place, each in one write of the same length."""
        for name, text in FILES.items():
            file = os.open(self.root / group / name, os.O_RDWR | os.O_CREAT)
            os.pwrite(file, text.format(cpu=cpu, memory=memory, io=io, kills=kills).encode(), 0)
            os.close(file)

    def container_runs(self) -> None:
        (self.root / "cg/own/container/cgroup.procs").write_text(f"{self.child.pid}\n")

    def sampler(self, parent: Group | None) -> LifeWatch:
        return LifeWatch(self.hierarchies, parent, PERIOD, self.samples.extend)

    def ends(self, sampler: LifeWatch) -> Totals:
        """Let the process end, wait for the thread, and take the totals."""
        assert self.child.stdin is not None
        self.child.stdin.close()
        self.child.wait(10)
        sampler._thread.join(10)
        assert sampler.error is None
        totals = sampler.totals()
        assert totals is not None
        sampler.stop()
        sampler.close()
        return totals
