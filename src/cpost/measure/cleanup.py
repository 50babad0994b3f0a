"""Removing what runs made outside this process: a run's own things, and what dead runs left.

Used at a run's end, by the guard process when cpost was killed, at every start, and by `cpost clean`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cpost.errors import EngineError, HostError
from cpost.measure import marked
from cpost.measure.cgroup import COMMAND_GROUP, Group, Hierarchies
from cpost.measure.owner import LABEL_RUN, NAME_PREFIX, Owner

if TYPE_CHECKING:  # a bare command needs no engine, and does not load its library
    from cpost.measure.engine import Engine, Owned


@dataclass(frozen=True, slots=True)
class Leftover:
    """One thing that a run left: a container, network, process, control group or folder."""

    kind: str
    name: str
    run_id: str
    remove: Callable[[], None]


def remove_run(
    engine: Engine | None,
    hierarchies: Hierarchies | None,
    owner: Owner,
    run_id: str,
    images: Iterable[str] = (),
    folders: Iterable[Path] = (),
) -> list[str]:
    """Remove everything that one run made, whatever of it there is: containers and network, the processes of a bare
    command, control groups, folder.

    Args:
        images: of the run's operators; where files of another user are left, one of them may have the means to remove
            what it wrote, with the engine's rights.
        folders: that the run has made elsewhere than where temporary ones are.

    Returns:
        What could not be removed, one line each, with the reason.
    """
    failures: list[str] = []
    if engine is not None:
        try:
            engine.remove_labelled(owner.labels(run_id))
        except EngineError as error:
            failures.append(error.message)
    if not marked.kill(owner.name(run_id)):
        failures.append(f"processes that carry {marked.VARIABLE}={owner.name(run_id)}: they cannot be killed")
    for name, group in _groups(hierarchies, owner.name(run_id)):
        if not remove_group(name, group):
            failures.append(f"control group {name}: still in use")
    for folder in (*_folders(owner.name(run_id)), *folders):
        if not remove_tree(folder) and not remove_as_engine(engine, folder, images, owner.labels(run_id)):
            failures.append(f"folder {folder}: files of another user are left in it (sudo rm -rf {folder})")
    return failures


def remove_as_engine(engine: Engine | None, folder: Path, images: Iterable[str], labels: dict[str, str]) -> bool:
    """Remove a folder that holds files of another user, with the engine's rights; False where something is left.

    Args:
        images: one of them may have a program that removes files.
        labels: of the containers that do it; everything with these labels is removed afterwards.
    """
    if engine is None:
        return False
    with contextlib.suppress(EngineError, OSError):
        removed = any(engine.remove_files(image, str(folder), labels) for image in images)
        engine.remove_labelled(labels)
        return removed and remove_tree(folder)
    return False


def leftovers_of_dead_runs(engine: Engine | None, hierarchies: Hierarchies | None) -> list[Leftover]:
    """What runs of this boot left whose process is proven dead; containers and processes first, since the rest hangs
    on them.

    Args:
        engine: None where there is none to ask.
    """
    found = [
        Leftover(item.kind, item.name, item.labels[LABEL_RUN], _remover(engine, item))
        for item in (engine.owned({LABEL_RUN: ""}) if engine else ())
        if engine and (owner := Owner.from_labels(item.labels)) is not None and owner.is_dead()
    ]
    for name in marked.names():
        if run_id := _dead_run(name):
            found.append(Leftover("process", name, run_id, _process_remover(name)))
    for name, group in _groups(hierarchies, NAME_PREFIX):
        if run_id := _dead_run(name):
            found.append(Leftover("control group", name, run_id, _group_remover(name, group)))
    for folder in _folders(NAME_PREFIX):
        if run_id := _dead_run(folder.name):
            found.append(Leftover("folder", str(folder), run_id, _folder_remover(folder)))
    return found


def live_runs(engine: Engine) -> list[str]:
    """Ids of runs whose things are on the engine now and whose process is not known to be dead."""
    found = engine.owned({LABEL_RUN: ""})
    owners = {item.labels[LABEL_RUN]: Owner.from_labels(item.labels) for item in found}
    return sorted(run_id for run_id, owner in owners.items() if owner is not None and not owner.is_dead())


def remove_leftovers(leftovers: list[Leftover]) -> tuple[list[Leftover], list[str]]:
    """Remove them; returns what was removed, and what could not be, one line each with what to do."""
    removed, failures = [], []
    for item in leftovers:
        try:
            item.remove()
            removed.append(item)
        except HostError as error:
            failures.append(f"{item.kind} {item.name}: {error.message}" + (f" ({error.hint})" if error.hint else ""))
    return removed, failures


def remove_dead_folders(parent: Path) -> None:
    """Remove what runs whose process is proven dead left beside outputs, as far as this user may."""
    for path in parent.glob(f".{NAME_PREFIX}*"):
        if _dead_run(path.name.removeprefix(".")) and not path.is_symlink():
            remove_tree(path)


def remove_tree(folder: Path) -> bool:
    """Remove a folder with all that is in it, closed sub-folders too; links are removed, never followed.

    Returns:
        False where something is left (files of another user).
    """
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists() and os.geteuid() != 0:
        _open_closed_folders(folder)
        shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()


def _open_closed_folders(folder: Path) -> None:
    """Give this user's own sub-folders all rights."""
    for parent, names, _ in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                set_mode(Path(parent, name), stat.S_IRWXU)


def set_mode(folder: Path, mode: int) -> None:
    """Set a folder's permissions, through a descriptor: a link that was put in its place meanwhile is not followed.

    Raises:
        OSError: likewise where it is no folder.
    """
    descriptor = os.open(folder, os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        Path(f"/proc/self/fd/{descriptor}").chmod(mode)
    finally:
        os.close(descriptor)


def has_link(path: Path, *, below: Path) -> bool:
    """Whether `path`, or a folder on the way to it from `below`, is a symbolic link."""
    return any(part.is_symlink() for part in (path, *path.parents) if part != below and part.is_relative_to(below))


def work_folder(name: str) -> Path:
    """Where a run keeps what it does not hand to the user.

    Raises:
        HostError: see `temporary_folder`.
    """
    return temporary_folder() / name


def temporary_folder() -> Path:
    """The folder for temporary files.

    Raises:
        HostError: another one was asked for, and cannot be used: a run must not fill a disk that nobody named.
    """
    chosen, asked = Path(tempfile.gettempdir()).absolute(), os.environ.get("TMPDIR")
    if asked and os.path.normpath(chosen) != os.path.abspath(asked):  # noqa: PTH100 (as `tempfile` makes it)
        why = "may not be written to, or is full" if Path(asked).is_dir() else "is no folder"
        raise HostError(f"TMPDIR cannot be used: {asked} {why}", "name another folder, or unset TMPDIR")
    return chosen


def _dead_run(name: str) -> str | None:
    named = Owner.from_name(name)
    return named[0] if named and named[1].is_dead() else None


def _groups(hierarchies: Hierarchies | None, prefix: str) -> Iterator[tuple[str, Group]]:
    if hierarchies is not None:
        yield from hierarchies.groups_named(prefix)


def _folders(prefix: str) -> list[Path]:
    """Folders of this user only: others' are not ours to remove, whatever they are called."""
    found = []
    for path in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with contextlib.suppress(OSError):
            status = path.lstat()
            if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid():
                found.append(path)
    return found


def remove_group(name: str, group: Group) -> bool:
    """Remove a control group of cpost's own; True when nothing of it is left.

    The processes of a bare command go with it. Containers' are the engine's to end.
    """
    group.child(COMMAND_GROUP).kill()
    if name.endswith(".slice"):
        # systemd keeps a unit for the slice, and its group, until it is told that nobody needs it.
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(["systemctl", "stop", name], capture_output=True, timeout=10, check=False)  # noqa: S603, S607
    return group.remove()


def _remover(engine: Engine, item: Owned) -> Callable[[], None]:
    return lambda: engine.remove(item)


def _process_remover(name: str) -> Callable[[], None]:
    def remove() -> None:
        if not marked.kill(name):
            raise HostError("a process of it cannot be killed")

    return remove


def _group_remover(name: str, group: Group) -> Callable[[], None]:
    def remove() -> None:
        if not remove_group(name, group):
            raise HostError(f"control group {name} is still in use")

    return remove


def _folder_remover(folder: Path) -> Callable[[], None]:
    def remove() -> None:
        if not remove_tree(folder):
            raise HostError("files of another user are left in it", f"sudo rm -rf {folder}")

    return remove
