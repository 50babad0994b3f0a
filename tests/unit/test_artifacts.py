"""What is copied out of a container that has ended: files, folders, and nothing that leads elsewhere."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cpost.errors import StoreError
from cpost.measure.artifacts import fetch, unpack
from cpost.model import CopyOut


def archive(*members: tuple[str, bytes | str, dict[str, Any]]) -> Iterator[bytes]:
    """A tar in small pieces; a member's content as text is the target of a link."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content, more in members:
            member = tarfile.TarInfo(name)
            for key, value in more.items():
                setattr(member, key, value)
            if isinstance(content, str):
                member.linkname = content
            member.size = len(content) if isinstance(content, bytes) else 0
            tar.addfile(member, io.BytesIO(content) if isinstance(content, bytes) else None)
    data = buffer.getvalue()
    return (data[at : at + 300] for at in range(0, len(data), 300))


DIR, LINK, HARD = {"type": tarfile.DIRTYPE}, {"type": tarfile.SYMTYPE}, {"type": tarfile.LNKTYPE}


def test_files_folders_and_links_within(tmp_path: Path) -> None:
    unpack(
        archive(
            ("out", b"", {**DIR, "mode": 0o700}),
            ("out/file", b"x" * 1000, {"mode": 0o600, "uid": 1234}),
            ("out/run", b"#!", {"mode": 0o700}),
            ("out/link", "file", LINK),
            ("out/again", "out/file", HARD),
        ),
        tmp_path,
    )
    assert (tmp_path / "out/file").read_bytes() == (tmp_path / "out/again").read_bytes() == b"x" * 1000
    assert (tmp_path / "out/link").read_bytes() == b"x" * 1000
    modes = {path.name: oct(path.stat().st_mode)[-3:] for path in (tmp_path / "out").iterdir()}
    assert modes == {"file": "644", "run": "755", "link": "644", "again": "644"}


def test_nothing_is_made_outside(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (outside / "secret").write_text("s")
    (inside / "planted").symlink_to(outside)
    unpack(
        archive(
            ("../outside/a", b"x", {}),
            ("planted/b", b"x", {}),
            ("up", "../outside", LINK),
            ("abs", str(outside), LINK),
            ("device", b"", {"type": tarfile.CHRTYPE}),
            ("stolen", "planted/secret", HARD),
            ("/fine", b"x", {}),
        ),
        inside,
    )
    assert sorted(path.name for path in inside.iterdir()) == ["fine", "planted"]
    assert [path.name for path in outside.iterdir()] == ["secret"]


def test_a_broken_archive_is_an_error_of_the_host(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        unpack(iter([b"no tar" * 200]), tmp_path)


def test_what_should_be_there_and_is_not_is_told(tmp_path: Path) -> None:
    class Engine:
        def archive(self, container: str, path: str) -> Iterator[bytes] | None:
            assert container == "c"
            return archive(("f", b"1", {})) if path == "/there/f" else None

    copies = [CopyOut("/there/f", str(tmp_path)), CopyOut("/gone", str(tmp_path)), CopyOut("/may", str(tmp_path), True)]
    engine: Any = Engine()
    assert fetch(copies, "c", engine) == ["/gone"]
    assert (tmp_path / "f").read_bytes() == b"1"
