"""The story of reading a definition: file -> trees -> its format's reader -> Pipeline.

For Clara that is: imports and placeholders -> fields -> checks.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from cpost.definition import argo, compose, kubernetes, lookalike
from cpost.definition.check import connect
from cpost.definition.clara import Draft, read_header, read_operator
from cpost.definition.files import Document, Files
from cpost.definition.findings import Findings, quoted
from cpost.definition.flow import Parsed
from cpost.definition.imports import Imports
from cpost.definition.placeholders import Argument
from cpost.definition.section import Section
from cpost.definition.tree import Fields, Items, Node
from cpost.errors import DefinitionError
from cpost.model import Format, Origin, Pipeline
from cpost.terminal import visible


def load(path: str | os.PathLike[str], args: Mapping[str, str] | None = None) -> Pipeline:
    """Read and check a pipeline definition.

    Args:
        path: the YAML file, of any format that cpost reads; what it says tells which. Imports are taken relative to
            the file that holds them.
        args: values for the own `parameters` of a Clara file, put over their defaults.

    Returns:
        The pipeline; memory in bytes, CPU in millicores.

    Raises:
        DefinitionError: the file cannot be read or used; carries every independent problem. Nothing else is raised
            for any content of any file.
    """
    findings = Findings()
    files = Files(findings)
    pipeline = None
    try:
        pipeline = _pipeline(os.fsdecode(path), args or {}, files, findings)
    except lookalike.OtherFormatError:
        raise  # whatever else was found measures the file by rules that it does not mean to follow
    except DefinitionError as error:
        findings.absorb(error)
    findings.raise_problems(files.shown)
    assert pipeline is not None, "nothing was read and nothing was reported"
    return pipeline


def _pipeline(path: str, args: Mapping[str, str], files: Files, findings: Findings) -> Pipeline | None:
    lookalike.refuse(lookalike.by_name(path), visible(path))
    document = files.read(path)
    if document is None:
        return None
    followed = lookalike.detect((document.root, *document.others))
    if followed is Format.CLARA:
        return _clara(files.single(document), args, files, findings)
    parsed = _parsed(followed, document, path, files, findings)
    if not parsed.operators and findings.clean:
        findings.error(document.root.origin, "the file has no containers to run", lookalike.HINT)
    return Pipeline(
        name=parsed.name,
        api_version=parsed.version,
        operators=parsed.operators,
        digest=files.digest,
        file=document.shown,
        warnings=findings.warnings(files.shown),
        format=followed,
    )


def _parsed(followed: Format, document: Document, path: str, files: Files, findings: Findings) -> Parsed:
    objects = _mappings(document, findings)
    if followed is Format.COMPOSE:
        for other in document.others:
            findings.error(other.origin, "a second YAML document starts here", "a Compose file is one document")
        return compose.read(document.root, path, files, findings)
    unpacked = kubernetes.unpacked(objects)
    for each in unpacked:
        what = lookalike.foreign(each)
        if what:
            findings.warn(each.origin, f"{what} is left out: cpost does not read it")
    return (kubernetes.read if followed is Format.KUBERNETES else argo.read)(unpacked, findings)


def _mappings(document: Document, findings: Findings) -> list[Fields]:
    for other in document.others:
        if not isinstance(other, Fields):
            findings.error(other.origin, f"each document must be a mapping, this is {other.kind}")
    return [each for each in (document.root, *document.others) if isinstance(each, Fields)]


def _clara(document: Document, args: Mapping[str, str], files: Files, findings: Findings) -> Pipeline:
    imports = Imports(files, findings)
    top = Section(imports.filled(document, _arguments(args, document, findings)), "the pipeline", findings)
    header = read_header(top)
    items = _items(top)
    fields = [imports.operator(item, document) for item in items]
    drafts: list[Draft] = [read_operator(each, header.version, findings) for each in fields if each is not None]
    complete = len(drafts) == len(items) and all(draft.operator.name for draft in drafts)
    return Pipeline(
        name=header.name,
        api_version=header.api_version,
        operators=connect(drafts, complete),
        digest=files.digest,
        file=document.shown,
        description=header.description,
        orchestrator=header.orchestrator,
        pull_secrets=header.pull_secrets,
        warnings=findings.warnings(files.shown),
    )


def _items(top: Section) -> list[Node]:
    items = [item for item in top.items("operators") if not item.is_null]
    if not items and isinstance(top.fields.get("operators"), Items | None):
        top.error("operators", "the pipeline has no operators", "write operators: and a list of containers to run")
    return items


def _arguments(args: Mapping[str, str], document: Document, findings: Findings) -> list[Argument]:
    place = Origin(document.shown, 0, 0)
    for name, value in args.items():
        if not _is_text(name) or not _is_text(value):
            findings.error(place, f"argument {quoted(name)} is not plain text", "remove NUL and broken characters")
    return [Argument(n, v, place) for n, v in args.items() if _is_text(n) and _is_text(v)]


def _is_text(text: str) -> bool:
    """Whether a file could say the same: no NUL, and no half characters, which stand for bytes of a command line."""
    return "\0" not in text and not any("\ud800" <= c <= "\udfff" for c in text)
