"""The kernel's counter files: opened once, read in place, made numbers of.

Whatever makes no sense is unknown (None), and never an error: files of another kernel, "max", a count beyond 2^63.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from os import pread
from pathlib import Path
from typing import Generic, TypeVar

from cpost.measure.cgroup import Group

T = TypeVar("T")

_READ_SIZE = 16384
_LARGEST = 2**63  # what lies above is no count but an error, or "unlimited"
_HOST_DEV_SHM = "/dev/shm"  # noqa: S108 - only compared with
_NO_LIMIT = 2**62  # v1 says 2^63 less a page where there is none


class Counter:
    """A counter that only rises. One that somebody sets back goes on from where it was, and the fact is noted."""

    __slots__ = ("_last", "_lost", "resets")

    def __init__(self) -> None:
        self._last = self._lost = self.resets = 0

    def count(self, value: int | None) -> int | None:
        """The count as it would stand if nobody had set it back."""
        if value is None:
            return None
        if value < self._last:
            self.resets += 1
            self._lost += self._last
        self._last = value
        return value + self._lost


class CounterFile:
    """A file that is opened once and read in place; one that is missing is /dev/null, which reads as empty."""

    __slots__ = ("_flags", "_path", "fd", "usable")

    def __init__(self, path: Path | None, *, write: bool = False) -> None:
        self._path = path
        self._flags = (os.O_RDWR if write else os.O_RDONLY) | os.O_CLOEXEC
        self.fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self.usable = False
        self.open_if_missing()

    def open_if_missing(self) -> None:
        """Look again for a file that was not there."""
        if self._path is None or self.usable:
            return
        try:
            found = os.open(self._path, self._flags)
        except OSError:
            return  # not on this kernel, not yet, or not for us: unknown
        os.close(self.fd)
        self.fd, self.usable = found, True

    def read(self) -> bytes:
        """What the file says now; empty where it is gone."""
        try:
            return pread(self.fd, _READ_SIZE, 0)
        except OSError:
            return b""  # ENODEV: the group is gone

    def number(self) -> int | None:
        """The one number in it."""
        return number(self.read())

    def write(self, value: bytes) -> bool:
        """Write; False where the kernel does not take it."""
        try:
            return self.usable and os.pwrite(self.fd, value, 0) > 0
        except OSError:
            return False

    def close(self) -> None:
        """Close it; it reads as empty from now on."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd, self._path, self.usable = -1, None, False


class EitherFile:
    """The first of two files, and where that one says nothing any more, the second."""

    def __init__(self, first: CounterFile, second: CounterFile | EitherFile | DevShm) -> None:
        self._first = first
        self._second = second

    def read(self) -> bytes:
        """What they say now."""
        return self._first.read() or self._second.read()


class DevShm:
    """What lies in a container's /dev/shm, from the file system itself.

    Args:
        pid: a process of the container; None = unknown.
    """

    def __init__(self, pid: int | None = None) -> None:
        self._path = f"/proc/{pid}/root/dev/shm" if pid is not None and _has_its_own_dev_shm(pid) else None

    def read(self) -> bytes:
        """Bytes in use as text, as a counter file would say it; empty where there is none or it is gone."""
        if self._path is None:
            return b""
        try:
            found = os.statvfs(self._path)
        except OSError:
            return b""
        return b"%d" % ((found.f_blocks - found.f_bfree) * found.f_frsize)


def _has_its_own_dev_shm(pid: int) -> bool:
    path = f"/proc/{pid}/root/dev/shm"
    try:
        return os.path.ismount(path) and not os.path.samefile(path, _HOST_DEV_SHM)  # noqa: PTH121
    except OSError:
        return False


class OomEvents:
    """Counts the out-of-memory events of a v1 group that has a limit of its own, also past the life of groups below it.

    The kernel adds one to an event descriptor for each (cgroup-v1/memory.rst, section 9).
    """

    def __init__(self, group: Group | None) -> None:
        self._fd: int | None = None
        self._seen = 0
        directory = group.directories.get("memory") if group else None
        if directory is not None:
            with contextlib.suppress(OSError, ValueError):
                self._register(directory)

    def _register(self, directory: Path) -> None:
        if int((directory / "memory.limit_in_bytes").read_text()) > _NO_LIMIT:
            return
        event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        control = os.open(directory / "memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
        try:
            (directory / "cgroup.event_control").write_text(f"{event} {control}")
            self._fd = event
        finally:
            os.close(control)
            if self._fd is None:
                os.close(event)

    def count(self) -> int | None:
        """Events until now; None where they are not told."""
        if self._fd is None:
            return None
        with contextlib.suppress(BlockingIOError):
            self._seen += os.eventfd_read(self._fd)
        return self._seen

    def close(self) -> None:
        """Give back the descriptor."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


class Parsed(Generic[T]):
    """What a text means. Most files stand still from one reading to the next: then nothing is worked out anew."""

    __slots__ = ("_meaning", "_parse", "_text")

    def __init__(self, parse: Callable[[bytes], T]) -> None:
        self._parse = parse
        self._text = b""
        self._meaning = parse(b"")

    def __call__(self, text: bytes) -> T:
        """The meaning of this text."""
        if text != self._text:
            self._text, self._meaning = text, self._parse(text)
        return self._meaning


def number(text: bytes) -> int | None:
    """The one number that a file holds."""
    try:
        value = int(text)
    except ValueError:
        return None
    return value if 0 <= value < _LARGEST else None


def table(text: bytes) -> dict[bytes, int]:
    """Lines of "key value" as a table; lines of another shape are left out."""
    words = text.split()
    try:
        values = [*map(int, words[1::2])]
        if not values or (min(values) >= 0 and max(values) < _LARGEST):
            return dict(zip(words[::2], values, strict=True))
    except ValueError:
        pass
    return _table_of_good_lines(text)


def _table_of_good_lines(text: bytes) -> dict[bytes, int]:
    found = {}
    for line in text.splitlines():
        key, _, value = line.partition(b" ")
        count = number(value)
        if count is not None:
            found[key] = count
    return found


def pressure_totals(text: bytes) -> tuple[int | None, int | None]:
    """Microseconds stalled (some, full) from a pressure file."""
    totals: dict[bytes, int] = {}
    for line in text.splitlines():
        kind, _, rest = line.partition(b" ")
        try:
            totals[kind] = int(rest.rpartition(b"total=")[2])
        except ValueError:
            continue
    return totals.get(b"some"), totals.get(b"full")


def io_v1(text: bytes) -> tuple[int | None, int | None]:
    """Bytes (read, written) over all devices from lines such as "8:0 Read 4096".

    Kernels count here only once somebody has set a limit on the device, so zeros alone say nothing: unknown.
    """
    sums = {b"Read": 0, b"Write": 0}
    for line in text.splitlines():
        words = line.split()
        if len(words) == 3 and words[1] in sums and words[2].isdigit():
            sums[words[1]] += int(words[2])
    return (sums[b"Read"], sums[b"Write"]) if any(sums.values()) else (None, None)


def io_v2(text: bytes) -> tuple[int | None, int | None]:
    """Bytes (read, written) over all devices from io.stat; an empty file means that there was no io yet."""
    read_bytes = write_bytes = 0
    for word in text.split():
        key, _, value = word.partition(b"=")
        if value.isdigit():
            read_bytes += int(value) if key == b"rbytes" else 0
            write_bytes += int(value) if key == b"wbytes" else 0
    return read_bytes, write_bytes


def microseconds(value_ns: int | None) -> int | None:
    """Nanoseconds, rounded down; unknown stays unknown."""
    return None if value_ns is None else value_ns // 1000
