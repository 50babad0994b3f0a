"""Docker Compose files: services as operators and beside them, variables, mounts, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from foreign import faults, operators, read, reasons, warnings

from cpost.definition import load
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


@pytest.mark.parametrize(
    ("devices", "count"),
    [
        (
            "{capabilities: [gpu], count: 1}, {capabilities: [gpu], device_ids: ['3']}, {capabilities: [tpu]}",
            2,
        ),
        ("{capabilities: [gpu]}, {capabilities: [gpu], count: 1}", ALL_GPUS),
        ("{capabilities: [tpu], count: 4}", None),
    ],
)
def test_gpus_of_all_devices_count(tmp_path: Path, devices: str, count: int | None) -> None:
    body = f"deploy: {{resources: {{reservations: {{devices: [{devices}]}}}}}}"
    assert read(tmp_path, one(tmp_path, body)).operators[0].requests.gpu_count == count


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
    [
        ("restart: always", True),
        ("restart: unless-stopped", True),
        ("ports: [80]", True),
        ("expose: [80]", True),
        ("healthcheck: {test: 'true'}", True),
        ("healthcheck: {disable: true}", False),
        ("deploy: {restart_policy: {condition: any}}", True),
        ("deploy: {restart_policy: {condition: on-failure}}", False),
        ("restart: 'no'", False),
    ],
)
def test_whether_it_stays(tmp_path: Path, body: str, stays: bool) -> None:
    assert operators(tmp_path, one(tmp_path, body))["a"].long_running is stays


def test_what_others_wait_for_ends(tmp_path: Path) -> None:
    text = (
        "services:\n  a: {image: i, depends_on: {b: {condition: service_completed_successfully}}}\n"
        "  b: {image: i, healthcheck: {test: 'true'}}\n"
    )
    assert not any(each.long_running for each in operators(tmp_path, text).values())


def test_a_healthcheck_without_ports_is_not_awaited(tmp_path: Path) -> None:
    text = "services:\n  a: {image: i, depends_on: {b: {condition: service_healthy}}}\n  b: {image: i}\n"
    assert warnings(tmp_path, text) == ['2:29: the healthcheck of "b" is not run: it names no ports to await']


def test_a_variable_that_is_not_set_is_empty_and_warned_of_once(tmp_path: Path) -> None:
    text = (
        "services:\n  a: {image: i, command: 'x ${NOT_SET}y $NOT_SET'}\n  b: {image: i, environment: {A: $NOT_SET}}\n"
    )
    found = operators(tmp_path, text)
    assert (found["a"].command, dict(found["b"].env)) == (("x", "y"), {"A": ""})
    text += "volumes: {v: {name: '${NOT_SET}_v'}}\n"
    hint = "set it in the environment (NOT_SET=... cpost ...) or in .env beside the file"
    assert warnings(tmp_path, text) == [f"4:21: variable NOT_SET is not set, and empty: {hint}"]


def test_a_variable_that_has_to_be_set_is_one_fault(tmp_path: Path) -> None:
    text = "services:\n  a: {image: 'i:$NOT_SET'}\n  b: {image: 'i:$NOT_SET', mem_limit: '${x'}\n  c: {image: '${x'}\n"
    assert [message for _, message in faults(tmp_path, text)] == [
        "variable NOT_SET has no value", "a ${ is not closed", "a ${ is not closed",
    ]  # fmt: skip


def test_an_image_that_is_built_has_the_name_that_it_gets(tmp_path: Path) -> None:
    text = "name: My.Shop\nservices:\n  web: {build: ./web}\n"
    assert operators(tmp_path, text)["web"].image == "myshop-web:latest"
    said = 'the image of service "web" is not built here: docker compose build makes myshop-web'
    assert warnings(tmp_path, text) == [f"3:16: {said}"]
    odd = text.replace("My.Shop", "a__.__b")
    assert reasons(operators(tmp_path, odd)["web"]) == ["it has build and no image: build it, and name the image"]


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


# ---------------------------------------------------------------- other files


def test_extends_from_another_file(tmp_path: Path) -> None:
    below = tmp_path / "base"
    below.mkdir()
    (below / "e.env").write_text("FROM_FILE=1\n")
    (below / "data").mkdir()
    (below / "data" / "x").write_text("x")
    (below / "b.yaml").write_text(
        "services:\n  root: {image: 'i:${TAG}', mem_limit: 1g}\n"
        "  b:\n    extends: root\n    env_file: e.env\n    command: [one]\n"
        "    volumes: [./data:/data, {type: bind, source: data, target: /more, read_only: true}]\n"
    )
    text = "services:\n  a: {extends: {file: base/b.yaml, service: b}, command: [two]}\n"
    found = operators(tmp_path, text)["a"]
    assert (found.image, found.command, dict(found.env)) == ("i:1.2", ("two",), {"FROM_FILE": "1"})
    assert [each.source for each in found.volumes] == [str(below / "data")] * 2
    assert found.limits.memory_bytes == 2**30


def test_extending_in_a_circle_over_files_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text("services: {b: {extends: {file: p.yaml, service: a}}}\n")
    text = "services: {a: {image: i, extends: {file: b.yaml, service: b}}, c: {image: i}}\n"
    assert 'service "a" cannot extend "b"' in [message for _, message in faults(tmp_path, text)]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ("services: {c: {image: i}}\n", 'service "a" cannot extend "b"'),
        ("x: 1\n", "has no services"),
        ("[services]\n", "expected a mapping, this is a list"),
    ],
)
def test_a_file_that_has_nothing_to_extend_is_a_fault(tmp_path: Path, other: str, message: str) -> None:
    (tmp_path / "b.yaml").write_text(other)
    text = "services: {a: {image: i, extends: {file: b.yaml, service: b}}}\n"
    assert any(message in each for _, each in faults(tmp_path, text))


def test_included_services_are_as_in_their_own_place(tmp_path: Path) -> None:
    below = tmp_path / "db"
    below.mkdir()
    (below / ".env").write_text("TAG=theirs\nVERSION=16\n")
    (below / "init.sql").write_text("x")
    (below / "compose.yaml").write_text(
        "include: [more.yaml]\n"
        "services:\n  db:\n    image: postgres:${VERSION}\n    command: ['$TAG', '$$5']\n"
        "    volumes: [./init.sql:/init.sql:ro, data:/data]\n    secrets: [key]\n"
        "volumes: {data: {}}\nsecrets: {key: {file: init.sql}}\n"
    )
    (below / "more.yaml").write_text("services: {cache: {image: redis}}\n")
    text = "include: [db/compose.yaml]\nservices: {app: {image: i, depends_on: [db, cache]}}\n"
    (app,) = read(tmp_path, text).operators
    db, cache = app.companions
    assert (db.image, db.command, cache.image) == ("postgres:16", ("1.2", "$5"), "redis:latest")
    assert [(each.path, each.source) for each in db.volumes] == [
        ("/init.sql", str(below / "init.sql")), ("/data", ""), ("/run/secrets/key", str(below / "init.sql")),
    ]  # fmt: skip


def test_an_include_may_name_its_folder_and_variables(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text("services: {b: {image: 'i:$KIND', env_file: e.env}}\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "e.env").write_text("A=1\n")
    (tmp_path / "v.env").write_text("KIND=small\n")
    text = "include: [{path: b.yaml, project_directory: sub, env_file: v.env}]\nservices: {a: {image: i}}\n"
    found = operators(tmp_path, text)["b"]
    assert (found.image, dict(found.env)) == ("i:small", {"A": "1"})


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ("services: {a: {image: i}}\n", 'service "a" is in the included file, too'),
        ("include: [p.yaml]\n", "files include one another"),
        ("services: {b: {image: '$NOT_SET'}}\n", "variable NOT_SET has no value"),
    ],
)
def test_faults_of_included_files(tmp_path: Path, other: str, message: str) -> None:
    (tmp_path / "b.yaml").write_text(other)
    text = "include: [b.yaml]\nservices: {a: {image: i}}\n"
    assert message in [each for _, each in faults(tmp_path, text)]


def test_a_file_that_compose_would_lay_over_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "compose.override.yml").write_text("services: {a: {image: other}}\n")
    (tmp_path / "compose.yaml").write_text("services: {a: {image: i}}\n")
    (said,) = load(tmp_path / "compose.yaml").warnings
    assert said.endswith('"compose.override.yml" beside it is not read: docker compose config makes one of both')


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
        ("services: {a: {image: i, mem_limit: '$NOT_SET'}}\n", "1:37", "variable NOT_SET has no value"),
        ("services: {a: {image: i, volumes: ['${NOT_SET}:/v']}}\n", "1:36", "variable NOT_SET has no value"),
        (
            "include: [{path: [b.yaml, c.yaml]}]\nservices: {a: {image: i}}\n",
            "1:11",
            "several files for one include are not followed",
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
        ("provider: {type: x}", "it is no container"),
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
