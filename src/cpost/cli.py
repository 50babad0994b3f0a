"""The command line: options in, session calls, rendering, exit codes.

Only click and light modules are imported at the top, so that `cpost --help` answers at once.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

import cpost
from cpost import streams
from cpost.cli_options import (
    MEMORY_LIMIT,
    PATH,
    PERIOD,
    TIMEOUT,
    WINDOW,
    chosen_for_triton,
    format_options,
    measuring_options,
    named,
    options_of,
    output_options,
    slowdown_option,
    triton_options,
)
from cpost.errors import CpostError, DefinitionError, ExitCode, HostError, Interrupted, StoreError, UsageError
from cpost.verdicts import check, compare

if TYPE_CHECKING:
    from cpost.console import Console
    from cpost.interrupts import Interrupts
    from cpost.model import Run

_STDOUT = Path("-")
_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class _RunByDefault(click.Group):
    """A first word that is no verb means `run`, as users of the first cpost know it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args:
            click.echo(ctx.get_help(), err=True)
            ctx.exit(ExitCode.USAGE)
        if args[0] not in self.commands and args[0] not in ("-h", "--help", "--version"):
            self._require_file(args[0], alone=len(args) == 1)
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def _require_file(self, word: str, *, alone: bool) -> None:
        """Refuse a first word that is neither an option nor a file, where it is all there is or looks like a verb."""
        if word.startswith("-") or os.access(word, os.F_OK):
            return
        close = difflib.get_close_matches(word, self.commands, n=1)
        if alone or (close and word.isalpha()):
            hint = f"did you mean `cpost {close[0]}`?" if close else "cpost PIPELINE INPUT, or cpost --help"
            raise UsageError(f"{word} is no verb of cpost and no file", hint)


@click.group(cls=_RunByDefault, context_settings=_CONTEXT)
@click.version_option(cpost.__version__, prog_name="cpost")
def cli() -> None:
    """Measure what the containers of a pipeline really need, and recommend resource requests.

    \b
    cpost PIPELINE INPUT              size every operator of a pipeline (short for: cpost run)
    cpost exec -- COMMAND             size one command, without a container
    cpost plan PIPELINE [INPUT]       show what would be run, without running it
    cpost verify RUN_DIR              run it again under what was recommended
    cpost search PIPELINE INPUT       find the smallest memory and the right number of cores
    cpost check RUN_DIR [FILE]        fail where declared requests do not fit what was needed
    cpost compare RUN_A RUN_B         show what differs between two runs
    cpost apply RUN_DIR FILE          put what a run recommends into your own file
    cpost report RUN_DIR...           make the page of earlier runs, several beside one another
    cpost doctor                      check this host
    cpost clean                       remove what killed runs left on it

    Exit codes: 0 ok, 1 an operator failed, 2 usage or definition, 3 a gate failed, 4 time-out, 5 environment,
    130 interrupted (143 by SIGTERM, 129 by SIGHUP).
    """


@cli.command()
@click.argument("pipeline", type=PATH)
@click.argument("input_dir", metavar="INPUT", type=PATH)
@output_options
@measuring_options
@click.option("--verify", is_flag=True, help="Run each operator once more, with what was recommended as its limits.")
@slowdown_option
@format_options
def run(pipeline: Path, *, as_json: bool, quiet: bool, verbose: bool, **chosen: Any) -> None:
    """Run every operator of PIPELINE on the payload folder INPUT, measure it, and recommend requests."""
    from cpost import session

    options = options_of(chosen)
    _run(partial(session.size_pipeline, pipeline, options), as_json=as_json, quiet=quiet, verbose=verbose)


def _run(
    job: Callable[[Console, Interrupts], Run], *, as_json: bool, quiet: bool, verbose: bool, proving: bool = False
) -> NoReturn:
    """Do what runs a pipeline, with a console that looks on and signals taken note of, and end as the run did."""
    from cpost.console import Console
    from cpost.interrupts import Interrupts

    console = Console(as_json=as_json, quiet=quiet, verbose=verbose)
    interrupts = Interrupts(console.announce_signal)
    with interrupts.installed():
        result = job(console, interrupts)
    _exit(result, interrupts.signum, proving=proving)


def _exit(result: Run, signum: int | None, *, proving: bool) -> NoReturn:
    from cpost import session

    code = 128 + signum if signum is not None else session.exit_code(result, proving=proving)
    if code == ExitCode.ENVIRONMENT:
        raise HostError(
            f"the engine was lost while {result.operators[-1].operator} ran",
            "see that it runs (docker version), then start again; `cpost clean` removes what may be left",
        )
    sys.exit(code)


@cli.command()
@click.argument("run_dir", metavar="RUN_DIR", type=PATH)
@slowdown_option
@format_options
def verify(run_dir: Path, *, max_slowdown: float, as_json: bool, quiet: bool, verbose: bool) -> None:
    """Run a measured pipeline again, each operator under what RUN_DIR recommends for it."""
    from cpost import session

    job = partial(session.verify_run, run_dir, max_slowdown)
    _run(job, as_json=as_json, quiet=quiet, verbose=verbose, proving=True)


@cli.command()
@click.argument("pipeline", type=PATH)
@click.argument("input_dir", metavar="INPUT", type=PATH)
@click.option("--operator", "operators", multiple=True, metavar="NAME", help="Search for this operator [default: all].")
@click.option("--memory", is_flag=True, help="Find the smallest memory limit that does.")
@click.option("--cpu", is_flag=True, help="Find how run time goes with 1, 2, 4 ... cores.")
@click.option(
    "--max_runs",
    "--max-runs",
    type=click.IntRange(1, 1000),
    metavar="N",
    default=20,
    show_default=True,
    help="Runs under limits, for each operator; those that are tried twice count twice.",
)
@output_options
@measuring_options
@slowdown_option
@format_options
def search(
    pipeline: Path,
    *,
    operators: tuple[str, ...],
    memory: bool,
    cpu: bool,
    max_runs: int,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    **chosen: Any,
) -> None:
    """Find the smallest memory and the right number of cores for operators of PIPELINE; both unless one is named."""
    from cpost import session
    from cpost.search import SearchPlan

    both = not (memory or cpu)
    plan = SearchPlan(frozenset(operators), memory or both, cpu or both, max_runs)
    job = partial(session.search_pipeline, pipeline, options_of(chosen), plan)
    _run(job, as_json=as_json, quiet=quiet, verbose=verbose)


@cli.command("exec", context_settings={"allow_interspersed_args": False})
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--name", metavar="NAME", help="What it is called in tables and files [default: its program's name].")
@click.option(
    "--metrics_dir",
    "--metrics-dir",
    type=named,
    metavar="DIR",
    help="Write CSVs and the record here [default: nowhere].",
)
@click.option("--policy", type=click.Choice(["peak", "p95", "p99"]), default="peak", show_default=True, help="See run.")
@click.option("--period", type=PERIOD, default="10ms", show_default=True, help="Time between two samples.")
@click.option("--window", type=WINDOW, default="200ms", show_default=True, help="Span of one CPU rate.")
@click.option("--timeout", type=TIMEOUT, help="Stop the command after this time [default: none].")
@click.option("--memory_limit", "--memory-limit", type=MEMORY_LIMIT, help="Memory it may use [default: no limit].")
@click.option("--overwrite", is_flag=True, help="Replace earlier results in the folder named above.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print the run's record as JSON, on stderr, after the command's end."
)
@click.option("--quiet", "-q", is_flag=True, help="Print the final table and warnings only.")
@click.option("--verbose", "-v", is_flag=True, help="Print more: sampling, reasons.")
def exec_(
    command: tuple[str, ...], *, name: str | None, as_json: bool, quiet: bool, verbose: bool, **chosen: Any
) -> None:
    """Run COMMAND (put -- before it), measure it without a container, and recommend requests.

    It keeps standard input, output and error, and its exit code is cpost's; what cpost says goes to stderr.
    """
    from cpost.command_session import size_command
    from cpost.console import CommandConsole
    from cpost.interrupts import Interrupts
    from cpost.model import Options, Outcome

    console = CommandConsole(as_json=as_json, quiet=quiet, verbose=verbose)
    interrupts = Interrupts(console.announce_signal)
    options = Options(
        period_ns=chosen["period"],
        window_ns=chosen["window"],
        policy=chosen["policy"],
        timeout_ns=chosen["timeout"],
        memory_limit_bytes=chosen["memory_limit"],
        metrics_dir=chosen["metrics_dir"],
        overwrite=chosen["overwrite"],
    )
    with interrupts.installed():
        result = size_command(command, name, options, console, interrupts).operators[0].result
    sys.exit(ExitCode.TIMED_OUT if result.outcome is Outcome.TIMED_OUT else result.exit_code)


@cli.command()
@click.argument("pipeline", type=PATH)
@click.argument("input_dir", metavar="[INPUT]", required=False, type=named)
@triton_options
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
def plan(pipeline: Path, input_dir: str | None, *, as_json: bool, **chosen: Any) -> None:
    """Show what a run of PIPELINE would do, without running anything."""
    from cpost import session
    from cpost.console import Console
    from cpost.model import Options

    console = Console(as_json=as_json)
    shown = session.preview(pipeline, Options(input_dir=input_dir or "", **chosen_for_triton(chosen)))
    console.plan(shown)


@cli.command()
@click.argument("run_dir", type=PATH)
@click.argument("file", type=PATH)
@click.option("--diff", "as_diff", is_flag=True, help="Print what changes [default, unless it is written].")
@click.option("--in_place", "--in-place", is_flag=True, help="Change FILE itself.")
@click.option("--output", metavar="F", type=PATH, help="Write the result to F, a new file; - is stdout.")
def apply(run_dir: Path, file: Path, *, as_diff: bool, in_place: bool, output: Path | None) -> None:
    """Put what the run in RUN_DIR recommends into FILE: Clara, Kubernetes, Argo or Docker Compose.

    Only these values change, every other byte stays. Without --in_place or --output it prints a diff and writes
    nothing. Exit code 1: not all that is recommended could be put there, the lines on stderr say why.
    """
    from cpost import amend_session
    from cpost.console import Console
    from cpost.report.difference import amendment_line, unified

    if in_place and output is not None:
        raise UsageError("--in_place and --output exclude each other", "choose one of the two")
    to_stdout = output == _STDOUT
    if as_diff and to_stdout:
        raise UsageError("--diff and --output - both print on stdout", "choose one of the two")
    console = Console()
    proposal = amend_session.propose(run_dir, file)
    if as_diff or not (in_place or output):
        console.difference(unified(proposal.source.text, proposal.text, str(file)))
    if in_place:
        amend_session.write_in_place(proposal)
    elif to_stdout:
        console.contents(proposal.text, proposal.source.bytes_of(proposal.text))
    elif output is not None:
        amend_session.write_copy(proposal, output)
    for warning in proposal.warnings:
        console.warn(warning)
    for amendment in proposal.amendments:
        console.told(amendment_line(amendment))
    sys.exit(ExitCode.OK if proposal.complete else ExitCode.OPERATOR_FAILED)


@cli.command()
@click.argument("run_dirs", metavar="RUN_DIR...", nargs=-1, required=True, type=PATH)
@click.option("-o", "--output", metavar="FILE", type=PATH, help="Where the page goes [default: see below].")
def report(run_dirs: tuple[Path, ...], output: Path | None) -> None:
    """Make one HTML page of what cpost wrote to RUN_DIR, with charts; of several runs, one over the other.

    The page goes to RUN_DIR/report.html, or to ./report.html where there are several, and replaces an earlier one; with
    -o - it goes to stdout. It needs nothing but itself and a browser.
    """
    from cpost import publish
    from cpost.console import Console

    console = Console()
    console.note(publish.page_text(run_dirs).rstrip() if output == _STDOUT else str(publish.report(run_dirs, output)))


@cli.command()
@click.option("--dry-run", "--dry_run", is_flag=True, help="Only list what would be removed.")
def clean(*, dry_run: bool) -> None:
    """Remove what killed runs of cpost left on this host, and nothing else."""
    from cpost import session
    from cpost.console import Console
    from cpost.measure.engine import Engine

    engine, no_engine = None, None
    try:
        engine = Engine()
    except HostError as error:
        no_engine = error  # processes, control groups and folders can be cleaned all the same
    removed, failures = session.sweep(engine, dry_run=dry_run)
    console = Console()
    for item in removed:
        console.note(f"{'would remove' if dry_run else 'removed'} {item.kind} {item.name} (run {item.run_id})")
    if not removed and not failures:
        console.note(f"Nothing is left of dead runs{'' if engine else ' but, perhaps, on an engine'}.")
    for failure in failures:
        console.warn(f"could not be removed: {failure}")
    if no_engine is not None:
        raise no_engine
    sys.exit(ExitCode.ENVIRONMENT if failures else ExitCode.OK)


@cli.command()
def doctor() -> None:
    """Check this host: engine, control groups, permissions, swap, GPUs, disk."""
    from cpost.console import Console
    from cpost.doctor import Verdict, examine

    console = Console()
    failed = False
    for finding in examine():
        console.finding(finding)
        failed = failed or finding.verdict is Verdict.FAILURE
    sys.exit(ExitCode.ENVIRONMENT if failed else ExitCode.OK)


cli.add_command(check)
cli.add_command(compare)


def main() -> NoReturn:
    """The entry point; what a user or a host can cause ends in two lines on stderr, never in a traceback."""
    output = streams.prepare()
    try:
        code = _called()
        _require(output, code)
    except click.exceptions.Abort:
        _say("cpost: interrupted")
        code = 130
    except click.ClickException as error:
        context = error.ctx if isinstance(error, click.UsageError) else None
        usage = context.get_usage().removeprefix("Usage: ") if context else "cpost"
        command = context.command_path if context else "cpost"
        _show_one(error.format_message(), f"{' '.join(usage.split())}   ({command} --help says more)")
        code = error.exit_code
    except CpostError as error:
        _show(error)
        code = error.exit_code
    sys.exit(code)


def _require(output: streams.Streams, code: int) -> None:
    """Raise `StoreError` where output was lost, unless a verb has something worse to tell: then it is said, no more."""
    try:
        output.require()
    except StoreError as error:
        if code == ExitCode.OK:
            raise
        _show(error)


def _called() -> int:
    """Do what the command line says; returns the code that the verb left with."""
    try:
        # Without its standalone mode click returns the code, None where a verb left with none.
        return cli.main(prog_name="cpost", standalone_mode=False) or ExitCode.OK
    except SystemExit as left:
        return int(left.code or ExitCode.OK)


def _show(error: CpostError) -> None:
    if isinstance(error, Interrupted):
        _say("cpost: stopped before the first operator ran; nothing is left behind")
    elif isinstance(error, DefinitionError):
        for problem in error.problems:
            _show_one(str(problem), problem.hint)
    else:
        _show_one(error.message, error.hint)


def _show_one(message: str, hint: str) -> None:
    _say(f"cpost: error: {message}")
    if hint:
        _say(f"  what to do: {hint}")


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
