"""Replaces `import` items by the operator or service that they name.

What may be imported (the public manual shows both forms): a file that holds the operator or service itself, with its
`parameters` beside it, or a pipeline file with exactly one operator. Properties beside `import` replace the imported
ones whole. The arguments of an import fill the placeholders of the imported file only; a service is no template, so
for it they are ignored and its text is taken as it is.
"""

from __future__ import annotations

from cpost.definition.files import Document, Files
from cpost.definition.findings import Findings, quoted
from cpost.definition.grammar import any_text
from cpost.definition.placeholders import Argument, Parameters, fill
from cpost.definition.section import Section
from cpost.definition.tree import MAX_WEIGHT, Fields, Items, Node
from cpost.errors import DefinitionError, Problem

MAX_CHAIN = 20
MAX_TOTAL_WEIGHT = 3 * MAX_WEIGHT

_IMPORT_KEYS = ("path", "args")
_DOCUMENT_KEYS = ("api-version", "parameters", "orchestrator", "pull-secrets")
_PLURAL = {"operator": "operators", "service": "services"}


class Imports:
    """Follows the imports of one definition and keeps what they cost within bounds."""

    def __init__(self, files: Files, findings: Findings) -> None:
        self._files = files
        self._findings = findings
        self._weight = 0

    def filled(self, document: Document, arguments: list[Argument]) -> Fields:
        """Return a document's content without `parameters`, its placeholders filled.

        Raises:
            DefinitionError: the definition unfolds into more than cpost takes.
        """
        top = Section(document.root, "the file", self._findings)
        declared = top.section("parameters", "parameters")
        parameters = Parameters(declared.fields if declared else None, self._findings)
        parameters.give(arguments)
        root = fill(document.root.without(("parameters",)), parameters, self._findings)
        self._charge(root)
        return root

    def operator(self, item: Node, document: Document) -> Fields | None:
        """Return an item of `operators` with its imports, and those of its services, replaced.

        None where a fault, which is recorded, leaves nothing to read.
        """
        fields = self._resolved(item, "operator", (document,))
        services = fields.get("services") if fields else None
        if fields is None or not isinstance(services, Items):
            return fields
        resolved = (self._resolved(node, "service", ()) for node in services.items if not node.is_null)
        kept = Items(tuple(node for node in resolved if node is not None), services.origin)
        return Fields(
            tuple((key, kept if key.value == "services" else value) for key, value in fields.entries), fields.origin
        )

    def _resolved(self, item: Node, kind: str, trail: tuple[Document, ...]) -> Fields | None:
        if not isinstance(item, Fields):
            self._findings.error(item.origin, f"each {kind} must be a mapping, this is {item.kind}")
            return None
        section = Section(item, f"this {kind}", self._findings).section("import", "import")
        if section is None:
            return None if item.get("import") else item
        section.check_keys(_IMPORT_KEYS)
        section.require("path", "write the path of the file, relative to this one")
        document = self._document(section, trail)
        inner = self._content(document, section, kind) if document else None
        if document is None or inner is None:
            return None
        found = self._resolved(inner, kind, (*trail, document))
        return found.overridden(item.without(("import",))) if found else None

    def _document(self, section: Section, trail: tuple[Document, ...]) -> Document | None:
        path = section.read("path", any_text)
        if path is None:
            return None
        if not path or path.startswith("/"):
            section.error("path", f"import path {quoted(path)} is not relative", "write it relative to this file")
            return None
        document = self._files.read(self._files.relative(path, section.origin().file), section.origin("path"))
        document = self._files.single(document) if document else None
        if document and any(document.identity == earlier.identity for earlier in trail):
            names = [earlier.shown for earlier in (*trail, document)]
            start = next(i for i, earlier in enumerate(trail) if earlier.identity == document.identity)
            section.error("path", f"import cycle: {' -> '.join(names[start:])}", "a file cannot import itself")
            return None
        if len(trail) > MAX_CHAIN:
            section.error("path", f"more than {MAX_CHAIN} files import one another in a chain")
            return None
        return document

    def _content(self, document: Document, section: Section, kind: str) -> Node | None:
        if kind == "service":
            if section.has("args"):
                section.warn("args", "a service is no template: the arguments of its import are ignored")
            self._charge(document.root)
            root = document.root
        else:
            root = self.filled(document, self._arguments(section))
        return self._single(root, section, kind)

    def _arguments(self, section: Section) -> list[Argument]:
        given = section.section("args", "args")
        if given is None:
            return []
        read = ((key, given.value(node, quoted(key.value), any_text)) for key, node in given.fields.entries)
        return [Argument(key.value, value, key.origin) for key, value in read if value is not None]

    def _single(self, root: Fields, section: Section, kind: str) -> Node | None:
        plural = _PLURAL[kind]
        listed = root.get(plural)
        if not isinstance(listed, Items) or root.get("container") or root.get("import"):
            return root.without(_DOCUMENT_KEYS)
        if len(listed.items) == 1:
            return listed.items[0]
        message = f"the imported file has {len(listed.items)} {plural}; an import stands for one"
        section.error("path", message, f"give each {kind} a file of its own")
        return None

    def _charge(self, root: Fields) -> None:
        self._weight += root.weight
        if self._weight > MAX_TOTAL_WEIGHT:
            origin = root.origin
            message = "the definition is too large once its placeholders and imports are filled in"
            raise DefinitionError([Problem(origin.file, origin.line, origin.column, message)])
