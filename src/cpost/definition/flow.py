"""Who comes after whom, and who has to be there meanwhile: order among containers of foreign formats."""

from __future__ import annotations

import graphlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from cpost.definition import naming
from cpost.definition.section import Section
from cpost.model import Input, Operator

INPUT_FOLDER = "/input"
UNIQUE = "\0"  # what comes after it in an operator's name only tells it from others, until all have their names


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a file of a foreign format says; references between operators are right."""

    name: str
    version: str
    operators: tuple[Operator, ...]


def circle(edges: Mapping[str, Collection[str]]) -> list[str]:
    """Return the names of one circle, each after the one before it; empty where there is none."""
    try:
        graphlib.TopologicalSorter(edges).prepare()
    except graphlib.CycleError as error:
        names: list[str] = error.args[1]
        return names[::-1]
    return []


def refuse_circle(operators: Sequence[Operator], section: Section) -> bool:
    """Report a circle at a section; returns whether there is one."""
    found = circle({each.name: (*each.upstream, *each.after) for each in operators})
    if found:
        shown = " -> ".join(map(_shown, found))
        section.error(None, f"containers wait for one another: {shown}", "remove one of these edges")
    return bool(found)


def _shown(name: str) -> str:
    return naming.safe(name.partition(UNIQUE)[0])


def companions(operators: Sequence[Operator], serving: Collection[str]) -> tuple[Operator, ...]:
    """Put containers that serve others beside those that come after them, directly or over others that serve.

    Args:
        operators: all of them, without circles; whom a serving one comes after counts for its dependants.
        serving: names of those that stay up for others.

    Returns:
        The others, each with the serving ones that it needs; those that nobody needs stay operators.
    """
    by_name = {each.name: each for each in operators}
    edges = {each.name: (*each.upstream, *each.after) for each in operators}
    beside: dict[str, dict[str, None]] = {}
    before: dict[str, dict[str, None]] = {}
    for name in graphlib.TopologicalSorter(edges).static_order():
        beside[name], before[name] = {}, {}
        for other in edges[name]:
            beside[name] |= beside[other] | ({other: None} if other in serving else {})
            before[name] |= before[other] if other in serving else {other: None} if other in by_name[name].after else {}
    needed = {name for each in operators for name in beside[each.name]}
    return tuple(
        _beside(
            _without(each, needed),
            tuple(before[each.name]),
            [_without(by_name[name], needed) for name in beside[each.name]],
        )
        for each in operators
        if each.name not in needed
    )


def _without(operator: Operator, serving: Collection[str]) -> Operator:
    """An operator that reads what serving ones write cannot be run: what stays up has not written all of it."""
    unread = dict.fromkeys(item.source for item in operator.inputs if item.source and item.source in serving)
    if not unread:
        return operator
    kept = tuple(item for item in operator.inputs if item.source not in serving)
    reasons = (f"it reads what {_shown(name)} writes, which stays up beside it" for name in unread)
    return replace(operator, inputs=kept, unsupported=(*operator.unsupported, *reasons))


def _beside(operator: Operator, after: tuple[str, ...], serving: Sequence[Operator]) -> Operator:
    reasons = (f"its server {_shown(each.name)}: {reason}" for each in serving for reason in each.unsupported)
    return replace(operator, after=after, companions=tuple(serving), unsupported=(*operator.unsupported, *reasons))


def with_payload(operator: Operator) -> Operator:
    """The payload for an operator whose format knows none: read-only at /input, unless something else is there."""
    taken = {each.path for each in operator.volumes} | {each.path for each in operator.inputs}
    if INPUT_FOLDER in taken:
        return operator
    return replace(operator, inputs=(*operator.inputs, Input(INPUT_FOLDER)))
