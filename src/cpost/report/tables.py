"""Tables for a terminal, in the shape that users of the first cpost know."""

from __future__ import annotations

import itertools
import shlex
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from tabulate import tabulate

from cpost.model import (
    Advice,
    Figure,
    Format,
    ModelServed,
    OperatorRecord,
    Outcome,
    Plan,
    Recommendation,
    Repeat,
    Resources,
    Server,
    ServerRecord,
    Spread,
    Spreads,
    Statistic,
    Step,
    StepResult,
    Trial,
    Usage,
    Verdict,
)
from cpost.model.gpu import busiest, fullest
from cpost.report.wording import UNKNOWN as _UNKNOWN
from cpost.report.wording import cpu_mark, cpu_time_mark, ending, marks, peak_mark
from cpost.terminal import visible
from cpost.units import (
    MB,
    MIB,
    format_binary,
    format_cores,
    format_cpu_time,
    format_mb,
    format_percent,
    format_seconds,
    round_up,
)

WIDTH = 60
_SERIES_HEADER = ("timestamp", "cpu_percent", "memory")
_SERIES_WIDTHS = (17, 11, 14)
_ABRIDGED_ROWS = 10
_MARKED = {Verdict.HOLDS: "verified", Verdict.SLOW: "slow", Verdict.BROKEN: "broken"}


def banner(text: str) -> str:
    """A line with the text in its middle, filled up with underscores."""
    return f"{text:_^{WIDTH}}"


def operator_summary(record: OperatorRecord) -> str:
    """The table of one operator: metric, average, maximum, resource."""
    return tabulate(_rows(record), ["Metric", "Average", "Maximum", "Resource"], tablefmt="pretty")


def spread_summary(spreads: Spreads) -> str:
    """The table of an operator's repeats: metric, minimum, median, maximum, spread (of the median)."""
    rows = [_spread_row(figure, over) for figure, over in spreads.known()]
    return tabulate(rows, ["Metric", "Minimum", "Median", "Maximum", "Spread"], tablefmt="pretty")


def comparison_table(rows: Sequence[Sequence[str]]) -> str:
    """The table of one operator in two runs: metric, first, second, change (of the first), its meaning."""
    return tabulate(rows, ["Metric", "First", "Second", "Change", "Meaning"], tablefmt="pretty")


def repeat_line(repeat: Repeat) -> str:
    """What came of one of several runs: "Repeat 2 of 5 (warm): 1.234 s, CPU 1.200 s, ..."."""
    result, usage = repeat.result, repeat.usage
    head = f"{repeat.name.capitalize()} ({'cold' if repeat.cold else 'warm'})"
    parts = [result.cause or result.outcome.value] if result.outcome is not Outcome.COMPLETED else []
    rate, at_peak = (cpu_mark(result, usage), peak_mark(result, usage)) if usage else ("", "")
    parts += [
        f"{label} {mark}{_cell(value, show)}"
        for label, value, show, mark in (
            ("time", result.wall_ns, format_seconds, ""),
            ("CPU time", result.totals.cpu_us if result.totals else None, format_cpu_time, cpu_time_mark(result)),
            ("CPU maximum", usage.cpu_pct.maximum if usage else None, format_percent, rate),
            ("memory peak", usage.memory_bytes.maximum if usage else None, format_mb, at_peak),
        )
    ]
    return f"{head}: {', '.join(parts)}"


def trial_line(trial: Trial) -> str:
    """What became of a run under limits: "Holds: 1.234 s (+0.4 %)"."""
    wall, slowdown = trial.result.wall_ns, trial.slowdown
    time = _cell(wall, format_seconds) + (f" ({slowdown * 100:+.1f} %)" if slowdown is not None else "")
    cause = f", {trial.cause}" if trial.cause else ""
    return f"{ending(trial)}: {time}{cause}"


def columns_table(columns: Mapping[str, Sequence[str]]) -> str:
    """A table by columns, without those in which nothing is known or said; empty where none is left."""
    telling = {name: cells for name, cells in columns.items() if set(cells) - {"", _UNKNOWN}}
    return tabulate(telling, "keys", tablefmt="pretty") if telling else ""


def pipeline_summary(records: Sequence[OperatorRecord], servers: Sequence[ServerRecord] = ()) -> str:
    """The final grid: every operator with its rows and its servers', failed ones marked; then shared servers."""
    blocks = [(_marked(record.operator, record.result), _rows(record)) for record in records]
    blocks += [(_marked("(shared)", server.result), _server_rows(server)) for server in servers]
    rows = [[name, *("\n".join(cells) for cells in zip(*lines, strict=True))] for name, lines in blocks]
    headers = ["Operator", "Metric", "Average", "Maximum", "Resource"]
    return tabulate(rows, headers, tablefmt="grid", disable_numparse=True)


def requests_text(requests: Resources) -> tuple[str, str]:
    """Requests as they go into a definition: ("cpu: 2", "memory: 512"), memory in whole megabytes, rounded up.

    Memory in whole MiB, which a Clara definition cannot say, is written as the other formats do: "memory: 128Mi".
    """
    cpu = f"cpu: {format_cores(requests.cpu_millicores)}" if requests.cpu_millicores is not None else _UNKNOWN
    memory = _UNKNOWN
    if requests.memory_bytes is not None and requests.memory_bytes % MB and requests.memory_bytes % MIB == 0:
        memory = f"memory: {format_binary(requests.memory_bytes)}"
    elif requests.memory_bytes is not None:
        memory = f"memory: {round_up(requests.memory_bytes, MB) // MB}"
    return cpu, memory


def series(lines: Iterable[str], *, abridged: bool) -> Iterator[str]:
    """The metrics table of one operator, line by line, from the lines of its CSV file.

    Args:
        abridged: show only the first and last rows of a long series.
    """
    rule = "+" + "+".join("-" * (width + 2) for width in _SERIES_WIDTHS) + "+"
    yield rule
    yield _series_line(_SERIES_HEADER)
    yield rule
    rows = itertools.islice(lines, 1, None)
    if not abridged:
        yield from map(_series_row, rows)
    else:
        yield from map(_series_row, itertools.islice(rows, _ABRIDGED_ROWS))
        count, last = 0, deque[str](maxlen=_ABRIDGED_ROWS)
        for line in rows:
            count += 1
            last.append(line)
        if count > len(last):
            yield _series_line(("...", f"{count - len(last)} rows", "left out"))
        yield from map(_series_row, last)
    yield rule


def plan_text(plan: Plan, images: Mapping[str, bool | None], against: Mapping[str, Sequence[str]]) -> str:
    """What a run would do, for people.

    Args:
        images: which images are here (None = no engine to ask).
        against: why operators cannot be run, by name.
    """
    pipeline = plan.pipeline
    of = "" if pipeline.format is Format.CLARA else f", format {pipeline.format.value}"
    blocks = [f"Pipeline {pipeline.name} ({len(plan.steps)} operators, in the order of execution{of})"]
    staying = {operator.name for operator in pipeline.operators if operator.long_running}
    for step in plan.steps:
        text = _step_text(step, images, against.get(step.operator, ()), pipeline.format)
        stays = f"\n   runs for    {_duration_text(step)}" if step.operator in staying else ""
        blocks.append(text + stays)
    return "\n\n".join(blocks)


def _image_text(image: str, images: Mapping[str, bool | None]) -> str:
    where = {True: "present", False: "to be pulled", None: "no engine to ask"}
    return f"{image} ({where[images.get(image)]})" if image else "(none)"


def _step_text(step: Step, images: Mapping[str, bool | None], against: Sequence[str], of: Format) -> str:
    lines = [
        f"{step.index + 1}. {step.operator}",
        f"   image       {_image_text(step.image, images)}",
        *([f"   entrypoint  {_quoted(step.entrypoint)}"] if step.entrypoint else []),
        f"   command     {_quoted(step.command) or ('(none)' if step.entrypoint else '(the image decides)')}",
        *([f"   folder      {visible(step.workdir)}"] if step.workdir else []),
        *([f"   user        {step.user}"] if step.user else []),
        *(
            f"   mount       {m.source} -> {m.target} ({'read-only' if m.read_only else 'writable'})"
            for m in step.mounts
        ),
        *(f"   variable    {name}={visible(value)}" for name, value in step.env),
        f"   reads from  {', '.join(step.upstream) or 'the payload only'}",
        *([f"   after       {', '.join(step.after)}"] if step.after else []),
        f"   declared    {_amounts_text(step.declared, of)}",
        *([f"   limits      {_amounts_text(step.limits, of)}"] if step.limits != Resources() else []),
        *(f"   copies out  {copy.path} -> {copy.folder}" for copy in step.copies),
    ]
    for server in step.servers:
        lines += _server_text(server, images, of)
    lines += [f"   cannot run  {reason}" for reason in against]
    return "\n".join(lines)


def _duration_text(step: Step) -> str:
    return "ever: --duration says how long" if step.duration_ns is None else format_seconds(step.duration_ns)


def _amounts_text(amounts: Resources, of: Format) -> str:
    cpu, memory = requests_text(amounts)
    if amounts.memory_bytes is not None and of is not Format.CLARA:
        memory = f"memory: {format_binary(amounts.memory_bytes)}"
    gpu = f"gpu: {amounts.gpu_count}" if amounts.gpu_count is not None else ""
    return ", ".join(text for text in (cpu, memory, gpu) if text not in ("", _UNKNOWN)) or "none"


def _server_text(server: Server, images: Mapping[str, bool | None], of: Format) -> list[str]:
    step = server.step
    scope = ", one for all operators" if server.shared else ""
    return [
        f"   server      {server.name}: {_image_text(step.image, images)}{scope}",
        *([f"     entrypoint {_quoted(step.entrypoint)}"] if step.entrypoint else []),
        f"     command   {_quoted(step.command) or ('(none)' if step.entrypoint else '(the image decides)')}",
        *([f"     answers   to {', '.join(step.aliases)}"] if step.aliases else []),
        *([f"     ports     {', '.join(map(str, server.ports))} (awaited)"] if server.ports else []),
        *(f"     model     {name}" for name in server.models),
        *(
            f"     mount     {m.source} -> {m.target} ({'read-only' if m.read_only else 'writable'})"
            for m in step.mounts
        ),
        *(f"     variable  {name}={visible(value)}" for name, value in step.env),
        *([f"     declared  {_amounts_text(step.declared, of)}"] if step.declared != Resources() else []),
        *([f"     limits    {_amounts_text(step.limits, of)}"] if step.limits != Resources() else []),
        *(f"     tells     {each.name}=<its address>:{each.port}" for each in server.connections),
    ]


def _rows(record: OperatorRecord) -> list[list[str]]:
    usage, advice = record.usage, record.recommendation
    cpu_resource, memory_resource = _resource_cells(advice)
    servers = [row for server in record.servers for row in _server_rows(server)]
    if usage is None:
        unknown = (_UNKNOWN, _UNKNOWN)
        return [["CPU", *unknown, cpu_resource], ["Memory", *unknown, memory_resource], *servers]
    cpu, memory = usage.cpu_pct, usage.memory_bytes
    at_least, at_peak = cpu_mark(record.result, usage), peak_mark(record.result, usage)
    return [
        ["CPU", *(at_least + _cell(value, format_percent) for value in (cpu.average, cpu.maximum)), cpu_resource],
        ["Memory", _cell(memory.average, format_mb), at_peak + _cell(memory.maximum, format_mb), memory_resource],
        *_gpu_rows(usage, advice),
        *servers,
    ]


def _server_rows(server: ServerRecord) -> list[list[str]]:
    """Under load, which it is sized by (its memory's maximum is that of its whole life), then idle.

    Where it had no load, its whole life stands in.
    """
    cpu_resource, memory_resource = _resource_cells(server.recommendation)
    whole, name, over = server.usage, server.name, "" if server.load else " (whole life)"
    busy = server.load or whole
    if whole is None or busy is None:
        unknown = (_UNKNOWN, _UNKNOWN)
        return [[f"{name}: CPU", *unknown, cpu_resource], [f"{name}: Memory", *unknown, memory_resource]]
    at_least = cpu_mark(server.result, whole)
    rows = [
        [f"{name}: CPU{over}", *(at_least + each for each in _cells(busy.cpu_pct, format_percent)), cpu_resource],
        [
            f"{name}: Memory{over}",
            _cell(busy.memory_bytes.average, format_mb),
            peak_mark(server.result, whole) + _cell(whole.memory_bytes.maximum, format_mb),
            memory_resource,
        ],
        *([f"{name}: {metric}", *cells] for metric, *cells in _gpu_rows(whole, server.recommendation)),
    ]
    if server.idle is not None:
        rows.append(
            [f"{name}: CPU idle", *(at_least + each for each in _cells(server.idle.cpu_pct, format_percent)), _UNKNOWN]
        )
        rows.append([f"{name}: Memory idle", *_cells(server.idle.memory_bytes, format_mb), _UNKNOWN])
    return rows


def served_lines(server: ServerRecord) -> list[str]:
    """What a Triton tells of its work: "model double: 12 requests, 0.10 ms in the queue and 3.20 ms computing ..."."""
    models = server.triton.models if server.triton is not None else ()
    names = [model.name for model in models]
    return [_served(model, versioned=names.count(model.name) > 1) for model in models]


def _served(model: ModelServed, *, versioned: bool) -> str:
    version = f", version {model.version}" if versioned else ""
    failed = f", {model.failures} failed" if model.failures else ""
    count = _UNKNOWN if model.requests is None else model.requests
    text = f"model {model.name}{version}: {count} request{'' if count == 1 else 's'}{failed}"
    queue, compute = (
        _UNKNOWN if us is None else f"{us / 1000:.2f} ms" for us in (model.queue_us_mean, model.compute_us_mean)
    )
    return f"{text}, on average {queue} in the queue and {compute} computing" if model.requests else text


def _cells(statistic: Statistic, show: Callable[[float], str]) -> tuple[str, str]:
    return _cell(statistic.average, show), _cell(statistic.maximum, show)


def _gpu_rows(usage: Usage, advice: Recommendation) -> list[list[str]]:
    """Where there are GPUs: the busiest one's time, the fullest one's memory."""
    if not usage.gpus:
        return []
    busy, full = busiest(usage.gpus), fullest(usage.gpus)
    count = advice.requests.gpu_count
    resource = "none" if advice.status is not Advice.OK else _UNKNOWN if count is None else f"gpu: {count}"
    times = (_UNKNOWN, _UNKNOWN)
    if busy is not None:
        times = (_available(busy.busy_average_pct), _available(busy.busy_maximum_pct))
    amounts = (full.memory_average_bytes, full.memory_peak_bytes) if full else (None, None)
    return [["GPU", *times, resource], ["GPU memory", *(_cell(amount, format_mb) for amount in amounts), _UNKNOWN]]


def _available(percent: float | None) -> str:
    """A GPU was used, and how busy it was the driver does not say: so for the instances of a divided GPU."""
    return "not available" if percent is None else format_percent(percent)


def _spread_row(figure: Figure, over: Spread) -> list[str]:
    values = (figure.show(value) for value in (over.minimum, over.median, over.maximum))
    return [figure.heading, *values, _UNKNOWN if over.share is None else f"{over.share * 100:.1f} %"]


def _resource_cells(advice: Recommendation) -> tuple[str, str]:
    if advice.status is not Advice.OK:
        return "none", "none"
    mark = f" ({_MARKED[advice.verified]})" if advice.verified is not None else ""
    cpu, memory = requests_text(advice.requests)
    return cpu + mark, memory + mark


def _marked(name: str, result: StepResult) -> str:
    """The operator's name, and below it what is wrong with its row."""
    return "\n".join([name, *(f"({mark})" for mark in marks(result))])


def _cell(value: float | None, show: Callable[[float], str]) -> str:
    return _UNKNOWN if value is None else show(value)


def _series_row(line: str) -> str:
    return _series_line(line.rstrip("\n").split(",", 3)[:3])


def _series_line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(f"{cell:^{width}}" for cell, width in zip(cells, _SERIES_WIDTHS, strict=True)) + " |"


def _quoted(command: Sequence[str]) -> str:
    """A command in one line, as a shell would read it."""
    return " ".join(shlex.quote(word) if word.isprintable() else _escaped_word(word) for word in command)


def _escaped_word(word: str) -> str:
    r"""A word with line breaks and the like: bash reads $'a\n'."""
    return f"$'{''.join(map(_escaped, word))}'"


def _escaped(char: str) -> str:
    if char in "\\'":
        return f"\\{char}"
    return f"\\u{ord(char):04x}" if "\x80" <= char <= "\x9f" else visible(char)
