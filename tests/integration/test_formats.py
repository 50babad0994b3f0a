"""One tiny pipeline of each foreign format, run for real: what containers are given, in which order, beside whom."""

from __future__ import annotations

import stat
from pathlib import Path

from integration.conftest import Pipeline
from integration.harness import Cpost

KUBERNETES = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {job.conf: "level = 7\\n"}
---
apiVersion: batch/v1
kind: Job
metadata: {name: job}
spec:
  template:
    spec:
      securityContext: {runAsUser: 1234, runAsGroup: 55}
      initContainers:
      - name: first
        image: IMAGE
        command: [sh, -ec]
        args: ["cp /input/scan.txt /data/"]
        volumeMounts: [{name: d, mountPath: /data}]
      - name: beside
        image: IMAGE
        restartPolicy: Always
        command: [sh, -ec, "echo there >/data/beside; exec httpd -f -p 8000"]
        ports: [{containerPort: 8000}]
        volumeMounts: [{name: d, mountPath: /data}]
      containers:
      - name: main
        image: IMAGE-entry
        command: [sh, -ec]
        args:
        - |
          [ "$(id -u):$(id -g)" = 1234:55 ]
          [ "$(pwd)" = /tmp ]
          cmp /data/scan.txt /input/scan.txt
          [ "$(cat /data/beside)" = there ]
          [ "$(cat /etc/job.conf)" = "level = $(LEVEL)" ]
          [ "$(df -k /dev/shm | awk 'END {print $2}')" = 32768 ]
          ! touch /input/x /etc/job.conf
        workingDir: /tmp
        env: [{name: LEVEL, value: 7}]
        resources: {requests: {cpu: 100m, memory: 64Mi}}
        volumeMounts:
        - {name: d, mountPath: /data}
        - {name: c, mountPath: /etc/job.conf, subPath: job.conf}
        - {name: s, mountPath: /dev/shm}
      volumes:
      - {name: d, emptyDir: {}}
      - {name: c, configMap: {name: settings}}
      - {name: s, emptyDir: {medium: Memory, sizeLimit: 32Mi}}
"""

TREASON = """\
apiVersion: v1
kind: Pod
metadata: {name: pod}
spec:
  initContainers:
  - name: traitor
    image: IMAGE
    command: [sh, -ec, "rmdir /data/part; ln -s PRECIOUS /data/part"]
    volumeMounts: [{name: d, mountPath: /data}]
  containers:
  - name: thief
    image: IMAGE
    command: [sh, -ec, "echo stolen >/part/file"]
    volumeMounts: [{name: d, mountPath: /part, subPath: part}]
  volumes: [{name: d, emptyDir: {}}]
"""

ARGO = """\
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {generateName: flow-}
spec:
  entrypoint: main
  templates:
  - name: main
    steps:
    - - {name: make, template: make}
    - - name: use
        template: use
        withItems: [left, right]
        arguments:
          parameters: [{name: side, value: "{{item}}"}]
          artifacts:
          - {name: file, from: "{{steps.make.outputs.artifacts.file}}"}
          - {name: folder, from: "{{steps.make.outputs.artifacts.folder}}"}
  - name: make
    script:
      image: IMAGE
      command: [sh, -e]
      source: |
        echo made >/tmp/file.txt
        mkdir -p /var/deep/folder/empty
        echo inner >/var/deep/folder/x
        ln -s x /var/deep/folder/y
    outputs:
      artifacts:
      - {name: file, path: /tmp/file.txt}
      - {name: folder, path: /var/deep/folder}
      - {name: maybe, path: /none, optional: true}
  - name: use
    inputs: {parameters: [{name: side}], artifacts: [{name: file, path: /in/f}, {name: folder, path: /in/d}]}
    container:
      image: IMAGE
      command: [sh, -ec]
      args: ['[ "$(cat /in/f)-$(cat /in/d/y)-{{inputs.parameters.side}}" = "made-inner-$SIDE" ]; test -d /in/d/empty']
      env: [{name: SIDE, value: "{{inputs.parameters.side}}"}]
"""

ARGO_DAEMON = """\
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {generateName: serve-}
spec:
  entrypoint: main
  templates:
  - name: main
    steps:
    - - {name: make, template: make}
    - - name: serve
        template: serve
        arguments: {artifacts: [{name: file, from: "{{steps.make.outputs.artifacts.file}}"}]}
    - - name: ask
        template: ask
        arguments: {parameters: [{name: host, value: "{{steps.serve.ip}}"}]}
  - name: make
    container: {image: IMAGE, command: [sh, -c, "echo made >/tmp/f"]}
    outputs: {artifacts: [{name: file, path: /tmp/f}]}
  - name: serve
    daemon: true
    inputs: {artifacts: [{name: file, path: /srv/f}]}
    container:
      image: IMAGE
      command: [httpd, -f, -p, "8000", -h, /srv]
      readinessProbe: {tcpSocket: {port: 8000}}
  - name: ask
    inputs: {parameters: [{name: host}]}
    volumes: [{name: w, emptyDir: {}}]
    initContainers:
    - {name: before, image: IMAGE, command: [sh, -c, "echo early >/w/x"], mirrorVolumeMounts: true}
    container:
      image: IMAGE
      command: [sh, -ec]
      args: ['[ "$(wget -qO- http://{{inputs.parameters.host}}:8000/f) $(cat /w/x)" = "made early" ]']
      volumeMounts: [{name: w, mountPath: /w}]
"""

COMPOSE = """\
services:
  answer:
    image: IMAGE
    command: "sh -c 'echo hello >/srv/hello; httpd -f -p 8000 -h /srv'"
    expose: [8000]
    volumes: ["srv:/srv"]
  ask:
    image: IMAGE
    command: [sh, -ec, '[ "$$(wget -qO- http://answer:8000/hello)" = hello ]; echo asked >/shared/note']
    depends_on: [answer]
    volumes: ["srv:/shared"]
  stay:
    image: IMAGE
    entrypoint: [sh, -ec]
    command: ['wget -qO- http://answer:8000/note | grep asked; trap "exit 3" TERM; while :; do sleep 0.05; done']
    restart: always
    depends_on: {answer: {condition: service_healthy}, ask: {condition: service_completed_successfully}}
    deploy: {resources: {limits: {memory: 100M}}}
volumes: {srv: {}}
"""


def written(pipeline: Pipeline, text: str, image: str) -> Path:
    return pipeline(text=text.replace("IMAGE", image))


def test_a_kubernetes_job(cpost: Cpost, pipeline: Pipeline, payload: Path, image: str) -> None:
    done = cpost("run", written(pipeline, KUBERNETES, image), payload, "--json").ended(0)
    assert done.record["pipeline_format"] == "kubernetes"
    assert [each["operator"] for each in done.record["operators"]] == ["first", "main"]
    advice = done.operator("main")["recommendation"]
    assert (done.record["options"]["policy"], advice["policy"]) == ("p95", "p95")
    assert advice["requests"]["cpu_millicores"] % 10 == 0
    assert advice["requests"]["memory_bytes"] % (16 * 2**20) == 0
    assert [(each["name"], each["result"]["outcome"]) for each in done.operator("main")["servers"]] == [
        ("beside", "completed")
    ]
    assert done.operator("main")["declared"] == {"cpu_millicores": 100, "memory_bytes": 64 * 2**20, "gpu_count": None}


def test_a_link_in_the_place_of_a_volume_s_part_is_not_mounted(
    cpost: Cpost, pipeline: Pipeline, payload: Path, image: str, tmp_path: Path
) -> None:
    precious = tmp_path / "precious"
    precious.mkdir(mode=0o750)
    text = TREASON.replace("PRECIOUS", str(precious))
    done = cpost("run", written(pipeline, text, image), payload).ended(5)
    assert "thief is not run: an earlier container put a link in the place of" in done.err
    assert "Traceback" not in done.text
    assert (list(precious.iterdir()), stat.S_IMODE(precious.stat().st_mode)) == ([], 0o750)


def test_an_argo_workflow(cpost: Cpost, pipeline: Pipeline, payload: Path, image: str, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    done = cpost("run", written(pipeline, ARGO, image), payload, "--json", "--outputs_dir", kept).ended(0)
    assert [(each["operator"], each["site"]) for each in done.record["operators"]] == [
        ("make", "make"), ("use.use-0", "use"), ("use.use-1", "use"),
    ]  # fmt: skip
    assert (kept / "make/file/file.txt").read_text() == "made\n"


def test_an_argo_daemon_has_its_artifacts(cpost: Cpost, pipeline: Pipeline, payload: Path, image: str) -> None:
    done = cpost("run", written(pipeline, ARGO_DAEMON, image), payload, "--json").ended(0)
    assert [each["operator"] for each in done.record["operators"]] == ["make", "before", "ask"]
    assert [(each["name"], each["result"]["outcome"]) for each in done.record["servers"]] == [("serve", "completed")]


def test_an_output_that_was_not_written_fails_its_task(
    cpost: Cpost, pipeline: Pipeline, payload: Path, image: str
) -> None:
    text = ARGO.replace("echo made >/tmp/file.txt", "true")
    done = cpost("run", written(pipeline, text, image), payload, "--json").ended(1)
    result = done.operator("make")["result"]
    assert (result["outcome"], result["cause"]) == ("failed", "it did not write its output /tmp/file.txt")


def test_compose_services(cpost: Cpost, pipeline: Pipeline, payload: Path, image: str) -> None:
    file = written(pipeline, COMPOSE, image)
    done = cpost("run", file, payload, "--json", "--duration", "1s").ended(0)
    assert [each["operator"] for each in done.record["operators"]] == ["ask", "stay"]
    stay = done.operator("stay")["result"]
    assert (stay["outcome"], stay["exit_code"]) == ("completed", 3)
    assert 1e9 <= stay["wall_ns"] < 3e9
    limits = done.operator("stay")["declared_limits"]
    assert limits == {"cpu_millicores": None, "memory_bytes": 100 * 2**20, "gpu_count": None}
    assert [(each["name"], each["result"]["outcome"]) for each in done.record["servers"]] == [("answer", "completed")]
    refused = cpost("run", file, payload).ended(2)
    assert "stay would run for ever" in refused.err
