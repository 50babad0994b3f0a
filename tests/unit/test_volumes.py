"""What lies in volumes: the same for each run of an operator, and what it wrote for those that come after."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builders import server, step

from cpost.copier import Copier
from cpost.errors import HostError
from cpost.model import HostFile, Mount, Step
from cpost.outputs import OutputFolders
from cpost.volumes import Volumes


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A volume with something in it."""
    folder = tmp_path / "shared/volumes/data"
    (folder / "part").mkdir(parents=True)
    (folder / "found").write_text("by the first run")
    (folder / "link").symlink_to("found")
    (folder / "private").write_text("of somebody")
    (folder / "private").chmod(0o600)
    return folder


def writer(folder: Path, *, read_only: bool = False, **given: Any) -> Step:
    mounts = (Mount(str(folder), "/data", read_only), Mount(str(folder / "part"), "/part", read_only))
    folders = (str(folder), str(folder / "part"))
    return step(mounts=mounts, volume_folders=folders, output_folders=(str(folder.parents[2] / "out/a"),), **given)


def run(of: Step) -> None:
    """It finds what it did the first time, or fails, and changes all of it."""
    (top,) = {mount.source for mount in of.mounts if mount.target == "/data"}
    folder = Path(top)
    assert sorted(path.name for path in folder.iterdir()) == ["found", "link", "part", "private"]
    assert (folder / "found").read_text() == "by the first run"
    assert (folder / "link").readlink() == Path("found")
    assert (folder / "private").stat().st_mode & 0o777 == 0o600
    assert list((folder / "part").iterdir()) == []
    (folder / "found").write_text("changed")
    (folder / "new").mkdir()
    (folder / "part/new").touch()
    (folder / "private").unlink()


def refuse(_: Path) -> bool:
    return False


def test_runs_elsewhere_find_the_same_and_leave_what_the_first_has_written(tmp_path: Path, data: Path) -> None:
    volumes, of = Volumes(tmp_path / "kept"), writer(data)
    assert volumes.keep(of) == []
    run(of)
    scratch = OutputFolders(tmp_path / "trials", overwrite=True, volumes=volumes)
    for _ in range(2):
        moved = scratch.moved(of)
        assert all(Path(mount.source).is_relative_to(tmp_path / "trials") for mount in moved.mounts)
        scratch.renew(moved, refuse)
        run(moved)
    assert (data / "found").read_text() == "changed"
    assert (data / "new").is_dir()


def test_further_runs_in_place_find_the_same(tmp_path: Path, data: Path) -> None:
    volumes, of = Volumes(tmp_path / "kept"), writer(data)
    volumes.keep(of)
    outputs = OutputFolders(tmp_path / "out", overwrite=True, volumes=volumes)
    for _ in range(3):
        run(of)
        outputs.renew(of, refuse)


def test_each_operator_finds_what_those_before_it_have_written(tmp_path: Path, data: Path) -> None:
    volumes = Volumes(tmp_path / "kept")
    volumes.keep(writer(data))
    run(writer(data))
    volumes.keep(writer(data))
    volumes.put_back(writer(data), refuse)
    assert (data / "found").read_text() == "changed"


def test_what_only_reads_or_is_not_kept_stays_where_it_is(tmp_path: Path, data: Path) -> None:
    volumes, reader = Volumes(tmp_path / "kept"), writer(data, read_only=True)
    volumes.keep(reader)
    assert volumes.moved(reader, tmp_path / "trials") == reader
    other = Volumes(tmp_path / "kept")
    assert other.moved(writer(data), tmp_path / "trials") == writer(data)
    other.put_back(writer(data), refuse)
    assert (data / "found").exists()


@pytest.mark.parametrize("shared", [True, False])
def test_what_a_server_of_several_operators_uses_is_not_taken_from_it(tmp_path: Path, data: Path, shared: bool) -> None:
    volumes = Volumes(tmp_path / "kept")
    of = writer(data)
    beside = server("db", shared=shared, mounts=(Mount(str(data), "/db", False),))
    volumes.are_shared_by([beside])
    of = replace(of, servers=(beside,))
    volumes.keep(of)
    moved = volumes.moved(of, tmp_path / "trials")
    assert (moved == of) is shared
    (mount,) = moved.servers[0].step.mounts
    assert (mount.source == str(data)) is shared


def test_files_of_the_definition_are_written_where_they_are_seen(tmp_path: Path, data: Path) -> None:
    volumes = Volumes(tmp_path / "kept")
    of = writer(data, files=(HostFile(str(data / "conf"), b"", 0o644),))
    volumes.keep(of)
    (file,) = volumes.moved(of, tmp_path / "trials").files
    assert file.path == str(tmp_path / "trials/a__volumes/0/conf")


def test_what_cannot_be_copied_is_said_and_left_alone(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volumes = Volumes(tmp_path / "kept")
    with monkeypatch.context() as patched:
        patched.setattr(Copier, "copy", lambda *_: "no space left")
        (said,) = volumes.keep(writer(data))
    assert said == "its volume data cannot be copied (no space left): all its runs share it"
    with monkeypatch.context() as patched:
        patched.setattr(Copier, "refusal", lambda *_: "it holds files of another user")
        (said,) = volumes.keep(writer(data))
    assert said == "its volume data cannot be copied (it holds files of another user): all its runs share it"
    assert list((tmp_path / "kept").iterdir()) == []
    volumes.put_back(writer(data), refuse)
    assert (data / "found").exists()
    volumes.keep(writer(data))
    monkeypatch.setattr(Copier, "copy", lambda *_: "no space left")
    with pytest.raises(HostError, match=r"cannot be made as it was \(no space left\)"):
        volumes.put_back(writer(data), refuse)


def test_what_is_forgotten_is_not_put_back(tmp_path: Path, data: Path) -> None:
    volumes = Volumes(tmp_path / "kept")
    volumes.keep(writer(data))
    run(writer(data))
    volumes.forget()
    volumes.put_back(writer(data), refuse)
    assert (data / "found").read_text() == "changed"
    assert not (tmp_path / "kept").exists()
