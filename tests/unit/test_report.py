"""Tables: whole expected texts."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import replace
from pathlib import PurePosixPath

import pytest
from builders import (
    MB,
    REFUSED,
    advice,
    operator,
    pipeline,
    record,
    repeat,
    result,
    server_record,
    step,
    totals,
    usage,
)

from cpost.model import (
    ALL_GPUS,
    Format,
    Input,
    ModelServed,
    Mount,
    Options,
    Outcome,
    Output,
    Plan,
    RepeatKind,
    Resources,
    Server,
    ServerKind,
    Spread,
    Spreads,
    Statistic,
    TritonFacts,
)
from cpost.model.gpu import GpuUsage
from cpost.plan import Place, make_plan
from cpost.report.tables import (
    banner,
    operator_summary,
    pipeline_summary,
    plan_text,
    repeat_line,
    requests_text,
    series,
    served_lines,
    spread_summary,
)

SPLEEN = record(
    "segmentation",
    usage=replace(
        usage(),
        cpu_pct=Statistic(average=151.25, maximum=1134.358),
        memory_bytes=Statistic(average=1_234_567_890, maximum=4_455_412_000),
    ),
    recommendation=advice(12_000, 4608 * MB),
)
FAILED = record("recon", result=result(Outcome.FAILED, exit_code=126), usage=None, recommendation=REFUSED)


def test_banner() -> None:
    assert banner("Operator x Summary") == "_" * 21 + "Operator x Summary" + "_" * 21
    assert "y" * 80 in banner("y" * 80)


def test_the_table_of_an_operator() -> None:
    assert (
        operator_summary(SPLEEN)
        == """\
+--------+-------------+-------------+--------------+
| Metric |   Average   |   Maximum   |   Resource   |
+--------+-------------+-------------+--------------+
|  CPU   |  151.250 %  | 1134.358 %  |   cpu: 12    |
| Memory | 1234.568 MB | 4455.412 MB | memory: 4608 |
+--------+-------------+-------------+--------------+"""
    )


ON_GPUS = replace(
    SPLEEN,
    usage=replace(
        usage(),
        gpus=(
            GpuUsage("GPU-a", True, 40.5, 97, 1500e6, 2_000_000_000),
            GpuUsage("GPU-b", True, 20.0, 99, 2500e6, 3_000_000_000),
            GpuUsage("GPU-idle", False, 100.0, 100, 0.0, 0),
        ),
    ),
    recommendation=replace(advice(), requests=Resources(1000, 256 * MB, 2)),
)


def test_with_gpus_there_are_rows_for_them() -> None:
    """Time of the busiest that it used, memory of the fullest."""
    assert (
        operator_summary(ON_GPUS)
        == """\
+------------+-------------+-------------+-------------+
|   Metric   |   Average   |   Maximum   |  Resource   |
+------------+-------------+-------------+-------------+
|    CPU     |  100.000 %  |  100.000 %  |   cpu: 1    |
|   Memory   |  1.000 MB   |  1.000 MB   | memory: 256 |
|    GPU     |  40.500 %   |  97.000 %   |   gpu: 2    |
| GPU memory | 2500.000 MB | 3000.000 MB |      -      |
+------------+-------------+-------------+-------------+"""
    )


@pytest.mark.parametrize(
    ("gpu", "cells"),
    [
        (GpuUsage("GPU-a", False, 50.0, 90, 0.0, 0), ["-", "-", "0.000 MB", "0.000 MB"]),  # others kept it busy
        (GpuUsage("MIG-a", True, None, None, 1e6, 2_000_000), ["not available"] * 2 + ["1.000 MB", "2.000 MB"]),
        (GpuUsage("GPU-a"), ["-"] * 4),
    ],
)
def test_what_is_not_known_of_a_gpu_is_no_zero(gpu: GpuUsage, cells: list[str]) -> None:
    text = operator_summary(replace(ON_GPUS, usage=replace(usage(), gpus=(gpu,)), recommendation=advice()))
    shown = [line.strip("| ").split("|") for line in text.splitlines() if "GPU" in line]
    assert [cell.strip() for line in shown for cell in line[1:3]] == cells
    assert [line[3].strip() for line in shown] == ["-", "-"]


def test_an_operator_without_numbers_has_none() -> None:
    assert (
        operator_summary(FAILED)
        == """\
+--------+---------+---------+----------+
| Metric | Average | Maximum | Resource |
+--------+---------+---------+----------+
|  CPU   |    -    |    -    |   none   |
| Memory |    -    |    -    |   none   |
+--------+---------+---------+----------+"""
    )


def test_the_table_of_repeats() -> None:
    spreads = Spreads(
        wall_ns=Spread(10**9, 1.25e9, 2 * 10**9, 3),
        cpu_us=Spread(0, 0, 250_000, 3),
        cpu_maximum_pct=Spread(0, 0, 0, 3),
        memory_peak_bytes=Spread(30 * MB, 40 * MB, 50 * MB, 3),
    )
    assert (
        spread_summary(spreads)
        == """\
+-------------+-----------+-----------+-----------+--------+
|   Metric    |  Minimum  |  Median   |  Maximum  | Spread |
+-------------+-----------+-----------+-----------+--------+
|  Wall time  |  1.000 s  |  1.250 s  |  2.000 s  | 80.0 % |
|  CPU time   |  0.000 s  |  0.000 s  |  0.250 s  |   -    |
| CPU maximum |  0.000 %  |  0.000 %  |  0.000 %  | 0.0 %  |
| Memory peak | 30.000 MB | 40.000 MB | 50.000 MB | 50.0 % |
+-------------+-----------+-----------+-----------+--------+"""
    )


def test_the_line_of_a_repeat() -> None:
    well = repeat(2, 5, result=result(wall_ns=1_234_000_000, totals=totals(1_200_000)), usage=usage(99.5, 30 * MB))
    assert repeat_line(well) == (
        "Repeat 2 of 5 (warm): time 1.234 s, CPU time 1.200 s, CPU maximum 99.500 %, memory peak 30.000 MB"
    )
    long = repeat(1, 2, result=result(wall_ns=200 * 10**9, totals=totals(12_340_000)), usage=usage(99.5, 30 * MB))
    assert "time 3 min 20 s, CPU time 12.3 s," in repeat_line(long)
    failed = result(Outcome.FAILED, cause="exit code 3", exit_code=3)
    cold = repeat(1, 1, kind=RepeatKind.WARMUP, cold=True, result=failed, usage=None)
    assert repeat_line(cold) == ("Warm-up 1 of 1 (cold): exit code 3, time -, CPU time -, CPU maximum -, memory peak -")


def test_the_final_grid_marks_what_failed() -> None:
    assert (
        pipeline_summary([SPLEEN, FAILED])
        == """\
+---------------------+----------+-------------+-------------+--------------+
| Operator            | Metric   | Average     | Maximum     | Resource     |
+=====================+==========+=============+=============+==============+
| segmentation        | CPU      | 151.250 %   | 1134.358 %  | cpu: 12      |
|                     | Memory   | 1234.568 MB | 4455.412 MB | memory: 4608 |
+---------------------+----------+-------------+-------------+--------------+
| recon               | CPU      | -           | -           | none         |
| (Non-zero exitcode) | Memory   | -           | -           | none         |
+---------------------+----------+-------------+-------------+--------------+"""
    )


@pytest.mark.parametrize(
    ("outcome", "code", "marks"),
    [
        (Outcome.COMPLETED, 0, []),
        (Outcome.COMPLETED, 143, []),  # stopped when its time was over
        (Outcome.FAILED, 1, ["(Non-zero exitcode)"]),
        (Outcome.OOM_KILLED, 137, ["(Non-zero exitcode)", "(Killed for memory)"]),
        (Outcome.TIMED_OUT, 143, ["(Non-zero exitcode)", "(Timed out)"]),
        (Outcome.TIMED_OUT, 0, ["(Timed out)"]),
        (Outcome.INTERRUPTED, 143, ["(Non-zero exitcode)", "(Interrupted)"]),
        (Outcome.ENGINE_LOST, None, ["(Engine lost)"]),
    ],
)
def test_marks(outcome: Outcome, code: int | None, marks: list[str]) -> None:
    text = pipeline_summary([record(result=result(outcome, exit_code=code))])
    assert [word for word in marks if word in text] == marks
    assert text.count("(") == len(marks)


def test_a_memory_kill_inside_is_marked() -> None:
    text = pipeline_summary([record(result=result(exit_code=0, totals=totals(oom_kills=1)), recommendation=REFUSED)])
    assert "(OOM kill inside)" in text


def test_an_operator_that_looks_like_a_number_keeps_its_name() -> None:
    assert "| 007 " in pipeline_summary([record("007")])


@pytest.mark.parametrize(
    ("requests", "wanted"),
    [
        (Resources(2000, 512 * MB), ("cpu: 2", "memory: 512")),
        (Resources(1500, 512 * MB + 1), ("cpu: 1.5", "memory: 513")),
        (Resources(), ("-", "-")),
        (Resources(0, 0), ("cpu: 0", "memory: 0")),
    ],
)
def test_requests_as_a_definition_takes_them(requests: Resources, wanted: tuple[str, str]) -> None:
    assert requests_text(requests) == wanted


# ---------------------------------------------------------------- the series of an operator

RULE = "+" + "-" * 19 + "+" + "-" * 13 + "+" + "-" * 16 + "+"


def lines(count: int) -> list[str]:
    return ["timestamp,cpu_percent,memory,more\n", *(f"{i}.5,{i}.000,{i}.25,x,y\n" for i in range(count))]


def test_a_short_series() -> None:
    assert list(series(lines(1), abridged=True)) == [
        RULE,
        "|     timestamp     | cpu_percent |     memory     |",
        RULE,
        "|        0.5        |    0.000    |      0.25      |",
        RULE,
    ]


@pytest.mark.parametrize("count", [0, 1, 10, 19, 20])
def test_a_series_that_fits_is_shown_whole(count: int) -> None:
    assert list(series(lines(count), abridged=True)) == list(series(lines(count), abridged=False))
    assert len(list(series(lines(count), abridged=False))) == count + 4


@pytest.mark.parametrize("count", [21, 22, 1000])
def test_a_long_series_is_abridged_by_what_it_says(count: int) -> None:
    whole, short = list(series(lines(count), abridged=False)), list(series(lines(count), abridged=True))
    assert len(whole) == count + 4
    assert (short[:13], short[14:]) == (whole[:13], whole[-11:])
    assert short[13].replace(" ", "") == f"|...|{count - 20}rows|leftout|"
    assert {len(line) for line in short} == {len(RULE)}


def test_an_unread_cell_is_empty() -> None:
    assert list(series(["h\n", "1.5,,\n"], abridged=False))[3] == "|        1.5        |             |                |"


# ---------------------------------------------------------------- the plan


def test_a_plan() -> None:
    first = operator(
        "read",
        command=("sh", "-c", "cp -r /in/. /out"),
        env=(("MODE", "a b"),),
        inputs=(Input("/in"),),
        outputs=(Output("/out"), Output("/mask", "mask")),
        requests=Resources(2000, 512 * MB, 1),
    )
    second = operator("end", image="img:2", inputs=(Input("/in", "read"),), models=("liver",), unsupported=("typed",))
    plan = make_plan(
        pipeline(first, second, name="demo"),
        Place(PurePosixPath("/payload"), PurePosixPath("<work folder>"), PurePosixPath("/s"), None, 2**34),
        Options(),
    )
    assert (
        plan_text(plan, {"img:1": True, "img:2": False}, {"end": ("typed",)})
        == """\
Pipeline demo (2 operators, in the order of execution)

1. read
   image       img:1 (present)
   command     sh -c 'cp -r /in/. /out'
   mount       /payload -> /in (read-only)
   mount       <work folder>/read -> /out (writable)
   mount       <work folder>/read/mask -> /mask (writable)
   variable    NVIDIA_CLARA_NOSYNCLOCK=1
   variable    MODE=a b
   reads from  the payload only
   declared    cpu: 2, memory: 512, gpu: 1

2. end
   image       img:2 (to be pulled)
   command     (the image decides)
   mount       <work folder>/read -> /in (read-only)
   variable    NVIDIA_CLARA_NOSYNCLOCK=1
   reads from  read
   declared    none
   server      triton: nvcr.io/nvidia/tritonserver:25.11-py3 (no engine to ask)
     command   tritonserver --model-repository=/models --model-control-mode=explicit --load-model=liver \
--exit-on-error=false
     model     liver
     mount     <models> -> /models (read-only)
     tells     NVIDIA_TRITON_HTTPURI=<its address>:8000
     tells     NVIDIA_TRITON_GRPCURI=<its address>:8001
     tells     NVIDIA_CLARA_TRTISURI=<its address>:8000
     tells     CLARA_TRITON_URI=<its address>:8000
   cannot run  typed"""
    )


@pytest.mark.parametrize(
    "word",
    [
        "set -e\nexit 0\n",
        "it's\ta \\n",
        "\x1b[2Jd",
        "\x85ff",
        "\u202ereverse",
        "plain",
        "a b",
        "größer",
        "$HOME\n",
        "e\udcff",
    ],
)
def test_a_command_of_a_plan_can_be_copied(word: str) -> None:
    text = plan_text(Plan(pipeline(), (step(command=("printf", "%s", word)),)), {"img:1": True}, {})
    (command,) = (line.partition("command")[2].strip() for line in text.splitlines() if " command " in line)
    assert command.isprintable()
    env = {**os.environ, "LC_ALL": "C.UTF-8"}
    done = subprocess.run(["bash", "-c", command], capture_output=True, check=True, env=env)
    assert done.stdout == os.fsencode(word)


def test_a_plan_without_an_engine_says_so() -> None:
    server = Server("trtis", ServerKind.SERVICE, step(image="img:2"))
    made = step(mounts=(Mount("/a", "/b", read_only=True),), servers=(server,))
    text = plan_text(Plan(pipeline(), (made,)), {"img:1": None}, {})
    assert "img:1 (no engine to ask)" in text
    assert "server      trtis: img:2 (no engine to ask)" in text


def test_a_plan_says_of_servers_what_it_says_of_operators() -> None:
    own = step(image="img:2", env=(("A", "1"),), declared=Resources(250, 2**20), limits=Resources(None, 2**21))
    made = step(image="", servers=(Server("s", ServerKind.SERVICE, own),))
    shown = plan_text(Plan(pipeline(format=Format.COMPOSE), (made,)), {"img:2": True}, {})
    assert "\n   image       (none)\n" in shown
    assert shown.endswith(
        "   server      s: img:2 (present)\n     command   (the image decides)\n     variable  A=1\n"
        "     declared  cpu: 0.25, memory: 1Mi\n     limits    memory: 2Mi"
    )


@pytest.mark.parametrize(
    ("source", "cpu", "peak"),
    [("engine stats", ">= 100.000 %", ">= 1.000 MB"), ("process tree", "100.000 %", "~ 1.000 MB")],
)
def test_a_sampled_figure_is_never_shown_as_exact(source: str, cpu: str, peak: str) -> None:
    shown = record(result=result(totals=totals(source=source)), usage=replace(usage(), peaks_sampled=True))
    for text in (operator_summary(shown), pipeline_summary([shown])):
        assert [cell.strip() for cell in re.findall(r"[^|]*(?:%|MB)", text)] == [cpu, cpu, "1.000 MB", peak]


@pytest.mark.parametrize(("share", "mark"), [(None, ""), (0.2, ""), (0.21, ">= ")])
def test_cpu_beside_other_work_is_a_lower_bound(share: float | None, mark: str) -> None:
    busy = usage(31.0, 300 * MB, others_cpu_share=share)
    server = server_record(usage=busy, load=usage(75.0), idle=usage(1.0))
    shown = operator_summary(record(usage=busy, servers=(server,)))
    assert cells(shown, "CPU")[0][1:3] == [f"{mark}31.000 %"] * 2
    assert cells(shown, "triton: CPU")[0][1:3] == [f"{mark}75.000 %"] * 2
    assert cells(shown, "triton: CPU idle")[0][1:3] == [f"{mark}1.000 %"] * 2
    assert cells(shown, "Memory")[0][2] == "300.000 MB"
    one = repeat(usage=busy, result=result(totals=totals(10**6)))
    assert f"CPU time 1.000 s, CPU maximum {mark}31.000 %, memory peak" in repeat_line(one)


def test_without_the_kernel_s_mark_the_highest_sample_is_a_lower_bound() -> None:
    shown = record(result=result(totals=totals()), usage=replace(usage(), peaks_sampled=True))
    assert ">= 1.000 MB" in operator_summary(shown)
    assert ">=" not in operator_summary(record(result=result(totals=totals())))


# ---------------------------------------------------------------- servers


def test_a_server_s_rows_are_below_its_operator_s() -> None:
    """Under load, but for the memory's maximum, which is that of its whole life; then idle."""
    text = operator_summary(record(servers=(server_record(),)))
    assert (
        text
        == """\
+---------------------+------------+------------+-------------+
|       Metric        |  Average   |  Maximum   |  Resource   |
+---------------------+------------+------------+-------------+
|         CPU         | 100.000 %  | 100.000 %  |   cpu: 1    |
|       Memory        |  1.000 MB  |  1.000 MB  | memory: 256 |
|     triton: CPU     | 150.000 %  | 150.000 %  |   cpu: 2    |
|   triton: Memory    | 200.000 MB | 300.000 MB | memory: 512 |
|  triton: CPU idle   |  1.000 %   |  1.000 %   |      -      |
| triton: Memory idle | 100.000 MB | 100.000 MB |      -      |
+---------------------+------------+------------+-------------+"""
    )


def cells(text: str, name: str) -> list[list[str]]:
    lines = [re.split(r" *\| *", line.strip("| ")) for line in text.splitlines() if "|" in line]
    return [line for line in lines if line[0].startswith(name)]


def test_what_is_not_known_of_a_server_is_no_zero() -> None:
    no_load = operator_summary(record(servers=(server_record(load=None, idle=None, recommendation=REFUSED),)))
    assert cells(no_load, "triton") == [
        ["triton: CPU (whole life)", "100.000 %", "100.000 %", "none"],
        ["triton: Memory (whole life)", "300.000 MB", "300.000 MB", "none"],
    ]
    nothing = operator_summary(record(usage=None, servers=(server_record(usage=None, load=None, idle=None),)))
    assert [line[1:3] for line in cells(nothing, "triton")] == [["-", "-"], ["-", "-"]]
    sampled = server_record(usage=usage(memory=300 * MB, peaks_sampled=True))
    assert cells(operator_summary(record(servers=(sampled,))), "triton: Memory")[0][2] == ">= 300.000 MB"
    stats = operator_summary(record(servers=(server_record(result=result(totals=totals(source="engine stats"))),)))
    assert cells(stats, "triton: CPU")[0][1:3] == [">= 150.000 %", ">= 150.000 %"]


def test_a_server_s_gpus_are_those_of_its_whole_life() -> None:
    whole = usage(gpus=(GpuUsage("GPU-a", True, 40.5, 97, 1500e6, 2_000_000_000),))
    text = operator_summary(record(servers=(server_record(usage=whole),)))
    assert cells(text, "triton: GPU") == [
        ["triton: GPU", "40.500 %", "97.000 %", "-"],
        ["triton: GPU memory", "1500.000 MB", "2000.000 MB", "-"],
    ]


def test_servers_of_all_operators_come_last() -> None:
    dead = server_record(result=result(Outcome.FAILED, exit_code=137), recommendation=REFUSED)
    text = pipeline_summary([record("a"), record("b", servers=(server_record("web"),))], [dead])
    names = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")]
    assert [name for name in names if name] == ["Operator", "a", "b", "(shared)", "(Non-zero exitcode)"]
    assert text.index("web: CPU") < text.index("(shared)") < text.index("triton: CPU")


def test_what_was_served_is_said_of_each_model_and_version() -> None:
    models = (
        ModelServed("double", "1", 12, 0, 12, 12, 100.0, 3204.0, 3400.0),
        ModelServed("odd", "1", 1, 2),
        ModelServed("odd", "2", 0, 0),
        ModelServed("untold", "1"),
    )
    assert served_lines(server_record(triton=TritonFacts("2.51.0", models))) == [
        "model double: 12 requests, on average 0.10 ms in the queue and 3.20 ms computing",
        "model odd, version 1: 1 request, 2 failed, on average - in the queue and - computing",
        "model odd, version 2: 0 requests",
        "model untold: - requests",
    ]
    assert served_lines(server_record()) == []


def test_a_plan_says_where_one_server_is_for_all() -> None:
    place = Place(PurePosixPath("<input>"), PurePosixPath("w"), PurePosixPath("s"), None, 2**33)
    asks = pipeline(operator("a", models=("m",)))
    shown = plan_text(make_plan(asks, place, Options(triton_scope="pipeline", triton_image="t:1")), {"t:1": False}, {})
    assert "server      triton: t:1 (to be pulled), one for all operators" in shown


def test_a_plan_of_another_format_shows_what_that_can_say() -> None:
    stays = operator(
        "web",
        entrypoint=("sh", "-c"),
        workdir="/w",
        user="1:2",
        requests=Resources(250, 96 * 2**20, ALL_GPUS),
        limits=Resources(memory_bytes=500 * MB),
        outputs=(Output("/x", "o", copied=True),),
        after=("a",),
        companions=(operator("db", image="db:1", aliases=("db",), ports=(5432,)),),
        long_running=True,
    )
    text = {}
    for duration_ns in (None, 60 * 10**9):
        plan = make_plan(
            pipeline(stays, operator("a"), format=Format.COMPOSE),
            Place(PurePosixPath("/p"), PurePosixPath("/w"), PurePosixPath("/s"), None, 2**34),
            Options(duration_ns=duration_ns),
        )
        text[duration_ns] = plan_text(plan, {}, {})
    assert text[None].endswith("runs for    ever: --duration says how long")
    assert text[60 * 10**9].endswith("runs for    1 min 00 s")
    lines = [line.strip() for line in text[None].splitlines()]
    assert lines[0] == "Pipeline p (2 operators, in the order of execution, format compose)"
    for line in (
        "entrypoint  sh -c", "command     (none)", "folder      /w", "user        1:2", "after       a",
        "declared    cpu: 0.25, memory: 96Mi, gpu: 1", "limits      memory: 500M", "copies out  /x -> /w/web/o",
        "answers   to db", "ports     5432 (awaited)",
    ):  # fmt: skip
        assert line in lines


def test_requests_of_other_formats_are_whole_mebibytes() -> None:
    assert requests_text(Resources(130, 128 * 2**20)) == ("cpu: 0.13", "memory: 128Mi")
