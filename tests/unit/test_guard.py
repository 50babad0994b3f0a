"""The guard: silent when released, cleans when its pipe ends without a word."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cpost.errors import EngineError, HostError
from cpost.measure import guard, marked
from cpost.measure.guard import Guard
from cpost.measure.owner import Owner

RUN = "20260101T000000xab12"
NAME = Owner.current().name(RUN)

LATE = guard._LATE_CREATE_S  # one more look, for what was on its way


@pytest.fixture
def handled(monkeypatch: pytest.MonkeyPatch) -> dict[int, Any]:
    """What the guard did to signals, without doing it to this process."""
    done: dict[int, Any] = {}
    monkeypatch.setattr(signal, "signal", done.__setitem__)
    return done


class Stdin:
    """Ends after what it holds."""

    def __init__(self, text: bytes) -> None:
        self.buffer = io.BytesIO(text)


def guarded(
    monkeypatch: pytest.MonkeyPatch, text: bytes, answers: list[bool]
) -> tuple[list[tuple[str, str]], list[float]]:
    """Let the guard hear this and clean with these outcomes; tells its clean-ups and its pauses."""
    cleaned: list[tuple[str, str]] = []
    pauses: list[float] = []
    clock = iter(range(0, 10**6, 7))

    def clean(run_id: str, owner_name: str) -> bool:
        cleaned.append((run_id, owner_name))
        return answers.pop(0) if answers else False

    monkeypatch.setattr(sys, "stdin", Stdin(text))
    monkeypatch.setattr(guard, "_clean", clean)
    monkeypatch.setattr(guard.time, "sleep", pauses.append)
    monkeypatch.setattr(guard.time, "monotonic", lambda: float(next(clock)))
    guard.main([RUN, NAME])
    return cleaned, pauses


def test_a_released_guard_touches_nothing(monkeypatch: pytest.MonkeyPatch, handled: dict[int, Any]) -> None:
    assert guarded(monkeypatch, b"released", []) == ([], [])


@pytest.mark.parametrize("text", [b"", b"rel", b"released\n", b"released and more"])
def test_anything_else_is_a_death(monkeypatch: pytest.MonkeyPatch, handled: dict[int, Any], text: bytes) -> None:
    assert guarded(monkeypatch, text, [True]) == ([(RUN, NAME), (RUN, NAME)], [LATE])


def test_it_tries_again_until_all_is_gone(monkeypatch: pytest.MonkeyPatch, handled: dict[int, Any]) -> None:
    cleaned, pauses = guarded(monkeypatch, b"", [False, False, True])
    assert (len(cleaned), len(pauses)) == (4, 3)


def test_it_gives_up_in_the_end(monkeypatch: pytest.MonkeyPatch, handled: dict[int, Any]) -> None:
    cleaned, pauses = guarded(monkeypatch, b"", [])
    assert 30 < len(cleaned) < 60
    assert len(pauses) == len(cleaned) - 1
    assert pauses[-1] == LATE


def test_a_terminal_s_signals_do_not_reach_it(monkeypatch: pytest.MonkeyPatch, handled: dict[int, Any]) -> None:
    guarded(monkeypatch, b"released", [])
    assert handled == dict.fromkeys((signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT), signal.SIG_IGN)


# ---------------------------------------------------------------- what cleaning is


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the clean-up was asked to remove; nothing is."""
    calls: list[Any] = []

    def remove_run(
        engine: object, hierarchies: object, owner: Owner, run_id: str, images: object, folders: object
    ) -> list[str]:
        calls.append((owner, run_id, hierarchies, engine, folders))
        return []

    monkeypatch.setattr("cpost.measure.engine.Engine", object)
    monkeypatch.setattr("cpost.measure.cleanup.remove_run", remove_run)
    return calls


def test_it_removes_its_own_run(asked: list[Any]) -> None:
    assert guard._clean(RUN, NAME, "no-engine", "/out/.beside")
    assert [call[:2] for call in asked] == [(Owner.current(), RUN)]
    assert asked[0][4] == (Path("/out/.beside"),)


def test_a_name_that_is_not_ours_removes_nothing(asked: list[Any]) -> None:
    assert guard._clean(RUN, "cpost_somebody")
    assert asked == []


def test_without_control_groups_the_rest_still_goes(asked: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(root: Path = Path("/")) -> None:
        raise HostError("no control groups")

    monkeypatch.setattr("cpost.measure.cgroup.Hierarchies.read", refuse)
    assert guard._clean(RUN, NAME)
    assert asked[0][2] is None


def test_what_is_left_or_an_engine_that_does_not_answer_means_again(
    asked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cpost.measure.cleanup.remove_run", lambda *_: ["something"])
    assert not guard._clean(RUN, NAME)

    def no_engine() -> None:
        raise EngineError("no answer")

    monkeypatch.setattr("cpost.measure.engine.Engine", no_engine)
    assert not guard._clean(RUN, NAME)


def test_a_run_without_an_engine_is_cleaned_without_one(asked: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def no_engine() -> None:
        raise EngineError("no answer")

    monkeypatch.setattr("cpost.measure.engine.Engine", no_engine)
    assert guard._clean(RUN, NAME, "no-engine")
    assert [call[3] for call in asked] == [None]


# ---------------------------------------------------------------- the process


def test_a_real_guard_goes_home_at_once_when_released() -> None:
    watching = Guard(RUN, "nobody")
    assert watching._process.poll() is None
    watching.release()
    assert watching._process.returncode == 0


def test_a_real_guard_outlives_the_terminal_s_session(monkeypatch: pytest.MonkeyPatch) -> None:
    started: dict[str, Any] = {}

    def popen(command: list[str], **given: Any) -> None:
        started.update(given, command=command)

    monkeypatch.setattr(subprocess, "Popen", popen)
    Guard(RUN, NAME)
    assert started["command"][1:] == ["-m", "cpost.measure.guard", RUN, NAME, "engine"]
    Guard(RUN, NAME, engine=False, folders=(Path("/out/.beside"),))
    assert started["command"][1:] == ["-m", "cpost.measure.guard", RUN, NAME, "no-engine", "/out/.beside"]
    assert started["start_new_session"]
    assert started["stdin"] == subprocess.PIPE


def test_a_guard_inside_another_run_s_command_is_none_of_that_run_s_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    outer = Owner.current().name("20260101T000000xffff")
    monkeypatch.setenv(marked.VARIABLE, outer)
    watching = Guard(RUN, "nobody")
    try:
        assert marked.carries(watching.pid, outer) is False
    finally:
        watching.release()
    assert watching._process.returncode == 0


@pytest.mark.parametrize("error", [BrokenPipeError(), subprocess.TimeoutExpired("guard", 5)])
def test_a_guard_that_is_slow_to_go_is_no_error(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    class Process:
        def communicate(self, text: bytes, timeout: float) -> None:
            raise error

    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: Process())
    Guard(RUN, NAME).release()


def test_the_guard_does_not_take_modules_from_where_cpost_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpost").mkdir()
    (tmp_path / "cpost/__init__.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    watching = Guard(RUN, "nobody")
    watching.release()
    assert watching._process.returncode == 0
    assert not (tmp_path / "ran").exists()
