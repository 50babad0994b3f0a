"""What cpost calls the containers of a file, which may have one name several times.

Write-back finds a container again by this name, so the rule is the file's alone: a container's own name if it is the
only one of that name in the file; else its object's name before it; else the object's kind before that. In the end
containers beside the main one of an Argo template have the template's name in between, as templates have that are
written inline, and whatever has a namespace has that before it all.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from cpost.definition.findings import quoted
from cpost.definition.grammar import GrammarError

_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]")
_SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,149}")


class Site(NamedTuple):
    """A container, the object (Pod, Job, Workflow) that it belongs to, and the template that it is in beside others."""

    kind: str
    owner: str
    container: str
    template: str = ""
    namespace: str = ""

    def levels(self) -> tuple[str, ...]:
        """Its names, ever more of them in one."""
        object_ = f"{self.kind.lower()}.{self.owner}"
        found = [self.container, f"{self.owner}.{self.container}", f"{object_}.{self.container}"]
        if self.template:
            found.append(f"{object_}.{self.template}.{self.container}")
        if self.namespace:
            found.append(f"{self.namespace}.{found[-1]}")
        return tuple(map(safe, found))


def names(all_levels: Sequence[Sequence[str]]) -> list[str]:
    """What each of all the containers of a file is called; those that nothing tells apart get equal names.

    Args:
        all_levels: of each container, the names that it may have: the first that no other has is its own.
    """
    most = max((len(each) for each in all_levels), default=0)
    known = [Counter(each[min(level, len(each) - 1)] for each in all_levels) for level in range(most)]
    return [
        next((name for name, count in zip(each, known, strict=False) if count[name] == 1), each[-1])
        for each in all_levels
    ]


def safe(text: str) -> str:
    """Text with a dash for every letter that a file name of cpost's does not have."""
    return _UNSAFE.sub("-", text)


def usable(text: str) -> str:
    """Accept what files, folders and containers of cpost's can be called by."""
    if not _SAFE.fullmatch(safe(text)):
        hint = "start it with a letter, digit or _, and use at most 150: file and container names are made of it"
        raise GrammarError(f"{quoted(text)} cannot be used as a name", hint)
    return text
