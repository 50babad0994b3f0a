"""Recommendations that are proved: raised until they hold, or not; and where such runs write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builders import MB, REFUSED, advice, record, repeat, result, step, totals, usage

from cpost.limited import LimitedRuns
from cpost.measurer import Once
from cpost.model import (
    Enforced,
    HostFacts,
    Mount,
    OperatorRecord,
    Outcome,
    Recommendation,
    Resources,
    Server,
    ServerKind,
    ServerRecord,
    Step,
    StepResult,
    Trial,
    Verdict,
)
from cpost.model.definition import FINE
from cpost.outputs import OutputFolders
from cpost.store import VERIFY, RunFolder
from cpost.trials import Observed, judge
from cpost.verifier import Verifier

SECOND = 10**9
HERE = HostFacts(hostname="here", cpus=8)
STEP = step(operator="a", memory_limit_bytes=10**12, shm_bytes=2**30)
Behave = Callable[[Sequence[Enforced]], StepResult]


def well(wall_ns: int = SECOND, periods: int = 0) -> StepResult:
    return result(wall_ns=wall_ns, totals=totals(oom_kills=0, throttled_periods=periods))


def killed() -> StepResult:
    return result(Outcome.OOM_KILLED, cause="killed for memory")


class Runs:
    """Runs under limits of an operator, and of a server if there is one, that behave as told."""

    def __init__(self, own: Behave, server: Behave | None = None, cores: int = 8) -> None:
        self._own, self._server = own, server
        self.fixed = False
        self.cached: int | None = None
        self.cores = cores
        self.max_slowdown = 0.1
        self.ran: list[tuple[tuple[Enforced, ...], int, int, int | None]] = []

    def run(self, _: Step, enforced: Sequence[Enforced], number: int, earlier: int, baseline_ns: int | None) -> Trial:
        self.ran.append((tuple(enforced), number, earlier, baseline_ns))
        servers = (self._server(enforced),) if self._server else ()
        run = Observed(self._own(enforced), usage(), None, servers)
        return replace(judge(run, enforced, baseline_ns, 0.1, fixed=self.fixed), cached_input_bytes=self.cached)


def holds_from(memory_bytes: int) -> Behave:
    return lambda enforced: well() if (enforced[0].limits.memory_bytes or 0) >= memory_bytes else killed()


def verified(runs: Runs, measured: OperatorRecord | None = None, of: Step = STEP) -> OperatorRecord:
    given: Any = runs
    return Verifier(given, HERE, HERE).verify(of, measured or record(result=well()))


# ---------------------------------------------------------------- raised until it holds


def test_what_holds_at_once_stays_as_it_is_and_is_marked() -> None:
    runs = Runs(holds_from(256 * MB))
    made = verified(runs)
    assert runs.ran == [((Enforced("a", Resources(1000, 256 * MB)),), 1, 1, SECOND)]
    assert made.verification is not None
    assert (made.verification.verdict, len(made.verification.trials)) == (Verdict.HOLDS, 1)
    assert (made.verification.baseline_wall_ns, made.verification.max_slowdown) == (SECOND, 0.1)
    advised = made.recommendation
    assert (advised.requests, advised.verified) == (advice().requests, Verdict.HOLDS)
    assert advised.reasons == ("why", "verified: held in a run under these limits (1.000 s, +0.0 %)")
    assert made.result == well()


@pytest.mark.parametrize(
    ("enough", "after", "trials", "verdict"),
    [
        (257, 384, 2, Verdict.HOLDS),
        (577, 864, 4, Verdict.HOLDS),
        (865, 864, 4, Verdict.BROKEN),
    ],
)
def test_what_is_killed_gets_more_memory_at_most_three_times(
    enough: int, after: int, trials: int, verdict: Verdict
) -> None:
    made = verified(Runs(holds_from(enough * MB)))
    assert made.verification is not None
    assert (made.verification.verdict, len(made.verification.trials)) == (verdict, trials)
    assert made.recommendation.requests == made.recommendation.limits == Resources(1000, after * MB)
    assert made.recommendation.verified is verdict
    raises = [reason for reason in made.recommendation.reasons if reason.startswith("raised:")]
    assert raises == ["raised: memory of a by half: killed for memory"] * (trials - 1)
    if verdict is Verdict.BROKEN:
        assert "not verified: under these limits it failed (killed for memory)" in made.recommendation.reasons


def test_what_is_slow_for_no_limit_s_sake_is_run_once_more() -> None:
    runs = Runs(lambda _: well(2 * SECOND))
    made = verified(runs)
    assert len(runs.ran) == 2
    assert runs.ran[0][0] == runs.ran[1][0]
    assert made.recommendation.verified is Verdict.SLOW
    assert any(reason.startswith("tried again: no limit held it back") for reason in made.recommendation.reasons)


def test_what_was_slow_by_chance_holds_the_second_time() -> None:
    walls = iter([2 * SECOND, SECOND])
    runs = Runs(lambda _: well(next(walls)))
    made = verified(runs)
    assert len(runs.ran) == 2
    assert made.recommendation.verified is Verdict.HOLDS


def test_cpu_is_raised_up_to_the_host_s_cores() -> None:
    def run(enforced: Sequence[Enforced]) -> StepResult:
        return well(4 * SECOND * 1000 // (enforced[0].limits.cpu_millicores or 1), periods=5)

    measured = record(result=well(SECOND))
    made = verified(Runs(run, cores=3), measured)
    assert made.recommendation.requests.cpu_millicores == 3000
    assert made.recommendation.verified is Verdict.SLOW
    assert verified(Runs(run, cores=8), measured).recommendation.verified is Verdict.HOLDS


@pytest.mark.parametrize("outcome", [Outcome.INTERRUPTED, Outcome.ENGINE_LOST])
def test_an_end_from_outside_proves_nothing(outcome: Outcome) -> None:
    measured = record(result=well())
    assert verified(Runs(lambda _: result(outcome)), measured) == measured


def test_a_refused_recommendation_is_not_tried() -> None:
    runs, measured = Runs(lambda _: well()), record(recommendation=REFUSED)
    assert verified(runs, measured) == measured
    assert runs.ran == []


def test_repeats_give_the_time_to_compare_with() -> None:
    runs = Runs(lambda _: well())
    repeats = tuple(repeat(number, result=well(wall)) for number, wall in enumerate((3, 9, 5), 1))
    verified(runs, record(result=well(7), repeats=repeats))
    assert runs.ran[0][2:] == (3, 5)


def test_a_second_verification_takes_the_place_of_the_first() -> None:
    first = verified(Runs(holds_from(300 * MB)))
    second = verified(Runs(holds_from(0)), first)
    assert second.recommendation.reasons == ("why", "verified: held in a run under these limits (1.000 s, +0.0 %)")
    assert second.recommendation.requests.memory_bytes == 384 * MB
    assert second.verification is not None
    assert len(second.verification.trials) == 1


def test_a_limit_that_the_policy_leaves_open_stays_open() -> None:
    open_cpu = replace(advice(), limits=Resources(memory_bytes=256 * MB))
    made = verified(Runs(holds_from(300 * MB)), record(result=well(), recommendation=open_cpu))
    assert made.recommendation.requests == Resources(1000, 384 * MB)
    assert made.recommendation.limits == Resources(memory_bytes=384 * MB)


def test_less_memory_than_engines_take_is_not_asked_of_them() -> None:
    runs = Runs(lambda _: well())
    made = verified(runs, record(result=well(), recommendation=advice(memory=MB)))
    # 6 MiB, in whole MB as the format has it.
    assert runs.ran[0][0][0].limits.memory_bytes == made.recommendation.requests.memory_bytes == 7 * MB
    assert "raised: memory of a to 7.000 MB: engines start no container with less" in made.recommendation.reasons
    fine = verified(
        Runs(lambda _: well()), record(result=well(), recommendation=advice(memory=MB)), replace(STEP, granularity=FINE)
    )
    assert fine.recommendation.requests.memory_bytes == 16 * 2**20


@pytest.mark.parametrize(
    ("behave", "said"),
    [
        (lambda _: well(), "it held (1.000 s, +0.0 %)"),
        (lambda _: killed(), "it failed (killed for memory)"),
        (
            lambda _: well(2 * SECOND),
            "it was too slow (took 100 % longer, held back by its CPU limit in 0 % of the time)",
        ),
    ],
)
def test_what_the_host_cannot_give_is_neither_proven_nor_lowered(behave: Behave, said: str) -> None:
    runs = Runs(behave, cores=2)
    before = advice(8000, 512 * MB)
    small = replace(STEP, memory_limit_bytes=MB * 300)
    made = verified(runs, record(result=well(), recommendation=before), small).recommendation
    assert runs.ran[0][0][0].limits == Resources(2000, 300 * MB)
    assert (made.requests, made.limits, made.verified) == (before.requests, before.limits, None)
    assert made.reasons[1] == (f"not verified: this host cannot give as much; with a: cpu 2, memory 300.000 MB {said}")


# ---------------------------------------------------------------- what is said


def test_what_fails_every_time_keeps_its_number() -> None:
    runs = Runs(lambda _: result(Outcome.FAILED, cause="exit code 3"))
    made = verified(runs)
    assert [each[0][0].limits.memory_bytes for each in runs.ran] == [each * MB for each in (256, 256, 384, 576)]
    assert made.recommendation.requests == advice().requests
    assert made.recommendation.verified is Verdict.BROKEN
    assert "put back: it failed with more, too" in made.recommendation.reasons


def test_what_failed_once_by_chance_keeps_its_number() -> None:
    ends = iter([result(Outcome.FAILED, cause="exit code 3"), well()])
    made = verified(Runs(lambda _: next(ends)))
    assert made.recommendation.requests == advice().requests
    assert made.recommendation.verified is Verdict.HOLDS


def test_runs_before_one_that_was_cut_short_still_count() -> None:
    ends = iter([killed(), result(Outcome.INTERRUPTED)])
    made = verified(Runs(lambda _: next(ends)))
    assert made.verification is not None
    assert [each.verdict for each in made.verification.trials] == [Verdict.BROKEN]
    assert (made.recommendation.requests, made.recommendation.verified) == (
        Resources(1000, 256 * MB),
        Verdict.BROKEN,
    )


def test_a_time_that_is_not_known_is_no_proof_of_speed() -> None:
    made = verified(Runs(lambda _: well()), record(result=result(wall_ns=None)))
    assert made.recommendation.verified is Verdict.HOLDS
    assert made.recommendation.reasons[1].endswith(
        "whether it was slower is not known, as its time without limits is not"
    )


@pytest.mark.parametrize(("cached", "is_said"), [(None, False), (15 * MB, False), (16 * MB, True)])
def test_inputs_that_no_limit_paid_for_are_told(cached: int | None, is_said: bool) -> None:
    given: Any = Runs(lambda _: well())
    given.cached = cached
    said = Verifier(given, HERE, HERE).verify(STEP, record(result=well())).recommendation.reasons[1]
    assert ("; 16.000 MB of its inputs lay in the page cache, for free" in said) is is_said


def test_where_and_when_is_in_the_record() -> None:
    given: Any = Runs(lambda _: well())
    elsewhere = HostFacts(hostname="laptop", cpus=8)
    made = Verifier(given, elsewhere, HERE).verify(STEP, record(result=well()))
    assert made.verification is not None
    assert (made.verification.hostname, made.verification.cpus) == ("laptop", 8)
    assert made.verification.cpost_version
    assert made.verification.ended_at.endswith("+00:00")
    assert made.recommendation.reasons[1].endswith("; on another host (laptop), so its time says little")
    at_home = verified(Runs(lambda _: well())).recommendation.reasons[1]
    assert "another host" not in at_home


def test_a_set_time_is_not_told_as_a_slowdown() -> None:
    given: Any = Runs(lambda _: well(periods=0))
    given.fixed = True
    made = Verifier(given, HERE, HERE).verify(replace(STEP, duration_ns=SECOND), record(result=well()))
    assert made.recommendation.reasons[1] == (
        "verified: held in a run under these limits (1.000 s, held back by its CPU limit in 0 % of the time)"
    )


# ---------------------------------------------------------------- servers


def server(name: str = "s", *, shared: bool = False, **given: Any) -> Server:
    inner = step(
        operator=f"{'pipeline' if shared else 'a'}__{name}", memory_limit_bytes=10**12, shm_bytes=2**30, **given
    )
    return Server(name, ServerKind.SERVICE, inner, shared=shared)


def server_record(name: str = "s", recommendation: Recommendation | None = None) -> ServerRecord:
    return ServerRecord(
        name, ServerKind.SERVICE, "img:1", (), Resources(), well(), recommendation or advice(2000, 512 * MB)
    )


def test_a_server_is_limited_too_and_raised_alone() -> None:
    runs = Runs(
        lambda _: well(),
        lambda enforced: well() if (enforced[1].limits.memory_bytes or 0) > 600 * MB else killed(),
    )
    made = verified(runs, record(result=well(), servers=(server_record(),)), replace(STEP, servers=(server(),)))
    own, beside = runs.ran[0][0]
    assert (own.name, beside) == ("a", Enforced("a__s", Resources(2000, 512 * MB)))
    assert made.recommendation.requests == advice().requests
    (found,) = made.servers
    assert found.recommendation.requests == Resources(2000, 768 * MB)
    assert found.recommendation.verified is Verdict.HOLDS
    assert "raised: memory of a__s by half: killed for memory" in found.recommendation.reasons


def test_a_server_without_a_recommendation_runs_as_it_did() -> None:
    runs = Runs(lambda _: well(), lambda _: well())
    servers = (server_record(recommendation=REFUSED),)
    made = verified(runs, record(result=well(), servers=servers), replace(STEP, servers=(server(),)))
    assert runs.ran[0][0][1] == Enforced("a__s", Resources())
    assert made.servers[0].recommendation == REFUSED


def test_a_shared_server_is_not_limited_and_that_is_said() -> None:
    runs = Runs(lambda _: well())
    made = verified(runs, of=replace(STEP, servers=(server("triton", shared=True),)))
    assert [each.name for each in runs.ran[0][0]] == ["a"]
    assert made.recommendation.reasons[-1].endswith("; triton, which other operators share, had no limits")


# ---------------------------------------------------------------- one run under limits


class Told:
    """Notes what it is shown."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[Verdict] = []

    def trial_begins(self, operator: str, limits: str) -> None:
        self.begun.append(f"{operator}: {limits}")

    def trial_ends(self, trial: Trial) -> None:
        self.ended.append(trial.verdict)


class Measured:
    """Measurer and subject at once: notes what it is asked to run, and where that would write."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.renewed: list[Any] = []
        self.series: list[str] = []

    def renew(self, of: Step, outputs: OutputFolders | None = None) -> None:
        self.renewed.append((of.output_folders, outputs))

    def chill(self, _: Step, cold: Sequence[str]) -> int:
        return len(cold)

    def once(self, of: Step, earlier: int, warnings: Sequence[str], opens: Any) -> Once:
        self.steps.append(of)
        file = opens(of.operator, "header\n")
        file.close()
        self.series.append(file.path.name)
        return Once(well(), usage(), (), None, file.path.name)


def limited(folder: Path, scratch: OutputFolders | None, cores: int = 2) -> tuple[LimitedRuns, Measured, Told]:
    subject, told = Measured(), Told()
    given: Any = subject
    runs = RunFolder(folder, ["a"], overwrite=True)
    return LimitedRuns(given, given, runs, scratch, told, VERIFY, 0.1, cores), subject, told


def test_limits_get_to_the_containers_and_no_further(tmp_path: Path) -> None:
    runs, subject, told = limited(tmp_path, None)
    of = replace(STEP, output_folders=("/out/a",), servers=(server(), server("t", shared=True)))
    enforced = (Enforced("a", Resources(1500, 10**8), 2**26), Enforced("a__s", Resources(2000)))
    trial = runs.run(of, enforced, 3, 5, SECOND)
    (ran,) = subject.steps
    assert (ran.cpu_limit_millicores, ran.memory_limit_bytes, ran.shm_bytes) == (1500, 10**8 // 4096 * 4096, 2**26)
    own, shared = (each.step for each in ran.servers)
    # What is not recommended is as in any run.
    assert (own.cpu_limit_millicores, own.memory_limit_bytes, own.shm_bytes) == (2000, 10**12, 2**30)
    assert shared == of.servers[1].step
    assert subject.series == [trial.series_file] == ["a_verify3.csv"]
    assert told.begun == [
        "a: cpu 1.5, memory 100.000 MB, shared memory 67.109 MB; a__s with cpu 2; pipeline__t without limits"
    ]
    assert told.ended == [Verdict.HOLDS]
    assert trial.cached_input_bytes == 0
    assert (runs.last, runs.count) == (well(), 1)
    assert subject.renewed == [(("/out/a",), None)]


@pytest.mark.parametrize(("duration_s", "longest_s"), [(None, 5.3), (60, None)])
def test_a_run_that_takes_many_times_as_long_is_stopped(
    tmp_path: Path, duration_s: int | None, longest_s: float | None
) -> None:
    runs, subject, _ = limited(tmp_path, None)
    of = replace(STEP, duration_ns=None if duration_s is None else duration_s * SECOND)
    runs.run(of, (Enforced("a", Resources(1000, MB)),), 1, 1, SECOND // 10)
    assert subject.steps[0].timeout_ns == (None if longest_s is None else int(longest_s * SECOND))


def test_inputs_stay_where_they_are_and_outputs_move(tmp_path: Path) -> None:
    volume = Mount("/scratch/shared/a/0", "/common", read_only=False)
    beside = server(mounts=(volume, Mount("/models", "/models", read_only=True)))
    of = replace(
        STEP,
        mounts=(
            Mount("/payload", "/in", read_only=True),
            Mount("/outputs/before", "/in2", read_only=True),
            Mount("/outputs/a/mask", "/out", read_only=False),
            volume,
        ),
        output_folders=("/outputs/a", "/outputs/a/mask"),
        shared_folders=("/scratch/shared/a/0",),
        servers=(beside,),
    )
    scratch = OutputFolders(tmp_path / "trials", overwrite=True)
    runs, subject, _ = limited(tmp_path / "metrics", scratch)
    runs.run(of, (Enforced("a", Resources()),), 1, 1, None)
    (ran,) = subject.steps
    root = str(tmp_path / "trials")
    assert [mount.source for mount in ran.mounts] == [
        "/payload",
        "/outputs/before",
        f"{root}/a/mask",
        f"{root}/a__shared/0",
    ]
    assert [replace(mount, source="") for mount in ran.mounts] == [replace(mount, source="") for mount in of.mounts]
    assert ran.output_folders == (f"{root}/a", f"{root}/a/mask")
    assert ran.shared_folders == (f"{root}/a__shared/0",)
    assert [mount.source for mount in ran.servers[0].step.mounts] == [f"{root}/a__shared/0", "/models"]
    assert subject.renewed == [(ran.output_folders, scratch)]
