"""Model repositories: which models a server must load, and every fault found before it starts."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
from builders import operator, pipeline
from hypothesis import given
from hypothesis import strategies as st

from cpost.definition.model_config import MAX_BYTES, ConfigError, EnsembleStep, ModelConfig, parse
from cpost.definition.models import models_to_load
from cpost.errors import DefinitionError, ExitCode, Problem, UsageError
from cpost.model import Origin, Pipeline

REALISTIC = rb"""
# A comment with \x80 bytes and a "quote: name [ {
name: "lung" '_' # goes on
  "seg"
platform: "tensorrt_plan";
max_batch_size: 8,
input [ { name: "I" data_type: TYPE_FP32 dims: [ -1, 3 ] reshape { shape: [ ] } }, { name: "J" dims: 1 } ]
input { name: "K" format: FORMAT_NCHW, label_filename: "name [ {.txt" }
output[{name: "O", dims: [0x1F, 017, 1.5e3, -inf, nan]}]
dynamic_batching < preferred_batch_size: [4, 8]
  priority_queue_policy { key: 9223372036854775807 value { timeout_action: DELAY } } >
instance_group # on both
  [ { count: 1 kind: KIND_GPU gpus: [0, 1] } , { kind: KIND_CPU } ]
parameters: { key: "p" value: { string_value: "a\n\"{\\" } }
parameters [ { key: "q", value { string_value: 'x' 'y' } } ]
optimization { execution_accelerators { gpu_execution_accelerator : [ { name : "tensorrt" } ] }
  cuda { graphs: true graph_spec [ { batch_size: 1 input { key: "x" value { dim: [ 1 ] } } } ] } }
model_warmup [{ inputs { key: "I" value { zero_data: true } } }, {}]
something_of_a_later_server [ < a { } >, < b [ ] > ]
some_switch: SOME_VALUE
version_policy: { latest: { num_versions: 2 } }
"""


def ensemble(name: str, *models: str, version: str = "model_version: -1") -> str:
    steps = ", ".join(f'{{ model_name: "{model}" {version} input_map {{ key: "a" value: "b" }} }}' for model in models)
    return f'name: "{name}"\nplatform: "ensemble"\nensemble_scheduling {{ step [ {steps} ] }}\n'


class Repository:
    """A model repository that a test fills."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def add(self, name: str, config: str | bytes | None = "", versions: tuple[str, ...] = ("1",)) -> Path:
        folder = self.root / name
        folder.mkdir()
        if config is not None:
            data = config if isinstance(config, bytes) else (config or f'name: "{name}"\nbackend: "python"\n').encode()
            (folder / "config.pbtxt").write_bytes(data)
        for version in versions:
            (folder / version).mkdir()
        return folder

    def problems(self, *models: str) -> tuple[Problem, ...]:
        with pytest.raises(DefinitionError) as caught:
            models_to_load(asking(*models), self.root)
        assert caught.value.exit_code == ExitCode.USAGE
        for problem in caught.value.problems:
            assert problem.message.isprintable()
            assert problem.hint
            assert problem.hint.isprintable()
        return caught.value.problems

    def problem(self, *models: str) -> Problem:
        (problem,) = self.problems(*models)
        return problem


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    (tmp_path / "models").mkdir()
    return Repository(tmp_path / "models")


def asking(*models: str) -> Pipeline:
    return pipeline(operator("seg", models=models, origin=Origin("p.yaml", 7, 3)))


# ---------------------------------------------------------------- what is loaded


def test_a_repository_is_not_looked_at_where_nobody_asks(tmp_path: Path) -> None:
    assert models_to_load(pipeline(operator("a")), tmp_path / "absent") == {}


def test_each_operator_gets_what_it_asks_for_and_what_ensembles_need_once(repository: Repository) -> None:
    repository.add("outer", ensemble("outer", "inner", "plain"))
    repository.add("inner", ensemble("inner", "leaf", "leaf", "plain"))
    for name in ("leaf", "plain", "other"):
        repository.add(name)
    asked = pipeline(operator("a", models=("outer", "other")), operator("b"), operator("c", models=("plain",)))
    assert models_to_load(asked, repository.root) == {
        "a": ("outer", "inner", "leaf", "plain", "other"),
        "c": ("plain",),
    }


def test_what_a_server_passes_over_is_no_fault(repository: Repository) -> None:
    folder = repository.add("m", versions=("3", "1", "01", "x", ".5", "-1"))
    (folder / "labels.txt").touch()
    (folder / "2").touch()
    (repository.root / "readme.txt").touch()
    repository.add(".hidden")
    (repository.root / "linked").symlink_to("m")
    (folder / "config.pbtxt").write_text('backend: "python"')
    assert models_to_load(asking("m", ".hidden", "linked"), repository.root) == {"seg": ("m", ".hidden", "linked")}


@given(st.lists(st.lists(st.integers(0, 7), max_size=4), min_size=8, max_size=8), st.lists(st.integers(0, 7)))
def test_what_is_loaded_is_closed_and_needed(
    tmp_path_factory: pytest.TempPathFactory, steps: list[list[int]], asked: list[int]
) -> None:
    repository = Repository(tmp_path_factory.mktemp("models"))
    needs = {f"m{i}": [f"m{j}" for j in each if j > i] for i, each in enumerate(steps)}
    for name, inner in needs.items():
        repository.add(name, ensemble(name, *inner) if inner else "")
    names = tuple(dict.fromkeys(f"m{i}" for i in asked))
    loaded = models_to_load(asking(*names), repository.root).get("seg", ())
    assert len(set(loaded)) == len(loaded)
    assert [name for name in loaded if name in names] == sorted(names, key=loaded.index)
    for name in loaded:
        assert set(needs[name]) <= set(loaded)
        assert name in names or any(name in needs[other] for other in loaded[: loaded.index(name)])


def test_a_long_chain_of_ensembles_is_followed_to_its_end(repository: Repository) -> None:
    names = [f"m{i:04}" for i in range(1200)]
    for name, inner in itertools.pairwise(names):
        repository.add(name, ensemble(name, inner))
    repository.add(names[-1])
    assert models_to_load(asking(names[0]), repository.root) == {"seg": tuple(names)}


def test_models_that_many_ensembles_share_are_looked_at_once(repository: Repository) -> None:
    names = [f"m{i:02}" for i in range(60)]
    for name, inner in itertools.pairwise(names):
        repository.add(name, ensemble(name, inner, inner))
    repository.add(names[-1])
    assert models_to_load(asking(names[0]), repository.root) == {"seg": tuple(names)}


# ---------------------------------------------------------------- faults of the repository


def test_a_repository_that_is_not_there_or_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("absent", "file"):
        with pytest.raises(UsageError, match=f"{name} .*does not exist") as caught:
            models_to_load(asking("m"), tmp_path / name)
        assert "--models_dir" in caught.value.hint


def test_a_missing_model_is_named_with_its_operator_and_what_is_there(repository: Repository) -> None:
    for index in range(12):
        repository.add(f"m{index:02}")
    repository.add("lung_seg")
    problem = repository.problem("lung-seg")
    assert (problem.file, problem.line, problem.column) == ("p.yaml", 7, 3)
    assert problem.message == f'model "lung-seg" of operator "seg" is not in {repository.root}'
    assert problem.hint.startswith(f'did you mean "lung_seg"? {repository.root} holds: lung_seg, m00, ')
    assert problem.hint.endswith(", ...")


def test_a_model_that_is_a_file(repository: Repository) -> None:
    (repository.root / "m").touch()
    problem = repository.problem("m")
    assert problem.message == f'model "m" of operator "seg" is a file, not a folder, in {repository.root}'


@pytest.mark.parametrize("name", ["..", ".", "a/b", "../models/m", "", "/etc", "a\nb", "x" * 300])
def test_a_name_that_leads_elsewhere_is_refused_wherever_it_stands(repository: Repository, name: str) -> None:
    repository.add("m")
    assert "not the name of a folder" in repository.problem(name).message
    escaped = name.replace("\n", r"\n")
    repository.add("ens", ensemble("ens", escaped))
    problem = repository.problem("ens")
    assert 'of ensemble "ens" of operator "seg": this is not the name of a folder' in problem.message
    assert problem.file == str(repository.root / "ens" / "config.pbtxt")


@pytest.mark.parametrize("target", ["{tmp}/elsewhere", "{tmp}/models/real", "../elsewhere"])
def test_links_that_a_container_cannot_follow_are_refused(repository: Repository, tmp_path: Path, target: str) -> None:
    repository.add("real")
    Repository(tmp_path).add("elsewhere")
    (repository.root / "m").symlink_to(target.format(tmp=tmp_path))
    assert "which a container that sees only the repository cannot follow" in repository.problem("m").message


@pytest.mark.parametrize("inner", ["config.pbtxt", "1"])
def test_links_out_of_a_model_are_refused(repository: Repository, tmp_path: Path, inner: str) -> None:
    elsewhere = Repository(tmp_path).add("elsewhere")
    (elsewhere / "config.pbtxt").write_text("")
    folder = repository.add("m")
    (folder / "config.pbtxt").rename(tmp_path / "old") if inner != "1" else (folder / "1").rmdir()
    (folder / inner).symlink_to(elsewhere / inner)
    problem = repository.problem("m")
    assert problem.file == str(folder / inner)
    assert f"a link to {elsewhere / inner}" in problem.message


# ---------------------------------------------------------------- faults of one model


def test_a_model_without_configuration(repository: Repository) -> None:
    folder = repository.add("m", None)
    (folder / "config.pbtx").touch()
    problem = repository.problem("m")
    assert problem.file == str(folder / "config.pbtxt")
    assert problem.message == 'model "m" of operator "seg" has no config.pbtxt'
    assert 'did you mean "config.pbtx"? the folder holds: 1, config.pbtx' in problem.hint


def test_a_configuration_that_cannot_be_read(repository: Repository) -> None:
    (repository.add("folder", None) / "config.pbtxt").mkdir()
    os.mkfifo(repository.add("pipe", None) / "config.pbtxt")
    folder, pipe = repository.problems("folder", "pipe")
    assert folder.message == 'the configuration of model "folder" of operator "seg" is a directory'
    assert "not a regular file" in pipe.message


def test_a_syntax_fault_has_its_place(repository: Repository) -> None:
    folder = repository.add("m", 'name: "m"\nbackend "python"\n')
    problem = repository.problem("m")
    assert str(problem) == f'{folder}/config.pbtxt:2:9: the configuration of model "m" of operator "seg": Expected ":".'


def test_a_name_that_is_not_the_folders(repository: Repository) -> None:
    repository.add("m", 'name: "other"')
    assert repository.problem("m").message == 'model "m" of operator "seg" is called "other" in its configuration'


@pytest.mark.parametrize("versions", [(), ("01",), ("x", "v1", "-1", "+1", "1.0", "\u0661")])
@pytest.mark.parametrize("config", ["", ensemble("m", "part")])
def test_a_model_without_version_an_ensemble_too(
    repository: Repository, config: str, versions: tuple[str, ...]
) -> None:
    repository.add("part")
    folder = repository.add("m", config, versions)
    problem = repository.problem("m")
    assert problem.file == str(folder)
    assert 'model "m" of operator "seg" has no folder of a version' in problem.message


@pytest.mark.parametrize("number", ["9223372036854775808", "1" * 200])
def test_a_version_that_would_end_the_server(repository: Repository, number: str) -> None:
    repository.add("m", versions=("1", number))
    assert "too large" in repository.problem("m").message


def test_the_largest_version_is_taken(repository: Repository) -> None:
    repository.add("m", versions=("0", "9223372036854775807"))
    assert models_to_load(asking("m"), repository.root) == {"seg": ("m",)}


def test_a_policy_that_names_versions_that_are_not_there(repository: Repository) -> None:
    repository.add("m", "version_policy { specific { versions: [3, 1, 7] } }", ("1", "2"))
    problem = repository.problem("m")
    assert problem.message.endswith("names versions that are not there: 3, 7")
    assert problem.hint == "name versions that are there: 1, 2"


def test_a_policy_that_names_no_version(repository: Repository) -> None:
    repository.add("m", "version_policy { specific { } }")
    assert repository.problem("m").message == 'the version_policy of model "m" of operator "seg" names no version'


def test_faults_are_found_all_at_once_and_each_once(repository: Repository) -> None:
    repository.add("a", 'name: "x"', ())
    repository.add("ens", ensemble("ens", "a", "gone"))
    asked = pipeline(operator("o", models=("a", "missing")), operator("p", models=("a", "ens")))
    with pytest.raises(DefinitionError) as caught:
        models_to_load(asked, repository.root)
    messages = [problem.message for problem in caught.value.problems]
    assert len(messages) == 3
    assert any('model "missing" of operator "o" is not in' in message for message in messages)
    assert any('model "a" of operator "o" has no folder of a version' in message for message in messages)
    assert any('model "gone" of ensemble "ens" of operator "p" is not in' in message for message in messages)


# ---------------------------------------------------------------- ensembles


def test_a_step_without_model_names_the_ensemble(repository: Repository) -> None:
    repository.add("outer", ensemble("outer", "inner"))
    repository.add("inner", ensemble("inner", "gone"))
    problem = repository.problem("outer")
    assert problem.file == str(repository.root / "inner" / "config.pbtxt")
    assert problem.message.startswith('model "gone" of ensemble "inner" of operator "seg" is not in')


@pytest.mark.parametrize("names", [("a",), ("a", "b"), ("a", "b", "c")])
def test_ensembles_that_need_one_another(repository: Repository, names: tuple[str, ...]) -> None:
    for name, inner in zip(names, (*names[1:], names[0]), strict=True):
        repository.add(name, ensemble(name, inner))
    repository.add("outer", ensemble("outer", *names))
    problem = repository.problem("outer")
    circle = " -> ".join((*names, "a"))
    assert problem.message == f'ensembles of operator "seg" need one another: {circle}'


@pytest.mark.parametrize(
    ("policy", "step", "shown"),
    [
        ("", "", "0: served are 3"),
        ("", "model_version: 2", "2: served are 3"),
        ("version_policy { latest { num_versions: 2 } }", "model_version: 1", "1: served are 2, 3"),
        ("version_policy { specific { versions: 1 } }", "model_version: 3", "3: served are 1"),
    ],
)
def test_a_step_of_a_version_that_is_not_served(repository: Repository, policy: str, step: str, shown: str) -> None:
    repository.add("m", f'name: "m" {policy}', ("1", "2", "3"))
    repository.add("ens", ensemble("ens", "m", version=step))
    problem = repository.problem("ens")
    assert problem.message == f'model "m" of ensemble "ens" of operator "seg" has no version {shown}'
    assert ("means 0" in problem.hint) == (not step)


def test_a_step_of_a_version_that_is_served(repository: Repository) -> None:
    repository.add("m", "version_policy { all { } }", ("1", "2"))
    repository.add("ens", ensemble("ens", "m", version="model_version: 1"))
    assert models_to_load(asking("ens"), repository.root) == {"seg": ("ens", "m")}


# ---------------------------------------------------------------- the text format


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_realistic_configuration_is_read(end: bytes) -> None:
    data = REALISTIC.replace(b"\\x80", b"\x80").replace(b"\n", end)
    assert parse(data) == ModelConfig(name="lung_seg", latest=2)


def test_the_steps_of_an_ensemble_are_read_in_either_form() -> None:
    listed = b'ensemble_scheduling { step [ { model_name: "a" model_version: -1 }, { model_name: "b" } ] }'
    repeated = b'ensemble_scheduling { step < model_name: "a" model_version: -1 > step { model_name: "b" } }'
    assert parse(listed).steps == parse(repeated).steps == (EnsembleStep("a", -1), EnsembleStep("b", 0))


@pytest.mark.parametrize("text", ["b [ {", "# b [ {", r"a\Q b [ {"])
@pytest.mark.parametrize("quote", ['"', "'"])
def test_text_within_quotes_stays_as_it_is(quote: str, text: str) -> None:
    written = text.replace("Q", quote)
    assert parse(f"name: {quote}{written}{quote}".encode()).name == written.replace("\\", "")


@pytest.mark.parametrize(
    ("text", "served"),
    [
        ("", (10,)),
        ("version_policy { }", (10,)),
        ("version_policy { latest { } }", (10,)),
        ("version_policy { latest { num_versions: 2 } }", (9, 10)),
        ("version_policy { all { } }", (1, 9, 10)),
        ("version_policy: { all: { } }", (1, 9, 10)),
        ("version_policy { specific { versions: 9 versions: [1, 7] } }", (1, 9)),
    ],
)
def test_the_versions_that_a_policy_serves(text: str, served: tuple[int, ...]) -> None:
    assert parse(text.encode()).served((10, 1, 9)) == served


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ('\n name: "x', 2, 8, "missing ending quote"),
        ("name: x", 1, 7, "Expected string but found: 'x'"),
        ("a {\n b: 1\n", 3, 1, "got the end of the file"),
        ('input [ { a: 1 } ] name: "a"\r\n\toutput [ { } ] name: "b"\r\n', 2, 23, 'multiple "name" fields'),
        ("version_policy { all { } latest { } }", 1, 26, "another member of oneof"),
        ("a: [1 2]", 1, 7, 'Expected ","'),
        ("version_policy { specific { versions: 99999999999999999999 } }", 1, 39, "out of range"),
        ("\ufeffname: 'a'", 1, 1, "byte order mark"),
        ("a {" * 5000, 0, 0, "nested too deeply"),
        ("#" * MAX_BYTES + "\n", 0, 0, "larger than 1024 KiB"),
        ('b: "\x1b[31m', 0, 0, r"\x1b[31m"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, line: int, column: int, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text.encode())
    assert message in caught.value.message
    assert caught.value.message.isprintable()
    assert (caught.value.line, caught.value.column) == (line, column)


@given(st.lists(st.sampled_from([*b"{}[]<>:;,\"'#\n\\ -.1a\xff\0", *(b"name", b"step [ {")]), max_size=30))
def test_any_bytes_are_read_or_refused(parts: list[int | bytes]) -> None:
    data = b"".join(part if isinstance(part, bytes) else bytes([part]) for part in parts)
    with contextlib.suppress(ConfigError):
        assert isinstance(parse(data), ModelConfig)


def test_protobuf_is_not_loaded_before_a_configuration_is_read() -> None:
    code = "import sys, cpost.cli, cpost.definition.models; sys.exit('google.protobuf' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
