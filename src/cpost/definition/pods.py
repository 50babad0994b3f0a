"""Containers, volumes and variables as Kubernetes writes them; Argo's templates use the same words."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from cpost.definition import grammar, naming, workloads
from cpost.definition.config_objects import Objects
from cpost.definition.findings import quoted
from cpost.definition.grammar import GrammarError
from cpost.definition.quantities import parse_kubernetes_cpu, parse_kubernetes_memory
from cpost.definition.section import Section
from cpost.model import File, Operator, Resources, Volume

CONTAINER_KEYS = (
    "name", "image", "command", "args", "workingDir", "env", "envFrom", "resources", "volumeMounts", "ports",
    "securityContext", "imagePullPolicy", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle", "stdin",
    "stdinOnce", "tty", "terminationMessagePath", "terminationMessagePolicy", "volumeDevices", "restartPolicy",
    "resizePolicy", "source", "dependencies", "mirrorVolumeMounts", "retryStrategy", "restartPolicyRules",
)  # fmt: skip
_GPU = "nvidia.com/gpu"
_NOT_HERE = "is not in the file: add it as one more document"
_AMOUNTS = ("cpu", "memory", "ephemeral-storage", _GPU)
_SHM = "/dev/shm"  # noqa: S108
_REFERENCE = re.compile(r"\$\$|\$\(([A-Za-z_.-][A-Za-z0-9_.-]*)\)")
# What only a cluster tells, and what stands for it here: this container is a pod and a node of its own.
_STAND_INS = {
    "status.podIP": "127.0.0.1", "status.podIPs": "127.0.0.1", "status.hostIP": "127.0.0.1",
    "status.hostIPs": "127.0.0.1", "spec.nodeName": "localhost",
}  # fmt: skip
# Volumes that are a fresh folder here, which says nothing about their contents in a cluster.
_CLAIMS = ("persistentVolumeClaim", "ephemeral")


@dataclass(slots=True)
class Pod:
    """What the containers of one pod have in common.

    Attributes:
        name: of the object that makes it.
        place: what the folders that outlive it are named by: claims, folders of its node.
        namespace: that the object says it is in; empty where it says none.
        own: what its own fresh folders are named by; empty = as the others.
        volumes: its volumes' sections by name; None = made from a claim template.
    """

    spec: Section
    name: str
    place: str
    objects: Objects
    metadata: Section | None = None
    namespace: str = ""
    own: str = ""
    volumes: dict[str, Section | None] = field(default_factory=dict)

    def add_volumes(self, section: Section, key: str = "volumes") -> None:
        """Take the volumes of a section into account."""
        for item in section.sections(key, f"a volume of {section.label}"):
            item.require("name", "write the name that volumeMounts use")
            item.label = f"volume {quoted(item.raw('name'))}"
            self.volumes[item.raw("name")] = item

    def add_claims(self, section: Section, key: str) -> None:
        """Take claim templates into account: each is a fresh folder."""
        for item in section.sections(key, f"a claim of {section.label}"):
            metadata = item.section("metadata", "metadata of a claim")
            if metadata is not None:
                self.volumes[metadata.raw("name")] = None
                item.warn(None, f"claim {quoted(metadata.raw('name'))} is a fresh, empty folder here")


def name_of(section: Section) -> str:
    """What an object is called, empty where it has no name; that it cannot be called so is a fault."""
    metadata = section.section("metadata", f"metadata of a {section.raw('kind')}")
    for key in ("name", "generateName", "namespace"):
        if metadata is not None and metadata.raw(key):
            metadata.read(key, naming.usable)
    return workloads.name_of(workloads.Outline(section.fields))


def warn_of_pod(spec: Section) -> None:
    """Say what a pod asks for and does not have here."""
    for key in ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"):
        if spec.raw(key) == "true":
            spec.warn(key, f"{key} of {spec.label} is not given to it here")
    if spec.has("hostAliases"):
        spec.warn("hostAliases", f"hostAliases of {spec.label} are not known here")
    if spec.has("resources"):
        spec.warn("resources", f"resources of {spec.label} as a whole are not heeded here: those of its containers are")
    context = spec.section("securityContext", f"securityContext of {spec.label}")
    for key in ("fsGroup", "supplementalGroups", "sysctls"):
        if context is not None and context.has(key):
            context.warn(key, f"{key} of {spec.label} is not set here")


class ContainerReader:
    """Reads one container of a pod."""

    def __init__(self, section: Section, pod: Pod) -> None:
        self._section = section
        self._pod = pod
        self._reasons: list[str] = []
        self._shm: int | None = None
        self._requests = self._limits = Resources()

    def refuse(self, section: Section, key: str | None, reason: str) -> None:
        """Note why the container cannot be run here, with its place."""
        place = section.origin(key)
        self._reasons.append(f"{reason} ({place.file}:{place.line})")

    def operator(self, name: str) -> Operator:
        """Read it all; faults are recorded, what cannot be done here is among the reasons."""
        section = self._section
        section.check_keys(CONTAINER_KEYS)
        section.require("image", "write the image that it runs")
        if section.has("lifecycle"):
            section.warn("lifecycle", f"lifecycle of {section.label} is not followed here: nothing is run beside it")
        if section.has("volumeDevices"):
            self.refuse(section, "volumeDevices", "it is given a disk of the cluster as a device")
        self._requests, self._limits = self._resources()
        env = self._environment()
        volumes = tuple(self._volumes())
        entrypoint, command = self._words("command", env), self._words("args", env)
        image = section.read("image", grammar.reference) or ""
        user = self._user()
        return Operator(
            name=naming.safe(name),
            image=image,
            entrypoint=entrypoint,
            command=command,
            env=tuple(env.items()),
            requests=self._requests,
            limits=self._limits,
            workdir=section.read("workingDir", grammar.absolute) or "",
            user=user,
            volumes=volumes,
            ports=tuple(self._ports()),
            shm_bytes=self._shm,
            site=naming.safe(name),
            origin=section.origin(),
            unsupported=tuple(dict.fromkeys(self._reasons)),
        )

    def _words(self, key: str, env: Mapping[str, str]) -> tuple[str, ...]:
        words = (self._section.value(node, key, grammar.argument) for node in self._section.items(key))
        return tuple(expand(word, env) for word in words if word is not None)

    def _ports(self) -> Iterator[int]:
        for item in self._section.sections("ports", "a port"):
            if item.raw("protocol") in ("", "TCP"):
                number = item.read("containerPort", grammar.whole_number)
                if number:
                    yield number

    def _user(self) -> str:
        user = group = ""
        for owner in (self._pod.spec, self._section):
            context = owner.section("securityContext", f"securityContext of {owner.label}")
            if context is None:
                continue
            for key, what in (("runAsUser", "user"), ("runAsGroup", "group")):
                number = context.read(key, grammar.whole_number)
                if number is not None:
                    user, group = (str(number), group) if what == "user" else (user, str(number))
            if context.raw("privileged") == "true":
                context.warn("privileged", f"{self._section.label} is not run privileged here")
            capabilities = context.section("capabilities", f"capabilities of {owner.label}")
            if capabilities is not None and capabilities.has("add"):
                capabilities.warn("add", f"{self._section.label} is given no further capabilities here")
        return f"{user}:{group}" if user and group else user

    # ------------------------------------------------------------ requests

    def _resources(self) -> tuple[Resources, Resources]:
        section = self._section.section("resources", f"resources of {self._section.label}")
        if section is None:
            return Resources(), Resources()
        limits, requests = self._amounts(section, "limits"), self._amounts(section, "requests")
        if section.has("claims"):
            self.refuse(section, "claims", "it claims devices of a cluster")
        gpus = limits.gpu_count if limits.gpu_count is not None else requests.gpu_count
        filled = Resources(  # what has a limit and no request, requests its limit
            requests.cpu_millicores if requests.cpu_millicores is not None else limits.cpu_millicores,
            requests.memory_bytes if requests.memory_bytes is not None else limits.memory_bytes,
            gpus,
        )
        return filled, Resources(limits.cpu_millicores, limits.memory_bytes, gpus)

    def _amounts(self, resources: Section, key: str) -> Resources:
        section = resources.section(key, f"{key} of {self._section.label}")
        if section is None:
            return Resources()
        for name, _ in section.fields.entries:
            if "/" in name.value and name.value != _GPU:
                self.refuse(section, name.value, f"it asks for {name.value}, which cpost cannot give it")
            elif name.value not in _AMOUNTS and not name.value.startswith("hugepages-"):
                section.warn(name.value, f"unknown resource {quoted(name.value)} in {section.label} is ignored")
        if section.raw("memory").endswith("m"):
            section.warn("memory", f"{quoted(section.raw('memory'))} means thousandths of a byte; M or Mi are meant?")
        return Resources(
            section.read("cpu", _quantity(parse_kubernetes_cpu)),
            section.read("memory", _quantity(parse_kubernetes_memory)),
            section.read(_GPU, grammar.whole_number),
        )

    # ------------------------------------------------------------ variables

    def _environment(self) -> dict[str, str]:
        env: dict[str, str] = {}
        for item in self._section.sections("envFrom", f"envFrom of {self._section.label}"):
            for key, objects in (("configMapRef", self._pod.objects.maps), ("secretRef", self._pod.objects.secrets)):
                source = item.section(key, key)
                contents = self._contents(source, key, objects) if source else {}
                env |= {item.raw("prefix") + name: _text(value) for name, value in contents.items()}
        for item in self._section.sections("env", f"a variable of {self._section.label}"):
            item.require("name", "write the variable's name")
            name = item.read("name", grammar.variable_name) or ""
            item.label = f"variable {quoted(name)}"
            value = self._value_from(item) if item.has("valueFrom") else item.read("value", grammar.any_text) or ""
            if name and value is not None:
                env[name] = expand(value, env)
        return env

    def _value_from(self, item: Section) -> str | None:
        source = item.section("valueFrom", f"valueFrom of {item.label}")
        if source is None:
            return None
        for key, objects in (("configMapKeyRef", self._pod.objects.maps), ("secretKeyRef", self._pod.objects.secrets)):
            reference = source.section(key, key)
            if reference is not None:
                contents = self._contents(reference, key, objects, reference.raw("key"))
                value = contents.get(reference.raw("key"))
                return _text(value) if value is not None else None
        own = source.section("fieldRef", "fieldRef")
        amount = source.section("resourceFieldRef", "resourceFieldRef")
        path = own.raw("fieldPath") if own else amount.raw("resource") if amount else ""
        found = self._field(path) if own else self._amount(amount) if amount else None
        if found is None:
            what = path or ", ".join(key.value for key, _ in source.fields.entries)
            self.refuse(source, None, f"{item.label} is what only a cluster knows ({what})")
        elif path in _STAND_INS:
            source.warn(None, f"{item.label} is {found} here: {path} is what only a cluster knows")
        return found

    def _amount(self, asked: Section) -> str | None:
        """One of the container's own amounts in units of a divisor, rounded up; None where it states none."""
        kind, _, name = asked.raw("resource").partition(".")
        stated = {"requests": self._requests, "limits": self._limits}.get(kind, Resources())
        amount = {"cpu": stated.cpu_millicores, "memory": stated.memory_bytes}.get(name)
        if amount is None or asked.raw("containerName") not in ("", self._section.raw("name")):
            return None
        parse = parse_kubernetes_cpu if name == "cpu" else parse_kubernetes_memory
        divisor = asked.read("divisor", _quantity(parse)) or parse("1")
        return str(-(-amount // divisor))

    def _contents(
        self, reference: Section, what: str, objects: Mapping[str, Mapping[str, bytes]], key: str = ""
    ) -> Mapping[str, bytes]:
        name = reference.raw("name")
        contents = objects.get(name)
        if contents is not None and (not key or key in contents):
            return contents
        if reference.raw("optional") != "true":
            kind = "Secret" if what.startswith("secret") else "ConfigMap"
            lacking = f"has no key {quoted(key)}" if contents is not None else _NOT_HERE
            self.refuse(reference, None, f"{kind} {quoted(name)} {lacking}")
        return {}

    def _field(self, path: str) -> str | None:
        """The simple fields of the downward API."""
        if path == "metadata.name":
            return self._pod.name
        metadata = self._pod.metadata
        if path == "metadata.namespace":
            return self._pod.namespace or "default"
        if path == "spec.serviceAccountName":
            return self._pod.spec.raw("serviceAccountName") or "default"
        if path in _STAND_INS:
            return _STAND_INS[path]
        match = re.fullmatch(r"metadata\.(labels|annotations)\['([^']+)'\]", path)
        block = metadata.section(match[1], match[1]) if match and metadata else None
        return block.raw(match[2]) if match and block else None

    # ------------------------------------------------------------ volumes

    def _volumes(self) -> Iterator[Volume]:
        seen: set[str] = set()
        for item in self._section.sections("volumeMounts", f"a mount of {self._section.label}"):
            path = item.read("mountPath", grammar.folder)
            name = item.raw("name")
            if path is None:
                item.require("mountPath", "write where the container sees it")
                continue
            if path in seen:
                item.error("mountPath", f"{self._section.label} mounts two volumes at {quoted(path)}", "remove one")
            seen.add(path)
            if item.has("subPathExpr"):
                self.refuse(item, "subPathExpr", "subPathExpr is not followed")
            part = item.read("subPath", grammar.relative_path) if item.raw("subPath") else ""
            if name not in self._pod.volumes:
                item.error("name", f"no volume is called {quoted(name)}", "declare it under volumes")
                continue
            volume = self._volume(name, path, item.raw("readOnly") == "true", part or "")
            if volume is not None:
                yield volume

    def _volume(self, name: str, path: str, read_only: bool, part: str) -> Volume | None:
        source = self._pod.volumes[name]
        fresh = Volume(naming.safe(f"{self._pod.place}.{name}"), path, read_only, part)
        if source is None:
            return fresh
        if source.has("emptyDir") or not any(key.value != "name" for key, _ in source.fields.entries):
            return self._empty(source, self._own(fresh, name))
        for key, objects in (("configMap", self._pod.objects.maps), ("secret", self._pod.objects.secrets)):
            described = source.section(key, f"{key} of {source.label}")
            if described is not None:
                return self._filled(described, key, objects, fresh)
        kind = next(key.value for key, _ in source.fields.entries if key.value != "name")
        if kind in _CLAIMS:
            source.warn(None, f"{source.label} ({kind}) is a fresh, empty folder here")
            claim = source.section(kind, kind)
            named = claim.raw("claimName") if claim else ""
            place = ".".join(filter(None, ("claim", self._pod.namespace, named)))
            return replace(fresh, name=naming.safe(place)) if named else self._own(fresh, name)
        described = source.section(kind, kind) if kind == "hostPath" else None
        if described is not None and described.raw("type") == "DirectoryOrCreate":
            source.warn(None, f"{source.label} is a fresh, empty folder here: it is made where it is not there")
            return fresh
        self.refuse(source, None, f"{source.label} is a {kind}, which is not here")
        return None

    def _own(self, fresh: Volume, name: str) -> Volume:
        return replace(fresh, name=naming.safe(f"{self._pod.own}.{name}")) if self._pod.own else fresh

    def _empty(self, source: Section, fresh: Volume) -> Volume | None:
        empty = source.section("emptyDir", f"emptyDir of {source.label}") if source.has("emptyDir") else None
        if empty is None or empty.raw("medium") != "Memory":
            return fresh
        if fresh.path == _SHM:
            self._shm = empty.read("sizeLimit", _quantity(parse_kubernetes_memory))
            return None
        source.warn(None, f"{source.label} is on disk here, not in memory: what lies in it is not counted as memory")
        return fresh

    def _filled(
        self, described: Section, key: str, objects: Mapping[str, Mapping[str, bytes]], fresh: Volume
    ) -> Volume | None:
        named = described.raw("secretName" if key == "secret" else "name")
        contents = objects.get(named)
        if contents is None:
            if described.raw("optional") != "true":
                kind = "Secret" if key == "secret" else "ConfigMap"
                self.refuse(described, None, f"{kind} {quoted(named)} {_NOT_HERE}")
            return None
        files = tuple(self._files(described, contents))
        if fresh.part and fresh.part not in {file.name for file in files}:
            self.refuse(described, None, f"{quoted(named)} has no {quoted(fresh.part)}")
        return Volume(fresh.name, fresh.path, True, fresh.part, files) if files else None

    def _files(self, described: Section, contents: Mapping[str, bytes]) -> Iterator[File]:
        mode = described.read("defaultMode", _mode) if described.has("defaultMode") else 0o644
        items = described.sections("items", f"an item of {described.label}")
        for item in items:
            name = item.read("path", grammar.relative_path)
            if item.raw("key") not in contents:
                self.refuse(item, "key", f"there is no key {quoted(item.raw('key'))}")
            elif name is not None:
                own = item.read("mode", _mode) if item.has("mode") else mode
                yield File(name, contents[item.raw("key")], own or 0o644)
        if not items:
            for name, content in contents.items():
                yield File(naming.safe(name), content, mode or 0o644)


def expand(text: str, env: Mapping[str, str]) -> str:
    """Put variables in the places of $(NAME), as Kubernetes does: unknown ones stay, $$ is a dollar sign."""

    def value(match: re.Match[str]) -> str:
        return "$" if match[1] is None else env.get(match[1], match[0])

    return _REFERENCE.sub(value, text)


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace").replace("\0", "")


def _mode(text: str) -> int:
    """A file's mode: octal where it begins with 0, as in YAML; decimal otherwise. Always readable for everybody."""
    try:
        number = int(text.lower().removeprefix("0o"), 8) if text.startswith("0") else int(text)
    except ValueError:
        number = -1
    if not 0 <= number <= 0o7777:
        raise GrammarError(f"{quoted(text)} is not a file mode", "write it as 0644")
    return (number & 0o777) | 0o444


def _quantity(parse: Callable[[str], int]) -> Callable[[str], int]:
    """A rule for an amount."""

    def rule(text: str) -> int:
        try:
            return parse(text)
        except ValueError as error:
            hint = "K is no unit: write k for 1000 or Ki for 1024" if text.endswith("K") else "write 250m, 1.5 or 512Mi"
            if re.match("0[0-9]", text):
                hint = "write it without the zero before it, which makes it octal for some readers of YAML"
            raise GrammarError(f"{quoted(text)} is not a quantity", hint) from error

    return rule
