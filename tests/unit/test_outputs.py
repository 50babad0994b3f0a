"""Output folders: made for any user, and only what cpost made is ever replaced."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from builders import pipeline, server, step

from cpost.errors import HostError, StoreError, UsageError
from cpost.model import HostFile, Mount, Plan, Server, Step
from cpost.outputs import OutputFolders


def plan(root: Path, *names: str) -> Plan:
    made = [step(operator=name, output_folders=(str(root / name), str(root / name / "mask"))) for name in names]
    return Plan(pipeline(), tuple(made))


def prepared(root: Path, *names: str, overwrite: bool = False) -> OutputFolders:
    folders = OutputFolders(root, overwrite=overwrite)
    folders.check(plan(root, *names))
    folders.make(plan(root, *names))
    return folders


def mode(path: Path) -> str:
    return oct(path.stat().st_mode)[-3:]


def test_any_user_of_a_container_may_write_while_the_run_lasts(tmp_path: Path) -> None:
    folders = prepared(tmp_path / "o", "a")
    assert [mode(tmp_path / "o" / name) for name in ("a", "a/mask")] == ["777", "777"]
    folders.close()
    assert [mode(tmp_path / "o" / name) for name in ("a", "a/mask")] == ["755", "755"]


def test_an_empty_folder_is_no_earlier_output(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    prepared(tmp_path, "a")


def test_earlier_outputs_are_kept_unless_told_otherwise(tmp_path: Path) -> None:
    prepared(tmp_path, "a")
    (tmp_path / "a/old").write_text("x")
    with pytest.raises(UsageError, match="never overwritten unasked"):
        prepared(tmp_path, "a")
    assert (tmp_path / "a/old").exists()
    prepared(tmp_path, "a", overwrite=True)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["mask"]


def test_what_cpost_did_not_write_is_not_replaced_even_then(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="cpost did not write"):
        prepared(tmp_path, "docs", overwrite=True)
    assert (tmp_path / "docs/thesis.txt").exists()


@pytest.mark.parametrize("what", ["file", "link"])
def test_what_is_no_folder_is_refused(tmp_path: Path, what: str) -> None:
    (tmp_path / "there").mkdir()
    if what == "file":
        (tmp_path / "a").write_text("x")
    else:
        (tmp_path / "a").symlink_to(tmp_path / "there")
    with pytest.raises(UsageError, match="is not a folder"):
        prepared(tmp_path, "a", overwrite=True)


def test_a_link_in_the_place_of_a_folder_is_neither_handed_on_nor_followed(tmp_path: Path) -> None:
    folders = prepared(tmp_path / "o", "a")
    (tmp_path / "secret").mkdir(mode=0o700)
    (tmp_path / "o/a/mask").rmdir()
    (tmp_path / "o/a/mask").symlink_to(tmp_path / "secret")
    reader = step(operator="b", mounts=(Mount(str(tmp_path / "o/a/mask"), "/in", read_only=True),))
    with pytest.raises(HostError, match="put a link in the place"):
        folders.refuse_links(reader)
    folders.close()
    assert mode(tmp_path / "secret") == "700"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A folder of the host that no container was given."""
    (tmp_path / "secret").mkdir(mode=0o700)
    return tmp_path / "secret"


def astray(tmp_path: Path, secret: Path) -> tuple[OutputFolders, Step]:
    """A step with a part of a volume mounted, in whose place there is a link by now."""
    volume = tmp_path / "v/data"
    part = Mount(str(volume / "part"), "/part", read_only=False)
    made = step(
        operator="a",
        output_folders=(str(tmp_path / "o/a"),),
        volume_folders=(str(volume), str(volume / "part")),
        mounts=(part,),
    )
    folders = OutputFolders(tmp_path / "o", overwrite=False)
    folders.make(Plan(pipeline(), (made,)))
    (volume / "part").rmdir()
    (volume / "part").symlink_to(secret)
    return folders, made


def test_a_link_in_the_place_of_a_volume_s_part_is_neither_handed_on_nor_followed(tmp_path: Path, secret: Path) -> None:
    folders, made = astray(tmp_path, secret)
    with pytest.raises(HostError, match=r"put a link in the place of .*v/data/part"):
        folders.refuse_links(made)
    with pytest.raises(HostError, match="put a link in the place"):
        folders.renew(made, lambda _: False)
    assert mode(secret) == "700"
    folders.close()
    assert mode(secret) == "700"


def test_a_link_that_comes_at_the_last_moment_is_not_followed(
    tmp_path: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders, made = astray(tmp_path, secret)
    monkeypatch.setattr(folders, "refuse_links", lambda _: None)
    with pytest.raises(StoreError):
        folders.renew(made, lambda _: False)
    assert mode(secret) == "700"


def test_what_servers_have_mounted_is_looked_at_as_well(tmp_path: Path, secret: Path) -> None:
    folders, made = astray(tmp_path, secret)
    with pytest.raises(HostError, match="put a link in the place"):
        folders.refuse_links(replace(made, volume_folders=made.volume_folders[:1], mounts=(), servers=(beside(made),)))


def beside(made: Step) -> Server:
    return server("s", mounts=made.mounts)


def test_where_nobody_may_look_nothing_is_handed_on(
    tmp_path: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders, made = astray(tmp_path, secret)

    def closed(_: Path) -> bool:
        raise PermissionError

    monkeypatch.setattr(Path, "is_symlink", closed)
    with pytest.raises(HostError, match="another user has closed") as caught:
        folders.refuse_links(made)
    assert caught.value.hint


def test_no_file_of_a_definition_is_written_through_a_link(tmp_path: Path, secret: Path) -> None:
    top = tmp_path / "v/files"
    file = HostFile(str(top / "sub/x"), b"1", 0o444)
    made = step(operator="a", output_folders=(str(tmp_path / "o/a"),), volume_folders=(str(top),), files=(file,))
    folders = OutputFolders(tmp_path / "o", overwrite=False)
    folders.make(Plan(pipeline(), (made,)))
    shutil.rmtree(top / "sub")
    (top / "sub").symlink_to(secret)
    with pytest.raises(HostError, match="put a link in the place"):
        folders.renew(made, lambda _: False)
    assert not list(secret.iterdir())


def test_a_link_that_the_user_has_on_the_way_is_followed(tmp_path: Path, secret: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (secret / "payload").symlink_to(tmp_path / "real")
    root = tmp_path / "link/o"
    made = step(
        operator="a",
        output_folders=(str(root / "a"),),
        volume_folders=(str(tmp_path / "link/v/data"),),
        mounts=(Mount(str(secret / "payload"), "/in", read_only=True),),
    )
    folders = OutputFolders(root, overwrite=False)
    folders.make(Plan(pipeline(), (made,)))
    folders.refuse_links(made)
    folders.renew(made, lambda _: False)
    assert mode(tmp_path / "real/v/data") == "777"


# ---------------------------------------------------------------- several runs of one operator


def test_each_run_finds_its_folders_empty(tmp_path: Path) -> None:
    folders = prepared(tmp_path / "o", "a", "b")
    for name in ("a", "b"):
        (tmp_path / "o" / name / "mask/result").write_text("first")
    (tmp_path / "o/a/mask").chmod(0o500)
    (step_a, _) = plan(tmp_path / "o", "a", "b").steps
    folders.renew(step_a, lambda _: False)
    assert [path.name for path in (tmp_path / "o/a").rglob("*")] == ["mask"]
    assert [mode(tmp_path / "o" / name) for name in ("a", "a/mask")] == ["777", "777"]
    assert (tmp_path / "o/b/mask/result").read_text() == "first"
    folders.close()
    assert mode(tmp_path / "o/a/mask") == "755"


def test_what_belongs_to_another_user_is_removed_with_the_engine_s_rights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = prepared(tmp_path / "o", "a")
    (tmp_path / "o/a/mask/result").write_text("first")
    (step_a,) = plan(tmp_path / "o", "a").steps
    asked = []

    def by_engine(folder: Path) -> bool:
        asked.append(folder)
        shutil.rmtree(folder)
        return True

    monkeypatch.setattr("cpost.measure.cleanup.remove_tree", lambda _: False)
    folders.renew(step_a, by_engine)
    assert asked == [tmp_path / "o/a"]
    assert [path.name for path in (tmp_path / "o/a").rglob("*")] == ["mask"]


def test_outputs_of_two_runs_are_never_mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = prepared(tmp_path / "o", "a")
    (tmp_path / "o/a/mask/result").write_text("first")
    monkeypatch.setattr("cpost.measure.cleanup.remove_tree", lambda _: False)
    (step_a,) = plan(tmp_path / "o", "a").steps
    with pytest.raises(HostError, match=r"a is not run again: .*another user") as caught:
        folders.renew(step_a, lambda _: False)
    assert caught.value.hint


def test_volumes_stay_over_repeats_and_files_are_written_anew(tmp_path: Path) -> None:
    root, volume, file = tmp_path / "o", tmp_path / "v/data", tmp_path / "v/files/x"
    made = step(
        operator="a",
        output_folders=(str(root / "a"),),
        volume_folders=(str(volume),),
        files=(HostFile(str(file), b"1", 0o444),),
    )
    folders = OutputFolders(root, overwrite=False)
    folders.make(Plan(pipeline(), (made,)))
    (volume / "kept").write_text("x")
    (root / "a/old").write_text("x")
    folders.renew(made, lambda _: False)
    assert ((volume / "kept").exists(), (root / "a/old").exists()) == (True, False)
    assert (file.read_bytes(), mode(file), mode(volume)) == (b"1", "444", "777")
