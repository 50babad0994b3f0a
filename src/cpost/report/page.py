"""A run, or several, as one HTML page that needs nothing but itself.

Everything that a user, an image or a log may have written is escaped where it enters the page (see template.py). No
more of a series is held or drawn than a budget of points allows, so neither memory nor the page grow with its length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cpost
from cpost.model import OperatorRecord, Options, Run, ServerRecord, StepResult, Verdict
from cpost.report.glance import glance
from cpost.report.overlays import GPU_LINES, LINES, MOST_OVERLAID
from cpost.report.overview import anchor_of, state_of, summary
from cpost.report.reader import Reader
from cpost.report.sections import Source, compared_section, compared_shared, operator_section, server_section
from cpost.report.template import GENERATOR, render_page
from cpost.report.view import Cell, Column, Fact, Note, Page, Table
from cpost.report.wording import UNKNOWN
from cpost.units import MB, NS_PER_MS, format_mb, format_seconds

_STRETCHES = 60_000  # on a whole page; one comes to some 20 bytes, so that a page stays below 2 MB
_FINEST, _COARSEST = 1500, 40  # stretches of one line
_SCOPES = {"operator": "each operator with models", "pipeline": "all of them"}
_LINES, _GPU_LINES = 6, 5  # in the charts of one series alone: at most, and for each GPU


def render(sources: Sequence[Source]) -> str:
    """The page, as HTML; what cannot be read of the series is said on it.

    Args:
        sources: one run in all detail, or several with their lines one over the other.
    """
    stretches = max(_COARSEST, min(_FINEST, _STRETCHES // max(1, _lines(sources))))
    page = _of_several(sources, stretches) if len(sources) > 1 else _of_one(sources[0], stretches)
    return render_page(page)


def is_page(head: str) -> bool:
    """Whether a file that begins like this is a page of cpost's."""
    return GENERATOR in head


def _lines(sources: Sequence[Source]) -> int:
    """How many lines the page will have, at most."""
    if len(sources) > 1:
        return sum(_overlaid_lines(source.run) * _series(source.run) for source in sources)
    run = sources[0].run
    each = _LINES + _GPU_LINES * len(run.host.gpus)
    repeats = sum(min(len(record.repeats), MOST_OVERLAID) for record in run.operators)
    trials = sum(1 + len(record.verification.trials) for record in run.operators if record.verification is not None)
    return each * _series(run) + _overlaid_lines(run) * (repeats + trials)


def _overlaid_lines(run: Run) -> int:
    """Of one series of the run, laid over others."""
    return LINES + GPU_LINES * len(run.host.gpus)


def _series(run: Run) -> int:
    return sum(1 + len(record.servers) for record in run.operators) + len(run.servers)


def _of_one(source: Source, stretches: int) -> Page:
    run = source.run
    reader = Reader(source.folder, run.options, stretches)
    sections = [operator_section(record, run, reader) for record in run.operators]
    sections += [
        server_section(server, anchor_of("", server.name), run, reader, run.operators) for server in run.servers
    ]
    state, bad = _state(run)
    return Page(
        title=run.pipeline_name,
        subtitle=run.pipeline_file,
        state=state,
        bad=bad,
        facts=tuple(_facts(run)),
        notes=tuple(_notes(run)),
        glance=glance([(source.label, run)]),
        summary=summary([(source.label, run)]),
        sections=tuple(sections),
        about=(_host(run), _options(run)),
        version=cpost.__version__,
    )


def _of_several(sources: Sequence[Source], stretches: int) -> Page:
    names = dict.fromkeys(record.operator for source in sources for record in source.run.operators)
    pipelines = dict.fromkeys(source.run.pipeline_name for source in sources)
    bad = sum(_state(source.run)[1] for source in sources)
    return Page(
        title=", ".join(pipelines),
        subtitle=f"{len(sources)} runs, one over the other",
        state=f"{bad} of {len(sources)} runs not in order" if bad else "complete",
        bad=bad > 0,
        facts=tuple(Fact(source.label, _day(source.run), source.run.pipeline_name) for source in sources),
        notes=tuple(
            Note(note.kind, f"{source.label}: {note.text}", note.remedy)
            for source in sources
            for note in _notes(source.run)
        ),
        glance=glance([(source.label, source.run) for source in sources]),
        summary=summary([(source.label, source.run) for source in sources]),
        sections=(
            *(compared_section(name, sources, stretches) for name in names),
            *compared_shared(sources, stretches),
        ),
        about=tuple(
            Table(f"{source.label}: {table.caption}", table.columns, table.rows)
            for source in sources
            for table in (_host(source.run), _options(source.run))
        ),
        version=cpost.__version__,
    )


def _facts(run: Run) -> Iterator[Fact]:
    well = sum(not state_of(record.result)[1] for record in run.operators)
    yield Fact("Operators that ended well", f"{well} of {len(run.operators)}")
    yield _to_change(run)
    day, _, time = _day(run).partition(" ")
    yield Fact("Began", time or day, f"{day}, UTC" if time else "")
    walls = [result.wall_ns for record in run.operators for result in _runs(record) if result.wall_ns is not None]
    yield Fact("Operators ran for", format_seconds(sum(walls)) if walls else UNKNOWN, f"in {len(walls)} runs")
    cpus, memory = run.host.cpus, run.host.memory_bytes
    host = UNKNOWN if cpus is None else f"{cpus} CPU{'s' if cpus > 1 else ''}"
    yield Fact("Host", host, f"{memory / MB:,.0f} MB of memory" if memory is not None else "")
    yield Fact("Policy", run.options.policy, f"sampled every {run.options.period_ns / NS_PER_MS:g} ms")


def _to_change(run: Run) -> Fact:
    stated = sum(_comparable(record) for record in run.operators)
    if not stated:
        return Fact("Requests to change", UNKNOWN, "none is both declared and recommended")
    changed = sum(_differs(record) for record in run.operators)
    return Fact("Requests to change", f"{changed} of {stated}", "operators that declare any")


def _runs(record: OperatorRecord) -> Iterator[StepResult]:
    """All runs of an operator, under limits too; how long one waited for another is not in them."""
    yield from [repeat.result for repeat in record.repeats] or [record.result]
    if record.verification is not None:
        yield from (trial.result for trial in record.verification.trials)
    for found in (record.search.memory, record.search.cpu) if record.search is not None else ():
        yield from (trial.result for trial in (found.trials if found is not None else ()))


def _state(run: Run) -> tuple[str, bool]:
    """What became of all operators in a few words, and whether that is bad."""
    ended = sum(state_of(record.result)[1] for record in run.operators)
    proofs = (record.verification for record in run.operators)
    unproven = sum(proof is not None and proof.verdict is not Verdict.HOLDS for proof in proofs)
    parts = ["complete" if run.complete else "partial"]
    parts += [f"{ended} ended badly"] if ended else []
    parts += [f"{unproven} did not hold"] if unproven else []
    return ", ".join(parts), len(parts) > 1 or not run.complete


def _comparable(record: OperatorRecord | ServerRecord) -> bool:
    wanted, declared = record.recommendation.requests, record.declared
    return any(
        getattr(wanted, field) is not None and getattr(declared, field) is not None for field in declared.__slots__
    )


def _differs(record: OperatorRecord) -> bool:
    wanted, declared = record.recommendation.requests, record.declared
    pairs = ((getattr(wanted, field), getattr(declared, field)) for field in declared.__slots__)
    return any(None not in pair and pair[0] != pair[1] for pair in pairs)


def _notes(run: Run) -> Iterator[Note]:
    if not run.complete:
        yield Note("failed", f"The run is partial, it was stopped by {run.stopped_by or 'an error, or goes on still'}.")
    if not run.operators:
        yield Note("missing", "No operator was measured.")
    for warning in run.warnings:
        yield Note("warning", warning)


def _day(run: Run) -> str:
    return run.created_at[:19].replace("T", " ") or UNKNOWN


def _host(run: Run) -> Table:
    host = run.host
    rows = [
        ("host", host.hostname),
        ("kernel", f"{host.kernel} {host.architecture}".strip()),
        ("CPU model", host.cpu_model),
        ("CPUs", "" if host.cpus is None else str(host.cpus)),
        ("memory", _size(host.memory_bytes, "")),
        ("swap", _size(host.swap_bytes, "")),
        ("control groups", " ".join(filter(None, (host.cgroup_layout, host.cgroup_driver)))),
        ("engine", " ".join(filter(None, (host.engine_version, host.storage_driver)))),
        *((f"GPU {place}", f"{gpu.name} ({gpu.uuid})") for place, gpu in enumerate(host.gpus)),
        *((("GPU driver", host.gpu_driver),) if host.gpu_driver else ()),
    ]
    return _named("Host", rows)


def _options(run: Run) -> Table:
    options = run.options
    rows = [
        ("run", run.run_id),
        ("cpost", run.cpost_version),
        ("format of the definition", run.pipeline_format.value if run.pipeline_format else ""),
        ("digest of the definition", run.pipeline_digest),
        ("input", options.input_dir),
        ("policy", options.policy),
        ("period, window", f"{options.period_ns / NS_PER_MS:g} ms, {options.window_ns / NS_PER_MS:g} ms"),
        ("repeats, warm-ups", f"{options.repeat}, {options.warmup}"),
        ("verified", _verified(run)),
        ("time-out", _duration(options.timeout_ns, "none")),
        ("run for", _duration(options.duration_ns, "until each ends by itself")),
        ("memory limit", _size(options.memory_limit_bytes, "none stated")),
        ("size of /dev/shm", format_mb(options.shm_bytes)),
        ("most processes and threads", f"{options.pids_limit:,}"),
        ("GPUs", "left out (--no_gpu)" if options.no_gpu else "those that are declared"),
        ("after a failure", options.on_failure),
        *(_triton(options) if options.models_dir is not None else ()),
    ]
    return _named("Options", rows)


def _triton(options: Options) -> Iterator[tuple[str, str]]:
    yield "models", options.models_dir or ""
    yield "Triton", f"{options.triton_image}, one for {_SCOPES.get(options.triton_scope, options.triton_scope)}"
    yield "Triton's arguments", " ".join(options.triton_args) or "none"
    yield "Triton has to be ready after", format_seconds(options.triton_timeout_ns)


def _verified(run: Run) -> str:
    """By what the records hold: a run may have been verified later."""
    shares = {record.verification.max_slowdown for record in run.operators if record.verification is not None}
    return ", ".join(f"yes, at most {share:.0%} longer" for share in sorted(shares)) or "no"


def _duration(value_ns: int | None, otherwise: str) -> str:
    return otherwise if value_ns is None else format_seconds(value_ns)


def _size(value_bytes: int | None, otherwise: str) -> str:
    return otherwise if value_bytes is None else format_mb(value_bytes)


def _named(caption: str, rows: Sequence[tuple[str, str]]) -> Table:
    columns = (Column("", number=False), Column("", number=False))
    return Table(caption, columns, tuple((Cell(name), Cell(value or UNKNOWN)) for name, value in rows))
