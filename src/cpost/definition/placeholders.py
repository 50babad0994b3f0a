"""Parameters of a template and the `${{ name }}` placeholders that they fill.

Values are put in as text and are not read again, so a value cannot bring in placeholders, keys or lists of its own.
`$X` and `$(NAME)` belong to shells and to the platform and stay as they are. Parameter names, like all names in a
Clara definition, do not depend on letter case.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from cpost.definition.findings import MAX_FINDINGS, Findings, choice, quoted
from cpost.definition.tree import Fields, Items, Node, Text, joined
from cpost.errors import DefinitionError, Problem
from cpost.model import Origin

MAX_FILLED_CHARACTERS = 1_000_000

# The name may not hold braces, so that each opening is looked at once, however long the text is.
_PLACEHOLDER = re.compile(r"\$\{\{(?:([^{}]*)\}\})?")


@dataclass(frozen=True, slots=True)
class Argument:
    """A value given for a parameter, and the place to blame."""

    name: str
    value: str
    origin: Origin


class Parameters:
    """The declared parameters of one file with the values that hold."""

    def __init__(self, fields: Fields | None, findings: Findings) -> None:
        self._findings = findings
        self._names: dict[str, str] = {}
        self._values: dict[str, str] = {}
        for key, value in fields.entries if fields else ():
            self._declare(key, value)

    @property
    def names(self) -> tuple[str, ...]:
        """The declared names as written."""
        return tuple(self._names.values())

    def value(self, name: str) -> str | None:
        """Return the value that holds for a name; None where it is not declared."""
        return self._values.get(name.lower())

    def give(self, arguments: Iterable[Argument]) -> None:
        """Put arguments over the defaults; one that no parameter matches is a fault."""
        for argument in arguments:
            if argument.name.lower() in self._values:
                self._values[argument.name.lower()] = argument.value
            else:
                message = f"no parameter is called {quoted(argument.name)}"
                self._findings.error(argument.origin, message, choice(argument.name, self.names, "parameters are"))

    def _declare(self, key: Text, value: Node) -> None:
        if not isinstance(value, Text):
            message = f"the default of parameter {quoted(key.value)} must be text, this is {value.kind}"
            self._findings.error(value.origin, message, "put it in quotes")
        elif key.value.lower() in self._names:
            self._findings.error(key.origin, f"parameter {quoted(key.value)} is declared twice")
        self._names.setdefault(key.value.lower(), key.value)
        self._values.setdefault(key.value.lower(), value.value if isinstance(value, Text) else "")


def fill(root: Fields, parameters: Parameters, findings: Findings) -> Fields:
    """Return the tree with its placeholders replaced.

    Undeclared names give one problem that lists them all, at the first place where one is used.

    Raises:
        DefinitionError: the texts would grow beyond `MAX_FILLED_CHARACTERS`.
    """
    filling = _Filling(parameters, findings)
    filled = filling.fields(root)
    filling.report()
    return filled


class _Filling:
    def __init__(self, parameters: Parameters, findings: Findings) -> None:
        self._parameters = parameters
        self._findings = findings
        self._undeclared: dict[str, Origin] = {}
        self._added = 0
        self._done: dict[int, Node] = {}  # by identity: an aliased node is filled once

    def fields(self, node: Fields) -> Fields:
        filled = ((self._text(key), self._node(value)) for key, value in node.entries)
        return Fields(joined(filled), node.origin)

    def report(self) -> None:
        if not self._undeclared:
            return
        name, origin = next(iter(self._undeclared.items()))
        listing = ", ".join(f"{quoted(n)} ({o.line}:{o.column})" for n, o in self._undeclared.items())
        message = f"undeclared parameter{'s' if len(self._undeclared) > 1 else ''} in placeholders: {listing}"
        self._findings.error(origin, message, choice(name, self._parameters.names, "declared parameters are"))

    def _node(self, node: Node) -> Node:
        if id(node) not in self._done:
            self._done[id(node)] = self._filled(node)
        return self._done[id(node)]

    def _filled(self, node: Node) -> Node:
        if isinstance(node, Text):
            return self._text(node)
        if isinstance(node, Items):
            return Items(tuple(self._node(item) for item in node.items), node.origin)
        return self.fields(node)

    def _text(self, text: Text) -> Text:
        if "${{" not in text.value:
            return text
        try:
            filled = _PLACEHOLDER.sub(lambda match: self._value(match, text.origin), text.value)
        except _NoValueError:
            return Text("", text.origin, broken=True)
        return Text(filled, text.origin)

    def _value(self, match: re.Match[str], origin: Origin) -> str:
        if match[1] is None:
            hint = "a placeholder is ${{ name }}, without braces in the name"
            self._findings.error(origin, "a placeholder starts with ${{ but does not end", hint)
            raise _NoValueError
        name = match[1].strip()
        value = self._parameters.value(name)
        if value is None:
            self._note_undeclared(match.string, origin)
            raise _NoValueError
        self._added += len(value)
        if self._added > MAX_FILLED_CHARACTERS:
            message = f"placeholders grow the file beyond {MAX_FILLED_CHARACTERS} characters"
            raise DefinitionError([Problem(origin.file, origin.line, origin.column, message)])
        return value

    def _note_undeclared(self, text: str, origin: Origin) -> None:
        for match in _PLACEHOLDER.finditer(text):
            name = (match[1] or "").strip()
            if match[1] is not None and self._parameters.value(name) is None and len(self._undeclared) < MAX_FINDINGS:
                self._undeclared.setdefault(name, origin)


class _NoValueError(Exception):
    """A placeholder cannot be filled; the fault is recorded."""
