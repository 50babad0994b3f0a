"""Pipeline -> steps: order, mounts by Clara's rules, environment, ceilings."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import PosixPath
from pathlib import PurePosixPath as Path
from typing import Any

import pytest
from builders import operator, pipeline
from hypothesis import given
from hypothesis import strategies as st

from cpost.errors import UsageError
from cpost.model import (
    ALL_GPUS,
    FINE,
    CopyOut,
    File,
    Format,
    HostFile,
    HttpConnection,
    Input,
    Mount,
    Operator,
    Options,
    Output,
    Plan,
    Resources,
    Server,
    ServerKind,
    Service,
    Step,
    Volume,
    VolumeConnection,
)
from cpost.outputs import OutputFolders
from cpost.plan import Place, execution_order, host_ceiling_bytes, images_of, make_plan, needed, servers_of

MIB = 2**20
GIB = 2**30


def order(*operators: Operator) -> str:
    return "".join(each.name for each in execution_order(operators))


def reads(name: str, *sources: str) -> Operator:
    return operator(name, inputs=tuple(Input(f"/in/{source}", source) for source in sources))


def steps(*operators: Operator, host: int = 8 * GIB, gpus: int = 0, **options: Any) -> tuple[Step, ...]:
    models_dir = Path(options["models_dir"]) if "models_dir" in options else None
    place = Place(Path("/payload"), Path("/kept"), Path("/shared"), models_dir, host, gpus)
    return make_plan(pipeline(*operators), place, Options(**options)).steps


@st.composite
def graphs(draw: st.DrawFn) -> tuple[Operator, ...]:
    """Operators without a cycle, written in any order."""
    names = [chr(ord("a") + i) for i in range(draw(st.integers(0, 12)))]
    made = [
        reads(name, *draw(st.sets(st.sampled_from(names[:i])) if i else st.just(set()))) for i, name in enumerate(names)
    ]
    return tuple(draw(st.permutations(made)))


# ---------------------------------------------------------------- order


@pytest.mark.parametrize(
    ("operators", "wanted"),
    [
        ([], ""),
        ([reads("a"), reads("b"), reads("c")], "abc"),
        ([reads("c"), reads("b"), reads("a")], "cba"),
        ([reads("b", "a"), reads("a")], "ab"),
        ([reads("d", "b", "c"), reads("c", "a"), reads("b", "a"), reads("a")], "acbd"),
        ([reads("z", "y"), reads("a"), reads("y")], "ayz"),
        ([reads("x"), reads("b", "a"), reads("a"), reads("y")], "xaby"),
    ],
)
def test_order(operators: list[Operator], wanted: str) -> None:
    assert order(*operators) == wanted


@given(graphs())
def test_every_operator_once_producers_first_and_always_the_same(operators: tuple[Operator, ...]) -> None:
    done: set[str] = set()
    for each in execution_order(operators):
        assert each.name not in done
        assert done.issuperset(each.upstream)
        done.add(each.name)
    assert done == {each.name for each in operators}
    assert order(*operators) == order(*operators)


@given(graphs())
def test_of_all_that_could_run_the_first_written_runs(operators: tuple[Operator, ...]) -> None:
    left = list(operators)
    done: set[str] = set()
    for each in execution_order(operators):
        assert each is next(other for other in left if done.issuperset(other.upstream))
        left.remove(each)
        done.add(each.name)


@given(st.permutations("abcdef"))
def test_operators_without_edges_stay_in_the_order_written(names: list[str]) -> None:
    assert order(*map(reads, names)) == "".join(names)


def test_a_thousand_operators_in_a_row_written_backwards() -> None:
    chain = [operator(str(i), inputs=(Input("/in", str(i - 1)),) if i else ()) for i in range(1000)]
    assert [each.name for each in execution_order(tuple(reversed(chain)))] == [str(i) for i in range(1000)]


def test_steps_are_numbered_in_the_order_of_execution() -> None:
    operators = [reads("d", "a"), reads("c"), reads("b"), reads("a")]
    random.Random(1).shuffle(operators)
    made = steps(*operators)
    assert [each.index for each in made] == [0, 1, 2, 3]
    assert [each.operator for each in made] == list(order(*operators))


# ---------------------------------------------------------------- mounts


@pytest.mark.parametrize(
    ("item", "wanted"),
    [
        (Input("/in"), Mount("/payload", "/in", read_only=True)),
        (Input("/in", "up"), Mount("/kept/up", "/in", read_only=True)),
        (Input("/in", "up", "mask"), Mount("/kept/up/mask", "/in", read_only=True)),
    ],
)
def test_an_input_is_a_read_only_mount(item: Input, wanted: Mount) -> None:
    (_, made) = steps(operator("up"), operator("a", inputs=(item,)))
    assert made.mounts == (wanted,)


def test_outputs_go_to_the_operator_s_own_folder_named_ones_below_it() -> None:
    outputs = (Output("/out"), Output("/masks", "mask"))
    (made,) = steps(operator("a", outputs=outputs))
    assert made.mounts == (
        Mount("/kept/a", "/out", read_only=False),
        Mount("/kept/a/mask", "/masks", read_only=False),
    )
    assert made.output_folders == ("/kept/a", "/kept/a/mask")


def test_an_operator_without_outputs_still_has_a_folder() -> None:
    assert steps(operator("a"))[0].output_folders == ("/kept/a",)


def test_data_that_does_not_travel_by_disk_is_not_mounted() -> None:
    (made,) = steps(operator("a", inputs=(Input(None),), outputs=(Output(None, "n"),)))
    assert made.mounts == ()


def test_what_an_operator_writes_is_what_its_reader_gets() -> None:
    writer = operator("w", outputs=(Output("/o", "x"), Output("/p", "y")))
    reader = operator("r", inputs=(Input("/i", "w", "y"), Input("/all", "w"), Input("/raw")))
    first, second = steps(reader, writer)
    assert first.mounts[1].source == second.mounts[0].source
    assert [mount.source for mount in second.mounts] == ["/kept/w/y", "/kept/w", "/payload"]
    assert second.upstream == ("w",)


# ---------------------------------------------------------------- environment and limits


def test_clara_s_lock_files_are_off_first_of_all() -> None:
    (made,) = steps(operator(env=(("A", "1"), ("B", "010"))))
    assert made.env == (("NVIDIA_CLARA_NOSYNCLOCK", "1"), ("A", "1"), ("B", "010"))


def test_the_definition_may_say_otherwise() -> None:
    (made,) = steps(operator(env=(("A", "1"), ("NVIDIA_CLARA_NOSYNCLOCK", "TRUE"))))
    assert made.env == (("NVIDIA_CLARA_NOSYNCLOCK", "TRUE"), ("A", "1"))


def test_the_rest_comes_from_the_operator_and_the_options() -> None:
    stated = operator(
        command=("run", "-x"),
        requests=Resources(2000, 10**9, 3),
        models=("m",),
        services=(Service("s", "img:2"),),
        unsupported=("typed",),
    )
    (made,) = steps(stated, shm_bytes=7, pids_limit=8, timeout_ns=9, memory_limit_bytes=10)
    assert (made.operator, made.image, made.command) == ("a", "img:1", ("run", "-x"))
    assert (made.declared, made.gpu_count) == (stated.requests, 3)
    assert [server.name for server in made.servers] == ["s", "triton"]
    assert made.unsupported == ("typed",)
    assert (made.shm_bytes, made.pids_limit, made.timeout_ns, made.memory_limit_bytes) == (7, 8, 9, 10)


def test_without_a_declared_gpu_there_is_none() -> None:
    assert steps(operator())[0].gpu_count == 0


def test_a_gpu_can_be_left_out() -> None:
    (made,) = steps(operator(requests=Resources(gpu_count=2)), no_gpu=True)
    assert (made.declared.gpu_count, made.gpu_count) == (2, 0)


def test_the_host_s_ceiling_applies_where_the_options_set_none() -> None:
    assert steps(operator(), host=100 * GIB)[0].memory_limit_bytes == 95 * GIB


@pytest.mark.parametrize(
    ("host", "wanted"),
    [(100 * GIB, 95 * GIB), (4 * GIB, 4 * GIB - 512 * MIB), (GIB, 512 * MIB), (512 * MIB, 256 * MIB)],
)
def test_a_share_of_the_host_stays_free(host: int, wanted: int) -> None:
    assert host_ceiling_bytes(host) == wanted


@given(st.integers(16 * MIB, 2**44))
def test_a_ceiling_is_below_the_host_and_at_least_half_of_it(host: int) -> None:
    assert host / 2 <= host_ceiling_bytes(host) < host


# ---------------------------------------------------------------- servers: Triton

LOADS = "--load-model="


def test_a_triton_serves_the_models_asked_for_and_no_others() -> None:
    (made,) = steps(operator(models=("b", "a")), models_dir="/repo", triton_image="triton:1", triton_args=("--x", "1"))
    (triton,) = made.servers
    assert (triton.name, triton.kind, triton.speaks_triton, triton.shared) == ("triton", ServerKind.TRITON, True, False)
    assert (triton.step.operator, triton.step.image, triton.models) == ("a__triton", "triton:1", ("b", "a"))
    assert triton.step.command == (
        *("tritonserver", "--model-repository=/models", "--model-control-mode=explicit"),
        *(f"{LOADS}b", f"{LOADS}a", "--exit-on-error=false", "--x", "1"),
    )
    assert triton.step.mounts == (Mount("/repo", "/models", read_only=True),)
    assert (triton.step.declared, triton.step.timeout_ns) == (Resources(), None)
    assert {each.name: each.port for each in triton.connections} == {
        "NVIDIA_TRITON_HTTPURI": 8000,
        "NVIDIA_TRITON_GRPCURI": 8001,
        "NVIDIA_CLARA_TRTISURI": 8000,
        "CLARA_TRITON_URI": 8000,
    }


def test_what_an_ensemble_needs_is_loaded_where_the_repository_was_looked_at() -> None:
    place = Place(Path("/payload"), Path("/kept"), Path("/shared"), Path("/repo"), 8 * GIB)
    asks = pipeline(operator(models=("twice",)))
    (made,) = make_plan(asks, place, Options(), {"a": ("twice", "double")}).steps
    assert [word for word in made.servers[0].step.command if word.startswith(LOADS)] == [
        f"{LOADS}twice",
        f"{LOADS}double",
    ]


@pytest.mark.parametrize(("gpus", "no_gpu", "wanted"), [(2, False, ALL_GPUS), (2, True, 0), (0, False, 0)])
def test_a_triton_gets_all_gpus_that_there_are(gpus: int, no_gpu: bool, wanted: int) -> None:
    (made,) = steps(operator(models=("m",)), gpus=gpus, no_gpu=no_gpu)
    assert made.servers[0].step.gpu_count == wanted
    assert made.gpu_count == 0


def test_a_server_runs_under_the_limits_of_the_options() -> None:
    asks = operator(models=("m",), services=(Service("s", "img:2", requests=Resources(1000, MIB, 1)),))
    (made,) = steps(asks, shm_bytes=7, pids_limit=8, timeout_ns=9, memory_limit_bytes=10, gpus=1)
    for each in made.servers:
        assert (each.step.shm_bytes, each.step.pids_limit, each.step.memory_limit_bytes) == (7, 8, 10)
        assert each.step.timeout_ns is None  # it lives as long as its operator
    assert made.servers[0].step.gpu_count == 1
    assert made.servers[0].step.declared == Resources(1000, MIB, 1)


@pytest.mark.parametrize("name", ["triton", "Triton"])
def test_a_service_may_be_called_triton_as_well(name: str) -> None:
    (made,) = steps(operator(models=("m",), services=(Service(name, "img:2"),)))
    assert [each.name for each in made.servers] == [name, "models-triton"]
    assert len({each.step.operator.lower() for each in made.servers}) == 2


def test_one_triton_for_all_has_the_models_of_all() -> None:
    operators = (operator("a", models=("x", "y")), operator("b"), operator("c", models=("y", "z")))
    first, none, second = steps(*operators, triton_scope="pipeline")
    (triton,) = first.servers
    assert triton.shared
    assert (triton.step.operator, triton.models) == ("pipeline__triton", ("x", "y", "z"))
    assert none.servers == ()
    assert second.servers[0].step.command == triton.step.command
    assert len(list(servers_of(Plan(pipeline(), (first, none, second))))) == 1


# ---------------------------------------------------------------- servers: services


def serves(*services: Service, **options: Any) -> tuple[Server, ...]:
    return steps(operator(services=services), **options)[0].servers


def test_a_service_is_a_container_of_its_own() -> None:
    (made,) = serves(Service("web", "img:2", ("run", "-x"), (("A", "1"),)))
    assert (made.name, made.kind, made.models, made.shared) == ("web", ServerKind.SERVICE, (), False)
    assert (made.step.operator, made.step.image, made.step.command) == ("a__web", "img:2", ("run", "-x"))
    assert made.step.env == (("NVIDIA_CLARA_SERVICE_DATA_PATH", "/clara/common"), ("A", "1"))
    assert (made.step.mounts, made.connections) == ((), ())


def test_services_with_image_and_command_in_common_are_one_container() -> None:
    services = (
        Service("one", "img:2", ("run",), (("A", "1"),), http=(HttpConnection("ONE", 9000),)),
        Service("other", "img:3", ("run",)),
        Service("two", "img:2", ("run",), (("B", "2"),), http=(HttpConnection("TWO"), HttpConnection("TWO_GRPC"))),
        Service("three", "img:2", ("run", "more")),
    )
    first, *others = serves(*services)
    assert [first.name, *(each.name for each in others)] == ["one", "other", "three"]
    assert dict(first.step.env) == {"NVIDIA_CLARA_SERVICE_DATA_PATH": "/clara/common", "A": "1", "B": "2"}
    assert [(each.name, each.port) for each in first.connections] == [("ONE", 9000), ("TWO", 8000), ("TWO_GRPC", 8001)]


def test_services_of_two_operators_are_two_containers() -> None:
    same = (Service("web", "img:2"),)
    names = [
        each.servers[0].step.operator for each in steps(operator("a", services=same), operator("b", services=same))
    ]
    assert names == ["a__web", "b__web"]


def test_models_lie_where_a_service_of_the_platform_finds_them() -> None:
    store = Service("trtis", "img:2", ("tritonserver", "--model-store=$(NVIDIA_CLARA_SERVICE_DATA_PATH)/models"))
    (made,) = serves(store, models_dir="/repo")
    assert made.step.command[1] == "--model-store=/clara/common/models"
    assert made.step.mounts == (
        Mount("/repo", "/clara/common/models", read_only=True),
        Mount("/repo", "/models", read_only=True),
    )
    assert serves(store)[0].step.mounts == ()


def test_folders_are_shared_by_path_within_an_operator() -> None:
    services = (
        Service("one", "img:2", volumes=(VolumeConnection("data", "/var/data"), VolumeConnection("more", "/more"))),
        Service("two", "img:3", volumes=(VolumeConnection("same", "/var/data"),)),
    )
    first, second = steps(operator("a", services=services), operator("b", services=services[:1]))
    data, more = (
        Mount("/shared/a/var_data", "/var/data", read_only=False),
        Mount("/shared/a/more", "/more", read_only=False),
    )
    assert first.mounts == (data, more)
    assert first.shared_folders == (data.source, more.source)
    assert [each.step.mounts for each in first.servers] == [(data, more), (data,)]
    assert not set(first.shared_folders) & set(second.shared_folders)


@pytest.mark.parametrize(
    ("image", "command", "wanted"),
    [
        ("nvcr.io/nvidia/tritonserver:25", (), True),
        ("mine:1", ("tritonserver", "-x"), True),
        ("mine:1", ("/opt/bin/trtserver",), True),
        ("trtis:1", ("run",), True),
        ("mine:1", ("sh", "-c", "tritonserver"), False),
        ("mine:1", (), False),
    ],
)
def test_a_service_that_looks_like_a_triton_is_asked_as_one(image: str, command: tuple[str, ...], wanted: bool) -> None:
    assert serves(Service("s", image, command))[0].speaks_triton is wanted


# ---------------------------------------------------------------- servers: names and images


@pytest.mark.parametrize(
    "operators",
    [
        (operator("a", models=("m",)), operator("a__triton")),
        (operator("a", models=("m",)), operator("A__Triton")),
        (operator("a", services=(Service("b__c", "i"),)), operator("a__b", services=(Service("c", "i"),))),
        (operator("a", models=("m",), services=(Service("triton", "i"), Service("models-triton", "i:2"))),),
    ],
)
def test_files_of_one_name_are_refused(operators: tuple[Operator, ...]) -> None:
    with pytest.raises(UsageError, match=r"the files of server \S+ would be called \S+, as those of"):
        steps(*operators)


def test_an_operator_may_not_be_called_as_the_server_of_all() -> None:
    with pytest.raises(UsageError, match="pipeline__triton"):
        steps(operator("pipeline__triton", models=("m",)), triton_scope="pipeline")


def test_images_are_those_of_servers_as_well() -> None:
    made = steps(
        operator("a", image="op:1", models=("m",), services=(Service("s", "web:1"),)),
        operator("b", image="op:1", models=("m",)),
        triton_image="triton:1",
    )
    assert images_of(Plan(pipeline(), made)) == ["web:1", "triton:1", "op:1"]
    assert images_of(Plan(pipeline(), (replace(made[0], image=""),))) == ["web:1", "triton:1"]


# ---------------------------------------------------------------- other formats


def foreign_steps(*operators: Operator, **options: Any) -> tuple[Step, ...]:
    place = Place(Path("/payload"), Path("/kept"), Path("/shared"), None, 8 * GIB)
    return make_plan(pipeline(*operators, format=Format.COMPOSE), place, Options(**options)).steps


def test_order_without_data() -> None:
    assert order(operator("b", after=("a",)), operator("a")) == "ab"


def test_a_container_keeps_what_its_definition_says() -> None:
    stated = {
        "entrypoint": ("sh",), "workdir": "/w", "user": "1", "aliases": ("x",), "limits": Resources(1), "site": "s",
        "after": ("b",),
    }  # fmt: skip
    _, made = foreign_steps(operator("a", shm_bytes=5, **stated), operator("b"))
    assert {key: getattr(made, key) for key in stated} == stated
    assert (made.shm_bytes, made.granularity, made.env) == (5, FINE, ())
    assert foreign_steps(operator())[0].shm_bytes == Options().shm_bytes


def test_volumes_are_fresh_folders_files_or_the_users_own() -> None:
    files = (File("x/y", b"1", 0o755),)
    volumes = (
        Volume("v", "/v"), Volume("v", "/part", part="p/q"), Volume("u", "/u", True, source="/home/u"),
        Volume("f", "/f", True, "x/y", files),
    )  # fmt: skip
    (made,) = foreign_steps(operator("a", volumes=volumes))
    assert made.mounts == (
        Mount("/shared/volumes/v", "/v", read_only=False),
        Mount("/shared/volumes/v/p/q", "/part", read_only=False),
        Mount("/home/u", "/u", read_only=True),
        Mount("/shared/files/a/f/x/y", "/f", read_only=True),
    )
    assert made.volume_folders == (
        "/shared/volumes/v",
        "/shared/volumes/v",
        "/shared/volumes/v/p/q",
        "/shared/files/a/f",
    )
    assert made.files == (HostFile("/shared/files/a/f/x/y", b"1", 0o755),)
    assert made.shared_folders == ()  # those are emptied before each repeat


def test_outputs_that_are_copied_have_no_mount() -> None:
    output = Output("/tmp/x.bin", "o", copied=True, optional=True)
    made, reader = foreign_steps(
        operator("a", outputs=(output,)), operator("b", inputs=(Input("/i", "a", "o", None, "x.bin"),))
    )
    assert (made.mounts, made.output_folders) == ((), ("/kept/a", "/kept/a/o"))
    assert made.copies == (CopyOut("/tmp/x.bin", "/kept/a/o", optional=True),)
    assert reader.mounts == (Mount("/kept/a/o/x.bin", "/i", read_only=True),)


def test_companions_are_servers_and_shared_where_several_need_one() -> None:
    db, own = (operator(name, ports=(1,), volumes=(Volume(name, "/v"),)) for name in ("db", "own"))
    first, second = foreign_steps(operator("a", companions=(db, own)), operator("b", companions=(db,)))
    assert [(s.name, s.step.operator, s.shared, s.ports) for s in first.servers] == [
        ("db", "pipeline__db", True, (1,)), ("own", "a__own", False, (1,)),
    ]  # fmt: skip
    assert [s.step.operator for s in second.servers] == ["pipeline__db"]
    assert first.volume_folders == ("/shared/volumes/db", "/shared/volumes/own")


def test_only_what_stays_has_a_duration() -> None:
    made = foreign_steps(operator("a", long_running=True), operator("b"), duration_ns=7)
    assert [each.duration_ns for each in made] == [7, None]


def test_a_run_under_limits_copies_to_folders_of_its_own() -> None:
    output = Output("/tmp/x.bin", "o", copied=True)
    (made,) = foreign_steps(operator("a", outputs=(output,)))
    assert OutputFolders(PosixPath("/trial"), overwrite=True).moved(made).copies == (
        CopyOut("/tmp/x.bin", "/trial/a/o"),
    )


def test_a_companion_sees_what_it_reads() -> None:
    serving = operator("s", inputs=(Input("/in", "a", "out", entry="file"),), volumes=(Volume("v", "/v"),))
    _, asking = steps(operator("a"), operator("b", after=("a",), companions=(serving,)))
    assert asking.servers[0].step.mounts == (
        Mount("/kept/a/out/file", "/in", read_only=True),
        Mount("/shared/volumes/v", "/v", read_only=False),
    )


# ---------------------------------------------------------------- a part of a pipeline


def only(names: str, *operators: Operator) -> str:
    return "".join(each.name for each in needed(operators, names))


def test_what_comes_before_is_needed_and_what_comes_after_is_not() -> None:
    chain = (reads("d", "c"), reads("b", "a"), operator("a"), reads("c", "b"), operator("x"))
    assert [only(name, *chain) for name in "abcdx"] == ["a", "ba", "bac", "dbac", "x"]
    assert only("bx", *chain) == "bax"


def test_whose_end_is_waited_for_is_needed() -> None:
    assert only("c", operator("a"), operator("b", after=("a",)), operator("c", after=("b",))) == "abc"


def test_who_writes_to_a_common_volume_before_is_needed() -> None:
    def using(name: str, **given: Any) -> Operator:
        return operator(name, volumes=(Volume("data", "/data", **given),))

    assert only("c", using("a"), using("b", read_only=True), using("c"), using("d")) == "ac"
    assert only("c", using("a", source="/host"), using("c")) == "c"
    beside = operator("a", companions=(using("s"),))
    assert only("c", beside, using("c", read_only=True)) == "ac"
