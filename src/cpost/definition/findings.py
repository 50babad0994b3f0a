"""Collects what is wrong with a definition, so that one reading reports every independent fault.

Texts from the file are quoted through `quoted`, which shows control and direction characters escaped: a definition
must not be able to write to the terminal of whoever checks it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from cpost.errors import DefinitionError, Problem
from cpost.model import Origin
from cpost.terminal import visible

MAX_FINDINGS = 100
_SHOWN_CHARACTERS = 80
_SHOWN_NAMES = 10


class Findings:
    """Problems and warnings of one definition, at most `MAX_FINDINGS` of each: a hostile file gives thousands."""

    def __init__(self) -> None:
        self._problems: dict[Problem, None] = {}
        self._warnings: dict[Problem, None] = {}

    def error(self, origin: Origin, message: str, hint: str = "") -> None:
        """Add a fault that makes the definition unusable; line 0 in `origin` means the file as a whole."""
        _put(self._problems, Problem(origin.file, origin.line, origin.column, message, hint))

    def warn(self, origin: Origin, message: str) -> None:
        """Add something that is accepted but looks wrong."""
        _put(self._warnings, Problem(origin.file, origin.line, origin.column, message))

    def absorb(self, error: DefinitionError) -> None:
        """Add the problems of an error that ended the reading of one file but not of the others."""
        for problem in error.problems:
            _put(self._problems, problem)

    @property
    def clean(self) -> bool:
        """Whether there is no problem yet."""
        return not self._problems

    @property
    def crowded(self) -> bool:
        """Whether so much was found that looking for more (and for hints) is wasted time."""
        return len(self._problems) >= MAX_FINDINGS or len(self._warnings) >= MAX_FINDINGS

    def raise_problems(self, files: Sequence[str]) -> None:
        """Raise a DefinitionError with all problems, sorted by place in the order of `files`; nothing where none."""
        if self._problems:
            raise DefinitionError(_sorted(self._problems, files))

    def warnings(self, files: Sequence[str]) -> tuple[str, ...]:
        """All warnings as lines "file:line:column: message", sorted like the problems."""
        return tuple(str(warning) for warning in _sorted(self._warnings, files))


def _put(found: dict[Problem, None], problem: Problem) -> None:
    if len(found) < MAX_FINDINGS:
        found[problem] = None


def _sorted(found: Iterable[Problem], files: Sequence[str]) -> list[Problem]:
    rank = {file: index for index, file in enumerate(files)}
    return sorted(found, key=lambda item: (rank.get(item.file, len(rank)), item.line, item.column))


def quoted(text: str) -> str:
    """Return text from the file in double quotes, escaped and cut to a length that fits in a message."""
    cut = text[:_SHOWN_CHARACTERS]
    return f'"{visible(cut)}{"..." if len(text) > len(cut) else ""}"'


def choice(word: str, known: Iterable[str], what: str) -> str:
    """Return a hint for a word that is not among the known ones.

    Args:
        word: as written.
        known: the words that would be right.
        what: names them, for example "operators are".
    """
    names = list(known)
    if not names:
        return f"{what}: none"
    shown = ", ".join(visible(name[:_SHOWN_CHARACTERS]) for name in names[:_SHOWN_NAMES])
    listing = f"{what}: {shown}{', ...' if len(names) > _SHOWN_NAMES else ''}"
    best = closest(word, names[:_SHOWN_CHARACTERS])
    return f'did you mean "{visible(best)}"? {listing}' if best else listing


def closest(word: str, known: Iterable[str]) -> str:
    """Return the known word that is most like `word`, letter case apart; empty where none is near."""
    by_lower = {name.lower()[:_SHOWN_CHARACTERS]: name for name in known}
    found = difflib.get_close_matches(word.lower()[:_SHOWN_CHARACTERS], by_lower, n=1)
    return by_lower[found[0]] if found else ""
