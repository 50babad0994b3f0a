"""A run that has everything that a page can have: what failed, was not read, is of a server or GPU, or is hostile."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cpost import store
from cpost.model import (
    ENGINE_STATS,
    Advice,
    CpuChoice,
    Detail,
    Doubt,
    Enforced,
    Gpu,
    GpuUsage,
    HostFacts,
    MemoryChoice,
    ModelServed,
    OperatorRecord,
    Options,
    Outcome,
    Recommendation,
    Repeat,
    RepeatKind,
    Resources,
    Run,
    Sample,
    Sampling,
    Search,
    ServerKind,
    ServerRecord,
    Spread,
    Spreads,
    Statistic,
    StepResult,
    Totals,
    Trial,
    TritonFacts,
    Usage,
    Verdict,
    Verification,
)
from cpost.model.gpu import BusySpan, GpuReading
from cpost.report import spreadsheet

MB = 10**6
MS = 10**6
S = 10**9
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&\u202egnp.\x1b[31m"
NO_ADVICE = Recommendation("peak", Advice.REFUSED, reasons=(f"the operator failed: {HOSTILE}",))
_GPUS = (Gpu("GPU-0", "A GPU"), Gpu("GPU-1", "Another GPU"))


def write_series(path: Path, samples: int, gpus: int = 0, *, gap: range = range(0), peak_mb: int = 500) -> None:
    """A series of so many samples, 10 ms apart; nothing in the gap, and its highest memory in the middle."""
    rows = [spreadsheet.series_header(gpus)]
    for n in range(samples):
        if n in gap:
            continue
        total = peak_mb * MB if n == samples // 2 else (100 + n % 50) * MB
        detail = Detail(reclaimable_bytes=20 * MB, oom_kills=int(n > samples // 2)) if n % 10 == 0 else None
        sample = Sample(n * 10 * MS, n * 9000, None, None, n * 50, n, total, total + MB, detail)
        reading = GpuReading((BusySpan(0, 1, n % 100),), 900 * MB, None, 700 * MB, None, None, 90_000 + n, 1500)
        readings = (reading if n % 5 == 0 else None,) * gpus
        rows.append(spreadsheet.series_row(sample, None if n < 20 else 50 + n % 45, 0, readings))
    path.write_text("".join(rows))


def _usage(peak_mb: int = 500, gpus: tuple[GpuUsage, ...] = (), *, sampled: bool = False) -> Usage:
    memory = Statistic(120 * MB, peak_mb * MB, 110 * MB, 150 * MB, 160 * MB)
    return Usage(
        200 * MS, Statistic(70, 94.0, 71, 93, 94), memory, (peak_mb - 20) * MB, gpus=gpus, peaks_sampled=sampled
    )


def _result(name: str, started: str = "", samples: int = 300, **given: object) -> StepResult:
    totals = Totals("kernel", 2_000_000, oom_kills=0, memory_peak_bytes=500 * MB)
    sampling = Sampling(10 * MS, samples, samples, 0, 10 * MS)
    stated = StepResult(name, Outcome.COMPLETED, "", 0, started_at=started, wall_ns=samples * 10 * MS, totals=totals)
    return replace(stated, sampling=sampling, **given)  # type: ignore[arg-type]


_ADVICE = Recommendation("peak", Advice.OK, Resources(1000, 768 * MB), reasons=("cpu: the highest window",))


def _repeated(folder: Path) -> OperatorRecord:
    """Three runs, a Triton beside each; the last run's series and server are the record's own."""
    files = ("reader_warmup1.csv", "reader_repeat1.csv", "reader_final_result.csv")
    kinds = ((RepeatKind.WARMUP, 1, 1), (RepeatKind.MEASURED, 1, 2), (RepeatKind.MEASURED, 2, 2))
    result = _result("reader", "2026-01-01T00:00:04.000Z")
    for place, name in enumerate(files):
        write_series(folder / name, 300 + 20 * place)
    write_series(folder / "reader__triton_final_result.csv", 500)
    repeats = tuple(
        Repeat(*kind, cold=not place, result=result, usage=_usage(), series_file=name)
        for place, (kind, name) in enumerate(zip(kinds, files, strict=True))
    )
    over = Spread(90, 100, 110, 2)
    served = TritonFacts("2.51", (ModelServed("double", "1", 12, 0, 24, 3, 100.0, 3200.0),))
    triton = ServerRecord(
        name="triton",
        kind=ServerKind.TRITON,
        image="triton:1",
        models=("double",),
        declared=Resources(),
        result=_result("reader__triton", "2026-01-01T00:00:02.000Z", 500, exit_code=None),
        recommendation=_ADVICE,
        usage=_usage(),
        ready_ns=S,
        idle=_usage(100),
        load=_usage(),
        triton=served,
        series_file="reader__triton_final_result.csv",
    )
    return OperatorRecord(
        operator="reader",
        image="img:1",
        declared=Resources(2000, 512 * MB),
        result=result,
        recommendation=_ADVICE,
        usage=_usage(),
        series_file=files[-1],
        repeats=repeats,
        spreads=Spreads(wall_ns=over, memory_peak_bytes=over),
        doubts=(Doubt("2 repeats are too few", "--repeat 5"),),
        servers=(triton,),
    )


def _on_gpus(folder: Path) -> OperatorRecord:
    """Known only by samples, with a gap in them; on one of two GPUs."""
    write_series(folder / "gpu_final_result.csv", 300, 2, gap=range(100, 180))
    gpus = (GpuUsage("GPU-0", True, 40, 99, 600 * MB, 700 * MB), GpuUsage("GPU-1"))
    result = _result("gpu", warnings=(f"the host was busy {HOSTILE}",))
    return OperatorRecord(
        operator="gpu",
        image="img:1",
        declared=Resources(None, 100_000 * MB, 1),
        result=replace(result, totals=Totals(ENGINE_STATS, 1, tail_ns=S)),
        recommendation=replace(_ADVICE, requests=Resources(1000, 768 * MB, 1)),
        usage=_usage(gpus=gpus, sampled=True),
        series_file="gpu_final_result.csv",
    )


def _proven(folder: Path) -> OperatorRecord:
    """Raised once and then verified; and searched for less."""
    for name in ("proven_final_result.csv", "proven_verify1.csv", "proven_verify2.csv"):
        write_series(folder / name, 200)

    def trial(verdict: Verdict, memory_mb: int, number: int, cores: int = 1) -> Trial:
        result = _result("proven", samples=200)
        limits = (Enforced("proven", Resources(cores * 1000, memory_mb * MB), 64 * MB),)
        series = f"proven_verify{number}.csv" if number else ""
        cause = "" if verdict is Verdict.HOLDS else f"killed for memory {HOSTILE}"
        return Trial(limits, verdict, cause, result, _usage(), 0.034, 0.5, None, (), series)

    tried = (trial(Verdict.BROKEN, 512, 1), trial(Verdict.HOLDS, 768, 2))
    memory = MemoryChoice((trial(Verdict.HOLDS, 640, 0), trial(Verdict.BROKEN, 320, 0)), 640 * MB, settled=True)
    cpu = CpuChoice((trial(Verdict.SLOW, 768, 0), trial(Verdict.HOLDS, 768, 0, 2)), 2000, 1000)
    return OperatorRecord(
        operator="proven",
        image="img:1",
        declared=Resources(),
        result=_result("proven", samples=200),
        recommendation=replace(_ADVICE, verified=Verdict.HOLDS),
        usage=_usage(),
        series_file="proven_final_result.csv",
        verification=Verification(Verdict.HOLDS, 2 * S, 0.1, tried),
        search=Search(2 * S, 0.1, memory, cpu),
    )


def _failed() -> OperatorRecord:
    """Killed for memory; nobody kept its series, and every word of it is hostile."""
    result = replace(
        _result(HOSTILE),
        outcome=Outcome.OOM_KILLED,
        cause=HOSTILE,
        exit_code=137,
        log_tail=(HOSTILE, "http://example.invalid/x.js"),
        totals=Totals("kernel", 1, oom_kills=3),
    )
    return OperatorRecord(HOSTILE, HOSTILE, Resources(), result, NO_ADVICE, _usage(), "../../secret.csv")


def _unmeasured() -> OperatorRecord:
    result = StepResult("nothing", Outcome.ENGINE_LOST, "the engine was lost")
    return OperatorRecord("nothing", "img:1", Resources(), result, NO_ADVICE, None, "nothing_final_result.csv")


def make_run(folder: Path) -> Run:
    """Write the run into a folder, as cpost would, and return its record."""
    shared = ServerRecord(
        name="db",
        kind=ServerKind.SERVICE,
        image="db:1",
        models=(),
        declared=Resources(),
        result=_result("pipeline__db", "2026-01-01T00:00:02.000Z", 700),
        recommendation=_ADVICE,
        usage=_usage(),
        ready_ns=S // 2,
        series_file="pipeline__db_final_result.csv",
    )
    write_series(folder / "pipeline__db_final_result.csv", 700)
    run = Run(
        schema_version=store.SCHEMA_VERSION,
        run_id="20260101T000000xab12",
        cpost_version="1",
        created_at="2026-01-01T00:00:00.000Z",
        pipeline_name=f"p {HOSTILE}",
        pipeline_file=HOSTILE,
        pipeline_digest="d",
        host=HostFacts(hostname=HOSTILE, cpus=2, gpus=_GPUS),
        options=Options(memory_limit_bytes=600 * MB, repeat=2, warmup=1),
        operators=(_repeated(folder), _on_gpus(folder), _proven(folder), _failed(), _unmeasured()),
        servers=(shared,),
        warnings=(HOSTILE,),
        stopped_by="the engine",
        ended_at="2026-01-01T00:01:00.000Z",
    )
    (folder / store.RUN_FILE).write_text(store.json_text(run))
    return run


def make_crowded(folder: Path) -> Run:
    """Write a run whose operators have long names, a verdict each, levels close together and kills side by side."""
    names = ("x" * 150, "preprocessing-of-abdominal-volumes-with-intensity-normalisation-and-resampling")
    verified = replace(_ADVICE, verified=Verdict.SLOW)
    records = []
    for place, name in enumerate(names):
        write_series(folder / f"{place}.csv", 300)
        lines = (folder / f"{place}.csv").read_text().splitlines(keepends=True)
        at = lines[0].rstrip().split(",").index("oom_kills")
        for row in range(1, len(lines)):
            cells = lines[row].rstrip("\n").split(",")
            cells[at] = str(max(0, (row - 250) // 4))
            lines[row] = ",".join(cells) + "\n"
        (folder / f"{place}.csv").write_text("".join(lines))
        ended = replace(_result(name), outcome=Outcome.OOM_KILLED, exit_code=137, cause="killed for memory")
        trials = (Trial((Enforced(name, Resources(1000, 512 * MB)),), Verdict.SLOW, "slow", _result(name), None, 0.33),)
        proof = Verification(Verdict.SLOW, 3 * S, 0.1, trials)
        declared = Resources(2000, 520 * MB)
        records.append(
            OperatorRecord(name, "img:1", declared, ended, verified, _usage(), f"{place}.csv", verification=proof)
        )
    run = Run(
        schema_version=store.SCHEMA_VERSION,
        run_id="20260101T000000xab12",
        cpost_version="1",
        created_at="2026-01-01T00:00:00.000Z",
        pipeline_name="crowded",
        pipeline_file="p.yaml",
        pipeline_digest="d",
        host=HostFacts(),
        options=Options(memory_limit_bytes=510 * MB),
        operators=tuple(records),
    )
    (folder / store.RUN_FILE).write_text(store.json_text(run))
    return run
