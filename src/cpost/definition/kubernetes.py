"""Kubernetes manifests -> operators: each container of each workload is one.

Order is that of the file: init containers one after another, then the containers of the pod. Those run at the same
time in a cluster; here they run one after another, which a warning says. An init container that stays (a sidecar) is a
server beside those after it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from cpost.definition import naming, pods, workloads
from cpost.definition.config_objects import AllObjects
from cpost.definition.findings import Findings, choice, quoted
from cpost.definition.flow import Parsed, companions, with_payload
from cpost.definition.naming import Site
from cpost.definition.section import Section
from cpost.definition.tree import Fields, Items, Node
from cpost.model import Operator

_STAYING = ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet")
_MAX_NESTED = 5


@dataclass(frozen=True, slots=True)
class _Workload:
    section: Section
    kind: str
    name: str
    pod: pods.Pod


@dataclass(frozen=True, slots=True)
class _Container:
    section: Section
    workload: _Workload
    initial: bool
    site: Site


def unpacked(documents: Sequence[Fields]) -> list[Fields]:
    """All objects of a file, those in lists (kind List) among them."""
    objects = list(documents)
    for _ in range(_MAX_NESTED):
        objects = [each for one in objects for each in _items(one)]
    return objects


def _items(document: Fields) -> Iterator[Fields]:
    kind, items = document.get("kind"), document.get("items")
    if getattr(kind, "value", "").endswith("List") and isinstance(items, Items):
        yield from (item for item in items.items if isinstance(item, Fields))
    else:
        yield document


def read(documents: Sequence[Fields], findings: Findings) -> Parsed:
    """Read all workloads of a file; everything else in it is of use or left out.

    Args:
        documents: as `unpacked` gives them.
    """
    objects = AllObjects(documents, findings)
    found = [each for document in documents if (each := _workload(document, objects, findings))]
    containers = [each for workload in found for each in _containers(workload)]
    names = naming.names([each.site.levels() for each in containers])
    _refuse_twins(containers, names)
    operators = list(_operators(containers, names))
    sidecars = [name for container, name in zip(containers, names, strict=True) if _is_sidecar(container)]
    if len(set(names)) == len(names):  # else there is a fault, and no telling who comes after whom
        operators = list(companions(operators, sidecars))
    first = next(iter(found), None)
    return Parsed(
        name=first.name if first else "",
        version=first.section.raw("apiVersion") if first else "",
        operators=tuple(with_payload(each) for each in operators),
    )


def _workload(document: Fields, objects: AllObjects, findings: Findings) -> _Workload | None:
    section = Section(document, "this object", findings)
    kind = section.raw("kind")
    if kind not in workloads.POD_AT:
        if _runs_something(document):
            section.warn("kind", f"a {kind} is left out: how it runs its containers is not known here")
        return None
    name = pods.name_of(section)
    section.label = f"{kind} {quoted(name)}"
    if not name:
        section.error(None, f"this {kind} has no name", "write metadata: with name: below it")
        return None
    section.require("apiVersion", f"write the version of {kind}, such as v1")
    pod = _pod(section, kind, name, objects)
    if pod is None:
        return None
    own = section.section("spec", f"spec of {section.label}")
    if kind == "StatefulSet" and own is not None:
        pod.add_claims(own, "volumeClaimTemplates")
    _warn_of_copies(section)
    return _Workload(section, kind, name, pod)


def _pod(section: Section, kind: str, name: str, objects: AllObjects) -> pods.Pod | None:
    """What the containers of a workload have in common; None, with a fault, where it has none."""
    spec, above = section, section
    for key in workloads.POD_AT[kind]:
        inner = spec.section(key, f"{key} of {section.label}")
        if inner is None:
            spec.require(key, "write the pod that it makes")
            return None
        spec, above = inner, spec
    spec.label = f"the pod of {section.label}"
    metadata = section.section("metadata", "metadata")
    namespace = metadata.raw("namespace") if metadata else ""
    place = ".".join(filter(None, (kind.lower(), namespace, name)))
    about = above.section("metadata", "metadata") or metadata
    pod = pods.Pod(spec, name, place, objects.seen_from(namespace), about, namespace)
    pod.add_volumes(spec)
    pods.warn_of_pod(spec)
    return pod


def _runs_something(node: Node) -> bool:
    """Whether a node holds a list of containers at any depth, as objects of other makers do."""
    if isinstance(node, Items):
        return any(map(_runs_something, node.items))
    if not isinstance(node, Fields):
        return False
    listed = node.get("containers")
    if isinstance(listed, Items) and any(isinstance(each, Fields) and each.key("image") for each in listed.items):
        return True
    return any(_runs_something(value) for _, value in node.entries)


def _job(section: Section) -> Section | None:
    """What a Job, or each one that a CronJob makes, is told; None for other kinds."""
    paths = {"Job": ("spec",), "CronJob": ("spec", "jobTemplate", "spec")}
    found: Section | None = section
    for key in paths.get(section.raw("kind"), ()):
        found = found.section(key, section.label) if found is not None else None
    return found if found is not section else None


def _warn_of_copies(section: Section) -> None:
    """A job may make several pods: one is run."""
    job = _job(section)
    if job is None:
        return
    several = [key for key in ("completions", "parallelism") if job.raw(key) not in ("", "0", "1")]
    if job.raw("completionMode") == "Indexed":
        job.warn("completionMode", f"{section.label} is indexed: only index 0 is run")
    elif several:
        told = f"{several[0]}: {job.raw(several[0])}"
        job.warn(several[0], f"{section.label} makes several pods ({told}): one is run, by itself")


def _containers(workload: _Workload) -> Iterator[_Container]:
    spec = workload.pod.spec
    found = [
        (key, item)
        for key in workloads.POD_LISTS
        for item in spec.sections(key, f"a container of {workload.section.label}")
    ]
    if not any(key == "containers" for key, _ in found):
        spec.error("containers", f"{spec.label} has no containers", "write containers: and a list of them")
    if len([key for key, _ in found if key == "containers"]) > 1:
        spec.warn(
            "containers",
            f"the containers of {workload.section.label} run at the same time in a cluster, and share localhost; here "
            "each runs by itself",
        )
    outline = workloads.Outline(workload.section.fields)
    for key, item in found:
        item.require("name", "write a name that no other container of this pod has")
        name = item.read("name", naming.usable) or "?"
        item.label = f"container {quoted(name)}"
        yield _Container(item, workload, key == workloads.INITIAL, workloads.site_of(outline, name))


def _refuse_twins(containers: Sequence[_Container], names: Sequence[str]) -> None:
    seen: dict[str, _Container] = {}
    for container, name in zip(containers, names, strict=True):
        first = seen.setdefault(name.lower(), container)
        if first is not container:
            place = first.section.origin()
            message = f"{container.section.label} has the name of the one at {place.line}:{place.column}"
            container.section.error("name", message, "rename one of the two, or give them files of their own")


def _operators(containers: Sequence[_Container], names: Sequence[str]) -> Iterator[Operator]:
    initial: dict[int, str] = {}  # the last one of each pod
    beside: dict[int, tuple[str, ...]] = {}  # its sidecars
    for container, name in zip(containers, names, strict=True):
        pod = id(container.workload)
        operator = pods.ContainerReader(container.section, container.workload.pod).operator(name)
        operator = replace(
            operator,
            after=((initial[pod],) if pod in initial else ()) + beside.get(pod, ()),
            long_running=_stays(container, operator),
            env=_indexed(container, operator),
        )
        if _is_sidecar(container):
            beside[pod] = (*beside.get(pod, ()), operator.name)
            message = (
                f"{container.section.label} runs beside those after it, but does not share localhost with them here"
            )
            container.section.warn("restartPolicy", message)
        elif container.initial:
            initial[pod] = operator.name
        yield operator


def _is_sidecar(container: _Container) -> bool:
    return container.initial and container.section.raw("restartPolicy") == "Always"


def _stays(container: _Container, operator: Operator) -> bool:
    """Whether a container is meant to stay: a Pod's, where it says so or answers at a port."""
    if container.initial:
        return _is_sidecar(container)
    if container.workload.kind != "Pod":
        return container.workload.kind in _STAYING
    policy = container.workload.pod.spec.raw("restartPolicy")
    return policy == "Always" or (not policy and bool(operator.ports))


def _indexed(container: _Container, operator: Operator) -> tuple[tuple[str, str], ...]:
    job = _job(container.workload.section)
    if job is None or job.raw("completionMode") != "Indexed":
        return operator.env
    return tuple({**dict(operator.env), "JOB_COMPLETION_INDEX": "0"}.items())


def near_miss(document: Fields) -> tuple[str, str]:
    """What a file that is almost a manifest lacks: a message and a hint; empty where it is none."""
    keys = {key.value.lower(): key.value for key, _ in document.entries}
    wrong = [keys[key.lower()] for key in ("apiVersion", "kind") if keys.get(key.lower(), key) != key]
    if wrong and "kind" in keys and "apiversion" in keys:
        return f"{quoted(wrong[0])} is written with other letters in Kubernetes", "write apiVersion and kind"
    kind = getattr(document.get("kind"), "value", "")
    if document.get("apiVersion") and kind and kind not in workloads.POD_AT:
        return (
            f"a {kind} runs no containers that cpost could size" if kind.isalpha() else "this kind runs no containers",
            choice(kind, workloads.POD_AT, "kinds that do are"),
        )
    return "", ""
