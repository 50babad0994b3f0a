"""The meter against recorded trees: every figure is the one in the files, from the right group."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from trees import LAYOUTS, V1, V2, Tree, detail, figures, read

Open = Callable[[str], Tree]


# ---------------------------------------------------------------- where things are


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout_groups_and_processes(recorded: Open, name: str) -> None:
    tree = recorded(name)
    assert tree.hierarchies.layout == LAYOUTS[name]
    (child,) = tree.parent.children()
    for controller, path in tree.container.directories.items():
        assert path.is_dir(), controller
        assert path.resolve() == child.directories[controller].resolve()
    assert tree.parent.pids() == []
    assert child.pids()[0] == tree.pid
    assert len(child.pids()) == 2


@pytest.mark.parametrize("name", LAYOUTS)
def test_whose_process_it_is(recorded: Open, name: str) -> None:
    tree = recorded(name)
    number = tree.container_id.removeprefix("docker-").removesuffix(".scope")
    assert len(number) == 64
    assert tree.hierarchies.contains(tree.pid, number)
    assert not tree.hierarchies.contains(tree.pid, number[::-1])
    assert not tree.hierarchies.contains(4_000_000, number)
    assert tree.hierarchies.group_of(4_000_000) is None


def test_co_mounted_controllers_are_one_directory(recorded: Open) -> None:
    directories = recorded("v1-comounted-systemd").parent.directories
    assert directories["cpu"] == directories["cpuacct"]
    assert "unified" not in directories


@pytest.mark.parametrize("name", LAYOUTS)
def test_groups_are_found_again_by_their_prefix(recorded: Open, name: str) -> None:
    tree = recorded(name)
    (found,) = tree.hierarchies.groups_named("cpost_")
    assert found[0] == next(iter(tree.parent.directories.values())).name
    assert found[1].directories == tree.parent.directories
    assert list(tree.hierarchies.groups_named("somebody_else")) == []


# ---------------------------------------------------------------- exact figures


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_figure_is_the_file_s(recorded: Open, name: str) -> None:
    meter = recorded(name).meter()
    assert read(meter) == figures(name)
    assert (meter.pids_peak(), meter.peak_bytes()) == (6, figures(name).memory_peak_bytes)
    meter.close()


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_container_s_own_group_is_left_as_it_is(recorded: Open, name: str) -> None:
    tree = recorded(name)
    before = {path: path.read_bytes() for path in tree.root.rglob("memory.max_usage_in_bytes")}
    meter = tree.meter(own=False)
    found = read(meter)
    assert found.cpu_us == figures(name).cpu_us
    assert found.detail is not None
    assert (found.throttled_us, found.detail.oom_kills) == (figures(name).throttled_us, 1)
    assert meter.peak_bytes() == 67108864
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("name", LAYOUTS)
def test_throttling_and_v1_memory_kills_come_from_the_container(recorded: Open, name: str) -> None:
    meter = recorded(name).meter(attached=False)
    found = read(meter)
    assert found.detail is not None
    assert (found.throttled_us, found.throttled_periods) == (None, None)
    assert found.detail.oom_kills == (1 if name in V2 else None)


@pytest.mark.parametrize("name", LAYOUTS)
def test_what_the_container_told_stays_known_when_it_is_gone(recorded: Open, name: str) -> None:
    tree = recorded(name)
    meter = tree.meter()
    first = read(meter)
    for path in {path.resolve() for path in tree.container.directories.values() if path.exists()}:
        for file in path.iterdir():
            file.write_text("")
    again = read(meter)
    assert first.detail is not None
    assert again.detail is not None
    assert (again.throttled_us, again.throttled_periods) == (first.throttled_us, first.throttled_periods)
    assert again.detail.oom_kills == first.detail.oom_kills


@pytest.mark.parametrize("text", ["Total 0\n", "8:0 Read 0\n8:0 Write 0\nTotal 0\n"])
def test_io_that_v1_does_not_count_is_unknown(recorded: Open, text: str) -> None:
    """The recorded v1-comounted-systemd says so too, after 8 MiB were written and read."""
    tree = recorded("v1-cgroupfs")
    tree.file("blkio.throttle.io_service_bytes_recursive").write_text(text)
    found = detail(tree.meter())
    assert (found.io_read_bytes, found.io_write_bytes) == (None, None)


def test_v2_s_empty_io_file_means_none_so_far(recorded: Open) -> None:
    tree = recorded("v2-cgroupfs")
    tree.file("io.stat").write_text("")
    found = detail(tree.meter())
    assert (found.io_read_bytes, found.io_write_bytes) == (0, 0)


def test_io_is_summed_over_the_devices(recorded: Open) -> None:
    tree = recorded("v2-cgroupfs")
    tree.file("io.stat").write_text("8:0 rbytes=1 wbytes=20 rios=9\n9:0 rbytes=300 wbytes=4000 dbytes=7\n")
    found = detail(tree.meter())
    assert (found.io_read_bytes, found.io_write_bytes) == (301, 4020)


# ---------------------------------------------------------------- the high-water mark


@pytest.mark.parametrize("name", LAYOUTS)
def test_what_memory_consists_of_is_the_container_s_own_account_while_it_is_there(recorded: Open, name: str) -> None:
    """The account of the group above lags behind."""
    tree = recorded(name)
    above, own = tree.files("memory.stat")
    above.write_bytes(above.read_bytes().replace(b"rss 32", b"rss 77").replace(b"anon 32", b"anon 77"))
    meter = tree.meter()
    assert detail(meter) == figures(name).detail
    own.write_bytes(b"")  # the container is gone
    lagging = detail(meter).anon_bytes
    assert lagging is not None
    assert lagging // 10**6 == 77


def mark_file(tree: Tree, name: str) -> Path:
    return tree.file("memory.max_usage_in_bytes" if name in V1 else "memory.peak")


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_mark_is_set_back_at_every_reading_and_the_highest_kept(recorded: Open, name: str) -> None:
    tree = recorded(name)
    mark, meter = mark_file(tree, name), tree.meter()
    peaks = []
    for kernel_says in ("90000000\n", "70000000\n", "80000000\n"):
        mark.write_text(kernel_says)
        peaks.append(read(meter, detailed=False).memory_peak_bytes)
        assert mark.read_text() == "0" + kernel_says[1:]  # a plain file keeps what "0" does not cover
    assert peaks == [90_000_000, 70_000_000, 80_000_000]
    mark.write_text("60000000\n")
    assert meter.peak_bytes() == 90_000_000


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_start_up_s_mark_is_told_and_forgotten(recorded: Open, name: str) -> None:
    tree = recorded(name)
    mark, meter = mark_file(tree, name), tree.meter()
    mark.write_text("90000000\n")
    assert meter.begin() == 90_000_000
    mark.write_text("40000000\n")
    assert read(meter).memory_peak_bytes == 40_000_000
    mark.write_text("30000000\n")
    assert meter.peak_bytes() == 40_000_000


@pytest.fixture
def no_setting_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel older than 6.12."""

    def refuse(*_: Any) -> int:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "pwrite", refuse)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_kernel_that_cannot_set_it_back_still_tells_it(recorded: Open, name: str, no_setting_back: None) -> None:
    meter = recorded(name).meter()
    mark = figures(name).memory_peak_bytes
    assert meter.begin() == mark
    assert read(meter).memory_peak_bytes is None
    assert meter.peak_bytes() == mark


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_new_high_is_looked_at_in_detail_unasked(recorded: Open, name: str) -> None:
    tree = recorded(name)
    usage = tree.file("memory.usage_in_bytes" if name in V1 else "memory.current")
    meter = tree.meter()
    for mib, wanted in ((10, True), (10.5, False), (11, False), (12.5, True), (5, False), (13, False), (14, True)):
        usage.write_text(f"{int(mib * 2**20)}\n")
        assert (read(meter, detailed=False).detail is not None) == wanted, mib


@pytest.mark.parametrize("name", LAYOUTS)
def test_files_that_come_with_the_container_are_opened_then(recorded: Open, name: str) -> None:
    tree = recorded(name)
    late = {
        path: path.read_bytes() for path in {tree.file("memory.stat"), tree.file("pids.current"), mark_file(tree, name)}
    }
    for path in late:
        path.unlink()
    meter = tree.meter(attached=False)
    before = read(meter)
    assert before.detail is not None
    assert (before.pids, before.memory_peak_bytes, before.detail.anon_bytes) == (None, None, None)
    for path, text in late.items():
        path.write_bytes(text)
    meter.attach(tree.container)
    assert read(meter) == figures(name)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_foreign_group_s_mark_is_remembered_when_it_is_gone(recorded: Open, name: str, no_setting_back: None) -> None:
    tree = recorded(name)
    meter = tree.meter(own=False)
    read(meter)
    for path in {path.resolve() for path in tree.container.directories.values() if path.exists()}:
        for file in path.iterdir():
            file.write_text("")
    assert meter.read(0, detailed=False) is None
    assert meter.peak_bytes() == 67108864
