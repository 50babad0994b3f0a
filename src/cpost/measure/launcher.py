"""The start of a command: a child process that waits, under a name of its own, until it is told to become the command.

In between it can be put into a control group, and its change of name tells the command's first instruction. It is
forked, not spawned: what it will exec is looked up as the shell would, in the user's folder and environment, with
every descriptor that the user has handed down, and what fails is told by the system's own error.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from cpost.errors import CpostError
from cpost.measure.life import LAUNCHER

_NOT_FOUND, _NOT_EXECUTABLE = 127, 126
_READY, _GO = b"r", b"g"
_HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)


class NotStarted(CpostError):
    """A command could not be started; the exit code is the shell's: 127 where it is not there, 126 otherwise."""

    def __init__(self, command: Sequence[str], number: int) -> None:
        missing = number in (2, 20)  # ENOENT, ENOTDIR
        hint = (
            "check its name and PATH (for a script: is the interpreter of its first line there?)"
            if missing
            else "check that it is a program that you may execute (for a script: chmod +x, and a first line #!/bin/sh)"
        )
        super().__init__(f"cannot start {command[0]}: {os.strerror(number)}", hint)
        self.exit_code = _NOT_FOUND if missing else _NOT_EXECUTABLE


class Launcher:
    """A child process that becomes the command at `go`; make it before any thread is started.

    Args:
        command: program, looked up in PATH, and arguments.
        environment: what the command gets.

    Attributes:
        pid: the process's, before and after.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._command = command
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored by some parent, children could not be waited for
        status_read, status_write = os.pipe2(os.O_CLOEXEC)
        go_read, go_write = os.pipe2(os.O_CLOEXEC)
        self.pid = os.fork()
        if self.pid == 0:
            os.close(go_write)  # else it would not see the end of a parent that dies
            _become(command, environment, status_write, go_read)
        os.close(status_write)
        os.close(go_read)
        self._status, self._go = status_read, go_write
        os.read(self._status, len(_READY))

    def go(self) -> None:
        """Let it become the command; returns when it has.

        Raises:
            NotStarted: it could not, and has been waited for.
        """
        with contextlib.suppress(BrokenPipeError):  # somebody killed it
            os.write(self._go, _GO)
        number = os.read(self._status, 16)
        if number:
            os.waitpid(self.pid, 0)
            raise NotStarted(self._command, int(number))

    def close(self) -> None:
        """Give back descriptors and wait for its end; one that was never told to go ends now."""
        os.close(self._go)
        os.close(self._status)
        with contextlib.suppress(ChildProcessError):  # it was waited for
            os.waitpid(self.pid, 0)


def _become(command: Sequence[str], environment: Mapping[str, str], status: int, go: int) -> NoReturn:
    """In the child: wait, then become the command. Nothing may escape into the parent's code."""
    try:
        for number in _HANDLED:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)
        for number in _IGNORED_BY_PYTHON:
            signal.signal(number, signal.SIG_DFL)
        Path("/proc/self/comm").write_text(LAUNCHER)
        os.write(status, _READY)
        if os.read(go, len(_GO)) == _GO:
            os.execvpe(command[0], list(command), dict(environment))  # noqa: S606
    except OSError as error:
        os.write(status, str(error.errno).encode())
    finally:
        os._exit(_NOT_FOUND)
