"""The one table: what was measured with which tool, its aim, and whether it was met; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from benchmarks.ranges import Range

CPOST, LIMIT, NAIVE = "cpost", "C loop", "open+parse"
DOCKER, PSRECORD, RUNEXEC = "docker", "psrecord", "runexec"
TOOLS = (CPOST, LIMIT, NAIVE, DOCKER, PSRECORD, RUNEXEC)
_VERDICTS = {True: "met", False: "MISSED", None: ""}


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table.

    Attributes:
        unit: of all its figures.
        cells: what each tool gave: a range of figures, or words. A tool that is missing cannot do it.
        aim: what cpost wants to reach, in words; empty where the line is there to be known only.
        met: whether it did; None where there is no aim.
    """

    theme: str
    what: str
    unit: str
    cells: Mapping[str, Range | str | None]
    aim: str = ""
    met: bool | None = None
    digits: int = 2
    signed: bool = False


@dataclass(frozen=True, slots=True)
class Grid:
    """A table of its own, for what has no columns of tools; all cells are words."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Findings:
    """What a theme found: lines of the table, tables of its own, and what has to be known to read them."""

    lines: Sequence[Line] = ()
    notes: Sequence[str] = field(default=())
    grids: Sequence[Grid] = ()


def render(lines: Iterable[Line]) -> str:
    """The table as text: a heading per theme, a column per tool, then aim and verdict."""
    rows: list[tuple[str, ...]] = [("", *TOOLS, "aim", "")]
    themes: dict[int, str] = {}
    for line in lines:
        if line.theme not in themes.values():
            themes[len(rows)] = line.theme
        what = f"{line.what} ({line.unit})" if line.unit else line.what
        rows.append((what, *(_cell(line, tool) for tool in TOOLS), line.aim, _VERDICTS[line.met]))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    text = []
    for number, row in enumerate(rows):
        if number in themes:
            text += ["", themes[number]]
        text.append("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return "\n".join(text) + "\n"


def markdown(grid: Grid) -> str:
    """A table as Markdown, its title above it."""
    rows = (grid.header, ["---"] * len(grid.header), *grid.rows)
    return "\n".join([f"{grid.title}:", "", *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


def as_data(lines: Iterable[Line]) -> list[dict[str, object]]:
    """The table for JSON; a range is an object of median, low, high and count."""
    return [
        {
            "theme": line.theme,
            "what": line.what,
            "unit": line.unit,
            "cells": {tool: asdict(cell) if isinstance(cell, Range) else cell for tool, cell in line.cells.items()},
            "aim": line.aim,
            "met": line.met,
        }
        for line in lines
    ]


def _cell(line: Line, tool: str) -> str:
    cell = line.cells.get(tool)
    if not isinstance(cell, Range):
        return cell or "-"
    number = f"{{:{'+' if line.signed else ''}.{line.digits}f}}".format
    if cell.count == 1:
        return number(cell.median)
    return f"{number(cell.median)} ({number(cell.low)}..{number(cell.high)})"
