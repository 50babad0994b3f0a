"""Reads one mapping of the tree property by property and reports what does not fit, with its place."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TypeVar

from cpost.definition.findings import Findings, choice, closest, quoted
from cpost.definition.grammar import GrammarError
from cpost.definition.tree import Fields, Items, Node, Text
from cpost.model import Origin

T = TypeVar("T")

# What other tools call it; difflib cannot know.
_OTHER_WORDS = {
    "env": "variables",
    "environment": "variables",
    "resources": "requests",
    "secrets": "pull-secrets",
    "depends_on": "from",
    "args": "command",
}


class Section:
    """A mapping with a name for messages, such as `operator "reader"`."""

    def __init__(self, fields: Fields, label: str, findings: Findings) -> None:
        self.fields = fields
        self.label = label
        self._findings = findings

    def like(self, fields: Fields) -> Section:
        """A section over other fields, with this one's name."""
        return Section(fields, self.label, self._findings)

    def origin(self, key: str | None = None) -> Origin:
        """Return the place of a property's value, or of the whole mapping."""
        node = self.fields.get(key) if key else None
        return node.origin if node else self.fields.origin

    def error(self, key: str | None, message: str, hint: str = "") -> None:
        """Report a fault at a property's value, or at the whole mapping."""
        self._findings.error(self.origin(key), message, hint)

    def warn(self, key: str | None, message: str) -> None:
        """Report what is accepted but looks wrong."""
        self._findings.warn(self.origin(key), message)

    def has(self, key: str) -> bool:
        """Whether the property is there and says something."""
        return self.fields.get(key) is not None

    def raw(self, key: str) -> str:
        """Return a property's text as written; empty where there is none."""
        node = self.fields.get(key)
        return node.value if isinstance(node, Text) else ""

    def read(self, key: str, rule: Callable[[str], T]) -> T | None:
        """Return a property's text as `rule` understands it.

        None where it is absent or, with a problem recorded, where it breaks the rule.
        """
        node = self.fields.get(key)
        return None if node is None else self.value(node, key, rule)

    def value(self, node: Node, what: str, rule: Callable[[str], T]) -> T | None:
        """Return a scalar as `rule` understands it; `what` names it in messages."""
        if not isinstance(node, Text):
            self._wrong_kind(node, what, "text")
            return None
        if node.broken:
            return None  # reported where the placeholder was
        try:
            return rule(node.value)
        except GrammarError as fault:
            self._findings.error(node.origin, f"{what} of {self.label}: {fault.message}", fault.hint)
            return None

    def require(self, key: str, hint: str) -> None:
        """Report a property that must be there and is not."""
        if not self.has(key):
            place = self.fields.key(key)
            message = f"{self.label} has no {key}"
            self._findings.error(place.origin if place else self.fields.origin, message, hint)

    def items(self, key: str) -> tuple[Node, ...]:
        """Return the items of a list; empty where it is absent or not a list."""
        node = self.fields.get(key)
        if isinstance(node, Items):
            return node.items
        if node is not None:
            self._wrong_kind(node, key, "a list", "write a list, such as [first, second]")
        return ()

    def section(self, key: str, label: str) -> Section | None:
        """Return a mapping below this one; None where it is absent or not a mapping."""
        node = self.fields.get(key)
        return None if node is None else self._section(node, key, label)

    def sections(self, key: str, label: str) -> list[Section]:
        """Return the mappings of a list; null items are dropped."""
        nodes = (node for node in self.items(key) if not node.is_null)
        found = (self._section(node, f"an item of {key}", label) for node in nodes)
        return [section for section in found if section is not None]

    def check_keys(self, known: Collection[str]) -> None:
        """Warn about properties that cpost does not know."""
        for key, _ in self.fields.entries:
            if key.value in known or self._findings.crowded:
                continue
            other = _OTHER_WORDS.get(key.value, "")
            best = other if other in known else closest(key.value, known)
            hint = f'did you mean "{best}"?' if best else choice(key.value, known, "known keys are")
            self._findings.warn(key.origin, f"unknown key {quoted(key.value)} in {self.label} is ignored; {hint}")

    def _section(self, node: Node, what: str, label: str) -> Section | None:
        if isinstance(node, Fields):
            return Section(node, label, self._findings)
        self._wrong_kind(node, what, "a mapping", "write it as name: value lines")
        return None

    def _wrong_kind(self, node: Node, what: str, wanted: str, hint: str = "") -> None:
        if isinstance(node, Text) and node.broken:
            return
        self._findings.error(node.origin, f"{what} of {self.label} must be {wanted}, this is {node.kind}", hint)
