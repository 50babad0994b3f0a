"""What stands on a page, free of how it looks: tables, notes, sections. Templates draw it."""

from __future__ import annotations

from dataclasses import dataclass

from cpost.report.charts import Chart, Placed
from cpost.report.curves import Curve


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a table; `style` is a word for how it looks, `small` a second line."""

    text: str
    style: str = ""
    small: str = ""
    anchor: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """A column: `group` heads all neighbours with the same one."""

    title: str
    group: str = ""
    hint: str = ""
    number: bool = True

    @property
    def label(self) -> str:
        """What its cells are called where they do not stand below it: "Memory recommended, MB"."""
        whose, comma, unit = self.group.partition(",")
        return f"{whose} {self.title}{comma}{unit}".strip()


@dataclass(frozen=True, slots=True)
class Table:
    """A table; the first cell of a row names it."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]

    @property
    def headed(self) -> bool:
        """Whether any column has a title."""
        return any(column.title for column in self.columns)

    @property
    def groups(self) -> tuple[tuple[str, int], ...]:
        """Heads over the columns, with how many each spans; empty where no column has one."""
        found: list[tuple[str, int]] = []
        for column in self.columns:
            if found and found[-1][0] == column.group:
                found[-1] = (column.group, found[-1][1] + 1)
            else:
                found.append((column.group, 1))
        return tuple(found) if any(group for group, _ in found) else ()


@dataclass(frozen=True, slots=True)
class Fact:
    """A figure with its name and what it is; `style` is a word for how it looks."""

    label: str
    value: str
    small: str = ""
    style: str = ""


@dataclass(frozen=True, slots=True)
class Note:
    """A line that a reader has to see; `kind` is warning, failed, refused, reason, found or missing."""

    kind: str
    text: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Log:
    """The last lines that somebody wrote."""

    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Section:
    """An operator, a server, or a group of charts of one."""

    title: str
    anchor: str
    kind: str = ""
    state: str = ""
    bad: bool = False
    facts: tuple[Fact, ...] = ()
    notes: tuple[Note, ...] = ()
    charts: tuple[Chart, ...] = ()
    curves: tuple[Curve, ...] = ()
    tables: tuple[Table, ...] = ()
    more: tuple[Table, ...] = ()
    log: Log | None = None
    parts: tuple[Section, ...] = ()


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar, in percent of the scale; None = not known, and nothing is drawn.

    Attributes:
        steady: CPU on average; memory that could not be taken back.
        highest: CPU over the highest window; memory at its peak.
        beyond: what is declared lies beyond the end of the scale.
        short: what is declared is less than what is needed.
    """

    steady: float | None
    highest: float | None
    declared: float | None
    wanted: float | None
    beyond: bool
    short: bool


@dataclass(frozen=True, slots=True)
class GlanceRow:
    """An operator, or a server and whose it is, with a bar for each scale; `failure` = how it ended, if that is bad."""

    name: str
    small: str
    failure: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class Glance:
    """All of it; `scales` are the bars' titles and labels, in percent from the right."""

    scales: tuple[tuple[str, tuple[Placed, ...]], ...]
    rows: tuple[GlanceRow, ...]

    @property
    def short(self) -> bool:
        """Whether anybody declares too little."""
        return any(bar.short for row in self.rows for bar in row.bars)

    @property
    def beyond(self) -> bool:
        """Whether anybody declares more than the scale holds."""
        return any(bar.beyond for row in self.rows for bar in row.bars)


@dataclass(frozen=True, slots=True)
class Page:
    """One whole page."""

    title: str
    subtitle: str
    state: str
    bad: bool
    facts: tuple[Fact, ...]
    notes: tuple[Note, ...]
    glance: Glance | None
    summary: Table
    sections: tuple[Section, ...]
    about: tuple[Table, ...]
    version: str
