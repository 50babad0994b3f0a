"""Which containers are found in a file, by which names, and what they declare."""

from __future__ import annotations

import pytest

from cpost.definition import misspelt
from cpost.definition.effective import amounts, places
from cpost.definition.marks import read_source, source_of
from cpost.definition.sites import find_sites
from cpost.errors import DefinitionError
from cpost.model import ALL_GPUS, Resources, Rule

GI = 2**30


def _sites(text: str):
    return {site.name: site for site in find_sites(source_of(text.encode(), "f"))}


def _declared(text: str):
    return {name: amounts(site) for name, site in _sites(text).items()}


def _pod(path: str, name: str, containers: str) -> str:
    lead, kind = path.split("=")[0], path.split("=")[1]
    spec = containers
    for key in reversed(lead.split(".")):
        spec = f"{{{key}: {spec}}}"
    return f"apiVersion: v1\nkind: {kind}\nmetadata: {{name: {name}}}\n{spec[1:-1]}\n"


@pytest.mark.parametrize(
    "where",
    [
        "spec=Pod",
        "spec.template.spec=Job",
        "spec.template.spec=Deployment",
        "spec.template.spec=StatefulSet",
        "spec.template.spec=DaemonSet",
        "spec.template.spec=ReplicaSet",
        "spec.jobTemplate.spec.template.spec=CronJob",
    ],
)
def test_containers_of_every_kind_of_workload(where):
    text = _pod(where, "w", "{initContainers: [{name: i}], containers: [{name: a}, {name: b}]}")
    assert list(_sites(text)) == ["i", "a", "b"]


def test_equal_names_are_told_apart_by_object_then_kind():
    job = _pod("spec.template.spec=Job", "x", "{containers: [{name: main}, {name: only}]}")
    pod = _pod("spec=Pod", "x", "{containers: [{name: main}]}")
    other = _pod("spec=Pod", "y", "{containers: [{name: main}]}")
    assert list(_sites("---\n".join((job, pod, other)))) == ["job.x.main", "only", "pod.x.main", "y.main"]


def test_what_nothing_tells_apart_is_blocked():
    pod = _pod("spec=Pod", "x", "{containers: [{name: main}]}")
    sites = find_sites(source_of(f"{pod}---\n{pod}".encode(), "f"))
    assert [site.name for site in sites] == ["pod.x.main"] * 2
    assert all("same name" in site.blocked for site in sites)


def test_a_list_of_objects_and_other_kinds():
    text = """
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: PersistentVolumeClaim, spec: {resources: {requests: {storage: 1Gi}}}}
- {apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: "a b"}]}}
"""
    assert list(_sites(text)) == ["a-b"]


ARGO = """
apiVersion: argoproj.io/v1alpha1
kind: {kind}
metadata: {{generateName: hello-}}
spec:{lead}
    templateDefaults: {{container: {{resources: {{limits: {{memory: 1Gi}}}}}}}}
    templates:
    - name: work
      container: {{image: x}}
      sidecars: [{{name: proxy}}]
    - name: script
      script: {{image: x, source: "true"}}
    - name: both
      containerSet: {{containers: [{{name: one}}, {{name: work}}]}}
    - name: dag
      dag: {{tasks: [{{name: t1, template: work}}, {{name: t2, template: work}},
        {{name: t3, inline: {{container: {{image: y}}}}}}]}}
    - name: steps
      steps: [[{{name: s1, template: script}}], {{name: s2, template: script}}]
"""


@pytest.mark.parametrize(
    ("kind", "lead"),
    [
        ("Workflow", ""),
        ("WorkflowTemplate", ""),
        ("ClusterWorkflowTemplate", ""),
        ("CronWorkflow", "\n  workflowSpec:"),
    ],
)
def test_templates_of_argo(kind, lead):
    sites = _sites(ARGO.format(kind=kind, lead=lead))
    lower = kind.lower()
    assert list(sites) == [f"{lower}.hello.work", "proxy", "script", "one", f"{lower}.hello.both.work", "t3"]
    assert sites["script"].uses == ("s1", "s2")
    assert sites[f"{lower}.hello.work"].uses == ("t1", "t2")


def test_a_pod_spec_patch_blocks():
    text = ARGO.format(kind="Workflow", lead="\n    podSpecPatch: 'x'")
    assert all("podSpecPatch" in site.blocked for site in find_sites(source_of(text.encode(), "f")))
    defaults = ARGO.replace("templateDefaults: {{", "templateDefaults: {{podSpecPatch: 'x', ")
    assert all("podSpecPatch" in site.blocked for site in _sites(defaults.format(kind="Workflow", lead="")).values())


def test_declared_in_kubernetes():
    text = _pod(
        "spec=Pod",
        "p",
        "{containers: [{name: a, resources: {limits: {memory: 1Gi, nvidia.com/gpu: 2}, requests: {cpu: 250m}}}, "
        "{name: b, resources: {requests: {cpu: '{{x}}', memory: wrong}}}]}",
    )
    found = _declared(text)
    assert found["a"] == (Resources(250, GI, 2), Resources(None, GI, 2))
    assert found["b"] == (Resources(), Resources())


def test_declared_in_argo_falls_back_to_the_defaults():
    found = _declared(ARGO.format(kind="Workflow", lead=""))
    assert found["workflow.hello.work"][1] == Resources(None, GI)
    assert found["script"][1] == Resources()


def test_declared_in_compose():
    text = """
x-two: &two {count: 2, capabilities: [gpu]}
x-base: &base
  deploy: {resources: {limits: {cpus: "0.5", memory: 1g}, reservations: {memory: 512m, devices: [*two]}}}
services:
  a: {<<: *base, image: x}
  b: {image: x, mem_limit: 1g, mem_reservation: 512m, cpus: 0}
  c: {extends: b}
  d: {extends: {service: c}, gpus: all}
  e: {image: x, mem_limit: "${LIMIT}"}
  f: {extends: {service: a, file: other.yml}}
  g: {extends: nobody}
"""
    found = _declared(text)
    assert found["a"] == (Resources(None, GI // 2, 2), Resources(500, GI, 2))
    assert found["b"] == (Resources(None, GI // 2), Resources(None, GI))
    assert found["c"] == found["b"]
    assert found["d"] == (Resources(None, GI // 2, ALL_GPUS), Resources(None, GI, ALL_GPUS))
    assert found["e"] == (Resources(), Resources())
    assert "another file" in _sites(text)["f"].blocked
    assert "another file" in _sites(text)["g"].blocked


def test_gpus_of_all_devices_of_a_service_count_and_only_these():
    devices = "[{count: 1, capabilities: [gpu]}, {device_ids: ['3'], capabilities: [nvidia]}, {capabilities: [tpu]}]"
    text = f"services: {{a: {{image: x, deploy: {{resources: {{reservations: {{devices: {devices}}}}}}}}}}}"
    assert _declared(text)["a"][0].gpu_count == 2
    assert _declared(text.replace("tpu", "gpu"))["a"][0].gpu_count == ALL_GPUS


@pytest.mark.parametrize("pooled", ["{limits: {memory: 1Gi}}", "{requests: {cpu: 1}}"])
def test_what_a_pod_states_for_all_its_containers_blocks(pooled):
    text = _pod("spec=Pod", "p", "{resources: POOLED, containers: [{name: a}]}")
    assert "all its containers" in _sites(text.replace("POOLED", pooled))["a"].blocked
    assert _sites(text.replace("POOLED", "{}"))["a"].blocked == ""


def test_declared_in_clara():
    text = """
api-version: 0.4.0
operators:
- name: a
  requests: {cpu: 2, memory: 512, gpu: 1}
  services:
  - {name: trtis, requests: {memory: 1024}}
- {name: b, import: {path: b.yaml}}
"""
    found = _declared(text)
    assert found["a"] == (Resources(2000, 512 * 10**6, 1), Resources())
    assert found["a__trtis"] == (Resources(None, 1024 * 10**6), Resources())
    assert "imported from b.yaml" in _sites(text)["b"].blocked


def test_a_container_taken_from_elsewhere_is_blocked():
    assert "alias" in _sites("x: &s {image: i}\nservices: {a: *s}\n")["a"].blocked


@pytest.mark.parametrize("text", ["", "a: 1", "[1]", "apiVersion: v1\nkind: Service\nspec: {}\n", "cwlVersion: v1.2"])
def test_a_file_without_containers(text):
    with pytest.raises(DefinitionError, match="no container"):
        _sites(text)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a: {{ .Values.x }}", "key"),
        (b"a: [", "not valid YAML"),
        (b"a: \xff", "not valid UTF-8"),
        (b"a: *b", "no anchor"),
        (b"a: &b 1\n---\na: *b", "no anchor"),
        (b"a: &b [*b]", "contains itself"),
        (b"[" * 60, "deeper"),
        (b"a: &a " + b"[" * 40 + b"]" * 40 + b"\nb: " + b"[" * 40 + b"*a" + b"]" * 40, "deeper"),
        (b"a: &a [x,x,x,x,x,x,x,x,x,x]\n" + b"".join(
            b"%c: &%c [%s]\n" % (98 + i, 98 + i, b",".join([b"*%c" % (97 + i)] * 10)) for i in range(7)
        ), "more than"),
    ],
)  # fmt: skip
def test_what_cannot_be_read(data, message):
    with pytest.raises(DefinitionError, match=message):
        source_of(data, "f")


def test_what_is_no_file(tmp_path):
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(DefinitionError):
            read_source(path)
    big = tmp_path / "big"
    big.write_bytes(b"#" * (1024 * 1024 + 1))
    with pytest.raises(DefinitionError, match="too large"):
        read_source(big)


# ---------------------------------------------------------------- misspelt keys

K8S = "apiVersion: v1\nkind: Pod\nmetadata: {name: w}\nspec: {containers: [{name: a, %s}]}\n"
COMPOSE = "services:\n  a: {image: i, %s}\n"
CLARA = "operators:\n- {name: a, %s}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (CLARA % "requests: {cpu: 1, memroy: 2}", 'unknown key "memroy" in requests: did you mean "memory"?'),
        (CLARA % "request: {cpu: 1}", 'unknown key "request": did you mean "requests"?'),
        (K8S % "resource: {}", 'unknown key "resource": did you mean "resources"?'),
        (K8S % "resources: {request: {}}", 'unknown key "request" in resources: did you mean "requests"?'),
        (
            K8S % "resources: {limits: {Memory: 1Gi}}",
            'unknown key "Memory" in resources.limits: did you mean "memory"?',
        ),
        (COMPOSE % "mem_limits: 5m", 'unknown key "mem_limits": did you mean "mem_limit"?'),
        (
            COMPOSE % "deploy: {resources: {limit: {}}}",
            'unknown key "limit" in deploy.resources: did you mean "limits"?',
        ),
        (
            COMPOSE % "deploy: {resources: {reservations: {cpu: 1}}}",
            'unknown key "cpu" in deploy.resources.reservations: did you mean "cpus"?',
        ),
    ],
)
def test_a_key_that_is_nearly_one_of_an_amount_is_told(text, said):
    ((found, at),) = misspelt.keys(_sites(text)["a"])
    assert found == said
    assert text[at:].startswith(found.split('"')[1])


@pytest.mark.parametrize(
    "text",
    [
        CLARA % "requests: {cpu: 1, memory: 2, gpu: 1}, services: []",
        K8S % "resources: {requests: {cpu: 1, example.com/cpus: 1, hugepages-2Mi: 4}, claims: []}, resizePolicy: []",
        COMPOSE % "memswap_limit: 5m, mem_swappiness: 1, cpu_shares: 2, cpuset: '0', x-cpus: 1",
        COMPOSE % "deploy: {resources: {limits: {cpus: '1', memory: 1M, pids: 5}, reservations: {devices: []}}}",
    ],
)
def test_keys_that_are_right_are_not(text):
    assert list(misspelt.keys(_sites(text)["a"])) == []


def test_each_amount_has_its_place():
    text = K8S % "resources: {limits: {cpu: 7, memory: 8}, requests: {cpu: 5}}"
    assert {rule: text[at] for rule, at in places(_sites(text)["a"]).items()} == {
        Rule.CPU_REQUEST: "5",
        Rule.MEMORY_REQUEST: "8",
        Rule.CPU_LIMIT: "7",
        Rule.MEMORY_LIMIT: "8",
    }
    text = COMPOSE % "mem_limit: 3, deploy: {resources: {limits: {cpus: '4'}}}"
    assert {rule: text[at] for rule, at in places(_sites(text)["a"]).items()} == {
        Rule.CPU_LIMIT: "'",
        Rule.MEMORY_LIMIT: "3",
    }
