"""Runs an operator as often as the options ask: warm-ups first, then measured repeats, one right after the other.

All runs of one operator come before the next operator, so that each reads the same inputs, and only the first of them
may find image and inputs still on the disk. Every run gets empty output folders; those of the last one stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from cpost import spread
from cpost.interrupts import Interrupts
from cpost.measurer import Measurer, Once, Subject
from cpost.model import (
    Advice,
    Granularity,
    OperatorRecord,
    Options,
    Outcome,
    Recommendation,
    Repeat,
    RepeatKind,
    ServerRecord,
    Step,
    Usage,
)
from cpost.policy import for_server, recommend, recommend_worst, sized_server
from cpost.recorder import Audience
from cpost.store import RunFolder


class RepeatAudience(Audience, Protocol):
    """Who is shown the progress of an operator's runs; told of each only where there are several."""

    def repeat_begins(self, name: str) -> None:
        """One of several runs of an operator begins; `name` is its `Repeat.name`."""

    def repeat_ends(self, operator: str, repeat: Repeat, series: Path | None) -> None:
        """It ended; `series` is to be shown now, None where its file stays or the operator's end shows it."""


class Runner:
    """Runs operators, each as often as the options say.

    Args:
        measurer: runs the subject once.
        keep: puts an operator's record on disk as it is so far; called between its runs, never for a single one.
    """

    def __init__(
        self,
        subject: Subject,
        measurer: Measurer,
        folder: RunFolder,
        options: Options,
        interrupts: Interrupts,
        audience: RepeatAudience,
        keep: Callable[[OperatorRecord], None],
    ) -> None:
        self._subject = subject
        self._measurer = measurer
        self._folder = folder
        self._options = options
        self._interrupts = interrupts
        self._audience = audience
        self._keep = keep

    def run(self, step: Step, warnings: Iterable[str] = ()) -> OperatorRecord:
        """Run a step once, or as often as the options ask; a run that does not end well is its last.

        Args:
            warnings: go into the result of each run.

        Raises:
            Interrupted: between two runs; what was kept last is then true, as it is whenever something is raised.
            CpostError: a run could not be begun or measured.
        """
        if self._options.repeat == 1 and not self._options.warmup:
            return self._once(step, warnings)
        return self._repeated(step, warnings)

    def _once(self, step: Step, warnings: Iterable[str]) -> OperatorRecord:
        cold_inputs = self._subject.cold_inputs(step)
        once = self._measurer.once(step, 0, warnings)
        advice = recommend(self._options.policy, once.result, once.usage, *_of_step(step))
        return replace(_record_of(step, once, advice, once.usage), cold_inputs=cold_inputs)

    def _repeated(self, step: Step, warnings: Iterable[str]) -> OperatorRecord:
        options, done = self._options, list[Repeat]()
        asked = [(RepeatKind.WARMUP, n, options.warmup) for n in range(1, options.warmup + 1)]
        asked += [(RepeatKind.MEASURED, n, options.repeat) for n in range(1, options.repeat + 1)]
        for kind, number, planned in asked:
            if done:
                self._make_room(step, done)
            self._audience.repeat_begins(kind.nth(number, planned))
            once = self._measurer.once(step, len(done), warnings)
            done.append(
                Repeat(kind, number, planned, not done, once.result, once.usage, once.series_file, once.servers)
            )
            if once.result.outcome is not Outcome.COMPLETED or len(done) == len(asked):
                break
            self._keep(self._record(step, done))
            self._tell(step, done[-1], shown=True)
        self._tell(step, done[-1], shown=False)
        return self._record(step, done)

    def _make_room(self, step: Step, done: list[Repeat]) -> None:
        """Before the next run: everything as it was, and the last run's series out of the way.

        The record names the moved file before a new one takes the old name: what it says is true at any moment,
        but for the few between the move and the write, when it names a file that is not there.
        """
        self._interrupts.check()
        self._subject.renew(step)
        last = done[-1]
        moved = self._folder.move_series(step.operator, last.kind, last.number)
        names = {server.name: server.step.operator for server in step.servers}
        servers = []
        for server in last.servers:
            series = self._folder.move_series(names[server.name], last.kind, last.number)
            servers.append(replace(server, series_file=self._measurer.named(series)))
        done[-1] = replace(last, series_file=self._measurer.named(moved), servers=tuple(servers))
        self._keep(self._record(step, done))

    def _record(self, step: Step, done: Sequence[Repeat]) -> OperatorRecord:
        options, last = self._options, done[-1]
        advice = recommend_worst(options.policy, done, options.repeat, *_of_step(step))
        whole = len(spread.measured(done)) == options.repeat
        return replace(
            _record_of(step, last, advice, spread.joined(done)),
            repeats=tuple(done),
            spreads=spread.spreads(done),
            doubts=spread.doubts(done) if whole else (),
            servers=tuple(self._joined(server, step, done) for server in last.servers),
        )

    def _joined(self, server: ServerRecord, step: Step, done: Sequence[Repeat]) -> ServerRecord:
        """One record for a server that was started anew for each run of its operator."""
        planned = next(each.step for each in step.servers if each.name == server.name)
        runs = [(repeat, each) for repeat in done for each in repeat.servers if each.name == server.name]

        def usage(read: Callable[[ServerRecord], Usage | None]) -> list[Repeat]:
            return [replace(repeat, result=each.result, usage=read(each), servers=()) for repeat, each in runs]

        sized = usage(lambda each: sized_server(each.usage, each.load))
        advice = recommend_worst(self._options.policy, sized, self._options.repeat, *_of_step(planned))
        refused = server.recommendation.status is Advice.REFUSED
        load = spread.joined(usage(lambda each: each.load))
        return replace(
            server,
            recommendation=server.recommendation if refused else for_server(advice, load),
            usage=spread.joined(usage(lambda each: each.usage)),
            idle=spread.joined(usage(lambda each: each.idle)),
            load=load,
        )

    def _tell(self, step: Step, repeat: Repeat, *, shown: bool) -> None:
        passing = shown and self._options.metrics_dir is None
        self._audience.repeat_ends(step.operator, repeat, self._folder.series_path(step.operator) if passing else None)


def _record_of(step: Step, run: Once | Repeat, advice: Recommendation, usage: Usage | None) -> OperatorRecord:
    """What the record of a step says however often it was run; `run` is the last one."""
    return OperatorRecord(
        operator=step.operator,
        image=step.image,
        declared=step.declared,
        declared_limits=step.limits,
        result=run.result,
        recommendation=advice,
        usage=usage,
        series_file=run.series_file,
        servers=run.servers,
        site=step.site,
    )


def _of_step(step: Step) -> tuple[int, int | None, int, Granularity]:
    """What a recommendation has to know of a step."""
    return step.memory_limit_bytes, step.declared.gpu_count, step.gpu_count, step.granularity
