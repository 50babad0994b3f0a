"""The spelling rules of single values: names, images, paths, variables, whole numbers.

Each rule takes the text and returns what it means, or raises GrammarError with the fault and its remedy.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass

from cpost.definition.findings import quoted

# Clara allows 255. cpost makes names of files, folders and containers from it, and a file name holds 255 bytes.
MAX_NAME = 100
# Linux refuses a single argument or variable of more than 128 KiB, its final NUL included.
MAX_ARGUMENT_BYTES = 128 * 1024 - 1
_MAX_NUMBER = 10**12

_NAME = re.compile(r"[A-Za-z0-9_-]+")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DOMAIN_PART = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_DOMAIN = re.compile(rf"(?:{_DOMAIN_PART}(?:\.{_DOMAIN_PART})*|\[[0-9A-Fa-f:.]+\])(?::[0-9]+)?")
_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_IMAGE_ID = re.compile(r"[0-9a-f]{64}")
_MAX_REPOSITORY = 255
_OTHER_TEMPLATES = re.compile(r"\$\{|\{\{|<[^>]*>|\$[A-Za-z(]")
# Of any tool, and the words in capitals that instructions ask their reader to replace.
_PLACEHOLDER = re.compile(r"\$\{|\{\{|<[^>]*>|\$[A-Za-z(]|(?:^|/)[A-Z][A-Z0-9]*[_-][A-Z0-9_-]+(?=[/:@]|$)")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,63})?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")


class GrammarError(Exception):
    """A value breaks its spelling rule.

    Args:
        message: what is wrong with it.
        hint: what would be right.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Image:
    """The parts of an image reference; None = not given."""

    repository: str
    tag: str | None = None
    digest: str | None = None


def any_text(text: str) -> str:
    """Accept any text as it is."""
    return text


def name(text: str) -> str:
    """Accept Clara's names: Latin letters, digits, hyphen and underscore."""
    if not _NAME.fullmatch(text):
        raise GrammarError(f"{quoted(text)} is not a name", "use Latin letters, digits, - and _, at least one of them")
    if len(text) > MAX_NAME:
        hint = f"use at most {MAX_NAME}: file and container names are made of it"
        raise GrammarError(f"{quoted(text)} has {len(text)} characters", hint)
    return text


def connection_name(text: str) -> str:
    """Accept a name that can be an environment variable in any shell."""
    if not _VARIABLE.fullmatch(text) or len(text) > MAX_NAME:
        hint = "the operator gets it as a variable: use letters, digits and _, no digit first"
        raise GrammarError(f"{quoted(text)} cannot be the name of an environment variable", hint)
    return text


def variable_name(text: str) -> str:
    """Accept what the kernel accepts as a variable's name."""
    if not text or "=" in text or "\0" in text:
        raise GrammarError(f"{quoted(text)} cannot be the name of a variable", "it must not be empty or contain =")
    return text


def argument(text: str) -> str:
    """Accept what the kernel accepts as one argument of a program."""
    _check_size(text, "")
    return text


def variable_value(name: str, text: str) -> str:
    """Accept what the kernel accepts as the value of variable `name`; it counts both together."""
    _check_size(text, f"{name}=")
    return text


def _check_size(text: str, before: str) -> None:
    size = len(before.encode()) + len(text.encode())
    if "\0" in text:
        raise GrammarError("it contains a NUL character")
    if size > MAX_ARGUMENT_BYTES:
        raise GrammarError(f"it has {size} bytes, the kernel takes {MAX_ARGUMENT_BYTES}", "pass it as a file")


def model_name(text: str) -> str:
    """Accept the name of a folder in the model repository."""
    if not text or text in (".", "..") or "/" in text or _CONTROL.search(text) or len(text.encode()) > 255:
        raise GrammarError(f"{quoted(text)} is not the name of a folder", "use the folder's name in the repository")
    return text


def folder(text: str) -> str:
    """Return an absolute path inside a container, without needless slashes and dots.

    Refused: relative paths, `..`, the root itself, control characters, and /proc, where nothing can be mounted.
    """
    if _CONTROL.search(text):
        raise GrammarError(f"{quoted(text)} contains a control character", "write a plain path")
    if not text.startswith("/"):
        raise GrammarError(f"{quoted(text)} is not an absolute path", f"start it with a slash: {quoted('/' + text)}")
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise GrammarError(f'{quoted(text)} contains ".."', "write the path that is meant")
    if not parts or parts[0] == "proc":
        raise GrammarError(f"{quoted(text)} cannot be used for data", "choose a folder such as /input")
    if len(text) > 4000 or max(len(part.encode()) for part in parts) > 255:
        raise GrammarError(f"{quoted(text)} is too long for a path")
    return posixpath.join("/", *parts)


def relative_path(text: str) -> str:
    """Accept a path below a folder that is given elsewhere."""
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if text.startswith("/") or ".." in parts or not parts or _CONTROL.search(text):
        raise GrammarError(f"{quoted(text)} is not a path below its folder", "write it without a leading / and ..")
    return "/".join(parts)


def absolute(text: str) -> str:
    """Accept an absolute path; empty = none."""
    if (text and not text.startswith("/")) or _CONTROL.search(text):
        raise GrammarError(f"{quoted(text)} is not an absolute path", "start it with a slash")
    return text


def user(text: str) -> str:
    """Accept a user and perhaps a group, names or numbers."""
    if not _USER.fullmatch(text):
        raise GrammarError(f"{quoted(text)} is not a user", "write a name or a number, such as 1000 or 1000:1000")
    return text


def reference(text: str) -> str:
    """Return an image reference of a format that writes it in one piece, in full: with a tag or a digest."""
    if _PLACEHOLDER.search(text[:_MAX_REPOSITORY]):
        hint = "put what it stands for in its place: render the template, or name the real image"
        raise GrammarError(f"{quoted(text)} holds a placeholder", hint)
    parts = image(text)
    tag_or_none = parts.tag or (None if parts.digest else "latest")
    tagged = parts.repository + (f":{tag_or_none}" if tag_or_none else "")
    return tagged + (f"@{parts.digest}" if parts.digest else "")


def whole_number(text: str) -> int:
    """Return a number of things: digits only, zero or more."""
    if not re.fullmatch(r"[0-9]+", text):
        sign = "negative" if re.fullmatch(r"-[0-9.]+", text) else "not a whole number"
        raise GrammarError(f"{quoted(text)} is {sign}", "write digits only, without a unit or a fraction")
    if text != "0" and text.startswith("0"):
        hint = f"write {quoted(text.lstrip('0') or '0')}"
        raise GrammarError(f"{quoted(text)} starts with zero and may be taken for an octal number", hint)
    if len(text) > len(str(_MAX_NUMBER)) or int(text) > _MAX_NUMBER:
        raise GrammarError(f"{quoted(text)} is too large")
    return int(text)


def port(text: str) -> int:
    """Return the port of a connection."""
    number = whole_number(text)
    if not 1024 <= number <= 65535:
        raise GrammarError(f"{number} is not a port that a service may use", "choose one from 1024 to 65535")
    return number


def dimension(text: str) -> int:
    """Return one dimension of an array's shape; -1 = known only while the pipeline runs."""
    number = -1 if text == "-1" else whole_number(text)
    if number == 0:
        raise GrammarError("a dimension of 0 holds nothing", "write its size, or -1 where it is not known before")
    return number


def tag(text: str) -> str:
    """Accept an image's tag."""
    if not _TAG.fullmatch(text):
        hint = _template_hint(text) or "use up to 128 letters, digits, _ . and -, not . or - first"
        raise GrammarError(f"{quoted(text)} is not a tag", hint)
    return text


def image(text: str) -> Image:
    """Take an image reference apart: [registry/]repository[:tag][@digest], as Docker reads it."""
    if not text.strip():
        raise GrammarError("the image is empty", "write an image such as nvcr.io/nvidia/tensorrtserver")
    rest, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise GrammarError(f"{quoted(digest)} is not a digest", "a digest is sha256: and 64 hexadecimal digits")
    slash, colon = rest.rfind("/"), rest.rfind(":")
    repository, own_tag = (
        (rest[:colon], tag(rest[colon + 1 :])) if colon > slash and "://" not in rest else (rest, None)
    )
    _check_repository(repository, text)
    return Image(repository, own_tag, digest or None)


def _check_repository(repository: str, text: str) -> None:
    if len(repository) > _MAX_REPOSITORY:
        raise GrammarError(f"{quoted(text)} is longer than the {_MAX_REPOSITORY} characters of an image name")
    first, slash, rest = repository.partition("/")
    has_domain = bool(slash) and (first == "localhost" or bool(re.search(r"[.:\[]", first)))
    path = rest if has_domain else repository
    right = all(_COMPONENT.fullmatch(part) for part in path.split("/")) and not _IMAGE_ID.fullmatch(repository)
    if not right or (has_domain and not _DOMAIN.fullmatch(first)):
        raise GrammarError(f"{quoted(text)} is not an image reference", _image_hint(text, repository))


def _image_hint(text: str, repository: str) -> str:
    if "://" in text:
        return "leave the scheme out: registry/name:tag"
    if hint := _template_hint(text):
        return hint
    if " " in text:
        return "remove the spaces"
    if repository != repository.lower():
        return f"image names are lower case: {quoted(text.replace(repository, repository.lower()))}"
    return "write registry/name:tag; names have a-z, 0-9 and single . _ - between them"


def _template_hint(text: str) -> str:
    found = _OTHER_TEMPLATES.search(text[:_MAX_REPOSITORY])
    return "placeholders of a Clara definition are ${{ name }} with a default under parameters" if found else ""
