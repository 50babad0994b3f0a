"""The rules that take more than one operator or item: names, references, types, folders, cycles."""

from __future__ import annotations

import graphlib
from collections.abc import Sequence
from dataclasses import replace

from cpost.definition.clara import Draft
from cpost.definition.findings import choice, quoted
from cpost.definition.ports import PlacedInput, PlacedOutput
from cpost.model import DataType, Input, Operator

_MAX_CYCLES = 10
_MAX_SHOWN = 20


def connect(drafts: Sequence[Draft], complete: bool) -> tuple[Operator, ...]:
    """Check the drafts against one another.

    Args:
        drafts: the operators in the order written.
        complete: False where an operator could not be read at all, so that a reference to nothing may be to that one.

    Returns:
        The operators, with references spelt as the referred names are declared. Faults are recorded through the
        drafts' sections.
    """
    by_name = _by_name(drafts)
    for draft in drafts:
        _check_outputs(draft)
        _check_folders(draft)
    operators = tuple(_connected(draft, by_name, complete) for draft in drafts)
    _check_cycles(by_name)
    return operators


def _by_name(drafts: Sequence[Draft]) -> dict[str, Draft]:
    found: dict[str, Draft] = {}
    for draft in drafts:
        name = draft.operator.name
        first = found.setdefault(name.lower(), draft)
        if first is not draft and name:
            place = first.section.origin("name")
            message = f"operator {quoted(name)} has the name of the one at {place.file}:{place.line}:{place.column}"
            draft.section.error("name", message, "rename one of them; letter case makes no difference")
    return found


# ---------------------------------------------------------------- within one operator


def _check_outputs(draft: Draft) -> None:
    seen: set[str] = set()
    unnamed = [output for output in draft.outputs if output.item.name is None]
    for output in draft.outputs:
        name = output.item.name
        if name is not None and name.lower() in seen:
            output.section.error("name", f"{draft.section.label} has two outputs called {quoted(name)}", "rename one")
        seen.add(name.lower() if name is not None else "")
    for output in unnamed[1:]:
        output.section.error(None, f"{draft.section.label} has two outputs without a name", "give each output a name")
    if unnamed and len(unnamed) < len(draft.outputs):
        message = f"an output of {draft.section.label} has no name; it holds the folders of the other outputs"
        unnamed[0].section.warn(None, message)


def _check_folders(draft: Draft) -> None:
    seen: dict[str, str] = {}
    ports: tuple[PlacedInput | PlacedOutput, ...] = (*draft.inputs, *draft.outputs)
    for port in ports:
        path = port.item.path
        if path is None:
            continue
        kind = "input" if isinstance(port.item, Input) else "output"
        if path in seen:
            message = f"{draft.section.label} uses {quoted(path)} twice: for an {seen[path]} and for an {kind}"
            port.section.error("path", message, "give each input and output a folder of its own")
        seen.setdefault(path, kind)


# ---------------------------------------------------------------- between operators


def _connected(draft: Draft, by_name: dict[str, Draft], complete: bool) -> Operator:
    inputs = tuple(_resolved(placed, by_name, complete) for placed in draft.inputs)
    return replace(draft.operator, inputs=inputs)


def _resolved(placed: PlacedInput, by_name: dict[str, Draft], complete: bool) -> Input:
    item, section = placed.item, placed.section
    if item.source is None:
        return item
    producer = by_name.get(item.source.lower())
    if producer is None:
        if complete:
            names = [draft.operator.name for draft in by_name.values()]
            section.error(
                "from", f"unknown operator {quoted(item.source)} in from", choice(item.source, names, "operators are")
            )
        return item
    output = _named(placed, producer) if item.name is not None else _unnamed(placed, producer)
    if output is None:
        return replace(item, source=producer.operator.name)
    _check_types(placed, output, producer)
    name = output.item.name if item.name is not None else None
    return replace(item, source=producer.operator.name, name=name)


def _named(placed: PlacedInput, producer: Draft) -> PlacedOutput | None:
    wanted = placed.item.name or ""
    for output in producer.outputs:
        if (output.item.name or "").lower() == wanted.lower() and output.item.name:
            return output
    names = [output.item.name for output in producer.outputs if output.item.name]
    message = f"{producer.section.label} has no output called {quoted(wanted)}"
    placed.section.error("name", message, choice(wanted, names, "its named outputs are"))
    return None


def _unnamed(placed: PlacedInput, producer: Draft) -> PlacedOutput | None:
    outputs, label = producer.outputs, producer.section.label
    if not outputs:
        placed.section.error("from", f"{label} has no output to read", "declare its output")
        return None
    unnamed = next((output for output in outputs if output.item.name is None), None)
    if unnamed is not None:
        return unnamed
    names = [output.item.name or "" for output in outputs]
    if len(outputs) > 1:
        message = f"{label} has {len(outputs)} outputs, and this input does not say which one it reads"
        placed.section.error("from", message, choice("", names, "add name:, its outputs are"))
        return None
    message = f"this input reads the whole output folder of {label}, in which {quoted(names[0])} is a folder; add name:"
    placed.section.warn("from", message)
    return outputs[0]


def _check_types(placed: PlacedInput, output: PlacedOutput, producer: Draft) -> None:
    wanted, given = placed.item.data_type, output.item.data_type
    if wanted is None or given is None or _same(wanted, given):
        return
    message = f"this input is {_spelt(wanted)}, but {producer.section.label} writes {_spelt(given)}"
    placed.section.error("type", message, "both sides of a connection have the same type")


def _same(wanted: DataType, given: DataType) -> bool:
    return (wanted.kind, wanted.element, wanted.shape) == (given.kind, given.element, given.shape)


def _spelt(data_type: DataType) -> str:
    element = f" of {quoted(data_type.element)}" if data_type.element else ""
    shape = f" in shape {list(data_type.shape)}" if data_type.shape else ""
    return f"{data_type.kind}{element}{shape}"


# ---------------------------------------------------------------- cycles


def _check_cycles(by_name: dict[str, Draft]) -> None:
    """Report each cycle once, at the input that closes it in the operator written first."""
    order = {name: index for index, name in enumerate(by_name)}
    graph = {name: [s.lower() for s in by_name[name].operator.upstream if s.lower() in by_name] for name in by_name}
    for _ in range(_MAX_CYCLES):
        cycle = _cycle(graph)
        if not cycle:
            return
        start = cycle.index(min(cycle, key=order.__getitem__))
        turned = cycle[start:] + cycle[:start]
        _report(by_name[turned[0]], turned[-1], [by_name[name].operator.name for name in turned])
        graph = {name: [s for s in sources if s not in cycle] for name, sources in graph.items() if name not in cycle}


def _cycle(graph: dict[str, list[str]]) -> list[str]:
    """Return the names of one cycle, each the source of the next; empty where there is none."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        names: list[str] = error.args[1]
        return names[:-1]
    return []


def _report(draft: Draft, source: str, names: list[str]) -> None:
    placed = next(p for p in draft.inputs if p.item.source is not None and p.item.source.lower() == source)
    shown = [quoted(name)[1:-1] for name in names[:_MAX_SHOWN]] + ["..."] * (len(names) > _MAX_SHOWN)
    path = " -> ".join((*shown, shown[0]))
    placed.section.error("from", f"operators wait for one another: {path}", "remove one of these inputs")
