"""The ConfigMaps and Secrets of a file, which containers take variables and files from."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cpost.definition.findings import Findings, quoted
from cpost.definition.grammar import GrammarError
from cpost.definition.section import Section
from cpost.definition.tree import Fields


@dataclass(frozen=True, slots=True)
class Objects:
    """ConfigMaps and Secrets of a file: their contents by name and key."""

    maps: Mapping[str, Mapping[str, bytes]]
    secrets: Mapping[str, Mapping[str, bytes]]


class AllObjects:
    """The ConfigMaps and Secrets of a file, of all namespaces."""

    def __init__(self, documents: Sequence[Fields], findings: Findings) -> None:
        self._found: list[tuple[str, str, str, dict[str, bytes]]] = []
        for document in documents:
            section = Section(document, "this object", findings)
            kind = section.raw("kind")
            metadata = section.section("metadata", "metadata")
            if kind in ("ConfigMap", "Secret") and metadata is not None:
                name = metadata.raw("name")
                section.label = f"{kind} {quoted(name)}"
                contents = dict(_contents(section, encoded=kind == "Secret"))
                self._found.append((kind, metadata.raw("namespace"), name, contents))

    def seen_from(self, namespace: str) -> Objects:
        """Those of a namespace, and of objects without one, whose namespace is told elsewhere."""
        found: dict[str, dict[str, dict[str, bytes]]] = {"ConfigMap": {}, "Secret": {}}
        for exact in (False, True):
            for kind, own, name, contents in self._found:
                if (own == namespace) if exact else (not own or not namespace):
                    found[kind][name] = contents
        return Objects(found["ConfigMap"], found["Secret"])


def _contents(section: Section, *, encoded: bool) -> Iterator[tuple[str, bytes]]:
    for key, rule in (
        ("data", _base64 if encoded else str.encode),
        ("binaryData", _base64),
        ("stringData", str.encode),
    ):
        block = section.section(key, f"{key} of {section.label}")
        for name, node in block.fields.entries if block else ():
            value = section.value(node, quoted(name.value), rule)
            if value is not None:
                yield name.value, value


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise GrammarError("it is not base64", "encode it, or use stringData") from error
