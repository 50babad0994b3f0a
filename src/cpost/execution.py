"""One run of a pipeline, from the first look at the engine to the last row.

What is done to each operator is a `Treatment`.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol

import cpost
from cpost import store
from cpost.copier import Copier
from cpost.errors import CpostError, HostError, Interrupted, StoreError, UsageError
from cpost.interrupts import Interrupts
from cpost.measure import cleanup, host
from cpost.measure.cgroup import Hierarchies
from cpost.measure.container import Bench
from cpost.measure.engine import Engine
from cpost.measure.gpu_watch import GpuWatch, require_gpus
from cpost.measure.guard import Guard
from cpost.measure.outcome import iso_time
from cpost.measure.owner import LABEL_VERSION, Owner, new_run_id
from cpost.measure.sampler import SamplingProcess
from cpost.measure.servers import SharedServers
from cpost.measure.stats import STATS_WARNING
from cpost.measurer import Containers, Measurer
from cpost.model import (
    OperatorRecord,
    Options,
    Outcome,
    Pipeline,
    Plan,
    Run,
    Step,
)
from cpost.outputs import OutputFolders
from cpost.plan import Place, images_of, make_plan, servers_of
from cpost.publish import publish, withdraw
from cpost.recorder import RunObserver
from cpost.report import spreadsheet
from cpost.treatment import Audience, Treatment, Workshop
from cpost.volumes import Volumes


class Observer(RunObserver, Audience, Protocol):
    """Who is told what happens in a pipeline; every call comes in the main thread."""

    def pulling(self, image: str, progress: str) -> None:
        """An image is being pulled; `progress` is empty at the start and "done" at the end."""

    def goes_on(self, record: OperatorRecord) -> bool:
        """Asked after a failed operator under `on_failure` "none": whether to go on."""


class Execution:
    """One run from the first look at the engine to the last row."""

    def __init__(
        self,
        pipeline: Pipeline,
        models: Mapping[str, tuple[str, ...]],
        options: Options,
        observer: Observer,
        interrupts: Interrupts,
        engine: Engine,
        sampling: SamplingProcess,
        treatment: Treatment,
        earlier: Run | None = None,
    ) -> None:
        self._gpus = GpuWatch()
        self._pipeline = pipeline
        self._models = models
        self._options = options
        self._observer = observer
        self._interrupts = interrupts
        self._engine = engine
        self._sampling = sampling
        self._hierarchies = Hierarchies.read()
        self._engine_facts = engine.facts()
        self._elsewhere = host.elsewhere(self._engine_facts)
        if self._elsewhere is not None:
            self._gpus.disregard(self._elsewhere)
        self._owner = Owner.current()
        self._run_id = new_run_id()
        self._name = self._owner.name(self._run_id)
        self._work = cleanup.work_folder(self._name)
        outputs = Path(options.outputs_dir).resolve() if options.outputs_dir else self._work / "outputs"
        self._volumes = Volumes(self._work / "volumes", Copier(self._interrupts, self._name))
        self._outputs = OutputFolders(outputs, overwrite=options.overwrite, volumes=self._volumes)
        self._scratch = _scratch_folder(outputs, self._work)
        self._treatment = treatment
        self._earlier = earlier
        self._host = host.host_facts(self._engine_facts, self._hierarchies, self._gpus.facts)
        self._run = self._begin()
        self._kept = self._on_disk() if earlier else None  # what is on disk
        self._measured = {record.operator: record.result for record in earlier.operators} if earlier else {}
        self._ended: dict[str, Outcome] = {}

    def _begin(self) -> Run:
        if self._earlier is not None:
            # A folder that was copied is not where the earlier run's record says.
            moved = replace(self._earlier.options, metrics_dir=self._options.metrics_dir)
            return replace(self._earlier, options=moved, stopped_by="")
        return Run(
            schema_version=store.SCHEMA_VERSION,
            run_id=self._run_id,
            cpost_version=cpost.__version__,
            created_at=iso_time(time.time_ns()),
            pipeline_name=self._pipeline.name,
            pipeline_file=str(Path(self._pipeline.file).absolute()),
            pipeline_digest=self._pipeline.digest,
            host=self._host,
            options=_lasting(self._options),
            warnings=self._pipeline.warnings,
            pipeline_format=self._pipeline.format,
            work_digest=self._pipeline.work_digest,
        )

    def run(self) -> Run:
        """Run it, and remove all that was made for it, however it ends."""
        guard = Guard(self._run_id, self._name, folders=(self._scratch,))
        try:
            self._make_work_folder()
            plan = self._plan()
            folder = self._folder(plan)
            with contextlib.closing(folder):
                self._outputs.check(plan)
                self._volumes.are_shared_by(servers_of(plan))
                self._check_gpus(plan)
                self._check_servers(plan)
                self._check_host()
                with self._interrupts.breaking():
                    image_ids = self._images(plan)
                self._check_images(plan, image_ids)
                cleanup.remove_dead_folders(self._scratch.parent)
                folder.prepare()
                self._outputs.make(plan)
                self._measure(plan, image_ids, folder)
        finally:
            self._clean_up(guard)
            self._gpus.close()
        return self._run

    # ------------------------------------------------------------ before the first operator

    def _plan(self) -> Plan:
        options = self._options
        place = Place(
            input_dir=Path(options.input_dir).resolve(),
            work_dir=self._outputs.root,
            shared_dir=self._work / "shared",
            models_dir=Path(options.models_dir).resolve() if options.models_dir else None,
            memory_bytes=self._host.memory_bytes or host.memory_bytes(),
            gpus=len(self._gpus.facts.gpus),
        )
        return make_plan(self._pipeline, place, options, self._models)

    def _make_work_folder(self) -> None:
        try:
            self._work.mkdir(mode=0o700)
        except OSError as error:
            raise StoreError(
                f"cannot make {self._work}: {error.strerror}", "free space there, or set TMPDIR"
            ) from error

    def _check_gpus(self, plan: Plan) -> None:
        if self._elsewhere is None:
            require_gpus(self._gpus.facts, [*plan.steps, *(server.step for server in servers_of(plan))])
        for problem in self._gpus.facts.problems:
            self._warn(problem)
        for step in plan.steps:
            if self._options.no_gpu and step.declared.gpu_count:
                self._warn(f"{step.operator} asks for gpu: {step.declared.gpu_count} and runs without (--no_gpu)")

    def _check_servers(self, plan: Plan) -> None:
        """Servers are asked over their containers' network, which only this host's own engine has here."""
        why = "it is rootless" if self._engine_facts.rootless else self._elsewhere
        for server in servers_of(plan) if why else ():
            raise HostError(
                f"server {server.name} cannot be reached on this engine: {why}",
                "run pipelines with models or services where the engine runs, as its own host's root",
            )
        for step in plan.steps:
            own = dict(step.env)
            for name in (each.name for server in step.servers for each in server.connections if each.name in own):
                self._warn(f"{step.operator} sets {name} itself, so it does not get its server's address there")

    def _check_host(self) -> None:
        """Times are compared with the earlier run's, which says little where that was on another machine."""
        before = self._earlier.host if self._earlier is not None else self._host
        if (before.hostname, before.cpus) != (self._host.hostname, self._host.cpus):
            self._observer.warn(
                f"the run was measured on {before.hostname} with {before.cpus} CPUs, this is "
                f"{self._host.hostname} with {self._host.cpus}: slowdowns say little"
            )

    def _images(self, plan: Plan) -> dict[str, str]:
        """Ids of all images; what is not here is pulled, all of it before the first operator starts."""
        ids: dict[str, str] = {}
        for image in images_of(plan):
            found = self._engine.image_id(image)
            if found is None:
                self._pull(image)
                found = self._engine.image_id(image)
            if found is None:
                raise HostError(f"image {image} is gone again after its pull", "see who removes images on this engine")
            ids[image] = found
        return ids

    def _check_images(self, plan: Plan, image_ids: dict[str, str]) -> None:
        """What was recommended is about the images that were measured; a tag may have moved since."""
        if self._earlier is None:
            return
        servers = (*self._earlier.servers, *(each for record in self._earlier.operators for each in record.servers))
        results = [*(each.result for each in servers), *(each.result for each in self._earlier.operators)]
        measured = {result.operator: result.image_id for result in results}
        for step in (*plan.steps, *(server.step for server in servers_of(plan))):
            before, now = measured.get(step.operator, ""), image_ids[step.image]
            if before and before != now:
                raise UsageError(
                    f"image {step.image} of {step.operator} is not what it was when it was measured",
                    "measure it again, or bring the earlier image back; another program may need something else",
                )

    def _pull(self, image: str) -> None:
        self._observer.pulling(image, "")
        self._engine.pull(image, lambda line: self._observer.pulling(image, line))
        self._observer.pulling(image, "done")

    def _folder(self, plan: Plan) -> store.RunFolder:
        path = Path(self._options.metrics_dir) if self._options.metrics_dir else self._work / "metrics"
        names = [step.operator for step in (*plan.steps, *(server.step for server in servers_of(plan)))]
        return store.RunFolder(path, names, overwrite=self._options.overwrite, update=self._earlier is not None)

    # ------------------------------------------------------------ the operators

    def _measure(self, plan: Plan, image_ids: dict[str, str], folder: store.RunFolder) -> None:
        labels = {**self._owner.labels(self._run_id), LABEL_VERSION: cpost.__version__}
        network = f"cpost_{self._run_id}"
        try:
            self._interrupts.check()
            self._engine.create_network(network, labels)
            with contextlib.ExitStack() as stack:
                beside = [stack.enter_context(SamplingProcess()) for _ in range(_most_servers(plan))]
                bench = self._bench(labels, network, tuple(beside))
                self._measure_all(plan, bench, image_ids, folder)
        except Interrupted as interrupted:
            self._run = replace(self._run, stopped_by=signal.Signals(interrupted.signum).name)
        except CpostError as error:
            self._run = replace(self._run, stopped_by=error.message)
            raise
        finally:
            self._run = replace(self._run, ended_at=iso_time(time.time_ns()))
            self._save(folder)
            self._observer.run_ends(self._run)
            if self._options.metrics_dir is not None:
                publish(self._on_disk(), folder, self._observer, self._interrupts)

    def _measure_all(self, plan: Plan, bench: Bench, image_ids: dict[str, str], folder: store.RunFolder) -> None:
        shared = SharedServers(bench)
        shop = self._workshop(bench, image_ids, folder, shared)
        try:
            for step in plan.steps:
                self._interrupts.check()
                record = self._treat(step, shop)
                if not self._after(record, folder):
                    return
            self._run = replace(self._run, complete=True)
        finally:
            shared.close()
            images = {server.step.operator: server.step.image for server in servers_of(plan)}
            ended = {record.result.outcome for record in self._run.operators}
            outcome = Outcome.COMPLETED if self._run.complete and ended == {Outcome.COMPLETED} else Outcome.FAILED
            records = shop.measurer.shared_records(images, outcome)
            if self._earlier is None:
                self._run = replace(self._run, servers=records)

    def _bench(self, labels: dict[str, str], network: str, beside: tuple[SamplingProcess, ...]) -> Bench:
        may_make = self._elsewhere is None and self._hierarchies.may_make_groups(f"{self._name}_probe")
        if self._elsewhere is not None:
            self._warn(f"the containers' counters cannot be read here ({self._elsewhere}): {STATS_WARNING}")
        elif not may_make:
            self._warn(
                "cpost may not make control groups here: first and last moments are missing from totals (root may)"
            )
        return Bench(
            engine=self._engine,
            sampling=self._sampling,
            hierarchies=self._hierarchies,
            run_id=self._run_id,
            labels=labels,
            network=network,
            group_name=self._name if may_make else None,
            cgroup_driver=self._engine_facts.cgroup_driver,
            monitored=self._engine_facts.product == "Podman",
            period_ns=self._options.period_ns,
            interrupts=self._interrupts,
            gpus=self._gpus,
            elsewhere=self._elsewhere,
            sampling_beside=beside,
            server_timeout_ns=self._options.triton_timeout_ns,
        )

    def _workshop(
        self, bench: Bench, image_ids: dict[str, str], folder: store.RunFolder, shared: SharedServers
    ) -> Workshop:
        def keep(record: OperatorRecord) -> None:
            self._put(record)
            self._save(folder)

        subject = Containers(bench, self._outputs, image_ids, self._host.gpus, shared)
        cpus = self._host.cpus or 1
        opens = folder.open_series if self._earlier is None else partial(folder.open_trial, store.VERIFY, 1)
        return Workshop(
            subject=subject,
            measurer=Measurer(subject, opens, self._options, cpus, self._observer),
            folder=folder,
            options=self._options,
            interrupts=self._interrupts,
            audience=self._observer,
            cores=cpus,
            host=self._host,
            scratch=OutputFolders(self._scratch, overwrite=True, volumes=self._volumes),
            keep=keep,
            volumes=self._volumes,
        )

    def _treat(self, step: Step, shop: Workshop) -> OperatorRecord:
        self._observer.operator_begins(step)
        self._outputs.refuse_links(step)
        record = self._treatment.treat(step, shop, self._failed_upstream(step))
        self._ended[step.operator] = record.result.outcome
        measured = self._measured.get(step.operator, record.result)
        self._put(replace(record, result=measured))
        kept = self._options.metrics_dir is not None
        if self._earlier is not None and record.result is measured:  # what bent the earlier run was told then
            record = replace(record, result=replace(record.result, warnings=()))
        self._observer.operator_ends(record, shop.folder.series_path(step.operator), kept=kept)
        return record

    def _put(self, record: OperatorRecord) -> None:
        """Into the run's record, in the place of what it held of this operator so far."""
        records = {each.operator: each for each in self._run.operators}
        self._run = replace(self._run, operators=tuple({**records, record.operator: record}.values()))

    def _failed_upstream(self, step: Step) -> list[str]:
        outcomes = self._ended
        told = {name: f"it follows {name}" for name in step.after}
        told |= {name: f"it read what {name} left" for name in step.upstream}
        failed = [text for name, text in told.items() if outcomes.get(name) is not Outcome.COMPLETED]
        return [f"{text}, which failed: its own figures may say little" for text in failed]

    def _after(self, record: OperatorRecord, folder: store.RunFolder) -> bool:
        """Put the record on disk; returns whether the run goes on after this operator."""
        self._save(folder)
        outcome = record.result.outcome
        if outcome is Outcome.COMPLETED:
            return True
        self._interrupts.check()
        if outcome is Outcome.ENGINE_LOST:
            self._run = replace(self._run, stopped_by=f"a lost engine ({record.result.cause})")
            return False
        with self._interrupts.breaking():
            on_failure = self._options.on_failure
            goes_on = on_failure == "cont" or (on_failure == "none" and self._observer.goes_on(record))
        if not goes_on:
            self._run = replace(self._run, stopped_by=f"the failure of {record.operator} ({record.result.cause})")
        return goes_on

    def _save(self, folder: store.RunFolder) -> None:
        run = self._on_disk()
        if run == self._kept:
            return  # and a page of it stays true
        if self._earlier is not None:
            withdraw(folder)
        summary = spreadsheet.summary(run.operators, run.servers, complete=run.complete)
        folder.save(run, summary, spreadsheet.trials(run.operators))
        self._kept = run

    def _on_disk(self) -> Run:
        """The run as it goes on disk: how its verification ended is nothing of the measured run's."""
        earlier = self._earlier
        if earlier is None:
            return self._run
        return replace(self._run, ended_at=earlier.ended_at, stopped_by=earlier.stopped_by, complete=earlier.complete)

    def _warn(self, text: str) -> None:
        self._run = replace(self._run, warnings=(*self._run.warnings, text))
        self._observer.warn(text)

    # ------------------------------------------------------------ after the last operator

    def _clean_up(self, guard: Guard) -> None:
        """Remove all that this run made; signals cannot cancel it. What cannot be removed yet is left to the guard."""
        images = dict.fromkeys(record.image for record in self._run.operators)
        folders = (self._scratch,)
        failures = cleanup.remove_run(self._engine, self._hierarchies, self._owner, self._run_id, images, folders)
        self._outputs.close()
        for failure in failures:
            self._observer.warn(f"could not be removed: {failure}")
        if failures and not self._engine.answers():
            self._observer.warn("a background process goes on trying for some minutes; `cpost clean` does so later")
            guard.hand_over()
        else:
            guard.release()


def _lasting(options: Options) -> Options:
    """The options with paths that lead there from any folder, as the run may be verified from another one."""
    models = options.models_dir and str(Path(options.models_dir).absolute())
    return replace(options, input_dir=str(Path(options.input_dir).absolute()), models_dir=models)


def _scratch_folder(outputs: Path, work: Path) -> Path:
    """Where runs write whose outputs nobody reads: on the outputs' file system, as another one may be memory."""
    return work / "trials" if outputs.is_relative_to(work) else outputs / f".{work.name}"


def _most_servers(plan: Plan) -> int:
    """How many servers may run at one time; the last places are for those that operators share."""
    own = max((sum(not server.shared for server in step.servers) for step in plan.steps), default=0)
    return own + sum(server.shared for server in servers_of(plan))
