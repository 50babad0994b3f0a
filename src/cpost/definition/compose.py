"""A Docker Compose file -> operators: each service is one, or runs beside those that depend on it."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from cpost.definition import grammar, naming
from cpost.definition.compose_files import Home, OtherFiles, warn_of_override
from cpost.definition.compose_mounts import MountReader, Surroundings
from cpost.definition.files import Files, why_unreadable
from cpost.definition.findings import Findings, choice, quoted
from cpost.definition.flow import Parsed, companions, refuse_circle, with_payload
from cpost.definition.grammar import GrammarError
from cpost.definition.quantities import parse_compose_cpus, parse_compose_memory
from cpost.definition.section import Section
from cpost.definition.tree import Entry, Fields, Items, Text, joined
from cpost.definition.variables import Variables, filled, read_lines
from cpost.model import ALL_GPUS, Operator, Resources

_KEYS = (
    "annotations", "attach", "build", "cap_add", "cap_drop", "cgroup", "cgroup_parent", "command", "configs",
    "container_name", "cpu_count", "cpu_percent", "cpu_period", "cpu_quota", "cpu_shares", "cpus", "cpuset",
    "depends_on", "deploy", "develop", "devices", "dns", "dns_opt", "dns_search", "domainname", "entrypoint",
    "env_file", "environment", "expose", "extends", "external_links", "extra_hosts", "gpus", "group_add",
    "healthcheck", "hostname", "image", "init", "ipc", "isolation", "labels", "links", "logging", "mac_address",
    "mem_limit", "mem_reservation", "mem_swappiness", "memswap_limit", "models", "network_mode", "networks",
    "oom_kill_disable", "oom_score_adj", "pid", "pids_limit", "platform", "ports", "post_start", "pre_stop",
    "privileged", "profiles", "provider", "pull_policy", "read_only", "restart", "runtime", "scale", "secrets",
    "security_opt", "shm_size", "stdin_open", "stop_grace_period", "stop_signal", "storage_opt", "sysctls", "tmpfs",
    "tty", "ulimits", "use_api_socket", "user", "userns_mode", "volumes", "volumes_from", "working_dir", "name",
)  # fmt: skip
# What changes how a container runs and is not done here.
_NOT_GIVEN = (
    "cap_add", "devices", "extra_hosts", "group_add", "ipc", "pid", "runtime", "sysctls", "ulimits", "userns_mode",
    "post_start", "pre_stop", "cpuset",
)  # fmt: skip
_CONDITIONS = ("service_started", "service_healthy", "service_completed_successfully")
_STAYS = ("always", "unless-stopped")
_UNFIT_FOR_A_PROJECT = re.compile(r"[^a-z0-9_-]")
_LISTS_REPLACED = ("command", "entrypoint")
_MAX_CHAIN = 20


def read(root: Fields, path: str, files: Files, findings: Findings) -> Parsed:
    """Read all services.

    Args:
        path: the file's; other paths in it start at its folder.
        files: reads what the file names, for the digest over all of it.
    """
    folder = os.path.dirname(os.path.abspath(path))  # noqa: PTH100, PTH120
    variables = Variables(_dotenv(folder, files), os.environ)
    others = OtherFiles(files, folder, variables, findings)
    warn_of_override(path, root, findings)
    whole = others.with_included(root)
    resolved = filled(whole.without(("services",)), variables, findings)
    assert isinstance(resolved, Fields)
    around = Surroundings(Section(resolved, "the file", findings), folder, variables, findings)
    reader = _Reader(Section(whole, "the file", findings), around, files, others)
    operators = reader.operators()
    return Parsed(reader.project, around.top.raw("version"), operators)


def _dotenv(folder: str, files: Files) -> dict[str, str]:
    try:
        return read_lines(files.other(os.path.join(folder, ".env")), os.environ)  # noqa: PTH118
    except (OSError, ValueError):
        return {}


class _Reader:
    """Reads the services of one file."""

    def __init__(self, top: Section, around: Surroundings, files: Files, others: OtherFiles) -> None:
        self._around = around
        self._files = files
        self._others = others
        folder = os.path.basename(around.folder)  # noqa: PTH119
        self.project = around.variables.get("COMPOSE_PROJECT_NAME") or around.top.raw("name") or folder
        services = top.section("services", "services")
        self._services = services or Section(Fields((), top.origin()), "services", around.findings)
        self._serving: dict[str, None] = {}
        self._awaited: dict[str, None] = {}

    def operators(self) -> tuple[Operator, ...]:
        """All services that are not for a profile, in the order written, those that serve others beside them."""
        sections = {key.value: self._section(key) for key, _ in self._services.fields.entries}
        used = {name: each for name, each in sections.items() if each is not None and not self._left_out(each)}
        found = []
        for name, section in used.items():
            operator = self._operator(name, section)
            found.append(replace(operator, after=tuple(self._after(section, used, sections))))
        if refuse_circle(found, self._services):
            return ()
        found = [replace(each, long_running=False) if each.name in self._awaited else each for each in found]
        serving = [name for name in self._serving if name not in self._awaited]
        return tuple(with_payload(each) for each in companions(found, serving))

    def _section(self, key: Text) -> Section | None:
        own = self._services.section(key.value, f"service {quoted(key.value)}")
        if own is None or self._services.value(key, "a name", naming.usable) is None:
            return None
        extended = self._extended(own, Home(self._around.folder, self._services), (("", key.value),))
        if extended is None:
            return None
        node = filled(extended, self._around.variables, self._around.findings)
        assert isinstance(node, Fields)
        return Section(_named(node, key), f"service {quoted(key.value)}", self._around.findings)

    def _extended(self, section: Section, home: Home, trail: tuple[tuple[str, str], ...]) -> Fields | None:
        """A service's own keys over those of the one that it extends.

        Args:
            home: where the service is written.
            trail: services that lead here, by their files and names.
        """
        own = self._others.moved(section.fields, home.folder)
        node = section.fields.get("extends")
        if node is None:
            return own
        below = section.section("extends", "extends") if isinstance(node, Fields) else None
        name = below.raw("service") if below else section.raw("extends")
        file = below.fields.get("file") if below else None
        there = self._others.home(file, home.folder) if isinstance(file, Text) else home
        if there is None:
            return None
        base = there.services.section(name, f"service {quoted(name)}")
        step = (there.identity, name)
        if base is None or step in trail or len(trail) > _MAX_CHAIN:
            named = [each.value for each, _ in there.services.fields.entries]
            names = [each for each in named if (there.identity, each) not in trail]
            section.error(
                "extends", f"{section.label} cannot extend {quoted(name)}", choice(name, names, "services are")
            )
            return None
        inner = self._extended(base, there, (*trail, step))
        return _merged(inner, own.without(("extends",))) if inner is not None else None

    def _left_out(self, section: Section) -> bool:
        profiles = [each.value for each in section.items("profiles") if isinstance(each, Text) and each.value]
        if profiles:
            section.warn("profiles", f"{section.label} is left out: it is for profile {quoted(profiles[0])}")
        return bool(profiles)

    # ------------------------------------------------------------ order

    def _after(self, section: Section, used: dict[str, Section], sections: dict[str, Section | None]) -> Iterator[str]:
        for name, condition, required, place in self._dependencies(section):
            if name not in used:
                if name in sections and required:
                    section.error(
                        place, f"{section.label} depends on {quoted(name)}, which is left out", "see profiles"
                    )
                elif required:
                    names = [key.value for key, _ in self._services.fields.entries]
                    message = f"{section.label} depends on {quoted(name)}, which is no service"
                    section.error(place, message, choice(name, names, "services are"))
                continue
            if condition == "service_completed_successfully":
                self._awaited[naming.safe(name)] = None
            else:
                self._serving[naming.safe(name)] = None
            if condition == "service_healthy":
                instead = "its ports are awaited instead" if any(_ports(used[name])) else "it names no ports to await"
                section.warn(place, f"the healthcheck of {quoted(name)} is not run: {instead}")
            yield naming.safe(name)

    def _dependencies(self, section: Section) -> Iterator[tuple[str, str, bool, str]]:
        node = section.fields.get("depends_on")
        if isinstance(node, Fields):
            below = section.section("depends_on", f"depends_on of {section.label}")
            for key, _ in node.entries:
                one = below.section(key.value, key.value) if below else None
                condition = (one.raw("condition") if one else "") or "service_started"
                if condition not in _CONDITIONS and one is not None:
                    hint = choice(condition, _CONDITIONS, "conditions are")
                    one.error("condition", f"unknown condition {quoted(condition)}", hint)
                yield key.value, condition, not one or one.raw("required") != "false", "depends_on"
        else:
            for item in section.items("depends_on"):
                name = section.value(item, "depends_on", grammar.any_text)
                if name is not None:
                    yield name, "service_started", True, "depends_on"
        for item in section.items("links"):
            name = section.value(item, "links", grammar.any_text)
            if name is not None:
                yield name.split(":")[0], "service_started", True, "links"

    # ------------------------------------------------------------ one service

    def _operator(self, name: str, section: Section) -> Operator:
        section.check_keys((*_KEYS, *(key.value for key, _ in section.fields.entries if key.value.startswith("x-"))))
        reasons: list[str] = []

        def refuse(where: Section, key: str, reason: str) -> None:
            place = where.origin(key)
            reasons.append(f"{reason} ({place.file}:{place.line})")

        _warn_of_what_is_not_given(section)
        mode = section.raw("network_mode")
        if mode.startswith(("service:", "container:")):
            refuse(section, "network_mode", "it shares the network of another container")
        if section.has("volumes_from"):
            refuse(section, "volumes_from", "it has the volumes of another container")
        ports = tuple(dict.fromkeys(_ports(section)))
        requests, limits = _resources(section)
        return Operator(
            name=naming.safe(name),
            image=_image(section, self._built(name), refuse),
            entrypoint=_words(section, "entrypoint", cleared=("",)),
            command=_words(section, "command", cleared=()),
            env=tuple(self._environment(section).items()),
            requests=requests,
            limits=limits,
            workdir=section.read("working_dir", grammar.absolute) or "",
            user=section.read("user", grammar.user) or "" if section.raw("user") else "",
            volumes=MountReader(section, self._around, refuse).read(),
            ports=ports,
            aliases=tuple(dict.fromkeys(filter(None, (name, section.raw("container_name"), section.raw("hostname"))))),
            shm_bytes=section.read("shm_size", _size) or None,
            long_running=_stays(section),
            site=naming.safe(name),
            origin=section.origin(),
            unsupported=tuple(reasons),
        )

    def _built(self, name: str) -> str:
        """What Docker Compose calls the image that it builds for a service."""
        return f"{_UNFIT_FOR_A_PROJECT.sub('', self.project.lower()).lstrip('_-')}-{name}"

    def _environment(self, section: Section) -> dict[str, str]:
        env: dict[str, str] = {}
        for item in self._env_files(section):
            env |= item
        given = section.fields.get("environment")
        entries = given.entries if isinstance(given, Fields) else ()
        for key, node in entries:
            if node.is_null:
                env |= self._own(key.value)
            elif (value := section.value(node, quoted(key.value), grammar.any_text)) is not None:
                env[key.value] = value
        for node in section.items("environment") if not isinstance(given, Fields) else ():
            text = section.value(node, "environment", grammar.any_text) or ""
            name, equals, value = text.partition("=")
            env |= {name: value} if equals else self._own(name)
        env.pop("", None)
        return env

    def _own(self, name: str) -> dict[str, str]:
        """A variable without a value is handed on, where there is one."""
        return {name: self._around.variables[name]} if name in self._around.variables else {}

    def _env_files(self, section: Section) -> Iterator[dict[str, str]]:
        node = section.fields.get("env_file")
        for item in [node] if isinstance(node, Text) else section.items("env_file"):
            below = Section(item, "env_file", self._around.findings) if isinstance(item, Fields) else None
            path = below.raw("path") if below else section.value(item, "env_file", grammar.any_text) or ""
            try:
                full = os.path.join(self._around.folder, path)  # noqa: PTH118
                yield read_lines(self._files.other(full), self._around.variables)
            except (OSError, ValueError) as error:
                if below is None or below.raw("required") != "false":
                    what = f"env_file {quoted(path)} {why_unreadable(error)}"
                    section.error("env_file", what, "write it, or say required: false")


def _named(fields: Fields, key: Text) -> Fields:
    """The service's fields with its name among them, for those who read only them."""
    return Fields((*fields.without(("name",)).entries, (Text("name", key.origin), key)), fields.origin)


def _merged(base: Fields, own: Fields) -> Fields:
    """Mappings are joined and lists appended, but for programs; everything else is replaced."""
    entries: list[Entry] = []
    for key, value in own.entries:
        before = base.get(key.value)
        if isinstance(before, Items) and isinstance(value, Fields):
            before = _pairs(before)
        if isinstance(before, Fields) and isinstance(value, Items):
            value = _pairs(value)
        if isinstance(before, Fields) and isinstance(value, Fields):
            entries.append((key, _merged(before, value)))
        elif isinstance(before, Items) and isinstance(value, Items) and key.value not in _LISTS_REPLACED:
            entries.append((key, Items((*before.items, *value.items), value.origin)))
        else:
            entries.append((key, value))
    return Fields(joined((*entries, *base.entries)), own.origin)


def _pairs(items: Items) -> Fields:
    """A list of NAME=value, or of names, as a mapping."""
    found = []
    for item in items.items:
        if isinstance(item, Text):
            name, equals, value = item.value.partition("=")
            found.append((Text(name, item.origin), Text(value, item.origin, plain=not equals)))
    return Fields(joined(reversed(found)), items.origin)


def _warn_of_what_is_not_given(section: Section) -> None:
    for key in _NOT_GIVEN:
        if section.has(key):
            section.warn(key, f"{key} of {section.label} is not given to it here")
    if section.raw("privileged") == "true":
        section.warn("privileged", f"{section.label} is not run privileged here")
    if section.raw("network_mode") in ("host", "none"):
        section.warn("network_mode", f"{section.label} is on the run's own network here")


def _stays(section: Section) -> bool:
    """Whether a service is meant to stay: it answers others, is looked after, or started again when it ends well."""
    check, deploy = section.section("healthcheck", "healthcheck"), section.section("deploy", "deploy")
    policy = deploy.section("restart_policy", "restart_policy") if deploy else None
    return (
        section.raw("restart") in _STAYS
        or any(section.has(key) for key in ("ports", "expose"))
        or (check is not None and check.has("test"))
        or (policy is not None and policy.raw("condition") == "any")
    )


def _image(section: Section, built: str, refuse: Callable[[Section, str, str], None]) -> str:
    if section.has("image"):
        if section.has("build"):
            section.warn("build", f"the image of {section.label} is not built here: it has to be there")
        return section.read("image", grammar.reference) or ""
    if section.has("build"):
        try:
            image = grammar.reference(built)
        except GrammarError:
            refuse(section, "build", "it has build and no image: build it, and name the image")
        else:
            section.warn("build", f"the image of {section.label} is not built here: docker compose build makes {built}")
            return image
    elif section.has("provider"):
        refuse(section, "provider", "it is no container")
    else:
        section.require("image", "write the image that it runs")
    return ""


def _words(section: Section, key: str, *, cleared: tuple[str, ...]) -> tuple[str, ...]:
    """A program with arguments: a list, or a text that is split as a shell would, without one."""
    node = section.fields.get(key)
    if isinstance(node, Text):
        words = section.value(node, key, _split) or ()
        return words or cleared
    if node is None:
        return ()
    read = (section.value(item, key, grammar.argument) for item in section.items(key))
    return tuple(word for word in read if word is not None) or cleared


def _split(text: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise GrammarError(f"{quoted(text)} cannot be split: {error}", "write it as a list") from error


def _ports(section: Section) -> Iterator[int]:
    """The TCP ports inside the container that others are told of."""
    for key in ("expose", "ports"):
        for node in section.items(key):
            text = node.value if isinstance(node, Text) else ""
            if isinstance(node, Fields):
                target, protocol = node.get("target"), node.get("protocol")
                kind = protocol.value if isinstance(protocol, Text) else "tcp"
                text = f"{target.value}/{kind}" if isinstance(target, Text) else ""
            number, _, kind = text.rpartition(":")[2].partition("/")
            if number.isdecimal() and kind in ("", "tcp") and 0 < int(number) < 65536:
                yield int(number)


# ---------------------------------------------------------------- amounts


def _resources(section: Section) -> tuple[Resources, Resources]:
    deploy = section.section("deploy", f"deploy of {section.label}")
    both = deploy.section("resources", f"resources of {section.label}") if deploy else None
    limits = both.section("limits", f"limits of {section.label}") if both else None
    reserved = both.section("reservations", f"reservations of {section.label}") if both else None
    gpus = _gpus(reserved.sections("devices", "a device")) if reserved else None
    gpus = _all_or_listed(section) if section.has("gpus") else gpus
    requests = Resources(
        _agreed(section, "", reserved, "cpus", _cpus),
        _agreed(section, "mem_reservation", reserved, "memory", _size),
        gpus,
    )
    return requests, Resources(
        _agreed(section, "cpus", limits, "cpus", _cpus), _agreed(section, "mem_limit", limits, "memory", _size), gpus
    )


def _agreed(section: Section, old: str, block: Section | None, key: str, rule: Callable[[str], int]) -> int | None:
    """An amount from one of its two places; 0 stands for none."""
    first = section.read(old, rule) if old else None
    second = block.read(key, rule) if block else None
    if first and second and first != second:
        section.error(old, f"{old} and deploy.resources of {section.label} differ", "keep one of the two")
    return second or first or None


def _gpus(devices: Sequence[Section]) -> int | None:
    counts = []
    for device in devices:
        words = [item.value for item in device.items("capabilities") if isinstance(item, Text)]
        if "gpu" in words or "nvidia" in words:
            counts.append(_count(device))
    if ALL_GPUS in counts:
        return ALL_GPUS
    return sum(counts) if counts else None


def _count(device: Section) -> int:
    if device.has("device_ids"):
        return len(device.items("device_ids"))
    if device.raw("count") in ("", "all"):
        return ALL_GPUS
    return device.read("count", grammar.whole_number) or 0


def _all_or_listed(section: Section) -> int:
    return ALL_GPUS if section.raw("gpus") else sum(_count(each) for each in section.sections("gpus", "a GPU"))


def _size(text: str) -> int:
    try:
        return parse_compose_memory(text)
    except ValueError as error:
        raise GrammarError(f"{quoted(text)} is not a size", "write 512M or 1.5gb") from error


def _cpus(text: str) -> int:
    try:
        return parse_compose_cpus(text)
    except ValueError as error:
        raise GrammarError(f"{quoted(text)} is not a number of cores", "write '0.50'") from error
