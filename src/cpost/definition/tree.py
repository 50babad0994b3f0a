"""The positioned tree that a YAML file becomes: raw text, lists and mappings, nothing interpreted.

Every node knows where it was written and how much it weighs. The weight counts a node as often as it is reached
(aliases included), so that a small file which unfolds into a huge one is noticed without unfolding it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

from cpost.model import Origin

MAX_WEIGHT = 10_000
_CHARACTERS_PER_UNIT = 100
_NULLS = frozenset(("", "~", "null", "Null", "NULL"))

Node: TypeAlias = "Text | Items | Fields"
Entry: TypeAlias = "tuple[Text, Node]"


@dataclass(frozen=True, slots=True)
class Text:
    """A scalar: its raw text, never a number, a truth value or a date.

    Attributes:
        plain: written without quotes, so that an empty value, `~` and `null` mean "nothing".
        broken: it holds a placeholder that could not be filled, so nothing more can be said about it.
    """

    value: str
    origin: Origin
    plain: bool = False
    broken: bool = False

    kind = "text"

    @property
    def is_null(self) -> bool:
        """Whether the file says "nothing" here."""
        return self.plain and self.value in _NULLS

    @property
    def weight(self) -> int:
        """One, and one more for every hundred characters."""
        return 1 + len(self.value) // _CHARACTERS_PER_UNIT


@dataclass(frozen=True, slots=True)
class Items:
    """A list."""

    items: tuple[Node, ...]
    origin: Origin
    weight: int = field(init=False, compare=False)

    kind = "a list"
    is_null = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", 1 + sum(item.weight for item in self.items))


@dataclass(frozen=True, slots=True)
class Fields:
    """A mapping in the order written; keys are unique."""

    entries: tuple[Entry, ...]
    origin: Origin
    weight: int = field(init=False, compare=False)

    kind = "a mapping"
    is_null = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", 1 + sum(key.weight + value.weight for key, value in self.entries))

    def get(self, name: str) -> Node | None:
        """Return the value under `name`; None where it is absent or says "nothing"."""
        return next((value for key, value in self.entries if key.value == name and not value.is_null), None)

    def key(self, name: str) -> Text | None:
        """Return the key itself, for its place."""
        return next((key for key, _ in self.entries if key.value == name), None)

    def without(self, names: Collection[str]) -> Fields:
        """Return the mapping less some keys."""
        return Fields(tuple(entry for entry in self.entries if entry[0].value not in names), self.origin)

    def overridden(self, by: Fields) -> Fields:
        """Return the mapping with whole values replaced by those of `by`, placed where `by` is."""
        return Fields(joined((*by.entries, *self.entries)), by.origin)


def joined(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """Return entries with each key once; the first of equal keys wins."""
    unique: dict[str, Entry] = {}
    for entry in entries:
        unique.setdefault(entry[0].value, entry)
    return tuple(unique.values())
