"""The fields of a Clara pipeline definition: a filled tree -> operators with the places that later checks need."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial

from cpost.definition import grammar, ports
from cpost.definition.findings import Findings, quoted
from cpost.definition.section import Section
from cpost.definition.tree import Fields
from cpost.model import HttpConnection, Operator, Resources, Service, VolumeConnection
from cpost.units import MB, MILLICORES_PER_CORE

PIPELINE_KEYS = (
    "api-version", "name", "description", "orchestrator", "pull-secrets", "parameters", "operators", "timeout",
)  # fmt: skip
_OPERATOR_KEYS = (
    "name", "description", "container", "variables", "input", "output", "requests", "models", "services", "timeout",
)  # fmt: skip
_CONTAINER_KEYS = ("image", "tag", "command", "variables")
_SERVICE_KEYS = ("name", "description", "container", "variables", "requests", "connections")
_REQUEST_KEYS = ("cpu", "memory", "gpu")
_CONNECTION_KEYS = ("http", "file", "volume")

Env = tuple[tuple[str, str], ...]


@dataclass(frozen=True, order=True, slots=True)
class Version:
    """An api-version, compared number by number: 0.10.0 is later than 0.9.0."""

    major: int
    minor: int
    patch: int = 0


_KNOWN_VERSIONS = tuple(Version(0, minor) for minor in range(2, 8))
_TYPED_FROM = Version(0, 5)
_MODELS_FROM = Version(0, 6)
_SERVICES_FADED = Version(0, 7)


@dataclass(frozen=True, slots=True)
class Draft:
    """An operator whose references to others are not checked yet."""

    operator: Operator
    section: Section
    inputs: tuple[ports.PlacedInput, ...]
    outputs: tuple[ports.PlacedOutput, ...]


@dataclass(frozen=True, slots=True)
class Header:
    """What a pipeline says about itself."""

    name: str
    api_version: str
    version: Version | None
    description: str
    orchestrator: str
    pull_secrets: tuple[str, ...]


def read_header(top: Section) -> Header:
    """Read everything but the operators."""
    top.check_keys(PIPELINE_KEYS)
    top.require("name", "write name: and a name for the pipeline")
    version = _read_version(top)
    _warn_timeout(top)
    orchestrator = top.raw("orchestrator")
    if orchestrator.lower() not in ("", "clara", "argo"):
        top.warn("orchestrator", f"unknown orchestrator {quoted(orchestrator)}; known are Clara and Argo")
    secrets = (top.value(node, "pull-secrets", grammar.any_text) for node in top.items("pull-secrets"))
    return Header(
        name=top.read("name", grammar.name) or "",
        api_version=top.raw("api-version"),
        version=version,
        description=top.read("description", grammar.any_text) or "",
        orchestrator=top.read("orchestrator", grammar.any_text) or "",
        pull_secrets=tuple(secret for secret in secrets if secret is not None),
    )


def _read_version(top: Section) -> Version | None:
    if not top.has("api-version"):
        top.warn(None, "there is no api-version; the rules of 0.4.0 are used")
        return None
    text = top.read("api-version", grammar.any_text) or ""
    match = re.fullmatch(r"([0-9]{1,4})\.([0-9]{1,4})(?:\.([0-9]{1,4}))?", text)
    version = Version(int(match[1]), int(match[2]), int(match[3] or 0)) if match else None
    if version not in _KNOWN_VERSIONS:
        top.warn("api-version", f"unknown api-version {quoted(text)}; known are 0.2.0 to 0.7.0")
    return version


def _warn_timeout(section: Section) -> None:
    if section.has("timeout"):
        section.warn("timeout", f"timeout of {section.label} is ignored")


# ---------------------------------------------------------------- operators


def read_operator(fields: Fields, version: Version | None, findings: Findings) -> Draft:
    """Read one operator, its imports replaced and its placeholders filled.

    A part that breaks a rule is recorded in `findings` and left at its default, so that the rest is checked as well.
    """
    label = f"operator {quoted(name)}" if (name := Section(fields, "", findings).raw("name")) else "this operator"
    section = Section(fields, label, findings)
    section.check_keys(_OPERATOR_KEYS)
    section.require("name", "write name: and a name that no other operator has")
    _warn_timeout(section)
    typed = version is not None and version >= _TYPED_FROM
    inputs = tuple(ports.read_input(item, typed) for item in section.sections("input", f"an input of {label}"))
    outputs = tuple(ports.read_output(item, typed) for item in section.sections("output", f"an output of {label}"))
    image, command, env = _container(section, _CONTAINER_KEYS)
    operator = Operator(
        name=section.read("name", grammar.name) or name,
        image=image,
        command=command,
        env=env,
        inputs=tuple(placed.item for placed in inputs),
        outputs=tuple(placed.item for placed in outputs),
        requests=_requests(section),
        models=_models(section, version),
        services=_services(section, version),
        unsupported=_unsupported(inputs, outputs),
        origin=section.origin(),
    )
    return Draft(operator, section, inputs, outputs)


def _unsupported(inputs: tuple[ports.PlacedInput, ...], outputs: tuple[ports.PlacedOutput, ...]) -> tuple[str, ...]:
    both = [("input", p.item, p.section) for p in inputs] + [("output", p.item, p.section) for p in outputs]
    return tuple(
        f"{what} {quoted(section.raw('name') or section.raw('from'))} of type {item.data_type.kind} is passed in "
        "shared memory by the Clara Pipeline Driver, which this host does not have"
        for what, item, section in both
        if item.data_type is not None and ports.in_memory(item.data_type)
    )


def _models(section: Section, version: Version | None) -> tuple[str, ...]:
    if section.has("models") and (version is None or version < _MODELS_FROM):
        section.warn("models", f"models of {section.label} need api-version 0.6.0 or later; they are used all the same")
    names: dict[str, None] = {}
    for item in section.sections("models", f"a model of {section.label}"):
        item.check_keys(("name",))
        item.require("name", "write the name of its folder in the model repository")
        name = item.read("name", grammar.model_name)
        if name is not None and name in names:
            item.warn("name", f"model {quoted(name)} is listed twice")
        names |= {name: None} if name is not None else {}
    return tuple(names)


def _requests(section: Section) -> Resources:
    requests = section.section("requests", f"requests of {section.label}")
    if requests is None:
        return Resources()
    requests.check_keys(_REQUEST_KEYS)
    cores = requests.read("cpu", grammar.whole_number)
    megabytes = requests.read("memory", grammar.whole_number)
    return Resources(
        cpu_millicores=None if cores is None else cores * MILLICORES_PER_CORE,
        memory_bytes=None if megabytes is None else megabytes * MB,
        gpu_count=requests.read("gpu", grammar.whole_number),
    )


# ---------------------------------------------------------------- containers


def _container(section: Section, keys: tuple[str, ...]) -> tuple[str, tuple[str, ...], Env]:
    """Read image, command and environment of an operator or a service."""
    section.require("container", "write container: with image: and tag: below it")
    container = section.section("container", f"the container of {section.label}")
    own = _variables(section)
    if container is None:
        return "", (), tuple(own.items())
    container.check_keys(keys)
    if container.has("variables"):
        container.warn("variables", f"variables of {section.label} stand inside container; they are used all the same")
    arguments = (container.value(node, "command", grammar.argument) for node in container.items("command"))
    command = tuple(argument for argument in arguments if argument is not None)
    return _image(container), command, tuple((_variables(container) | own).items())


def _image(container: Section) -> str:
    """Return the full reference: the tag is `latest` where neither tag nor digest is given."""
    container.require("image", "write the image's name, such as nvcr.io/nvidia/tensorrtserver")
    image = container.read("image", grammar.image)
    tag = container.read("tag", grammar.tag)
    if image is None:
        return ""
    if image.digest and tag:
        container.error("tag", f"{container.label} has an image with a digest and a tag", "keep one of the two")
    if image.tag and tag and image.tag != tag:
        message = f"{container.label} has two tags: {quoted(image.tag)} in image and {quoted(tag)} in tag"
        container.error("tag", message, "keep one of the two")
    tag = image.tag or tag or (None if image.digest else "latest")
    return image.repository + (f":{tag}" if tag else "") + (f"@{image.digest}" if image.digest else "")


def _variables(section: Section) -> dict[str, str]:
    variables = section.section("variables", f"variables of {section.label}")
    if variables is None:
        return {}
    read: dict[str, str] = {}
    for key, node in variables.fields.entries:
        name = variables.value(key, "a name", grammar.variable_name)
        value = variables.value(node, quoted(key.value), partial(grammar.variable_value, key.value))
        if name is not None and value is not None:
            read[name] = value
    return read


# ---------------------------------------------------------------- services


def _services(section: Section, version: Version | None) -> tuple[Service, ...]:
    if section.has("services") and version is not None and version >= _SERVICES_FADED:
        section.warn("services", f"services of {section.label} are deprecated since api-version 0.7; use models")
    found: dict[str, Service] = {}
    for item in section.sections("services", f"a service of {section.label}"):
        service = _service(item)
        if service.name.lower() in found:
            item.error("name", f"{section.label} has two services called {quoted(service.name)}", "rename one of them")
        found[service.name.lower()] = service
    return tuple(found.values())


def _service(section: Section) -> Service:
    section.check_keys(_SERVICE_KEYS)
    section.require("name", "write name: and a name for the service")
    image, command, env = _container(section, (*_CONTAINER_KEYS, "hostVolumePath"))
    container = section.section("container", section.label) if section.has("container") else None
    connections = section.section("connections", f"connections of {section.label}")
    if connections:
        connections.check_keys(_CONNECTION_KEYS)
    return Service(
        name=section.read("name", grammar.name) or section.raw("name"),
        image=image,
        command=command,
        env=env,
        requests=_requests(section),
        http=_http(connections) if connections else (),
        volumes=_volumes(connections) if connections else (),
        host_volume_path=container.read("hostVolumePath", grammar.folder) if container else None,
    )


def _http(connections: Section) -> tuple[HttpConnection, ...]:
    found = []
    for item in connections.sections("http", f"an http connection among {connections.label}"):
        item.check_keys(("name", "port"))
        item.require("name", "write the name of the variable that tells the operator host and port")
        name = item.read("name", grammar.connection_name) or item.raw("name")
        found.append(HttpConnection(name, item.read("port", grammar.port)))
    return tuple(found)


def _volumes(connections: Section) -> tuple[VolumeConnection, ...]:
    found = []
    for key in ("file", "volume"):  # two words for one thing: the manual says file, real definitions volume
        for item in connections.sections(key, f"a {key} connection among {connections.label}"):
            item.check_keys(("name", "path"))
            item.require("name", "write a name for the volume")
            item.require("path", "write the folder inside the container")
            name = item.read("name", grammar.name) or item.raw("name")
            found.append(VolumeConnection(name, item.read("path", grammar.folder) or ""))
    return tuple(found)
