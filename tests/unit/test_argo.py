"""Argo workflows: which uses of templates are run, in which order, with what; what only a run could tell."""

from __future__ import annotations

from pathlib import Path
from textwrap import indent

import pytest
from foreign import faults, operators, read, reasons, warnings
from hypothesis import given
from hypothesis import strategies as st

from cpost.definition.argo_conditions import depends
from cpost.model import File, Format, Input, Operator, Output, Volume

HEAD = "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nmetadata: {generateName: w-}\nspec:\n  entrypoint: main\n"
ECHO = (
    "  - {name: echo, inputs: {parameters: [{name: text, default: none}]}, "
    "container: {image: i, args: ['{{inputs.parameters.text}}']}}\n"
)


def workflow(main: str, *templates: str, spec: str = "") -> str:
    return (
        HEAD
        + indent(spec, "  ")
        + "  templates:\n  - name: main\n"
        + indent(main, "    ")
        + "".join(templates or (ECHO,))
    )


def order(found: dict[str, Operator]) -> dict[str, tuple[str, ...]]:
    return {name: each.after for name, each in found.items()}


# ---------------------------------------------------------------- graphs


def test_a_diamond_of_one_template(tmp_path: Path) -> None:
    main = (
        "dag:\n  tasks:\n"
        "  - {name: D, template: echo, depends: B && C.Succeeded}\n"
        "  - {name: B, template: echo, dependencies: [A]}\n"
        "  - {name: A, template: echo}\n"
        "  - {name: C, template: echo, dependencies: [A]}\n"
    )
    pipeline = read(tmp_path, workflow(main))
    assert (pipeline.name, pipeline.format) == ("w", Format.ARGO)
    found = {each.name: each for each in pipeline.operators}
    assert order(found) == {
        "echo.A": (), "echo.B": ("echo.A",), "echo.C": ("echo.A",), "echo.D": ("echo.B", "echo.C"),
    }  # fmt: skip
    assert {each.site for each in found.values()} == {"echo"}


def test_steps_run_group_after_group_and_nest(tmp_path: Path) -> None:
    main = (
        "steps:\n- - {name: one, template: twice}\n- - {name: two, template: only}\n"
        "  - {name: three, template: twice}\n"
    )
    twice = "  - name: twice\n    steps:\n    - [{name: x, template: echo}]\n    - [{name: y, template: echo}]\n"
    only = "  - {name: only, container: {image: i}}\n"
    assert order(operators(tmp_path, workflow(main, twice, only, ECHO))) == {
        "echo.one.x": (),
        "echo.one.y": ("echo.one.x",),
        "only": ("echo.one.y",),
        "echo.three.x": ("echo.one.y",),
        "echo.three.y": ("echo.three.x",),
    }


def test_what_runs_only_after_a_failure_is_left_out(tmp_path: Path) -> None:
    main = (
        "dag:\n  tasks:\n"
        "  - {name: a, template: echo}\n"
        "  - {name: alarm, template: echo, depends: a.Failed || a.Errored}\n"
        "  - {name: after, template: echo, depends: alarm.Succeeded}\n"
        "  - {name: always, template: echo, depends: (a.Succeeded || a.Failed) && !alarm.Failed}\n"
        "  - {name: end, template: echo, depends: alarm}\n"
    )
    assert order(operators(tmp_path, workflow(main))) == {
        "echo.a": (), "echo.always": ("echo.a",), "echo.end": ("echo.a",),
    }  # fmt: skip
    assert [line.partition(": ")[2] for line in warnings(tmp_path, workflow(main))] == [
        'task "alarm" is left out: it runs only if another fails or does not run',
        'task "after" is left out: it runs only if another fails or does not run',
    ]


@pytest.mark.parametrize(
    ("expression", "runs"),
    [
        ("a", True),
        ("a.Daemoned", True),
        ("a.Failed", False),
        ("a && !b.Failed", True),
        ("b.Omitted", True),
    ],
)
def test_what_holds_if_everything_succeeds(expression: str, runs: bool) -> None:
    found = depends(expression)
    assert found is not None
    assert found.holds(lambda name: name == "b") is runs


@given(st.text(alphabet="ab.&|!() SF", max_size=12))
def test_any_condition_is_read_or_refused(text: str) -> None:
    found = depends(text)
    assert found is None or isinstance(found.holds(lambda _: True), bool)


@pytest.mark.parametrize(
    ("main", "message"),
    [
        ("dag: {tasks: [{name: a, template: echo, dependencies: [b]}]}\n", 'task "a" depends on "b"'),
        ("dag: {tasks: [{name: a, template: echo, depends: b &&}]}\n", '"b &&" is no condition'),
        ("dag: {tasks: [{name: a, template: ecko}]}\n", 'task "a" uses "ecko", which is no template'),
        (
            "dag: {tasks: [{name: a, template: echo, depends: b}, {name: b, template: echo, depends: a}]}\n",
            "tasks wait for one another: a -> b",
        ),
        (
            "steps: [[{name: again, template: main}]]\n",
            'template "main" calls itself: how often is known only in a run',
        ),
        ("steps: [[{name: a, template: echo, withParam: '{}'}]]\n", 'what step "a" loops over is no JSON list: "{}"'),
        ("steps: [[{name: a, templateRef: {name: t, template: x}}]]\n", 'WorkflowTemplate "t" is not in the file'),
        ("container: {image: i, args: ['{{inputs.parameters.x}}']}\n", 'nothing is called "inputs.parameters.x" here'),
        ("inputs: {parameters: [{name: x}]}\ncontainer: {image: i}\n", 'parameter "x" of template "main" has no value'),
        ("metadata: {}\n", 'template "main" has nothing to run'),
    ],
)
def test_faults_have_a_place(tmp_path: Path, main: str, message: str) -> None:
    found = faults(tmp_path, workflow(main))
    assert message in [text for _, text in found]
    assert not any(place.startswith("0") for place, _ in found)


# ---------------------------------------------------------------- values


def test_parameters_reach_what_they_are_for(tmp_path: Path) -> None:
    main = (
        "steps:\n"
        "- - name: a\n    template: echo\n"
        "    arguments: {parameters: [{name: text, value: '{{workflow.parameters.who}} of {{workflow.name}}'}]}\n"
        "  - {name: b, template: echo, when: '{{workflow.parameters.who}} != me'}\n"
        "  - {name: c, template: echo, when: \"'{{workflow.parameters.who}}' == 'me'\"}\n"
        "  - name: loop\n    template: echo\n    withItems: [x, {k: v}]\n"
        "    arguments: {parameters: [{name: text, value: '{{item}}'}]}\n"
        "  - name: count\n    template: echo\n    withSequence: {start: '1', count: '2'}\n"
        "    arguments: {parameters: [{name: text, value: '<{{item}}>{{.Helm}}'}]}\n"
    )
    text = workflow(main, spec="arguments: {parameters: [{name: who, value: me}]}\n")
    found = operators(tmp_path, text)
    assert {name: each.command for name, each in found.items()} == {
        "echo.a": ("me of w",), "echo.c": ("none",), "echo.loop-0": ("x",), "echo.loop-1": (),
        "echo.count-1": ("<1>{{.Helm}}",), "echo.count-2": ("<2>{{.Helm}}",),
    }  # fmt: skip
    assert reasons(found["echo.loop-1"]) == ["the item is no text"]
    assert 'step "b" is left out: its condition does not hold' in "\n".join(warnings(tmp_path, text))


def test_a_list_in_a_parameter_is_looped_over(tmp_path: Path) -> None:
    main = (
        "steps:\n- - name: a\n    template: echo\n    withParam: '{{workflow.parameters.sizes}}'\n"
        "    arguments: {parameters: [{name: text, value: '{{item.name}} {{item}}'}]}\n"
        "  - name: b\n    template: echo\n    withParam: '[\"x\", 2, true]'\n"
        "    arguments: {parameters: [{name: text, value: '{{item}}'}]}\n"
        "  - name: c\n    template: echo\n    withSequence: {start: 9, count: 2, format: 'part-%02d'}\n"
        "    arguments: {parameters: [{name: text, value: '{{item}}'}]}\n"
    )
    spec = 'arguments: {parameters: [{name: sizes, value: \'[{"name": "small", "n": 1}]\'}]}\n'
    assert {name: each.command for name, each in operators(tmp_path, workflow(main, spec=spec)).items()} == {
        "echo.a-0": ('small {"n":1,"name":"small"}',), "echo.b-0": ("x",), "echo.b-1": ("2",),
        "echo.b-2": ("true",), "echo.c-9": ("part-09",), "echo.c-10": ("part-10",),
    }  # fmt: skip


def test_a_list_that_a_task_makes_is_not_known_before(tmp_path: Path) -> None:
    main = (
        "steps:\n- - {name: list, template: echo}\n"
        "- - name: each\n    template: echo\n    withParam: '{{steps.list.outputs.result}}'\n"
        "    arguments: {parameters: [{name: text, value: '{{item.name}}'}]}\n"
        "  - {name: same, template: echo, withParam: '{{steps.list.outputs.result}}'}\n"
    )
    found = operators(tmp_path, workflow(main))
    assert order(found) == {"echo.list": (), "echo.each": ("echo.list",), "echo.same": ("echo.list",)}
    assert reasons(found["echo.each"]) == ['"steps.list.outputs.result" is known only in a run of the workflow']
    assert reasons(found["echo.same"]) == []
    assert [line.partition(": ")[2] for line in warnings(tmp_path, workflow(main))] == [
        f'how often step "{name}" runs is known only in a run: here it does once' for name in ("each", "same")
    ]


def test_what_a_workflow_knows_of_itself(tmp_path: Path) -> None:
    args = "'{{workflow.mainEntrypoint}} {{workflow.namespace}} {{workflow.labels.a}} {{workflow.parameters}}'"
    times = "'{{workflow.creationTimestamp}}', '{{workflow.creationTimestamp.Y}}', '{{workflow.uid}}'"
    main = f"container: {{image: i, args: [{args}, {times}]}}\n"
    text = workflow(main, spec="arguments: {parameters: [{name: p, value: v}]}\n").replace(
        "{generateName: w-}", "{generateName: w-, namespace: team, labels: {a: b}}"
    )
    first, when, year, uid = operators(tmp_path, text)["main"].command
    assert first == 'main team b [{"name":"p","value":"v"}]'
    assert (when[:4], when[-1], len(when), len(uid)) == (year, "Z", 20, 36)


def test_a_cron_workflow_is_run_as_if_its_time_had_come(tmp_path: Path) -> None:
    args = "['{{workflow.scheduledTime}}', '{{cronworkflow.name}} {{cronworkflow.labels.a}}']"
    text = (
        "apiVersion: argoproj.io/v1alpha1\nkind: CronWorkflow\nmetadata: {name: nightly, labels: {a: b}}\nspec:\n"
        "  schedule: '0 3 * * *'\n  workflowSpec:\n    entrypoint: main\n    templates:\n"
        f"    - {{name: main, container: {{image: i, args: {args}}}}}\n"
    )
    when, named = operators(tmp_path, text)["main"].command
    assert (when[4], when[10], named) == ("-", "T", "nightly b")


def test_what_a_task_prints_is_not_known_before(tmp_path: Path) -> None:
    main = (
        "steps:\n- - {name: a, template: echo}\n"
        "- - name: b\n    template: echo\n    when: '{{steps.a.outputs.result}} == yes'\n"
        "    arguments: {parameters: [{name: text, value: '{{steps.a.outputs.result}}'}]}\n"
        "  - name: c\n    template: echo\n    arguments: {parameters: [{name: text, value: '{{=1+1}}'}]}\n"
    )
    found = operators(tmp_path, workflow(main))
    assert reasons(found["echo.a"]) == []
    assert reasons(found["echo.b"]) == ['"steps.a.outputs.result" is known only in a run of the workflow']
    assert reasons(found["echo.c"]) == ['the expression "{{=1+1}}" is not worked out here']
    assert warnings(tmp_path, workflow(main)) == ['12:15: whether step "b" runs is known only in a run: here it does']


# ---------------------------------------------------------------- containers


def test_scripts_artifacts_and_volumes(tmp_path: Path) -> None:
    main = (
        "dag:\n  tasks:\n  - {name: make, template: make}\n"
        "  - name: use\n    template: use\n    dependencies: [make]\n    arguments:\n      artifacts:\n"
        "      - {name: data, from: '{{tasks.make.outputs.artifacts.result}}'}\n"
        "      - {name: text, raw: {data: hello}}\n"
    )
    make = (
        "  - name: make\n    outputs: {artifacts: [{name: result, path: /tmp/out.bin}]}\n"
        "    script: {image: python:3, command: [python], args: [-u], source: 'print(1)', "
        "volumeMounts: [{name: work, mountPath: /work}], resources: {requests: {memory: 1Gi}}}\n"
    )
    use = (
        "  - name: use\n    inputs:\n      artifacts:\n      - {name: data, path: /in/data}\n"
        "      - {name: text, path: /in/text}\n      - {name: more, path: /m, optional: true}\n"
        "    container: {image: i, command: [cat, '{{inputs.artifacts.data.path}}']}\n"
    )
    text = workflow(main, make, use, spec="volumeClaimTemplates: [{metadata: {name: work}}]\n")
    found = operators(tmp_path, text)
    assert (found["make"].entrypoint, found["make"].command) == (("python",), ("-u", "/argo/staging/script"))
    script = Volume("script", "/argo/staging", True, "", (File("script", b"print(1)", 0o755),))
    assert found["make"].volumes == (Volume("workflow.w.work", "/work"), script)
    assert found["make"].outputs == (Output("/tmp/out.bin", "result", copied=True),)
    assert found["make"].requests.memory_bytes == 2**30
    assert found["use"].inputs == (Input("/in/data", "make", "result", entry="out.bin"), Input("/input"))
    assert found["use"].volumes == (Volume("raw.text", "/in/text", True, "content", (File("content", b"hello"),)),)
    assert (found["use"].entrypoint, found["use"].upstream) == (("cat", "/in/data"), ("make",))
    assert warnings(tmp_path, text) == ['6:26: claim "work" is a fresh, empty folder here']


def test_artifacts_from_elsewhere_and_sidecars_are_reasons_against(tmp_path: Path) -> None:
    main = (
        "inputs: {artifacts: [{name: a, path: /a, s3: {bucket: b}}]}\nsidecars: [{name: side, image: i}]\n"
        "container: {image: i}\n"
    )
    found = operators(tmp_path, workflow(main))
    assert reasons(found["main"]) == [
        'its sidecar "side" would have to share its localhost', 'artifact "a" comes from s3',
    ]  # fmt: skip


def test_a_daemon_runs_beside_what_follows(tmp_path: Path) -> None:
    main = (
        "steps:\n- - {name: db, template: serve}\n- - name: ask\n    template: echo\n"
        "    arguments: {parameters: [{name: text, value: 'http://{{steps.db.ip}}:80'}]}\n"
    )
    serve = "  - {name: serve, daemon: true, container: {image: s, readinessProbe: {httpGet: {port: 80}}}}\n"
    found = operators(tmp_path, workflow(main, serve, ECHO))
    assert list(found) == ["echo"]
    assert found["echo"].command == ("http://db:80",)
    assert [(each.name, each.aliases, each.ports) for each in found["echo"].companions] == [("serve", ("db",), (80,))]


def test_a_daemon_has_what_it_reads(tmp_path: Path) -> None:
    main = (
        "steps:\n- - {name: make, template: make}\n- - name: db\n    template: serve\n    arguments:\n"
        "      artifacts: [{name: data, from: '{{steps.make.outputs.artifacts.data}}'}]\n"
        "- - {name: ask, template: echo}\n"
    )
    make = "  - {name: make, container: {image: m}, outputs: {artifacts: [{name: data, path: /out/d.bin}]}}\n"
    serve = "  - {name: serve, daemon: true, inputs: {artifacts: [{name: data, path: /in/d}]}, container: {image: s}}\n"
    found = operators(tmp_path, workflow(main, make, serve, ECHO))
    (server,) = found["echo"].companions
    assert (server.inputs, found["echo"].after) == ((Input("/in/d", "make", "data", entry="d.bin"),), ("make",))


def test_why_a_daemon_cannot_run_is_said_with_its_name(tmp_path: Path) -> None:
    main = (
        "steps:\n- - {name: one, template: serve}\n- - name: two\n    template: eat\n    arguments:\n"
        "      artifacts: [{name: a, from: '{{steps.one.outputs.artifacts.a}}'}]\n- - {name: ask, template: echo}\n"
    )
    serve = "  - {name: serve, daemon: true, container: {image: s}, outputs: {artifacts: [{name: a, path: /a}]}}\n"
    eat = "  - {name: eat, daemon: true, inputs: {artifacts: [{name: a, path: /a}]}, container: {image: s}}\n"
    found = operators(tmp_path, workflow(main, serve, eat, ECHO))
    assert found["echo"].unsupported == (
        "its server eat.two: it reads what serve.one writes, which stays up beside it",
    )


def test_each_use_is_a_pod_with_empty_folders_of_its_own(tmp_path: Path) -> None:
    main = "steps:\n- - {name: a, template: work}\n- - {name: b, template: work}\n"
    mounts = ", ".join(f"{{name: {name}, mountPath: /{name}}}" for name in ("tmp", "kept", "claim", "eph"))
    work = (
        f"  - name: work\n    initContainers: [{{name: before, image: i, volumeMounts: [{mounts}]}}]\n"
        f"    container: {{image: i, volumeMounts: [{mounts}]}}\n"
    )
    spec = (
        "volumes:\n- {name: tmp, emptyDir: {}}\n- {name: claim, persistentVolumeClaim: {claimName: big}}\n"
        "- {name: eph, ephemeral: {}}\nvolumeClaimTemplates: [{metadata: {name: kept}}]\n"
    )
    found = operators(tmp_path, workflow(main, work, spec=spec))
    assert {name: [each.name for each in one.volumes] for name, one in found.items()} == {
        f"{container}.{use}": [f"workflow.w.{use}.tmp", "workflow.w.kept", "claim.big", f"workflow.w.{use}.eph"]
        for use in ("a", "b") for container in ("before", "work")
    }  # fmt: skip


def test_an_init_container_may_have_what_the_main_one_has(tmp_path: Path) -> None:
    main = (
        "inputs: {artifacts: [{name: t, path: /t, raw: {data: hi}}]}\nvolumes: [{name: w, emptyDir: {}}]\n"
        "initContainers:\n- {name: all, image: i, mirrorVolumeMounts: true}\n"
        "- {name: own, image: i, mirrorVolumeMounts: true, volumeMounts: [{name: w, mountPath: /w, subPath: part}]}\n"
        "- {name: bare, image: i}\n"
        "container: {image: i, volumeMounts: [{name: w, mountPath: /w}]}\n"
    )
    found = operators(tmp_path, workflow(main))
    raw = Volume("raw.t", "/t", True, "content", (File("content", b"hi"),))
    assert found["all"].volumes == (Volume("workflow.w.w", "/w"), raw)
    assert found["own"].volumes == (Volume("workflow.w.w", "/w", part="part"), raw)
    assert found["bare"].volumes == ()


def test_a_container_set_is_a_graph(tmp_path: Path) -> None:
    main = (
        "containerSet:\n  volumeMounts: [{name: w, mountPath: /w}]\n  containers:\n"
        "  - {name: a, image: i}\n  - {name: b, image: i, dependencies: [a]}\n"
    )
    found = operators(tmp_path, workflow(main, spec="volumes: [{name: w, emptyDir: {}}]\n"))
    assert order(found) == {"a": (), "b": ("a",)}
    assert found["b"].volumes == (Volume("workflow.w.w", "/w"),)


def test_what_runs_no_container_is_left_out(tmp_path: Path) -> None:
    main = "steps:\n- - {name: wait, template: gate}\n- - {name: a, template: echo}\n"
    text = workflow(main, "  - {name: gate, suspend: {}}\n", ECHO, spec="onExit: echo\n")
    assert order(operators(tmp_path, text)) == {"echo": ()}
    assert [line.partition(": ")[2] for line in warnings(tmp_path, text)] == [
        'onExit of Workflow "w" is not followed here',
        'template "gate" is left out: a suspend template runs no container',
    ]


# ---------------------------------------------------------------- objects

SHARED = (
    "---\napiVersion: argoproj.io/v1alpha1\nkind: WorkflowTemplate\nmetadata: {name: lib}\nspec:\n  entrypoint: go\n"
    "  arguments: {parameters: [{name: p, value: theirs}]}\n"
    "  templates:\n  - {name: go, container: {image: '{{workflow.parameters.p}}'}}\n"
)


def test_templates_of_other_documents(tmp_path: Path) -> None:
    reference = (
        "apiVersion: argoproj.io/v1alpha1\nkind: CronWorkflow\nmetadata: {name: nightly}\nspec:\n  workflowSpec:\n"
        "    workflowTemplateRef: {name: lib}\n    arguments: {parameters: [{name: p, value: mine}]}\n"
    )
    assert [(e.name, e.image) for e in read(tmp_path, reference + SHARED).operators] == [("go", "mine:latest")]
    assert [(e.name, e.image) for e in read(tmp_path, SHARED.removeprefix("---\n")).operators] == [
        ("go", "theirs:latest")
    ]
    main = (
        "dag:\n  tasks:\n  - {name: a, templateRef: {name: lib, template: go}}\n"
        "  - {name: b, inline: {container: {image: j}}}\n"
    )
    text = workflow(main, spec="arguments: {parameters: [{name: p, value: ours}]}\n") + SHARED
    assert [(e.name, e.image) for e in read(tmp_path, text).operators] == [("go", "ours:latest"), ("b", "j:latest")]


def test_a_template_that_is_not_here_is_one_fault(tmp_path: Path) -> None:
    text = (
        "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nmetadata: {name: w}\nspec:\n  entrypoint: go\n"
        "  workflowTemplateRef: {name: lib}\n"
    )
    assert faults(tmp_path, text) == [("6:31", 'WorkflowTemplate "lib" is not in the file')]


def test_without_an_entrypoint_there_is_nothing_to_follow(tmp_path: Path) -> None:
    text = SHARED.removeprefix("---\n").replace("  entrypoint: go\n", "")
    assert [message for _, message in faults(tmp_path, text)] == ['WorkflowTemplate "lib" has no entrypoint']


def test_compiled_kubeflow_pipelines_are_named(tmp_path: Path) -> None:
    text = HEAD.replace("{generateName: w-}", "{name: w, annotations: {pipelines.kubeflow.org/kfp_sdk_version: '2'}}")
    ((_, message),) = faults(tmp_path, text)
    assert message == "this looks like a Kubeflow pipeline compiled to an Argo workflow, which cpost does not read"
