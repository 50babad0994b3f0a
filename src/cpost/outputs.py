"""Where operators write: a folder for each on the host, handed on to those that read from it.

A folder that the user named may hold other things. A small file in it names what cpost has made there, and only that
is ever replaced.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from cpost.errors import HostError, StoreError, UsageError
from cpost.measure import cleanup
from cpost.model import Plan, Step
from cpost.volumes import Volumes, with_sources

_MADE_FILE = ".cpost_outputs"


class OutputFolders:
    """The output folders of one run.

    Args:
        root: holds a folder per operator.
        overwrite: outputs of an earlier run may be replaced.
        volumes: what lay in the volumes of an operator that runs several times.
    """

    def __init__(self, root: Path, *, overwrite: bool, volumes: Volumes | None = None) -> None:
        self.root = root
        self._volumes = volumes or Volumes(root / "volumes")
        self._overwrite = overwrite
        self._folders: list[Path] = []

    def check(self, plan: Plan) -> None:
        """Refuse what is there already and may not be replaced; changes nothing.

        Raises:
            UsageError: names the folder and what to do.
        """
        made = self._made()
        for folder in self._of(plan):
            if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
                raise UsageError(f"{folder} is not a folder", "name another --outputs_dir")
            if not folder.exists() or not any(folder.iterdir()):
                continue
            if not self._overwrite:
                raise UsageError(
                    f"{folder} holds files already: earlier outputs are never overwritten unasked",
                    "name another --outputs_dir, or allow it with --overwrite",
                )
            if folder.name not in made:
                raise UsageError(f"{folder} holds files that cpost did not write", "name another --outputs_dir")

    def make(self, plan: Plan) -> None:
        """Make the folders anew, writable for whatever user an image runs as.

        Raises:
            UsageError: an old one holds files of another user.
            StoreError: a folder cannot be made.
        """
        for folder in self._of(plan):
            if folder.exists() and not cleanup.remove_tree(folder):
                raise UsageError(f"{folder} holds files of another user", f"sudo rm -rf {folder}")
        with self._making():
            self.root.mkdir(parents=True, exist_ok=True)
            names = sorted(self._made() | {step.operator for step in plan.steps})
            (self.root / _MADE_FILE).write_text("".join(f"{name}\n" for name in names))
            for step in plan.steps:
                self._make(step)

    def renew(self, step: Step, remove_foreign: Callable[[Path], bool]) -> None:
        """Remove what an operator has written and make its folders anew, as they were before its first run; so its
        volumes, where these were kept.

        Args:
            remove_foreign: removes a folder that holds files of another user; False where it cannot.

        Raises:
            HostError: something could not be removed: outputs of two runs must not mix; or see `refuse_links`.
            StoreError: a folder cannot be made.
        """
        for folder in (self.root / step.operator, *map(Path, step.shared_folders)):
            if not cleanup.remove_tree(folder) and not remove_foreign(folder):
                raise HostError(
                    f"{step.operator} is not run again: what it wrote to {folder} belongs to another user and cannot "
                    "be removed",
                    "run cpost as root, or use an image with rm, busybox or python3",
                )
        self.refuse_links(step)
        with self._making():
            self._make(step)
        self._volumes.put_back(step, remove_foreign)

    def moved(self, step: Step) -> Step:
        """A step of another's folders, with all that it writes in these instead."""
        before = Path(step.output_folders[0]).parent
        outputs = {source: str(self.root / Path(source).relative_to(before)) for source in step.output_folders}
        shared = {
            source: str(self.root / f"{step.operator}__shared" / str(number))
            for number, source in enumerate(step.shared_folders)
        }
        places = {**outputs, **shared}
        moved = with_sources(step, lambda source: places.get(source, source))
        return self._volumes.moved(
            replace(
                moved,
                output_folders=tuple(outputs.values()),
                copies=tuple(replace(copy, folder=places.get(copy.folder, copy.folder)) for copy in step.copies),
                shared_folders=tuple(shared.values()),
            ),
            self.root,
        )

    def discard(self, remove_foreign: Callable[[Path], bool]) -> None:
        """Remove all of it; what cannot be removed now is left to whoever removes the run."""
        if not cleanup.remove_tree(self.root):
            remove_foreign(self.root)
        self._folders.clear()

    @contextlib.contextmanager
    def _making(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or str(error)
            raise StoreError(
                f"cannot make folders in {self.root}: {reason}", "name a folder you may write to"
            ) from error

    def refuse_links(self, step: Step) -> None:
        """A container may have put a link in the place of a folder that is handed on: the host must not follow it.

        Raises:
            HostError: names the link; or a folder that another user has closed, so that nobody can tell.
        """
        tops = (self.root, *map(Path, (*step.shared_folders, *step.volume_folders)))
        for path in _used(step):
            try:
                astray = _is_led_astray(path, tops)
            except PermissionError as error:
                raise HostError(
                    f"{step.operator} is not run: {path} is in a folder that another user has closed",
                    "run cpost as root, or leave the folder open in the operators before it",
                ) from error
            if astray:
                raise HostError(
                    f"{step.operator} is not run: an earlier container put a link in the place of {path}",
                    "see what the operators before it, and their servers, do to the folders that they write to",
                )

    def close(self) -> None:
        """Nobody but their owner needs to write to the folders any more."""
        for folder in self._folders:
            # One that is refused is gone with the run, or taken over by an operator's user.
            with contextlib.suppress(OSError):
                if not _is_led_astray(folder, (self.root, *self._folders)):
                    cleanup.set_mode(folder, 0o755)

    def _of(self, plan: Plan) -> list[Path]:
        return [self.root / step.operator for step in plan.steps]

    def _made(self) -> set[str]:
        try:
            return set((self.root / _MADE_FILE).read_text().split())
        except (OSError, UnicodeDecodeError):
            return set()

    def _make(self, step: Step) -> None:
        for path in map(Path, _made_for(step)):
            path.mkdir(parents=True, exist_ok=True)
            cleanup.set_mode(path, 0o777)
            if path not in self._folders:
                self._folders.append(path)
        for file in step.files:
            written = Path(file.path)
            written.parent.mkdir(parents=True, exist_ok=True)
            written.unlink(missing_ok=True)
            written.write_bytes(file.content)
            written.chmod(file.mode)


def _made_for(step: Step) -> tuple[str, ...]:
    """Parents stand before what lies in them."""
    return (*step.output_folders, *step.shared_folders, *step.volume_folders)


def _used(step: Step) -> Iterator[Path]:
    """Where cpost makes or writes something for a step, and what the step and its servers have mounted."""
    yield from map(Path, _made_for(step))
    yield from (Path(file.path).parent for file in step.files)
    yield from (Path(mount.source) for mount in step.mounts)
    for server in step.servers:
        yield from _used(server.step)


def _is_led_astray(path: Path, tops: Iterable[Path]) -> bool:
    """Whether there is a link on the way to it from one of the folders that containers write to."""
    return any(cleanup.has_link(path, below=top) for top in tops if path.is_relative_to(top))
