"""Text of a stranger on a terminal: what steers the terminal is shown as an escape, never passed on."""

from __future__ import annotations

_BYTE, _LAST_BYTE = "\udc80", "\udcff"  # Python's stand-ins for the bytes of a file name that are no text


def visible(text: str) -> str:
    """The text with everything that does not print as itself (controls, overrides of direction) as an escape."""
    return "".join(char if char.isprintable() else escaped(char) for char in text)


def escaped(char: str) -> str:
    """A character as an escape that a shell's $'...' reads; a byte that is no text as that byte."""
    if _BYTE <= char <= _LAST_BYTE:
        return f"\\x{ord(char) & 0xFF:02x}"
    return char.encode("unicode_escape").decode("ascii")
