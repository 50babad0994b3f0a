"""Argo workflows -> operators: every use of a container or script template is one.

Workflows are followed from their entrypoint as they would run if everything succeeded. What only a run could tell
(outputs of a task in the text of another) cannot be, and is named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from cpost.definition import argo_objects, argo_values, naming, pods
from cpost.definition.argo_conditions import Depends, depends, holds
from cpost.definition.argo_defaults import with_defaults
from cpost.definition.argo_leaves import Artifact, LeafReader, Use, source_of
from cpost.definition.argo_loops import instances
from cpost.definition.argo_objects import Workflow
from cpost.definition.argo_scope import Scope, Unknown, Value
from cpost.definition.config_objects import AllObjects
from cpost.definition.findings import Findings, choice, quoted
from cpost.definition.flow import UNIQUE, Parsed, companions, refuse_circle, with_payload
from cpost.definition.section import Section
from cpost.definition.tree import Fields, Items, Text
from cpost.definition.workloads import LEAVES
from cpost.model import Operator

_MAX_DEPTH = 20
_MAX_USES = 500
_LEFT_OUT = ("resource", "suspend", "http", "plugin", "data")
_AT_ROOT = ("onExit", "hooks", "podSpecPatch")
_AT_TASK = ("onExit", "hooks")


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
    objects = AllObjects(documents, findings)
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
        objects: AllObjects,
        sites: Mapping[tuple[int, str], str],
        findings: Findings,
    ) -> None:
        self._root = root
        self._workflows = workflows
        self._findings = findings
        self._body = self._referred_body(root)
        self._objects = objects.seen_from(root.namespace)
        place = ".".join(filter(None, ("workflow", root.namespace, root.name)))
        spec = next((spec for spec in self._specs() if spec.has("securityContext")), root.spec)
        pod = pods.Pod(spec, root.name, place, self._objects, namespace=root.namespace)
        for spec in reversed(self._specs()):
            pod.add_volumes(spec)
            pod.add_claims(spec, "volumeClaimTemplates")
        self._leaves = LeafReader(pod, sites)
        self._defaults = self._spec_section("templateDefaults")
        self._scope = argo_values.of_workflow(root, self._body, self._objects, findings)
        self._operators: list[Operator] = []
        self._serving: list[str] = []
        self._uses = 0

    def _referred_body(self, root: Workflow) -> Workflow:
        reference = root.spec.section("workflowTemplateRef", "workflowTemplateRef")
        return (argo_objects.referred(reference, self._workflows, self._root.namespace) if reference else None) or root

    def _specs(self) -> tuple[Section, ...]:
        """Of the workflow, and of the template object that it refers to: what the first has is not the second's."""
        return (self._root.spec,) if self._body is self._root else (self._root.spec, self._body.spec)

    def _spec_section(self, key: str) -> Section | None:
        spec = next((spec for spec in self._specs() if spec.has(key)), None)
        return spec.section(key, f"{key} of {self._root.top.label}") if spec is not None else None

    def operators(self) -> tuple[Operator, ...]:
        """All of them, those that stay up beside the others."""
        for spec in self._specs():
            pods.warn_of_pod(spec)
            for key in _AT_ROOT:
                if spec.has(key):
                    spec.warn(key, f"{key} of {self._root.top.label} is not followed here")
        entry = self._root.spec.raw("entrypoint") or self._body.spec.raw("entrypoint")
        template = self._body.templates.get(entry) or self._root.templates.get(entry)
        if template is None and self._body is self._root and self._root.spec.has("workflowTemplateRef"):
            return ()  # that the other object is not here is the fault, and reported
        if template is None:
            known = choice(entry, self._body.templates, "templates are")
            self._root.spec.error("entrypoint", f"no template is called {quoted(entry)}", known)
            return ()
        parameters = argo_values.parameters_of(self._scope)
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
        written = template.fields
        template = with_defaults(template, self._defaults)
        scope = self._scope.with_values(argo_values.of_inputs(template, use, self._scope, self._objects))
        if template.has("podSpecPatch"):
            template.warn("podSpecPatch", f"podSpecPatch of {template.label} is not applied here")
        if template.has("dag"):
            return self._dag(template, owner, use, scope)
        if template.has("steps"):
            return self._steps(template, owner, use, scope)
        if template.has("containerSet") or any(template.has(key) for key in LEAVES):
            return self._leaf(template, written, use, scope)
        kind = next((key for key in _LEFT_OUT if template.has(key)), "")
        if kind:
            template.warn(kind, f"{template.label} is left out: a {kind} template runs no container")
        else:
            template.error(None, f"{template.label} has nothing to run", "write container:, script:, dag: or steps:")
        return Done(use.after, left_out=True)

    def _leaf(self, template: Section, written: Fields, use: Use, scope: Scope) -> Done:
        made = self._leaves.read(template, written, use, scope, known=len(self._operators))
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
            item.read("name", naming.usable)
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
            if name not in done:
                after = _lasts(wanted.tasks, done) or use.after
                done[name] = self._waited(tasks[name], wanted, owner, use, scope, done, after)

        for name in self._targets(below, tasks, scope):
            visit(name)
        for name in tasks.keys() - done.keys():
            tasks[name].warn(None, f"{tasks[name].label} is left out: it is not on the way to the dag's target")
        reached = tuple(name for name in tasks if name in done)
        return self._finished(template, "tasks", done, _lasts(reached, done) or use.after)

    def _waited(
        self,
        task: Section,
        wanted: _Waits,
        owner: Workflow,
        use: Use,
        scope: Scope,
        done: Mapping[str, Done],
        after: tuple[str, ...],
    ) -> Done:
        """A task whose dependencies are done."""
        if wanted.holds(lambda other: done[other].left_out):
            return self._task(task, owner, use, scope, ("tasks", done), after)
        task.warn(None, f"{task.label} is left out: it runs only if another fails or does not run")
        return Done(after, left_out=True)

    def _targets(self, dag: Section | None, tasks: Mapping[str, Section], scope: Scope) -> Sequence[str]:
        """The tasks that a dag is run for: all of them, where it does not say."""
        node = dag.fields.get("target") if dag is not None else None
        if dag is None or not isinstance(node, Text):
            return tuple(tasks)
        target = scope.value(node)
        if isinstance(target, Unknown):
            dag.warn("target", f"which tasks are the target of {dag.label} is known only in a run: here all are run")
            return tuple(tasks)
        for name in target.split():
            if name not in tasks:
                dag.error("target", f"no task is called {quoted(name)}", choice(name, tasks, "tasks are"))
        return tuple(name for name in target.split() if name in tasks) or tuple(tasks)

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
                step.read("name", naming.usable)
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
        for key in _AT_TASK:
            if task.has(key):
                task.warn(key, f"{key} of {task.label} is not followed here")
        addresses = {f"{kind}.{name}.ip": each.address for name, each in done.items() if each.address}
        statuses = {f"{kind}.{name}.status": "Succeeded" for name in done}
        scope = scope.with_values({**addresses, **statuses})
        template, its_owner = self._called(task, owner)
        if template is None:
            return Done(after, left_out=True)
        made = [
            self._use(template, its_owner, self._use_of(task, suffix, inner, use, before, after))
            for suffix, items in instances(task, scope)
            if _runs(task, inner := scope.with_values(items))
        ]
        return _together(task, made, after)

    def _use_of(
        self,
        task: Section,
        suffix: str,
        scope: Scope,
        use: Use,
        before: tuple[str, Mapping[str, Done]],
        after: tuple[str, ...],
    ) -> Use:
        """What one instance of a task gives its template."""
        arguments = task.section("arguments", f"arguments of {task.label}")
        artifacts = {
            each.raw("name"): self._artifact(each, *before, use.artifacts)
            for each in (arguments.sections("artifacts", "an artifact") if arguments else ())
        }
        parameters = dict(self._parameters(arguments, scope)) if arguments else {}
        return Use((*use.path, task.raw("name") + suffix), parameters, artifacts, after)

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
            found = argo_objects.referred(reference, self._workflows, self._root.namespace)
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


@dataclass(frozen=True, slots=True)
class _Waits:
    tasks: tuple[str, ...]
    condition: Depends | None

    def holds(self, left_out: Callable[[str], bool]) -> bool:
        return self.condition is None or self.condition.holds(left_out)


def _lasts(names: Sequence[str], done: Mapping[str, Done]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(last for name in names for last in done[name].last))


def _runs(task: Section, scope: Scope) -> bool:
    node = task.fields.get("when")
    condition = scope.value(node) if isinstance(node, Text) else "true"
    runs = holds(condition)
    if runs is False:
        task.warn("when", f"{task.label} is left out: its condition does not hold")
    elif runs is None:
        why = "known only in a run" if isinstance(condition, Unknown) else "not worked out here"
        task.warn("when", f"whether {task.label} runs is {why}: here it does")
    return runs is not False


def _together(task: Section, made: Sequence[Done], after: tuple[str, ...]) -> Done:
    """What all instances of a task leave."""
    if len(made) == 1:
        return made[0]
    several = Artifact(reason=f"{task.label} has several instances")
    return Done(
        tuple(dict.fromkeys(name for each in made for name in each.last)) or after,
        {name: several for each in made for name in each.artifacts},
        left_out=not made or all(each.left_out for each in made),
    )
