"""The story of `cpost apply`: a run's record and a file of the user -> the file with what the run recommends."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cpost import store
from cpost.definition import marks
from cpost.definition.writeback import Advised, write_back
from cpost.errors import StoreError, UsageError
from cpost.model import PIPELINE, Amendment, Fate, Run, ServerKind, ServerRecord, Verdict

_KEPT_ATTRIBUTES = ("user.", "system.posix_acl_")
_WRITE_HINT = "write the result to another file with --output"


@dataclass(frozen=True, slots=True)
class Proposal:
    """A file as it is and as it would be; nothing is written yet.

    Attributes:
        warnings: about the run itself.
    """

    path: Path
    source: marks.Source
    text: str
    amendments: tuple[Amendment, ...]
    warnings: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        """Whether anything is to be written."""
        return self.text != self.source.text

    @property
    def complete(self) -> bool:
        """Whether all that was recommended is in the new text."""
        return all(each.in_file for each in self.amendments)


def propose(run: Path, file: Path) -> Proposal:
    """Work out what a run's recommendations change in a file.

    Args:
        run: the folder of the run (or its run.json).
        file: Clara pipeline, Kubernetes manifest, Argo workflow or Docker Compose file, YAML or JSON.

    Raises:
        UsageError: no run's record is there.
        DefinitionError: the file cannot be read, or no container is in it.
    """
    record = store.load_run(run)
    source = marks.read_source(file)
    advised = list(_advised(record))
    written = write_back(source, advised)
    homeless = _without_place(record)
    return Proposal(file, source, written.text, (*written.amendments, *homeless), tuple(_warnings(record, advised)))


def _warnings(run: Run, advised: Iterable[Advised]) -> Iterator[str]:
    if not run.complete:
        yield "the run did not come to its end: operators that it did not run are missing"
    for each in advised:
        if each.recommendation.verified is Verdict.SLOW:
            yield f"{each.names[0]} was slower under what is recommended when it was tried"


def _advised(run: Run) -> Iterator[Advised]:
    for operator in run.operators:
        yield Advised(tuple(filter(None, (operator.operator, operator.site))), operator.recommendation)
    for owner, server in _servers(run):
        if server.kind is ServerKind.SERVICE:
            yield Advised((f"{owner}__{server.name}", server.name), server.recommendation)


def _servers(run: Run) -> Iterator[tuple[str, ServerRecord]]:
    for operator in run.operators:
        yield from ((operator.operator, server) for server in operator.servers)
    yield from ((PIPELINE, server) for server in run.servers)


def _without_place(run: Run) -> tuple[Amendment, ...]:
    return tuple(
        Amendment(f"{owner}__{server.name}", Fate.NO_PLACE, reason="cpost starts this Triton for models of operators")
        for owner, server in _servers(run)
        if server.kind is ServerKind.TRITON
    )


# ---------------------------------------------------------------- writing


def write_in_place(proposal: Proposal) -> None:
    """Put the new text in the place of the old one, whole or not at all; a symbolic link stays and its target changes.

    Raises:
        StoreError: the file was changed meanwhile, or cannot be written with its owner, permissions and attributes.
        UsageError: it has several hard links, which a replaced file would part.
    """
    if not proposal.changed:
        return
    path = proposal.path.resolve()
    with _writing(path, "use --output"):
        seen = path.stat()
        if seen.st_nlink > 1:
            raise UsageError(f"{path} has {seen.st_nlink} hard links, which replacing it would part", _WRITE_HINT)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(proposal.source.bytes_of(proposal.text))
                file.flush()
                _keep_owner(file.fileno(), seen)
                _keep_attributes(file.fileno(), path)
                os.fsync(file.fileno())
            _require_unchanged(path, proposal.source)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def _require_unchanged(path: Path, source: marks.Source) -> None:
    if path.read_bytes() != source.bytes_of(source.text):
        raise StoreError(f"{path} was changed while cpost worked on it", "start again")


def _keep_owner(descriptor: int, seen: os.stat_result) -> None:
    own = os.fstat(descriptor)
    if (own.st_uid, own.st_gid) != (seen.st_uid, seen.st_gid):
        os.fchown(descriptor, seen.st_uid, seen.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(seen.st_mode))


def _keep_attributes(descriptor: int, path: Path) -> None:
    """Extended attributes, access control lists among them; what a security module attaches is its own to decide."""
    if not hasattr(os, "listxattr"):
        return
    for name in os.listxattr(path):
        if name.startswith(_KEPT_ATTRIBUTES):
            os.setxattr(descriptor, name, os.getxattr(path, name))


def write_copy(proposal: Proposal, output: Path) -> None:
    """Write the new text to a new file, also where nothing was to be changed, with the permissions of the old one.

    Raises:
        UsageError: there is something of that name already.
        StoreError: it cannot be written.
    """
    with _writing(output, "name another file"):
        mode = stat.S_IMODE(proposal.path.stat().st_mode) & 0o777
        try:
            descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        except FileExistsError as error:
            hint = "name another file; --in_place changes the one that was read"
            raise UsageError(f"{output} is there already, and is not overwritten", hint) from error
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(proposal.source.bytes_of(proposal.text))
        except OSError:
            output.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def _writing(path: Path, instead: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise StoreError(f"cannot write {path}: {reason}", f"see to space and permissions, or {instead}") from error
