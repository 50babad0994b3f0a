"""One meter over control groups v2, v1 and hybrid.

Kernel facts used here (Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/ of the kernel's sources):

- Throttling is counted per group only, not for descendants, and so is the out-of-memory kill count of v1: those come
  from the container's own group.
- The memory high-water mark: v1 `memory.max_usage_in_bytes`, set back to the present usage by writing 0; v2
  `memory.peak` from Linux 5.19, which from 6.12 can be set back for one open file by writing to it.
- On a hybrid host the controllers are on v1; the v2 mount beside them tells pressure stall information only.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from pathlib import Path

from cpost.measure.cgroup import UNIFIED, Group, Hierarchies
from cpost.model import Detail, Sample

_READ_SIZE = 16384
_NEW_HIGH_BYTES = 2**20


class Meter(ABC):
    """Reads one group's counters; files are opened once and read again in place.

    Args:
        group: the group whose totals are read.
        own: the group was made by cpost, so its high-water mark may be set back.
    """

    def __init__(self, group: Group, *, own: bool) -> None:
        self._group = group
        self._own = own
        self._highest: int | None = None
        self._mark: int | None = None
        self._detail_high = 0
        self._files: list[_File] = []
        self._oom_seen: int | None = None
        self._throttled_seen: tuple[int | None, int | None] = (None, None)
        self._open_files()

    def read(self, t_ns: int, *, detailed: bool) -> Sample | None:
        """One sample with the group's counters as they stand; None where the group is gone.

        Memory that rises above all that was seen is looked at in detail whether asked for or not: what it consists of
        at its highest decides the need.
        """
        cpu_us, user_us, system_us = self._cpu()
        if cpu_us is None:
            return None
        peak = self._interval_peak()
        memory = self._memory.number()
        self._note_high(peak, memory)
        if not self._own:  # this group goes away with its last process: its mark must be read while it stands
            self._mark = self._standing_mark() or self._mark
        throttled_us, periods = self._throttled()
        detail = self._detail() if detailed or self._is_new_high(memory) else None
        if detail is not None:
            self._detail_high = max(self._detail_high, memory or 0)
        pids = None if detail is None else self._pids.number()
        return Sample(t_ns, cpu_us, user_us, system_us, throttled_us, periods, memory, peak, detail, pids)

    def _is_new_high(self, memory_bytes: int | None) -> bool:
        return memory_bytes is not None and memory_bytes > self._detail_high + _NEW_HIGH_BYTES

    def begin(self) -> int | None:
        """Forget the high-water mark so far; returns it (bytes)."""
        peak = self._interval_peak()
        self._note_high(peak)
        before, self._highest = self._highest, None
        return before if peak is not None else self._standing_mark()

    def peak_bytes(self) -> int | None:
        """The memory high-water mark since `begin`; None where the kernel keeps none."""
        peak = self._interval_peak()
        if peak is not None:
            self._note_high(peak)
            return self._highest
        return self._standing_mark() or self._mark

    def pids_peak(self) -> int | None:
        """Most processes and threads at once; None where the kernel keeps no such mark."""
        return self._pids_peak.number()

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            file.close()
        self._files.clear()

    def attach(self, container: Group) -> None:
        """Also read what only the container's own group counts: throttling and, on v1, out-of-memory kills.

        Call when the container runs. A v2 group has no memory files before the runtime has switched its controllers
        on, so what was missing is looked for again.
        """
        for file in self._files:
            file.open_if_missing()
        self._open_container(container)

    def _open(self, controller: str, name: str, *, group: Group | None = None, write: bool = False) -> _File:
        directory = (group or self._group).directories.get(controller)
        file = _File(directory / name if directory else None, write=write)
        self._files.append(file)
        return file

    def _note_high(self, *values: int | None) -> None:
        self._highest = max((value for value in (self._highest, *values) if value is not None), default=None)

    def _pressure(self) -> tuple[int | None, ...]:
        cpu, memory, io = (_pressure_totals(file.read()) for file in self._pressures)
        return cpu[0], memory[0], memory[1], io[0], io[1]

    def _open_pressure(self) -> None:
        self._pressures = [self._open(UNIFIED, f"{name}.pressure") for name in ("cpu", "memory", "io")]

    _memory: _File
    _pids: _File
    _pids_peak: _File

    @abstractmethod
    def _open_files(self) -> None: ...
    @abstractmethod
    def _open_container(self, container: Group) -> None: ...
    @abstractmethod
    def _cpu(self) -> tuple[int | None, int | None, int | None]: ...
    @abstractmethod
    def _throttled(self) -> tuple[int | None, int | None]: ...
    @abstractmethod
    def _interval_peak(self) -> int | None:
        """The mark since it was last set back, and set it back; None where that cannot be done."""

    @abstractmethod
    def _standing_mark(self) -> int | None:
        """The mark as it stands, since the group was made."""

    @abstractmethod
    def _detail(self) -> Detail: ...


class _MeterV1(Meter):
    """v1 and hybrid: one directory per controller; CPU in nanoseconds."""

    def _open_files(self) -> None:
        self._usage = self._open("cpuacct", "cpuacct.usage")
        self._user = self._open("cpuacct", "cpuacct.usage_user")
        self._system = self._open("cpuacct", "cpuacct.usage_sys")
        self._memory = self._open("memory", "memory.usage_in_bytes")
        self._max = self._open("memory", "memory.max_usage_in_bytes", write=self._own)
        self._stat = self._open("memory", "memory.stat")
        self._kernel = self._open("memory", "memory.kmem.usage_in_bytes")
        self._pids = self._open("pids", "pids.current")
        self._pids_peak = self._open("pids", "pids.peak")
        self._io = self._open("blkio", "blkio.throttle.io_service_bytes_recursive")
        self._open_pressure()
        self._cpu_stat = self._oom = _File(None)
        if not self._own:
            self._open_container(self._group)

    def _open_container(self, container: Group) -> None:
        self._cpu_stat = self._open("cpu", "cpu.stat", group=container)
        self._oom = self._open("memory", "memory.oom_control", group=container)

    def _cpu(self) -> tuple[int | None, int | None, int | None]:
        return _us(self._usage.number()), _us(self._user.number()), _us(self._system.number())

    def _throttled(self) -> tuple[int | None, int | None]:
        table = self._cpu_stat.table()
        if table:
            self._throttled_seen = (_us(table.get(b"throttled_time")), table.get(b"nr_throttled"))
        return self._throttled_seen

    def _interval_peak(self) -> int | None:
        if not self._own:
            return None
        peak = self._max.number()
        return peak if self._max.write(b"0") else None

    def _standing_mark(self) -> int | None:
        return self._max.number()

    def _oom_kills(self) -> int | None:
        table = self._oom.table()
        self._oom_seen = table.get(b"oom_kill", self._oom_seen)
        return self._oom_seen

    def _detail(self) -> Detail:
        stat = self._stat.table()
        cache, shmem = stat.get(b"total_cache"), stat.get(b"total_shmem")
        read_bytes, write_bytes = _io_v1(self._io.read())
        return Detail(
            stat.get(b"total_rss"),
            shmem,
            cache,
            stat.get(b"total_inactive_file"),
            self._kernel.number(),
            None if cache is None else max(0, cache - (shmem or 0)),
            self._oom_kills(),
            read_bytes,
            write_bytes,
            *self._pressure(),
        )


class _MeterV2(Meter):
    """v2: one directory; CPU in microseconds, all in cpu.stat."""

    def _open_files(self) -> None:
        self._cpu_stat = self._open(UNIFIED, "cpu.stat")
        self._memory = self._open(UNIFIED, "memory.current")
        self._peak = self._open(UNIFIED, "memory.peak")
        self._peak_since = self._open(UNIFIED, "memory.peak", write=True)
        self._stat = self._open(UNIFIED, "memory.stat")
        self._events = self._open(UNIFIED, "memory.events")
        self._pids = self._open(UNIFIED, "pids.current")
        self._pids_peak = self._open(UNIFIED, "pids.peak")
        self._io = self._open(UNIFIED, "io.stat")
        self._open_pressure()
        self._container_cpu_stat = _File(None) if self._own else self._cpu_stat

    def _open_container(self, container: Group) -> None:
        self._container_cpu_stat = self._open(UNIFIED, "cpu.stat", group=container)

    def _cpu(self) -> tuple[int | None, int | None, int | None]:
        stat = self._cpu_stat.table()
        return stat.get(b"usage_usec"), stat.get(b"user_usec"), stat.get(b"system_usec")

    def _throttled(self) -> tuple[int | None, int | None]:
        stat = self._container_cpu_stat.table()
        if b"throttled_usec" in stat:
            self._throttled_seen = (stat[b"throttled_usec"], stat.get(b"nr_throttled"))
        return self._throttled_seen

    def _interval_peak(self) -> int | None:
        peak = self._peak_since.number()
        return peak if self._peak_since.write(b"0") else None

    def _standing_mark(self) -> int | None:
        return self._peak.number()

    def _detail(self) -> Detail:
        stat = self._stat.table()
        file, shmem = stat.get(b"file"), stat.get(b"shmem")
        reclaimable = None if file is None else max(0, file - (shmem or 0)) + stat.get(b"slab_reclaimable", 0)
        read_bytes, write_bytes = _io_v2(self._io.read()) if self._io.usable else (None, None)
        return Detail(
            stat.get(b"anon"),
            shmem,
            file,
            stat.get(b"inactive_file"),
            stat.get(b"kernel"),
            reclaimable,
            self._events.table().get(b"oom_kill"),
            read_bytes,
            write_bytes,
            *self._pressure(),
        )


def open_meter(hierarchies: Hierarchies, group: Group, *, own: bool) -> Meter:
    """Open the meter that fits the host's layout on `group` (see `Meter`)."""
    return _MeterV2(group, own=own) if hierarchies.layout == "v2" else _MeterV1(group, own=own)


class _File:
    """A file that is opened once and read in place; a missing or vanished one reads as empty."""

    __slots__ = ("_fd", "_flags", "_parsed", "_path", "usable")

    def __init__(self, path: Path | None, *, write: bool = False) -> None:
        self._path = path
        self._flags = (os.O_RDWR if write else os.O_RDONLY) | os.O_CLOEXEC
        self._fd = -1
        self._parsed: tuple[bytes, dict[bytes, int]] = (b"", {})
        self.open_if_missing()

    def open_if_missing(self) -> None:
        if self._path is not None and self._fd < 0:
            try:
                self._fd = os.open(self._path, self._flags)
            except OSError:
                pass  # not on this kernel, not yet, or not for us: unknown
        self.usable = self._fd >= 0

    def read(self) -> bytes:
        if self._fd < 0:
            return b""
        try:
            return os.pread(self._fd, _READ_SIZE, 0)
        except OSError:
            return b""  # ENODEV: the group is gone

    def number(self) -> int | None:
        try:
            return int(self.read())
        except ValueError:
            return None

    def table(self) -> dict[bytes, int]:
        """Lines of "key value" as a table; lines of another shape are left out."""
        text = self.read()
        if text != self._parsed[0]:  # most such files stand still from one sample to the next
            self._parsed = (text, _parse_table(text))
        return self._parsed[1]

    def write(self, value: bytes) -> bool:
        if self._fd < 0:
            return False
        try:
            os.pwrite(self._fd, value, 0)
        except OSError:
            self.usable = False
            return False
        return True

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _parse_table(text: bytes) -> dict[bytes, int]:
    table = {}
    for line in text.splitlines():
        key, _, value = line.partition(b" ")
        try:
            table[key] = int(value)
        except ValueError:
            continue
    return table


def _pressure_totals(text: bytes) -> tuple[int | None, int | None]:
    """Microseconds stalled (some, full) from a pressure file."""
    totals: dict[bytes, int] = {}
    for line in text.splitlines():
        kind, _, rest = line.partition(b" ")
        try:
            totals[kind] = int(rest.rpartition(b"total=")[2])
        except ValueError:
            continue
    return totals.get(b"some"), totals.get(b"full")


def _io_v1(text: bytes) -> tuple[int | None, int | None]:
    """Bytes (read, written) over all devices from lines such as "8:0 Read 4096".

    Kernels count here only once somebody has set a limit on the device, so zeros alone say nothing: unknown.
    """
    sums = {b"Read": 0, b"Write": 0}
    for line in text.splitlines():
        words = line.split()
        if len(words) == 3 and words[1] in sums and words[2].isdigit():
            sums[words[1]] += int(words[2])
    return (sums[b"Read"], sums[b"Write"]) if any(sums.values()) else (None, None)


def _io_v2(text: bytes) -> tuple[int | None, int | None]:
    """Bytes (read, written) over all devices from io.stat; an empty file means that there was no io yet."""
    read_bytes = write_bytes = 0
    for word in text.split():
        key, _, value = word.partition(b"=")
        if value.isdigit():
            read_bytes += int(value) if key == b"rbytes" else 0
            write_bytes += int(value) if key == b"wbytes" else 0
    return read_bytes, write_bytes


def _us(value_ns: int | None) -> int | None:
    return None if value_ns is None else value_ns // 1000
