from __future__ import annotations

import pytest

from cpost.definition import quantities


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4096", 4096),
        ("512Mi", 512 * 2**20),
        ("1.5G", 1_500_000_000),
        ("1e3", 1000),
        ("2E", 2 * 10**18),
        ("1500m", 2),
        ("+1k", 1000),
        (".5Ki", 512),
    ],
)
def test_kubernetes_memory(text, size):
    assert quantities.parse_kubernetes_memory(text) == size


@pytest.mark.parametrize("text", ["", "1K", "1 Gi", "-1", "1mi", "Mi", "1e", "${MEMORY}"])
def test_what_is_no_kubernetes_quantity(text):
    with pytest.raises(ValueError, match="quantity"):
        quantities.parse_kubernetes_memory(text)


@pytest.mark.parametrize(("text", "millicores"), [("250m", 250), ("1.5", 1500), ("2", 2000), ("1u", 1), ("0.0001", 1)])
def test_kubernetes_cpu(text, millicores):
    assert quantities.parse_kubernetes_cpu(text) == millicores


@pytest.mark.parametrize(
    ("text", "size"), [("512M", 512 * 2**20), ("1.5gb", 1610612736), ("20k", 20480), ("7", 7), ("1 GiB", 2**30)]
)
def test_compose_memory(text, size):
    assert quantities.parse_compose_memory(text) == size


@pytest.mark.parametrize("text", ["", "12x", "g", "-1m"])
def test_what_is_no_compose_size(text):
    with pytest.raises(ValueError, match="size"):
        quantities.parse_compose_memory(text)


@pytest.mark.parametrize(("text", "millicores"), [("0.50", 500), ("2", 2000), (".25", 250), ("1.", 1000)])
def test_compose_cpus(text, millicores):
    assert quantities.parse_compose_cpus(text) == millicores


def test_what_is_no_number_of_cores():
    with pytest.raises(ValueError, match="cores"):
        quantities.parse_compose_cpus("1e3")


def test_what_is_printed_is_rounded_up():
    assert quantities.kubernetes_memory(1) == "16Mi"
    assert quantities.kubernetes_memory(16 * 2**20) == "16Mi"
    assert quantities.kubernetes_memory(256 * 10**6) == "256Mi"
    assert quantities.kubernetes_cpu(1000) == "1"
    assert quantities.kubernetes_cpu(1491) == "1500m"
    assert quantities.compose_memory(2**20 + 1) == "2M"
    assert quantities.compose_cpus(1001) == "1.01"
    assert quantities.compose_cpus(50) == "0.05"
