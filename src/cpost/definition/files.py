"""Reads definition files: limits, encodings of names, the digest over all that was read.

A definition may name any path of the host in an import, so only regular files are opened, never a device or a pipe
that would block, and only as much is read as all files of one definition may hold together.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from cpost.definition.findings import Findings
from cpost.definition.tree import Fields, Node
from cpost.definition.yaml_source import parse
from cpost.errors import DefinitionError
from cpost.model import Origin
from cpost.terminal import visible

# A character costs up to 1.5 microseconds to scan; this keeps any definition well under a second. Real ones have 10 kB.
MAX_BYTES = 256 * 1024
MAX_FILES = 100

_REASONS = {
    errno.ENOENT: "does not exist",
    errno.ENOTDIR: "does not exist",
    errno.EISDIR: "is a directory",
    errno.EACCES: "cannot be read: permission denied",
    errno.ELOOP: "is a loop of symbolic links",
    errno.ENAMETOOLONG: "has a name that is too long",
}


@dataclass(frozen=True, slots=True)
class Document:
    """One definition file.

    Attributes:
        root: its content, placeholders not yet filled.
        shown: its name in messages and origins.
        identity: the same for every way to write the file's path.
        others: the documents after the first.
    """

    root: Fields
    shown: str
    identity: str
    others: tuple[Node, ...] = ()


class Files:
    """The files of one definition, each read once, in the order of their first use."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._documents: dict[str, Document | None] = {}
        self._paths: dict[str, str] = {}
        self._digest = hashlib.sha256()
        self._bytes_left = MAX_BYTES

    @property
    def shown(self) -> tuple[str, ...]:
        """The files' names as messages show them."""
        return tuple(self._paths)

    @property
    def digest(self) -> str:
        """sha256, in hex: of the bytes of the only file, or of each file with the length of the imported ones."""
        return self._digest.hexdigest()

    def relative(self, path: str, importer: str) -> str:
        """Return the path of a file that `importer`, given by its shown name, calls `path`."""
        return os.path.normpath(os.path.join(os.path.dirname(self._paths[importer]), path))  # noqa: PTH118, PTH120

    def single(self, document: Document) -> Document:
        """Return the document; others beside it are a fault."""
        if document.others:
            hint = "a definition is one document: keep each pipeline in a file of its own"
            self._findings.error(document.others[0].origin, "a second YAML document starts here", hint)
        return document

    def read(self, path: str, at: Origin | None = None) -> Document | None:
        """Read a file, or return what was read before.

        Args:
            path: as the operating system takes it.
            at: the import that asks for it; faults of the file as a whole are placed there.

        Returns:
            The document; None where a fault, which is recorded, leaves nothing to work with.
        """
        identity = _identity(path)
        if identity not in self._documents:
            self._documents[identity] = None
            self._documents[identity] = self._fresh(path, identity, at)
        return self._documents[identity]

    def other(self, path: str) -> str:
        """Read a text file of another kind that the definition names; it counts for the digest.

        Raises:
            OSError, ValueError: it cannot be read, is too large or not UTF-8.
        """
        data = read_regular(path, self._bytes_left + 1)
        if len(data) > self._bytes_left:
            raise ValueError("it is too large")
        self._bytes_left -= len(data)
        self._add_to_digest(data)
        return data.decode("utf-8-sig")

    def _fresh(self, path: str, identity: str, at: Origin | None) -> Document | None:
        shown = visible(os.fsencode(path).decode("utf-8", "replace")) or "(no name)"
        if len(self._documents) > MAX_FILES:
            self._findings.error(at or Origin(shown, 0, 0), f"more than {MAX_FILES} files are imported")
            return None
        data = self._bytes(path, shown, at)
        if data is None:
            return None
        self._add_to_digest(data)
        self._paths[shown] = path
        roots = self._roots(data, shown)
        if not roots or not isinstance(roots[0], Fields):
            return None
        return Document(roots[0], shown, identity, tuple(roots[1:]))

    def _bytes(self, path: str, shown: str, at: Origin | None) -> bytes | None:
        place, what = (at, f'imported file "{shown}"') if at else (Origin(shown, 0, 0), "the file")
        try:
            data = read_regular(path, self._bytes_left + 1)
        except (OSError, ValueError) as error:
            self._findings.error(place, f"{what} {why_unreadable(error)}", "check the path")
            return None
        if len(data) > self._bytes_left:
            message = f"{what} is too large: a definition with its imports may have {MAX_BYTES // 1024} KiB"
            self._findings.error(place, message)
            return None
        self._bytes_left -= len(data)
        return data

    def _add_to_digest(self, data: bytes) -> None:
        if self._paths:
            self._digest.update(len(data).to_bytes(8, "big"))
        self._digest.update(data)

    def _roots(self, data: bytes, shown: str) -> list[Node]:
        """All documents; that the first is no mapping is recorded."""
        try:
            roots = parse(data, shown, self._findings)
        except DefinitionError as error:
            self._findings.absorb(error)
            return []
        root = roots[0] if roots else None
        if isinstance(root, Fields):
            return roots
        hint = "a pipeline is a YAML mapping: Clara, Kubernetes, Argo Workflows or Docker Compose"
        message = "the file has no content" if root is None else f"expected a mapping, this is {root.kind}"
        self._findings.error(root.origin if root else Origin(shown, 1, 1), message, hint)
        return roots


def _identity(path: str) -> str:
    try:
        return os.path.realpath(path)
    except (OSError, ValueError):
        return path


def why_unreadable(error: OSError | ValueError) -> str:
    """What an error of `read_regular`, or of looking into a folder, says of the path: "does not exist" and the like."""
    number = error.errno if isinstance(error, OSError) else None
    return _REASONS.get(number or 0) or f"cannot be read: {visible(str(error))}"


def read_regular(path: str | Path, limit: int) -> bytes:
    """Return at most `limit` bytes of a regular file; never waits for the other end of a pipe.

    Raises:
        OSError: there is no such file, or it cannot be read.
        ValueError: the path is none, or leads to a device, a pipe or a socket.
    """
    # Non-blocking: the open itself would wait for the other end of a pipe.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(mode):
            raise ValueError("it is not a regular file")
        return file.read(limit)
