"""One meter over control groups v2, v1 and hybrid.

Kernel facts used here (Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/ of the kernel's sources):

- Throttling is counted per group only, not for descendants, and so is the out-of-memory kill count of v1: those come
  from the container's own group. An event descriptor on `memory.oom_control` counts out-of-memory events of a v1 group
  that has a limit of its own (mm/memcontrol-v1.c: mem_cgroup_oom_notify), and outlives the groups below it.
- The memory high-water mark: v1 `memory.max_usage_in_bytes`, set back to the present usage by writing 0; v2
  `memory.peak` from Linux 5.19, which from 6.12 can be set back for one open file by writing to it.
- What memory.stat says of a group's descendants is brought up to date now and then only (mm/memcontrol.c: flushing);
  what it says of its own memory lags less, so it is read from the container's own group while that is there.
- On a hybrid host the controllers are on v1; the v2 mount beside them tells pressure stall information only.

A reading has two halves, because the first one is done some hundred times a second with cold caches: `look` fetches the
files' bytes, `sample` makes numbers of them, many at a time.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from os import pread

from cpost.measure.cgroup import UNIFIED, Group, Hierarchies
from cpost.measure.counters import (
    Counter,
    CounterFile,
    DevShm,
    EitherFile,
    OomEvents,
    Parsed,
    io_v1,
    io_v2,
    microseconds,
    number,
    pressure_totals,
    table,
)
from cpost.model import Detail, Sample

_NUMBER_SIZE, _TABLE_SIZE = 32, 512
_NEW_HIGH_BYTES = 2**20
_PRESSURES = ("cpu", "memory", "io")
_Stalls = tuple[int | None, int | None, int | None, int | None, int | None]

# The bytes of: CPU, memory, high-water mark, throttling; what memory consists of; and all the rest.
Look = tuple[bytes, bytes, bytes, bytes, "tuple[bytes, ...] | None", "tuple[bytes, ...] | None"]


class Meter(ABC):
    """Reads one group's counters; files are opened once and read again in place.

    Args:
        group: the group whose totals are read.
        own: the group was made by cpost, so its high-water mark may be set back.

    """

    def __init__(self, group: Group, *, own: bool) -> None:
        self._group = group
        self._own = own
        self._may_reset_mark = own
        self._highest: int | None = None
        self._mark: int | None = None
        self._detail_high = 0
        self._files: list[CounterFile] = []
        self._throttling = Parsed(self._parse_throttling)
        self._throttled_seen: tuple[int | None, int | None] = (None, None)
        self._memory_stat = Parsed(table)
        self._pressure_totals = tuple(Parsed(pressure_totals) for _ in _PRESSURES)
        self._counters = (Counter(), Counter(), Counter())
        self._open_files()

    @property
    def resets(self) -> int:
        """How often the CPU counter was found below its last value: somebody has set it back."""
        return self._counters[0].resets

    def look(self, *, detailed: bool, complete: bool = False) -> Look | None:
        """Fetch what the files say now; None where the group is gone.

        Args:
            detailed: also what memory consists of.
            complete: also all the rest, each of which costs a file to read.

        Memory that rises above all that was seen is looked at in detail whether asked for or not: what it consists of
        at its highest decides the need.
        """
        try:
            cpu = pread(self._cpu.fd, _TABLE_SIZE, 0)
            throttled = pread(self._throttled.fd, _TABLE_SIZE, 0)
            memory = pread(self._memory.fd, _NUMBER_SIZE, 0)
            mark = self._take_mark(memory)  # the last: what is taken must not be lost
        except OSError:  # one of the groups is gone: ENODEV
            cpu, memory, throttled = self._cpu.read(), self._memory.read(), self._throttled.read()
            mark = b""
            with contextlib.suppress(OSError):
                mark = self._take_mark(memory)
        if not cpu:
            return None
        if not detailed and not complete and not self._is_new_high(memory):
            return cpu, memory, mark, throttled, None, None
        self._detail_high = max(self._detail_high, number(memory) or 0)
        parts = tuple([file.read() for file in self._parts])
        rest = tuple([file.read() for file in self._rest]) if complete else None
        return cpu, memory, mark, throttled, parts, rest

    def sample(self, t_ns: int, look: Look, read_ns: int = 0) -> Sample | None:
        """Make a sample of a look, in the order of time; None where the CPU counter makes no sense."""
        cpu, memory, mark, throttled, parts, rest = look
        cpu_us, user_us, system_us = self._cpu_times(cpu, rest)
        if cpu_us is None:
            return None
        memory_bytes = number(memory)
        peak = self._note_mark(number(mark), memory_bytes)
        if throttled:
            self._throttled_seen = self._throttling(throttled)
        throttled_us, periods = self._throttled_seen
        detail = None if parts is None else self._memory_parts(parts)
        pids = None
        if detail is not None and rest is not None:
            detail, pids = self._with_rest(detail, rest), number(rest[0])
        return Sample(
            t_ns, cpu_us, user_us, system_us, throttled_us, periods, memory_bytes, peak, detail, pids, read_ns
        )

    def read(self, t_ns: int, *, detailed: bool) -> Sample | None:
        """Both halves at once; all there is, or the fast counters alone."""
        look = self.look(detailed=detailed, complete=detailed)
        return None if look is None else self.sample(t_ns, look)

    def begin(self) -> int | None:
        """Forget the high-water mark so far; returns it (bytes)."""
        mark = self._interval_mark()
        before = max((value for value in (self._highest, mark) if value is not None), default=None)
        self._highest = None
        return before if mark is not None else self._standing_mark()

    def peak_bytes(self) -> int | None:
        """The memory high-water mark since `begin`; None where the kernel keeps none."""
        mark = self._interval_mark()
        if mark is not None:
            self._note_high(mark)
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

    def attach(self, container: Group, pid: int | None = None) -> None:
        """Also read what only the container tells: throttling, its /dev/shm and, on v1, out-of-memory kills.

        Call when the container, with process `pid` in it, runs. A v2 group has no memory files before the runtime has
        switched its controllers on, so what was missing is looked for again.
        """
        for file in self._files:
            file.open_if_missing()
        self._may_reset_mark = self._own
        self._open_container(container)
        self._parts = (*self._parts[:-1], DevShm(pid))

    # ------------------------------------------------------------ what both versions share

    def _open(self, controller: str, name: str, *, group: Group | None = None, write: bool = False) -> CounterFile:
        directory = (group or self._group).directories.get(controller)
        file = CounterFile(directory / name if directory else None, write=write)
        self._files.append(file)
        return file

    def _nothing_yet(self) -> CounterFile:
        """Stands in for a file of the container's until there is one."""
        file = CounterFile(None)
        self._files.append(file)
        return file

    def _fresher(self, controller: str, container: Group) -> EitherFile:
        """The container's memory.stat as long as it is there: a group's own lags less than what is above it."""
        return EitherFile(self._open(controller, "memory.stat", group=container), self._parts[0])

    def _is_new_high(self, memory: bytes) -> bool:
        return (number(memory) or 0) > self._detail_high + _NEW_HIGH_BYTES

    def _take_mark(self, memory: bytes) -> bytes:
        """The mark since the last look, and set it back; where that cannot be done: nothing of an own group's, and of
        a foreign one's, which goes away with its last process, the mark as it stands."""
        if not self._own:
            return pread(self._standing.fd, _NUMBER_SIZE, 0)
        if not self._may_reset_mark:
            return b""
        mark = pread(self._resettable.fd, _NUMBER_SIZE, 0)
        if mark != memory:  # equal: the interval that begins now begins at the mark
            self._reset_mark()
        return mark if self._may_reset_mark else b""

    def _reset_mark(self) -> None:
        self._may_reset_mark = self._resettable.write(b"0")

    def _interval_mark(self) -> int | None:
        """The mark since it was last set back, set back for certain; None where that cannot be done."""
        if not self._own:
            return None
        mark = self._resettable.number()
        self._reset_mark()
        return mark if self._may_reset_mark else None

    def _standing_mark(self) -> int | None:
        return self._standing.number()

    def _note_mark(self, mark: int | None, memory: int | None) -> int | None:
        """Keep the highest; returns the interval's peak where there are such."""
        if not self._own:
            self._mark = mark or self._mark
            mark = None
        self._note_high(mark)
        self._note_high(memory)
        return mark

    def _note_high(self, value: int | None) -> None:
        if value is not None and (self._highest is None or value > self._highest):
            self._highest = value

    def _with_rest(self, detail: Detail, rest: tuple[bytes, ...]) -> Detail:
        cpu, memory, memory_full, io, io_full = self._stalled_us(rest[-3:])
        kills, read_bytes, write_bytes = self._kills_and_io(rest)
        return detail._replace(
            oom_kills=kills,
            io_read_bytes=read_bytes,
            io_write_bytes=write_bytes,
            psi_cpu_some_us=cpu,
            psi_memory_some_us=memory,
            psi_memory_full_us=memory_full,
            psi_io_some_us=io,
            psi_io_full_us=io_full,
        )

    def _stalled_us(self, texts: tuple[bytes, ...]) -> _Stalls:
        """Microseconds stalled: cpu some, memory some and full, io some and full."""
        cpu, memory, io = (totals(text) for totals, text in zip(self._pressure_totals, texts, strict=True))
        return cpu[0], memory[0], memory[1], io[0], io[1]

    _cpu: CounterFile
    _memory: CounterFile
    _resettable: CounterFile
    _standing: CounterFile
    _throttled: CounterFile
    _pids_peak: CounterFile
    _parts: tuple[CounterFile | EitherFile | DevShm, ...]  # what tells of the parts of memory; last /dev/shm
    _rest: tuple[CounterFile, ...]  # first pids.current, last the pressures

    @abstractmethod
    def _open_files(self) -> None: ...
    @abstractmethod
    def _open_container(self, container: Group) -> None: ...
    @abstractmethod
    def _cpu_times(self, cpu: bytes, rest: tuple[bytes, ...] | None) -> tuple[int | None, int | None, int | None]:
        """Microseconds: all, user, system."""

    @abstractmethod
    def _parse_throttling(self, text: bytes) -> tuple[int | None, int | None]:
        """Microseconds throttled, and periods."""

    @abstractmethod
    def _memory_parts(self, parts: tuple[bytes, ...]) -> Detail: ...
    @abstractmethod
    def _kills_and_io(self, rest: tuple[bytes, ...]) -> tuple[int | None, int | None, int | None]:
        """Out-of-memory kills, bytes read, bytes written."""


class _MeterV1(Meter):
    """v1 and hybrid: one directory per controller; CPU in nanoseconds, its user and system parts in timer ticks."""

    def _open_files(self) -> None:
        self._cpu = self._open("cpuacct", "cpuacct.usage")
        self._memory = self._open("memory", "memory.usage_in_bytes")
        self._resettable = self._open("memory", "memory.max_usage_in_bytes", write=self._own)
        self._standing = self._resettable
        self._pids_peak = self._open("pids", "pids.peak")
        self._parts = (
            self._open("memory", "memory.stat"),
            self._open("memory", "memory.kmem.usage_in_bytes"),
            DevShm(),
        )
        self._rest = (
            self._open("pids", "pids.current"),
            self._open("cpuacct", "cpuacct.usage_user"),
            self._open("cpuacct", "cpuacct.usage_sys"),
            self._open("blkio", "blkio.throttle.io_service_bytes_recursive"),
            self._nothing_yet(),
            *(self._open(UNIFIED, f"{name}.pressure") for name in _PRESSURES),
        )
        self._throttled = self._nothing_yet()
        self._oom_seen: int | None = None
        self._oom_events = OomEvents(self._group if self._own else None)
        if not self._own:
            self._open_container(self._group)

    def close(self) -> None:
        """See `Meter`."""
        super().close()
        self._oom_events.close()

    def _open_container(self, container: Group) -> None:
        self._throttled = self._open("cpu", "cpu.stat", group=container)
        oom = self._open("memory", "memory.oom_control", group=container)
        self._parts = (self._fresher("memory", container), *self._parts[1:])
        self._rest = (*self._rest[:4], oom, *self._rest[5:])

    def _cpu_times(self, cpu: bytes, rest: tuple[bytes, ...] | None) -> tuple[int | None, int | None, int | None]:
        total, user, system = self._counters
        cpu_us = total.count(microseconds(number(cpu)))
        if rest is None:
            return cpu_us, None, None
        return cpu_us, user.count(microseconds(number(rest[1]))), system.count(microseconds(number(rest[2])))

    def _parse_throttling(self, text: bytes) -> tuple[int | None, int | None]:
        stat = table(text)
        return microseconds(stat.get(b"throttled_time")), stat.get(b"nr_throttled")

    def _oom_kills(self, text: bytes) -> int | None:
        """The container's count while it is there; after that the last one seen, and whether there was any event."""
        if text:
            self._oom_seen = table(text).get(b"oom_kill", self._oom_seen)
            return self._oom_seen
        events = self._oom_events.count()
        return self._oom_seen if events is None else max(self._oom_seen or 0, min(events, 1))

    def _memory_parts(self, parts: tuple[bytes, ...]) -> Detail:
        stat = self._memory_stat(parts[0])
        cache, shmem = stat.get(b"total_cache"), stat.get(b"total_shmem")
        return Detail(
            stat.get(b"total_rss"),
            shmem,
            cache,
            stat.get(b"total_inactive_file"),
            number(parts[1]),
            None if cache is None else max(0, cache - (shmem or 0)),
            dev_shm_bytes=number(parts[-1]),
        )

    def _kills_and_io(self, rest: tuple[bytes, ...]) -> tuple[int | None, int | None, int | None]:
        return self._oom_kills(rest[4]), *io_v1(rest[3])


class _MeterV2(Meter):
    """v2: one directory; CPU in microseconds, all in cpu.stat."""

    def _open_files(self) -> None:
        self._cpu = self._open(UNIFIED, "cpu.stat")
        self._memory = self._open(UNIFIED, "memory.current")
        self._standing = self._open(UNIFIED, "memory.peak")
        self._resettable = self._open(UNIFIED, "memory.peak", write=True)
        self._pids_peak = self._open(UNIFIED, "pids.peak")
        self._io = self._open(UNIFIED, "io.stat")
        self._parts = (self._open(UNIFIED, "memory.stat"), DevShm())
        self._rest = (
            self._open(UNIFIED, "pids.current"),
            self._open(UNIFIED, "memory.events"),
            self._io,
            *(self._open(UNIFIED, f"{name}.pressure") for name in _PRESSURES),
        )
        self._throttled = self._nothing_yet() if self._own else self._cpu

    def _open_container(self, container: Group) -> None:
        self._throttled = self._open(UNIFIED, "cpu.stat", group=container)
        self._parts = (self._fresher(UNIFIED, container), *self._parts[1:])

    def _cpu_times(self, cpu: bytes, _: tuple[bytes, ...] | None) -> tuple[int | None, int | None, int | None]:
        stat = table(cpu)
        total, user, system = self._counters
        return (
            total.count(stat.get(b"usage_usec")),
            user.count(stat.get(b"user_usec")),
            system.count(stat.get(b"system_usec")),
        )

    def _parse_throttling(self, text: bytes) -> tuple[int | None, int | None]:
        stat = table(text)
        return stat.get(b"throttled_usec"), stat.get(b"nr_throttled")

    def _memory_parts(self, parts: tuple[bytes, ...]) -> Detail:
        stat = self._memory_stat(parts[0])
        file, shmem = stat.get(b"file"), stat.get(b"shmem")
        reclaimable = None if file is None else max(0, file - (shmem or 0)) + stat.get(b"slab_reclaimable", 0)
        return Detail(
            stat.get(b"anon"),
            shmem,
            file,
            stat.get(b"inactive_file"),
            stat.get(b"kernel"),
            reclaimable,
            dev_shm_bytes=number(parts[-1]),
        )

    def _kills_and_io(self, rest: tuple[bytes, ...]) -> tuple[int | None, int | None, int | None]:
        kills = table(rest[1]).get(b"oom_kill")
        return (kills, *io_v2(rest[2])) if self._io.usable else (kills, None, None)


def open_meter(hierarchies: Hierarchies, group: Group, *, own: bool) -> Meter:
    """Open the meter that fits the host's layout on `group` (see `Meter`)."""
    return _MeterV2(group, own=own) if hierarchies.layout == "v2" else _MeterV1(group, own=own)
