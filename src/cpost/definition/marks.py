"""A YAML or JSON file as nodes that know which slice of the text they are: what a change of that text goes by.

Unlike the tree of a Clara definition (`tree.py`), nothing is resolved: aliases, merge keys, styles and the order of
keys stay as written. `value_of` resolves them, for comparing what two texts mean.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from cpost.definition.files import read_regular, why_unreadable
from cpost.definition.yaml_source import Piece, pieces
from cpost.errors import DefinitionError, Problem
from cpost.model import Origin
from cpost.terminal import visible

MAX_BYTES = 1024 * 1024
_MAX_TOKENS = 400_000
_MAX_DEPTH = 50
_TOO_DEEP = f"nested deeper than {_MAX_DEPTH} levels"
_MAX_WEIGHT = 400_000
_MERGE = "<<"
_NULLS = frozenset(("", "~", "null", "Null", "NULL"))
# The mark that a file may begin with, and how the rest of it is written.
_ENCODINGS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
    (b"", "utf-8"),
)
_PROPERTY = re.compile(r"[&!]\S*\s+")


@dataclass(frozen=True, slots=True, eq=False)
class Scalar:
    """A text; `text[start:end]` is all of it with its quotes, but without anchor and tag."""

    value: str
    start: int
    end: int
    style: str = ""
    anchor: str | None = None
    tag: str | None = None
    weight: int = 1
    height: int = 1

    @property
    def is_null(self) -> bool:
        """Whether the file says "nothing" here."""
        return not self.style and self.tag is None and self.value in _NULLS


@dataclass(frozen=True, slots=True, eq=False)
class Sequence:
    """A list."""

    items: tuple[Node, ...]
    start: int
    end: int
    flow: bool
    anchor: str | None = None
    weight: int = 1
    height: int = 1

    is_null = False


@dataclass(frozen=True, slots=True, eq=False)
class Mapping:
    """A mapping as written, duplicate and merge keys included.

    Attributes:
        end: of what is written in brackets, or of the last value.
    """

    entries: tuple[tuple[Scalar, Node], ...]
    start: int
    end: int
    flow: bool
    anchor: str | None = None
    weight: int = 1
    height: int = 1

    is_null = False

    def own(self, key: str) -> Node | None:
        """The value that the mapping itself has under `key`, as written; the last of several."""
        return next((value for name, value in reversed(self.entries) if name.value == key and not _merges(name)), None)

    def merged(self, key: str) -> Node | None:
        """The value that a merge key brings in under `key`."""
        for source in (each for name, value in self.entries if _merges(name) for each in _sources(value)):
            found = source.own(key) or source.merged(key)
            if found is not None:
                return found
        return None

    def get(self, key: str) -> Node | None:
        """What the mapping means under `key`: aliases followed, merge keys heeded; None where it is absent or null."""
        node = self.own(key)
        node = self.merged(key) if node is None else node
        node = resolved(node) if node is not None else None
        return None if node is None or node.is_null else node

    def text(self, *path: str) -> str | None:
        """The text of the scalar at `path` below this mapping; None where there is none."""
        node: Node | None = self
        for key in path:
            node = node.get(key) if isinstance(node, Mapping) else None
        return node.value if isinstance(node, Scalar) else None

    def below(self, *path: str) -> Mapping | None:
        """The mapping at `path` below this one; None where there is none."""
        node: Node | None = self
        for key in path:
            node = node.get(key) if isinstance(node, Mapping) else None
        return node if isinstance(node, Mapping) else None

    def mappings(self, key: str) -> Iterator[Mapping]:
        """The mappings of the list under `key`."""
        node = self.get(key)
        for item in node.items if isinstance(node, Sequence) else ():
            item = resolved(item)
            if isinstance(item, Mapping):
                yield item


@dataclass(frozen=True, slots=True, eq=False)
class Alias:
    """`*name` in the place of a value."""

    name: str
    target: Node
    start: int
    end: int
    weight: int = 1
    height: int = 1

    anchor = None
    is_null = False


Node: TypeAlias = "Scalar | Sequence | Mapping | Alias"


def resolved(node: Node) -> Node:
    """The node that an alias stands for; any other node itself."""
    while isinstance(node, Alias):
        node = node.target
    return node


def anchored(node: Node) -> Iterator[Scalar | Sequence | Mapping]:
    """The nodes with an anchor, in and below a node; aliases are not followed."""
    if isinstance(node, Alias):
        return
    if node.anchor is not None:
        yield node
    below = node.items if isinstance(node, Sequence) else ()
    if isinstance(node, Mapping):
        below = tuple(value for _, value in node.entries)
    for each in below:
        yield from anchored(each)


def _merges(key: Scalar) -> bool:
    return key.value == _MERGE and not key.style


def _sources(value: Node) -> list[Mapping]:
    node = resolved(value)
    nodes = [resolved(item) for item in node.items] if isinstance(node, Sequence) else [node]
    return [each for each in nodes if isinstance(each, Mapping)]


# ---------------------------------------------------------------- bytes -> text -> nodes


@dataclass(frozen=True, slots=True)
class Source:
    """A file's content: `mark + text.encode(encoding)` are its bytes again, whatever they were.

    Attributes:
        documents: the root of each YAML document; the only one of a JSON file.
        aliased: names of the anchors that an alias refers to.
    """

    file: str
    mark: bytes
    encoding: str
    text: str
    documents: tuple[Node, ...] = ()
    aliased: frozenset[str] = frozenset()

    def bytes_of(self, text: str) -> bytes:
        """Another text as the bytes of a file like this one."""
        return self.mark + text.encode(self.encoding)

    def origin(self, index: int) -> Origin:
        """Line and column of a place in the text."""
        before = self.text[:index].replace("\r\n", "\n").replace("\r", "\n")
        return Origin(self.file, before.count("\n") + 1, len(before) - before.rfind("\n"))


def read_source(path: str | Path) -> Source:
    """Read and take apart a YAML or JSON file.

    Raises:
        DefinitionError: it cannot be read, is too large, or is not text or not YAML.
    """
    shown = visible(str(path))
    try:
        data = read_regular(path, MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise _failure(Origin(shown, 0, 0), f"the file {why_unreadable(error)}", "check the path") from error
    if len(data) > MAX_BYTES:
        raise _failure(Origin(shown, 0, 0), f"the file is too large: at most {MAX_BYTES // 1024} KiB are read")
    return source_of(data, shown)


def source_of(data: bytes, file: str) -> Source:
    """Take the bytes of a YAML or JSON file apart; raises as `read_source` does."""
    mark, encoding = next((mark, name) for mark, name in _ENCODINGS if data.startswith(mark))
    try:
        text = data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        message = f"byte 0x{data[len(mark) + error.start]:02x} is not valid {encoding.upper()}"
        raise _failure(Origin(file, 0, 0), message, "save the file as UTF-8") from error
    return parsed(Source(file, mark, encoding, text))


def parsed(source: Source) -> Source:
    """The same source with the nodes of its text; raises `DefinitionError` where it is not YAML."""
    composer = _Composer(source)
    documents = tuple(composer.documents())
    return Source(source.file, source.mark, source.encoding, source.text, documents, frozenset(composer.aliased))


def is_json(text: str) -> bool:
    """Whether a text is JSON."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _failure(origin: Origin, message: str, hint: str = "") -> DefinitionError:
    return DefinitionError([Problem(origin.file, origin.line, origin.column, message, hint)])


@dataclass(slots=True)
class _Composer:
    """Builds nodes of the parser's pieces."""

    source: Source
    aliased: set[str] = field(default_factory=set)
    _anchors: dict[str, Node | None] = field(default_factory=dict)  # None = still being built
    _pieces: Iterator[Piece] = field(default_factory=lambda: iter(()))

    def documents(self) -> Iterator[Node]:
        """Each document's root."""
        self._pieces = pieces(self.source.text, self.source.file, _MAX_TOKENS)
        for piece in self._pieces:
            assert piece.kind == "document"
            self._anchors.clear()
            yield self._node(next(self._pieces), 1)

    def _node(self, piece: Piece, depth: int) -> Node:
        if depth > _MAX_DEPTH:
            raise self._fault(piece, _TOO_DEEP)
        if piece.kind == "alias":
            return self._alias(piece)
        if piece.anchor is not None:
            self._anchors[piece.anchor] = None
        node = self._content(piece, depth)
        if node.height > _MAX_DEPTH:  # aliases make it deeper than it is written
            raise self._fault(piece, _TOO_DEEP)
        if node.weight > _MAX_WEIGHT:
            message = f"more than {_MAX_WEIGHT} values, those behind aliases counted each time they are used"
            raise self._fault(piece, message)
        if piece.anchor is not None:
            self._anchors[piece.anchor] = node
        return node

    def _content(self, piece: Piece, depth: int) -> Node:
        if piece.kind == "scalar":
            start = self._past_properties(piece)
            return Scalar(piece.value, start, piece.end, piece.style, piece.anchor, piece.tag)
        children, end = self._children(piece, depth)
        weight = 1 + sum(child.weight for child in children)
        height = 1 + max((child.height for child in children), default=0)
        start = self._past_properties(piece)
        if piece.kind == "list":
            return Sequence(tuple(children), start, end, piece.flow, piece.anchor, weight, height)
        keys, values = children[::2], children[1::2]
        entries = tuple((self._key(key), value) for key, value in zip(keys, values, strict=True))
        if entries and not piece.flow:
            start = entries[0][0].start  # the mapping may have begun with an anchor on the line above
        return Mapping(entries, start, end, piece.flow, piece.anchor, weight, height)

    def _children(self, piece: Piece, depth: int) -> tuple[list[Node], int]:
        children: list[Node] = []
        for child in self._pieces:
            if child.kind == "end":
                # In block style the parser's end is the next thing's beginning, past comments and empty lines.
                last = children[-1].end if children else child.end
                return children, child.end if piece.flow else last
            children.append(self._node(child, depth + 1))
        raise AssertionError("the parser ends what it began")

    def _key(self, node: Node) -> Scalar:
        key = resolved(node)
        if not isinstance(key, Scalar):
            origin = self.source.origin(node.start)
            raise _failure(origin, "a key must be text", "put it in quotes; a template must be rendered first")
        return key if isinstance(node, Scalar) else Scalar(key.value, node.start, node.end, key.style)

    def _past_properties(self, piece: Piece) -> int:
        start = piece.start
        if piece.anchor is not None or piece.tag is not None:
            while match := _PROPERTY.match(self.source.text, start, piece.end):
                start = match.end()
            start = piece.end if not piece.value and not piece.style and piece.kind == "scalar" else start
        return start

    def _alias(self, piece: Piece) -> Alias:
        name = piece.anchor or ""
        node = self._anchors.get(name)
        if node is None:
            what = "contains itself" if name in self._anchors else "has no anchor before it"
            raise self._fault(piece, f"alias *{visible(name)} {what}")
        self.aliased.add(name)
        return Alias(name, node, piece.start, piece.end, node.weight, node.height)

    def _fault(self, piece: Piece, message: str) -> DefinitionError:
        return _failure(self.source.origin(piece.start), message)


# ---------------------------------------------------------------- what a text means

Value: TypeAlias = "dict[str, Value] | list[Value] | tuple[str, bool, str | None]"


def value_of(node: Node) -> Value:
    """What a node means, for comparing: scalars as (text, written plain, tag), aliases and merge keys resolved."""
    node = resolved(node)
    if isinstance(node, Scalar):
        return node.value, not node.style, node.tag
    if isinstance(node, Sequence):
        return [value_of(item) for item in node.items]
    assert isinstance(node, Mapping)
    return {name: value_of(_found(node, name)) for name in names_of(node)}


def names_of(node: Mapping) -> tuple[str, ...]:
    """All keys of a mapping, those from merge keys too, each once."""
    return tuple(dict.fromkeys(_names(node)))


def _names(node: Mapping) -> Iterator[str]:
    for key, value in node.entries:
        if _merges(key):
            for source in _sources(value):
                yield from _names(source)
        else:
            yield key.value


def _found(node: Mapping, name: str) -> Node:
    own = node.own(name)
    found = own if own is not None else node.merged(name)
    assert found is not None, "the name was found among the keys"
    return found
