"""An operator run several times: the order of things between its runs, and what the record says at any moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from builders import MB, pipeline, result, sample, server, step, totals, usage

from cpost import measurer
from cpost.errors import EngineError, HostError, Interrupted
from cpost.interrupts import Interrupts
from cpost.measure.cgroup import Hierarchies
from cpost.measure.container import Bench
from cpost.measure.servers import SharedServers
from cpost.measure.step import Measured, measure_step
from cpost.measurer import Containers, Measurer
from cpost.model import Advice, OperatorRecord, Options, Outcome, Plan, RepeatKind, Resources, Server, Step, StepResult
from cpost.outputs import OutputFolders
from cpost.repeats import Runner
from cpost.store import RunFolder

NO_GPUS: Any = SimpleNamespace(take=lambda name: [], problems=lambda name: [])
Behave = Callable[[int], StepResult]


def well(_: int) -> StepResult:
    return result(wall_ns=10**9, totals=totals(10**6, memory_peak_bytes=MB))


def failing(at: int, outcome: Outcome = Outcome.FAILED) -> Behave:
    return lambda run: result(outcome, cause="because") if run == at else well(run)


class Audience:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def repeat_begins(self, name: str) -> None:
        self.told.append(name)

    def repeat_ends(self, operator: str, repeat: Any, series: Path | None) -> None:
        self.told.append((operator, repeat.name, series.name if series else None))

    def operator_runs(self, container: str) -> None:
        self.told.append(container)

    def operator_progress(self, *_: Any) -> None:
        pass

    def server_starts(self, started: Server) -> None:
        self.told.append(f"{started.name} starts")

    def server_ready(self, *_: Any) -> None:
        pass


class Place:
    """A runner whose operator writes a file and its number of the run to its series, and behaves as told."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.metrics, self.outputs = folder / "metrics", folder / "outputs"
        self.step = step(
            operator="seg",
            output_folders=(str(self.outputs / "seg"),),
            declared=Resources(1000),
            limits=Resources(2000, 64 * MB),
            memory_limit_bytes=10**12,
            shm_bytes=2**30,
        )
        self.audience = Audience()
        self.interrupts = Interrupts()
        self.behave: Behave = well
        self.serve: Behave = well
        self.ran: list[tuple[str, int, list[str]]] = []
        self.kept: list[OperatorRecord] = []
        self.seen: list[dict[str, str]] = []
        self.folder = RunFolder(self.metrics, ["seg"], overwrite=False)
        monkeypatch.setattr(measurer, "measure_step", self.measure)

    def measure(self, run_step: Step, _: Bench, observer: Any, __: Any, *, earlier: int) -> Measured:
        out = self.outputs / "seg"
        self.ran.append((run_step.image, earlier, [path.name for path in out.iterdir()]))
        (out / f"of run {earlier}").touch()
        observer.samples(0, [sample(earlier + 1), sample(earlier + 2)])
        for each in run_step.servers:
            if not (each.shared and earlier):
                self.serve_one(observer.server(each), earlier)
        return Measured(self.behave(earlier))

    def serve_one(self, observer: Any, earlier: int) -> None:
        """A server that is idle for a second, and then under load for one, with more of everything in each run."""
        observer.ready(0)
        observer.load_began(1000 * 10**6)
        for t_ms in range(0, 2001, 10):
            busy = max(0, t_ms - 1000) * 1000 * (earlier + 1)
            observer.samples(0, [sample(t_ms + earlier, busy, (earlier + 1) * MB)])
        observer.ended(self.serve(earlier), None)

    def run(self, *, kept: bool = True, warnings: tuple[str, ...] = (), **chosen: int) -> OperatorRecord:
        bench = Bench(
            engine=None,  # type: ignore[arg-type]
            hierarchies=None,  # type: ignore[arg-type]
            sampling=None,  # type: ignore[arg-type]
            run_id="r",
            labels={},
            network="n",
            group_name=None,
            cgroup_driver="cgroupfs",
            monitored=False,
            period_ns=10**7,
            interrupts=self.interrupts,
            gpus=NO_GPUS,
        )
        options = Options(metrics_dir=str(self.metrics) if kept else None, **chosen)
        outputs = OutputFolders(self.outputs, overwrite=False)
        outputs.make(Plan(pipeline(), (self.step,)))
        subject = Containers(bench, outputs, {"img:1": "sha256:1", "img:2": "sha256:2"}, (), SharedServers(bench))
        self.measuring = Measurer(subject, self.folder.open_series, options, 8, self.audience)
        runner = Runner(subject, self.measuring, self.folder, options, self.interrupts, self.audience, self.keep)
        return runner.run(self.step, warnings)

    def keep(self, record: OperatorRecord) -> None:
        self.kept.append(record)
        self.seen.append(self.series())

    def series(self) -> dict[str, str]:
        """The files of metrics, and the time of the first sample in each."""
        found = sorted(self.metrics.glob("*.csv"))
        return {path.name: path.read_text().splitlines()[1].split(",")[3] for path in found}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    made = Place(tmp_path, monkeypatch)
    yield made
    made.folder.close()


# ---------------------------------------------------------------- a single run


def test_a_single_run_is_as_it_always_was(place: Place) -> None:
    made = place.run(warnings=("odd",))
    assert (made.repeats, made.spreads, made.doubts) == ((), None, ())
    assert made.result.warnings == ("odd",)
    assert made.result.image_id == "sha256:1"
    assert made.series_file == "seg_final_result.csv"
    assert made.recommendation.status is Advice.OK
    assert not any("repeat" in reason for reason in made.recommendation.reasons)
    assert place.audience.told == []
    assert place.kept == []
    assert list(place.series()) == ["seg_final_result.csv"]


# ---------------------------------------------------------------- several


@pytest.mark.parametrize("repeat", [1, 2])
def test_what_the_definition_requests_and_allows_is_kept(place: Place, repeat: int) -> None:
    made = place.run(repeat=repeat)
    assert (made.declared, made.declared_limits) == (Resources(1000), Resources(2000, 64 * MB))


def test_warm_ups_come_first_and_each_run_finds_empty_outputs(place: Place) -> None:
    made = place.run(repeat=3, warmup=2)
    assert place.ran == [("sha256:1", number, []) for number in range(5)]
    assert [(each.kind, each.number, each.planned, each.cold) for each in made.repeats] == [
        (RepeatKind.WARMUP, 1, 2, True),
        (RepeatKind.WARMUP, 2, 2, False),
        (RepeatKind.MEASURED, 1, 3, False),
        (RepeatKind.MEASURED, 2, 3, False),
        (RepeatKind.MEASURED, 3, 3, False),
    ]
    assert [path.name for path in (place.outputs / "seg").iterdir()] == ["of run 4"]
    assert made.result == made.repeats[-1].result
    assert made.recommendation.status is Advice.OK
    assert made.spreads is not None
    assert made.image == "img:1"


def test_each_run_keeps_its_series_under_a_name_that_stays(place: Place) -> None:
    made = place.run(repeat=2, warmup=1)
    names = ["seg_warmup1.csv", "seg_repeat1.csv", "seg_final_result.csv"]
    assert [each.series_file for each in made.repeats] == names
    assert made.series_file == "seg_final_result.csv"
    assert [place.series()[name] for name in names] == ["0.001000", "0.002000", "0.003000"]


def test_what_is_on_disk_between_the_runs_is_true(place: Place) -> None:
    place.run(repeat=3)
    ended, begun = place.kept[::2], place.kept[1::2]
    assert [len(each.repeats) for each in place.kept] == [1, 1, 2, 2]
    assert [each.series_file for each in ended] == ["seg_final_result.csv"] * 2
    assert [each.series_file for each in begun] == ["seg_repeat1.csv", "seg_repeat2.csv"]
    for record, files in zip(place.kept, place.seen, strict=True):
        named = {each.series_file: f"0.00{number}000" for number, each in enumerate(record.repeats, 1)}
        assert named == files
        assert record.recommendation.status is Advice.REFUSED
        assert f"only {len(record.repeats)} of 3 repeats" in record.recommendation.reasons[0]
        assert record.doubts == ()


@pytest.mark.parametrize(("kept", "shown"), [(True, None), (False, "seg_final_result.csv")])
def test_the_audience_is_shown_what_is_not_kept(place: Place, kept: bool, shown: str | None) -> None:
    made = place.run(repeat=2, kept=kept)
    assert place.audience.told == [
        "repeat 1 of 2",
        ("seg", "repeat 1 of 2", shown),
        "repeat 2 of 2",
        ("seg", "repeat 2 of 2", None),
    ]
    assert {each.series_file for each in made.repeats} == (
        {"seg_repeat1.csv", "seg_final_result.csv"} if kept else {""}
    )


def test_the_worst_of_the_measured_runs_decides(place: Place) -> None:
    peaks = [9000, 100, 900, 300]
    place.behave = lambda run: result(wall_ns=10**9, totals=totals(10**6, memory_peak_bytes=peaks[run] * MB))
    made = place.run(repeat=3, warmup=1)
    assert made.recommendation.requests.memory_bytes == 1024 * MB
    assert "(repeat 2 of 3)" in made.recommendation.reasons[1]
    assert made.usage is not None
    assert made.usage.memory_bytes.maximum == 900 * MB
    assert any("memory peak" in doubt.what for doubt in made.doubts)


# ---------------------------------------------------------------- an end before the last run


@pytest.mark.parametrize("outcome", [each for each in Outcome if each is not Outcome.COMPLETED])
@pytest.mark.parametrize(("at", "name"), [(0, "warm-up 1 of 1"), (1, "repeat 1 of 3"), (2, "repeat 2 of 3")])
def test_a_run_that_does_not_end_well_is_the_last(place: Place, outcome: Outcome, at: int, name: str) -> None:
    place.behave = failing(at, outcome)
    made = place.run(repeat=3, warmup=1)
    assert len(place.ran) == len(made.repeats) == at + 1
    assert made.result.outcome is outcome
    assert made.recommendation.status is Advice.REFUSED
    assert made.recommendation.reasons[0].startswith(f"{name}: ")
    assert made.series_file == "seg_final_result.csv"
    assert made.doubts == ()


def test_a_signal_between_two_runs_ends_them(place: Place) -> None:
    def signalled(run: int) -> StepResult:
        if run == 1:
            place.interrupts.deliver(15)
        return well(run)

    place.behave = signalled
    with pytest.raises(Interrupted):
        place.run(repeat=3)
    assert len(place.ran) == 2
    last = place.kept[-1]
    assert len(last.repeats) == 2
    assert last.series_file == "seg_final_result.csv"
    assert place.series()["seg_final_result.csv"] == "0.002000"
    assert [path.name for path in (place.outputs / "seg").iterdir()] == ["of run 1"]


def test_outputs_that_cannot_be_removed_end_them(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def first_outputs_stay(run: int) -> StepResult:
        monkeypatch.setattr("cpost.measure.cleanup.remove_tree", lambda _: False)
        return well(run)

    place.behave = first_outputs_stay
    with pytest.raises(HostError, match="seg is not run again"):
        place.run(repeat=3)
    assert len(place.ran) == 1
    assert place.kept[-1].series_file == "seg_final_result.csv"


# ---------------------------------------------------------------- servers


@pytest.fixture
def served(place: Place) -> Place:
    """A place whose operator has two servers, one of them shared."""
    servers = (server("web", operator="seg__web"), server("all", operator="pipeline__all", shared=True))
    place.step = replace(place.step, servers=servers)
    return place


def test_a_single_run_has_its_servers_beside_it(served: Place) -> None:
    made = served.run()
    (web,) = made.servers
    assert (web.name, web.image, web.series_file) == ("web", "img:2", "seg__web_final_result.csv")
    assert web.load is not None
    assert web.load.cpu_pct.average == pytest.approx(100, abs=1.1)
    assert web.recommendation.status is Advice.OK
    (shared,) = served.measuring.shared_records({"pipeline__all": "img:2"}, Outcome.COMPLETED)
    assert (shared.name, shared.image, shared.series_file) == ("all", "img:2", "pipeline__all_final_result.csv")
    assert shared.recommendation.status is Advice.OK
    assert served.audience.told == ["web starts", "all starts"]


def test_servers_share_what_others_had_of_the_host(served: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server of one operator as that one's run; one of several as the worst of theirs."""
    shares = iter((0.9, 0.1))
    monkeypatch.setattr(
        measurer.host.HostWatch, "judged", lambda _, one, __: replace(one, others_cpu_share=next(shares))
    )
    made = served.run(repeat=2)
    assert [each.servers[0].usage.others_cpu_share for each in made.repeats if each.servers[0].usage] == [0.9, 0.1]
    assert made.servers[0].usage is not None
    assert made.servers[0].usage.others_cpu_share == 0.9
    (shared,) = served.measuring.shared_records({"pipeline__all": "img:2"}, Outcome.COMPLETED)
    assert shared.result.others_cpu_share == 0.9


def test_each_run_has_a_fresh_server_whose_series_stays(served: Place) -> None:
    made = served.run(repeat=3, warmup=1)
    names = ["seg__web_warmup1.csv", "seg__web_repeat1.csv", "seg__web_repeat2.csv", "seg__web_final_result.csv"]
    assert [each.servers[0].series_file for each in made.repeats] == names
    assert [served.series()[name] for name in names] == ["0.000000", "0.001000", "0.002000", "0.003000"]
    assert [len(each.servers) for each in made.repeats] == [1] * 4
    assert served.audience.told.count("web starts") == 4
    assert served.audience.told.count("all starts") == 1


def test_a_server_over_repeats_is_as_its_operator_is(served: Place) -> None:
    """The median of averages and the highest of everything else, over the measured runs; the worst one decides."""
    (web,) = served.run(repeat=3, warmup=1).servers
    assert web.load is not None
    assert web.idle is not None
    assert web.usage is not None
    assert web.load.cpu_pct.average == pytest.approx(300, rel=0.02)
    assert web.load.cpu_pct.maximum == pytest.approx(400, rel=0.02)
    assert (web.load.memory_bytes.maximum, web.idle.memory_bytes.maximum) == (4 * MB, 4 * MB)
    assert web.usage.memory_bytes.maximum == MB  # its kernel's own mark
    assert web.recommendation.requests.cpu_millicores == 4000
    assert any(text.startswith("cpu: ") and "(repeat 3 of 3)" in text for text in web.recommendation.reasons)
    assert any("a server: CPU while its operator ran" in text for text in web.recommendation.reasons)


def test_what_is_on_disk_between_the_runs_names_the_servers_files(served: Place) -> None:
    served.run(repeat=2)
    ended, begun = served.kept
    assert ended.repeats[0].servers[0].series_file == "seg__web_final_result.csv"
    assert begun.repeats[0].servers[0].series_file == "seg__web_repeat1.csv"
    assert "seg__web_repeat1.csv" in served.seen[1]


@pytest.mark.parametrize("repeat", [1, 3])
def test_of_a_load_that_was_not_whole_nothing_follows(served: Place, repeat: int) -> None:
    served.behave = failing(repeat - 1)
    (web,) = served.run(repeat=repeat).servers
    assert web.recommendation.status is Advice.REFUSED
    assert web.recommendation.reasons == ("seg, which it served, did not end well",)
    (shared,) = served.measuring.shared_records({"pipeline__all": "img:2"}, Outcome.FAILED)
    assert shared.recommendation.reasons == ("an operator, which it served, did not end well",)


def test_a_server_that_failed_is_refused_for_its_own_reason(served: Place) -> None:
    served.behave, served.serve = failing(0), failing(0)
    (web,) = served.run().servers
    assert web.recommendation.reasons == ("the server failed (because)",)


def test_a_server_that_failed_in_an_earlier_repeat_is_refused(served: Place) -> None:
    """Its operator did not mind."""
    served.serve = failing(0)
    (web,) = served.run(repeat=2).servers
    assert web.recommendation.reasons == ("repeat 1 of 2: the server failed (because)",)


# ---------------------------------------------------------------- names


def test_what_is_made_for_a_later_run_has_a_name_of_its_own() -> None:
    named = []

    class Engine:
        def create(self, _: Step, name: str, *__: Any) -> str:
            named.append(name)
            raise EngineError("enough")

    engine: Any = Engine()
    nothing: Any = None
    bench = Bench(engine, nothing, nothing, "r", {}, "n", None, "cgroupfs", False, 10**7, Interrupts(), NO_GPUS)
    for index in range(2):
        for earlier in range(12):
            with pytest.raises(EngineError):
                measure_step(step(index=index), bench, nothing, nothing, earlier=earlier)
    assert named[:2] == ["cpost_r_0_a", "cpost_r_0r1_a"]
    assert len(set(named)) == 24


def test_a_later_run_s_groups_have_names_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/mountinfo").write_text("1 1 0:1 / /cg rw - cgroup2 cgroup2 rw\n")
    (tmp_path / "cg").mkdir()
    there: list[set[str]] = []

    class Engine:
        def create(self, *_: Any) -> str:
            there.append({path.name for path in (tmp_path / "cg").iterdir()})
            raise EngineError("enough")

    engine: Any = Engine()
    nothing: Any = None
    groups = Hierarchies.read(tmp_path)
    for monitored in (True, False):
        bench = Bench(engine, nothing, groups, "r", {}, "n", "g", "cgroupfs", monitored, 10**7, Interrupts(), NO_GPUS)
        for earlier in range(2):
            with pytest.raises(EngineError):
                measure_step(step(), bench, nothing, nothing, earlier=earlier)
    assert there == [{"g_0", "g_0_monitor"}, {"g_0r1", "g_0r1_monitor"}, {"g_0"}, {"g_0r1"}]
    assert not list((tmp_path / "cg").iterdir())


# ---------------------------------------------------------------- an engine elsewhere


@pytest.mark.parametrize(("source", "said"), [("kernel", ("this host was busy",)), ("engine stats", ())])
def test_how_busy_this_host_was_is_said_of_what_ran_on_it(
    monkeypatch: pytest.MonkeyPatch, source: str, said: tuple[str, ...]
) -> None:
    nothing: Any = None
    bench = Bench(nothing, nothing, nothing, "r", {}, "n", None, "cgroupfs", False, 10**7, Interrupts(), NO_GPUS)
    monkeypatch.setattr(measurer, "measure_step", lambda *_, **__: Measured(result(totals=totals(source=source))))
    busy = ("this host was busy",)
    monkeypatch.setattr(measurer.host.HostWatch, "judged", lambda _, one, __: replace(one, warnings=busy))
    made = Containers(bench, nothing, {"img:1": "sha256:1"}, (), nothing).measure(step(), nothing, 0)
    assert made.warnings == said


# ---------------------------------------------------------------- /dev/shm


@pytest.mark.parametrize(
    ("size", "peak", "full"), [(100, 100, True), (100, 99, False), (100, None, False), (0, 0, False), (0, None, False)]
)
def test_a_full_dev_shm_is_told(size: int, peak: int | None, full: bool) -> None:
    nothing: Any = None
    bench = Bench(nothing, nothing, nothing, "r", {}, "n", None, "cgroupfs", False, 10**7, Interrupts(), NO_GPUS)
    containers = Containers(bench, nothing, {}, (), nothing)
    told = list(containers.remarks(step(shm_bytes=size), usage(dev_shm_peak_bytes=peak)))
    assert [line for line in told if "/dev/shm was full" in line] == told
    assert bool(told) == full
    assert list(containers.remarks(step(shm_bytes=size), None)) == []
