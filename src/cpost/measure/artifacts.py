"""Fetches single files and folders from a container that has ended, as a definition names them.

A folder mounted in their place would hide what the image has there, and a single file cannot be mounted before it is.
What an archive holds comes from a container: only regular files, folders and links that stay inside are made of it.
"""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, cast

from cpost.errors import StoreError
from cpost.measure.engine import Engine
from cpost.model import CopyOut


def fetch(copies: Sequence[CopyOut], container: str, engine: Engine) -> list[str]:
    """Copy each into its folder, under its own last name; returns the paths that should be there and are not.

    Raises:
        EngineError: the engine does not hand something out.
        StoreError: it cannot be written.
    """
    missing = []
    for copy in copies:
        chunks = engine.archive(container, copy.path)
        if chunks is not None:
            unpack(chunks, Path(copy.folder))
        elif not copy.optional:
            missing.append(copy.path)
    return missing


def unpack(chunks: Iterator[bytes], folder: Path) -> None:
    """Make the files and folders of a tar archive in a folder, readable for everybody.

    Raises:
        StoreError: the disk is full, or the archive is broken.
    """
    try:
        with tarfile.open(fileobj=cast("IO[bytes]", _Stream(chunks)), mode="r|") as archive:
            for member in archive:
                _make(archive, member, folder)
    except (OSError, tarfile.TarError) as error:
        raise StoreError(f"an output cannot be written to {folder}: {error}", "free space there") from error


def _make(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    parts = [part for part in Path(member.name).parts if part not in ("/", ".")]
    target = folder.joinpath(*parts)
    if not parts or ".." in parts or _leads_out(target.parent, folder):
        return
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
        target.chmod(0o755)
    elif member.issym() and not member.linkname.startswith("/") and ".." not in Path(member.linkname).parts:
        target.symlink_to(member.linkname)
    elif member.islnk():  # a second name of a file that the archive has held already
        source = folder / member.linkname.lstrip("/")
        if source.is_file() and not _leads_out(source, folder):
            shutil.copyfile(source, target)
    elif (content := archive.extractfile(member) if member.isreg() else None) is not None:
        with target.open("xb") as file:
            shutil.copyfileobj(content, file)
        target.chmod(0o755 if member.mode & 0o100 else 0o644)


def _leads_out(parent: Path, folder: Path) -> bool:
    """Whether a link on the way would make something elsewhere."""
    return not Path(os.path.realpath(parent)).is_relative_to(os.path.realpath(folder))


class _Stream:
    """A reader over chunks, which is all that a tar stream asks for."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def read(self, size: int) -> bytes:
        while len(self._rest) < size and (chunk := next(self._chunks, b"")):
            self._rest += chunk
        data, self._rest = self._rest[:size], self._rest[size:]
        return data
