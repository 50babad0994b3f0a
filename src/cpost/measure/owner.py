"""Who owns what cpost makes: a process, named so that it cannot be mistaken for a later one with the same number.

Everything outside cpost's own memory carries its owner: containers and networks as labels; control groups and
temporary folders, which have no labels, in their names.
"""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

LABEL_RUN = "cpost.run"
LABEL_VERSION = "cpost.version"
LABEL_OPERATOR = "cpost.operator"
_LABEL_BOOT, _LABEL_PID, _LABEL_START, _LABEL_PID_NS = "cpost.boot", "cpost.pid", "cpost.pid_start", "cpost.pid_ns"
NAME_PREFIX = "cpost_"
_NAME = re.compile(r"cpost_(?P<run>\w+?)_b(?P<boot>[0-9a-f]+)n(?P<ns>\d+)p(?P<pid>\d+)s(?P<start>\d+)(?:_.*|\..*)?")


@dataclass(frozen=True, slots=True)
class Owner:
    """A process on one boot of one machine.

    Attributes:
        boot: first 12 digits of the kernel's boot id.
        pid_namespace: inode of the process's pid namespace; numbers of another one say nothing here.
        start_ticks: start time in clock ticks since boot, field 22 of proc(5)'s stat.
    """

    boot: str
    pid_namespace: int
    pid: int
    start_ticks: int

    @classmethod
    def current(cls) -> Owner:
        """This process."""
        return cls(_boot(), _pid_namespace(), os.getpid(), _start_ticks(os.getpid()) or 0)

    def is_dead(self) -> bool:
        """True only where that is proven: same boot, same pid namespace, and no such process any more."""
        if (self.boot, self.pid_namespace) != (_boot(), _pid_namespace()):
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass  # another user's: it is there
        try:
            return _start_ticks(self.pid) != self.start_ticks
        except OSError:
            return False  # /proc hides other users' processes (hidepid)

    def labels(self, run_id: str) -> dict[str, str]:
        """The labels of a run's containers and networks."""
        return {
            LABEL_RUN: run_id,
            _LABEL_BOOT: self.boot,
            _LABEL_PID_NS: str(self.pid_namespace),
            _LABEL_PID: str(self.pid),
            _LABEL_START: str(self.start_ticks),
        }

    def name(self, run_id: str) -> str:
        """The name of a run's control groups and temporary folder (more may follow after "_" or ".")."""
        return f"{NAME_PREFIX}{run_id}_b{self.boot}n{self.pid_namespace}p{self.pid}s{self.start_ticks}"

    @classmethod
    def from_labels(cls, labels: Mapping[str, str]) -> Owner | None:
        """The owner that these labels name; None where they are not cpost's."""
        try:
            numbers = (int(labels[_LABEL_PID_NS]), int(labels[_LABEL_PID]), int(labels[_LABEL_START]))
            return cls(labels[_LABEL_BOOT], *numbers)
        except (KeyError, ValueError):
            return None

    @classmethod
    def from_name(cls, name: str) -> tuple[str, Owner] | None:
        """Run id and owner that a name made by `name` tells; None where cpost did not make it."""
        match = _NAME.fullmatch(name)
        if match is None:
            return None
        return match["run"], cls(match["boot"], int(match["ns"]), int(match["pid"]), int(match["start"]))


def new_run_id() -> str:
    """A run id that sorts by time and does not repeat: UTC time and four random characters, no dash (see `_boot`)."""
    return time.strftime("%Y%m%dT%H%M%S", time.gmtime()) + "x" + secrets.token_hex(2)


def _boot() -> str:
    # No dashes: systemd reads one in a slice's name as a level of its tree.
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")[:12]


def _pid_namespace() -> int:
    return Path("/proc/self/ns/pid").stat().st_ino


def _start_ticks(pid: int) -> int | None:
    """Start time of a process; None for a dead one that nobody has waited for; OSError where it cannot be read."""
    text = Path(f"/proc/{pid}/stat").read_text()
    fields = text.rpartition(")")[2].split()  # the command before may hold spaces and parentheses
    return None if fields[0] in "ZX" else int(fields[19])
