"""What is done to an operator around its runs under limits: what is kept, what is run again, what ends the run."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builders import MB, REFUSED, record, result, run, step, totals, usage

from cpost.errors import HostError, Interrupted
from cpost.interrupts import Interrupts
from cpost.measurer import Once
from cpost.model import Mount, OperatorRecord, Options, Outcome, Step, StepResult, Verdict
from cpost.outputs import OutputFolders
from cpost.search import SearchPlan
from cpost.store import RunFolder
from cpost.treatment import Proving, Searching, Sizing, Treatment, Workshop
from cpost.volumes import Volumes

STEP = step(operator="a", output_folders=("/out/a",), memory_limit_bytes=10**12, shm_bytes=2**30)
Behave = Callable[[Step], StepResult]


def well(wall_ns: int = 10**9) -> StepResult:
    return result(wall_ns=wall_ns, totals=totals(oom_kills=0, throttled_periods=0, memory_peak_bytes=MB))


def broken(of: Step) -> StepResult:
    """Fails under any limit."""
    return well() if of.memory_limit_bytes == STEP.memory_limit_bytes else result(Outcome.OOM_KILLED, cause="killed")


class Place:
    """A workshop whose operator behaves as told."""

    def __init__(self, folder: Path, behave: Behave, **options: Any) -> None:
        self.behave = behave
        self.kept: list[OperatorRecord] = []
        self.ran: list[tuple[str, int]] = []
        self.chilled: list[Collection[str]] = []
        self.folder = RunFolder(folder / "metrics", ["a"], overwrite=True, update=True)
        self.interrupts = Interrupts()
        given: Any = self
        self.shop = Workshop(
            subject=given,
            measurer=given,
            folder=self.folder,
            options=Options(metrics_dir=str(folder / "metrics"), **options),
            interrupts=self.interrupts,
            audience=given,
            scratch=OutputFolders(folder / "trials", overwrite=True),
            keep=self.kept.append,
            volumes=Volumes(folder / "volumes"),
            cores=2,
        )

    def once(self, of: Step, earlier: int, warnings: Any = (), opens: Any = None) -> Once:
        file = (opens or self.folder.open_series)("a", "header\n")
        file.close()
        self.ran.append((of.output_folders[0], of.memory_limit_bytes))
        return Once(self.behave(of), usage(), (), None, file.path.name)

    def cold_inputs(self, _: Step) -> tuple[str, ...]:
        return ("/in",)

    def chill(self, _: Step, cold: Collection[str]) -> None:
        self.chilled.append(cold)

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None

    def treat(self, by: Treatment) -> OperatorRecord:
        return by.treat(STEP, self.shop, ())

    def files(self) -> set[str]:
        return {path.name for path in (self.folder.path).glob("a_*.csv")}


MEASURED = record(result=well())


def proving(measured: OperatorRecord = MEASURED) -> Proving:
    return Proving(run(measured))


def test_sizing_proves_only_where_it_is_asked_to(tmp_path: Path) -> None:
    plain = Place(tmp_path / "1", lambda _: well())
    assert plain.treat(Sizing()).verification is None
    assert plain.ran == [("/out/a", 10**12)]
    asked = Place(tmp_path / "2", lambda _: well(), verify=True)
    made = asked.treat(Sizing())
    assert made.verification is not None
    assert asked.kept[0].verification is None  # what was measured is on disk before it is tried
    assert asked.ran == [("/out/a", 10**12), (str(tmp_path / "2/trials/a"), 256 * MB)]


@pytest.mark.parametrize("by", [Sizing(), proving(), Searching(SearchPlan(frozenset(), True, True, 9))])
def test_a_lost_engine_ends_the_run_and_keeps_what_was_measured(tmp_path: Path, by: Treatment) -> None:
    lost = lambda of: well() if of.memory_limit_bytes == 10**12 else result(Outcome.ENGINE_LOST, cause="no answer")  # noqa: E731
    place = Place(tmp_path, lost, verify=True)
    with pytest.raises(HostError, match=r"the engine was lost while a ran again \(no answer\)"):
        place.treat(by)
    assert place.kept[-1].result.outcome is Outcome.COMPLETED
    assert place.kept[-1].verification is None


@pytest.mark.parametrize("by", [Sizing(), proving(), Searching(SearchPlan(frozenset(), True, True, 9))])
def test_a_signal_ends_the_run_and_keeps_what_was_measured(tmp_path: Path, by: Treatment) -> None:
    def stopped(of: Step) -> StepResult:
        if of.memory_limit_bytes == 10**12:
            return well()
        place.interrupts.signum = 2
        return result(Outcome.INTERRUPTED)

    place = Place(tmp_path, stopped, verify=True)
    with pytest.raises(Interrupted):
        place.treat(by)
    assert place.kept[-1].result == well()
    assert len(place.ran) <= 2  # it is not run once more for its outputs


def test_what_holds_writes_where_the_pipeline_does(tmp_path: Path) -> None:
    place = Place(tmp_path, lambda _: well())
    made = place.treat(proving())
    assert place.ran == [("/out/a", 256 * MB)]
    assert made.result == MEASURED.result
    assert place.files() == {"a_verify1.csv"}


def test_what_is_broken_is_run_without_limits_for_whoever_reads_it(tmp_path: Path) -> None:
    place = Place(tmp_path, broken)
    made = place.treat(proving())
    assert made.verification is not None
    assert made.verification.verdict is Verdict.BROKEN
    assert [limit for _, limit in place.ran][-1] == 10**12
    assert len(place.ran) == 5
    assert made.result == MEASURED.result


def test_what_was_stopped_is_run_without_limits_too(tmp_path: Path) -> None:
    place = Place(tmp_path, lambda of: well() if of.memory_limit_bytes == 10**12 else result(Outcome.TIMED_OUT))
    made = place.treat(proving())
    assert made.verification is not None
    assert made.verification.verdict is Verdict.SLOW
    assert place.ran[-1] == ("/out/a", 10**12)


def test_what_has_no_recommendation_is_run_without_limits(tmp_path: Path) -> None:
    place = Place(tmp_path, lambda _: well())
    refused = replace(MEASURED, recommendation=REFUSED)
    assert place.treat(proving(refused)) == refused
    assert place.ran == [("/out/a", 10**12)]


def test_a_run_without_limits_that_fails_is_told(tmp_path: Path) -> None:
    ended = result(Outcome.FAILED, cause="exit code 3", exit_code=3, log_tail=("oh",))
    place = Place(tmp_path, lambda _: ended)
    made = place.treat(proving())
    assert made.result == ended
    assert made.usage == MEASURED.usage
    assert made.recommendation.reasons[-1] == "not verified: without limits it failed, too (exit code 3)"


def test_series_of_an_earlier_longer_verification_go(tmp_path: Path) -> None:
    before = Place(tmp_path, broken)
    before.treat(proving())
    before.folder.close()
    assert before.files() == {f"a_verify{number}.csv" for number in range(1, 5)}  # not of the run without limits
    for name in ("a_verify6.csv", "b_verify2.csv", "a_search2.csv", "a_final_result.csv"):
        (tmp_path / "metrics" / name).touch()
    place = Place(tmp_path, lambda _: well())
    place.treat(proving())
    assert place.files() == {"a_verify1.csv", "a_search2.csv", "a_final_result.csv"}


@pytest.mark.parametrize(
    ("by", "cold"),
    [
        (Sizing(), ("/in",)),
        (Searching(SearchPlan(frozenset(), True, False, 1)), ("/in",)),
        (proving(replace(MEASURED, cold_inputs=("/models",))), ("/models",)),
    ],
)
def test_runs_under_limits_read_from_the_disk_what_the_one_without_did(
    tmp_path: Path, by: Treatment, cold: tuple[str, ...]
) -> None:
    place = Place(tmp_path, lambda _: well(), verify=True)
    place.treat(by)
    assert place.chilled == [cold]


def test_several_runs_without_limits_find_their_inputs_warm(tmp_path: Path) -> None:
    place = Place(tmp_path, lambda _: well(), verify=True, repeat=3)
    place.treat(Sizing())
    assert place.chilled == [()]


def test_only_the_operators_that_were_named_are_searched(tmp_path: Path) -> None:
    place = Place(tmp_path, lambda _: well())
    assert place.treat(Searching(SearchPlan(frozenset({"b"}), True, True, 9))).search is None
    assert len(place.ran) == 1
    assert place.treat(Searching(SearchPlan(frozenset({"a"}), True, False, 9))).search is not None


NO_ROOM = "a is not run again: its volume cannot be made as it was (no space left)"


class Full(Place):
    """Has room for so many runs under limits."""

    def __init__(self, folder: Path, room: int, behave: Behave, **options: Any) -> None:
        super().__init__(folder, behave, **options)
        self.room = room

    def renew(self, *_: Any) -> None:
        self.room -= 1
        if self.room < 0:
            raise HostError(NO_ROOM)


def test_without_room_for_its_volumes_an_operator_is_not_proven(tmp_path: Path) -> None:
    made = Full(tmp_path / "1", 0, lambda _: well(), verify=True).treat(Sizing())
    assert (made.verification, made.recommendation.verified) == (None, None)
    assert made.result == well()
    assert made.recommendation.reasons[-1] == f"not verified: {NO_ROOM}"
    made = Full(tmp_path / "2", 1, broken, verify=True).treat(Sizing())
    assert made.verification is not None
    assert len(made.verification.trials) == 1
    assert made.recommendation.verified is Verdict.BROKEN
    assert made.recommendation.reasons[-1] == f"not tried again: {NO_ROOM}"
    assert not [reason for reason in made.recommendation.reasons if reason.startswith("raised:")]


def test_without_room_for_its_volumes_a_search_is_not_settled(tmp_path: Path) -> None:
    made = Full(tmp_path, 0, lambda _: well()).treat(Searching(SearchPlan(frozenset(), True, True, 9)))
    assert made.search is not None
    assert made.search.memory is not None
    assert (made.search.memory.settled, made.search.memory.cause) == (False, NO_ROOM)


def test_volumes_of_the_pipeline_that_are_lost_end_the_run(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="cannot be made as it was"):
        Full(tmp_path, 0, lambda _: well()).treat(proving())


SEARCHED = SearchPlan(frozenset({"b"}), True, True, 9)


@pytest.mark.parametrize(
    ("by", "options", "kept"),
    [
        (Sizing(), {}, False),
        (Sizing(), {"verify": True}, True),
        (Sizing(), {"repeat": 2}, True),
        (Sizing(), {"warmup": 1}, True),
        (proving(), {}, True),
        (proving(replace(MEASURED, recommendation=REFUSED)), {}, False),
        (Searching(SEARCHED), {}, False),
        (Searching(SEARCHED), {"repeat": 2}, True),
        (Searching(replace(SEARCHED, operators=frozenset())), {}, True),
    ],
)
def test_volumes_are_kept_of_what_is_run_again(
    tmp_path: Path, by: Treatment, options: dict[str, Any], kept: bool
) -> None:
    place, data = Place(tmp_path, lambda _: well(), **options), tmp_path / "data"
    data.mkdir()
    of = replace(STEP, mounts=(Mount(str(data), "/data", read_only=False),), volume_folders=(str(data),))
    place.shop.volumes.keep(replace(of, operator="before"))
    by.treat(of, place.shop, ())
    assert (tmp_path / "volumes/0").exists() is kept


@pytest.mark.parametrize("by", [Sizing(), proving(), Searching(SearchPlan(frozenset(), True, False, 9))])
def test_a_signal_while_volumes_are_copied_keeps_the_runs_before(tmp_path: Path, by: Treatment) -> None:
    class Stopped(Full):
        def renew(self, *_: Any) -> None:
            self.room -= 1
            if self.room < 0:
                self.interrupts.deliver(2)
            self.interrupts.check()

    place = Stopped(tmp_path, 1, broken, verify=True)
    with pytest.raises(Interrupted):
        place.treat(by)
    last = place.kept[-1]
    memory = last.search.memory if last.search is not None else None
    trials = memory.trials if memory is not None else last.verification.trials if last.verification is not None else ()
    assert len(trials) == 1
    assert place.files() - {"a_final_result.csv"} == {trials[0].series_file}
    assert memory is None or memory.cause == "the search was interrupted"
