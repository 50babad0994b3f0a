"""The sampling process: samples one step after the other, as the process that started it says.

It is a process of its own so that whatever cpost's main process does, the interpreter's lock never holds up a sample.
Commands come in through standard input and messages go out through standard output, one pickled object after the other.
It ends with its input, so it does not outlive cpost.
"""

from __future__ import annotations

import fcntl
import os
import pickle
import signal
import sys
import threading
from dataclasses import dataclass
from typing import NoReturn

from cpost.measure.cgroup import Group, Hierarchies
from cpost.measure.life import Life, LifeWatch
from cpost.model import Sample, Totals

_OUTLET_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Watch:
    """Command: watch for a step's first instruction and sample it (see `LifeWatch`)."""

    hierarchies: Hierarchies
    parent: Group | None
    period_ns: int


@dataclass(frozen=True, slots=True)
class Attach:
    """Command: the main process's id, as the engine knows it."""

    pid: int


@dataclass(frozen=True, slots=True)
class Finish:
    """Command: stop sampling if it still goes on, and tell the totals."""


@dataclass(frozen=True, slots=True)
class Ready:
    """Message: commands are listened to."""


@dataclass(frozen=True, slots=True)
class Seen:
    """Message: the step is watched, has begun, or has ended."""

    life: Life
    exact: bool


@dataclass(frozen=True, slots=True)
class Finished:
    """Message: the answer to `Finish`."""

    life: Life
    exact: bool
    totals: Totals | None
    error: str


Command = Watch | Attach | Finish
Message = Ready | Seen | Finished | list[Sample]


class _Outlet:
    """Sends messages without ever waiting for their reader: what does not fit into the pipe goes with the next one."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._waiting = b""
        self._lock = threading.Lock()
        os.set_blocking(fd, False)
        try:
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _OUTLET_BYTES)
        except OSError:
            pass  # more pipe memory than this user may have: the default holds some seconds

    def send(self, message: Message) -> None:
        with self._lock:
            self._waiting += pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
            self._write()

    def flush(self) -> None:
        """Wait until all is written."""
        with self._lock:
            os.set_blocking(self._fd, True)
            while self._waiting:
                self._write()
            os.set_blocking(self._fd, False)

    def _write(self) -> None:
        try:
            written = os.write(self._fd, self._waiting)
        except BlockingIOError:
            return
        self._waiting = self._waiting[written:]


class _Server:
    """Carries out commands, one step at a time."""

    def __init__(self, outlet: _Outlet) -> None:
        self._outlet = outlet
        self._watch: LifeWatch | None = None

    def carry_out(self, command: Command) -> None:
        if isinstance(command, Watch):
            self._watch = LifeWatch(
                command.hierarchies, command.parent, command.period_ns, self._outlet.send, self._tell
            )
            self._watch.start()
        elif self._watch is not None:
            if isinstance(command, Attach):
                self._watch.attach(command.pid)
            else:
                self._finish(self._watch)

    def _tell(self) -> None:
        if self._watch is not None:
            self._outlet.send(Seen(self._watch.life, self._watch.exact))

    def _finish(self, watch: LifeWatch) -> None:
        self._watch = None
        if not watch.stop():
            os._exit(1)  # its thread hangs in the kernel: files must not be closed under it
        totals = watch.totals() if watch.error is None else None
        watch.close()
        self._outlet.send(Finished(watch.life, watch.exact, totals, "" if watch.error is None else repr(watch.error)))
        self._outlet.flush()


def main() -> NoReturn:
    """Carry out what comes in until the input ends; does not return."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    outlet = _Outlet(sys.stdout.fileno())
    server = _Server(outlet)
    outlet.send(Ready())
    while True:
        try:
            command = pickle.load(sys.stdin.buffer)  # noqa: S301 - from our own parent
        except (EOFError, pickle.UnpicklingError):
            os._exit(0)  # cpost waits for this process: the interpreter's tidying up takes longer
        server.carry_out(command)
