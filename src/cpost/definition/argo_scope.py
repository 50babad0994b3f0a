"""What the {{...}} of an Argo workflow stand for and which of its conditions hold, where that is known before a run."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from cpost.definition.findings import Findings, choice, quoted
from cpost.definition.tree import Fields, Items, Node, Text

_TAG = re.compile(r"\{\{(=?)([^{}]*)\}\}")
# Whose names are Argo's own; other texts in double braces belong to somebody else's templates and stay.
_OWN = re.compile(r"(?:workflow|inputs|outputs|steps|tasks|item|pod|node|cronworkflow)(?:[.\[]|$)|retries$|lastRetry\.")
_LATER = re.compile(r"(?:steps|tasks)\.([^.]+)\.(.+)|workflow\.(?:duration|failures|outputs\..+)|lastRetry\..+")
_COMPARISON = re.compile(r"""\s*(['"]?)(.*?)\1\s*(==|!=)\s*(['"]?)(.*?)\4\s*""", re.DOTALL)
_MAX_CHARACTERS = 200_000
# A task's result in `depends`, where all tasks that run succeed.
_HOLDS = {
    "": True, "Succeeded": True, "Daemoned": True, "AnySucceeded": True,
    "Failed": False, "Errored": False, "Skipped": False, "Omitted": False, "AllFailed": False,
}  # fmt: skip
_TOKEN = re.compile(r"\s*(&&|\|\||!|\(|\)|[A-Za-z0-9_][A-Za-z0-9_.-]*)")


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
        if name in self.values:
            return self.values[name]
        item = self.values.get("item")
        if name.startswith("item.") and isinstance(item, Unknown):
            return item
        if _LATER.fullmatch(name):
            return Unknown(f"{quoted(name)} is known only in a run of the workflow")
        if not _OWN.match(name):
            self.findings.warn(text.origin, f"{quoted(tag[0])} is no name of Argo's, and stays as it is")
            return tag[0]
        self.findings.error(
            text.origin,
            f"nothing is called {quoted(name)} here",
            choice(name, self.values, "what can stand there is"),
        )
        return Unknown(f"{quoted(name)} is not declared")


def holds(condition: Value) -> bool | None:
    """Whether a `when` holds; None where that is not known before a run, or not so simple a question."""
    if isinstance(condition, Unknown) or "&&" in condition or "||" in condition:
        return None
    if condition.strip().lower() in ("true", "false"):
        return condition.strip().lower() == "true"
    match = _COMPARISON.fullmatch(condition)
    return None if match is None else (match[2] == match[5]) == (match[3] == "==")


@dataclass(frozen=True, slots=True)
class Depends:
    """What a task waits for.

    Attributes:
        tasks: their names, in the order written.
        holds: whether it runs at all if everything succeeds; `left_out` tells of a task whether it does not run.
    """

    tasks: tuple[str, ...]
    holds: Callable[[Callable[[str], bool]], bool]


def depends(expression: str) -> Depends | None:
    """Read an expression such as `(A.Succeeded || B) && !C.Failed`; None where it is none."""
    tokens = _TOKEN.findall(expression)
    if "".join(tokens) != re.sub(r"\s", "", expression) or not tokens:
        return None
    names = dict.fromkeys(token.partition(".")[0] for token in tokens if token[0].isalnum() or token[0] == "_")
    try:
        _Condition(tokens, lambda _: False).whole()
    except (IndexError, KeyError):
        return None
    return Depends(tuple(names), lambda left_out: _Condition(tokens, left_out).whole())


class _Condition:
    """Works out a condition by recursive descent."""

    def __init__(self, tokens: list[str], left_out: Callable[[str], bool]) -> None:
        self._tokens = [*tokens, ""]
        self._left_out = left_out
        self._at = 0

    def whole(self) -> bool:
        value = self._any()
        if self._tokens[self._at]:
            raise KeyError(self._tokens[self._at])
        return value

    def _any(self) -> bool:
        value = self._all()
        while self._tokens[self._at] == "||":
            self._at += 1
            value = self._all() or value
        return value

    def _all(self) -> bool:
        value = self._one()
        while self._tokens[self._at] == "&&":
            self._at += 1
            value = self._one() and value
        return value

    def _one(self) -> bool:
        word = self._tokens[self._at]
        self._at += 1
        if word == "!":
            return not self._one()
        if word == "(":
            value = self._any()
            self._at += 1
            if self._tokens[self._at - 1] != ")":
                raise KeyError(word)
            return value
        name, _, result = word.partition(".")
        if not name or word in ("&&", "||", ")"):
            raise KeyError(word)
        if self._left_out(name):
            return result in ("", "Skipped", "Omitted")
        return _HOLDS[result]
