"""NVML, NVIDIA's management library: the one door to it. Every call may hang: measure.gpu_watch keeps a thread for it.

Codes and meanings are those of nvml.h (NVML API reference guide).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import pynvml

from cpost.model.gpu import BusySpan, Gpu
from cpost.units import NS_PER_S, NS_PER_US

T = TypeVar("T")

_NEVER = (
    pynvml.NVML_ERROR_INVALID_ARGUMENT,
    pynvml.NVML_ERROR_NOT_SUPPORTED,
    pynvml.NVML_ERROR_NO_PERMISSION,
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
)
_LOST = (
    pynvml.NVML_ERROR_UNINITIALIZED,
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
    pynvml.NVML_ERROR_GPU_IS_LOST,
    pynvml.NVML_ERROR_RESET_REQUIRED,
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
)
_OLDER_DRIVER = (pynvml.NVML_ERROR_FUNCTION_NOT_FOUND, pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH)
_CLOCKS_AGREE_NS = 10 * NS_PER_S
_FULLY_BUSY = 100


class NoDriverError(Exception):
    """There is no driver to ask; the text says why."""


class Driver:
    """The driver, opened.

    Attributes:
        version: the driver's own.
        devices: every GPU, or in its place its instances where it is divided (MIG).
        problems: what could not be used, one line each.

    Raises:
        NoDriverError: no library, no driver, no permission.
    """

    def __init__(self) -> None:
        self.problems: list[str] = []
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            raise NoDriverError(_words(error)) from error
        try:
            self.version = str(pynvml.nvmlSystemGetDriverVersion())
            self.devices = tuple(self._find())
        except pynvml.NVMLError as error:
            self.close()
            raise NoDriverError(_words(error)) from error

    def _find(self) -> Iterator[Device]:
        for index in range(pynvml.nvmlDeviceGetCount()):
            try:
                handle = pynvml.nvmlDeviceGetHandleByIndex(index)
                whole = Device(handle)
                instances = _instances(handle)
                found = [Device(each, whole.gpu.uuid) for each in instances or ()]
            except pynvml.NVMLError as error:
                self.problems.append(f"GPU {index} of the driver's list cannot be used: {_words(error)}")
                continue
            if instances == []:
                self.problems.append(f"GPU {index} of the driver's list is divided (MIG), but has no instances to use")
            yield from found if instances is not None else [whole]

    def close(self) -> None:
        """Let go of the driver."""
        try:
            pynvml.nvmlShutdown()
        except pynvml.NVMLError:
            pass  # it has gone before


class Device:
    """One GPU or instance."""

    def __init__(self, handle: Any, parent_uuid: str = "") -> None:
        self.handle = handle
        memory: int | None = None
        try:
            memory = int(pynvml.nvmlDeviceGetMemoryInfo(handle).total)
        except pynvml.NVMLError:
            pass  # a GPU that shares the host's memory has none of its own
        uuid, name = pynvml.nvmlDeviceGetUUID(handle), pynvml.nvmlDeviceGetName(handle)
        self.gpu = Gpu(str(uuid), str(name), memory, parent_uuid)

    @property
    def is_instance(self) -> bool:
        """Whether it is a part of a divided GPU."""
        return bool(self.gpu.parent_uuid)


class Failure(NamedTuple):
    """A figure that could not be read, by the driver's code; `text` is for the user."""

    figure: str
    code: int
    text: str


class DeviceReading(NamedTuple):
    """One look at one GPU, whoever's it is; None = not read.

    held is who is listed, by host process id, with the memory held in bytes. busy are the stretches that the driver has
    finished since the look before.
    """

    held: dict[int, int | None] | None = None
    memory_bytes: int | None = None
    busy: tuple[BusySpan, ...] | None = None
    power_mw: int | None = None
    sm_clock_mhz: int | None = None
    failures: tuple[Failure, ...] = ()


class GpuMeter:
    """Reads one GPU. A figure that the driver refuses for good is not asked for again.

    Args:
        label: what the GPU is called in failures.
    """

    def __init__(self, device: Device, label: str) -> None:
        self._handle = device.handle
        self._label = label
        self._whole = not device.is_instance
        self._busy = _Busy(device.handle)
        self._lost = False
        self._stopped: set[str] = set()
        self._failures: list[Failure] = []

    def renew(self) -> None:
        """Ask again for what was refused: somebody begins to look who has not been told."""
        self._lost = False
        self._stopped.clear()

    def read(self) -> DeviceReading:
        """One look. Of an instance the driver tells memory and processes only."""
        handle = self._handle
        self._failures = []
        reading = DeviceReading(
            held=self._try("the list of processes", lambda: _processes(handle)),
            memory_bytes=self._try("memory", lambda: _memory_used(handle)),
        )
        if self._whole:
            reading = reading._replace(
                busy=self._try("utilisation", self._busy.read),
                power_mw=self._try("power", lambda: int(pynvml.nvmlDeviceGetPowerUsage(handle))),
                sm_clock_mhz=self._try("the SM clock", lambda: _sm_clock(handle)),
            )
        return reading._replace(failures=tuple(self._failures))

    def _try(self, figure: str, read: Callable[[], T]) -> T | None:
        if self._lost or figure in self._stopped:
            return None
        try:
            return read()
        except pynvml.NVMLError as error:
            self._failed(figure, error)
            return None

    def _failed(self, figure: str, error: pynvml.NVMLError) -> None:
        code = int(error.value)
        what = f"{self._label}: {figure} cannot be read: {_words(error)}"
        if code in _LOST:
            self._lost = True
            what = f"{self._label} does not answer any more: {_words(error)}"
        elif code in _NEVER:
            self._stopped.add(figure)
        else:
            what += "; tried again, there may be gaps"
        self._failures.append(Failure(figure, code, what))


class _Busy:
    """A GPU's busy time. The driver averages over 1/6 s to 1 s (nvmlUtilization_t), at its own pace.

    nvmlDeviceGetSamples tells each such average once, with the time of its end; a driver without it tells the last
    average over and over.
    """

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self._buffered = True
        self._last_us: int | None = None
        self._looked_ns = time.time_ns()

    def read(self) -> tuple[BusySpan, ...]:
        """What has become known since the last call; nothing at the first, which is about the time before."""
        before_ns, self._looked_ns = self._looked_ns, time.time_ns()
        if self._buffered:
            try:
                return self._new_samples(before_ns)
            except pynvml.NVMLError as error:
                if error.value not in _NEVER:
                    raise
                self._buffered = False
        first, self._last_us = self._last_us is None, 0
        percent = int(pynvml.nvmlDeviceGetUtilizationRates(self._handle).gpu)
        return () if first else (BusySpan(self._looked_ns, self._looked_ns - before_ns, percent),)

    def _new_samples(self, before_ns: int) -> tuple[BusySpan, ...]:
        samples = self._samples(self._last_us or 0)
        if self._last_us is None:
            self._last_us = max((at_us for at_us, _ in samples), default=before_ns // NS_PER_US)
            return ()
        spans, last_us = [], self._last_us
        for at_us, percent in sorted(samples):
            if at_us > last_us and percent <= _FULLY_BUSY:
                spans.append(BusySpan(at_us * NS_PER_US, (at_us - last_us) * NS_PER_US, percent))
                last_us = at_us
        self._last_us = last_us
        # The times are the host's clock in practice; where they are not, the newest has just ended.
        ahead_ns = last_us * NS_PER_US - self._looked_ns
        shift_ns = 0 if abs(ahead_ns) < _CLOCKS_AGREE_NS else ahead_ns
        return tuple(span._replace(end_ns=span.end_ns - shift_ns) for span in spans)

    def _samples(self, since_us: int) -> list[tuple[int, int]]:
        try:
            _, samples = pynvml.nvmlDeviceGetSamples(self._handle, pynvml.NVML_GPU_UTILIZATION_SAMPLES, since_us)
        except pynvml.NVMLError as error:
            if error.value == pynvml.NVML_ERROR_NOT_FOUND:  # nothing new
                return []
            raise
        return [(int(sample.timeStamp), int(sample.sampleValue.uiVal)) for sample in samples if sample.timeStamp]


def _instances(handle: Any) -> list[Any] | None:
    """Handles of the instances of a divided GPU; None where it is not divided."""
    try:
        current, _ = pynvml.nvmlDeviceGetMigMode(handle)
    except pynvml.NVMLError:
        return None  # it cannot be divided
    if current != pynvml.NVML_DEVICE_MIG_ENABLE:
        return None
    found = []
    for index in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            found.append(pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index))
        except pynvml.NVMLError as error:
            if error.value != pynvml.NVML_ERROR_NOT_FOUND:  # a place without an instance
                raise
    return found


def _memory_used(handle: Any) -> int:
    """In use by anybody, in bytes; without what the driver keeps for itself, where it tells that apart."""
    try:
        return int(pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2).used)
    except pynvml.NVMLError as error:
        if error.value not in _OLDER_DRIVER:
            raise
        return int(pynvml.nvmlDeviceGetMemoryInfo(handle).used)


def _processes(handle: Any) -> dict[int, int | None]:
    """Who is on the GPU, by host process id, with the memory held there in bytes (None = not told).

    A process that computes and draws is on both lists, with the same figure; clients of a multi-process server (MPS)
    are on a list of their own.
    """
    try:
        found = pynvml.nvmlDeviceGetComputeRunningProcesses_v3(handle)
    except pynvml.NVMLError as error:
        if error.value not in _OLDER_DRIVER:
            raise
        found = pynvml.nvmlDeviceGetComputeRunningProcesses_v2(handle)
    for other in (pynvml.nvmlDeviceGetGraphicsRunningProcesses_v3, pynvml.nvmlDeviceGetMPSComputeRunningProcesses_v3):
        try:
            found += other(handle)
        except pynvml.NVMLError:
            continue  # not every driver has these lists
    held: dict[int, int | None] = {}
    for process in found:
        used, pid = process.usedGpuMemory, int(process.pid)
        known = held.get(pid)
        held[pid] = known if used is None else max(int(used), known or 0)
    return held


def _sm_clock(handle: Any) -> int:
    return int(pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM))


def _words(error: pynvml.NVMLError) -> str:
    """pynvml's words for a code, and the code; it asks the library for the words of a code that it does not know."""
    return f"{error} (NVML error {error.value})"
