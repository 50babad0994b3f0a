"""What of an operator's inputs lies in the page cache, and what is put out of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from builders import server, step

from cpost import inputs
from cpost.measure import page_cache
from cpost.measure.page_cache import Cached, cached, forget
from cpost.model import Mount, Step

SIZE = 4 * 2**20


def folder(path: Path, *, warm: bool) -> Path:
    """Two files, all of which is on the disk, and in the page cache only if it is warm."""
    path.mkdir(parents=True)
    for name in ("one", "two"):
        with (path / name).open("wb") as file:
            file.write(os.urandom(SIZE))
            file.flush()
            os.fsync(file.fileno())
    if not warm:
        forget(path)
    return path


def test_what_is_read_is_cached_until_it_is_forgotten(tmp_path: Path) -> None:
    path = folder(tmp_path / "a", warm=False)
    (path / "empty").touch()
    (path / "link").symlink_to("one")
    os.mkfifo(path / "pipe")
    before = cached(path)
    assert before is not None
    assert before.bytes == 2 * SIZE
    assert before.cached_bytes < SIZE
    (path / "one").read_bytes()
    assert cached(path / "one") == Cached(SIZE, SIZE)
    read = cached(path)
    assert read is not None
    assert SIZE <= read.cached_bytes < 2 * SIZE
    forget(path / "one")
    assert cached(path / "one") == Cached(0, SIZE)


def test_what_is_not_there_is_nothing(tmp_path: Path) -> None:
    assert cached(tmp_path / "missing") == Cached(0, 0)
    forget(tmp_path / "missing")


def test_of_files_of_others_nothing_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder(tmp_path / "a", warm=True)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert cached(path) is None
    assert inputs.cold_inputs(reading(path)) == ()
    assert inputs.chill(reading(path), ()) is None


def reading(*paths: Path) -> Step:
    mounts = [Mount(str(path), f"/{path.name}", read_only=path.name != "out") for path in paths]
    return step(mounts=tuple(mounts))


def test_an_operator_s_inputs_are_told_apart_and_put_back_to_the_disk(tmp_path: Path) -> None:
    warm, cold, out = folder(tmp_path / "w", warm=True), folder(tmp_path / "c", warm=False), tmp_path / "out"
    folder(out, warm=False)
    of = reading(warm, cold, out)
    assert inputs.cold_inputs(of) == ("/c",)
    for path in cold.iterdir():
        path.read_bytes()
    assert inputs.cold_inputs(of) == ()
    assert inputs.chill(of, ("/c",)) == 2 * SIZE  # the other was warm, and stays so
    assert inputs.cold_inputs(of) == ("/c",)


def test_what_its_own_servers_read_counts_as_well(tmp_path: Path) -> None:
    mounts = (Mount(str(folder(tmp_path / "m", warm=False)), "/m", read_only=True),)
    assert inputs.cold_inputs(step(servers=(server("s", mounts=mounts),))) == ("s:/m",)
    assert inputs.cold_inputs(step(servers=(server("s", mounts=mounts, shared=True),))) == ()


def test_of_very_many_files_and_bytes_some_stand_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder(tmp_path / "a", warm=True)
    monkeypatch.setattr(page_cache, "_MOST_FILES", 1)
    monkeypatch.setattr(page_cache, "_MOST_BYTES", SIZE // 2)
    assert cached(path) == Cached(SIZE // 2, SIZE // 2)
    monkeypatch.undo()
    assert cached(path) == Cached(2 * SIZE, 2 * SIZE)
    monkeypatch.setattr(page_cache, "_MOST_BYTES_IN_ALL", SIZE)
    assert cached(path) == Cached(SIZE, SIZE)


def test_an_input_that_the_kernel_does_not_tell_of_leaves_no_other_warm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, cold = folder(tmp_path / "other", warm=True), folder(tmp_path / "cold", warm=True)
    tells = inputs.cached
    monkeypatch.setattr(inputs, "cached", lambda path: None if path == other else tells(path))
    assert inputs.chill(reading(other, cold), ("/cold",)) is None
    assert cached(cold) == Cached(0, 2 * SIZE)


def test_of_more_than_is_walked_nobody_says_that_all_of_it_is_put_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder(tmp_path / "a", warm=True)
    monkeypatch.setattr(page_cache, "_MOST_ENTRIES", 2)
    assert inputs.chill(reading(path), ("/a",)) == 0
    for number in range(5):
        (path / f"empty{number}").mkdir()
    assert not forget(path)
    assert inputs.chill(reading(path), ("/a",)) is None


def test_only_files_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder(tmp_path / "a", warm=True)
    (path / "below").mkdir()
    os.mkfifo(path / "below/pipe")
    (path / "below/link").symlink_to(path / "one")
    opened = []
    really = os.open

    def spying(name: str, flags: int) -> int:
        opened.append(Path(name).name)
        return really(name, flags)

    monkeypatch.setattr(os, "open", spying)
    forget(path)
    assert sorted(opened) == ["one", "two"]


def test_another_file_system_is_not_entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder(tmp_path / "a", warm=True)
    folder(path / "mounted", warm=True)
    monkeypatch.setattr(page_cache, "_device", lambda name: name.endswith("mounted"))
    assert cached(path) == Cached(2 * SIZE, 2 * SIZE)
