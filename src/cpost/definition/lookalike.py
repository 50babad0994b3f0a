"""Recognises whose rules a file follows, and names the tools whose files cpost does not read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

from cpost.definition import kubernetes, workloads
from cpost.definition.tree import Fields, Node, Text
from cpost.errors import DefinitionError, Problem
from cpost.model import Format

HINT = (
    "cpost reads Clara pipeline definitions (api-version, name, operators), Kubernetes manifests, Argo Workflows and "
    "Docker Compose files"
)

_BY_NAME = {
    "nextflow.config": "a Nextflow configuration",
    "dockerfile": "a Dockerfile",
    "snakefile": "a Snakemake workflow",
}
_BY_SUFFIX = {".nf": "a Nextflow pipeline", ".wdl": "a WDL workflow", ".smk": "a Snakemake workflow"}
# The first tool whose keys are all there is meant; order matters where keys are shared.
_BY_KEYS = (
    (("cwlVersion",), "a CWL document"),
    (("pipelineInfo", "deploymentSpec"), "a compiled Kubeflow pipeline"),
    (("jobs", "on"), "a GitHub Actions workflow"),
    (("application", "resources"), "the configuration of a MONAI application package"),
)
_COMPILED = "a Kubeflow pipeline compiled to an Argo workflow"
_COMPILERS = "pipelines.kubeflow.org/"
_CLARA_KEYS = ("api-version", "name", "operators", "orchestrator")


class OtherFormatError(DefinitionError):
    """The file belongs to another tool."""


def refuse(what: str, shown: str) -> None:
    """Raise OtherFormatError where `what` says that the file is something else than a pipeline that cpost reads."""
    if what:
        message = f"this looks like {what}, which cpost does not read"
        raise OtherFormatError([Problem(shown, 1, 1, message, HINT)])


def by_name(path: str) -> str:
    """Return what a file's name says it is; empty where that is nothing else than a definition."""
    pure = PurePath(path)
    return _BY_NAME.get(pure.name.lower(), "") or _BY_SUFFIX.get(pure.suffix.lower(), "")


def detect(documents: Sequence[Node]) -> Format:
    """Say whose rules the documents of a file follow; Clara's, where nothing tells.

    Args:
        documents: at least one.

    Raises:
        OtherFormatError: they belong to another tool, or are no workload.
    """
    objects = kubernetes.unpacked([each for each in documents if isinstance(each, Fields)])
    root = objects[0] if objects else None
    if root is None or root.key("operators"):
        return Format.CLARA
    if any(_is_workflow(each) for each in objects):
        refuse(next((_COMPILED for each in objects if _is_compiled(each)), ""), root.origin.file)
        return Format.ARGO
    if any(workloads.is_pod(_text(each, "apiVersion"), _text(each, "kind")) for each in objects):
        return Format.KUBERNETES
    refuse(next(filter(None, map(foreign, objects)), ""), root.origin.file)
    for each in objects:
        message, hint = kubernetes.near_miss(each)
        if message:
            raise OtherFormatError([Problem(root.origin.file, each.origin.line, each.origin.column, message, hint)])
    if isinstance(root.get("services"), Fields) and not root.key("container"):
        return Format.COMPOSE
    if not any(root.key(key) for key in _CLARA_KEYS):
        raise OtherFormatError(
            [Problem(root.origin.file, 1, 1, "this is no pipeline of any format that cpost reads", HINT)]
        )
    return Format.CLARA


def foreign(document: Fields) -> str:
    """Return what a document is, where it belongs to another tool; empty where nothing tells."""
    for keys, what in _BY_KEYS:
        if all(document.key(key) for key in keys):
            return what
    version, kind = _text(document, "apiVersion"), _text(document, "kind")
    if version.startswith("tekton.dev/"):
        return "a Tekton pipeline"
    if version.startswith("argoproj.io/") and not _is_workflow(document):
        return f"an Argo {kind}" if kind.isalpha() else "a file of Argo's"
    return ""


def _is_workflow(document: Fields) -> bool:
    return workloads.is_workflow(_text(document, "apiVersion"), _text(document, "kind"))


def _is_compiled(root: Fields) -> bool:
    """Its images stand in JSON texts, and its containers need the servers of Kubeflow."""
    metadata = root.get("metadata")
    blocks = [metadata.get(key) for key in ("annotations", "labels")] if isinstance(metadata, Fields) else []
    keys = [key.value for block in blocks if isinstance(block, Fields) for key, _ in block.entries]
    return any(key.startswith(_COMPILERS) for key in keys)


def _text(root: Fields, key: str) -> str:
    node = root.get(key)
    return node.value[:60] if isinstance(node, Text) else ""
