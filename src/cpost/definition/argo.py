"""Argo workflows -> operators: every use of a container or script template is one.

Workflows are followed from their entrypoint as they would run if everything succeeded. What only a run could tell
(outputs of a task in the text of another) cannot be, and is named.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone

from cpost.definition import argo_objects, naming, pods
from cpost.definition.argo_leaves import Artifact, LeafReader, Use, source_of
from cpost.definition.argo_loops import instances
from cpost.definition.argo_objects import LEAVES, Workflow, default_of
from cpost.definition.argo_scope import Depends, Scope, Unknown, Value, depends, holds
from cpost.definition.findings import Findings, choice, quoted
from cpost.definition.flow import UNIQUE, Parsed, companions, refuse_circle, with_payload
from cpost.definition.section import Section
from cpost.definition.tree import Fields, Items, Text
from cpost.model import Operator

_MAX_DEPTH = 20
_MAX_USES = 500
_LEFT_OUT = ("resource", "suspend", "http", "plugin", "data")
_AT_ROOT = ("onExit", "hooks", "podSpecPatch")
_PARAMETERS = "workflow.parameters."


@dataclass(frozen=True, slots=True)
class Done:
    """What a use of a template leaves: the operators that end it, its artifacts, its address if it stays."""

    last: tuple[str, ...]
    artifacts: Mapping[str, Artifact] = field(default_factory=dict)
    address: str = ""
    left_out: bool = False


def read(documents: Sequence[Fields], findings: Findings) -> Parsed:
    """Follow all workflows of a file."""
    workflows = argo_objects.read_workflows(documents, findings)
    objects = pods.read_objects(documents, findings)
    sites = argo_objects.site_names(workflows)
    roots = argo_objects.to_run(workflows)
    if not roots and workflows:
        hint = "write entrypoint:, or put the Workflow that uses it into the file as one more document"
        workflows[0].spec.error(None, f"{workflows[0].top.label} has no entrypoint", hint)
    _warn_of_others(documents, findings)
    operators: list[Operator] = []
    for root in roots:
        operators += _Follower(root, workflows, objects, sites, findings).operators()
    first = roots[0] if roots else None
    return Parsed(
        name=first.name if first else "",
        version=first.top.raw("apiVersion") if first else "",
        operators=tuple(with_payload(each) for each in _renamed(operators)),
    )


def _warn_of_others(documents: Sequence[Fields], findings: Findings) -> None:
    for document in documents:
        section = Section(document, "this object", findings)
        if not section.raw("apiVersion").startswith("argoproj.io/") and section.has("spec"):
            section.warn("kind", f"{section.raw('kind')} is left out: workflows are run here, not what is beside them")


def _renamed(operators: Sequence[Operator]) -> Iterator[Operator]:
    """The only use of a container has its name; several have the tasks' names behind it."""
    everyone = {each.name: each for one in operators for each in (*one.companions, one)}
    uses = Counter(each.site for each in everyone.values())
    new: dict[str, str] = {}
    taken: set[str] = set()
    for each in everyone.values():
        full = naming.safe(each.name.partition(UNIQUE)[0])
        name, number = (each.site if uses[each.site] == 1 else full)[:150], 1
        while name.lower() in taken:
            number += 1
            name = f"{name[:140]}-{number}"
        taken.add(name.lower())
        new[each.name] = name
    yield from (_with_names(each, new) for each in operators)


def _with_names(operator: Operator, new: Mapping[str, str]) -> Operator:
    return replace(
        operator,
        name=new[operator.name],
        inputs=tuple(replace(each, source=new[each.source]) if each.source else each for each in operator.inputs),
        after=tuple(new[name] for name in operator.after),
        companions=tuple(_with_names(each, new) for each in operator.companions),
    )


class _Follower:
    """Follows one workflow from its entrypoint."""

    def __init__(
        self,
        root: Workflow,
        workflows: Sequence[Workflow],
        objects: pods.Objects,
        sites: Mapping[int, str],
        findings: Findings,
    ) -> None:
        self._root = root
        self._workflows = workflows
        self._findings = findings
        self._body = self._referred_body(root)
        pod = pods.Pod(root.spec, root.name, f"workflow.{root.name}", objects)
        for workflow in dict.fromkeys((id(self._body), id(root))):
            spec = root.spec if workflow == id(root) else self._body.spec
            pod.add_volumes(spec)
            pod.add_claims(spec, "volumeClaimTemplates")
        self._leaves = LeafReader(pod, sites)
        self._scope = Scope(self._globals(objects), findings)
        self._operators: list[Operator] = []
        self._serving: list[str] = []
        self._uses = 0

    def _referred_body(self, root: Workflow) -> Workflow:
        reference = root.spec.section("workflowTemplateRef", "workflowTemplateRef")
        return (argo_objects.referred(reference, self._workflows) if reference else None) or root

    def _globals(self, objects: pods.Objects) -> dict[str, Value]:
        values: dict[str, Value] = dict(argo_objects.own_values(self._root, datetime.now(timezone.utc)))
        for spec in (self._body.spec, self._root.spec):
            arguments = spec.section("arguments", "arguments")
            for item in arguments.sections("parameters", "a parameter") if arguments else ():
                found = default_of(item, objects)
                if found is not None:
                    values[f"workflow.parameters.{item.raw('name')}"] = found
        return {**values, "workflow.parameters": json.dumps(_parameters_of(values))}

    def operators(self) -> tuple[Operator, ...]:
        """All of them, those that stay up beside the others."""
        for key in _AT_ROOT:
            if self._root.spec.has(key):
                self._root.spec.warn(key, f"{key} of {self._root.top.label} is not followed here")
        entry = self._root.spec.raw("entrypoint") or self._body.spec.raw("entrypoint")
        template = self._body.templates.get(entry) or self._root.templates.get(entry)
        if template is None and self._body is self._root and self._root.spec.has("workflowTemplateRef"):
            return ()  # that the other object is not here is the fault, and reported
        if template is None:
            known = choice(entry, self._body.templates, "templates are")
            self._root.spec.error("entrypoint", f"no template is called {quoted(entry)}", known)
            return ()
        parameters = _parameters_of(self._scope.values)
        self._use(template, self._body, Use((), parameters, self._workflow_artifacts(), ()))
        if refuse_circle(self._operators, self._root.spec):
            return ()
        return companions(self._operators, self._serving)

    def _workflow_artifacts(self) -> dict[str, Artifact]:
        arguments = self._root.spec.section("arguments", "arguments")
        return (
            {each.raw("name"): source_of(each) for each in arguments.sections("artifacts", "one")} if arguments else {}
        )

    # ------------------------------------------------------------ templates

    def _use(self, template: Section, owner: Workflow, use: Use) -> Done:
        if len(use.path) > _MAX_DEPTH:
            template.error(None, f"{template.label} calls itself: how often is known only in a run", "unroll it")
            return Done(use.after, left_out=True)
        self._uses += 1
        if self._uses > _MAX_USES:
            self._root.spec.error(None, f"the workflow has more than {_MAX_USES} tasks", "size a smaller one")
            return Done(use.after, left_out=True)
        scope = self._scope.with_values(self._inputs(template, use))
        for key in ("podSpecPatch",):
            if template.has(key):
                template.warn(key, f"{key} of {template.label} is not applied here")
        if template.has("dag"):
            return self._dag(template, owner, use, scope)
        if template.has("steps"):
            return self._steps(template, owner, use, scope)
        if template.has("containerSet") or any(template.has(key) for key in LEAVES):
            return self._leaf(template, use, scope)
        kind = next((key for key in _LEFT_OUT if template.has(key)), "")
        if kind:
            template.warn(kind, f"{template.label} is left out: a {kind} template runs no container")
        else:
            template.error(None, f"{template.label} has nothing to run", "write container:, script:, dag: or steps:")
        return Done(use.after, left_out=True)

    def _inputs(self, template: Section, use: Use) -> dict[str, Value]:
        values: dict[str, Value] = {"pod.name": use.path[-1] if use.path else self._root.name}
        for name in ("node.name", "steps.name", "tasks.name"):
            values[name] = values["pod.name"]
        inputs = template.section("inputs", f"inputs of {template.label}")
        for item in inputs.sections("parameters", f"a parameter of {template.label}") if inputs else ():
            name = item.raw("name")
            value = use.parameters.get(name)
            value = default_of(item, self._leaves.pod.objects) if value is None else value
            if value is None:
                item.error("name", f"parameter {quoted(name)} of {template.label} has no value", "give it one: value:")
                value = Unknown(f"parameter {quoted(name)} has no value")
            values[f"inputs.parameters.{name}"] = value
        outputs = template.section("outputs", f"outputs of {template.label}")
        for what, section in (("inputs", inputs), ("outputs", outputs)):
            for item in section.sections("artifacts", "an artifact") if section else ():
                values[f"{what}.artifacts.{item.raw('name')}.path"] = item.raw("path")
        for item in outputs.sections("parameters", "a parameter") if outputs else ():
            source = item.section("valueFrom", "valueFrom") if item.has("valueFrom") else None
            values[f"outputs.parameters.{item.raw('name')}.path"] = source.raw("path") if source else ""
        return values

    def _leaf(self, template: Section, use: Use, scope: Scope) -> Done:
        made = self._leaves.read(template, use, scope, known=len(self._operators))
        self._operators += made.operators
        if template.raw("daemon") == "true" and made.operators:
            self._serving.append(made.operators[-1].name)
        return Done(
            tuple(each.name for each in made.operators) or use.after,
            made.artifacts,
            address=made.operators[-1].aliases[0] if made.operators and made.operators[-1].aliases else "",
        )

    # ------------------------------------------------------------ dag and steps

    def _dag(self, template: Section, owner: Workflow, use: Use, scope: Scope) -> Done:
        below = template.section("dag", f"the dag of {template.label}")
        tasks: dict[str, Section] = {}
        for item in below.sections("tasks", f"a task of {template.label}") if below else ():
            item.require("name", "write the task's name")
            item.label = f"task {quoted(item.raw('name'))}"
            tasks[item.raw("name")] = item
        done: dict[str, Done] = {}
        open_: list[str] = []

        def visit(name: str) -> None:
            if name in done:
                return
            if name in open_:
                tasks[name].error(None, f"tasks wait for one another: {' -> '.join(open_)}", "remove a dependency")
                done[name] = Done(use.after, left_out=True)
                return
            open_.append(name)
            wanted = self._waits(tasks[name], tasks)
            for other in wanted.tasks:
                visit(other)
            open_.pop()
            if name in done:
                return
            if not wanted.holds(lambda other: done[other].left_out):
                tasks[name].warn(
                    None, f"{tasks[name].label} is left out: it runs only if another fails or does not run"
                )
                done[name] = Done(_lasts(wanted.tasks, done) or use.after, left_out=True)
                return
            after = _lasts(wanted.tasks, done) or use.after
            done[name] = self._task(tasks[name], owner, use, scope, ("tasks", done), after)

        for name in tasks:
            visit(name)
        return self._finished(template, "tasks", done, _lasts(tuple(tasks), done) or use.after)

    def _waits(self, task: Section, tasks: Mapping[str, Section]) -> _Waits:
        if task.raw("depends"):
            found = depends(task.raw("depends"))
            if found is None:
                task.error("depends", f"{quoted(task.raw('depends'))} is no condition", "write A && (B || C.Failed)")
                return _Waits((), None)
            names, condition = found.tasks, found
        else:
            read = (task.value(node, "dependencies", str) for node in task.items("dependencies"))
            names, condition = tuple(name for name in read if name is not None), None
        for name in names:
            if name not in tasks:
                task.error(None, f"{task.label} depends on {quoted(name)}", choice(name, tasks, "tasks are"))
        return _Waits(tuple(name for name in names if name in tasks), condition if set(names) <= set(tasks) else None)

    def _steps(self, template: Section, owner: Workflow, use: Use, scope: Scope) -> Done:
        done: dict[str, Done] = {}
        after = use.after
        for node in template.items("steps"):
            group = node.items if isinstance(node, Items) else (node,)
            sections = [Section(each, "a step", self._findings) for each in group if isinstance(each, Fields)]
            for step in sections:
                step.require("name", "write the step's name")
                step.label = f"step {quoted(step.raw('name'))}"
            results = [
                (each.raw("name"), self._task(each, owner, use, scope, ("steps", done), after)) for each in sections
            ]
            done |= dict(results)
            after = tuple(dict.fromkeys(name for _, one in results for name in one.last)) or after
        return self._finished(template, "steps", done, after)

    def _finished(self, template: Section, kind: str, done: Mapping[str, Done], last: tuple[str, ...]) -> Done:
        outputs = template.section("outputs", f"outputs of {template.label}")
        found = {
            item.raw("name"): self._artifact(item, kind, done, {})
            for item in (outputs.sections("artifacts", "an artifact") if outputs else ())
        }
        return Done(last, found, left_out=bool(done) and all(each.left_out for each in done.values()))

    # ------------------------------------------------------------ one task

    def _task(
        self,
        task: Section,
        owner: Workflow,
        use: Use,
        scope: Scope,
        before: tuple[str, Mapping[str, Done]],
        after: tuple[str, ...],
    ) -> Done:
        kind, done = before
        addresses = {f"{kind}.{name}.ip": each.address for name, each in done.items() if each.address}
        statuses = {f"{kind}.{name}.status": "Succeeded" for name in done}
        scope = scope.with_values({**addresses, **statuses})
        template, its_owner = self._called(task, owner)
        if template is None:
            return Done(after, left_out=True)
        made = []
        for suffix, items in instances(task, scope):
            inner = scope.with_values(items)
            node = task.fields.get("when")
            condition = inner.value(node) if isinstance(node, Text) else "true"
            if holds(condition) is False:
                task.warn("when", f"{task.label} is left out: its condition does not hold")
                continue
            if holds(condition) is None:
                task.warn("when", f"whether {task.label} runs is known only in a run: here it does")
            arguments = task.section("arguments", f"arguments of {task.label}")
            parameters = dict(self._parameters(arguments, inner)) if arguments else {}
            artifacts = {
                each.raw("name"): self._artifact(each, kind, done, use.artifacts)
                for each in (arguments.sections("artifacts", "an artifact") if arguments else ())
            }
            path = (*use.path, task.raw("name") + suffix)
            made.append(self._use(template, its_owner, Use(path, parameters, artifacts, after)))
        if len(made) == 1:
            return made[0]
        several = Artifact(reason=f"{task.label} has several instances")
        return Done(
            tuple(dict.fromkeys(name for each in made for name in each.last)) or after,
            {name: several for each in made for name in each.artifacts},
            left_out=not made or all(each.left_out for each in made),
        )

    def _parameters(self, arguments: Section, scope: Scope) -> Iterator[tuple[str, Value]]:
        for item in arguments.sections("parameters", "an argument"):
            node = item.fields.get("value")
            key = item.fields.key("value")
            if isinstance(node, Text):
                yield item.raw("name"), scope.value(node)
            elif key is not None and node is None:
                yield item.raw("name"), ""
            elif node is None:
                yield item.raw("name"), Unknown(f"parameter {quoted(item.raw('name'))} is worked out in a run")

    def _called(self, task: Section, owner: Workflow) -> tuple[Section | None, Workflow]:
        if task.has("inline"):
            inline = task.section("inline", f"inline of {task.label}")
            if inline is not None:
                inline.label = f"the template of {task.label}"
            return inline, owner
        reference = task.section("templateRef", f"templateRef of {task.label}")
        if reference is not None:
            found = argo_objects.referred(reference, self._workflows)
            owner, name, place = found or owner, reference.raw("template"), reference
            if found is None:
                return None, owner
        else:
            name, place = task.raw("template"), task
        template = owner.templates.get(name)
        if template is None:
            hint = choice(name, owner.templates, "templates are")
            place.error("template", f"{task.label} uses {quoted(name)}, which is no template", hint)
        return template, owner

    def _artifact(
        self, item: Section, kind: str, done: Mapping[str, Done], inherited: Mapping[str, Artifact]
    ) -> Artifact:
        text = item.raw("from").strip()
        if not text:
            return source_of(item)
        parts = text.removeprefix("{{").removesuffix("}}").strip().split(".")
        if parts[0] == kind and len(parts) == 5 and parts[1] in done and parts[2:4] == ["outputs", "artifacts"]:
            nothing = Artifact(reason=f"{quoted(text)} is not written here")
            return done[parts[1]].artifacts.get(parts[4], nothing)
        if parts[0] == "inputs" and len(parts) == 3 and parts[2] in inherited:
            return inherited[parts[2]]
        return Artifact(reason=f"where {quoted(text)} comes from is not known here")


def _parameters_of(values: Mapping[str, Value]) -> dict[str, Value]:
    return {name.removeprefix(_PARAMETERS): each for name, each in values.items() if name.startswith(_PARAMETERS)}


@dataclass(frozen=True, slots=True)
class _Waits:
    tasks: tuple[str, ...]
    condition: Depends | None

    def holds(self, left_out: Callable[[str], bool]) -> bool:
        return self.condition is None or self.condition.holds(left_out)


def _lasts(names: Sequence[str], done: Mapping[str, Done]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(last for name in names for last in done[name].last))
