"""Where a file states the resources of its containers: Clara, Kubernetes, Argo Workflows and Docker Compose.

What a file is follows from its content, document by document. Each container gets the name by which a run knows it:

    Clara              the operator's name; a service of it: <operator>__<service>
    Docker Compose     the service's name
    Kubernetes, Argo   see `naming`; where they keep their containers `workloads` knows
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import Enum

from cpost.definition import naming, workloads
from cpost.definition.marks import Alias, Mapping, Node, Sequence, Source, names_of, resolved
from cpost.definition.quantities import (
    parse_compose_cpus,
    parse_compose_memory,
    parse_kubernetes_cpu,
    parse_kubernetes_memory,
)
from cpost.errors import DefinitionError, Problem
from cpost.model import Origin
from cpost.units import MB, MILLICORES_PER_CORE

KeyPath = workloads.KeyPath
_GPU = "nvidia.com/gpu"
_VARIABLE = re.compile(r"\$[{(A-Za-z_]|\{\{")


class Format(str, Enum):
    """Whose file it is, for people."""

    CLARA = "Clara"
    KUBERNETES = "Kubernetes"
    ARGO = "Argo"
    COMPOSE = "Docker Compose"


@dataclass(frozen=True, slots=True, eq=False)
class Site:
    """A container in a file.

    Attributes:
        container: the mapping that its resources are stated below.
        document: number of the YAML document from 0; `path` leads from its root to the container.
        uses: names of the tasks and steps that run an Argo template.
        fallbacks: what applies where the container itself states nothing (defaults of an Argo workflow, the services
            that a Compose service extends), the nearest first.
        blocked: why nothing may be written here; empty = it may.
    """

    name: str
    format: Format
    container: Mapping
    document: int
    path: tuple[str | int, ...]
    origin: Origin
    uses: tuple[str, ...] = ()
    fallbacks: tuple[Mapping, ...] = ()
    blocked: str = ""

    @property
    def holders(self) -> tuple[Mapping, ...]:
        """The container and its fallbacks, the nearest first."""
        return (self.container, *self.fallbacks)


def find_sites(source: Source) -> tuple[Site, ...]:
    """The containers of a file in the order written; those that nothing tells apart have the same name and are blocked.

    Raises:
        DefinitionError: no container is in it.
    """
    found: list[_Found] = []
    for number, root in enumerate(source.documents):
        place = _Place(root)
        if isinstance(place.node, Mapping):
            found += (replace(each, document=number) for each in _of_document(place.node, place))
    if not found:
        hint = "cpost knows Clara pipelines, Kubernetes workloads, Argo workflows and Docker Compose files"
        raise DefinitionError([Problem(source.file, 1, 1, "no container is stated in this file", hint)])
    names = naming.names([each.names for each in found])
    known = Counter(names)
    return tuple(
        Site(
            name,
            each.format,
            each.place.node,
            each.document,
            each.place.path,
            source.origin(each.place.node.start),
            each.uses,
            each.fallbacks,
            _blocked(each, ambiguous=known[name] > 1),
        )
        for name, each in zip(names, found, strict=True)
        if isinstance(each.place.node, Mapping)
    )


# ---------------------------------------------------------------- walking


@dataclass(frozen=True, slots=True)
class _Place:
    """A node with the way to it; `taken` = an alias or a merge key lies on the way, so it is written elsewhere."""

    written: Node
    path: tuple[str | int, ...] = ()
    taken: bool = False

    @property
    def node(self) -> Node:
        return resolved(self.written)

    def down(self, *keys: str) -> _Place | None:
        """The node below; None where there is none."""
        place: _Place | None = self
        for key in keys:
            place = place._step(key) if place else None
        return place

    def _step(self, key: str) -> _Place | None:
        node = self.node
        if not isinstance(node, Mapping):
            return None
        own = node.own(key)
        child = own if own is not None else node.merged(key)
        taken = self.taken or own is None or isinstance(own, Alias)
        return None if child is None or resolved(child).is_null else _Place(child, (*self.path, key), taken)

    def items(self, *keys: str) -> Iterator[_Place]:
        """The items of the list below."""
        place = self.down(*keys)
        node = place.node if place else None
        for index, item in enumerate(node.items if place and isinstance(node, Sequence) else ()):
            assert place is not None
            yield _Place(item, (*place.path, index), place.taken or isinstance(item, Alias))

    def text(self, *keys: str) -> str:
        """The text of the scalar below; empty where there is none."""
        node = self.node
        return (node.text(*keys) or "") if isinstance(node, Mapping) else ""


@dataclass(frozen=True, slots=True)
class _Found:
    """A container before names are given; the first of `names` that is unique becomes its own."""

    format: Format
    place: _Place
    names: tuple[str, ...]
    document: int = 0
    uses: tuple[str, ...] = ()
    fallbacks: tuple[Mapping, ...] = ()
    blocked: str = ""


def _blocked(found: _Found, *, ambiguous: bool) -> str:
    if found.blocked:
        return found.blocked
    if ambiguous:
        return "another container of the file has the same name, and nothing tells the two apart"
    return "the container is written elsewhere and taken from there by an alias" if found.place.taken else ""


def _of_document(root: Mapping, place: _Place) -> Iterator[_Found]:
    kind, version = root.text("kind"), root.text("apiVersion")
    if kind is not None and version is not None:
        yield from _of_object(place, kind, version)
    elif root.get("operators") is not None:
        yield from _clara(place)
    elif isinstance(root.get("services"), Mapping):
        yield from _compose(place)


# ---------------------------------------------------------------- Kubernetes and Argo


def _of_object(place: _Place, kind: str, version: str) -> Iterator[_Found]:
    if kind.endswith("List"):
        for item in place.items("items"):
            yield from _of_object(item, item.text("kind"), item.text("apiVersion"))
    elif workloads.is_workflow(version, kind):
        yield from _argo(place)
    elif workloads.is_pod(version, kind):
        spec = place.down(*workloads.POD_AT[kind])
        pooled = spec and any(spec.down("resources", key) for key in ("requests", "limits"))
        whole = "its pod states resources for all its containers together: change them there" if pooled else ""
        for container in (each for key in workloads.POD_LISTS for each in (spec.items(key) if spec else ())):
            names = workloads.site_of(place, container.text("name")).levels()
            yield _Found(Format.KUBERNETES, container, names, blocked=whole)


def _argo(place: _Place) -> Iterator[_Found]:
    spec = place.down(*workloads.WORKFLOW_AT[place.text("kind")])
    templates = tuple(workloads.templates(place))
    uses: dict[str, list[str]] = {}
    for template in templates:
        for task in workloads.tasks(template.place):
            uses.setdefault(task.text("template") or task.text("templateRef", "template"), []).append(task.text("name"))
    defaults = spec.down("templateDefaults") if spec else None
    for template in templates:
        patched = any(each and each.text("podSpecPatch") for each in (template.place, defaults, spec))
        used = () if template.within else uses.get(template.name, ())
        for container, _, site in template.containers(place):
            key = str(container.path[-1])
            fallback = defaults.down(key) if defaults else None
            yield _Found(
                Format.ARGO,
                container,
                site.levels(),
                uses=tuple(dict.fromkeys(used)) if key in workloads.LEAVES else (),
                fallbacks=(fallback.node,) if fallback and isinstance(fallback.node, Mapping) else (),
                blocked="a podSpecPatch may set other resources than these" if patched else "",
            )


# ---------------------------------------------------------------- Clara and Compose


def _clara(place: _Place) -> Iterator[_Found]:
    for operator in place.items("operators"):
        name = naming.safe(operator.text("name"))
        # What stands beside an import replaces what is imported.
        yield _Found(Format.CLARA, operator, (name,), blocked="" if operator.down("requests") else _imported(operator))
        for service in operator.items("services"):
            own = naming.safe(service.text("name"))
            yield _Found(Format.CLARA, service, (f"{name}__{own}",), blocked=_imported(service))


def _imported(place: _Place) -> str:
    return f"it is imported from {place.text('import', 'path')}: change it there" if place.down("import") else ""


def _compose(place: _Place) -> Iterator[_Found]:
    services = place.down("services")
    assert services is not None
    assert isinstance(services.node, Mapping)
    for key in names_of(services.node):
        service = services.down(key)
        if service is not None and isinstance(service.node, Mapping):
            extended, elsewhere = _extended(services.node, service.node)
            blocked = "it extends a service of another file, which may state resources, too" if elsewhere else ""
            yield _Found(Format.COMPOSE, service, (naming.safe(key),), fallbacks=extended, blocked=blocked)


def _extended(services: Mapping, service: Mapping) -> tuple[tuple[Mapping, ...], bool]:
    """The services of this file that a service extends, over any number of steps; whether one of another file is."""
    found: list[Mapping] = []
    while (name := service.text("extends", "service") or service.text("extends")) and len(found) < len(
        services.entries
    ):
        other = services.below(name)
        if service.text("extends", "file") or other is None:
            return tuple(found), True
        found.append(other)
        service = other
    return tuple(found), False


# ---------------------------------------------------------------- amounts


@dataclass(frozen=True, slots=True)
class Quantity:
    """One resource in one format.

    Attributes:
        requests, limits: where it may stand below the container, the preferred place first.
        parse: text to base units (millicores, bytes, GPUs); raises ValueError.
    """

    requests: tuple[KeyPath, ...]
    limits: tuple[KeyPath, ...]
    parse: Callable[[str], int]


def _scaled(factor: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch("[0-9]{1,13}", text):
            raise ValueError(f"{text!r} is not a whole number")
        return int(text) * factor

    return parse


def _in_kubernetes(resource: str, parse: Callable[[str], int]) -> Quantity:
    return Quantity((("resources", "requests", resource),), (("resources", "limits", resource),), parse)


_RESERVED, _LIMITED = ("deploy", "resources", "reservations"), ("deploy", "resources", "limits")
_KUBERNETES_QUANTITIES = {
    "cpu": _in_kubernetes("cpu", parse_kubernetes_cpu),
    "memory": _in_kubernetes("memory", parse_kubernetes_memory),
}
QUANTITIES: dict[Format, dict[str, Quantity]] = {
    Format.CLARA: {
        "cpu": Quantity((("requests", "cpu"),), (), _scaled(MILLICORES_PER_CORE)),
        "memory": Quantity((("requests", "memory"),), (), _scaled(MB)),
        "gpu": Quantity((("requests", "gpu"),), (), _scaled(1)),
    },
    Format.KUBERNETES: _KUBERNETES_QUANTITIES,
    Format.ARGO: _KUBERNETES_QUANTITIES,
    Format.COMPOSE: {
        "cpu": Quantity(((*_RESERVED, "cpus"),), ((*_LIMITED, "cpus"), ("cpus",)), parse_compose_cpus),
        "memory": Quantity(
            ((*_RESERVED, "memory"), ("mem_reservation",)),
            ((*_LIMITED, "memory"), ("mem_limit",)),
            parse_compose_memory,
        ),
    },
}
GPU_QUANTITY = _in_kubernetes(_GPU, _scaled(1))


def is_variable(text: str) -> bool:
    """Whether a value holds something that another tool fills in."""
    return _VARIABLE.search(text) is not None
