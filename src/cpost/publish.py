"""Makes the page of a run: at its end, where it must neither break nor hold up anything, and later, when asked for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from cpost import store
from cpost.errors import Interrupted, StoreError, UsageError
from cpost.interrupts import Interrupts
from cpost.model import Run
from cpost.recorder import RunObserver
from cpost.store import RunFolder


def publish(run: Run, folder: RunFolder, observer: RunObserver, interrupts: Interrupts) -> None:
    """Write the page into the run's folder, and say where it is. Whatever keeps it from being written is a warning.

    A signal breaks it off; after one that came before, it is left out: whoever stopped the run does not want to wait.
    """
    path = folder.path / store.REPORT_FILE
    later = f"`cpost report {folder.path}` makes it"
    try:
        with interrupts.breaking():
            from cpost.report.page import is_page

            text = _page([(run, folder.path)])
        store.save_page(path, text, is_page)
    except Interrupted:
        if not path.exists():
            observer.note(f"The page was left out; {later}")
    except (StoreError, UsageError) as error:
        observer.warn(f"the page was not written: {error.message}; {later} elsewhere with -o")
    except Exception as error:  # whatever is wrong with the page: the run is measured and recorded
        observer.warn(f"the page was not written: {type(error).__name__}: {error}")
    else:
        observer.note(f"The page for people is in {path.resolve()}")


def withdraw(folder: RunFolder) -> None:
    """Take away an earlier page of a run whose record is about to change: however that ends, even by SIGKILL, no page
    says other than the record. What is no page of cpost's stays.

    Raises:
        StoreError: it is not to be removed.
    """
    path = folder.path / store.REPORT_FILE
    if path.exists():
        from cpost.report.page import is_page

        store.remove_page(path, is_page)


def report(folders: Sequence[Path], out: Path | None) -> Path:
    """Make the page of earlier runs.

    Args:
        folders: those that cpost wrote, one for each run.
        out: where the page goes, a link's target where it is one; None = into the folder of a single run, else here.

    Returns:
        Where it is.

    Raises:
        UsageError: a folder is not there or holds no run, or something else than a page is where the page should go.
        StoreError: a run cannot be read, or the page cannot be written.
    """
    _require_folders(folders)
    if out is not None and store.is_folder(out):
        raise UsageError(f"{out} is a folder", f"name a file: -o {out / store.REPORT_FILE}")
    target = out or (folders[0] if len(folders) == 1 else Path()) / store.REPORT_FILE
    from cpost.report.page import is_page

    store.require_page(target, is_page)  # before the work, not after it
    text = _page(_loaded(folders))
    store.save_page(Path(os.path.realpath(target)) if out is not None and out.is_symlink() else target, text, is_page)
    return target


def page_text(folders: Sequence[Path]) -> str:
    """The page of earlier runs, see `report`, as text for any stream, whatever its encoding; raises likewise."""
    _require_folders(folders)
    return _page(_loaded(folders)).encode("ascii", "xmlcharrefreplace").decode()


def _require_folders(folders: Sequence[Path]) -> None:
    for folder in folders:
        if not store.is_folder(folder):
            raise UsageError(f"{folder} is not there, or is no folder", "name a folder of --metrics_dir")


def _loaded(folders: Sequence[Path]) -> list[tuple[Run, Path]]:
    return [(store.load_run(folder), folder) for folder in folders]


def _page(runs: Sequence[tuple[Run, Path]]) -> str:
    from cpost.report.page import render
    from cpost.report.sections import Source

    labels = _labels([folder for _, folder in runs])
    return render([Source(label, run, folder) for label, (run, folder) in zip(labels, runs, strict=True)])


def _labels(folders: Sequence[Path]) -> list[str]:
    """What tells folders apart: the end of their paths as far as it takes, without what all end in; else numbers."""
    paths = [folder.resolve().parts for folder in folders]
    if len(set(paths)) < len(paths):
        return [f"{path[-1]} ({number})" for number, path in enumerate(paths, 1)]
    length, shared = 1, 0
    while len({path[-length:] for path in paths}) < len(paths):
        length += 1
    while len({path[-shared - 1] for path in paths}) == 1 < len(paths):
        shared += 1
    return ["/".join(path[-length : len(path) - shared]) for path in paths]
