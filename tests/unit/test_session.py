"""What needs no engine of the story: exit codes, the preview, and what is refused before anything starts."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from builders import pipeline, record, result, run, step

from cpost import execution, session
from cpost.errors import EngineError, HostError, UsageError
from cpost.interrupts import Interrupts
from cpost.measure.cleanup import Leftover
from cpost.measure.gpu_watch import GpuFacts
from cpost.model import Options, Outcome, Plan, Resources

DEFINITION = """\
api-version: 0.4.0
name: demo
operators:
- name: second
  container: {image: img, tag: "2"}
  input: [{from: first, path: /in}]
- name: first
  container: {image: img, tag: "1"}
  input: [{path: /in}]
  output: [{path: /out}]
"""


class Audience:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *told, **_: self.told.append(f"{name}: {told[0]}")


@pytest.fixture
def definition(tmp_path: Path) -> Path:
    (tmp_path / "p.yaml").write_text(DEFINITION)
    return tmp_path / "p.yaml"


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise HostError("no Docker engine answers")

    monkeypatch.setattr(session, "Engine", refuse)


# ---------------------------------------------------------------- exit codes

C, F, O, T, L = (  # noqa: E741
    Outcome.COMPLETED,
    Outcome.FAILED,
    Outcome.OOM_KILLED,
    Outcome.TIMED_OUT,
    Outcome.ENGINE_LOST,
)


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ([], 0),
        ([C, C], 0),
        ([C, F, C], 1),
        ([O], 1),
        ([T], 4),
        ([T, F], 1),
        ([F, T], 1),
        ([C, T, C], 4),
        ([F, L], 5),
        ([L], 5),
    ],
)
def test_the_worst_outcome_is_the_exit_code(outcomes: list[Outcome], code: int) -> None:
    assert session.exit_code(run(*(record(result=result(outcome)) for outcome in outcomes))) == code


# ---------------------------------------------------------------- preview


def test_a_preview_runs_nothing_and_needs_no_engine(definition: Path, no_engine: None) -> None:
    shown = session.preview(definition, Options())
    assert [each.operator for each in shown.plan.steps] == ["first", "second"]
    assert shown.images == {"img:1": None, "img:2": None}
    assert shown.plan.steps[0].mounts[0].source == "<input>"
    assert shown.plan.steps[1].mounts[0].source == "<work folder>/first"
    assert list(definition.parent.iterdir()) == [definition]


def test_a_preview_says_which_images_are_here(definition: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Engine:
        def image_id(self, reference: str) -> str | None:
            return "sha256:1" if reference == "img:1" else None

        def close(self) -> None:
            pass

    monkeypatch.setattr(session, "Engine", Engine)
    payload = definition.parent / "payload"
    payload.mkdir()
    shown = session.preview(definition, Options(input_dir=str(payload), outputs_dir="/kept"))
    assert shown.images == {"img:1": True, "img:2": False}
    assert shown.plan.steps[0].mounts[0].source == str(payload)
    assert shown.plan.steps[1].mounts[0].source == "/kept/first"


# ---------------------------------------------------------------- refused before anything starts


def sized(definition: Path, **options: Any) -> None:
    audience: Any = Audience()
    session.size_pipeline(definition, Options(**options), audience, Interrupts())


def test_the_engine_is_asked_only_when_all_else_is_right(definition: Path, no_engine: None) -> None:
    with pytest.raises(HostError, match="no Docker engine"):
        sized(definition, input_dir=str(definition.parent))


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"input_dir": "/none"}, "the input folder /none"),
        ({"input_dir": "/etc/passwd"}, "the input folder /etc/passwd"),
        ({"input_dir": "/", "models_dir": "/none"}, "the models folder /none"),
    ],
)
def test_folders_that_are_not_there_are_refused(
    definition: Path, no_engine: None, options: dict[str, str], what: str
) -> None:
    with pytest.raises(UsageError, match=what):
        sized(definition, **options)


def test_models_without_a_repository_are_refused(definition: Path, no_engine: None) -> None:
    definition.write_text(DEFINITION + "  models: [{name: liver}]\n")
    with pytest.raises(UsageError, match="operator first asks for model liver") as caught:
        sized(definition, input_dir="/")
    assert "--models_dir" in caught.value.hint


# ---------------------------------------------------------------- leftovers


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_sweep_removes_what_it_finds_unless_dry(monkeypatch: pytest.MonkeyPatch, dry_run: bool) -> None:
    removed = []

    def refuse() -> None:
        raise EngineError("busy")

    found = [Leftover("container", "a", "r", lambda: removed.append("a")), Leftover("network", "b", "r", refuse)]
    monkeypatch.setattr("cpost.measure.cleanup.leftovers_of_dead_runs", lambda *_: found)
    engine: Any = None
    assert session.sweep(engine, dry_run=dry_run) == ((found, []) if dry_run else (found[:1], ["network b: busy"]))
    assert removed == ([] if dry_run else ["a"])


# ---------------------------------------------------------------- before the first operator


@pytest.mark.parametrize("elsewhere", [None, "they run on there"])
def test_operators_that_run_without_their_gpus_are_named_wherever_they_run(elsewhere: str | None) -> None:
    made: Any = object.__new__(execution.Execution)
    made._gpus = SimpleNamespace(facts=GpuFacts(absent_because="none"))
    made._elsewhere, made._options, made._run, made._observer = elsewhere, Options(no_gpu=True), run(), Audience()
    made._check_gpus(Plan(pipeline(), (step(declared=Resources(gpu_count=1)),)))
    assert made._run.warnings == ("a asks for gpu: 1 and runs without (--no_gpu)",)


@pytest.mark.parametrize("elsewhere", [None, "they run on there"])
def test_gpus_are_counted_where_the_operators_run_here(elsewhere: str | None) -> None:
    made: Any = object.__new__(execution.Execution)
    made._gpus = SimpleNamespace(facts=GpuFacts(absent_because="none"))
    made._elsewhere, made._options = elsewhere, Options()
    with pytest.raises(HostError) if elsewhere is None else contextlib.nullcontext():
        made._check_gpus(Plan(pipeline(), (step(gpu_count=1),)))


def test_an_operator_behind_a_failed_one_is_told_so() -> None:
    made: Any = object.__new__(execution.Execution)
    made._ended = {"a": Outcome.FAILED, "b": Outcome.COMPLETED}
    assert made._failed_upstream(step(upstream=("b",))) == []
    (warning,) = made._failed_upstream(step(upstream=("a", "b")))
    assert "a left, which failed" in warning
