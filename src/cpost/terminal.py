"""Text of a stranger on a terminal: what steers the terminal is shown as an escape, never passed on."""

from __future__ import annotations


def visible(text: str) -> str:
    """The text with everything that does not print as itself (controls, overrides of direction) as an escape."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)
