"""Argo workflows: what its variables stand for, which conditions hold, how often a loop runs, what defaults add."""

from __future__ import annotations

from pathlib import Path

import pytest
from foreign import faults, operators, read, reasons, warnings
from hypothesis import given
from hypothesis import strategies as st
from test_argo import ECHO, SHARED, workflow

from cpost.definition.argo_conditions import depends, holds
from cpost.definition.argo_scope import Unknown


def said(folder: Path, text: str) -> list[str]:
    """Return the warnings less their places."""
    return [line.partition(": ")[2] for line in warnings(folder, text)]


def echoing(value: str, more: str = "", name: str = "a") -> str:
    """A step that prints a value."""
    arguments = f"arguments: {{parameters: [{{name: text, value: '{value}'}}]}}"
    return f"{{name: {name}, template: echo, {more}{arguments}}}"


def printed(folder: Path, value: str, spec: str = "") -> tuple[str, ...]:
    """What a step's command is where it prints `value`, or why it cannot be run."""
    (found,) = read(folder, workflow(f"steps: [[{echoing(value)}]]\n", spec=spec)).operators
    return tuple(reasons(found)) or found.command


# ---------------------------------------------------------------- variables

PARAMETERS = (
    "arguments:\n  parameters:\n  - {name: q, value: Q}\n  - {name: n, value: '{{workflow.name}}-x'}\n"
    "  - {name: twice, value: '{{workflow.parameters.n}}'}\n  - {name: later, value: '{{workflow.duration}}'}\n"
)


def test_defaults_are_filled_in(tmp_path: Path) -> None:
    main = (
        "inputs: {parameters: [{name: a, value: '{{workflow.parameters.q}}'}, "
        "{name: b, default: '<{{workflow.name}}>'}, {name: c, valueFrom: {default: '{{workflow.parameters.n}}'}}]}\n"
        "container: {image: i, args: ['{{inputs.parameters.a}}', '{{inputs.parameters.b}}',"
        " '{{inputs.parameters.c}}']}\n"
    )
    assert operators(tmp_path, workflow(main, spec=PARAMETERS))["main"].command == ("Q", "<w>", "w-x")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("{{workflow.parameters.n}}", "w-x"),
        ("{{workflow.parameters.twice}}", '"workflow.parameters.n" holds {{...}} itself'),
        ("{{workflow.parameters.later}}", '"workflow.duration" is known only in a run of the workflow'),
        ("{{workflow.mainEntrypoint}}", "main"),
        ("{{workflow.priority}}", "0"),
        ("{{workflow.scheduledTime}}", '"workflow.scheduledTime" is known only in a run of the workflow'),
        ("{{workflow.labels.given-later}}", '"workflow.labels.given-later" is known only in a run of the workflow'),
        ("{{workflow.outputs.parameters.x}}", '"workflow.outputs.parameters.x" is known only in a run of the workflow'),
        ("{{cronworkflow.name}}", '"cronworkflow.name" is known only in a run of the workflow'),
        ("{{workflow.parameters.json}}", '"workflow.parameters.json" is not put together here'),
        ("{{workflow.labels.json}}", '"workflow.labels.json" is not put together here'),
        ("{{inputs.parameters}}", '"inputs.parameters" is not put together here'),
    ],
)
def test_what_a_variable_is_or_why_it_is_not_known(tmp_path: Path, value: str, expected: str) -> None:
    assert printed(tmp_path, value, PARAMETERS) == (expected,)


@pytest.mark.parametrize("name", ["{{workflow.parameters}}", "{{workflow.parameters.json}}"])
@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        (
            "{name: b, value: '<é>'}, {name: a, value: 1}",
            '[{"name":"b","value":"\\u003cé\\u003e"},{"name":"a","value":"1"}]',
        ),
        ("{name: b, value: x, description: of b}", '"workflow.parameters" is not put together here'),
        ("{name: b, value: '{{workflow.duration}}'}", '"workflow.parameters" is not put together here'),
    ],
)
def test_all_parameters_in_one_text(tmp_path: Path, name: str, parameters: str, expected: str) -> None:
    (found,) = printed(tmp_path, name, f"arguments: {{parameters: [{parameters}]}}\n")
    assert found.replace(".json", "") == expected


def test_a_parameter_of_a_template_that_is_referred_to_is_the_workflows_where_it_has_one(tmp_path: Path) -> None:
    text = (
        "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nmetadata: {name: w}\nspec:\n"
        "  workflowTemplateRef: {name: t}\n"
        "  arguments: {parameters: [{name: a, value: ours}, {name: b}]}\n"
        "---\napiVersion: argoproj.io/v1alpha1\nkind: WorkflowTemplate\nmetadata: {name: t}\nspec:\n  entrypoint: m\n"
        "  arguments: {parameters: [{name: b, value: theirs}, {name: a, value: theirs}]}\n  templates:\n"
        "  - {name: m, container: {image: i, args: ['{{workflow.parameters.a}} {{workflow.parameters.b}}',"
        " '{{workflow.parameters}}']}}\n"
    )
    assert operators(tmp_path, text)["m"].command == (
        "ours theirs",
        '[{"name":"a","value":"ours"},{"name":"b","value":"theirs"}]',
    )


def test_what_the_workflow_says_of_itself_is_known(tmp_path: Path) -> None:
    text = (
        "apiVersion: argoproj.io/v1alpha1\nkind: CronWorkflow\nmetadata: {name: c, namespace: n}\nspec:\n"
        "  workflowSpec:\n    entrypoint: main\n    priority: 5\n    templates:\n"
        "    - {name: main, container: {image: i, args: ['{{cronworkflow.name}} {{workflow.namespace}} "
        "{{workflow.priority}}']}}\n"
    )
    assert operators(tmp_path, text)["main"].command == ("c n 5",)


def test_a_misspelt_variable_is_a_fault(tmp_path: Path) -> None:
    text = workflow(f"steps: [[{echoing('{{workflow.parameters.Q}}')}]]\n", spec=PARAMETERS)
    assert [message for _, message in faults(tmp_path, text)] == ['nothing is called "workflow.parameters.Q" here']


# ---------------------------------------------------------------- conditions


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("true", True),
        ("False", False),
        ("", True),
        ("a == a", True),
        ("a == b", False),
        ("(a == b)", False),
        ("(true == true)", True),
        ("((1 == 1))", True),
        ("!(a == b)", True),
        ("!true", False),
        ("!!(1 == 1)", None),
        ("!true == false", None),
        ("!false && true", True),
        ("1 == 1.0", True),
        ("-1 == -1.0", True),
        ("10 > 9", True),
        ("10 <= 9", False),
        ("'a b' == \"a b\"", True),
        ("'10' != '10.0'", True),
        ("'' == ''", True),
        ("one != 1", True),
        ("a == b || 1 == 1", True),
        ("a == b && 1 == 1", False),
        ("a == b || a == c && a == a", False),
        ("false && x-y", None),
        ("'1' == 1", None),
        ("'true' == true", None),
        ("1 + 1 == 2", None),
        ("1+1 == 2", None),
        ("a-b == a-b", None),
        ("!a == b", None),
        ("a =~ b", None),
        ("a in (a, b)", None),
        ("a < b", None),
        ("'10' > '9'", None),
        ("== a", None),
        ("a ==", None),
        ("(a == a", None),
        ("a == a)", None),
        ("a", None),
        ("'it''s' == 'its'", None),
        ("(" * 1000 + "true" + ")" * 1000, None),
        ("!" * 5000 + "(true)", None),
    ],
)
def test_whether_a_condition_holds(condition: str, expected: bool | None) -> None:
    assert holds(condition) is expected


def test_what_is_not_known_does_not_hold_or_fail() -> None:
    assert holds(Unknown("later")) is None


@given(st.text(alphabet="ab1.&|!()=<>'\" -", max_size=14))
def test_any_condition_is_worked_out_or_not_known(text: str) -> None:
    found = holds(text)
    assert found in (True, False, None)
    if found is not None and text.strip():
        assert holds(f"({text})") is found
        assert holds(f"!({text})") is not found


def test_brackets_without_end_are_no_condition() -> None:
    assert depends("(" * 1000 + "a" + ")" * 1000) is None


def test_a_step_whose_condition_is_not_worked_out_runs(tmp_path: Path) -> None:
    main = "steps: [[{name: a, template: echo, when: 'x =~ y'}, {name: b, template: echo, when: '(1 == 2)'}]]\n"
    assert list(operators(tmp_path, workflow(main))) == ["echo"]
    assert said(tmp_path, workflow(main)) == [
        'whether step "a" runs is not worked out here: here it does',
        'step "b" is left out: its condition does not hold',
    ]


# ---------------------------------------------------------------- loops


def test_a_list_in_the_file_is_looped_over(tmp_path: Path) -> None:
    items = '["a", {"x": "b", "y": [1, true]}, 7, null]'
    spec = f"arguments: {{parameters: [{{name: items, value: '{items}'}}]}}\n"
    loop = 'withParam: "{{workflow.parameters.items}}", '
    found = operators(tmp_path, workflow(f"steps: [[{echoing('{{item}}', loop)}]]\n", spec=spec))
    assert {name: each.command for name, each in found.items()} == {
        "echo.a-0": ("a",), "echo.a-1": ('{"x":"b","y":[1,true]}',), "echo.a-2": ("7",), "echo.a-3": ("null",),
    }  # fmt: skip
    keys = workflow(
        f"steps: [[{echoing('{{item.x}}', loop)}]]\n", spec=spec.replace('"a", ', "").replace(", 7, null", "")
    )
    assert operators(tmp_path, keys)["echo"].command == ("b",)


@pytest.mark.parametrize("value", ["{{item}}", "{{item.x}}"])
@pytest.mark.parametrize(
    "loop", ["withParam: '{{steps.a.outputs.result}}', ", "withSequence: {count: '{{steps.a.outputs.result}}'}, "]
)
def test_a_list_that_a_task_writes_is_one_operator(tmp_path: Path, loop: str, value: str) -> None:
    main = f"steps:\n- [{{name: a, template: echo}}]\n- [{echoing(value, loop, 'b')}, {echoing('x', loop, 'c')}]\n"
    found = operators(tmp_path, workflow(main))
    assert list(found) == ["echo.a", "echo.b", "echo.c"]
    assert len(reasons(found["echo.b"])) == 1
    assert "known only in a run" in reasons(found["echo.b"])[0]
    assert (reasons(found["echo.c"]), found["echo.c"].command) == ([], ("x",))
    assert [f'how often step "{name}" runs is known only in a run: here it does once' for name in "bc"] == said(
        tmp_path, workflow(main)
    )


@pytest.mark.parametrize("loop", ["withParam: '[]'", "withItems: []", "withSequence: {count: 0}"])
def test_a_loop_over_nothing_is_said_to_be_left_out(tmp_path: Path, loop: str) -> None:
    text = workflow(f"steps: [[{{name: a, template: echo}}, {{name: b, template: echo, {loop}}}]]\n")
    assert list(operators(tmp_path, text)) == ["echo"]
    assert said(tmp_path, text) == ['step "b" is left out: there is nothing that it loops over']


def test_a_misspelt_part_of_an_item_is_a_fault(tmp_path: Path) -> None:
    main = f"steps: [[{echoing('{{item.K}}', 'withItems: [{k: v}], ')}]]\n"
    assert [message for _, message in faults(tmp_path, workflow(main))] == ['nothing is called "item.K" here']


@pytest.mark.parametrize("items", ["x", '{"a": 1}', "[1", "[" * 2000, "1" * 5000])
def test_a_list_that_is_none_is_a_fault(tmp_path: Path, items: str) -> None:
    found = faults(tmp_path, workflow(f"steps: [[{{name: a, template: echo, withParam: '{items}'}}]]\n"))
    assert any("loops over is no JSON list" in message for _, message in found)


def test_items_that_no_program_can_be_given_are_a_reason_against(tmp_path: Path) -> None:
    loop = r"""withParam: '["\u0000", "\ud800"]', """
    found = operators(tmp_path, workflow(f"steps: [[{echoing('{{item}}', loop)}]]\n"))
    assert [reasons(each) for each in found.values()] == [["an item holds what no program can be given"]] * 2


@pytest.mark.parametrize(
    ("sequence", "expected"),
    [
        ("start: 9, end: 11, format: 't%03X'", ["t009", "t00A", "t00B"]),
        ("start: 2, end: 1", ["2", "1"]),
        ("count: 1, format: '%v'", ["0"]),
        ("count: 1, format: '100%% %5d|'", ["100%     0|"]),
        ("start: -1, count: 1, format: '%+d'", ["-1"]),
    ],
)
def test_numbers_have_the_form_asked_for(tmp_path: Path, sequence: str, expected: list[str]) -> None:
    loop = f"withSequence: {{{sequence}}}, "
    main = f"steps: [[{echoing('{{item}}', loop)}]]\n"
    assert [each.command[0] for each in read(tmp_path, workflow(main)).operators] == expected


@pytest.mark.parametrize("form", ["%s", "%d %d", "%", "%9999d", "x"])
def test_a_form_that_is_not_known_is_a_reason_against(tmp_path: Path, form: str) -> None:
    loop = f'withSequence: {{count: 1, format: "{form}"}}, '
    main = f"steps: [[{echoing('{{item}}', loop)}]]\n"
    (found,) = read(tmp_path, workflow(main)).operators
    assert reasons(found) == [f'numbers of the form "{form}" are not printed here']


@pytest.mark.parametrize("count", ["--5", "9" * 5000, "x"])
def test_a_count_that_is_none_is_a_fault(tmp_path: Path, count: str) -> None:
    main = f"steps: [[{{name: a, template: echo, withSequence: {{count: '{count}'}}}}]]\n"
    assert [message for _, message in faults(tmp_path, workflow(main))] == ['how often step "a" runs is not known']


# ---------------------------------------------------------------- what a workflow says for all templates

DEFAULTS = (
    "templateDefaults:\n  podSpecPatch: '{}'\n  initContainers: [{name: first, image: j}]\n"
    "  script: {image: other}\n"
    "  container:\n    image: theirs\n    env: [{name: A, value: their}, {name: B, value: '{{workflow.name}}'}]\n"
    "    resources: {requests: {memory: 1Gi, cpu: 1}}\n"
)


def test_defaults_of_templates_are_merged(tmp_path: Path) -> None:
    main = (
        "container: {image: mine, env: [{name: A, value: own}, {name: C, value: c}], args: null, "
        "resources: {requests: {cpu: 2}}}\n"
    )
    text = workflow(main, spec=DEFAULTS)
    found = operators(tmp_path, text)
    assert (list(found), found["main"].after, found["main"].site) == (["first", "main"], ("first",), "main")
    assert found["main"].image == "mine:latest"
    assert found["main"].env == (("A", "own"), ("B", "w"), ("C", "c"))
    assert (found["main"].requests.memory_bytes, found["main"].requests.cpu_millicores) == (2**30, 2000)
    assert said(tmp_path, text) == ['podSpecPatch of template "main" is not applied here']


def test_defaults_of_a_template_that_is_referred_to_count(tmp_path: Path) -> None:
    reference = (
        "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nmetadata: {name: w}\nspec:\n"
        "  workflowTemplateRef: {name: lib}\n"
    )
    shared = SHARED + "  securityContext: {runAsUser: 7}\n  podSpecPatch: x\n"
    shared += "  templateDefaults: {container: {resources: {limits: {memory: 1Gi}}}}\n"
    text = reference + shared
    (found,) = read(tmp_path, text).operators
    assert (found.limits.memory_bytes, found.user) == (2**30, "7")
    assert said(tmp_path, text) == ['podSpecPatch of Workflow "w" is not followed here']


def test_a_templates_own_user_is_in_the_place_of_the_workflows(tmp_path: Path) -> None:
    main = "steps: [[{name: a, template: own}, {name: b, template: echo}]]\n"
    own = "  - {name: own, securityContext: {runAsUser: '{{workflow.parameters.u}}'}, container: {image: i}}\n"
    spec = "securityContext: {runAsUser: 7, runAsGroup: 8}\narguments: {parameters: [{name: u, value: 5}]}\n"
    found = operators(tmp_path, workflow(main, own, ECHO, spec=spec))
    assert {name: each.user for name, each in found.items()} == {"own": "5", "echo": "7:8"}


@pytest.mark.parametrize("target", ["A", "A C", "{{workflow.parameters.t}}"])
def test_only_the_way_to_a_target_is_run(tmp_path: Path, target: str) -> None:
    main = (
        f"dag:\n  target: '{target}'\n  tasks:\n  - {{name: A, template: echo, dependencies: [C]}}\n"
        "  - {name: B, template: echo, dependencies: [A]}\n  - {name: C, template: echo}\n"
    )
    text = workflow(main, spec="arguments: {parameters: [{name: t, value: A}]}\n")
    assert list(operators(tmp_path, text)) == ["echo.C", "echo.A"]
    assert said(tmp_path, text) == ['task "B" is left out: it is not on the way to the dag\'s target']


def test_targets_that_are_not_there_or_not_known(tmp_path: Path) -> None:
    main = "dag: {target: 'A X', tasks: [{name: A, template: echo}]}\n"
    assert [message for _, message in faults(tmp_path, workflow(main))] == ['no task is called "X"']
    text = workflow(main.replace("A X", "{{workflow.duration}}"))
    assert list(operators(tmp_path, text)) == ["echo"]
    assert said(tmp_path, text) == [
        'which tasks are the target of the dag of template "main" is known only in a run: here all are run'
    ]


def test_what_a_workflow_asks_for_and_does_not_have_here_is_said(tmp_path: Path) -> None:
    main = "hostAliases: [{ip: 1.2.3.4}]\ncontainer: {image: i}\n"
    text = workflow(main, spec="hostNetwork: true\nsecurityContext: {fsGroup: 1}\n")
    assert said(tmp_path, text) == [
        'hostNetwork of Workflow "w" is not given to it here',
        'fsGroup of Workflow "w" is not set here',
        'hostAliases of template "main" are not known here',
    ]
    hooked = "steps: [[{name: a, template: echo, onExit: echo, hooks: {x: {template: echo}}}]]\n"
    assert said(tmp_path, workflow(hooked)) == [
        'onExit of step "a" is not followed here', 'hooks of step "a" is not followed here',
    ]  # fmt: skip


# ---------------------------------------------------------------- other objects beside a workflow


@pytest.mark.parametrize("first", ["x", "y"])
def test_a_template_of_the_workflows_own_namespace_is_meant(tmp_path: Path, first: str) -> None:
    head = "apiVersion: argoproj.io/v1alpha1\nkind: {}\nmetadata: {{name: t, namespace: {}}}\nspec:\n"
    other = {"x": "y", "y": "x"}[first]
    text = head.format("Workflow", "x") + "  workflowTemplateRef: {name: t}\n"
    for namespace in (first, other):
        text += "---\n" + head.format("WorkflowTemplate", namespace)
        text += f"  entrypoint: m\n  templates: [{{name: m, container: {{image: in-{namespace}}}}}]\n"
    assert [each.image for each in read(tmp_path, text).operators] == ["in-x:latest"]


SENSOR = (
    "apiVersion: argoproj.io/v1alpha1\nkind: Sensor\nmetadata: {name: s}\n"
    "spec: {triggers: [{template: {container: {image: x}}}]}\n"
)


@pytest.mark.parametrize("other", [SENSOR, "jobs: {}\non: push\n"])
@pytest.mark.parametrize("first", [True, False])
def test_what_is_no_workflow_is_left_out_beside_one(tmp_path: Path, other: str, first: bool) -> None:
    main = workflow("container: {image: i}\n")
    text = f"{other}---\n{main}" if first else f"{main}---\n{other}"
    assert list(operators(tmp_path, text)) == ["main"]
    what = "an Argo Sensor" if other is SENSOR else "a GitHub Actions workflow"
    assert said(tmp_path, text) == [f"{what} is left out: cpost does not read it"]


def test_what_is_no_workflow_alone_is_refused(tmp_path: Path) -> None:
    assert [message for _, message in faults(tmp_path, SENSOR)] == [
        "this looks like an Argo Sensor, which cpost does not read"
    ]


@pytest.mark.parametrize(
    "text",
    [
        workflow("steps: [[{name: .., inline: {container: {image: i}}}]]\n"),
        workflow("dag: {tasks: [{name: .., inline: {container: {image: i}}}]}\n"),
        workflow("container: {image: i}\ninitContainers: [{name: .., image: i}]\n"),
        workflow("containerSet: {containers: [{name: .., image: i}]}\n"),
        workflow("container: {image: i}\n")
        .replace("name: main", "name: ..")
        .replace("entrypoint: main", "entrypoint: .."),
        workflow("container: {image: i}\n").replace("generateName: w-", "name: .."),
        workflow("container: {image: i}\n").replace("generateName: w-", "name: w, namespace: .."),
    ],
)
def test_names_that_no_file_can_have_are_faults(tmp_path: Path, text: str) -> None:
    found = faults(tmp_path, text)
    assert any('".." cannot be used as a name' in message for _, message in found), found
