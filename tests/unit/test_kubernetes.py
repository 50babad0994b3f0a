"""Kubernetes manifests: which containers there are, what each is given, what is refused and where."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path
from textwrap import dedent

import pytest
from foreign import faults, operators, read, reasons, warnings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cpost.model import File, Format, Input, Resources, Volume

MIB = 2**20

WHOLE = """\
    apiVersion: v1
    kind: ConfigMap
    metadata: {name: settings}
    data: {mode: fast, job.conf: "a = 1\\n"}
    ---
    apiVersion: v1
    kind: Secret
    metadata: {name: keys}
    data: {token: c2VzYW1l}
    stringData: {user: ali}
    ---
    apiVersion: batch/v1
    kind: Job
    metadata: {name: train, labels: {team: mri}}
    spec:
      template:
        metadata: {labels: {app: train}}
        spec:
          securityContext: {runAsUser: 1000}
          initContainers:
          - {name: fetch, image: "busybox:1.36", command: [sh, -c, "true"], volumeMounts: [{name: data, mountPath: /d}]}
          - {name: unpack, image: busybox}
          containers:
          - name: main
            image: registry.example:5000/team/train@sha256:{0}
            command: [python, train.py]
            args: ["--mode=$(MODE)", "--cost=$$(MODE)", "--not=$(NOT_THERE)"]
            workingDir: /app
            env:
            - {name: MODE, valueFrom: {configMapKeyRef: {name: settings, key: mode}}}
            - {name: TOKEN, valueFrom: {secretKeyRef: {name: keys, key: token}}}
            - {name: BOTH, value: "$(MODE)-$(LATER)"}
            - {name: LATER, value: 7}
            - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
            - {name: APP, valueFrom: {fieldRef: {fieldPath: "metadata.labels['app']"}}}
            - {name: MAYBE, valueFrom: {configMapKeyRef: {name: none, key: x, optional: true}}}
            envFrom: [{prefix: K_, secretRef: {name: keys}}]
            securityContext: {runAsGroup: 50}
            resources:
              limits: {cpu: 1500m, memory: 1Gi, nvidia.com/gpu: 2}
              requests: {memory: 500M}
            volumeMounts:
            - {name: data, mountPath: /data, subPath: a/b}
            - {name: shm, mountPath: /dev/shm}
            - {name: conf, mountPath: /etc/job.conf, subPath: job.conf}
            - {name: conf, mountPath: /etc/all}
            - {name: secret, mountPath: /keys}
          volumes:
          - {name: data, emptyDir: {}}
          - {name: shm, emptyDir: {medium: Memory, sizeLimit: 256Mi}}
          - {name: conf, configMap: {name: settings}}
          - {name: secret, secret: {secretName: keys, defaultMode: 0400, items: [{key: token, path: my/token}]}}
    """.replace("{0}", "a" * 64)


def pod(container: str, more: str = "") -> str:
    return f"apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec:\n  containers:\n  - {container}\n{more}"


def test_everything_of_a_container_is_read(tmp_path: Path) -> None:
    pipeline = read(tmp_path, WHOLE)
    assert (pipeline.name, pipeline.api_version, pipeline.format) == ("train", "batch/v1", Format.KUBERNETES)
    fetch, unpack, main = pipeline.operators
    assert (fetch.image, unpack.image) == ("busybox:1.36", "busybox:latest")
    assert main.image == "registry.example:5000/team/train@sha256:" + "a" * 64
    assert (main.entrypoint, main.workdir, main.user) == (("python", "train.py"), "/app", "1000:50")
    assert main.command == ("--mode=fast", "--cost=$(MODE)", "--not=$(NOT_THERE)")
    assert dict(main.env) == {
        "K_token": "sesame", "K_user": "ali", "MODE": "fast", "TOKEN": "sesame", "BOTH": "fast-$(LATER)", "LATER": "7",
        "POD": "train", "APP": "train",
    }  # fmt: skip
    assert main.requests == Resources(1500, 500 * 10**6, 2)  # what has a limit only requests its limit
    assert main.limits == Resources(1500, 2**30, 2)
    assert main.shm_bytes == 256 * MIB
    files = (File("mode", b"fast"), File("job.conf", b"a = 1\n"))
    assert main.volumes == (
        Volume("job.train.data", "/data", part="a/b"),
        Volume("job.train.conf", "/etc/job.conf", True, "job.conf", files),
        Volume("job.train.conf", "/etc/all", True, "", files),
        Volume("job.train.secret", "/keys", True, "", (File("my/token", b"sesame", 0o444),)),
    )
    assert main.inputs == (Input("/input"),)
    assert (main.unsupported, main.long_running) == ((), False)
    assert main.origin is not None
    assert main.origin.line == 24


def test_init_containers_come_one_after_another(tmp_path: Path) -> None:
    assert [(each.name, each.after) for each in read(tmp_path, WHOLE).operators] == [
        ("fetch", ()), ("unpack", ("fetch",)), ("main", ("unpack",)),
    ]  # fmt: skip
    assert warnings(tmp_path, WHOLE) == []


def test_a_sidecar_runs_beside_those_after_it(tmp_path: Path) -> None:
    text = pod(
        "{name: main, image: i}",
        "  initContainers:\n  - {name: first, image: i}\n  - {name: side, image: s, restartPolicy: Always}\n"
        "  - {name: last, image: i}\n",
    )
    assert [
        (each.name, each.after, [beside.name for beside in each.companions]) for each in read(tmp_path, text).operators
    ] == [("first", (), []), ("last", ("first",), ["side"]), ("main", ("last", "first"), ["side"])]
    assert not any(each.long_running for each in read(tmp_path, text).operators)
    assert warnings(tmp_path, text) == [
        '9:43: container "side" runs beside those after it, but does not share localhost with them here'
    ]


def test_twins_are_a_fault_also_among_sidecars(tmp_path: Path) -> None:
    text = pod("{name: c, image: i}", "  initContainers: [{name: c, image: i, restartPolicy: Always}]\n")
    assert [message for _, message in faults(tmp_path, text)] == ['container "c" has the name of the one at 7:20']


def test_amounts_and_places_are_told_to_the_container(tmp_path: Path) -> None:
    refs = ", ".join(
        f"{{name: {name}, valueFrom: {{resourceFieldRef: {{resource: {what}}}}}}}"
        for name, what in (
            ("A", "requests.cpu"),
            ("B", "limits.cpu, divisor: 1m"),
            ("C", "limits.memory"),
            ("D", "requests.memory, divisor: 1Mi, containerName: c"),
        )
    )
    fields = ", ".join(
        f"{{name: {name}, valueFrom: {{fieldRef: {{fieldPath: {path}}}}}}}"
        for name, path in (("E", "status.podIP"), ("F", "spec.nodeName"), ("G", "spec.serviceAccountName"))
    )
    amounts = "{requests: {cpu: 250m, memory: 100.5Mi}, limits: {cpu: 1500m, memory: 1Gi}}"
    text = pod(f"{{name: c, image: i, resources: {amounts}, env: [{refs}, {fields}]}}", "  serviceAccountName: me\n")
    (found,) = read(tmp_path, text).operators
    assert dict(found.env) == {
        "A": "1", "B": "1500", "C": str(2**30), "D": "101", "E": "127.0.0.1", "F": "localhost", "G": "me",
    }  # fmt: skip
    assert [line.partition(": ")[2] for line in warnings(tmp_path, text)] == [
        'variable "E" is 127.0.0.1 here: status.podIP is what only a cluster knows',
        'variable "F" is localhost here: spec.nodeName is what only a cluster knows',
    ]
    assert found.unsupported == ()


def test_a_folder_that_would_be_made_is_made(tmp_path: Path) -> None:
    text = pod(
        "{name: c, image: i, volumeMounts: [{name: v, mountPath: /v}]}",
        "  volumes: [{name: v, hostPath: {path: /srv/out, type: DirectoryOrCreate}}]\n",
    )
    (found,) = read(tmp_path, text).operators
    assert (found.volumes, found.unsupported) == ((Volume("pod.p.v", "/v"),), ())
    assert warnings(tmp_path, text) == [
        '7:13: volume "v" is a fresh, empty folder here: it is made where it is not there'
    ]


@pytest.mark.parametrize(
    ("kind", "spec", "stays"),
    [
        ("Pod", "{{{0}}}", False),
        ("Pod", "{{restartPolicy: Always, {0}}}", True),
        ("Pod", "{{containers: [{{name: c, image: i, ports: [{{containerPort: 80}}]}}]}}", True),
        ("Pod", "{{restartPolicy: Never, containers: [{{name: c, image: i, ports: [{{containerPort: 80}}]}}]}}", False),
        ("Job", "{{template: {{spec: {{{0}}}}}}}", False),
        ("CronJob", "{{jobTemplate: {{spec: {{template: {{spec: {{{0}}}}}}}}}}}", False),
        ("Deployment", "{{template: {{spec: {{{0}}}}}}}", True),
        ("StatefulSet", "{{template: {{spec: {{{0}}}}}}}", True),
        ("DaemonSet", "{{template: {{spec: {{{0}}}}}}}", True),
        ("ReplicaSet", "{{template: {{spec: {{{0}}}}}}}", True),
    ],
)
def test_kinds_and_whether_they_stay(tmp_path: Path, kind: str, spec: str, stays: bool) -> None:
    text = spec.format("containers: [{name: c, image: i}]")
    (found,) = read(tmp_path, f"apiVersion: v1\nkind: {kind}\nmetadata: {{name: x}}\nspec: {text}\n").operators
    assert (found.name, found.long_running) == ("c", stays)


def test_names_are_qualified_only_where_they_must_be(tmp_path: Path) -> None:
    each = "{{apiVersion: v1, kind: {0}, metadata: {{name: {1}}}, spec: {{template: {{spec: {{containers: [{2}]}}}}}}}}"
    items = [
        each.format("Job", "a", "{name: main, image: i}, {name: only, image: i}"),
        each.format("Job", "b", "{name: main, image: i}"),
        each.format("Deployment", "b", "{name: main, image: i}"),
    ]
    text = f"apiVersion: v1\nkind: List\nitems: [{', '.join(items)}]\n"
    assert list(operators(tmp_path, text)) == ["a.main", "only", "job.b.main", "deployment.b.main"]
    twice = f"{each.format('Job', 'a', '{name: c, image: i}')}\n---\n{each.format('Job', 'a', '{name: c, image: i}')}\n"
    assert faults(tmp_path, twice) == [("3:95", 'container "c" has the name of the one at 1:88')]


@pytest.mark.parametrize(
    ("container", "volumes", "reason"),
    [
        (
            "env: [{name: A, valueFrom: {secretKeyRef: {name: s, key: k}}}]",
            "",
            'Secret "s" is not in the file: add it as one more document',
        ),
        ("envFrom: [{configMapRef: {name: m}}]", "", 'ConfigMap "m" is not in the file: add it as one more document'),
        (
            "env: [{name: A, valueFrom: {fieldRef: {fieldPath: status.phase}}}]",
            "",
            'variable "A" is what only a cluster knows (status.phase)',
        ),
        (
            "env: [{name: A, valueFrom: {resourceFieldRef: {resource: limits.cpu}}}]",
            "",
            'variable "A" is what only a cluster knows (limits.cpu)',
        ),
        (
            "resources: {limits: {cpu: 1}}, "
            "env: [{name: A, valueFrom: {resourceFieldRef: {containerName: d, resource: limits.cpu}}}]",
            "",
            'variable "A" is what only a cluster knows (limits.cpu)',
        ),
        (
            "volumeMounts: [{name: v, mountPath: /v}]",
            "hostPath: {path: /etc}",
            'volume "v" is a hostPath, which is not here',
        ),
        ("volumeMounts: [{name: v, mountPath: /v}]", "nfs: {server: s}", 'volume "v" is a nfs, which is not here'),
        (
            "volumeMounts: [{name: v, mountPath: /v}]",
            "configMap: {name: m}",
            'ConfigMap "m" is not in the file: add it as one more document',
        ),
        ("resources: {limits: {amd.com/gpu: 1}}", "", "it asks for amd.com/gpu, which cpost cannot give it"),
    ],
)
def test_what_only_a_cluster_has_is_a_reason_against(tmp_path: Path, container: str, volumes: str, reason: str) -> None:
    more = f"  volumes: [{{name: v, {volumes}}}]\n" if volumes else ""
    (found,) = read(tmp_path, pod(f"{{name: c, image: i, {container}}}", more)).operators
    assert reasons(found) == [reason]
    assert found.unsupported[0].endswith((":6)", ":7)"))


def test_what_is_different_here_is_said(tmp_path: Path) -> None:
    text = pod(
        "{name: c, image: i, volumeMounts: [{name: v, mountPath: /v}], resources: {requests: {memory: 100m}}}",
        "  - {name: d, image: i, restart: x}\n  hostNetwork: true\n"
        "  volumes: [{name: v, persistentVolumeClaim: {claimName: big}}]\n",
    )
    assert warnings(tmp_path, text) == [
        '6:3: the containers of Pod "p" run at the same time in a cluster, and share localhost; here each runs by '
        "itself",
        '6:98: "100m" means thousandths of a byte; M or Mi are meant?',
        '7:25: unknown key "restart" in container "d" is ignored; did you mean "restartPolicy"?',
        '8:16: hostNetwork of the pod of Pod "p" is not given to it here',
        '9:13: volume "v" (persistentVolumeClaim) is a fresh, empty folder here',
    ]
    assert read(tmp_path, text).operators[0].volumes == (Volume("claim.big", "/v"),)


@pytest.mark.parametrize(
    ("container", "place", "message"),
    [
        ("{name: c}", "6:5", 'container "c" has no image'),
        ("{name: c, image: $IMAGE}", "6:22", 'image of container "c": "$IMAGE" holds a placeholder'),
        (
            "{name: c, image: gcr.io/PROJECT_ID/x}",
            "6:22",
            'image of container "c": "gcr.io/PROJECT_ID/x" holds a placeholder',
        ),
        (
            "{name: c, image: i, resources: {limits: {memory: 1K}}}",
            "6:54",
            'memory of limits of container "c": "1K" is not a quantity',
        ),
        ("{name: c, image: i, volumeMounts: [{name: v, mountPath: /v}]}", "6:47", 'no volume is called "v"'),
        (
            "{name: c, image: i, volumeMounts: [{name: v, mountPath: v}]}",
            "6:61",
            'mountPath of a mount of container "c": "v" is not an absolute path',
        ),
        ("{name: ../c, image: i}", "6:12", 'name of a container of Pod "p": "../c" cannot be used as a name'),
    ],
)
def test_faults_have_a_place(tmp_path: Path, container: str, place: str, message: str) -> None:
    assert (place, message) in faults(tmp_path, pod(container))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("apiVersion: v1\nkind: Service\nspec: {}\n", "a Service runs no containers that cpost could size"),
        ("apiVersion: apps/v1\nkind: Deploymnt\nspec: {}\n", "a Deploymnt runs no containers that cpost could size"),
        ("apiversion: v1\nkind: Pod\n", '"apiversion" is written with other letters in Kubernetes'),
    ],
)
def test_near_misses_are_named(tmp_path: Path, text: str, message: str) -> None:
    assert [found for _, found in faults(tmp_path, text)] == [message]


def job(spec: str, kind: str = "Job") -> str:
    spec = f"{{{spec}, template: {{spec: {{containers: [{{name: c, image: i}}]}}}}}}"
    spec = spec if kind == "Job" else f"{{jobTemplate: {{spec: {spec}}}}}"
    return f"apiVersion: batch/v1\nkind: {kind}\nmetadata: {{name: j}}\nspec: {spec}\n"


@pytest.mark.parametrize("kind", ["Job", "CronJob"])
def test_an_indexed_job_is_its_first_pod(tmp_path: Path, kind: str) -> None:
    text = job("completionMode: Indexed, completions: 3", kind)
    assert dict(operators(tmp_path, text)["c"].env) == {"JOB_COMPLETION_INDEX": "0"}
    assert [line.partition(": ")[2] for line in warnings(tmp_path, text)] == [
        f'{kind} "j" is indexed: only index 0 is run'
    ]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("completions: 4, parallelism: 2", ['Job "j" makes several pods (completions: 4): one is run, by itself']),
        ("parallelism: 2", ['Job "j" makes several pods (parallelism: 2): one is run, by itself']),
        ("completions: 1, parallelism: 1", []),
    ],
)
def test_a_job_of_several_pods_is_one_here(tmp_path: Path, spec: str, said: list[str]) -> None:
    assert [line.partition(": ")[2] for line in warnings(tmp_path, job(spec))] == said


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("hostAliases: [{ip: 1.2.3.4}]", 'hostAliases of the pod of Pod "p" are not known here'),
        ("shareProcessNamespace: true", 'shareProcessNamespace of the pod of Pod "p" is not given to it here'),
        (
            "resources: {limits: {memory: 1Gi}}",
            'resources of the pod of Pod "p" as a whole are not heeded here: those of its containers are',
        ),
        ("securityContext: {fsGroup: 5}", 'fsGroup of the pod of Pod "p" is not set here'),
        (
            "initContainers: [{name: s, image: i, restartPolicy: Always}]",
            'container "s" runs beside those after it, but does not share localhost with them here',
        ),
    ],
)
def test_what_a_pod_asks_for_and_does_not_have_here_is_said(tmp_path: Path, spec: str, said: str) -> None:
    assert [line.partition(": ")[2] for line in warnings(tmp_path, pod("{name: c, image: i}", f"  {spec}\n"))] == [said]


@pytest.mark.parametrize(
    ("container", "said"),
    [
        ("securityContext: {capabilities: {add: [SYS_PTRACE]}}", 'container "c" is given no further capabilities here'),
        (
            "lifecycle: {postStart: {exec: {command: [a]}}}",
            'lifecycle of container "c" is not followed here: nothing is run beside it',
        ),
        ("securityContext: {capabilities: {drop: [ALL]}}", None),
    ],
)
def test_what_a_container_asks_for_and_does_not_have_here_is_said(
    tmp_path: Path, container: str, said: str | None
) -> None:
    found = warnings(tmp_path, pod(f"{{name: c, image: i, {container}}}"))
    assert [line.partition(": ")[2] for line in found] == ([said] if said else [])


def test_devices_of_a_cluster_are_a_reason_against(tmp_path: Path) -> None:
    container = "{name: c, image: i, volumeDevices: [{name: d, devicePath: /dev/x}]}"
    assert reasons(operators(tmp_path, pod(container))["c"]) == ["it is given a disk of the cluster as a device"]


def test_what_other_makers_run_is_said_to_be_left_out(tmp_path: Path) -> None:
    others = (
        "---\napiVersion: kubeflow.org/v1\nkind: PyTorchJob\nmetadata: {name: t}\n"
        "spec: {replicas: {Worker: {template: {spec: {containers: [{name: w, image: i}]}}}}}\n"
        "---\napiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {ports: [{port: 80}]}\n"
        "---\napiVersion: tekton.dev/v1\nkind: Task\nmetadata: {name: k}\nspec: {steps: [{image: i}]}\n"
    )
    text = pod("{name: c, image: i}") + others
    assert list(operators(tmp_path, text)) == ["c"]
    assert warnings(tmp_path, text) == [
        "9:7: a PyTorchJob is left out: how it runs its containers is not known here",
        "18:1: a Tekton pipeline is left out: cpost does not read it",
    ]


NAMESPACED = dedent("""\
    apiVersion: v1
    kind: ConfigMap
    metadata: {name: m, namespace: {0}}
    data: {who: {0}}
    ---
    apiVersion: v1
    kind: Pod
    metadata: {name: p, namespace: {0}}
    spec:
      containers:
      - {name: c, image: i, envFrom: [{configMapRef: {name: m}}, {configMapRef: {name: all}}],
         volumeMounts: [{name: v, mountPath: /v}, {name: d, mountPath: /d}]}
      volumes: [{name: v, emptyDir: {}}, {name: d, persistentVolumeClaim: {claimName: disk}}]
    ---
    """)


def test_namespaces_tell_objects_apart(tmp_path: Path) -> None:
    shared = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: all}\ndata: {all: yes}\n"
    found = operators(tmp_path, NAMESPACED.replace("{0}", "x") + NAMESPACED.replace("{0}", "y") + shared)
    assert {name: dict(each.env) for name, each in found.items()} == {
        "x.pod.p.c": {"who": "x", "all": "yes"}, "y.pod.p.c": {"who": "y", "all": "yes"},
    }  # fmt: skip
    folders = [volume.name for each in found.values() for volume in each.volumes]
    assert folders == ["pod.x.p.v", "claim.x.disk", "pod.y.p.v", "claim.y.disk"]


@pytest.mark.parametrize("metadata", ["name: ..", "generateName: ../", "name: p, namespace: ../x"])
def test_objects_have_names_that_files_can_have(tmp_path: Path, metadata: str) -> None:
    text = pod("{name: c, image: i}").replace("name: p", metadata, 1)
    assert any("cannot be used as a name" in message for _, message in faults(tmp_path, text))


def test_an_object_has_a_version(tmp_path: Path) -> None:
    text = (
        pod("{name: c, image: i}") + "---\nkind: Pod\nmetadata: {name: q}\nspec: {containers: [{name: d, image: i}]}\n"
    )
    assert faults(tmp_path, text) == [("8:1", 'Pod "q" has no apiVersion')]


@pytest.mark.parametrize("amount", ["010", "00", "012Mi", "08.5"])
def test_an_amount_that_some_read_as_octal_is_none(tmp_path: Path, amount: str) -> None:
    text = pod(f"{{name: c, image: i, resources: {{requests: {{memory: {amount}}}}}}}")
    assert faults(tmp_path, text) == [("6:56", f'memory of requests of container "c": "{amount}" is not a quantity')]


@given(st.integers(1, 10**6), st.integers(0, 999), st.sampled_from(["", "k", "M", "Ki", "Mi", "Gi"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_amounts_are_read_exactly_and_rounded_up(tmp_path: Path, whole: int, part: int, suffix: str) -> None:
    text = f"{whole}.{part:03}"
    unit = {"": 1, "k": 1000, "M": 10**6, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}[suffix]
    container = f"{{name: c, image: i, resources: {{requests: {{cpu: '{text}', memory: {text}{suffix}}}}}}}"
    found = operators(tmp_path, pod(container))["c"].requests
    assert found.memory_bytes == math.ceil(Fraction(text) * unit)
    assert found.cpu_millicores == whole * 1000 + part
