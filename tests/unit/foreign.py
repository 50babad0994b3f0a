"""Reads definitions of foreign formats from texts, and tells what is wrong with them."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from cpost.definition import load
from cpost.errors import DefinitionError
from cpost.model import Operator, Pipeline


def read(folder: Path, text: str) -> Pipeline:
    file = folder / "p.yaml"
    file.write_text(dedent(text))
    return load(file)


def operators(folder: Path, text: str) -> dict[str, Operator]:
    return {each.name: each for each in read(folder, text).operators}


def faults(folder: Path, text: str) -> list[tuple[str, str]]:
    """Return place and message of each problem."""
    with pytest.raises(DefinitionError) as caught:
        read(folder, text)
    assert all(problem.hint for problem in caught.value.problems), caught.value.problems
    return [(f"{each.line}:{each.column}", each.message) for each in caught.value.problems]


def warnings(folder: Path, text: str) -> list[str]:
    """Return the warnings less the file's name."""
    return [line.removeprefix(f"{folder / 'p.yaml'}:") for line in read(folder, text).warnings]


def reasons(operator: Operator) -> list[str]:
    """Why it cannot be run, less the places."""
    return [each.rpartition(" (")[0] for each in operator.unsupported]
