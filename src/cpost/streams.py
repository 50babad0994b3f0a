"""Standard input, output and error of the whole process: always there, and never in the way of the work.

A write that fails ends the output, not the work. That something was lost, whoever wrote it, is told once, at the end.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import select
import sys
from typing import Any, TextIO

from cpost.errors import StoreError
from cpost.terminal import escaped

_ESCAPES = "cpost-escapes"


class Streams:
    """What the process writes to; made by `prepare`."""

    def __init__(self) -> None:
        codecs.register_error(_ESCAPES, _escape)
        self._outlets: list[_Outlet] = []

    def add(self, stream: TextIO | None, forgiven: tuple[int, ...]) -> TextIO:
        """A stream in the place of Python's own (None = closed), whose writes never fail."""
        # As it is for who calls close: what is closed cannot be written to. A file that is opened later must not come
        # in its place, and take what was meant for it.
        descriptor = stream.fileno() if stream else _held_open(os.O_RDONLY)
        outlet = _Outlet(descriptor, forgiven)
        self._outlets.append(outlet)
        lines = outlet.isatty() or bool(stream and stream.line_buffering)
        encoding = stream.encoding if stream else "utf-8"
        return io.TextIOWrapper(io.BufferedWriter(outlet), encoding, _ESCAPES, line_buffering=lines)

    def require(self) -> None:
        """Raise `StoreError` where something could not be written, and somebody wanted to read on."""
        if not self._outlets:
            return
        sys.stdout.flush()
        sys.stderr.flush()
        for outlet in self._outlets:
            if outlet.lost is not None:
                raise _loss(outlet.lost)


class _Outlet(io.RawIOBase):
    """A descriptor that takes all that it is given; from the first write that fails on, nothing is passed on.

    Args:
        forgiven: errors that say that nobody wants to read on.
    """

    def __init__(self, descriptor: int, forgiven: tuple[int, ...]) -> None:
        self._descriptor = descriptor
        self._forgiven = forgiven
        self._ended = False
        self.lost: OSError | None = None

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        if not self._ended:
            try:
                return self._passed_on(data)
            except OSError as error:
                self._ended = True
                self.lost = None if error.errno in self._forgiven else error
        return len(data)

    def _passed_on(self, data: Any) -> int:
        while True:
            try:
                return os.write(self._descriptor, data)
            except BlockingIOError:  # somebody else who has this open does not want to wait; we do
                select.select([], [self._descriptor], [])


def prepare() -> Streams:
    """Put streams that never fail in the place of the process's own; those that a caller has replaced stay.

    A reader of stdout who has gone (`| head`) has seen enough; so has who closes stderr. Standard input that is closed
    is an empty one.
    """
    streams = Streams()
    if sys.stdin is None:
        _held_open(os.O_WRONLY)
        sys.stdin = io.StringIO()
    if sys.stdout is sys.__stdout__:
        sys.stdout = streams.add(sys.__stdout__, (errno.EPIPE,))
    if sys.stderr is sys.__stderr__:
        sys.stderr = streams.add(sys.__stderr__, (errno.EPIPE, errno.EBADF))
    return streams


def _held_open(mode: int) -> int:
    """Take the lowest descriptor that is free, the closed stream's, for a file that refuses what the stream is for."""
    descriptor = os.open(os.devnull, mode)
    os.set_inheritable(descriptor, True)
    return descriptor


def _escape(error: UnicodeError) -> tuple[str, int]:
    """What the encoding has no character for, as an escape; so are bytes of file names that are no text."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(escaped, error.object[error.start : error.end])), error.end


def _loss(error: OSError) -> StoreError:
    if error.errno == errno.EBADF:
        return StoreError(
            "the output could not be written: stdout is not open for writing", "open it, or send it to /dev/null"
        )
    return StoreError(
        f"the output could not be written: {error.strerror}",
        "free space where it goes, or send it elsewhere; with --metrics_dir a run's results are kept in files as well",
    )
