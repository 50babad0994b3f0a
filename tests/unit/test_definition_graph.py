"""Rules that take more than one operator: names, references, types, folders, cycles."""

from __future__ import annotations

from pathlib import Path

import pytest

from cpost.definition import load
from cpost.errors import DefinitionError
from cpost.model import DataType, Input, Pipeline


def graph(tmp_path: Path, *operators: str, version: str = "0.4.0") -> Pipeline:
    """Load a pipeline; each operator is "name; properties", on one line each, the first at line 4."""
    lines = [f"api-version: {version}", "name: p", "operators:"]
    for operator in operators:
        name, _, rest = operator.partition(";")
        lines.append(f"- {{name: {name}, container: {{image: i}}{',' + rest if rest else ''}}}")
    (tmp_path / "p.yaml").write_text("\n".join(lines))
    return load(tmp_path / "p.yaml")


def faults(tmp_path: Path, *operators: str, version: str = "0.4.0") -> list[tuple[int, str, str]]:
    with pytest.raises(DefinitionError) as caught:
        graph(tmp_path, *operators, version=version)
    return [(p.line, p.message, p.hint) for p in caught.value.problems]


OUT = "output: [{path: /out}]"
NAMED = "output: [{path: /x, name: x}, {path: /y, name: y}]"


def test_names_differ_by_more_than_letter_case(tmp_path: Path) -> None:
    ((line, message, _),) = faults(tmp_path, "a", "b", "A")
    assert (line, message) == (6, f'operator "A" has the name of the one at {tmp_path / "p.yaml"}:4:10')


def test_an_unknown_operator_is_answered_with_a_guess(tmp_path: Path) -> None:
    ((line, message, hint),) = faults(tmp_path, f"reader; {OUT}", "b; input: [{from: reder, path: /in}]")
    assert (line, message) == (5, 'unknown operator "reder" in from')
    assert hint == 'did you mean "reader"? operators are: reader, b'


def test_an_unknown_output_is_answered_with_a_guess(tmp_path: Path) -> None:
    ((line, message, hint),) = faults(tmp_path, f"a; {NAMED}", "b; input: [{from: a, name: xx, path: /in}]")
    assert (line, message) == (5, 'operator "a" has no output called "xx"')
    assert hint == 'did you mean "x"? its named outputs are: x, y'


def test_the_name_of_an_unnamed_output(tmp_path: Path) -> None:
    ((_, message, hint),) = faults(tmp_path, f"a; {OUT}", "b; input: [{from: a, name: x, path: /in}]")
    assert (message, hint) == ('operator "a" has no output called "x"', "its named outputs are: none")


def test_one_of_several_outputs_must_be_named(tmp_path: Path) -> None:
    ((line, message, hint),) = faults(tmp_path, f"a; {NAMED}", "b; input: [{from: a, path: /in}]")
    assert (line, message) == (5, 'operator "a" has 2 outputs, and this input does not say which one it reads')
    assert hint == "add name:, its outputs are: x, y"


def test_an_operator_without_output_cannot_be_read(tmp_path: Path) -> None:
    ((line, message, _),) = faults(tmp_path, "a", "b; input: [{from: a, path: /in}]")
    assert (line, message) == (5, 'operator "a" has no output to read')


def test_the_only_named_output_may_be_read_without_its_name(tmp_path: Path) -> None:
    pipeline = graph(tmp_path, "a; output: [{path: /x, name: x}]", "b; input: [{from: a, path: /in}]")
    assert pipeline.operators[1].inputs == (Input("/in", "a", None),)
    (line,) = pipeline.warnings
    assert 'reads the whole output folder of operator "a", in which "x" is a folder' in line


def test_references_are_spelt_as_declared(tmp_path: Path) -> None:
    pipeline = graph(tmp_path, f"Reader; {NAMED}", "b; input: [{from: READER, name: X, path: /in}]")
    assert pipeline.operators[1].inputs == (Input("/in", "Reader", "x"),)


def test_operators_may_be_used_before_they_are_written(tmp_path: Path) -> None:
    pipeline = graph(tmp_path, "b; input: [{from: a, path: /in}, {path: /p}]", f"a; {OUT}", "lone")
    assert [operator.name for operator in pipeline.operators] == ["b", "a", "lone"]


@pytest.mark.parametrize(
    ("ports", "kinds"),
    [
        ("input: [{path: /x}, {path: /x/}]", ("input", "input")),
        ("output: [{path: /x, name: a}, {path: //x, name: b}]", ("output", "output")),
        ("input: [{path: /x}], output: [{path: /x}]", ("input", "output")),
    ],
)
def test_a_folder_is_used_once(tmp_path: Path, ports: str, kinds: tuple[str, str]) -> None:
    ((_, message, _),) = faults(tmp_path, f"a; {ports}")
    assert message == f'operator "a" uses "/x" twice: for an {kinds[0]} and for an {kinds[1]}'


def test_outputs_have_names_of_their_own(tmp_path: Path) -> None:
    ((_, message, _),) = faults(tmp_path, "a; output: [{path: /x, name: o}, {path: /y, name: O}]")
    assert message == 'operator "a" has two outputs called "O"'
    ((_, message, _),) = faults(tmp_path, "a; output: [{path: /x}, {path: /y}]")
    assert message == 'operator "a" has two outputs without a name'
    (line,) = graph(tmp_path, "a; output: [{path: /x}, {path: /y, name: o}]").warnings
    assert line.endswith('an output of operator "a" has no name; it holds the folders of the other outputs')
    ((_, message, _),) = faults(tmp_path, "a; output: [{path: /x, name: ../../etc}]")
    assert '"../../etc" is not a name' in message


# ---------------------------------------------------------------- cycles


def test_an_operator_that_reads_itself(tmp_path: Path) -> None:
    ((line, message, _),) = faults(tmp_path, f"a; {OUT}, input: [{{from: A, path: /in}}]")
    assert (line, message) == (4, "operators wait for one another: a -> a")


def test_a_cycle_is_reported_with_its_path(tmp_path: Path) -> None:
    ((line, message, _),) = faults(
        tmp_path,
        f"start; {OUT}",
        f"a; {OUT}, input: [{{from: start, path: /s}}, {{from: c, path: /in}}]",
        f"b; {OUT}, input: [{{from: a, path: /in}}]",
        f"c; {OUT}, input: [{{from: b, path: /in}}]",
        "end; input: [{from: c, path: /in}]",
    )
    assert (line, message) == (5, "operators wait for one another: a -> b -> c -> a")


def test_two_cycles_are_both_reported(tmp_path: Path) -> None:
    found = faults(
        tmp_path,
        f"a; {OUT}, input: [{{from: b, path: /in}}]",
        f"b; {OUT}, input: [{{from: a, path: /in}}]",
        f"c; {OUT}, input: [{{from: c, path: /in}}]",
    )
    assert [message.partition(": ")[2] for _, message, _ in found] == ["a -> b -> a", "c -> c"]


def test_a_long_cycle_is_cut(tmp_path: Path) -> None:
    names = [f"n{index}" for index in range(40)]
    ring = zip(names, [names[-1], *names], strict=False)
    ((_, message, _),) = faults(tmp_path, *(f"{a}; {OUT}, input: [{{from: {b}, path: /in}}]" for a, b in ring))
    assert message.endswith("n18 -> n19 -> ... -> n0")


def test_independent_faults_come_in_the_order_of_the_file(tmp_path: Path) -> None:
    found = faults(
        tmp_path,
        f"a; {OUT}, input: [{{from: a, path: /in}}]",
        "b; requests: {cpu: x}, input: [{from: zz, path: in}]",
        "b; models: [{name: a/b}]",
    )
    assert [line for line, _, _ in found] == [4, 5, 5, 5, 6, 6]


# ---------------------------------------------------------------- types


def test_typed_items_are_read(tmp_path: Path) -> None:
    first, second = graph(
        tmp_path,
        "a; output: [{name: s, type: stream, element-type: dicom, path: /s}, {name: t, type: string},"
        "{name: r, type: array, element-type: u8, shape: [-1, 3]}, {name: f, type: f32}]",
        "b; input: [{from: a, name: s, type: stream, element-type: dicom, path: /s},"
        "{from: a, name: r, type: array, element-type: uint8, shape: [-1, 3]}, {from: a, name: f, type: float32}]",
        version="0.5.0",
    ).operators
    assert [output.data_type for output in first.outputs] == [
        DataType("stream", "dicom"),
        DataType("string"),
        DataType("array", "uint8", (-1, 3)),
        DataType("float32"),
    ]
    assert [item.path for item in second.inputs] == ["/s", None, None]
    assert [reason.split(" is passed")[0] for reason in first.unsupported] == [
        'output "t" of type string',
        'output "r" of type array',
        'output "f" of type float32',
    ]
    assert len(second.unsupported) == 2
    assert second.upstream == ("a",)


def test_streams_alone_can_be_run(tmp_path: Path) -> None:
    stream = "{name: s, type: stream, element-type: x, path: /s}"
    assert graph(tmp_path, f"a; output: [{stream}]", version="0.5.0").operators[0].unsupported == ()


@pytest.mark.parametrize(
    ("port", "message"),
    [
        ("name: o, type: stream, path: /s", "has no element-type"),
        ("name: o, type: stream, element-type: x", "has no path"),
        ("name: o, type: stream, element-type: x, path: /s, shape: [1]", "is of type stream, which has no shape"),
        ("name: o, type: array, element-type: u8", "has no shape"),
        ("name: o, type: array, shape: [1]", "has no element-type"),
        ("name: o, type: array, element-type: u8, shape: [1], path: /s", "is of type array, which has no path"),
        ("name: o, type: array, element-type: dicom, shape: [1]", '"dicom" is not a type'),
        ("name: o, type: array, element-type: u8, shape: []", "has an empty shape"),
        ("name: o, type: array, element-type: u8, shape: [0]", "a dimension of 0"),
        ("name: o, type: array, element-type: u8, shape: [-2]", '"-2" is negative'),
        ("name: o, type: array, element-type: u8, shape: 3", "must be a list"),
        ("name: o, type: string, element-type: u8", "is of type string, which has no element-type"),
        ("name: o, type: u8, path: /s", "is of type uint8, which has no path"),
        ("name: o, type: unit8", '"unit8" is not a type'),
        ("type: u8", "has no name"),
        ("path: /s, name: o, shape: [1]", "shape without a type"),
    ],
)
def test_a_type_has_its_own_properties(tmp_path: Path, port: str, message: str) -> None:
    found = faults(tmp_path, f"a; output: [{{{port}}}]", version="0.5.0")
    assert message in found[0][1]


def test_a_misspelt_type_is_answered_with_a_guess(tmp_path: Path) -> None:
    ((_, _, hint),) = faults(tmp_path, "a; output: [{name: o, type: steam}]", version="0.5.0")
    assert hint.startswith('did you mean "stream"? types are: stream, array, string, uint8')


@pytest.mark.parametrize("version", ["0.2.0", "0.3.0", "0.4.0", "0.4"])
def test_types_need_a_later_version(tmp_path: Path, version: str) -> None:
    ((line, message, hint),) = faults(tmp_path, "a; output: [{name: o, type: u8, path: /o}]", version=version)
    assert (line, message) == (4, "type needs api-version 0.5.0 or later")
    assert "raise api-version" in hint


def test_both_sides_of_a_connection_have_one_type(tmp_path: Path) -> None:
    ((line, message, _),) = faults(
        tmp_path,
        "a; output: [{name: o, type: array, element-type: u8, shape: [2]}]",
        "b; input: [{from: a, name: o, type: array, element-type: u8, shape: [3]}]",
        version="0.5.0",
    )
    assert line == 5
    assert message == (
        'this input is array of "uint8" in shape [3], but operator "a" writes array of "uint8" in shape [2]'
    )
