"""Cores, bytes and times: the only place that parses, prints and rounds them.

Memory in megabytes means 10^6 bytes (MB) everywhere a Clara definition or the first cpost says "MB";
binary units are always written MiB, GiB. Requests are rounded up, never down.
"""

from __future__ import annotations

import calendar
import math
import mmap
import re
import time
from decimal import Decimal
from fractions import Fraction

MB = 10**6
MIB = 2**20
NS_PER_S = 10**9
NS_PER_MS = 10**6
NS_PER_US = 10**3
US_PER_S = 10**6
MILLICORES_PER_CORE = 1000

_BYTE_UNITS = {
    "": 1, "b": 1,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40,
    "ki": 2**10, "kib": 2**10, "mi": 2**20, "mib": 2**20, "gi": 2**30, "gib": 2**30, "ti": 2**40, "tib": 2**40,
}  # fmt: skip
_DURATION_UNITS_NS = {"us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "min": 60 * 10**9, "h": 3600 * 10**9}
_QUANTITY = re.compile(r"\s*(\d{1,15}(?:\.\d{1,9})?)\s*([A-Za-z]*)\s*")
_NUMBER = re.compile(r"\s*([0-9]{1,6}(?:\.[0-9]{1,6})?)\s*(%?)\s*")
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(?:Z|([+-])(\d\d):(\d\d))")


def round_up(value: int, step: int) -> int:
    """Round an integer up to the next multiple of `step` (both in the same unit)."""
    return -(-value // step) * step


def whole_pages(size_bytes: int) -> int:
    """A memory limit as the kernel will take it: rounded down to pages."""
    return size_bytes - size_bytes % mmap.PAGESIZE


def parse_bytes(text: str) -> int:
    """Read "512MB", "1.5 GiB", "1g" or "4096" (bytes) as bytes; fractions of a byte are rounded up.

    kB, MB, GB, TB are powers of 1000. KiB, MiB, GiB, TiB (with or without B) are powers of 1024, and so are the
    single letters k, m, g, t in either case, because that is what they mean in Docker's own options.

    Raises:
        ValueError: not a quantity of bytes.
    """
    return _parse(text, _BYTE_UNITS, "a size such as 512MB, 1.5GiB or 4096")


def parse_duration_ns(text: str) -> int:
    """Read "10ms", "1.5s", "5m", "2h" or "30" (seconds) as nanoseconds.

    Raises:
        ValueError: not a duration.
    """
    return _parse(text, _DURATION_UNITS_NS | {"": NS_PER_S}, "a duration such as 10ms, 30s or 5m")


def parse_factor(text: str) -> Fraction:
    """Read "3.0" or "2.5" exactly.

    Raises:
        ValueError: not a number, or below 1.
    """
    match = _NUMBER.fullmatch(text)
    if match is None or match[2] or Fraction(match[1]) < 1:
        raise ValueError(f"{text!r} is not a factor of at least 1 such as 3.0")
    return Fraction(match[1])


def parse_share(text: str) -> Fraction:
    """Read "10%" or "0.1" as a share, exactly.

    Raises:
        ValueError: not a share, or above ten times the whole.
    """
    match = _NUMBER.fullmatch(text)
    share = Fraction(match[1]) / (100 if match[2] else 1) if match else None
    if share is None or share > 10:
        raise ValueError(f"{text!r} is no share: write 10% or 0.1")
    return share


def parse_time_ns(text: str) -> int | None:
    """Read a time as Docker writes it ("2026-01-01T00:00:00.123456789Z") as Unix nanoseconds.

    None for the year 1, which there means "never", and for what is no time.
    """
    match = _TIME.fullmatch(text)
    if match is None or text.startswith("0001"):
        return None
    try:
        seconds = calendar.timegm(time.strptime(match[1], "%Y-%m-%dT%H:%M:%S"))
    except ValueError:  # the 99th of a month
        return None
    sign, hours, minutes = match[3] or "+", int(match[4] or 0), int(match[5] or 0)
    offset_s = (hours * 60 + minutes) * (-60 if sign == "-" else 60)
    return (seconds - offset_s) * NS_PER_S + int((match[2] or "").ljust(9, "0"))


def _parse(text: str, factors: dict[str, int], wanted: str) -> int:
    match = _QUANTITY.fullmatch(text)
    factor = factors.get(match[2].lower()) if match else None
    if match is None or factor is None:
        raise ValueError(f"{text!r} is not {wanted}")
    return math.ceil(Fraction(match[1]) * factor)


def format_mb(value_bytes: float) -> str:
    """Print bytes as megabytes with three decimals, as the first cpost did: "405.242 MB"."""
    return f"{value_bytes / MB:.3f} MB"


def format_binary(size_bytes: int) -> str:
    """Print bytes as Kubernetes writes them, exactly: "128Mi", "500M", "1000000001"."""
    for suffix, unit in (("Mi", MIB), ("M", MB)):
        if size_bytes % unit == 0 and size_bytes:
            return f"{size_bytes // unit}{suffix}"
    return str(size_bytes)


def format_size(size_bytes: int) -> str:
    """Print an amount that stands in a file, or goes into one, exactly: "512.000 MB", "144Mi", "1000000001 bytes"."""
    if _is_binary(size_bytes):
        return format_binary(size_bytes)
    return f"{size_bytes} bytes" if size_bytes % 1000 else format_mb(size_bytes)


def format_limit(size_bytes: int) -> str:
    """Print a limit as megabytes, with the Mi that it was meant as: "256.000 MB", "150.995 MB (144Mi)"."""
    return format_mb(size_bytes) + (f" ({format_binary(size_bytes)})" if _is_binary(size_bytes) else "")


def _is_binary(size_bytes: int) -> bool:
    """Whether it is whole Mi, and no whole megabytes, which are what a Clara definition has."""
    return size_bytes % MB != 0 and size_bytes % MIB == 0


def format_request(size_bytes: int) -> str:
    """Print likewise an amount as Clara writes it, whose megabytes have no unit: "1,280", but "144Mi"."""
    return format_size(size_bytes) if size_bytes % MB else f"{size_bytes // MB:,}"


def format_percent(value: float) -> str:
    """Print a CPU share (100 = one core) with three decimals, as the first cpost did: "124.714 %"."""
    return f"{value:.3f} %"


def format_seconds(value_ns: float) -> str:
    """Print a duration in nanoseconds for people: "0.030 s", "12.4 s", "3 min 20 s", "2 h 05 min"."""
    seconds = value_ns / NS_PER_S
    if seconds < 10:
        return f"{seconds:.3f} s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def format_cpu_time(value_us: float) -> str:
    """Print CPU time in microseconds as `format_seconds` prints a duration."""
    return format_seconds(value_us * NS_PER_US)


def format_cores(millicores: int) -> str:
    """Print millicores as cores without trailing zeros: 12000 is "12", 1250 is "1.25"."""
    return f"{Decimal(millicores) / MILLICORES_PER_CORE:.3f}".rstrip("0").rstrip(".")
