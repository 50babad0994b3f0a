"""The fields of a definition and the rules for single values: what is read, and where what is refused."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent, indent

import pytest

from cpost.definition import load
from cpost.errors import DefinitionError
from cpost.model import HttpConnection, Input, Operator, Output, Pipeline, Resources, Service, VolumeConnection

HEADER = "api-version: 0.4.0\nname: p\noperators:\n"
A = "- name: a\n  container: {image: i}\n"


def read(tmp_path: Path, text: str) -> Pipeline:
    (tmp_path / "p.yaml").write_text(text)
    return load(tmp_path / "p.yaml")


def one(tmp_path: Path, rest: str, header: str = HEADER) -> Operator:
    """Return operator `a` with more properties, which start at line 6, column 3."""
    return read(tmp_path, header + A + indent(dedent(rest), "  ")).operators[0]


def faults(tmp_path: Path, text: str) -> list[tuple[str, str, str]]:
    """Return place, message and hint of each problem."""
    with pytest.raises(DefinitionError) as caught:
        read(tmp_path, text)
    assert {problem.file for problem in caught.value.problems} == {str(tmp_path / "p.yaml")}
    return [(f"{p.line}:{p.column}", p.message, p.hint) for p in caught.value.problems]


def fault(tmp_path: Path, rest: str, header: str = HEADER) -> tuple[str, str, str]:
    """Return the only problem of operator `a` with more properties."""
    (found,) = faults(tmp_path, header + A + indent(dedent(rest), "  "))
    return found


def warnings(tmp_path: Path, text: str) -> list[str]:
    """Return the warnings less the file's name."""
    return [line.removeprefix(f"{tmp_path / 'p.yaml'}:") for line in read(tmp_path, text).warnings]


def test_every_field_is_read(tmp_path: Path) -> None:
    pipeline = read(
        tmp_path,
        """\
#!/bin/bash
api-version: '0.4.0'
name: chest-xray
description: Finds things
orchestrator: Clara
pull-secrets: [ngc-clara]
operators:
- name: reader
  description: reads
  container:
    image: clara/reader
    tag: 20.10
    command: [sh, -c, "echo $X $(NVIDIA_CLARA_SERVICE_DATA_PATH)"]
  variables: {A: 010, B: no, C: 1:30, D: 1e3, E: 2020-01-01, F: , G: null, H: 0x1F, I: "q"}
  requests: {cpu: 2, memory: 512, gpu: 0}
  input: [{path: /input}]
  output: [{path: /out/a, name: images}, {path: /out/b, name: logs}]
- name: ai
  container: {image: nvcr.io/x/ai@sha256:SUM}
  models: [{name: liver}, {name: spleen}]
  input:
  - {from: reader, name: images, path: /in}
  - {path: /payload}
  services:
  - name: trtis
    container:
      image: nvcr.io/nvidia/tensorrtserver
      tag: 19.08-py3
      command: [trtserver]
      hostVolumePath: /clara/models
    variables: {V: 1}
    requests: {gpu: 1}
    connections:
      http: [{name: TRTISURI, port: 8000}, {name: OTHER}]
      volume: [{name: data, path: /models}]
      file: [{name: more, path: /more}]
""".replace("SUM", "a" * 64),
    )
    reader, ai = pipeline.operators
    assert (pipeline.name, pipeline.api_version, pipeline.description) == ("chest-xray", "0.4.0", "Finds things")
    assert (pipeline.orchestrator, pipeline.pull_secrets) == ("Clara", ("ngc-clara",))
    assert pipeline.file == str(tmp_path / "p.yaml")
    assert reader.image == "clara/reader:20.10"
    assert reader.command == ("sh", "-c", "echo $X $(NVIDIA_CLARA_SERVICE_DATA_PATH)")
    assert dict(reader.env) == {
        "A": "010", "B": "no", "C": "1:30", "D": "1e3", "E": "2020-01-01", "F": "", "G": "null", "H": "0x1F", "I": "q",
    }  # fmt: skip
    assert reader.requests == Resources(2000, 512 * 10**6, 0)
    assert reader.inputs == (Input("/input"),)
    assert reader.outputs == (Output("/out/a", "images"), Output("/out/b", "logs"))
    assert (ai.image, ai.requests, ai.env) == ("nvcr.io/x/ai@sha256:" + "a" * 64, Resources(), ())
    assert ai.models == ("liver", "spleen")
    assert ai.inputs == (Input("/in", "reader", "images"), Input("/payload"))
    assert ai.upstream == ("reader",)
    assert ai.services == (
        Service(
            name="trtis",
            image="nvcr.io/nvidia/tensorrtserver:19.08-py3",
            command=("trtserver",),
            env=(("V", "1"),),
            requests=Resources(gpu_count=1),
            http=(HttpConnection("TRTISURI", 8000), HttpConnection("OTHER", None)),
            volumes=(VolumeConnection("more", "/more"), VolumeConnection("data", "/models")),
            host_volume_path="/clara/models",
        ),
    )
    assert ai.origin is not None
    assert (ai.origin.file, ai.origin.line, ai.origin.column) == (pipeline.file, 18, 3)


def test_what_is_missing_is_reported_all_at_once(tmp_path: Path) -> None:
    text = "api-version: 0.4.0\noperators:\n- container: {tag: 1}\n- name: b\n- name: c\n  container: {image: }\n"
    assert [found[:2] for found in faults(tmp_path, text)] == [
        ("1:1", "the pipeline has no name"),
        ("3:3", "this operator has no name"),
        ("3:14", "the container of this operator has no image"),
        ("4:3", 'operator "b" has no container'),
        ("6:15", 'the container of operator "c" has no image'),
    ]


def test_a_file_of_no_format_is_told_which_there_are(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("foo: 1\n")
    with pytest.raises(DefinitionError) as caught:
        load(tmp_path / "p.yaml")
    (problem,) = caught.value.problems
    assert problem.message == "this is no pipeline of any format that cpost reads"
    assert all(name in problem.hint for name in ("Clara", "Kubernetes", "Argo", "Compose"))


@pytest.mark.parametrize("text", ["a: [\n", "a: b\n@c\n", "a: 'b\n", "a:\n- b: [}\n"])
def test_what_is_not_yaml_has_a_remedy(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(DefinitionError, match="not valid YAML") as caught:
        load(tmp_path / "p.yaml")
    assert caught.value.hint


@pytest.mark.parametrize("rest", ["", "operators:\n", "operators: []\n", "operators:\n-\n"])
def test_a_pipeline_needs_operators(tmp_path: Path, rest: str) -> None:
    ((_, message, _),) = faults(tmp_path, "api-version: 0.4.0\nname: p\n" + rest)
    assert message == "the pipeline has no operators"


@pytest.mark.parametrize(
    ("rest", "place", "message"),
    [
        ("input: /in", "6:10", 'input of operator "a" must be a list, this is text'),
        ("input: [/in]", "6:11", 'an item of input of operator "a" must be a mapping, this is text'),
        ("variables: [A=1]", "6:14", 'variables of operator "a" must be a mapping, this is a list'),
        ("variables: {A: [1]}", "6:18", '"A" of variables of operator "a" must be text, this is a list'),
        ("requests: {cpu: {}}", "6:19", 'cpu of requests of operator "a" must be text, this is a mapping'),
    ],
)
def test_a_value_of_the_wrong_kind(tmp_path: Path, rest: str, place: str, message: str) -> None:
    assert fault(tmp_path, rest)[:2] == (place, message)


# ---------------------------------------------------------------- requests


@pytest.mark.parametrize("key", ["cpu", "memory", "gpu"])
@pytest.mark.parametrize(
    ("value", "message", "hint"),
    [
        ("-1", "is negative", "digits only"),
        ("1.5", "is not a whole number", "without a unit or a fraction"),
        ("512Mi", "is not a whole number", "without a unit or a fraction"),
        ("1e3", "is not a whole number", "digits only"),
        ("''", "is not a whole number", "digits only"),
        ("\u0663", "is not a whole number", "digits only"),
        ("010", "starts with zero", 'write "10"'),
        ("9" * 5000, "is too large", ""),
    ],
)
def test_requests_are_whole_numbers(tmp_path: Path, key: str, value: str, message: str, hint: str) -> None:
    place, said, hinted = fault(tmp_path, f"requests:\n  {key}: {value}\n")
    assert place == f"7:{7 + len(key)}"
    assert message in said
    assert hint in hinted


# ---------------------------------------------------------------- images


@pytest.mark.parametrize(
    ("container", "image"),
    [
        ("image: busybox", "busybox:latest"),
        ("image: busybox, tag: 1.10", "busybox:1.10"),
        ("image: busybox, tag: null", "busybox:latest"),
        ("image: 'busybox:1'", "busybox:1"),
        ("image: 'busybox:1', tag: 1", "busybox:1"),
        ("image: 'reg:5000/a/b'", "reg:5000/a/b:latest"),
        ("image: 'localhost/a__b/c-d.e', tag: x", "localhost/a__b/c-d.e:x"),
        ("image: 'Reg.io/a:x'", "Reg.io/a:x"),
        ("image: '[::1]:5000/a'", "[::1]:5000/a:latest"),
        ("image: 'a:x@sha256:" + "0" * 64 + "'", "a:x@sha256:" + "0" * 64),
    ],
)
def test_image_and_tag_become_one_reference(tmp_path: Path, container: str, image: str) -> None:
    assert read(tmp_path, HEADER + f"- name: a\n  container: {{{container}}}\n").operators[0].image == image


@pytest.mark.parametrize(
    ("image", "hint"),
    [
        ("''", "write an image"),
        ("' '", "write an image"),
        ("Clara/App", 'image names are lower case: "clara/app"'),
        ("a b", "remove the spaces"),
        ("https://nvcr.io/a", "leave the scheme out"),
        ("'${IMAGE}'", "placeholders of a Clara definition are ${{ name }}"),
        ("a//b", "registry/name:tag"),
        ("a..b", "registry/name:tag"),
        ("/a", "registry/name:tag"),
        ("-a", "registry/name:tag"),
        ("a/", "registry/name:tag"),
        ("reg_x.io:80/a", "registry/name:tag"),
        ("'a:'", "use up to 128"),
        ("'a:.x'", "use up to 128"),
        ("'a@sha256:12'", "64 hexadecimal digits"),
        ("'a@'", "64 hexadecimal digits"),
        ("0" * 64, "registry/name:tag"),
        ("a" * 256, ""),
        ("b\u00fc", "registry/name:tag"),
    ],
)
def test_an_image_that_docker_would_refuse(tmp_path: Path, image: str, hint: str) -> None:
    ((place, message, hinted),) = faults(tmp_path, HEADER + f"- name: a\n  container:\n    image: {image}\n")
    assert place == "6:12"
    assert message.startswith('image of the container of operator "a": ')
    assert hint in hinted


@pytest.mark.parametrize(
    ("container", "message"),
    [
        ("{image: 'b:1', tag: 2}", 'has two tags: "1" in image and "2" in tag'),
        ("{image: 'b@sha256:" + "0" * 64 + "', tag: 2}", "has an image with a digest and a tag"),
        ("{image: b, tag: 'a b'}", '"a b" is not a tag'),
        ("{image: b, tag: " + "1" * 129 + "}", "is not a tag"),
    ],
)
def test_a_tag_that_does_not_fit(tmp_path: Path, container: str, message: str) -> None:
    ((place, said, _),) = faults(tmp_path, HEADER + f"- name: a\n  container: {container}\n")
    assert message in said
    assert place == f"5:{14 + container.index('tag: ') + 5}"


# ---------------------------------------------------------------- names and variables


@pytest.mark.parametrize("name", ["a b", "../x", "\u0430", "a.b", "'a\\nb'", "$(x)", "'\u202ea'", "n" * 101])
def test_names_are_plain(tmp_path: Path, name: str) -> None:
    found = faults(tmp_path, HEADER.replace("p", name, 2).replace(f"a{name}i", "api") + f"- name: {name}\n" + A[9:])
    assert [place for place, _, _ in found] == ["2:7", "4:9"]
    assert all(message.isprintable() for _, message, _ in found)


def test_a_long_name_says_why(tmp_path: Path) -> None:
    text = HEADER + A.replace("a\n", "n" * 140 + "\n", 1)
    ((_, message, hint),) = faults(tmp_path, text)
    assert message.endswith('..." has 140 characters')
    assert hint == "use at most 100: file and container names are made of it"
    assert read(tmp_path, text.replace("n" * 140, "n" * 100)).operators[0].name == "n" * 100


@pytest.mark.parametrize("name", ["''", "A=B", '"A\\0"'])
def test_variable_names(tmp_path: Path, name: str) -> None:
    ((place, _, _),) = faults(tmp_path, HEADER + A + f"  variables:\n    {name}: 1\n")
    assert place == "7:5"


def test_values_that_the_kernel_would_refuse(tmp_path: Path) -> None:
    limit = 128 * 1024 - 1
    assert dict(one(tmp_path, f"variables:\n  AB: {'x' * (limit - 3)}\n").env)["AB"].endswith("x")
    place, message, _ = fault(tmp_path, f"variables:\n  AB: {'x' * (limit - 2)}\n")
    assert (place, message) == (
        "7:9",
        f'"AB" of variables of operator "a": it has {limit + 1} bytes, the kernel takes {limit}',
    )
    ((place, message, _),) = faults(
        tmp_path, HEADER + f"- name: a\n  container: {{image: i, command: [x, {'y' * (limit + 1)}]}}\n"
    )
    assert (place, "it has" in message) == ("5:38", True)


def test_variables_inside_container_are_used_but_lose(tmp_path: Path) -> None:
    text = HEADER + "- name: a\n  container: {image: i, variables: {A: 1, B: 2}}\n  variables: {B: 3}\n"
    assert read(tmp_path, text).operators[0].env == (("A", "1"), ("B", "3"))
    (line,) = warnings(tmp_path, text)
    assert line.startswith('5:36: variables of operator "a" stand inside container')


# ---------------------------------------------------------------- folders


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("in", "is not an absolute path"),
        ("''", "is not an absolute path"),
        ("/a/../b", 'contains ".."'),
        ("/", "cannot be used for data"),
        ("//./", "cannot be used for data"),
        ("/proc/x", "cannot be used for data"),
        ('"/a\\nb"', "contains a control character"),
        ("/" + "a" * 256, "is too long for a path"),
        ("/a" * 2001, "is too long for a path"),
    ],
)
@pytest.mark.parametrize("kind", ["input", "output"])
def test_folders_are_absolute(tmp_path: Path, kind: str, path: str, message: str) -> None:
    place, said, _ = fault(tmp_path, f"{kind}:\n- path: {path}\n")
    assert (place, message in said) == ("7:11", True)


def test_folders_are_made_plain(tmp_path: Path) -> None:
    assert one(tmp_path, "input: [{path: '//in/./x/'}]").inputs == (Input("/in/x"),)


def test_untyped_items_need_a_folder(tmp_path: Path) -> None:
    found = faults(tmp_path, HEADER + A + "  input:\n  - {from: }\n  output:\n  - {name: o}\n")
    assert [f[:2] for f in found] == [
        ("7:5", 'an input of operator "a" has no path'),
        ("9:5", 'an output of operator "a" has no path'),
    ]


# ---------------------------------------------------------------- services and models


@pytest.mark.parametrize(
    ("connection", "column", "message"),
    [
        ("{name: A, port: 80}", 30, "80 is not a port"),
        ("{name: A, port: 65536}", 30, "65536 is not a port"),
        ("{name: A, port: x}", 30, '"x" is not a whole number'),
        ("{name: 1A}", 21, '"1A" cannot be the name of an environment variable'),
        ("{name: A-B}", 21, '"A-B" cannot be'),
        ("{port: 8000}", 14, "has no name"),
    ],
)
def test_http_connections(tmp_path: Path, connection: str, column: int, message: str) -> None:
    rest = f"services:\n- name: s\n  container: {{image: i}}\n  connections:\n    http: [{connection}]\n"
    place, said, _ = fault(tmp_path, rest)
    assert (place, message in said) == (f"10:{column}", True)


def test_services_have_names_of_their_own(tmp_path: Path) -> None:
    rest = "services:\n- {name: s, container: {image: i}}\n- {name: S, container: {image: i}}\n"
    assert fault(tmp_path, rest)[:2] == ("8:12", 'operator "a" has two services called "S"')


@pytest.mark.parametrize("name", ["a/b", "..", "''", '"a\\tb"'])
def test_models_are_folders(tmp_path: Path, name: str) -> None:
    place, message, _ = fault(tmp_path, f"models:\n- name: {name}\n")
    assert (place, "is not the name of a folder" in message) == ("7:11", True)


# ---------------------------------------------------------------- warnings and versions


def test_unknown_keys_are_warned_about_with_a_guess(tmp_path: Path) -> None:
    text = "apiversion: 0.4.0\nname: p\noperators:\n" + A + "  inputs: []\n  env: {}\n  zzz: 1\n  timeout: 3\n"
    assert warnings(tmp_path, text) == [
        '1:1: unknown key "apiversion" in the pipeline is ignored; did you mean "api-version"?',
        "1:1: there is no api-version; the rules of 0.4.0 are used",
        '6:3: unknown key "inputs" in operator "a" is ignored; did you mean "input"?',
        '7:3: unknown key "env" in operator "a" is ignored; did you mean "variables"?',
        '8:3: unknown key "zzz" in operator "a" is ignored; known keys are: name, description, container, variables, '
        "input, output, requests, models, services, timeout",
        '9:12: timeout of operator "a" is ignored',
    ]


@pytest.mark.parametrize("version", ["0.2.0", "0.3.0", "0.4.0", "'0.4.0'", "0.4", "0.5.0", "0.6.0", "0.7.0"])
def test_known_versions(tmp_path: Path, version: str) -> None:
    assert warnings(tmp_path, HEADER.replace("0.4.0", version) + A) == []


@pytest.mark.parametrize("version", ["0.40", "0.4.1", "1", "v0.4.0", "0.10.0", "0.4.0.0"])
def test_unknown_versions(tmp_path: Path, version: str) -> None:
    (line,) = warnings(tmp_path, HEADER.replace("0.4.0", version) + A)
    assert line == f'1:14: unknown api-version "{version}"; known are 0.2.0 to 0.7.0'


@pytest.mark.parametrize(
    ("version", "rest", "warned"),
    [
        ("0.6.0", "services: [{name: s, container: {image: i}}]", False),
        ("0.7.0", "services: [{name: s, container: {image: i}}]", True),
        ("0.10.0", "services: [{name: s, container: {image: i}}]", True),
        ("0.6.0", "models: [{name: m}]", False),
        ("0.4.0", "models: [{name: m}]", True),
    ],
)
def test_versions_are_compared_as_versions(tmp_path: Path, version: str, rest: str, warned: bool) -> None:
    found = warnings(tmp_path, HEADER.replace("0.4.0", version) + A + "  " + rest)
    assert any(line.startswith("6:") for line in found) == warned


def test_an_unknown_orchestrator_is_warned_about(tmp_path: Path) -> None:
    assert warnings(tmp_path, HEADER + A + "orchestrator: Argo\n") == []
    (line,) = warnings(tmp_path, HEADER + A + "orchestrator: Slurm\n")
    assert line == '6:15: unknown orchestrator "Slurm"; known are Clara and Argo'
