"""Compose's variables, and its files of them."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpost.definition.variables import VariableError, interpolated, read_lines

KNOWN = {"A": "a", "E": "", "N": "${A}"}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("plain", "plain"), ("$A ${A}!", "a a!"), ("$$A $${A}", "$A ${A}"), ("${E:-d}${E-d}${X:-d}${X-d}", "ddd"),
        ("${A:+y}${E:+y}${E+y}${X+y}", "yy"), ("${A:?no}${E?no}", "a"), ("${X:-${Y:-${A}z}}", "az"), ("${N}", "${A}"),
        ("${X:-}", ""), ("100$ 5$%", "100$ 5$%"), ("${X:-a:b-c}", "a:b-c"),
    ],
)  # fmt: skip
def test_forms(text: str, wanted: str) -> None:
    assert interpolated(text, KNOWN) == wanted


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("$X", "variable X has no value"),
        ("${X:-$Y}", "variable Y has no value"),
        ("${E:?say it}", 'variable E is needed: "say it"'),
        ("${A", "a ${ is not closed"),
        ("${}", '"${}" is not a variable'),
        ("${A!b}", '"${A!b}" is not a variable'),
        ("${X:-" * 50 + "}" * 50, "is not a variable"),
    ],
)
def test_what_cannot_be_filled(text: str, message: str) -> None:
    with pytest.raises(VariableError) as caught:
        interpolated(text, KNOWN)
    assert message in caught.value.message
    assert caught.value.hint


@given(st.text(max_size=30))
def test_any_text_is_filled_or_refused_and_dollars_can_be_kept(text: str) -> None:
    with contextlib.suppress(VariableError):
        interpolated(text, KNOWN)
    assert interpolated(text.replace("$", "$$"), KNOWN) == text


def test_files_of_variables() -> None:
    text = (
        "\ufeff# a comment\n\nA=1\nexport B = two words # why\nC='$A as is' x\nD=\"$A\\n${B} \\$A\"\nHOME\nNOT_SET\n"
        "E=\nA=last\n! no line\n"
    )
    assert read_lines(text, {"HOME": "/root"}) == {
        "A": "last", "B": "two words", "C": "$A as is", "D": "1\ntwo words $A", "HOME": "/root", "E": "",
    }  # fmt: skip
