"""Tasks of Argo that run several times, once for each item."""

from __future__ import annotations

import json
from collections.abc import Iterator

from cpost.definition.argo_scope import Scope, Unknown, Value
from cpost.definition.findings import quoted
from cpost.definition.section import Section
from cpost.definition.tree import Fields, Node, Text

_MOST = 500


def instances(task: Section, scope: Scope) -> Iterator[tuple[str, dict[str, Value]]]:
    """What `item` is in each instance of a task, with a suffix for its name; one without any where there is no loop."""
    if task.has("withItems"):
        for number, node in enumerate(task.items("withItems")):
            yield f"-{number}", dict(_item(node, scope))
    elif task.has("withSequence"):
        sequence = task.section("withSequence", f"withSequence of {task.label}")
        filled = scope.filled(sequence.fields) if sequence else None
        section = task.like(filled) if isinstance(filled, Fields) else None
        numbers = _sequence(section) if section is not None else None
        if numbers is not None and len(numbers) > _MOST:
            task.error("withSequence", f"{task.label} runs more than {_MOST} times", "size a smaller one")
            return
        if numbers is None:
            task.error("withSequence", f"how often {task.label} runs is not known", "write count: with a number")
        for number in numbers or ():
            yield f"-{number}", {"item": _formatted(number, section)}
    elif task.has("withParam"):
        yield from _of_list(task, scope)
    else:
        yield "", {}


def _of_list(task: Section, scope: Scope) -> Iterator[tuple[str, dict[str, Value]]]:
    """The items of a JSON list; one that is not known where the list is not."""
    node = task.fields.get("withParam")
    text = scope.value(node) if isinstance(node, Text) else ""
    if isinstance(text, Unknown):
        task.warn("withParam", f"what {task.label} loops over is known only in a run: here it runs once")
        yield "", {"item": Unknown(f"what {task.label} loops over is known only in a run")}
        return
    try:
        items = json.loads(text)
    except ValueError:
        items = None
    if not isinstance(items, list) or len(items) > _MOST:
        task.error(
            "withParam", f"{task.label} loops over what is no list of up to {_MOST}", 'write a list as ["a", "b"]'
        )
        return
    for number, item in enumerate(items):
        below = item if isinstance(item, dict) else {}
        yield f"-{number}", {"item": _json(item), **{f"item.{key}": _json(value) for key, value in below.items()}}


def _json(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _formatted(number: int, section: Section | None) -> str:
    """A number as `format` wants it, which has the words of printf."""
    layout = section.raw("format") if section is not None else ""
    try:
        return layout % number if layout else str(number)
    except (TypeError, ValueError):
        assert section is not None
        section.error("format", f"{quoted(layout)} is no format of one number", "write %03d, or leave it out")
        return str(number)


def _item(node: Node, scope: Scope) -> Iterator[tuple[str, Value]]:
    filled = scope.filled(node)
    if isinstance(filled, Fields):
        for key, value in filled.entries:
            yield f"item.{key.value}", value.value if isinstance(value, Text) else Unknown("an item holds no text")
    yield "item", filled.value if isinstance(filled, Text) else Unknown("the item is no text")


def _sequence(section: Section) -> range | None:
    def number(key: str, default: int) -> int | None:
        text = section.raw(key)
        return int(text) if text.lstrip("-").isdecimal() else None if text else default

    start, count, end = number("start", 0), number("count", -1), number("end", -1)
    if start is None or count is None or end is None or (count < 0 and not section.has("end")):
        return None
    if section.has("end"):
        return range(start, end + 1) if end >= start else range(start, end - 1, -1)
    return range(start, start + count)
