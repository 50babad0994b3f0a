"""What is done to a user's own file for each recommendation."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Fate(str, Enum):
    """What became of a recommendation."""

    CHANGED = "changed"
    UNCHANGED = "unchanged"
    LEFT = "left"
    REFUSED = "no recommendation"
    ABSENT = "not in the file"
    NO_PLACE = "no place in the file"


@dataclass(frozen=True, slots=True)
class Change:
    """One value: where it stands below its container, what stood there (None = nothing), what will; as written."""

    where: str
    old: str | None
    new: str


@dataclass(frozen=True, slots=True)
class Amendment:
    """What was done for one operator or server; there are several where one is changed in part and left in part.

    Attributes:
        reason: why it is not changed, empty where the fate says it all.
    """

    name: str
    fate: Fate
    changes: tuple[Change, ...] = ()
    reason: str = ""

    @property
    def in_file(self) -> bool:
        """Whether all that was recommended is in the file now; also where nothing was."""
        return self.fate not in (Fate.LEFT, Fate.ABSENT)
