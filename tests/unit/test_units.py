"""Quantities: parsed exactly, printed as documented, rounded up and never down."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cpost.units import (
    format_cores,
    format_cpu_time,
    format_limit,
    format_mb,
    format_percent,
    format_request,
    format_seconds,
    format_size,
    parse_bytes,
    parse_duration_ns,
    parse_factor,
    parse_share,
    parse_time_ns,
    round_up,
)

BYTES = {"": 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
BYTES |= {"k": 2**10, "m": 2**20, "G": 2**30, "t": 2**40, "Ki": 2**10, "MiB": 2**20, "gib": 2**30, "TiB": 2**40}
DURATIONS_NS = {"": 10**9, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "min": 60 * 10**9, "h": 3600 * 10**9}
NUMBERS = st.from_regex(r"\A[0-9]{1,15}(\.[0-9]{1,9})?\Z")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("4096", 4096),
        ("512MB", 512_000_000),
        ("1g", 2**30),
        ("64m", 64 * 2**20),
        (" 1.5 GiB ", 3 * 2**29),
        ("0.0000001MB", 1),
        ("0", 0),
    ],
)
def test_sizes(text: str, wanted: int) -> None:
    assert parse_bytes(text) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("10ms", 10**7), ("1.5s", 15 * 10**8), ("5m", 300 * 10**9), ("2h", 7200 * 10**9), ("30", 30 * 10**9)],
)
def test_durations(text: str, wanted: int) -> None:
    assert parse_duration_ns(text) == wanted


@given(NUMBERS, st.sampled_from(sorted(BYTES)))
@example("999999999999999.999999999", "TiB")
def test_a_size_is_exact_up_to_the_next_whole_byte(number: str, unit: str) -> None:
    assert parse_bytes(number + unit) == math.ceil(Fraction(number) * BYTES[unit])


@given(NUMBERS, st.sampled_from(sorted(DURATIONS_NS)))
def test_a_duration_is_exact_up_to_the_next_whole_nanosecond(number: str, unit: str) -> None:
    assert parse_duration_ns(f"{number} {unit}") == math.ceil(Fraction(number) * DURATIONS_NS[unit])


@pytest.mark.parametrize("parse", [parse_bytes, parse_duration_ns])
@pytest.mark.parametrize(
    "text",
    ["", " ", "-1", "+1", "1e3", "1,5", "0x10", "1 2", "MB", ".5", "5.", "nan", "inf", "1_000", "1 parsec", "9" * 40],
)
def test_what_is_no_quantity_is_refused_with_an_example(parse: object, text: str) -> None:
    assert callable(parse)
    with pytest.raises(ValueError, match="such as"):
        parse(text)


@given(st.text() | st.text("0123456789.eE+-_ kKmMgGiIbB", max_size=12))
def test_hostile_text_yields_a_number_or_a_value_error(text: str) -> None:
    for parse in (parse_bytes, parse_duration_ns):
        try:
            assert parse(text) >= 0
        except ValueError as error:
            complaint = str(error)
        else:
            complaint = repr(text)
        assert repr(text) in complaint


@given(st.integers(0, 10**18), st.integers(1, 10**12))
def test_rounding_goes_up_by_less_than_a_step_to_a_multiple(value: int, step: int) -> None:
    rounded = round_up(value, step)
    assert rounded % step == 0
    assert value <= rounded < value + step


@given(st.integers(0, 10**9))
def test_printed_cores_read_back_as_the_same_millicores(millicores: int) -> None:
    text = format_cores(millicores)
    assert Fraction(text) * 1000 == millicores
    assert "." not in text or text[-1] not in ".0"


@given(st.integers(0, 10**15))
def test_printed_megabytes_are_right_to_a_kilobyte(value: int) -> None:
    number, unit = format_mb(value).split()
    assert unit == "MB"
    assert abs(Fraction(number) * 10**6 - value) <= 1001


@pytest.mark.parametrize(
    ("printed", "wanted"),
    [
        (format_cores(12000), "12"),
        (format_cores(1250), "1.25"),
        (format_cores(0), "0"),
        (format_mb(405_242_000), "405.242 MB"),
        (format_percent(124.7138), "124.714 %"),
        (format_seconds(30_000_000), "0.030 s"),
        (format_seconds(12_400_000_000), "12.4 s"),
        (format_seconds(59_940_000_000), "59.9 s"),
        (format_seconds(200 * 10**9), "3 min 20 s"),
        (format_seconds(3599_600_000_000), "1 h 00 min"),
        (format_seconds(7500 * 10**9), "2 h 05 min"),
        (format_seconds(1_250_400_000.5), "1.250 s"),
        (format_cpu_time(30_000), "0.030 s"),
        (format_cpu_time(200 * 10**6), "3 min 20 s"),
    ],
)
def test_printing(printed: str, wanted: str) -> None:
    assert printed == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("1970-01-01T00:00:01Z", 10**9),
        ("2026-01-01T00:00:00.123456789Z", 1767225600123456789),
        ("2026-01-01T02:00:00.5+02:00", 1767225600500000000),
        ("2025-12-31T22:30:00-01:30", 1767225600000000000),
        ("0001-01-01T00:00:00Z", None),
        ("", None),
        ("2026-99-99T00:00:00Z", None),
        ("2026-02-30T00:00:00Z", None),
        ("yesterday", None),
    ],
)
def test_times_as_docker_writes_them(text: str, wanted: int | None) -> None:
    assert parse_time_ns(text) == wanted


@pytest.mark.parametrize(
    ("text", "share"), [("10%", "0.1"), ("0.1", "0.1"), (" 2.5 % ", "0.025"), ("0", "0"), ("1000%", "10")]
)
def test_shares_are_exact(text: str, share: str) -> None:
    assert parse_share(text) == Fraction(share)


@pytest.mark.parametrize(("text", "factor"), [("3.0", "3"), ("1", "1"), (" 1.1 ", "1.1")])
def test_factors_are_exact(text: str, factor: str) -> None:
    assert parse_factor(text) == Fraction(factor)


@pytest.mark.parametrize("text", ["", "%", "-1", "ten", "1e3", "nan", "1 2", "٣"])
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no share: write 10% or"):
        parse_share(text)
    with pytest.raises(ValueError, match=r"is not a factor of at least 1 such as 3\.0"):
        parse_factor(text)


@pytest.mark.parametrize("text", ["10.1", "1000.1%"])
def test_a_share_is_no_factor(text: str) -> None:
    with pytest.raises(ValueError, match="share"):
        parse_share(text)


@pytest.mark.parametrize("text", ["0.99", "3%"])
def test_a_factor_is_no_share(text: str) -> None:
    with pytest.raises(ValueError, match="factor"):
        parse_factor(text)


@pytest.mark.parametrize(
    ("size", "exact", "limit", "asked"),
    [
        (768 * 10**6, "768.000 MB", "768.000 MB", "768"),
        (1280 * 10**6, "1280.000 MB", "1280.000 MB", "1,280"),
        (144 * 2**20, "144Mi", "150.995 MB (144Mi)", "144Mi"),
        (15625 * 2**20, "16384.000 MB", "16384.000 MB", "16,384"),
        (1_500_000, "1.500 MB", "1.500 MB", "1.500 MB"),
        (1_000_000_001, "1000000001 bytes", "1000.000 MB", "1000000001 bytes"),
        (0, "0.000 MB", "0.000 MB", "0"),
    ],
)
def test_amounts_keep_their_number(size: int, exact: str, limit: str, asked: str) -> None:
    assert (format_size(size), format_limit(size), format_request(size)) == (exact, limit, asked)
