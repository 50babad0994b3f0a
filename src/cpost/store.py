"""The run folder: every file name, the format's version, atomic writes, and load(save(run)) == run.

    <operator>_final_result.csv   the series of one operator, written as it comes; of its last run where it has several
    <operator>__<server>_...      likewise, of a server beside it; of one that all share: pipeline__<server>_...
    <operator>_repeat<n>.csv      the series of an earlier run of it, moved here when the next one begins
    <operator>_verify<n>.csv      the series of a run of it under limits; so for search. One that is to take the place
                                  of an earlier run's ends in .new until its verdict is in
    <operator>_warmup<n>.csv      likewise of a warm-up; no operator can be called so that its own file has such a name
    summary.csv                   one row per operator
    trials.csv                    one row per run under limits, where there were any
    run.json                      the whole record; written anew after every operator, `complete` at the end
    report.html                   the page for people, made of all these; written last; none stays beside a newer record

Results are never overwritten unasked. A small reserve is given back to the disk just before the record is written,
so that a disk that is full of series still gets its summary.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import cattrs

from cpost.errors import StoreError, UsageError
from cpost.model import RepeatKind, Run

SCHEMA_VERSION = 1
_NAME_A_RUN = "name a folder that cpost wrote (--metrics_dir)"
RUN_FILE = "run.json"
SUMMARY_FILE = "summary.csv"
TRIALS_FILE = "trials.csv"
REPORT_FILE = "report.html"
SERIES_SUFFIX = "_final_result.csv"
_REPEAT_WORDS = {RepeatKind.MEASURED: "repeat", RepeatKind.WARMUP: "warmup"}
VERIFY, SEARCH = "verify", "search"  # what series of runs under limits are called
_NUMBERED = "|".join((*_REPEAT_WORDS.values(), VERIFY, SEARCH))
_NUMBERED_NAME = re.compile(rf"(?P<operator>.+)_(?:{_NUMBERED})[1-9][0-9]*\.csv")
_ASIDE = ".new"  # ends the name of a series that is to take the place of an earlier run's
_RESERVE_BYTES = 64 * 1024
_HEAD_CHARACTERS = 2000
_MOST_DIGITS = 40  # more than any counter has, and few enough for a float
_SERIES_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
_FULL = (errno.ENOSPC, errno.EDQUOT)


class RunFolder:
    """The folder that one run's results go to.

    Args:
        path: made if missing.
        operators: whose series will be written.
        overwrite: an existing result may be replaced.
        update: an existing result is added to.

    Raises:
        UsageError: a result is there already, or the path cannot be a folder.
        StoreError: the folder cannot be written to.
    """

    def __init__(self, path: Path, operators: Iterable[str], *, overwrite: bool, update: bool = False) -> None:
        self.path = path
        self._operators = tuple(operators)
        self._reserve_fd: int | None = None
        self._lock_fd = -1
        if os.access(path, os.F_OK) and not is_folder(path):
            raise UsageError(f"{path} is a file, not a folder", "name a folder for the results, new or empty")
        self._update = update
        self._made = [folder for folder in (path, *path.parents) if not os.access(folder, os.F_OK)]
        old = self._results()
        if old and not overwrite and not update:
            raise UsageError(
                f"{old[0]} is there already: an earlier result is never overwritten unasked",
                "name another folder, or allow it with --overwrite",
            )
        with _writing(path):
            path.mkdir(parents=True, exist_ok=True)
            self._lock_fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._lock()

    def _lock(self) -> None:
        """Keep other runs out; the kernel lets go of the lock with the process."""
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock_fd)
            raise UsageError(f"another cpost is writing to {self.path}", "name another folder") from error
        except OSError:
            pass  # a file system without locks

    def reserve(self) -> None:
        """Set the reserve aside; raises `StoreError` where the folder takes no files. What is there stays."""
        with _writing(self.path):
            self._set_aside()

    def prepare(self) -> None:
        """Make room for the new result just before it comes: remove an old one, set the reserve aside."""
        with _writing(self.path):
            for old in () if self._update else self._results():
                old.unlink()
            self._set_aside()

    def _set_aside(self) -> None:
        """Hold the reserve in a file without a name: the kernel gives it back even when cpost is killed."""
        self._release_reserve()
        self._reserve_fd, name = tempfile.mkstemp(dir=self.path)
        Path(name).unlink()
        os.write(self._reserve_fd, b"\0" * _RESERVE_BYTES)

    def _results(self) -> list[Path]:
        """What is here of the files that this run will write."""
        series = [self.series_path(operator) for operator in self._operators]
        named = map(self.path.joinpath, (RUN_FILE, SUMMARY_FILE, TRIALS_FILE, REPORT_FILE))
        fixed = [path for path in (*named, *series) if path.exists()]
        # However many this run will write: those of a longer earlier run must not stay beside its own.
        numbered = (path for ends in ("", _ASIDE) for path in self.path.glob(f"*.csv{ends}"))
        return fixed + sorted(path for path in numbered if self._is_numbered(path.name.removesuffix(_ASIDE)))

    def _is_numbered(self, name: str) -> bool:
        match = _NUMBERED_NAME.fullmatch(name)
        return match is not None and match["operator"] in self._operators

    def series_path(self, operator: str) -> Path:
        """Where an operator's series goes."""
        return self.path / f"{operator}{SERIES_SUFFIX}"

    def open_series(self, operator: str, header: str) -> SeriesFile:
        """Open the series file of an operator for writing, header first."""
        return SeriesFile(self.series_path(operator), header)

    def open_trial(self, word: str, number: int, operator: str, header: str) -> SeriesFile:
        """Open the series file of one of an operator's runs under limits.

        Where a result is added to, an earlier run's series stays beside it until `settle_trials`.

        Args:
            word: `VERIFY` or `SEARCH`.
        """
        path = self._trial(word, number, operator)
        return SeriesFile(path, header, written=_aside(path) if self._update else path)

    def settle_trials(self, word: str, names: Iterable[str], last: int) -> None:
        """Let the new series of runs under limits take the place of an earlier run's, of which none stays.

        Args:
            names: of operators and servers.
            last: how many such runs there are now; 0 = none, and the earlier run's series stay.
        """
        for name in names:
            pattern = re.compile(rf"{re.escape(name)}_{word}([1-9][0-9]*)\.csv(?:{re.escape(_ASIDE)})?")
            found = {match[1] for path in self.path.iterdir() if (match := pattern.fullmatch(path.name))}
            for number in map(int, found):
                self._settle(self._trial(word, number, name), is_now=number <= last, stays=not last or not self._update)

    def _settle(self, path: Path, *, is_now: bool, stays: bool) -> None:
        with _writing(path):
            if not is_now:
                _aside(path).unlink(missing_ok=True)
            if _aside(path).exists():
                _aside(path).replace(path)
            elif not stays:
                path.unlink(missing_ok=True)

    def _trial(self, word: str, number: int, name: str) -> Path:
        return self.path / f"{name}_{word}{number}.csv"

    def move_series(self, operator: str, kind: RepeatKind, number: int) -> Path:
        """Give the series of an earlier repeat a name of its own, to make room for the next one's; returns it."""
        path = self.path / f"{operator}_{_REPEAT_WORDS[kind]}{number}.csv"
        with _writing(path):
            self.series_path(operator).replace(path)
        return path

    def save(self, run: Run, summary: str, trials: str = "") -> None:
        """Write the record and the tables, each whole or not at all; without runs under limits there is no table of
        them."""
        self._release_reserve()
        _replace(self.path / SUMMARY_FILE, summary)
        if trials:
            _replace(self.path / TRIALS_FILE, trials)
        _replace(self.path / RUN_FILE, json_text(run))
        with contextlib.suppress(OSError):
            self._set_aside()

    def close(self) -> None:
        """Give the reserve and the lock back; what was made for results that never came goes."""
        self._release_reserve()
        with contextlib.suppress(OSError):  # not empty
            for folder in self._made:
                folder.rmdir()
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def _release_reserve(self) -> None:
        if self._reserve_fd is not None:
            os.close(self._reserve_fd)
            self._reserve_fd = None


def _aside(path: Path) -> Path:
    return path.with_name(path.name + _ASIDE)


class SeriesFile:
    """A series on disk: lines go out in whole batches, and a batch that does not fit leaves no torn line.

    Args:
        path: what it is called.
        written: where it lies until it gets that name; None = there.
    """

    def __init__(self, path: Path, header: str, written: Path | None = None) -> None:
        self.path = path
        with _writing(path):
            self._fd = os.open(written or path, _SERIES_FLAGS, 0o644)
        self._size = 0
        self.write(header)

    def write(self, lines: str) -> None:
        """Append lines; raises `StoreError` where the disk is full."""
        data = lines.encode()
        with _writing(self.path):
            try:
                while data:
                    written = os.write(self._fd, data)
                    data = data[written:]
            except OSError:
                os.ftruncate(self._fd, self._size)
                raise
        self._size += len(lines.encode())

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


def json_text(value: object) -> str:
    """A record, or anything else made of the domain types, as JSON text."""
    return json.dumps(cattrs.unstructure(value), indent=2) + "\n"


def load_run(path: Path) -> Run:
    """Read a record back.

    Raises:
        UsageError: missing, not a record, or of another format.
        StoreError: the disk or its permissions are in the way.
    """
    try:
        return _structured(_parsed((path / RUN_FILE if path.is_dir() else path).read_text("utf-8")), path)
    except (FileNotFoundError, NotADirectoryError) as error:
        missing = f"{RUN_FILE} is not there" if path.is_dir() else "there is no such folder"
        raise UsageError(f"{path}: not a run's record: {missing}", _NAME_A_RUN) from error
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror or error}", "see to its permissions") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not a run's record ({error})", _NAME_A_RUN) from error


def _parsed(text: str) -> Any:
    """JSON with numbers that the domain types can hold; raises `ValueError` for others, which cpost never writes."""
    return json.loads(text, parse_constant=_finite, parse_float=_finite, parse_int=_whole)


def _finite(text: str) -> float:
    value = float(text)
    if not abs(value) < 10.0**_MOST_DIGITS:  # so is neither NaN nor infinity
        raise ValueError(f"{text} is not a number that a record may have")
    return value


def _whole(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _structured(data: Any, path: Path) -> Run:
    version = data.get("schema_version") if isinstance(data, dict) else None
    if type(version) is not int:
        raise ValueError("it has no schema_version")
    if version != SCHEMA_VERSION:
        raise UsageError(f"{path}: record format {version}, this cpost reads {SCHEMA_VERSION}", "update cpost")
    try:
        return _converter().structure(data, Run)
    except cattrs.BaseValidationError as error:
        faults = cattrs.transform_error(error)
        more = f", and {len(faults) - 1} more" if len(faults) > 1 else ""
        raise ValueError(f"{faults[0]}{more}") from error


@cache
def _converter() -> cattrs.Converter:
    """One that takes values as they are: "false" is no bool, and "nan" no number."""
    made = cattrs.Converter()
    for kind, taken in ((bool, {bool}), (int, {int}), (float, {int, float}), (str, {str})):
        made.register_structure_hook(kind, partial(_as_it_is, taken))  # of str for enums of strings, too
    return made


def _as_it_is(taken: Collection[type], value: Any, kind: type) -> Any:
    if type(value) not in taken:
        raise TypeError(f"{value!r} is no {kind.__name__}")
    return kind(value)


def is_folder(path: Path) -> bool:
    """Whether a folder is there; raises `StoreError` where that cannot be told, as what is above may not be entered."""
    try:
        return path.is_dir()
    except OSError as error:
        raise StoreError(f"cannot look at {path}: {error.strerror}", "see to the permissions of its folder") from error


def save_page(path: Path, text: str, is_ours: Callable[[str], bool]) -> None:
    """Write a page that was asked for, whole or not at all.

    Args:
        is_ours: whether the head of a file that is there already is one that may be replaced.

    Raises:
        UsageError: what is there is no page of cpost's.
        StoreError: it cannot be written.
    """
    require_page(path, is_ours)
    _replace(path, text)


def require_page(path: Path, is_ours: Callable[[str], bool]) -> None:
    """Whether `save_page` may write there; raises as it does."""
    with _writing(path):
        there = path.exists()
    if there and not _is_page(path, is_ours):
        raise UsageError(f"{path} is there already and no page of cpost's: it is not replaced", "name another: -o")


def remove_page(path: Path, is_ours: Callable[[str], bool]) -> None:
    """Remove a page; a file whose head is not one of ours stays.

    Raises:
        StoreError: it cannot be read or removed.
    """
    if _is_page(path, is_ours):
        with _writing(path):
            path.unlink()


def _is_page(path: Path, is_ours: Callable[[str], bool]) -> bool:
    with _writing(path):
        return path.is_file() and is_ours(_head(path))


def _head(path: Path) -> str:
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.read(_HEAD_CHARACTERS)


def _replace(path: Path, text: str) -> None:
    """Write beside, then rename over: a reader sees the old file or the new one, never half of it."""
    beside = path.with_name(f".{path.name}.new")
    with _writing(path):
        try:
            with beside.open("w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        except OSError:
            beside.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StoreError(f"disk full at {path}", "free space there, or name another folder") from error
        reason = error.strerror or str(error)
        raise StoreError(f"cannot write {path}: {reason}", "name a folder that you may write to") from error
