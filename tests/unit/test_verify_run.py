"""`cpost verify` and `cpost search`: what they refuse before anything starts, exit codes, what they do to a folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from builders import REFUSED, advice, pipeline, record, result, run, server, server_record, step

from cpost import execution, session
from cpost.cli import main
from cpost.definition import load
from cpost.errors import CpostError, DefinitionError, ExitCode, HostError, UsageError
from cpost.interrupts import Interrupts
from cpost.model import HostFacts, Options, Outcome, Plan, Resources, Run, Verdict, Verification
from cpost.search import SearchPlan
from cpost.store import RUN_FILE, SUMMARY_FILE, TRIALS_FILE, VERIFY, RunFolder, json_text

DEFINITION = """\
api-version: 0.4.0
name: demo
operators:
- name: first
  container: {image: img, tag: "1"}
  input: [{path: /in}]
  output: [{path: /out}]
- name: second
  container: {image: img, tag: "2"}
  input: [{from: first, path: /in}]
"""


class Audience:
    def __init__(self) -> None:
        self.told: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *told, **_: self.told.append(f"{name}: {told[0]}")


@pytest.fixture(autouse=True)
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise HostError("no Docker engine answers")

    monkeypatch.setattr(session, "Engine", refuse)


@pytest.fixture
def definition(tmp_path: Path) -> Path:
    (tmp_path / "p.yaml").write_text(DEFINITION)
    return tmp_path / "p.yaml"


@pytest.fixture
def earlier(definition: Path) -> Run:
    """A run of that definition, as its record would be."""
    payload = definition.parent / "payload"
    payload.mkdir()
    read = load(definition)
    stated = {"pipeline_file": str(definition), "pipeline_digest": read.digest, "work_digest": read.work_digest}
    stated |= {"complete": True}
    return run(record("first"), record("second"), options=Options(input_dir=str(payload)), **stated)


def verify(folder: Path, kept: Run | None) -> None:
    if kept is not None:
        folder.mkdir(exist_ok=True)
        (folder / RUN_FILE).write_text(json_text(kept))
    audience: Any = Audience()
    session.verify_run(folder, 0.1, audience, Interrupts())


# ---------------------------------------------------------------- refused


def test_the_engine_is_asked_only_when_all_else_is_right(tmp_path: Path, earlier: Run) -> None:
    with pytest.raises(HostError, match="no Docker engine"):
        verify(tmp_path / "m", earlier)


CHANGED = [
    ('tag: "1"', 'tag: "3"'),
    ('tag: "1"', 'tag: "1", command: [run]'),
    ('tag: "1"}', 'tag: "1"}\n  variables: {A: b}'),
    ("path: /out", "path: /other"),
    ("name: second", "name: third"),
    ('{image: img, tag: "2"}', '{image: img, tag: "2"}\n  requests: {gpu: 2}'),
]


@pytest.mark.parametrize(("old", "new"), CHANGED)
def test_a_definition_that_runs_something_else_is_refused(
    tmp_path: Path, earlier: Run, definition: Path, old: str, new: str
) -> None:
    definition.write_text(DEFINITION.replace(old, new))
    with pytest.raises(UsageError, match="is not what it was when it was measured"):
        verify(tmp_path / "m", earlier)


def test_the_order_of_a_definition_counts(tmp_path: Path, earlier: Run, definition: Path) -> None:
    head, first, second = DEFINITION.partition("- name: first")[0], *DEFINITION.split("- name: ")[1:]
    definition.write_text(f"{head}- name: {second}- name: {first}")
    with pytest.raises(UsageError, match="is not what it was when it was measured"):
        verify(tmp_path / "m", earlier)


def test_a_definition_may_hold_what_was_recommended_by_now(tmp_path: Path, earlier: Run, definition: Path) -> None:
    recommended = '{image: img, tag: "2"}\n  requests: {cpu: 2, memory: 512, gpu: 1}  # by cpost'
    definition.write_text(DEFINITION.replace('{image: img, tag: "2"}', recommended))
    advised = replace(advice(), requests=Resources(2000, 512 * 10**6, 1))
    made = replace(earlier, operators=(earlier.operators[0], replace(earlier.operators[1], recommendation=advised)))
    with pytest.raises(HostError, match="no Docker engine"):
        verify(tmp_path / "m", made)
    with pytest.raises(UsageError, match="is not what it was when it was measured"):
        verify(tmp_path / "m", earlier)  # which recommends no GPU


def test_a_record_that_does_not_say_what_was_run_needs_the_same_file(
    tmp_path: Path, earlier: Run, definition: Path
) -> None:
    old = replace(earlier, work_digest="")
    with pytest.raises(HostError, match="no Docker engine"):
        verify(tmp_path / "m", old)
    definition.write_text(DEFINITION + "# more\n")
    with pytest.raises(UsageError, match="is not what it was when it was measured"):
        verify(tmp_path / "m", old)


COMPOSE = """\
services:
  a:
    image: img
    depends_on: [b]
    deploy: {resources: {limits: {cpus: "2", memory: 1g}, reservations: {memory: 64m}}}
  b: {image: img, mem_limit: 1g, shm_size: 64m, expose: [80]}
"""


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ('cpus: "2"', 'cpus: "0.5"', True),
        ("memory: 64m", "memory: 128m", True),
        ("mem_limit: 1g, shm_size: 64m", "mem_limit: 2g, shm_size: 128m", True),
        ("expose: [80]", "expose: [81]", False),
        ("shm_size: 64m", "shm_size: 64m, environment: {A: b}", False),
        ("  a:\n    image: img", "  a:\n    image: other", False),
    ],
)
def test_what_is_declared_is_not_what_runs(tmp_path: Path, old: str, new: str, same: bool) -> None:
    assert old in COMPOSE
    (tmp_path / "before.yaml").write_text(COMPOSE)
    (tmp_path / "after.yaml").write_text(f"# moved\n{COMPOSE.replace(old, new)}")
    before, after = load(tmp_path / "before.yaml"), load(tmp_path / "after.yaml")
    assert before.operators != after.operators
    assert (before.work_digest == after.work_digest) is same


def test_a_definition_that_is_gone_is_refused(tmp_path: Path, earlier: Run, definition: Path) -> None:
    definition.unlink()
    with pytest.raises(DefinitionError):
        verify(tmp_path / "m", earlier)


def test_a_run_that_did_not_get_to_all_operators_is_refused(tmp_path: Path, earlier: Run) -> None:
    with pytest.raises(UsageError, match="the run is partial: second was not measured"):
        verify(tmp_path / "m", replace(earlier, operators=earlier.operators[:1]))


def test_where_nothing_is_recommended_there_is_nothing_to_prove(tmp_path: Path, earlier: Run) -> None:
    refused = tuple(replace(each, recommendation=REFUSED) for each in earlier.operators)
    with pytest.raises(UsageError, match="recommends nothing"):
        verify(tmp_path / "m", replace(earlier, operators=refused))
    with pytest.raises(HostError, match="no Docker engine"):
        verify(tmp_path / "m", replace(earlier, operators=(refused[0], earlier.operators[1])))


def test_a_single_command_s_run_is_refused(tmp_path: Path, earlier: Run) -> None:
    with pytest.raises(UsageError, match="the run of a single command"):
        verify(tmp_path / "m", replace(earlier, pipeline_digest="", pipeline_file="sleep 1"))


@pytest.mark.parametrize("made", [True, False])
def test_a_folder_without_a_record_is_refused(tmp_path: Path, made: bool) -> None:
    if made:
        (tmp_path / "m").mkdir()
    with pytest.raises(UsageError, match="not a run's record"):
        verify(tmp_path / "m", None)


def test_an_operator_that_the_pipeline_lacks_is_not_searched(definition: Path) -> None:
    plan = SearchPlan(frozenset({"first", "third", "fourth"}), True, True, 9)
    audience: Any = Audience()
    with pytest.raises(UsageError, match="has no operator fourth") as caught:
        session.search_pipeline(definition, Options(), plan, audience, Interrupts())
    assert caught.value.hint == "it has first, second"


@pytest.mark.parametrize(("wanted", "left"), [("first", "second"), ("second", ""), ("", "")])
def test_a_search_runs_what_it_needs(definition: Path, wanted: str, left: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    monkeypatch.setattr(session, "_execute", lambda made, *_: ran.extend(each.name for each in made.operators))
    heard = Audience()
    audience: Any = heard
    plan = SearchPlan(frozenset(filter(None, [wanted])), True, True, 9)
    session.search_pipeline(definition, Options(), plan, audience, Interrupts())
    assert ran == [name for name in ("first", "second") if name != left]
    assert heard.told == ([f"note: Not run, as nothing of theirs is needed: {left}"] if left else [])


# ---------------------------------------------------------------- exit codes


@pytest.mark.parametrize(
    ("outcome", "verdicts", "code"),
    [
        (Outcome.COMPLETED, [Verdict.HOLDS, None], ExitCode.OK),
        (Outcome.COMPLETED, [Verdict.HOLDS, Verdict.SLOW], ExitCode.GATE_FAILED),
        (Outcome.COMPLETED, [Verdict.BROKEN, Verdict.HOLDS], ExitCode.GATE_FAILED),
        (Outcome.FAILED, [Verdict.BROKEN], ExitCode.OPERATOR_FAILED),
        (Outcome.TIMED_OUT, [Verdict.BROKEN], ExitCode.TIMED_OUT),
    ],
)
def test_what_did_not_hold_has_an_exit_code(outcome: Outcome, verdicts: list[Verdict | None], code: ExitCode) -> None:
    records = [
        record(f"o{number}", result=result(outcome), verification=each and Verification(each, None, 0.1, ()))
        for number, each in enumerate(verdicts)
    ]
    assert session.exit_code(run(*records)) == code == (3 if code is ExitCode.GATE_FAILED else code)


@pytest.mark.parametrize(("asked", "proving", "code"), [(False, False, 0), (True, False, 3), (False, True, 3)])
def test_what_was_to_be_proven_and_was_not_is_no_success(asked: bool, proving: bool, code: int) -> None:
    held = record("a", verification=Verification(Verdict.HOLDS, None, 0.1, ()))
    made = run(held, record("b", recommendation=REFUSED), options=Options(verify=asked))
    assert session.exit_code(made, proving=proving) == code
    assert session.exit_code(replace(made, operators=(held,)), proving=proving) == 0


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.TIMED_OUT, Outcome.ENGINE_LOST])
def test_how_the_earlier_run_ended_is_not_the_exit_code_of_its_proof(outcome: Outcome) -> None:
    earlier = record("a", result=result(outcome), verification=Verification(Verdict.HOLDS, None, 0.1, ()))
    assert session.exit_code(run(earlier), proving=True) == 0
    assert session.exit_code(run(earlier)) != 0


@pytest.mark.parametrize("complete", [True, False])
def test_a_proof_does_not_change_how_the_earlier_run_came_to_its_end(complete: bool) -> None:
    made = object.__new__(execution.Execution)
    made._earlier = replace(run(), complete=complete, stopped_by="SIGINT", ended_at="then")
    made._run = replace(run(), complete=not complete, stopped_by="", ended_at="now")
    assert made._on_disk() == made._earlier


# ---------------------------------------------------------------- what goes into the record


def test_how_an_operator_ends_now_is_told_and_not_mixed_into_what_was_measured(tmp_path: Path) -> None:
    measured = record("a", result=result(Outcome.FAILED, cause="exit code 3", wall_ns=5), recommendation=REFUSED)
    audience, made = Audience(), object.__new__(execution.Execution)
    given: Any = made
    given._earlier = given._run = run(measured)
    given._measured, given._ended = {"a": measured.result}, {}
    given._observer = given._outputs = audience
    given._options = Options()
    given._treatment = SimpleNamespace(treat=lambda *_: replace(measured, result=result(wall_ns=9)))
    shop: Any = SimpleNamespace(folder=RunFolder(tmp_path, ["a"], overwrite=True))
    assert given._treat(step(), shop).result.outcome is Outcome.COMPLETED
    assert given._run.operators == (measured,)
    assert given._ended == {"a": Outcome.COMPLETED}  # what reads its outputs reads whole ones


def test_runs_under_limits_write_to_the_disk_that_the_outputs_are_on() -> None:
    work = Path("/tmp/cpost_run_of_somebody")
    assert execution._scratch_folder(work / "outputs", work) == work / "trials"
    assert execution._scratch_folder(Path("/data/out"), work) == Path("/data/out/.cpost_run_of_somebody")


# ---------------------------------------------------------------- other images


@pytest.mark.parametrize(("now", "moved"), [("1", False), ("2", True)])
@pytest.mark.parametrize("whose", ["a", "a__web", "pipeline__db"])
def test_an_image_that_has_moved_is_refused(whose: str, now: str, moved: bool) -> None:
    def ended(name: str, image_id: str) -> Any:
        return replace(result(image_id=image_id), operator=name)

    own = server_record("web", result=ended("a__web", "id1"))
    made: Any = object.__new__(execution.Execution)
    made._earlier = run(
        record("a", result=ended("a", "id1"), servers=(own,)),
        servers=(server_record("db", result=ended("pipeline__db", "id1")),),
    )
    servers = (server("web"), server("db", operator="pipeline__db", shared=True))
    named = (replace(each, step=replace(each.step, image=each.step.operator)) for each in servers)
    planned = step(image="a", servers=tuple(named))
    ids = {**dict.fromkeys(("a", "a__web", "pipeline__db"), "id1"), whose: f"id{now}"}
    plan = Plan(pipeline(), (planned,))
    if moved:
        with pytest.raises(UsageError, match=f"of {whose} is not what it was when it was measured"):
            made._check_images(plan, ids)
    else:
        made._check_images(plan, ids)


# ---------------------------------------------------------------- the command line


def called(monkeypatch: pytest.MonkeyPatch, *words: str) -> int | str | None:
    monkeypatch.setattr("sys.argv", ["cpost", *words])
    with pytest.raises(SystemExit) as left:
        main()
    return left.value.code


@pytest.mark.parametrize(
    ("text", "share"), [("10%", 0.1), ("0.1", 0.1), ("0", 0), ("150%", 1.5), ("1e-2", 0.01), ("10 %", 0.1)]
)
@pytest.mark.parametrize("option", ["--max_slowdown", "--max-slowdown"])
def test_the_slowdown_is_a_share(monkeypatch: pytest.MonkeyPatch, option: str, text: str, share: float) -> None:
    asked: list[Any] = []

    def verify_run(folder: Path, max_slowdown: float, *_: Any) -> Run:
        asked.append((folder, max_slowdown))
        return run()

    monkeypatch.setattr(session, "verify_run", verify_run)
    assert called(monkeypatch, "verify", "m", option, text) == 0
    assert asked == [(Path("m"), pytest.approx(share))]


@pytest.mark.parametrize("text", ["some", "", "%", "-1%", "nan", "inf", "1001%", "11"])
def test_what_is_no_share_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    assert called(monkeypatch, "verify", "m", "--max_slowdown", text) == ExitCode.USAGE
    assert "is no share from 0 to 1000%: write 10% or 0.1" in capsys.readouterr().err


def test_verify_and_slowdown_get_to_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Options] = []

    def size_pipeline(_: Path, options: Options, *__: Any) -> Run:
        asked.append(options)
        return run()

    monkeypatch.setattr(session, "size_pipeline", size_pipeline)
    assert called(monkeypatch, "p", "in", "--verify", "--max_slowdown", "20%") == 0
    assert called(monkeypatch, "p", "in") == 0
    assert [(each.verify, each.max_slowdown) for each in asked] == [(True, 0.2), (False, 0.1)]


@pytest.mark.parametrize(
    ("words", "plan"),
    [
        ([], SearchPlan(frozenset(), True, True, 20)),
        (["--memory"], SearchPlan(frozenset(), True, False, 20)),
        (["--cpu", "--max_runs", "3"], SearchPlan(frozenset(), False, True, 3)),
        (["--cpu", "--memory", "--max-runs", "1000"], SearchPlan(frozenset(), True, True, 1000)),
        (["--operator", "a", "--operator", "b"], SearchPlan(frozenset({"a", "b"}), True, True, 20)),
    ],
)
def test_what_is_searched(monkeypatch: pytest.MonkeyPatch, words: list[str], plan: SearchPlan) -> None:
    asked: list[SearchPlan] = []

    def search_pipeline(_: Path, __: Options, wanted: SearchPlan, *___: Any) -> Run:
        asked.append(wanted)
        return run()

    monkeypatch.setattr(session, "search_pipeline", search_pipeline)
    assert called(monkeypatch, "search", "p", "in", *words) == 0
    assert asked == [plan]


@pytest.mark.parametrize(
    "words", ["search p", "search p in --max_runs 0", "verify", "verify a b", "search p in --verify"]
)
def test_a_wrong_call_is_a_usage_error(monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    assert called(monkeypatch, *words.split()) == ExitCode.USAGE


def test_a_refusal_is_two_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert called(monkeypatch, "verify", str(tmp_path)) == ExitCode.USAGE
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"cpost: error: {tmp_path}: not a run's record")
    assert second == "  what to do: name a folder that cpost wrote (--metrics_dir)"


# ---------------------------------------------------------------- the run folder


def test_a_folder_that_is_added_to_keeps_all_that_is_there(tmp_path: Path) -> None:
    for name in (RUN_FILE, SUMMARY_FILE, "a_final_result.csv", "a_repeat1.csv", "a_verify1.csv"):
        (tmp_path / name).write_text("old")
    folder = RunFolder(tmp_path, ["a"], overwrite=False, update=True)
    folder.prepare()
    assert {path.read_text() for path in tmp_path.iterdir()} == {"old"}
    folder.save(run(), "summary\n", "trials\n")
    folder.close()
    assert (tmp_path / TRIALS_FILE).read_text() == "trials\n"
    assert (tmp_path / "a_verify1.csv").read_text() == "old"


def test_a_table_of_trials_is_an_earlier_result(tmp_path: Path) -> None:
    (tmp_path / TRIALS_FILE).touch()
    (tmp_path / "a_search3.csv").touch()
    (tmp_path / "b_verify1.csv").touch()
    with pytest.raises(CpostError, match=TRIALS_FILE):
        RunFolder(tmp_path, ["a"], overwrite=False)
    folder = RunFolder(tmp_path, ["a"], overwrite=True)
    folder.prepare()
    assert [path.name for path in tmp_path.iterdir()] == ["b_verify1.csv"]
    folder.save(run(), "summary\n")
    folder.close()
    assert not (tmp_path / TRIALS_FILE).exists()


def test_series_of_runs_under_limits_have_names_of_their_own(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, ["a"], overwrite=False)
    series = folder.open_trial(VERIFY, 3, "a", "header\n")
    series.close()
    folder.close()
    assert (tmp_path / "a_verify3.csv").read_text() == "header\n"


# ---------------------------------------------------------------- the record while it goes on


def test_a_record_keeps_its_place(earlier: Run) -> None:
    made: Any = object.__new__(execution.Execution)
    made._run = earlier
    made._put(record("first", image="new"))
    assert [(each.operator, each.image) for each in made._run.operators] == [("first", "new"), ("second", "img:1")]
    made._put(record("third"))
    assert [each.operator for each in made._run.operators] == ["first", "second", "third"]


@pytest.mark.parametrize(("name", "cpus", "warned"), [("here", 2, False), ("there", 2, True), ("here", 4, True)])
def test_another_machine_is_warned_of(earlier: Run, name: str, cpus: int, warned: bool) -> None:
    made: Any = object.__new__(execution.Execution)
    made._earlier = replace(earlier, host=HostFacts(hostname=name, cpus=cpus))
    made._host, made._observer = HostFacts(hostname="here", cpus=2), Audience()
    made._check_host()
    assert bool(made._observer.told) is warned
    made._earlier = None
    made._observer.told.clear()
    made._check_host()
    assert made._observer.told == []


def test_a_record_leads_to_its_input_from_any_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    lasting = execution._lasting(Options(input_dir="in", models_dir="models", outputs_dir="out"))
    assert (lasting.input_dir, lasting.models_dir) == (str(tmp_path / "in"), str(tmp_path / "models"))
    assert execution._lasting(Options(input_dir="/in")) == Options(input_dir="/in")


def test_the_record_of_a_copied_folder_says_where_it_is_now() -> None:
    made: Any = object.__new__(execution.Execution)
    made._earlier = run(options=Options(metrics_dir="old", max_slowdown=0.3))
    made._options = Options(metrics_dir="copy")
    assert (made._begin().options.metrics_dir, made._begin().options.max_slowdown) == ("copy", 0.3)
