"""What a workflow's `templateDefaults` add to a template: Argo merges them key by key, lists by the names in them."""

from __future__ import annotations

from cpost.definition.section import Section
from cpost.definition.tree import Fields, Items, Node, Text

# A template is of one kind; defaults of the others are not for it.
_KINDS = ("container", "script", "containerSet", "dag", "steps", "resource", "suspend", "http", "plugin", "data")
# By which key the items of a list are the same; other lists are replaced as a whole.
_SAME_BY = {
    "env": "name", "volumes": "name", "initContainers": "name", "sidecars": "name", "parameters": "name",
    "artifacts": "name", "volumeMounts": "mountPath", "volumeDevices": "devicePath", "ports": "containerPort",
}  # fmt: skip


def with_defaults(template: Section, defaults: Section | None) -> Section:
    """The template with what it does not say itself."""
    if defaults is None:
        return template
    others = [kind for kind in _KINDS if not template.has(kind)]
    return template.like(_merged(template.fields, defaults.fields.without(others)))


def _merged(own: Fields, defaults: Fields) -> Fields:
    entries = []
    for key, value in own.entries:
        default = defaults.get(key.value)
        if value.is_null and default is not None:
            continue
        entries.append((key, value if default is None else _both(key.value, value, default)))
    said = {key.value for key, _ in entries}
    return Fields((*entries, *(entry for entry in defaults.entries if entry[0].value not in said)), own.origin)


def _both(key: str, own: Node, default: Node) -> Node:
    if isinstance(own, Fields) and isinstance(default, Fields):
        return _merged(own, default)
    if isinstance(own, Items) and isinstance(default, Items) and key in _SAME_BY:
        return _joined(own, default, _SAME_BY[key])
    return own


def _joined(own: Items, default: Items, same: str) -> Items:
    """Items of the defaults first, as changed by own ones; then own ones that they do not have."""
    mine = {_name(item, same): item for item in own.items}
    theirs = {_name(item, same): item for item in default.items}
    changed = [_both("", mine[name], item) if name in mine else item for name, item in theirs.items()]
    return Items((*changed, *(item for name, item in mine.items() if name not in theirs)), own.origin)


def _name(item: Node, same: str) -> str | int:
    """What an item goes by; one that has no such name is like no other."""
    node = item.get(same) if isinstance(item, Fields) else None
    return node.value if isinstance(node, Text) else id(item)
