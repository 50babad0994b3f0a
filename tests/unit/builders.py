"""Short ways to make domain objects; what a test does not name gets a plain value."""

from __future__ import annotations

from typing import Any

from cpost.model import (
    Advice,
    HostFacts,
    Operator,
    OperatorRecord,
    Options,
    Outcome,
    Pipeline,
    Recommendation,
    Repeat,
    RepeatKind,
    Resources,
    Run,
    Sample,
    Server,
    ServerKind,
    ServerRecord,
    Statistic,
    Step,
    StepResult,
    Totals,
    Usage,
)

MS = 10**6
MB = 10**6


def operator(name: str = "a", **given: Any) -> Operator:
    return Operator(name, **{"image": "img:1", **given})


def pipeline(*operators: Operator, **given: Any) -> Pipeline:
    stated = {"name": "p", "api_version": "0.4.0", "digest": "d", "file": "p.yaml", **given}
    return Pipeline(operators=operators, **stated)


def step(**given: Any) -> Step:
    stated: dict[str, Any] = {
        "index": 0,
        "operator": "a",
        "image": "img:1",
        "command": (),
        "env": (),
        "mounts": (),
        "output_folders": (),
        "upstream": (),
        "declared": Resources(),
    }
    return Step(**{**stated, **given})


def server(name: str = "web", **given: Any) -> Server:
    """One of operator a's; what is given is its own, or else its step's."""
    own = {key: given.pop(key) for key in ("models", "connections", "speaks_triton", "shared") if key in given}
    return Server(name, ServerKind.SERVICE, step(**{"operator": f"a__{name}", "image": "img:2", **given}), **own)


def sample(t_ms: float, cpu_us: int = 0, memory: int | None = None, **given: Any) -> Sample:
    stated = {"memory_peak_bytes": None, "detail": None, **given}
    return Sample(int(t_ms * MS), cpu_us, None, None, None, None, memory, **stated)


def totals(cpu_us: int = 0, **given: Any) -> Totals:
    return Totals(**{"source": "kernel", "cpu_us": cpu_us, **given})


def result(outcome: Outcome = Outcome.COMPLETED, **given: Any) -> StepResult:
    return StepResult("a", outcome, **given)


def usage(cpu: float | None = 100.0, memory: float | None = MB, **given: Any) -> Usage:
    stated = {
        "window_ns": 200 * MS,
        "cpu_pct": Statistic(cpu, cpu, cpu, cpu, cpu),
        "memory_bytes": Statistic(memory, memory, memory, memory, memory),
        **given,
    }
    return Usage(**stated)


def advice(cpu: int = 1000, memory: int = 256 * MB) -> Recommendation:
    return Recommendation("peak", Advice.OK, Resources(cpu, memory), Resources(cpu, memory), ("why",))


def repeat(number: int = 1, planned: int = 3, **given: Any) -> Repeat:
    stated: dict[str, Any] = {"kind": RepeatKind.MEASURED, "cold": False, "result": result(), "usage": usage(), **given}
    return Repeat(number=number, planned=planned, **stated)


REFUSED = Recommendation("peak", Advice.REFUSED, reasons=("the operator failed",))


def record(name: str = "a", **given: Any) -> OperatorRecord:
    stated: dict[str, Any] = {
        "image": "img:1",
        "declared": Resources(),
        "result": result(),
        "recommendation": advice(),
        "usage": usage(),
        **given,
    }
    return OperatorRecord(operator=name, **stated)


def server_record(name: str = "triton", **given: Any) -> ServerRecord:
    stated: dict[str, Any] = {
        "kind": ServerKind.TRITON,
        "image": "img:2",
        "models": ("double",),
        "declared": Resources(),
        "result": result(),
        "recommendation": advice(2000, 512 * MB),
        "usage": usage(memory=300 * MB),
        "ready_ns": 1_500_000_000,
        "idle": usage(1.0, 100 * MB),
        "load": usage(150.0, 200 * MB),
        **given,
    }
    return ServerRecord(name=name, **stated)


def run(*records: OperatorRecord, **given: Any) -> Run:
    stated: dict[str, Any] = {
        "schema_version": 1,
        "run_id": "20260101T000000xab12",
        "cpost_version": "1",
        "created_at": "2026-01-01T00:00:00.000+00:00",
        "pipeline_name": "p",
        "pipeline_file": "p.yaml",
        "pipeline_digest": "d",
        "host": HostFacts(),
        "options": Options(),
        **given,
    }
    return Run(operators=records, **stated)
