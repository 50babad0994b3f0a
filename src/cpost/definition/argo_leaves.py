"""Templates of Argo that run containers -> operators."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from cpost.definition import grammar, naming, pods
from cpost.definition.argo_scope import Scope, Value
from cpost.definition.findings import choice, quoted
from cpost.definition.flow import UNIQUE
from cpost.definition.section import Section
from cpost.definition.tree import Fields, Items, Node, Text
from cpost.definition.workloads import INITIAL, LEAVES
from cpost.model import File, Input, Operator, Output, Volume

_FILLED = (*LEAVES, "containerSet", INITIAL, "volumes", "inputs", "outputs", "securityContext")
_SCRIPT = "/argo/staging/script"  # where Argo itself puts it


@dataclass(frozen=True, slots=True)
class Artifact:
    """Where an artifact comes from: an operator's output, or a text of the definition; `reason` = from nowhere here."""

    producer: str = ""
    name: str = ""
    entry: str = ""
    raw: str | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Use:
    """One use of a template: by which tasks it is reached, what it is given, whom it comes after."""

    path: tuple[str, ...]
    parameters: Mapping[str, Value]
    artifacts: Mapping[str, Artifact]
    after: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Made:
    """The operators of one use of a template in their order, and the artifacts that they leave."""

    operators: tuple[Operator, ...]
    artifacts: Mapping[str, Artifact] = field(default_factory=dict)


class LeafReader:
    """Reads templates that run containers.

    Args:
        sites: what their containers are called, as `argo_objects.site_names` says.
    """

    def __init__(self, pod: pods.Pod, sites: Mapping[tuple[int, str], str]) -> None:
        self.pod = pod
        self._sites = sites

    def read(self, template: Section, written: Fields, use: Use, scope: Scope, known: int) -> Made:
        """Read one use of a template.

        Args:
            template: with the workflow's defaults.
            written: as it stands in the file, which its containers' names go by.
            known: how many operators there are already; tells this use from others.
        """
        entries = tuple(entry for entry in template.fields.entries if entry[0].value in _FILLED)
        filled = scope.filled(Fields(entries, template.fields.origin))
        assert isinstance(filled, Fields)
        section = template.like(filled)
        own = ".".join((self.pod.place, *use.path))  # each use is a pod, with empty folders of its own
        pod = replace(self.pod, volumes=dict(self.pod.volumes), own=own)
        pod.add_volumes(section)
        if section.has("securityContext"):  # in the place of the whole workflow's
            pod.spec = section
        pods.warn_of_pod(template)
        names = {container: name for (place, container), name in self._sites.items() if place == id(written)}
        maker = _Maker(template, section, use, pod, names, known)
        operators = maker.set() if template.has("containerSet") else (*maker.initial(), maker.main())
        operators = tuple(
            replace(each, unsupported=tuple(dict.fromkeys((*each.unsupported, *scope.reasons)))) for each in operators
        )
        return Made(operators, maker.artifacts(operators[-1].name) if operators else {})


class _Maker:
    """Makes the operators of one use.

    Args:
        template: as written.
        section: the same filled in.
        sites: what its containers are called; the main one's own name is empty.
    """

    def __init__(
        self, template: Section, section: Section, use: Use, pod: pods.Pod, sites: Mapping[str, str], known: int
    ) -> None:
        self._template = template
        self._section = section
        self._use = use
        self._pod = pod
        self._sites = sites
        self._known = known
        self._reasons: list[str] = []
        self._before = use.after

    def _container(self, section: Section, raw: Section, own: str, number: int = 0) -> Operator:
        if own:
            raw.read("name", naming.usable)
        site = self._sites.get(own) or naming.safe(own or "main")  # one that is only among the defaults
        section.label = raw.label
        operator = pods.ContainerReader(section, self._pod).operator(site)
        unique = f"{UNIQUE}{self._pod.place}.{self._known + number}"
        return replace(operator, name=".".join((site, *self._use.path)) + unique, after=self._before)

    def _refuse(self, section: Section, reason: str) -> None:
        place = section.origin()
        self._reasons.append(f"{reason} ({place.file}:{place.line})")

    def initial(self) -> Iterator[Operator]:
        """Containers that end before the main one begins."""
        raw = self._template.sections(INITIAL, f"an init container of {self._template.label}")
        for number, item in enumerate(self._section.sections(INITIAL, "an init container")):
            raw[number].label = f"container {quoted(item.raw('name'))}"
            name = raw[number].raw("name")
            if item.raw("mirrorVolumeMounts") == "true":
                operator = self._mirrored(item, raw[number], name, number + 1)
            else:
                operator = self._container(item, raw[number], name, number + 1)
            self._before = (operator.name,)
            yield operator

    def _mirrored(self, item: Section, raw: Section, name: str, number: int) -> Operator:
        """A container that also has what the main one has mounted: its volumes and its input artifacts."""
        main = next((self._section.section(key, key) for key in LEAVES if self._section.has(key)), None)
        own = _paths(item)
        more = [each for each in main.items("volumeMounts") if _path(each) not in own] if main is not None else []
        volumes, inputs = self._given()
        operator = self._container(_mounting(item, more), raw, name, number)
        return replace(
            operator,
            volumes=(*operator.volumes, *volumes),
            inputs=tuple(each for each in inputs if each.path not in own),
        )

    def main(self) -> Operator:
        """The main container, with what it is given."""
        key = next(key for key in LEAVES if self._section.has(key))
        container = self._section.section(key, self._template.label) or self._section
        operator = self._container(container, self._template, "")
        for item in self._template.sections("sidecars", "a sidecar"):
            self._refuse(item, f"its sidecar {quoted(item.raw('name'))} would have to share its localhost")
        volumes, inputs = self._given()
        if key == "script":
            volumes.append(self._script(container))
            operator = replace(operator, command=(*operator.command, _SCRIPT))
        ports = (*operator.ports, *_probed(container))
        alias = naming.safe("-".join(self._use.path) or self._template.raw("name")).lower()
        return replace(
            operator,
            volumes=(*operator.volumes, *volumes),
            inputs=tuple(inputs),
            outputs=tuple(self._outputs()),
            ports=tuple(dict.fromkeys(ports)),
            aliases=(alias,) if self._template.raw("daemon") == "true" else (),
            unsupported=tuple(dict.fromkeys((*operator.unsupported, *self._reasons))),
        )

    def _script(self, container: Section) -> Volume:
        container.require("source", "write the script")
        folder, _, name = _SCRIPT.rpartition("/")
        file = File(name, container.raw("source").encode(), 0o755)
        return Volume("script", folder, read_only=True, files=(file,))

    # ------------------------------------------------------------ artifacts

    def _given(self) -> tuple[list[Volume], list[Input]]:
        volumes, inputs = [], []
        below = self._section.section("inputs", f"inputs of {self._template.label}")
        for item in below.sections("artifacts", f"an artifact of {self._template.label}") if below else ():
            name, path = item.raw("name"), item.read("path", grammar.folder)
            source = self._use.artifacts.get(name) or source_of(item)
            if path is None or (source.reason and item.raw("optional") == "true"):
                continue
            if source.reason:
                self._refuse(item, source.reason)
            elif source.raw is not None:
                files = (File("content", source.raw.encode()),)
                volumes.append(Volume(f"raw.{naming.safe(name)}", path, True, "content", files))
            else:
                inputs.append(Input(path, source.producer, source.name, entry=source.entry))
        return volumes, inputs

    def _outputs(self) -> Iterator[Output]:
        below = self._section.section("outputs", f"outputs of {self._template.label}")
        for item in below.sections("artifacts", f"an artifact of {self._template.label}") if below else ():
            name, path = item.read("name", naming.usable), item.read("path", grammar.folder)
            if name is not None and path is not None:
                yield Output(path, naming.safe(name), copied=True, optional=item.raw("optional") == "true")

    def artifacts(self, producer: str) -> dict[str, Artifact]:
        """What the main container leaves."""
        below = self._section.section("outputs", "outputs")
        found = below.sections("artifacts", "an artifact") if below else ()
        if self._template.has("containerSet"):
            reason = f"what {self._template.label} leaves is not handed on: it is a containerSet"
            return {item.raw("name"): Artifact(reason=reason) for item in found}
        return {
            item.raw("name"): Artifact(
                producer, naming.safe(item.raw("name")), posixpath.basename(item.raw("path").rstrip("/"))
            )
            for item in found
        }

    # ------------------------------------------------------------ several containers

    def set(self) -> tuple[Operator, ...]:
        """The containers of a containerSet, which share its volumes."""
        raw_group = self._template.section("containerSet", self._template.label)
        group = self._section.section("containerSet", self._template.label)
        if group is None or raw_group is None:
            return ()
        if self._section.has("inputs") and (given := self._given()) != ([], []):
            self._refuse(group, f"artifacts of a containerSet are not handed on ({len(given[1])})")
        raw = raw_group.sections("containers", f"a container of {self._template.label}")
        found: dict[str, Operator] = {}
        waits: dict[str, tuple[str, ...]] = {}
        for number, item in enumerate(group.sections("containers", f"a container of {self._template.label}")):
            raw[number].label = f"container {quoted(item.raw('name'))}"
            item.require("name", "write a name that no other container of this template has")
            everyones = _mounting(item, group.items("volumeMounts"))
            found[item.raw("name")] = self._container(everyones, raw[number], raw[number].raw("name"), number)
            waits[item.raw("name")] = tuple(
                item.value(node, "dependencies", str) or "" for node in item.items("dependencies")
            )
        return tuple(self._ordered(item, found, waits, group) for item in found)

    def _ordered(
        self, name: str, found: Mapping[str, Operator], waits: Mapping[str, Sequence[str]], group: Section
    ) -> Operator:
        for other in waits[name]:
            if other not in found:
                group.error(
                    "containers", f"{quoted(name)} depends on {quoted(other)}", choice(other, found, "there are")
                )
        after = tuple(found[other].name for other in waits[name] if other in found)
        reasons = (*found[name].unsupported, *self._reasons)
        return replace(found[name], after=after or self._use.after, unsupported=reasons)


def _mounting(item: Section, more: Sequence[Node]) -> Section:
    """A container with further volumeMounts behind its own."""
    both = Items((*item.items("volumeMounts"), *more), item.origin())
    key = Text("volumeMounts", item.origin())
    return item.like(Fields((*item.fields.without((key.value,)).entries, (key, both)), item.fields.origin))


def _paths(item: Section) -> list[str]:
    return [_path(each) for each in item.items("volumeMounts")]


def _path(mount: Node) -> str:
    path = mount.get("mountPath") if isinstance(mount, Fields) else None
    return path.value if isinstance(path, Text) else ""


def source_of(item: Section) -> Artifact:
    """An artifact as the definition describes it itself."""
    raw = item.section("raw", "raw") if item.has("raw") else None
    if raw is not None:
        return Artifact(raw=raw.raw("data"))
    known = ("name", "path", "optional", "mode", "archive", "recurseMode", "from", "archiveLogs")
    kinds = [key.value for key, _ in item.fields.entries if key.value not in known]
    return Artifact(reason=f"artifact {quoted(item.raw('name'))} comes from {', '.join(kinds) or 'nowhere'}")


def _probed(container: Section) -> Iterator[int]:
    """The port that tells whether a container is ready."""
    probe = container.section("readinessProbe", "readinessProbe") if container.has("readinessProbe") else None
    for key in ("httpGet", "tcpSocket"):
        asked = probe.section(key, key) if probe is not None else None
        if asked is not None and asked.raw("port").isdecimal():
            yield int(asked.raw("port"))
