"""Changes of single values in a YAML or JSON text, as edits at the places of its nodes: nothing else is touched.

What a container has through an alias or a merge key is never changed where it is written, for others have it too: the
container gets a key of its own, with everything copied that stood beside it there, because an own key hides all of a
merged one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from cpost.definition import marks
from cpost.definition.marks import Alias, Mapping, Node, Scalar, Source, Value, resolved

_DEFAULT_STEP = 2
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?")  # as JSON and YAML both write it
_CORE = "tag:yaml.org,2002:"


@dataclass(frozen=True, slots=True)
class New:
    """A value to write.

    Attributes:
        kind: "number" and "word" are written plain (in JSON a word in quotes), "text" in quotes; an old value's own
            quotes, or that it has none, are kept, as far as JSON and the value's tag allow.
    """

    text: str
    kind: Literal["number", "word", "text"] = "word"


Wants: TypeAlias = "dict[str, New | Wants]"
# What is to be written: keys and scalars as they will stand there.
_Tree: TypeAlias = "dict[str, _Tree] | list[_Tree] | str"


@dataclass(frozen=True, slots=True)
class Edit:
    """`text[start:end]` becomes `text`."""

    start: int
    end: int
    text: str


class Unsafe(Exception):
    """A value cannot be written without a risk to what is around it; the message says why."""


def edited(text: str, edits: Iterable[Edit]) -> str:
    """The text with all edits made; those at one place in the order given."""
    parts, position = [], 0
    for edit in sorted(edits, key=lambda each: each.start):
        parts += [text[position : edit.start], edit.text]
        position = edit.end
    return "".join((*parts, text[position:]))


def edits_for(source: Source, container: Mapping, wants: Wants, after: Sequence[str] = ()) -> list[Edit]:
    """The edits that give a mapping the values wanted.

    Args:
        container: a node of `source`.
        wants: values by key, for nested mappings likewise.
        after: a new key of the container goes behind the first of these that it has, else behind its last.

    Raises:
        Unsafe: it holds something else than a mapping or a single value in such a place.
    """
    editor = _Editor(source, container)
    editor.amend(container, wants, after)
    return editor.edits


def intended(value: Value, path: Sequence[str | int], wants: Wants) -> None:
    """Put what is wanted below `path` into what a text means (`marks.value_of`)."""
    here: Any = value
    for key in path:
        here = here[key]
    _overlay(here, wants)


def fulfils(found: Value, wanted: Value | New) -> bool:
    """Whether a text means exactly what is wanted: of new values the text counts, of all others everything."""
    if isinstance(wanted, New):
        return isinstance(found, tuple) and found[0] == wanted.text
    if isinstance(found, dict) and isinstance(wanted, dict):
        return found.keys() == wanted.keys() and all(fulfils(found[key], wanted[key]) for key in wanted)
    if isinstance(found, list) and isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(fulfils, found, wanted))
    return found == wanted


def _overlay(value: dict[str, Any], wants: Wants) -> None:
    for key, want in wants.items():
        if isinstance(want, New):
            value[key] = want
            continue
        below = value.get(key)
        if not isinstance(below, dict):
            value[key] = below = {}
        _overlay(below, want)


def _require_fit(old: Scalar, new: New) -> None:
    """A tag of YAML's own says what the value is, a number for instance; an application's own says nothing of it."""
    kind = (old.tag or "").removeprefix(_CORE)
    number = _NUMBER.fullmatch(new.text)
    fits = kind in ("", "str") or (number is not None and (kind == "float" or (kind == "int" and not number[2])))
    if (old.tag or "").startswith(_CORE) and not fits:
        raise Unsafe(f"its tag !!{kind} does not allow {new.text}: remove the tag")


# ---------------------------------------------------------------- edits


class _Editor:
    def __init__(self, source: Source, container: Mapping) -> None:
        self._text = source.text
        self._json = source.text.lstrip()[:1] in ("{", "[") and marks.is_json(source.text)
        steps = (self._depth(each) for each in (container, *source.documents))
        self._step = next((step for step in steps if step > 0), _DEFAULT_STEP)
        self.edits: list[Edit] = []

    def amend(self, mapping: Mapping, wants: Wants, after: Sequence[str] = ()) -> None:
        missing: dict[str, _Tree] = {}
        for key, want in wants.items():
            own = mapping.own(key)
            if own is None:
                missing[self._key(key)] = self._copy(mapping.merged(key), want, flow=mapping.flow)
            elif isinstance(want, New):
                self._require_colon(mapping, key)
                self._scalar(own, want)
            elif isinstance(own, Mapping) and own.entries:
                self.amend(own, want)
            else:
                self._require_colon(mapping, key)
                self._fill(mapping, own, want)
        if missing:
            # After what was edited below, so that both come in this order where they come at one place.
            if mapping.flow:
                self._insert_flow(mapping, missing)
            else:
                self._insert_block(mapping, missing, after)

    def _scalar(self, old: Node, new: New) -> None:
        if isinstance(old, Alias) and isinstance(resolved(old), Scalar):
            self._replace(old, self._fresh(new))
        elif not isinstance(old, Scalar) or old.style in ("|", ">"):
            raise Unsafe("it is not a single value on one line")
        elif old.is_null:
            self._replace(old, ("" if old.end > old.start else " ") + self._fresh(new))
        else:
            _require_fit(old, new)
            bare = not old.style and self._json and not _NUMBER.fullmatch(new.text)
            self._replace(old, json.dumps(new.text) if bare else f"{old.style}{new.text}{old.style}")

    def _require_colon(self, mapping: Mapping, name: str) -> None:
        """A key in brackets may stand without a colon, and then takes no value."""
        key, value = next(entry for entry in reversed(mapping.entries) if entry[0].value == name)
        if mapping.flow and value.start == value.end and ":" not in self._text[key.end : value.start]:
            raise Unsafe(f"{name} is written without a colon, so that no value can be put there")

    def _fill(self, parent: Mapping, old: Node, want: Wants) -> None:
        """Put a mapping in the place of nothing, of `{}` or of an alias."""
        if not (old.is_null or isinstance(resolved(old), Mapping)):
            raise Unsafe("a list or a text stands where a mapping belongs")
        tree = self._copy(old, want, flow=parent.flow)
        assert isinstance(tree, dict)
        self._require_bare(old)
        if parent.flow:
            gap = "" if old.end > old.start else " "
            self._replace(old, gap + self._flow(tree, self._padding(parent)))
            return
        rest_end = self._line_end(old.end)
        start, end = old.start, old.end
        if self._text[end:rest_end].strip(" \t"):
            end += len(self._text[end:rest_end]) - len(self._text[end:rest_end].lstrip(" \t"))
        if not self._text[end:rest_end].strip(" \t"):
            start = len(self._text[:start].rstrip(" \t"))
        if old.end > old.start:
            self.edits.append(Edit(start, end, ""))
        step = self._depth(parent) or self._step
        self._insert_lines(rest_end, self._block(tree, self._column(parent) + step, step))

    def _require_bare(self, old: Node) -> None:
        """Braces that a comment stands in cannot be replaced without it."""
        if isinstance(old, Mapping) and "#" in self._text[old.start : old.end]:
            raise Unsafe("a comment stands in its empty braces: move it out of them")

    def _insert_block(self, mapping: Mapping, tree: dict[str, _Tree], after: Sequence[str]) -> None:
        column = self._column(mapping)
        lines = self._block(tree, column, self._depth(mapping) or self._step)
        for end in self._ends(mapping, after):
            if end is not None:
                self._insert_lines(end, lines)
                return
        # Behind a block text that the file's end cuts off nothing can follow.
        newline, first = self._newline(mapping.start), mapping.start
        self.edits.append(Edit(first, first, newline.join((*lines, " " * column)).removeprefix(" " * column)))

    def _ends(self, mapping: Mapping, after: Sequence[str]) -> Iterator[int | None]:
        """Where the lines of entries end, the best place for a new key first."""
        named = (mapping.own(key) for key in after)
        values = [next((value for value in named if value is not None), None), mapping.entries[-1][1]]
        for value in (*values, *(value for _, value in mapping.entries)):
            if value is not None:
                yield self._end(value)

    def _end(self, value: Node) -> int | None:
        last = value
        while isinstance(last, Mapping | marks.Sequence) and not last.flow:
            last = last.entries[-1][1] if isinstance(last, Mapping) else last.items[-1]
        if not (isinstance(last, Scalar) and last.style in ("|", ">")):
            return self._line_end(last.end)
        header = self._text[last.start : self._line_end(last.start)]
        if not self._text[last.start : last.end].endswith(("\n", "\r")):
            return None
        end = last.end
        if "+" not in header.split("#")[0]:  # empty lines below are not part of the text
            end = last.start + len(self._text[last.start : end].rstrip())
            return self._line_end(end)
        return end - (2 if self._text[:end].endswith("\r\n") else 1)

    def _insert_lines(self, end: int, lines: Sequence[str]) -> None:
        """Add lines behind the line that ends at `end`."""
        newline = self._newline(end)
        self.edits.append(Edit(end, end, "".join(newline + line for line in lines)))

    def _insert_flow(self, mapping: Mapping, tree: dict[str, _Tree]) -> None:
        if not mapping.entries:
            self._require_bare(mapping)
            self._replace(mapping, self._flow(tree, ""))
            return
        padding = self._padding(mapping)
        lead = padding if padding else " " if self._spaced(mapping) else ""
        colon = ":" if self._json and not self._colon_spaced(mapping) else ": "  # a plain key needs the blank
        entries = (f"{key}{colon}{self._flow(value, padding, colon)}" for key, value in tree.items())
        end = mapping.entries[-1][1].end
        self.edits.append(Edit(end, end, "".join(f",{lead}{entry}" for entry in entries)))

    def _replace(self, node: Node, text: str) -> None:
        self.edits.append(Edit(node.start, node.end, text))

    # ------------------------------------------------------------ places

    def _line_end(self, index: int) -> int:
        ends = (self._text.find(char, index) for char in "\r\n")
        return min((end for end in ends if end >= 0), default=len(self._text))

    def _newline(self, index: int) -> str:
        """The line break at a line's end; at the end of the file, the first one of the file."""
        at = index if self._text[index : index + 1] in ("\r", "\n") else self._line_end(0)
        found = self._text[at : at + 2]
        return found if found == "\r\n" else found[:1] or "\n"

    def _column(self, mapping: Mapping) -> int:
        start = mapping.entries[0][0].start if mapping.entries else mapping.start
        return start - max(self._text.rfind(char, 0, start) for char in "\r\n") - 1

    def _depth(self, node: Node) -> int:
        """How much deeper a mapping stands than the one that it is in, by the first that shows it; 0 = none does."""
        values = node.items if isinstance(node, marks.Sequence) else ()
        if isinstance(node, Mapping):
            values = tuple(value for _, value in node.entries)
            nested = (each for each in values if isinstance(each, Mapping) and each.entries)
            below = next((each for each in nested if not each.flow or self._padding(each)), None)
            if below is not None and (not node.flow or self._padding(node)):
                return self._column(below) - self._column(node)
        return next((depth for value in values if (depth := self._depth(value)) > 0), 0)

    def _padding(self, mapping: Mapping) -> str:
        """Line break and indentation before the last key of a flow mapping; empty where it is on one line."""
        if not mapping.entries:
            return ""
        key = mapping.entries[-1][0]
        before = self._text[mapping.start : key.start]
        blank = before[len(before.rstrip()) :]
        return blank[max(blank.rfind("\n"), blank.rfind("\r")) - ("\r\n" in blank) :] if "\n" in blank else ""

    def _spaced(self, mapping: Mapping) -> bool:
        if len(mapping.entries) < 2:
            return self._colon_spaced(mapping)
        before = self._text[mapping.entries[-2][1].end : mapping.entries[-1][0].start]
        return before != ","

    def _colon_spaced(self, mapping: Mapping) -> bool:
        key, value = mapping.entries[-1]
        return self._text[key.end : value.start] != ":" or value.start == value.end

    # ------------------------------------------------------------ what to write

    def _key(self, key: str) -> str:
        return json.dumps(key) if self._json else key

    def _fresh(self, new: New) -> str:
        quoted = new.kind == "text" or (self._json and new.kind == "word")
        return json.dumps(new.text) if quoted else new.text

    def _copy(self, old: Node | None, want: New | Wants, *, flow: bool) -> _Tree:
        """What is to stand there: the old value's own parts and what is wanted."""
        if isinstance(want, New):
            return self._fresh(want)
        old = resolved(old) if old is not None else None
        if old is not None and not old.is_null and not isinstance(old, Mapping):
            raise Unsafe("a list or a text stands where a mapping belongs")
        tree = self._literal(old, flow=flow) if isinstance(old, Mapping) else {}
        assert isinstance(tree, dict)
        for key, each in want.items():
            below = old.get(key) if isinstance(old, Mapping) else None
            tree[self._key(key)] = self._copy(below, each, flow=flow)
        return tree

    def _literal(self, node: Node, *, flow: bool) -> _Tree:
        node = resolved(node)
        written = self._text[node.start : node.end]
        if isinstance(node, marks.Sequence):
            if node.flow and not set(written) & set("\r\n*&!#"):
                return written
            return [self._literal(item, flow=flow) for item in node.items]
        if isinstance(node, Mapping):
            names = marks.names_of(node)
            return {self._plain(name): self._literal(node.get(name) or _NULL, flow=flow) for name in names}
        assert isinstance(node, Scalar)
        if node.tag is not None:
            raise Unsafe("what would have to be copied has a tag")
        if node.is_null:
            return "null"
        one_line = node.style not in ("|", ">") and "\n" not in written and "\r" not in written
        if one_line and (node.style or not flow or not set(written) & set(",[]{}")):
            return written
        return json.dumps(node.value, ensure_ascii=False)

    def _plain(self, key: str) -> str:
        simple = key.isascii() and key.replace("_", "").replace("-", "").replace(".", "").isalnum()
        return key if simple and not key[0].isdigit() and not self._json else json.dumps(key, ensure_ascii=False)

    def _block(self, tree: dict[str, _Tree], column: int, step: int) -> list[str]:
        lines: list[str] = []
        for key, value in tree.items():
            start = f"{' ' * column}{key}:"
            if isinstance(value, dict) and value:
                lines += [start, *self._block(value, column + step, step)]
            elif isinstance(value, list) and value:
                lines += [start, *self._block_items(value, column + step, step)]
            else:
                lines.append(f"{start} {self._flow(value, '')}")
        return lines

    def _block_items(self, items: list[_Tree], column: int, step: int) -> list[str]:
        lines: list[str] = []
        for item in items:
            if isinstance(item, dict) and item:
                first, *more = self._block(item, column + 2, step)
                lines += [f"{' ' * column}- {first[column + 2 :]}", *more]
            else:
                lines.append(f"{' ' * column}- {self._flow(item, '')}")
        return lines

    def _flow(self, tree: _Tree, padding: str, colon: str = ": ") -> str:
        """A value in brackets; with `padding`, that of the key it is for, over several lines."""
        if isinstance(tree, str):
            return tree
        comma = ", " if colon == ": " else ","
        if isinstance(tree, list):
            return f"[{comma.join(self._flow(item, '', colon) for item in tree)}]"
        inner = padding + ("\t" if "\t" in padding else " " * self._step) if padding else ""
        entries = [f"{key}{colon}{self._flow(value, inner, colon)}" for key, value in tree.items()]
        if padding and entries:
            return f"{{{inner}{f',{inner}'.join(entries)}{padding}}}"
        return f"{{{comma.join(entries)}}}"


_NULL = Scalar("null", 0, 0)
