"""Inputs and outputs of an operator, untyped (folders only) and typed (api-version 0.5.0 and later)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cpost.definition import grammar
from cpost.definition.findings import choice, quoted
from cpost.definition.section import Section
from cpost.definition.tree import Node
from cpost.model import DataType, Input, Output

_SIZES = {"u": ("uint", (8, 16, 32, 64)), "i": ("int", (8, 16, 32, 64)), "f": ("float", (16, 32, 64))}
# Both spellings of each primitive, such as u8 and uint8, to the longer one.
_PRIMITIVES = {
    spelling: f"{long}{size}" for short, (long, sizes) in _SIZES.items() for size in sizes
    for spelling in (f"{short}{size}", f"{long}{size}")
}  # fmt: skip
_TYPES = {"stream": "stream", "array": "array", "string": "string"} | _PRIMITIVES
_TYPE_KEYS = ("type", "element-type", "shape")
# Which properties each type must have (True) or must not have (False).
_RULES = {
    "stream": {"path": True, "element-type": True, "shape": False},
    "array": {"path": False, "element-type": True, "shape": True},
}
_PLAIN_RULES = {"path": False, "element-type": False, "shape": False}
_UNTYPED_RULES = {"path": True, "element-type": False, "shape": False}

INPUT_KEYS = ("from", "name", "path", *_TYPE_KEYS, "description")
OUTPUT_KEYS = ("name", "path", *_TYPE_KEYS, "description")


@dataclass(frozen=True, slots=True)
class PlacedInput:
    """An input with the section that it was read from, for the places of later faults."""

    item: Input
    section: Section


@dataclass(frozen=True, slots=True)
class PlacedOutput:
    """An output with the section that it was read from."""

    item: Output
    section: Section


def read_input(section: Section, typed: bool) -> PlacedInput:
    """Read one item of `input`; `typed` says whether the api-version knows types.

    The name of an input that reads the payload is only a label, and is dropped.
    """
    section.check_keys(INPUT_KEYS)
    data_type = _data_type(section, typed)
    source = section.read("from", grammar.any_text)
    name = section.read("name", grammar.any_text) if source is not None else None
    return PlacedInput(Input(section.read("path", grammar.folder), source, name, data_type), section)


def read_output(section: Section, typed: bool) -> PlacedOutput:
    """Read one item of `output`; `typed` says whether the api-version knows types."""
    section.check_keys(OUTPUT_KEYS)
    data_type = _data_type(section, typed)
    name = section.read("name", grammar.name) or section.raw("name") or None
    if name is None and typed:
        section.error(None, f"{section.label} has no name", "from api-version 0.5.0 on every output needs one")
    return PlacedOutput(Output(section.read("path", grammar.folder), name, data_type), section)


def in_memory(data_type: DataType | None) -> bool:
    """Whether data of this type travels through shared memory, which only the Clara Pipeline Driver provides."""
    return data_type is not None and data_type.kind != "stream"


def _data_type(section: Section, typed: bool) -> DataType | None:
    """Read the type and check which of its properties must and must not be there."""
    if not typed and any(section.has(key) for key in _TYPE_KEYS):
        key = next(key for key in _TYPE_KEYS if section.has(key))
        section.error(key, f"{key} needs api-version 0.5.0 or later", "raise api-version, or leave the type out")
        return None
    kind = section.read("type", _kind)
    if kind is None and section.has("type"):
        return None
    _check_rules(section, kind)
    element = section.read("element-type", _element if kind == "array" else _stream_element)
    return DataType(kind, element, _shape(section)) if kind else None


def _check_rules(section: Section, kind: str | None) -> None:
    rules = _RULES.get(kind, _PLAIN_RULES) if kind else _UNTYPED_RULES
    what = f"type {kind}" if kind else "without a type"
    for key, wanted in rules.items():
        if wanted:
            section.require(key, f"{what} needs it" if kind else "write the folder inside the container")
        elif section.has(key):
            section.error(key, f"{section.label} is of {what}, which has no {key}" if kind else f"{key} without a type")


def _kind(text: str) -> str:
    return _known(text, _TYPES, "types are")


def _element(text: str) -> str:
    return _known(text, _PRIMITIVES, "primitive types are")


def _stream_element(text: str) -> str:
    if not text:
        raise grammar.GrammarError("it is empty", "say what the stream holds")
    return text


def _known(text: str, known: dict[str, str], what: str) -> str:
    if text not in known:
        raise grammar.GrammarError(f"{quoted(text)} is not a type", choice(text, dict.fromkeys(known.values()), what))
    return known[text]


def _shape(section: Section) -> tuple[int, ...] | None:
    if not section.has("shape"):
        return None
    return tuple(_values(section, "shape", grammar.dimension))


def _values(section: Section, key: str, rule: Callable[[str], int]) -> list[int]:
    nodes: tuple[Node, ...] = section.items(key)
    if not nodes:
        section.error(key, f"{section.label} has an empty {key}", "write one number for each dimension")
    read = (section.value(node, key, rule) for node in nodes)
    return [number for number in read if number is not None]
