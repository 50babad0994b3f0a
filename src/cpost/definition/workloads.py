"""Where Kubernetes and Argo objects keep their containers, and what each is called: for a run and for write-back alike.

The two read files into trees of their own (`tree.py`, `marks.py`), so what is walked here is any `Place`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from cpost.definition.naming import Site
from cpost.definition.tree import Fields, Items, Node, Text

KeyPath = tuple[str, ...]
_TEMPLATE = ("spec", "template", "spec")
# Where each kind keeps its pod, and a pod its containers.
POD_AT: dict[str, KeyPath] = {
    "Pod": ("spec",),
    "CronJob": ("spec", "jobTemplate", *_TEMPLATE),
    **dict.fromkeys(("Job", "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"), _TEMPLATE),
}
INITIAL = "initContainers"
POD_LISTS = (INITIAL, "containers")
# Where each kind of Argo's keeps its workflow, and a template its main container, and the others.
WORKFLOW_AT: dict[str, KeyPath] = {
    **dict.fromkeys(("Workflow", "WorkflowTemplate", "ClusterWorkflowTemplate"), ("spec",)),
    "CronWorkflow": ("spec", "workflowSpec"),
}
LEAVES = ("container", "script")
_BESIDE: tuple[KeyPath, ...] = (("containerSet", "containers"), (INITIAL,), ("sidecars",))

P = TypeVar("P", bound="Place")


class Place(Protocol):
    """A node of a tree; what is null is not there."""

    def text(self, *keys: str) -> str:
        """The text of the scalar below; empty where there is none."""

    def down(self: P, *keys: str) -> P | None:
        """The node below."""

    def items(self: P, *keys: str) -> Iterable[P]:
        """The items of the list below; none where there is no list."""


@dataclass(frozen=True, slots=True)
class Outline:
    """A node of a definition's tree as a `Place`."""

    node: Node

    def text(self, *keys: str) -> str:
        """See `Place`."""
        found = self.down(*keys)
        return found.node.value if found is not None and isinstance(found.node, Text) else ""

    def down(self, *keys: str) -> Outline | None:
        """See `Place`."""
        node: Node | None = self.node
        for key in keys:
            node = node.get(key) if isinstance(node, Fields) else None
        return Outline(node) if node is not None else None

    def items(self, *keys: str) -> Iterator[Outline]:
        """See `Place`."""
        found = self.down(*keys)
        nodes = found.node.items if found is not None and isinstance(found.node, Items) else ()
        return (Outline(node) for node in nodes)


def is_workflow(version: str, kind: str) -> bool:
    """Whether an object is one of Argo's that hold templates."""
    return version.startswith("argoproj.io/") and kind in WORKFLOW_AT


def is_pod(version: str, kind: str) -> bool:
    """Whether an object is one of Kubernetes' that make pods."""
    return bool(version) and not version.startswith("argoproj.io/") and kind in POD_AT


def name_of(place: Place) -> str:
    """What an object is called; empty where it has no name."""
    return place.text("metadata", "name") or place.text("metadata", "generateName").removesuffix("-")


def site_of(place: Place, container: str, template: str = "") -> Site:
    """A container of an object."""
    return Site(place.text("kind"), name_of(place), container, template, place.text("metadata", "namespace"))


@dataclass(frozen=True, slots=True)
class Template(Generic[P]):
    """A template of a workflow.

    Attributes:
        name: its own; of one that is written inline, its task's.
        within: names of the templates that it is written in, with a dot between them; empty = it is not inline.
    """

    place: P
    name: str
    within: str = ""

    def containers(self, workflow: P) -> Iterator[tuple[P, str, Site]]:
        """Its containers, each with its own name: the main one first, whose own name is empty."""
        for key in LEAVES:
            main = self.place.down(key)
            if main is not None:
                yield main, "", site_of(workflow, self.name, self.within)
        path = f"{self.within}.{self.name}" if self.within else self.name
        for keys in _BESIDE:
            for container in self.place.items(*keys):
                name = container.text("name")
                yield container, name, site_of(workflow, name, path)


def templates(workflow: P) -> Iterator[Template[P]]:
    """All templates of one of Argo's objects, those that are written inline behind the one that they are in."""
    spec = workflow.down(*WORKFLOW_AT[workflow.text("kind")])
    for template in spec.items("templates") if spec is not None else ():
        yield from _nested(Template(template, template.text("name")))


def _nested(template: Template[P]) -> Iterator[Template[P]]:
    yield template
    path = f"{template.within}.{template.name}" if template.within else template.name
    for task in tasks(template.place):
        inline = task.down("inline")
        if inline is not None:
            yield from _nested(Template(inline, task.text("name"), path))


def tasks(template: P) -> Iterator[P]:
    """The tasks of a template's dag, or its steps."""
    yield from template.items("dag", "tasks")
    for group in template.items("steps"):
        parallel = tuple(group.items())
        # A group of parallel steps is a list; the oldest form has the step itself there.
        yield from parallel or (group,)
