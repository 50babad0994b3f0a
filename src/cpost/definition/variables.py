"""Variables as Docker Compose has them: ${NAME} and its kin in texts, and files of NAME=value lines."""

from __future__ import annotations

import re
from collections.abc import Mapping

from cpost.definition.findings import Findings, quoted
from cpost.definition.tree import Fields, Items, Node, Text

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPERATORS = (":-", "-", ":?", "?", ":+", "+")
_MAX_NESTED = 20
_LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_.-]*)\s*(?:=\s*(.*))?")
_SPECIAL = re.compile(r"\\(.)|\$\{(\w+)\}|\$(\w+)")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "$": "$"}


# What cannot be without a value: there an unset variable is a fault.
_NEEDED = frozenset(("image", "volumes", "mem_limit", "mem_reservation", "cpus", "memory", "shm_size", "file"))
_ENVIRONMENT = "environment"


class Variables(dict[str, str]):
    """Variables of which those that are not set are empty, as in Docker Compose, and remembered.

    Attributes:
        unset: those that were empty for that.
        missed: those that had to be set, and were reported.
    """

    def __init__(self, *given: Mapping[str, str]) -> None:
        super().__init__()
        for each in given:
            self.update(each)
        self.unset: dict[str, None] = {}
        self.missed: set[str] = set()

    def __missing__(self, name: str) -> str:
        self.unset[name] = None
        return ""


class VariableError(Exception):
    """A text cannot be filled in; says why, and what to do, and `name`s the variable that is not set."""

    def __init__(self, message: str, hint: str, name: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.name = name


def interpolated(text: str, variables: Mapping[str, str], depth: int = 0) -> str:
    """Fill in $NAME, ${NAME}, ${NAME:-default}, ${NAME-default}, ${NAME:?error}, ${NAME:+other} and so on; $$ is $.

    Raises:
        VariableError: a variable is not set and has no default, or a ${ is not one of these forms.
    """
    parts: list[str] = []
    at = 0
    while (dollar := text.find("$", at)) >= 0:
        parts.append(text[at:dollar])
        if text.startswith("$$", dollar):
            parts.append("$")
            at = dollar + 2
        elif text.startswith("${", dollar):
            end = _closing(text, dollar + 2)
            parts.append(_substituted(text[dollar + 2 : end], variables, depth))
            at = end + 1
        else:
            name = _NAME.match(text, dollar + 1)
            parts.append(_value(name[0], variables) if name else "$")
            at = name.end() if name else dollar + 1
    return "".join((*parts, text[at:]))


def _closing(text: str, start: int) -> int:
    depth, at = 1, start
    while at < len(text):
        if text.startswith("${", at):
            depth, at = depth + 1, at + 1
        elif text[at] == "}":
            depth -= 1
            if depth == 0:
                return at
        at += 1
    raise VariableError("a ${ is not closed", "write ${NAME}, or $$ for a dollar sign")


def _substituted(inner: str, variables: Mapping[str, str], depth: int) -> str:
    name = _NAME.match(inner)
    rest = inner[name.end() :] if name else inner
    operator = next((each for each in _OPERATORS if rest.startswith(each)), "")
    if name is None or (rest and not operator) or depth > _MAX_NESTED:
        raise VariableError(f"{quoted('${' + inner + '}')} is not a variable", "write ${NAME} or ${NAME:-default}")
    word = rest[len(operator) :]
    value = variables.get(name[0])
    is_there = bool(value) if operator.startswith(":") else value is not None
    if operator.endswith("+"):
        return interpolated(word, variables, depth + 1) if is_there else ""
    if operator.endswith("-") and not is_there:
        return interpolated(word, variables, depth + 1)
    if operator.endswith("?") and not is_there:
        raise VariableError(f"variable {name[0]} is needed: {quoted(word)}", _how_to_set(name[0]))
    return _value(name[0], variables)


def _value(name: str, variables: Mapping[str, str]) -> str:
    try:
        return variables[name]
    except KeyError as error:
        raise VariableError(f"variable {name} has no value", _how_to_set(name), name) from error


def _how_to_set(name: str) -> str:
    return f"set it in the environment ({name}=... cpost ...) or in .env beside the file"


def filled(node: Node, variables: Variables, findings: Findings, *, below: str = "") -> Node:
    """The tree with all its values filled in; keys stay. What cannot be filled is a fault, and broken.

    A variable that is not set is empty, and warned of where it is first met. Where a value is needed it is a fault.

    Args:
        below: the key above it that says more of what its texts are for.
    """
    if isinstance(node, Items):
        return Items(tuple(filled(each, variables, findings, below=below) for each in node.items), node.origin)
    if isinstance(node, Fields):
        entries = []
        for key, value in node.entries:
            is_declaration = key.value == "volumes" and isinstance(value, Fields)
            telling = key.value in (*_NEEDED, _ENVIRONMENT) and not is_declaration
            inner = key.value if telling else below
            entries.append((key, filled(value, variables, findings, below=inner)))
        return Fields(tuple(entries), node.origin)
    if "$" not in node.value:
        return node
    before = len(variables.unset)
    try:
        text = interpolated(node.value, dict(variables) if below in _NEEDED else variables)
    except VariableError as error:
        if error.name not in variables.missed:
            findings.error(node.origin, error.message, error.hint)
        variables.missed |= {error.name} - {""}
        return Text("", node.origin, broken=True)
    for name in list(variables.unset)[before:]:
        findings.warn(node.origin, f"variable {name} is not set, and empty: {_how_to_set(name)}")
    # A variable's value is empty rather than absent where it is empty.
    return Text(text, node.origin, plain=node.plain and below != _ENVIRONMENT)


def read_lines(text: str, known: Mapping[str, str]) -> dict[str, str]:
    """Read NAME=value lines, as an env_file or .env has them; a name alone takes its value from `known`.

    Values in single quotes stay as they are; in double quotes or bare they may hold variables.
    """
    found: dict[str, str] = {}
    for line in text.removeprefix("\ufeff").splitlines():
        match = _LINE.fullmatch(line) if line.strip() and not line.lstrip().startswith("#") else None
        if match is None:
            continue
        if match[2] is None:
            found |= {match[1]: known[match[1]]} if match[1] in known else {}
        else:
            found[match[1]] = _unquoted(match[2].strip(), {**found, **known})
    return found


def _unquoted(text: str, variables: Mapping[str, str]) -> str:
    if text[:1] == "'" and text.find("'", 1) > 0:
        return text[1 : text.find("'", 1)]
    double = re.match(r'"((?:[^"\\]|\\.)*)"', text)
    bare = double[1] if double else re.split(r"\s+#", text, maxsplit=1)[0].rstrip()
    return _SPECIAL.sub(lambda match: _meaning(match, variables, escapes=double is not None), bare)


def _meaning(match: re.Match[str], variables: Mapping[str, str], *, escapes: bool) -> str:
    if match[1] is not None:
        return _ESCAPES.get(match[1], match[0]) if escapes else match[0]
    return variables.get(match[2] or match[3], "")
