"""Other Compose files that one draws on: those that it includes, and those whose services its own ones extend.

What comes from a file in another folder keeps meaning that folder: its relative paths are made absolute.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace

from cpost.definition.files import Document, Files
from cpost.definition.findings import Findings, quoted
from cpost.definition.section import Section
from cpost.definition.tree import Entry, Fields, Items, Node, Text
from cpost.definition.variables import Variables, filled, read_lines

_JOINED = ("services", "volumes", "networks", "configs", "secrets", "models")
_MAX_DEPTH = 10
_USUAL = ("compose", "docker-compose")
_ENDINGS = (".yaml", ".yml")


@dataclass(frozen=True, slots=True)
class Home:
    """Where services are written: the file's folder and its services."""

    folder: str
    services: Section
    identity: str = ""


class OtherFiles:
    """Reads them for one file.

    Args:
        folder: the file's.
        variables: its own, which are put over those of files that are included.
    """

    def __init__(self, files: Files, folder: str, variables: Variables, findings: Findings) -> None:
        self._files = files
        self._folder = folder
        self._variables = variables
        self._findings = findings

    def home(self, path: Text, folder: str) -> Home | None:
        """The services of the file that `path` names from `folder`; None, with a fault, where there are none."""
        document, where = self._document(path, folder)
        if document is None:
            return None
        services = Section(document.root, quoted(document.shown), self._findings).section("services", "services")
        if services is None:
            self._findings.error(path.origin, f"{quoted(document.shown)} has no services", "name a Compose file")
            return None
        return Home(where, services, document.identity)

    def _document(self, path: Text, folder: str) -> tuple[Document | None, str]:
        """A file and the folder in which it is, as written."""
        text = filled(path, self._variables, self._findings, below="file")
        if not isinstance(text, Text) or text.broken:
            return None, folder
        full = os.path.abspath(os.path.join(folder, text.value))  # noqa: PTH100, PTH118
        return self._files.read(full, path.origin), os.path.dirname(full)  # noqa: PTH120

    def moved(self, service: Fields, folder: str) -> Fields:
        """A service of another folder, with its relative paths made absolute."""
        return service if folder == self._folder else _moved(service, folder)

    def with_included(self, root: Fields, folder: str = "", depth: int = 0) -> Fields:
        """A file's content with that of the files it includes behind its own; what both have is a fault."""
        top = Section(root, "the file", self._findings)
        whole = root.without(("include",))
        if depth > _MAX_DEPTH:
            top.error("include", "files include one another", "take one of these lines out")
            return whole
        for node in top.items("include"):
            more = self._included(node, folder or self._folder, depth)
            if more is not None:
                whole = self._joined(whole, more, node)
        return whole

    def _included(self, node: Node, folder: str, depth: int) -> Fields | None:
        item = Section(node, "an include", self._findings) if isinstance(node, Fields) else None
        path = item.fields.get("path") if item else node
        if not isinstance(path, Text):
            hint = "docker compose config > all.yaml makes one of them"
            self._findings.error(node.origin, "several files for one include are not followed", hint)
            return None
        document, where = self._document(path, folder)
        if document is None:
            return None
        base = item.raw("project_directory") if item else ""
        below = os.path.abspath(os.path.join(folder, base)) if base else where  # noqa: PTH100, PTH118
        whole = self.with_included(document.root, below, depth + 1)
        variables = Variables(self._own_variables(item, below, folder), self._variables)
        meant = filled(whole, variables, self._findings)
        assert isinstance(meant, Fields)
        return _literal(_moved_file(meant, below))

    def _own_variables(self, item: Section | None, below: str, folder: str) -> dict[str, str]:
        node = item.fields.get("env_file") if item else None
        paths = [node] if isinstance(node, Text) else item.items("env_file") if item and node else []
        names = [os.path.join(folder, each.value) for each in paths if isinstance(each, Text)]  # noqa: PTH118
        found: dict[str, str] = {}
        for name in names or [os.path.join(below, ".env")]:  # noqa: PTH118
            try:
                found |= read_lines(self._files.other(name), self._variables)
            except (OSError, ValueError):
                if names and item is not None:
                    item.error("env_file", f"{quoted(name)} cannot be read", "write it, or take it out")
        return found

    def _joined(self, whole: Fields, more: Fields, node: Node) -> Fields:
        entries = {key.value: (key, value) for key, value in whole.entries}
        for name in _JOINED:
            mine, theirs = whole.get(name), more.get(name)
            if isinstance(mine, Fields) and isinstance(theirs, Fields):
                both = {key.value for key, _ in mine.entries} & {key.value for key, _ in theirs.entries}
                if name == "services" and both:
                    message = f"service {quoted(min(both))} is in the included file, too"
                    self._findings.error(node.origin, message, "rename one of the two, or extend it")
                kept = tuple(entry for entry in theirs.entries if entry[0].value not in both)
                entries[name] = (entries[name][0], Fields((*mine.entries, *kept), mine.origin))
            elif isinstance(theirs, Fields):
                entries[name] = (Text(name, theirs.origin), theirs)
        return Fields(tuple(entries.values()), whole.origin)


def warn_of_override(path: str, root: Fields, findings: Findings) -> None:
    """Docker Compose lays a file of a certain name over one of the usual names by itself; here it is not read."""
    folder, name = os.path.split(path)
    stem, ending = os.path.splitext(name)  # noqa: PTH122
    for other in (f"{stem}.override{each}" for each in _ENDINGS):
        if stem in _USUAL and ending in _ENDINGS and os.path.isfile(os.path.join(folder, other)):  # noqa: PTH113, PTH118
            findings.warn(
                root.origin, f"{quoted(other)} beside it is not read: docker compose config makes one of both"
            )


# ---------------------------------------------------------------- paths


def _moved_file(root: Fields, folder: str) -> Fields:
    """A whole file's content with relative paths made absolute."""
    entries: list[Entry] = []
    for key, value in root.entries:
        if key.value == "services":
            value = _each(value, lambda service: _moved(service, folder))
        elif key.value in ("configs", "secrets"):
            value = _each(value, lambda described: _at_key(described, "file", folder))
        entries.append((key, value))
    return Fields(tuple(entries), root.origin)


def _moved(service: Fields, folder: str) -> Fields:
    entries: list[Entry] = []
    for key, value in service.entries:
        if key.value == "volumes" and isinstance(value, Items):
            value = Items(tuple(_volume(each, folder) for each in value.items), value.origin)
        elif key.value == "env_file":
            value = _env_files(value, folder)
        elif key.value == "extends" and isinstance(value, Fields):
            value = _at_key(value, "file", folder)
        entries.append((key, value))
    return Fields(tuple(entries), service.origin)


def _each(node: Node, change: Callable[[Fields], Node]) -> Node:
    if not isinstance(node, Fields):
        return node
    return Fields(tuple((key, change(v) if isinstance(v, Fields) else v) for key, v in node.entries), node.origin)


def _volume(node: Node, folder: str) -> Node:
    if isinstance(node, Text) and node.value.startswith(("./", "../", ".:")):
        source, colon, rest = node.value.partition(":")
        return replace(node, value=os.path.abspath(os.path.join(folder, source)) + colon + rest)  # noqa: PTH100, PTH118
    if isinstance(node, Fields) and getattr(node.get("type"), "value", "") == "bind":
        return _at_key(node, "source", folder)
    return node


def _env_files(node: Node, folder: str) -> Node:
    if isinstance(node, Items):
        return Items(tuple(_env_files(each, folder) for each in node.items), node.origin)
    return _at_key(node, "path", folder) if isinstance(node, Fields) else _absolute(node, folder)


def _at_key(node: Fields, name: str, folder: str) -> Fields:
    entries = ((key, _absolute(value, folder) if key.value == name else value) for key, value in node.entries)
    return Fields(tuple(entries), node.origin)


def _absolute(node: Node, folder: str) -> Node:
    if not isinstance(node, Text) or not node.value or node.value.startswith(("/", "~", "$")):
        return node
    return replace(node, value=os.path.abspath(os.path.join(folder, node.value)))  # noqa: PTH100, PTH118


def _literal(node: Fields) -> Fields:
    """A tree whose texts mean themselves when they are filled in once more."""

    def text(each: Node) -> Node:
        if isinstance(each, Items):
            return Items(tuple(map(text, each.items)), each.origin)
        if isinstance(each, Fields):
            return Fields(tuple((key, text(value)) for key, value in each.entries), each.origin)
        return replace(each, value=each.value.replace("$", "$$"))

    found = text(node)
    assert isinstance(found, Fields)
    return found
