"""What of a folder's files lies in the kernel's page cache, and how it is put out of there.

Whoever reads what is cached already is faster, and is not charged for it, however small its limit: the memory belongs
to whoever read it first.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import stat
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

_MOST_FILES = 10_000  # that are looked at: the others will be much like them
_MOST_ENTRIES = 200_000  # that are walked, of any kind: a few seconds
_MOST_BYTES = 1 << 30  # of a file, from its start
_MOST_BYTES_IN_ALL = 1 << 35
_MAP_FAILED = ctypes.c_void_p(-1).value
_OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]


class Cached(NamedTuple):
    """Bytes that were looked at, and those of them that are in the page cache."""

    cached_bytes: int
    bytes: int


def cached(path: Path) -> Cached | None:
    """What of a file, or of the files below a folder, is in the page cache; None where the kernel does not tell, as of
    files of other users."""
    found = whole = 0
    for descriptor, size in islice(_files(_Walk(path)), _MOST_FILES):
        length = min(size, _MOST_BYTES)
        pages = _pages(descriptor, length)
        if pages is None:
            return None
        found += min(length, sum(page & 1 for page in pages) * mmap.PAGESIZE)
        whole += length
        if whole >= _MOST_BYTES_IN_ALL:
            break
    return Cached(found, whole)


def forget(path: Path) -> bool:
    """Put a file, or the files below a folder, out of the page cache, as far as the kernel does so: not what is still
    to be written, or mapped. Nothing is lost by it but the time to read them again.

    Returns:
        False where there are so many that only the first were put out.
    """
    walk = _Walk(path)
    for descriptor, _ in _files(walk):
        with contextlib.suppress(OSError):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    return not walk.cut_short


class _Walk:
    """Paths of a file, or of the regular files below a folder: no link is followed, and no other file system entered.

    Attributes:
        cut_short: there was more than is walked.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.cut_short = False

    def __iter__(self) -> Iterator[str]:
        if os.path.isfile(self._path):  # noqa: PTH113  says no where nobody may look, and does not raise
            yield str(self._path)
        else:
            for number, entry in enumerate(_entries(self._path)):
                if number >= _MOST_ENTRIES:
                    self.cut_short = True
                    return
                # Asked before it is opened: to open a device or a pipe may do something.
                if entry.is_file(follow_symlinks=False):
                    yield entry.path


def _entries(top: Path) -> Iterator[os.DirEntry[str]]:
    """All that lies below a folder, without what cannot be read."""
    folders = [str(top)]
    while folders:
        folder = folders.pop()
        with contextlib.suppress(OSError), os.scandir(folder) as found:
            if _device(folder) != _device(str(top)):
                continue
            for entry in found:
                yield entry
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)


def _device(folder: str) -> int:
    return os.stat(folder).st_dev  # noqa: PTH116  there may be very many


def _files(paths: Iterable[str]) -> Iterator[tuple[int, int]]:
    """Descriptors of the files that hold anything and may be read, each until the next one, with their sizes."""
    for each in paths:
        try:
            descriptor = os.open(each, _OPEN_FLAGS)
        except OSError:
            continue
        try:
            status = os.fstat(descriptor)
            if stat.S_ISREG(status.st_mode) and status.st_size:
                yield descriptor, status.st_size
        finally:
            os.close(descriptor)


def _pages(descriptor: int, length: int) -> bytes | None:
    """A byte for each page of a file, whose lowest bit says whether it is cached."""
    if os.geteuid() != 0 and os.fstat(descriptor).st_uid != os.geteuid():
        return None  # the kernel would say of each page that it is
    start = _libc.mmap(None, length, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
    if start == _MAP_FAILED:
        return None
    pages = ctypes.create_string_buffer(-(-length // mmap.PAGESIZE))
    try:
        return pages.raw if _libc.mincore(start, length, pages) == 0 else None
    finally:
        _libc.munmap(start, length)
