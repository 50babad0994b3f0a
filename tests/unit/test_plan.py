"""Pipeline -> steps: order, mounts by Clara's rules, environment, ceilings."""

from __future__ import annotations

import random
from pathlib import PurePosixPath as Path
from typing import Any

import pytest
from builders import operator, pipeline
from hypothesis import given
from hypothesis import strategies as st

from cpost.model import Input, Mount, Operator, Options, Output, Resources, Service, Step
from cpost.plan import Place, execution_order, host_ceiling_bytes, make_plan

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
