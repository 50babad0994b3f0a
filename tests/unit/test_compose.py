"""Docker Compose files: services as operators and beside them, variables, mounts, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from foreign import faults, operators, read, reasons, warnings

from cpost.model import ALL_GPUS, File, Format, Resources, Volume


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAG", "1.2")
    monkeypatch.delenv("NOT_SET", raising=False)


def one(folder: Path, body: str, rest: str = "") -> str:
    return f"services:\n  a: {{image: i, {body}}}\n{rest}"


def test_everything_of_a_service_is_read(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("TAG=9\nMODE=slow\n")
    (tmp_path / "a.env").write_text("FROM_FILE=1\nBOTH=file\n")
    pipeline = read(
        tmp_path,
        """\
        name: shop
        x-common: &common {environment: {MODE: "${MODE}"}}
        services:
          job:
            <<: *common
            image: registry/job:${TAG:-latest}
            entrypoint: python -u "a b.py"
            command: [--mode, "$MODE", --cost, "$$5"]
            env_file: a.env
            environment: [BOTH=own, MODE, UNKNOWN_NAME, EMPTY=]
            working_dir: /app
            user: "1000:50"
            shm_size: 128m
            restart: on-failure
            mem_reservation: 100m
            deploy:
              resources:
                limits: {cpus: '0.501', memory: 1.5G}
                reservations: {cpus: 0.25, devices: [{capabilities: [gpu], count: 2}]}
        """,
    )
    assert (pipeline.name, pipeline.format) == ("shop", Format.COMPOSE)
    (job,) = pipeline.operators
    assert job.image == "registry/job:1.2"  # the environment goes before .env
    assert (job.entrypoint, job.command) == (("python", "-u", "a b.py"), ("--mode", "slow", "--cost", "$5"))
    assert dict(job.env) == {"FROM_FILE": "1", "BOTH": "own", "MODE": "slow", "EMPTY": ""}
    assert (job.workdir, job.user, job.shm_bytes) == ("/app", "1000:50", 128 * 2**20)
    assert job.requests == Resources(250, 100 * 2**20, 2)
    assert job.limits == Resources(501, 3 * 2**29, 2)
    assert (job.long_running, job.unsupported, pipeline.warnings) == (False, (), ())


def test_the_digest_tells_of_all_that_was_read(tmp_path: Path) -> None:
    first = read(tmp_path, one(tmp_path, "command: x")).digest
    (tmp_path / ".env").write_text("A=1\n")
    assert read(tmp_path, one(tmp_path, "command: x")).digest != first


# ---------------------------------------------------------------- order

STACK = """\
services:
  app:
    image: app
    depends_on: {migrate: {condition: service_completed_successfully}, cache: {condition: service_started}}
  migrate: {image: app, depends_on: {db: {condition: service_healthy}}}
  db: {image: postgres, restart: always, ports: ["5432:5432", "8000-8001:53/udp"], expose: [9], container_name: the-db}
  cache: {image: redis, links: ["db:database"]}
  web: {image: nginx, ports: [80], depends_on: [app]}
"""


def test_services_that_others_need_run_beside_them(tmp_path: Path) -> None:
    found = operators(tmp_path, STACK)
    assert {name: (each.after, [c.name for c in each.companions]) for name, each in found.items()} == {
        "migrate": ((), ["db"]),
        "web": (("migrate",), ["db", "cache", "app"]),
    }
    db = found["web"].companions[0]
    assert (db.ports, db.aliases) == ((9, 5432), ("db", "the-db"))
    assert [name for name, each in found.items() if each.long_running] == ["web"]
    assert warnings(tmp_path, STACK) == ['5:37: the healthcheck of "db" is not run: its ports are awaited instead']


@pytest.mark.parametrize(
    ("body", "stays"),
    [("restart: always", True), ("restart: unless-stopped", True), ("ports: [80]", True), ("restart: 'no'", False)],
)
def test_whether_it_stays(tmp_path: Path, body: str, stays: bool) -> None:
    assert operators(tmp_path, one(tmp_path, body))["a"].long_running is stays


def test_profiles_are_left_out(tmp_path: Path) -> None:
    text = "services:\n  a: {image: i, profiles: [debug]}\n  b: {image: i, profiles: ['']}\n"
    assert list(operators(tmp_path, text)) == ["b"]
    assert warnings(tmp_path, text) == ['2:27: service "a" is left out: it is for profile "debug"']
    needed = text + "  c: {image: i, depends_on: [a]}\n  d: {image: i, depends_on: {a: {required: false}}}\n"
    assert [message for _, message in faults(tmp_path, needed)] == ['service "c" depends on "a", which is left out']


def test_extends_within_the_file(tmp_path: Path) -> None:
    text = """\
    services:
      base: {image: i, command: [x], environment: [A=1, B=2], volumes: [/one], profiles: [never]}
      a: {extends: {service: base}, command: [y], environment: {B: 3}, volumes: [/two], profiles: ['']}
    """
    text = text.replace("profiles: [never]", "deploy: {resources: {limits: {memory: 1g}}}").replace(
        ", profiles: ['']", ""
    )
    found = operators(tmp_path, text)["a"]
    assert (found.image, found.command, dict(found.env)) == ("i:latest", ("y",), {"A": "1", "B": "3"})
    assert [each.path for each in found.volumes] == ["/one", "/two"]
    assert found.limits.memory_bytes == 2**30


# ---------------------------------------------------------------- mounts


def test_nothing_of_the_users_is_written_to(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/f").write_text("x")
    (tmp_path / "out").mkdir()
    (tmp_path / "conf").write_text("c")
    text = one(
        tmp_path,
        "volumes: ['./data:/data', './data:/again:ro', './out:/out', './out:/empty:ro', "
        "'./conf:/etc/conf:ro', 'vol:/vol', /anon, "
        "{type: volume, source: vol, target: /part, read_only: true, volume: {subpath: x/y}}, "
        "{type: bind, source: ./not-there, target: /none}], tmpfs: /scratch",
        "volumes: {vol: {}}\n",
    )
    here = str(tmp_path)
    found = {each.path: each for each in operators(tmp_path, text)["a"].volumes}
    assert {path: (each.source.removeprefix(here), each.read_only) for path, each in found.items()} == {
        "/data": ("/data", True), "/again": ("/data", True), "/out": ("", False), "/empty": ("/out", True),
        "/etc/conf": ("/conf", True),
        "/vol": ("", False), "/anon": ("", False), "/part": ("", True), "/none": ("", False), "/scratch": ("", False),
    }  # fmt: skip
    assert (found["/vol"].name, found["/part"].name, found["/part"].part) == ("volume.vol", "volume.vol", "x/y")
    assert [line.partition(": ")[2] for line in warnings(tmp_path, text)] == [
        '"./data" is mounted read-only here: cpost changes nothing of yours',
        'what is written to "./out" goes to a fresh folder, and with the run',
        '"./not-there" is not there: service "a" gets a fresh, empty folder',
        'tmpfs "/scratch" is a folder on disk here: what lies in it is not counted as memory',
    ]


@pytest.mark.parametrize("source", ["/", "/dev/null", "/proc/self", "/var/run", "/sys"])
def test_the_system_itself_is_not_handed_out(tmp_path: Path, source: str) -> None:
    (reason,) = reasons(operators(tmp_path, one(tmp_path, f"volumes: ['{source}:/x:ro']"))["a"])
    assert reason == f'it is given "{source}" of the host, which cpost does not hand out'


def test_configs_and_secrets(tmp_path: Path) -> None:
    (tmp_path / "s.txt").write_text("sesame")
    text = one(
        tmp_path,
        "configs: [c, {source: c, target: /etc/c}], secrets: [s]",
        "configs: {c: {content: 'v=${TAG}'}}\nsecrets: {s: {file: s.txt}}\n",
    )
    content = (File("content", b"v=1.2"),)
    assert operators(tmp_path, text)["a"].volumes == (
        Volume("stored.c", "/c", True, "content", content),
        Volume("stored.c", "/etc/c", True, "content", content),
        Volume("stored.s", "/run/secrets/s", True, source=str(tmp_path / "s.txt")),
    )
    gone = text.replace("file: s.txt", "file: gone.txt")
    assert reasons(operators(tmp_path, gone)["a"]) == ['"s" of secrets is not in the file, nor beside it']


# ---------------------------------------------------------------- what cannot be


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("services: {a: {image: 'i:${NOT_SET}'}}\n", "1:23", "variable NOT_SET has no value"),
        ("services: {a: {image: i, env_file: [x.env]}}\n", "1:36", 'env_file "x.env" does not exist'),
        ("services: {a: {image: i, depends_on: [b]}}\n", "1:38", 'service "a" depends on "b", which is no service'),
        (
            "services: {a: {image: i, volumes: ['v:/v']}}\n",
            "1:36",
            'service "a" mounts volume "v", which is not declared',
        ),
        ("include: [other.yaml]\nservices: {a: {image: i}}\n", "1:10", "include is not followed"),
        (
            "services: {a: {image: i, extends: {service: a, file: b}}}\n",
            "1:54",
            "extends from another file is not followed",
        ),
        ("services: {a: {extends: b, image: i}}\n", "1:25", 'service "a" cannot extend "b"'),
        (
            "services: {a: {image: i, mem_limit: 1g, deploy: {resources: {limits: {memory: 2g}}}}}\n",
            "1:37",
            'mem_limit and deploy.resources of service "a" differ',
        ),
        ("services: {a: {image: i, mem_limit: lots}}\n", "1:37", 'mem_limit of service "a": "lots" is not a size'),
        ("services: {a: {command: x}}\n", "1:15", 'service "a" has no image'),
        (
            "services: {a: {image: i, depends_on: [b]}, b: {image: i, depends_on: [a]}}\n",
            "1:11",
            "containers wait for one another: a -> b -> a",
        ),
        ("services: {a: {image: i}}\n---\nservices: {}\n", "3:1", "a second YAML document starts here"),
    ],
)
def test_faults_have_a_place(tmp_path: Path, text: str, place: str, message: str) -> None:
    assert (place, message) in faults(tmp_path, text)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("build: .", "it has build and no image: build it, and name the image"),
        ("image: i, network_mode: 'service:b'", "it shares the network of another container"),
        ("image: i, volumes_from: [b]", "it has the volumes of another container"),
    ],
)
def test_reasons_against(tmp_path: Path, body: str, reason: str) -> None:
    text = f"services:\n  a: {{{body}}}\n  b: {{image: i, depends_on: [a]}}\n"
    found = operators(tmp_path, text)
    assert reasons(found["b"]) == [f"its server a: {reason}"]
    assert list(found) == ["b"]


def test_what_is_not_given_is_said(tmp_path: Path) -> None:
    text = one(tmp_path, "privileged: true, cap_add: [ALL], build: ., healtcheck: {}, gpus: all")
    assert [line.partition(": ")[2] for line in warnings(tmp_path, text)] == [
        'service "a" is not run privileged here',
        'cap_add of service "a" is not given to it here',
        'the image of service "a" is not built here: it has to be there',
        'unknown key "healtcheck" in service "a" is ignored; did you mean "healthcheck"?',
    ]
    assert operators(tmp_path, text)["a"].requests.gpu_count == ALL_GPUS
