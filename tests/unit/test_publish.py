"""Where the page goes: at a run's end it breaks nothing, and asked for later it replaces no more than a page."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from builders import record, run

from cpost import publish, store
from cpost.cli import main
from cpost.errors import StoreError, UsageError
from cpost.interrupts import Interrupts
from cpost.model import Run
from cpost.report import page
from cpost.report.sections import Source

NOBODY = 65534


class Told:
    """Keeps what an observer is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.note, self.warn = self.notes.append, self.warnings.append


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a run has left."""
    made = tmp_path / "metrics"
    saved(made, run(record("first")))
    return made


def saved(path: Path, made: Run) -> None:
    kept = store.RunFolder(path, [], overwrite=True)
    kept.save(made, "s\n")
    kept.close()


def published(path: Path, interrupts: Interrupts | None = None) -> Told:
    told = Told()
    kept = store.RunFolder(path, [], overwrite=True)
    publish.publish(store.load_run(path), kept, told, interrupts or Interrupts())  # type: ignore[arg-type]
    kept.close()
    return told


def called(monkeypatch: pytest.MonkeyPatch, *words: object) -> object:
    monkeypatch.setattr(sys, "argv", ["cpost", "report", *map(str, words)])
    with pytest.raises(SystemExit) as left:
        main()
    return left.value.code


# ---------------------------------------------------------------- at the end of a run


def test_the_page_lies_beside_the_record(folder: Path) -> None:
    told = published(folder)
    assert told.notes == [f"The page for people is in {folder / 'report.html'}"]
    assert told.warnings == []
    assert ">first</h2>" in (folder / "report.html").read_text()


def failing(error: Exception) -> Callable[[object], str]:
    def render(_sources: object) -> str:
        raise error

    return render


@pytest.mark.parametrize("error", [ValueError("a fault"), MemoryError("none left"), KeyError("x"), OSError(5, "I/O")])
def test_whatever_is_wrong_with_the_page_is_a_warning(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(page, "render", failing(error))
    (warning,) = published(folder).warnings
    assert warning.startswith(f"the page was not written: {type(error).__name__}: ")
    assert not (folder / "report.html").exists()


def test_a_page_that_does_not_fit_leaves_the_rest_as_it_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_path: Path, _text: str) -> None:
        raise store.StoreError("disk full at x", "free space")

    monkeypatch.setattr(store, "_replace", full)
    (warning,) = published(folder).warnings
    assert warning == f"the page was not written: disk full at x; `cpost report {folder}` makes it elsewhere with -o"
    assert store.load_run(folder) == run(record("first"))


def test_after_a_signal_nobody_waits_for_a_page(folder: Path) -> None:
    interrupts = Interrupts()
    interrupts.deliver(signal.SIGINT)
    told = published(folder, interrupts)
    assert told.notes == [f"The page was left out; `cpost report {folder}` makes it"]
    assert not (folder / "report.html").exists()


def test_a_signal_breaks_the_page_off(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupts = Interrupts()
    monkeypatch.setattr(page, "render", lambda _sources: interrupts.deliver(signal.SIGTERM))
    assert published(folder, interrupts).notes == [f"The page was left out; `cpost report {folder}` makes it"]


@pytest.mark.parametrize(("text", "stays"), [("", False), ("mine", True)])
def test_no_page_is_left_beside_a_record_that_is_about_to_change(folder: Path, text: str, stays: bool) -> None:
    path = folder / "report.html"
    published(folder)
    path.write_text(text or path.read_text())
    kept = store.RunFolder(folder, [], overwrite=True)
    publish.withdraw(kept)
    assert path.exists() is stays
    publish.withdraw(kept)
    kept.close()


# ---------------------------------------------------------------- cpost report


def test_it_says_where_the_page_is_and_replaces_an_earlier_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called(monkeypatch, folder) == 0
    assert capsys.readouterr().out == f"{folder / 'report.html'}\n"
    saved(folder, run(record("second")))
    assert called(monkeypatch, folder) == 0
    assert ">second</h2>" in (folder / "report.html").read_text()


def test_several_runs_go_on_one_page_here(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    saved(tmp_path / "other", run(record("first")))
    monkeypatch.chdir(tmp_path)
    assert called(monkeypatch, folder, "other") == 0
    assert capsys.readouterr().out == "report.html\n"
    assert "2 runs, one over the other" in (tmp_path / "report.html").read_text()


def test_the_page_goes_where_it_is_asked_to(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert called(monkeypatch, folder, "-o", tmp_path / "mine.html") == 0
    assert (tmp_path / "mine.html").read_text().startswith("<!DOCTYPE html>")
    assert not (folder / "report.html").exists()


@pytest.mark.parametrize("text", ["", "mine", "<!DOCTYPE html><html><head><title>cpost</title>"])
def test_what_is_no_page_is_not_replaced(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    (tmp_path / "kept").write_text(text)
    assert called(monkeypatch, folder, "-o", tmp_path / "kept") == 2
    assert "no page of cpost's" in capsys.readouterr().err
    assert (tmp_path / "kept").read_text() == text


def test_what_is_no_page_is_refused_before_the_work(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kept").write_text("mine")
    monkeypatch.setattr(page, "render", failing(AssertionError("rendered")))
    with pytest.raises(UsageError, match="no page of cpost's"):
        publish.report([folder], tmp_path / "kept")


def test_a_dash_is_stdout(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    saved(folder, run(record("first"), pipeline_name="K\u00f6ln"))
    monkeypatch.chdir(tmp_path)
    assert called(monkeypatch, folder, "-o", "-") == 0
    shown = capsys.readouterr().out
    assert shown.startswith("<!DOCTYPE html>")
    assert shown.endswith("</html>\n")
    assert "K&#246;ln" in shown  # for a terminal of any encoding
    assert [path.name for path in tmp_path.iterdir()] == ["metrics"]
    assert not (folder / "report.html").exists()


@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_and_its_target_is_written(folder: Path, tmp_path: Path, *, there: bool) -> None:
    target, link = tmp_path / "published.html", tmp_path / "latest.html"
    if there:
        publish.report([folder], target)
        saved(folder, run(record("second")))
    link.symlink_to(target)
    assert publish.report([folder], link) == link
    assert link.is_symlink()
    assert (">second</h2>" if there else ">first</h2>") in target.read_text()


@contextmanager
def locked_out(folder: Path) -> Iterator[None]:
    """Be somebody who may not enter a folder."""
    folder.chmod(0o000)
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o700)


def test_a_folder_that_cannot_be_entered_is_said(folder: Path, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    with locked_out(closed), pytest.raises(StoreError, match=r"cannot look at .*closed/metrics: Permission denied"):
        publish.report([closed / "metrics"], None)
    with locked_out(closed), pytest.raises(StoreError, match="Permission denied"):
        publish.report([folder], closed / "page.html")
    with locked_out(closed), pytest.raises(StoreError, match=r"cannot write .*closed/page.html: Permission denied"):
        store.require_page(closed / "page.html", page.is_page)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["nowhere"], 2, "nowhere is not there, or is no folder"),
        (["."], 2, "not a run's record"),
        (["metrics", "-o", "."], 2, "is a folder"),
        (["metrics", "-o", "no/such/folder.html"], 5, "cannot write no/such/folder.html"),
        ([], 2, "Missing argument"),
    ],
)
def test_an_error_says_what_to_do(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    code: int,
    said: str,
) -> None:
    monkeypatch.chdir(folder.parent)
    assert called(monkeypatch, *words) == code
    error = capsys.readouterr().err
    assert said in error
    assert "what to do: " in error
    assert len(error.splitlines()) == 2


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["one/metrics", "two/metrics"], ["one", "two"]),
        (["x/a", "x/b/a"], ["x", "b"]),
        (["one", "two"], ["one", "two"]),
        (["one", "one"], ["one (1)", "one (2)"]),
        (["x/a", "x/b", "y/a"], ["x/a", "x/b", "y/a"]),
    ],
)
def test_runs_are_told_apart_by_their_folders(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str], labels: list[str]
) -> None:
    for name in names:
        saved(tmp_path / name, run())
    seen: list[str] = []

    def render(sources: list[Source]) -> str:
        seen.extend(source.label for source in sources)
        return ""

    monkeypatch.setattr(page, "render", render)
    publish.report([tmp_path / name for name in names], tmp_path / "page.html")
    assert seen == labels
