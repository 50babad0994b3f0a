"""What a command is called, and what is refused before it starts."""

from __future__ import annotations

import pytest

from cpost.command_session import _checked
from cpost.errors import UsageError


@pytest.mark.parametrize(
    ("program", "name"),
    [
        ("/usr/bin/python3.11", "python3.11"),
        ("./my prog (old)", "my-prog-old"),
        ("g++", "g++"),
        ("[", "command"),
        ("..", "command"),
        ("", "command"),
        ("übung", "bung"),
        ("x" * 300, "x" * 100),
    ],
)
def test_a_command_is_called_after_its_program(program: str, name: str) -> None:
    assert _checked(None, program) == name


@pytest.mark.parametrize("name", ["", "a/b", "..", ".a", "-a", "a b", "a\n", "x" * 101])
def test_a_name_becomes_part_of_file_names(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        _checked(name, "true")
    assert caught.value.hint
    assert _checked("a.b-c_1+2", "true") == "a.b-c_1+2"
