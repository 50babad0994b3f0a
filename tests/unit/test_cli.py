"""The command line: options in, one call of the session, exit codes and two lines of error out."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from builders import record, result, run

import cpost
from cpost.cli import cli, main
from cpost.errors import CpostError, DefinitionError, ExitCode, HostError, Interrupted, Problem, UsageError
from cpost.model import Options, Outcome, Run

HEAVY = {"docker", "requests", "urllib3", "yaml", "tabulate", "psutil", "pynvml", "pandas", "numpy", "cattrs", "jinja2"}
README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")


class Session:
    """Stands in for the session: takes note of what it is asked, and answers or raises."""

    def __init__(self) -> None:
        self.answer: Run | Exception = run()
        self.pipeline: Path | None = None
        self.options: Options | None = None
        self.signal: int | None = None

    def size_pipeline(self, pipeline: Path, options: Options, console: Any, interrupts: Any) -> Run:
        self.pipeline, self.options = pipeline, options
        if self.signal is not None:
            interrupts.deliver(self.signal)
        if isinstance(self.answer, Exception):
            raise self.answer
        console.run_ends(self.answer)
        return self.answer


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Session:
    made = Session()
    monkeypatch.setattr("cpost.session.size_pipeline", made.size_pipeline)
    return made


def called(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """The exit code of a call with these words."""
    monkeypatch.setattr(sys, "argv", ["cpost", *words])
    with pytest.raises(SystemExit) as left:
        main()
    code = left.value.code
    assert isinstance(code, int)
    return code


# ---------------------------------------------------------------- light


def test_help_loads_nothing_heavy() -> None:
    look = (
        "import json, sys\nfrom cpost.cli import main\n"
        "try:\n    main()\nexcept SystemExit as left:\n    code = left.code\n"
        "sys.stderr.write(json.dumps([code, sorted(sys.modules)]))"
    )
    done = subprocess.run([sys.executable, "-c", look, "--help"], capture_output=True, text=True, check=True)
    code, modules = json.loads(done.stderr)
    assert code == 0
    assert "Measure what the containers" in done.stdout
    loaded = {name.partition(".")[0] for name in modules}
    assert "click" in loaded
    assert loaded & HEAVY == set()


# ---------------------------------------------------------------- words


def test_run_is_the_verb_where_none_is_named(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    assert called(monkeypatch, "p.yaml", "in") == 0
    assert (session.pipeline, session.options) == (Path("p.yaml"), Options(input_dir="in", policy=""))
    assert called(monkeypatch, "--force", "cont", "p.yaml", "in") == 0
    assert session.options == Options(input_dir="in", on_failure="cont", policy="")


def test_every_option_gets_to_the_session(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    words = "run p.yaml in --metrics_dir m --outputs_dir o --models_dir r --policy p95 --period 5ms --window 1s"
    words += " --timeout 2m --duration 3m --shm_size 64m --memory_limit 1.5GB --force stop"
    words += " --overwrite --no_gpu --repeat 5 --warmup 1"
    assert called(monkeypatch, *words.split()) == 0
    assert session.options == Options(
        period_ns=5 * 10**6,
        window_ns=10**9,
        policy="p95",
        timeout_ns=120 * 10**9,
        duration_ns=180 * 10**9,
        shm_bytes=64 * 2**20,
        memory_limit_bytes=1_499_996_160,  # whole pages
        on_failure="stop",
        input_dir="in",
        metrics_dir="m",
        outputs_dir="o",
        models_dir="r",
        overwrite=True,
        no_gpu=True,
        repeat=5,
        warmup=1,
    )
    dashed = re.sub(r"--(\w+)_", r"--\1-", words)
    first = session.options
    assert called(monkeypatch, *dashed.split()) == 0
    assert session.options == first


def test_force_without_a_word_asks(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    assert called(monkeypatch, "p.yaml", "in", "--force") == 0
    assert session.options is not None
    assert session.options.on_failure == "none"


@pytest.mark.parametrize(
    "words",
    [
        "p.yaml in --period 0ms",
        "p.yaml in --period 11s",
        "p.yaml in --period soon",
        "p.yaml in --window 1ms",
        "p.yaml in --timeout -5s",
        "p.yaml in --timeout 0",
        "p.yaml in --shm_size 0",
        "p.yaml in --shm_size lots",
        "p.yaml in --memory_limit 5m",
        "p.yaml in --repeat 0",
        "p.yaml in --repeat 1001",
        "p.yaml in --repeat often",
        "p.yaml in --warmup -1",
        "p.yaml in --policy best",
        "p.yaml in --force perhaps",
        "p.yaml in --unknown",
        "p.yaml in too much",
        "run p.yaml",
        "run",
        "plan",
        "doctor now",
        "clean --all",
    ],
)
def test_a_wrong_call_is_a_usage_error(
    session: Session, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: str
) -> None:
    assert called(monkeypatch, *words.split()) == ExitCode.USAGE
    assert session.pipeline is None
    said = capsys.readouterr()
    error, remedy = said.err.splitlines()
    assert said.out == ""
    assert error.startswith("cpost: error: ")
    assert re.match(r"  what to do: cpost .*\(cpost .*--help says more\)", remedy)


def test_without_any_word_the_help_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called(monkeypatch) == ExitCode.USAGE
    said = capsys.readouterr()
    assert "cpost PIPELINE INPUT" in said.out + said.err
    assert "error" not in (said.out + said.err).lower()


@pytest.mark.parametrize(
    ("option", "text", "shown"),
    [
        ("--period", "3 parsec", "a duration such as 10ms"),
        ("--shm_size", "3 parsec", "a size such as 512MB"),
        ("--period", "1h", "out of range"),
    ],
)
def test_a_quantity_that_is_none_says_what_would_be(
    session: Session,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    option: str,
    text: str,
    shown: str,
) -> None:
    assert called(monkeypatch, "p.yaml", "in", option, text) == ExitCode.USAGE
    said = capsys.readouterr().err
    assert option in said
    assert shown in " ".join(said.split())


@pytest.mark.parametrize(
    ("word", "hint"), [("plna", "cpost plan"), ("docter", "cpost doctor"), ("nothing.yaml", "cpost PIPELINE INPUT")]
)
def test_an_unknown_word_gets_a_hint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], word: str, hint: str
) -> None:
    assert called(monkeypatch, word) == ExitCode.USAGE
    said = capsys.readouterr().err
    assert f"{word} is no verb of cpost and no file" in said
    assert hint in said


@pytest.mark.parametrize("words", ["chek metrics", "plna p.yaml in", "verfy metrics -q"])
def test_a_misspelt_verb_is_no_pipeline(
    session: Session, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: str
) -> None:
    assert called(monkeypatch, *words.split()) == ExitCode.USAGE
    assert session.pipeline is None
    assert "did you mean `cpost " in capsys.readouterr().err


@pytest.mark.parametrize("word", ["search.yaml", "./plan", "pipeline"])
def test_a_pipeline_that_is_not_there_is_no_verb(session: Session, monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    assert called(monkeypatch, word, "in") == 0
    assert session.pipeline == Path(word)


@pytest.mark.parametrize("option", ["--metrics_dir", "--outputs-dir", "--models_dir", "--triton_image"])
def test_an_option_is_not_empty(
    session: Session, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    """A variable of a script that is not set must not lose the results."""
    assert called(monkeypatch, "p.yaml", "in", option, "") == ExitCode.USAGE
    assert "it is empty: name what is meant, or leave it out" in capsys.readouterr().err
    assert session.pipeline is None


@pytest.mark.parametrize(
    "words",
    [
        ["", "in"],
        ["p.yaml", ""],
        ["plan", ""],
        ["plan", "p.yaml", ""],
        ["exec", "--metrics_dir", "", "--", "true"],
        ["check", ""],
        ["check", "m", "--baseline", ""],
        ["apply", "m", "p.yaml", "--output", ""],
        ["report", ""],
    ],
)
def test_an_empty_word_is_not_the_folder_that_cpost_was_called_in(
    session: Session, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert called(monkeypatch, *words) == ExitCode.USAGE
    assert "it is empty: name what is meant" in capsys.readouterr().err


def test_a_file_without_its_input_is_told_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "p.yaml").write_text("x")
    assert called(monkeypatch, str(tmp_path / "p.yaml")) == ExitCode.USAGE
    assert "Missing argument 'INPUT'" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["-h", "--help", "--version"])
def test_help_and_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], word: str) -> None:
    assert called(monkeypatch, word) == 0
    assert ("Usage:" if "h" in word[:3] else cpost.__version__) in capsys.readouterr().out


@pytest.mark.parametrize("verb", sorted(set(cli.commands) - {"run"}))
def test_the_help_names_every_verb(verb: str) -> None:
    assert cli.help is not None
    assert f"\n    cpost {verb} " in cli.help


# ---------------------------------------------------------------- the README


@pytest.mark.parametrize("verb", sorted(cli.commands))
def test_the_readme_names_every_verb(verb: str) -> None:
    assert f"cpost {verb}" in README


@pytest.mark.parametrize("option", [each.opts[0] for each in cli.commands["run"].params if "-" in each.opts[0]])
def test_the_readme_names_every_option(option: str) -> None:
    assert option.replace("--verbose", "-v") in README


@pytest.mark.parametrize("code", [*map(int, ExitCode), 130])
def test_the_readme_and_the_help_name_every_exit_code(code: int) -> None:
    rows = README.lower().partition("exit codes")[2]
    assert re.search(rf"^\|\s*`?{code}`?\s*\|", rows, re.MULTILINE)
    assert cli.help is not None
    assert re.search(rf"\b{code}\b", cli.help.partition("Exit codes")[2])


def test_the_readme_installs_this_version() -> None:
    assert set(re.findall(r"cpost-([\d.]+)-py3", README)) == {cpost.__version__}


# ---------------------------------------------------------------- how it ends


@pytest.mark.parametrize(
    ("outcome", "code"), [(Outcome.COMPLETED, 0), (Outcome.FAILED, 1), (Outcome.TIMED_OUT, 4), (Outcome.ENGINE_LOST, 5)]
)
def test_the_outcome_is_the_exit_code(
    session: Session, monkeypatch: pytest.MonkeyPatch, outcome: Outcome, code: int
) -> None:
    session.answer = run(record(result=result(outcome)))
    assert called(monkeypatch, "p.yaml", "in", "-q") == code


@pytest.mark.parametrize(("signal", "code"), [(2, 130), (15, 143), (1, 129)])
def test_a_signal_is_the_exit_code(session: Session, monkeypatch: pytest.MonkeyPatch, signal: int, code: int) -> None:
    session.signal = signal
    assert called(monkeypatch, "p.yaml", "in") == code
    session.answer = Interrupted(signal)
    assert called(monkeypatch, "p.yaml", "in") == code


@pytest.mark.parametrize(("error", "code"), [(UsageError("bad", "do this"), 2), (HostError("bad", "do this"), 5)])
def test_an_error_is_two_lines(
    session: Session,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: CpostError,
    code: int,
) -> None:
    session.answer = error
    assert called(monkeypatch, "p.yaml", "in") == code
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "cpost: error: bad\n  what to do: do this\n")


def test_an_error_that_says_it_all_is_one_line(
    session: Session, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    session.answer = HostError("bad")
    called(monkeypatch, "p.yaml", "in")
    assert capsys.readouterr().err == "cpost: error: bad\n"


def test_every_problem_of_a_definition_is_shown_with_its_hint(
    session: Session, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    session.answer = DefinitionError([Problem("p", 1, 2, "one", "fix one"), Problem("q", 0, 0, "two")])
    assert called(monkeypatch, "p.yaml", "in") == ExitCode.USAGE
    assert capsys.readouterr().err == "cpost: error: p:1:2: one\n  what to do: fix one\ncpost: error: q: two\n"


def test_a_bug_keeps_its_traceback(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    session.answer = ZeroDivisionError("bug")
    monkeypatch.setattr(sys, "argv", ["cpost", "p.yaml", "in"])
    with pytest.raises(ZeroDivisionError, match="bug"):
        main()


def test_json_is_all_that_stdout_holds(
    session: Session, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    session.answer = run(record())
    assert called(monkeypatch, "p.yaml", "in", "--json") == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["operators"][0]["operator"] == "a"
    assert "| Operator" in said.err


# ---------------------------------------------------------------- exec


class CommandSession:
    """Stands in for the session of one command."""

    def __init__(self) -> None:
        self.asked: tuple[Any, ...] = ()
        self.result = result(exit_code=0)

    def size_command(self, command: Any, name: Any, options: Options, console: Any, interrupts: Any) -> Run:
        self.asked = (command, name, options)
        return run(record(result=self.result))


@pytest.fixture
def one(monkeypatch: pytest.MonkeyPatch) -> CommandSession:
    made = CommandSession()
    monkeypatch.setattr("cpost.command_session.size_command", made.size_command)
    return made


def test_a_command_keeps_its_own_words(one: CommandSession, monkeypatch: pytest.MonkeyPatch) -> None:
    assert called(monkeypatch, "exec", "--", "a", "--json", "--", "-q") == 0
    assert one.asked == (("a", "--json", "--", "-q"), None, Options())
    assert called(monkeypatch, "exec", "a", "--policy", "-x") == 0
    assert one.asked[0] == ("a", "--policy", "-x")


def test_every_option_gets_to_the_command_s_session(one: CommandSession, monkeypatch: pytest.MonkeyPatch) -> None:
    words = "exec --name n --metrics_dir m --policy p99 --period 5ms --window 1s --timeout 2m --memory_limit 1GB"
    assert called(monkeypatch, *words.split(), "--overwrite", "--", "a") == 0
    assert one.asked[1:] == (
        "n",
        Options(
            period_ns=5 * 10**6,
            window_ns=10**9,
            policy="p99",
            timeout_ns=120 * 10**9,
            memory_limit_bytes=999_997_440,  # whole pages
            metrics_dir="m",
            overwrite=True,
        ),
    )


@pytest.mark.parametrize(
    ("outcome", "own", "code"),
    [(Outcome.COMPLETED, 0, 0), (Outcome.FAILED, 42, 42), (Outcome.INTERRUPTED, 143, 143), (Outcome.TIMED_OUT, 143, 4)],
)
def test_the_command_s_exit_code_is_cpost_s(
    one: CommandSession, monkeypatch: pytest.MonkeyPatch, outcome: Outcome, own: int, code: int
) -> None:
    one.result = result(outcome, exit_code=own)
    assert called(monkeypatch, "exec", "--", "a") == code


def test_without_a_command_there_is_nothing_to_size(
    one: CommandSession, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called(monkeypatch, "exec", "-q") == 2
    assert "COMMAND" in capsys.readouterr().err


def test_a_command_is_sized_without_the_engine_s_library() -> None:
    look = (
        "import json, sys\nfrom cpost.cli import main\nsys.argv = ['cpost', 'exec', '-q', '--', 'true']\n"
        "try:\n    main()\nexcept SystemExit as left:\n    code = left.code\n"
        "print(json.dumps([code, sorted(sys.modules)]))"
    )
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    code, modules = json.loads(done.stdout)
    assert code == 0
    assert not {"docker", "requests", "urllib3", "yaml", "pynvml"} & set(modules)


@pytest.mark.parametrize("dry_run", [True, False])
def test_clean_without_an_engine_cleans_the_rest_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], dry_run: bool
) -> None:
    asked: list[Any] = []

    def refuse() -> None:
        raise HostError("no Docker engine answers", "start it")

    def sweep(engine: Any, *, dry_run: bool) -> tuple[list[Any], list[str]]:
        asked.append((engine, dry_run))
        return [], []

    monkeypatch.setattr("cpost.measure.engine.Engine", refuse)
    monkeypatch.setattr("cpost.session.sweep", sweep)
    assert called(monkeypatch, "clean", *(["--dry-run"] if dry_run else [])) == 5
    assert asked == [(None, dry_run)]
    said = capsys.readouterr()
    assert said.out == "Nothing is left of dead runs but, perhaps, on an engine.\n"
    assert "no Docker engine answers" in said.err
