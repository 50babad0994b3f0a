"""A section of the page for each operator and each server: charts, figures, reasons, warnings, the end of its log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from cpost.model import Advice, OperatorRecord, Outcome, Repeat, Resources, Run, ServerRecord, StepResult, Usage
from cpost.report.charts import Mark, Stretch
from cpost.report.details import operator_facts, operator_tables, server_facts, server_tables, spread_table
from cpost.report.figures import charts, end_marks
from cpost.report.overlays import MOST_OVERLAID, Strand, colours, columns, overlaid
from cpost.report.overview import anchor_of, state_of
from cpost.report.proofs import search_section, verified_section
from cpost.report.reader import Reader
from cpost.report.view import Log, Note, Section
from cpost.units import NS_PER_MS, parse_time_ns


@dataclass(frozen=True, slots=True)
class Source:
    """A run and where its files are.

    Attributes:
        label: tells it from the others on the page.
    """

    label: str
    run: Run
    folder: Path


def operator_section(record: OperatorRecord, run: Run, reader: Reader) -> Section:
    """One operator of one run, with its servers and its repeats."""
    series = reader.read(record.series_file, record.result)
    state, bad = state_of(record.result)
    drawn = charts(record, series, run.options, run.host.gpus, end_marks(record.result, series))
    gpus = len(run.host.gpus)
    parts = [_repeats_section(record, reader, gpus)] if len(record.repeats) > 1 else []
    if record.verification is not None:
        parts.append(verified_section(record, record.verification, reader, gpus))
    if record.search is not None:
        parts.append(search_section(record, record.search))
    parts += [
        server_section(server, anchor_of(record.operator, server.name), run, reader, [record])
        for server in record.servers
    ]
    return Section(
        title=record.operator,
        anchor=anchor_of(record.operator),
        kind=record.image,
        state=state,
        bad=bad,
        facts=operator_facts(record),
        notes=(*reader.missing(series, record.result), *_notes(record)),
        charts=drawn,
        more=operator_tables(record, run.options),
        log=_log(record.result),
        parts=tuple(parts),
    )


def server_section(
    server: ServerRecord, anchor: str, run: Run, reader: Reader, served: Sequence[OperatorRecord]
) -> Section:
    """One server; `served` are the operators that ran while it did."""
    series = reader.read(server.series_file, server.result)
    state, bad = state_of(server.result)
    ready = () if server.ready_ns is None else (Mark(server.ready_ns // NS_PER_MS, "ready"),)
    marks = (*end_marks(server.result, series), *ready)
    stretches = tuple(_stretches(server, served))
    return Section(
        title=server.name,
        anchor=anchor,
        kind=f"server ({server.kind.value}), {server.image}",
        state=state,
        bad=bad,
        facts=server_facts(server),
        notes=(*reader.missing(series, server.result), *_notes(server)),
        charts=charts(server, series, run.options, run.host.gpus, marks, stretches),
        more=server_tables(server, run.options),
        log=_log(server.result),
    )


def compared_section(name: str, sources: Sequence[Source], stretches: int) -> Section:
    """One operator over several runs, and each of its servers: a line for each run."""
    found = [
        _Found(place, source, record)
        for place, source in enumerate(sources)
        for record in source.run.operators
        if record.operator == name
    ]
    servers: dict[str, list[_Found]] = {}
    for place, source, record in found:
        for server in record.servers if isinstance(record, OperatorRecord) else ():
            servers.setdefault(server.name, []).append(_Found(place, source, server))
    parts = (_compared(each, anchor_of(name, each), runs, stretches) for each, runs in servers.items())
    return _compared(name, anchor_of(name), found, stretches, tuple(parts))


def compared_shared(sources: Sequence[Source], stretches: int) -> list[Section]:
    """Likewise, the servers that operators shared."""
    servers: dict[str, list[_Found]] = {}
    for place, source in enumerate(sources):
        for server in source.run.servers:
            servers.setdefault(server.name, []).append(_Found(place, source, server))
    return [_compared(each, anchor_of("", each), runs, stretches) for each, runs in servers.items()]


class _Found(NamedTuple):
    """What one of the runs on the page, by its place among them, says of an operator or a server."""

    place: int
    source: Source
    record: OperatorRecord | ServerRecord


def _compared(
    title: str, anchor: str, found: Sequence[_Found], stretches: int, parts: tuple[Section, ...] = ()
) -> Section:
    notes: list[Note] = []
    strands: list[Strand] = []
    drawn = found[:MOST_OVERLAID]
    gpus = max(len(each.source.run.host.gpus) for each in found)
    for colour, (_, source, record) in zip(colours(each.place for each in drawn), drawn, strict=True):
        reader = Reader(source.folder, source.run.options, stretches)
        series = reader.read(record.series_file, record.result, columns(gpus))
        held = Resources(memory_bytes=source.run.options.memory_limit_bytes)
        strands.append(Strand(source.label, colour, series, record.result, held, record.usage))
        notes += [Note(note.kind, f"{source.label}: {note.text}") for note in reader.missing(series, record.result)]
    for _, source, record in found:
        notes += [Note(note.kind, f"{source.label}: {note.text}", note.remedy) for note in _notes(record)]
    return Section(
        title=title,
        anchor=anchor,
        kind=", ".join(dict.fromkeys(each.record.image for each in found)),
        notes=(*notes, *_not_drawn(len(found), "runs")),
        charts=overlaid(strands, gpus),
        parts=parts,
    )


def _repeats_section(record: OperatorRecord, reader: Reader, gpus: int) -> Section:
    chosen = _telling(record.repeats)
    held = Resources(memory_bytes=reader.options.memory_limit_bytes)
    strands = [
        Strand(
            name=repeat.name,
            colour=colour,
            series=reader.read(repeat.series_file, repeat.result, columns(gpus)),
            result=repeat.result,
            limits=held,
            usage=repeat.usage,
        )
        for colour, repeat in enumerate(chosen)
    ]
    notes = [
        Note(note.kind, f"{strand.name}: {note.text}")
        for strand in strands
        for note in reader.missing(strand.series, strand.result)
    ]
    return Section(
        title=f"{len(record.repeats)} runs of {record.operator}, one over the other",
        anchor=f"{anchor_of(record.operator)}--repeats",
        notes=(*notes, *_not_drawn(len(record.repeats), "runs")),
        tables=(spread_table(record.spreads),) if record.spreads is not None else (),
        charts=overlaid(strands, gpus),
    )


def _telling(repeats: Sequence[Repeat]) -> list[Repeat]:
    """As many as a chart can hold: those of the highest memory and CPU, the last, and then the first ones."""
    if len(repeats) <= MOST_OVERLAID:
        return list(repeats)

    def most(usage: Usage | None, *, memory: bool) -> float:
        statistic = (usage.memory_bytes if memory else usage.cpu_pct) if usage else None
        return (statistic.maximum if statistic else None) or 0

    places = range(len(repeats))
    first = [max(places, key=lambda at: most(repeats[at].usage, memory=memory)) for memory in (True, False)]
    chosen = list(dict.fromkeys([*first, len(repeats) - 1, *places]))[:MOST_OVERLAID]
    return [repeats[at] for at in sorted(chosen)]


def _not_drawn(count: int, what: str) -> list[Note]:
    if count <= MOST_OVERLAID:
        return []
    return [Note("missing", f"{MOST_OVERLAID} of {count} {what} are drawn; the tables are about all of them")]


def _stretches(server: ServerRecord, served: Sequence[OperatorRecord]) -> Iterator[Stretch]:
    """Start, idle, and load, which is while an operator ran; times are told apart by the wall clock."""
    if server.ready_ns is None:
        return
    ready_ms = server.ready_ns // NS_PER_MS
    yield Stretch(0, ready_ms, "start", "start")
    before_ms = ready_ms
    began_ns = parse_time_ns(server.result.started_at)
    for name, result in _times(served):
        at_ns = parse_time_ns(result.started_at)
        if began_ns is None or at_ns is None or result.wall_ns is None:
            continue
        from_ms, to_ms = (at_ns - began_ns) // NS_PER_MS, (at_ns - began_ns + result.wall_ns) // NS_PER_MS
        if from_ms > before_ms:
            yield Stretch(before_ms, from_ms, "idle", "idle")
        if to_ms > max(from_ms, 0):
            yield Stretch(max(from_ms, 0), to_ms, name, "load")
        before_ms = max(before_ms, to_ms)


def _times(served: Sequence[OperatorRecord]) -> list[tuple[str, StepResult]]:
    """When each operator ran; of one alone, its last run, which is what its servers' series are of."""
    if len(served) == 1:
        return [("load", served[0].result)]
    runs = [
        (f"{record.operator} ran", result)
        for record in served
        for result in ([repeat.result for repeat in record.repeats] or [record.result])
    ]
    return sorted(runs, key=lambda run: parse_time_ns(run[1].started_at) or 0)


def _notes(record: OperatorRecord | ServerRecord) -> Iterator[Note]:
    result, advice = record.result, record.recommendation
    refused = advice.status is not Advice.OK
    if result.outcome is not Outcome.COMPLETED and result.cause:
        yield Note("failed", f"It ended badly: {result.cause}.")
    for reason in advice.reasons:
        yield Note("refused", f"No recommendation: {reason}") if refused else Note("reason", reason)
    if isinstance(record, OperatorRecord):
        for doubt in record.doubts:
            yield Note("warning", doubt.what, doubt.remedy)
    seen = [warning for repeat in getattr(record, "repeats", ()) for warning in repeat.result.warnings]
    for warning in dict.fromkeys((*seen, *result.warnings)):
        yield Note("warning", warning)


def _log(result: StepResult) -> Log | None:
    if result.outcome is Outcome.COMPLETED or not result.log_tail:
        return None
    return Log(f"The last lines of the log of {result.operator}", result.log_tail)
