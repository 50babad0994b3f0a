"""Recognises files of other tools, so that the message names them instead of listing what Clara would want."""

from __future__ import annotations

from pathlib import PurePath

from cpost.definition.tree import Fields, Text
from cpost.errors import DefinitionError, Problem

HINT = "this version of cpost reads Clara pipeline definitions only: YAML with api-version, name and operators"

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


class OtherFormatError(DefinitionError):
    """The file belongs to another tool."""


def refuse(what: str, shown: str) -> None:
    """Raise OtherFormatError where `what` says that the file is something else than a definition."""
    if what:
        message = f"this looks like {what}, not like a Clara pipeline definition"
        raise OtherFormatError([Problem(shown, 1, 1, message, HINT)])


def by_name(path: str) -> str:
    """Return what a file's name says it is; empty where that is nothing else than a definition."""
    pure = PurePath(path)
    return _BY_NAME.get(pure.name.lower(), "") or _BY_SUFFIX.get(pure.suffix.lower(), "")


def by_content(root: Fields) -> str:
    """Return what a file's top-level keys say it is; empty where it may be a Clara definition."""
    if root.key("operators"):
        return ""
    for keys, what in _BY_KEYS:
        if all(root.key(key) for key in keys):
            return what
    if root.key("apiVersion") and root.key("kind"):
        return _kubernetes(_text(root, "apiVersion"), _text(root, "kind"))
    if isinstance(root.get("services"), Fields) and not root.key("container"):
        return "a Docker Compose file"
    return ""


def _kubernetes(version: str, kind: str) -> str:
    if version.startswith("argoproj.io/"):
        return f"an Argo {kind}" if kind.isalpha() else "an Argo workflow"
    if version.startswith("tekton.dev/"):
        return "a Tekton pipeline"
    return f"a Kubernetes {kind}" if kind.isalpha() else "a Kubernetes manifest"


def _text(root: Fields, key: str) -> str:
    node = root.get(key)
    return node.value[:60] if isinstance(node, Text) else ""
