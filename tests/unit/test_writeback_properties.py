"""Random documents in random styles: after a write-back only the values meant are others, byte for byte."""

from __future__ import annotations

import json
import re

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cpost.definition.marks import source_of
from cpost.definition.quantities import parse_compose_cpus, parse_compose_memory
from cpost.definition.sites import QUANTITIES, find_sites
from cpost.definition.writeback import Advised, write_back
from cpost.errors import DefinitionError
from cpost.model import Advice, Fate, Recommendation, Resources

_MAY_CHANGE = re.compile(r"cpu|mem|requests|limits|resources|[{}\[\]\"]")
_LEFT_FOR = "does not allow", "it is extended by"
_COMMENTS = st.sampled_from(["", "  # note: odd & *text", " #"])
_TAGS = {"str": re.compile(".*"), "int": re.compile("[0-9]+"), "float": re.compile("[0-9]+[.][0-9]+")}
_QUOTES = st.sampled_from(["{}", '"{}"', "'{}'"])


class _Loader(yaml.SafeLoader):
    """Every scalar as it is written, so that 010 and "010" are the same text."""


_Loader.yaml_implicit_resolvers = {
    key: [each for each in found if each[0] == "tag:yaml.org,2002:merge"]
    for key, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", yaml.SafeLoader.construct_scalar)


@st.composite
def _amounts(draw, names):
    """A mapping of some of these keys to amounts, in flow or block style; or nothing."""
    chosen = draw(st.lists(st.sampled_from(names), unique=True, max_size=2))
    return {name: draw(st.sampled_from(values)) for name, values in chosen}


_CPU, _MEMORY = ("cpu", ("1", "250m", "2")), ("memory", ("1Gi", "100M", "1073741824"))
_CPUS, _SIZE = ("cpus", ("0.5", "2")), ("memory", ("512M", "2g", "536870912"))
_SHORT = {"mem_limit": "512m", "cpus": "1.5", "memswap_limit": "1g", "pids_limit": "9"}


@st.composite
def _kubernetes_container(draw, name):
    resources = draw(
        st.one_of(
            st.none(),
            st.fixed_dictionaries(
                {}, optional={"limits": _amounts((_CPU, _MEMORY)), "requests": _amounts((_CPU, _MEMORY))}
            ),
        )
    )
    container = {"name": name, "image": "img:1", "args": ["a", "b: c"], "env": [{"name": "X", "value": "y # z"}]}
    if resources is not None:
        container["resources"] = resources
    return dict(draw(st.permutations(list(container.items()))))


@st.composite
def _compose_service(draw, others):
    """One that may extend another, in one of the two forms, in both, or in neither."""
    service = {"image": "img:1", "command": ["sh", "-c", "true"], "environment": {"A": "1"}}
    forms = draw(st.sampled_from([(), ("deploy",), ("short",), ("deploy", "short")]))
    if "deploy" in forms:
        blocks = draw(st.lists(st.sampled_from(["limits", "reservations"]), unique=True, min_size=1))
        resources = {block: draw(_amounts((_CPUS, _SIZE))) for block in blocks}
        service["deploy"] = {"resources": resources, "mode": "global"}
    if "short" in forms:
        keys = draw(st.lists(st.sampled_from([*_SHORT]), unique=True, min_size=1))
        service |= {key: _SHORT[key] for key in keys}
    if others and draw(st.booleans()):
        service["extends"] = draw(st.sampled_from(others))
    return dict(draw(st.permutations(list(service.items()))))


@st.composite
def _compose_services(draw, count):
    services = {}
    for i in range(count):
        services[f"s{i}"] = draw(_compose_service([*services]))
    return dict(draw(st.permutations(list(services.items()))))


@st.composite
def _clara_operator(draw, name):
    operator = {"name": name, "container": {"image": "img", "tag": "1"}, "input": [{"path": "/in"}]}
    requests = draw(st.one_of(st.none(), _amounts((("cpu", ("1", "2")), ("memory", ("512", "1024")), ("gpu", ("1",))))))
    return operator if requests is None else operator | {"requests": requests}


@st.composite
def documents(draw):
    count = draw(st.integers(1, 3))
    kind = draw(st.sampled_from(["Kubernetes", "Compose", "Clara"]))
    if kind == "Compose":
        return {"services": draw(_compose_services(count)), "volumes": {}}
    if kind == "Clara":
        return {"api-version": "0.4.0", "operators": [draw(_clara_operator(f"s{i}")) for i in range(count)]}
    pod = {"containers": [draw(_kubernetes_container(f"s{i}")) for i in range(count)], "restartPolicy": "Never"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": pod}


class _Writer:
    """Writes a document, choosing a style anew for each node."""

    def __init__(self, draw) -> None:
        self.draw = draw
        self.step = draw(st.integers(1, 4))
        self.offset = draw(st.sampled_from([0, self.step]))
        self.lines: list[str] = []

    def scalar(self, text: str, *, flow: bool = False) -> str:
        if any(char in text for char in " #:,"):
            return json.dumps(text)
        tags = [tag for tag, allowed in _TAGS.items() if allowed.fullmatch(text)]
        tag = f"!!{self.draw(st.sampled_from(tags))} " if self.draw(st.integers(0, 4)) == 0 else ""
        return tag + self.draw(_QUOTES).format(text)

    def flow(self, node) -> str:
        if isinstance(node, dict):
            return "{" + ", ".join(f"{key}: {self.flow(value)}" for key, value in node.items()) + "}"
        if isinstance(node, list):
            return "[ " + ",".join(map(self.flow, node)) + " ]"
        return self.scalar(node, flow=True)

    def value(self, node, column: int, prefix: str) -> None:
        """Write a value behind `prefix`, which stands at some column left of `column`."""
        flow = self.draw(st.integers(0, 4)) == 0
        if isinstance(node, str) or flow or not node:
            bare = node == {} and self.draw(st.booleans())
            text = "" if bare else f" {self.flow(node)}"
            self.lines.append(f"{prefix}{text}{self.draw(_COMMENTS)}")
        elif prefix.endswith("-"):
            self.block(node, len(prefix) + 1, prefix + " ")
        else:
            self.lines.append(prefix + self.draw(_COMMENTS))
            if self.draw(st.booleans()):
                self.lines.append(self.draw(st.sampled_from(["", "# left: of all", " " * 20 + "# far: right"])))
            self.block(node, column + (self.offset if isinstance(node, list) else self.step), "")

    def block(self, node, column: int, first: str) -> None:
        pad = first or " " * column
        pairs = node.items() if isinstance(node, dict) else [(None, item) for item in node]
        for key, value in pairs:
            self.value(value, column, f"{pad}-" if key is None else f"{pad}{key}:")
            pad = " " * column


def _numbered(node):
    """The same with each number as JSON has numbers, not as a text."""
    if isinstance(node, dict):
        return {key: _numbered(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_numbered(item) for item in node]
    return json.loads(node) if re.fullmatch("[0-9]+([.][0-9]+)?", node) else node


@st.composite
def files(draw):
    document = draw(documents())
    if draw(st.integers(0, 2)) == 0:
        indent = draw(st.sampled_from([None, 2, 4, "\t"]))
        document = _numbered(document) if draw(st.booleans()) else document
        text = json.dumps(document, indent=indent, separators=draw(st.sampled_from([(",", ":"), (", ", ": ")])))
    else:
        writer = _Writer(draw)
        writer.block(document, 0, "")
        text = "\n".join(writer.lines)
    text += (
        draw(st.sampled_from(["", "\n", "\n\n# the end\n"])) if text[0] != "{" else draw(st.sampled_from(["", "\n"]))
    )
    text = text.replace("\n", draw(st.sampled_from(["\n", "\r\n"])))
    mark, encoding = draw(st.sampled_from([(b"", "utf-8"), (b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le")]))
    return mark + text.encode(encoding)


def _meaning(text: str) -> list:
    return list(yaml.load_all(text.replace("\t", " "), _Loader))


def _require_readable(old: str, new: str) -> None:
    """JSON is JSON again, and every value fits its tag."""
    if old.startswith("{"):
        json.loads(new)
    list(yaml.safe_load_all(new.replace("\t", " ")))


def _leaves(node, path=()):
    """All scalars; an empty mapping is as good as none."""
    if node in ({}, "", None):
        return {}
    if isinstance(node, dict):
        return {k: v for key, value in node.items() for k, v in _leaves(value, (*path, key)).items()}
    if isinstance(node, list):
        return {k: v for i, value in enumerate(node) for k, v in _leaves(value, (*path, i)).items()}
    return {path: node}


def _services(text: str) -> dict:
    """What applies to each service of a Compose file, with all that it extends."""
    services = (_meaning(text)[0] or {}).get("services", {})
    return {name: _extended(services, name) for name in services}


def _extended(services: dict, name: str) -> dict:
    own = services[name]
    return _joined(_extended(services, own["extends"]), own) if "extends" in own else own


def _joined(base: dict, own: dict) -> dict:
    blocks = {key for key in base.keys() & own.keys() if isinstance(base[key], dict) and isinstance(own[key], dict)}
    return base | own | {key: _joined(base[key], own[key]) for key in blocks}


_FORMS = (
    ("mem_limit", "limits", "memory", parse_compose_memory),
    ("cpus", "limits", "cpus", parse_compose_cpus),
    ("pids_limit", "limits", "pids", int),
    ("mem_reservation", "reservations", "memory", parse_compose_memory),
)


def _agrees(service: dict) -> bool:
    """Whether Compose takes it: a short key beside its block has to be there, too, and say the same."""
    resources = service.get("deploy", {}).get("resources") or {}
    return all(
        parse(service[short]) == parse((resources[block] or {}).get(key, "0"))
        for short, block, key, parse in _FORMS
        if short in service and block in resources
    )


def _amount(service: dict, short: str, block: str, key: str, parse) -> int | None:
    resources = service.get("deploy", {}).get("resources") or {}
    text = service.get(short, (resources.get(block) or {}).get(key))
    return None if text is None else parse(text)


def _swap(service: dict) -> int | None:
    limit, total = _amount(service, *_FORMS[0]), service.get("memswap_limit")
    return None if total is None or limit is None else parse_compose_memory(total) - limit


@settings(max_examples=150, deadline=None)
@given(
    files(), st.sampled_from([1000, 1500, 3000]), st.sampled_from([256 * 10**6, 3 * 10**9]), st.booleans(), st.data()
)
def test_what_applies_to_a_service_changes_only_as_meant(data, cpu, memory, limited, more):
    source = source_of(data, "f")
    requests = Resources(cpu, memory)
    advice = Recommendation("peak", Advice.OK, requests, requests if limited else Resources(memory_bytes=memory))
    names = more.draw(st.lists(st.sampled_from([site.name for site in find_sites(source)]), unique=True))
    written = write_back(source, [Advised((name,), advice) for name in names])
    before, after = _services(source.text), _services(written.text)
    changed = {amendment.name for amendment in written.amendments if amendment.changes}
    for name, service in after.items():
        if name not in changed:
            assert service == before[name]
            continue
        limit, request = _amount(service, *_FORMS[0]), _amount(service, *_FORMS[3])
        assert limit is None or request is None or request <= limit
        assert _agrees(service) or not _agrees(before[name])
        was, now = _swap(before[name]), _swap(service)
        assert was is None or now is None or 0 <= now - max(0, was) < 2**20 or before[name] == service


@settings(max_examples=80, deadline=None)
@given(files(), st.sampled_from([1000, 1500, 3000]), st.sampled_from([256 * 10**6, 3 * 10**9]), st.booleans())
def test_only_the_values_meant_change(data, cpu, memory, limited):
    source = source_of(data, "f")
    requests = Resources(cpu, memory)
    advice = Recommendation("peak", Advice.OK, requests, requests if limited else Resources(memory_bytes=memory))
    sites = find_sites(source)
    written = write_back(source, [Advised((site.name,), advice) for site in sites])
    before, after = _leaves(_meaning(source.text)), _leaves(_meaning(written.text))
    _require_readable(source.text, written.text)
    changes = {
        ((0, *site.path, *change.where.split(".")), change.new)
        for site in sites
        for amendment in written.amendments
        if amendment.name == site.name
        for change in amendment.changes
    }
    assert {(path, text) for path, text in after.items() if before.get(path) != text} == changes
    assert before.keys() <= after.keys()
    for amendment in written.amendments:
        known = "policy sets no limit", *_LEFT_FOR
        assert amendment.fate is not Fate.LEFT or any(reason in amendment.reason for reason in known)
    old_lines, new_lines = ([line.rstrip("\r") for line in text.split("\n")] for text in (source.text, written.text))
    rest = iter(new_lines)
    # Lines that hold no amount, and no bracket that one was put into, are all there, in their order.
    assert all(any(line == other for other in rest) for line in old_lines if not _MAY_CHANGE.search(line))
    assert ("\r\n" in written.text) == ("\r\n" in source.text) or "\n" not in source.text
    assert written.text.endswith("\n") == source.text.endswith("\n")
    assert source.bytes_of(source.text) == data


@settings(max_examples=30, deadline=None)
@given(files())
def test_a_second_time_changes_nothing(data):
    requests = Resources(2000, 10**9, None)
    advice = Recommendation("peak", Advice.OK, requests, requests)
    source = source_of(data, "f")
    advised = [Advised((site.name,), advice) for site in find_sites(source)]
    once = write_back(source, advised).text
    again = write_back(source_of(source.bytes_of(once), "f"), advised)
    assert again.text == once
    assert {amendment.fate for amendment in again.amendments} <= {Fate.UNCHANGED, Fate.LEFT}
    for amendment in again.amendments:
        assert not amendment.reason or any(reason in amendment.reason for reason in _LEFT_FOR)
    left = {amendment.name for amendment in again.amendments if amendment.fate is Fate.LEFT}
    for site in (each for each in find_sites(source_of(source.bytes_of(once), "f")) if each.name not in left):
        for quantity in QUANTITIES[site.format].values():
            stated = [quantity.parse(text) for path in quantity.requests if (text := site.container.text(*path))]
            assert all(each in range(1, 2 * 10**9) for each in stated)


_PARTS = st.sampled_from((
    "services", "deploy: ", "resources: ", "limits: ", "mem_limit: ", "cpus: ", "a", "1g", "~", "!!str ", "---\n", "? ",
    ":", ": ", "\n", "\n  ", "\n    ", "- ", "{", "}", "[", "]", ", ", "&x ", "*x", "<<: *x", "|", ">-", "#", " # ",
    "'", '"', "\t",
))  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(_PARTS, max_size=25).map("".join), st.sampled_from(["", "services:\n  a:\n    ", "services: {a: {"]))
def test_any_text_is_taken_or_refused(text, before):
    advice = Recommendation("peak", Advice.OK, Resources(1000, 10**9), Resources(1000, 10**9))
    try:
        source = source_of((before + text).encode(), "f")
        sites = find_sites(source)
    except DefinitionError:
        return
    written = write_back(source, [Advised((site.name,), advice) for site in sites])
    again = find_sites(source_of(written.text.encode(), "f"))
    assert [site.name for site in again] == [site.name for site in sites]
    if all(each.fate is Fate.LEFT for each in written.amendments):
        assert written.text == source.text
