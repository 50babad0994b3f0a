"""What is done to a user's file, as text: a unified diff, and a line for each operator."""

from __future__ import annotations

import difflib

from cpost.model import Amendment, Fate
from cpost.terminal import visible

_NO_NEWLINE = "\\ No newline at end of file\n"


def unified(old: str, new: str, name: str) -> list[str]:
    """The lines of a unified diff that `patch` takes, each with its line break; none where the texts are equal."""
    found: list[str] = []
    for line in difflib.unified_diff(_lines(old), _lines(new), name, name):
        found += [line] if line.endswith("\n") else [f"{line}\n", _NO_NEWLINE]
    return found


def _lines(text: str) -> list[str]:
    """Lines with their ends: \\n alone ends one, as `patch` sees it, and a \\r before it stays."""
    *whole, rest = text.split("\n")
    return [f"{line}\n" for line in whole] + ([rest] if rest else [])


def amendment_line(amendment: Amendment) -> str:
    """What was done for one operator, on one line: "segment: requests.memory 768 -> 1280"."""
    if amendment.fate is Fate.CHANGED:
        changes = (f"{each.where} {visible(each.old or '-')} -> {each.new}" for each in amendment.changes)
        return f"{visible(amendment.name)}: {', '.join(changes)}"
    reason = f": {visible(amendment.reason)}" if amendment.reason else ""
    return f"{visible(amendment.name)}: {amendment.fate.value}{reason}"
