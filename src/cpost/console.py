"""What a user sees while a run goes on, on a terminal or in a pipe."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from cpost import store
from cpost.model import Advice, OperatorRecord, Outcome, Repeat, Run, Sample, Server, ServerRecord, Step, Trial, Verdict
from cpost.report import searched, tables
from cpost.terminal import visible
from cpost.units import NS_PER_S, format_cpu_time, format_mb, format_percent, format_seconds

if TYPE_CHECKING:  # `cpost exec` needs no engine, and does not load its library
    from cpost.doctor import Finding
    from cpost.session import Preview

_LIVE_BEAT_NS = NS_PER_S // 5
_PLAIN_BEAT_NS = 10 * NS_PER_S
_SHOWN_LOG_LINES = 10
_UNDER_LIMITS = "under limits"
_LONG_RUN, _SHORT_RUN = re.compile(r"([ =*-])\1{7,}"), r"\1\1\1"  # of what fills up a server's wide tables


class Console:
    """Renders what the session tells; an `Observer`.

    Args:
        as_json: stdout is for the record alone, everything else goes to stderr.
        quiet: only the final table, warnings, the logs of what failed and errors.
        verbose: also host, sampling and the reasons for every number.
    """

    def __init__(self, *, as_json: bool = False, quiet: bool = False, verbose: bool = False) -> None:
        self._as_json = as_json
        self._quiet = quiet
        self._verbose = verbose
        self._out: TextIO = sys.stderr if as_json else sys.stdout
        self._live = self._out.isatty() and not quiet
        self._live_shown = False
        self._next_beat_ns = 0
        self._repeat = ""
        self._warned: set[str] = set()
        self._pulled_at = 0.0

    # ------------------------------------------------------------ the Observer

    def note(self, text: str) -> None:
        """A line for the user; left out when quiet."""
        if not self._quiet:
            self._line(text)

    def warn(self, text: str) -> None:
        """A warning, on stderr."""
        self._clear()
        self._write(sys.stderr, f"cpost: warning: {text}\n")

    def pulling(self, image: str, progress: str) -> None:
        """Progress of a pull: live on a terminal, a line at its start and end in a pipe."""
        if progress == "":
            self.note(f"Pulling image {image} ...")
        elif progress == "done":
            self.note(f"Pulled image {image}")
        elif self._live and time.monotonic() - self._pulled_at > 0.1:
            self._pulled_at = time.monotonic()
            self._show_live(f"  {progress}")

    def operator_begins(self, step: Step) -> None:
        """The banner, and what runs."""
        self._next_beat_ns = 0 if self._live else _PLAIN_BEAT_NS
        self._repeat = ""
        self._warned.clear()
        self.note("\n" + tables.banner(f"Executing Operator {step.operator}"))
        self.note("Running operator ...")
        self._detail(f"image {step.image}, memory limit {format_mb(step.memory_limit_bytes)}")

    def repeat_begins(self, name: str) -> None:
        """Which of several runs of the operator this is; progress lines name it."""
        self.note(f"Running {name} ...")
        self._next_beat_ns = 0 if self._live else _PLAIN_BEAT_NS
        self._repeat = name

    def repeat_ends(self, operator: str, repeat: Repeat, series: Path | None) -> None:
        """What came of it in one line, its metrics where they are shown at all, and what may have bent them."""
        self._clear()
        self.note(tables.repeat_line(repeat))
        if series is not None and not self._quiet:
            self._metrics_table(operator, series)
        for warning in repeat.result.warnings:
            if warning not in self._warned:  # what goes for each of them is said once
                self._warned.add(warning)
                self.warn(f"{operator}, {repeat.name}: {warning}")

    def server_starts(self, server: Server) -> None:
        """Which, and what it will serve."""
        models = f" with {', '.join(server.models)}" if server.models else ""
        self.note(f"Starting server {server.name}{models} ...")

    def server_ready(self, server: Server, after_ns: int) -> None:
        """How long it took."""
        self.note(f"Server {server.name} is ready after {format_seconds(after_ns)}")

    def trial_begins(self, operator: str, limits: str) -> None:
        """What it is limited to."""
        self.note(f"Running {operator} under limits: {limits} ...")
        self._repeat = _UNDER_LIMITS
        self._next_beat_ns = 0 if self._live else _PLAIN_BEAT_NS

    def trial_ends(self, trial: Trial) -> None:
        """What became of it, and where it did not hold, what else may be the reason."""
        self._clear()
        self.note(tables.trial_line(trial))
        for warning in trial.result.warnings if trial.verdict is not Verdict.HOLDS else ():
            self.warn(f"{trial.result.operator}, under limits: {warning}")

    def operator_runs(self, container: str) -> None:
        """The container's id; of runs under limits, which are many, it is a detail."""
        tell = self._detail if self._repeat == _UNDER_LIMITS else self.note
        tell(f"The container id is: {container}")

    def operator_progress(
        self, elapsed_ns: int, percent: float | None, sample: Sample | None, peak: int | None
    ) -> None:
        """The live line, or now and then a plain one."""
        if self._quiet or elapsed_ns < self._next_beat_ns:
            return
        memory = sample.memory_bytes if sample else None
        parts = [
            *([self._repeat] if self._repeat else []),
            format_seconds(elapsed_ns) if elapsed_ns >= NS_PER_S * 10 else f"{elapsed_ns / NS_PER_S:.1f} s",
            f"CPU {format_percent(percent)}" if percent is not None else "CPU -",
            f"memory {format_mb(memory)}" if memory is not None else "memory -",
            f"peak {format_mb(peak)}" if peak is not None else "peak -",
        ]
        text = "  " + ", ".join(parts)
        if self._live:
            self._next_beat_ns = elapsed_ns + _LIVE_BEAT_NS
            self._show_live(text)
        else:
            self._next_beat_ns = elapsed_ns + _PLAIN_BEAT_NS
            self._line(text)

    def operator_ends(self, record: OperatorRecord, series: Path, *, kept: bool) -> None:
        """Where the results are (or the results), how it ended, the summary table."""
        self._clear()
        self._results(record, series, kept=kept)
        if record.result.outcome is not Outcome.COMPLETED:
            self._failure(record)
        for warning in () if record.repeats else record.result.warnings:
            self.warn(f"{record.operator}: {warning}")
        self.note(tables.banner(f"Operator {record.operator} Summary"))
        self.note(tables.operator_summary(record))
        for server in record.servers:
            self._served(record.operator, server)
        if record.spreads is not None:
            self.note(tables.spread_summary(record.spreads))
        if record.search is not None:
            self.note(searched.summary(record.search))
        for doubt in record.doubts:
            self.warn(f"{record.operator}: {doubt.what}\n  what to do: {doubt.remedy}")
        self._sampling(record)
        for advice in (record.recommendation, *(server.recommendation for server in record.servers)):
            for reason in advice.reasons if advice.status is Advice.OK else ():
                self._detail(reason)

    def goes_on(self, record: OperatorRecord) -> bool:
        """Ask where there is somebody to ask; no otherwise, and where the answer is the end of the input."""
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            self.note(f"Stopping after {record.operator} (nobody to ask; --force cont goes on).")
            return False
        question = f"Operator {record.operator} failed. Go on with the others, which may fail without its output?"
        try:
            return click.confirm(question, err=True)
        except click.Abort:
            return False

    # ------------------------------------------------------------ the end

    def run_ends(self, run: Run) -> None:
        """The final grid with the reasons against recommendations, or the record as JSON."""
        self._clear()
        self._closing(run, grid=True)
        if self._as_json:
            self._write(sys.stdout, store.json_text(run))

    def _closing(self, run: Run, *, grid: bool) -> None:
        if run.operators and grid:
            table = tables.pipeline_summary(run.operators, run.servers)
            self._line(table if self._quiet else f"\n{table}")
        for record in run.operators:
            if record.recommendation.status is Advice.REFUSED:
                self._line(f"No recommendation for {record.operator}: {record.recommendation.reasons[0]}")
            self._without_advice(record.servers, f" of {record.operator}")
            proof = record.verification
            if proof is not None and proof.verdict is not Verdict.HOLDS:
                self._line(f"The recommendation for {record.operator} did not hold: {proof.trials[-1].cause}")
            for answer in searched.answers(record):
                self._line(answer)
        self._without_advice(run.servers, "")
        for server in run.servers:
            self._served("all operators", server)
            self._server_log(f"server {server.name}", server)
        if not run.complete:
            self.warn(f"the run is partial, it was stopped by {run.stopped_by or 'an error'}")
        elif run.stopped_by:
            self.warn(f"stopped by {run.stopped_by}: the record is as it was, but for what was verified before")
        if run.options.metrics_dir:
            folder = Path(run.options.metrics_dir).resolve()
            self.note(f"The record is in {folder / store.RUN_FILE}, the table in {folder / store.SUMMARY_FILE}")

    def plan(self, preview: Preview) -> None:
        """A plan, for people or as JSON."""
        for warning in preview.plan.pipeline.warnings:
            self.warn(warning)
        if self._as_json:
            shown = {
                "pipeline": preview.plan.pipeline,
                "steps": preview.plan.steps,
                "images_present": preview.images,
                "reasons_against": preview.reasons_against,
            }
            self._write(sys.stdout, store.json_text(shown))
        else:
            self._line(tables.plan_text(preview.plan, preview.images, preview.reasons_against))

    def finding(self, finding: Finding) -> None:
        """One line of `cpost doctor`, and its remedy."""
        self._line(f"{finding.verdict.value:<8} {finding.subject:<8} {finding.text}")
        if finding.remedy:
            self._line(f"{'':<17} what to do: {finding.remedy}")

    def announce_signal(self, signum: int, count: int) -> None:
        """Say at once that a signal has come; called in the signal's handler, so it writes without any buffer."""
        text = "stopping the operator and removing everything; once more skips its grace"
        if count > 1:
            text = "killing the operator, still removing everything"
        _announce(signum, text)

    # ------------------------------------------------------------ pieces

    def _served(self, operator: str, server: ServerRecord) -> None:
        """What a Triton has done for its operator, and what may have bent its figures."""
        for line in tables.served_lines(server):
            self.note(f"Server {server.name} served {operator}: {line}")
        for warning in server.result.warnings:
            self.warn(f"{operator}, server {server.name}: {warning}")

    def _without_advice(self, servers: Iterable[ServerRecord], of: str) -> None:
        for server in servers:
            if server.recommendation.status is Advice.REFUSED:
                self._line(f"No recommendation for server {server.name}{of}: {server.recommendation.reasons[0]}")

    def _results(self, record: OperatorRecord, series: Path, *, kept: bool) -> None:
        """Where the samples are, or the samples."""
        if kept:
            self.note(f"Results are stored in {series.resolve()}")
            earlier = [repeat.series_file for repeat in record.repeats[:-1]]
            if earlier:
                self.note(f"Its earlier runs' are beside it: {', '.join(earlier)}")
            if record.servers:
                names = ", ".join(server.series_file for server in record.servers)
                self.note(f"Its servers' are beside it: {names}")
        elif not self._quiet:
            self._metrics_table(record.operator, series)
            for server in record.servers:
                name = f"{record.operator}__{server.name}"
                self._metrics_table(name, series.with_name(f"{name}{store.SERIES_SUFFIX}"))

    def _failure(self, record: OperatorRecord) -> None:
        result = record.result
        code = f"exitcode {result.exit_code}" if result.exit_code is not None else "no exitcode"
        cause = "" if result.cause == f"exit code {result.exit_code}" else f": {result.cause}"
        self.note(f"Operator {record.operator} failed with {code}{cause}")
        if result.log_tail:
            self._log(f"The last lines of the log of {record.operator}:", result.log_tail)
        for server in record.servers:
            self._server_log(f"its server {server.name}", server)

    def _server_log(self, name: str, server: ServerRecord) -> None:
        if server.result.log_tail:
            self._log(f"The last lines of the log of {name}:", server.result.log_tail)

    def _log(self, title: str, lines: Sequence[str]) -> None:
        """The end of a log; when quiet it goes to stderr, as a warning does."""
        self._clear()
        shown = (f"  | {_LONG_RUN.sub(_SHORT_RUN, line)}" for line in lines[-_SHOWN_LOG_LINES:])
        self._write(sys.stderr if self._quiet else self._out, "".join(f"{line}\n" for line in (title, *shown)))

    def _metrics_table(self, operator: str, series: Path) -> None:
        self._line(tables.banner(f"Operator {operator} Metrics Data"))
        with series.open(encoding="utf-8") as lines:
            for line in tables.series(lines, abridged=self._out.isatty()):
                self._line(line)

    def _sampling(self, record: OperatorRecord) -> None:
        sampling, totals = record.result.sampling, record.result.totals
        if sampling is None or totals is None:
            return
        self._detail(
            f"{sampling.samples} samples, {sampling.ticks_missed} of {sampling.ticks_due} ticks missed, longest gap "
            f"{format_seconds(sampling.longest_gap_ns)}, sampler's own CPU {format_cpu_time(sampling.sampler_cpu_us)}"
        )
        if totals.startup_cpu_us is not None:
            self._detail(f"container start-up, not counted: {format_cpu_time(totals.startup_cpu_us)} CPU")

    def _detail(self, text: str) -> None:
        if self._verbose:
            self.note(f"  ({text})")

    def _line(self, text: str) -> None:
        self._clear()
        self._write(self._out, text + "\n")

    def _show_live(self, text: str) -> None:
        if not _takes_more(self._out):
            return
        width = shutil.get_terminal_size().columns - 1
        self._write(self._out, f"\r\x1b[K{text[:width]}")
        self._live_shown = True

    def _clear(self) -> None:
        if self._live_shown:
            self._live_shown = False
            self._write(self._out, "\r\x1b[K")

    def difference(self, lines: Sequence[str]) -> None:
        """A unified diff: as it is for a pipe, in colours and with nothing that steers a terminal on one."""
        if not self._out.isatty():
            self._write(self._out, "".join(lines))
            return
        for line in lines:
            shown = _printable(line)
            header = line.startswith(("--- ", "+++ "))
            colour = None if header else {"-": "red", "+": "green", "@": "cyan"}.get(line[:1])
            self._write(self._out, click.style(shown, fg=colour, bold=header or None) + "\n")

    def contents(self, text: str, data: bytes) -> None:
        """A whole file: its bytes for a pipe, its text with nothing that steers a terminal on one."""
        if self._out.isatty():
            self._write(self._out, "".join(f"{_printable(line)}\n" for line in text.splitlines()))
        else:
            self._out.buffer.write(data)
            self._out.flush()

    def told(self, text: str) -> None:
        """A line about what was done, on stderr."""
        self._write(sys.stderr, f"{text}\n")

    def _write(self, stream: TextIO, text: str) -> None:
        stream.write(text)
        stream.flush()


class CommandConsole(Console):
    """What a user sees of `cpost exec`: nothing until the command has ended, then tables, all of it on stderr.

    Args:
        as_json: the record, in place of the tables.
        quiet: only the final table (or the record), warnings and errors.
        verbose: also sampling and the reasons for every number.
    """

    def __init__(self, *, as_json: bool = False, quiet: bool = False, verbose: bool = False) -> None:
        super().__init__(as_json=True, quiet=quiet or as_json, verbose=verbose)
        self._live = False
        self._record_wanted = as_json

    def operator_begins(self, step: Step) -> None:
        """Nothing: the terminal is the command's now."""

    def operator_runs(self, container: str) -> None:
        """Its process id."""
        self._detail(container)

    def operator_progress(
        self, elapsed_ns: int, percent: float | None, sample: Sample | None, peak: int | None
    ) -> None:
        """Nothing: the terminal is the command's."""

    def run_ends(self, run: Run) -> None:
        """The summary of the one command stands already; what is left is why it has no recommendation, and where the
        results are; or the record as JSON."""
        if self._record_wanted:
            self._write(sys.stderr, store.json_text(run))
            return
        self._closing(run, grid=self._quiet)

    def announce_signal(self, signum: int, count: int) -> None:
        """See `Console.announce_signal`; Ctrl-C is the command's own to answer, so the first one needs no words."""
        if signum == signal.SIGINT and count == 1:
            return
        text = "asking the command to end; once more kills it"
        if count > (2 if signum == signal.SIGINT else 1):
            text = "killing the command"
        _announce(signum, text)

    def _metrics_table(self, operator: str, series: Path) -> None:
        """No dump of samples: the folder of --metrics_dir has them."""


def _printable(line: str) -> str:
    """A line of a file, without its end."""
    return "\t".join(visible(part) for part in line.rstrip("\r\n").split("\t"))


def _announce(signum: int, text: str) -> None:
    """Write without any buffer, as a signal's handler must."""
    try:
        os.write(2, f"\ncpost: {signal.Signals(signum).name}: {text}\n".encode())
    except OSError:
        pass  # the terminal is gone


def _takes_more(stream: TextIO) -> bool:
    """Whether a write would go through at once; a terminal that is held (Ctrl-S) must not hold up the run."""
    try:
        return bool(select.select([], [stream], [], 0)[1])
    except (OSError, ValueError):
        return True  # no file behind it
