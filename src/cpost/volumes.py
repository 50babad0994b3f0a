"""What lies in an operator's volumes before its first run, so that each of its runs finds the same there."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from cpost.copier import Copier
from cpost.errors import HostError
from cpost.interrupts import Interrupts
from cpost.measure import cleanup
from cpost.model import Server, Step

RemoveForeign = Callable[[Path], bool]


class Volumes:
    """The volumes of one operator at a time, as they were before its first run.

    Args:
        root: where copies are kept; made if missing.
        copier: makes them; without one, no signal breaks a copy off.
    """

    def __init__(self, root: Path, copier: Copier | None = None) -> None:
        self._root = root
        self._copier = copier or Copier(Interrupts())
        self._taken: set[str] = set()
        self._kept: dict[str, Path] = {}

    def are_shared_by(self, servers: Iterable[Server]) -> None:
        """Those that servers of several operators have mounted stay as they are: these go on using them."""
        self._taken = {mount.source for server in servers if server.shared for mount in server.step.mounts}

    def forget(self) -> None:
        """Nothing is put back from now on."""
        self._kept = {}
        cleanup.remove_tree(self._root)

    def keep(self, step: Step) -> list[str]:
        """Copy what lies in its volumes now, those that its containers may write to; what an earlier one had goes.

        Returns:
            What could not be copied, one line each.

        Raises:
            Interrupted: a signal came.
        """
        self.forget()
        warnings = []
        for number, folder in enumerate(_written(step)):
            if any(_is_in(source, folder) for source in self._taken):
                continue
            kept = self._root / str(number)
            self._root.mkdir(parents=True, exist_ok=True)
            source = Path(folder)
            problem = self._copier.refusal(source, self._root) or self._copier.copy(source, kept)
            if problem:
                warnings.append(f"its volume {source.name} cannot be copied ({problem}): all its runs share it")
            else:
                self._kept[folder] = kept
        return warnings

    def moved(self, step: Step, root: Path) -> Step:
        """The step with folders of its own in the place of its volumes, below another folder.

        Until the next step is kept, `put_back` fills these, too.
        """
        places = {}
        for number, (folder, kept) in enumerate(list(self._kept.items())):
            if folder in step.volume_folders:
                places[folder] = str(root / f"{step.operator}__volumes" / str(number))
                self._kept[places[folder]] = kept

        def place(path: str) -> str:
            for folder, to in places.items():
                if _is_in(path, folder):
                    return to + path.removeprefix(folder)
            return path

        return replace(
            with_sources(step, place),
            volume_folders=tuple(map(place, step.volume_folders)),
            files=tuple(replace(file, path=place(file.path)) for file in step.files),
        )

    def put_back(self, step: Step, remove_foreign: RemoveForeign) -> None:
        """Make its volumes as they were.

        Raises:
            HostError: that could not be done: the runs would not find the same.
            Interrupted: a signal came.
        """
        for folder in map(Path, step.volume_folders):
            kept = self._kept.get(str(folder))
            if kept is None:
                continue
            removed = cleanup.remove_tree(folder) or remove_foreign(folder)
            folder.parent.mkdir(parents=True, exist_ok=True)
            problem = self._copier.copy(kept, folder) if removed else "it holds files of another user"
            if problem:
                raise HostError(
                    f"{step.operator} is not run again: its volume {folder} cannot be made as it was ({problem})",
                    "see to the disk, run cpost as root, or use an image with rm, busybox or python3",
                )


def with_sources(step: Step, place: Callable[[str], str]) -> Step:
    """The step, and its servers, with other folders of the host mounted.

    Args:
        place: what is mounted in the place of a folder.
    """
    servers = (replace(server, step=with_sources(server.step, place)) for server in step.servers)
    mounts = (replace(mount, source=place(mount.source)) for mount in step.mounts)
    return replace(step, mounts=tuple(mounts), servers=tuple(servers))


def _written(step: Step) -> list[str]:
    """The volumes that it or its own servers may write to, without the folders in them that are mounted apart."""
    own = [step, *(server.step for server in step.servers if not server.shared)]
    sources = [mount.source for each in own for mount in each.mounts if not mount.read_only]
    tops = [
        folder
        for folder in step.volume_folders
        if not any(folder != other and _is_in(folder, other) for other in step.volume_folders)
    ]
    return [folder for folder in tops if any(_is_in(source, folder) for source in sources)]


def _is_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder + "/")
