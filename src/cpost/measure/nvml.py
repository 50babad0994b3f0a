"""NVML: what the NVIDIA driver says of this host's GPUs; a host without any yields a reason, never zeros."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GpuFacts:
    """The GPUs' names, or why there are none to see."""

    names: tuple[str, ...] = ()
    driver: str = ""
    absent_because: str = ""


def gpu_facts() -> GpuFacts:
    """Ask NVML once."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return GpuFacts(absent_because=str(error))
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        names = tuple(_text(pynvml.nvmlDeviceGetName(handle)) for handle in handles)
        return GpuFacts(names, _text(pynvml.nvmlSystemGetDriverVersion()))
    except pynvml.NVMLError as error:
        return GpuFacts(absent_because=str(error))
    finally:
        pynvml.nvmlShutdown()


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
