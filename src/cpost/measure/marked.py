"""Processes of a bare command, known by a variable that they inherit: its value is the run's name (`Owner.name`).

Where there is no control group that holds them, this is how they are found once cpost itself is gone. A process that
clears its environment is not found.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from cpost.measure.owner import NAME_PREFIX

VARIABLE = "CPOST_RUN"
_PROC = Path("/proc")


def names() -> list[str]:
    """Names of the runs whose processes are there, dead runs' and others', each once."""
    return sorted({name for _, name in _marked()})


def carries(pid: int, name: str) -> bool | None:
    """Whether a process carries the name; None where it is gone, or another user's."""
    try:
        return f"{VARIABLE}={name}".encode() in (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return None


def kill(name: str, timeout_s: float = 5.0) -> bool:
    """Kill the processes of one run; True when none is left."""
    deadline = time.monotonic() + timeout_s
    while pids := [pid for pid, found in _marked() if found == name]:
        if time.monotonic() > deadline:
            return False
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
    return True


def _marked() -> Iterator[tuple[int, str]]:
    """Process ids with the name that they carry; this process is left out, a dead one has no variables any more."""
    begin = f"{VARIABLE}={NAME_PREFIX}".encode()
    for entry in os.scandir(_PROC):
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            text = (_PROC / entry.name / "environ").read_bytes()
        except OSError:
            continue  # gone, or another user's
        for variable in text.split(b"\0") if begin in text else ():
            if variable.startswith(begin):
                yield int(entry.name), variable.partition(b"=")[2].decode("utf-8", "replace")
