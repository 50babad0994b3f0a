"""The objects of an Argo file: workflows to run, and templates that they refer to."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from cpost.definition import naming, pods, workloads
from cpost.definition.findings import Findings, choice, quoted
from cpost.definition.naming import Site
from cpost.definition.section import Section
from cpost.definition.tree import Fields

_REUSED = ("WorkflowTemplate", "ClusterWorkflowTemplate")
_OF_A_TIME = "aAbBcdHIjmMpsSUwWxXyYZ"  # the letters of strftime that Argo has, too


@dataclass(frozen=True, slots=True)
class Workflow:
    """One object of a file; `templates` are its own, less those that are written inline."""

    kind: str
    name: str
    top: Section
    spec: Section
    templates: dict[str, Section]

    @property
    def namespace(self) -> str:
        """The namespace that it says it is in; empty where it says none."""
        return workloads.Outline(self.top.fields).text("metadata", "namespace")


def read_workflows(documents: Sequence[Fields], findings: Findings) -> list[Workflow]:
    """Read the outlines of all workflow objects."""
    found = []
    for document in documents:
        section = Section(document, "this object", findings)
        if workloads.is_workflow(section.raw("apiVersion"), section.raw("kind")):
            workflow = _workflow(section)
            found += [workflow] if workflow is not None else []
    return found


def _workflow(top: Section) -> Workflow | None:
    kind = top.raw("kind")
    name = pods.name_of(top)
    top.label = f"{kind} {quoted(name)}"
    if not name:
        top.error(None, f"this {kind} has no name", "write metadata: with name: or generateName: below it")
    spec = top
    for key in workloads.WORKFLOW_AT[kind]:
        inner = spec.section(key, top.label)
        if inner is None:
            spec.require(key, "write the workflow")
            return None
        spec = inner
    templates: dict[str, Section] = {}
    for item in spec.sections("templates", f"a template of {top.label}"):
        item.require("name", "write the name that others call it by")
        item.read("name", naming.usable)
        item.label = f"template {quoted(item.raw('name'))}"
        if item.raw("name") in templates:
            item.error("name", f"{top.label} has two templates called {quoted(item.raw('name'))}", "rename one")
        templates[item.raw("name")] = item
    return Workflow(kind, name, top, spec, templates)


def own_values(workflow: Workflow, body: Workflow, now: datetime) -> Iterator[tuple[str, str]]:
    """What the {{...}} about a workflow itself stand for in a run that begins now.

    Args:
        body: the template object that the workflow refers to, or itself; what the workflow says counts before it.
    """
    said = {
        key: workflow.spec.raw(key) or body.spec.raw(key) for key in ("entrypoint", "serviceAccountName", "priority")
    }
    yield from {
        "workflow.name": workflow.name,
        "workflow.namespace": workflow.namespace or "default",
        "workflow.mainEntrypoint": said["entrypoint"],
        "workflow.serviceAccountName": said["serviceAccountName"] or "default",
        "workflow.uid": str(uuid.uuid5(uuid.NAMESPACE_OID, workflow.name)),
        "workflow.priority": said["priority"] or "0",
        "workflow.status": "Succeeded",
        "retries": "0",
    }.items()
    scheduled = ("workflow.scheduledTime",) if workflow.kind == "CronWorkflow" else ()
    for what in ("workflow.creationTimestamp", *scheduled):
        yield from ((name, f"{now:%Y-%m-%dT%H:%M:%SZ}") for name in (what, f"{what}.RFC3339"))
    yield from ((f"workflow.creationTimestamp.{letter}", now.strftime(f"%{letter}")) for letter in _OF_A_TIME)
    yield from _labels(workflow, "workflow")
    if workflow.kind == "CronWorkflow":
        yield from (("cronworkflow.name", workflow.name), ("cronworkflow.namespace", workflow.namespace or "default"))
        yield from _labels(workflow, "cronworkflow")


def _labels(workflow: Workflow, owner: str) -> Iterator[tuple[str, str]]:
    metadata = workflow.top.section("metadata", "metadata")
    for kind in ("labels", "annotations"):
        block = metadata.section(kind, kind) if metadata else None
        for key, _ in block.fields.entries if block else ():
            yield f"{owner}.{kind}.{key.value}", block.raw(key.value) if block else ""


def to_run(workflows: Sequence[Workflow]) -> list[Workflow]:
    """Those that are run: workflows proper; where there are none, templates with an entrypoint."""
    proper = [each for each in workflows if each.kind not in _REUSED]
    return proper or [each for each in workflows if each.spec.has("entrypoint")]


def referred(reference: Section, workflows: Sequence[Workflow], namespace: str) -> Workflow | None:
    """The template object that a workflowTemplateRef or templateRef names; None, with a fault, where it is not here.

    Args:
        namespace: of the workflow; of templates of one name, its own is meant.
    """
    kind = _REUSED[reference.raw("clusterScope") == "true"]
    nearest_last = sorted(workflows, key=lambda each: each.namespace == namespace)
    known = {each.name: each for each in nearest_last if each.kind == kind}
    name = reference.raw("name")
    if name not in known:
        hint = f"put it into the file as one more document; {choice(name, known, 'those in it are')}"
        reference.error("name", f"{kind} {quoted(name)} is not in the file", hint)
    return known.get(name)


def site_names(workflows: Sequence[Workflow]) -> dict[tuple[int, str], str]:
    """What the containers of all templates are called.

    Returns:
        Names by the identity of the template's mapping and the container's own name; empty for the main container.
    """
    sites: dict[tuple[int, str], Site] = {}
    for workflow in workflows:
        top = workloads.Outline(workflow.top.fields)
        for template in workloads.templates(top):
            for _, container, site in template.containers(top):
                sites[id(template.place.node), container] = site
    return dict(zip(sites, naming.names([site.levels() for site in sites.values()]), strict=True))
