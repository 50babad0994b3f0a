"""What a workflow and the inputs of a template say that {{...}} stands for."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timezone

from cpost.definition import argo_objects
from cpost.definition.argo_leaves import Use
from cpost.definition.argo_objects import Workflow
from cpost.definition.argo_scope import ALL_PARAMETERS, Scope, Unknown, Value, as_json
from cpost.definition.config_objects import Objects
from cpost.definition.findings import Findings, quoted
from cpost.definition.section import Section
from cpost.definition.tree import Text

_PARAMETERS = f"{ALL_PARAMETERS}."


def of_workflow(root: Workflow, body: Workflow, objects: Objects, findings: Findings) -> Scope:
    """What is known everywhere in a workflow.

    Args:
        body: the template object that the workflow refers to, or itself; parameters that both have are the workflow's.
    """
    values: dict[str, Value] = dict(argo_objects.own_values(root, body, datetime.now(timezone.utc)))
    texts: dict[str, Text] = {}
    items: dict[str, Section] = {}
    for spec in (root.spec, body.spec):
        arguments = spec.section("arguments", "arguments")
        for item in arguments.sections("parameters", "a parameter") if arguments else ():
            found = None if _PARAMETERS + item.raw("name") in texts else _default(item, objects)
            if found is not None:
                items[item.raw("name")], texts[_PARAMETERS + item.raw("name")] = item, found
            items.setdefault(item.raw("name"), item)
    # Argo puts the texts of the others into them once.
    scope = Scope({**values, **{name: text.value for name, text in texts.items()}}, findings)
    filled = {name: scope.value(text) for name, text in texts.items()}
    return Scope({**values, **filled, **_in_one(items.values(), filled)}, findings)


def parameters_of(scope: Scope) -> dict[str, Value]:
    """The parameters of the whole workflow, which the first template is given."""
    names = (name for name in scope.values if name.startswith(_PARAMETERS))
    return {name.removeprefix(_PARAMETERS): scope.values[name] for name in names}


def _in_one(items: Collection[Section], filled: Mapping[str, Value]) -> dict[str, Value]:
    """All parameters in one text, where nothing but names and values is said of them."""
    listed = [{"name": item.raw("name"), "value": filled.get(_PARAMETERS + item.raw("name"))} for item in items]
    plain = all({key.value for key, _ in item.fields.entries} == {"name", "value"} for item in items)
    known = plain and all(isinstance(each["value"], str) for each in listed)
    return {ALL_PARAMETERS: as_json(listed)} if known and listed else {}


def of_inputs(template: Section, use: Use, scope: Scope, objects: Objects) -> dict[str, Value]:
    """What is known in one use of a template, beside what is known everywhere.

    Args:
        scope: of the whole workflow; defaults may hold what it knows.
    """
    name = use.path[-1] if use.path else str(scope.values["workflow.name"])
    values: dict[str, Value] = dict.fromkeys(("pod.name", "node.name", "steps.name", "tasks.name"), name)
    inputs = template.section("inputs", f"inputs of {template.label}")
    for item in inputs.sections("parameters", f"a parameter of {template.label}") if inputs else ():
        values[f"inputs.parameters.{item.raw('name')}"] = _given(item, template, use, scope, objects)
    outputs = template.section("outputs", f"outputs of {template.label}")
    for what, section in (("inputs", inputs), ("outputs", outputs)):
        for item in section.sections("artifacts", "an artifact") if section else ():
            values[f"{what}.artifacts.{item.raw('name')}.path"] = item.raw("path")
    for item in outputs.sections("parameters", "a parameter") if outputs else ():
        source = item.section("valueFrom", "valueFrom") if item.has("valueFrom") else None
        values[f"outputs.parameters.{item.raw('name')}.path"] = source.raw("path") if source else ""
    return values


def _given(item: Section, template: Section, use: Use, scope: Scope, objects: Objects) -> Value:
    name = item.raw("name")
    if name in use.parameters:
        return use.parameters[name]
    default = _default(item, objects)
    if default is not None:
        return scope.value(default)
    item.error("name", f"parameter {quoted(name)} of {template.label} has no value", "give it one: value:")
    return Unknown(f"parameter {quoted(name)} has no value")


def _default(item: Section, objects: Objects) -> Text | None:
    """The text that a parameter has by itself."""
    for key in ("value", "default"):
        if item.fields.key(key) is not None:
            return Text(item.raw(key), item.origin(key))
    source = item.section("valueFrom", "valueFrom") if item.has("valueFrom") else None
    if source is None:
        return None
    reference = source.section("configMapKeyRef", "configMapKeyRef") if source.has("configMapKeyRef") else None
    if reference is None:
        return Text(source.raw("default"), source.origin("default")) if source.has("default") else None
    content = objects.maps.get(reference.raw("name"), {}).get(reference.raw("key"))
    return Text(content.decode("utf-8", "replace"), reference.origin()) if content is not None else None
