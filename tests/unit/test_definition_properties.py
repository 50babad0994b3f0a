"""What holds for every definition, whatever it says."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import as_yaml, pipelines

from cpost.definition import load
from cpost.errors import DefinitionError
from cpost.model import Operator, Pipeline

QUICK = settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
SEED = b"""\
api-version: 0.4.0
name: p
parameters: {TAG: "1", X: &x y}
operators:
- name: a
  container: &c {image: "reg.io:80/a/b", tag: "${{ TAG }}", command: [sh, -c, 'x']}
  variables: {A: 010, B: *x}
  output: [{path: /out, name: o}]
  requests: {cpu: 1, memory: 512}
- name: b
  container: {<<: *c, tag: 2}
  input: [{from: a, name: o, path: /in}, {path: /payload}]
  services:
  - name: s
    container: {image: s}
    connections: {http: [{name: H, port: 8000}]}
- import: {path: nothing.yaml, args: {X: 1}}
"""
WORDS = (
    *(b"- ", b": ", b"\n", b"  ", b"\t", b"*x", b"&x ", b"<<", b"${{", b"}}", b"{", b"[", b"]", b"\0", b"\xff", b"!!"),
    *(b"from: a", b"'", b'"', b"|", b">", b"\\U", b"-1", b"import: ", b"path: in.yaml", b"\r", b"%", b"---\n"),
)


def _bare(operator: Operator) -> Operator:
    return replace(operator, origin=None)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("definition") / "in.yaml"


def _load(file: Path, data: bytes) -> Pipeline | None:
    """Load bytes; anything but a DefinitionError is a failure of the test."""
    file.write_bytes(data)
    try:
        return load(file)
    except DefinitionError as error:
        problems = error.problems
    assert problems
    assert all(problem.message.isprintable() and problem.hint.isprintable() for problem in problems)
    return None


@QUICK
@given(pipeline=pipelines())
def test_a_written_pipeline_is_read_back(file: Path, pipeline: Pipeline) -> None:
    file.write_text(as_yaml(pipeline), encoding="utf-8", newline="")
    loaded = load(file)
    same = replace(loaded, digest="", file="", warnings=(), operators=tuple(_bare(o) for o in loaded.operators))
    assert same == pipeline


@QUICK
@given(pipeline=pipelines(), seed=st.randoms(use_true_random=False))
def test_the_order_of_operators_in_the_file_changes_nothing_else(
    file: Path, pipeline: Pipeline, seed: random.Random
) -> None:
    shuffled = list(pipeline.operators)
    seed.shuffle(shuffled)
    file.write_text(as_yaml(replace(pipeline, operators=tuple(shuffled))), encoding="utf-8", newline="")
    assert [_bare(operator) for operator in load(file).operators] == shuffled


@QUICK
@given(pipeline=pipelines(), newline=st.sampled_from(["\r\n", "\n"]), encoding=st.sampled_from(["utf-8-sig", "utf-16"]))
def test_line_ends_and_encodings_change_nothing(file: Path, pipeline: Pipeline, newline: str, encoding: str) -> None:
    file.write_text(as_yaml(pipeline), encoding=encoding, newline=newline)
    assert tuple(_bare(operator) for operator in load(file).operators) == pipeline.operators


@QUICK
@given(data=st.binary(max_size=200))
def test_random_bytes_give_only_definition_errors(file: Path, data: bytes) -> None:
    assert _load(file, data) is None


@QUICK
@given(text=st.text("-:[]{}&*!|>'\"%@`#?, \t\n\\abx0~<=.", max_size=60))
def test_random_punctuation_gives_only_definition_errors(file: Path, text: str) -> None:
    assert _load(file, text.encode()) is None


@settings(QUICK, max_examples=120)
@given(cuts=st.lists(st.tuples(st.integers(0, len(SEED)), st.integers(0, 9), st.sampled_from(WORDS)), max_size=4))
def test_a_mutated_definition_is_read_or_refused(file: Path, cuts: list[tuple[int, int, bytes]]) -> None:
    data = SEED
    for start, length, word in cuts:
        data = data[:start] + word + data[start + length :]
    loaded = _load(file, data)
    assert loaded is None or loaded.operators


@QUICK
@given(value=st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20))
def test_an_argument_is_put_in_as_it_is(file: Path, value: str) -> None:
    file.write_text(
        "name: p\nparameters: {V: x}\noperators:\n- name: a\n  container: {image: i, command: ['<${{ V }}>']}\n"
    )
    assert load(file, {"V": value}).operators[0].command == (f"<{value}>",)
