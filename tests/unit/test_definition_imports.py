"""Placeholders, arguments, imports and the digest."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from cpost.definition import load
from cpost.errors import DefinitionError, Problem
from cpost.model import Pipeline

HEADER = "api-version: 0.4.0\nname: p\n"
OPERATOR = "name: inner\nparameters: {TAG: '1', SRC: x}\ncontainer: {image: i, tag: '${{TAG}}'}\n"


def write(tmp_path: Path, **files: str) -> Path:
    """Write `name` as name.yaml, `folder__name` as folder/name.yaml; return the path of top.yaml."""
    for name, text in files.items():
        path = tmp_path / f"{name.replace('__', '/')}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return tmp_path / "top.yaml"


def read(tmp_path: Path, **files: str) -> Pipeline:
    return load(write(tmp_path, **files))


def faults(tmp_path: Path, **files: str) -> list[tuple[str, str, str]]:
    """Return place (with the file's name), message and hint of each problem."""
    return refused(write(tmp_path, **files), {})


def refused(path: Path, args: dict[str, str]) -> list[tuple[str, str, str]]:
    with pytest.raises(DefinitionError) as caught:
        load(path, args)
    return [(place(path.parent, problem), problem.message, problem.hint) for problem in caught.value.problems]


def place(tmp_path: Path, problem: Problem) -> str:
    return f"{problem.file.removeprefix(f'{tmp_path}/')}:{problem.line}:{problem.column}"


def importing(path: str, more: str = "") -> str:
    return f"{HEADER}operators:\n- import:\n    path: {path}\n{more}"


# ---------------------------------------------------------------- placeholders


def test_a_placeholder_is_any_part_of_any_scalar(tmp_path: Path) -> None:
    text = (
        "api-version: 0.4.0\nname: ${{ N }}\nparameters: {N: net, V: 1.10, W: /w, DIR: ''}\noperators:\n"
        "- name: ${{N}}-a\n  container: {image: 'r/${{ n }}', tag: '${{V}}', command: ['$X $(N) ${N} ${{N}}b${{V}}']}\n"
        "  variables: {'${{N}}': '${{DIR}}'}\n  requests: {cpu: '${{ C }}'}\n  output: [{path: '${{W}}/o'}]\n"
        "- name: b\n  container: {image: i}\n  input: [{from: '${{ N }}-a', path: /in}]\n"
    ).replace("DIR: ''", "DIR: '', C: 3")
    pipeline = read(tmp_path, top=text)
    first, second = pipeline.operators
    assert (pipeline.name, first.name, first.image) == ("net", "net-a", "r/net:1.10")
    assert first.command == ("$X $(N) ${N} netb1.10",)
    assert first.env == (("net", ""),)
    assert (first.requests.cpu_millicores, first.outputs[0].path) == (3000, "/w/o")
    assert second.upstream == ("net-a",)


def test_arguments_go_over_defaults(tmp_path: Path) -> None:
    text = HEADER + "parameters: {A: 1, B: 2}\noperators: [{name: a, container: {image: 'i:${{A}}.${{B}}'}}]\n"
    assert load(write(tmp_path, top=text), {"b": "3"}).operators[0].image == "i:1.3"


def test_a_value_is_not_read_again(tmp_path: Path) -> None:
    text = (
        HEADER + "parameters: {A: '${{B}}', B: 2}\noperators: [{name: a, container: {image: i, command: ['${{A}}']}}]\n"
    )
    assert read(tmp_path, top=text).operators[0].command == ("${{B}}",)


def test_undeclared_names_are_all_listed(tmp_path: Path) -> None:
    text = (
        HEADER
        + "parameters: {TAG: 1}\noperators:\n- name: a\n  container: {image: 'i${{X}}', tag: '${{ TAB }}${{X}}'}\n"
    )
    ((at, message, hint),) = faults(tmp_path, top=text)
    assert at == "top.yaml:6:22"
    assert message == 'undeclared parameters in placeholders: "X" (6:22), "TAB" (6:38)'
    assert hint == "declared parameters are: TAG"


def test_a_name_that_cannot_be_filled_has_no_further_consequence(tmp_path: Path) -> None:
    text = HEADER + (
        "operators:\n- name: '${{A}}'\n  container: {image: '${{B}}', tag: '${{C}}'}\n  requests: {cpu: '${{D}}'}\n"
        "  input: '${{E}}'\n  variables: {'${{F}}': '${{G}}'}\n"
        "- {name: b, container: {image: i}, input: [{from: x, path: /}]}\n"
    )
    found = faults(tmp_path, top=text)
    assert [at for at, _, _ in found] == ["top.yaml:4:9", "top.yaml:9:60"]
    assert found[0][1].count("(") == 7


@pytest.mark.parametrize("text", ["${{ a", "${{ {a} }}", "${{ a }", "${{"])
def test_a_placeholder_that_does_not_end(tmp_path: Path, text: str) -> None:
    found = faults(tmp_path, top=f"{HEADER}description: '{text}'\noperators: [{{name: a, container: {{image: i}}}}]\n")
    assert [entry[:2] for entry in found] == [("top.yaml:3:14", "a placeholder starts with ${{ but does not end")]


def test_arguments_without_a_parameter(tmp_path: Path) -> None:
    text = HEADER + "parameters: {TAG: 1}\noperators: [{name: a, container: {image: i}}]\n"
    found = refused(write(tmp_path, top=text), {"TAB": "1", "TAG": "2", "N\0": "1"})
    assert found == [
        ("top.yaml:0:0", 'argument "N\\x00" is not plain text', "remove NUL and broken characters"),
        ("top.yaml:0:0", 'no parameter is called "TAB"', 'did you mean "TAG"? parameters are: TAG'),
    ]


def test_parameters_are_texts_with_names_of_their_own(tmp_path: Path) -> None:
    text = HEADER + "parameters: {A: [1], b: 1, B: 2}\noperators: [{name: a, container: {image: i}}]\n"
    assert [entry[:2] for entry in faults(tmp_path, top=text)] == [
        ("top.yaml:3:17", 'the default of parameter "A" must be text, this is a list'),
        ("top.yaml:3:28", 'parameter "B" is declared twice'),
    ]


def test_placeholders_cannot_grow_a_file_without_end(tmp_path: Path) -> None:
    text = f"{HEADER}parameters: {{A: {'x' * 100_000}}}\ndescription: '{'${{A}}' * 11}'\n"
    ((at, message, _),) = faults(tmp_path, top=text)
    assert (at, message) == ("top.yaml:4:14", "placeholders grow the file beyond 1000000 characters")


# ---------------------------------------------------------------- imports


@pytest.mark.parametrize(
    "inner",
    [
        OPERATOR,
        "api-version: 0.4.0\n" + OPERATOR,
        "api-version: 0.2.0\nname: sub\nparameters: {TAG: 1}\noperators:\n"
        "- {name: inner, container: {image: i, tag: '${{ TAG }}'}}\n",
    ],
)
def test_a_file_with_an_operator_or_a_pipeline_of_one(tmp_path: Path, inner: str) -> None:
    pipeline = read(tmp_path, top=importing("sub/op.yaml"), sub__op=inner)
    (operator,) = pipeline.operators
    assert (operator.name, operator.image, pipeline.warnings) == ("inner", "i:1", ())


def test_arguments_and_overrides(tmp_path: Path) -> None:
    inner = (
        OPERATOR + "variables: {A: 1, B: 2}\nrequests: {cpu: 1, memory: 5}\ninput: [{from: '${{SRC}}', path: /in}]\n"
    )
    top = (
        HEADER + "parameters: {V: 7}\noperators:\n- {name: x, container: {image: i}, output: [{path: /o}]}\n"
        "- name: mine\n  import: {path: op.yaml, args: {tag: '${{ V }}'}}\n  variables: {C: 3}\n"
        "- import: {path: ./op.yaml}\n  requests: {gpu: 1}\n"
    )
    _, mine, other = read(tmp_path, top=top, op=inner).operators
    assert (mine.name, mine.image, mine.env) == ("mine", "i:7", (("C", "3"),))
    assert (mine.requests.cpu_millicores, mine.requests.memory_bytes, mine.upstream) == (1000, 5 * 10**6, ("x",))
    assert (other.name, other.image, other.requests.cpu_millicores, other.requests.gpu_count) == (
        "inner",
        "i:1",
        None,
        1,
    )
    assert mine.origin is not None
    assert (mine.origin.file, mine.origin.line) == (str(tmp_path / "top.yaml"), 6)


def test_an_override_of_container_replaces_all_of_it(tmp_path: Path) -> None:
    found = faults(tmp_path, top=importing("op.yaml", "  container: {tag: 3}\n"), op=OPERATOR)
    assert [entry[:2] for entry in found] == [("top.yaml:6:14", 'the container of operator "inner" has no image')]


def test_imports_are_relative_to_the_file_that_holds_them(tmp_path: Path) -> None:
    pipeline = read(
        tmp_path,
        top=importing("a/one.yaml"),
        a__one="import: {path: ../b/two.yaml, args: {V: '${{ V }}2'}}\nparameters: {V: 1}\n",
        b__two="name: two\nparameters: {V: 0}\ncontainer: {image: 'i:${{V}}'}\nservices: [{import: {path: s.yaml}}]\n",
        b__s="name: s\ncontainer: {image: s}\n",
    )
    (operator,) = pipeline.operators
    assert (operator.name, operator.image, operator.services[0].image) == ("two", "i:12", "s:latest")


def test_faults_of_an_imported_file_are_placed_in_it(tmp_path: Path) -> None:
    found = faults(
        tmp_path,
        top=importing("op.yaml") + "- name: b\n  container: {image: A}\n",
        op=OPERATOR + "requests: {cpu: x}\nzzz: ${{ Q }}\n",
    )
    assert [at for at, _, _ in found] == ["top.yaml:7:22", "op.yaml:4:17", "op.yaml:5:6"]


def test_services_take_no_arguments(tmp_path: Path) -> None:
    top = HEADER + (
        "operators:\n- name: a\n  container: {image: i}\n  services:\n"
        "  - import: {path: s.yaml, args: {X: 1}}\n    variables: {V: 2}\n"
    )
    pipeline = read(tmp_path, top=top, s="name: s\ncontainer: {image: t, command: ['${{ X }}']}\nvariables: {V: 1}\n")
    (service,) = pipeline.operators[0].services
    assert (service.name, service.command, service.env) == ("s", ("${{ X }}",), (("V", "2"),))
    assert [line.removeprefix(f"{tmp_path}/") for line in pipeline.warnings] == [
        "top.yaml:7:34: a service is no template: the arguments of its import are ignored"
    ]


def test_arguments_of_an_import_without_a_parameter(tmp_path: Path) -> None:
    ((at, message, hint),) = faults(tmp_path, top=importing("op.yaml", "    args: {TAX: 1}\n"), op=OPERATOR)
    assert (at, message) == ("top.yaml:6:12", 'no parameter is called "TAX"')
    assert hint == 'did you mean "TAG"? parameters are: TAG, SRC'


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("gone.yaml", 'imported file "{}/gone.yaml" does not exist'),
        (".", 'imported file "{}" is a directory'),
        ("/etc/hostname", 'import path "/etc/hostname" is not relative'),
        ("''", 'import path "" is not relative'),
        ('"a\\e[31m"', 'imported file "{}/a\\x1b[31m" does not exist'),
    ],
)
def test_imports_that_lead_nowhere(tmp_path: Path, path: str, message: str) -> None:
    top = importing(path) + "- name: b\n  container: {image: i}\n  input: [{from: inner, path: /in}]\n"
    found = faults(tmp_path, top=top)
    assert [entry[:2] for entry in found] == [("top.yaml:5:11", message.format(tmp_path))]


def test_an_import_needs_a_path(tmp_path: Path) -> None:
    text = HEADER + "operators:\n- import: {file: x.yaml}\n- import: x.yaml\n- text\n"
    assert [entry[:2] for entry in faults(tmp_path, top=text)] == [
        ("top.yaml:4:11", "import has no path"),
        ("top.yaml:5:11", "import of this operator must be a mapping, this is text"),
        ("top.yaml:6:3", "each operator must be a mapping, this is text"),
    ]


def test_a_pipeline_of_two_cannot_stand_for_one(tmp_path: Path) -> None:
    two = HEADER + "operators: [{name: a, container: {image: i}}, {name: b, container: {image: i}}]\n"
    ((at, message, _),) = faults(tmp_path, top=importing("two.yaml"), two=two)
    assert (at, message) == ("top.yaml:5:11", "the imported file has 2 operators; an import stands for one")


def test_import_cycles_are_reported_with_their_path(tmp_path: Path) -> None:
    chain = {"a": "import: {path: ./b.yaml}\n", "b": "import: {path: x/../c.yaml}\n", "c": "import: {path: a.yaml}\n"}
    (tmp_path / "x").mkdir()
    ((at, message, _),) = faults(tmp_path, top=importing("a.yaml"), **chain)
    a, b, c = (str(tmp_path / f"{name}.yaml") for name in "abc")
    assert (at, message) == ("c.yaml:1:16", f"import cycle: {a} -> {b} -> {c} -> {a}")
    ((_, message, _),) = faults(tmp_path, top=importing("top.yaml"))
    assert message == f"import cycle: {tmp_path / 'top.yaml'} -> {tmp_path / 'top.yaml'}"
    service = "import: {path: s.yaml}\n"
    top = HEADER + "operators:\n- {name: a, container: {image: i}, services: [{import: {path: s.yaml}}]}\n"
    ((_, message, _),) = faults(tmp_path, top=top, s=service)
    assert message.startswith("import cycle: ")


def test_a_chain_of_imports_ends(tmp_path: Path) -> None:
    chain = {f"f{i}": f"import: {{path: f{i + 1}.yaml}}\n" for i in range(40)}
    ((_, message, _),) = faults(tmp_path, top=importing("f0.yaml"), **chain)
    assert message == "more than 20 files import one another in a chain"


def test_the_number_of_files_is_limited(tmp_path: Path) -> None:
    files = {f"f{i}": f"name: n{i}\ncontainer: {{image: i}}\n" for i in range(100)}
    top = HEADER + "operators:\n" + "".join(f"- import: {{path: f{i}.yaml}}\n" for i in range(100))
    ((at, message, _),) = faults(tmp_path, top=top, **files)
    assert (at, message) == ("top.yaml:103:18", "more than 100 files are imported")
    assert len(read(tmp_path, top=top.replace("- import: {path: f99.yaml}\n", "")).operators) == 99


def test_the_size_of_what_imports_unfold_to_is_limited(tmp_path: Path) -> None:
    large = OPERATOR + "variables: {" + ", ".join(f"V{i}: 1" for i in range(2000)) + "}\n"
    top = HEADER + "operators:\n" + "".join(f"- {{name: n{i}, import: {{path: op.yaml}}}}\n" for i in range(20))
    ((_, message, _),) = faults(tmp_path, top=top, op=large)
    assert message == "the definition is too large once its placeholders and imports are filled in"


def test_the_bytes_of_all_files_are_limited_together(tmp_path: Path) -> None:
    ((at, message, _),) = faults(tmp_path, top=importing("op.yaml"), op="#" * 256 * 1024)
    assert (at, "is too large" in message) == ("top.yaml:5:11", True)


# ---------------------------------------------------------------- digest


def test_the_digest_of_one_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    text = HEADER + "operators: [{name: a, container: {image: i}}]\n"
    assert read(tmp_path, top=text).digest == hashlib.sha256(text.encode()).hexdigest()


def test_the_digest_covers_every_imported_file_and_no_path(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    top = importing("op.yaml") + "- import: {path: op.yaml}\n  name: b\n"
    first = read(tmp_path / "one", top=top, op=OPERATOR)
    length = len(OPERATOR).to_bytes(8, "big")
    assert first.digest == hashlib.sha256(top.encode() + length + OPERATOR.encode()).hexdigest()
    assert read(tmp_path / "two", top=top, op=OPERATOR).digest == first.digest
    assert read(tmp_path / "two", top=top, op=OPERATOR + "\n").digest != first.digest
