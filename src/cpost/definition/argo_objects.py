"""The objects of an Argo file: workflows to run, and templates that they refer to."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cpost.definition import naming
from cpost.definition.findings import Findings, choice, quoted
from cpost.definition.naming import Site
from cpost.definition.pods import Objects
from cpost.definition.section import Section
from cpost.definition.tree import Fields

LEAVES = ("container", "script")
_REUSED = ("WorkflowTemplate", "ClusterWorkflowTemplate")
_OF_A_TIME = "aAbBcdHIjmMpsSUwWxXyYZ"  # the letters of strftime that Argo has, too
_SPEC_AT = {"CronWorkflow": ("spec", "workflowSpec")}


@dataclass(frozen=True, slots=True)
class Workflow:
    """One object of a file; `templates` are its own."""

    kind: str
    name: str
    top: Section
    spec: Section
    templates: dict[str, Section]


def read_workflows(documents: Sequence[Fields], findings: Findings) -> list[Workflow]:
    """Read the outlines of all workflow objects."""
    found = []
    for document in documents:
        section = Section(document, "this object", findings)
        if section.raw("apiVersion").startswith("argoproj.io/"):
            workflow = _workflow(section)
            found += [workflow] if workflow is not None else []
    return found


def _workflow(top: Section) -> Workflow | None:
    kind = top.raw("kind")
    metadata = top.section("metadata", f"metadata of a {kind}")
    name = (metadata.raw("name") or metadata.raw("generateName").removesuffix("-")) if metadata else ""
    top.label = f"{kind} {quoted(name)}"
    if not name:
        top.error(None, f"this {kind} has no name", "write metadata: with name: or generateName: below it")
    spec = top
    for key in _SPEC_AT.get(kind, ("spec",)):
        inner = spec.section(key, top.label)
        if inner is None:
            spec.require(key, "write the workflow")
            return None
        spec = inner
    templates: dict[str, Section] = {}
    for item in spec.sections("templates", f"a template of {top.label}"):
        item.require("name", "write the name that others call it by")
        item.label = f"template {quoted(item.raw('name'))}"
        if item.raw("name") in templates:
            item.error("name", f"{top.label} has two templates called {quoted(item.raw('name'))}", "rename one")
        templates[item.raw("name")] = item
    return Workflow(kind, name, top, spec, templates)


def own_values(workflow: Workflow, now: datetime) -> dict[str, str]:
    """What the {{...}} about a workflow itself stand for in a run that begins now."""
    metadata = workflow.top.section("metadata", "metadata")
    values = {
        "workflow.name": workflow.name,
        "workflow.namespace": (metadata.raw("namespace") if metadata else "") or "default",
        "workflow.mainEntrypoint": workflow.spec.raw("entrypoint"),
        "workflow.serviceAccountName": workflow.spec.raw("serviceAccountName") or "default",
        "workflow.uid": str(uuid.uuid5(uuid.NAMESPACE_OID, workflow.name)),
        "workflow.priority": workflow.spec.raw("priority") or "0",
        "workflow.status": "Succeeded",
        "retries": "0",
    }
    for what in (
        "workflow.creationTimestamp",
        *(["workflow.scheduledTime"] if workflow.kind == "CronWorkflow" else []),
    ):
        values |= {what: f"{now:%Y-%m-%dT%H:%M:%SZ}", f"{what}.RFC3339": f"{now:%Y-%m-%dT%H:%M:%SZ}"}
    values |= {f"workflow.creationTimestamp.{letter}": now.strftime(f"%{letter}") for letter in _OF_A_TIME}
    owners = ["workflow", *(["cronworkflow"] if workflow.kind == "CronWorkflow" else [])]
    for owner in owners:
        values |= {f"{owner}.name": workflow.name, f"{owner}.namespace": values["workflow.namespace"]}
        for kind in ("labels", "annotations"):
            block = metadata.section(kind, kind) if metadata else None
            given = {key.value: block.raw(key.value) for key, _ in block.fields.entries} if block else {}
            values[f"{owner}.{kind}"] = json.dumps(given)
            values |= {f"{owner}.{kind}.{name}": text for name, text in given.items()}
    return values


def to_run(workflows: Sequence[Workflow]) -> list[Workflow]:
    """Those that are run: workflows proper; where there are none, templates with an entrypoint."""
    proper = [each for each in workflows if each.kind not in _REUSED]
    return proper or [each for each in workflows if each.spec.has("entrypoint")]


def referred(reference: Section, workflows: Sequence[Workflow]) -> Workflow | None:
    """The template object that a workflowTemplateRef or templateRef names; None, with a fault, where it is not here."""
    kind = _REUSED[reference.raw("clusterScope") == "true"]
    known = {each.name: each for each in workflows if each.kind == kind}
    name = reference.raw("name")
    if name not in known:
        hint = f"put it into the file as one more document; {choice(name, known, 'those in it are')}"
        reference.error("name", f"{kind} {quoted(name)} is not in the file", hint)
    return known.get(name)


def site_names(workflows: Sequence[Workflow]) -> dict[int, str]:
    """What the containers of all templates are called, by the identity of the mapping that holds each."""
    sites: dict[int, Site] = {}
    for workflow in workflows:
        for name, template in workflow.templates.items():
            if any(template.has(key) for key in LEAVES):
                sites[id(template.fields)] = Site(workflow.kind, workflow.name, name)
            for item in contained(template):
                sites[id(item.fields)] = Site(workflow.kind, workflow.name, item.raw("name"), name)
    return dict(zip(sites, naming.names(list(sites.values())), strict=True))


def contained(template: Section) -> list[Section]:
    """The containers of a template beside its main one."""
    group = template.section("containerSet", template.label) if template.has("containerSet") else None
    found = group.sections("containers", f"a container of {template.label}") if group else []
    for key in ("initContainers", "sidecars"):
        found += template.sections(key, f"a container of {template.label}")
    return found


def default_of(item: Section, objects: Objects) -> str | None:
    """The value that a parameter has by itself."""
    for key in ("value", "default"):
        if item.fields.key(key) is not None:
            return item.raw(key)
    source = item.section("valueFrom", "valueFrom") if item.has("valueFrom") else None
    reference = (
        source.section("configMapKeyRef", "configMapKeyRef") if source and source.has("configMapKeyRef") else None
    )
    if source is None or reference is None:
        return source.raw("default") if source and source.has("default") else None
    content = objects.maps.get(reference.raw("name"), {}).get(reference.raw("key"))
    return content.decode("utf-8", "replace") if content is not None else None
