"""What the {{...}} of an Argo workflow stand for, where that is known before a run."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from cpost.definition.findings import Findings, choice, quoted
from cpost.definition.tree import Fields, Items, Node, Text

_TAG = re.compile(r"\{\{(=?)([^{}]*)\}\}")
# Whose names are Argo's own; other texts in double braces belong to somebody else's templates and stay.
_OWN = re.compile(r"(?:workflow|inputs|outputs|steps|tasks|item|pod|node|cronworkflow)(?:[.\[]|$)|retries$|lastRetry\.")
_LATER = re.compile(
    r"(?:steps|tasks)\.([^.]+)\.(.+)|lastRetry\..+|cronworkflow\..+|workflow\.(?:scheduledTime|duration|failures|"
    r"outputs\..+|(?:labels|annotations)\.(?!json$).+)"
)
# Several in one text, where what Argo would write is not known: labels are given in a run, too.
_GATHERED = re.compile(r"workflow\.(?:parameters|labels|annotations)(?:\.json)?|inputs(?:\.parameters)?")
ALL_PARAMETERS = "workflow.parameters"
_MAX_CHARACTERS = 200_000


@dataclass(frozen=True, slots=True)
class Unknown:
    """A value that only a run could tell."""

    reason: str


Value = str | Unknown


@dataclass(slots=True)
class Scope:
    """The names that are known at one place of a workflow.

    Attributes:
        values: by the text between the braces.
        reasons: why texts that were filled here hold something unknown; grows.
    """

    values: Mapping[str, Value]
    findings: Findings
    reasons: list[str] = field(default_factory=list)

    def with_values(self, more: Mapping[str, Value]) -> Scope:
        """A scope that knows more, with reasons of its own."""
        return Scope({**self.values, **more}, self.findings)

    def filled(self, node: Node) -> Node:
        """A tree with its texts filled in."""
        if isinstance(node, Items):
            return Items(tuple(map(self.filled, node.items)), node.origin)
        if isinstance(node, Fields):
            return Fields(tuple((key, self.filled(value)) for key, value in node.entries), node.origin)
        if "{{" not in node.value:
            return node
        value = self.value(node)
        if isinstance(value, Unknown):
            self.reasons.append(f"{value.reason} ({node.origin.file}:{node.origin.line})")
            return Text(node.value, node.origin, broken=True)
        return Text(value, node.origin, node.plain)

    def value(self, text: Text) -> Value:
        """A text filled in; unknown where any part of it is."""
        parts: list[str] = []
        at = 0
        for tag in _TAG.finditer(text.value):
            found = self._tag(tag, text)
            if isinstance(found, Unknown):
                return found
            parts += [text.value[at : tag.start()], found]
            at = tag.end()
        whole = "".join((*parts, text.value[at:]))
        return whole if len(whole) <= _MAX_CHARACTERS else Unknown("a text grows too long")

    def _tag(self, tag: re.Match[str], text: Text) -> Value:
        name = tag[2].strip()
        if tag[1]:
            return Unknown(f"the expression {quoted(tag[0])} is not worked out here")
        known = self.values.get(name, self._implied(name))
        if isinstance(known, Unknown):
            return known
        if known is not None:
            return Unknown(f"{quoted(name)} holds {{{{...}}}} itself") if _unfilled(known) else known
        if _LATER.fullmatch(name):
            return Unknown(f"{quoted(name)} is known only in a run of the workflow")
        if _GATHERED.fullmatch(name):
            return Unknown(f"{quoted(name)} is not put together here")
        if not _OWN.match(name):
            self.findings.warn(text.origin, f"{quoted(tag[0])} is no name of Argo's, and stays as it is")
            return tag[0]
        self.findings.error(
            text.origin,
            f"nothing is called {quoted(name)} here",
            choice(name, self.values, "what can stand there is"),
        )
        return Unknown(f"{quoted(name)} is not declared")

    def _implied(self, name: str) -> Value | None:
        """What a name that is not listed stands for: a part of an item of which nothing is known; another name."""
        if name == f"{ALL_PARAMETERS}.json":
            return self.values.get(ALL_PARAMETERS)
        parts_known = any(each.startswith("item.") for each in self.values)
        return self.values.get("item") if name.startswith("item.") and not parts_known else None


def as_json(value: object) -> str:
    """A value as Go writes it: without blanks, by the alphabet, and fit for a page of HTML."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return re.sub("[<>&\u2028\u2029]", lambda match: f"\\u{ord(match[0]):04x}", text)


def _unfilled(text: str) -> bool:
    """Whether a text that is put into another one has places of Argo's left: it fills in no second time."""
    return any(tag[1] or _OWN.match(tag[2].strip()) for tag in _TAG.finditer(text))
