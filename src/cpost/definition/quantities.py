"""Amounts of memory and CPU as Kubernetes, Argo and Compose files write them <-> bytes and millicores.

What is read is rounded up to a whole byte or millicore; what is printed is rounded up too, so that a request never
falls below what was recommended.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction

from cpost.units import MIB, MILLICORES_PER_CORE, round_up

_KUBERNETES_STEP_BYTES = 16 * MIB
_CPU_STEP_MILLICORES = 10
# https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
_SUFFIXES = {
    "": Fraction(1), "n": Fraction(1, 10**9), "u": Fraction(1, 10**6), "m": Fraction(1, 1000),
    "k": Fraction(10**3), "M": Fraction(10**6), "G": Fraction(10**9), "T": Fraction(10**12), "P": Fraction(10**15),
    "E": Fraction(10**18),
    "Ki": Fraction(2**10), "Mi": Fraction(2**20), "Gi": Fraction(2**30), "Ti": Fraction(2**40), "Pi": Fraction(2**50),
    "Ei": Fraction(2**60),
}  # fmt: skip
# A zero before the number is octal for readers of YAML 1.1, as Kubernetes' is, and none for others: no amount at all.
_KUBERNETES = re.compile(r"\+?(?!0[0-9])(\d{1,18}(?:\.\d{0,18})?|\.\d{1,18})(?:[eE]([+-]?\d{1,2})|([A-Za-z]{0,2}))")
# Compose reads sizes as Docker does, where each letter is a power of 1024.
_COMPOSE_FACTORS = {"": 1, "b": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40, "p": 2**50}
_COMPOSE = re.compile(r"(\d{1,18}(?:\.\d{1,18})?) ?([bkmgtp]?)(?:i?b)?", re.IGNORECASE)
_CORES = re.compile(r"\d{1,9}(?:\.\d{0,9})?|\.\d{1,9}")


def parse_kubernetes_memory(text: str) -> int:
    """Read "512Mi", "1.5G", "1e9" or "4096" as bytes.

    Raises:
        ValueError: not a quantity.
    """
    return math.ceil(_kubernetes(text))


def parse_kubernetes_cpu(text: str) -> int:
    """Read "250m", "1.5" or "2" as millicores.

    Raises:
        ValueError: not a quantity.
    """
    return math.ceil(_kubernetes(text) * MILLICORES_PER_CORE)


def _kubernetes(text: str) -> Fraction:
    match = _KUBERNETES.fullmatch(text)
    factor = _SUFFIXES.get(match[3] or "") if match else None
    if match is None or factor is None:
        raise ValueError(f"{text!r} is not a Kubernetes quantity such as 512Mi, 250m or 1.5")
    return Fraction(match[1]) * (Fraction(10) ** int(match[2]) if match[2] else factor)


def parse_compose_memory(text: str) -> int:
    """Read "512M", "1.5gb" or "4096" as bytes; every letter is a power of 1024, as in Docker's options.

    Raises:
        ValueError: not a size.
    """
    match = _COMPOSE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a size such as 512M or 1.5gb")
    return math.ceil(Fraction(match[1]) * _COMPOSE_FACTORS[match[2].lower()])


def parse_compose_cpus(text: str) -> int:
    """Read "0.50" or "2" cores as millicores.

    Raises:
        ValueError: not a number of cores.
    """
    if not _CORES.fullmatch(text):
        raise ValueError(f"{text!r} is not a number of cores such as 0.50")
    return math.ceil(Fraction(text) * MILLICORES_PER_CORE)


def kubernetes_memory(size_bytes: int) -> str:
    """Print bytes as whole Mi, rounded up to multiples of 16Mi: 256 * 10^6 bytes are "256Mi"."""
    return f"{round_up(size_bytes, _KUBERNETES_STEP_BYTES) // MIB}Mi"


def kubernetes_cpu(millicores: int) -> str:
    """Print millicores, rounded up to 10m: "1500m", or "2" where they are whole cores."""
    rounded = round_up(millicores, _CPU_STEP_MILLICORES)
    return f"{rounded}m" if rounded % MILLICORES_PER_CORE else str(rounded // MILLICORES_PER_CORE)


def compose_memory(size_bytes: int) -> str:
    """Print bytes as whole "M", which are 2^20 bytes there."""
    return f"{-(-size_bytes // MIB)}M"


def compose_cpus(millicores: int) -> str:
    """Print millicores as cores with two decimals, rounded up: "1.50"."""
    hundredths = -(-millicores // _CPU_STEP_MILLICORES)
    return f"{hundredths // 100}.{hundredths % 100:02}"
