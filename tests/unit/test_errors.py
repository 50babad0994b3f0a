"""The tree of errors: each carries a message, what to do, and its exit code."""

from __future__ import annotations

import pytest

from cpost.errors import (
    CpostError,
    DefinitionError,
    EngineError,
    EngineLost,
    HostError,
    Interrupted,
    Problem,
    StoreError,
    UsageError,
)


@pytest.mark.parametrize(
    ("kind", "code"), [(UsageError, 2), (HostError, 5), (EngineError, 5), (EngineLost, 5), (StoreError, 5)]
)
def test_each_kind_has_its_exit_code(kind: type[CpostError], code: int) -> None:
    error = kind("wrong", "do this")
    assert (str(error), error.message, error.hint, error.exit_code) == ("wrong", "wrong", "do this", code)


def test_a_signal_is_128_and_its_number() -> None:
    assert [Interrupted(number).exit_code for number in (1, 2, 15)] == [129, 130, 143]


def test_an_engine_error_keeps_status_and_words() -> None:
    error = EngineLost("lost", status=500, reason="why")
    assert isinstance(error, HostError)
    assert (error.status, error.reason, error.hint) == (500, "why", "")


def test_problems_stand_in_the_file_s_order_and_name_their_place() -> None:
    late, early, other = Problem("a", 9, 1, "x"), Problem("a", 2, 30, "y"), Problem("b", 1, 1, "z")
    assert sorted([other, late, early]) == [early, late, other]
    assert str(early) == "a:2:30: y"
    assert str(Problem("a", 0, 0, "no place")) == "a: no place"


def test_a_definition_error_tells_how_many_problems_there_are() -> None:
    one, two = Problem("a", 1, 1, "x", "fix x"), Problem("a", 2, 1, "y")
    assert DefinitionError([one]).message == "a:1:1: x"
    error = DefinitionError([one, two])
    assert (error.message, error.hint, error.exit_code) == ("a:1:1: x (and 1 more)", "fix x", 2)
    assert error.problems == (one, two)
