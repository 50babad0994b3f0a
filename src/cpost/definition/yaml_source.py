"""Bytes of a YAML file -> positioned tree, safe for any input.

The secret of this module is PyYAML. Only its scanner and parser are used: its constructor is what turns `010` into 8
and raises a dozen kinds of error, its C twin crashes the process on deep nesting, and neither tells about duplicate
keys. Everything that the library raises leaves here as a DefinitionError with a place.
"""

from __future__ import annotations

import codecs
import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import yaml
from yaml.parser import Parser
from yaml.reader import Reader, ReaderError
from yaml.scanner import Scanner

from cpost.definition.findings import Findings, quoted
from cpost.definition.tree import MAX_WEIGHT, Entry, Fields, Items, Node, Text, joined
from cpost.errors import DefinitionError, Problem
from cpost.model import Origin
from cpost.terminal import visible

MAX_DEPTH = 50
# Each token costs some 10 microseconds; directives and comments make tokens without making nodes.
MAX_TOKENS = 30_000
MAX_DOCUMENTS_WEIGHT = 3 * MAX_WEIGHT

_BREAK = re.compile(r"\r\n|[\r\n\x85\u2028\u2029]")
_CORE = "tag:yaml.org,2002:"
_SCALAR_TAGS = frozenset(("!", *(_CORE + name for name in ("str", "int", "float", "bool", "null", "timestamp"))))
_ITEMS_TAGS = frozenset(("!", _CORE + "seq"))
_FIELDS_TAGS = frozenset(("!", _CORE + "map"))
_MERGE = "<<"
_BLANKS = (" ", "\t")
_BREAKS = ("\0", "\r", "\n", "\x85", "\u2028", "\u2029")


def parse(data: bytes, file: str, findings: Findings) -> list[Node]:
    """Read all YAML documents of a file.

    Args:
        data: the whole file; the caller caps its size.
        file: its name as messages show it.
        findings: takes the faults that leave a usable tree (duplicate keys).

    Returns:
        Their trees, less those that say nothing.

    Raises:
        DefinitionError: not text or not YAML, or larger or deeper than a definition can be.
    """
    with _tokens(_decode(data, file), file, MAX_TOKENS) as tokens:
        return _Composer(tokens, file, findings).documents()


@dataclass(frozen=True, slots=True)
class Piece:
    """One event of the parser with its place: `text[start:end]`, which begins with anchor and tag where there are any.

    Attributes:
        end: of a list or mapping: where the opening bracket ends, or `start` in block style.
        style: of a scalar: its quote, "|" or ">"; empty = plain.
        flow: a list or mapping in brackets, as in JSON.
    """

    kind: Literal["document", "scalar", "list", "mapping", "end", "alias"]
    start: int
    end: int
    value: str = ""
    anchor: str | None = None
    tag: str | None = None
    style: str = ""
    flow: bool = False


def pieces(text: str, file: str, max_tokens: int) -> Iterator[Piece]:
    """Read any number of YAML documents event by event, nothing interpreted; each begins with a "document".

    Raises:
        DefinitionError: not YAML, or more than `max_tokens` parts.
    """
    with _tokens(text, file, max_tokens) as tokens:
        while not tokens.check_event(yaml.StreamEndEvent):
            piece = _piece(tokens.take())
            if piece is not None:
                yield piece


def _piece(event: yaml.Event) -> Piece | None:
    assert event.start_mark is not None
    assert event.end_mark is not None
    start, end = event.start_mark.index, event.end_mark.index
    if isinstance(event, yaml.DocumentStartEvent):
        return Piece("document", start, end)
    if isinstance(event, yaml.AliasEvent):
        return Piece("alias", start, end, anchor=event.anchor)
    if isinstance(event, yaml.ScalarEvent):
        return Piece("scalar", start, end, event.value, event.anchor, event.tag, event.style or "")
    if isinstance(event, yaml.CollectionStartEvent):
        kind: Literal["list", "mapping"] = "list" if isinstance(event, yaml.SequenceStartEvent) else "mapping"
        return Piece(kind, start, end, anchor=event.anchor, tag=event.tag, flow=bool(event.flow_style))
    return Piece("end", start, end) if isinstance(event, yaml.CollectionEndEvent) else None


@contextlib.contextmanager
def _tokens(text: str, file: str, limit: int) -> Iterator[_Tokens]:
    """The parser over a text; whatever it raises within leaves as a DefinitionError."""
    tokens: _Tokens | None = None
    try:
        tokens = _Tokens(text, file, limit)
        yield tokens
    except ReaderError as error:
        message = f"character U+{_code(error):04X} is not allowed in YAML"
        raise _failure(_place(file, text, error.position), message, _control_hint(error)) from error
    except yaml.MarkedYAMLError as error:
        raise _syntax_failure(error, text, file) from error
    except (yaml.YAMLError, ValueError, ArithmeticError, LookupError, RecursionError) as error:
        # Known: ValueError for "\UFFFFFFFF" and for absurd directives; the others are the same kind of escape.
        place = _place(file, text, tokens.index if tokens else 0)
        raise _failure(place, f"not valid YAML: {visible(str(error))}") from error


# ---------------------------------------------------------------- bytes -> text


def _decode(data: bytes, file: str) -> str:
    if data.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        raise _failure(Origin(file, 1, 1), "the file is UTF-32", "save it as UTF-8")
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    encoding = "utf-16" if wide else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        before = data[: error.start].decode(encoding, "replace")
        name = "UTF-16" if wide else "UTF-8"
        message = f"byte 0x{data[error.start]:02x} is not valid {name}"
        raise _failure(_place(file, before, len(before)), message, "save the file as UTF-8") from error


def _place(file: str, text: str, index: int) -> Origin:
    line, start = 1, 0
    for match in _BREAK.finditer(text, 0, index):
        line, start = line + 1, match.end()
    return Origin(file, line, index - start + 1)


def _failure(origin: Origin, message: str, hint: str = "") -> DefinitionError:
    return DefinitionError([Problem(origin.file, origin.line, origin.column, message, hint)])


def _code(error: ReaderError) -> int:
    return ord(error.character) if isinstance(error.character, str) else int(error.character)


def _control_hint(error: ReaderError) -> str:
    if _code(error) == 0 and error.position < 4:
        return "this looks like UTF-16 without its mark: save the file as UTF-8"
    return "remove the character, or write it as an escape in double quotes"


def _syntax_failure(error: yaml.MarkedYAMLError, text: str, file: str) -> DefinitionError:
    mark = error.problem_mark or error.context_mark
    place = _place(file, text, mark.index) if mark else Origin(file, 1, 1)
    problem = visible(error.problem or "unreadable")
    line = _line_of(text, mark.index) if mark else ""
    if "\t" in line[: place.column] and not line[: place.column].strip():
        return _failure(place, "a tab is used for indentation", "indent with spaces only")
    if mark and text[mark.index : mark.index + 1] == "\t":
        return _failure(place, "a tab stands where only spaces are taken", "use spaces")
    context = f" ({visible(error.context)})" if error.context else ""
    began = _line_of(text, error.context_mark.index) if error.context_mark else ""
    return _failure(place, f"not valid YAML: {problem}{context}", _syntax_hint(f"{began}\n{line}", problem))


def _line_of(text: str, index: int) -> str:
    start = max((text.rfind(c, 0, index) for c in "\r\n"), default=-1) + 1
    return _BREAK.split(text[start : index + 500], maxsplit=1)[0]


def _syntax_hint(lines: str, problem: str) -> str:
    if "${{" in lines:
        return "inside [ ] and { } a placeholder must stand in quotes"
    if "{{" in lines or "{%" in lines:
        return "this looks like a template of another tool (Helm, Jinja): render it first, and give cpost the result"
    if "mapping values are not allowed" in problem:
        return 'put text that contains ": " in quotes, and check the indentation'
    return "see to quotes, brackets and indentation there, and in the lines before"


# ---------------------------------------------------------------- text -> tree


class _Tokens(Reader, Scanner, Parser):
    """PyYAML's scanner and parser over a text, with a limit on the work they do."""

    def __init__(self, text: str, file: str, limit: int) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        self._file = file
        self._limit = limit
        self._fetched = 0

    def fetch_more_tokens(self) -> None:
        """Count what the parser asks for: every loop in it ends here."""
        self._fetched += 1
        if self._fetched > self._limit:
            place = Origin(self._file, self.line + 1, self.column + 1)
            raise _failure(place, f"the file has more than {self._limit} parts, too many for a definition")
        super().fetch_more_tokens()

    def scan_to_next_token(self) -> None:
        """Pass over what is between tokens: also tabs where they do not indent, and the mark of each file joined.

        The library knows blanks alone; libyaml, by which the tools read that these files are for, goes past both.
        """
        super().scan_to_next_token()
        while self._at_mark() or self._at_tab():
            self.forward()
            super().scan_to_next_token()

    def _at_mark(self) -> bool:
        return bool(self.column == 0 and self.peek() == "\ufeff")

    def _at_tab(self) -> bool:
        """Whether there is a tab, and not one that indents: within brackets, behind a token, in an empty line."""
        if self.peek() != "\t":
            return False
        return bool(self.flow_level) or not self.allow_simple_key or self._at_end_of_line()

    def _at_end_of_line(self) -> bool:
        """Whether nothing but blanks follow in this line."""
        length = 0
        while self.peek(length) in _BLANKS:
            length += 1
        return self.peek(length) in _BREAKS

    def scan_plain_spaces(self, indent: int, start_mark: yaml.Mark) -> list[str] | None:
        """Read the blanks in or behind a plain text, tabs among them."""
        length = 0
        while self.peek(length) in _BLANKS:
            length += 1
        blanks = self.prefix(length)
        if "\t" not in blanks:
            return super().scan_plain_spaces(indent, start_mark)
        self.forward(length)
        return super().scan_plain_spaces(indent, start_mark) if self.peek() in _BREAKS else [blanks]

    def take(self) -> yaml.Event:
        """Return the next event."""
        event: yaml.Event = self.get_event()  # type: ignore[no-untyped-call]
        return event


class _Composer:
    """Builds the tree from parser events."""

    def __init__(self, tokens: _Tokens, file: str, findings: Findings) -> None:
        self._tokens = tokens
        self._file = file
        self._findings = findings
        self._anchors: dict[str, Node | None] = {}  # None = still being built

    def documents(self) -> list[Node]:
        """Return all documents that say something."""
        self._tokens.take()  # start of the stream
        roots: list[Node] = []
        weight = 0
        while not self._tokens.check_event(yaml.StreamEndEvent):
            self._tokens.take()  # start of the document
            self._anchors.clear()
            root = self._node(1)
            self._tokens.take()  # its end
            weight += root.weight
            if weight > MAX_DOCUMENTS_WEIGHT:
                raise _failure(root.origin, f"more than {MAX_DOCUMENTS_WEIGHT} values in all documents of the file")
            if not root.is_null:
                roots.append(root)
        return roots

    def _node(self, depth: int) -> Node:
        event = self._tokens.take()
        origin = self._origin(event)
        if depth > MAX_DEPTH:
            raise _failure(origin, f"nested deeper than {MAX_DEPTH} levels")
        assert isinstance(event, yaml.NodeEvent)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event.anchor or "", origin)
        if event.anchor is None:
            return self._content(event, origin, depth)
        self._anchors[event.anchor] = None
        self._anchors[event.anchor] = node = self._content(event, origin, depth)
        return node

    def _content(self, event: yaml.NodeEvent, origin: Origin, depth: int) -> Node:
        if isinstance(event, yaml.ScalarEvent):
            _check_tag(event.tag, _SCALAR_TAGS, origin)
            return Text(_clean(event.value, origin), origin, bool(event.implicit[0]))
        if isinstance(event, yaml.SequenceStartEvent):
            _check_tag(event.tag, _ITEMS_TAGS, origin)
            return Items(tuple(self._children(yaml.SequenceEndEvent, origin, depth)), origin)
        assert isinstance(event, yaml.MappingStartEvent)
        _check_tag(event.tag, _FIELDS_TAGS, origin)
        nodes = list(self._children(yaml.MappingEndEvent, origin, depth))
        return self._fields(list(zip(nodes[::2], nodes[1::2], strict=True)), origin)

    def _children(self, end: type[yaml.Event], origin: Origin, depth: int) -> Iterator[Node]:
        weight = 1
        while not self._tokens.check_event(end):
            node = self._node(depth + 1)
            weight += node.weight
            if weight > MAX_WEIGHT:
                message = f"more than {MAX_WEIGHT} values, those behind aliases counted each time they are used"
                raise _failure(origin, message, "a definition cannot be that large")
            yield node
        self._tokens.take()

    def _fields(self, pairs: list[tuple[Node, Node]], origin: Origin) -> Fields:
        own: dict[str, Entry] = {}
        merged: list[Entry] = []
        for key, value in pairs:
            if not isinstance(key, Text):
                raise _failure(key.origin, f"a key must be text, this is {key.kind}", "put it in quotes")
            if key.plain and key.value == _MERGE:
                merged.extend(_merged(value))
            elif key.value in own:
                self._duplicate(key, own[key.value][0].origin)
            else:
                own[key.value] = (key, value)
        return Fields(joined((*own.values(), *merged)), origin)

    def _duplicate(self, key: Text, first: Origin) -> None:
        message = f"duplicate key {quoted(key.value)}: it stands at {first.line}:{first.column} already"
        self._findings.error(key.origin, message, "keep one of the two")

    def _alias(self, anchor: str, origin: Origin) -> Node:
        if anchor not in self._anchors:
            raise _failure(origin, f"alias {quoted(anchor)} has no anchor before it")
        node = self._anchors[anchor]
        if node is None:
            raise _failure(origin, f"alias {quoted(anchor)} contains itself")
        return node

    def _origin(self, event: yaml.Event) -> Origin:
        assert event.start_mark is not None
        return Origin(self._file, event.start_mark.line + 1, event.start_mark.column + 1)


def _merged(value: Node) -> list[Entry]:
    """Return what a merge key adds, the earlier mapping of a list first."""
    sources = value.items if isinstance(value, Items) else (value,)
    entries: list[Entry] = []
    for source in sources:
        if not isinstance(source, Fields):
            raise _failure(source.origin, f"a merge key takes mappings, this is {source.kind}")
        entries.extend(source.entries)
    return entries


def _check_tag(tag: str | None, allowed: frozenset[str], origin: Origin) -> None:
    if tag is not None and tag not in allowed:
        shown = tag.replace(_CORE, "!!", 1) if tag.startswith(_CORE) else tag
        raise _failure(origin, f"the tag {quoted(shown)} is not allowed here", "write the value without a tag")


def _clean(value: str, origin: Origin) -> str:
    """Join surrogate pairs, as JSON writes them, and refuse what no program can be given."""
    if "\0" in value:
        raise _failure(origin, "a text contains a NUL character")
    try:
        return value.encode("utf-16", "surrogatepass").decode("utf-16") if not value.isascii() else value
    except UnicodeDecodeError as error:
        raise _failure(origin, "a text contains half of a surrogate pair") from error
