"""Tasks of Argo that run several times, once for each item."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import TypeAlias

from cpost.definition.argo_scope import Scope, Unknown, Value, as_json
from cpost.definition.findings import quoted
from cpost.definition.section import Section
from cpost.definition.tree import Fields, Node, Text

_MOST = 500
_FORM = re.compile(r"(?:[^%]|%%)*%[-+ 0]*[0-9]{0,3}[dvoxX](?:[^%]|%%)*")
_GENERAL = re.compile(r"((?:^|[^%])(?:%%)*%[-+ 0]*[0-9]{0,3})v")  # any value; of a number, what d is
_Instances: TypeAlias = "list[tuple[str, dict[str, Value]]]"


def instances(task: Section, scope: Scope) -> list[tuple[str, dict[str, Value]]]:
    """What `item` is in each instance of a task, with a suffix for its name; one without any where there is no loop."""
    loops = {"withItems": _listed, "withSequence": _counted, "withParam": _given}
    key = next((key for key in loops if task.has(key)), "")
    if not key:
        return [("", {})]
    found = loops[key](task, scope)
    if found is not None and len(found) > _MOST:
        task.error(key, f"{task.label} runs more than {_MOST} times", "size a smaller one")
        return []
    if found is not None and not found:
        task.warn(key, f"{task.label} is left out: there is nothing that it loops over")
    return found or []


def _listed(task: Section, scope: Scope) -> _Instances:
    return [(f"-{number}", dict(_item(node, scope))) for number, node in enumerate(task.items("withItems"))]


def _counted(task: Section, scope: Scope) -> _Instances | None:
    sequence = task.section("withSequence", f"withSequence of {task.label}")
    filled = scope.filled(sequence.fields) if sequence else None
    section = task.like(filled) if isinstance(filled, Fields) else None
    if isinstance(filled, Fields) and _unknown_in(filled):
        return _once(task, "withSequence", Unknown("its numbers are known only in a run"))
    numbers = _sequence(section) if section is not None else None
    if section is None or numbers is None:
        task.error("withSequence", f"how often {task.label} runs is not known", "write count: with a number")
        return None
    return [(f"-{number}", {"item": _formatted(section.raw("format"), number)}) for number in numbers[: _MOST + 1]]


def _formatted(form: str, number: int) -> Value:
    """A number as Go prints it."""
    if not form:
        return str(number)
    if not _FORM.fullmatch(form):
        return Unknown(f"numbers of the form {quoted(form)} are not printed here")
    return _GENERAL.sub(r"\1d", form) % number


def _given(task: Section, scope: Scope) -> _Instances | None:
    """The items of a JSON text; where a run writes it, one that nothing is known of."""
    text = task.fields.get("withParam")
    value = scope.value(text) if isinstance(text, Text) else Unknown("withParam is no text")
    if isinstance(value, Unknown):
        return _once(task, "withParam", value)
    try:
        items = json.loads(value)
    except (ValueError, RecursionError):
        items = None
    if not isinstance(items, list):
        hint = 'write a list: withParam: \'["a", "b"]\''
        task.error("withParam", f"what {task.label} loops over is no JSON list: {quoted(value)}", hint)
        return None
    return [(f"-{number}", _parts(item)) for number, item in enumerate(items[: _MOST + 1])]


def _once(task: Section, key: str, item: Unknown) -> _Instances:
    task.warn(key, f"how often {task.label} runs is known only in a run: here it does once")
    return [("", {"item": item})]


def _unknown_in(node: Fields) -> bool:
    return any(isinstance(value, Text) and value.broken for _, value in node.entries)


def _parts(item: object) -> dict[str, Value]:
    parts: dict[str, Value] = {"item": _printed(item)}
    return parts | {f"item.{key}": _printed(part) for key, part in item.items()} if isinstance(item, dict) else parts


def _printed(item: object) -> Value:
    text = item if isinstance(item, str) else as_json(item)
    # A text of JSON may hold what neither a file nor a command line can.
    odd = any(letter == "\0" or "\ud800" <= letter <= "\udfff" for letter in text)
    return Unknown("an item holds what no program can be given") if odd else text


def _item(node: Node, scope: Scope) -> Iterator[tuple[str, Value]]:
    filled = scope.filled(node)
    if isinstance(filled, Fields):
        for key, value in filled.entries:
            yield f"item.{key.value}", value.value if isinstance(value, Text) else Unknown("an item holds no text")
    yield "item", filled.value if isinstance(filled, Text) else Unknown("the item is no text")


def _sequence(section: Section) -> range | None:
    def number(key: str, default: int) -> int | None:
        text = section.raw(key)
        return int(text) if re.fullmatch("-?[0-9]{1,18}", text) else None if text else default

    start, count, end = number("start", 0), number("count", -1), number("end", -1)
    if start is None or count is None or end is None or (count < 0 and not section.has("end")):
        return None
    if section.has("end"):
        return range(start, end + 1) if end >= start else range(start, end - 1, -1)
    return range(start, start + count)
