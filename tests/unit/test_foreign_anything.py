"""Whatever stands in a file of a foreign format: it is read, or refused with a place and a remedy, and soon."""

from __future__ import annotations

import time
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import test_argo
import test_compose
import test_kubernetes
import yaml
from foreign import faults
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cpost.definition import load
from cpost.errors import DefinitionError

ARGO = """\
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {name: w, labels: {a: b}}
spec:
  entrypoint: main
  arguments: {parameters: [{name: p, value: v}], artifacts: [{name: r, raw: {data: x}}]}
  volumes: [{name: d, emptyDir: {}}]
  volumeClaimTemplates: [{metadata: {name: c}}]
  templateDefaults: {container: {env: [{name: E, value: "{{workflow.uid}}"}], volumeMounts: [{name: d, mountPath: /t}]}}
  templates:
  - name: main
    dag:
      target: a b c e f
      tasks:
      - {name: a, template: leaf, arguments: {parameters: [{name: q, value: "{{workflow.parameters.p}}"}]}}
      - {name: b, template: deep, depends: a && !a.Failed, when: "{{workflow.parameters.p}} == v"}
      - {name: c, template: set, dependencies: [a], withItems: [1, {k: 2}]}
      - {name: e, template: leaf, withSequence: {count: "2", format: "%03d"}, arguments: {artifacts: [{name: i, from: "{{tasks.a.outputs.artifacts.o}}"}]}}
      - {name: f, template: deep, withParam: '[1, {"k": "v"}]', when: "(1 == 1.0) && !('{{workflow.parameters.p}}' != x)"}
  - name: leaf
    daemon: "false"
    securityContext: {runAsUser: 5}
    inputs: {parameters: [{name: q, default: z}], artifacts: [{name: i, path: /i, optional: "true"}]}
    outputs: {artifacts: [{name: o, path: /o}], parameters: [{name: t, valueFrom: {path: /t}}]}
    initContainers: [{name: n, image: i}]
    script: {image: i, command: [sh], source: "{{inputs.parameters.q}}", volumeMounts: [{name: d, mountPath: /d}]}
  - {name: deep, steps: [[{name: x, template: leaf}], [{name: y, inline: {container: {image: i}}}]]}
  - {name: set, containerSet: {volumeMounts: [{name: c, mountPath: /c}], containers: [{name: m, image: i}, {name: l, image: i, dependencies: [m]}]}}
"""  # noqa: E501
COMPOSE = (
    test_compose.STACK
    + """\
  all:
    image: i
    command: a b
    environment: {A: 1}
    env_file: [{path: x, required: false}]
    volumes: ["./x:/x", {type: bind, source: ., target: /y}, /z, "v:/v:ro"]
    configs: [{source: c, target: /c}]
    secrets: [c]
    tmpfs: [/t]
    deploy: {resources: {limits: {cpus: 1, memory: 1g}, reservations: {devices: [{capabilities: [gpu], count: 1}]}}}
    extends: {service: cache}
    profiles: [""]
volumes: {v: {external: false}}
configs: {c: {content: x}}
secrets: {c: {environment: HOME}}
"""
)
SAMPLES = [list(yaml.safe_load_all(text)) for text in (dedent(test_kubernetes.WHOLE), ARGO, COMPOSE)]
STRANGE = st.sampled_from(
    [None, "", "x", "-1", "${X", "{{a}}", "{{item}}", "{{inputs.parameters.q}}", "/", "..", "/../x", "1e99", "\x7f",
     [], ["x"], [None], [[]], [{}], {}, {"name": "x"}, {"x": ["y"]}, 0, True, "a" * 300]
)  # fmt: skip


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path, *(place for key, child in children for place in places(child, (*path, key)))]


def replaced(node: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    copy = dict(node) if isinstance(node, dict) else list(node)
    copy[path[0]] = replaced(copy[path[0]], path[1:], value)
    return copy


@pytest.mark.parametrize("sample", range(len(SAMPLES)))
@given(data=st.data())
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_anything_anywhere(tmp_path: Path, sample: int, data: st.DataObject) -> None:
    documents: Any = SAMPLES[sample]
    for _ in range(data.draw(st.integers(1, 3))):
        documents = replaced(documents, data.draw(st.sampled_from(places(documents)[1:])), data.draw(STRANGE))
    file = tmp_path / "p.yaml"
    file.write_text(yaml.safe_dump_all(documents))
    try:
        pipeline = load(file)
    except DefinitionError as error:
        assert len(str(error)) < 1000  # noqa: PT017 - most of the files are not valid
        return
    names = {each.name for each in pipeline.operators}
    assert len(names) == len(pipeline.operators)
    for each in pipeline.operators:
        assert names.issuperset((*each.upstream, *each.after))
        assert not each.name.startswith(".")


@pytest.mark.parametrize("sample", range(len(SAMPLES)))
def test_the_samples_themselves_are_read(tmp_path: Path, sample: int) -> None:
    (tmp_path / "p.yaml").write_text(yaml.safe_dump_all(SAMPLES[sample]))
    assert load(tmp_path / "p.yaml").operators


@pytest.mark.parametrize(
    "main",
    [
        "steps: [[{name: a, template: echo, withSequence: {count: '1000000000'}}]]\n",
        "steps: [[{name: a, template: t1}, {name: b, template: t1}]]\n",
    ],
)
def test_a_workflow_that_unfolds_without_end_is_refused_soon(tmp_path: Path, main: str) -> None:
    doubling = [
        f"  - {{name: t{n}, steps: [[{{name: a, template: t{n + 1}}}, {{name: b, template: t{n + 1}}}]]}}\n"
        for n in range(1, 18)
    ]
    text = test_argo.workflow(main, *doubling, "  - {name: t18, suspend: {}}\n", test_argo.ECHO)
    start = time.process_time()
    assert any("more than 500" in message for _, message in faults(tmp_path, text))
    assert time.process_time() - start < 5
