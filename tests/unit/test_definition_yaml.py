"""YAML as a hostile or clumsy author writes it: what is accepted, what is refused, and where."""

from __future__ import annotations

import codecs
import os
import time
from pathlib import Path

import pytest

from cpost.definition import load
from cpost.definition.findings import Findings
from cpost.definition.marks import Mapping, source_of, value_of
from cpost.definition.tree import Fields, Items, Text
from cpost.definition.yaml_source import parse
from cpost.errors import DefinitionError, ExitCode
from cpost.model import Operator, Pipeline

GOOD = "api-version: 0.4.0\nname: p\noperators:\n- name: a\n  container: {image: i}\n"
MB = 10**6


def read(tmp_path: Path, data: str | bytes) -> Pipeline:
    (tmp_path / "p.yaml").write_bytes(data.encode() if isinstance(data, str) else data)
    return load(tmp_path / "p.yaml")


def one(tmp_path: Path, data: str) -> Operator:
    return read(tmp_path, data).operators[0]


def fault(tmp_path: Path, data: str | bytes) -> tuple[str, str, str]:
    """Return place, message and hint of the only problem."""
    with pytest.raises(DefinitionError) as caught:
        read(tmp_path, data)
    (problem,) = caught.value.problems
    assert problem.file == str(tmp_path / "p.yaml")
    return f"{problem.line}:{problem.column}", problem.message, problem.hint


# ---------------------------------------------------------------- files


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.yaml", "the file does not exist"),
        ("p.yaml/x", "the file does not exist"),
        (".", "the file is a directory"),
        ("pipe", "the file cannot be read: it is not a regular file"),
        ("loop", "the file is a loop of symbolic links"),
        ("n" * 300, "the file has a name that is too long"),
        ("nul\0", "the file cannot be read: embedded null byte"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "p.yaml").write_text(GOOD)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(DefinitionError) as caught:
        load(f"{tmp_path}/{name}")
    (problem,) = caught.value.problems
    assert (problem.line, problem.column, problem.message) == (0, 0, message)
    assert problem.file.isprintable()
    assert caught.value.exit_code == ExitCode.USAGE


def test_a_file_without_the_right_to_read_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(DefinitionError, match="the file cannot be read: permission denied"):
        load(tmp_path / "p.yaml")


def test_any_kind_of_path(tmp_path: Path) -> None:
    (tmp_path / "p\udcff\x1b[m.yaml").write_text(GOOD)
    pipeline = load(str(tmp_path / "p\udcff\x1b[m.yaml"))
    assert pipeline.file == f"{tmp_path}/p\ufffd\\x1b[m.yaml"


def test_size(tmp_path: Path) -> None:
    comment = "#" * (256 * 1024 - len(GOOD) - 1) + "\n"
    assert read(tmp_path, comment + GOOD).name == "p"
    place, message, _ = fault(tmp_path, comment + GOOD + " ")
    assert (place, message) == ("0:0", "the file is too large: a definition with its imports may have 256 KiB")


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n", "---\n...\n"])
def test_a_file_without_content(tmp_path: Path, text: str) -> None:
    place, _, hint = fault(tmp_path, text)
    assert place.startswith("1:") or text.startswith("---")
    assert "Clara, Kubernetes, Argo Workflows or Docker Compose" in hint


@pytest.mark.parametrize(("text", "kind"), [("hello", "text"), ("- a\n- b\n", "a list"), ("42", "text")])
def test_a_file_of_another_kind(tmp_path: Path, text: str, kind: str) -> None:
    assert fault(tmp_path, text)[:2] == ("1:1", f"expected a mapping, this is {kind}")


# ---------------------------------------------------------------- encodings


@pytest.mark.parametrize(
    "data",
    [
        b"#!/bin/bash\n" + GOOD.encode(),
        codecs.BOM_UTF8 + GOOD.encode(),
        codecs.BOM_UTF8 + b"#!/bin/bash\n" + GOOD.encode(),
        GOOD.encode("utf-16"),
        codecs.BOM_UTF16_BE + GOOD.encode("utf-16-be"),
        GOOD.replace("\n", "\r\n").encode(),
        GOOD.replace("\n", "\r").encode(),
        b"%YAML 1.2\n---\n" + GOOD.encode() + b"...\n",
    ],
)
def test_accepted_encodings(tmp_path: Path, data: bytes) -> None:
    assert read(tmp_path, data).operators[0].name == "a"


def test_a_byte_that_is_not_utf8(tmp_path: Path) -> None:
    place, message, hint = fault(tmp_path, GOOD.encode() + "  é: ".encode() + b"\xe9\n")
    assert (place, message, hint) == ("6:6", "byte 0xe9 is not valid UTF-8", "save the file as UTF-8")


def test_other_encodings(tmp_path: Path) -> None:
    assert fault(tmp_path, GOOD.encode("utf-32")) == ("1:1", "the file is UTF-32", "save it as UTF-8")
    assert fault(tmp_path, GOOD.encode("utf-16") + b"\x00")[1] == "byte 0x00 is not valid UTF-16"
    place, message, hint = fault(tmp_path, GOOD.encode("utf-16-le"))
    assert (place, message) == ("1:2", "character U+0000 is not allowed in YAML")
    assert "UTF-16 without its mark" in hint


def test_control_characters(tmp_path: Path) -> None:
    place, message, hint = fault(tmp_path, GOOD + "  x: a\x1bb\n")
    assert (place, message) == ("6:7", "character U+001B is not allowed in YAML")
    assert "escape in double quotes" in hint


def test_escapes_of_json(tmp_path: Path) -> None:
    text = GOOD + '  variables: {A: "\\ud83d\\ude00", B: "\\u00e9\\x1b"}\n'
    assert one(tmp_path, text).env == (("A", "\U0001f600"), ("B", "\u00e9\x1b"))
    assert fault(tmp_path, text.replace("\\ude00", ""))[:2] == ("6:18", "a text contains half of a surrogate pair")
    assert fault(tmp_path, text.replace("\\x1b", "\\0"))[:2] == ("6:37", "a text contains a NUL character")


# ---------------------------------------------------------------- syntax


def test_tabs_are_named(tmp_path: Path) -> None:
    assert fault(tmp_path, GOOD + "\trequests: {}\n") == (
        "6:1", "a tab is used for indentation", "indent with spaces only",
    )  # fmt: skip
    assert fault(tmp_path, GOOD + "  \tcpu: 1\n")[1] == "a tab is used for indentation"
    assert fault(tmp_path, GOOD + "x: |\n\t# a\n")[1] == "a tab is used for indentation"
    assert fault(tmp_path, GOOD + "x:\n-\ta: b\n")[:2] == ("7:2", "a tab stands where only spaces are taken")
    assert fault(tmp_path, GOOD + "x:\n-\ty\n")[:2] == ("7:2", "a tab stands where only spaces are taken")


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("a:\tb\t\nc: d", {"a": "b", "c": "d"}),
        ("a:\tb\t# c\n", {"a": "b"}),
        ("a\t: b \t c\n", {"a": "b \t c"}),
        ("a: b\t\n  c\n", {"a": "b c"}),
        ("a: 'b'\t\nc:\t[d,\n\te]\t\n", {"a": "b", "c": ["d", "e"]}),
        ('{\n\t"a": [\n\t\t"b",\t"c"\n\t]\n}\n', {"a": ["b", "c"]}),
        ("a:\tb\n", {"a": "b"}),
        ("a: b\t\n", {"a": "b"}),
        ("\t\na:\n \t \n  b\n", {"a": "b"}),
        ("a:\t\n  b\n", {"a": "b"}),
        ("{a: b\n\t}\n", {"a": "b"}),
        ("---\t\na: &b\tc\nd: *b\t\n", {"a": "c", "d": "c"}),
    ],
)
def test_tabs_between_things_are_blanks(text: str, meaning: object) -> None:
    (root,) = parse(text.encode(), "f", Findings())
    assert plain(root) == meaning
    (root,) = source_of(text.encode(), "f").documents
    assert unmarked(value_of(root)) == meaning


def plain(node):
    if isinstance(node, Text):
        return node.value
    if isinstance(node, Items):
        return [plain(item) for item in node.items]
    return {key.value: plain(value) for key, value in node.entries}


def unmarked(value):
    if isinstance(value, tuple):
        return value[0]
    if isinstance(value, list):
        return [unmarked(item) for item in value]
    return {key: unmarked(each) for key, each in value.items()}


def test_the_places_behind_a_tab_are_those_of_the_text() -> None:
    text = '{\n\t"a":\t"b"\n}\n'
    (root,) = source_of(text.encode(), "f").documents
    assert isinstance(root, Mapping)
    value = root.own("a")
    assert value is not None
    assert text[value.start : value.end] == '"b"'


@pytest.mark.parametrize(
    "text", ["a: 1\n---\n\ufeffb: 2\n", "\ufeffa: 1\n\ufeff---\nb: 2\n", "a: 1\n---\n\ufeff# x\nb: 2\n"]
)
def test_files_joined_with_their_marks_are_documents(text: str) -> None:
    roots = parse(text.encode(), "f", Findings())
    assert [key.value for root in roots if isinstance(root, Fields) for key, _ in root.entries] == ["a", "b"]
    assert [value_of(root) for root in source_of(text.encode(), "f").documents] == [
        {"a": ("1", True, None)}, {"b": ("2", True, None)},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "place", "hint"),
    [
        ("  command: [a, ${{ X }}]\n", "6:17", "a placeholder must stand in quotes"),
        ("  {{- if .Values.x }}\n", "7:1", "a template of another tool"),
        ("  description: a: b\n", "6:17", 'put text that contains ": " in quotes'),
        ("  x: 'open\n", "7:1", ""),
        ("  x: %a\n", "6:6", ""),
        ("  x: *nothing\n", "6:6", ""),
        ('  x: "\\UFFFFFFFF"\n', "6:9", ""),
        ("  ? {a: b}\n  : c\n", "6:5", "put it in quotes"),
    ],
)
def test_syntax_errors_have_a_place(tmp_path: Path, line: str, place: str, hint: str) -> None:
    found, _, hinted = fault(tmp_path, GOOD + line)
    assert found == place
    assert hint in hinted


def test_duplicate_keys_name_both_places(tmp_path: Path) -> None:
    place, message, _ = fault(tmp_path, GOOD + "  variables:\n    A: 1\n    B: 2\n    A: 3\n")
    assert (place, message) == ("9:5", 'duplicate key "A": it stands at 7:5 already')


def test_a_second_document(tmp_path: Path) -> None:
    place, message, _ = fault(tmp_path, GOOD + "---\n" + GOOD)
    assert (place, message) == ("7:1", "a second YAML document starts here")


@pytest.mark.parametrize(
    "value",
    ["!!python/object/apply:os.system [x]", "!!python/name:os.system", "!Custom x", "!!set {a, b}", "!!binary eA=="],
)
def test_tags_that_build_objects_are_refused(tmp_path: Path, value: str) -> None:
    place, message, hint = fault(tmp_path, GOOD + f"  x: {value}\n")
    assert place == "6:6"
    assert message.startswith("the tag ")
    assert hint == "write the value without a tag"


def test_tags_of_plain_values_change_nothing(tmp_path: Path) -> None:
    text = GOOD + "  variables: {A: !!float ., B: !!int '', C: !!str 010, D: !!timestamp 2001-99-99, E: ! x}\n"
    assert [value for _, value in one(tmp_path, text).env] == [".", "", "010", "2001-99-99", "x"]


def test_values_that_break_a_constructor_are_texts(tmp_path: Path) -> None:
    digits = "9" * 5000
    text = GOOD + f"  variables: {{A: {digits}, B: 2001-99-99, C: 0x, D: 1__, E: .inf, F: 0b}}\n"
    assert [value for _, value in one(tmp_path, text).env] == [digits, "2001-99-99", "0x", "1__", ".inf", "0b"]


# ---------------------------------------------------------------- aliases, depth, size


def test_aliases_and_merge_keys(tmp_path: Path) -> None:
    text = (
        "api-version: 0.4.0\nname: p\noperators:\n"
        "- &first\n  name: a\n  container: &c {image: i, tag: 1}\n  variables: &v {A: 1, B: 2}\n"
        "- name: b\n  container: {<<: *c, tag: 2}\n  variables: {B: 3, <<: [{C: 4, A: 5}, *v]}\n"
        "- {<<: *first, name: c, variables: {'<<': x}}\n"
    )
    _, b, c = read(tmp_path, text).operators
    assert (b.image, dict(b.env)) == ("i:2", {"B": "3", "C": "4", "A": "5"})
    assert (c.name, c.image, c.env) == ("c", "i:1", (("<<", "x"),))


def test_a_merge_key_takes_mappings(tmp_path: Path) -> None:
    place, message, _ = fault(tmp_path, GOOD + "  variables: {<<: text}\n")
    assert (place, message) == ("6:19", "a merge key takes mappings, this is text")


@pytest.mark.parametrize("text", ["a: &x [*x]\n", "a: &x {b: {c: *x}}\n", "&x a: *x\n<<: &y {<<: *y}\n"])
def test_an_alias_inside_itself(tmp_path: Path, text: str) -> None:
    assert fault(tmp_path, text)[1].endswith(" contains itself")


def bomb(width: int, levels: int) -> str:
    first = f"a0: &a0 [{', '.join('x' * width)}]\n"
    return first + "".join(
        f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * width)}]\n" for level in range(1, levels)
    )


def test_an_alias_bomb(tmp_path: Path) -> None:
    place, message, _ = fault(tmp_path, bomb(9, 9) + GOOD)
    assert place == "5:5"
    assert message.startswith("more than 10000 values")


def test_parts_that_make_no_values_are_counted_too(tmp_path: Path) -> None:
    place, message, _ = fault(tmp_path, "%a b\n" * 31_000)
    assert (place, message) == ("30001:1", "the file has more than 30000 parts, too many for a definition")


def test_nesting(tmp_path: Path) -> None:
    nested = "description: ''\nx: " + "[" * 48 + "]" * 48 + "\n"
    assert read(tmp_path, GOOD + nested).name == "p"
    place, message, _ = fault(tmp_path, "x: " + "[" * 50 + "]" * 50)
    assert (place, message) == ("1:53", "nested deeper than 50 levels")


FULL = 256 * 1024
COSTLY = {
    "comments": "#x\n" * (FULL // 3),
    "blank lines": "\n" * FULL,
    "short lines": "a\n" * (FULL // 2),
    "folded lines": '"' + "a\n" * (FULL // 2 - 1) + '"',
    "small maps": "- {a: b}\n" * (FULL // 9),
    "flow": "[" + "a," * (FULL // 2 - 1) + "]",
    "open brackets": "[" * FULL,
    "open braces": "{" * FULL,
    "dashes": "- " * (FULL // 2),
    "directives": "%a b\n" * (FULL // 5),
    "unknown keys": GOOD + "".join(f"k{i}: v\n" for i in range(4900)),
    "duplicate keys": GOOD + "a: 1\n" * 4900,
    "unknown operators": "name: p\noperators:\n"
    + "".join(f"- {{name: n{i}, container: {{image: b}}, input: [{{from: x{i}, path: /i}}]}}\n" for i in range(650)),
    "placeholders": "parameters: {A: " + "x" * 100_000 + "}\n" + GOOD + "description: '" + "${{A}}" * 30_000 + "'\n",
    "open placeholders": GOOD + "description: '" + "${{" * 80_000 + "'\n",
    "aliased text": GOOD + "x: &a '" + "y" * 200_000 + "'\ny: [" + "*a," * 3000 + "]\n",
    "angle brackets": GOOD.replace("i}", f"'{'<' * 200_000}'}}"),
    "slashes": GOOD + f"  input: [{{path: '{'/' * 200_000}'}}]\n",
    "merged": "a: &a {" + ",".join(f"k{i}" for i in range(400)) + "}\n" + "b: {<<: [*a, *a, *a]}\n" * 9,
}  # fmt: skip


@pytest.mark.parametrize("name", COSTLY)
def test_no_file_costs_more_than_a_second(tmp_path: Path, name: str) -> None:
    (tmp_path / "p.yaml").write_text(COSTLY[name])
    start = time.process_time()
    try:
        load(tmp_path / "p.yaml")
    except DefinitionError as error:
        assert len(str(error)) < 1000  # noqa: PT017 - some of the files are valid
    assert time.process_time() - start < 1


def test_no_more_than_a_hundred_problems_are_kept(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError) as caught:
        read(tmp_path, COSTLY["unknown operators"])
    assert len(caught.value.problems) == 100
    assert len(read(tmp_path, COSTLY["unknown keys"]).warnings) == 100


# ---------------------------------------------------------------- files of other tools


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("apiVersion: argoproj.io/v1alpha1\nkind: EventSource\n", "an Argo EventSource"),
        ("apiVersion: tekton.dev/v1\nkind: Task\n", "a Tekton pipeline"),
        ("#!/usr/bin/env cwl-runner\ncwlVersion: v1.2\nclass: Workflow\n", "a CWL document"),
        ("on: push\njobs: {}\n", "a GitHub Actions workflow"),
        ("pipelineInfo: {}\ndeploymentSpec: {}\n", "a compiled Kubeflow pipeline"),
        ("application: {}\nresources: {}\n", "the configuration of a MONAI application package"),
    ],
)
def test_files_of_other_tools_are_named(tmp_path: Path, text: str, what: str) -> None:
    place, message, hint = fault(tmp_path, text)
    assert (place, message) == ("1:1", f"this looks like {what}, which cpost does not read")
    assert hint.startswith("cpost reads Clara pipeline definitions")


def test_files_of_other_tools_are_known_by_name(tmp_path: Path) -> None:
    (tmp_path / "main.nf").write_text("process x { }")
    with pytest.raises(DefinitionError, match="a Nextflow pipeline"):
        load(tmp_path / "main.nf")
