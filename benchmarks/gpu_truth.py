"""How true cpost's GPU memory is: on a real GPU, a process that holds a stated amount, beside another one.

Two processes make a CUDA context on the same GPU: a neighbour, which keeps its amount, and a subject. cpost's own meter
looks at the GPU while the subject has its context alone, and again while it holds a stated amount on top. Printed is
by how much the rise of "own memory" differs from what was stated, and what the context took. The aim is 64 MiB.

    .venv/bin/python benchmarks/gpu_truth.py [--gpu 0] [--sizes 64 512 4096] [--neighbour 1024] [--json]

Exit code 0 = all within the aim, 1 = not, 5 = no GPU that could be used.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from cpost.measure.gpu_watch import GpuFacts, GpuWatch
from cpost.model.gpu import Gpu

MIB = 2**20
AIM_BYTES = 64 * MIB
SETTLE_S = 0.3
SUBJECT = "subject"


class NoGpuError(Exception):
    """There is no GPU to measure on; the text says why."""


def main() -> int:
    """Measure every size and print one line each; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu", type=int, default=0, help="which GPU, in the order of `cpost doctor`")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 512, 4096], metavar="MIB")
    parser.add_argument("--neighbour", type=int, default=1024, metavar="MIB")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--hold", type=int, metavar="MIB", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.hold is not None:
        return hold(options.hold)
    watch = GpuWatch()
    try:
        gpu = chosen(watch.facts, options.gpu)
        found = [measure(watch, gpu, options.gpu, size * MIB, options.neighbour * MIB) for size in options.sizes]
    except NoGpuError as error:
        print(
            f"gpu_truth: {error}\n  what to do: start it on a host with an NVIDIA GPU and its driver", file=sys.stderr
        )
        return 5
    finally:
        watch.close()
    report(watch.facts, gpu, found, as_json=options.json)
    return 0 if all(abs(each["error_bytes"]) <= AIM_BYTES for each in found) else 1


def chosen(facts: GpuFacts, place: int) -> Gpu:
    """The GPU to measure on."""
    if not facts.gpus:
        raise NoGpuError(f"there is no GPU to be seen here ({facts.absent_because})")
    if place >= len(facts.gpus):
        raise NoGpuError(f"this host has {len(facts.gpus)} GPU(s), and no number {place}")
    return facts.gpus[place]


def measure(watch: GpuWatch, gpu: Gpu, place: int, size: int, neighbour: int) -> dict[str, int]:
    """One size: own memory with the context alone, and with the amount on top; all in bytes."""
    with holder(gpu, neighbour) as other, holder(gpu, size) as subject:
        advance(other)
        with watch.watching(SUBJECT, lambda pid: pid == subject.pid):
            context = settled(watch, place)
            advance(subject)
            total = settled(watch, place)
    return {
        "size_bytes": size,
        "context_bytes": context,
        "measured_bytes": total - context,
        "error_bytes": total - context - size,
    }


@contextmanager
def holder(gpu: Gpu, size: int) -> Iterator[subprocess.Popen[str]]:
    """A process with a context on this GPU; `advance` makes it take its amount."""
    command = [sys.executable, __file__, "--hold", str(size // MIB)]
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": gpu.uuid}
    process = subprocess.Popen(command, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        expect(process, "context")
        yield process
    finally:
        process.kill()
        process.communicate()


def advance(process: subprocess.Popen[str]) -> None:
    """Let a holder go on to its next stage, and wait until it is there."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    expect(process, "held")


def expect(process: subprocess.Popen[str], stage: str) -> None:
    """Read the next stage from a holder."""
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    if line != stage:
        raise NoGpuError(f"CUDA could not be used: {line or 'the process ended without a word'}")


def settled(watch: GpuWatch, place: int) -> int:
    """Own memory at the last of the looks that come after now."""
    watch.take(SUBJECT)
    time.sleep(SETTLE_S)
    own = [look.readings[place].own_memory_bytes for look in watch.take(SUBJECT)]
    if not own or own[-1] is None:
        raise NoGpuError("; ".join(watch.problems(SUBJECT)) or "the driver does not tell the memory of processes")
    return own[-1]


def hold(size_mib: int) -> int:
    """In a process of its own: make a context, then take an amount, then wait to be killed; tells each stage."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        print(f"{error}", flush=True)
        return 5
    device, context, at = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_uint64()
    size = ctypes.c_size_t(size_mib * MIB)
    call(cuda, "cuInit", 0)
    call(cuda, "cuDeviceGet", ctypes.byref(device), 0)
    call(cuda, "cuCtxCreate_v2", ctypes.byref(context), 0, device)
    print("context", flush=True)
    sys.stdin.readline()
    call(cuda, "cuMemAlloc_v2", ctypes.byref(at), size)
    call(cuda, "cuMemsetD8_v2", at, 1, size)
    call(cuda, "cuCtxSynchronize")
    print("held", flush=True)
    sys.stdin.readline()
    return 0


def call(cuda: ctypes.CDLL, function: str, *arguments: object) -> None:
    """Call CUDA's driver; ends the process with the reason where it fails."""
    code = getattr(cuda, function)(*arguments)
    if code:
        print(f"{function} failed with CUDA error {code}", flush=True)
        raise SystemExit(5)


def report(facts: GpuFacts, gpu: Gpu, found: list[dict[str, int]], *, as_json: bool) -> None:
    """Print what was found, with what it was found on."""
    if as_json:
        print(json.dumps({"gpu": gpu.name, "uuid": gpu.uuid, "driver": facts.driver, "sizes": found}, indent=2))
        return
    print(f"{gpu.name} ({gpu.uuid}), driver {facts.driver}; the aim is an error of {AIM_BYTES // MIB} MiB at most")
    print(f"{'stated (MiB)':>14}{'measured (MiB)':>16}{'error (MiB)':>14}{'context (MiB)':>16}")
    for each in found:
        size, context, measured, error = (
            each[key] / MIB for key in ("size_bytes", "context_bytes", "measured_bytes", "error_bytes")
        )
        print(f"{size:>14.0f}{measured:>16.1f}{error:>+14.1f}{context:>16.1f}")


if __name__ == "__main__":
    sys.exit(main())
