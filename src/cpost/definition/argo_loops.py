"""Tasks of Argo that run several times, once for each item."""

from __future__ import annotations

from collections.abc import Iterator

from cpost.definition.argo_scope import Scope, Unknown, Value
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
        numbers = _sequence(task.like(filled)) if isinstance(filled, Fields) else None
        if numbers is not None and len(numbers) > _MOST:
            task.error("withSequence", f"{task.label} runs more than {_MOST} times", "size a smaller one")
            return
        if numbers is None:
            task.error("withSequence", f"how often {task.label} runs is not known", "write count: with a number")
        for number in numbers or ():
            yield f"-{number}", {"item": str(number)}
    elif task.has("withParam"):
        hint = "write the items: withItems: [...]"
        task.error("withParam", f"what {task.label} loops over is known only in a run", hint)
    else:
        yield "", {}


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
